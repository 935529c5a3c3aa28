/* The model of what looks and intervenes from outside: peek, redrive, purge, seek, stats. */
#include <string.h>

#include "broker/base/bitmap.h"
#include "tests/sim/model_parts.h"

enum {
    OLDEST_LOOK = 64 * 256
}; /* deliveries in which STATS looks for the oldest unfinished message */

static struct model_sub *judge_sub(struct model *model, uint32_t sub_id, const struct reply *reply)
{
    struct model_sub *sub = model_sub(model, sub_id);
    MODEL_EXPECT(model, reply->code == (sub == NULL ? ERR_NOT_FOUND : ERR_NONE),
                 "subscription %u: %s", sub_id, err_slug(reply->code));
    return sub;
}

/* ---- peek ---- */

/* The first message of the state at or after `from`; the shard's count when there is none. */
static uint64_t next_in_state(const struct model_lane *lane, enum message_state state,
                              uint64_t from)
{
    uint64_t end = lane->shard->count;
    if (state == MESSAGE_NONE) {
        uint64_t at = from > lane->cursor ? from : lane->cursor;
        return at < end ? at : end;
    }
    for (uint64_t at = from; at < lane->cursor; at++) {
        uint8_t present = lane->entries[at].state;
        if (present == (uint8_t)state || (state == MESSAGE_SCHEDULED && present == MESSAGE_READY)) {
            return at;
        }
    }
    return end;
}

static void check_dead(const struct model *model, const struct reply *reply,
                       const struct delivery *delivery, const struct model_entry *entry)
{
    size_t size = entry->note == NULL ? 0 : strlen(entry->note);
    struct span note = delivery_note(reply, delivery);
    MODEL_EXPECT(model, delivery->reason == entry->reason,
                 "dead letter %u:%llu has reason %u, not %u", delivery->shard_id,
                 (unsigned long long)delivery->sequence, delivery->reason, entry->reason);
    MODEL_EXPECT(model,
                 note.size == size && (size == 0 || memcmp(note.data, entry->note, size) == 0),
                 "dead letter %u:%llu has the note \"%.*s\", not \"%s\"", delivery->shard_id,
                 (unsigned long long)delivery->sequence, (int)note.size, (const char *)note.data,
                 entry->note == NULL ? "" : entry->note);
}

static void check_listed(const struct model *model, struct model_lane *lane,
                         const struct reply *reply, const struct delivery *delivery)
{
    unsigned long long sequence = delivery->sequence;
    model_check_message(model, lane, reply, delivery);
    if (delivery->state == MESSAGE_NONE) {
        MODEL_EXPECT(model, delivery->attempt == 0,
                     "enqueued message %u:%llu is listed with %u attempts", delivery->shard_id,
                     sequence, delivery->attempt);
        return;
    }
    const struct model_entry *entry = model_entry(lane, delivery->sequence);
    MODEL_EXPECT(model,
                 delivery->state == entry->state && delivery->attempt == entry->attempt &&
                     delivery->due_ms == entry->due_ms,
                 "message %u:%llu is listed: state %u, %u attempts, due %llu; not %u, %u, %llu",
                 delivery->shard_id, sequence, delivery->state, delivery->attempt,
                 (unsigned long long)delivery->due_ms, entry->state, entry->attempt,
                 (unsigned long long)entry->due_ms);
    if (delivery->state == MESSAGE_DEAD) {
        check_dead(model, reply, delivery, entry);
    }
}

/* A list ends before a message only when it may have no more of them, or not so much. */
static void check_end(const struct model *model, const struct model_sub *sub,
                      const struct peek *peek, const struct reply *reply)
{
    const struct model_shard *shard = model_shard(model, reply->next_shard_id);
    const struct model_lane *lane = model_lane(sub, shard);
    uint32_t count = reply_delivery_count(reply);
    MODEL_EXPECT(model, lane != NULL, "a list goes on in shard %u, which the subscription has not",
                 reply->next_shard_id);
    if (next_in_state(lane, peek->state, reply->next_sequence) != reply->next_sequence ||
        reply->next_sequence >= shard->count) {
        return; /* it has looked at as many as it may */
    }
    uint64_t size =
        reply->payload.size + model_payload_size(&shard->messages[reply->next_sequence]);
    bool bound = count > 0 || peek->size_strict;
    MODEL_EXPECT(model, count == peek->max || (bound && size > peek->size_max),
                 "a list of %u messages ends before %u:%llu without a reason", count,
                 reply->next_shard_id, (unsigned long long)reply->next_sequence);
}

