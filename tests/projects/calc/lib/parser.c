#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "expr.h"

typedef struct Parser {
    Lexer lexer;
    const char *error;
} Parser;

static const struct { const char *name; double (*function)(double); } functions[] = {
    { "sqrt", sqrt }, { "sin", sin }, { "cos", cos }, { "exp", exp }, { "ln", log }, { "floor", floor },
};

static Node *sum(Parser *parser);

static Node *node(char op, Node *left, Node *right) {
    Node *made = calloc(1, sizeof *made);
    if (made == NULL) abort();
    made->op = op;
    made->left = left;
    made->right = right;
    return made;
}

static Node *fail(Parser *parser, const char *error) {
    if (parser->error == NULL) parser->error = error;
    return node('#', NULL, NULL);
}

static int is_op(Parser *parser, char op) {
    return parser->lexer.token.kind == T_OPERATOR && parser->lexer.token.op == op;
}

static Node *in_parentheses(Parser *parser) {
    Node *inner;
    if (!is_op(parser, '(')) return fail(parser, "expected (");
    lexer_next(&parser->lexer);
    inner = sum(parser);
    if (is_op(parser, ')')) lexer_next(&parser->lexer);
    else if (parser->error == NULL) parser->error = "expected )";
    return inner;
}

static Node *primary(Parser *parser) {
    Token token = parser->lexer.token;
    size_t i;
    if (token.kind == T_NUMBER) {
        Node *made = node('#', NULL, NULL);
        made->number = token.number;
        lexer_next(&parser->lexer);
        return made;
    }
    if (token.kind == T_NAME) {
        lexer_next(&parser->lexer);
        for (i = 0; i < sizeof functions / sizeof functions[0]; i++) {
            if (strcmp(functions[i].name, token.name) == 0) {
                Node *made = node('f', in_parentheses(parser), NULL);
                made->function = functions[i].function;
                return made;
            }
        }
        return fail(parser, "unknown function");
    }
    if (is_op(parser, '-')) {
        lexer_next(&parser->lexer);
        return node('~', primary(parser), NULL);
    }
    return in_parentheses(parser);
}

/* To the right: 2^3^2 is 512. */
static Node *power(Parser *parser) {
    Node *base = primary(parser);
    if (!is_op(parser, '^')) return base;
    lexer_next(&parser->lexer);
    return node('^', base, power(parser));
}

static Node *product(Parser *parser) {
    Node *left = power(parser);
    while (is_op(parser, '*') || is_op(parser, '/') || is_op(parser, '%')) {
        char op = parser->lexer.token.op;
        lexer_next(&parser->lexer);
        left = node(op, left, power(parser));
    }
    return left;
}

static Node *sum(Parser *parser) {
    Node *left = product(parser);
    while (is_op(parser, '+') || is_op(parser, '-')) {
        char op = parser->lexer.token.op;
        lexer_next(&parser->lexer);
        left = node(op, left, product(parser));
    }
    return left;
}

Node *parse(const char *text, const char **error) {
    Parser parser = { { text, { T_END, 0, "", 0 } }, NULL };
    Node *tree;
    lexer_next(&parser.lexer);
    tree = sum(&parser);
    if (parser.error == NULL && parser.lexer.token.kind != T_END) parser.error = "expected an operator";
    *error = parser.error;
    return tree;
}

void node_free(Node *tree) {
    if (tree == NULL) return;
    node_free(tree->left);
    node_free(tree->right);
    free(tree);
}
