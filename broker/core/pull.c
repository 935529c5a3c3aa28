#include "broker/core/block.h"
#include "broker/core/delivery.h"
#include "broker/core/messages.h"
#include "broker/core/msglog.h"
#include "broker/core/topic.h"

enum {
    LEFT_LANES_MAX = 64,  /* lanes counted to tell how much is left */
    LOOKS_MAX = 16384,    /* messages one pull may look at, delayed and expired ones included */
    SIZE_PER_LOOK = 4096, /* bytes of one that is not delivered, which are read and checked too */
};

/* One pull being served. */
struct pulling {
    struct core *core;
    const struct pull *pull;
    struct reply *reply;
    uint64_t lease_until_ms;
    uint32_t taken;
    uint32_t share; /* how many this lane may still give in this round */
    uint32_t looks;
    bool full;
    bool fresh; /* it gives something whose publish need not be on disk yet */
};

bool messages_deliver(struct reply *reply, const struct lane *lane, const struct delivery *delivery,
                      const struct record *record, struct span note)
{
    struct delivery *row = (struct delivery *)(void *)buf_extend(&reply->items, sizeof *row);
    if (row == NULL) {
        return false;
    }
    *row = *delivery;
    row->shard_id = lane->shard->id;
    row->shard_number = lane->shard->number;
    row->epoch = lane->epoch;
    row->payload_offset = (uint32_t)reply->payload.size;
    if (record != NULL) {
        row->published_ms = record->published_ms;
        row->expires_ms = record->expires_ms;
        row->key_size = record->key_size;
        row->attributes_size = record->attributes_size;
        row->body_size = record->body_size;
        buf_append_span(&reply->payload, record->payload);
    }
    row->note_size = (uint32_t)note.size;
    buf_append_span(&reply->payload, note);
    return !reply->payload.failed;
}

static bool may_take(const struct pulling *pulling, const struct lane *lane)
{
    uint32_t in_flight_max = lane->sub->settings.max_in_flight;
    return !pulling->full && pulling->taken < pulling->pull->max && pulling->share > 0 &&
           pulling->looks < LOOKS_MAX &&
           (in_flight_max == 0 || lane->counts[MESSAGE_LEASED] < in_flight_max);
}

static err_t lease(struct pulling *pulling, struct chunk *chunk, uint32_t index,
                   const struct record *record)
{
    struct lane *lane = chunk->lane;
    struct entry *entry = &chunk->entries[index];
    const struct delivery delivery = {
        .sequence = record->sequence,
        .grant = pulling->pull->nonce + lane->grant,
        .attempt = (uint16_t)(entry->attempt < UINT16_MAX ? entry->attempt + 1 : UINT16_MAX),
        .state = MESSAGE_LEASED,
        .due_ms = pulling->lease_until_ms,
    };
    if (!messages_deliver(pulling->reply, lane, &delivery, record, span_of("", 0))) {
        return ERR(MEMORY, "no memory for the reply to a pull");
    }
    entry->attempt = delivery.attempt;
    entry->grant = delivery.grant;
    entry->due_ms = pulling->lease_until_ms;
    TRY(chunk_move(pulling->core, chunk, index, LIFECYCLE_TAKE));
    TRY(chunk_due(pulling->core, chunk, entry->due_ms));
    pulling->taken++;
    pulling->share--;
    return NULL;
}

static bool fits(struct pulling *pulling, const struct record *record)
{
    pulling->full = (pulling->taken > 0 || pulling->pull->size_strict) &&
                    pulling->reply->payload.size + record->payload.size > pulling->pull->size_max;
    return !pulling->full;
}

/* Leases a message, or finds that it cannot be delivered now; false in `moved` when it must stay
 * where it is. */
static err_t offer(struct pulling *pulling, struct chunk *chunk, uint32_t index, bool *moved)
{
    struct core *core = pulling->core;
    struct shard *shard = chunk->lane->shard;
    struct entry *entry = &chunk->entries[index];
    uint64_t sequence = chunk->number * CHUNK_SIZE + index;
    uint64_t position = 0;
    struct record record;
    bool ok = false;
    pulling->looks++;
    *moved = true;
    TRY(block_position(core, shard, sequence, &position));
    TRY(msglog_read(core, position, shard->id, sequence, &record, &ok));
    if (!ok) {
        return delivery_bury(core, chunk, index, DEAD_CORRUPT,
                             span_text("stored bytes fail their check"));
    }
    if (record.expires_ms != 0 && record.expires_ms <= core->now_ms) {
        pulling->looks += (uint32_t)(record.payload.size / SIZE_PER_LOOK);
        return delivery_bury(core, chunk, index, DEAD_EXPIRED, span_of("", 0));
    }
    if (entry->state == MESSAGE_NONE && record.not_before_ms > core->now_ms) {
        pulling->looks += (uint32_t)(record.payload.size / SIZE_PER_LOOK);
        entry->due_ms = record.not_before_ms;
        TRY(chunk_move(core, chunk, index, LIFECYCLE_POSTPONE));
        return chunk_due(core, chunk, entry->due_ms);
    }
    *moved = fits(pulling, &record);
    pulling->fresh = pulling->fresh || (*moved && position >= core->log.fresh_from);
    return *moved ? lease(pulling, chunk, index, &record) : NULL;
}