/* A list has every message of the state from where it was asked to where it stopped, in order, and
 * no other. */
void model_judge_peek(struct model *model, const struct peek *peek, const struct reply *reply)
{
    const struct model_sub *sub = judge_sub(model, peek->sub_id, reply);
    uint32_t listed = 0;
    uint32_t count = reply_delivery_count(reply);
    for (size_t slot = 0; sub != NULL && slot < sub->lanes.count; slot++) {
        struct model_lane *lane = sub->lanes.items[slot];
        uint32_t id = lane->shard->place.shard_id;
        uint64_t end = lane->shard->count;
        if (reply->more && id >= reply->next_shard_id) {
            end = id > reply->next_shard_id ? 0 : reply->next_sequence;
        }
        uint64_t at = id < peek->from_shard_id    ? end
                      : id == peek->from_shard_id ? peek->from_sequence
                                                  : 0;
        for (at = next_in_state(lane, peek->state, at); at < end;
             at = next_in_state(lane, peek->state, at + 1), listed++) {
            MODEL_EXPECT(model, listed < count, "a list of %u messages ends before %u:%llu", count,
                         id, (unsigned long long)at);
            const struct delivery *delivery = reply_delivery(reply, listed);
            MODEL_EXPECT(model, delivery->shard_id == id && delivery->sequence == at,
                         "a list has message %u:%llu where %u:%llu was next", delivery->shard_id,
                         (unsigned long long)delivery->sequence, id, (unsigned long long)at);
            check_listed(model, lane, reply, delivery);
        }
    }
    if (sub != NULL && reply->more) {
        check_end(model, sub, peek, reply);
    }
    MODEL_EXPECT(model, listed == count && count <= peek->max,
                 "a list of at most %u has %u messages, not %u", peek->max, count, listed);
}

/* ---- redrive ---- */

/* Dead letters of a lane back to work; false: the command may take no more. */
static bool redrive_lane(struct model *model, struct model_lane *lane,
                         const struct redrive *redrive, uint64_t *count)
{
    uint64_t at = next_in_state(lane, MESSAGE_DEAD, 0);
    for (; at < lane->shard->count; at = next_in_state(lane, MESSAGE_DEAD, at + 1)) {
        struct model_entry *entry = &lane->entries[at];
        if ((redrive->reason != DEAD_NONE && redrive->reason != entry->reason) ||
            (redrive->has_sequence && redrive->sequence != at)) {
            continue;
        }
        if (*count == redrive->max) {
            return false;
        }
        (*count)++;
        if (!redrive->dry_run) {
            entry->attempt = 0;
            model_move(lane, at, MESSAGE_READY);
            model->figures.redriven++;
        }
    }
    return true;
}

void model_judge_redrive(struct model *model, const struct redrive *redrive,
                         const struct reply *reply)
{
    const struct model_sub *sub = judge_sub(model, redrive->sub_id, reply);
    uint64_t count = 0;
    bool room = true;
    for (size_t slot = 0; sub != NULL && slot < sub->lanes.count && room; slot++) {
        struct model_lane *lane = sub->lanes.items[slot];
        if (redrive->shard_id == 0 || redrive->shard_id == lane->shard->place.shard_id) {
            room = lane->counts[MESSAGE_DEAD] == 0 || redrive_lane(model, lane, redrive, &count);
        }
    }
    MODEL_EXPECT(model, reply->count == count && reply->more == !room,
                 "a redrive of subscription %u moved %llu (more: %d), not %llu (more: %d)",
                 redrive->sub_id, (unsigned long long)reply->count, reply->more,
                 (unsigned long long)count, !room);
}

/* ---- purge and seek ---- */

static uint64_t skip_to(struct model *model, struct model_lane *lane, uint64_t target)
{
    uint64_t count = target - lane->cursor;
    for (; lane->cursor < target; lane->cursor++) {
        model_move(lane, lane->cursor, MESSAGE_DONE);
    }
    model->figures.skipped += count;
    return count;
}

static uint64_t drop_states(struct model *model, struct model_lane *lane, uint32_t states)
{
    uint64_t count = 0;
    for (uint64_t at = 0; at < lane->cursor; at++) {
        if ((states >> lane->entries[at].state & 1) != 0) {
            model_move(lane, at, MESSAGE_DONE);
            count++;
        }
    }
    model->figures.skipped += count;
    return count;
}

