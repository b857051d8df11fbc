/* Prints a picture of the Mandelbrot set: a PGM of 8 bits as text (P2), which every image program reads.

   Numbers are integers with FRACTION bits after the point: the picture is the same on every machine. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* |z| never gets to 8 = 2^3, so that every product stays below 2^63. */
#define FRACTION 28

/* Pixels in each direction, and steps for each of them. */
#define MOST_PIXELS 4096
#define MOST_STEPS 65535

#define WHITE 255

/* The part of the plane that is shown: from -2.5 to 1 and from -1.25 to 1.25. */
#define LEFT (-5 * ((int64_t)1 << FRACTION) / 2)
#define TOP (5 * ((int64_t)1 << FRACTION) / 4)
#define WIDE (7 * ((int64_t)1 << FRACTION) / 2)
#define HIGH (2 * TOP)

static int usage(void)
{
    fprintf(stderr, "usage: mandelbrot [WIDTH HEIGHT [STEPS]], with 1 to %d pixels and 1 to %d steps\n", MOST_PIXELS,
            MOST_STEPS);
    return 2;
}

/* A decimal number from 1 to most, or 0. */
static long number(const char *text, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && value >= 1 && value <= most ? value : 0;
}

/* The product of two such numbers. */
static int64_t times(int64_t a, int64_t b)
{
    return a * b / ((int64_t)1 << FRACTION);
}

/* How many steps of z = z * z + c, from 0, stay within the circle of radius 2: at most `most`. */
static long steps_within(int64_t real, int64_t imaginary, long most)
{
    int64_t x = 0, y = 0;
    for (long step = 0; step < most; step++) {
        int64_t xx = times(x, x), yy = times(y, y);
        if (xx + yy > (int64_t)4 << FRACTION)
            return step;
        y = 2 * times(x, y) + imaginary;
        x = xx - yy + real;
    }
    return most;
}

int main(int argc, char **argv)
{
    long width = 60, height = 40, steps = 100;
    if (argc == 2 || argc > 4)
        return usage();
    if (argc >= 3) {
        width = number(argv[1], MOST_PIXELS);
        height = number(argv[2], MOST_PIXELS);
    }
    if (argc == 4)
        steps = number(argv[3], MOST_STEPS);
    if (width == 0 || height == 0 || steps == 0)
        return usage();

    printf("P2\n%ld %ld\n%d\n", width, height, WHITE);
    for (long row = 0; row < height; row++) {
        /* The middle of each pixel. */
        int64_t imaginary = TOP - HIGH * (2 * row + 1) / (2 * height);
        for (long column = 0; column < width; column++) {
            int64_t real = LEFT + WIDE * (2 * column + 1) / (2 * width);
            /* The set is black; the longer a point stays near it, the darker. */
            long within = steps_within(real, imaginary, steps);
            printf(column + 1 < width ? "%ld " : "%ld\n", WHITE - WHITE * within / steps);
        }
    }
    return fflush(stdout) == 0 && ferror(stdout) == 0 ? 0 : 1;
}
