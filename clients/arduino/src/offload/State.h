/* All that a gateway's object knows of its connection and its request. */
#ifndef OFFLOAD_STATE_H
#define OFFLOAD_STATE_H

#include <stdint.h>

#include "AnswerReader.h"
#include "PacketReader.h"
#include "PacketWriter.h"

/* Is made with all its bytes zero (`OffloadState()`): an initializer for each field would cost 300 bytes of flash. */
struct OffloadState {
  /* Of the connection to the broker; `Off` before `begin`. */
  enum Link : uint8_t { Off, Down, Connecting, Subscribing, Up };
  /* Of the request. */
  enum Phase : uint8_t { Idle, Asking, Done };

  /* Where the broker is: by this name, or without one at this address. */
  const char *host_;
  uint32_t address_;
  uint16_t port_;
  OffloadIdentity identity_;
  OffloadQuestion question_;
  OffloadPacketReader packet_;
  OffloadAnswerReader answer_;

  Link link_;
  Phase phase_;
  OffloadPacket sending_;
  /* Whether the broker owes us a packet. */
  bool awaiting_;
  /* Whether what is read goes to `answer_`. */
  bool listening_;
  /* Whether the question is to be sent now, and with the code's own bytes. */
  bool due_;
  bool with_code_;
  /* Whether the request is to be cancelled, and whether anything of it has been sent. */
  bool cancelling_;
  bool asked_;
  /* Whether the Client can say how much it takes. */
  bool paced_;
  /* Whether the broker has refused the last connection. */
  bool refused_;
  /* For the next connection. */
  bool at_most_once_;
  /* Error of the last answer that was none: the gateway was busy. */
  int8_t last_;
  uint16_t acknowledge_;
  uint16_t packet_id_;
  uint32_t seed_;
  uint32_t requests_;
  /* Bytes of the packet that were sent. */
  uint32_t sent_;

  uint32_t repeat_after_;
  /* Before the next attempt to connect: without what is added at random, and with it. */
  uint32_t backoff_;
  uint32_t pause_;
  uint32_t down_since_;
  uint32_t up_since_;
  /* When a packet was begun or went on; when something was last written; since when the broker owes us a packet; when
   * the question's sending began, and how long it took. */
  uint32_t progress_at_;
  uint32_t written_at_;
  uint32_t awaiting_since_;
  uint32_t asked_at_;
  uint32_t took_;

  /* Of the output: where the part begins that is asked for; the run that it is of. */
  uint32_t offset_;
  uint32_t run_us_;
  uint32_t total_;
  uint16_t length_;
  long exit_code_;
  long result_;
};

#endif
