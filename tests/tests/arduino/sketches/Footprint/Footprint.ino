// All of the library, on a Client that does nothing.
#include <Offload.h>

class NoClient : public Client {
public:
  int connect(IPAddress, uint16_t) override { return 0; }
  int connect(const char *, uint16_t) override { return 0; }
  size_t write(uint8_t) override { return 0; }
  size_t write(const uint8_t *, size_t) override { return 0; }
  int available() override { return 0; }
  int read() override { return -1; }
  int read(uint8_t *, size_t) override { return -1; }
  int peek() override { return -1; }
  void flush() override {}
  void stop() override {}
  uint8_t connected() override { return 0; }
  operator bool() override { return false; }
};

NoClient network;
OffloadGateway gateway(network);
// So that nothing is left out as unused.
volatile long length;
volatile char first;
const uint8_t MODULE[] PROGMEM = {0};

void setup() {
  gateway.begin("gateway.local", 1883, "dev1", offloadBootCount(0));
  gateway.credentials("dev1", "its password");
}

void loop() {
  // The caller's buffer, on the stack.
  char answer[16];
  const char *args[] = {"5", "7"};
  length = gateway.run("add", args, 2, answer, sizeof answer, 10000);
  length = gateway.next(1000);
  OffloadRequest request = OffloadRequest::module(OffloadCode::flash(MODULE, 1).digest("sha256:")).input("x", 1);
  request.id("x").timeout(1);
  length = gateway.run(request, answer, sizeof answer, 10000);
  gateway.cancel();
  first = *gateway.errorText();
}
