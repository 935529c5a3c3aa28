/* Who does what in a run: clients that publish, pull, settle and forget, operators that change and
 * look, clocks that jump. Each seed draws its own mixture: some commands are left out, some limits
 * are tiny (swarm testing). */
#ifndef SIM_WORKLOAD_H
#define SIM_WORKLOAD_H

#include "broker/base/random.h"
#include "tests/sim/engine.h"
#include "tests/sim/model.h"

enum {
    WORKLOAD_PUBLISH_MAX = 300,
    WORKLOAD_SETTLE_MAX = 512,
    WORKLOAD_SHARDS_MAX = 32,
    WORKLOAD_KINDS = 14,
    WORKLOAD_POOL_SIZE = 512 * 1024,
    WORKLOAD_HOUR_MS = 3600000,
};

/* What a seed has drawn. */
struct swarm {
    struct core_options core;
    uint32_t volume_count;
    uint32_t client_count; /* of each volume */
    uint32_t hand_max;     /* receipts a client keeps */
    uint32_t weights[WORKLOAD_KINDS];
    uint32_t batch_max;
    uint32_t publish_max; /* messages of one command */
    uint32_t pull_max;
    uint32_t settle_max;
    uint32_t topics_max;
    uint32_t subs_max; /* of a topic */
    uint32_t shards_max;
    uint32_t body_max;
    uint32_t large_in;      /* one body in so many is large; 0: none */
    uint32_t forged_in;     /* one settlement in so many has receipts nobody was given */
    uint32_t keyed_in;      /* one message, and one batch, in so many has an idempotency key */
    uint32_t keys;          /* so many of them */
    uint32_t delayed_in;    /* one message in so many is delayed, as many end */
    uint32_t kept_in;       /* one message in so many is given back for an hour */
    uint32_t step_ms;       /* between batches, at most */
    uint32_t jump_in;       /* one step in so many is a jump of the clock */
    uint32_t tick_in;       /* one batch in so many serves what is due */
    uint32_t stats_in;      /* one batch in so many ends with STATS */
    uint32_t full_in;       /* one batch in so many finds the disk full; 0: none */
    uint32_t accident_in;   /* one batch in so many has an accident; 0: none */
    uint32_t direct_in;     /* one is committed instead of being journaled */
    uint32_t checkpoint_in; /* after one what is applied is committed */
    uint64_t lease_ms;
    uint64_t retry_delay_ms;
    uint64_t dedup_window_ms;
    uint64_t retention_ms;
    uint64_t retention_bytes;
    uint32_t max_attempts;
    uint32_t max_in_flight;
    uint32_t relaxed_in;   /* one topic put in so many is relaxed; 0: none */
    uint64_t messages_max; /* of a volume; later publishes are small */
};

struct client {
    uint32_t sub_id;
    uint32_t count;
    struct receipt *hand;
};

/* What a command's pointers point to. */
struct slot {
    struct message_in messages[WORKLOAD_PUBLISH_MAX];
    struct publish_result results[WORKLOAD_PUBLISH_MAX];
    struct receipt receipts[WORKLOAD_SETTLE_MAX];
    enum err_code codes[WORKLOAD_SETTLE_MAX];
    struct shard_place places[WORKLOAD_SHARDS_MAX];
    struct client *client; /* of a PULL */
};

struct volume {
    uint32_t number;
    struct engine engine;
    struct model model;
    struct client *clients;
    struct receipt *hands;
    uint32_t last_id; /* of topics, shards and subscriptions, which share their numbers */
};

struct workload {
    struct random random;
    struct swarm swarm;
    uint64_t now_ms;
    bool consuming; /* the present phase: more pulls than publishes */
    uint32_t phase_left;
    uint32_t total_weight;
    bool creating; /* something is being created in this batch because there was nothing */
    uint8_t *pool; /* payloads are pieces of it */
    uint8_t keys[MODEL_KEYS_MAX][4];
    struct slot slots[ENGINE_BATCH_MAX];
    struct engine_batch batch;
};

static inline uint32_t workload_below(struct workload *workload, uint64_t bound)
{
    return (uint32_t)random_below(&workload->random, bound);
}

#define WORKLOAD_CHANCE(workload, many) random_chance(&(workload)->random, 1, (many))

struct workload *workload_create(uint64_t seed, uint64_t commands);
void workload_destroy(struct workload *workload);

void workload_volume_open(struct workload *workload, struct volume *volume, struct trace *trace);
void workload_volume_close(struct volume *volume);

/* Moves the clock and draws the next batch for the volume. */
void workload_draw(struct workload *workload, struct volume *volume);
/* The batch has run: clients get what they asked for; of a batch that was lost, the replies that
 * went out early. */
void workload_answer(struct workload *workload, bool committed);

#endif
