#include "broker/core/chunk.h"

#include <assert.h>

#include "broker/base/bytes.h"
#include "broker/core/due.h"

/* Value: version u8, zero u8, count u16, due u64, done bits 32 bytes; then, for the entries below
 * `count` that are not done, runs of equal ones: length - 1 u8, state u8, reason u8, zero u8,
 * attempt u16, zero u16, grant u32, due u64. */
enum {
    CHUNK_VERSION = 1,
    CHUNK_HEADER_SIZE = 12,
    CHUNK_BITS_SIZE = CHUNK_SIZE / 8,
    RUN_SIZE = 20,
};

void chunk_key(const struct lane *lane, uint64_t number, uint8_t out[CHUNK_KEY_SIZE])
{
    bytes_put_be32(out, lane->sub->id);
    bytes_put_be32(out + 4, lane->shard->id);
    bytes_put_be64(out + 8, number);
}

static bool decode_runs(const uint8_t *at, const uint8_t *end, size_t count, struct chunk *chunk)
{
    size_t index = 0;
    for (; at < end; at += RUN_SIZE) {
        struct entry entry = {
            .state = at[1],
            .reason = at[2],
            .attempt = bytes_get_le16(at + 4),
            .grant = bytes_get_le32(at + 8),
            .due_ms = bytes_get_le64(at + 12),
        };
        if (entry.state == MESSAGE_NONE || entry.state >= MESSAGE_DONE) {
            return false;
        }
        for (size_t length = at[0] + 1U; length > 0; index++) {
            if (index >= count) {
                return false;
            }
            if (chunk->entries[index].state != MESSAGE_DONE) {
                chunk->entries[index] = entry;
                length--;
            }
        }
    }
    return true;
}

bool chunk_decode(struct span value, struct chunk *chunk)
{
    if (value.size < CHUNK_HEADER_SIZE + CHUNK_BITS_SIZE || value.data[0] != CHUNK_VERSION ||
        (value.size - CHUNK_HEADER_SIZE - CHUNK_BITS_SIZE) % RUN_SIZE != 0) {
        return false;
    }
    size_t count = bytes_get_le16(value.data + 2);
    chunk->due_indexed_ms = bytes_get_le64(value.data + 4);
    if (count > CHUNK_SIZE) {
        return false;
    }
    for (size_t word = 0; word < CHUNK_WORDS; word++) {
        uint64_t bits = bytes_get_le64(value.data + CHUNK_HEADER_SIZE + word * 8);
        for (; bits != 0; bits &= bits - 1) {
            chunk->entries[word * 64 + (size_t)__builtin_ctzll(bits)].state = MESSAGE_DONE;
        }
    }
    const uint8_t *runs = value.data + CHUNK_HEADER_SIZE + CHUNK_BITS_SIZE;
    if (!decode_runs(runs, value.data + value.size, count, chunk)) {
        return false;
    }
    for (size_t index = 0; index < CHUNK_SIZE; index++) {
        uint8_t state = chunk->entries[index].state;
        if ((index < count) != (state != MESSAGE_NONE)) {
            return false; /* each entry below count is in some run or done */
        }
        chunk->counts[state]++;
        if (state != MESSAGE_NONE && state != MESSAGE_DONE) {
            bitmap_set(chunk->outstanding, index);
        }
    }
    return true;
}

static bool same_run(const struct entry *a, const struct entry *b)
{
    return a->state == b->state && a->reason == b->reason && a->attempt == b->attempt &&
           a->grant == b->grant && a->due_ms == b->due_ms;
}

static void append_run(struct buf *out, const struct entry *entry, size_t length)
{
    uint8_t *at = buf_extend(out, RUN_SIZE);
    if (at == NULL) {
        return;
    }
    memset(at, 0, RUN_SIZE);
    at[0] = (uint8_t)(length - 1);
    at[1] = entry->state;
    at[2] = entry->reason;
    bytes_put_le16(at + 4, entry->attempt);
    bytes_put_le32(at + 8, entry->grant);
    bytes_put_le64(at + 12, entry->due_ms);
}

/* The runs of equal entries among those in delivery. */
static void encode_runs(const struct chunk *chunk, struct buf *out)
{
    const struct entry *run = NULL;
    size_t length = 0;
    for (size_t word = 0; word < CHUNK_WORDS; word++) {
        for (uint64_t bits = chunk->outstanding[word]; bits != 0; bits &= bits - 1) {
            const struct entry *entry = &chunk->entries[word * 64 + (size_t)__builtin_ctzll(bits)];
            if (run != NULL && same_run(run, entry)) {
                length++;
                continue;
            }
            if (run != NULL) {
                append_run(out, run, length);
            }
            run = entry;
            length = 1;
        }
    }
    if (run != NULL) {
        append_run(out, run, length);
    }
}

