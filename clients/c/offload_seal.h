/* Sealed requests: what only the gateway reads, with answers that only the asker reads (docs/sealed.md). HPKE of
 * RFC 9180 with X25519, HKDF-SHA256 and ChaCha20-Poly1305, on libsodium. Bytes in, bytes out; offload_client.c uses it
 * where it is built with OFFLOAD_SEAL.
 */
#ifndef OFFLOAD_SEAL_H
#define OFFLOAD_SEAL_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OFFLOAD_SEAL_SUITE "x25519-sha256-chacha20poly1305"
#define OFFLOAD_SEAL_KEY 32         /* bytes of a key, public or secret, and of what is encapsulated */
#define OFFLOAD_SEAL_TAG 16         /* bytes that a sealed request has more */
#define OFFLOAD_SEAL_ANSWER (12 + 16) /* bytes that a sealed answer has more */

/* What one request is sealed with. */
struct offload_seal {
    unsigned char encapsulated[OFFLOAD_SEAL_KEY];
    unsigned char answer_key[OFFLOAD_SEAL_KEY];
    unsigned char key[OFFLOAD_SEAL_KEY]; /* used once, */
    unsigned char nonce[12];             /* with this nonce */
};

/* Random bytes; false: there are none. */
bool offload_seal_random(void *bytes, size_t size);

/* Makes what one request to this gateway is sealed with: new for each that differs in a byte. False: no random bytes,
 * or no key. */
bool offload_seal_begin(struct offload_seal *seal, const unsigned char gateway[OFFLOAD_SEAL_KEY]);

/* The same with an ephemeral secret key and an application's context of the caller's: for test vectors. */
bool offload_seal_begin_with(struct offload_seal *seal, const unsigned char gateway[OFFLOAD_SEAL_KEY],
                             const unsigned char ephemeral[OFFLOAD_SEAL_KEY], const char *info,
                             const char *exporter_context);

/* Seals a request for the topic that it is published on: size + OFFLOAD_SEAL_TAG bytes. `sealed` may be `plaintext`. */
void offload_seal_request(const struct offload_seal *seal, const char *topic, const void *plaintext, size_t size,
                          unsigned char *sealed);

/* Opens an answer that came on this topic: size - OFFLOAD_SEAL_ANSWER bytes. False: it is none to this request. */
bool offload_seal_open(const struct offload_seal *seal, const char *topic, const unsigned char *sealed, size_t size,
                       unsigned char *plaintext);

#ifdef __cplusplus
}
#endif

#endif
