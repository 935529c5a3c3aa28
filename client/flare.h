/* libflare: the C client of the Flare queue broker, over its wire protocol (SPEC.md, "Wire
 * protocol"). Self-contained C11 and C++17; link with `pkg-config --libs flare`.
 *
 * One struct flare_client is one connection with a thread of its own, which connects, sends,
 * receives and reconnects. Every function may be called from any thread at the same time, with two
 * exceptions: a client or stream must not be used during or after the call that closes it, and
 * nothing that blocks (it says so) may be called from a callback (`done`, `dial`, `trace`,
 * `on_state`, `on_lost`, `on_end`), which runs on the client's thread: there it gives
 * FLARE_ERR_CONFLICT, and flare_stream_close and flare_close, which cannot say so, abort. Handlers
 * of streams run on threads of their own and may call everything but flare_stream_close of their
 * stream and flare_close. A client is of no use in a child after fork().
 *
 * Errors are values (<flare/error.h>). Texts are UTF-8 and terminated by a zero byte unless they
 * come with a size. Structs of options may be zeroed: 0 stands for the default. Durations are in
 * the unit their name ends with. What is passed in is borrowed for the call only and copied where
 * it is needed longer; what a callback is given is valid until it returns. */
#ifndef FLARE_H
#define FLARE_H

#include <flare/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct flare_client;
struct flare_stream;
struct flare_batch;

/* ---- connecting ----------------------------------------------------------------------------- */

enum flare_state {
    FLARE_STATE_CONNECTED = 1, /* the broker has answered hello */
    FLARE_STATE_LOST = 2,      /* the connection broke; it is tried again */
    FLARE_STATE_CLOSED = 3     /* by flare_close */
};

struct flare_options {
    /* "flare://HOST:PORT" or "HOST:PORT"; NULL: the environment's FLARE_WIRE, else 127.0.0.1:8089.
     */
    const char *url;
    const char *name; /* of the program, for the broker's log; NULL: "libflare" */
    /* Makes each connection instead of `url`: a connected stream socket, which the client takes, or
     * -1. For brokers in the same process. Called on the client's thread. */
    int (*dial)(void *dial_user);
    void *dial_user;

    uint32_t connect_timeout_ms; /* of flare_connect, and of each later try; 5000. A look-up of the
                                    host's name that has begun is waited for beyond that, and by
                                    flare_close: the system's resolver has its own time limit */
    uint32_t request_timeout_ms; /* of a call that blocks, beyond what it asks the broker to wait;
                                    30000. FLARE_ERR_TIMEOUT; a publish, which waits so long for
                                    room and for its answer each, may have taken effect */
    uint32_t reconnect_min_ms;   /* pause before the second try, doubled with each; 50 */
    uint32_t reconnect_max_ms;   /* and its bound; 2000 */
    uint32_t give_up_ms;         /* without a connection for so long, what waits for one fails with
                                    FLARE_ERR_UNAVAILABLE, and a publish that has been sent with
                                    FLARE_ERR_UNKNOWN; 60000 */

    /* Publishes are sent in batches of one topic: when one is full, when its linger time has
     * passed, or at once when nothing of the topic is under way. */
    uint32_t linger_us;      /* how long a publish waits for others while earlier ones are under
                                way, to the millisecond; 0: 1000; UINT32_MAX: only for a full batch,
                                flare_publish or flare_flush */
    uint32_t batch_messages; /* 512; the broker's bound if that is lower */
    uint32_t batch_size;     /* bytes; 256 KiB, 4 MiB at most; one message may be larger */
    size_t unconfirmed_size; /* bytes of publishes not yet answered, with what each batch and
                                message takes beside, beyond which flare_publish_async waits;
                                64 MiB */
    /* Publishes carry a random batch key, so that what was not answered before a connection broke
     * is sent again without publishing anything twice (within the topic's idempotency window), and
     * so is what the broker was too busy for, until `give_up_ms` have passed. What is refused after
     * an answer was lost fails with FLARE_ERR_UNKNOWN, since it may be there. With this set they do
     * not carry one, and then fail with FLARE_ERR_UNKNOWN, or what the broker has said. */
    bool no_resend;

    /* Each frame, as one line of text, when it is sent and received. */
    void (*trace)(void *user, bool is_sent, const char *line);
    void (*on_state)(void *user, enum flare_state state, const char *detail);
    void *user; /* of trace and on_state */
};

/* Connects and blocks until the broker has answered. FLARE_ERR_INVALID names a bad option;
 * FLARE_ERR_UNAVAILABLE, FLARE_ERR_TIMEOUT. `*out` is written only on success. */
FLARE_API enum flare_code flare_connect(const struct flare_options *options,
                                        struct flare_client **out, struct flare_error *error);

