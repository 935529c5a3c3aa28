/* libflare-broker: the Flare broker inside of a program. Self-contained C11 and C++17; link with
 * `pkg-config --cflags --libs flare-broker`.
 *
 *   struct flare_broker *broker;
 *   struct flare_error error;
 *   if (flare_broker_open(NULL, &broker, &error) != FLARE_OK) { ... error.message ... }
 *   flare_broker_topic_put(broker, "orders", NULL, &error);
 *   flare_broker_subscription_put(broker, &(struct flare_source){"orders", "mail"}, NULL, &error);
 *   flare_broker_connect(broker, NULL, &client, &error);
 *   ... flare_publish(client, ...), flare_pull(client, ...) as with any broker ...
 *   flare_close(client);
 *   flare_broker_close(broker);
 *
 * It is the broker that `flared` runs: on a data directory whose files either can open (one at a
 * time), or in memory; with its faces on addresses of their own, or without any socket; by the
 * clock of the machine, or by a simulated one that stands still until flare_broker_advance moves
 * it. A process may have several brokers, which share nothing.
 *
 * Threads: a broker runs on threads of its own, one and one more for each volume and the catalog,
 * with all signals blocked. Every function may be called from any thread and from several at once,
 * flare_broker_close aside, which must be the last call. Functions that ask the broker something
 * wait for its answer. Callbacks say on which thread they run; none may call back into the broker
 * it was called from. A process that has open brokers must not go on in a child of fork().
 *
 * Errors: what can fail returns an enum flare_code; see <flare/error.h>. `error` may always be
 * NULL. Codes that any function can return beside those it names: FLARE_ERR_UNAVAILABLE when a
 * volume has failed, FLARE_ERR_BUSY when the broker has too much to do, FLARE_ERR_MEMORY.
 *
 * Texts are terminated and borrowed for the call. Times are Unix time in milliseconds (UTC),
 * durations are milliseconds, sizes are bytes. */
#ifndef FLARE_BROKER_H
#define FLARE_BROKER_H

#include <stddef.h>
#include <stdint.h>

#include <flare/flare.h>

