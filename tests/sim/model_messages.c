/* The model of what carries messages: publish, pull and settle. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/bitmap.h"
#include "broker/base/bytes.h"
#include "tests/sim/model_parts.h"

enum {
    MESSAGES_MIN = 64,
    LOOKS_MAX = 16384, /* messages one pull may look at; then it says that there is more */
};

/* ---- publish ---- */

static struct model_first *first_of(const struct model_topic *topic,
                                    const struct message_in *message)
{
    if (message->idempotency_key.size == 0 || topic->settings.dedup_window_ms == 0) {
        return NULL;
    }
    return &topic->firsts[bytes_get_be32(message->idempotency_key.data)];
}

static void append(const struct model *model, struct model_shard *shard,
                   const struct message_in *in)
{
    if (shard->count == shard->capacity) {
        shard->capacity = shard->capacity == 0 ? MESSAGES_MIN : shard->capacity * 2;
        shard->messages = realloc(shard->messages, shard->capacity * sizeof *shard->messages);
        assert(shard->messages != NULL);
    }
    struct model_message *message = &shard->messages[shard->count++];
    *message = (struct model_message){
        .published_ms = model->now_ms,
        .not_before_ms = in->delay_ms == 0 ? 0 : model->now_ms + in->delay_ms,
        .expires_ms = in->ttl_ms == 0 ? 0 : model->now_ms + in->ttl_ms,
        .payload = in->key.data,
        .key_size = (uint32_t)in->key.size,
        .attributes_size = (uint32_t)in->attributes.size,
        .body_size = (uint32_t)in->body.size,
    };
    shard->retained_bytes += model_message_size(message);
}

static void expect_code(const struct model *model, const struct publish *publish, uint32_t index,
                        enum err_code code)
{
    MODEL_EXPECT(model, publish->results[index].code == code,
                 "message %u of a publish to topic %u: %s, not %s", index, publish->topic_id,
                 err_slug(publish->results[index].code), err_slug(code));
}

static void expect_refused(const struct model *model, const struct publish *publish,
                           const struct reply *reply, enum err_code code)
{
    MODEL_EXPECT(model, reply->code == code, "a publish to topic %u: %s, not %s", publish->topic_id,
                 err_slug(reply->code), err_slug(code));
    for (uint32_t index = 0; index < publish->count; index++) {
        expect_code(model, publish, index, code);
    }
}

static bool is_placed(const struct model *model, const struct model_topic *topic,
                      const struct message_in *message)
{
    const struct model_shard *shard = model_shard(model, message->shard_id);
    return shard != NULL && shard->topic == topic;
}

/* Why this message cannot be published beside what is there and, all or none, what comes first
 * under its key. */
static enum err_code objection(const struct model *model, const struct model_topic *topic,
                               const struct publish *publish, uint32_t index)
{
    const struct message_in *message = &publish->messages[index];
    const struct model_first *first = first_of(topic, message);
    if (!is_placed(model, topic, message)) {
        return ERR_NOT_FOUND;
    }
    if (first == NULL) {
        return ERR_NONE;
    }
    uint64_t payload_hash = message->payload_hash;
    if (first->expires_ms > model->now_ms) {
        payload_hash = first->payload_hash;
    } else {
        for (uint32_t earlier = index; publish->atomic && earlier-- > 0;) {
            const struct message_in *other = &publish->messages[earlier];
            bool same = first_of(topic, other) == first && is_placed(model, topic, other);
            payload_hash = same ? other->payload_hash : payload_hash;
        }
    }
    return payload_hash == message->payload_hash ? ERR_NONE : ERR_IDEMPOTENCY_REUSED;
}

/* All or none: one that is refused takes the others with it. */
static bool judge_atomic(const struct model *model, const struct model_topic *topic,
                         const struct publish *publish, const struct reply *reply)
{
    bool refused = false;
    for (uint32_t index = 0; index < publish->count; index++) {
        refused = refused || objection(model, topic, publish, index) != ERR_NONE;
    }
    MODEL_EXPECT(model, reply->code == (refused ? ERR_ABORTED : ERR_NONE),
                 "an atomic publish to topic %u: %s", publish->topic_id, err_slug(reply->code));
    for (uint32_t index = 0; refused && index < publish->count; index++) {
        enum err_code code = objection(model, topic, publish, index);
        expect_code(model, publish, index, code == ERR_NONE ? ERR_ABORTED : code);
    }
    return !refused;
}

