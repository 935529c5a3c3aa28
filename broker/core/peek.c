#include "broker/base/bytes.h"
#include "broker/core/block.h"
#include "broker/core/delivery.h"
#include "broker/core/inspect.h"
#include "broker/core/messages.h"
#include "broker/core/msglog.h"
#include "broker/core/topic.h"

enum { LOOKS_MAX = 65536, OLDEST_CHUNKS_MAX = 64 };

/* One peek being served. */
struct peeking {
    struct core *core;
    const struct peek *peek;
    struct reply *reply;
    uint32_t found;
    uint32_t looks;
    bool full;
};

static err_t read_message(struct core *core, const struct lane *lane, uint64_t sequence,
                          struct record *out, bool *ok)
{
    uint64_t position = 0;
    TRY(block_position(core, lane->shard, sequence, &position));
    return msglog_read(core, position, lane->shard->id, sequence, out, ok);
}

/* Adds one message to the reply, or stops before it. A damaged one is listed without its content.
 */
static err_t list_message(struct peeking *peeking, const struct lane *lane,
                          const struct delivery *delivery, struct span note)
{
    struct reply *reply = peeking->reply;
    struct record record;
    bool ok = false;
    TRY(read_message(peeking->core, lane, delivery->sequence, &record, &ok));
    peeking->full = peeking->found == peeking->peek->max ||
                    ((peeking->found > 0 || peeking->peek->size_strict) && ok &&
                     reply->payload.size + record.payload.size > peeking->peek->size_max);
    if (peeking->full) {
        reply->more = true;
        reply->next_shard_id = lane->shard->id;
        reply->next_sequence = delivery->sequence;
        return NULL;
    }
    if (!messages_deliver(reply, lane, delivery, ok ? &record : NULL, note)) {
        return ERR(MEMORY, "no memory for a list of messages");
    }
    peeking->found++;
    return NULL;
}

static err_t peek_enqueued(struct peeking *peeking, const struct lane *lane, uint64_t from)
{
    uint64_t sequence = from > lane->cursor ? from : lane->cursor;
    for (; sequence < lane->shard->next_sequence && !peeking->full; sequence++) {
        const struct delivery delivery = {.sequence = sequence, .state = MESSAGE_NONE};
        TRY(list_message(peeking, lane, &delivery, span_of("", 0)));
    }
    return NULL;
}

static bool state_matches(const struct peek *peek, uint8_t state)
{
    return state == (uint8_t)peek->state ||
           (peek->state == MESSAGE_SCHEDULED && state == MESSAGE_READY);
}

static err_t peek_chunk(struct peeking *peeking, const struct lane *lane, const struct chunk *chunk,
                        uint64_t from)
{
    for (uint32_t index = 0; index < CHUNK_SIZE && !peeking->full; index++) {
        const struct entry *entry = &chunk->entries[index];
        uint64_t sequence = chunk->number * CHUNK_SIZE + index;
        if (sequence < from || !state_matches(peeking->peek, entry->state)) {
            continue;
        }
        const struct delivery delivery = {
            .sequence = sequence,
            .attempt = entry->attempt,
            .state = entry->state,
            .due_ms = entry->due_ms,
        };
        TRY(list_message(peeking, lane, &delivery, span_of("", 0)));
    }
    return NULL;
}

static err_t peek_delivery(struct peeking *peeking, struct lane *lane, uint64_t from)
{
    uint64_t number = from / CHUNK_SIZE;
    for (; !peeking->full; number++) {
        struct chunk *chunk = NULL;
        TRY(delivery_next_chunk(peeking->core, lane, STORE_DELIVERY, number, &number));
        if (number == UINT64_MAX) {
            return NULL;
        }
        if (peeking->looks >= LOOKS_MAX) {
            peeking->full = true;
            peeking->reply->more = true;
            peeking->reply->next_shard_id = lane->shard->id;
            peeking->reply->next_sequence = number * CHUNK_SIZE;
            return NULL;
        }
        peeking->looks += CHUNK_SIZE;
        TRY(chunk_get(peeking->core, lane, number, false, &chunk));
        if (chunk != NULL) {
            TRY(peek_chunk(peeking, lane, chunk, from));
        }
    }
    return NULL;
}

err_t inspect_next_dead(struct core *core, const struct lane *lane, uint64_t from,
                        struct delivery_dead *out, bool *found)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    uint8_t key[DELIVERY_DEAD_KEY_SIZE];
    delivery_dead_key(lane, from, key);
    TRY(store_cursor_open(core->txn, STORE_DEAD, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of(key, sizeof key), found));
    *found = *found && cursor->key.size == sizeof key && memcmp(cursor->key.data, key, 8) == 0;
    if (*found && !delivery_dead_decode(cursor->key, cursor->value, out)) {
        err = ERR(CORRUPT, "a dead letter's row of subscription %u, shard %u is damaged",
                  lane->sub->id, lane->shard->id);
    }
out:
    store_cursor_close(cursor);
    return err;
}

static err_t peek_dead(struct peeking *peeking, const struct lane *lane, uint64_t from)
{
    struct delivery_dead dead;
    bool found = true;
    for (; !peeking->full; from = dead.sequence + 1) {
        TRY(inspect_next_dead(peeking->core, lane, from, &dead, &found));
        if (!found) {
            return NULL;
        }
        const struct delivery delivery = {
            .sequence = dead.sequence,
            .attempt = dead.attempt,
            .state = MESSAGE_DEAD,
            .reason = (uint8_t)dead.reason,
            .due_ms = dead.since_ms,
        };
        TRY(list_message(peeking, lane, &delivery, dead.note));
    }
    return NULL;
}

