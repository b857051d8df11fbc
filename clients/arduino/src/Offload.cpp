/* The life of a connection, and of a request on it. */
#include "Offload.h"

/* Bytes that are read in one `poll`, so that it ends. */
static const uint8_t READ_AT_ONCE = 128;

/* Whether this much time has passed since then. */
static bool passed(uint32_t since, uint32_t span) {
  return millis() - since >= span;
}

/* Writes a number in hexadecimal digits, and returns its end. */
static char *hex(uint32_t number, char *to) {
  if (number >> 4) {
    to = hex(number >> 4, to);
  }
  uint8_t digit = number & 0xF;
  *to++ = static_cast<char>(digit < 10 ? '0' + digit : 'a' - 10 + digit);
  *to = 0;
  return to;
}

/* Milliseconds before a request is repeated, by default. */
static const uint16_t REPEAT_AFTER = 5000;

OffloadGateway::OffloadGateway(Client &network) : OffloadState(), network_(network) {
  repeat_after_ = REPEAT_AFTER;
  result_ = OFFLOAD_MISUSED;
}

void OffloadGateway::begin(const char *host, uint16_t port, const char *device, uint32_t seed) {
  begin(port, device, seed);
  host_ = host;
}

void OffloadGateway::begin(IPAddress address, uint16_t port, const char *device, uint32_t seed) {
  begin(port, device, seed);
  host_ = nullptr;
  address_ = address;
}

void OffloadGateway::begin(uint16_t port, const char *device, uint32_t seed) {
  if (link_ != Off) {
    end();
  }
  port_ = port;
  identity_.device = device;
  seed_ = seed;
  requests_ = 0;
  pause_ = backoff_ = 0;
  refused_ = false;
  link_ = Down;
}

void OffloadGateway::credentials(const char *user, const char *password) {
  identity_.user = user;
  identity_.password = password;
}

void OffloadGateway::repeatEvery(uint32_t interval) {
  repeat_after_ = interval;
}

void OffloadGateway::atMostOnce(bool yes) {
  at_most_once_ = yes;
}

long OffloadGateway::run(const OffloadRequest &request, void *answer, uint16_t size, uint32_t timeout) {
  start(request, answer, size);
  return wait(timeout);
}

long OffloadGateway::run(const char *program, const char *const *args, uint8_t count, void *answer, uint16_t size,
                         uint32_t timeout) {
  return run(OffloadRequest::program(program).args(args, count), answer, size, timeout);
}

long OffloadGateway::next(uint32_t timeout) {
  startNext();
  return wait(timeout);
}

long OffloadGateway::wait(uint32_t timeout) {
  uint32_t began = millis();
  do {
    poll();
    if (!pending()) {
      if (result_ == OFFLOAD_MISUSED) {
        answer_.setText(offloadMeaning(OFFLOAD_MISUSED));
      }
      return result_;
    }
    yield();
  } while (!passed(began, timeout));
  return unanswered();
}

/* What there is to say when the time is up. */
long OffloadGateway::unanswered() {
  if (last_) {
    return last_;
  }
  int8_t error = link_ == Up ? OFFLOAD_TIMEOUT : refused_ ? OFFLOAD_REFUSED : OFFLOAD_OFFLINE;
  answer_.setText(offloadMeaning(error));
  return error;
}

void OffloadGateway::start(const OffloadRequest &request, void *answer, uint16_t size) {
  answer_.into(answer, size);
  length_ = 0;
  offset_ = 0;
  with_code_ = asked_ = false;
  /* Another question that has gone in part: the rest of its packet would be wrong. */
  if (sending_ == OffloadPacket::Question) {
    lost();
  }
  question_.request = request;
  question_.length = size;
  if (!request.id_) {
    *hex(seed_, question_.id) = '-';
    hex(++requests_, strchr(question_.id, '-') + 1);
    question_.request.id_ = question_.id;
  }
  if (link_ == Off) {
    phase_ = Idle;
    result_ = OFFLOAD_MISUSED;
  } else {
    ask();
  }
}

void OffloadGateway::startNext() {
  /* What is under way goes on; after an error there is nothing more. */
  if (phase_ != Done || result_ < 0) {
    return;
  }
  offset_ += length_;
  length_ = 0;
  if (offset_ >= total_) {
    result_ = 0;
  } else {
    ask();
  }
}

/* The question as it stands is to be sent, and answered. */
void OffloadGateway::ask() {
  phase_ = Asking;
  due_ = true;
  cancelling_ = false;
  last_ = 0;
  /* A packet that has come in part is an earlier answer. */
  listening_ = false;
}

void OffloadGateway::finish(long result) {
  phase_ = Done;
  result_ = result;
}

/* There will be no answer. */
void OffloadGateway::fail(int8_t error) {
  if (phase_ == Asking) {
    answer_.setText(offloadMeaning(error));
    finish(error);
  }
}

