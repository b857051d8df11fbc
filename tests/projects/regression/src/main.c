#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fit.h"

/* Reads pairs of numbers from standard input; "log" takes the logarithm of each y first. */
int main(int argc, char **argv)
{
    struct series series = {0};
    struct fit fit;
    double x, y;
    int logarithmic = argc > 1 && strcmp(argv[1], "log") == 0;
    int status = EXIT_SUCCESS;

    while (scanf("%lf %lf", &x, &y) == 2)
        series_add(&series, x, logarithmic ? log(y) : y);
    if (fit_line(&series, &fit) == 0) {
        printf("y = %.4f x %+.4f\n", fit.slope, fit.intercept);
        printf("r = %.6f, residual %.6f, n = %zu\n", fit.correlation, fit.residual, series.length);
        if (logarithmic)
            printf("grows by %.3f %% a step\n", 100 * expm1(fit.slope));
    } else {
        fprintf(stderr, "regression: no line through %zu points\n", series.length);
        status = 2;
    }
    series_free(&series);
    return status;
}
