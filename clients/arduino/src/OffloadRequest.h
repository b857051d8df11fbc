/* What is asked of the gateway: a program that it has, or code that it gets, with arguments and input. */
#ifndef OFFLOAD_REQUEST_H
#define OFFLOAD_REQUEST_H

#include <stdint.h>

/* A WebAssembly module, read piece by piece while it is sent. It is never in RAM as a whole. */
struct OffloadCode {
  /* Copies `count` bytes (OFFLOAD_CHUNK at most) from `offset` on. Is asked again for the same bytes when the request
   * is repeated. False: they cannot be read. */
  typedef bool (*Reader)(void *context, uint32_t offset, uint8_t *to, uint8_t count);

  /* From flash: an array with PROGMEM, in the lowest 64 KB on an AVR. */
  static OffloadCode flash(const void *module, uint32_t size);
  /* From RAM. */
  static OffloadCode ram(const void *module, uint32_t size);
  /* From wherever this reads it: a card, another chip, a generator. */
  static OffloadCode from(Reader reader, void *context, uint32_t size);

  /* With its SHA-256 as `sha256sum` prints it, 64 digits, behind "sha256:". Then the gateway is asked by that first,
   * and gets the module only when it does not have it yet. */
  OffloadCode &digest(const char *text) {
    digest_ = text;
    return *this;
  }

  Reader reader_;
  void *context_;
  uint32_t size_;
  const char *digest_;
};

/* The texts, the input and the module are not copied. */
struct OffloadRequest {
  /* A program that the gateway has, by name; or a module that it was sent before, as "sha256:" and 64 digits. */
  static OffloadRequest program(const char *name);
  /* Code that it gets. */
  static OffloadRequest module(const OffloadCode &code);

  /* Arguments, by default none. */
  OffloadRequest &args(const char *const *list, uint8_t count) {
    args_ = list;
    count_ = count;
    return *this;
  }
  template <uint8_t N> OffloadRequest &args(const char *const (&list)[N]) { return args(list, N); }

  /* Standard input, by default none. */
  OffloadRequest &input(const void *bytes, uint16_t size) {
    input_ = static_cast<const uint8_t *>(bytes);
    input_size_ = size;
    return *this;
  }

  const char *program_;
  OffloadCode code_;
  const char *const *args_;
  const uint8_t *input_;
  uint16_t input_size_;
  uint8_t count_;
};

#endif
