/* The face of an ESP32's connections by TLS, over the serial line. */
#ifndef WIFI_CLIENT_SECURE_STAND_IN_H
#define WIFI_CLIENT_SECURE_STAND_IN_H

#include "SerialClient.h"

struct WiFiClientSecure : SerialClient {
  void setCACert(const char *) {}
  void setCertificate(const char *) {}
  void setPrivateKey(const char *) {}
};

#endif
