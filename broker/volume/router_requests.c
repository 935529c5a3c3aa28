/* Publish, settle, peek, change and stats: requests that ask each volume concerned once, or one
 * after the other. */
#include <assert.h>
#include <string.h>

#include "broker/volume/router_internal.h"

#include <xxhash.h>

/* The operation is over when every call is back. */
static void advance_all(struct router_operation *operation, struct router_call *call)
{
    router_fail(operation, call->call.reply.code, call->call.reply.detail);
    if (operation->pending == 0) {
        router_finish(operation);
    }
}

static struct router_publish *publish_of(struct router_operation *operation)
{
    return container_of(operation, struct router_publish, operation);
}

/* Puts a volume's results where they belong, and judges the whole when the last one is in. */
static void publish_advance(struct router_operation *operation, struct router_call *call)
{
    struct router_publish *publish = publish_of(operation);
    const struct publish *part = &call->call.command.publish;
    enum err_code code = call->call.reply.code;
    if (call->call.reply.early) {
        publish->durability = DURABILITY_RELAXED;
    }
    for (uint32_t index = 0; call->places != NULL && index < part->count; index++) {
        publish->results[call->places[index]] = part->results[index];
    }
    if (code != ERR_NONE && part->count == publish->count) {
        router_fail(operation, code, call->call.reply.detail);
    }
    if (operation->pending > 0) {
        return;
    }
    enum err_code first = publish->results[0].code;
    bool same = first != ERR_NONE;
    for (uint32_t index = 1; index < publish->count && same; index++) {
        same = publish->results[index].code == first;
    }
    if (same) {
        router_fail(operation, first, call->call.reply.detail);
    }
    router_finish(operation);
}

/* A repeated publish must find the first one's shard. */
static const struct catalog_shard *choose_shard(struct catalog_topic *topic,
                                                const struct router_publish *publish,
                                                struct message_in *message)
{
    const struct span keys[] = {message->key, message->idempotency_key, publish->batch_key};
    const struct catalog_shard *shard = NULL;
    for (size_t index = 0; shard == NULL && index < sizeof keys / sizeof keys[0]; index++) {
        if (keys[index].size > 0) {
            shard = catalog_topic_shard(topic, XXH3_64bits(keys[index].data, keys[index].size));
        }
    }
    if (shard == NULL) {
        shard = &topic->shards[topic->round_robin++ % topic->shard_count];
    }
    message->shard_id = shard->place.shard_id;
    return shard;
}

static uint32_t message_size(const struct message_in *message)
{
    return (uint32_t)(message->key.size + message->attributes.size + message->body.size);
}

static void send_publish(struct router_publish *publish, struct router_call *call,
                         const struct catalog_topic *topic, struct publish part)
{
    struct router *router = publish->operation.router;
    uint64_t size = 0;
    for (uint32_t index = 0; index < part.count; index++) {
        size += message_size(&part.messages[index]);
    }
    part.topic_id = topic->id;
    part.atomic = publish->atomic;
    part.batch_key = publish->batch_key;
    call->call.command.publish = part;
    call->call.size = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
    if (router->waiting == 0) {
        router_call_send(router, call);
        return;
    }
    uint32_t volume = call->volume;
    volume_cork(router->volumes[volume]);
    router_call_send(router, call);
    router_follow(router, topic, volume, part.count);
    volume_uncork(router->volumes[volume]);
}

/* Splits the messages by volume; each part keeps their order. */
static void send_parts(struct router_publish *publish, const struct catalog_topic *topic,
                       const uint16_t *volumes)
{
    struct router *router = publish->operation.router;
    struct arena *arena = publish->operation.arena;
    for (uint32_t volume = 0; volume < router->volume_count; volume++) {
        uint32_t count = 0;
        for (uint32_t index = 0; index < publish->count; index++) {
            count += volumes[index] == volume;
        }
        if (count == 0) {
            continue;
        }
        struct message_in *messages = arena_calloc(arena, count, sizeof *messages);
        struct publish_result *results = arena_calloc(arena, count, sizeof *results);
        uint32_t *places = arena_calloc(arena, count, sizeof *places);
        struct router_call *call =
            messages == NULL || results == NULL || places == NULL
                ? NULL
                : router_call_new(&publish->operation, volume, COMMAND_PUBLISH);
        for (uint32_t index = 0, to = 0; index < publish->count; index++) {
            if (volumes[index] != volume) {
                continue;
            }
            if (call == NULL) {
                publish->results[index] = (struct publish_result){.code = ERR_UNAVAILABLE};
                continue;
            }
            messages[to] = publish->messages[index];
            places[to++] = index;
        }
        if (call == NULL) {
            router_fail(&publish->operation, ERR_UNAVAILABLE, "the broker is out of memory");
            continue;
        }
        call->places = places;
        send_publish(publish, call, topic,
                     (struct publish){.messages = messages, .count = count, .results = results});
    }
    if (publish->operation.pending == 0) {
        router_finish(&publish->operation);
    }
}

