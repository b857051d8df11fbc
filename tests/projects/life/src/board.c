#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "board.h"

struct board {
    int width, height;
    uint8_t *cells;
    uint8_t *next;
};

board_t *board_from_rows(const char *rows)
{
    board_t *board = calloc(1, sizeof(*board));

    if (!board)
        return NULL;
    board->width = strcspn(rows, "/");
    board->height = 1;
    for (const char *c = rows; *c; c++)
        board->height += *c == '/';
    board->cells = calloc(board->width, board->height);
    board->next = calloc(board->width, board->height);
    if (!board->cells || !board->next) {
        board_free(board);
        return NULL;
    }
    for (int y = 0; y < board->height; y++, rows += board->width + 1)
        for (int x = 0; x < board->width; x++)
            board->cells[y * board->width + x] = rows[x] == '*';
    return board;
}

void board_free(board_t *board)
{
    free(board->cells);
    free(board->next);
    free(board);
}

static int neighbours(const board_t *board, int x, int y)
{
    int count = 0;

    for (int dy = -1; dy <= 1; dy++)
        for (int dx = -1; dx <= 1; dx++) {
            int column = (x + dx + board->width) % board->width;
            int row = (y + dy + board->height) % board->height;

            if (dx || dy)
                count += board->cells[row * board->width + column];
        }
    return count;
}

/* Whether anything has changed. */
bool board_step(board_t *board)
{
    size_t size = (size_t)board->width * board->height;
    uint8_t *cells = board->cells;
    bool changed;

    for (int y = 0; y < board->height; y++)
        for (int x = 0; x < board->width; x++) {
            int count = neighbours(board, x, y);
            bool alive = cells[y * board->width + x];

            board->next[y * board->width + x] = count == 3 || (alive && count == 2);
        }
    changed = memcmp(cells, board->next, size) != 0;
    board->cells = board->next;
    board->next = cells;
    return changed;
}

int board_population(const board_t *board)
{
    int count = 0;

    for (int i = 0; i < board->width * board->height; i++)
        count += board->cells[i];
    return count;
}

void board_print(const board_t *board, FILE *stream)
{
    for (int y = 0; y < board->height; y++) {
        for (int x = 0; x < board->width; x++)
            fputc(board->cells[y * board->width + x] ? '*' : '.', stream);
        fputc('\n', stream);
    }
}
