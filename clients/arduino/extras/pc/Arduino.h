/* What the Arduino library uses of Arduino's own, for tests on a PC: base classes, and a clock that the test sets. */
#ifndef ARDUINO_ON_PC_H
#define ARDUINO_ON_PC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PROGMEM
#define PSTR(text) (text)
#define pgm_read_byte(address) (*reinterpret_cast<const uint8_t *>(address))
#define strcmp_P strcmp
#define strlen_P strlen
#define strncmp_P strncmp
#define strncpy_P strncpy
#define memcpy_P memcpy

unsigned long millis();
unsigned long micros();
void yield();

struct IPAddress {
  IPAddress(uint32_t = 0) {}
  operator uint32_t() const { return 0; }
};

struct Print {
  virtual ~Print() = default;
  virtual size_t write(uint8_t) = 0;
  virtual size_t write(const uint8_t *bytes, size_t size) = 0;
  virtual int availableForWrite() { return 0; }
};

struct Stream : Print {
  virtual int available() = 0;
  virtual int read() = 0;
};

#endif