static void send_whole(struct router_publish *publish, const struct catalog_topic *topic,
                       uint16_t volume)
{
    struct router_call *call = router_call_new(&publish->operation, volume, COMMAND_PUBLISH);
    if (call == NULL) {
        router_finish(&publish->operation);
        return;
    }
    send_publish(publish, call, topic,
                 (struct publish){.messages = publish->messages,
                                  .count = publish->count,
                                  .results = publish->results});
}

void router_start_publish(struct router *router, struct router_publish *publish)
{
    struct router_operation *operation = &publish->operation;
    publish->durability = DURABILITY_SYNCED;
    if (!router_begin(router, operation, publish_advance)) {
        return;
    }
    struct catalog_topic *topic = router_find_topic(operation, publish->topic);
    uint16_t *volumes = publish->count == 0
                            ? NULL
                            : arena_calloc(operation->arena, publish->count, sizeof *volumes);
    if (topic != NULL && volumes == NULL) {
        router_fail(operation, publish->count == 0 ? ERR_INVALID : ERR_UNAVAILABLE,
                    publish->count == 0 ? "messages: there is none"
                                        : "the broker is out of memory");
    }
    if (operation->result.code != ERR_NONE) {
        router_finish(operation);
        return;
    }
    assert(topic != NULL); /* else the operation has failed */
    assert(volumes != NULL);
    bool one_volume = true;
    for (uint32_t index = 0; index < publish->count; index++) {
        const struct catalog_shard *shard = choose_shard(topic, publish, &publish->messages[index]);
        volumes[index] = shard->volume;
        one_volume = one_volume && volumes[index] == volumes[0];
    }
    if (one_volume) {
        send_whole(publish, topic, volumes[0]);
    } else if (publish->atomic) {
        router_fail(operation, ERR_NOT_ATOMIC, "messages: their shards lie on several volumes");
        router_finish(operation);
    } else {
        send_parts(publish, topic, volumes);
    }
}

static struct router_settle *settle_of(struct router_operation *operation)
{
    return container_of(operation, struct router_settle, operation);
}

static void settle_advance(struct router_operation *operation, struct router_call *call)
{
    struct router_settle *settle = settle_of(operation);
    const struct settle *part = &call->call.command.settle;
    for (uint32_t index = 0; index < part->count; index++) {
        /* A message that is gone altogether has no lease either. */
        enum err_code code = part->results[index];
        settle->results[call->places[index]] = code == ERR_NOT_FOUND ? ERR_LEASE_LOST : code;
    }
    if (part->count == settle->count) {
        router_fail(operation, call->call.reply.code, call->call.reply.detail);
    }
    if (operation->pending > 0) {
        return;
    }
    /* One volume's failure is told of its receipts; only what fails all of them fails the whole. */
    enum err_code first = settle->results[0];
    bool same = first != ERR_NONE && first != ERR_LEASE_LOST;
    for (uint32_t index = 1; index < settle->count && same; index++) {
        same = settle->results[index] == first;
    }
    if (same) {
        router_fail(operation, first, call->call.reply.detail);
    }
    router_finish(operation);
}

static const enum command_type settle_commands[] = {
    [ROUTER_ACK] = COMMAND_ACK,
    [ROUTER_NACK] = COMMAND_NACK,
    [ROUTER_EXTEND] = COMMAND_EXTEND,
};

