/* The library as the conformance tests drive it, on a PC: cases come on stdin, results go to stdout, a line of JSON
 * each. The fields are those of tests/README.md.
 *
 * A board has one request at a time. Many in flight are many boards, each with a connection and a name of its own; the
 * first one asks whatever has an id, since an id belongs to a board's name.
 */
#include <Offload.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "offload/Names.h"

/* How long a board waits for an answer before it repeats the request, and the first one for its connection. */
static const uint32_t REPEAT_MS = 2000;
static const uint32_t CONNECT_MS = 5000;

/* Bytes of a board's buffer where the case does not say. */
static const size_t BUFFER = 65535;

/* What a board's `loop` does before others have their turn. */
static const int POLLS = 64;

unsigned long millis() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<unsigned long>(now.tv_sec) * 1000 + static_cast<unsigned long>(now.tv_nsec) / 1000000;
}

unsigned long micros() { return millis() * 1000; }

void yield() {}

/* A TCP connection as an Arduino Client. */
struct Socket : Client {
  int descriptor = -1;

  ~Socket() override { stop(); }
  int connect(IPAddress, uint16_t) override { return 0; }
  int connect(const char *host, uint16_t port) override {
    stop();
    addrinfo hints = {}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, std::to_string(port).c_str(), &hints, &found)) {
      return 0;
    }
    descriptor = socket(found->ai_family, SOCK_STREAM, 0);
    bool up = descriptor >= 0 && ::connect(descriptor, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
    if (!up) {
      stop();
      return 0;
    }
    int yes = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return 1;
  }
  size_t write(uint8_t byte) override { return write(&byte, 1); }
  size_t write(const uint8_t *bytes, size_t size) override {
    ssize_t taken = descriptor < 0 ? -1 : send(descriptor, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    return taken > 0 ? static_cast<size_t>(taken) : 0;
  }
  int available() override {
    int count = 0;
    return descriptor >= 0 && ioctl(descriptor, FIONREAD, &count) == 0 ? count : 0;
  }
  int read() override {
    uint8_t byte;
    return recv(descriptor, &byte, 1, MSG_DONTWAIT) == 1 ? byte : -1;
  }
  void stop() override {
    if (descriptor >= 0) {
      close(descriptor);
    }
    descriptor = -1;
  }
  uint8_t connected() override {
    char byte;
    return descriptor >= 0 && recv(descriptor, &byte, 1, MSG_DONTWAIT | MSG_PEEK) != 0;
  }
};

/* --- The lines: flat JSON, with few escapes --- */

/* Names and values; a list's values have its name. */
using Fields = std::multimap<std::string, std::string>;

static std::string unescape(const std::string &line, size_t &at) {
  std::string text;
  for (++at; line.at(at) != '"'; ++at) {
    at += line[at] == '\\';
    text += line[at - 1] == '\\' && line[at] == 'n' ? '\n' : line[at];
  }
  ++at;
  return text;
}

static Fields parse(const std::string &line) {
  Fields fields;
  std::string name;
  bool in_list = false;
  for (size_t at = 0; at < line.size();) {
    if (line[at] == '"') {
      std::string text = unescape(line, at);
      if (name.empty()) {
        name = text;
      } else {
        fields.emplace(name, text);
      }
    } else if (strchr("[]{}:, ", line[at])) {
      in_list = line[at] == '[' || (in_list && line[at] != ']');
      if (line[at] == ',' && !in_list) {
        name.clear();
      }
      ++at;
    } else {
      size_t end = line.find_first_of(",]}", at);
      fields.emplace(name, line.substr(at, end - at));
      at = end;
    }
  }
  return fields;
}

static bool has(const Fields &fields, const char *name) { return fields.count(name) != 0; }

static std::string text(const Fields &fields, const char *name) {
  auto found = fields.find(name);
  return found == fields.end() ? "" : found->second;
}

static uint32_t number(const Fields &fields, const char *name) {
  return static_cast<uint32_t>(strtoul(text(fields, name).c_str(), nullptr, 10));
}

