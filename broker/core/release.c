#include "broker/core/release.h"

#include "broker/base/bytes.h"
#include "broker/core/block.h"
#include "broker/core/chunk.h"
#include "broker/core/msglog.h"
#include "broker/core/topic.h"

/* SWEEP: shard u32, sub u32, from u64 -> version u8, to u64. */
enum { SWEEP_VERSION = 1, SWEEP_KEY_SIZE = 16, SWEEP_VALUE_SIZE = 9 };

/* Sets the bits of the block that lie in [from, to). */
static void set_range(uint64_t number, uint64_t from, uint64_t to, uint64_t bits[CHUNK_WORDS])
{
    uint64_t base = number * CHUNK_SIZE;
    uint64_t first = from > base ? from - base : 0;
    uint64_t end = to > base ? to - base : 0;
    end = end < CHUNK_SIZE ? end : CHUNK_SIZE;
    if (first == 0 && end == CHUNK_SIZE) {
        memset(bits, 0xff, CHUNK_WORDS * sizeof *bits);
    } else if (first < end) {
        bitmap_set_range(bits, first, end);
    }
}

err_t release_needed_bits(struct core *core, struct shard *shard, uint64_t number,
                          uint64_t out[CHUNK_WORDS])
{
    memset(out, 0, CHUNK_WORDS * sizeof *out);
    if (topic_retains(shard->topic)) {
        set_range(number, shard->retained_from, UINT64_MAX, out);
    }
    for (struct list_link *link = list_first(&shard->sweeps); link != NULL;
         link = list_next(&shard->sweeps, link)) {
        struct sweep *sweep = container_of(link, struct sweep, link);
        set_range(number, sweep->from, sweep->to, out);
    }
    for (size_t index = 0; index < shard->lanes.count; index++) {
        uint64_t bits[CHUNK_WORDS];
        TRY(chunk_needed(core, shard->lanes.items[index], number, bits));
        for (size_t word = 0; word < CHUNK_WORDS; word++) {
            out[word] |= bits[word];
        }
    }
    return NULL;
}

static bool is_empty(const uint64_t bits[CHUNK_WORDS])
{
    return (bits[0] | bits[1] | bits[2] | bits[3]) == 0;
}

err_t release_bits(struct core *core, struct shard *shard, uint64_t number,
                   const uint64_t bits[CHUNK_WORDS])
{
    uint64_t needed[CHUNK_WORDS];
    uint64_t gone[CHUNK_WORDS];
    TRY(release_needed_bits(core, shard, number, needed));
    for (size_t word = 0; word < CHUNK_WORDS; word++) {
        gone[word] = bits[word] & ~needed[word];
    }
    if (is_empty(gone)) {
        return NULL;
    }
    struct block *block = NULL;
    TRY(block_get(core, shard, number, &block));
    for (size_t index = bitmap_next(gone, CHUNK_SIZE, 0); index < CHUNK_SIZE;
         index = bitmap_next(gone, CHUNK_SIZE, index + 1)) {
        if (block->positions[index] != 0) {
            TRY(msglog_release(core, block->positions[index]));
        }
    }
    return is_empty(needed) ? block_drop(core, shard, number) : NULL;
}

err_t release_needed(struct core *core, struct shard *shard, uint64_t sequence, bool *out)
{
    *out = topic_retains(shard->topic) && sequence >= shard->retained_from;
    for (struct list_link *link = list_first(&shard->sweeps); link != NULL && !*out;
         link = list_next(&shard->sweeps, link)) {
        const struct sweep *sweep = container_of(link, struct sweep, link);
        *out = sequence >= sweep->from && sequence < sweep->to;
    }
    for (size_t index = 0; index < shard->lanes.count && !*out; index++) {
        TRY(chunk_needs(core, shard->lanes.items[index], sequence, out));
    }
    return NULL;
}

err_t release_block_needed(struct core *core, struct shard *shard, uint64_t number, bool *out)
{
    uint64_t bits[CHUNK_WORDS];
    TRY(release_needed_bits(core, shard, number, bits));
    *out = !is_empty(bits);
    return NULL;
}

bool release_wanted(const struct shard *shard)
{
    return shard->lanes.count > 0 || topic_retains(shard->topic);
}

static void sweep_key(const struct sweep *sweep, uint8_t out[SWEEP_KEY_SIZE])
{
    bytes_put_be32(out, sweep->shard->id);
    bytes_put_be32(out + 4, sweep->sub_id);
    bytes_put_be64(out + 8, sweep->from);
}

