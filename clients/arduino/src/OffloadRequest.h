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

  /* An id of the caller's own, 1 to 64 bytes, by default one of `begin`'s seed and a counter. The gateway runs it once
   * within its retention time: one that is made of what is asked ("meter 7, May") gets the same answer after a reset. */
  OffloadRequest &id(const char *text) {
    id_ = text;
    return *this;
  }

  /* Limits, which may lower the gateway's and never raise them; 0, the default, leaves them. Units of fuel (about one
   * an instruction), bytes of memory, and milliseconds from the arrival at the gateway. */
  OffloadRequest &fuel(uint32_t units) { return limit(0, units); }
  OffloadRequest &memory(uint32_t bytes) { return limit(1, bytes); }
  OffloadRequest &timeout(uint32_t time) { return limit(2, time); }

  /* Standard input, by default none. */
  OffloadRequest &input(const void *bytes, uint16_t size) {
    input_ = static_cast<const uint8_t *>(bytes);
    input_size_ = size;
    return *this;
  }

  const char *program_;
  const char *id_;
  OffloadCode code_;
  const char *const *args_;
  const uint8_t *input_;
  uint16_t input_size_;
  uint8_t count_;
  /* In the order of `OFFLOAD_LIMITS` in offload/Names.cpp. */
  uint32_t limits_[3];

private:
  OffloadRequest &limit(uint8_t which, uint32_t most) {
    limits_[which] = most;
    return *this;
  }
};

#endif
