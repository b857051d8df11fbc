#pragma once

#include <stdbool.h>
#include <stdio.h>

typedef struct board board_t;

/* Rows of '.' and '*' with '/' between them; a torus. NULL if there is no memory. */
board_t *board_from_rows(const char *rows);
void board_free(board_t *board);

bool board_step(board_t *board);
int board_population(const board_t *board);
void board_print(const board_t *board, FILE *stream);