static void expect_place(const struct model *model, const struct publish_result *result,
                         const struct publish_result *want)
{
    MODEL_EXPECT(model,
                 result->shard_id == want->shard_id && result->shard_number == want->shard_number &&
                     result->sequence == want->sequence && result->replayed == want->replayed,
                 "a publish gave %s%u:%llu (number %u), not %s%u:%llu (number %u)",
                 result->replayed ? "again " : "", result->shard_id,
                 (unsigned long long)result->sequence, result->shard_number,
                 want->replayed ? "again " : "", want->shard_id, (unsigned long long)want->sequence,
                 want->shard_number);
}

static void judge_message(struct model *model, struct model_topic *topic,
                          const struct publish *publish, uint32_t index)
{
    const struct message_in *message = &publish->messages[index];
    const struct publish_result *result = &publish->results[index];
    enum err_code code = objection(model, topic, publish, index);
    expect_code(model, publish, index, code);
    if (code != ERR_NONE) {
        return;
    }
    struct model_first *first = first_of(topic, message);
    if (first != NULL && first->expires_ms > model->now_ms) {
        expect_place(model, result,
                     &(struct publish_result){.replayed = true,
                                              .shard_id = first->shard_id,
                                              .shard_number = first->shard_number,
                                              .sequence = first->sequence});
        model->figures.replayed++;
        return;
    }
    struct model_shard *shard = model_shard(model, message->shard_id);
    expect_place(model, result,
                 &(struct publish_result){.shard_id = message->shard_id,
                                          .shard_number = shard->place.number,
                                          .sequence = shard->count});
    append(model, shard, message);
    model->figures.published++;
    if (first != NULL) {
        *first = (struct model_first){
            .expires_ms = model->now_ms + topic->settings.dedup_window_ms,
            .payload_hash = message->payload_hash,
            .sequence = result->sequence,
            .shard_id = result->shard_id,
            .shard_number = result->shard_number,
            .key = message->key,
            .attributes = message->attributes,
            .body = message->body,
        };
    }
}

static struct model_batch *batch_of(const struct model_topic *topic, const struct publish *publish)
{
    if (publish->batch_key.size == 0 || topic->settings.dedup_window_ms == 0) {
        return NULL;
    }
    return &topic->batches[bytes_get_be32(publish->batch_key.data)];
}

static bool is_same_batch(const struct model_batch *batch, const struct publish *publish)
{
    bool same = batch->count == publish->count;
    for (uint32_t index = 0; index < batch->count && same; index++) {
        same = batch->messages[index].payload_hash == publish->messages[index].payload_hash;
    }
    return same;
}

/* A batch whose key is remembered: it gives the first results, or is refused as a whole. */
static void judge_batch_again(struct model *model, const struct model_batch *batch,
                              const struct publish *publish, const struct reply *reply)
{
    if (!is_same_batch(batch, publish)) {
        expect_refused(model, publish, reply, ERR_IDEMPOTENCY_REUSED);
        return;
    }
    for (uint32_t index = 0; index < publish->count; index++) {
        struct publish_result want = batch->results[index];
        want.replayed = want.code == ERR_NONE;
        expect_code(model, publish, index, want.code);
        if (want.code == ERR_NONE) {
            expect_place(model, &publish->results[index], &want);
            model->figures.replayed++;
        }
    }
}

static void note_batch(const struct model *model, const struct model_topic *topic,
                       struct model_batch *batch, const struct publish *publish)
{
    bool any = false;
    for (uint32_t index = 0; index < publish->count; index++) {
        any = any || publish->results[index].code == ERR_NONE;
    }
    if (!any) {
        return;
    }
    batch->expires_ms = model->now_ms + topic->settings.dedup_window_ms;
    batch->count = publish->count;
    batch->messages = realloc(batch->messages, publish->count * sizeof *batch->messages);
    batch->results = realloc(batch->results, publish->count * sizeof *batch->results);
    assert(batch->messages != NULL && batch->results != NULL);
    memcpy(batch->messages, publish->messages, publish->count * sizeof *batch->messages);
    memcpy(batch->results, publish->results, publish->count * sizeof *batch->results);
}

