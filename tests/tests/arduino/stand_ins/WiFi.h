/* The WiFi library's face, as on an ESP32. */
#ifndef WIFI_STAND_IN_H
#define WIFI_STAND_IN_H

#include "SerialClient.h"

struct WiFiClass {
  int begin(const char *, const char *) { return 0; }
};
static WiFiClass WiFi;

inline uint32_t esp_random() { return 4; }

#endif
