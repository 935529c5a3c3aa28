/* Lanes: what is counted of their chunks, and the indexes that lead to them. */
#include "broker/base/bytes.h"
#include "broker/core/check_parts.h"
#include "broker/core/chunk.h"
#include "broker/core/delivery.h"
#include "broker/core/due.h"

enum { SWEEP_KEY_SIZE = 16, DEDUP_VALUE_SIZE = 32, DEDUP_EXPIRES_OFFSET = 24 };

/* A lane being checked: the messages found in its chunks, by state. */
struct counting {
    struct checking *checking;
    struct lane *lane;
    uint64_t counts[STATE_COUNT];
};

static void lane_problem(struct checking *checking, const struct lane *lane, const char *what,
                         uint64_t where)
{
    CHECK_PROBLEM(checking, "topic %u, subscription %u, shard %u: %s %llu", lane->shard->topic->id,
                  lane->sub->id, lane->shard->id, what, (unsigned long long)where);
}

static err_t has_row(struct checking *checking, enum store_table table, struct span key, bool *out)
{
    struct span value;
    return store_get(checking->txn, table, key, &value, out);
}

static err_t check_dead(struct counting *counting, const struct chunk *chunk, uint32_t index)
{
    struct checking *checking = counting->checking;
    const struct entry *entry = &chunk->entries[index];
    uint64_t sequence = chunk->number * CHUNK_SIZE + index;
    uint8_t key[DELIVERY_DEAD_KEY_SIZE];
    struct delivery_dead dead;
    struct span value;
    bool found = false;
    delivery_dead_key(chunk->lane, sequence, key);
    TRY(store_get(checking->txn, STORE_DEAD, span_of(key, sizeof key), &value, &found));
    if (!found || !delivery_dead_decode(span_of(key, sizeof key), value, &dead) ||
        (uint8_t)dead.reason != entry->reason) {
        lane_problem(checking, chunk->lane, "no or another record of dead letter", sequence);
    }
    checking->dead_rows += found;
    return NULL;
}

/* What the cursor has passed has a state, and nothing else has. */
static err_t check_entries(struct counting *counting, const struct chunk *chunk, uint64_t *due_ms)
{
    const struct lane *lane = counting->lane;
    *due_ms = 0;
    for (uint32_t index = 0; index < CHUNK_SIZE; index++) {
        const struct entry *entry = &chunk->entries[index];
        uint64_t sequence = chunk->number * CHUNK_SIZE + index;
        if ((sequence < lane->cursor) != (entry->state != MESSAGE_NONE)) {
            lane_problem(counting->checking, lane, "the cursor does not agree with the state of",
                         sequence);
        }
        bool timed = entry->state == MESSAGE_LEASED || entry->state == MESSAGE_SCHEDULED;
        if (timed && (*due_ms == 0 || entry->due_ms < *due_ms)) {
            *due_ms = entry->due_ms;
        }
        if (entry->state == MESSAGE_DEAD) {
            TRY(check_dead(counting, chunk, index));
        }
        counting->counts[entry->state]++;
    }
    return NULL;
}

static err_t check_chunk_indexes(struct counting *counting, const struct chunk *chunk,
                                 uint64_t due_ms)
{
    struct checking *checking = counting->checking;
    uint8_t key[CHUNK_KEY_SIZE];
    bool ready = false;
    bool due = true;
    chunk_key(chunk->lane, chunk->number, key);
    TRY(has_row(checking, STORE_READY, span_of(key, sizeof key), &ready));
    checking->ready_rows += ready;
    if (ready != (chunk->counts[MESSAGE_READY] > 0)) {
        lane_problem(checking, chunk->lane, "the index of what is ready is wrong for chunk",
                     chunk->number);
    }
    if (chunk->due_indexed_ms != 0) {
        TRY(due_has_chunk(checking->core, chunk, chunk->due_indexed_ms, &due));
        checking->due_rows += due;
    }
    if (!due || (due_ms != 0 && (chunk->due_indexed_ms == 0 || chunk->due_indexed_ms > due_ms))) {
        lane_problem(checking, chunk->lane, "nothing will wake in time chunk", chunk->number);
    }
    return NULL;
}

