/* A number that no other start of this board has: the seed of request ids. */
#ifndef OFFLOAD_BOOT_COUNT_H
#define OFFLOAD_BOOT_COUNT_H

#include <stdint.h>

#ifdef __AVR__

/* Counts this start in the 4 bytes of EEPROM from `address` on, and returns the count. Call it once, in `setup`. One
 * byte is written at each start, two at one of 256: an EEPROM of 100 000 writes lasts as many starts. A count that is
 * cut off by the loss of power goes on above the one before. */
uint32_t offloadBootCount(uint16_t address);

#endif
#endif