static void send_settle(struct router_settle *settle, uint32_t volume, uint32_t sub_id,
                        const uint32_t *volumes)
{
    struct arena *arena = settle->operation.arena;
    uint32_t count = 0;
    for (uint32_t index = 0; index < settle->count; index++) {
        count += volumes[index] == volume;
    }
    if (count == 0) {
        return;
    }
    struct receipt *receipts = arena_calloc(arena, count, sizeof *receipts);
    enum err_code *results = arena_calloc(arena, count, sizeof *results);
    uint32_t *places = arena_calloc(arena, count, sizeof *places);
    struct router_call *call =
        receipts == NULL || results == NULL || places == NULL
            ? NULL
            : router_call_new(&settle->operation, volume, settle_commands[settle->kind]);
    if (call == NULL) {
        router_fail(&settle->operation, ERR_UNAVAILABLE, "the broker is out of memory");
        return;
    }
    for (uint32_t index = 0, to = 0; index < settle->count; index++) {
        if (volumes[index] == volume) {
            receipts[to] = settle->receipts[index];
            places[to++] = index;
        }
    }
    call->places = places;
    call->call.command.settle = (struct settle){
        .sub_id = sub_id,
        .receipts = receipts,
        .count = count,
        .results = results,
        .has_delay = settle->has_delay,
        .reject = settle->reject,
        .delay_ms = settle->delay_ms,
        .note = settle->note,
        .lease_ms = settle->lease_ms,
    };
    router_call_send(settle->operation.router, call);
}

void router_start_settle(struct router *router, struct router_settle *settle)
{
    struct router_operation *operation = &settle->operation;
    if (!router_begin(router, operation, settle_advance)) {
        return;
    }
    const struct catalog_sub *sub = router_find_sub(operation, settle->topic, settle->sub);
    uint32_t *volumes =
        sub == NULL ? NULL : arena_calloc(operation->arena, settle->count + 1, sizeof *volumes);
    if (volumes == NULL) {
        router_fail(operation, ERR_UNAVAILABLE, "the broker is out of memory");
        router_finish(operation);
        return;
    }
    for (uint32_t index = 0; index < settle->count; index++) {
        const struct receipt *receipt = &settle->receipts[index];
        volumes[index] =
            receipt->sub_id == sub->id ? router_volume_of(router, receipt->shard_id) : UINT32_MAX;
        settle->results[index] = volumes[index] == UINT32_MAX ? ERR_LEASE_LOST : ERR_UNAVAILABLE;
    }
    for (uint32_t volume = 0; volume < router->volume_count; volume++) {
        send_settle(settle, volume, sub->id, volumes);
    }
    if (operation->pending == 0) {
        router_finish(operation);
    }
}

static struct router_peek *peek_of(struct router_operation *operation)
{
    return container_of(operation, struct router_peek, operation);
}

/* Volumes are listed one after the other; a position names its volume by its shard. */
static void peek_ask(struct router_peek *peek, uint32_t sub_id)
{
    struct router *router = peek->operation.router;
    struct router_call *call = router_call_new(&peek->operation, peek->shard_index, COMMAND_PEEK);
    if (call == NULL) {
        router_finish(&peek->operation);
        return;
    }
    call->call.command.peek = (struct peek){
        .sub_id = sub_id,
        .state = peek->state,
        .from_shard_id = peek->from_shard_id,
        .from_sequence = peek->from_sequence,
        .max = peek->max - peek->found,
        .size_max = peek->size_max - peek->found_size,
        .size_strict = peek->found > 0,
    };
    router_call_send(router, call);
}

static void peek_advance(struct router_operation *operation, struct router_call *call)
{
    struct router_peek *peek = peek_of(operation);
    const struct reply *reply = &call->call.reply;
    router_fail(operation, reply->code, reply->detail);
    peek->found += reply_delivery_count(reply);
    peek->found_size += (uint32_t)reply->payload.size;
    peek->shard_index++;
    if (operation->result.code != ERR_NONE || reply->more) {
        peek->more = reply->more;
        peek->next_shard_id = reply->next_shard_id;
        peek->next_sequence = reply->next_sequence;
        router_finish(operation);
        return;
    }
    if (peek->shard_index == operation->router->volume_count) {
        router_finish(operation);
        return;
    }
    peek->from_shard_id = 0;
    peek->from_sequence = 0;
    if (peek->found >= peek->max || peek->found_size >= peek->size_max) {
        /* Full, and there may be more in the next volume: ask it for its first place only when
         * asked to go on. */
        peek->more = true;
        peek->next_shard_id = UINT32_MAX - peek->shard_index;
        peek->next_sequence = 0;
        router_finish(operation);
        return;
    }
    peek_ask(peek, call->call.command.peek.sub_id);
}