static void encode(const struct chunk *chunk, struct buf *out)
{
    size_t count = CHUNK_SIZE - chunk->counts[MESSAGE_NONE];
    buf_reset(out);
    uint8_t *header = buf_extend(out, CHUNK_HEADER_SIZE + CHUNK_BITS_SIZE);
    if (header == NULL) {
        return;
    }
    uint64_t done[CHUNK_WORDS] = {0};
    for (size_t word = 0; word < CHUNK_WORDS && word * 64 < count; word++) {
        uint64_t taken = count - word * 64 >= 64 ? UINT64_MAX : (1ULL << (count - word * 64)) - 1;
        done[word] = taken & ~chunk->outstanding[word];
    }
    memset(header, 0, CHUNK_HEADER_SIZE);
    header[0] = CHUNK_VERSION;
    bytes_put_le16(header + 2, (uint16_t)count);
    bytes_put_le64(header + 4, chunk->due_indexed_ms);
    for (size_t word = 0; word < CHUNK_WORDS; word++) {
        bytes_put_le64(header + CHUNK_HEADER_SIZE + word * 8, done[word]);
    }
    encode_runs(chunk, out);
}

static err_t load(struct core *core, struct lane *lane, uint64_t number, struct chunk *chunk,
                  bool *found)
{
    uint8_t key[CHUNK_KEY_SIZE];
    chunk_key(lane, number, key);
    struct span value;
    TRY(store_get(core->txn, STORE_DELIVERY, span_of(key, sizeof key), &value, found));
    if (*found && !chunk_decode(value, chunk)) {
        return ERR(CORRUPT, "delivery state of subscription %u, shard %u, chunk %llu is damaged",
                   lane->sub->id, lane->shard->id, (unsigned long long)number);
    }
    chunk->stored = *found;
    return NULL;
}

err_t chunk_check_cursor(const struct chunk *chunk)
{
    const struct lane *lane = chunk->lane;
    uint64_t base = chunk->number * CHUNK_SIZE;
    uint64_t passed = lane->cursor > base ? lane->cursor - base : 0;
    passed = passed < CHUNK_SIZE ? passed : CHUNK_SIZE;
    if (chunk->counts[MESSAGE_NONE] != CHUNK_SIZE - passed) {
        return ERR(CORRUPT,
                   "the cursor of subscription %u on shard %u, or its chunk %llu, is damaged",
                   lane->sub->id, lane->shard->id, (unsigned long long)chunk->number);
    }
    return NULL;
}

static void mark_done_before_cursor(struct chunk *chunk)
{
    uint64_t base = chunk->number * CHUNK_SIZE;
    uint64_t end = chunk->lane->cursor > base ? chunk->lane->cursor - base : 0;
    end = end < CHUNK_SIZE ? end : CHUNK_SIZE;
    for (size_t index = 0; index < end; index++) {
        chunk->entries[index].state = MESSAGE_DONE;
    }
    chunk->counts[MESSAGE_DONE] = (uint16_t)end;
    chunk->counts[MESSAGE_NONE] = (uint16_t)(CHUNK_SIZE - end);
}

err_t chunk_get(struct core *core, struct lane *lane, uint64_t number, bool create,
                struct chunk **out)
{
    struct chunk *chunk = map_get(&lane->chunks, number);
    if (chunk != NULL) {
        list_remove(&chunk->lru);
        list_append(&core->chunk_lru, &chunk->lru);
        *out = chunk;
        return NULL;
    }
    chunk = pool_take(&core->chunk_pool);
    if (chunk == NULL) {
        return ERR(MEMORY, "no memory for delivery state");
    }
    chunk->lane = lane;
    chunk->number = number;
    bool found = false;
    err_t err = load(core, lane, number, chunk, &found);
    if (err != NULL || (!found && !create)) {
        pool_give(&core->chunk_pool, chunk);
        *out = NULL;
        return err == NULL ? NULL : err_passed(err, __func__);
    }
    if (!found) {
        mark_done_before_cursor(chunk);
    }
    if (!map_put(&lane->chunks, number, chunk)) {
        pool_give(&core->chunk_pool, chunk);
        return ERR(MEMORY, "no memory for delivery state");
    }
    list_append(&core->chunk_lru, &chunk->lru);
    *out = chunk;
    return NULL;
}

