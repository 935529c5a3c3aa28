#include "tests/sim/workload.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#include "broker/base/bytes.h"
#include "tests/sim/swarm.h"

enum {
    POOL_SIZE = 512 * 1024,
    PIECE_MAX = 24, /* of a key and of attributes */
    LARGE_MAX = 100000,
    START_MS = 1700000000,
    HOUR_MS = 3600000,
    PHASE_MAX = 300, /* batches */
};

#define CHANCE_IN(workload, many) random_chance(&(workload)->random, 1, (many))

static uint32_t below(struct workload *workload, uint64_t bound)
{
    return (uint32_t)random_below(&workload->random, bound);
}

/* ---- whom a command is for ---- */

static struct model_topic *any_topic(struct workload *workload, const struct volume *volume)
{
    const struct array *topics = &volume->model.topics;
    return topics->count == 0 ? NULL : topics->items[below(workload, topics->count)];
}

static struct model_sub *any_sub(struct workload *workload, const struct volume *volume)
{
    const struct model_topic *topic = any_topic(workload, volume);
    return topic == NULL || topic->subs.count == 0
               ? NULL
               : topic->subs.items[below(workload, topic->subs.count)];
}

/* Now and then one that is gone, or never was. */
static uint32_t any_sub_id(struct workload *workload, const struct volume *volume)
{
    const struct model_sub *sub = any_sub(workload, volume);
    return sub == NULL || CHANCE_IN(workload, 100) ? below(workload, volume->last_id + 2U)
                                                   : sub->id;
}

static uint32_t any_shard_id(struct workload *workload, const struct model_sub *sub)
{
    if (sub == NULL || sub->lanes.count == 0) {
        return 0;
    }
    const struct model_lane *lane = sub->lanes.items[below(workload, sub->lanes.count)];
    return lane->shard->place.shard_id;
}

/* ---- topics and subscriptions ---- */

static void draw_stats(struct workload *workload, struct volume *volume, struct command *command,
                       struct slot *slot)
{
    (void)slot;
    const struct model_topic *topic = CHANCE_IN(workload, 2) ? any_topic(workload, volume) : NULL;
    command->type = COMMAND_STATS;
    command->stats.topic_id = topic == NULL ? 0 : topic->id;
}

static void draw_topic_put(struct workload *workload, struct volume *volume,
                           struct command *command, struct slot *slot)
{
    const struct swarm *swarm = &workload->swarm;
    const struct model_topic *topic = any_topic(workload, volume);
    uint32_t have = 0;
    if (volume->model.topics.count < swarm->topics_max && !workload->creating) {
        topic = NULL;
        workload->creating = true;
    }
    struct topic_put *put = &command->topic_put;
    command->type = COMMAND_TOPIC_PUT;
    *put = (struct topic_put){.topic_id = topic == NULL ? ++volume->last_id : topic->id};
    put->settings = (struct topic_settings){
        .retention_ms = CHANCE_IN(workload, 3) ? 0 : swarm->retention_ms,
        .retention_bytes = CHANCE_IN(workload, 3) ? 0 : swarm->retention_bytes,
        .dedup_window_ms = CHANCE_IN(workload, 5) ? 0 : swarm->dedup_window_ms,
    };
    for (; topic != NULL && have < topic->shards.count && have < WORKLOAD_SHARDS_MAX; have++) {
        const struct model_shard *shard = topic->shards.items[have];
        slot->places[have] = shard->place;
    }
    put->shards = slot->places;
    put->shard_count = have;
    uint32_t more = have == 0 ? 1 + below(workload, swarm->shards_max) : CHANCE_IN(workload, 10);
    for (; more > 0 && put->shard_count < WORKLOAD_SHARDS_MAX; more--, put->shard_count++) {
        slot->places[put->shard_count] = (struct shard_place){
            .shard_id = ++volume->last_id,
            .number = put->shard_count,
            .hash_first = random_next(&workload->random),
            .hash_last = random_next(&workload->random),
        };
    }
}

