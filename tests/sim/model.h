/* What Flare promises, as a plain model of one volume: arrays and counters, no storage, no caches,
 * no crashes.
 *
 * The simulation hands it each command that was committed, with its reply, in order. The model says
 * what the reply had to be, ends the run when it was another, and takes over what the command did.
 * Commands of a batch that was lost are never shown to it: they must not have happened. What of
 * them was answered to publishes of relaxed topics it is told as promises, which are kept or, when
 * the process ends first, lost.
 *
 * Each message is, for each subscription, in exactly one state (lifecycle.def): enqueued at or
 * after the cursor, or before it leased, scheduled, ready, dead or done. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "broker/base/array.h"
#include "broker/base/map.h"
#include "broker/core/machine.h"
#include "tests/sim/trace.h"

enum {
    MODEL_KEYS_MAX = 1024,  /* idempotency keys; each is its number, four bytes big-endian */
    MODEL_BATCHES_MAX = 64, /* batch keys of a topic, numbered likewise */
    MODEL_STATES = MESSAGE_DONE + 1,
};

struct model_message {
    uint64_t published_ms;
    uint64_t not_before_ms;
    uint64_t expires_ms;
    const uint8_t *payload; /* key, attributes and body as published; never moves */
    uint32_t key_size;
    uint32_t attributes_size;
    uint32_t body_size;
};

/* The first publish under an idempotency key. */
struct model_first {
    uint64_t expires_ms;
    uint64_t payload_hash;
    uint64_t sequence;
    uint32_t shard_id;
    uint32_t shard_number;
    struct span key; /* what was published, for publishing it again */
    struct span attributes;
    struct span body;
};

/* The first publish under a batch key. */
struct model_batch {
    uint64_t expires_ms;
    uint32_t count;
    struct message_in *messages;
    struct publish_result *results;
};

struct model_topic {
    uint32_t id;
    struct topic_settings settings;
    struct array shards;         /* in order of id */
    struct array subs;           /* in order of id */
    struct model_first *firsts;  /* MODEL_KEYS_MAX */
    struct model_batch *batches; /* MODEL_BATCHES_MAX */
    bool put;                    /* settings or shards have changed in this batch */
};

struct model_shard {
    struct model_topic *topic;
    struct shard_place place;
    size_t index; /* in its topic: the slot of its lane in each subscription */
    struct model_message *messages;
    uint64_t count;
    uint64_t committed; /* `count` when the last batch ended */
    uint64_t promised;  /* so many have been answered; more than `count` after a loss */
    uint64_t capacity;
    uint64_t retained_from;
    uint64_t retained_bytes;
};

/* One message in one subscription. */
struct model_entry {
    uint64_t due_ms; /* leased: until; scheduled: due; dead: since */
    uint32_t grant;
    uint16_t attempt;
    uint8_t state;
    uint8_t reason;
    const char *note; /* of a dead letter */
};

/* One subscription on one shard. */
struct model_lane {
    struct model_sub *sub;
    struct model_shard *shard;
    uint64_t cursor;
    struct model_entry *entries; /* of the sequences before the cursor, at least */
    uint64_t capacity;
    uint64_t *ready; /* bits: to be delivered again */
    uint64_t *busy;  /* bits: leased or scheduled */
    uint64_t *seen;  /* bits: found unmoved after a TICK that left work */
    size_t ready_words;
    size_t busy_words;
    size_t seen_words;
    uint64_t counts[MODEL_STATES]; /* of those before the cursor */
    uint64_t due_ms;               /* nothing of it comes due before */
    uint64_t oldest;               /* everything before it is done or dead */
    uint32_t epoch;                /* of its last delivery */
};

struct model_sub {
    uint32_t id;
    struct model_topic *topic;
    struct sub_settings settings;
    struct array lanes; /* in order of shard */
    bool starved;       /* its last pull left nothing: its client waits to be woken */
};

/* What has happened, for the figures of a run. */
struct model_figures {
    uint64_t published;
    uint64_t delivered;
    uint64_t acked;
    uint64_t dead;
    uint64_t expired; /* of them */
    uint64_t expired_leases;
    uint64_t refused; /* receipts */
    uint64_t replayed;
    uint64_t redriven;
    uint64_t skipped; /* by seek and purge */
    uint64_t rewound; /* by seek */
    uint64_t lost;    /* of what was promised */
};

struct model {
    struct trace *trace;
    uint64_t now_ms;
    struct array topics; /* in order of id */
    struct map topic_ids;
    struct map shard_ids;
    struct map sub_ids;
    struct map dropped_ids; /* topics and subscriptions that were; their leases end unseen */
    /* After a TICK that left work behind, at `doubt_ms`: whether messages that are due have been
     * moved (doubt) and how far retention has come (retention_doubt) is known only by looking. */
    bool doubt;
    bool retention_doubt;
    uint64_t doubt_ms;
    struct model_figures figures;
    struct effects told; /* the sums of what the batches said of themselves */
};

#define MODEL_EXPECT(model, condition, ...)                                                        \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            trace_fail((model)->trace, __VA_ARGS__);                                               \
        }                                                                                          \
    } while (0)

void model_init(struct model *model, struct trace *trace);
void model_deinit(struct model *model);

/* Judges one committed command and takes over what it did. */
void model_judge(struct model *model, const struct command *command, const struct reply *reply);
/* Of a batch that was lost: the publish was answered all the same. */
void model_promise(struct model *model, const struct publish *publish);
/* The process has ended: what is promised beyond what is there is given up. */
void model_lose_promised(struct model *model);
/* Judges what a committed batch brought about beside its replies. */
void model_judge_effects(struct model *model, const struct effects *effects);

/* Whether something is due by `now_ms`: then a volume's next TICK must not be later. */
bool model_is_due(struct model *model, uint64_t now_ms);

/* After a TICK that left work: every row of the PEEKs of LEASED and SCHEDULED is noted, then the
 * doubt is resolved: what is due and was not seen has been moved. */
bool model_sub_in_doubt(const struct model *model, const struct model_sub *sub);
void model_note_unmoved(struct model *model, const struct reply *reply, uint32_t sub_id);
void model_resolve_doubt(struct model *model);

/* Look-ups: NULL when there is none. */
struct model_topic *model_topic(const struct model *model, uint32_t id);
struct model_shard *model_shard(const struct model *model, uint32_t id);
struct model_sub *model_sub(const struct model *model, uint32_t id);
struct model_lane *model_lane(const struct model_sub *sub, const struct model_shard *shard);

/* The first sequence from which on a shard has all of its messages. */
uint64_t model_floor(const struct model_shard *shard);
/* Whether anything of the subscription is not finished; dead letters are. */
bool model_sub_unfinished(const struct model_sub *sub);
/* Bytes of the log that a message takes, as retention counts them. */
uint64_t model_message_size(const struct model_message *message);
uint64_t model_payload_size(const struct model_message *message);

#endif
