#include "tests/sim/model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/bitmap.h"
#include "tests/sim/model_parts.h"

enum {
    RECORD_FIXED_SIZE = 40, /* of a record in the log, beside its payload (SPEC "Message record") */
    RECORD_TIME_SIZE = 8,   /* for each of delay and time to live, when it has one */
    ENTRIES_MIN = 64,
};

void model_init(struct model *model, struct trace *trace)
{
    *model = (struct model){.trace = trace};
    array_init(&model->topics);
    map_init(&model->topic_ids);
    map_init(&model->shard_ids);
    map_init(&model->sub_ids);
    map_init(&model->dropped_ids);
}

void model_deinit(struct model *model)
{
    while (model->topics.count > 0) {
        const struct model_topic *topic = model->topics.items[0];
        model_judge_topic_drop(model, topic->id);
    }
    array_deinit(&model->topics);
    map_deinit(&model->topic_ids);
    map_deinit(&model->shard_ids);
    map_deinit(&model->sub_ids);
    map_deinit(&model->dropped_ids);
}

struct model_topic *model_topic(const struct model *model, uint32_t id)
{
    return map_get(&model->topic_ids, id);
}

struct model_shard *model_shard(const struct model *model, uint32_t id)
{
    return map_get(&model->shard_ids, id);
}

struct model_sub *model_sub(const struct model *model, uint32_t id)
{
    return map_get(&model->sub_ids, id);
}

struct model_lane *model_lane(const struct model_sub *sub, const struct model_shard *shard)
{
    return shard != NULL && shard->topic == sub->topic ? sub->lanes.items[shard->index] : NULL;
}

uint64_t model_payload_size(const struct model_message *message)
{
    return (uint64_t)message->key_size + message->attributes_size + message->body_size;
}

uint64_t model_message_size(const struct model_message *message)
{
    uint64_t times = (uint64_t)(message->not_before_ms != 0) + (message->expires_ms != 0);
    return RECORD_FIXED_SIZE + times * RECORD_TIME_SIZE + model_payload_size(message);
}

bool model_sub_unfinished(const struct model_sub *sub)
{
    for (size_t slot = 0; slot < sub->lanes.count; slot++) {
        const struct model_lane *lane = sub->lanes.items[slot];
        if (lane->cursor < lane->shard->count ||
            lane->counts[MESSAGE_DEAD] + lane->counts[MESSAGE_DONE] < lane->cursor) {
            return true;
        }
    }
    return false;
}

/* ---- moves ---- */

struct model_entry *model_entry(struct model_lane *lane, uint64_t sequence)
{
    if (sequence >= lane->capacity) {
        uint64_t capacity = lane->capacity == 0 ? ENTRIES_MIN : lane->capacity;
        while (capacity <= sequence) {
            capacity *= 2;
        }
        struct model_entry *entries = realloc(lane->entries, capacity * sizeof *entries);
        assert(entries != NULL);
        memset(entries + lane->capacity, 0, (capacity - lane->capacity) * sizeof *entries);
        lane->entries = entries;
        lane->capacity = capacity;
        bool grown = bitmap_grow(&lane->ready, &lane->ready_words, capacity) &&
                     bitmap_grow(&lane->busy, &lane->busy_words, capacity) &&
                     bitmap_grow(&lane->seen, &lane->seen_words, capacity);
        assert(grown);
        (void)grown;
    }
    return &lane->entries[sequence];
}

static void assign_bit(uint64_t *bits, uint64_t bit, bool value)
{
    if (value) {
        bitmap_set(bits, bit);
    } else {
        bitmap_clear(bits, bit);
    }
}

