#include "tests/sim/draw.h"

#include <xxhash.h>

enum {
    PIECE_MAX = 24, /* of a key and of attributes */
    LARGE_MAX = 100000,
};

_Static_assert(LARGE_MAX + 2 * PIECE_MAX < WORKLOAD_POOL_SIZE,
               "the largest payload is in the pool");

/* ---- whom a command is for ---- */

static struct model_topic *any_topic(struct workload *workload, const struct volume *volume)
{
    const struct array *topics = &volume->model.topics;
    return topics->count == 0 ? NULL : topics->items[workload_below(workload, topics->count)];
}

static struct model_sub *any_sub(struct workload *workload, const struct volume *volume)
{
    const struct model_topic *topic = any_topic(workload, volume);
    return topic == NULL || topic->subs.count == 0
               ? NULL
               : topic->subs.items[workload_below(workload, topic->subs.count)];
}

/* Now and then one that is gone, or never was. */
static uint32_t any_sub_id(struct workload *workload, const struct volume *volume)
{
    const struct model_sub *sub = any_sub(workload, volume);
    return sub == NULL || WORKLOAD_CHANCE(workload, 100)
               ? workload_below(workload, volume->last_id + 2U)
               : sub->id;
}

static uint32_t any_shard_id(struct workload *workload, const struct model_sub *sub)
{
    if (sub == NULL || sub->lanes.count == 0) {
        return 0;
    }
    const struct model_lane *lane = sub->lanes.items[workload_below(workload, sub->lanes.count)];
    return lane->shard->place.shard_id;
}

/* A sequence that there is, or the next one. */
static uint64_t any_sequence(struct workload *workload, const struct model_sub *sub)
{
    if (sub == NULL || sub->lanes.count == 0) {
        return 0;
    }
    const struct model_lane *lane = sub->lanes.items[workload_below(workload, sub->lanes.count)];
    return workload_below(workload, lane->shard->count + 1);
}

/* ---- topics and subscriptions ---- */

static void draw_stats(struct workload *workload, struct volume *volume, struct command *command,
                       struct slot *slot)
{
    (void)slot;
    const struct model_topic *topic =
        WORKLOAD_CHANCE(workload, 2) ? any_topic(workload, volume) : NULL;
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
        .retention_ms = WORKLOAD_CHANCE(workload, 3) ? 0 : swarm->retention_ms,
        .retention_bytes = WORKLOAD_CHANCE(workload, 3) ? 0 : swarm->retention_bytes,
        .dedup_window_ms = WORKLOAD_CHANCE(workload, 5) ? 0 : swarm->dedup_window_ms,
        .durability = swarm->relaxed_in != 0 && WORKLOAD_CHANCE(workload, swarm->relaxed_in)
                          ? DURABILITY_RELAXED
                          : DURABILITY_SYNCED,
    };
    for (; topic != NULL && have < topic->shards.count && have < WORKLOAD_SHARDS_MAX; have++) {
        const struct model_shard *shard = topic->shards.items[have];
        slot->places[have] = shard->place;
    }
    put->shards = slot->places;
    put->shard_count = have;
    uint32_t more =
        have == 0 ? 1 + workload_below(workload, swarm->shards_max) : WORKLOAD_CHANCE(workload, 10);
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
    bool usual = !WORKLOAD_CHANCE(workload, 4);
    return (struct sub_settings){
        .lease_ms = swarm->lease_ms,
        .retry_delay_ms = usual ? swarm->retry_delay_ms : workload_below(workload, 2),
        .max_attempts = usual ? swarm->max_attempts : workload_below(workload, 4),
        .max_in_flight = usual ? swarm->max_in_flight : workload_below(workload, 3),
        .paused = WORKLOAD_CHANCE(workload, 10),
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
        .start = starts[workload_below(workload, 3)],
        .start_value = workload->now_ms - workload_below(workload, 1000),
    };
    if (sub != NULL &&
        (topic->subs.count >= workload->swarm.subs_max || WORKLOAD_CHANCE(workload, 2))) {
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
    command->topic_drop =
        topic == NULL || WORKLOAD_CHANCE(workload, 4) ? volume->last_id + 1 : topic->id;
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
    if (swarm->large_in != 0 && WORKLOAD_CHANCE(workload, swarm->large_in)) {
        return workload_below(workload, LARGE_MAX);
    }
    return workload_below(workload, swarm->body_max + 1U);
}