static std::string quoted(const std::string &text) {
  std::string json = "\"";
  for (char letter : text) {
    char escaped[8];
    if (letter == '"' || letter == '\\') {
      json += '\\';
    }
    if (static_cast<unsigned char>(letter) < 0x20) {
      snprintf(escaped, sizeof escaped, "\\u%04x", letter);
      json += escaped;
    } else {
      json += letter;
    }
  }
  return json + '"';
}

static void say(const std::string &number, const std::string &result) {
  printf("{\"case\":%s%s}\n", number.c_str(), result.c_str());
  fflush(stdout);
}

static std::string failure(const std::string &kind, const std::string &message) {
  return ",\"error\":{\"kind\":" + quoted(kind) + ",\"message\":" + quoted(message) + "}";
}

/* As the contract and the other clients name it. */
static std::string kind(long error) {
  switch (error) {
  case OFFLOAD_OFFLINE:
  case OFFLOAD_REFUSED:
    return "connection";
  case OFFLOAD_TIMEOUT:
    return "timeout";
  default:
    break;
  }
  const char *name = OFFLOAD_KINDS;
  for (long code = OFFLOAD_MALFORMED; *name && code > error; --code) {
    name += strlen(name) + 1;
  }
  return error > OFFLOAD_MALFORMED || !*name ? "internal" : name;
}

/* --- The boards --- */

struct Board {
  Socket socket;
  OffloadGateway gateway{socket};
  std::string name;
  Fields asked;
  /* What the request points to. */
  std::string id, program, input, module;
  std::vector<std::string> texts;
  std::vector<const char *> args;
  std::vector<char> buffer;
  std::string output;
  bool has_case = false;

  void begin(const std::string &host, uint16_t port, const std::string &device) {
    name = device;
    gateway.repeatEvery(REPEAT_MS);
    gateway.begin(host.c_str(), port, name.c_str(), static_cast<uint32_t>(getpid()));
  }

  bool isFree() const { return !has_case && !gateway.pending(); }

  void start(const Fields &fields) {
    asked = fields;
    has_case = true;
    output.clear();
    texts.clear();
    args.clear();
    auto list = asked.equal_range("args");
    for (auto arg = list.first; arg != list.second; ++arg) {
      texts.push_back(arg->second);
    }
    for (const std::string &arg : texts) {
      args.push_back(arg.c_str());
    }
    input.clear();
    for (uint32_t times = has(asked, "stdin_repeat") ? number(asked, "stdin_repeat") : 1; times; --times) {
      input += text(asked, "stdin");
    }
    program = text(asked, has(asked, "digest") ? "digest" : "program");
    id = text(asked, "id");
    buffer.resize(has(asked, "piece") ? number(asked, "piece") : BUFFER);

    OffloadRequest request = OffloadRequest::program(program.c_str());
    if (has(asked, "file")) {
      std::ifstream file(text(asked, "file"), std::ios::binary);
      module.assign(std::istreambuf_iterator<char>(file), {});
      request = OffloadRequest::module(OffloadCode::ram(module.data(), static_cast<uint32_t>(module.size())));
    }
    request.args(args.data(), static_cast<uint8_t>(args.size()));
    request.input(input.data(), static_cast<uint16_t>(input.size()));
    request.fuel(number(asked, "fuel")).memory(number(asked, "memory")).timeout(number(asked, "timeout_ms"));
    if (has(asked, "id")) {
      request.id(id.c_str());
    }
    gateway.start(request, buffer.data(), static_cast<uint16_t>(buffer.size()));
  }

  void loop() {
    for (int count = 0; count < POLLS; ++count) {
      gateway.poll();
    }
    if (!has_case) {
      return;
    }
    if (gateway.pending()) {
      /* The library repeats it until its caller's time is up: here that is at once. */
      if (gateway.wait(0) == OFFLOAD_BUSY && gateway.pending()) {
        finish(failure("busy", gateway.errorText()));
        gateway.cancel();
      }
      return;
    }
    long result = gateway.result();
    output.append(buffer.data(), gateway.length());
    if (result > 0 && output.size() < gateway.total()) {
      gateway.startNext();
    } else if (result >= 0 || result == OFFLOAD_EXIT) {
      std::string code = std::to_string(gateway.exitCode());
      finish((has(asked, "id") ? ",\"id\":" + quoted(id) : "") +
             ",\"status\":" + (result < 0 ? "\"exit\"" : "\"ok\"") + ",\"exit_code\":" + code +
             ",\"stdout\":" + quoted(output) + ",\"stderr\":" + quoted(gateway.errorText()) +
             ",\"run_us\":" + std::to_string(gateway.runMicros()));
    } else {
      finish(failure(kind(result), gateway.errorText()));
    }
  }

