/* An ATmega328P at 16 MHz that runs a firmware, with its serial line bridged to TCP.
 *
 *     simulator FIRMWARE.elf HOST PORT STARTS
 *
 * The line's frames are described in stand_ins/SerialClient.h. What the sketch prints is printed; what is typed is
 * typed there. SIGHUP presses the reset button: RAM is lost, the EEPROM stays. In that the board has counted STARTS
 * already (0 to 254). Time passes as on a real board, or more slowly on a busy machine: between its steps this process
 * sleeps.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_eeprom.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>

#define HERTZ 16000000

/* Cycles between two looks at the world outside: a millisecond. */
#define STEP (HERTZ / 1000)

/* How far the board may be behind the clock before that is forgotten, in nanoseconds. */
#define LATEST 20000000LL

#define FRAME 0x10

/* Bytes that the board takes before it has read any, and that it has read when it says so. */
#define ROOM 32
#define CREDIT 16

static avr_t *avr;
static avr_irq_t *input;
static int paused;
static volatile sig_atomic_t reset;

static const char *host;
static int port;
static int connection = -1;
static int under_way;

/* To the board: what waits for its line. */
static uint8_t queue[4096];
static size_t first, last;

static void push(uint8_t byte) {
    if (last == sizeof queue) {
        memmove(queue, queue + first, last - first);
        last -= first;
        first = 0;
    }
    if (last == sizeof queue) {
        fputs("the board takes nothing\n", stderr);
        exit(1);
    }
    queue[last++] = byte;
}

static void send_queue(void) {
    while (!paused && first < last) {
        avr_raise_irq(input, queue[first++]);
    }
}

static void frame(char letter) {
    push(FRAME);
    push(letter);
}

static void contents(char letter, const uint8_t *bytes, uint8_t count) {
    frame(letter);
    push(count);
    for (uint8_t place = 0; place < count; ++place) {
        push(bytes[place]);
    }
}

static void leave(void) {
    if (connection >= 0) {
        close(connection);
    }
    connection = -1;
}

static void enter(void) {
    leave();
    under_way = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(connection, (struct sockaddr *)&to, sizeof to)) {
        leave();
        frame('C');
        return;
    }
    int yes = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    frame('O');
}

/* What the board has sent of a frame. */
static enum { CONSOLE, LETTER, LENGTH, CONTENTS } state = CONSOLE;
static uint8_t left, got, data[255];

static void from_board(avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq, (void)param;
    uint8_t byte = value;
    switch (state) {
    case CONSOLE:
        if (byte == FRAME) {
            state = LETTER;
        } else {
            putchar(byte);
            if (byte == '\n') {
                fflush(stdout);
            }
        }
        break;
    case LETTER:
        state = byte == 'D' ? LENGTH : CONSOLE;
        if (byte == 'O') {
            enter();
        } else if (byte == 'C') {
            leave();
        } else if (byte == 'K') {
            under_way -= CREDIT;
        }
        break;
    case LENGTH:
        left = byte;
        got = 0;
        state = left ? CONTENTS : CONSOLE;
        break;
    case CONTENTS:
        data[got++] = byte;
        if (!--left) {
            state = CONSOLE;
            /* What is lost with its connection the board hears of when it reads. */
            if (connection >= 0 && send(connection, data, got, MSG_NOSIGNAL) != got) {
                leave();
                frame('C');
            }
        }
        break;
    }
}

static void on_pause(avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq, (void)value, (void)param;
    paused = 1;
}

static void on_resume(avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq, (void)value, (void)param;
    paused = 0;
    send_queue();
}

static void from_outside(void) {
    uint8_t bytes[ROOM];
    struct pollfd typed = {.fd = 0, .events = POLLIN};
    if (poll(&typed, 1, 0) > 0) {
        ssize_t count = read(0, bytes, sizeof bytes);
        if (count <= 0) {
            exit(0);
        }
        contents('I', bytes, count);
    }
    if (connection >= 0 && under_way < ROOM) {
        ssize_t count = recv(connection, bytes, ROOM - under_way, MSG_DONTWAIT);
        if (count > 0) {
            under_way += count;
            contents('D', bytes, count);
        } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
            leave();
            frame('C');
        }
    }
    send_queue();
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void press_reset(int signal) {
    (void)signal;
    reset = 1;
}

static void begin(void) {
    leave();
    first = last = 0;
    paused = 0;
    state = CONSOLE;
    avr_reset(avr);
}

int main(int count, char **arguments) {
    if (count != 5) {
        fputs("simulator FIRMWARE.elf HOST PORT STARTS\n", stderr);
        return 2;
    }
    host = arguments[2];
    port = atoi(arguments[3]);
    elf_firmware_t firmware = {0};
    if (elf_read_firmware(arguments[1], &firmware)) {
        return 1;
    }
    avr = avr_make_mcu_by_name("atmega328p");
    avr_init(avr);
    avr->frequency = HERTZ;
    avr_load_firmware(avr, &firmware);
    avr->frequency = HERTZ;

    uint8_t starts[] = {atoi(arguments[4]), 0, 0, 0};
    avr_eeprom_desc_t eeprom = {.ee = starts, .offset = 0, .size = sizeof starts};
    avr_ioctl(avr, AVR_IOCTL_EEPROM_SET, &eeprom);

    /* Its own printing and sleeping is off: both are done here. */
    uint32_t flags = 0;
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    avr_irq_t *uart = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), 0);
    input = uart + UART_IRQ_INPUT;
    avr_irq_register_notify(uart + UART_IRQ_OUTPUT, from_board, NULL);
    avr_irq_register_notify(uart + UART_IRQ_OUT_XOFF, on_pause, NULL);
    avr_irq_register_notify(uart + UART_IRQ_OUT_XON, on_resume, NULL);
    signal(SIGHUP, press_reset);

    avr_cycle_count_t next = STEP;
    int64_t due = now();
    for (;;) {
        int running = avr_run(avr);
        if (running == cpu_Done || running == cpu_Crashed) {
            fputs("the board has crashed\n", stderr);
            return 1;
        }
        if (reset) {
            reset = 0;
            begin();
        }
        if (avr->cycle < next) {
            continue;
        }
        next = avr->cycle + STEP;
        from_outside();
        due += 1000000;
        int64_t ahead = due - now();
        if (ahead > 0) {
            struct timespec pause = {.tv_nsec = ahead};
            nanosleep(&pause, NULL);
        } else if (ahead < -LATEST) {
            due = now();
        }
    }
}
