#include "broker/core/block.h"
#include "broker/core/dedup.h"
#include "broker/core/messages.h"
#include "broker/core/msglog.h"
#include "broker/core/release.h"
#include "broker/core/retention.h"
#include "broker/core/topic.h"

static err_t wake_lanes(struct core *core, const struct shard *shard)
{
    for (size_t index = 0; index < shard->lanes.count; index++) {
        const struct lane *lane = shard->lanes.items[index];
        bitmap_set(lane->sub->available, lane->slot);
        if (!lane->sub->settings.paused) { /* else what ends that wakes it */
            TRY(state_wake(core, lane->sub));
        }
    }
    return NULL;
}

static err_t append(struct core *core, struct shard *shard, const struct message_in *message)
{
    const struct record record = {
        .shard_id = shard->id,
        .sequence = shard->next_sequence,
        .published_ms = core->now_ms,
        .not_before_ms = message->delay_ms == 0 ? 0 : state_later(core->now_ms, message->delay_ms),
        .expires_ms = message->ttl_ms == 0 ? 0 : state_later(core->now_ms, message->ttl_ms),
        .payload_hash = message->payload_hash,
        .key_size = (uint32_t)message->key.size,
        .attributes_size = (uint32_t)message->attributes.size,
        .body_size = (uint32_t)message->body.size,
    };
    const struct span parts[] = {message->key, message->attributes, message->body};
    uint64_t position = 0;
    TRY(msglog_append(core, &record, (struct msglog_parts){parts, 3}, release_wanted(shard),
                      &position));
    TRY(block_append(core, shard, position));
    if (topic_retains(shard->topic)) {
        TRY(retention_published(core, shard, record_size(&record)));
    }
    return wake_lanes(core, shard);
}

/* What is larger could be stored but not read again. */
static bool is_too_large(const struct message_in *message)
{
    return message->key.size > CORE_KEY_MAX || message->attributes.size > CORE_ATTRIBUTES_MAX ||
           message->body.size > CORE_BODY_MAX;
}

/* Looks whether the message may be published; `result` has its code, and the first result when it
 * is a replay. */
static err_t check(struct core *core, const struct topic *topic, const struct message_in *message,
                   struct publish_result *result)
{
    *result = (struct publish_result){.code = ERR_NONE};
    const struct shard *shard = state_shard(core, message->shard_id);
    if (shard == NULL || shard->topic != topic) {
        result->code = ERR_NOT_FOUND;
        return NULL;
    }
    if (is_too_large(message)) {
        result->code = ERR_TOO_LARGE;
        return NULL;
    }
    if (!dedup_applies(topic, message)) {
        return NULL;
    }
    enum dedup_verdict verdict = DEDUP_NEW;
    TRY(dedup_look(core, topic, message, result, &verdict));
    if (verdict == DEDUP_REUSED) {
        result->code = ERR_IDEMPOTENCY_REUSED;
    }
    return NULL;
}

static err_t publish_one(struct core *core, const struct topic *topic,
                         const struct message_in *message, struct publish_result *result)
{
    TRY(check(core, topic, message, result));
    if (result->code != ERR_NONE || result->replayed) {
        return NULL;
    }
    struct shard *shard = state_shard(core, message->shard_id);
    result->shard_id = shard->id;
    result->shard_number = shard->number;
    result->sequence = shard->next_sequence;
    TRY(append(core, shard, message));
    if (dedup_applies(topic, message)) {
        TRY(dedup_note(core, topic, message, result));
    }
    return NULL;
}

static void refuse_all(const struct publish *publish, enum err_code code)
{
    for (uint32_t index = 0; index < publish->count; index++) {
        publish->results[index] = (struct publish_result){.code = code};
    }
}

/* Looks for two messages under one idempotency key that are not the same: the later one would be
 * refused when the earlier has been published. */
