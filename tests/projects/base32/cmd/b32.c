#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"

static const struct option options[] = {
    { "decode", no_argument, NULL, 'd' },
    { "wrap", required_argument, NULL, 'w' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static int encode(int wrap)
{
    unsigned char bytes[5];
    char text[8];
    size_t length;
    int column = 0;

    while ((length = fread(bytes, 1, sizeof bytes, stdin)) > 0) {
        base32_encode(bytes, length, text);
        for (int i = 0; i < 8; i++) {
            putchar(text[i]);
            if (wrap && ++column % wrap == 0)
                putchar('\n');
        }
    }
    if (!wrap || column % wrap)
        putchar('\n');
    return 0;
}

static int decode(void)
{
    char text[8];
    unsigned char bytes[5];
    int c, length = 0, n;

    while ((c = getchar()) != EOF) {
        if (c == '\n')
            continue;
        text[length++] = c;
        if (length == 8) {
            length = 0;
            n = base32_decode(text, bytes);
            if (n < 0)
                break;
            fwrite(bytes, 1, n, stdout);
        }
    }
    if (c == EOF && length == 0)
        return 0;
    fprintf(stderr, "b32: invalid input\n");
    return 1;
}

int main(int argc, char **argv)
{
    int c, decoding = 0, wrap = 76;

    while ((c = getopt_long(argc, argv, "dw:", options, NULL)) != -1) {
        switch (c) {
        case 'd':
            decoding = 1;
            break;
        case 'w':
            wrap = atoi(optarg);
            break;
        case 'h':
            printf("b32 [-d|--decode] [-w|--wrap=COLUMNS]\n");
            return 0;
        default:
            return 2;
        }
    }
    return decoding ? decode() : encode(wrap);
}