static err_t peek_lane(struct peeking *peeking, struct lane *lane, uint64_t from)
{
    switch (peeking->peek->state) {
    case MESSAGE_NONE:
        return peek_enqueued(peeking, lane, from);
    case MESSAGE_DEAD:
        return peek_dead(peeking, lane, from);
    case MESSAGE_LEASED:
    case MESSAGE_SCHEDULED:
    case MESSAGE_READY:
    case MESSAGE_BLOCKED:
        return peek_delivery(peeking, lane, from);
    case MESSAGE_DONE:
        return NULL;
    }
    return NULL;
}

err_t inspect_peek(struct core *core, const struct peek *peek, struct reply *reply)
{
    struct sub *sub = state_sub(core, peek->sub_id);
    if (sub == NULL || sub->dropping) {
        reply_fail(reply, ERR_NOT_FOUND, "subscription: it does not exist");
        return NULL;
    }
    TRY(delivery_flush(core));
    struct peeking peeking = {.core = core, .peek = peek, .reply = reply};
    for (size_t slot = 0; slot < sub->lanes.count && !peeking.full; slot++) {
        struct lane *lane = sub->lanes.items[slot];
        if (lane->shard->id >= peek->from_shard_id) {
            TRY(peek_lane(&peeking, lane,
                          lane->shard->id == peek->from_shard_id ? peek->from_sequence : 0));
        }
    }
    return NULL;
}

/* The first sequence of the lane that is neither done nor dead. */
static err_t oldest_unfinished(struct core *core, struct lane *lane, uint64_t *out)
{
    uint64_t number = 0;
    *out = lane->cursor;
    if (lane->counts[MESSAGE_LEASED] + lane->counts[MESSAGE_SCHEDULED] +
            lane->counts[MESSAGE_READY] ==
        0) {
        return NULL;
    }
    for (uint32_t looks = 0; looks < OLDEST_CHUNKS_MAX; looks++, number++) {
        struct chunk *chunk = NULL;
        bool damaged = false;
        TRY(delivery_next_chunk(core, lane, STORE_DELIVERY, number, &number));
        if (number == UINT64_MAX) {
            return NULL;
        }
        TRY(chunk_look(core, lane, number, &chunk, &damaged));
        for (uint32_t index = 0; chunk != NULL && index < CHUNK_SIZE; index++) {
            uint8_t state = chunk->entries[index].state;
            if (state == MESSAGE_LEASED || state == MESSAGE_SCHEDULED || state == MESSAGE_READY) {
                *out = number * CHUNK_SIZE + index;
                return NULL;
            }
        }
    }
    return NULL;
}

static err_t lane_stats(struct core *core, struct lane *lane, struct reply *reply)
{
    uint64_t oldest = 0;
    uint64_t oldest_ms = 0;
    TRY(oldest_unfinished(core, lane, &oldest));
    if (oldest < lane->shard->next_sequence) {
        struct record record;
        bool ok = false;
        TRY(read_message(core, lane, oldest, &record, &ok));
        oldest_ms = ok ? record.published_ms : 0;
    }
    const struct sub_stats row = {
        .sub_id = lane->sub->id,
        .shard_id = lane->shard->id,
        .cursor = lane->cursor,
        .enqueued = lane->shard->next_sequence - lane->cursor,
        .leased = lane->counts[MESSAGE_LEASED],
        .scheduled = lane->counts[MESSAGE_SCHEDULED] + lane->counts[MESSAGE_READY],
        .dead = lane->counts[MESSAGE_DEAD],
        .oldest_ms = oldest_ms,
    };
    buf_append(&reply->items, &row, sizeof row);
    return NULL;
}

static err_t shard_stats(struct core *core, const struct shard *shard, struct reply *reply)
{
    struct shard_stats row = {
        .topic_id = shard->topic->id,
        .shard_id = shard->id,
        .number = shard->number,
        .hash_first = shard->hash_first,
        .hash_last = shard->hash_last,
        .next_sequence = shard->next_sequence,
        .retained_from = topic_retains(shard->topic) ? shard->retained_from : shard->next_sequence,
    };
    for (size_t index = 0; index < shard->lanes.count; index++) {
        row.sub_count += !((const struct lane *)shard->lanes.items[index])->sub->dropping;
    }
    buf_append(&reply->items, &row, sizeof row);
    for (size_t index = 0; index < shard->lanes.count; index++) {
        struct lane *lane = shard->lanes.items[index];
        if (!lane->sub->dropping) {
            TRY(lane_stats(core, lane, reply));
            TRY(delivery_trim(core));
        }
    }
    return NULL;
}

static err_t topic_stats(struct core *core, const struct topic *topic, struct reply *reply)
{
    for (size_t index = 0; index < topic->shards.count && !topic->dropping; index++) {
        TRY(shard_stats(core, topic->shards.items[index], reply));
    }
    return NULL;
}

err_t inspect_stats(struct core *core, const struct stats *stats, struct reply *reply)
{
    TRY(delivery_flush(core));
    const struct topic *topic = state_topic(core, stats->topic_id);
    if (topic != NULL) {
        TRY(topic_stats(core, topic, reply));
    }
    /* In order of id, so that the reply does not depend on how topics lie in memory. */
    for (size_t index = 0; stats->topic_id == 0 && index < core->topics_by_id.count; index++) {
        TRY(topic_stats(core, core->topics_by_id.items[index], reply));
    }
    return reply->items.failed ? ERR(MEMORY, "no memory for statistics") : NULL;
}
