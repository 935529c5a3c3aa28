/* What a seed draws before its run begins. */
#include "tests/sim/swarm.h"

#define PICK(random, ...)                                                                          \
    __extension__({                                                                                \
        static const uint64_t choices_[] = {__VA_ARGS__};                                          \
        choices_[random_below((random), sizeof choices_ / sizeof choices_[0])];                    \
    })
#define PICK32(random, ...) ((uint32_t)PICK(random, __VA_ARGS__))

/* Caches of almost nothing, so that eviction, replay and reading back happen all the time, or
 * plenty. */
static struct core_options draw_core(struct random *random)
{
    return (struct core_options){
        .replay_bytes = PICK(random, 1, 4096, 100000, 0),
        .slack_size = PICK(random, 1, 10000, 0),
        .segment_entries = PICK32(random, 1, 10, 300, 0),
        .chunks_max = PICK32(random, 1, 2, 16, 0),
        .blocks_max = PICK32(random, 1, 2, 16, 0),
    };
}

/* Sizes of commands and of the crowd. A bulk run fills and empties whole segments of the log. */
static void draw_sizes(struct random *random, struct swarm *swarm)
{
    bool bulk = random_chance(random, 1, 6);
    swarm->volume_count = PICK32(random, 1, 1, 2, 3);
    swarm->batch_max = bulk ? 4 : PICK32(random, 1, 4, 12, 28);
    swarm->publish_max = bulk ? WORKLOAD_PUBLISH_MAX : PICK32(random, 1, 3, 10);
    swarm->pull_max = bulk ? WORKLOAD_SETTLE_MAX : PICK32(random, 1, 5, 20);
    swarm->settle_max = bulk ? WORKLOAD_SETTLE_MAX : PICK32(random, 1, 8, 30);
    swarm->client_count = bulk ? 20 : PICK32(random, 1, 10, 300, 3000);
    swarm->hand_max = bulk ? WORKLOAD_SETTLE_MAX : PICK32(random, 4, 32);
    swarm->topics_max = PICK32(random, 1, 2, 4);
    swarm->subs_max = PICK32(random, 1, 2, 4);
    swarm->shards_max = PICK32(random, 1, 3, 8, WORKLOAD_SHARDS_MAX);
    swarm->body_max = PICK32(random, 0, 20, 200, 2000);
    swarm->large_in = bulk ? 0 : PICK32(random, 0, 0, 50, 500);
    swarm->messages_max = bulk ? 120000 : 30000;
}

static void draw_times(struct random *random, struct swarm *swarm)
{
    swarm->step_ms = PICK32(random, 0, 1, 5, 100);
    swarm->jump_in = PICK32(random, 20, 200, 2000);
    swarm->tick_in = PICK32(random, 1, 2, 8);
    swarm->lease_ms = PICK(random, 1, 20, 1000, 30000);
    swarm->retry_delay_ms = PICK(random, 0, 1, 50, 1000);
    swarm->dedup_window_ms = PICK(random, 0, 100, 10000);
    swarm->retention_ms = PICK(random, 0, 0, 50, 5000);
    swarm->retention_bytes = PICK(random, 0, 0, 1000, 100000);
}

static void draw_chances(struct random *random, struct swarm *swarm)
{
    swarm->forged_in = PICK32(random, 4, 20, 100);
    swarm->keyed_in = PICK32(random, 1, 4, 50);
    swarm->keys = PICK32(random, 2, 40, MODEL_KEYS_MAX);
    swarm->delayed_in = PICK32(random, 3, 20, 1000);
    swarm->kept_in = PICK32(random, 10, 200, 2000);
    swarm->stats_in = PICK32(random, 1, 1, 8);
    swarm->full_in = PICK32(random, 0, 0, 30);
    swarm->accident_in = PICK32(random, 0, 5, 30, 200);
    swarm->direct_in = PICK32(random, 1, 10, 100);
    swarm->checkpoint_in = PICK32(random, 1, 5, 50, 1000);
    swarm->max_attempts = PICK32(random, 0, 1, 2, 5);
    swarm->max_in_flight = PICK32(random, 0, 0, 1, 7);
    swarm->relaxed_in = PICK32(random, 0, 1, 2, 2);
}

void swarm_draw(struct random *random, struct swarm *swarm)
{
    *swarm = (struct swarm){.core = draw_core(random)};
    draw_sizes(random, swarm);
    draw_times(random, swarm);
    draw_chances(random, swarm);
}
