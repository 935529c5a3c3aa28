/* Commands: what a volume is asked to do, in decoded form, and the replies.
 *
 * A command is stamped with `now_ms` by its proposer and carries anything random. Its result is a
 * function of the stored state and the command alone. All memory behind pointers and spans is the
 * proposer's and lives until the reply has been read; results are written to the arrays the
 * proposer supplies. A command touches one volume. */
#ifndef CORE_COMMAND_H
#define CORE_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "broker/base/span.h"

enum command_type {
#define COMMAND(name, number, doc) COMMAND_##name = number,
#include "broker/core/commands.def"
};

enum message_state {
#define STATE(name, number, text, doc) MESSAGE_##name = number,
#include "broker/core/lifecycle.def"
};

/* When a publish is answered; on disk. */
enum durability {
#define DURABILITY(name, number, text, doc) DURABILITY_##name = number,
#include "broker/core/durability.def"
    DURABILITY_COUNT
};

enum {
    CORE_NAME_MAX = 255,
    CORE_KEY_MAX = 2048,
    CORE_ATTRIBUTES_MAX = 32768, /* encoded, see attributes.h */
    CORE_BODY_MAX = 64 * 1024 * 1024,
    CORE_SHARDS_MAX = 4096,    /* of one topic */
    CORE_RECEIPTS_MAX = 10000, /* of one command */
    CORE_PULL_MAX = 10000,
    CORE_NOTE_MAX = 1024, /* text that says why a message was given back */
};

/* Why a message is a dead letter; on disk. */
enum dead_reason {
    DEAD_NONE = 0,
    DEAD_ATTEMPTS = 1, /* used up its attempts */
    DEAD_EXPIRED = 2,  /* its time to live ended first */
    DEAD_REJECTED = 3, /* a consumer refused it for good */
    DEAD_CORRUPT = 4,  /* its stored bytes fail their check */
};

struct topic_settings {
    uint64_t retention_ms;    /* 0: none by age */
    uint64_t retention_bytes; /* of one shard; 0: none by size */
    uint64_t dedup_window_ms; /* how long an idempotency key is remembered */
    enum durability durability;
};

struct shard_place {
    uint32_t shard_id; /* unique in the data directory, never reused, never 0 */
    uint32_t number;   /* within its topic, from 0 */
    uint64_t hash_first;
    uint64_t hash_last;
};

struct topic_put {
    uint32_t topic_id;
    struct topic_settings settings;
    const struct shard_place *shards; /* those of this volume */
    uint32_t shard_count;
};

enum start_at { START_LATEST, START_EARLIEST, START_TIME, START_SEQUENCE };

struct sub_settings {
    uint64_t lease_ms;
    uint64_t retry_delay_ms; /* of a nack without a delay, and after a lost lease */
    uint32_t max_attempts;   /* 0: no bound */
    uint32_t max_in_flight;  /* leased messages per shard; 0: no bound */
    uint8_t ordering;        /* 0: none */
    uint8_t mode;            /* 0: passive */
    bool paused;
};

struct sub_put {
    uint32_t sub_id;
    uint32_t topic_id;
    struct sub_settings settings;
    enum start_at start; /* of a new one */
    uint64_t start_value;
};

/* One message to publish. `payload_hash` is XXH3-64 of key, attributes and body, one after the
 * other; its proposer computes it, so that the volume's thread need not. */
struct message_in {
    uint32_t shard_id;
    struct span key;
    struct span attributes;
    struct span body;
    struct span idempotency_key; /* empty: none */
    uint64_t payload_hash;
    uint64_t delay_ms;
    uint64_t ttl_ms; /* 0: for ever */
};

struct publish_result {
    enum err_code code;
    bool replayed;
    uint32_t shard_id;
    uint32_t shard_number;
    uint64_t sequence;
};