void model_judge_purge(struct model *model, const struct purge *purge, const struct reply *reply)
{
    const struct model_sub *sub = judge_sub(model, purge->sub_id, reply);
    uint32_t states = purge->dead ? 1U << MESSAGE_DEAD : 0;
    if (purge->delivery) {
        states |= 1U << MESSAGE_LEASED | 1U << MESSAGE_SCHEDULED | 1U << MESSAGE_READY;
    }
    uint64_t count = 0;
    for (size_t slot = 0; sub != NULL && slot < sub->lanes.count; slot++) {
        struct model_lane *lane = sub->lanes.items[slot];
        count += purge->enqueued ? skip_to(model, lane, lane->shard->count) : 0;
        count += states != 0 ? drop_states(model, lane, states) : 0;
    }
    MODEL_EXPECT(model, reply->count == count,
                 "a purge of subscription %u dropped %llu messages, not %llu", purge->sub_id,
                 (unsigned long long)reply->count, (unsigned long long)count);
}

static uint64_t seek_target(const struct model_lane *lane, const struct seek *seek)
{
    uint64_t floor = model_floor(lane->shard);
    uint64_t end = lane->shard->count;
    switch (seek->to) {
    case START_LATEST:
        return end;
    case START_EARLIEST:
        return floor;
    case START_SEQUENCE:
        return seek->value < floor ? floor : seek->value < end ? seek->value : end;
    case START_TIME:
        return model_find_time(lane->shard, floor, seek->value);
    }
    return end;
}

/* What lies at and after the target is enqueued again, whatever has become of it. */
static uint64_t go_back_to(struct model *model, struct model_lane *lane, uint64_t target)
{
    uint64_t count = lane->cursor - target;
    for (uint64_t at = target; at < lane->cursor; at++) {
        model_move(lane, at, MESSAGE_NONE);
        /* Its last grant is kept: receipts from before the seek must never be good again. */
        lane->entries[at].attempt = 0;
        lane->entries[at].due_ms = 0;
    }
    lane->cursor = target;
    model->figures.rewound += count;
    return count;
}

void model_judge_seek(struct model *model, const struct seek *seek, const struct reply *reply)
{
    const struct model_sub *sub = judge_sub(model, seek->sub_id, reply);
    uint64_t count = 0;
    for (size_t slot = 0; sub != NULL && slot < sub->lanes.count; slot++) {
        struct model_lane *lane = sub->lanes.items[slot];
        if (seek->shard_id != 0 && seek->shard_id != lane->shard->place.shard_id) {
            continue;
        }
        uint64_t target = seek_target(lane, seek);
        if (seek->dry_run) {
            count += target > lane->cursor ? target - lane->cursor : lane->cursor - target;
        } else {
            count += target > lane->cursor ? skip_to(model, lane, target)
                                           : go_back_to(model, lane, target);
        }
    }
    MODEL_EXPECT(model, reply->count == count,
                 "a seek of subscription %u concerns %llu messages, not %llu", seek->sub_id,
                 (unsigned long long)reply->count, (unsigned long long)count);
}

/* ---- stats: the law of conservation ---- */

static uint64_t oldest_ms(struct model_lane *lane)
{
    while (lane->oldest < lane->cursor && (lane->entries[lane->oldest].state == MESSAGE_DONE ||
                                           lane->entries[lane->oldest].state == MESSAGE_DEAD)) {
        lane->oldest++;
    }
    return lane->oldest < lane->shard->count ? lane->shard->messages[lane->oldest].published_ms : 0;
}

/* Every message published is in exactly one place: the figures sum up and are the model's. */
static void judge_sub_stats(const struct model *model, struct model_lane *lane,
                            const struct sub_stats *row)
{
    const uint64_t *counts = lane->counts;
    uint64_t scheduled = counts[MESSAGE_SCHEDULED] + counts[MESSAGE_READY];
    uint32_t sub_id = lane->sub->id;
    uint32_t shard_id = lane->shard->place.shard_id;
    MODEL_EXPECT(model, row->sub_id == sub_id && row->shard_id == shard_id,
                 "STATS has subscription %u on shard %u where %u on %u was next", row->sub_id,
                 row->shard_id, sub_id, shard_id);
    uint64_t sum = row->enqueued + row->leased + row->scheduled + row->dead + counts[MESSAGE_DONE];
    MODEL_EXPECT(model, row->cursor == lane->cursor && sum == lane->shard->count,
                 "subscription %u on shard %u: cursor %llu, not %llu; %llu messages, not %llu",
                 sub_id, shard_id, (unsigned long long)row->cursor,
                 (unsigned long long)lane->cursor, (unsigned long long)sum,
                 (unsigned long long)lane->shard->count);
    if (model->doubt) {
        return;
    }
    MODEL_EXPECT(
        model,
        row->leased == counts[MESSAGE_LEASED] && row->scheduled == scheduled &&
            row->dead == counts[MESSAGE_DEAD],
        "subscription %u on shard %u: %llu leased, %llu scheduled, %llu dead, not %llu, %llu, %llu",
        sub_id, shard_id, (unsigned long long)row->leased, (unsigned long long)row->scheduled,
        (unsigned long long)row->dead, (unsigned long long)counts[MESSAGE_LEASED],
        (unsigned long long)scheduled, (unsigned long long)counts[MESSAGE_DEAD]);
    uint64_t oldest = oldest_ms(lane);
    MODEL_EXPECT(model, row->oldest_ms == oldest || lane->cursor > OLDEST_LOOK,
                 "subscription %u on shard %u: oldest message from %llu, not %llu", sub_id,
                 shard_id, (unsigned long long)row->oldest_ms, (unsigned long long)oldest);
}