#ifdef __cplusplus
extern "C" {
#endif

struct flare_broker;

/* All zero means: in memory, no sockets, the real clock, the log to standard error. Zero it before
 * filling it, since later versions add fields at its end. */
struct flare_broker_options {
    const char *data; /* data directory, made when it is missing; NULL: everything is in memory and
                         ends with the broker */
    const char *http; /* HOST:PORT of the HTTP API, port 0 takes any free one; NULL: none. There is
                         no authentication: keep it on loopback */
    const char *wire; /* the same for the wire protocol */
    uint64_t simulated_ms; /* time at which a simulated clock stands at first; 0: the real clock */
    const char *settings;  /* lines like those of flared's configuration file: "volumes = 1\n"; all
                              settings of flared but data, ephemeral, http and wire; NULL: the
                              defaults,  and in memory a quota of 1 GiB for each volume */
    const char *name;      /* given with each line of the log as broker=NAME; NULL: none */
    /* Takes one line of the log, `size` bytes with the newline, not terminated. Called from several
     * of the broker's threads, perhaps at the same time, until flare_broker_close returns. NULL:
     * standard error. */
    void (*log)(void *user, const char *line, size_t size);
    void *log_user;
};

/* Opens the data, starts the threads and listens; `*out` is usable on return, the caller's to
 * close. `options` may be NULL, and nothing of it is kept but `log_user`.
 *
 * FLARE_ERR_INVALID names a setting or address that is not valid; FLARE_ERR_LOCKED: the directory
 * is in use by another broker, in this process or another; FLARE_ERR_CORRUPT, FLARE_ERR_FORMAT: it
 * is damaged, or of a newer version; FLARE_ERR_IO, FLARE_ERR_NO_SPACE: it cannot be read or
 * written, or the address is taken. */
FLARE_API enum flare_code flare_broker_open(const struct flare_broker_options *options,
                                            struct flare_broker **out, struct flare_error *error);

/* Takes nothing new, answers what has begun (for at most the setting `drain-timeout`), ends all
 * threads and closes all files. What was confirmed is on disk. NULL does nothing. */
FLARE_API void flare_broker_close(struct flare_broker *broker);

/* "127.0.0.1:40123", with the real port; NULL: it does not listen. Valid until it is closed. */
FLARE_API const char *flare_broker_http_address(const struct flare_broker *broker);
FLARE_API const char *flare_broker_wire_address(const struct flare_broker *broker);

/* Connects a client within the process, as flare_connect does, to be closed with flare_close before
 * the broker: requests are those of the wire protocol, carried by a local socket pair, whether the
 * broker listens or not. `options` may be NULL; their url, dial and dial_user are not used. The
 * client's own times (timeouts, pauses, lingering, extending) are real ones also where the broker's
 * clock is simulated. */
FLARE_API enum flare_code flare_broker_connect(struct flare_broker *broker,
                                               const struct flare_options *options,
                                               struct flare_client **out,
                                               struct flare_error *error);

/* ---- time ----------------------------------------------------------------------------------- */

/* The time by the broker's clock. */
FLARE_API uint64_t flare_broker_now_ms(const struct flare_broker *broker);

/* Moves a simulated clock on by `ms` (0: not at all), stopping wherever something comes due: leases
 * expire, retries come due, retention ends, waiting pulls time out, each at its time. Returns when
 * all that came due has been done, and all that the broker had received before: no sleep is needed
 * before looking at the outcome. What a client has sent but the broker has not yet read is not
 * waited for; see flare_broker_await_pulls. Calls at the same time come one after the other. With
 * the real clock it returns FLARE_ERR_CONFLICT. */
FLARE_API enum flare_code flare_broker_advance(struct flare_broker *broker, uint64_t ms,
                                               struct flare_error *error);

/* Waits until at least `count` pulls wait for messages, `timeout_ms` (of real time) at most; then
 * FLARE_ERR_TIMEOUT. For tests whose other thread has sent a pull that is to wait. */
FLARE_API enum flare_code flare_broker_await_pulls(struct flare_broker *broker, uint32_t count,
                                                   uint32_t timeout_ms, struct flare_error *error);

/* ---- topics and subscriptions --------------------------------------------------------------- */

/* What flare_topic_put and flare_subscription_put of <flare/flare.h> do, without a client. */

/* Creates it or replaces its settings (NULL: the defaults). FLARE_ERR_INVALID names a setting that
 * is out of bounds; FLARE_ERR_EXISTS: the topic has another number of shards. */
FLARE_API enum flare_code flare_broker_topic_put(struct flare_broker *broker, const char *topic,
                                                 const struct flare_topic *settings,
                                                 struct flare_error *error);
/* With its subscriptions and messages. FLARE_ERR_NOT_FOUND: there is none. */
FLARE_API enum flare_code flare_broker_topic_delete(struct flare_broker *broker, const char *topic,
                                                    struct flare_error *error);

/* The same for a subscription; FLARE_ERR_NOT_FOUND: there is no such topic. One that is paused
 * stays so. */
FLARE_API enum flare_code flare_broker_subscription_put(struct flare_broker *broker,
                                                        const struct flare_source *source,
                                                        const struct flare_subscription *settings,
                                                        struct flare_error *error);
FLARE_API enum flare_code flare_broker_subscription_delete(struct flare_broker *broker,
                                                           const struct flare_source *source,
                                                           struct flare_error *error);

/* ---- looking without touching --------------------------------------------------------------- */

/* How many messages of a subscription are in each state; every message that is not finished is in
 * exactly one. */
struct flare_depths {
    uint64_t enqueued;  /* not taken out of the topic yet */
    uint64_t leased;    /* with a consumer */
    uint64_t scheduled; /* for a retry or after a delay, also when that has come due */
    uint64_t dead;      /* dead letters */
};

/* FLARE_ERR_NOT_FOUND: there is no such topic or subscription. */
FLARE_API enum flare_code flare_broker_depths(struct flare_broker *broker,
                                              const struct flare_source *source,
                                              struct flare_depths *out, struct flare_error *error);

typedef void (*flare_visit_depths)(void *user, const struct flare_source *source,
                                   const struct flare_depths *depths);

/* Calls `visit` for each subscription, in order of topic and name, on the broker's thread, before
 * it returns; what it is given is valid during the callback. */
FLARE_API enum flare_code flare_broker_each_subscription(struct flare_broker *broker,
                                                         flare_visit_depths visit, void *user,
                                                         struct flare_error *error);

enum flare_message_state {
    FLARE_MESSAGE_ENQUEUED = 1,
    FLARE_MESSAGE_LEASED = 2,
    FLARE_MESSAGE_SCHEDULED = 3,
    FLARE_MESSAGE_DEAD = 4
};
/* "enqueued", "leased", "scheduled", "dead"; never NULL. */
FLARE_API const char *flare_message_state_name(enum flare_message_state state);

/* A message as it is listed. What it points to is valid during the callback; key and body are not
 * terminated. */
struct flare_listed {
    char id[FLARE_ID_SIZE];
    uint32_t shard; /* number within the topic */
    uint64_t sequence;
    enum flare_message_state state;
    uint32_t attempts; /* deliveries so far */
    uint64_t published_ms;
    uint64_t due_ms;    /* leased: end of the lease; scheduled: when it comes due; dead: since when;
                           enqueued: 0 */
    const char *reason; /* dead: "attempts", "expired", "rejected", "corrupt"; otherwise "" */
    const void *key;
    size_t key_size;
    const void *body;
    size_t body_size;
};

struct flare_list_options {
    struct flare_source source;
    enum flare_message_state state;
    uint32_t max; /* messages at most; 0: 1000 */
    /* Called for each message, in order of shard and sequence, on the broker's thread, before
     * flare_broker_list returns. */
    void (*visit)(void *user, const struct flare_listed *message);
    void *user;
};

/* Lists messages of a subscription in one state without disturbing them. FLARE_ERR_NOT_FOUND: there
 * is no such topic or subscription. */
FLARE_API enum flare_code flare_broker_list(struct flare_broker *broker,
                                            const struct flare_list_options *options,
                                            struct flare_error *error);

#ifdef __cplusplus
}
#endif

#endif
