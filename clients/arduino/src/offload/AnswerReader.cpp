/* Reads an answer's envelope in CBOR, byte by byte: its output goes straight to the caller's buffer. */
#include "AnswerReader.h"

#include "../OffloadError.h"

/* Self-described CBOR (RFC 8949, section 3.4.6), in front of the envelope. */
static const uint8_t TAG[] PROGMEM = {0xD9, 0xD9, 0xF7};

/* Major types of items (RFC 8949, section 3.1). */
enum class Major : uint8_t { Unsigned, Negative, Bytes, Text, Array, Map, Tag, Simple };

static Major majorOf(uint8_t head) { return static_cast<Major>(head >> 5); }

static const uint8_t NULL_ITEM = 0xF6;

/* The most items of a map or an array: many more than there are, and few enough to be counted. */
static const uint16_t MAX_ITEMS = 1024;

void OffloadAnswerReader::into(void *buffer, uint16_t size) {
  buffer_ = static_cast<uint8_t *>(buffer);
  size_ = size;
}

void OffloadAnswerReader::begin(const char *id) {
  expected_ = id;
  memset(static_cast<OffloadAnswer *>(this), 0, sizeof(OffloadAnswer));
  kind_ = OFFLOAD_UNKNOWN;
}

void OffloadAnswerReader::setText(const char *in_flash) {
  strncpy_P(text_, in_flash, OFFLOAD_TEXT - 1);
  text_[OFFLOAD_TEXT - 1] = 0;
}

int8_t OffloadAnswerReader::error() const {
  switch (status_) {
  case Ok:
    return 0;
  case Exit:
    return OFFLOAD_EXIT;
  default:
    return kind_;
  }
}

void OffloadAnswerReader::feed(uint8_t byte) {
  if (broken_) {
    return;
  }
  if (tag_ < sizeof TAG) {
    broken_ = byte != pgm_read_byte(TAG + tag_++);
    return;
  }
  if (bytes_) {
    content(byte);
    if (!--bytes_) {
      stringEnd();
    }
    return;
  }
  if (more_) {
    value_ = value_ << 8 | byte;
    if (!--more_) {
      head();
    }
    return;
  }
  head_ = byte;
  uint8_t low = byte & 0x1F;
  /* Nothing may follow the envelope; and what has no length in front, the gateway does not write. */
  broken_ = (opened_ && !left_[0]) || low > 27;
  value_ = low;
  if (low < 24) {
    head();
  } else {
    value_ = 0;
    more_ = static_cast<uint8_t>(1 << (low - 24));
  }
}

/* The head of an item is there, and its number. */
void OffloadAnswerReader::head() {
  Major major = majorOf(head_);
  bool counts = major == Major::Map || major == Major::Array;
  if ((counts && value_ > MAX_ITEMS) || (opened_ ? atKey() && major != Major::Text : major != Major::Map)) {
    broken_ = true;
    return;
  }
  if (!opened_) {
    opened_ = true;
    left_[0] = static_cast<uint16_t>(2 * value_);
    return;
  }
  switch (major) {
  case Major::Bytes:
  case Major::Text:
    string();
    return;
  case Major::Map:
    if (!skip_ && !depth_ && field_ == OffloadField::Error && value_) {
      depth_ = 1;
      left_[1] = static_cast<uint16_t>(2 * value_);
      return;
    }
    children(static_cast<uint16_t>(2 * value_));
    return;
  case Major::Array:
    children(static_cast<uint16_t>(value_));
    return;
  case Major::Tag:
    /* The item that it is for follows. */
    return;
  default:
    number();
  }
}

/* A string begins. */
void OffloadAnswerReader::string() {
  bytes_ = value_;
  word_size_ = 0;
  bool is_value = !skip_ && !atKey();
  if (is_value && field_ == OffloadField::Message) {
    text_size_ = 0;
    line_ended_ = false;
    has_message_ = true;
  }
  if (is_value && field_ == OffloadField::Id) {
    /* Until one of its letters differs. */
    id_ = bytes_ == strlen(expected_) ? SameId : OtherId;
  }
  if (!bytes_) {
    stringEnd();
  }
}

bool OffloadAnswerReader::keepsWord() const {
  return atKey() || field_ == OffloadField::Status || field_ == OffloadField::Kind;
}

void OffloadAnswerReader::content(uint8_t byte) {
  if (skip_) {
    return;
  }
  if (keepsWord()) {
    /* A longer word is none that is known: it keeps its end, and is not found. */
    if (word_size_ < OFFLOAD_WORD) {
      word_[word_size_++] = static_cast<char>(byte);
    }
    return;
  }
  switch (field_) {
  case OffloadField::Id:
    if (id_ == SameId && static_cast<uint8_t>(expected_[word_size_++]) != byte) {
      id_ = OtherId;
    }
    break;
  case OffloadField::Stdout:
    if (stored_ < size_) {
      buffer_[stored_++] = byte;
    }
    break;
  case OffloadField::Stderr:
    if (has_message_) {
      break;
    }
    /* fall through */
  case OffloadField::Message:
    line_ended_ |= byte == '\n';
    if (!line_ended_ && text_size_ < OFFLOAD_TEXT - 1) {
      text_[text_size_++] = static_cast<char>(byte);
      text_[text_size_] = 0;
    }
    break;
  default:
    break;
  }
}

void OffloadAnswerReader::stringEnd() {
  if (!skip_ && keepsWord()) {
    bool fits = word_size_ < OFFLOAD_WORD;
    word_[fits ? word_size_ : 0] = 0;
    if (atKey()) {
      field_ = static_cast<OffloadField>(offloadFind(OFFLOAD_FIELDS, word_));
      /* `kind` and `message` are fields of `error` alone, all others of the envelope. */
      if (depth_ != (field_ >= OffloadField::Kind)) {
        field_ = OffloadField::None;
      }
    } else if (field_ == OffloadField::Status) {
      status_ = !strcmp_P(word_, PSTR("ok")) ? Ok : !strcmp_P(word_, PSTR("exit")) ? Exit : Error;
    } else if (uint8_t place = offloadFind(OFFLOAD_KINDS, word_)) {
      kind_ = static_cast<int8_t>(OFFLOAD_MALFORMED + 1 - place);
    }
  }
  item();
}

void OffloadAnswerReader::number() {
  if (!skip_) {
    switch (field_) {
    case OffloadField::Id:
      id_ = head_ == NULL_ITEM ? NullId : OtherId;
      break;
    case OffloadField::ExitCode:
      exit_code_ = static_cast<int32_t>(majorOf(head_) == Major::Negative ? ~value_ : head_ == NULL_ITEM ? 0 : value_);
      break;
    case OffloadField::RunMicros:
      run_us_ = value_;
      break;
    case OffloadField::Offset:
      offset_ = value_;
      break;
    case OffloadField::Total:
      total_ = value_;
      has_total_ = true;
      break;
    default:
      break;
    }
  }
  item();
}

/* An item has ended. */
void OffloadAnswerReader::item() {
  if (skip_) {
    --skip_;
    return;
  }
  if (!--left_[depth_] && depth_) {
    depth_ = 0;
    --left_[0];
  }
}

/* An item has ended but for those in it, which are of no interest. */
void OffloadAnswerReader::children(uint16_t count) {
  item();
  skip_ += count;
  broken_ |= skip_ < count;
}