static err_t sweep_store(struct core *core, const struct sweep *sweep)
{
    uint8_t key[SWEEP_KEY_SIZE];
    uint8_t value[SWEEP_VALUE_SIZE] = {SWEEP_VERSION};
    sweep_key(sweep, key);
    bytes_put_le64(value + 1, sweep->to);
    return state_put(core, STORE_SWEEP, span_of(key, sizeof key), span_of(value, sizeof value));
}

static err_t sweep_add(struct core *core, struct sweep values)
{
    struct sweep *sweep = pool_take(&core->sweep_pool);
    if (sweep == NULL) {
        return ERR(MEMORY, "no memory for a sweep");
    }
    *sweep = values;
    list_append(&sweep->shard->sweeps, &sweep->link);
    list_append(&core->sweeps, &sweep->work_link);
    core->work = true;
    return NULL;
}

/* The sweep with the same key as this one: a subscription that went back has skipped from the same
 * place twice. They are made one, as a row can stand for one only. */
static struct sweep *find_equal(const struct sweep *sweep)
{
    const struct list *sweeps = &sweep->shard->sweeps;
    for (struct list_link *link = list_first(sweeps); link != NULL;
         link = list_next(sweeps, link)) {
        struct sweep *other = container_of(link, struct sweep, link);
        if (other != sweep && other->sub_id == sweep->sub_id && other->from == sweep->from) {
            return other;
        }
    }
    return NULL;
}

static err_t extend(struct core *core, struct sweep *sweep, uint64_t to)
{
    sweep->to = to > sweep->to ? to : sweep->to;
    return sweep_store(core, sweep);
}

static void sweep_forget(struct core *core, struct sweep *sweep)
{
    list_remove(&sweep->link);
    list_remove(&sweep->work_link);
    pool_give(&core->sweep_pool, sweep);
}

err_t release_sweep(struct core *core, struct shard *shard, uint32_t sub_id, uint64_t from,
                    uint64_t to)
{
    if (from >= to) {
        return NULL;
    }
    struct sweep sweep = {.shard = shard, .sub_id = sub_id, .from = from, .to = to};
    struct sweep *equal = find_equal(&sweep);
    if (equal != NULL) {
        return extend(core, equal, to);
    }
    TRY(sweep_store(core, &sweep));
    return sweep_add(core, sweep);
}

err_t release_step(struct core *core, bool *worked)
{
    struct list_link *link = list_first(&core->sweeps);
    *worked = link != NULL;
    if (link == NULL) {
        return NULL;
    }
    struct sweep *sweep = container_of(link, struct sweep, work_link);
    struct shard *shard = sweep->shard;
    uint8_t key[SWEEP_KEY_SIZE];
    sweep_key(sweep, key);
    TRY(state_remove(core, STORE_SWEEP, span_of(key, sizeof key)));
    uint64_t number = sweep->from / CHUNK_SIZE;
    uint64_t end = (number + 1) * CHUNK_SIZE;
    end = end < sweep->to ? end : sweep->to;
    uint64_t bits[CHUNK_WORDS] = {0};
    set_range(number, sweep->from, end, bits);
    sweep->from = end;
    TRY(release_bits(core, shard, number, bits));
    struct sweep *equal = find_equal(sweep);
    if (sweep->from < sweep->to && equal == NULL) {
        return sweep_store(core, sweep);
    }
    if (sweep->from < sweep->to) {
        TRY(extend(core, equal, sweep->to));
    }
    sweep_forget(core, sweep);
    return NULL;
}

err_t release_load(struct core *core)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    bool found = false;
    TRY(store_cursor_open(core->txn, STORE_SWEEP, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of("", 1), &found));
    while (found) {
        if (cursor->key.size == SWEEP_KEY_SIZE && cursor->value.size == SWEEP_VALUE_SIZE &&
            cursor->value.data[0] == SWEEP_VERSION) {
            struct sweep sweep = {
                .shard = state_shard(core, bytes_get_be32(cursor->key.data)),
                .sub_id = bytes_get_be32(cursor->key.data + 4),
                .from = bytes_get_be64(cursor->key.data + 8),
                .to = bytes_get_le64(cursor->value.data + 1),
            };
            bool sound = sweep.shard != NULL && sweep.from < sweep.to &&
                         sweep.to <= sweep.shard->next_sequence;
            if (sound) {
                TRY_OUT(sweep_add(core, sweep));
            }
            core->corrupt += !sound;
        }
        TRY_OUT(store_cursor_next(cursor, &found));
    }
out:
    store_cursor_close(cursor);
    return err;
}
