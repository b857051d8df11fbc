/* Many requests in flight from one event loop: adds 1 to each number up to N, and prints the sum of the answers.
 *
 *     events HOST 1000
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload_client.h"

#define IN_FLIGHT 16

/* A request with the memory that it points to, which is used again when it is answered. */
struct sum {
    struct offload_request request;
    char number[24];
    const char *args[3];
    int is_free;
};

static long answered, total;
static int failed;

static void on_answer(void *data, struct offload_answer *answer)
{
    struct sum *sum = data;
    if (answer->kind == OFFLOAD_OK) {
        /* The answer is bytes, not text with an end. */
        for (size_t i = 0, value = 0; i < answer->stdout_size; i++) {
            if (answer->stdout_bytes[i] == '\n')
                total += (long)value;
            else
                value = value * 10 + (size_t)(answer->stdout_bytes[i] - '0');
        }
    } else {
        fprintf(stderr, "error: %s: %s\n", offload_kind_name(answer->kind), answer->message);
        failed = 1;
    }
    offload_answer_free(answer);
    answered++;
    sum->is_free = 1;
}

int main(int argc, char **argv)
{
    static struct sum sums[IN_FLIGHT];
    struct offload_options options = offload_defaults();
    options.host = argc > 1 ? argv[1] : options.host;
    options.max_in_flight = IN_FLIGHT;
    const char *port = getenv("OFFLOAD_PORT");
    options.port = port ? atoi(port) : 0;
    long count = argc > 2 ? atol(argv[2]) : 1000, sent = 0;

    struct offload_error error;
    offload_client *client = offload_open(&options, &error);
    if (!client) {
        fprintf(stderr, "error: %s: %s\n", offload_kind_name(error.kind), error.message);
        return 1;
    }
    for (int i = 0; i < IN_FLIGHT; i++)
        sums[i].is_free = 1;
    while (answered < count && !failed) {
        for (int i = 0; i < IN_FLIGHT && sent < count; i++) {
            struct sum *sum = &sums[i];
            if (!sum->is_free)
                continue;
            snprintf(sum->number, sizeof sum->number, "%ld", sent++);
            sum->args[0] = sum->number;
            sum->args[1] = "1";
            sum->request = (struct offload_request){ .program = "add", .args = sum->args };
            sum->is_free = 0;
            if (offload_send(client, &sum->request, on_answer, sum, &error) != OFFLOAD_OK) {
                fprintf(stderr, "error: %s: %s\n", offload_kind_name(error.kind), error.message);
                failed = 1;
            }
        }
        /* Other descriptors of the program stand beside this one. */
        struct pollfd descriptor = { offload_fd(client), offload_events(client), 0 };
        poll(&descriptor, 1, offload_timeout_ms(client));
        offload_handle(client, descriptor.revents);
    }
    offload_close(client);
    printf("%ld\n", total);
    return failed;
}