static void draw_payload(struct workload *workload, struct message_in *message)
{
    uint32_t sizes[] = {workload_below(workload, PIECE_MAX), workload_below(workload, PIECE_MAX),
                        draw_body_size(workload)};
    const uint8_t *piece =
        workload->pool + workload_below(workload, WORKLOAD_POOL_SIZE - LARGE_MAX - 2 * PIECE_MAX);
    message->key = span_of(piece, sizes[0]);
    message->attributes = span_of(piece + sizes[0], sizes[1]);
    message->body = span_of(piece + sizes[0] + sizes[1], sizes[2]);
}

/* An idempotency key: often with what was first published under it, otherwise with something else.
 */
static void draw_key(struct workload *workload, const struct model_topic *topic,
                     struct message_in *message)
{
    uint32_t key = workload_below(workload, workload->swarm.keys);
    const struct model_first *first = topic == NULL ? NULL : &topic->firsts[key];
    message->idempotency_key = span_of(workload->keys[key], sizeof workload->keys[key]);
    if (first != NULL && first->payload_hash != 0 && !WORKLOAD_CHANCE(workload, 4)) {
        message->key = first->key;
        message->attributes = first->attributes;
        message->body = first->body;
    }
}

static void draw_message(struct workload *workload, const struct volume *volume,
                         const struct model_topic *topic, struct message_in *message)
{
    const struct swarm *swarm = &workload->swarm;
    *message = (struct message_in){.shard_id = workload_below(workload, volume->last_id + 1U)};
    if (topic != NULL && !WORKLOAD_CHANCE(workload, 200)) {
        const struct model_shard *shard =
            topic->shards.items[workload_below(workload, topic->shards.count)];
        message->shard_id = shard->place.shard_id;
    }
    draw_payload(workload, message);
    if (WORKLOAD_CHANCE(workload, swarm->keyed_in)) {
        draw_key(workload, topic, message);
    }
    if (WORKLOAD_CHANCE(workload, swarm->delayed_in)) {
        message->delay_ms = WORKLOAD_CHANCE(workload, 50)
                                ? WORKLOAD_HOUR_MS
                                : 1 + workload_below(workload, 2 * swarm->lease_ms);
    }
    if (WORKLOAD_CHANCE(workload, swarm->delayed_in)) {
        message->ttl_ms = 1 + workload_below(workload, 4 * swarm->lease_ms);
    }
    /* The three parts lie one after the other. */
    size_t size = message->key.size + message->attributes.size + message->body.size;
    message->payload_hash = XXH3_64bits(message->key.data, size);
}

/* A key of the whole publish: often with what was first published under it. */
static void draw_batch_key(struct workload *workload, const struct model_topic *topic,
                           struct publish *publish, struct slot *slot)
{
    uint32_t key = workload_below(workload, MODEL_BATCHES_MAX);
    const struct model_batch *batch = topic == NULL ? NULL : &topic->batches[key];
    publish->batch_key = span_of(workload->keys[key], sizeof workload->keys[key]);
    if (batch != NULL && batch->count > 0 && !WORKLOAD_CHANCE(workload, 4)) {
        publish->count = batch->count;
        memcpy(slot->messages, batch->messages, batch->count * sizeof *batch->messages);
    }
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
        .topic_id =
            topic == NULL || WORKLOAD_CHANCE(workload, 300) ? volume->last_id + 1 : topic->id,
        .atomic = WORKLOAD_CHANCE(workload, 3),
        .messages = slot->messages,
        .results = slot->results,
        .count = many ? 1 + workload_below(workload, workload->swarm.publish_max) : 1,
    };
    for (uint32_t index = 0; index < publish->count; index++) {
        draw_message(workload, volume, topic, &slot->messages[index]);
    }
    if (WORKLOAD_CHANCE(workload, workload->swarm.keyed_in)) {
        draw_batch_key(workload, topic, publish, slot);
    }
}

