#include <string.h>

#include "codec/codec.h"

static int value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= '2' && c <= '7')
        return c - '2' + 26;
    return -1;
}

int base32_decode(const char text[8], unsigned char bytes[5])
{
    static const int lengths[] = { -1, -1, 1, -1, 2, 3, -1, 4, 5 };
    unsigned long long group = 0;
    int i, used = 0;

    while (used < 8 && text[used] != '=')
        used++;
    for (i = 0; i < 8; i++) {
        int bits = i < used ? value(text[i]) : 0;
        if (bits < 0 || (i >= used && text[i] != '='))
            return -1;
        group = group << 5 | (unsigned)bits;
    }
    for (i = 4; i >= 0; i--, group >>= 8)
        bytes[i] = group & 255;
    return lengths[used];
}
