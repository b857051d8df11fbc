// Sends a module of any size from a card: it is read 32 bytes at a time while it is sent.
#include <Ethernet.h>
#include <Offload.h>
#include <SD.h>

const uint8_t CARD_PIN = 4;
byte mac[] = {0xDE, 0xAD, 0xBE, 0xEF, 0xFE, 0xED};

EthernetClient network;
OffloadGateway gateway(network);
File file;

bool readFile(void *, uint32_t offset, uint8_t *to, uint8_t count) {
  return file.seek(offset) && file.read(to, count) == count;
}

void setup() {
  Serial.begin(9600);
  Ethernet.begin(mac);
  SD.begin(CARD_PIN);
  file = SD.open("filter.wsm");
  gateway.begin("192.168.1.10", 1883, "dev1", offloadBootCount(0));
}

void loop() {
  char answer[64];
  OffloadCode code = OffloadCode::from(readFile, nullptr, file.size());
  const char input[] = "21.5 21.7 35.9 21.6\n";
  OffloadRequest request = OffloadRequest::module(code).input(input, sizeof input - 1);
  long length = gateway.run(request, answer, sizeof answer, 60000);
  if (length >= 0) {
    Serial.write(answer, length);
  } else {
    Serial.println(gateway.errorText());
  }
  delay(60000);
}