void OffloadGateway::cancel() {
  if (phase_ != Asking) {
    return;
  }
  cancelling_ = due_ = true;
  if (!asked_) {
    cancelled();
  }
}

/* It is not run any more, or never was. */
void OffloadGateway::cancelled() {
  answer_.setText(PSTR("cancelled"));
  finish(OFFLOAD_CANCELLED);
}

void OffloadGateway::poll() {
  if (link_ == Off) {
    return;
  }
  if (link_ == Down) {
    if (passed(down_since_, pause_)) {
      connect();
    }
    return;
  }
  read();
  if (link_ == Down) {
    return;
  }
  write();
  if (link_ != Down && (stalled() || (!network_.connected() && !network_.available()))) {
    lost();
  }
}

void OffloadGateway::connect() {
  int connected = host_ ? network_.connect(host_, port_) : network_.connect(IPAddress(address_), port_);
  if (connected <= 0) {
    lost();
    return;
  }
  packet_.reset();
  identity_.at_most_once = at_most_once_;
  awaiting_ = listening_ = false;
  acknowledge_ = 0;
  link_ = Connecting;
  send(OffloadPacket::Connect);
}

/* The connection is gone, or of no use. */
void OffloadGateway::lost() {
  network_.stop();
  sending_ = OffloadPacket::None;
  down_since_ = millis();
  /* One that did not stand is like none: two boards of one name would take it from each other without a pause. */
  if (link_ == Up && passed(up_since_, OFFLOAD_BACKOFF_MAX_MS)) {
    pause_ = backoff_ = 0;
  } else {
    uint32_t longer = backoff_ ? 2 * backoff_ : OFFLOAD_BACKOFF_MIN_MS;
    backoff_ = longer < OFFLOAD_BACKOFF_MAX_MS ? longer : OFFLOAD_BACKOFF_MAX_MS;
    /* Of 1024 parts up to 255 more. The clock of an AVR goes in steps of four. */
    pause_ = backoff_ + ((backoff_ >> 2) * static_cast<uint8_t>(micros() >> 2) >> 8);
  }
  link_ = Down;
}

void OffloadGateway::end() {
  if (link_ == Up && sending_ == OffloadPacket::None) {
    send(OffloadPacket::Goodbye);
    write();
  }
  network_.stop();
  link_ = Off;
  phase_ = Idle;
  result_ = OFFLOAD_MISUSED;
}

void OffloadGateway::read() {
  for (uint8_t count = 0; count < READ_AT_ONCE && link_ != Down; ++count) {
    /* One acknowledgement at a time is kept: what wants another is read when that has gone. */
    if ((acknowledge_ && !packet_.inPacket()) || !network_.available()) {
      return;
    }
    int byte = network_.read();
    if (byte < 0) {
      return;
    }
    if (!packet_.inPacket() && (byte & 0xF0) == OFFLOAD_PUBLISH && phase_ == Asking) {
      listening_ = true;
      answer_.begin(question_.request.id_);
    }
    switch (packet_.feed(static_cast<uint8_t>(byte))) {
    case OffloadPacketReader::Payload:
      if (listening_) {
        answer_.feed(static_cast<uint8_t>(byte));
      }
      break;
    case OffloadPacketReader::LastPayload:
      if (listening_) {
        answer_.feed(static_cast<uint8_t>(byte));
      }
      /* fall through */
    case OffloadPacketReader::End:
      handle(packet_.type());
      break;
    case OffloadPacketReader::Broken:
      lost();
      break;
    default:
      break;
    }
  }
}

/* A packet has come. */
void OffloadGateway::handle(uint8_t type) {
  awaiting_ = false;
  switch (type) {
  case OFFLOAD_CONNACK:
    if (packet_.code()) {
      /* 3: the server is unavailable, which may pass (section 3.2.2.3). */
      if (packet_.code() != 3) {
        refused_ = true;
        fail(OFFLOAD_REFUSED);
      }
      lost();
    } else if (link_ == Connecting) {
      link_ = Subscribing;
      send(OffloadPacket::Subscribe);
    }
    break;
  case OFFLOAD_SUBACK:
    if (packet_.code() > 1) {
      refused_ = true;
      fail(OFFLOAD_REFUSED);
      lost();
    } else if (link_ == Subscribing) {
      refused_ = false;
      link_ = Up;
      up_since_ = millis();
      due_ = phase_ == Asking;
    }
    break;
  case OFFLOAD_PUBLISH:
    acknowledge_ = packet_.packetId();
    if (listening_) {
      judge();
    }
    break;
  default:
    break;
  }
  listening_ = false;
}

