#include "broker/core/delivery.h"

#include <assert.h>

#include "broker/base/bytes.h"
#include "broker/core/block.h"
#include "broker/core/release.h"
#include "broker/core/topic.h"

enum { DEAD_VERSION = 1 };

void delivery_dead_key(const struct lane *lane, uint64_t sequence,
                       uint8_t out[DELIVERY_DEAD_KEY_SIZE])
{
    bytes_put_be32(out, lane->sub->id);
    bytes_put_be32(out + 4, lane->shard->id);
    bytes_put_be64(out + 8, sequence);
}

bool delivery_dead_decode(struct span key, struct span value, struct delivery_dead *out)
{
    if (key.size != DELIVERY_DEAD_KEY_SIZE || value.size < DELIVERY_DEAD_MIN ||
        value.data[0] != DEAD_VERSION) {
        return false;
    }
    *out = (struct delivery_dead){
        .shard_id = bytes_get_be32(key.data + 4),
        .sequence = bytes_get_be64(key.data + 8),
        .reason = value.data[1],
        .attempt = bytes_get_le16(value.data + 2),
        .since_ms = bytes_get_le64(value.data + 8),
        .note = span_of(value.data + DELIVERY_DEAD_MIN, value.size - DELIVERY_DEAD_MIN),
    };
    return true;
}

err_t delivery_bury(struct core *core, struct chunk *chunk, uint32_t index, enum dead_reason reason,
                    struct span note)
{
    struct entry *entry = &chunk->entries[index];
    uint8_t key[DELIVERY_DEAD_KEY_SIZE];
    uint8_t value[DELIVERY_DEAD_MIN + CORE_NOTE_MAX] = {DEAD_VERSION, (uint8_t)reason};
    assert(note.size <= CORE_NOTE_MAX);
    delivery_dead_key(chunk->lane, chunk->number * CHUNK_SIZE + index, key);
    bytes_put_le16(value + 2, entry->attempt);
    bytes_put_le64(value + 8, core->now_ms);
    if (note.size > 0) {
        memcpy(value + DELIVERY_DEAD_MIN, note.data, note.size);
    }
    TRY(state_put(core, STORE_DEAD, span_of(key, sizeof key),
                  span_of(value, DELIVERY_DEAD_MIN + note.size)));
    entry->reason = (uint8_t)reason;
    entry->due_ms = core->now_ms;
    entry->grant = 0;
    core->effects->dead_lettered++;
    core->effects->expired += reason == DEAD_EXPIRED;
    core->effects->corrupt += reason == DEAD_CORRUPT;
    return chunk_move(core, chunk, index, LIFECYCLE_BURY);
}

err_t delivery_return(struct core *core, struct chunk *chunk, uint32_t index, uint64_t delay_ms,
                      struct span note)
{
    struct entry *entry = &chunk->entries[index];
    struct sub *sub = chunk->lane->sub;
    uint32_t attempts_max = sub->settings.max_attempts;
    entry->grant = 0;
    if (attempts_max != 0 && entry->attempt >= attempts_max) {
        return delivery_bury(core, chunk, index, DEAD_ATTEMPTS, note);
    }
    if (delay_ms > 0) {
        entry->due_ms = state_later(core->now_ms, delay_ms);
        TRY(chunk_move(core, chunk, index, LIFECYCLE_POSTPONE));
        return chunk_due(core, chunk, entry->due_ms);
    }
    entry->due_ms = 0;
    return chunk_move(core, chunk, index, LIFECYCLE_COME_DUE);
}

static err_t remove_dead_row(struct core *core, const struct chunk *chunk, uint32_t index)
{
    uint8_t key[DELIVERY_DEAD_KEY_SIZE];
    delivery_dead_key(chunk->lane, chunk->number * CHUNK_SIZE + index, key);
    return state_remove(core, STORE_DEAD, span_of(key, sizeof key));
}

err_t delivery_revive(struct core *core, struct chunk *chunk, uint32_t index)
{
    struct entry *entry = &chunk->entries[index];
    TRY(remove_dead_row(core, chunk, index));
    entry->attempt = 0;
    entry->reason = 0;
    entry->due_ms = 0;
    return chunk_move(core, chunk, index, LIFECYCLE_REVIVE);
}

err_t delivery_drop(struct core *core, struct chunk *chunk, uint32_t states, uint64_t *count)
{
    for (uint32_t index = 0; index < CHUNK_SIZE; index++) {
        uint8_t state = chunk->entries[index].state;
        if ((states >> state & 1) == 0) {
            continue;
        }
        if (state == MESSAGE_DEAD) {
            TRY(remove_dead_row(core, chunk, index));
        }
        TRY(chunk_move(core, chunk, index, LIFECYCLE_DROP));
        (*count)++;
    }
    return NULL;
}

err_t delivery_reset(struct core *core, struct chunk *chunk, uint64_t target, uint32_t states)
{
    uint64_t base = chunk->number * CHUNK_SIZE;
    uint32_t first = target > base ? (uint32_t)(target - base) : 0;
    bool was_ready = chunk->counts[MESSAGE_READY] > 0;
    for (uint32_t index = first; index < CHUNK_SIZE; index++) {
        struct entry *entry = &chunk->entries[index];
        if (entry->state == MESSAGE_DEAD) {
            TRY(remove_dead_row(core, chunk, index));
        }
        if ((states >> entry->state & 1) != 0) {
            chunk->lane->counts[entry->state]--;
        }
        chunk->counts[entry->state]--;
        chunk->counts[MESSAGE_NONE]++;
        *entry = (struct entry){.state = MESSAGE_NONE};
        bitmap_clear(chunk->outstanding, index);
    }
    chunk_mark_dirty(core, chunk);
    return was_ready && chunk->counts[MESSAGE_READY] == 0 ? chunk_unlist_ready(core, chunk) : NULL;
}