static void judge_retention(struct model *model, struct model_shard *shard, uint64_t retained_from)
{
    const struct topic_settings *settings = &shard->topic->settings;
    uint32_t id = shard->place.shard_id;
    if (settings->retention_ms == 0 && settings->retention_bytes == 0) {
        MODEL_EXPECT(model, retained_from == shard->count,
                     "shard %u retains from %llu without retention", id,
                     (unsigned long long)retained_from);
        return;
    }
    uint64_t latest = shard->retained_from;
    if (model->retention_doubt) {
        latest = model_retention_limit(shard, model->doubt_ms);
    }
    MODEL_EXPECT(model, retained_from >= shard->retained_from && retained_from <= latest,
                 "shard %u retains from %llu, not %llu (to %llu)", id,
                 (unsigned long long)retained_from, (unsigned long long)shard->retained_from,
                 (unsigned long long)latest);
    model_retention_adopt(shard, retained_from);
}

static void judge_shard_stats(struct model *model, struct model_shard *shard,
                              const struct shard_stats *row)
{
    const struct shard_place *place = &shard->place;
    MODEL_EXPECT(model, row->topic_id == shard->topic->id && row->shard_id == place->shard_id,
                 "STATS has shard %u of topic %u where %u of %u was next", row->shard_id,
                 row->topic_id, place->shard_id, shard->topic->id);
    MODEL_EXPECT(model,
                 row->number == place->number && row->hash_first == place->hash_first &&
                     row->hash_last == place->hash_last,
                 "shard %u is placed elsewhere than it was put", place->shard_id);
    MODEL_EXPECT(model, row->next_sequence == shard->count,
                 "shard %u: next sequence %llu, not %llu", place->shard_id,
                 (unsigned long long)row->next_sequence, (unsigned long long)shard->count);
    MODEL_EXPECT(model, row->sub_count == shard->topic->subs.count,
                 "shard %u: %u subscriptions, not %zu", place->shard_id, row->sub_count,
                 shard->topic->subs.count);
    judge_retention(model, shard, row->retained_from);
}

void model_judge_stats(struct model *model, const struct stats *stats, const struct reply *reply)
{
    const uint8_t *at = reply->items.data;
    const uint8_t *end = at + reply->items.size;
    for (size_t topic_index = 0; topic_index < model->topics.count; topic_index++) {
        const struct model_topic *topic = model->topics.items[topic_index];
        if (stats->topic_id != 0 && stats->topic_id != topic->id) {
            continue;
        }
        for (size_t index = 0; index < topic->shards.count; index++) {
            struct shard_stats row;
            size_t size = sizeof row + topic->subs.count * sizeof(struct sub_stats);
            MODEL_EXPECT(model, size <= (size_t)(end - at), "STATS ends before topic %u is told",
                         topic->id);
            memcpy(&row, at, sizeof row);
            at += sizeof row;
            struct model_shard *shard = topic->shards.items[index];
            judge_shard_stats(model, shard, &row);
            for (size_t sub_index = 0; sub_index < topic->subs.count; sub_index++) {
                struct sub_stats sub_row;
                memcpy(&sub_row, at, sizeof sub_row);
                at += sizeof sub_row;
                judge_sub_stats(model, model_lane(topic->subs.items[sub_index], shard), &sub_row);
            }
        }
    }
    MODEL_EXPECT(model, at == end, "STATS tells %td bytes more than there is", end - at);
    model->retention_doubt = model->retention_doubt && stats->topic_id != 0;
}