void model_move(struct model_lane *lane, uint64_t sequence, enum message_state to)
{
    struct model_entry *entry = model_entry(lane, sequence);
    if (entry->state != MESSAGE_NONE) {
        lane->counts[entry->state]--;
    }
    if (to != MESSAGE_NONE) {
        lane->counts[to]++;
    }
    entry->state = (uint8_t)to;
    entry->note = NULL;
    if (to != MESSAGE_DEAD) {
        entry->reason = DEAD_NONE;
    }
    assign_bit(lane->ready, sequence, to == MESSAGE_READY);
    assign_bit(lane->busy, sequence, to == MESSAGE_LEASED || to == MESSAGE_SCHEDULED);
    if (to != MESSAGE_DEAD && to != MESSAGE_DONE && sequence < lane->oldest) {
        lane->oldest = sequence;
    }
    if (to == MESSAGE_READY) {
        entry->due_ms = 0;
    }
}

void model_schedule(struct model_lane *lane, uint64_t sequence, uint64_t due_ms)
{
    model_move(lane, sequence, MESSAGE_SCHEDULED);
    lane->entries[sequence].due_ms = due_ms;
    lane->due_ms = due_ms < lane->due_ms ? due_ms : lane->due_ms;
}

void model_bury(struct model *model, struct model_lane *lane, uint64_t sequence,
                enum dead_reason reason, const char *note)
{
    struct model_entry *entry = model_entry(lane, sequence);
    model_move(lane, sequence, MESSAGE_DEAD);
    entry->reason = (uint8_t)reason;
    entry->due_ms = model->now_ms;
    entry->note = note;
    model->figures.dead++;
    model->figures.expired += reason == DEAD_EXPIRED;
}

void model_give_back(struct model *model, struct model_lane *lane, uint64_t sequence,
                     uint64_t delay_ms, const char *note)
{
    uint32_t attempts_max = lane->sub->settings.max_attempts;
    if (attempts_max != 0 && lane->entries[sequence].attempt >= attempts_max) {
        model_bury(model, lane, sequence, DEAD_ATTEMPTS, note);
    } else if (delay_ms > 0) {
        model_schedule(lane, sequence, model->now_ms + delay_ms);
    } else {
        model_move(lane, sequence, MESSAGE_READY);
    }
}

void model_check_message(const struct model *model, const struct model_lane *lane,
                         const struct reply *reply, const struct delivery *delivery)
{
    const struct model_message *message = &lane->shard->messages[delivery->sequence];
    uint32_t id = lane->shard->place.shard_id;
    unsigned long long sequence = delivery->sequence;
    MODEL_EXPECT(model, delivery->shard_number == lane->shard->place.number,
                 "message %u:%llu is said to be of shard number %u", id, sequence,
                 delivery->shard_number);
    MODEL_EXPECT(model,
                 delivery->key_size == message->key_size &&
                     delivery->attributes_size == message->attributes_size &&
                     delivery->body_size == message->body_size,
                 "message %u:%llu has a body of %u bytes, %u were published", id, sequence,
                 delivery->body_size, message->body_size);
    uint64_t size = model_payload_size(message);
    MODEL_EXPECT(model,
                 size == 0 || memcmp(reply->payload.data + delivery->payload_offset,
                                     message->payload, size) == 0,
                 "message %u:%llu is not what was published", id, sequence);
    MODEL_EXPECT(model,
                 delivery->published_ms == message->published_ms &&
                     delivery->expires_ms == message->expires_ms,
                 "message %u:%llu has other times than when it was published", id, sequence);
}

/* ---- what comes due ---- */

static void come_due(struct model *model, struct model_lane *lane, uint64_t sequence)
{
    if (lane->entries[sequence].state == MESSAGE_SCHEDULED) {
        model_move(lane, sequence, MESSAGE_READY);
        return;
    }
    model->figures.expired_leases++;
    model_give_back(model, lane, sequence, lane->sub->settings.retry_delay_ms, "lease expired");
}

