/* The Ethernet library's face, over the serial line. */
#ifndef ETHERNET_STAND_IN_H
#define ETHERNET_STAND_IN_H

#include "SerialClient.h"

typedef SerialClient EthernetClient;

struct EthernetClass {
  int begin(const uint8_t *) { return 1; }
};
static EthernetClass Ethernet;

#endif
