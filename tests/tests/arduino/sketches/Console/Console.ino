// A board that does what is typed, one request a line, and prints what came of it:
//
//     run SIZE TIMEOUT PROGRAM ARG...       = LENGTH TOTAL TEXT  or  ! CODE TEXT
//     sum SIZE TIMEOUT PROGRAM ARG...       the same of all parts together: = TOTAL PARTS CHECKSUM
//     module SIZE TIMEOUT PADDING ARG...    a module from flash, with PADDING bytes more, made by a callback
//     digest SIZE TIMEOUT PADDING ARG...    the same, by its digest first
#include <Offload.h>

#include "Module.h"
#include "SerialClient.h"

#ifndef BAUD
#define BAUD 115200
#endif

SerialClient network;
OffloadGateway gateway(network);
char answer[256];

// Bytes of a custom section in front of its contents: its id, its length in four bytes, and an empty name.
const uint8_t SECTION[] = {0, 0, 0, 0, 0, 0};

uint32_t padding = 0;

// The module; behind it, where there is padding, a section that means nothing.
bool readPadded(void *, uint32_t offset, uint8_t *to, uint8_t count) {
  for (uint8_t place = 0; place < count; ++place, ++offset) {
    if (offset < sizeof MODULE) {
      to[place] = pgm_read_byte(MODULE + offset);
      continue;
    }
    uint32_t at = offset - sizeof MODULE;
    // The length of what follows it, seven bits a byte (LEB128).
    uint32_t length = padding - 5;
    to[place] = at >= 1 && at <= 4 ? (length >> (7 * (at - 1)) & 0x7F) | (at < 4 ? 0x80 : 0) : 0;
  }
  return true;
}

void setup() {
  Serial.begin(BAUD);
  gateway.begin("gateway", 1883, DEVICE, offloadBootCount(0));
  gateway.credentials("board", "its password");
  gateway.repeatEvery(2000);
  Serial.println(F("ready"));
}

void say(long result) {
  if (result < 0) {
    Serial.print(F("! "));
    Serial.print(result);
    Serial.print(' ');
    Serial.println(gateway.errorText());
  } else {
    Serial.print(F("= "));
    Serial.print(result);
    Serial.print(' ');
    Serial.print(gateway.total());
    Serial.print(' ');
    Serial.write(answer, result);
    Serial.println();
  }
}

void sum(long result, uint32_t timeout) {
  uint16_t parts = 0;
  uint32_t checksum = 0;
  while (result > 0) {
    for (long place = 0; place < result; ++place) {
      checksum = checksum * 31 + static_cast<uint8_t>(answer[place]);
    }
    ++parts;
    result = gateway.next(timeout);
  }
  if (result < 0) {
    say(result);
    return;
  }
  Serial.print(F("= "));
  Serial.print(gateway.total());
  Serial.print(' ');
  Serial.print(parts);
  Serial.print(' ');
  Serial.println(checksum);
}

void loop() {
  gateway.poll();
  const char *typed = network.typed();
  if (!typed) {
    return;
  }
  char line[TYPED];
  strcpy(line, typed);
  char *command = strtok(line, " ");
  uint16_t size = atoi(strtok(nullptr, " "));
  uint32_t timeout = atol(strtok(nullptr, " "));
  const char *what = strtok(nullptr, " ");
  const char *args[8];
  uint8_t count = 0;
  while (count < 8 && (args[count] = strtok(nullptr, " "))) {
    ++count;
  }

  OffloadRequest request = OffloadRequest::program(what);
  if (*command == 'm' || *command == 'd') {
    padding = atol(what);
    OffloadCode code = padding ? OffloadCode::from(readPadded, nullptr, sizeof MODULE + padding)
                               : OffloadCode::flash(MODULE, sizeof MODULE);
    if (*command == 'd') {
      code.digest(DIGEST);
    }
    request = OffloadRequest::module(code);
  }
  request.args(args, count);
  long result = gateway.run(request, answer, size, timeout);
  if (*command == 's') {
    sum(result, timeout);
  } else {
    say(result);
  }
}