static struct sub_settings draw_settings(struct workload *workload)
{
    const struct swarm *swarm = &workload->swarm;
    bool usual = !CHANCE_IN(workload, 4);
    return (struct sub_settings){
        .lease_ms = swarm->lease_ms,
        .retry_delay_ms = usual ? swarm->retry_delay_ms : below(workload, 2),
        .max_attempts = usual ? swarm->max_attempts : below(workload, 4),
        .max_in_flight = usual ? swarm->max_in_flight : below(workload, 3),
        .paused = CHANCE_IN(workload, 10),
    };
}

static void draw_sub_put(struct workload *workload, struct volume *volume, struct command *command,
                         struct slot *slot)
{
    const struct model_topic *topic = any_topic(workload, volume);
    if (topic == NULL || workload->creating) {
        draw_stats(workload, volume, command, slot);
        return;
    }
    static const enum start_at starts[] = {START_LATEST, START_EARLIEST, START_TIME};
    const struct model_sub *sub = any_sub(workload, volume);
    command->type = COMMAND_SUB_PUT;
    command->sub_put = (struct sub_put){
        .topic_id = topic->id,
        .settings = draw_settings(workload),
        .start = starts[below(workload, 3)],
        .start_value = workload->now_ms - below(workload, 1000),
    };
    if (sub != NULL && (topic->subs.count >= workload->swarm.subs_max || CHANCE_IN(workload, 2))) {
        command->sub_put.sub_id = sub->id;
        command->sub_put.topic_id = sub->topic->id;
    } else {
        command->sub_put.sub_id = ++volume->last_id;
        workload->creating = true;
    }
}

static void draw_topic_drop(struct workload *workload, struct volume *volume,
                            struct command *command, struct slot *slot)
{
    (void)slot;
    const struct model_topic *topic = any_topic(workload, volume);
    command->type = COMMAND_TOPIC_DROP;
    command->topic_drop = topic == NULL || CHANCE_IN(workload, 4) ? volume->last_id + 1 : topic->id;
}

static void draw_sub_drop(struct workload *workload, struct volume *volume, struct command *command,
                          struct slot *slot)
{
    (void)slot;
    command->type = COMMAND_SUB_DROP;
    command->sub_drop = any_sub_id(workload, volume);
}

/* ---- publishers ---- */

static uint32_t draw_body_size(struct workload *workload)
{
    const struct swarm *swarm = &workload->swarm;
    if (swarm->large_in != 0 && CHANCE_IN(workload, swarm->large_in)) {
        return below(workload, LARGE_MAX);
    }
    return below(workload, swarm->body_max + 1U);
}

static void draw_payload(struct workload *workload, struct message_in *message)
{
    uint32_t sizes[] = {below(workload, PIECE_MAX), below(workload, PIECE_MAX),
                        draw_body_size(workload)};
    const uint8_t *piece = workload->pool + below(workload, POOL_SIZE - LARGE_MAX - 2 * PIECE_MAX);
    message->key = span_of(piece, sizes[0]);
    message->attributes = span_of(piece + sizes[0], sizes[1]);
    message->body = span_of(piece + sizes[0] + sizes[1], sizes[2]);
}

/* An idempotency key: often with what was first published under it, otherwise with something else.
 */
static void draw_key(struct workload *workload, const struct model_topic *topic,
                     struct message_in *message)
{
    uint32_t key = below(workload, workload->swarm.keys);
    const struct model_first *first = topic == NULL ? NULL : &topic->firsts[key];
    message->idempotency_key = span_of(workload->keys[key], sizeof workload->keys[key]);
    if (first != NULL && first->payload_hash != 0 && !CHANCE_IN(workload, 4)) {
        message->key = first->key;
        message->attributes = first->attributes;
        message->body = first->body;
    }
}

