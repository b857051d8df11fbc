#include "modular.h"

/* By doubling, so that no sum has more than 64 bits. */
unsigned long mulmod(unsigned long a, unsigned long b, unsigned long m)
{
    unsigned long product = 0;

    for (a %= m; b; b >>= 1, a = (a + a) % m)
        if (b & 1)
            product = (product + a) % m;
    return product;
}

unsigned long powmod(unsigned long base, unsigned long exponent, unsigned long m)
{
    unsigned long result = 1 % m;

    for (; exponent; exponent >>= 1, base = mulmod(base, base, m))
        if (exponent & 1)
            result = mulmod(result, base, m);
    return result;
}
