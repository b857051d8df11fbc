#include <stdio.h>

/* FNV-1a of standard input, with what a 64-bit long gives by itself. */
int main(void)
{
    unsigned long hash = 0xcbf29ce484222325ul;
    long sum = 0;
    int c;

    while ((c = getchar()) != EOF) {
        hash = (hash ^ (unsigned long)c) * 0x100000001b3ul;
        sum += (long)c << 33;
    }
    printf("%016lx %ld\n", hash, sum);
    return 0;
}
