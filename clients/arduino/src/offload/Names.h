/* Words of the wire and of errors, in flash. */
#ifndef OFFLOAD_NAMES_H
#define OFFLOAD_NAMES_H

#include <Arduino.h>

/* Fields of an answer's envelope, in the order of `OFFLOAD_FIELDS`. */
enum class OffloadField : uint8_t {
  None,
  Id,
  Status,
  ExitCode,
  Stdout,
  Stderr,
  Error,
  RunMicros,
  Offset,
  Total,
  Kind,
  Message
};

/* Lists of words, each with its end, and an empty one behind the last. */
extern const char OFFLOAD_FIELDS[] PROGMEM;
extern const char OFFLOAD_KINDS[] PROGMEM;
/* A request's limits. */
extern const char OFFLOAD_LIMITS[] PROGMEM;

/* Bytes of the longest word of both, and its end. */
const uint8_t OFFLOAD_WORD = 14;

/* Where the word is in the list, from 1 on; 0: it is not. */
uint8_t offloadFind(const char *list, const char *word);

/* What one of the library's own errors means, in flash. */
const char *offloadMeaning(int8_t error);

#endif
