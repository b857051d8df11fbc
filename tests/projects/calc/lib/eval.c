#include <math.h>
#include "expr.h"

double evaluate(const Node *node) {
    switch (node->op) {
    case '#': return node->number;
    case 'f': return node->function(evaluate(node->left));
    case '~': return -evaluate(node->left);
    case '+': return evaluate(node->left) + evaluate(node->right);
    case '-': return evaluate(node->left) - evaluate(node->right);
    case '*': return evaluate(node->left) * evaluate(node->right);
    case '/': return evaluate(node->left) / evaluate(node->right);
    case '%': return fmod(evaluate(node->left), evaluate(node->right));
    default: return pow(evaluate(node->left), evaluate(node->right));
    }
}