/* ---- consumers ---- */

static struct client *any_client(struct workload *workload, struct volume *volume)
{
    return &volume->clients[workload_below(workload, workload->swarm.client_count)];
}

static void draw_pull(struct workload *workload, struct volume *volume, struct command *command,
                      struct slot *slot)
{
    struct client *client = any_client(workload, volume);
    if (model_sub(&volume->model, client->sub_id) == NULL || WORKLOAD_CHANCE(workload, 50)) {
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
        .max = 1 + workload_below(workload, workload->swarm.pull_max),
        .size_max = WORKLOAD_CHANCE(workload, 4) ? workload_below(workload, 5000) : UINT32_MAX,
        .size_strict = WORKLOAD_CHANCE(workload, 10),
        .rotation = (uint32_t)random_next(&workload->random),
        .nonce = (uint32_t)random_next(&workload->random),
        .lease_ms = WORKLOAD_CHANCE(workload, 8)
                        ? 1 + workload_below(workload, 3 * workload->swarm.lease_ms)
                        : 0,
    };
}

/* A receipt that was never given: of another delivery, another message, another subscription. */
static void forge(struct workload *workload, const struct volume *volume, struct receipt *receipt)
{
    switch (workload_below(workload, 7)) {
    case 0:
        receipt->grant += 1 + workload_below(workload, 3);
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
        receipt->epoch += 1 - 2 * workload_below(workload, 2);
        break;
    case 5:
        receipt->sequence = WORKLOAD_CHANCE(workload, 10)
                                ? random_next(&workload->random)
                                : receipt->sequence + workload_below(workload, 9) - 4;
        break;
    case 6:
        receipt->shard_id = workload_below(workload, volume->last_id + 2U);
        break;
    }
}

/* Receipts out of a client's hand, which it mostly gives up with them. */
static uint32_t take_receipts(struct workload *workload, struct client *client, struct receipt *out)
{
    uint32_t wanted = 1 + workload_below(workload, workload->swarm.settle_max);
    uint32_t count = wanted < client->count ? wanted : client->count;
    bool keeps = WORKLOAD_CHANCE(workload, 8);
    for (uint32_t index = 0; index < count; index++) {
        uint32_t at = workload_below(workload, client->count);
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
        .sub_id = WORKLOAD_CHANCE(workload, 50) ? any_sub_id(workload, volume) : client->sub_id,
        .receipts = slot->receipts,
        .results = slot->codes,
        .lease_ms = WORKLOAD_CHANCE(workload, 2)
                        ? 0
                        : 1 + workload_below(workload, 3 * workload->swarm.lease_ms),
        .note = span_of("", 0),
    };
    settle->count = take_receipts(workload, client, slot->receipts);
    if (settle->count == 0) {
        slot->receipts[0] = (struct receipt){settle->sub_id,
                                             any_shard_id(workload, any_sub(workload, volume)),
                                             workload_below(workload, 100),
                                             1,
                                             1 + workload_below(workload, 50),
                                             1};
        settle->count = 1;
    }
    for (uint32_t index = 0; index < settle->count; index++) {
        if (WORKLOAD_CHANCE(workload, workload->swarm.forged_in)) {
            forge(workload, volume, &slot->receipts[index]);
        }
    }
}

