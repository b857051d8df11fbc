/* expr.h -- arithmetic expressions */
#ifndef EXPR_H_INCLUDED
#define EXPR_H_INCLUDED

enum TokenKind { T_END, T_NUMBER, T_NAME, T_OPERATOR };

typedef struct Token {
    enum TokenKind kind;
    double number;
    char name[16];
    char op;
} Token;

typedef struct Lexer {
    const char *at;
    Token token;
} Lexer;

typedef struct Node {
    char op;            /* '#' number, 'f' function, '~' negation, else binary */
    double number;
    double (*function)(double);
    struct Node *left, *right;
} Node;

void lexer_next(Lexer *lexer);
Node *parse(const char *text, const char **error);
double evaluate(const Node *node);
void node_free(Node *node);

#endif /* EXPR_H_INCLUDED */
