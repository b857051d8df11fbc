#ifndef FIT_H
#define FIT_H

#include "series.h"

struct fit {
    double slope, intercept;
    double correlation;
    double residual; /* standard deviation of what is left */
};

/* Returns 0, or -1 where all x are the same. */
int fit_line(const struct series *series, struct fit *fit);

double mean(const double *values, size_t length);
double deviation(const double *values, size_t length);

#endif
