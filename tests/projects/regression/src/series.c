#include <stdio.h>
#include <stdlib.h>

#include "series.h"

static double *grown(double *values, size_t room)
{
    values = realloc(values, room * sizeof *values);
    if (values == NULL) {
        perror("regression");
        exit(EXIT_FAILURE);
    }
    return values;
}

void series_add(struct series *series, double x, double y)
{
    if (series->length == series->room) {
        series->room = series->room ? 2 * series->room : 4;
        series->x = grown(series->x, series->room);
        series->y = grown(series->y, series->room);
    }
    series->x[series->length] = x;
    series->y[series->length++] = y;
}

void series_free(struct series *series)
{
    free(series->x);
    free(series->y);
}
