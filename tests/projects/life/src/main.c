#include <stdlib.h>
#include <string.h>

#include "board.h"
#include "patterns.h"

static const char *find(const char *name)
{
    for (const struct pattern *p = patterns; p->name; p++)
        if (strcmp(p->name, name) == 0)
            return p->rows;
    return NULL;
}

int main(int argc, char **argv)
{
    const char *rows = argc == 3 ? find(argv[1]) : NULL;
    long steps = argc == 3 ? strtol(argv[2], NULL, 10) : 0, step;
    board_t *board;

    if (!rows) {
        fputs("usage: life PATTERN STEPS\npatterns:", stderr);
        for (const struct pattern *p = patterns; p->name; p++)
            fprintf(stderr, " %s", p->name);
        fputc('\n', stderr);
        return 1;
    }
    board = board_from_rows(rows);
    if (!board)
        return 2;
    for (step = 0; step < steps && board_step(board); step++)
        ;
    board_print(board, stdout);
    printf("%d alive after %ld steps\n", board_population(board), step);
    board_free(board);
    return 0;
}