static void draw_message(struct workload *workload, const struct volume *volume,
                         const struct model_topic *topic, struct message_in *message)
{
    const struct swarm *swarm = &workload->swarm;
    *message = (struct message_in){.shard_id = below(workload, volume->last_id + 1U)};
    if (topic != NULL && !CHANCE_IN(workload, 200)) {
        const struct model_shard *shard = topic->shards.items[below(workload, topic->shards.count)];
        message->shard_id = shard->place.shard_id;
    }
    draw_payload(workload, message);
    if (CHANCE_IN(workload, swarm->keyed_in)) {
        draw_key(workload, topic, message);
    }
    if (CHANCE_IN(workload, swarm->delayed_in)) {
        message->delay_ms =
            CHANCE_IN(workload, 50) ? HOUR_MS : 1 + below(workload, 2 * swarm->lease_ms);
    }
    if (CHANCE_IN(workload, swarm->delayed_in)) {
        message->ttl_ms = 1 + below(workload, 4 * swarm->lease_ms);
    }
    /* The three parts lie one after the other. */
    size_t size = message->key.size + message->attributes.size + message->body.size;
    message->payload_hash = XXH3_64bits(message->key.data, size);
}

static void draw_publish(struct workload *workload, struct volume *volume, struct command *command,
                         struct slot *slot)
{
    const struct model_topic *topic = any_topic(workload, volume);
    if (topic == NULL && !workload->creating) {
        draw_topic_put(workload, volume, command, slot);
        return;
    }
    bool many = volume->model.figures.published < workload->swarm.messages_max;
    struct publish *publish = &command->publish;
    command->type = COMMAND_PUBLISH;
    *publish = (struct publish){
        .topic_id = topic == NULL || CHANCE_IN(workload, 300) ? volume->last_id + 1 : topic->id,
        .atomic = CHANCE_IN(workload, 3),
        .messages = slot->messages,
        .results = slot->results,
        .count = many ? 1 + below(workload, workload->swarm.publish_max) : 1,
    };
    for (uint32_t index = 0; index < publish->count; index++) {
        draw_message(workload, volume, topic, &slot->messages[index]);
    }
}

/* ---- consumers ---- */

static struct client *any_client(struct workload *workload, struct volume *volume)
{
    return &volume->clients[below(workload, workload->swarm.client_count)];
}

static void draw_pull(struct workload *workload, struct volume *volume, struct command *command,
                      struct slot *slot)
{
    struct client *client = any_client(workload, volume);
    if (model_sub(&volume->model, client->sub_id) == NULL || CHANCE_IN(workload, 50)) {
        client->sub_id = any_sub_id(workload, volume);
        client->count = 0;
    }
    if (model_sub(&volume->model, client->sub_id) == NULL && !workload->creating) {
        draw_sub_put(workload, volume, command, slot);
        return;
    }
    slot->client = client;
    command->type = COMMAND_PULL;
    command->pull = (struct pull){
        .sub_id = client->sub_id,
        .max = 1 + below(workload, workload->swarm.pull_max),
        .size_max = CHANCE_IN(workload, 4) ? below(workload, 5000) : UINT32_MAX,
        .rotation = (uint32_t)random_next(&workload->random),
        .nonce = (uint32_t)random_next(&workload->random),
        .lease_ms = CHANCE_IN(workload, 8) ? 1 + below(workload, 3 * workload->swarm.lease_ms) : 0,
    };
}

/* A receipt that was never given: of another delivery, another message, another subscription. */
static void forge(struct workload *workload, const struct volume *volume, struct receipt *receipt)
{
    switch (below(workload, 7)) {
    case 0:
        receipt->grant += 1 + below(workload, 3);
        break;
    case 1:
        receipt->grant -= 1;
        break;
    case 2:
        receipt->attempt++;
        break;
    case 3:
        receipt->attempt--;
        break;
    case 4:
        receipt->epoch += 1 - 2 * below(workload, 2);
        break;
    case 5:
        receipt->sequence = CHANCE_IN(workload, 10) ? random_next(&workload->random)
                                                    : receipt->sequence + below(workload, 9) - 4;
        break;
    case 6:
        receipt->shard_id = below(workload, volume->last_id + 2U);
        break;
    }
}

