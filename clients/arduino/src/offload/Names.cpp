/* Words of the wire and of errors, in flash. */
#include "Names.h"

#include "../OffloadError.h"

const char OFFLOAD_FIELDS[] PROGMEM = "id\0"
                                      "status\0"
                                      "exit_code\0"
                                      "stdout\0"
                                      "stderr\0"
                                      "error\0"
                                      "run_us\0"
                                      "stdout_offset\0"
                                      "stdout_total\0"
                                      "kind\0"
                                      "message\0";

/* In the order of their codes, from OFFLOAD_MALFORMED down. */
const char OFFLOAD_KINDS[] PROGMEM = "malformed\0"
                                     "unauthorized\0"
                                     "not-found\0"
                                     "too-large\0"
                                     "busy\0"
                                     "expired\0"
                                     "timeout\0"
                                     "build\0"
                                     "compile\0"
                                     "exit\0"
                                     "trap\0"
                                     "fuel\0"
                                     "memory\0"
                                     "output\0"
                                     "internal\0"
                                     "cancelled\0"
                                     "unreachable\0";

const char OFFLOAD_LIMITS[] PROGMEM = "fuel\0"
                                      "memory\0"
                                      "timeout_ms\0";

/* In the order of their codes, from OFFLOAD_TIMEOUT down. */
static const char MEANINGS[] PROGMEM = "no answer in time\0"
                                       "no connection to the broker\0"
                                       "the broker refuses this device\0"
                                       "no request is under way\0"
                                       "the module cannot be read\0"
                                       "the gateway has run it anew\0"
                                       "an unknown kind of error\0";

uint8_t offloadFind(const char *list, const char *word) {
  for (uint8_t place = 1; pgm_read_byte(list); ++place) {
    if (!strcmp_P(word, list)) {
      return place;
    }
    list += strlen_P(list) + 1;
  }
  return 0;
}

const char *offloadMeaning(int8_t error) {
  const char *meaning = MEANINGS;
  for (int8_t code = OFFLOAD_TIMEOUT; code > error; --code) {
    meaning += strlen_P(meaning) + 1;
  }
  return meaning;
}