/* Blocks: ends streams (see flare_stream_close), fails what is still unanswered with
 * FLARE_ERR_UNKNOWN or FLARE_ERR_UNAVAILABLE, runs its callbacks and frees the client. Call
 * flare_flush first for publishes that must be answered. NULL does nothing. */
FLARE_API void flare_close(struct flare_client *client);

/* Blocks until the broker has answered a ping. */
FLARE_API enum flare_code flare_ping(struct flare_client *client, struct flare_error *error);

/* What the broker has said at the begin of the present connection, or the last one. */
struct flare_limits {
    uint32_t message_size_max;   /* bytes of a body */
    uint32_t batch_messages_max; /* of one flare_publish_batch */
    uint32_t pull_messages_max;
    uint32_t pull_size_max;
    uint64_t wait_max_ms;
};
FLARE_API void flare_get_limits(struct flare_client *client, struct flare_limits *out);

/* "0.1.0+g1a2b3c4.20260101", of the library. */
FLARE_API const char *flare_version(void);

/* ---- configuring ---------------------------------------------------------------------------- */

struct flare_topic {
    uint32_t shards;                /* 4, or as it is; fixed when the topic is created */
    uint64_t retention_ms;          /* 0: no retention by age */
    uint64_t retention_bytes;       /* of each shard; 0: none by size */
    uint64_t idempotency_window_ms; /* 0: five minutes; FLARE_NONE: nothing is remembered */
    bool relaxed;                   /* publishes are answered before they are flushed */
};

enum flare_start { FLARE_START_LATEST = 0, FLARE_START_EARLIEST = 1, FLARE_START_TIME = 2 };

struct flare_subscription {
    uint64_t lease_ms;       /* 0: 30000 */
    uint32_t max_attempts;   /* 0: 16; FLARE_NONE_U32: no bound */
    uint64_t retry_delay_ms; /* 0: at once */
    uint32_t max_in_flight;  /* leased messages of each shard; 0: no bound */
    enum flare_start start;  /* of a new one */
    uint64_t start_ms;       /* of FLARE_START_TIME, since 1970 */
};

/* Where messages are read from. */
struct flare_source {
    const char *topic;
    const char *subscription;
};

#define FLARE_NONE UINT64_MAX
#define FLARE_NONE_U32 UINT32_MAX

/* Both create what is not there and replace the settings of what is; they block. Settings may be
 * NULL: the defaults. `created` may be NULL. */
FLARE_API enum flare_code flare_topic_put(struct flare_client *client, const char *topic,
                                          const struct flare_topic *settings, bool *created,
                                          struct flare_error *error);
FLARE_API enum flare_code flare_subscription_put(struct flare_client *client,
                                                 const struct flare_source *source,
                                                 const struct flare_subscription *settings,
                                                 bool *created, struct flare_error *error);

/* ---- publishing ----------------------------------------------------------------------------- */

struct flare_attribute {
    const char *name; /* [a-z0-9._-]{1,255} */
    const char *value;
};

struct flare_message {
    const void *body;
    size_t body_size;
    const char *key;             /* messages of one key go to one shard, in order; NULL: none */
    const char *idempotency_key; /* of this message, beyond the batch's; NULL: none */
    const struct flare_attribute *attributes;
    size_t attribute_count;
    uint64_t delay_ms; /* not delivered before */
    uint64_t ttl_ms;   /* not delivered after; 0: for ever */
};

enum { FLARE_ID_SIZE = 25 }; /* with the terminator */

struct flare_result {
    enum flare_code code;
    bool replayed; /* published before, under its idempotency key or an earlier try of this call */
    bool relaxed;  /* answered before it was flushed, as its topic wants it */
    char id[FLARE_ID_SIZE];
    uint32_t shard;
    uint64_t sequence;
};

/* Publishes one message, in a batch with those that others publish meanwhile, and blocks until it
 * is answered: on FLARE_OK it is on disk (or `relaxed`). `result` may be NULL. */
FLARE_API enum flare_code flare_publish(struct flare_client *client, const char *topic,
                                        const struct flare_message *message,
                                        struct flare_result *result, struct flare_error *error);

struct flare_messages {
    const struct flare_message *items;
    size_t count;
    bool atomic; /* all or none */
};

/* Publishes exactly these messages in one request and blocks. FLARE_OK when every one is published;
 * otherwise the first failure, and `results` (one for each message, or NULL) tell of each. */
FLARE_API enum flare_code flare_publish_batch(struct flare_client *client, const char *topic,
                                              const struct flare_messages *messages,
                                              struct flare_result *results,
                                              struct flare_error *error);

/* `error` is NULL when result->code is FLARE_OK. */
typedef void (*flare_published)(void *user, const struct flare_result *result,
                                const struct flare_error *error);