/* Receipts out of a client's hand, which it mostly gives up with them. */
static uint32_t take_receipts(struct workload *workload, struct client *client, struct receipt *out)
{
    uint32_t wanted = 1 + below(workload, workload->swarm.settle_max);
    uint32_t count = wanted < client->count ? wanted : client->count;
    bool keeps = CHANCE_IN(workload, 8);
    for (uint32_t index = 0; index < count; index++) {
        uint32_t at = below(workload, client->count);
        out[index] = client->hand[at];
        if (!keeps) {
            client->hand[at] = client->hand[--client->count];
        }
    }
    return count;
}

static void draw_settle(struct workload *workload, struct volume *volume, struct command *command,
                        struct slot *slot)
{
    struct client *client = any_client(workload, volume);
    for (uint32_t tries = 0; tries < 8 && client->count == 0; tries++) {
        client = any_client(workload, volume);
    }
    struct settle *settle = &command->settle;
    *settle = (struct settle){
        .sub_id = CHANCE_IN(workload, 50) ? any_sub_id(workload, volume) : client->sub_id,
        .receipts = slot->receipts,
        .results = slot->codes,
        .lease_ms = CHANCE_IN(workload, 2) ? 0 : 1 + below(workload, 3 * workload->swarm.lease_ms),
        .note = span_of("", 0),
    };
    settle->count = take_receipts(workload, client, slot->receipts);
    if (settle->count == 0) {
        slot->receipts[0] = (struct receipt){
            settle->sub_id,          any_shard_id(workload, any_sub(workload, volume)),
            below(workload, 100),    1,
            1 + below(workload, 50), 1};
        settle->count = 1;
    }
    for (uint32_t index = 0; index < settle->count; index++) {
        if (CHANCE_IN(workload, workload->swarm.forged_in)) {
            forge(workload, volume, &slot->receipts[index]);
        }
    }
}

static void draw_ack(struct workload *workload, struct volume *volume, struct command *command,
                     struct slot *slot)
{
    draw_settle(workload, volume, command, slot);
    command->type = COMMAND_ACK;
    if (CHANCE_IN(workload, workload->swarm.kept_in)) {
        command->type = COMMAND_NACK;
        command->settle.count = 1;
        command->settle.has_delay = true;
        command->settle.delay_ms = HOUR_MS;
    }
}

static void draw_extend(struct workload *workload, struct volume *volume, struct command *command,
                        struct slot *slot)
{
    draw_settle(workload, volume, command, slot);
    command->type = COMMAND_EXTEND;
}

static void draw_nack(struct workload *workload, struct volume *volume, struct command *command,
                      struct slot *slot)
{
    static const char *const notes[] = {"", "not today", "the address is unknown"};
    struct settle *settle = &command->settle;
    draw_settle(workload, volume, command, slot);
    command->type = COMMAND_NACK;
    settle->reject = CHANCE_IN(workload, 8);
    settle->release = !settle->reject && CHANCE_IN(workload, 6);
    settle->has_delay = CHANCE_IN(workload, 2);
    settle->delay_ms = CHANCE_IN(workload, 3) ? 0 : below(workload, 2 * workload->swarm.lease_ms);
    settle->note = span_text(notes[below(workload, 3)]);
}

/* ---- operators ---- */

static void draw_peek(struct workload *workload, struct volume *volume, struct command *command,
                      struct slot *slot)
{
    (void)slot;
    static const enum message_state states[] = {MESSAGE_NONE, MESSAGE_LEASED, MESSAGE_SCHEDULED,
                                                MESSAGE_DEAD};
    const struct model_sub *sub = any_sub(workload, volume);
    command->type = COMMAND_PEEK;
    command->peek = (struct peek){
        .sub_id = sub == NULL || CHANCE_IN(workload, 50) ? any_sub_id(workload, volume) : sub->id,
        .state = states[below(workload, 4)],
        .from_shard_id = CHANCE_IN(workload, 2) ? 0 : any_shard_id(workload, sub),
        .from_sequence = CHANCE_IN(workload, 2) ? 0 : below(workload, 500),
        .max = 1 + below(workload, 40),
        .size_max = CHANCE_IN(workload, 4) ? below(workload, 5000) : UINT32_MAX,
    };
}