void model_judge_publish(struct model *model, const struct command *command,
                         const struct reply *reply)
{
    const struct publish *publish = &command->publish;
    struct model_topic *topic = model_topic(model, publish->topic_id);
    if (topic == NULL) {
        expect_refused(model, publish, reply, ERR_NOT_FOUND);
        return;
    }
    struct model_batch *batch = batch_of(topic, publish);
    if (batch != NULL && batch->expires_ms > model->now_ms) {
        judge_batch_again(model, batch, publish, reply);
        return;
    }
    if (command->no_space) {
        expect_refused(model, publish, reply, ERR_NO_SPACE);
        return;
    }
    if (publish->atomic && !judge_atomic(model, topic, publish, reply)) {
        return;
    }
    MODEL_EXPECT(model, reply->code == ERR_NONE, "a publish to topic %u: %s", publish->topic_id,
                 err_slug(reply->code));
    for (uint32_t index = 0; index < publish->count; index++) {
        judge_message(model, topic, publish, index);
    }
    if (batch != NULL) {
        note_batch(model, topic, batch, publish);
    }
    MODEL_EXPECT(model, reply->early == model_topic_early(topic),
                 "a publish to topic %u says %d to whether it may be answered early", topic->id,
                 reply->early);
}

void model_promise(struct model *model, const struct publish *publish)
{
    const struct model_topic *topic = model_topic(model, publish->topic_id);
    MODEL_EXPECT(model, topic != NULL && model_topic_early(topic),
                 "a publish to topic %u was answered before it was committed", publish->topic_id);
    for (uint32_t index = 0; index < publish->count; index++) {
        const struct publish_result *result = &publish->results[index];
        if (result->code == ERR_NONE && !result->replayed) {
            struct model_shard *shard = model_shard(model, result->shard_id);
            MODEL_EXPECT(model, shard != NULL && result->sequence == shard->promised,
                         "message %u:%llu was answered and is not the next one", result->shard_id,
                         (unsigned long long)result->sequence);
            shard->promised++;
        }
    }
}

/* ---- pull ---- */

/* A pull as it should go: shards in turn from its rotation, each at first for an even share, then
 * for the rest; in a shard what is to be delivered again by sequence, then what is new by sequence.
 */
struct walk {
    struct model *model;
    const struct pull *pull;
    const struct reply *reply;
    uint64_t until_ms;
    uint64_t size;
    uint32_t taken;
    uint32_t looks;
    bool full; /* the next message is too much */
};

static bool is_available(const struct model_lane *lane)
{
    return lane->cursor < lane->shard->count || lane->counts[MESSAGE_READY] > 0;
}

static bool may_take(const struct walk *walk, const struct model_lane *lane, uint32_t share)
{
    uint32_t in_flight_max = lane->sub->settings.max_in_flight;
    return !walk->full && share > 0 && walk->taken < walk->pull->max && walk->looks < LOOKS_MAX &&
           is_available(lane) &&
           (in_flight_max == 0 || lane->counts[MESSAGE_LEASED] < in_flight_max);
}