struct publish {
    uint32_t topic_id;
    bool atomic;
    struct span batch_key; /* idempotency key of this part of a batch; empty: none */
    const struct message_in *messages;
    uint32_t count;
    struct publish_result *results; /* `count` of them */
};

struct pull {
    uint32_t sub_id;
    uint32_t max;
    uint32_t size_max; /* of keys, attributes and bodies; the first comes whatever its size ... */
    bool size_strict;  /* ... unless this is set: others have come from elsewhere before */
    uint32_t nonce;    /* random: tells this pull's receipts from those of one that a crash undid */
    uint32_t rotation; /* where to start among the shards; any number */
    uint64_t lease_ms; /* 0: the subscription's */
};

/* One delivery of one message: the content of a receipt. */
struct receipt {
    uint32_t sub_id;
    uint32_t shard_id;
    uint64_t sequence;
    uint32_t epoch;
    uint32_t grant; /* of the pull that leased it */
    uint16_t attempt;
};

/* ACK, NACK, EXTEND. */
struct settle {
    uint32_t sub_id;
    const struct receipt *receipts;
    uint32_t count;
    enum err_code *results; /* NONE, LEASE_LOST or NOT_FOUND for each receipt */
    bool has_delay;         /* NACK: use delay_ms instead of the subscription's retry delay */
    bool reject;            /* NACK: make it a dead letter now */
    bool release;           /* NACK: never reached the client; the attempt does not count */
    uint64_t delay_ms;
    struct span note;  /* NACK: kept with a dead letter */
    uint64_t lease_ms; /* EXTEND: from now; 0: the subscription's */
};

struct peek {
    uint32_t sub_id;
    enum message_state state; /* SCHEDULED means SCHEDULED and READY */
    uint32_t from_shard_id;   /* the first position to look at */
    uint64_t from_sequence;
    uint32_t max;
    uint32_t size_max;
    bool size_strict; /* as in a pull */
};

struct redrive {
    uint32_t sub_id;
    enum dead_reason reason; /* NONE: any */
    uint32_t shard_id;       /* 0: every shard */
    bool has_sequence;       /* only this one of shard_id */
    uint64_t sequence;
    uint32_t max;
    bool dry_run;
};

struct purge {
    uint32_t sub_id;
    bool enqueued;
    bool delivery; /* leased, scheduled and ready */
    bool dead;
};

struct seek {
    uint32_t sub_id;
    uint32_t shard_id; /* 0: every shard */
    enum start_at to;
    uint64_t value; /* START_TIME: milliseconds; START_SEQUENCE: sequence */
    bool dry_run;
};

struct stats {
    uint32_t topic_id; /* 0: every one */
};

struct tick {
    uint32_t budget; /* units of work, about one message each */
};

struct catalog_change; /* catalog.h */

/* Whether it only looks: nothing of it is to be kept. */
static inline bool command_looks(enum command_type type)
{
    return type == COMMAND_PEEK || type == COMMAND_STATS;
}

struct command {
    enum command_type type;
    uint64_t now_ms;
    bool no_space; /* stamped: the volume is over its quota or its disk is full, so publishes are
                      refused, but for batches that are there already */
    union {
        struct topic_put topic_put;
        uint32_t topic_drop;
        struct sub_put sub_put;
        uint32_t sub_drop;
        struct publish publish;
        struct pull pull;
        struct settle settle;
        struct peek peek;
        struct redrive redrive;
        struct purge purge;
        struct seek seek;
        struct stats stats;
        struct tick tick;
        struct catalog_change *catalog;
    };
};

/* A message in a reply to PULL or PEEK; its payload (key, attributes, body, note) lies in
 * reply.payload. */
struct delivery {
    uint32_t shard_id;
    uint32_t shard_number;
    uint64_t sequence;
    uint32_t epoch;
    uint32_t grant;
    uint16_t attempt; /* deliveries so far, this one included */
    uint8_t state;    /* enum message_state */
    uint8_t reason;   /* enum dead_reason */
    uint64_t published_ms;
    uint64_t due_ms;     /* leased: end of the lease; scheduled: due time; dead: since when */
    uint64_t expires_ms; /* 0: never */
    uint32_t payload_offset;
    uint32_t key_size;
    uint32_t attributes_size;
    uint32_t body_size;
    uint32_t note_size;
};