/* What is to be delivered again goes first. */
static err_t take_ready(struct pulling *pulling, struct lane *lane)
{
    uint64_t number = 0;
    while (lane->counts[MESSAGE_READY] > 0 && may_take(pulling, lane)) {
        struct chunk *chunk = NULL;
        TRY(delivery_next_chunk(pulling->core, lane, STORE_READY, number, &number));
        if (number == UINT64_MAX) {
            return NULL;
        }
        TRY(chunk_get(pulling->core, lane, number, false, &chunk));
        for (uint32_t index = 0; chunk != NULL && index < CHUNK_SIZE && may_take(pulling, lane);
             index++) {
            bool moved = true;
            if (chunk->entries[index].state == MESSAGE_READY) {
                TRY(offer(pulling, chunk, index, &moved));
            }
        }
        number++;
    }
    return NULL;
}

static err_t take_new(struct pulling *pulling, struct lane *lane)
{
    struct shard *shard = lane->shard;
    while (lane->cursor < shard->next_sequence && may_take(pulling, lane)) {
        struct chunk *chunk = NULL;
        uint32_t index = (uint32_t)(lane->cursor % CHUNK_SIZE);
        TRY(chunk_get(pulling->core, lane, lane->cursor / CHUNK_SIZE, true, &chunk));
        TRY(chunk_check_cursor(chunk));
        for (; index < CHUNK_SIZE && lane->cursor < shard->next_sequence && may_take(pulling, lane);
             index++) {
            bool moved = false;
            TRY(offer(pulling, chunk, index, &moved));
            if (!moved) {
                return NULL;
            }
            lane->cursor++;
        }
    }
    return NULL;
}

static err_t take(struct pulling *pulling, struct lane *lane)
{
    uint32_t before = pulling->taken;
    lane->grant++;
    TRY(take_ready(pulling, lane));
    TRY(take_new(pulling, lane));
    if (pulling->taken == before) {
        lane->grant--;
    }
    state_update_available(lane);
    return NULL;
}

static size_t count_available(const struct sub *sub)
{
    size_t count = 0;
    for (size_t word = 0; word < (sub->lanes.count + 63) / 64; word++) {
        count += (size_t)__builtin_popcountll(sub->available[word]);
    }
    return count;
}

/* Asks every lane that has something, from `first` round to it again, for at most `share` messages.
 */
static err_t round_of(struct pulling *pulling, struct sub *sub, size_t first, uint32_t share)
{
    size_t count = sub->lanes.count;
    const size_t bounds[2][2] = {{first, count}, {0, first}};
    for (size_t part = 0; part < 2; part++) {
        size_t end = bounds[part][1];
        for (size_t slot = bitmap_next(sub->available, end, bounds[part][0]); slot < end;
             slot = bitmap_next(sub->available, end, slot + 1)) {
            pulling->share = share;
            TRY(take(pulling, sub->lanes.items[slot]));
            if (pulling->full || pulling->taken == pulling->pull->max) {
                return NULL;
            }
        }
    }
    return NULL;
}

/* How much is there to be handed out in the first lanes that have something: enough to tell how
 * many others should look, without visiting thousands of lanes for it. */
static uint64_t count_left(const struct sub *sub)
{
    uint64_t left = 0;
    uint32_t in_flight_max = sub->settings.max_in_flight;
    size_t slot = bitmap_next(sub->available, sub->lanes.count, 0);
    for (size_t lanes = 0; lanes < LEFT_LANES_MAX && slot < sub->lanes.count; lanes++) {
        const struct lane *lane = sub->lanes.items[slot];
        uint64_t count = lane->counts[MESSAGE_READY] + lane->shard->next_sequence - lane->cursor;
        uint64_t leased = lane->counts[MESSAGE_LEASED];
        uint64_t room = leased < in_flight_max ? in_flight_max - leased : 0;
        left += in_flight_max != 0 && room < count ? room : count;
        slot = bitmap_next(sub->available, sub->lanes.count, slot + 1);
    }
    return left;
}

/* Every lane has its share; what some leave of theirs, the others may fill up. */
static err_t take_all(struct pulling *pulling, struct sub *sub, size_t available)
{
    const struct pull *pull = pulling->pull;
    uint64_t lease_ms = pull->lease_ms != 0 ? pull->lease_ms : sub->settings.lease_ms;
    size_t first = pull->rotation % sub->lanes.count;
    uint32_t share = (uint32_t)((pull->max + available - 1) / available);
    pulling->lease_until_ms = state_later(pulling->core->now_ms, lease_ms);
    TRY(round_of(pulling, sub, first, share));
    if (pulling->full || pulling->taken == pull->max) {
        return NULL;
    }
    return round_of(pulling, sub, first, pull->max);
}

err_t messages_pull(struct core *core, const struct pull *pull, struct reply *reply)
{
    struct sub *sub = state_sub(core, pull->sub_id);
    if (sub == NULL || sub->dropping) {
        reply_fail(reply, ERR_NOT_FOUND, "subscription: it does not exist");
        return NULL;
    }
    if (sub->settings.paused) {
        return NULL;
    }
    struct pulling pulling = {.core = core, .pull = pull, .reply = reply};
    size_t available = count_available(sub);
    if (available > 0) {
        TRY(take_all(&pulling, sub, available));
    }
    reply->left = count_left(sub);
    reply->more = pulling.looks >= LOOKS_MAX;
    reply->early = pulling.taken > 0 && (!pulling.fresh || topic_answers_early(core, sub->topic));
    reply->drained = count_available(sub) == 0;
    if (reply->drained) {
        state_unwake(core, sub);
    }
    return NULL;
}
