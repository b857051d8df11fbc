/* The Arduino library over a connection that the test plays: each byte that it sends, and each moment when it does. */
#include <Offload.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <random>
#include <string>
#include <vector>

using Bytes = std::string;

static unsigned long now = 0;
unsigned long millis() { return now; }
unsigned long micros() { return now * 1000; }
/* Each look at the connection takes a millisecond. */
static std::function<void()> on_yield;
void yield() {
  ++now;
  if (on_yield) {
    on_yield();
  }
}

static const char *current = "";
#define CHECK(condition) \
  do { \
    if (!(condition)) { \
      std::printf("%s: line %d: %s\n", current, __LINE__, #condition); \
      std::exit(1); \
    } \
  } while (0)

/* The other end of the connection. */
struct Network : Client {
  std::deque<uint8_t> in;
  Bytes out;
  bool up = false;
  bool reachable = true;
  /* What `availableForWrite` says, and how much one `write` takes. */
  int room = 0;
  size_t takes = 1000;
  size_t largest_write = 0;
  std::vector<unsigned long> attempts;

  int connect(IPAddress, uint16_t) override { return connect("", 0); }
  int connect(const char *, uint16_t) override {
    attempts.push_back(now);
    up = reachable;
    return up;
  }
  size_t write(uint8_t) override { std::abort(); }
  size_t write(const uint8_t *bytes, size_t size) override {
    largest_write = std::max(largest_write, size);
    size_t taken = up ? std::min(size, takes) : 0;
    out.append(reinterpret_cast<const char *>(bytes), taken);
    return taken;
  }
  int availableForWrite() override { return room; }
  int available() override { return static_cast<int>(in.size()); }
  int read() override {
    if (in.empty()) {
      return -1;
    }
    uint8_t byte = in.front();
    in.pop_front();
    return byte;
  }
  void stop() override {
    up = false;
    in.clear();
  }
  uint8_t connected() override { return up; }

  void say(const Bytes &bytes) { in.insert(in.end(), bytes.begin(), bytes.end()); }
  Bytes sent() {
    Bytes all;
    all.swap(out);
    return all;
  }
};

static Bytes bytes(std::initializer_list<int> list) { return Bytes(list.begin(), list.end()); }
static Bytes two(size_t number) { return bytes({int(number >> 8), int(number & 0xFF)}); }
static Bytes text(const Bytes &text) { return two(text.size()) + text; }

static Bytes packet(int first, const Bytes &body) {
  Bytes packet = bytes({first});
  size_t length = body.size();
  do {
    packet += char((length & 0x7F) | (length > 0x7F ? 0x80 : 0));
    length >>= 7;
  } while (length);
  return packet + body;
}

/* Items of CBOR. */
static Bytes head(int major, size_t number) {
  if (number < 24) return bytes({major | int(number)});
  if (number < 0x100) return bytes({major | 24, int(number)});
  if (number < 0x10000) return bytes({major | 25}) + two(number);
  return bytes({major | 26}) + two(number >> 16) + two(number & 0xFFFF);
}
static Bytes word(const Bytes &word) { return head(0x60, word.size()) + word; }
static Bytes string(const Bytes &string) { return head(0x40, string.size()) + string; }
static Bytes number(size_t number) { return head(0, number); }
static const Bytes NOTHING = "\xF6";
static const Bytes TAG = "\xD9\xD9\xF7";

/* An answer as the gateway writes it. */
struct Answer {
  Bytes id = word("7-1");
  Bytes status = "ok";
  Bytes exit_code = number(0);
  Bytes output = "12\n";
  Bytes errors = "";
  Bytes error = NOTHING;
  size_t offset = 0;
  size_t total = 3;
  size_t run_us = 50;

  Bytes payload() const {
    return TAG + head(0xA0, 11) + word("id") + id + word("status") + word(status) + word("exit_code") + exit_code +
           word("stdout") + string(output) + word("stderr") + string(errors) + word("error") + error + word("fuel") +
           number(299) + word("run_us") + number(run_us) + word("queue_us") + number(70000) + word("stdout_offset") +
           number(offset) + word("stdout_total") + number(total);
  }
  /* As a packet at QoS 1, of this number. */
  Bytes packet(int id = 9) const { return ::packet(0x32, text("result/dev1") + two(id) + payload()); }
  static Answer failed(const Bytes &kind, const Bytes &message, const Bytes &id = "7-1") {
    Answer answer;
    answer.id = word(id);
    answer.status = "error";
    answer.exit_code = NOTHING;
    answer.output = "";
    answer.total = 0;
    answer.error = head(0xA0, 2) + word("kind") + word(kind) + word("message") + word(message);
    return answer;
  }
  static Answer part(const Bytes &id, const Bytes &output, size_t offset, size_t total, size_t run_us = 50) {
    Answer answer;
    answer.id = word(id);
    answer.output = output;
    answer.offset = offset;
    answer.total = total;
    answer.run_us = run_us;
    return answer;
  }
};

static const Bytes CONNACK = bytes({0x20, 2, 0, 0});
static Bytes suback(int number, int code = 1) { return bytes({0x90, 3, 0, number, code}); }
static Bytes puback(int number) { return bytes({0x40, 2, 0, number}); }

static Bytes connect_packet() { return packet(0x10, text("MQTT") + bytes({4, 2, 0, 60}) + text("dev1")); }
static Bytes subscribe_packet(int number) { return packet(0x82, two(number) + text("result/dev1") + bytes({1})); }

/* The question for `add 5 7`. */
static Bytes question(int number, const Bytes &id = "7-1", size_t offset = 0, size_t length = 16) {
  return packet(0x32, text("localCode/dev1") + two(number) + TAG + head(0xA0, 5) + word("id") + word(id) +
                          word("program") + word("add") + word("args") + head(0x80, 2) + word("5") + word("7") +
                          word("stdout_offset") + ::number(offset) + word("stdout_length") + ::number(length));
}

static const char *const ARGS[] = {"5", "7"};

/* A gateway over a connection, and a buffer for answers with bytes behind it that nobody may touch. */
struct Board {
  Network network;
  OffloadGateway gateway{network};
  char buffer[16];

  Board() {
    on_yield = nullptr;
    gateway.begin("broker", 1883, "dev1", 7);
  }
  OffloadRequest add() const { return OffloadRequest::program("add").args(ARGS); }
  void start() { gateway.start(add(), buffer, sizeof buffer); }
  Bytes output() const { return Bytes(buffer, gateway.length()); }
  void polls(int count) {
    for (int poll = 0; poll < count; ++poll) {
      gateway.poll();
      ++now;
    }
  }
  /* Until the connection stands; what was sent for that is taken away. */
  void connect(int number = 1) {
    polls(10);
    network.say(CONNACK);
    polls(10);
    network.sent();
    network.say(suback(number));
    polls(1);
    CHECK(gateway.connected());
  }
};

static void a_request_is_sent_and_its_answer_read() {
  Board board;
  board.start();
  board.polls(5);
  CHECK(board.network.sent() == connect_packet());
  board.network.say(CONNACK);
  board.polls(5);
  CHECK(board.network.sent() == subscribe_packet(1));
  CHECK(!board.gateway.connected());
  board.network.say(suback(1));
  board.polls(10);
  CHECK(board.gateway.connected());
  CHECK(board.network.sent() == question(2));
  board.network.say(puback(2) + Answer().packet());
  board.polls(5);
  CHECK(!board.gateway.pending());
  CHECK(board.gateway.result() == 3 && board.output() == "12\n");
  CHECK(board.gateway.total() == 3 && !*board.gateway.errorText());
  CHECK(board.network.sent() == puback(9));
  CHECK(board.network.largest_write <= OFFLOAD_CHUNK);
}

static void a_name_and_a_password_go_with_the_connection() {
  Board board;
  board.gateway.credentials("user", "secret");
  board.polls(5);
  CHECK(board.network.sent() ==
        packet(0x10, text("MQTT") + bytes({4, 0xC2, 0, 60}) + text("dev1") + text("user") + text("secret")));
}

static void bytes_may_come_and_go_one_at_a_time() {
  Board board;
  board.network.takes = 1;
  board.start();
  Bytes broker = CONNACK + suback(1) + puback(2) + Answer().packet();
  Bytes sent;
  size_t said = 0;
  for (int poll = 0; poll < 2000 && board.gateway.pending(); ++poll) {
    sent += board.network.sent();
    /* Each when what it answers has come. */
    size_t due = connect_packet().size(), next = due + subscribe_packet(1).size(), last = next + question(2).size();
    size_t may = sent.size() < due ? 0 : sent.size() < next ? 4 : sent.size() < last ? 9 : broker.size();
    if (said < may) {
      board.network.say(broker.substr(said++, 1));
    }
    board.polls(1);
  }
  CHECK(board.gateway.result() == 3 && board.output() == "12\n");
  CHECK(sent == connect_packet() + subscribe_packet(1) + question(2));
}

static void a_client_that_says_how_much_it_takes_is_given_no_more() {
  Board board;
  board.network.room = 7;
  board.start();
  board.polls(20);
  CHECK(board.network.sent() == connect_packet() && board.network.largest_write == 7);
  board.network.room = 0;
  board.network.say(CONNACK);
  board.polls(20);
  CHECK(board.network.sent().empty());
  board.network.room = 100;
  board.polls(2);
  CHECK(board.network.sent() == subscribe_packet(1));
}

static void a_request_is_repeated_until_it_is_answered() {
  Board board;
  board.start();
  board.connect();
  board.polls(10);
  board.network.sent();
  board.network.say(puback(2));
  board.polls(4900);
  CHECK(board.network.sent().empty());
  board.polls(200);
  CHECK(board.network.sent() == question(3));
  board.network.say(puback(3));
  board.gateway.repeatEvery(100);
  board.polls(100);
  CHECK(board.network.sent() == question(4));
  board.network.say(Answer().packet(9) + Answer().packet(10));
  board.polls(20);
  CHECK(board.gateway.result() == 3);
  CHECK(board.network.sent() == puback(9) + puback(10));
  board.polls(1000);
  CHECK(board.network.sent().empty());
}

static void messages_that_come_together_are_all_acknowledged() {
  Board board;
  board.connect();
  for (int id : {5, 6, 7}) {
    board.network.say(packet(0x32, text("result/dev1") + two(size_t(id))));
  }
  board.polls(20);
  CHECK(board.network.sent() == puback(5) + puback(6) + puback(7));
}

static void at_qos_0_nothing_is_acknowledged() {
  Board board;
  board.gateway.atMostOnce(true);
  board.start();
  board.polls(10);
  board.network.sent();
  board.network.say(CONNACK);
  board.polls(10);
  CHECK(board.network.sent() == packet(0x82, two(1) + text("result/dev1") + bytes({0})));
  board.network.say(suback(1, 0));
  board.polls(10);
  Bytes expected = question(2);
  /* Without its number, at QoS 0. */
  expected.erase(2 + 2 + 14, 2);
  expected[0] = 0x30;
  expected[1] = char(expected[1] - 2);
  CHECK(board.network.sent() == expected);
  board.network.say(packet(0x30, text("result/dev1") + Answer().payload()));
  board.polls(10);
  CHECK(board.gateway.result() == 3 && board.network.sent().empty());
}

static void each_request_has_an_id_of_its_own() {
  Board board;
  board.start();
  board.connect();
  board.network.say(Answer().packet());
  board.polls(10);
  CHECK(board.gateway.result() == 3);
  board.network.sent();
  board.start();
  board.polls(10);
  CHECK(board.network.sent() == question(3, "7-2"));
  board.gateway.begin("broker", 1883, "dev1", 0xFFFFFFFF);
  board.start();
  board.connect(4);
  board.polls(10);
  board.network.say(Answer::part("ffffffff-1", "x", 0, 1).packet());
  board.polls(10);
  CHECK(board.output() == "x");
}

static void answers_to_other_requests_are_ignored() {
  Board board;
  board.start();
  board.connect();
  const Bytes ids[] = {word("7-2"), word("7-11"), word("7-"), word("8-1"), word(""), word(Bytes(200, '7')), NOTHING};
  for (const Bytes &id : ids) {
    Answer other;
    other.id = id;
    board.network.say(other.packet());
  }
  board.network.say(Answer::part("7-1", "late", 16, 20).packet());
  board.network.say(packet(0x32, text("result/dev1") + two(1) + "12\n"));
  board.network.say(packet(0x32, text("result/dev1") + two(1)));
  board.network.say(packet(0x32, text("result/dev1") + two(1) + "{\"id\":\"7-1\",\"status\":\"ok\"}"));
  board.network.say(packet(0x32, text("result/dev1") + two(1) + Answer().payload() + "x"));
  Bytes cut = Answer().payload();
  cut.pop_back();
  board.network.say(packet(0x32, text("result/dev1") + two(1) + cut));
  board.polls(100);
  CHECK(board.gateway.pending() && board.gateway.connected());
  board.network.say(Answer().packet());
  board.polls(10);
  CHECK(board.gateway.result() == 3 && board.output() == "12\n");
}

static void an_earlier_answer_that_comes_in_two_parts_is_not_taken_for_the_next() {
  Bytes first = Answer().packet();
  for (size_t cut = 1; cut < first.size(); ++cut) {
    Board board;
    board.start();
    board.connect();
    board.polls(10);
    board.network.say(first.substr(0, cut));
    board.polls(10);
    board.start();
    board.network.say(first.substr(cut));
    board.polls(10);
    CHECK(board.gateway.pending() && board.gateway.connected());
  }
}

static void what_the_gateway_cannot_read_fails() {
  Board board;
  board.start();
  board.connect();
  Answer answer = Answer::failed("malformed", "field `args`: not text");
  answer.id = NOTHING;
  board.network.say(answer.packet());
  board.polls(10);
  CHECK(board.gateway.result() == OFFLOAD_MALFORMED);
  CHECK(Bytes(board.gateway.errorText()) == "field `args`: not text");
}

static void each_kind_of_error_has_its_code_and_text() {
  const std::pair<const char *, int> KINDS[] = {
      {"malformed", OFFLOAD_MALFORMED}, {"unauthorized", OFFLOAD_UNAUTHORIZED}, {"not-found", OFFLOAD_NOT_FOUND},
      {"too-large", OFFLOAD_TOO_LARGE}, {"expired", OFFLOAD_EXPIRED}, {"timeout", OFFLOAD_RAN_TOO_LONG},
      {"build", OFFLOAD_BUILD}, {"compile", OFFLOAD_COMPILE}, {"exit", OFFLOAD_EXIT}, {"trap", OFFLOAD_TRAP},
      {"fuel", OFFLOAD_FUEL}, {"memory", OFFLOAD_MEMORY}, {"output", OFFLOAD_OUTPUT}, {"internal", OFFLOAD_INTERNAL},
      {"cancelled", OFFLOAD_CANCELLED}, {"unreachable", OFFLOAD_UNREACHABLE}, {"new", OFFLOAD_UNKNOWN},
      {"a-kind-with-a-long-name", OFFLOAD_UNKNOWN}};
  for (const auto &kind : KINDS) {
    Board board;
    board.start();
    board.connect();
    board.network.say(Answer::failed(kind.first, "because " + Bytes(200, 'x')).packet());
    board.polls(10);
    CHECK(board.gateway.result() == kind.second);
    CHECK(Bytes(board.gateway.errorText()) == "because " + Bytes(OFFLOAD_TEXT - 9, 'x'));
  }
}

static void a_program_that_fails_gives_its_output_and_its_first_line() {
  Board board;
  board.start();
  board.connect();
  Answer answer;
  answer.status = "exit";
  answer.exit_code = number(70000);
  answer.errors = "not a number\nusage";
  board.network.say(answer.packet());
  board.polls(10);
  CHECK(board.gateway.result() == OFFLOAD_EXIT && board.gateway.exitCode() == 70000);
  CHECK(board.output() == "12\n" && Bytes(board.gateway.errorText()) == "not a number");
  CHECK(board.gateway.next(10) == OFFLOAD_EXIT);
  board.start();
  board.polls(10);
  answer.id = word("7-2");
  answer.exit_code = "\x20";
  answer.errors = "";
  board.network.say(answer.packet());
  board.polls(10);
  CHECK(board.gateway.exitCode() == -1 && *board.gateway.errorText());
}

static void fields_that_are_not_known_are_left_out() {
  Board board;
  board.start();
  board.connect();
  Answer answer = Answer::failed("trap", "unreachable");
  Bytes nested = head(0x80, 2) + head(0xA0, 1) + word("id") + head(0x80, 1) + word("kind") + word("stdout");
  Bytes error = head(0xA0, 3) + word("kind") + word("trap") + word("id") + word("7-2") + word("message") + word("why");
  Bytes payload = TAG + head(0xA0, 9) + word("new") + nested + word("status") + word("error") + word("kind") +
                  word("fuel") + word("error") + error + word("message") + word("other") + word("empty") +
                  head(0xA0, 0) + word("none") + head(0x80, 0) + word("float") + bytes({0xFB, 1, 2, 3, 4, 5, 6, 7, 8}) +
                  word("id") + word("7-1");
  board.network.say(packet(0x32, text("result/dev1") + two(1) + payload));
  board.polls(10);
  CHECK(board.gateway.result() == OFFLOAD_TRAP && Bytes(board.gateway.errorText()) == "why");
}

static void a_busy_gateway_is_asked_again() {
  Board board;
  board.start();
  board.connect();
  board.polls(10);
  board.network.say(puback(2) + Answer::failed("busy", "try again after 2 s").packet());
  CHECK(board.gateway.wait(100) == OFFLOAD_BUSY);
  CHECK(Bytes(board.gateway.errorText()) == "try again after 2 s" && board.gateway.pending());
  board.polls(5000);
  CHECK(board.network.sent().find(question(3)) != Bytes::npos);
  board.network.say(Answer().packet());
  CHECK(board.gateway.wait(100) == 3);
}

/* A request that names its own id and limits. */
static void a_request_has_the_id_and_the_limits_that_it_is_given() {
  Board board;
  board.gateway.start(board.add().id("meter 7, May").fuel(1000000).memory(65536).timeout(250), board.buffer, 16);
  board.connect();
  board.polls(10);
  CHECK(board.network.sent() ==
        packet(0x32, text("localCode/dev1") + two(2) + TAG + head(0xA0, 8) + word("id") + word("meter 7, May") +
                         word("program") + word("add") + word("args") + head(0x80, 2) + word("5") + word("7") +
                         word("fuel") + number(1000000) + word("memory") + number(65536) + word("timeout_ms") +
                         number(250) + word("stdout_offset") + number(0) + word("stdout_length") + number(16)));
  Answer answer;
  answer.id = word("meter 7, May");
  board.network.say(answer.packet());
  board.polls(10);
  CHECK(board.gateway.result() == 3 && board.gateway.runMicros() == 50);
}

static Bytes cancelling(int number, const Bytes &id = "7-1") {
  return packet(0x32, text("localCode/dev1") + two(number) + TAG + head(0xA0, 1) + word("cancel") + word(id));
}

static void a_request_is_cancelled_at_the_gateway() {
  Answer ended;
  ended.id = NOTHING;
  ended.output = "";
  ended.total = 0;
  /* Told by the cancelled request, by the cancelling, or by that there is nothing to cancel any more. */
  const Bytes ends[] = {Answer::failed("cancelled", "cancelled").packet(), ended.packet(), [] {
                          Answer gone = Answer::failed("not-found", "no such request");
                          gone.id = NOTHING;
                          return gone.packet();
                        }()};
  for (const Bytes &end : ends) {
    Board board;
    board.start();
    board.connect();
    board.polls(10);
    CHECK(board.network.sent() == question(2));
    board.gateway.cancel();
    board.polls(10);
    CHECK(board.network.sent() == cancelling(3) && board.gateway.pending());
    /* Repeated until it is answered. */
    board.network.say(puback(2) + puback(3));
    board.polls(5100);
    CHECK(board.network.sent() == cancelling(4));
    board.network.say(end);
    board.polls(10);
    CHECK(board.gateway.result() == OFFLOAD_CANCELLED && Bytes(board.gateway.errorText()) == "cancelled");
    CHECK(board.gateway.next(10) == OFFLOAD_CANCELLED);
    /* The next request is none of that. */
    board.network.sent();
    board.start();
    board.polls(10);
    CHECK(board.network.sent().find(question(5, "7-2")) != Bytes::npos);
  }
}

static void what_has_ended_by_itself_is_not_cancelled() {
  Board board;
  board.start();
  board.connect();
  board.polls(10);
  board.gateway.cancel();
  board.network.say(Answer().packet());
  board.polls(10);
  CHECK(board.gateway.result() == 3 && board.output() == "12\n");
  board.gateway.cancel();
  CHECK(board.gateway.result() == 3);
}

static void what_was_never_sent_is_cancelled_at_once() {
  Board board;
  board.start();
  board.polls(10);
  board.gateway.cancel();
  CHECK(board.gateway.result() == OFFLOAD_CANCELLED);
  board.network.sent();
  board.network.say(CONNACK + suback(1));
  board.polls(20);
  CHECK(board.network.sent() == subscribe_packet(1));
}

static void a_request_is_cancelled_after_a_lost_connection() {
  Board board;
  board.start();
  board.connect();
  board.polls(10);
  board.network.up = false;
  board.polls(10);
  board.gateway.cancel();
  CHECK(board.gateway.pending());
  board.network.sent();
  board.polls(1300);
  board.network.sent();
  board.network.say(CONNACK + suback(3));
  board.polls(20);
  CHECK(board.network.sent() == subscribe_packet(3) + cancelling(4));
}

static void waiting_ends_when_it_is_told_to() {
  Board board;
  unsigned long began = now;
  CHECK(board.gateway.run("add", ARGS, 2, board.buffer, sizeof board.buffer, 250) == OFFLOAD_OFFLINE);
  CHECK(now - began == 250);
  board.connect();
  began = now;
  CHECK(board.gateway.wait(100) == OFFLOAD_TIMEOUT);
  CHECK(now - began == 100 && *board.gateway.errorText());
  began = now;
  CHECK(board.gateway.wait(0) == OFFLOAD_TIMEOUT);
  CHECK(now - began <= 1);
  /* It is still under way. */
  board.network.say(Answer().packet());
  CHECK(board.gateway.wait(100) == 3);
}

static void calls_in_the_wrong_order_say_so() {
  Network network;
  OffloadGateway gateway(network);
  char buffer[4];
  gateway.poll();
  CHECK(gateway.run("add", ARGS, 2, buffer, sizeof buffer, 10) == OFFLOAD_MISUSED && *gateway.errorText());
  gateway.begin("broker", 1883, "dev1", 1);
  CHECK(gateway.next(10) == OFFLOAD_MISUSED && gateway.wait(10) == OFFLOAD_MISUSED && *gateway.errorText());
  CHECK(network.attempts.size() == 1);
}

static void a_long_answer_comes_in_parts() {
  Board board;
  board.start();
  board.connect();
  board.polls(10);
  CHECK(board.network.sent() == question(2));
  board.network.say(Answer::part("7-1", "0123456789abcdef", 0, 20).packet());
  CHECK(board.gateway.wait(100) == 16 && board.gateway.total() == 20 && board.output() == "0123456789abcdef");
  board.gateway.startNext();
  board.polls(10);
  CHECK(board.network.sent().find(question(3, "7-1", 16)) != Bytes::npos);
  /* A second answer to the first part is none to this one. */
  board.network.say(Answer::part("7-1", "0123456789abcdef", 0, 20).packet());
  board.polls(10);
  CHECK(board.gateway.pending());
  board.network.say(Answer::part("7-1", "ghij", 16, 20).packet());
  CHECK(board.gateway.wait(100) == 4 && board.output() == "ghij");
  CHECK(board.gateway.next(100) == 0 && board.gateway.length() == 0 && board.gateway.next(100) == 0);
}

static void parts_of_two_runs_are_not_mixed() {
  for (const Answer &other : {Answer::part("7-1", "ghij", 16, 20, 51), Answer::part("7-1", "ghijk", 16, 21)}) {
    Board board;
    board.start();
    board.connect();
    board.network.say(Answer::part("7-1", "0123456789abcdef", 0, 20).packet());
    CHECK(board.gateway.wait(100) == 16);
    board.gateway.startNext();
    board.polls(10);
    board.network.say(other.packet());
    CHECK(board.gateway.wait(100) == OFFLOAD_OTHER_RUN && *board.gateway.errorText());
    CHECK(board.gateway.next(100) == OFFLOAD_OTHER_RUN);
  }
}

static void more_output_than_was_asked_for_stays_in_the_buffer() {
  Board board;
  board.start();
  board.connect();
  board.network.say(Answer::part("7-1", Bytes(5000, 'x'), 0, 5000).packet());
  CHECK(board.gateway.wait(200) == 16);
}

/* 60 KB that are nowhere: each byte is made of its place. */
static bool generate(void *calls, uint32_t offset, uint8_t *to, uint8_t count) {
  ++*static_cast<int *>(calls);
  for (uint8_t byte = 0; byte < count; ++byte) {
    to[byte] = static_cast<uint8_t>((offset + byte) % 251);
  }
  return true;
}

static void code_is_read_while_it_is_sent() {
  const size_t SIZE = 60000;
  int calls = 0;
  Board board;
  OffloadCode generated = OffloadCode::from(generate, &calls, SIZE);
  board.gateway.start(OffloadRequest::module(generated).input("in", 2), board.buffer, 16);
  board.connect();
  board.polls(int(SIZE) / OFFLOAD_CHUNK + 10);
  Bytes code;
  for (size_t place = 0; place < SIZE; ++place) {
    code += char(place % 251);
  }
  Bytes expected =
      packet(0x32, text("inputCode/dev1") + two(2) + TAG + head(0xA0, 5) + word("id") + word("7-1") + word("module") +
                       string(code) + word("stdin") + string("in") + word("stdout_offset") + number(0) +
                       word("stdout_length") + number(16));
  CHECK(board.network.sent() == expected);
  CHECK(calls >= int(SIZE) / OFFLOAD_CHUNK && calls < int(SIZE) / OFFLOAD_CHUNK + 3);
}

static void code_with_a_digest_goes_when_it_is_not_there() {
  const char *const digest = "sha256:e3a043b2e308e8ccf65166e1e8b17743ab6d39496f911e22be0d4bbc5fb1f082";
  const Bytes tail = word("stdout_offset") + number(0) + word("stdout_length") + number(16);
  const Bytes by_digest = TAG + head(0xA0, 4) + word("id") + word("7-1") + word("digest") + word(digest) + tail;
  const Bytes by_code = TAG + head(0xA0, 4) + word("id") + word("7-1") + word("module") + string("code") + tail;
  const Bytes missing = Answer::failed("not-found", "no such module").packet();
  Board board;
  board.gateway.start(OffloadRequest::module(OffloadCode::flash("code", 4).digest(digest)), board.buffer, 16);
  board.connect();
  board.polls(10);
  CHECK(board.network.sent() == packet(0x32, text("localCode/dev1") + two(2) + by_digest));
  board.network.say(puback(2) + missing);
  board.polls(10);
  CHECK(board.network.sent() == puback(9) + packet(0x32, text("inputCode/dev1") + two(3) + by_code));
  /* To an earlier question. */
  board.network.say(puback(3) + missing);
  board.polls(10);
  CHECK(board.network.sent() == puback(9));
  board.polls(5100);
  CHECK(board.network.sent() == packet(0x32, text("localCode/dev1") + two(4) + by_digest));
  board.network.say(puback(4) + Answer().packet());
  board.polls(10);
  CHECK(board.gateway.result() == 3);
}

static void a_digest_names_a_module_that_was_sent() {
  Board board;
  board.gateway.start(OffloadRequest::program("sha256:00"), board.buffer, 16);
  board.connect();
  board.polls(10);
  CHECK(board.network.sent().find(word("digest") + word("sha256:00")) != Bytes::npos);
  board.network.say(Answer::failed("not-found", "no such module").packet());
  CHECK(board.gateway.wait(100) == OFFLOAD_NOT_FOUND);
}

static void code_that_cannot_be_read_fails() {
  Board board;
  auto fails = [](void *, uint32_t offset, uint8_t *, uint8_t) { return offset < 100; };
  board.gateway.start(OffloadRequest::module(OffloadCode::from(fails, nullptr, 60000)), board.buffer, 16);
  board.connect();
  board.polls(1300);
  CHECK(board.gateway.result() == OFFLOAD_NO_CODE && *board.gateway.errorText());
  /* The packet that had begun cannot be ended: the connection is made anew. */
  CHECK(board.network.attempts.size() == 2);
}

static void another_request_does_not_end_the_packet_of_the_one_before() {
  int calls = 0;
  Board board;
  board.gateway.start(OffloadRequest::module(OffloadCode::from(generate, &calls, 60000)), board.buffer, 16);
  board.connect();
  board.polls(10);
  CHECK(calls > 5);
  board.start();
  board.network.sent();
  board.polls(1300);
  CHECK(board.network.attempts.size() == 2);
  CHECK(board.network.sent() == connect_packet());
  board.network.say(CONNACK);
  board.polls(5);
  board.network.sent();
  board.network.say(suback(3));
  board.polls(10);
  CHECK(board.network.sent() == question(4, "7-2"));
}

static void a_lost_connection_is_made_again_and_the_request_repeated() {
  Board board;
  board.start();
  board.connect();
  board.polls(10);
  board.network.sent();
  board.network.up = false;
  board.polls(1300);
  CHECK(board.network.attempts.size() == 2);
  CHECK(board.network.sent() == connect_packet());
  board.network.say(CONNACK);
  board.polls(10);
  board.network.sent();
  board.network.say(suback(3));
  board.polls(10);
  CHECK(board.network.sent() == question(4));
}

static void pauses_between_attempts_become_longer() {
  Board board;
  board.network.reachable = false;
  board.polls(400000);
  std::vector<unsigned long> &attempts = board.network.attempts;
  const unsigned long pauses[] = {1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000};
  CHECK(attempts.size() > 8);
  for (size_t place = 0; place < 8; ++place) {
    unsigned long pause = attempts[place + 1] - attempts[place];
    CHECK(pause >= pauses[place] && pause <= pauses[place] * 5 / 4 + 2);
  }
  /* A connection that stood is made again at once, one that did not is a failure. */
  board.network.reachable = true;
  while (!board.network.up) {
    board.polls(1);
  }
  size_t before = attempts.size();
  board.connect();
  for (int minute = 0; minute < 3; ++minute) {
    board.polls(OFFLOAD_KEEP_ALIVE_S * 500 + 10);
    board.network.say(bytes({0xD0, 0}));
  }
  board.network.up = false;
  board.polls(3);
  CHECK(attempts.size() == before + 1);
  board.connect(2);
  board.network.up = false;
  board.polls(900);
  CHECK(attempts.size() == before + 1);
  board.polls(500);
  CHECK(attempts.size() == before + 2);
}

static void a_refusal_is_an_error_at_once() {
  for (int code : {1, 2, 4, 5}) {
    Board board;
    board.start();
    board.polls(10);
    board.network.say(bytes({0x20, 2, 0, code}));
    board.polls(10);
    CHECK(board.gateway.result() == OFFLOAD_REFUSED && *board.gateway.errorText() && !board.network.up);
    CHECK(board.gateway.run(board.add(), board.buffer, 16, 100) == OFFLOAD_REFUSED);
  }
  Board board;
  board.start();
  board.polls(10);
  board.network.say(CONNACK);
  board.polls(10);
  board.network.say(suback(1, 0x80));
  board.polls(10);
  CHECK(board.gateway.result() == OFFLOAD_REFUSED);
  /* A server that is not available may be so later. */
  Board later;
  later.start();
  later.polls(10);
  later.network.say(bytes({0x20, 2, 0, 3}));
  later.polls(10);
  CHECK(later.gateway.pending() && later.gateway.wait(10) == OFFLOAD_OFFLINE);
}

static void a_broker_that_is_silent_is_left() {
  Board board;
  board.start();
  board.connect();
  board.polls(OFFLOAD_SILENCE_MS + 1300);
  CHECK(board.network.attempts.size() == 2);
  /* And one that takes nothing. */
  Board full;
  full.start();
  full.connect();
  full.network.say(Answer().packet());
  full.polls(10);
  full.network.takes = 0;
  full.start();
  full.polls(OFFLOAD_SILENCE_MS + 1300);
  CHECK(full.network.attempts.size() == 2);
}

static void a_quiet_connection_is_kept() {
  Board board;
  board.connect();
  for (int round = 0; round < 4; ++round) {
    board.polls(OFFLOAD_KEEP_ALIVE_S * 500 + 10);
    CHECK(board.network.sent() == bytes({0xC0, 0}));
    board.network.say(bytes({0xD0, 0}));
    board.polls(2);
  }
  CHECK(board.network.attempts.size() == 1);
  board.gateway.end();
  CHECK(board.network.sent() == bytes({0xE0, 0}) && !board.network.up);
  board.polls(100);
  CHECK(board.network.attempts.size() == 1);
}

/* Whatever a broker sends, nothing outside of the buffer is touched (by the sanitizers), and polls end. */
static void nothing_that_comes_does_harm() {
  std::mt19937 random(1);
  const Bytes good = Answer::failed("trap", "why").packet() + Answer().packet() + puback(2);
  for (int round = 0; round < 20000; ++round) {
    Board board;
    std::vector<char> buffer(random() % 8);
    board.gateway.start(board.add(), buffer.data(), uint16_t(buffer.size()));
    board.connect();
    Bytes bad = good;
    for (int change = int(random() % 8); change >= 0; --change) {
      switch (random() % 3) {
      case 0:
        bad[random() % bad.size()] = char(random());
        break;
      case 1:
        bad.insert(random() % bad.size(), 1, char(random()));
        break;
      default:
        bad.erase(random() % bad.size(), random() % 4);
      }
    }
    board.network.say(bad);
    board.polls(20);
    CHECK(board.gateway.pending() || board.gateway.result() <= long(buffer.size()));
  }
}

#define CASE(name) {#name, name}
int main() {
  const std::pair<const char *, void (*)()> CASES[] = {
      CASE(a_request_is_sent_and_its_answer_read),
      CASE(a_name_and_a_password_go_with_the_connection),
      CASE(bytes_may_come_and_go_one_at_a_time),
      CASE(a_client_that_says_how_much_it_takes_is_given_no_more),
      CASE(a_request_is_repeated_until_it_is_answered),
      CASE(messages_that_come_together_are_all_acknowledged),
      CASE(at_qos_0_nothing_is_acknowledged),
      CASE(each_request_has_an_id_of_its_own),
      CASE(answers_to_other_requests_are_ignored),
      CASE(an_earlier_answer_that_comes_in_two_parts_is_not_taken_for_the_next),
      CASE(what_the_gateway_cannot_read_fails),
      CASE(each_kind_of_error_has_its_code_and_text),
      CASE(a_program_that_fails_gives_its_output_and_its_first_line),
      CASE(fields_that_are_not_known_are_left_out),
      CASE(a_busy_gateway_is_asked_again),
      CASE(a_request_has_the_id_and_the_limits_that_it_is_given),
      CASE(a_request_is_cancelled_at_the_gateway),
      CASE(what_has_ended_by_itself_is_not_cancelled),
      CASE(what_was_never_sent_is_cancelled_at_once),
      CASE(a_request_is_cancelled_after_a_lost_connection),
      CASE(waiting_ends_when_it_is_told_to),
      CASE(calls_in_the_wrong_order_say_so),
      CASE(a_long_answer_comes_in_parts),
      CASE(parts_of_two_runs_are_not_mixed),
      CASE(more_output_than_was_asked_for_stays_in_the_buffer),
      CASE(code_is_read_while_it_is_sent),
      CASE(code_with_a_digest_goes_when_it_is_not_there),
      CASE(a_digest_names_a_module_that_was_sent),
      CASE(code_that_cannot_be_read_fails),
      CASE(another_request_does_not_end_the_packet_of_the_one_before),
      CASE(a_lost_connection_is_made_again_and_the_request_repeated),
      CASE(pauses_between_attempts_become_longer),
      CASE(a_refusal_is_an_error_at_once),
      CASE(a_broker_that_is_silent_is_left),
      CASE(a_quiet_connection_is_kept),
      CASE(nothing_that_comes_does_harm),
  };
  for (const auto &test : CASES) {
    current = test.first;
    test.second();
  }
  std::printf("%zu cases passed\n", sizeof CASES / sizeof *CASES);
}
