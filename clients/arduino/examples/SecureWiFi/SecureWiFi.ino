// Asks a gateway by TLS, from an ESP32: the board knows the gateway by its authority, and has a certificate of its own.
#include <Offload.h>
#include <WiFi.h>
#include <WiFiClientSecure.h>

// keys/ca.pem, keys/dev2.pem and keys/dev2.key, as `offload-rt keygen keys` wrote them.
const char CA[] = "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n";
const char CERTIFICATE[] = "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n";
const char KEY[] = "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n";

WiFiClientSecure network;
OffloadGateway gateway(network);

void setup() {
  Serial.begin(115200);
  WiFi.begin("the network", "its password");
  network.setCACert(CA);
  network.setCertificate(CERTIFICATE);
  network.setPrivateKey(KEY);
  // The host's name has to be the one in the gateway's certificate; the device's is that in its own.
  gateway.begin("gateway.local", 8883, "dev2", esp_random());
}

void loop() {
  const char *args[] = {"5", "7"};
  char answer[16];
  long length = gateway.run("add", args, 2, answer, sizeof answer, 10000);
  if (length >= 0) {
    Serial.write(answer, length);
  } else {
    Serial.println(gateway.errorText());
  }
  delay(10000);
}
