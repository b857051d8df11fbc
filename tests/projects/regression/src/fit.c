#include <math.h>

#include "fit.h"

double mean(const double *values, size_t length)
{
    double sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += values[i];
    return sum / (double)length;
}

double deviation(const double *values, size_t length)
{
    double middle = mean(values, length), sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += pow(values[i] - middle, 2);
    return sqrt(sum / (double)length);
}

int fit_line(const struct series *series, struct fit *fit)
{
    double x = mean(series->x, series->length), y = mean(series->y, series->length);
    double dx = deviation(series->x, series->length), dy = deviation(series->y, series->length);
    double covariance = 0, left = 0;

    if (series->length == 0 || dx == 0)
        return -1;
    for (size_t i = 0; i < series->length; i++)
        covariance += (series->x[i] - x) * (series->y[i] - y);
    covariance /= (double)series->length;
    fit->slope = covariance / (dx * dx);
    fit->intercept = y - fit->slope * x;
    fit->correlation = dy == 0 ? 1 : covariance / (dx * dy);
    for (size_t i = 0; i < series->length; i++)
        left += pow(series->y[i] - fit->intercept - fit->slope * series->x[i], 2);
    fit->residual = sqrt(left / (double)series->length);
    return 0;
}
