#ifndef SERIES_H
#define SERIES_H

#include <stddef.h>

struct series {
    double *x, *y;
    size_t length, room;
};

void series_add(struct series *series, double x, double y);
void series_free(struct series *series);

#endif