/* Takes a copy of the message to be sent and returns; `done` (may be NULL) is called once if and
 * only if this returns FLARE_OK. Messages that one thread publishes to one topic under one key keep
 * their order: a batch with keys is sent when the one before has been answered. Blocks only while
 * more than `unconfirmed_size` bytes are unanswered; from a callback it gives FLARE_ERR_BUSY
 * instead. */
FLARE_API enum flare_code flare_publish_async(struct flare_client *client, const char *topic,
                                              const struct flare_message *message,
                                              flare_published done, void *user,
                                              struct flare_error *error);

/* Sends what lingers and blocks until every publish of before has been answered and its callback
 * has returned, whatever the answers; FLARE_ERR_TIMEOUT. 0 stands for request_timeout_ms. */
FLARE_API enum flare_code flare_flush(struct flare_client *client, uint32_t timeout_ms,
                                      struct flare_error *error);

/* ---- pulling -------------------------------------------------------------------------------- */

/* Names one delivery; plain data, to be copied and kept. */
struct flare_receipt {
    uint8_t size;
    uint8_t bytes[64];
};

struct flare_delivery {
    char id[FLARE_ID_SIZE];
    struct flare_receipt receipt;
    uint32_t shard;
    uint32_t epoch; /* fencing epoch of its shard */
    uint64_t sequence;
    uint32_t attempt; /* deliveries so far, this one included */
    uint64_t published_ms;
    uint64_t lease_until_ms; /* by the broker's clock */
    const void *body;
    size_t body_size;
    const char *key; /* not terminated */
    size_t key_size;
    const void *attributes; /* see flare_delivery_attribute */
    size_t attributes_size;
    uint32_t attribute_count;
    struct flare_source source; /* to settle it at */
};

/* A copy of the attribute's value in `out`, terminated and cut to `size`; false: there is none. */
FLARE_API bool flare_delivery_attribute(const struct flare_delivery *delivery, const char *name,
                                        char *out, size_t size);

struct flare_pull {
    uint32_t max;         /* messages; 0: 1 */
    uint32_t max_bytes;   /* of them together; the first comes whatever its size; 0: the broker's
                             bound */
    uint64_t wait_ms;     /* for the first message, by the broker's clock; 0: not at all; beyond the
                             broker's bound it is asked again */
    uint64_t lease_ms;    /* 0: the subscription's */
    const char *consumer; /* who asks, for people; may be NULL */
};

/* Blocks until there is a message or the wait is over: then FLARE_OK with an empty batch. `options`
 * may be NULL. The batch is the caller's to free. When the connection breaks meanwhile it asks
 * again. */
FLARE_API enum flare_code flare_pull(struct flare_client *client, const struct flare_source *source,
                                     const struct flare_pull *options, struct flare_batch **out,
                                     struct flare_error *error);

/* `batch` is the callback's to keep and free; NULL with an error. */
typedef void (*flare_pulled)(void *user, struct flare_batch *batch,
                             const struct flare_error *error);
FLARE_API enum flare_code flare_pull_async(struct flare_client *client,
                                           const struct flare_source *source,
                                           const struct flare_pull *options, flare_pulled done,
                                           void *user, struct flare_error *error);

FLARE_API size_t flare_batch_count(const struct flare_batch *batch);
/* Valid as long as the batch. */
FLARE_API const struct flare_delivery *flare_batch_get(const struct flare_batch *batch,
                                                       size_t index);
/* Frees memory only: what was not settled stays leased. NULL does nothing. */
FLARE_API void flare_batch_free(struct flare_batch *batch);

/* ---- settling ------------------------------------------------------------------------------- */

enum flare_settle_kind {
    FLARE_SETTLE_ACK = 1,    /* finished */
    FLARE_SETTLE_NACK = 2,   /* to be delivered again */
    FLARE_SETTLE_EXTEND = 3, /* still at work */
};

struct flare_nack {
    bool has_delay; /* use delay_ms instead of the subscription's retry delay */
    uint64_t delay_ms;
    bool reject;        /* make them dead letters now; not with a delay */
    const char *reason; /* kept with a dead letter; may be NULL */
};

struct flare_settle {
    enum flare_settle_kind kind;
    struct flare_nack nack; /* of NACK */
    uint64_t lease_ms;      /* of EXTEND: from now; 0: the subscription's lease */
    const struct flare_receipt *receipts;
    size_t count; /* 10000 at most */
};

/* Settles receipts in one request and blocks. FLARE_OK when every one took effect; otherwise the
 * first failure (FLARE_ERR_LEASE_LOST), while the others took effect all the same; `codes` (one for
 * each receipt, or NULL) tell of each. Not sent again when the connection breaks before the answer:
 * FLARE_ERR_UNKNOWN; settle again, FLARE_ERR_LEASE_LOST then also means that it had taken effect.
 */
