#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "expr.h"

void lexer_next(Lexer *lexer) {
    Token *token = &lexer->token;
    while (isspace((unsigned char)*lexer->at)) lexer->at++;
    if (*lexer->at == '\0') {
        token->kind = T_END;
    } else if (isdigit((unsigned char)*lexer->at) || *lexer->at == '.') {
        char *end;
        token->kind = T_NUMBER;
        token->number = strtod(lexer->at, &end);
        /* "." alone is no number. */
        if (end == lexer->at) {
            token->kind = T_OPERATOR;
            token->op = *lexer->at++;
        } else {
            lexer->at = end;
        }
    } else if (isalpha((unsigned char)*lexer->at)) {
        size_t n = 0;
        token->kind = T_NAME;
        memset(token->name, 0, sizeof token->name);
        while (isalnum((unsigned char)*lexer->at)) {
            if (n < sizeof token->name - 1) token->name[n++] = *lexer->at;
            lexer->at++;
        }
    } else {
        token->kind = T_OPERATOR;
        token->op = *lexer->at++;
    }
}
