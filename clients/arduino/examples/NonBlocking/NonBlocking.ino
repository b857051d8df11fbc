// Blinks while the gateway computes: nothing here waits.
#include <Ethernet.h>
#include <Offload.h>

byte mac[] = {0xDE, 0xAD, 0xBE, 0xEF, 0xFE, 0xED};

EthernetClient network;
OffloadGateway gateway(network);
const char *args[] = {"2000"};
char answer[16];
bool asked = false;

void setup() {
  Serial.begin(9600);
  pinMode(LED_BUILTIN, OUTPUT);
  Ethernet.begin(mac);
  network.setConnectionTimeout(200);
  gateway.begin("192.168.1.10", 1883, "dev1", offloadBootCount(0));
}

void loop() {
  digitalWrite(LED_BUILTIN, millis() / 250 % 2);
  gateway.poll();
  if (!asked) {
    gateway.start(OffloadRequest::program("sleep").args(args), answer, sizeof answer);
    asked = true;
  } else if (!gateway.pending()) {
    if (gateway.result() >= 0) {
      Serial.write(answer, gateway.length());
    } else {
      Serial.println(gateway.errorText());
    }
    asked = false;
  }
}
