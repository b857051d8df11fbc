/* offload_seal.h on libsodium. From the top: seal and open; then the key schedule and the labelled HKDF of RFC 9180. */
#include "offload_seal.h"

#include <string.h>

#include <sodium.h>

#define INFO "offload-rt request 1"
#define ANSWER_CONTEXT "offload-rt answer 1"

/* Bytes of a hash, and of everything that is derived but a nonce. */
#define HASH 32

/* The KEM's id in its own steps (RFC 9180, section 4.1), and the suite's in the others (section 5.1). */
struct suite {
    const char *bytes;
    size_t size;
};
static const struct suite kem = { "KEM\0\x20", 5 };
static const struct suite hpke = { "HPKE\0\x20\0\x01\0\x03", 10 };

static void extract(unsigned char out[HASH], struct suite suite, const unsigned char *salt, size_t salt_size,
                    const char *label, const void *ikm, size_t size);
static void expand(unsigned char *out, size_t length, struct suite suite, const unsigned char secret[HASH],
                   const char *label, const void *info, size_t size);

bool offload_seal_random(void *bytes, size_t size)
{
    if (sodium_init() < 0)
        return false;
    randombytes_buf(bytes, size);
    return true;
}

bool offload_seal_begin(struct offload_seal *seal, const unsigned char gateway[OFFLOAD_SEAL_KEY])
{
    unsigned char ephemeral[OFFLOAD_SEAL_KEY];
    bool done = offload_seal_random(ephemeral, sizeof ephemeral) &&
                offload_seal_begin_with(seal, gateway, ephemeral, INFO, ANSWER_CONTEXT);
    sodium_memzero(ephemeral, sizeof ephemeral);
    return done;
}

void offload_seal_request(const struct offload_seal *seal, const char *topic, const void *plaintext, size_t size,
                          unsigned char *sealed)
{
    crypto_aead_chacha20poly1305_ietf_encrypt(sealed, NULL, plaintext, size, (const unsigned char *)topic,
                                              strlen(topic), NULL, seal->nonce, seal->key);
}

bool offload_seal_open(const struct offload_seal *seal, const char *topic, const unsigned char *sealed, size_t size,
                       unsigned char *plaintext)
{
    const size_t nonce = sizeof seal->nonce;
    return size >= OFFLOAD_SEAL_ANSWER &&
           crypto_aead_chacha20poly1305_ietf_decrypt(plaintext, NULL, NULL, sealed + nonce, size - nonce,
                                                     (const unsigned char *)topic, strlen(topic), sealed,
                                                     seal->answer_key) == 0;
}

/* Encap of DHKEM (section 4.1), then the key schedule of mode_base (section 5.1) and one Export (section 5.3). */
bool offload_seal_begin_with(struct offload_seal *seal, const unsigned char gateway[OFFLOAD_SEAL_KEY],
                             const unsigned char ephemeral[OFFLOAD_SEAL_KEY], const char *info,
                             const char *exporter_context)
{
    unsigned char dh[OFFLOAD_SEAL_KEY], prk[HASH], shared[HASH], secret[HASH], exporter[HASH];
    unsigned char both[2 * OFFLOAD_SEAL_KEY], context[1 + 2 * HASH] = { 0 };
    if (sodium_init() < 0 || crypto_scalarmult_base(seal->encapsulated, ephemeral) != 0 ||
        crypto_scalarmult(dh, ephemeral, gateway) != 0)
        return false;
    memcpy(both, seal->encapsulated, OFFLOAD_SEAL_KEY);
    memcpy(both + OFFLOAD_SEAL_KEY, gateway, OFFLOAD_SEAL_KEY);
    extract(prk, kem, NULL, 0, "eae_prk", dh, sizeof dh);
    expand(shared, sizeof shared, kem, prk, "shared_secret", both, sizeof both);

    extract(context + 1, hpke, NULL, 0, "psk_id_hash", NULL, 0);
    extract(context + 1 + HASH, hpke, NULL, 0, "info_hash", info, strlen(info));
    extract(secret, hpke, shared, sizeof shared, "secret", NULL, 0);
    expand(seal->key, sizeof seal->key, hpke, secret, "key", context, sizeof context);
    expand(seal->nonce, sizeof seal->nonce, hpke, secret, "base_nonce", context, sizeof context);
    expand(exporter, sizeof exporter, hpke, secret, "exp", context, sizeof context);
    expand(seal->answer_key, sizeof seal->answer_key, hpke, exporter, "sec", exporter_context,
           strlen(exporter_context));
    sodium_memzero(dh, sizeof dh);
    sodium_memzero(prk, sizeof prk);
    sodium_memzero(shared, sizeof shared);
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(exporter, sizeof exporter);
    return true;
}

static void labelled(crypto_auth_hmacsha256_state *state, struct suite suite, const char *label, const void *bytes,
                     size_t size)
{
    crypto_auth_hmacsha256_update(state, (const unsigned char *)"HPKE-v1", 7);
    crypto_auth_hmacsha256_update(state, (const unsigned char *)suite.bytes, suite.size);
    crypto_auth_hmacsha256_update(state, (const unsigned char *)label, strlen(label));
    if (size)
        crypto_auth_hmacsha256_update(state, bytes, size);
}

/* LabeledExtract. */
static void extract(unsigned char out[HASH], struct suite suite, const unsigned char *salt, size_t salt_size,
                    const char *label, const void *ikm, size_t size)
{
    static const unsigned char none[HASH];
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, salt_size ? salt : none, salt_size ? salt_size : HASH);
    labelled(&state, suite, label, ikm, size);
    crypto_auth_hmacsha256_final(&state, out);
}

/* LabeledExpand of at most one hash: HKDF-Expand's first block. */
static void expand(unsigned char *out, size_t length, struct suite suite, const unsigned char secret[HASH],
                   const char *label, const void *info, size_t size)
{
    const unsigned char lengths[2] = { 0, (unsigned char)length }, block = 1;
    unsigned char hash[HASH];
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, secret, HASH);
    crypto_auth_hmacsha256_update(&state, lengths, sizeof lengths);
    labelled(&state, suite, label, info, size);
    crypto_auth_hmacsha256_update(&state, &block, 1);
    crypto_auth_hmacsha256_final(&state, hash);
    memcpy(out, hash, length);
    sodium_memzero(hash, sizeof hash);
}
