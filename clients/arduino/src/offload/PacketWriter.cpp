/* Writes the packets to the broker, a few bytes at a time: no packet is in RAM as a whole. */
#include "PacketWriter.h"

#include "../Offload.h"

/* First bytes of packets, flags included (MQTT 3.1.1, section 2.2), in the order of `OffloadPacket`. */
static const uint8_t FIRST[] PROGMEM = {0, 0x10, 0x82, 0x40, 0x30, 0xC0, 0xE0};

/* Flags of CONNECT (section 3.1.2.3). */
enum : uint8_t { CLEAN_SESSION = 2, HAS_PASSWORD = 0x40, HAS_USER = 0x80 };

/* Flag of PUBLISH. */
static const uint8_t AT_LEAST_ONCE = 2;

/* Major types of CBOR (RFC 8949, section 3.1), in their bits. */
enum : uint8_t { CBOR_UNSIGNED = 0x00, CBOR_BYTES = 0x40, CBOR_TEXT = 0x60, CBOR_LIST = 0x80, CBOR_MAP = 0xA0 };

uint8_t OffloadPacketWriter::copy(OffloadPacket packet, uint32_t from, uint8_t *to, uint8_t room) {
  /* Once without room, for the length. */
  at_ = 0;
  room_ = 0;
  body(packet);
  uint32_t length = at_;

  at_ = 0;
  from_ = from;
  to_ = to;
  room_ = room;
  uint8_t first = pgm_read_byte(FIRST + static_cast<uint8_t>(packet));
  byte(packet == OffloadPacket::Question && !identity_.at_most_once ? first | AT_LEAST_ONCE : first);
  do {
    uint8_t digit = length & 0x7F;
    length >>= 7;
    byte(length ? digit | 0x80 : digit);
  } while (length);
  body(packet);
  uint32_t copied = at_ > from ? at_ - from : 0;
  return copied < room ? static_cast<uint8_t>(copied) : room;
}

void OffloadPacketWriter::body(OffloadPacket packet) {
  switch (packet) {
  case OffloadPacket::Connect:
    connect();
    break;
  case OffloadPacket::Subscribe:
    subscribe();
    break;
  case OffloadPacket::Acknowledge:
    two(number_);
    break;
  case OffloadPacket::Question:
    question();
    break;
  default:
    break;
  }
}

void OffloadPacketWriter::connect() {
  two(4);
  inFlash(PSTR("MQTT\4"));
  uint8_t flags = CLEAN_SESSION;
  if (identity_.user) {
    flags |= HAS_USER;
    if (identity_.password) {
      flags |= HAS_PASSWORD;
    }
  }
  byte(flags);
  two(OFFLOAD_KEEP_ALIVE_S);
  text(identity_.device);
  if (flags & HAS_USER) {
    text(identity_.user);
  }
  if (flags & HAS_PASSWORD) {
    text(identity_.password);
  }
}

void OffloadPacketWriter::subscribe() {
  two(number_);
  topic(PSTR("result/"));
  byte(identity_.at_most_once ? 0 : 1);
}

void OffloadPacketWriter::question() {
  const OffloadRequest &request = question_.request;
  topic(question_.carriesCode() ? PSTR("inputCode/") : PSTR("localCode/"));
  if (!identity_.at_most_once) {
    two(number_);
  }

  byte(0xD9);
  two(0xD9F7);
  if (question_.cancels) {
    head(CBOR_MAP, 1);
    key(PSTR("cancel"));
    cbor(request.id_);
    return;
  }
  uint8_t fields = 4 + (request.count_ != 0) + (request.input_size_ != 0);
  for (uint32_t most : request.limits_) {
    fields += most != 0;
  }
  head(CBOR_MAP, fields);
  key(PSTR("id"));
  cbor(request.id_);
  if (question_.carriesCode()) {
    key(PSTR("module"));
    head(CBOR_BYTES, request.code_.size_);
    bytes(request.code_.reader_, request.code_.context_, request.code_.size_);
  } else {
    const char *name = request.program_ ? request.program_ : request.code_.digest_;
    key(strncmp_P(name, PSTR("sha256:"), 7) ? PSTR("program") : PSTR("digest"));
    cbor(name);
  }
  arguments();
  const char *limit = OFFLOAD_LIMITS;
  for (uint32_t most : request.limits_) {
    if (most) {
      field(limit, most);
    }
    limit += strlen_P(limit) + 1;
  }
  field(PSTR("stdout_offset"), question_.offset);
  field(PSTR("stdout_length"), question_.length);
}

void OffloadPacketWriter::arguments() {
  const OffloadRequest &request = question_.request;
  if (request.count_) {
    key(PSTR("args"));
    head(CBOR_LIST, request.count_);
    for (uint8_t number = 0; number < request.count_; ++number) {
      cbor(request.args_[number]);
    }
  }
  if (request.input_size_) {
    key(PSTR("stdin"));
    head(CBOR_BYTES, request.input_size_);
    for (uint16_t place = 0; place < request.input_size_; ++place) {
      byte(request.input_[place]);
    }
  }
}

void OffloadPacketWriter::byte(uint8_t byte) {
  /* What is before `from_` is very far behind it, in 32 bits. */
  uint32_t place = at_++ - from_;
  if (place < room_) {
    to_[static_cast<uint8_t>(place)] = byte;
  }
}

void OffloadPacketWriter::two(uint16_t number) {
  byte(static_cast<uint8_t>(number >> 8));
  byte(static_cast<uint8_t>(number));
}

void OffloadPacketWriter::inFlash(const char *text) {
  while (uint8_t letter = pgm_read_byte(text++)) {
    byte(letter);
  }
}

/* Reads those alone that have room. */
void OffloadPacketWriter::bytes(OffloadCode::Reader reader, const void *context, uint32_t size) {
  uint32_t begin = at_ > from_ ? at_ : from_;
  uint32_t end = at_ + size < from_ + room_ ? at_ + size : from_ + room_;
  if (room_ && begin < end) {
    uint8_t count = static_cast<uint8_t>(end - begin);
    failed_ |= !reader(const_cast<void *>(context), begin - at_, to_ + (begin - from_), count);
  }
  at_ += size;
}

void OffloadPacketWriter::chars(const char *text) {
  while (*text) {
    byte(static_cast<uint8_t>(*text++));
  }
}

void OffloadPacketWriter::text(const char *text) {
  two(static_cast<uint16_t>(strlen(text)));
  chars(text);
}

void OffloadPacketWriter::topic(const char *in_flash) {
  two(static_cast<uint16_t>(strlen_P(in_flash) + strlen(identity_.device)));
  inFlash(in_flash);
  chars(identity_.device);
}

void OffloadPacketWriter::head(uint8_t major, uint32_t number) {
  if (number < 24) {
    byte(static_cast<uint8_t>(major | number));
    return;
  }
  /* In one, two or four bytes more. */
  uint8_t power = number <= 0xFF ? 0 : number <= 0xFFFF ? 1 : 2;
  byte(static_cast<uint8_t>(major | (24 + power)));
  for (int8_t place = static_cast<int8_t>(1 << power) - 1; place >= 0; --place) {
    byte(static_cast<uint8_t>(number >> (8 * place)));
  }
}

void OffloadPacketWriter::cbor(const char *text) {
  head(CBOR_TEXT, strlen(text));
  chars(text);
}

void OffloadPacketWriter::field(const char *in_flash, uint32_t number) {
  key(in_flash);
  head(CBOR_UNSIGNED, number);
}

void OffloadPacketWriter::key(const char *in_flash) {
  head(CBOR_TEXT, strlen_P(in_flash));
  inFlash(in_flash);
}