static err_t check_keys(const struct topic *topic, const struct publish *publish)
{
    struct map keys; /* hash of a key, or the next free number, to the first result under it */
    err_t err = NULL;
    map_init(&keys);
    for (uint32_t index = 0; index < publish->count; index++) {
        const struct message_in *message = &publish->messages[index];
        struct publish_result *result = &publish->results[index];
        if (result->code != ERR_NONE || result->replayed || !dedup_applies(topic, message)) {
            continue;
        }
        const struct message_in *first = message;
        const struct publish_result *earlier;
        uint64_t place = dedup_hash(message->idempotency_key);
        while ((earlier = map_get(&keys, place)) != NULL) {
            first = &publish->messages[earlier - publish->results];
            if (span_equal(first->idempotency_key, message->idempotency_key)) {
                break;
            }
            place++;
        }
        if (earlier == NULL && !map_put(&keys, place, result)) {
            err = ERR(MEMORY, "no memory for the idempotency keys of a batch");
            break;
        }
        if (earlier != NULL && first->payload_hash != message->payload_hash) {
            result->code = ERR_IDEMPOTENCY_REUSED;
        }
    }
    map_deinit(&keys);
    return err;
}

/* All or none: whether every message would be taken. */
static err_t check_all(struct core *core, const struct topic *topic, const struct publish *publish,
                       bool *ok)
{
    for (uint32_t index = 0; index < publish->count; index++) {
        TRY(check(core, topic, &publish->messages[index], &publish->results[index]));
    }
    TRY(check_keys(topic, publish));
    *ok = true;
    for (uint32_t index = 0; index < publish->count; index++) {
        *ok = *ok && publish->results[index].code == ERR_NONE;
    }
    for (uint32_t index = 0; !*ok && index < publish->count; index++) {
        if (publish->results[index].code == ERR_NONE) {
            publish->results[index] = (struct publish_result){.code = ERR_ABORTED};
        }
    }
    return NULL;
}

/* Each message by itself; a batch with a key is remembered unless all of it was refused. */
static err_t publish_all(struct core *core, const struct topic *topic,
                         const struct publish *publish)
{
    bool any = false;
    for (uint32_t index = 0; index < publish->count; index++) {
        TRY(publish_one(core, topic, &publish->messages[index], &publish->results[index]));
        any = any || publish->results[index].code == ERR_NONE;
    }
    return any && dedup_applies_to_batch(topic, publish) ? dedup_note_batch(core, topic, publish)
                                                         : NULL;
}

/* Whether the batch has been published before, or others under its key: then the results say so. */
static err_t look_batch(struct core *core, const struct topic *topic, const struct publish *publish,
                        struct reply *reply, bool *is_done)
{
    enum dedup_verdict verdict = DEDUP_NEW;
    if (dedup_applies_to_batch(topic, publish)) {
        TRY(dedup_look_batch(core, topic, publish, &verdict));
    }
    *is_done = verdict != DEDUP_NEW;
    if (verdict == DEDUP_REUSED) {
        refuse_all(publish, ERR_IDEMPOTENCY_REUSED);
        reply_fail(reply, ERR_IDEMPOTENCY_REUSED, "batch_key: it was used with other messages");
    }
    return NULL;
}

err_t messages_publish(struct core *core, const struct command *command, struct reply *reply)
{
    const struct publish *publish = &command->publish;
    const struct topic *topic = state_topic(core, publish->topic_id);
    if (topic == NULL || topic->dropping) {
        refuse_all(publish, ERR_NOT_FOUND);
        reply_fail(reply, ERR_NOT_FOUND, "topic: it does not exist");
        return NULL;
    }
    bool is_done = false;
    TRY(look_batch(core, topic, publish, reply, &is_done));
    if (is_done) {
        return NULL;
    }
    if (command->no_space) {
        core->published_ms = 0; /* room is wanted: clean up without waiting for quiet */
        refuse_all(publish, ERR_NO_SPACE);
        reply_fail(reply, ERR_NO_SPACE,
                   "the volume is full; what is in it can still be pulled and acknowledged");
        return NULL;
    }
    core->published_ms = core->now_ms;
    bool ok = true;
    if (publish->atomic) {
        TRY(check_all(core, topic, publish, &ok));
    }
    if (!ok) {
        reply_fail(reply, ERR_ABORTED, NULL);
        return NULL;
    }
    TRY(publish_all(core, topic, publish));
    reply->early = topic_answers_early(core, topic);
    return NULL;
}
