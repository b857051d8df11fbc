/* Finds the packets in what the broker sends, byte by byte. */
#include "PacketReader.h"

/* Bytes of a length in front of a text, and of a packet identifier. */
static const uint8_t TWO = 2;

/* The longest topic that is taken: with the rest of the head it is counted in 16 bits. */
static const uint16_t MAX_TOPIC = 0xFF00;

void OffloadPacketReader::reset() {
  place_ = First;
}

OffloadPacketReader::Found OffloadPacketReader::feed(uint8_t byte) {
  last_ = byte;
  switch (place_) {
  case First:
    first_ = byte;
    left_ = 0;
    at_ = 0;
    shift_ = 0;
    number_ = 0;
    /* Until the length of its topic is known. */
    head_ = TWO;
    place_ = Length;
    return Head;
  case Length:
    left_ |= static_cast<uint32_t>(byte & 0x7F) << shift_;
    shift_ += 7;
    if (byte & 0x80) {
      return shift_ == 28 ? Broken : Head;
    }
    if (type() == OFFLOAD_PUBLISH ? left_ < TWO || qos() > 1 : left_ > TWO + 1) {
      return Broken;
    }
    place_ = left_ ? Body : First;
    return left_ ? Head : End;
  default:
    break;
  }

  bool end = --left_ == 0;
  place_ = end ? First : Body;
  if (type() != OFFLOAD_PUBLISH) {
    return end ? End : Head;
  }
  if (at_ == head_) {
    return end ? LastPayload : Payload;
  }
  /* The length of the topic, the topic, the packet identifier. Two bytes at a time are kept: the length first, and in
   * the end the packet identifier. */
  number_ = static_cast<uint16_t>(number_ << 8 | byte);
  if (++at_ == TWO) {
    if (number_ > MAX_TOPIC) {
      return Broken;
    }
    head_ += number_ + (qos() ? TWO : 0);
    if (left_ < static_cast<uint16_t>(head_ - TWO)) {
      return Broken;
    }
  }
  return end ? End : Head;
}
