/* The client as the conformance tests drive it: cases come on stdin, results go to stdout, a line of JSON each. The
 * fields are those of tests/README.md. Its JSON is that of the tests: flat, with few escapes.
 */
#define _POSIX_C_SOURCE 200809L

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload_client.h"

#define MAX_ARGS 8
#define IN_FLIGHT 64

/* How long the client waits for an answer before it sends the request again. */
#define RESEND_MS 2000

/* A case in flight, with all that its request points to. */
struct task {
    bool used;
    long number;
    struct offload_request request;
    char *line;   /* its texts are in there */
    char *input;  /* of the program */
    void *code;
    const char *args[MAX_ARGS + 1];
    long cancels; /* another case, instead of a request */
};

static struct task tasks[IN_FLIGHT];
static unsigned in_flight;

/* --- The lines --- */

/* A text in JSON, unescaped in place; returns what is behind it. */
static char *unescape(char *quote, char **text)
{
    char *to = *text = quote + 1, *from = to;
    for (; *from && *from != '"'; from++) {
        if (*from == '\\') {
            from++;
            *to++ = (char)(*from == 'n' ? '\n' : *from);
        } else {
            *to++ = *from;
        }
    }
    char *behind = *from ? from + 1 : from;
    *to = '\0';
    return behind;
}

/* Calls `field` with each name and value of a line; a list's values have its name. */
static void each_field(char *line, void (*field)(void *data, const char *name, const char *value), void *data)
{
    char *at = strchr(line, '{');
    while (at && *at && (at = strchr(at, '"'))) {
        char *name, *value;
        at = unescape(at, &name);
        at += strspn(at, ": ");
        bool is_list = *at == '[';
        at += is_list;
        do {
            at += strspn(at, ", ");
            if (*at == '"') {
                at = unescape(at, &value);
                field(data, name, value);
            } else if (*at && *at != ']') {
                size_t size = strcspn(at, ",}]");
                char end = at[size];
                at[size] = '\0';
                field(data, name, at);
                at += size + (end && end != ']' ? 1 : 0);
                if (end == ']')
                    *at = end;
            }
        } while (is_list && *at && *at != ']');
        at += is_list && *at;
    }
}

static void put_json(const char *name, const void *bytes, size_t size)
{
    printf(",\"%s\":\"", name);
    for (const unsigned char *at = bytes, *end = at + size; at < end; at++) {
        if (*at == '"' || *at == '\\')
            printf("\\%c", *at);
        else if (*at < 0x20)
            printf("\\u%04x", *at);
        else
            putchar(*at);
    }
    putchar('"');
}

static void put_error(const char *kind, const char *message)
{
    printf(",\"error\":{\"kind\":\"%s\"", kind);
    put_json("message", message, strlen(message));
    printf("}}\n");
    fflush(stdout);
}

/* --- The connection --- */

static void option(void *data, const char *name, const char *value)
{
    struct offload_options *options = data;
    const struct {
        const char *name;
        const char **to;
    } texts[] = {
        { "host", &options->host },         { "client_id", &options->client_id }, { "reply_id", &options->reply_id },
        { "username", &options->username }, { "password", &options->password },   { "cafile", &options->cafile },
        { "cert", &options->cert },         { "key", &options->key },
    };
    if (strcmp(name, "port") == 0)
        options->port = atoi(value);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(name, texts[i].name) == 0)
            *texts[i].to = value;
}

/* --- The cases --- */

static size_t read_file(const char *path, void **contents)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        abort();
    size_t size = (size_t)ftell(file);
    char *bytes = malloc(size + 1);
    rewind(file);
    if (!bytes || fread(bytes, 1, size, file) != size)
        abort();
    bytes[size] = '\0';
    fclose(file);
    *contents = bytes;
    return size;
}

static void on_output(void *data, uint64_t offset, const void *bytes, size_t size)
{
    struct task *task = data;
    printf("{\"case\":%ld,\"offset\":%llu", task->number, (unsigned long long)offset);
    put_json("piece", bytes, size);
    printf("}\n");
    fflush(stdout);
}