void router_start_peek(struct router *router, struct router_peek *peek)
{
    struct router_operation *operation = &peek->operation;
    peek->more = false;
    peek->found = 0;
    peek->found_size = 0;
    if (!router_begin(router, operation, peek_advance)) {
        return;
    }
    const struct catalog_sub *sub = router_find_sub(operation, peek->topic, peek->sub);
    peek->shard_index = 0;
    if (sub != NULL && peek->from_shard_id > UINT32_MAX - router->volume_count) {
        peek->shard_index =
            UINT32_MAX - peek->from_shard_id; /* the start of a volume, see peek_advance */
        peek->from_shard_id = 0;
    } else if (sub != NULL && peek->from_shard_id != 0) {
        peek->shard_index = router_volume_of(router, peek->from_shard_id);
        if (peek->shard_index == UINT32_MAX) {
            router_fail(operation, ERR_INVALID, "cursor: its shard does not exist");
        }
    }
    if (operation->result.code != ERR_NONE) {
        router_finish(operation);
        return;
    }
    assert(sub != NULL); /* else the operation has failed */
    peek_ask(peek, sub->id);
}

static struct router_change *change_of(struct router_operation *operation)
{
    return container_of(operation, struct router_change, operation);
}

static void change_advance(struct router_operation *operation, struct router_call *call)
{
    struct router_change *change = change_of(operation);
    change->count += call->call.reply.count;
    change->more = change->more || call->call.reply.more;
    advance_all(operation, call);
}

static const struct catalog_shard *shard_by_number(const struct catalog_topic *topic,
                                                   uint32_t number)
{
    for (uint32_t index = 0; index < topic->shard_count; index++) {
        if (topic->shards[index].place.number == number) {
            return &topic->shards[index];
        }
    }
    return NULL;
}

/* Fills in what the router knows: the subscription's and the shard's ids. */
static void complete_change(struct command *command, uint32_t sub_id, uint32_t shard_id)
{
    if (command->type == COMMAND_REDRIVE) {
        command->redrive.sub_id = sub_id;
        command->redrive.shard_id = shard_id;
    } else if (command->type == COMMAND_PURGE) {
        command->purge.sub_id = sub_id;
    } else {
        command->seek.sub_id = sub_id;
        command->seek.shard_id = shard_id;
    }
}

void router_start_change(struct router *router, struct router_change *change)
{
    struct router_operation *operation = &change->operation;
    change->count = 0;
    change->more = false;
    if (!router_begin(router, operation, change_advance)) {
        return;
    }
    const struct catalog_sub *sub = router_find_sub(operation, change->topic, change->sub);
    const struct catalog_shard *shard = NULL;
    if (sub != NULL && change->shard_number != UINT32_MAX) {
        shard = shard_by_number(sub->topic, change->shard_number);
        if (shard == NULL) {
            router_fail(operation, ERR_INVALID, "shard: the topic has no such shard");
        }
    }
    for (uint32_t volume = 0; operation->result.code == ERR_NONE && volume < router->volume_count;
         volume++) {
        if (shard != NULL && shard->volume != volume) {
            continue;
        }
        struct router_call *call = router_call_new(operation, volume, change->command.type);
        if (call != NULL) {
            assert(sub != NULL); /* else the operation has failed */
            call->call.command = change->command;
            complete_change(&call->call.command, sub->id,
                            shard == NULL ? 0 : shard->place.shard_id);
            router_call_send(router, call);
        }
    }
    if (operation->pending == 0) {
        router_finish(operation);
    }
}

void router_start_stats(struct router *router, struct router_stats *stats)
{
    struct router_operation *operation = &stats->operation;
    if (!router_begin(router, operation, advance_all)) {
        return;
    }
    uint32_t topic_id = 0;
    if (stats->topic.size > 0) {
        const struct catalog_topic *topic = router_find_topic(operation, stats->topic);
        topic_id = topic == NULL ? 0 : topic->id;
    }
    for (uint32_t volume = 0; operation->result.code == ERR_NONE && volume < router->volume_count;
         volume++) {
        struct router_call *call = router_call_new(operation, volume, COMMAND_STATS);
        if (call != NULL) {
            call->call.command.stats.topic_id = topic_id;
            router_call_send(router, call);
        }
    }
    if (operation->pending == 0) {
        router_finish(operation);
    }
}