static void draw_ack(struct workload *workload, struct volume *volume, struct command *command,
                     struct slot *slot)
{
    draw_settle(workload, volume, command, slot);
    command->type = COMMAND_ACK;
    if (WORKLOAD_CHANCE(workload, workload->swarm.kept_in)) {
        command->type = COMMAND_NACK;
        command->settle.count = 1;
        command->settle.has_delay = true;
        command->settle.delay_ms = WORKLOAD_HOUR_MS;
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
    settle->reject = WORKLOAD_CHANCE(workload, 8);
    settle->release = !settle->reject && WORKLOAD_CHANCE(workload, 6);
    settle->has_delay = WORKLOAD_CHANCE(workload, 2);
    settle->delay_ms =
        WORKLOAD_CHANCE(workload, 3) ? 0 : workload_below(workload, 2 * workload->swarm.lease_ms);
    settle->note = span_text(notes[workload_below(workload, 3)]);
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
        .sub_id =
            sub == NULL || WORKLOAD_CHANCE(workload, 50) ? any_sub_id(workload, volume) : sub->id,
        .state = states[workload_below(workload, 4)],
        .from_shard_id = WORKLOAD_CHANCE(workload, 2) ? 0 : any_shard_id(workload, sub),
        .from_sequence = WORKLOAD_CHANCE(workload, 2) ? 0 : any_sequence(workload, sub),
        .max = 1 + workload_below(workload, 40),
        .size_max = WORKLOAD_CHANCE(workload, 4) ? workload_below(workload, 5000) : UINT32_MAX,
        .size_strict = WORKLOAD_CHANCE(workload, 10),
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
        .reason = (enum dead_reason)workload_below(workload, DEAD_REJECTED + 1),
        .shard_id = WORKLOAD_CHANCE(workload, 2) ? 0 : any_shard_id(workload, sub),
        .has_sequence = WORKLOAD_CHANCE(workload, 4),
        .sequence = any_sequence(workload, sub),
        .max = 1 + workload_below(workload, 100),
        .dry_run = WORKLOAD_CHANCE(workload, 5),
    };
}

static void draw_purge(struct workload *workload, struct volume *volume, struct command *command,
                       struct slot *slot)
{
    (void)slot;
    command->type = COMMAND_PURGE;
    command->purge = (struct purge){
        .sub_id = any_sub_id(workload, volume),
        .enqueued = WORKLOAD_CHANCE(workload, 3),
        .delivery = WORKLOAD_CHANCE(workload, 3),
        .dead = WORKLOAD_CHANCE(workload, 2),
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
        .shard_id = WORKLOAD_CHANCE(workload, 2) ? 0 : any_shard_id(workload, sub),
        .to = (enum start_at)workload_below(workload, START_SEQUENCE + 1),
        .dry_run = WORKLOAD_CHANCE(workload, 4),
    };
    command->seek.value = command->seek.to == START_TIME
                              ? workload->now_ms - workload_below(workload, 10000)
                              : any_sequence(workload, sub);
}

/* ---- all of them ---- */

const struct draw_kind draw_kinds[WORKLOAD_KINDS] = {
    [DRAW_PUBLISH] = {draw_publish, 60, true},   [DRAW_PULL] = {draw_pull, 60, true},
    [DRAW_ACK] = {draw_ack, 60, true},           [DRAW_NACK] = {draw_nack, 20, false},
    [DRAW_EXTEND] = {draw_extend, 10, false},    [DRAW_TOPIC_PUT] = {draw_topic_put, 3, true},
    [DRAW_SUB_PUT] = {draw_sub_put, 4, true},    [DRAW_TOPIC_DROP] = {draw_topic_drop, 1, false},
    [DRAW_SUB_DROP] = {draw_sub_drop, 2, false}, [DRAW_PEEK] = {draw_peek, 6, false},
    [DRAW_REDRIVE] = {draw_redrive, 5, false},   [DRAW_PURGE] = {draw_purge, 1, false},
    [DRAW_SEEK] = {draw_seek, 2, false},         [DRAW_STATS] = {draw_stats, 2, false},
};
