/* Writes the packets to the broker, a few bytes at a time: no packet is in RAM as a whole. */
#ifndef OFFLOAD_PACKET_WRITER_H
#define OFFLOAD_PACKET_WRITER_H

#include <Arduino.h>

#include "../OffloadRequest.h"

enum class OffloadPacket : uint8_t { None, Connect, Subscribe, Acknowledge, Question, Ping, Goodbye };

/* Who the device is. */
struct OffloadIdentity {
  const char *device;
  const char *user;
  const char *password;
  bool at_most_once;
};

/* Bytes of an id that is made here, with its end: twice 32 bits in hexadecimal digits, and a hyphen. */
const uint8_t OFFLOAD_ID = 18;

/* A request, and what of its answer is asked for. */
struct OffloadQuestion {
  OffloadRequest request;
  /* Of a request that has none of its own. */
  char id[OFFLOAD_ID];
  uint32_t offset;
  uint16_t length;
  /* Whether the module's own bytes go with it, where it has a digest. */
  bool with_code;
  /* Whether the request is to be cancelled instead. */
  bool cancels;
  bool carriesCode() const { return request.code_.reader_ && (with_code || !request.code_.digest_); }
};

class OffloadPacketWriter {
public:
  /* Of these; `number` is the packet identifier of what has one. */
  OffloadPacketWriter(const OffloadIdentity &identity, const OffloadQuestion &question, uint16_t number)
      : identity_(identity), question_(question), number_(number) {}

  /* Copies up to `room` bytes of the packet, from byte `from` on, to `to`. Returns how many; fewer than `room` end it.
   *
   * The packet is written from its start each time, and all bytes but these are left out: so nothing has to be kept of
   * it. Code is read in these bytes alone. */
  uint8_t copy(OffloadPacket packet, uint32_t from, uint8_t *to, uint8_t room);

  /* Whether the code could not be read. */
  bool failed() const { return failed_; }

private:
  void body(OffloadPacket packet);
  void connect();
  void subscribe();
  void question();
  void arguments();

  void byte(uint8_t byte);
  void two(uint16_t number);
  void inFlash(const char *text);
  void bytes(OffloadCode::Reader reader, const void *context, uint32_t size);
  void chars(const char *text);
  /* A text of MQTT; a topic with the device's name. */
  void text(const char *text);
  void topic(const char *in_flash);
  /* The head of a CBOR item; a text in RAM, and one in flash. */
  void head(uint8_t major, uint32_t number);
  void cbor(const char *text);
  void key(const char *in_flash);
  void field(const char *in_flash, uint32_t number);

  const OffloadIdentity &identity_;
  const OffloadQuestion &question_;
  uint16_t number_;
  uint32_t at_ = 0;
  uint32_t from_ = 0;
  uint8_t *to_ = nullptr;
  uint8_t room_ = 0;
  bool failed_ = false;
};

#endif
