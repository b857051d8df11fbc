/* Counts what offload_client.c allocates, for the linker's --wrap: nothing to send, two blocks at most for an answer. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload_client.h"

static long allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    allocations++;
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    allocations++;
    return __real_realloc(memory, size);
}

static int answered;

static void on_answer(void *data, struct offload_answer *answer)
{
    (void)data;
    answered += answer->kind == OFFLOAD_OK;
    offload_answer_free(answer);
}

int main(int argc, char **argv)
{
    (void)argc;
    struct offload_options options = offload_defaults();
    options.port = atoi(argv[1]);
    offload_client *client = offload_open(&options, NULL);
    if (!client)
        return 1;
    const char *args[] = { "5", "7", NULL };
    struct offload_request request = { .program = "add", .args = args };
    long opened = allocations;
    for (int i = 0; i < 10; i++)
        if (offload_send(client, &request, on_answer, NULL, NULL) != OFFLOAD_OK)
            return 1;
    long sent = allocations;
    while (answered < 10) {
        struct pollfd descriptor = { offload_fd(client), offload_events(client), 0 };
        poll(&descriptor, 1, offload_timeout_ms(client));
        offload_handle(client, descriptor.revents);
    }
    printf("open %d, send %ld, answers %ld\n", opened > 0, sent - opened, allocations - sent);
    offload_close(client);
    return 0;
}