static void field(void *data, const char *name, const char *value)
{
    struct task *task = data;
    struct offload_request *request = &task->request;
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = { { "fuel", &request->fuel },
                    { "memory", &request->memory },
                    { "timeout_ms", &request->timeout_ms },
                    { "piece", &request->piece } };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(name, numbers[i].name) == 0)
            *numbers[i].to = strtoull(value, NULL, 10);
    if (strcmp(name, "case") == 0) {
        task->number = atol(value);
    } else if (strcmp(name, "cancel") == 0) {
        task->cancels = atol(value);
    } else if (strcmp(name, "stream") == 0) {
        request->on_output = on_output;
        request->output_data = task;
    } else if (strcmp(name, "program") == 0) {
        request->program = value;
    } else if (strcmp(name, "digest") == 0) {
        request->digest = value;
    } else if (strcmp(name, "id") == 0) {
        request->id = value;
    } else if (strcmp(name, "args") == 0) {
        size_t count = 0;
        while (task->args[count])
            count++;
        if (count < MAX_ARGS)
            task->args[count] = value;
        request->args = task->args;
    } else if (strcmp(name, "file") == 0) {
        size_t size = read_file(value, &task->code);
        if (size >= 4 && memcmp(task->code, "\0asm", 4) == 0) {
            request->module = task->code;
            request->module_size = size;
        } else {
            request->source = task->code;
            request->makefile = "gcc -O2 <name>.c -o <name>";
        }
    } else if (strcmp(name, "stdin") == 0) {
        request->stdin_bytes = value;
        request->stdin_size = strlen(value);
    } else if (strcmp(name, "stdin_repeat") == 0) {
        size_t repeat = strtoull(value, NULL, 10), size = request->stdin_size;
        task->input = malloc(size * repeat + 1);
        if (!task->input)
            abort();
        for (size_t i = 0; i < repeat; i++)
            memcpy(task->input + i * size, request->stdin_bytes, size);
        request->stdin_bytes = task->input;
        request->stdin_size = size * repeat;
    }
}

static void done(struct task *task)
{
    free(task->line);
    free(task->input);
    free(task->code);
    memset(task, 0, sizeof *task);
    in_flight--;
}

static void on_answer(void *data, struct offload_answer *answer)
{
    struct task *task = data;
    printf("{\"case\":%ld", task->number);
    if (answer->kind != OFFLOAD_OK) {
        put_error(offload_kind_name(answer->kind), answer->message);
    } else {
        printf(",\"status\":\"%s\",\"exit_code\":%d", answer->exit_code ? "exit" : "ok", answer->exit_code);
        if (answer->id)
            put_json("id", answer->id, strlen(answer->id));
        put_json("stdout", answer->stdout_bytes, answer->stdout_size);
        put_json("stderr", answer->stderr_bytes, answer->stderr_size);
        printf(",\"fuel\":%llu,\"run_us\":%llu,\"queue_us\":%llu}\n", (unsigned long long)answer->fuel,
               (unsigned long long)answer->run_us, (unsigned long long)answer->queue_us);
        fflush(stdout);
    }
    offload_answer_free(answer);
    done(task);
}

static void start(offload_client *client, const char *line, size_t size)
{
    struct task *task = tasks;
    while (task->used)
        task++;
    task->used = true;
    task->line = malloc(size + 1);
    if (!task->line)
        abort();
    memcpy(task->line, line, size);
    task->line[size] = '\0';
    in_flight++;
    each_field(task->line, field, task);
    if (task->cancels) {
        for (struct task *other = tasks; other < tasks + IN_FLIGHT; other++)
            if (other->used && other->number == task->cancels)
                offload_cancel(client, &other->request);
        done(task);
        return;
    }
    struct offload_error error;
    enum offload_kind kind = offload_send(client, &task->request, on_answer, task, &error);
    if (kind != OFFLOAD_OK) {
        printf("{\"case\":%ld", task->number);
        put_error(offload_kind_name(kind), error.message);
        done(task);
    }
}

int main(void)
{
    static char input[1 << 16];
    static char connection[4096];
    /* What stdio reads ahead poll would miss. */
    setvbuf(stdin, NULL, _IONBF, 0);
    if (!fgets(connection, sizeof connection, stdin))
        return 1;
    struct offload_options options = offload_defaults();
    options.max_in_flight = IN_FLIGHT;
    options.resend_ms = RESEND_MS;
    each_field(connection, option, &options);
    struct offload_error error;
    offload_client *client = offload_open(&options, &error);
    printf("{\"case\":null");
    if (!client) {
        put_error(offload_kind_name(error.kind), error.message);
        return 0;
    }
    printf("}\n");
    fflush(stdout);

    size_t filled = 0;
    bool ended = false;
    while (!ended || in_flight) {
        struct pollfd waiting[] = { { offload_fd(client), offload_events(client), 0 },
                                    { ended || in_flight == IN_FLIGHT ? -1 : STDIN_FILENO, POLLIN, 0 } };
        poll(waiting, 2, offload_timeout_ms(client));
        offload_handle(client, waiting[0].revents);
        if (waiting[1].revents) {
            ssize_t size = read(STDIN_FILENO, input + filled, sizeof input - filled);
            ended = size <= 0;
            filled += ended ? 0 : (size_t)size;
        }
        char *end;
        while (in_flight < IN_FLIGHT && (end = memchr(input, '\n', filled))) {
            size_t size = (size_t)(end - input);
            start(client, input, size);
            filled -= size + 1;
            memmove(input, end + 1, filled);
        }
    }
    offload_close(client);
    return 0;
}