/* Moves what is due, except what has been seen unmoved when `seen` says to look. */
static void move_due(struct model *model, struct model_lane *lane, bool seen)
{
    uint64_t next_ms = UINT64_MAX;
    for (uint64_t at = bitmap_next(lane->busy, lane->capacity, lane->oldest); at < lane->capacity;
         at = bitmap_next(lane->busy, lane->capacity, at + 1)) {
        if (lane->entries[at].due_ms <= model->now_ms && !(seen && bitmap_test(lane->seen, at))) {
            come_due(model, lane, at);
        }
        bool busy = bitmap_test(lane->busy, at);
        next_ms = busy && lane->entries[at].due_ms < next_ms ? lane->entries[at].due_ms : next_ms;
    }
    lane->due_ms = next_ms;
}

typedef void (*lane_visit)(struct model *model, struct model_lane *lane);

static void each_due_lane(struct model *model, uint64_t now_ms, lane_visit visit)
{
    for (size_t topic_index = 0; topic_index < model->topics.count; topic_index++) {
        const struct model_topic *topic = model->topics.items[topic_index];
        for (size_t sub_index = 0; sub_index < topic->subs.count; sub_index++) {
            const struct model_sub *sub = topic->subs.items[sub_index];
            for (size_t slot = 0; slot < sub->lanes.count; slot++) {
                struct model_lane *lane = sub->lanes.items[slot];
                if (lane->due_ms <= now_ms) {
                    visit(model, lane);
                }
            }
        }
    }
}

/* The bound `due_ms` may be early, as what it was for may have been acknowledged. */
static void tighten_due(struct model *model, struct model_lane *lane)
{
    (void)model;
    lane->due_ms = UINT64_MAX;
    for (uint64_t at = bitmap_next(lane->busy, lane->capacity, lane->oldest); at < lane->capacity;
         at = bitmap_next(lane->busy, lane->capacity, at + 1)) {
        lane->due_ms =
            lane->entries[at].due_ms < lane->due_ms ? lane->entries[at].due_ms : lane->due_ms;
    }
}

static void move_all_due(struct model *model, struct model_lane *lane)
{
    move_due(model, lane, false);
}

static void move_unseen_due(struct model *model, struct model_lane *lane)
{
    move_due(model, lane, true);
    memset(lane->seen, 0, lane->seen_words * sizeof *lane->seen);
}

static void note_due(struct model *model, struct model_lane *lane)
{
    (void)lane;
    model->doubt = true;
}

bool model_is_due(struct model *model, uint64_t now_ms)
{
    bool doubt = model->doubt;
    model->doubt = false;
    each_due_lane(model, now_ms, tighten_due);
    each_due_lane(model, now_ms, note_due);
    bool due = model->doubt;
    model->doubt = doubt;
    return due;
}

bool model_sub_in_doubt(const struct model *model, const struct model_sub *sub)
{
    for (size_t slot = 0; slot < sub->lanes.count; slot++) {
        const struct model_lane *lane = sub->lanes.items[slot];
        if (lane->due_ms <= model->doubt_ms) {
            return true;
        }
    }
    return false;
}

void model_note_unmoved(struct model *model, const struct reply *reply, uint32_t sub_id)
{
    const struct model_sub *sub = model_sub(model, sub_id);
    for (uint32_t index = 0; index < reply_delivery_count(reply); index++) {
        const struct delivery *delivery = reply_delivery(reply, index);
        struct model_lane *lane = model_lane(sub, model_shard(model, delivery->shard_id));
        MODEL_EXPECT(model, lane != NULL && delivery->sequence < lane->cursor,
                     "a PEEK of the delivery queue lists message %u:%llu, which is not in it",
                     delivery->shard_id, (unsigned long long)delivery->sequence);
        const struct model_entry *entry = &lane->entries[delivery->sequence];
        bool unmoved = entry->state == delivery->state && entry->due_ms == delivery->due_ms;
        bool due = bitmap_test(lane->busy, delivery->sequence) && entry->due_ms <= model->doubt_ms;
        if (unmoved && due) {
            bitmap_set(lane->seen, delivery->sequence);
        }
    }
}