static void judge_delivery(struct walk *walk, struct model_lane *lane, uint64_t sequence)
{
    struct model *model = walk->model;
    uint32_t shard_id = lane->shard->place.shard_id;
    unsigned long long number = sequence;
    MODEL_EXPECT(model, walk->taken < reply_delivery_count(walk->reply),
                 "a pull of subscription %u gave %u messages and not %u:%llu, which is available",
                 lane->sub->id, walk->taken, shard_id, number);
    const struct delivery *delivery = reply_delivery(walk->reply, walk->taken);
    struct model_entry *entry = &lane->entries[sequence];
    MODEL_EXPECT(model, delivery->shard_id == shard_id && delivery->sequence == sequence,
                 "a pull of subscription %u gave message %u:%llu where %u:%llu was next",
                 lane->sub->id, delivery->shard_id, (unsigned long long)delivery->sequence,
                 shard_id, number);
    MODEL_EXPECT(model, delivery->attempt == entry->attempt + 1,
                 "message %u:%llu is delivered as attempt %u after %u deliveries", shard_id, number,
                 delivery->attempt, entry->attempt);
    MODEL_EXPECT(model, delivery->state == MESSAGE_LEASED && delivery->due_ms == walk->until_ms,
                 "message %u:%llu is leased until %llu, not %llu", shard_id, number,
                 (unsigned long long)delivery->due_ms, (unsigned long long)walk->until_ms);
    /* Only so is no receipt of an earlier delivery good for this one. */
    MODEL_EXPECT(model, delivery->grant != entry->grant,
                 "message %u:%llu is delivered with grant %u after grant %u", shard_id, number,
                 delivery->grant, entry->grant);
    MODEL_EXPECT(model,
                 !walk->reply->early || sequence < lane->shard->committed ||
                     model_topic_early(lane->shard->topic),
                 "message %u:%llu may be delivered before its publish is committed", shard_id,
                 number);
    model_check_message(model, lane, walk->reply, delivery);
    lane->epoch = delivery->epoch;
    entry->grant = delivery->grant;
    entry->attempt = delivery->attempt;
    model_move(lane, sequence, MESSAGE_LEASED);
    entry->due_ms = walk->until_ms;
    lane->due_ms = walk->until_ms < lane->due_ms ? walk->until_ms : lane->due_ms;
    model->figures.delivered++;
}

/* One message at the head of the lane; false: it stays there. */
static bool walk_message(struct walk *walk, struct model_lane *lane, uint64_t sequence, bool is_new)
{
    struct model *model = walk->model;
    const struct model_message *message = &lane->shard->messages[sequence];
    model_entry(lane, sequence);
    walk->looks++;
    if (message->expires_ms != 0 && message->expires_ms <= model->now_ms) {
        model_bury(model, lane, sequence, DEAD_EXPIRED, NULL);
        return true;
    }
    if (is_new && message->not_before_ms > model->now_ms) {
        model_schedule(lane, sequence, message->not_before_ms);
        return true;
    }
    uint64_t size = model_payload_size(message);
    bool bound = walk->taken > 0 || walk->pull->size_strict;
    walk->full = bound && walk->size + size > walk->pull->size_max;
    if (walk->full) {
        return false;
    }
    judge_delivery(walk, lane, sequence);
    walk->taken++;
    walk->size += size;
    return true;
}

static void walk_lane(struct walk *walk, struct model_lane *lane, uint32_t share)
{
    uint64_t from = lane->oldest;
    while (may_take(walk, lane, share)) {
        uint32_t taken = walk->taken;
        bool is_new = lane->counts[MESSAGE_READY] == 0;
        from = is_new ? lane->cursor : bitmap_next(lane->ready, lane->capacity, from);
        bool moved = walk_message(walk, lane, from, is_new);
        lane->cursor += is_new && moved;
        share -= walk->taken - taken;
    }
}

static void walk_round(struct walk *walk, const struct model_sub *sub, uint32_t share)
{
    size_t count = sub->lanes.count;
    for (size_t step = 0; step < count && !walk->full && walk->taken < walk->pull->max; step++) {
        walk_lane(walk, sub->lanes.items[(walk->pull->rotation % count + step) % count], share);
    }
}

void model_judge_pull(struct model *model, const struct pull *pull, const struct reply *reply)
{
    struct model_sub *sub = model_sub(model, pull->sub_id);
    uint32_t count = reply_delivery_count(reply);
    if (sub == NULL) {
        MODEL_EXPECT(model, reply->code == ERR_NOT_FOUND && count == 0,
                     "a pull of subscription %u, which is gone: %s", pull->sub_id,
                     err_slug(reply->code));
        return;
    }
    MODEL_EXPECT(model, reply->code == ERR_NONE, "a pull of subscription %u: %s", sub->id,
                 err_slug(reply->code));
    struct walk walk = {.model = model, .pull = pull, .reply = reply};
    walk.until_ms = model->now_ms + (pull->lease_ms != 0 ? pull->lease_ms : sub->settings.lease_ms);
    uint32_t available = 0;
    for (size_t slot = 0; slot < sub->lanes.count && !sub->settings.paused; slot++) {
        available += is_available(sub->lanes.items[slot]);
    }
    if (available > 0) {
        walk_round(&walk, sub, (pull->max + available - 1) / available);
        walk_round(&walk, sub, pull->max);
    }
    MODEL_EXPECT(model, walk.taken == count,
                 "a pull of subscription %u gave %u messages, %u are available", sub->id, count,
                 walk.taken);
    MODEL_EXPECT(model, reply->more == (walk.looks >= LOOKS_MAX),
                 "a pull that looked at %u messages says %d to whether there is more", walk.looks,
                 reply->more);
    bool drained = !sub->settings.paused;
    for (size_t slot = 0; slot < sub->lanes.count; slot++) {
        drained = drained && !is_available(sub->lanes.items[slot]);
    }
    MODEL_EXPECT(model, reply->drained == drained,
                 "a pull of subscription %u that leaves nothing (%d) says %d", sub->id, drained,
                 reply->drained);
    sub->starved = drained || (walk.taken < pull->max && !walk.full && !reply->more);
}

