// Asks a gateway for the sum of two numbers, every ten seconds.
#include <Ethernet.h>
#include <Offload.h>

// The board's own, as on its sticker; any that no other board has.
byte mac[] = {0xDE, 0xAD, 0xBE, 0xEF, 0xFE, 0xED};

EthernetClient network;
OffloadGateway gateway(network);

void setup() {
  Serial.begin(9600);
  if (!Ethernet.begin(mac)) {
    Serial.println(F("no address by DHCP"));
  }
  network.setConnectionTimeout(2000);
  // The gateway's address, and a name for this board. 0 is where in its EEPROM it counts its starts.
  gateway.begin("192.168.1.10", 1883, "dev1", offloadBootCount(0));
  gateway.credentials("dev1", "its password");
}

void loop() {
  const char *args[] = {"5", "7"};
  char answer[16];
  long length = gateway.run("add", args, 2, answer, sizeof answer, 10000);
  if (length >= 0) {
    Serial.write(answer, length);
  } else {
    Serial.print(F("error "));
    Serial.print(length);
    Serial.print(F(": "));
    Serial.println(gateway.errorText());
  }
  // A time without `poll` is no harm: a connection that has been lost meanwhile is made again.
  delay(10000);
}