void model_resolve_doubt(struct model *model)
{
    uint64_t now_ms = model->now_ms;
    model->now_ms = model->doubt_ms;
    each_due_lane(model, model->doubt_ms, move_unseen_due);
    model->now_ms = now_ms;
    model->doubt = false;
}

/* Retention gives up what is too old or too much, oldest first, and nothing else. */
uint64_t model_retention_limit(const struct model_shard *shard, uint64_t now_ms)
{
    const struct topic_settings *settings = &shard->topic->settings;
    uint64_t bytes = shard->retained_bytes;
    uint64_t at = shard->retained_from;
    for (; at < shard->count; at++) {
        const struct model_message *message = &shard->messages[at];
        bool old =
            settings->retention_ms != 0 && message->published_ms + settings->retention_ms <= now_ms;
        bool much = settings->retention_bytes != 0 && bytes > settings->retention_bytes;
        if (!old && !much) {
            break;
        }
        bytes -= model_message_size(message);
    }
    return at;
}

void model_retention_adopt(struct model_shard *shard, uint64_t retained_from)
{
    for (; shard->retained_from < retained_from; shard->retained_from++) {
        shard->retained_bytes -= model_message_size(&shard->messages[shard->retained_from]);
    }
}

static void retention_advance_all(struct model *model)
{
    for (size_t topic_index = 0; topic_index < model->topics.count; topic_index++) {
        const struct model_topic *topic = model->topics.items[topic_index];
        if (topic->settings.retention_ms == 0 && topic->settings.retention_bytes == 0) {
            continue;
        }
        for (size_t index = 0; index < topic->shards.count; index++) {
            struct model_shard *shard = topic->shards.items[index];
            model_retention_adopt(shard, model_retention_limit(shard, model->now_ms));
        }
    }
}

/* A TICK that leaves nothing, or whose budget has no end, has done everything that was due (what
 * the latter leaves is cleaning of the log). Another has done part of it, and which is seen by
 * looking; STATS tells how far retention came. */
static void judge_tick(struct model *model, const struct tick *tick, const struct reply *reply)
{
    if (reply->more && tick->budget != UINT32_MAX) {
        model->doubt_ms = model->now_ms;
        model->retention_doubt = true;
        model->doubt = model_is_due(model, model->now_ms);
        return;
    }
    each_due_lane(model, model->now_ms, move_all_due);
    retention_advance_all(model);
}

void model_judge(struct model *model, const struct command *command, const struct reply *reply)
{
    model->now_ms = command->now_ms > model->now_ms ? command->now_ms : model->now_ms;
    trace_command(model->trace, command, reply);
    switch (command->type) {
    case COMMAND_TOPIC_PUT:
        model_judge_topic_put(model, &command->topic_put, reply);
        return;
    case COMMAND_TOPIC_DROP:
        model_judge_topic_drop(model, command->topic_drop);
        return;
    case COMMAND_SUB_PUT:
        model_judge_sub_put(model, &command->sub_put, reply);
        return;
    case COMMAND_SUB_DROP:
        model_judge_sub_drop(model, command->sub_drop);
        return;
    case COMMAND_PUBLISH:
        model_judge_publish(model, command, reply);
        return;
    case COMMAND_PULL:
        model_judge_pull(model, &command->pull, reply);
        return;
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_EXTEND:
        model_judge_settle(model, command, reply);
        return;
    case COMMAND_PEEK:
        model_judge_peek(model, &command->peek, reply);
        return;
    case COMMAND_REDRIVE:
        model_judge_redrive(model, &command->redrive, reply);
        return;
    case COMMAND_PURGE:
        model_judge_purge(model, &command->purge, reply);
        return;
    case COMMAND_SEEK:
        model_judge_seek(model, &command->seek, reply);
        return;
    case COMMAND_STATS:
        model_judge_stats(model, &command->stats, reply);
        return;
    case COMMAND_TICK:
        judge_tick(model, &command->tick, reply);
        return;
    case COMMAND_CATALOG:
        return;
    }
}