  void finish(const std::string &result) {
    has_case = false;
    say(text(asked, "case"), result);
  }
};

struct Boards {
  std::string host, name;
  uint16_t port;
  std::vector<std::unique_ptr<Board>> all;
  /* Cases with an id that wait for the first board. */
  std::deque<Fields> waiting;

  Board &add() {
    all.emplace_back(new Board);
    std::string number = all.size() == 1 ? "" : "-" + std::to_string(all.size());
    all.back()->begin(host, port, name + number);
    return *all.back();
  }

  void take(const Fields &fields) {
    if (has(fields, "cancel")) {
      cancel(text(fields, "cancel"));
    } else if (has(fields, "id")) {
      waiting.push_back(fields);
    } else {
      free().start(fields);
    }
  }

  Board &free() {
    for (size_t place = 1; place < all.size(); ++place) {
      if (all[place]->isFree()) {
        return *all[place];
      }
    }
    return add();
  }

  void cancel(const std::string &number) {
    for (auto fields = waiting.begin(); fields != waiting.end(); ++fields) {
      if (text(*fields, "case") == number) {
        waiting.erase(fields);
        say(number, failure("cancelled", "cancelled before it was sent"));
        return;
      }
    }
    for (auto &board : all) {
      if (board->has_case && text(board->asked, "case") == number) {
        board->gateway.cancel();
      }
    }
  }

  void loop() {
    if (!waiting.empty() && all[0]->isFree()) {
      all[0]->start(waiting.front());
      waiting.pop_front();
    }
    for (auto &board : all) {
      board->loop();
    }
  }

  bool areBusy() const {
    bool busy = !waiting.empty();
    for (auto &board : all) {
      busy |= !board->isFree();
    }
    return busy;
  }

  /* Until there is something to do for one of them: a line, bytes of a connection, or time that has passed. */
  void wait(bool reads_lines) const {
    std::vector<pollfd> ends = {{reads_lines ? STDIN_FILENO : -1, POLLIN, 0}};
    for (auto &board : all) {
      ends.push_back({board->socket.descriptor, POLLIN, 0});
    }
    ::poll(ends.data(), ends.size(), 1);
  }
};

/* The next line, as far as there is a whole one. */
static bool line(std::string &read, std::string &line, bool &ended) {
  pollfd input = {STDIN_FILENO, POLLIN, 0};
  while (!ended && read.find('\n') == std::string::npos && poll(&input, 1, 0) > 0) {
    char bytes[4096];
    ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
    ended = count <= 0;
    read.append(bytes, ended ? 0 : static_cast<size_t>(count));
  }
  size_t end = read.find('\n');
  if (end == std::string::npos) {
    return false;
  }
  line = read.substr(0, end);
  read.erase(0, end + 1);
  return true;
}

int main() {
  std::string read, next;
  bool ended = false;
  Boards boards;
  while (!line(read, next, ended)) {
    if (ended) {
      return 1;
    }
    boards.wait(true);
  }
  Fields connection = parse(next);
  boards.host = text(connection, "host");
  boards.name = text(connection, "client_id");
  boards.port = static_cast<uint16_t>(number(connection, "port"));
  Board &first = boards.add();
  unsigned long began = millis();
  do {
    boards.loop();
    boards.wait(false);
    /* A connection that cannot be made is tried again; here that is enough. */
  } while (!first.gateway.connected() && first.socket.descriptor >= 0 && millis() - began < CONNECT_MS);
  if (!first.gateway.connected()) {
    say("null", failure("connection", "no connection to the broker"));
    return 0;
  }
  say("null", "");
  while (!ended || boards.areBusy()) {
    while (line(read, next, ended)) {
      boards.take(parse(next));
    }
    boards.loop();
    boards.wait(!ended);
  }
  for (auto &board : boards.all) {
    board->gateway.end();
  }
  return 0;
}