err_t chunk_look(struct core *core, struct lane *lane, uint64_t number, struct chunk **out,
                 bool *damaged)
{
    err_t err = chunk_get(core, lane, number, false, out);
    *damaged = err_code(err) == ERR_CORRUPT;
    if (*damaged) {
        core->corrupt++;
        err_free(err);
        return NULL;
    }
    return err == NULL ? NULL : err_passed(err, __func__);
}

void chunk_mark_dirty(struct core *core, struct chunk *chunk)
{
    struct lane *lane = chunk->lane;
    core->marks++;
    if (!list_linked(&chunk->dirty)) {
        list_append(&lane->dirty_chunks, &chunk->dirty);
    }
    bitmap_set(lane->sub->dirty_lanes, lane->slot);
    if (!list_linked(&lane->sub->dirty)) {
        list_append(&core->dirty_subs, &lane->sub->dirty);
    }
}

static err_t ready_row(struct core *core, const struct chunk *chunk, bool present)
{
    uint8_t key[CHUNK_KEY_SIZE];
    chunk_key(chunk->lane, chunk->number, key);
    if (present) {
        return state_put(core, STORE_READY, span_of(key, sizeof key), span_of("", 0));
    }
    return state_remove(core, STORE_READY, span_of(key, sizeof key));
}

err_t chunk_unlist_ready(struct core *core, const struct chunk *chunk)
{
    return ready_row(core, chunk, false);
}

err_t chunk_move(struct core *core, struct chunk *chunk, uint32_t index, enum lifecycle_event event)
{
    struct lane *lane = chunk->lane;
    struct entry *entry = &chunk->entries[index];
    enum message_state from = entry->state;
    enum message_state to = lifecycle_next(from, event);
    entry->state = (uint8_t)to;
    chunk->counts[from]--;
    chunk->counts[to]++;
    if (from != MESSAGE_NONE) {
        lane->counts[from]--;
    }
    if (to == MESSAGE_DONE) {
        bitmap_set(chunk->finished, index);
        bitmap_clear(chunk->outstanding, index);
        *entry = (struct entry){.state = MESSAGE_DONE};
    } else {
        lane->counts[to]++;
        bitmap_set(chunk->outstanding, index);
    }
    chunk_mark_dirty(core, chunk);
    if (from == MESSAGE_READY && chunk->counts[MESSAGE_READY] == 0) {
        TRY(ready_row(core, chunk, false));
        state_update_available(lane);
    }
    if (to == MESSAGE_READY) {
        if (chunk->counts[MESSAGE_READY] == 1) {
            TRY(ready_row(core, chunk, true));
        }
        state_update_available(lane);
    }
    bool freed = from == MESSAGE_LEASED && lane->sub->settings.max_in_flight != 0;
    return to == MESSAGE_READY || freed ? state_wake(core, lane->sub) : NULL;
}

err_t chunk_due(struct core *core, struct chunk *chunk, uint64_t due_ms)
{
    if (chunk->due_indexed_ms != 0 && chunk->due_indexed_ms <= due_ms) {
        return NULL;
    }
    if (chunk->due_indexed_ms != 0) {
        TRY(due_remove_chunk(core, chunk, chunk->due_indexed_ms));
    }
    TRY(due_add_chunk(core, chunk, due_ms));
    chunk->due_indexed_ms = due_ms;
    chunk_mark_dirty(core, chunk);
    return NULL;
}

err_t chunk_due_fired(struct core *core, struct chunk *chunk, uint64_t due_ms)
{
    if (chunk->due_indexed_ms != due_ms) {
        return NULL;
    }
    uint64_t next = 0;
    for (size_t index = 0; index < CHUNK_SIZE; index++) {
        const struct entry *entry = &chunk->entries[index];
        if ((entry->state == MESSAGE_LEASED || entry->state == MESSAGE_SCHEDULED) &&
            (next == 0 || entry->due_ms < next)) {
            next = entry->due_ms;
        }
    }
    chunk->due_indexed_ms = 0;
    chunk_mark_dirty(core, chunk);
    return next == 0 ? NULL : chunk_due(core, chunk, next);
}

void chunk_skip(struct core *core, struct chunk *chunk, uint32_t first, uint32_t end)
{
    for (uint32_t index = first; index < end; index++) {
        assert(chunk->entries[index].state == MESSAGE_NONE);
        chunk->entries[index].state = MESSAGE_DONE;
    }
    chunk->counts[MESSAGE_NONE] = (uint16_t)(chunk->counts[MESSAGE_NONE] - (end - first));
    chunk->counts[MESSAGE_DONE] = (uint16_t)(chunk->counts[MESSAGE_DONE] + (end - first));
    chunk_mark_dirty(core, chunk);
}

