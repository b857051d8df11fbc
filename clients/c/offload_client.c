/* The client of offload_client.h on libmosquitto: MQTT 5, requests and answers as CBOR envelopes.
 *
 * From the top: open and close, requests in flight, what the broker says, the event loop; then the envelope, CBOR and
 * SHA-256.
 */
#define _POSIX_C_SOURCE 200809L

#include "offload_client.h"
#include "offload_seal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <mosquitto.h>
#include <mqtt_protocol.h>

/* Seconds without traffic after which the broker is asked whether it is there. */
#define KEEP_ALIVE 30

/* Milliseconds before a lost connection is made again: they double from the first to the last. */
#define RECONNECT_FIRST 100
#define RECONNECT_LAST 5000

/* Milliseconds after a connection was made again in which the gateway may still be missing: it lost its own, too. */
#define GATEWAY_MAY_BE_MISSING 10000

/* Milliseconds before a request that found no gateway is sent again. */
#define GATEWAY_PAUSE 250

/* Milliseconds after which offload_handle is to be called at the latest: libmosquitto looks after its keep-alive. */
#define LONGEST_WAIT 1000

/* The contract's limit of an id, and hexadecimal digits of 128 random bits. */
#define MAX_ID 64
#define MADE_UP_ID 32

/* Longest name of a client, a host or a topic; MQTT allows more. */
#define MAX_NAME 255

/* What the id of a request whose output is streamed may have: it is a level of a topic. */
#define LEVEL "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."

/* In front of the id in the Correlation Data of what cancels a request: its answer is none to a later request of this
 * id. */
#define CANCELLING "cancel "

#define DIGEST_TEXT (7 + 64)

/* Room for the fields of a sealed request before what is sealed; the fewest characters of its id; and seconds from 1970
 * to 2025: a clock that shows less was never set. */
#define SEALED_HEAD 192
#define SEALED_MIN_ID 22
#define CLOCK_WAS_SET 1735689600

/* How deep an answer's maps and lists go that this version does not know. */
#define MAX_DEPTH 8

enum stage { FREE, BY_DIGEST, BY_CODE };

/* A request in flight. */
struct entry {
    enum stage stage;
    uint64_t order; /* the smallest came first */
    const struct offload_request *request;
    offload_callback *callback;
    void *data;
    char id[MAX_ID + 1];
    char digest[DIGEST_TEXT + 1];
    int64_t deadline;
    int64_t wait;
    int64_t resend_at;
    int mid;    /* of the last message */
    bool sent;  /* libmosquitto has the message, */
    bool acked; /* and the broker */
    bool asked; /* libmosquitto has had any of its messages */
    bool cancelling;
    uint64_t streamed; /* where the next piece of its stream begins, at least */
    unsigned char *stdout_bytes; /* what there is of an answer in pieces */
    size_t stdout_size;
    struct offload_seal seal; /* of the message as it stands; none where it is still to be made */
    bool is_sealed;
    uint64_t sealed_at; /* milliseconds since 1970 */
    struct offload_seal cancel_seal; /* of the message that cancels it: a request of its own, with an id of its own */
    bool is_cancel_sealed;
    char cancel_id[MAX_ID + 1];
    uint64_t cancel_sealed_at;
};

struct offload_client {
    struct mosquitto *mosquitto;
    struct offload_options options;
    char host[MAX_NAME + 1];
    char client_id[MAX_NAME + 1];
    char reply_id[MAX_NAME + 1];
    char topic[MAX_NAME + 24];
    struct entry *entries;
    uint64_t last;
    unsigned char *buffer; /* for a request: options.max_request bytes */
    mosquitto_property *connect_properties;
    bool established; /* there was a subscription */
    bool connected;
    bool closed; /* for good */
    bool streams; /* some request was streamed: each connection subscribes to streams, too, */
    int stream_mid; /* by this message */
    volatile sig_atomic_t interrupted;
    int64_t connected_again;
    int64_t reconnect_at;
    int64_t pause;
    char lost[256]; /* why there is no connection */
    struct offload_error error;
};

/* CBOR, as it is written and read. */
struct writer {
    unsigned char *bytes;
    size_t size, room;
    bool full;
};

struct reader {
    const unsigned char *bytes;
    size_t left;
    bool bad;
};

struct text {
    const unsigned char *bytes;
    size_t size;
};

/* An answer as it came, in the message's memory. */
struct received {
    struct text id, status, out, err, kind, message;
    bool has_id, has_error, has_exit_code, has_total;
    bool is_to_cancel; /* the answer to what has cancelled the request of this id */
    int64_t exit_code;
    uint64_t fuel, run_us, queue_us, offset, total;
};

static void on_connect(struct mosquitto *m, void *data, int reason, int flags, const mosquitto_property *properties);
static void on_disconnect(struct mosquitto *m, void *data, int reason, const mosquitto_property *properties);
static void on_subscribe(struct mosquitto *m, void *data, int mid, int count, const int *granted,
                         const mosquitto_property *properties);
static void on_publish(struct mosquitto *m, void *data, int mid, int reason, const mosquitto_property *properties);
static void on_message(struct mosquitto *m, void *data, const struct mosquitto_message *message,
                       const mosquitto_property *properties);
