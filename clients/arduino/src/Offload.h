/* Runs programs on an offload-rt gateway, over any Arduino Client (Ethernet, WiFi, GSM).
 *
 *     EthernetClient network;
 *     OffloadGateway gateway(network);
 *
 *     gateway.begin("192.168.1.10", 1883, "dev1", offloadBootCount(0));
 *     const char *args[] = {"5", "7"};
 *     char answer[16];
 *     long length = gateway.run("add", args, 2, answer, sizeof answer, 10000);
 *
 * A request has an id, by which the gateway runs it once however often it comes, and is repeated until it is answered.
 * There is one request at a time. No heap is used; what the caller hands over is not copied, and has to stay as it is
 * until the request is answered.
 *
 * Times are milliseconds. Nothing here waits longer than it is told, but for what the Client itself does: its
 * `connect`, whose time-out is the Client's to set, and a `write` of OFFLOAD_CHUNK bytes at most.
 */
#ifndef OFFLOAD_H
#define OFFLOAD_H

#include <Arduino.h>
#include <Client.h>

#include "OffloadBootCount.h"
#include "OffloadError.h"
#include "OffloadRequest.h"
#include "offload/State.h"

/* Bytes that are written at a time, on the stack. What a Serial link sends meanwhile is waited for where the Client
 * cannot say how much it takes (`availableForWrite`). */
#ifndef OFFLOAD_CHUNK
#define OFFLOAD_CHUNK 32
#endif

/* Seconds of silence after which the broker takes the connection for lost, half as much again included. Long enough for
 * a module of 60 KB at 9600 baud: nothing else can be sent in the middle of it. */
#ifndef OFFLOAD_KEEP_ALIVE_S
#define OFFLOAD_KEEP_ALIVE_S 60
#endif

/* How long the broker may leave something unanswered, or take nothing, before the connection is made anew. */
#ifndef OFFLOAD_SILENCE_MS
#define OFFLOAD_SILENCE_MS 15000
#endif

/* Pauses between attempts to connect: the first, doubled after each failure up to the last, and up to a quarter more at
 * random, so that a fleet does not come back in one moment. A connection that has stood for as long as the last is made
 * again at once; one that has not is a failure. */
#ifndef OFFLOAD_BACKOFF_MIN_MS
#define OFFLOAD_BACKOFF_MIN_MS 1000
#endif
#ifndef OFFLOAD_BACKOFF_MAX_MS
#define OFFLOAD_BACKOFF_MAX_MS 60000
#endif

class OffloadGateway : OffloadState {
public:
  /* Over this Client, which is this gateway's alone. */
  explicit OffloadGateway(Client &network);

  /* Where the broker is, and who this is. Nothing is sent yet.
   *
   * `device` is the reply id and the MQTT client id: on the gateway's own broker the user name, if there is one. It has
   * 1 to 64 bytes without `/`, `+` and `#`, and is this device's alone.
   *
   * `seed` begins the ids of all requests from now on. Two starts of a device within the gateway's retention time (10
   * minutes by default) need two seeds: with the same, a new request may get an old answer. `offloadBootCount` gives
   * one from the EEPROM; a random number of 32 bits does as well. */
  void begin(const char *host, uint16_t port, const char *device, uint32_t seed);
  void begin(IPAddress address, uint16_t port, const char *device, uint32_t seed);

  /* User name and password, by default none. On a connection without TLS whoever is on the way can read them. */
  void credentials(const char *user, const char *password);

  /* How long an answer is waited for before the request is repeated, by default 5000, and as long again as it took to
   * send. */
  void repeatEvery(uint32_t interval);

  /* Requests and answers at MQTT's QoS 0 (true) or 1 (false, the default). Counts from the next connection on. Either
   * way requests are repeated until they are answered; at QoS 0 there are fewer packets, at QoS 1 fewer repetitions. */
  void atMostOnce(bool yes);

  /* Runs it, and returns how many bytes of its output are in `answer`; see OffloadError.h for what is below 0. The
   * output has `total` bytes, which may be more: `next` gets them.
   *
   * After OFFLOAD_TIMEOUT, OFFLOAD_OFFLINE and OFFLOAD_BUSY the request is still under way: `wait` goes on with it,
   * `cancel` ends it at the gateway, and `run` or `start` drops it here. */
  long run(const OffloadRequest &request, void *answer, uint16_t size, uint32_t timeout);
  long run(const char *program, const char *const *args, uint8_t count, void *answer, uint16_t size, uint32_t timeout);

  /* Gets the next part of the output into the same buffer. 0 at its end, else as `run`. OFFLOAD_OTHER_RUN when the
   * gateway has forgotten the first part's run: begin again, with `run`. */
  long next(uint32_t timeout);

  /* Waits for the answer to what was begun. As `run`. */
  long wait(uint32_t timeout);

  /* As `run` and `next`, without waiting: call `poll` until `pending` is false; then `result` is what `run` would have
   * returned. */
  void start(const OffloadRequest &request, void *answer, uint16_t size);
  void startNext();
  bool pending() const { return phase_ == Asking; }
  long result() const { return result_; }

  /* Has the gateway end the request that is under way: queued, it never starts; running, it is stopped. It stays under
   * way until the gateway has said so: then the result is OFFLOAD_CANCELLED, or what the request has come to by itself
   * before. */
  void cancel();

  /* Keeps the connection, and does what can be done at once. Call it often, in `loop`. */
  void poll();

  /* Says goodbye to the broker, and stops. `begin` starts again. */
  void end();

  /* Whether the broker has let us in, as far as known. */
  bool connected() const { return link_ == Up; }

  /* Bytes of the whole output. */
  uint32_t total() const { return total_; }

  /* Bytes of output in the buffer; beside OFFLOAD_EXIT and other errors, too, if the program has printed something. */
  uint16_t length() const { return length_; }

  /* Microseconds that the program has run. The same again: it has not been run again. */
  uint32_t runMicros() const { return run_us_; }

  /* What the program returned; 0 where it has not come to that. */
  long exitCode() const { return exit_code_; }

  /* What went wrong, in words of the gateway, the program (its first line on stderr) or the library; at most
   * OFFLOAD_TEXT - 1 bytes, and empty where nothing did. */
  const char *errorText() const { return answer_.text(); }

private:
  void begin(uint16_t port, const char *device, uint32_t seed);
  void send(OffloadPacket packet);
  void ask();
  void connect();
  void lost();
  void fail(int8_t error);
  void cancelled();
  void finish(long result);
  void read();
  void handle(uint8_t type);
  void judge();
  void write();
  OffloadPacket due() const;
  void written();
  bool stalled() const;
  long unanswered();

  Client &network_;
};

#endif