err_t chunk_needed(struct core *core, struct lane *lane, uint64_t number,
                   uint64_t bits[CHUNK_WORDS])
{
    uint64_t base = number * CHUNK_SIZE;
    memset(bits, lane->cursor <= base ? 0xff : 0, CHUNK_WORDS * sizeof *bits);
    if (lane->cursor <= base) {
        return NULL;
    }
    if (lane->cursor < base + CHUNK_SIZE) {
        bitmap_set_range(bits, lane->cursor - base, CHUNK_SIZE);
    }
    struct chunk *chunk = NULL;
    bool damaged = false;
    TRY(chunk_look(core, lane, number, &chunk, &damaged));
    if (chunk == NULL) {
        if (damaged) {
            memset(bits, 0xff, CHUNK_WORDS * sizeof *bits);
        }
        return NULL;
    }
    for (size_t word = 0; word < CHUNK_WORDS; word++) {
        bits[word] |= chunk->finished[word] | chunk->outstanding[word];
    }
    return NULL;
}

err_t chunk_needs(struct core *core, struct lane *lane, uint64_t sequence, bool *out)
{
    struct chunk *chunk = NULL;
    *out = sequence >= lane->cursor;
    if (*out) {
        return NULL;
    }
    TRY(chunk_look(core, lane, sequence / CHUNK_SIZE, &chunk, out));
    if (chunk != NULL) {
        size_t index = sequence % CHUNK_SIZE;
        *out = bitmap_test(chunk->outstanding, index) || bitmap_test(chunk->finished, index);
    }
    return NULL;
}

static void forget(struct core *core, struct chunk *chunk)
{
    if (list_linked(&chunk->dirty)) {
        list_remove(&chunk->dirty);
    }
    list_remove(&chunk->lru);
    map_remove(&chunk->lane->chunks, chunk->number);
    pool_give(&core->chunk_pool, chunk);
}

static bool is_finished(const struct chunk *chunk)
{
    return chunk->counts[MESSAGE_DONE] == CHUNK_SIZE ||
           (chunk->counts[MESSAGE_DONE] + chunk->counts[MESSAGE_NONE] == CHUNK_SIZE &&
            chunk->due_indexed_ms == 0);
}

err_t chunk_write(struct core *core, struct chunk *chunk)
{
    uint8_t key[CHUNK_KEY_SIZE];
    chunk_key(chunk->lane, chunk->number, key);
    list_remove(&chunk->dirty);
    if (!is_finished(chunk)) {
        encode(chunk, &core->value);
        if (core->value.failed) {
            return ERR(MEMORY, "no memory for delivery state");
        }
        chunk->stored = true;
        return state_put(core, STORE_DELIVERY, span_of(key, sizeof key), buf_span(&core->value));
    }
    if (chunk->due_indexed_ms != 0) {
        TRY(due_remove_chunk(core, chunk, chunk->due_indexed_ms));
        chunk->due_indexed_ms = 0;
    }
    if (chunk->stored) {
        TRY(state_remove(core, STORE_DELIVERY, span_of(key, sizeof key)));
        chunk->stored = false;
    }
    forget(core, chunk);
    return NULL;
}

err_t chunk_erase(struct core *core, struct chunk *chunk)
{
    struct lane *lane = chunk->lane;
    for (uint8_t state = MESSAGE_LEASED; state < MESSAGE_DONE; state++) {
        lane->counts[state] -= chunk->counts[state];
    }
    if (chunk->counts[MESSAGE_READY] > 0) {
        TRY(ready_row(core, chunk, false));
    }
    if (chunk->due_indexed_ms != 0) {
        TRY(due_remove_chunk(core, chunk, chunk->due_indexed_ms));
    }
    if (chunk->stored) {
        uint8_t key[CHUNK_KEY_SIZE];
        chunk_key(lane, chunk->number, key);
        TRY(state_remove(core, STORE_DELIVERY, span_of(key, sizeof key)));
    }
    forget(core, chunk);
    return NULL;
}

void chunk_trim(struct core *core)
{
    while (core->chunk_pool.taken > core->options.chunks_max) {
        struct chunk *chunk = container_of(list_first(&core->chunk_lru), struct chunk, lru);
        assert(!list_linked(&chunk->dirty));
        forget(core, chunk);
    }
}

void chunk_forget_all(struct core *core, struct lane *lane)
{
    size_t at = 0;
    struct chunk *chunk;
    while ((chunk = map_each(&lane->chunks, &at)) != NULL) {
        if (list_linked(&chunk->dirty)) {
            list_remove(&chunk->dirty);
        }
        list_remove(&chunk->lru);
        pool_give(&core->chunk_pool, chunk);
    }
    map_deinit(&lane->chunks);
}