static enum offload_kind publish(offload_client *client, struct entry *entry);
static void subscribe_to_streams(offload_client *client);
static void finish(offload_client *client, struct entry *entry, struct offload_answer *answer);
static void fail(offload_client *client, struct entry *entry, enum offload_kind kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void close_for_good(offload_client *client, enum offload_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static size_t encode(const struct entry *entry, struct writer *writer);
static enum offload_kind begin_sealing(offload_client *client, struct entry *entry);
static unsigned char *seal_up(offload_client *client, const struct offload_seal *seal, size_t *size);
static bool unseal(offload_client *client, const struct mosquitto_message *message,
                   const mosquitto_property *properties, struct text *opened, struct entry **cancelled);
static void write_digest(char text[DIGEST_TEXT + 1], const void *bytes, size_t size);
static bool decode(const void *payload, size_t size, struct received *received);
static void sha256(const unsigned char *bytes, size_t size, unsigned char digest[32]);

/* --- Open and close --- */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum offload_kind say(struct offload_error *error, enum offload_kind kind, const char *format, va_list values)
{
    if (error) {
        error->kind = kind;
        vsnprintf(error->message, sizeof error->message, format, values);
    }
    return kind;
}

__attribute__((format(printf, 3, 4))) static enum offload_kind
told(struct offload_error *error, enum offload_kind kind, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    say(error, kind, format, values);
    va_end(values);
    return kind;
}

static bool made_up(char *text, size_t digits)
{
    unsigned char bytes[MADE_UP_ID / 2];
    int source = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool whole = source >= 0 && read(source, bytes, sizeof bytes) == (ssize_t)sizeof bytes;
    if (source >= 0)
        close(source);
    for (size_t i = 0; whole && i < digits / 2; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return whole;
}

struct offload_options offload_defaults(void)
{
    struct offload_options options = {
        .host = "127.0.0.1",
        .connect_timeout_ms = 5000,
        .answer_timeout_ms = 300000,
        .transport_grace_ms = 10000,
        .resend_ms = 30000,
        .max_in_flight = 16,
        .max_request = 1 << 20,
        .max_answer = 32 << 20,
    };
    return options;
}

/* Copies what the caller's memory has. */
static bool take_names(offload_client *client, const struct offload_options *options)
{
    char random[MADE_UP_ID + 1];
    client->options = *options;
    if (!options->host || strlen(options->host) > MAX_NAME)
        return told(&client->error, OFFLOAD_MALFORMED, "host: expected 1 to %d bytes", MAX_NAME), false;
    strcpy(client->host, options->host);
    if (!options->client_id) {
        if (!made_up(random, 16))
            return told(&client->error, OFFLOAD_INTERNAL, "no random numbers: %s", strerror(errno)), false;
        snprintf(client->client_id, sizeof client->client_id, "offload-%.16s", random);
    }
    const char *names[] = { options->client_id, options->reply_id };
    char *copies[] = { client->client_id, client->reply_id };
    for (int i = 0; i < 2; i++) {
        if (!names[i])
            continue;
        if (strlen(names[i]) > MAX_NAME || strpbrk(names[i], "+#"))
            return told(&client->error, OFFLOAD_MALFORMED, "client_id, reply_id: expected at most %d bytes without + "
                        "and #", MAX_NAME), false;
        strcpy(copies[i], names[i]);
    }
    if (!options->reply_id)
        strcpy(client->reply_id, client->client_id);
    if (options->max_in_flight == 0 || options->max_request == 0)
        return told(&client->error, OFFLOAD_MALFORMED, "max_in_flight, max_request: expected at least 1"), false;
    return true;
}

static bool set_up(offload_client *client)
{
    const struct offload_options *options = &client->options;
    struct mosquitto *m = client->mosquitto = mosquitto_new(client->client_id, true, client);
    client->entries = calloc(options->max_in_flight, sizeof *client->entries);
    client->buffer = malloc(SEALED_HEAD + options->max_request + OFFLOAD_SEAL_TAG);
    if (!m || !client->entries || !client->buffer)
        return told(&client->error, OFFLOAD_MEMORY, "out of memory"), false;
    mosquitto_int_option(m, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    /* Otherwise a small packet waits for the acknowledgement of the one before, which the other end delays by 40 ms. */
    mosquitto_int_option(m, MOSQ_OPT_TCP_NODELAY, 1);
    mosquitto_connect_v5_callback_set(m, on_connect);
    mosquitto_disconnect_v5_callback_set(m, on_disconnect);
    mosquitto_subscribe_v5_callback_set(m, on_subscribe);
    mosquitto_publish_v5_callback_set(m, on_publish);
    mosquitto_message_v5_callback_set(m, on_message);
    int result = mosquitto_property_add_int32(&client->connect_properties, MQTT_PROP_MAXIMUM_PACKET_SIZE,
                                              options->max_answer);
    if (result == MOSQ_ERR_SUCCESS && options->username)
        result = mosquitto_username_pw_set(m, options->username, options->password);
    if (result == MOSQ_ERR_SUCCESS && (options->tls || options->cafile || options->cert)) {
        if (!options->cafile)
            mosquitto_int_option(m, MOSQ_OPT_TLS_USE_OS_CERTS, 1);
        result = mosquitto_tls_set(m, options->cafile, options->cafile ? NULL : "/etc/ssl/certs", options->cert,
                                   options->key, NULL);
        if (options->port == 0)
            client->options.port = 8883;
    }
    if (client->options.port == 0)
        client->options.port = 1883;
    if (result != MOSQ_ERR_SUCCESS)
        return told(&client->error, OFFLOAD_MALFORMED, "the options cannot be used: %s", mosquitto_strerror(result)),
               false;
    return true;
}

static bool connect_first(offload_client *client)
{
    int64_t deadline = now_ms() + client->options.connect_timeout_ms;
    int result = mosquitto_connect_bind_v5(client->mosquitto, client->host, client->options.port, KEEP_ALIVE, NULL,
                                           client->connect_properties);
    if (result != MOSQ_ERR_SUCCESS) {
        const char *why = result == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(result);
        told(&client->error, OFFLOAD_CONNECTION, "cannot connect to %s:%d: %s", client->host, client->options.port,
             why);
        return false;
    }
    while (!client->established && !client->closed && now_ms() < deadline) {
        struct pollfd waiting = { offload_fd(client), offload_events(client), 0 };
        int64_t left = deadline - now_ms();
        if (poll(&waiting, 1, left < LONGEST_WAIT ? (int)left : LONGEST_WAIT) < 0 && errno != EINTR)
            break;
        offload_handle(client, waiting.revents);
        if (!client->connected && *client->lost)
            break;
    }
    if (!client->established && !client->closed)
        told(&client->error, OFFLOAD_CONNECTION, "cannot connect to %s:%d: %s", client->host, client->options.port,
             *client->lost ? client->lost : "no subscription in time");
    return client->established && !client->closed;
}

offload_client *offload_open(const struct offload_options *options, struct offload_error *error)
{
    mosquitto_lib_init();
    offload_client *client = calloc(1, sizeof *client);
    if (!client) {
        told(error, OFFLOAD_MEMORY, "out of memory");
        mosquitto_lib_cleanup();
        return NULL;
    }
    client->pause = RECONNECT_FIRST;
    client->connected_again = INT64_MIN / 2;
    if (take_names(client, options) && set_up(client) && connect_first(client))
        return client;
    if (error)
        *error = client->error;
    offload_close(client);
    return NULL;
}

void offload_close(offload_client *client)
{
    if (!client)
        return;
    if (client->mosquitto) {
        client->closed = true;
        mosquitto_disconnect_v5(client->mosquitto, 0, NULL);
        mosquitto_destroy(client->mosquitto);
    }
    for (unsigned i = 0; client->entries && i < client->options.max_in_flight; i++)
        free(client->entries[i].stdout_bytes);
    mosquitto_property_free_all(&client->connect_properties);
    free(client->entries);
    free(client->buffer);
    free(client);
    mosquitto_lib_cleanup();
}

/* --- Requests in flight --- */

static bool has_length_of_digest(const char *digest)
{
    return strlen(digest) == DIGEST_TEXT;
}

static enum offload_kind check(const struct offload_request *request, struct offload_error *error)
{
    int codes = !!request->program + !!request->digest + !!request->module + !!request->source + !!request->files +
                !!request->cancel;
    if (codes != 1)
        return told(error, OFFLOAD_MALFORMED,
                    "expected exactly one of program, digest, module, source, files and cancel");
    if (request->id && (!*request->id || strlen(request->id) > MAX_ID))
        return told(error, OFFLOAD_MALFORMED, "id: expected 1 to %d bytes", MAX_ID);
    if (request->on_output && request->id && request->id[strspn(request->id, LEVEL)])
        return told(error, OFFLOAD_MALFORMED, "id: with on_output expected letters, digits, `_`, `-` and `.`");
    if (request->digest && !has_length_of_digest(request->digest))
        return told(error, OFFLOAD_MALFORMED, "digest: expected sha256: and 64 digits");
    return OFFLOAD_OK;
}

enum offload_kind offload_send(offload_client *client, const struct offload_request *request,
                               offload_callback *callback, void *data, struct offload_error *error)
{
    if (client->closed) {
        if (error)
            *error = client->error;
        return OFFLOAD_CONNECTION;
    }
    enum offload_kind kind = check(request, error);
    if (kind != OFFLOAD_OK)
        return kind;
    if (client->options.seal && request->id && strlen(request->id) < SEALED_MIN_ID)
        return told(error, OFFLOAD_MALFORMED, "id: expected %d random bytes or more in a sealed request",
                    SEALED_MIN_ID);
    if (client->options.seal && request->on_output)
        return told(error, OFFLOAD_MALFORMED, "on_output: not in a sealed request, which has no stream");
    struct entry *entry = client->entries, *end = entry + client->options.max_in_flight;
    while (entry < end && entry->stage != FREE)
        entry++;
    if (entry == end)
        return told(error, OFFLOAD_BUSY, "%u requests are in flight already", client->options.max_in_flight);
    memset(entry, 0, sizeof *entry);
    if (request->id)
        strcpy(entry->id, request->id);
    else if (!made_up(entry->id, MADE_UP_ID))
        return told(error, OFFLOAD_INTERNAL, "no random numbers: %s", strerror(errno));
    entry->order = ++client->last;
    entry->request = request;
    entry->callback = callback;
    entry->data = data;
    int64_t own = request->timeout_ms < INT32_MAX ? (int64_t)request->timeout_ms : INT32_MAX;
    entry->wait = own ? own + client->options.transport_grace_ms : client->options.answer_timeout_ms;
    entry->deadline = now_ms() + entry->wait;
    entry->stage = BY_CODE;
    if (request->module) {
        write_digest(entry->digest, request->module, request->module_size);
        entry->stage = BY_DIGEST;
    }
    if (request->on_output && !client->streams) {
        client->streams = true;
        subscribe_to_streams(client);
    }
    kind = publish(client, entry);
    if (kind != OFFLOAD_OK) {
        entry->stage = FREE;
        if (error)
            *error = client->error;
    }
    return kind;
}

void offload_cancel(offload_client *client, const struct offload_request *request)
{
    for (unsigned i = 0; i < client->options.max_in_flight; i++) {
        struct entry *entry = &client->entries[i];
        if (entry->stage == FREE || entry->request != request)
            continue;
        int64_t deadline = now_ms() + client->options.transport_grace_ms;
        bool again = entry->cancelling;
        entry->cancelling = true;
        entry->deadline = deadline < entry->deadline ? deadline : entry->deadline;
        if (again || !entry->asked)
            fail(client, entry, OFFLOAD_CANCELLED, "cancelled");
        else if (publish(client, entry) != OFFLOAD_OK)
            fail(client, entry, OFFLOAD_CANCELLED, "cancelled, which the gateway cannot be told");
        return;
    }
}

/* Hands the request to libmosquitto, as it stands at the moment. */
static enum offload_kind publish(offload_client *client, struct entry *entry)
{
    enum offload_kind sealing = begin_sealing(client, entry);
    if (sealing != OFFLOAD_OK)
        return sealing;
    unsigned char *payload = client->buffer + SEALED_HEAD;
    struct writer writer = { payload, 0, client->options.max_request, false };
    size_t size = encode(entry, &writer);
    entry->sent = entry->acked = false;
    entry->resend_at = now_ms() + client->options.resend_ms;
    if (writer.full)
        return told(&client->error, OFFLOAD_TOO_LARGE, "the request has more than max_request, %zu bytes",
                    client->options.max_request);
    /* Without a connection it is sent when there is one. */
    if (!client->connected)
        return OFFLOAD_OK;
    const char *kind = entry->request->program || entry->request->cancel ? "localCode" : "inputCode";
    snprintf(client->topic, sizeof client->topic, "%s/%s", kind, client->reply_id);
    mosquitto_property *properties = NULL;
    char name[sizeof CANCELLING + MAX_ID];
    size_t skipped = entry->cancelling ? sizeof CANCELLING - 1 : 0, length;
    memcpy(name, CANCELLING, skipped);
    if (client->options.seal) {
        /* Nobody but the gateway is to know the id of a sealed request. */
        memcpy(name + skipped, &entry->order, sizeof entry->order);
        length = skipped + sizeof entry->order;
        payload = seal_up(client, entry->cancelling ? &entry->cancel_seal : &entry->seal, &size);
    } else {
        strcpy(name + skipped, entry->id);
        length = skipped + strlen(entry->id);
    }
    int result = mosquitto_property_add_binary(&properties, MQTT_PROP_CORRELATION_DATA, name, (uint16_t)length);
    if (result == MOSQ_ERR_SUCCESS)
        result = mosquitto_publish_v5(client->mosquitto, &entry->mid, client->topic, (int)size, payload, 1,
                                      false, properties);
    mosquitto_property_free_all(&properties);
    if (result == MOSQ_ERR_OVERSIZE_PACKET || result == MOSQ_ERR_PAYLOAD_SIZE)
        return told(&client->error, OFFLOAD_TOO_LARGE, "the request has %zu bytes, which the broker does not take",
                    size);
    if (result == MOSQ_ERR_INVAL || result == MOSQ_ERR_MALFORMED_UTF8 || result == MOSQ_ERR_NOMEM)
        return told(&client->error, OFFLOAD_MALFORMED, "the request cannot be sent: %s", mosquitto_strerror(result));
    /* Whatever else went wrong: libmosquitto has it, and the connection is made again. */
    entry->sent = entry->asked = true;
    return OFFLOAD_OK;
}

static struct entry *oldest(offload_client *client, bool (*is)(const struct entry *, const void *), const void *what)
{
    struct entry *found = NULL;
    for (unsigned i = 0; i < client->options.max_in_flight; i++) {
        struct entry *entry = &client->entries[i];
        if (entry->stage != FREE && (!found || entry->order < found->order) && is(entry, what))
            found = entry;
    }
    return found;
}

static void finish(offload_client *client, struct entry *entry, struct offload_answer *answer)
{
    (void)client;
    answer->id = entry->request->id;
    if (answer->owned[1] != entry->stdout_bytes)
        free(entry->stdout_bytes);
    entry->stdout_bytes = NULL;
    /* Before the callback, which may send. */
    entry->stage = FREE;
    entry->callback(entry->data, answer);
}

static void fail(offload_client *client, struct entry *entry, enum offload_kind kind, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    say(&client->error, kind, format, values);
    va_end(values);
    struct offload_answer answer = { .kind = kind, .message = client->error.message, .exit_code = -1 };
    finish(client, entry, &answer);
}

static void close_for_good(offload_client *client, enum offload_kind kind, const char *format, ...)
{
    if (client->closed)
        return;
    client->closed = true;
    va_list values;
    va_start(values, format);
    say(&client->error, kind, format, values);
    va_end(values);
    for (unsigned i = 0; i < client->options.max_in_flight; i++) {
        struct entry *entry = &client->entries[i];
        if (entry->stage == FREE)
            continue;
        struct offload_answer answer = { .kind = kind, .message = client->error.message, .exit_code = -1 };
        finish(client, entry, &answer);
    }
}

/* --- What the broker says --- */

static void on_connect(struct mosquitto *m, void *data, int reason, int flags, const mosquitto_property *properties)
{
    offload_client *client = data;
    (void)flags, (void)properties;
    if (reason != 0) {
        bool unauthorized = reason == MQTT_RC_NOT_AUTHORIZED || reason == MQTT_RC_BAD_USERNAME_OR_PASSWORD;
        const char *why = mosquitto_reason_string(reason);
        snprintf(client->lost, sizeof client->lost, "the broker refuses the connection: %s", why);
        if (!client->established)
            close_for_good(client, unauthorized ? OFFLOAD_UNAUTHORIZED : OFFLOAD_CONNECTION, "%s", client->lost);
        return;
    }
    client->connected = true;
    *client->lost = '\0';
    /* A clean start forgets subscriptions. */
    snprintf(client->topic, sizeof client->topic, "result/%s", client->reply_id);
    mosquitto_subscribe_v5(m, NULL, client->topic, 1, 0, NULL);
    if (client->streams)
        subscribe_to_streams(client);
    if (!client->established)
        return;
    client->connected_again = now_ms();
    for (unsigned i = 0; i < client->options.max_in_flight; i++) {
        struct entry *entry = &client->entries[i];
        /* What is not acknowledged libmosquitto sends again. */
        if (entry->stage == FREE || (entry->sent && !entry->acked))
            continue;
        enum offload_kind kind = publish(client, entry);
        if (kind != OFFLOAD_OK)
            fail(client, entry, kind, "the request cannot be sent again");
    }
}

static void subscribe_to_streams(offload_client *client)
{
    if (!client->connected)
        return;
    snprintf(client->topic, sizeof client->topic, "result/%s/stream/#", client->reply_id);
    mosquitto_subscribe_v5(client->mosquitto, &client->stream_mid, client->topic, 1, 0, NULL);
}

static void without_streams(offload_client *client)
{
    for (unsigned i = 0; i < client->options.max_in_flight; i++) {
        struct entry *entry = &client->entries[i];
        if (entry->stage != FREE && entry->request->on_output)
            fail(client, entry, OFFLOAD_UNAUTHORIZED, "the broker refuses the subscription to result/%s/stream/#",
                 client->reply_id);
    }
}

static void on_disconnect(struct mosquitto *m, void *data, int reason, const mosquitto_property *properties)
{
    offload_client *client = data;
    (void)m, (void)properties;
    client->connected = false;
    if (!*client->lost)
        snprintf(client->lost, sizeof client->lost, "the connection is lost: %s",
                 reason >= MQTT_RC_UNSPECIFIED ? mosquitto_reason_string(reason) : mosquitto_strerror(reason));
    /* Two clients of one id would evict each other for ever. */
    if (reason == MQTT_RC_SESSION_TAKEN_OVER)
        close_for_good(client, OFFLOAD_CONNECTION, "another client has connected with the id `%s`", client->client_id);
}

static void on_subscribe(struct mosquitto *m, void *data, int mid, int count, const int *granted,
                         const mosquitto_property *properties)
{
    offload_client *client = data;
    (void)m, (void)properties;
    bool refused = count < 1 || granted[0] >= MQTT_RC_UNSPECIFIED;
    if (client->streams && mid == client->stream_mid) {
        if (refused)
            without_streams(client);
        return;
    }
    if (refused)
        close_for_good(client, OFFLOAD_UNAUTHORIZED,
                       "the broker refuses the subscription to result/%s (where clients have names, the reply id is "
                       "the own one)",
                       client->reply_id);
    else
        client->established = true;
    client->pause = RECONNECT_FIRST;
}

static bool has_mid(const struct entry *entry, const void *mid)
{
    return entry->sent && entry->mid == *(const int *)mid;
}

static void on_publish(struct mosquitto *m, void *data, int mid, int reason, const mosquitto_property *properties)
{
    offload_client *client = data;
    (void)m, (void)properties;
    struct entry *entry = oldest(client, has_mid, &mid);
    if (!entry)
        return;
    entry->acked = true;
    if (reason == 0)
        return;
    if (reason == MQTT_RC_NO_MATCHING_SUBSCRIBERS) {
        if (now_ms() - client->connected_again < GATEWAY_MAY_BE_MISSING)
            entry->resend_at = now_ms() + GATEWAY_PAUSE;
        else
            fail(client, entry, OFFLOAD_CONNECTION,
                 "no gateway takes requests at this broker: is it running? `offload-rt serve --broker URL` starts one");
    } else if (reason == MQTT_RC_NOT_AUTHORIZED) {
        fail(client, entry, OFFLOAD_UNAUTHORIZED, "client `%s` may not publish this request", client->client_id);
    } else {
        fail(client, entry, OFFLOAD_CONNECTION, "the broker refused the request: %s", mosquitto_reason_string(reason));
    }
}

static bool is(struct text text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.bytes, word, text.size) == 0;
}

/* The gateway does not have the module, or takes no digests. */
static bool misses_digest(const struct received *received)
{
    bool about_digest = received->message.size >= 6 && memcmp(received->message.bytes, "digest", 6) == 0;
    if (!received->has_error)
        return false;
    return is(received->kind, "not-found") || (is(received->kind, "malformed") && about_digest);
}

static bool is_answered(const struct entry *entry, const void *what)
{
    const struct received *received = what;
    if (!is(received->id, entry->id) || (received->is_to_cancel && !entry->cancelling))
        return false;
    /* A late answer to the digest alone, or to an earlier piece. */
    bool stale = misses_digest(received) && entry->request->module && entry->stage == BY_CODE;
    bool other = entry->request->piece && received->has_total && received->offset != entry->stdout_size;
    return !stale && !other;
}

static enum offload_kind kind_named(struct text name)
{
    for (enum offload_kind kind = OFFLOAD_MALFORMED; kind < OFFLOAD_UNKNOWN; kind++)
        if (is(name, offload_kind_name(kind)))
            return kind;
    return OFFLOAD_UNKNOWN;
}

/* Adds a piece of stdout to what is there. */
static bool append(struct entry *entry, struct text piece)
{
    if (piece.size == 0)
        return true;
    unsigned char *grown = realloc(entry->stdout_bytes, entry->stdout_size + piece.size);
    if (!grown)
        return false;
    memcpy(grown + entry->stdout_size, piece.bytes, piece.size);
    entry->stdout_bytes = grown;
    entry->stdout_size += piece.size;
    entry->is_sealed = false; /* the next message is another one */
    return true;
}

/* The whole answer, in memory of its own. */
static void deliver(offload_client *client, struct entry *entry, const struct received *received)
{
    struct offload_answer answer = { .kind = OFFLOAD_OK, .message = "", .exit_code = -1 };
    bool unknown = false;
    if (received->has_error) {
        answer.kind = kind_named(received->kind);
        unknown = answer.kind == OFFLOAD_UNKNOWN;
    }
    size_t message = received->message.size + (unknown ? received->kind.size + 2 : 0);
    unsigned char *memory = malloc(received->err.size + message + 1);
    if (!memory || !append(entry, received->out)) {
        free(memory);
        fail(client, entry, OFFLOAD_INTERNAL, "no memory for the answer");
        return;
    }
    answer.owned[0] = memory;
    answer.owned[1] = entry->stdout_bytes;
    answer.stdout_bytes = entry->stdout_bytes;
    answer.stdout_size = entry->stdout_size;
    answer.stderr_bytes = memory;
    answer.stderr_size = received->err.size;
    if (received->err.size)
        memcpy(memory, received->err.bytes, received->err.size);
    if (received->has_error) {
        char *text = (char *)memory + received->err.size;
        answer.message = text;
        snprintf(text, message + 1, "%.*s%s%.*s", unknown ? (int)received->kind.size : 0, received->kind.bytes,
                 unknown ? ": " : "", (int)received->message.size, received->message.bytes);
    }
    if (received->has_exit_code)
        answer.exit_code = (int)received->exit_code;
    answer.fuel = received->fuel;
    answer.run_us = received->run_us;
    answer.queue_us = received->queue_us;
    finish(client, entry, &answer);
}

static bool has_id(const struct entry *entry, const void *id)
{
    return is(*(const struct text *)id, entry->id);
}

/* A piece of stdout as it was written, on result/<reply id>/stream/<id>/<offset>; otherwise false. */
static bool take_piece(offload_client *client, const struct mosquitto_message *message)
{
    char start[MAX_NAME + 24];
    snprintf(start, sizeof start, "result/%s/stream/", client->reply_id);
    if (strncmp(message->topic, start, strlen(start)) != 0)
        return false;
    const char *level = message->topic + strlen(start), *end = strrchr(level, '/');
    struct text id = { (const unsigned char *)level, end ? (size_t)(end - level) : 0 };
    struct entry *entry = oldest(client, has_id, &id);
    uint64_t offset = end ? strtoull(end + 1, NULL, 10) : 0;
    size_t size = message->payloadlen > 0 ? (size_t)message->payloadlen : 0;
    /* A second copy is not passed on. */
    if (entry && entry->request->on_output && offset >= entry->streamed) {
        entry->streamed = offset + size;
        entry->request->on_output(entry->request->output_data, offset, message->payload, size);
    }
    return true;
}

static void on_message(struct mosquitto *m, void *data, const struct mosquitto_message *message,
                       const mosquitto_property *properties)
{
    offload_client *client = data;
    (void)m;
    if (take_piece(client, message))
        return;
    struct received received = { .has_id = false };
    struct text payload = { message->payload, (size_t)message->payloadlen };
    struct entry *cancelled = NULL;
    bool is_sealed = client->options.seal != NULL;
    if (message->payloadlen <= 0 || (is_sealed && !unseal(client, message, properties, &payload, &cancelled)) ||
        !decode(payload.bytes, payload.size, &received))
        return;
    if (cancelled) {
        received.is_to_cancel = received.has_id = true;
        received.id = (struct text){ (const unsigned char *)cancelled->id, strlen(cancelled->id) };
    }
    /* What cannot be parsed is answered without an id. */
    void *correlation = NULL;
    uint16_t size = 0;
    if (!received.has_id &&
        mosquitto_property_read_binary(properties, MQTT_PROP_CORRELATION_DATA, &correlation, &size, false)) {
        size_t skipped = sizeof CANCELLING - 1;
        received.is_to_cancel = size > skipped && memcmp(correlation, CANCELLING, skipped) == 0;
        skipped = received.is_to_cancel ? skipped : 0;
        received.id.bytes = (const unsigned char *)correlation + skipped;
        received.id.size = size - skipped;
    }
    struct entry *entry = oldest(client, is_answered, &received);
    if (entry && received.is_to_cancel && is(received.kind, "busy"))
        entry = NULL; /* it is cancelled again after a while */
    if (entry && entry->cancelling && (misses_digest(&received) || (received.is_to_cancel && !received.has_error)))
        /* It waits and runs no more, or never did. */
        fail(client, entry, OFFLOAD_CANCELLED, "cancelled");
    else if (entry && entry->stage == BY_DIGEST && misses_digest(&received)) {
        entry->stage = BY_CODE;
        entry->is_sealed = false;
        enum offload_kind kind = publish(client, entry);
        if (kind != OFFLOAD_OK) {
            struct offload_answer answer = { .kind = kind, .message = client->error.message, .exit_code = -1 };
            finish(client, entry, &answer);
        }
    } else if (entry && received.has_total && received.out.size &&
               entry->stdout_size + received.out.size < received.total) {
        if (!append(entry, received.out))
            fail(client, entry, OFFLOAD_INTERNAL, "no memory for the answer");
        else if (publish(client, entry) != OFFLOAD_OK)
            fail(client, entry, OFFLOAD_INTERNAL, "the next piece cannot be asked for");
    } else if (entry) {
        deliver(client, entry, &received);
    }
    free(correlation);
}

/* --- The event loop --- */

int offload_fd(const offload_client *client)
{
    return mosquitto_socket(client->mosquitto);
}

short offload_events(const offload_client *client)
{
    return (short)(mosquitto_want_write(client->mosquitto) ? POLLIN | POLLOUT : POLLIN);
}

int offload_timeout_ms(const offload_client *client)
{
    int64_t now = now_ms(), due = now + LONGEST_WAIT;
    if (offload_fd(client) < 0 && client->reconnect_at < due)
        due = client->reconnect_at;
    for (unsigned i = 0; i < client->options.max_in_flight; i++) {
        const struct entry *entry = &client->entries[i];
        if (entry->stage == FREE)
            continue;
        due = entry->deadline < due ? entry->deadline : due;
        due = entry->resend_at < due ? entry->resend_at : due;
    }
    return due > now ? (int)(due - now) : 0;
}

static void connect_again(offload_client *client)
{
    client->connected = false;
    if (client->closed || !client->established || now_ms() < client->reconnect_at)
        return;
    client->reconnect_at = now_ms() + client->pause;
    client->pause = client->pause * 2 < RECONNECT_LAST ? client->pause * 2 : RECONNECT_LAST;
    int result = mosquitto_reconnect(client->mosquitto);
    if (result != MOSQ_ERR_SUCCESS)
        snprintf(client->lost, sizeof client->lost, "the connection is lost: %s",
                 result == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(result));
}

static void look_at_the_clock(offload_client *client)
{
    int64_t now = now_ms();
    for (unsigned i = 0; i < client->options.max_in_flight; i++) {
        struct entry *entry = &client->entries[i];
        if (entry->stage == FREE)
            continue;
        if (entry->deadline <= now) {
            fail(client, entry, OFFLOAD_TIMEOUT, "no answer within %lld ms%s%s", (long long)entry->wait,
                 *client->lost ? "; " : "", client->lost);
        } else if (entry->resend_at <= now) {
            /* What is not acknowledged libmosquitto still has. */
            if (entry->acked && publish(client, entry) != OFFLOAD_OK)
                fail(client, entry, OFFLOAD_INTERNAL, "the request cannot be sent again");
            else
                entry->resend_at = now + client->options.resend_ms;
        }
    }
}

enum offload_kind offload_handle(offload_client *client, short revents)
{
    if (offload_fd(client) >= 0 && (revents & (POLLIN | POLLHUP | POLLERR)))
        mosquitto_loop_read(client->mosquitto, 1);
    if (offload_fd(client) >= 0 && mosquitto_want_write(client->mosquitto))
        mosquitto_loop_write(client->mosquitto, 1);
    if (offload_fd(client) >= 0)
        mosquitto_loop_misc(client->mosquitto);
    if (offload_fd(client) < 0)
        connect_again(client);
    look_at_the_clock(client);
    return client->closed ? OFFLOAD_CONNECTION : OFFLOAD_OK;
}

const char *offload_lost(const offload_client *client)
{
    return *client->lost ? client->lost : NULL;
}

struct waiting {
    struct offload_answer *answer;
    bool answered;
};

static void take(void *data, struct offload_answer *answer)
{
    struct waiting *waiting = data;
    *waiting->answer = *answer;
    waiting->answered = true;
}

enum offload_kind offload_run(offload_client *client, const struct offload_request *request,
                              struct offload_answer *answer)
{
    struct waiting waiting = { answer, false };
    memset(answer, 0, sizeof *answer);
    enum offload_kind kind = offload_send(client, request, take, &waiting, &client->error);
    if (kind != OFFLOAD_OK) {
        *answer = (struct offload_answer){ .kind = kind, .message = client->error.message, .exit_code = -1 };
        return kind;
    }
    while (!waiting.answered) {
        if (client->interrupted) {
            client->interrupted = 0;
            offload_cancel(client, request);
            continue;
        }
        struct pollfd descriptor = { offload_fd(client), offload_events(client), 0 };
        poll(&descriptor, 1, offload_timeout_ms(client));
        offload_handle(client, descriptor.revents);
    }
    return answer->kind;
}

void offload_interrupt(offload_client *client)
{
    client->interrupted = 1;
}

void offload_answer_free(struct offload_answer *answer)
{
    free(answer->owned[0]);
    free(answer->owned[1]);
    answer->owned[0] = answer->owned[1] = NULL;
}

const char *offload_kind_name(enum offload_kind kind)
{
    static const char *const names[] = {
        "ok",     "malformed", "unauthorized", "not-found", "too-large",   "busy",       "expired",
        "timeout", "build",    "compile",      "exit",      "trap",        "fuel",       "memory",
        "output", "internal",  "cancelled",    "unreachable", "connection", "unknown",
    };
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

/* --- The envelope --- */

enum major { UNSIGNED, NEGATIVE, BYTES, TEXT, LIST, MAP, TAG, SIMPLE };

static void put(struct writer *writer, const void *bytes, size_t size)
{
    if (size > writer->room - writer->size)
        writer->full = true;
    else if (size)
        memcpy(writer->bytes + writer->size, bytes, size);
    if (!writer->full)
        writer->size += size;
}

static void put_head(struct writer *writer, enum major major, uint64_t value)
{
    unsigned char head[9];
    int size = value < 24 ? 0 : value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
    unsigned info = size == 0 ? (unsigned)value : size == 1 ? 24 : size == 2 ? 25 : size == 4 ? 26 : 27;
    head[0] = (unsigned char)((unsigned)major << 5 | info);
    for (int i = 0; i < size; i++)
        head[1 + i] = (unsigned char)(value >> 8 * (size - 1 - i));
    put(writer, head, 1 + (size_t)size);
}

static void put_sized(struct writer *writer, enum major major, const void *bytes, size_t size)
{
    put_head(writer, major, size);
    put(writer, bytes, size);
}

static void put_text(struct writer *writer, const char *text)
{
    put_sized(writer, TEXT, text, strlen(text));
}

static void put_field(struct writer *writer, const char *name, const char *text)
{
    if (!text)
        return;
    put_text(writer, name);
    put_text(writer, text);
}

static void put_number(struct writer *writer, const char *name, uint64_t number)
{
    if (!number)
        return;
    put_text(writer, name);
    put_head(writer, UNSIGNED, number);
}

static size_t length(const char *const *texts)
{
    size_t count = 0;
    while (texts && texts[count])
        count++;
    return count;
}

static void put_args(struct writer *writer, const char *const *args)
{
    put_text(writer, "args");
    put_head(writer, LIST, length(args));
    for (; *args; args++)
        put_text(writer, *args);
}

static void put_env(struct writer *writer, const char *const *env)
{
    put_text(writer, "env");
    put_head(writer, MAP, length(env));
    for (; *env; env++) {
        const char *sign = strchr(*env, '=');
        size_t size = sign ? (size_t)(sign - *env) : strlen(*env);
        put_sized(writer, TEXT, *env, size);
        put_text(writer, sign ? sign + 1 : "");
    }
}

static void put_files(struct writer *writer, const struct offload_request *request)
{
    put_text(writer, "files");
    put_head(writer, MAP, request->file_count);
    for (size_t i = 0; i < request->file_count; i++) {
        put_text(writer, request->files[i].path);
        put_sized(writer, BYTES, request->files[i].contents, request->files[i].size);
    }
}

static size_t encode(const struct entry *entry, struct writer *writer)
{
    const struct offload_request *request = entry->request;
    if (entry->cancelling) {
        /* In clear without an id of its own: its answer is known by the Correlation Data. */
        put(writer, "\xd9\xd9\xf7", 3);
        put_head(writer, MAP, entry->is_cancel_sealed ? 3 : 1);
        if (entry->is_cancel_sealed) {
            put_field(writer, "id", entry->cancel_id);
            put_number(writer, "sealed_at", entry->cancel_sealed_at);
        }
        put_field(writer, "cancel", entry->id);
        return writer->size;
    }
    bool by_digest = request->digest || entry->stage == BY_DIGEST;
    bool is_source = request->source || request->files;
    const bool others[] = {
        request->args, request->env, request->stdin_size, request->fuel, request->memory, request->timeout_ms,
        request->piece, request->piece, request->on_output != NULL, entry->is_sealed,
        is_source && request->makefile, request->source, request->files && request->target,
    };
    size_t fields = 2;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        fields += others[i];
    put(writer, "\xd9\xd9\xf7", 3);
    put_head(writer, MAP, fields);
    put_field(writer, "id", entry->id);
    put_field(writer, "program", request->program);
    put_field(writer, "cancel", request->cancel);
    if (by_digest) {
        put_field(writer, "digest", request->digest ? request->digest : entry->digest);
    } else if (request->module) {
        put_text(writer, "module");
        put_sized(writer, BYTES, request->module, request->module_size);
    }
    put_field(writer, "source", request->source);
    if (request->source)
        put_field(writer, "name", request->name ? request->name : "program");
    if (request->files)
        put_files(writer, request);
    if (is_source)
        put_field(writer, "makefile", request->makefile);
    if (request->files)
        put_field(writer, "target", request->target);
    if (request->args)
        put_args(writer, request->args);
    if (request->env)
        put_env(writer, request->env);
    if (request->stdin_size) {
        put_text(writer, "stdin");
        put_sized(writer, BYTES, request->stdin_bytes, request->stdin_size);
    }
    put_number(writer, "fuel", request->fuel);
    put_number(writer, "memory", request->memory);
    put_number(writer, "timeout_ms", request->timeout_ms);
    if (request->piece) {
        put_text(writer, "stdout_offset");
        put_head(writer, UNSIGNED, entry->stdout_size);
        put_number(writer, "stdout_length", request->piece);
    }
    if (request->on_output)
        put_field(writer, "reply", "stream");
    if (entry->is_sealed)
        put_number(writer, "sealed_at", entry->sealed_at);
    return writer->size;
}

static uint64_t get_head(struct reader *reader, enum major *major)
{
    *major = SIMPLE;
    if (reader->bad || reader->left == 0) {
        reader->bad = true;
        return 0;
    }
    unsigned char first = *reader->bytes;
    unsigned info = first & 31;
    size_t size = info < 24 ? 0 : (size_t)1 << (info - 24);
    /* An item without a length is none that a gateway sends. */
    if (info > 27 || reader->left < 1 + size) {
        reader->bad = true;
        return 0;
    }
    *major = (enum major)(first >> 5);
    uint64_t value = size == 0 ? info : 0;
    for (size_t i = 0; i < size; i++)
        value = value << 8 | reader->bytes[1 + i];
    reader->bytes += 1 + size;
    reader->left -= 1 + size;
    return value;
}

static void skip_bytes(struct reader *reader, uint64_t size)
{
    if (size > reader->left) {
        reader->bad = true;
        return;
    }
    reader->bytes += size;
    reader->left -= (size_t)size;
}

static void skip(struct reader *reader, int depth)
{
    enum major major;
    uint64_t value = get_head(reader, &major);
    if (reader->bad || depth == 0) {
        reader->bad = true;
    } else if (major == BYTES || major == TEXT) {
        skip_bytes(reader, value);
    } else if (major == LIST || major == MAP || major == TAG) {
        /* Each item has a byte at least, so a wrong count ends with the bytes. */
        uint64_t items = major == MAP ? value : major == TAG ? 1 : value;
        for (uint64_t i = 0; i < items && !reader->bad; i++) {
            skip(reader, depth - 1);
            if (major == MAP)
                skip(reader, depth - 1);
        }
    }
}

/* Bytes or text; none for null. */
static bool get_text(struct reader *reader, struct text *text)
{
    enum major major;
    uint64_t size = get_head(reader, &major);
    if (reader->bad || (major != BYTES && major != TEXT))
        return false;
    text->bytes = reader->bytes;
    text->size = (size_t)size;
    skip_bytes(reader, size);
    return !reader->bad;
}

static bool get_number(struct reader *reader, int64_t *number)
{
    enum major major;
    uint64_t value = get_head(reader, &major);
    if (reader->bad || (major != UNSIGNED && major != NEGATIVE))
        return false;
    *number = major == UNSIGNED ? (int64_t)value : -1 - (int64_t)value;
    return true;
}

static void get_error(struct reader *reader, struct received *received)
{
    enum major major;
    uint64_t fields = get_head(reader, &major);
    if (major != MAP)
        return;
    received->has_error = true;
    for (uint64_t i = 0; i < fields && !reader->bad; i++) {
        struct text name;
        if (!get_text(reader, &name))
            reader->bad = true;
        else if (is(name, "kind"))
            get_text(reader, &received->kind);
        else if (is(name, "message"))
            get_text(reader, &received->message);
        else
            skip(reader, MAX_DEPTH);
    }
}

static bool decode(const void *payload, size_t size, struct received *received)
{
    struct reader reader = { payload, size, false };
    enum major major;
    if (get_head(&reader, &major) != 55799 || major != TAG)
        return false;
    uint64_t fields = get_head(&reader, &major);
    if (major != MAP)
        return false;
    for (uint64_t i = 0; i < fields && !reader.bad; i++) {
        struct text name;
        int64_t number = 0;
        if (!get_text(&reader, &name))
            return false;
        if (is(name, "id"))
            received->has_id = get_text(&reader, &received->id);
        else if (is(name, "status"))
            get_text(&reader, &received->status);
        else if (is(name, "stdout"))
            get_text(&reader, &received->out);
        else if (is(name, "stderr"))
            get_text(&reader, &received->err);
        else if (is(name, "error"))
            get_error(&reader, received);
        else if (is(name, "exit_code"))
            received->has_exit_code = get_number(&reader, &received->exit_code);
        else if (is(name, "fuel"))
            received->fuel = get_number(&reader, &number) ? (uint64_t)number : 0;
        else if (is(name, "run_us"))
            received->run_us = get_number(&reader, &number) ? (uint64_t)number : 0;
        else if (is(name, "queue_us"))
            received->queue_us = get_number(&reader, &number) ? (uint64_t)number : 0;
        else if (is(name, "stdout_offset"))
            received->offset = get_number(&reader, &number) ? (uint64_t)number : 0;
        else if (is(name, "stdout_total")) {
            received->has_total = get_number(&reader, &number);
            received->total = (uint64_t)number;
        } else
            skip(&reader, MAX_DEPTH);
    }
    return !reader.bad && reader.left == 0;
}

/* --- Sealing --- */

#ifdef OFFLOAD_SEAL

/* The same message is sealed once, however often it is sent; another one with another key. */
static enum offload_kind begin_sealing(offload_client *client, struct entry *entry)
{
    struct timespec now;
    bool *is_sealed = entry->cancelling ? &entry->is_cancel_sealed : &entry->is_sealed;
    if (!client->options.seal || *is_sealed)
        return OFFLOAD_OK;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec < CLOCK_WAS_SET)
        return told(&client->error, OFFLOAD_MALFORMED, "the clock is not set: a sealed request says when");
    if (!offload_seal_begin(entry->cancelling ? &entry->cancel_seal : &entry->seal, client->options.seal) ||
        (entry->cancelling && !made_up(entry->cancel_id, MADE_UP_ID)))
        return told(&client->error, OFFLOAD_MALFORMED, "seal: no key, or no random numbers");
    *is_sealed = true;
    *(entry->cancelling ? &entry->cancel_sealed_at : &entry->sealed_at) =
        (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    return OFFLOAD_OK;
}

/* Seals what is in the buffer, and puts the other fields before it. */
static unsigned char *seal_up(offload_client *client, const struct offload_seal *seal, size_t *size)
{
    unsigned char head[SEALED_HEAD], *inner = client->buffer + SEALED_HEAD;
    char key[DIGEST_TEXT + 1];
    struct writer writer = { head, 0, sizeof head, false };
    write_digest(key, client->options.seal, OFFLOAD_SEAL_KEY);
    put(&writer, "\xd9\xd9\xf7", 3);
    put_head(&writer, MAP, 4);
    put_text(&writer, "encapsulated");
    put_sized(&writer, BYTES, seal->encapsulated, sizeof seal->encapsulated);
    put_field(&writer, "key", key);
    put_field(&writer, "suite", OFFLOAD_SEAL_SUITE);
    put_text(&writer, "sealed");
    put_head(&writer, BYTES, *size + OFFLOAD_SEAL_TAG);
    offload_seal_request(seal, client->topic, inner, *size, inner);
    memcpy(inner - writer.size, head, writer.size);
    *size += OFFLOAD_SEAL_TAG + writer.size;
    return inner - writer.size;
}

/* What is sealed in an answer; none where it is in clear. */
static bool sealed_part(const struct mosquitto_message *message, struct text *sealed)
{
    struct reader reader = { message->payload, (size_t)message->payloadlen, false };
    enum major major;
    struct text name;
    return get_head(&reader, &major) == 55799 && major == TAG && get_head(&reader, &major) == 1 && major == MAP &&
           get_text(&reader, &name) && is(name, "sealed") && get_text(&reader, sealed) && reader.left == 0;
}

/* Opens an answer where it stands. One in clear counts only as the refusal of what the gateway could not open, which
 * anybody on the way can have said; it goes to the request whose Correlation Data it has. `cancelled` is the request
 * that was to be cancelled, if it is the answer to that. */
static bool unseal(offload_client *client, const struct mosquitto_message *message,
                   const mosquitto_property *properties, struct text *opened, struct entry **cancelled)
{
    struct entry *entry = NULL;
    void *correlation = NULL;
    uint16_t size = 0, skipped = sizeof CANCELLING - 1;
    mosquitto_property_read_binary(properties, MQTT_PROP_CORRELATION_DATA, &correlation, &size, false);
    bool is_to_cancel = size > skipped && memcmp(correlation, CANCELLING, skipped) == 0;
    skipped = is_to_cancel ? skipped : 0;
    for (unsigned i = 0; i < client->options.max_in_flight; i++) {
        struct entry *candidate = &client->entries[i];
        bool is_sealed = is_to_cancel ? candidate->is_cancel_sealed : candidate->is_sealed;
        if (candidate->stage != FREE && is_sealed && size == skipped + sizeof candidate->order &&
            memcmp((char *)correlation + skipped, &candidate->order, sizeof candidate->order) == 0)
            entry = candidate;
    }
    free(correlation);
    if (!entry)
        return false;
    struct text sealed;
    if (sealed_part(message, &sealed)) {
        unsigned char *plaintext = (unsigned char *)message->payload + (sealed.bytes - opened->bytes);
        const struct offload_seal *seal = is_to_cancel ? &entry->cancel_seal : &entry->seal;
        if (!offload_seal_open(seal, message->topic, sealed.bytes, sealed.size, plaintext))
            return false;
        *cancelled = is_to_cancel ? entry : NULL;
        *opened = (struct text){ plaintext, sealed.size - OFFLOAD_SEAL_ANSWER };
        return true;
    }
    struct received received = { .has_id = false };
    bool is_refusal = decode(opened->bytes, opened->size, &received) && received.has_error &&
                      (is(received.kind, "unauthorized") || is(received.kind, "malformed"));
    if (is_refusal)
        fail(client, entry, kind_named(received.kind), "%.*s", (int)received.message.size, received.message.bytes);
    return false;
}

#else

static enum offload_kind begin_sealing(offload_client *client, struct entry *entry)
{
    (void)entry;
    if (client->options.seal)
        return told(&client->error, OFFLOAD_MALFORMED, "seal: this library is built without libsodium");
    return OFFLOAD_OK;
}

static unsigned char *seal_up(offload_client *client, const struct offload_seal *seal, size_t *size)
{
    (void)seal, (void)size;
    return client->buffer;
}

static bool unseal(offload_client *client, const struct mosquitto_message *message,
                   const mosquitto_property *properties, struct text *opened, struct entry **cancelled)
{
    (void)client, (void)message, (void)properties, (void)opened, (void)cancelled;
    return false;
}

#endif

/* --- SHA-256, FIPS 180-4 --- */

static uint32_t rotated(uint32_t word, int bits)
{
    return word >> bits | word << (32 - bits);
}

static void sha256_block(uint32_t state[8], const unsigned char block[64])
{
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    };
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25);
        uint32_t one = s[7] + s1 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
        uint32_t s0 = rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22);
        uint32_t two = s0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

static void sha256(const unsigned char *bytes, size_t size, unsigned char digest[32])
{
    uint32_t state[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    size_t whole = size / 64 * 64, left = size - whole;
    for (size_t at = 0; at < whole; at += 64)
        sha256_block(state, bytes + at);
    unsigned char last[128] = { 0 };
    if (left)
        memcpy(last, bytes + whole, left);
    last[left] = 0x80;
    size_t blocks = left < 56 ? 1 : 2;
    for (int i = 0; i < 8; i++)
        last[64 * blocks - 1 - (size_t)i] = (unsigned char)((uint64_t)size * 8 >> 8 * i);
    for (size_t i = 0; i < blocks; i++)
        sha256_block(state, last + 64 * i);
    for (int i = 0; i < 32; i++)
        digest[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}

static void write_digest(char text[DIGEST_TEXT + 1], const void *bytes, size_t size)
{
    unsigned char digest[32];
    sha256(bytes, size, digest);
    strcpy(text, "sha256:");
    for (int i = 0; i < 32; i++)
        snprintf(text + 7 + 2 * i, 3, "%02x", digest[i]);
}
