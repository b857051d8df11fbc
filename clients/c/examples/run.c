/* Runs a program that the gateway has, or a wasm module in a file, and prints what it prints: the blocking use. Ctrl-c
 * has the gateway end it.
 *
 *     run HOST add 5 7
 *     run HOST prog.wasm 5 7
 */
#define _POSIX_C_SOURCE 200809L

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload_client.h"

static offload_client *client;

static void interrupt(int signal)
{
    (void)signal;
    offload_interrupt(client);
}

/* The module in a file. */
static void *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    long end = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    void *contents = end > 0 ? malloc((size_t)end) : NULL;
    if (contents && (rewind(file), fread(contents, 1, (size_t)end, file) != (size_t)end)) {
        free(contents);
        contents = NULL;
    }
    if (file)
        fclose(file);
    *size = (size_t)end;
    return contents;
}

/* The gateway's key, to which requests are sealed. What is no key ends the program: nothing goes in clear that was to be
 * sealed. */
static const unsigned char *key_in_hex(const char *hex, unsigned char key[32])
{
    if (strlen(hex) == 64 && strspn(hex, "0123456789abcdefABCDEF") == 64) {
        for (int i = 0; i < 32; i++)
            sscanf(hex + 2 * i, "%2hhx", &key[i]);
        return key;
    }
    fprintf(stderr, "OFFLOAD_SEAL_KEY: expected the gateway's X25519 key, 64 hexadecimal digits\n");
    exit(2);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: run HOST PROGRAM|FILE.wasm [ARG ...]\n");
        return 2;
    }
    struct offload_options options = offload_defaults();
    options.host = argv[1];
    options.username = getenv("OFFLOAD_USERNAME");
    options.password = getenv("OFFLOAD_PASSWORD");
    options.cafile = getenv("OFFLOAD_CAFILE");
    options.cert = getenv("OFFLOAD_CERT");
    options.key = getenv("OFFLOAD_KEY");
    options.reply_id = getenv("OFFLOAD_REPLY_ID");
    const char *port = getenv("OFFLOAD_PORT");
    options.port = port ? atoi(port) : 0;
    unsigned char key[32];
    const char *hex = getenv("OFFLOAD_SEAL_KEY");
    options.seal = hex ? key_in_hex(hex, key) : NULL;

    struct offload_request request = { .args = (const char *const *)argv + 3 };
    void *module = NULL;
    const char *ending = strrchr(argv[2], '.');
    if (ending && strcmp(ending, ".wasm") == 0) {
        request.module = module = read_file(argv[2], &request.module_size);
        options.max_request += request.module_size;
        if (!module) {
            fprintf(stderr, "error: cannot read %s\n", argv[2]);
            return 1;
        }
    } else {
        request.program = argv[2];
    }

    struct offload_error error;
    client = offload_open(&options, &error);
    if (!client) {
        fprintf(stderr, "error: %s: %s\n", offload_kind_name(error.kind), error.message);
        free(module);
        return 1;
    }
    struct sigaction ctrl_c = { .sa_handler = interrupt };
    sigaction(SIGINT, &ctrl_c, NULL);
    struct offload_answer answer;
    int code = 1;
    if (offload_run(client, &request, &answer) == OFFLOAD_OK) {
        fwrite(answer.stdout_bytes, 1, answer.stdout_size, stdout);
        fwrite(answer.stderr_bytes, 1, answer.stderr_size, stderr);
        code = answer.exit_code;
    } else {
        fprintf(stderr, "error: %s: %s\n", offload_kind_name(answer.kind), answer.message);
        code = answer.kind == OFFLOAD_CANCELLED ? 130 : 1;
    }
    offload_answer_free(&answer);
    offload_close(client);
    free(module);
    return code;
}