/* Whether what has come is the answer. */
void OffloadGateway::judge() {
  if (phase_ != Asking || !answer_.complete()) {
    return;
  }
  int8_t error = answer_.error();
  if (question_.cancels && answer_.hasNoId() && (!error || error == OFFLOAD_NOT_FOUND)) {
    /* To the cancelling itself. Where nothing of this id waits or runs, its own answer was lost, if there was one. */
    cancelled();
    return;
  }
  /* What the gateway could not read has no id: nobody else sends to this device's topic. */
  bool is_ours = answer_.hasId() || (answer_.hasNoId() && error == OFFLOAD_MALFORMED);
  if (!is_ours || (!error && answer_.offset() != offset_)) {
    return;
  }
  if (error == OFFLOAD_BUSY && !cancelling_) {
    last_ = error;
    return;
  }
  if (error == OFFLOAD_NOT_FOUND && !cancelling_ && question_.request.code_.reader_) {
    /* The gateway does not have the module of this digest; if it is on its way, this is about an earlier question. */
    with_code_ = due_ = with_code_ || !question_.with_code;
    return;
  }
  if (!error && offset_ && (answer_.runMicros() != run_us_ || answer_.total() != total_)) {
    fail(OFFLOAD_OTHER_RUN);
    return;
  }
  length_ = answer_.stored();
  run_us_ = answer_.runMicros();
  total_ = answer_.total();
  exit_code_ = answer_.exitCode();
  if (!error) {
    answer_.setText(PSTR(""));
  } else if (!*answer_.text()) {
    answer_.setText(PSTR("the program has failed"));
  }
  finish(error ? error : static_cast<long>(length_));
}

/* A packet is to be sent. */
void OffloadGateway::send(OffloadPacket packet) {
  sending_ = packet;
  sent_ = 0;
  progress_at_ = millis();
  if (packet == OffloadPacket::Question) {
    /* What is asked for now. A repetition begins with the digest again: the module may be there. */
    question_.offset = offset_;
    question_.with_code = with_code_;
    question_.cancels = cancelling_;
    asked_ = true;
    due_ = with_code_ = false;
    asked_at_ = progress_at_;
  }
  if (packet == OffloadPacket::Question || packet == OffloadPacket::Subscribe) {
    packet_id_ = packet_id_ == 0xFFFF ? 1 : packet_id_ + 1;
  }
}

void OffloadGateway::write() {
  if (sending_ == OffloadPacket::None) {
    OffloadPacket packet = due();
    if (packet == OffloadPacket::None) {
      return;
    }
    send(packet);
  }

  int room = network_.availableForWrite();
  paced_ |= room > 0;
  if (room <= 0 && paced_) {
    return;
  }
  uint8_t chunk[OFFLOAD_CHUNK];
  uint8_t size = room > 0 && room < OFFLOAD_CHUNK ? static_cast<uint8_t>(room) : OFFLOAD_CHUNK;
  uint16_t number = sending_ == OffloadPacket::Acknowledge ? acknowledge_ : packet_id_;
  OffloadPacketWriter writer(identity_, question_, number);
  uint8_t count = writer.copy(sending_, sent_, chunk, size);
  if (writer.failed()) {
    /* The packet's head has promised bytes that there are not. */
    fail(OFFLOAD_NO_CODE);
    lost();
    return;
  }
  size_t taken = count ? network_.write(chunk, count) : 0;
  if (taken) {
    progress_at_ = written_at_ = millis();
    sent_ += taken;
  }
  if (taken == count && count < size) {
    written();
  }
}

/* What is to be sent next. */
OffloadPacket OffloadGateway::due() const {
  if (acknowledge_) {
    return OffloadPacket::Acknowledge;
  }
  if (link_ != Up) {
    return OffloadPacket::None;
  }
  if (phase_ == Asking && (due_ || passed(asked_at_, 2 * took_ + repeat_after_))) {
    return OffloadPacket::Question;
  }
  if (passed(written_at_, OFFLOAD_KEEP_ALIVE_S * 500UL)) {
    return OffloadPacket::Ping;
  }
  return OffloadPacket::None;
}

/* A packet has gone. */
void OffloadGateway::written() {
  bool is_answered = sending_ != OffloadPacket::Acknowledge;
  if (sending_ == OffloadPacket::Acknowledge) {
    acknowledge_ = 0;
  } else if (sending_ == OffloadPacket::Question) {
    took_ = millis() - asked_at_;
    is_answered = !identity_.at_most_once;
  }
  if (is_answered && !awaiting_) {
    awaiting_ = true;
    awaiting_since_ = millis();
  }
  sending_ = OffloadPacket::None;
}

/* Whether the broker has been silent for too long, or has taken nothing. */
bool OffloadGateway::stalled() const {
  return (awaiting_ && passed(awaiting_since_, OFFLOAD_SILENCE_MS)) ||
         (sending_ != OffloadPacket::None && passed(progress_at_, OFFLOAD_SILENCE_MS));
}
