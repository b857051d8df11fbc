/* Lists the primes up to its argument, one a line; with `--count` before it, only how many there are. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A byte a number: what a guest may use of memory by default holds several times as much. */
#define LARGEST 10000000

static int usage(void)
{
    fprintf(stderr, "usage: primes [--count] N, with N from 0 to %d\n", LARGEST);
    return 2;
}

int main(int argc, char **argv)
{
    int only_count = argc == 3 && strcmp(argv[1], "--count") == 0;
    if (argc != 2 + only_count)
        return usage();

    char *end;
    errno = 0;
    long limit = strtol(argv[argc - 1], &end, 10);
    if (errno != 0 || end == argv[argc - 1] || *end != '\0' || limit < 0 || limit > LARGEST)
        return usage();

    /* The sieve of Eratosthenes. */
    unsigned char *composite = calloc((size_t)limit + 1, 1);
    if (composite == NULL) {
        fprintf(stderr, "primes: not enough memory\n");
        return 1;
    }
    long count = 0;
    for (long number = 2; number <= limit; number++) {
        if (composite[number])
            continue;
        count++;
        if (!only_count)
            printf("%ld\n", number);
        /* The first test keeps the square from overflowing where long has 32 bits. */
        if (number <= limit / number)
            for (long multiple = number * number; multiple <= limit; multiple += number)
                composite[multiple] = 1;
    }
    if (only_count)
        printf("%ld\n", count);
    free(composite);
    return fflush(stdout) == 0 ? 0 : 1;
}