static err_t check_chunk(struct counting *counting, uint64_t number)
{
    struct core *core = counting->checking->core;
    struct chunk *chunk = NULL;
    uint64_t due_ms = 0;
    TRY(chunk_get(core, counting->lane, number, false, &chunk));
    TRY(check_entries(counting, chunk, &due_ms));
    TRY(check_chunk_indexes(counting, chunk, due_ms));
    if (number * CHUNK_SIZE >= counting->lane->shard->next_sequence) {
        lane_problem(counting->checking, counting->lane, "state beyond the shard's end in chunk",
                     number);
    }
    chunk_trim(core);
    return NULL;
}

static err_t check_lane(struct checking *checking, struct lane *lane)
{
    struct counting counting = {.checking = checking, .lane = lane};
    checking->delivery_rows++;
    for (uint64_t number = 0;; number++) {
        TRY(delivery_next_chunk(checking->core, lane, STORE_DELIVERY, number, &number));
        if (number == UINT64_MAX) {
            break;
        }
        checking->delivery_rows++;
        err_t err = check_chunk(&counting, number);
        TRY(check_absorb(checking, err));
    }
    for (uint8_t state = MESSAGE_LEASED; state <= MESSAGE_DEAD; state++) {
        if (counting.counts[state] != lane->counts[state]) {
            CHECK_PROBLEM(checking,
                          "topic %u, subscription %u, shard %u: counts %llu %s, but has %llu",
                          lane->shard->topic->id, lane->sub->id, lane->shard->id,
                          (unsigned long long)lane->counts[state], lifecycle_name(state),
                          (unsigned long long)counting.counts[state]);
        }
    }
    return NULL;
}

/* Every row of a table must have been met from the lane it belongs to. */
static void check_orphans(struct checking *checking, enum store_table table, const char *name,
                          uint64_t explained)
{
    uint64_t rows = checking->report->rows[table];
    if (rows != explained) {
        CHECK_PROBLEM(checking, "%s: %llu rows, of which %llu belong to something", name,
                      (unsigned long long)rows, (unsigned long long)explained);
    }
}

err_t check_lanes(struct checking *checking)
{
    size_t at = 0;
    const struct sub *sub;
    while ((sub = map_each(&checking->core->subs, &at)) != NULL) {
        for (size_t slot = 0; slot < sub->lanes.count; slot++) {
            TRY(check_lane(checking, sub->lanes.items[slot]));
        }
    }
    check_orphans(checking, STORE_DELIVERY, "delivery state", checking->delivery_rows);
    check_orphans(checking, STORE_READY, "the index of what is ready", checking->ready_rows);
    check_orphans(checking, STORE_DEAD, "dead letters", checking->dead_rows);
    return NULL;
}

/* ---- DUE, DEDUP, SWEEP ---------------------------------------------------------------------- */

/* A key used again after its window has two rows, and may be forgotten at the first one's time: a
 * row about a key is explained by its kind alone. */
static err_t check_due_row(struct checking *checking, struct span key, struct span value)
{
    struct span dedup_key;
    (void)value;
    checking->due_rows += due_dedup_key(key, &dedup_key);
    return NULL;
}

static err_t check_dedup_row(struct checking *checking, struct span key, struct span value)
{
    bool found = false;
    bool sound = key.size == DEDUP_KEY_SIZE && value.size >= DEDUP_VALUE_SIZE; /* a batch: more */
    if (sound) {
        uint64_t expires_ms = bytes_get_le64(value.data + DEDUP_EXPIRES_OFFSET);
        TRY(due_has_dedup(checking->core, key.data, expires_ms, &found));
    }
    if (!found) {
        CHECK_PROBLEM(checking, "an idempotency key %s",
                      sound ? "would never be forgotten" : "has a damaged row");
    }
    return NULL;
}

static err_t check_sweep_row(struct checking *checking, struct span key, struct span value)
{
    (void)value;
    if (key.size != SWEEP_KEY_SIZE ||
        state_shard(checking->core, bytes_get_be32(key.data)) == NULL) {
        CHECK_PROBLEM(checking, "a range to release belongs to no shard");
    }
    return NULL;
}

err_t check_times(struct checking *checking)
{
    TRY(check_table(checking, STORE_DEDUP, check_dedup_row));
    TRY(check_table(checking, STORE_DUE, check_due_row));
    check_orphans(checking, STORE_DUE, "the index of what happens when", checking->due_rows);
    return check_table(checking, STORE_SWEEP, check_sweep_row);
}