FLARE_API enum flare_code flare_settle(struct flare_client *client,
                                       const struct flare_source *source,
                                       const struct flare_settle *settle, enum flare_code *codes,
                                       struct flare_error *error);
/* The three kinds of it. `options` may be NULL. */
FLARE_API enum flare_code flare_ack(struct flare_client *client, const struct flare_source *source,
                                    const struct flare_receipt *receipts, size_t count,
                                    struct flare_error *error);
FLARE_API enum flare_code flare_nack(struct flare_client *client, const struct flare_source *source,
                                     const struct flare_nack *options,
                                     const struct flare_receipt *receipts, size_t count,
                                     struct flare_error *error);
FLARE_API enum flare_code flare_extend(struct flare_client *client,
                                       const struct flare_source *source, uint64_t lease_ms,
                                       const struct flare_receipt *receipts, size_t count,
                                       struct flare_error *error);

/* `codes` has one for each receipt, in order; NULL with an error of the whole. */
typedef void (*flare_settled)(void *user, const enum flare_code *codes, size_t count,
                              const struct flare_error *error);
FLARE_API enum flare_code flare_settle_async(struct flare_client *client,
                                             const struct flare_source *source,
                                             const struct flare_settle *settle, flare_settled done,
                                             void *user, struct flare_error *error);

/* Acks every message of a batch. */
FLARE_API enum flare_code flare_batch_ack(struct flare_client *client,
                                          const struct flare_batch *batch,
                                          struct flare_error *error);

/* ---- streams -------------------------------------------------------------------------------- */

/* What becomes of a delivery when its handler returns. */
enum flare_verdict {
    FLARE_ACK = 1,
    FLARE_NACK = 2,   /* after the subscription's retry delay */
    FLARE_REJECT = 3, /* a dead letter at once */
    FLARE_KEEP = 4    /* the handler's own business: it settles by its receipt, now or later */
};

typedef enum flare_verdict (*flare_handler)(void *user, const struct flare_delivery *delivery);

struct flare_stream_options {
    flare_handler handler; /* required */
    void *user;            /* of the handler and the callbacks */
    uint32_t concurrency;  /* handlers that run at the same time, each on a thread; 0: 1; 1024 at
                              most */
    /* Messages granted beyond those that handlers are working on. Their leases run while they wait
     * (and are extended), so 0, the default, gives the least redelivery; more, the most speed. */
    uint32_t prefetch;
    uint32_t bytes;       /* of messages that are here at the same time; 0: 16 MiB */
    uint64_t lease_ms;    /* 0: the subscription's */
    bool no_extend;       /* leases are not extended while a handler runs or a message waits */
    const char *consumer; /* for people; may be NULL */
    /* The lease of a delivery whose handler is running has been lost: it may be delivered to
     * another. On the client's thread; may be NULL. */
    void (*on_lost)(void *user, const struct flare_delivery *delivery);
    /* The stream has ended by itself: its subscription is gone. It still is to be closed. On the
     * client's thread; may be NULL. */
    void (*on_end)(void *user, const struct flare_error *error);
};

/* Opens a stream of deliveries to a handler, and blocks until the broker has taken it. The broker
 * is granted credit for as many messages as there are idle handlers (and `prefetch`), and no more.
 * Verdicts are sent in batches, and again when they may not have arrived before a connection broke,
 * or the broker was too busy for them (until `give_up_ms` have passed). After a reconnect the
 * stream goes on by itself. */
FLARE_API enum flare_code flare_stream_open(struct flare_client *client,
                                            const struct flare_source *source,
                                            const struct flare_stream_options *options,
                                            struct flare_stream **out, struct flare_error *error);

/* In a handler, or in another thread while it runs: whether the lease has been lost, as far as is
 * known. What the handler then does may be done twice, and its verdict has no effect. */
FLARE_API bool flare_delivery_lost(const struct flare_delivery *delivery);

struct flare_stream_counts {
    uint64_t delivered;
    uint64_t acked; /* the broker has taken the verdict; so the next two */
    uint64_t nacked;
    uint64_t rejected;
    uint64_t kept;
    uint64_t lost;    /* their verdict had no effect: the lease had ended, the broker could not be
                         told for `give_up_ms`, or the client was closed before */
    uint32_t running; /* handlers at work now */
    uint32_t waiting; /* messages here whose handler has not begun */
};
FLARE_API void flare_stream_get_counts(struct flare_stream *stream,
                                       struct flare_stream_counts *out);

/* Blocks: takes no more messages, gives back those whose handlers have not begun (nacked without
 * delay), waits for the handlers that run, sends their verdicts, and frees the stream. Without a
 * connection it waits for one, for `give_up_ms` at most, and for as long for a broker that is too
 * busy for a verdict. NULL does nothing. */
FLARE_API void flare_stream_close(struct flare_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
