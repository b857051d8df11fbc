#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/expr.h"

static int calculate(const char *text) {
    const char *error;
    Node *tree = parse(text, &error);
    if (error) fprintf(stderr, "calc: %s: %s\n", text, error);
    else printf("%.10g\n", evaluate(tree));
    node_free(tree);
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Each argument is an expression; without any, each line of standard input. */
int main(int argc, char *argv[]) {
    int status = EXIT_SUCCESS;
    if (argc > 1) {
        for (int i = 1; i < argc; i++) status |= calculate(argv[i]);
    } else {
        char line[1024];
        while (fgets(line, sizeof line, stdin)) {
            line[strcspn(line, "\n")] = '\0';
            if (line[0] != '\0') status |= calculate(line);
        }
    }
    return status;
}
