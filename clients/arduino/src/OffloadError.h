/* What `OffloadGateway::run` returns when there is no answer to return the length of. */
#ifndef OFFLOAD_ERROR_H
#define OFFLOAD_ERROR_H

#include <stdint.h>

enum OffloadError : int8_t {
  /* No answer in time. The request is still under way. */
  OFFLOAD_TIMEOUT = -1,
  /* No connection to the broker in time. The request will be sent when there is one. */
  OFFLOAD_OFFLINE = -2,
  /* The broker refuses this device or its subscription: name, password, or a rule. Trying again does not help. */
  OFFLOAD_REFUSED = -3,
  /* Called in the wrong order: no `begin`, or no request to wait for. */
  OFFLOAD_MISUSED = -4,
  /* The sketch's own callback could not give the module's bytes. */
  OFFLOAD_NO_CODE = -5,
  /* The gateway has run the request anew, so that its parts do not belong together: begin again. */
  OFFLOAD_OTHER_RUN = -6,
  /* The gateway knows an error that this library does not. */
  OFFLOAD_UNKNOWN = -7,

  /* The gateway's answers, in the order of `KINDS` in offload/Names.cpp. See "Answers" in docs/protocol.md. */
  OFFLOAD_MALFORMED = -16,
  OFFLOAD_UNAUTHORIZED = -17,
  OFFLOAD_NOT_FOUND = -18,
  OFFLOAD_TOO_LARGE = -19,
  /* Busy until the time was up; the request is still repeated. */
  OFFLOAD_BUSY = -20,
  OFFLOAD_EXPIRED = -21,
  /* The gateway's own time-out for programs (`timeout`). */
  OFFLOAD_RAN_TOO_LONG = -22,
  OFFLOAD_BUILD = -23,
  OFFLOAD_COMPILE = -24,
  /* The program has ended with an exit code other than 0: see `exitCode`, `length` and `errorText`. */
  OFFLOAD_EXIT = -25,
  OFFLOAD_TRAP = -26,
  OFFLOAD_FUEL = -27,
  OFFLOAD_MEMORY = -28,
  OFFLOAD_OUTPUT = -29,
  OFFLOAD_INTERNAL = -30,
  OFFLOAD_CANCELLED = -31,
  OFFLOAD_UNREACHABLE = -32
};

#endif
