/* For moduli below 2^62: a long has 64 bits here. */
unsigned long mulmod(unsigned long a, unsigned long b, unsigned long m);
unsigned long powmod(unsigned long base, unsigned long exponent, unsigned long m);