static void draw_redrive(struct workload *workload, struct volume *volume, struct command *command,
                         struct slot *slot)
{
    (void)slot;
    const struct model_sub *sub = any_sub(workload, volume);
    command->type = COMMAND_REDRIVE;
    command->redrive = (struct redrive){
        .sub_id = sub == NULL ? any_sub_id(workload, volume) : sub->id,
        .reason = (enum dead_reason)below(workload, DEAD_REJECTED + 1),
        .shard_id = CHANCE_IN(workload, 2) ? 0 : any_shard_id(workload, sub),
        .has_sequence = CHANCE_IN(workload, 4),
        .sequence = below(workload, 200),
        .max = 1 + below(workload, 100),
        .dry_run = CHANCE_IN(workload, 5),
    };
}

static void draw_purge(struct workload *workload, struct volume *volume, struct command *command,
                       struct slot *slot)
{
    (void)slot;
    command->type = COMMAND_PURGE;
    command->purge = (struct purge){
        .sub_id = any_sub_id(workload, volume),
        .enqueued = CHANCE_IN(workload, 3),
        .delivery = CHANCE_IN(workload, 3),
        .dead = CHANCE_IN(workload, 2),
    };
}

static void draw_seek(struct workload *workload, struct volume *volume, struct command *command,
                      struct slot *slot)
{
    (void)slot;
    const struct model_sub *sub = any_sub(workload, volume);
    command->type = COMMAND_SEEK;
    command->seek = (struct seek){
        .sub_id = sub == NULL ? any_sub_id(workload, volume) : sub->id,
        .shard_id = CHANCE_IN(workload, 2) ? 0 : any_shard_id(workload, sub),
        .to = (enum start_at)below(workload, START_SEQUENCE + 1),
        .dry_run = CHANCE_IN(workload, 4),
    };
    command->seek.value = command->seek.to == START_TIME ? workload->now_ms - below(workload, 10000)
                                                         : below(workload, 3000);
}

/* ---- the mixture ---- */

typedef void (*draw_command)(struct workload *workload, struct volume *volume,
                             struct command *command, struct slot *slot);

/* Kinds that a run cannot do without have at least their weight; the others are left out by one
 * seed in three. */
static const struct kind {
    draw_command draw;
    uint32_t weight;
    bool needed;
} kinds[] = {
    {draw_publish, 60, true}, {draw_pull, 60, true},       {draw_ack, 60, true},
    {draw_nack, 20, false},   {draw_extend, 10, false},    {draw_topic_put, 3, true},
    {draw_sub_put, 4, true},  {draw_topic_drop, 1, false}, {draw_sub_drop, 2, false},
    {draw_peek, 6, false},    {draw_redrive, 5, false},    {draw_purge, 1, false},
    {draw_seek, 2, false},    {draw_stats, 2, false},
};

enum {
    KIND_COUNT = sizeof kinds / sizeof kinds[0],
    KIND_PUBLISH = 0,
    KIND_PULL = 1,
    PHASE_FACTOR = 6
};

_Static_assert((int)KIND_COUNT <= (int)WORKLOAD_KINDS, "a swarm has a weight for each kind");

