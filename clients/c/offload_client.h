/* Hand work to an offload-rt gateway: open a connection, send a request, get its answer.
 *
 *     struct offload_options options = offload_defaults();
 *     options.host = "gateway.local";
 *     offload_client *client = offload_open(&options, &error);
 *     const char *args[] = { "5", "7", NULL };
 *     struct offload_request request = { .program = "add", .args = args };
 *     struct offload_answer answer;
 *     if (offload_run(client, &request, &answer) == OFFLOAD_OK)
 *         fwrite(answer.stdout_bytes, 1, answer.stdout_size, stdout);
 *     offload_answer_free(&answer);
 *     offload_close(client);
 *
 * A client belongs to one thread. It blocks in offload_run, or is part of an event loop by offload_send, offload_fd and
 * what stands beside them. After offload_open it allocates memory for answers alone; libmosquitto copies what it sends.
 *
 * A request is known by its id, made up where the caller gives none. It is sent again after a lost connection, and when
 * no answer has come for a while, and is run once all the same.
 */
#ifndef OFFLOAD_CLIENT_H
#define OFFLOAD_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a request ended: the kinds of the wire contract, and what only a client has. */
enum offload_kind {
    OFFLOAD_OK, /* The program has run to its end, whatever its exit code. */
    OFFLOAD_MALFORMED,
    OFFLOAD_UNAUTHORIZED,
    OFFLOAD_NOT_FOUND,
    OFFLOAD_TOO_LARGE,
    OFFLOAD_BUSY,
    OFFLOAD_EXPIRED,
    OFFLOAD_TIMEOUT, /* Also: no answer came in time. */
    OFFLOAD_BUILD,
    OFFLOAD_COMPILE,
    OFFLOAD_EXIT,
    OFFLOAD_TRAP,
    OFFLOAD_FUEL,
    OFFLOAD_MEMORY,
    OFFLOAD_OUTPUT,
    OFFLOAD_INTERNAL, /* Also: an answer that cannot be understood. */
    OFFLOAD_CANCELLED,
    OFFLOAD_UNREACHABLE,
    OFFLOAD_CONNECTION, /* There is no connection, or no gateway at this broker. */
    OFFLOAD_UNKNOWN     /* A kind that a newer gateway has; the message begins with it. */
};

/* As the contract and the other clients write it: "not-found". */
const char *offload_kind_name(enum offload_kind kind);

/* Where to connect, as whom, and within which bounds. Take offload_defaults() and change what differs. The texts are
 * copied. */
struct offload_options {
    const char *host;      /* "127.0.0.1" */
    int port;              /* 0: 1883, with TLS 8883 */
    int tls;               /* Whether to use TLS; a cafile or cert does as well. */
    const char *cafile;    /* PEM; NULL: those whom the system trusts */
    const char *cert;      /* PEM; this client's own certificate, for a broker that asks for one, */
    const char *key;       /* and its key */
    const char *username;  /* NULL: none */
    const char *password;
    const char *client_id; /* NULL: one that is made up */
    const char *reply_id;  /* Answers come on result/<reply id>; NULL: the client id. Where clients have certificates,
                              the name in this client's own. */
    int connect_timeout_ms;  /* 5 000: for the connection and the subscription to the answers */
    int answer_timeout_ms;   /* 300 000: for the answer to a request without a timeout of its own */
    int transport_grace_ms;  /* 10 000: is added to a request's own timeout, for both ways */
    int resend_ms;           /* 30 000: without an answer for this long a request is sent again */
    unsigned max_in_flight;  /* 16: requests without an answer */
    size_t max_request;      /* 1 MiB: bytes of the largest request, which offload_open sets aside */
    uint32_t max_answer;     /* 32 MiB: bytes of the largest packet to receive */
    const unsigned char *seal; /* the gateway's X25519 key, 32 bytes that stay the caller's: requests are sealed to it,
                                  and only this client reads their answers. NULL: in clear. Needs libsodium, and a clock
                                  that is right to a minute. */
};

struct offload_options offload_defaults(void);

/* Why something failed. */
struct offload_error {
    enum offload_kind kind;
    char message[256];
};

typedef struct offload_client offload_client;

/* Connects and subscribes. NULL: it did not succeed, and *error says why. A connection that is lost later is made
 * again. */
offload_client *offload_open(const struct offload_options *options, struct offload_error *error);

/* Disconnects and frees all; what is in flight is not answered any more. */
void offload_close(offload_client *client);

/* A file of a project. */
struct offload_file {
    const char *path;
    const void *contents;
    size_t size;
};

