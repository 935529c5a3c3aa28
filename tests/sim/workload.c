#include "tests/sim/workload.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#include "broker/base/bytes.h"
#include "tests/sim/draw.h"
#include "tests/sim/swarm.h"

enum {
    START_MS = 1700000000,
    PHASE_MAX = 300,  /* batches */
    PHASE_FACTOR = 6, /* how much less is published, or pulled, in a phase */
};

struct workload *workload_create(uint64_t seed, uint64_t commands)
{
    struct workload *workload = calloc(1, sizeof *workload);
    assert(workload != NULL);
    random_init(&workload->random, seed);
    swarm_draw(&workload->random, &workload->swarm);
    struct swarm *swarm = &workload->swarm;
    for (size_t index = 0; index < WORKLOAD_KINDS; index++) {
        bool in = draw_kinds[index].needed || random_chance(&workload->random, 2, 3);
        swarm->weights[index] =
            in ? draw_kinds[index].weight + workload_below(workload, draw_kinds[index].weight) : 0;
        workload->total_weight += swarm->weights[index];
    }
    swarm->messages_max = swarm->messages_max < 20 * commands ? swarm->messages_max : 20 * commands;
    workload->now_ms = START_MS;
    workload->pool = malloc(WORKLOAD_POOL_SIZE);
    assert(workload->pool != NULL);
    for (size_t at = 0; at < WORKLOAD_POOL_SIZE; at += 8) {
        bytes_put_le64(workload->pool + at, random_next(&workload->random));
    }
    for (uint32_t key = 0; key < MODEL_KEYS_MAX; key++) {
        bytes_put_be32(workload->keys[key], key);
    }
    for (uint32_t index = 0; index < ENGINE_BATCH_MAX; index++) {
        reply_init(&workload->batch.replies[index]);
    }
    return workload;
}

void workload_destroy(struct workload *workload)
{
    for (uint32_t index = 0; index < ENGINE_BATCH_MAX; index++) {
        reply_deinit(&workload->batch.replies[index]);
    }
    free(workload->pool);
    free(workload);
}

void workload_volume_open(struct workload *workload, struct volume *volume, struct trace *trace)
{
    const struct swarm *swarm = &workload->swarm;
    size_t hands = (size_t)swarm->client_count * swarm->hand_max;
    trace->volume = volume->number;
    engine_open(&volume->engine, trace, &swarm->core);
    model_init(&volume->model, trace);
    volume->clients = calloc(swarm->client_count, sizeof *volume->clients);
    volume->hands = calloc(hands, sizeof *volume->hands);
    assert(volume->clients != NULL);
    assert(volume->hands != NULL);
    for (uint32_t index = 0; index < swarm->client_count; index++) {
        volume->clients[index].hand = volume->hands + (size_t)index * swarm->hand_max;
    }
}

void workload_volume_close(struct volume *volume)
{
    engine_close(&volume->engine);
    model_deinit(&volume->model);
    free(volume->clients);
    free(volume->hands);
}

/* Time goes on a little, now and then by a lease or an hour; and now and then a batch is stamped by
 * a clock that was set back, which the core must not follow. */
static uint64_t draw_time(struct workload *workload)
{
    const struct swarm *swarm = &workload->swarm;
    workload->now_ms += workload_below(workload, swarm->step_ms + 1U);
    if (WORKLOAD_CHANCE(workload, swarm->jump_in)) {
        workload->now_ms += WORKLOAD_CHANCE(workload, 20)
                                ? WORKLOAD_HOUR_MS
                                : 1 + workload_below(workload, 2 * swarm->lease_ms);
    }
    return WORKLOAD_CHANCE(workload, 50) ? workload->now_ms - workload_below(workload, 5000)
                                         : workload->now_ms;
}

/* Weights by phase: for a while more is published than pulled, then the reverse, so that queues
 * grow and empty. */
static uint32_t weight_of(const struct workload *workload, size_t kind)
{
    bool less = workload->consuming ? kind == DRAW_PUBLISH : kind == DRAW_PULL;
    return less ? 1 + workload->swarm.weights[kind] / PHASE_FACTOR : workload->swarm.weights[kind];
}

static const struct draw_kind *draw_kind(struct workload *workload)
{
    uint32_t total = 0;
    for (size_t kind = 0; kind < WORKLOAD_KINDS; kind++) {
        total += weight_of(workload, kind);
    }
    uint32_t left = workload_below(workload, total);
    size_t kind = 0;
    while (left >= weight_of(workload, kind)) {
        left -= weight_of(workload, kind);
        kind++;
    }
    return &draw_kinds[kind];
}

