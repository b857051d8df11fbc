/* Arduino's base class of connections, for tests on a PC. */
#ifndef CLIENT_ON_PC_H
#define CLIENT_ON_PC_H

#include "Arduino.h"

struct Client : Stream {
  virtual int connect(IPAddress address, uint16_t port) = 0;
  virtual int connect(const char *host, uint16_t port) = 0;
  virtual void stop() = 0;
  virtual uint8_t connected() = 0;
};

#endif