/* Called with what a program has written to stdout, and where in the whole that is, in bytes: in order; what could not
 * be sent in time is left out. */
typedef void offload_output_callback(void *data, uint64_t offset, const void *bytes, size_t size);

/* What to run: exactly one of program, digest, module, source, files and cancel. Zero and NULL are "none". All that it points
 * to, and the request itself, stays the caller's and unchanged until the answer. */
struct offload_request {
    const char *program; /* that the gateway has, by name */
    const char *digest;  /* "sha256:…", of a module that the gateway has */
    const void *module;  /* wasm; only its digest is sent to a gateway that has it */
    size_t module_size;
    const char *source;  /* C or C++ */
    const char *name;    /* of the source's program; NULL: "program" */
    const struct offload_file *files; /* a project, */
    size_t file_count;                /* their number, */
    const char *target;               /* and the program to run; NULL: the makefile's first */
    const char *cancel;   /* nothing: the request of this client that has this id is cancelled */
    const char *makefile; /* makefile or compiler command, for source and files; "<name>" is the program's path */

    const char *const *args; /* NULL at the end */
    const char *const *env;  /* "NAME=VALUE", NULL at the end */
    const void *stdin_bytes;
    size_t stdin_size;
    const char *id;      /* at most 64 bytes: the same id is run once; NULL: one that is made up */
    uint64_t fuel;       /* limits: they may lower the gateway's own, never raise them */
    uint64_t memory;     /* bytes */
    uint64_t timeout_ms; /* from the arrival at the gateway */
    uint64_t piece;      /* fetches stdout in messages of at most this many bytes of it; 0: whole */
    offload_output_callback *on_output; /* gets stdout as it is written; the answer has all of it. NULL: none */
    void *output_data;                  /* its first argument */
};

/* What came of it. */
struct offload_answer {
    enum offload_kind kind;
    const char *message; /* of an error; "" where there is none */
    const char *id;      /* the request's own; NULL where it had none */
    int exit_code;       /* -1 where the program has not run to its end */
    unsigned char *stdout_bytes;
    size_t stdout_size;
    unsigned char *stderr_bytes;
    size_t stderr_size;
    uint64_t fuel;
    uint64_t run_us; /* microseconds that it ran, */
    uint64_t queue_us; /* and waited before */
    void *owned[2];  /* what offload_answer_free frees */
};

void offload_answer_free(struct offload_answer *answer);

/* Sends a request and waits for its answer, which offload_answer_free frees whatever is returned: answer->kind.
 * Messages of errors that this client has found are valid until the next call. */
enum offload_kind offload_run(offload_client *client, const struct offload_request *request,
                              struct offload_answer *answer);

/* Has offload_run, as it waits or when it is called next, cancel its request: it returns OFFLOAD_CANCELLED when the
 * gateway has ended it, within a second of a second call without waiting for that. May be called in a signal handler. */
void offload_interrupt(offload_client *client);

/* --- In an event loop --- */

/* Called with the answer, once. The answer is the callback's to free. The callback may send, but not close. */
typedef void offload_callback(void *data, struct offload_answer *answer);

/* Sends a request. OFFLOAD_OK: the callback will be called. OFFLOAD_BUSY: max_in_flight are without an answer. Else the
 * request cannot be sent, and *error, if it is not NULL, says why. */
enum offload_kind offload_send(offload_client *client, const struct offload_request *request,
                               offload_callback *callback, void *data, struct offload_error *error);

/* Cancels a request in flight: queued at the gateway, it never starts; running, it is ended. Its callback is called as
 * ever, with OFFLOAD_CANCELLED or what it has come to before; from here where nothing of it was sent, or where it is
 * cancelled for a second time, which does not wait for the gateway. */
void offload_cancel(offload_client *client, const struct offload_request *request);

/* What to wait for: a descriptor (-1 while there is no connection), its events as poll has them, and the milliseconds
 * after which offload_handle is to be called whatever happens. */
int offload_fd(const offload_client *client);
short offload_events(const offload_client *client);
int offload_timeout_ms(const offload_client *client);

/* Does what is to be done; `revents` is what poll has said. Answers come in here. Connecting again blocks for as long
 * as the system's connect. OFFLOAD_OK, or OFFLOAD_CONNECTION where there will be no connection any more: all in flight
 * have been answered so. */
enum offload_kind offload_handle(offload_client *client, short revents);

/* Why there is no connection at the moment; NULL while there is one. */
const char *offload_lost(const offload_client *client);

#ifdef __cplusplus
}
#endif

#endif
