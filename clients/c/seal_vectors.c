/* Checks offload_seal.c against RFC 9180, A.2.1; exits 0 if it is right. */
#include <stdio.h>
#include <string.h>

#include "offload_seal.h"

static void unhex(unsigned char *bytes, const char *hex)
{
    for (unsigned value; sscanf(hex, "%2x", &value) == 1; hex += 2)
        *bytes++ = (unsigned char)value;
}

static int differs(const char *what, const unsigned char *bytes, size_t size, const char *hex)
{
    unsigned char expected[64];
    unhex(expected, hex);
    if (memcmp(bytes, expected, size) == 0)
        return 0;
    fprintf(stderr, "%s is another than that of RFC 9180\n", what);
    return 1;
}

int main(void)
{
    struct offload_seal seal;
    unsigned char ephemeral[32], gateway[32], sealed[64];
    static const char plaintext[] = "Beauty is truth, truth beauty";
    unhex(ephemeral, "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600");
    unhex(gateway, "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
    if (!offload_seal_begin_with(&seal, gateway, ephemeral, "Ode on a Grecian Urn", "TestContext"))
        return 2;
    int wrong = differs("enc", seal.encapsulated, 32,
                        "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
    wrong |= differs("export", seal.answer_key, 32, "5acb09211139c43b3090489a9da433e8a30ee7188ba8b0a9a1ccf0c229283e53");
    offload_seal_request(&seal, "Count-0", plaintext, sizeof plaintext - 1, sealed);
    wrong |= differs("ct", sealed, 45,
                     "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28");
    return wrong;
}
