// Fetches an answer that is longer than the board's RAM, part by part.
#include <Ethernet.h>
#include <Offload.h>

byte mac[] = {0xDE, 0xAD, 0xBE, 0xEF, 0xFE, 0xED};

EthernetClient network;
OffloadGateway gateway(network);
char part[128];

void setup() {
  Serial.begin(9600);
  Ethernet.begin(mac);
  gateway.begin("192.168.1.10", 1883, "dev1", offloadBootCount(0));
}

void loop() {
  const char *args[] = {"17000"};
  long length = gateway.run("primes", args, 1, part, sizeof part, 30000);
  while (length > 0) {
    Serial.write(part, length);
    length = gateway.next(30000);
  }
  if (length < 0) {
    // OFFLOAD_OTHER_RUN: the gateway has forgotten what it had begun to send. From the start, then.
    Serial.println(gateway.errorText());
  }
  delay(60000);
}
