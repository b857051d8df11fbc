#include "codec/codec.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

void base32_encode(const unsigned char *bytes, size_t length, char text[8])
{
    unsigned long long group = 0;
    size_t i, used = (length * 8 + 4) / 5;

    for (i = 0; i < 5; i++)
        group = group << 8 | (i < length ? bytes[i] : 0);
    for (i = 0; i < 8; i++)
        text[i] = i < used ? alphabet[group >> (35 - 5 * i) & 31] : '=';
}
