#include <stdio.h>
#include <stdlib.h>

#include "modular.h"

static const unsigned long witnesses[] = { 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37 };

#define COUNT (sizeof witnesses / sizeof *witnesses)

/* Miller and Rabin, which is certain for 64 bits with these witnesses. */
static int is_prime(unsigned long n)
{
    unsigned long odd = n - 1, x;
    int twos = 0;

    if (n < 2)
        return 0;
    for (size_t i = 0; i < COUNT; i++)
        if (n % witnesses[i] == 0)
            return n == witnesses[i];
    for (; odd % 2 == 0; odd /= 2)
        twos++;
    for (size_t i = 0; i < COUNT; i++) {
        int round = 0;

        x = powmod(witnesses[i], odd, n);
        if (x == 1 || x == n - 1)
            continue;
        while (++round < twos && (x = mulmod(x, x, n)) != n - 1)
            ;
        if (round == twos)
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    printf("long has %zu bits\n", 8 * sizeof(long));
    for (int i = 1; i < argc; i++) {
        unsigned long n = strtoul(argv[i], NULL, 0);

        while (!is_prime(n))
            n++;
        printf("%s: %lu, 3 to the %lu is %lu\n", argv[i], n, n / 2, powmod(3, n / 2, n));
    }
    return 0;
}
