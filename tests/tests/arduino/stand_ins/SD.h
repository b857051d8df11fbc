/* The card library's face: a card without files. */
#ifndef SD_STAND_IN_H
#define SD_STAND_IN_H

#include <Arduino.h>

struct File {
  bool seek(uint32_t) { return false; }
  int read(void *, uint16_t) { return -1; }
  uint32_t size() { return 0; }
};

struct SDClass {
  bool begin(uint8_t) { return false; }
  File open(const char *) { return File(); }
};
static SDClass SD;

#endif
