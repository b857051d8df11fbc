/* Needs the C library, its mathematics, and a function that compat.c adds. */
#include <err.h>
#include <math.h>
#include <stdio.h>

int main(int n, char **words) {
    if (n > 9)
        errx(1, "%s", words[9]);
    return printf("%g", sqrt(n)) < 0;
}
