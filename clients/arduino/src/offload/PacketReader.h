/* Finds the packets in what the broker sends, byte by byte. */
#ifndef OFFLOAD_PACKET_READER_H
#define OFFLOAD_PACKET_READER_H

#include <stdint.h>

/* Types of packets, flags left out (MQTT 3.1.1, section 2.2.1). */
enum : uint8_t {
  OFFLOAD_CONNACK = 0x20,
  OFFLOAD_PUBLISH = 0x30,
  OFFLOAD_PUBACK = 0x40,
  OFFLOAD_SUBACK = 0x90,
  OFFLOAD_PINGRESP = 0xD0
};

/* Is made with all its bytes zero (`OffloadPacketReader()`). */
class OffloadPacketReader {
public:
  /* What a byte was. */
  enum Found : uint8_t {
    /* Part of a packet's head. */
    Head,
    /* The next byte of a message's payload. */
    Payload,
    /* The last byte of a packet, and none of a payload. */
    End,
    /* The last byte of a packet, and of its payload. */
    LastPayload,
    /* What cannot follow: the connection is of no use any more. */
    Broken
  };

  /* At the begin of a connection. */
  void reset();

  Found feed(uint8_t byte);

  /* Whether a packet has begun and not ended. */
  bool inPacket() const { return place_ != First; }

  /* Type of this packet, or of the last one. */
  uint8_t type() const { return first_ & 0xF0; }

  /* What the broker wants acknowledged by this number; 0: nothing. */
  uint16_t packetId() const { return qos() ? number_ : 0; }

  /* The last byte of CONNACK and SUBACK: how it went. */
  uint8_t code() const { return last_; }

private:
  enum Place : uint8_t { First, Length, Body };

  uint8_t qos() const { return type() == OFFLOAD_PUBLISH ? first_ >> 1 & 3 : 0; }

  Place place_;
  uint8_t first_;
  uint8_t last_;
  uint8_t shift_;
  /* Bytes of the body that are still to come; bytes of the head of a PUBLISH, and how many of them were there. */
  uint32_t left_;
  uint16_t head_;
  uint16_t at_;
  uint16_t number_;
};

#endif
