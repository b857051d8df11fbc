#ifndef CODEC_CODEC_H
#define CODEC_CODEC_H

#include <stddef.h>

/* RFC 4648. Five bytes make eight characters; the last ones are padded with '='. */
void base32_encode(const unsigned char *bytes, size_t length, char text[8]);

/* Returns how many bytes eight characters are, or -1 where they are none. */
int base32_decode(const char text[8], unsigned char bytes[5]);

#endif
