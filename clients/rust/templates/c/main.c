/* Adds up the numbers in its arguments and on its standard input. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static long long sum;

static void add(const char *word) {
    char *end;
    errno = 0;
    long long number = strtoll(word, &end, 10);
    if (errno || end == word || *end) {
        fprintf(stderr, "not a number: %s\n", word);
        exit(1);
    }
    if (__builtin_add_overflow(sum, number, &sum)) {
        fprintf(stderr, "the sum is too large\n");
        exit(1);
    }
}

int main(int argc, char **argv) {
    char word[64];
    for (int i = 1; i < argc; i++) add(argv[i]);
    while (scanf("%63s", word) == 1) add(word);
    printf("%lld\n", sum);
    return 0;
}
