// Sends a WebAssembly module from flash, and prints what it prints.
#include <Ethernet.h>
#include <Offload.h>

#include "module.h"

byte mac[] = {0xDE, 0xAD, 0xBE, 0xEF, 0xFE, 0xED};

// As `sha256sum` prints it. The gateway is asked by it first, and gets the module once.
const char DIGEST[] = "sha256:e3a043b2e308e8ccf65166e1e8b17743ab6d39496f911e22be0d4bbc5fb1f082";

EthernetClient network;
OffloadGateway gateway(network);
OffloadCode code = OffloadCode::flash(MODULE, sizeof MODULE).digest(DIGEST);

void setup() {
  Serial.begin(9600);
  Ethernet.begin(mac);
  gateway.begin("192.168.1.10", 1883, "dev1", offloadBootCount(0));
}

void loop() {
  char answer[32];
  long length = gateway.run(OffloadRequest::module(code), answer, sizeof answer, 30000);
  if (length >= 0) {
    Serial.write(answer, length);
  } else {
    Serial.println(gateway.errorText());
  }
  delay(10000);
}