err_t delivery_come_due(struct core *core, struct chunk *chunk)
{
    struct sub *sub = chunk->lane->sub;
    for (uint32_t index = 0; index < CHUNK_SIZE; index++) {
        struct entry *entry = &chunk->entries[index];
        if (entry->due_ms > core->now_ms) {
            continue;
        }
        if (entry->state == MESSAGE_LEASED) {
            core->effects->leases_expired++;
            TRY(delivery_return(core, chunk, index, sub->settings.retry_delay_ms,
                                span_text("lease expired")));
        } else if (entry->state == MESSAGE_SCHEDULED) {
            entry->due_ms = 0;
            TRY(chunk_move(core, chunk, index, LIFECYCLE_COME_DUE));
        }
    }
    return NULL;
}

/* Gives up what the chunk has finished in this batch. */
static err_t release_finished(struct core *core, struct chunk *chunk)
{
    uint64_t bits[CHUNK_WORDS];
    memcpy(bits, chunk->finished, sizeof bits);
    if ((bits[0] | bits[1] | bits[2] | bits[3]) == 0) {
        return NULL;
    }
    memset(chunk->finished, 0, sizeof chunk->finished);
    return release_bits(core, chunk->lane->shard, chunk->number, bits);
}

static bool chunk_before(const struct list_link *a, const struct list_link *b)
{
    return container_of(a, const struct chunk, dirty)->number <
           container_of(b, const struct chunk, dirty)->number;
}

static err_t flush_lane(struct core *core, struct lane *lane)
{
    struct list_link *link;
    TRY(topic_lane_write(core, lane));
    list_sort(&lane->dirty_chunks, chunk_before);
    while ((link = list_first(&lane->dirty_chunks)) != NULL) {
        struct chunk *chunk = container_of(link, struct chunk, dirty);
        TRY(release_finished(core, chunk));
        TRY(chunk_write(core, chunk));
    }
    return NULL;
}

static bool sub_before(const struct list_link *a, const struct list_link *b)
{
    return container_of(a, const struct sub, dirty)->id <
           container_of(b, const struct sub, dirty)->id;
}

err_t delivery_flush(struct core *core)
{
    struct list_link *link;
    list_sort(&core->dirty_subs, sub_before);
    while ((link = list_pop(&core->dirty_subs)) != NULL) {
        struct sub *sub = container_of(link, struct sub, dirty);
        for (size_t slot = bitmap_next(sub->dirty_lanes, sub->lanes.count, 0);
             slot < sub->lanes.count;
             slot = bitmap_next(sub->dirty_lanes, sub->lanes.count, slot + 1)) {
            bitmap_clear(sub->dirty_lanes, slot);
            TRY(flush_lane(core, sub->lanes.items[slot]));
        }
    }
    return NULL;
}

err_t delivery_trim(struct core *core)
{
    if (core->chunk_pool.taken / 2 < core->options.chunks_max &&
        block_excess(core) / 2 < core->options.blocks_max) {
        return NULL;
    }
    TRY(delivery_flush(core));
    chunk_trim(core);
    block_trim(core);
    return NULL;
}

err_t delivery_next_chunk(struct core *core, const struct lane *lane, enum store_table table,
                          uint64_t from, uint64_t *out)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    bool found = false;
    uint8_t key[CHUNK_KEY_SIZE];
    chunk_key(lane, from, key);
    *out = UINT64_MAX;
    TRY(store_cursor_open(core->txn, table, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of(key, sizeof key), &found));
    if (found && cursor->key.size == CHUNK_KEY_SIZE && memcmp(cursor->key.data, key, 8) == 0) {
        *out = bytes_get_be64(cursor->key.data + 8);
    }
out:
    store_cursor_close(cursor);
    return err;
}

/* What a damaged chunk held is not known, so its messages stay counted as needed and their log
 * segments stay; the subscription goes all the same. */
static err_t drop_damaged(struct core *core, const struct lane *lane, uint64_t number)
{
    uint8_t key[CHUNK_KEY_SIZE];
    chunk_key(lane, number, key);
    TRY(state_remove(core, STORE_DELIVERY, span_of(key, sizeof key)));
    TRY(state_remove(core, STORE_READY, span_of(key, sizeof key)));
    for (uint64_t index = 0; index < CHUNK_SIZE; index++) {
        uint8_t dead[DELIVERY_DEAD_KEY_SIZE];
        delivery_dead_key(lane, number * CHUNK_SIZE + index, dead);
        TRY(state_remove(core, STORE_DEAD, span_of(dead, sizeof dead)));
    }
    return NULL;
}

err_t delivery_drop_first_chunk(struct core *core, struct lane *lane, bool *found)
{
    uint64_t number = 0;
    struct chunk *chunk = NULL;
    TRY(delivery_next_chunk(core, lane, STORE_DELIVERY, 0, &number));
    *found = number != UINT64_MAX;
    if (!*found) {
        return NULL;
    }
    bool damaged = false;
    TRY(chunk_look(core, lane, number, &chunk, &damaged));
    if (damaged) {
        return drop_damaged(core, lane, number);
    }
    const uint32_t states =
        1U << MESSAGE_LEASED | 1U << MESSAGE_SCHEDULED | 1U << MESSAGE_READY | 1U << MESSAGE_DEAD;
    uint64_t count = 0;
    TRY(delivery_drop(core, chunk, states, &count));
    TRY(release_finished(core, chunk));
    return chunk_erase(core, chunk);
}