/* ---- wake-ups ---- */

/* Whether a pull would get something to look at now. */
static bool is_pullable(const struct model_sub *sub)
{
    uint32_t in_flight_max = sub->settings.max_in_flight;
    for (size_t slot = 0; slot < sub->lanes.count && !sub->settings.paused; slot++) {
        const struct model_lane *lane = sub->lanes.items[slot];
        bool room = in_flight_max == 0 || lane->counts[MESSAGE_LEASED] < in_flight_max;
        if (room && (lane->cursor < lane->shard->count || lane->counts[MESSAGE_READY] > 0)) {
            return true;
        }
    }
    return false;
}

static bool is_listed(const struct effects *effects, uint32_t sub_id)
{
    for (size_t at = 0; at < effects->woken.size; at += sizeof sub_id) {
        if (memcmp(effects->woken.data + at, &sub_id, sizeof sub_id) == 0) {
            return true;
        }
    }
    return false;
}

/* A subscription whose last pull left nothing is among the woken once there is something. While it
 * is not known what a TICK moved, a wake-up is taken to be for that. */
static void judge_woken(struct model *model, struct model_sub *sub, const struct effects *effects)
{
    if (!sub->starved || !(model->doubt || is_pullable(sub))) {
        return;
    }
    bool woken = is_listed(effects, sub->id);
    MODEL_EXPECT(model, woken || model->doubt,
                 "subscription %u has something to pull and its waiting client is not woken",
                 sub->id);
    sub->starved = !woken;
}

/* What batches say of themselves sums up to what has happened, while all of it is seen. */
static void judge_sums(struct model *model, const struct effects *effects)
{
    struct effects *told = &model->told;
    const struct model_figures *figures = &model->figures;
    told->dead_lettered += effects->dead_lettered;
    told->expired += effects->expired;
    told->leases_expired += effects->leases_expired;
    MODEL_EXPECT(model,
                 model->doubt || model->dropped_ids.count > 0 ||
                     (told->dead_lettered == figures->dead && told->expired == figures->expired &&
                      told->leases_expired == figures->expired_leases),
                 "%llu dead letters (%llu expired), %llu lost leases, not %llu (%llu), %llu",
                 (unsigned long long)told->dead_lettered, (unsigned long long)told->expired,
                 (unsigned long long)told->leases_expired, (unsigned long long)figures->dead,
                 (unsigned long long)figures->expired, (unsigned long long)figures->expired_leases);
}

void model_judge_effects(struct model *model, const struct effects *effects)
{
    MODEL_EXPECT(model, effects->corrupt == 0, "%llu messages are said to be damaged",
                 (unsigned long long)effects->corrupt);
    for (size_t topic_index = 0; topic_index < model->topics.count; topic_index++) {
        struct model_topic *topic = model->topics.items[topic_index];
        topic->put = false;
        for (size_t index = 0; index < topic->subs.count; index++) {
            judge_woken(model, topic->subs.items[index], effects);
        }
        for (size_t index = 0; index < topic->shards.count; index++) {
            struct model_shard *shard = topic->shards.items[index];
            shard->committed = shard->count;
            shard->promised = shard->count > shard->promised ? shard->count : shard->promised;
        }
    }
    judge_sums(model, effects);
}

void model_lose_promised(struct model *model)
{
    for (size_t topic_index = 0; topic_index < model->topics.count; topic_index++) {
        const struct model_topic *topic = model->topics.items[topic_index];
        for (size_t index = 0; index < topic->shards.count; index++) {
            struct model_shard *shard = topic->shards.items[index];
            model->figures.lost += shard->promised - shard->count;
            shard->promised = shard->count;
        }
    }
}