struct workload *workload_create(uint64_t seed, uint64_t commands)
{
    struct workload *workload = calloc(1, sizeof *workload);
    assert(workload != NULL);
    random_init(&workload->random, seed);
    swarm_draw(&workload->random, &workload->swarm);
    struct swarm *swarm = &workload->swarm;
    for (size_t index = 0; index < KIND_COUNT; index++) {
        bool in = kinds[index].needed || random_chance(&workload->random, 2, 3);
        swarm->weights[index] = in ? kinds[index].weight + below(workload, kinds[index].weight) : 0;
        workload->total_weight += swarm->weights[index];
    }
    swarm->messages_max = swarm->messages_max < 20 * commands ? swarm->messages_max : 20 * commands;
    workload->now_ms = START_MS;
    workload->pool = malloc(POOL_SIZE);
    assert(workload->pool != NULL);
    for (size_t at = 0; at < POOL_SIZE; at += 8) {
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
    workload->now_ms += below(workload, swarm->step_ms + 1U);
    if (CHANCE_IN(workload, swarm->jump_in)) {
        workload->now_ms +=
            CHANCE_IN(workload, 20) ? HOUR_MS : 1 + below(workload, 2 * swarm->lease_ms);
    }
    return CHANCE_IN(workload, 50) ? workload->now_ms - below(workload, 5000) : workload->now_ms;
}

/* Weights by phase: for a while more is published than pulled, then the reverse, so that queues
 * grow and empty. */
static uint32_t weight_of(const struct workload *workload, size_t kind)
{
    bool less = workload->consuming ? kind == KIND_PUBLISH : kind == KIND_PULL;
    return less ? 1 + workload->swarm.weights[kind] / PHASE_FACTOR : workload->swarm.weights[kind];
}

static const struct kind *draw_kind(struct workload *workload)
{
    uint32_t total = 0;
    for (size_t kind = 0; kind < KIND_COUNT; kind++) {
        total += weight_of(workload, kind);
    }
    uint32_t left = below(workload, total);
    size_t kind = 0;
    while (left >= weight_of(workload, kind)) {
        left -= weight_of(workload, kind);
        kind++;
    }
    return &kinds[kind];
}

static void draw_accident(struct workload *workload)
{
    struct engine_batch *batch = &workload->batch;
    batch->accident = ACCIDENT_NONE;
    if (workload->swarm.accident_in == 0 || !CHANCE_IN(workload, workload->swarm.accident_in)) {
        return;
    }
    static const enum err_code codes[] = {ERR_IO, ERR_NO_SPACE, ERR_MAP_FULL};
    batch->accident = (enum accident)(1 + below(workload, ACCIDENT_CALL));
    batch->accident_code = codes[below(workload, 3)];
    batch->accident_at = batch->accident == ACCIDENT_CALL
                             ? 1 + below(workload, 1U << below(workload, 10))
                             : below(workload, batch->count + 3U);
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
        workload->phase_left = 1 + below(workload, PHASE_MAX);
    }
    workload->phase_left--;
}

void workload_draw(struct workload *workload, struct volume *volume)
{
    const struct swarm *swarm = &workload->swarm;
    uint64_t stamp_ms = draw_time(workload);
    uint64_t now_ms = stamp_ms > volume->model.now_ms ? stamp_ms : volume->model.now_ms;
    bool due = engine_next_due_ms(&volume->engine) <= now_ms && CHANCE_IN(workload, swarm->tick_in);
    bool first = CHANCE_IN(workload, 2);
    bool no_space = swarm->full_in != 0 && CHANCE_IN(workload, swarm->full_in);
    draw_phase(workload);
    workload->creating = false;
    workload->batch.count = 0;
    if (due && first) {
        draw_tick(workload, stamp_ms, UINT32_MAX);
    }
    for (uint32_t count = 1 + below(workload, swarm->batch_max); count > 0; count--) {
        struct slot *slot = &workload->slots[workload->batch.count];
        draw_kind(workload)->draw(workload, volume, add_command(workload, stamp_ms, no_space),
                                  slot);
    }
    if (due && !first) {
        draw_tick(workload, stamp_ms, 1U << below(workload, 13));
    }
    if (due || CHANCE_IN(workload, swarm->stats_in)) {
        add_command(workload, stamp_ms, false)->type = COMMAND_STATS;
    }
    draw_accident(workload);
}

void workload_answer(struct workload *workload, bool committed)
{
    for (uint32_t index = 0; index < workload->batch.count; index++) {
        const struct reply *reply = &workload->batch.replies[index];
        if (!committed && !(workload->batch.flushed && reply->early)) {
            continue;
        }
        struct client *client = workload->slots[index].client;
        uint32_t count =
            workload->batch.commands[index].type == COMMAND_PULL ? reply_delivery_count(reply) : 0;
        for (uint32_t row = 0; row < count; row++) {
            const struct delivery *delivery = reply_delivery(reply, row);
            uint32_t at = client->count < workload->swarm.hand_max ? client->count++
                                                                   : below(workload, client->count);
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