static void draw_accident(struct workload *workload)
{
    struct engine_batch *batch = &workload->batch;
    batch->accident = ACCIDENT_NONE;
    batch->direct = WORKLOAD_CHANCE(workload, workload->swarm.direct_in);
    batch->checkpoint = WORKLOAD_CHANCE(workload, workload->swarm.checkpoint_in);
    if (workload->swarm.accident_in == 0 ||
        !WORKLOAD_CHANCE(workload, workload->swarm.accident_in)) {
        return;
    }
    static const enum err_code codes[] = {ERR_IO, ERR_NO_SPACE, ERR_MAP_FULL};
    batch->accident = (enum accident)(1 + workload_below(workload, ACCIDENT_CALL));
    batch->accident_code = codes[workload_below(workload, 3)];
    batch->accident_at = batch->accident == ACCIDENT_CALL
                             ? 1 + workload_below(workload, 1U << workload_below(workload, 10))
                             : workload_below(workload, batch->count + 3U);
}

static struct command *add_command(struct workload *workload, uint64_t stamp_ms, bool no_space)
{
    struct command *command = &workload->batch.commands[workload->batch.count++];
    *command = (struct command){.now_ms = stamp_ms, .no_space = no_space};
    return command;
}

/* What is due is served first, without bound, or last and within a budget; then STATS shows what
 * came of it. */
static void draw_tick(struct workload *workload, uint64_t stamp_ms, uint32_t budget)
{
    struct command *command = add_command(workload, stamp_ms, false);
    command->type = COMMAND_TICK;
    command->tick.budget = budget;
}

static void draw_phase(struct workload *workload)
{
    if (workload->phase_left == 0) {
        workload->consuming = !workload->consuming;
        workload->phase_left = 1 + workload_below(workload, PHASE_MAX);
    }
    workload->phase_left--;
}

void workload_draw(struct workload *workload, struct volume *volume)
{
    const struct swarm *swarm = &workload->swarm;
    uint64_t stamp_ms = draw_time(workload);
    uint64_t now_ms = stamp_ms > volume->model.now_ms ? stamp_ms : volume->model.now_ms;
    bool due =
        engine_next_due_ms(&volume->engine) <= now_ms && WORKLOAD_CHANCE(workload, swarm->tick_in);
    bool first = WORKLOAD_CHANCE(workload, 2);
    bool no_space = swarm->full_in != 0 && WORKLOAD_CHANCE(workload, swarm->full_in);
    draw_phase(workload);
    workload->creating = false;
    workload->batch.count = 0;
    if (due && first) {
        draw_tick(workload, stamp_ms, UINT32_MAX);
    }
    for (uint32_t count = 1 + workload_below(workload, swarm->batch_max); count > 0; count--) {
        struct slot *slot = &workload->slots[workload->batch.count];
        draw_kind(workload)->draw(workload, volume, add_command(workload, stamp_ms, no_space),
                                  slot);
    }
    if (due && !first) {
        draw_tick(workload, stamp_ms, 1U << workload_below(workload, 13));
    }
    if (due || WORKLOAD_CHANCE(workload, swarm->stats_in)) {
        add_command(workload, stamp_ms, false)->type = COMMAND_STATS;
    }
    draw_accident(workload);
}

void workload_answer(struct workload *workload, bool committed)
{
    for (uint32_t index = 0; index < workload->batch.count; index++) {
        const struct reply *reply = &workload->batch.replies[index];
        if (!committed && !(workload->batch.answered && reply->early)) {
            continue;
        }
        struct client *client = workload->slots[index].client;
        uint32_t count =
            workload->batch.commands[index].type == COMMAND_PULL ? reply_delivery_count(reply) : 0;
        for (uint32_t row = 0; row < count; row++) {
            const struct delivery *delivery = reply_delivery(reply, row);
            uint32_t at = client->count < workload->swarm.hand_max
                              ? client->count++
                              : workload_below(workload, client->count);
            client->hand[at] = (struct receipt){
                .sub_id = workload->batch.commands[index].pull.sub_id,
                .shard_id = delivery->shard_id,
                .sequence = delivery->sequence,
                .epoch = delivery->epoch,
                .grant = delivery->grant,
                .attempt = delivery->attempt,
            };
        }
    }
}
