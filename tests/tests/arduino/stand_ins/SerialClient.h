/* A Client over the board's serial line, whose other end the simulator bridges to TCP. What the sketch prints is on the
 * same line.
 *
 * Bytes are the console's, but for frames: 0x10, a letter, and for data its length and its bytes. The board opens (O),
 * closes (C), sends (D) and says that it has read 16 bytes (K), so that there are never more under way than its buffer
 * takes. The simulator says that the connection is open (O) or closed (C), and what has come (D), or what is typed (I).
 */
#ifndef SERIAL_CLIENT_H
#define SERIAL_CLIENT_H

#include <Arduino.h>
#include <Client.h>

const uint8_t FRAME = 0x10;
/* Bytes after which the board says so. The simulator has at most twice as many under way. */
const uint8_t CREDIT = 16;
const uint8_t ROOM = 2 * CREDIT;
const uint8_t TYPED = 96;
const uint8_t LEAST = 32;

class SerialClient : public Client {
public:
  int connect(IPAddress, uint16_t port) override { return connect("", port); }
  int connect(const char *, uint16_t) override {
    stop();
    frame('O');
    unsigned long began = millis();
    opening_ = true;
    while (opening_ && millis() - began < 5000) {
      pump();
    }
    opening_ = false;
    return open_;
  }
  size_t write(uint8_t byte) override { return write(&byte, 1); }
  size_t write(const uint8_t *bytes, size_t size) override {
    pump();
    if (!open_) {
      return 0;
    }
    frame('D');
    Serial.write(static_cast<uint8_t>(size));
    Serial.write(bytes, size);
    return size;
  }
  /* So that nothing waits for the line: beside the bytes a frame's head, and a credit. Fewer bytes would be more heads
   * than bytes. */
  int availableForWrite() override {
    int room = Serial.availableForWrite() - 5;
    return room >= LEAST ? room : 0;
  }
  int available() override {
    pump();
    return count_;
  }
  int read() override {
    pump();
    if (!count_) {
      return -1;
    }
    uint8_t byte = data_[first_];
    first_ = (first_ + 1) % ROOM;
    --count_;
    if (++read_ == CREDIT) {
      read_ = 0;
      frame('K');
    }
    return byte;
  }
  int read(uint8_t *bytes, size_t size) override {
    size_t place = 0;
    while (place < size && available()) {
      bytes[place++] = static_cast<uint8_t>(read());
    }
    return static_cast<int>(place);
  }
  int peek() override { return available() ? data_[first_] : -1; }
  void flush() override {}
  void stop() override {
    if (open_) {
      frame('C');
    }
    open_ = false;
    count_ = read_ = 0;
  }
  uint8_t connected() override {
    pump();
    return open_ || count_;
  }
  operator bool() override { return connected(); }
  void setConnectionTimeout(uint16_t) {}

  /* The line that was typed, if it is there whole. */
  const char *typed() {
    pump();
    if (!line_) {
      return nullptr;
    }
    line_ = false;
    typed_size_ = 0;
    return typed_;
  }

private:
  void frame(char letter) {
    Serial.write(FRAME);
    Serial.write(letter);
  }

  void pump() {
    while (Serial.available()) {
      take(static_cast<uint8_t>(Serial.read()));
    }
  }

  void take(uint8_t byte) {
    switch (state_) {
    case Nothing:
      state_ = byte == FRAME ? Letter : Nothing;
      break;
    case Letter:
      letter_ = byte;
      state_ = Nothing;
      if (byte == 'D' || byte == 'I') {
        state_ = Length;
      } else {
        open_ = byte == 'O';
        opening_ = false;
      }
      break;
    case Length:
      left_ = byte;
      state_ = Contents;
      break;
    case Contents:
      if (!--left_) {
        state_ = Nothing;
      }
      if (letter_ == 'I') {
        type(byte);
      } else if (open_ && count_ < ROOM) {
        data_[(first_ + count_++) % ROOM] = byte;
      }
    }
  }

  void type(uint8_t byte) {
    if (byte == '\n') {
      typed_[typed_size_] = 0;
      line_ = true;
    } else if (typed_size_ < TYPED - 1) {
      typed_[typed_size_++] = static_cast<char>(byte);
    }
  }

  enum State : uint8_t { Nothing, Letter, Length, Contents };
  State state_ = Nothing;
  bool open_ = false;
  bool opening_ = false;
  bool line_ = false;
  uint8_t letter_ = 0;
  uint8_t left_ = 0;
  uint8_t first_ = 0;
  uint8_t count_ = 0;
  uint8_t read_ = 0;
  uint8_t typed_size_ = 0;
  uint8_t data_[ROOM];
  char typed_[TYPED];
};

#endif
