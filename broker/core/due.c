#include "broker/core/due.h"

#include "broker/base/bytes.h"
#include "broker/core/chunk.h"
#include "broker/core/dedup.h"
#include "broker/core/delivery.h"

enum { KIND_OFFSET = 8, IDS_OFFSET = 9, CHUNK_ROW_SIZE = IDS_OFFSET + CHUNK_KEY_SIZE };

/* What it costs, about as much as so many messages: a chunk is read, looked through and written. */
enum { DEDUP_WORK = 1, CHUNK_WORK = 16 };

_Static_assert(IDS_OFFSET + DEDUP_KEY_SIZE == DUE_KEY_MAX, "a dedup row is the longest");

static void put_key(uint8_t *key, uint64_t due_ms, enum due_kind kind)
{
    bytes_put_be64(key, due_ms);
    key[KIND_OFFSET] = (uint8_t)kind;
}

static struct span chunk_row(const struct chunk *chunk, uint64_t due_ms, uint8_t key[DUE_KEY_MAX])
{
    put_key(key, due_ms, DUE_CHUNK);
    chunk_key(chunk->lane, chunk->number, key + IDS_OFFSET);
    return span_of(key, CHUNK_ROW_SIZE);
}

/* A row that goes is left to the next tick, which looks what is first then. */
static void note_added(struct core *core, uint64_t due_ms)
{
    core->due_next_ms = due_ms < core->due_next_ms ? due_ms : core->due_next_ms;
}

err_t due_add_chunk(struct core *core, const struct chunk *chunk, uint64_t due_ms)
{
    uint8_t key[DUE_KEY_MAX];
    note_added(core, due_ms);
    return state_put(core, STORE_DUE, chunk_row(chunk, due_ms, key), span_of("", 0));
}

err_t due_remove_chunk(struct core *core, const struct chunk *chunk, uint64_t due_ms)
{
    uint8_t key[DUE_KEY_MAX];
    return state_remove(core, STORE_DUE, chunk_row(chunk, due_ms, key));
}

static struct span dedup_row(const uint8_t dedup_key[DEDUP_KEY_SIZE], uint64_t due_ms,
                             uint8_t key[DUE_KEY_MAX])
{
    put_key(key, due_ms, DUE_DEDUP);
    memcpy(key + IDS_OFFSET, dedup_key, DEDUP_KEY_SIZE);
    return span_of(key, DUE_KEY_MAX);
}

err_t due_add_dedup(struct core *core, const uint8_t dedup_key[DEDUP_KEY_SIZE], uint64_t due_ms)
{
    uint8_t key[DUE_KEY_MAX];
    note_added(core, due_ms);
    return state_put(core, STORE_DUE, dedup_row(dedup_key, due_ms, key), span_of("", 0));
}

err_t due_has_chunk(struct core *core, const struct chunk *chunk, uint64_t due_ms, bool *out)
{
    uint8_t key[DUE_KEY_MAX];
    struct span value;
    return store_get(core->txn, STORE_DUE, chunk_row(chunk, due_ms, key), &value, out);
}

err_t due_has_dedup(struct core *core, const uint8_t dedup_key[DEDUP_KEY_SIZE], uint64_t due_ms,
                    bool *out)
{
    uint8_t key[DUE_KEY_MAX];
    struct span value;
    return store_get(core->txn, STORE_DUE, dedup_row(dedup_key, due_ms, key), &value, out);
}

static bool is_kind(struct span key, enum due_kind kind)
{
    size_t size = kind == DUE_CHUNK ? CHUNK_ROW_SIZE : DUE_KEY_MAX;
    return key.size == size && key.data[KIND_OFFSET] == kind;
}

bool due_dedup_key(struct span key, struct span *out)
{
    *out = span_of(key.data + IDS_OFFSET, DEDUP_KEY_SIZE);
    return is_kind(key, DUE_DEDUP);
}

err_t due_first(struct core *core, struct due_row *out, bool *found)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    const uint8_t zero = 0;
    TRY(store_cursor_open(core->txn, STORE_DUE, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of(&zero, 1), found));
    if (*found) {
        out->key_size = cursor->key.size < DUE_KEY_MAX ? cursor->key.size : DUE_KEY_MAX;
        memcpy(out->key, cursor->key.data, out->key_size);
        out->due_ms = out->key_size >= IDS_OFFSET ? bytes_get_be64(out->key) : 0;
    }
out:
    store_cursor_close(cursor);
    return err;
}

static uint32_t count_out(const struct chunk *chunk)
{
    return chunk->counts[MESSAGE_LEASED] + chunk->counts[MESSAGE_SCHEDULED];
}

/* A finished chunk goes with the next flush, and its row with it. When that is must not show in how
 * much a tick gets done, nor how far a subscription is dropped, so that these rows cost nothing. */
static err_t fire_chunk(struct core *core, const struct due_row *row, uint32_t *work)
{
    struct sub *sub = state_sub(core, bytes_get_be32(row->key + IDS_OFFSET));
    struct lane *lane =
        sub == NULL ? NULL : state_lane(sub, bytes_get_be32(row->key + IDS_OFFSET + 4));
    struct chunk *chunk = NULL;
    bool damaged = false;
    if (lane == NULL) {
        return NULL;
    }
    TRY(chunk_look(core, lane, bytes_get_be64(row->key + IDS_OFFSET + 8), &chunk, &damaged));
    if (chunk == NULL) {
        return NULL;
    }
    uint32_t before = count_out(chunk);
    TRY(delivery_come_due(core, chunk));
    if (chunk->counts[MESSAGE_DONE] < CHUNK_SIZE) {
        *work = CHUNK_WORK + before - count_out(chunk);
    }
    return chunk_due_fired(core, chunk, row->due_ms);
}

static err_t fire_row(struct core *core, const struct due_row *row, uint32_t *work)
{
    struct span key = span_of(row->key, row->key_size);
    TRY(state_remove(core, STORE_DUE, key));
    if (is_kind(key, DUE_CHUNK)) {
        return fire_chunk(core, row, work);
    }
    *work = DEDUP_WORK;
    return is_kind(key, DUE_DEDUP) ? dedup_expire(core, row->key + IDS_OFFSET) : NULL;
}

err_t due_fire(struct core *core, uint32_t *work)
{
    *work = 0;
    while (*work == 0) {
        struct due_row row;
        bool found = false;
        TRY(due_first(core, &row, &found));
        if (!found || row.due_ms > core->now_ms) {
            return NULL;
        }
        TRY(fire_row(core, &row, work));
    }
    return NULL;
}
