/* Reads an answer's envelope in CBOR, byte by byte: its output goes straight to the caller's buffer. */
#ifndef OFFLOAD_ANSWER_READER_H
#define OFFLOAD_ANSWER_READER_H

#include <Arduino.h>

#include "Names.h"

/* Bytes of the text of an error, with its end. */
#ifndef OFFLOAD_TEXT
#define OFFLOAD_TEXT 64
#endif

/* What is known of an answer while it is read; all zero at its begin: an assignment to each field would cost flash. */
struct OffloadAnswer {
  enum Id : uint8_t { OtherId, SameId, NullId };
  enum Status : uint8_t { Error, Ok, Exit };

  uint16_t stored_;

  /* Of CBOR: bytes of the leading tag that were there; the head of the current item; bytes of its number to come, and
   * the number; bytes of its string to come; items to be left out; items to come in the envelope and in `error`. */
  uint8_t tag_;
  uint8_t head_;
  uint8_t more_;
  bool opened_;
  bool broken_;
  uint8_t depth_;
  uint32_t value_;
  uint32_t bytes_;
  uint16_t skip_;
  uint16_t left_[2];

  OffloadField field_;
  char word_[OFFLOAD_WORD];
  uint8_t word_size_;
  Id id_;
  bool has_total_;
  bool has_message_;
  bool line_ended_;
  int8_t kind_;
  Status status_;
  int32_t exit_code_;
  uint32_t run_us_;
  uint32_t offset_;
  uint32_t total_;
  uint8_t text_size_;
  char text_[OFFLOAD_TEXT];
};

/* Is made with all its bytes zero (`OffloadAnswerReader()`). */
class OffloadAnswerReader : OffloadAnswer {
public:
  /* Where the output goes. What is there is lost when an answer comes, even a late one to another request. */
  void into(void *buffer, uint16_t size);

  /* At the begin of an answer, to be compared with this id. */
  void begin(const char *id);

  void feed(uint8_t byte);

  /* Whether it was one envelope, and nothing behind it. */
  bool complete() const { return !broken_ && opened_ && !left_[0]; }
  /* Whether its id was the one given; or none, in answer to what the gateway could not read. */
  bool hasId() const { return id_ == SameId; }
  bool hasNoId() const { return id_ == NullId; }

  /* 0, OFFLOAD_EXIT, or the kind of its error. */
  int8_t error() const;
  int32_t exitCode() const { return exit_code_; }
  uint32_t runMicros() const { return run_us_; }
  uint32_t offset() const { return offset_; }
  /* Of the whole output; as long as this answer's where it does not say. */
  uint32_t total() const { return has_total_ ? total_ : stored_; }
  /* Bytes of output in the buffer. */
  uint16_t stored() const { return stored_; }

  /* Of the error. Stays until the next answer. */
  const char *text() const { return text_; }
  void setText(const char *in_flash);

private:
  void head();
  void string();
  void content(uint8_t byte);
  void stringEnd();
  void number();
  void item();
  void children(uint16_t count);
  bool atKey() const { return !skip_ && !(left_[depth_] & 1); }
  bool keepsWord() const;

  uint8_t *buffer_;
  uint16_t size_;
  const char *expected_;
};

#endif