/* ---- settle ---- */

/* The entry in which the receipt holds its lease; NULL: it holds none. */
static struct model_entry *leased(const struct model *model, const struct model_sub *sub,
                                  const struct receipt *receipt, struct model_lane **lane)
{
    *lane = model_lane(sub, model_shard(model, receipt->shard_id));
    if (receipt->sub_id != sub->id || *lane == NULL || receipt->sequence >= (*lane)->cursor) {
        return NULL;
    }
    struct model_entry *entry = &(*lane)->entries[receipt->sequence];
    bool live = entry->state == MESSAGE_LEASED && entry->grant == receipt->grant &&
                entry->attempt == receipt->attempt && receipt->epoch == (*lane)->epoch &&
                model->now_ms < entry->due_ms;
    return live ? entry : NULL;
}

static void settle_one(struct model *model, const struct command *command, struct model_lane *lane,
                       uint64_t sequence)
{
    const struct settle *settle = &command->settle;
    const struct sub_settings *settings = &lane->sub->settings;
    struct model_entry *entry = &lane->entries[sequence];
    const char *note = (const char *)settle->note.data;
    if (command->type == COMMAND_ACK) {
        model_move(lane, sequence, MESSAGE_DONE);
        model->figures.acked++;
    } else if (command->type == COMMAND_EXTEND) {
        entry->due_ms =
            model->now_ms + (settle->lease_ms != 0 ? settle->lease_ms : settings->lease_ms);
        lane->due_ms = entry->due_ms < lane->due_ms ? entry->due_ms : lane->due_ms;
    } else if (settle->reject) {
        model_bury(model, lane, sequence, DEAD_REJECTED, note);
    } else if (settle->release) {
        entry->attempt--;
        model_move(lane, sequence, MESSAGE_READY);
    } else {
        model_give_back(model, lane, sequence,
                        settle->has_delay ? settle->delay_ms : settings->retry_delay_ms, note);
    }
}

void model_judge_settle(struct model *model, const struct command *command,
                        const struct reply *reply)
{
    const struct settle *settle = &command->settle;
    const struct model_sub *sub = model_sub(model, settle->sub_id);
    MODEL_EXPECT(model, reply->code == (sub == NULL ? ERR_NOT_FOUND : ERR_NONE),
                 "%s of subscription %u: %s", trace_command_name(command->type), settle->sub_id,
                 err_slug(reply->code));
    for (uint32_t index = 0; index < settle->count; index++) {
        const struct receipt *receipt = &settle->receipts[index];
        struct model_lane *lane = NULL;
        const struct model_entry *entry = sub == NULL ? NULL : leased(model, sub, receipt, &lane);
        enum err_code want = sub == NULL     ? ERR_NOT_FOUND
                             : entry == NULL ? ERR_LEASE_LOST
                                             : ERR_NONE;
        MODEL_EXPECT(model, settle->results[index] == want,
                     "%s of message %u:%llu, attempt %u, grant %u, at %llu: %s, not %s",
                     trace_command_name(command->type), receipt->shard_id,
                     (unsigned long long)receipt->sequence, receipt->attempt, receipt->grant,
                     (unsigned long long)model->now_ms, err_slug(settle->results[index]),
                     err_slug(want));
        if (entry != NULL) {
            settle_one(model, command, lane, receipt->sequence);
        }
        model->figures.refused += entry == NULL;
    }
}
