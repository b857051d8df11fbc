/* The count of starts in an AVR's EEPROM. */
#include "OffloadBootCount.h"

#ifdef __AVR__

#include <avr/eeprom.h>

uint32_t offloadBootCount(uint16_t address) {
  uint8_t *cell = reinterpret_cast<uint8_t *>(address);
  uint32_t count = eeprom_read_dword(reinterpret_cast<uint32_t *>(cell)) + 1;
  /* The highest byte first: whatever a loss of power leaves is the old count, the new one, or larger than both. An
   * erased byte is 0xFF, and writing clears bits of that. */
  for (int8_t place = 3; place >= 0; --place) {
    eeprom_update_byte(cell + place, static_cast<uint8_t>(count >> (8 * place)));
  }
  return count;
}

#endif