/* Figures of one shard, and of one subscription on it. In reply.items of STATS: shard_stats rows,
 * each followed by its `sub_count` sub_stats rows. */
struct shard_stats {
    uint32_t topic_id;
    uint32_t shard_id;
    uint32_t number;
    uint32_t sub_count;
    uint64_t hash_first;
    uint64_t hash_last;
    uint64_t next_sequence;
    uint64_t retained_from; /* first sequence kept by retention; next_sequence without retention */
};

struct sub_stats {
    uint32_t sub_id;
    uint32_t shard_id;
    uint64_t cursor;
    uint64_t enqueued;
    uint64_t leased;
    uint64_t scheduled;
    uint64_t dead;
    uint64_t oldest_ms; /* publish time of the oldest message that is not finished (dead ones
                           aside); 0: none */
};

struct reply {
    enum err_code code;
    char detail[160]; /* names the field to blame, or says why */
    uint64_t count;   /* REDRIVE, PURGE, SEEK: messages concerned; TICK: work done */
    /* From the machine: it may be answered before its flush, provided that each earlier publish of
     * its batch that may be, is too; a crash before the flush undoes what it did. PUBLISH: the
     * topic is relaxed. PULL: the publishes of all it gives are on disk, or its topic is relaxed;
     * when the leases are undone, their receipts are refused.
     *
     * From a volume: it has been answered so. */
    bool early;
    uint64_t left; /* PULL: messages at least that another could be given now; 0: perhaps none */
    bool drained;  /* PULL: it left nothing: the subscription is woken by what comes after it */
    bool more; /* PEEK, REDRIVE: there may be more after `next`; TICK: work is left; PULL: it looked
                * at as many messages as one pull may, and there are more */
    uint32_t next_shard_id;
    uint64_t next_sequence;
    struct buf items; /* struct delivery, or the rows of STATS */
    struct buf payload;
};

static inline uint32_t reply_delivery_count(const struct reply *reply)
{
    return (uint32_t)(reply->items.size / sizeof(struct delivery));
}

static inline const struct delivery *reply_delivery(const struct reply *reply, uint32_t index)
{
    return (const struct delivery *)(const void *)reply->items.data + index;
}

/* A part of a message. An empty one points elsewhere: a reply of empty messages has no payload. */
static inline struct span reply_part(const struct reply *reply, uint32_t offset, uint32_t size)
{
    return size == 0 ? span_of("", 0) : span_of(reply->payload.data + offset, size);
}

static inline struct span delivery_key(const struct reply *reply, const struct delivery *delivery)
{
    return reply_part(reply, delivery->payload_offset, delivery->key_size);
}

static inline struct span delivery_attributes(const struct reply *reply,
                                              const struct delivery *delivery)
{
    return reply_part(reply, delivery->payload_offset + delivery->key_size,
                      delivery->attributes_size);
}

static inline struct span delivery_body(const struct reply *reply, const struct delivery *delivery)
{
    return reply_part(reply,
                      delivery->payload_offset + delivery->key_size + delivery->attributes_size,
                      delivery->body_size);
}

static inline struct span delivery_note(const struct reply *reply, const struct delivery *delivery)
{
    return reply_part(reply,
                      delivery->payload_offset + delivery->key_size + delivery->attributes_size +
                          delivery->body_size,
                      delivery->note_size);
}

/* `detail` may be NULL. */
void reply_fail(struct reply *reply, enum err_code code, const char *detail);
void reply_init(struct reply *reply);
void reply_deinit(struct reply *reply);
void reply_clear(struct reply *reply); /* as after reply_init, with the memory it has */

#endif
