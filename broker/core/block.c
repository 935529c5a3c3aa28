#include "broker/core/block.h"

#include <assert.h>

#include "broker/base/bytes.h"
#include "broker/core/msglog.h"
#include "broker/core/release.h"
#include "broker/core/topic.h"

enum { BLOCK_VERSION = 1, BLOCK_HEADER_SIZE = 12, BLOCK_KEY_SIZE = 12 };

static void block_key(const struct shard *shard, uint64_t number, uint8_t out[BLOCK_KEY_SIZE])
{
    bytes_put_be32(out, shard->id);
    bytes_put_be64(out + 4, number);
}

static bool decode(struct span value, struct block *block)
{
    if (value.size < BLOCK_HEADER_SIZE || value.data[0] != BLOCK_VERSION) {
        return false;
    }
    size_t width = value.data[1];
    size_t count = bytes_get_le16(value.data + 2);
    uint64_t base = bytes_get_le64(value.data + 4);
    if (width > 8 || count > CHUNK_SIZE || value.size != BLOCK_HEADER_SIZE + width * count) {
        return false;
    }
    const uint8_t *at = value.data + BLOCK_HEADER_SIZE;
    for (size_t index = 0; index < count; index++, at += width) {
        uint8_t bytes[8] = {0};
        memcpy(bytes, at, width);
        uint64_t difference = bytes_get_le64(bytes);
        block->positions[index] = difference == 0 ? 0 : base + difference - 1;
    }
    return true;
}

bool block_valid(struct span value)
{
    struct block block = {0};
    return decode(value, &block);
}

static void encode(const struct block *block, struct buf *out)
{
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    size_t count = 0;
    for (size_t index = 0; index < CHUNK_SIZE; index++) {
        uint64_t position = block->positions[index];
        if (position != 0) {
            low = position < low ? position : low;
            high = position > high ? position : high;
            count = index + 1;
        }
    }
    low = count == 0 ? 0 : low;
    size_t width = 1;
    while (width < 8 && (high - low + 1) >> (8 * width) != 0) {
        width++;
    }
    uint8_t header[BLOCK_HEADER_SIZE] = {BLOCK_VERSION, (uint8_t)width};
    bytes_put_le16(header + 2, (uint16_t)count);
    bytes_put_le64(header + 4, low);
    buf_reset(out);
    buf_append(out, header, sizeof header);
    for (size_t index = 0; index < count; index++) {
        uint64_t position = block->positions[index];
        uint8_t bytes[8];
        bytes_put_le64(bytes, position == 0 ? 0 : position - low + 1);
        buf_append(out, bytes, width);
    }
}

err_t block_get(struct core *core, struct shard *shard, uint64_t number, struct block **out)
{
    struct block *block = map_get(&shard->blocks, number);
    if (block != NULL) {
        list_remove(&block->lru);
        list_append(&core->block_lru, &block->lru);
        *out = block;
        return NULL;
    }
    uint8_t key[BLOCK_KEY_SIZE];
    block_key(shard, number, key);
    struct span value;
    bool found = false;
    TRY(store_get(core->txn, STORE_INDEX, span_of(key, sizeof key), &value, &found));
    block = pool_take(&core->block_pool);
    if (block == NULL || !map_put(&shard->blocks, number, block)) {
        return ERR(MEMORY, "no memory for an index block");
    }
    block->shard = shard;
    block->number = number;
    list_append(&core->block_lru, &block->lru);
    if (found && !decode(value, block)) {
        /* Its messages are reported as corrupt one by one when they are wanted. */
        memset(block->positions, 0, sizeof block->positions);
        core->corrupt++;
    }
    *out = block;
    return NULL;
}

static void mark_dirty(struct core *core, struct block *block)
{
    core->marks++;
    if (!list_linked(&block->dirty)) {
        list_append(&core->dirty_blocks, &block->dirty);
    }
}

static void link_unstored(struct core *core, struct shard *shard, uint64_t from)
{
    if (!list_linked(&shard->unstored)) {
        shard->unstored_from = from;
        shard->unstored_at = core->log.appended_bytes;
        list_append(&core->unstored_shards, &shard->unstored);
        core->unstored_count++;
    }
}

static void unlink_unstored(struct core *core, struct shard *shard)
{
    if (list_linked(&shard->unstored)) {
        list_remove(&shard->unstored);
        core->unstored_count--;
    }
}

err_t block_append(struct core *core, struct shard *shard, uint64_t position)
{
    struct block *block = NULL;
    uint64_t sequence = shard->next_sequence;
    TRY(block_get(core, shard, sequence / CHUNK_SIZE, &block));
    block->positions[sequence % CHUNK_SIZE] = position;
    link_unstored(core, shard, core->log.batch_start);
    shard->next_sequence++;
    if (shard->next_sequence % CHUNK_SIZE == 0) {
        mark_dirty(core, block);
        topic_mark_shard(core, shard);
        unlink_unstored(core, shard);
    }
    return NULL;
}

err_t block_recover(struct core *core, struct shard *shard, uint64_t sequence, uint64_t position)
{
    uint64_t number = sequence / CHUNK_SIZE;
    if (number < shard->next_sequence / CHUNK_SIZE) {
        return NULL; /* a full block: stored with the commit that filled it */
    }
    struct block *block = NULL;
    TRY(block_get(core, shard, number, &block));
    block->positions[sequence % CHUNK_SIZE] = position;
    if (sequence >= shard->next_sequence) {
        shard->next_sequence = sequence + 1;
    }
    if (shard->next_sequence % CHUNK_SIZE == 0) {
        unlink_unstored(core, shard);
    } else {
        link_unstored(core, shard, position & ~0xffffULL);
    }
    return NULL;
}

void block_recovered(struct core *core, uint64_t appended_before)
{
    for (struct list_link *link = list_first(&core->unstored_shards); link != NULL;
         link = list_next(&core->unstored_shards, link)) {
        container_of(link, struct shard, unstored)->unstored_at += appended_before;
    }
}

err_t block_move(struct core *core, struct shard *shard, uint64_t sequence, uint64_t position)
{
    struct block *block = NULL;
    TRY(block_get(core, shard, sequence / CHUNK_SIZE, &block));
    block->positions[sequence % CHUNK_SIZE] = position;
    mark_dirty(core, block);
    return NULL;
}

err_t block_position(struct core *core, struct shard *shard, uint64_t sequence, uint64_t *out)
{
    struct block *block = NULL;
    TRY(block_get(core, shard, sequence / CHUNK_SIZE, &block));
    *out = block->positions[sequence % CHUNK_SIZE];
    return NULL;
}

static void forget(struct core *core, struct block *block)
{
    if (list_linked(&block->dirty)) {
        list_remove(&block->dirty);
    }
    list_remove(&block->lru);
    map_remove(&block->shard->blocks, block->number);
    pool_give(&core->block_pool, block);
}

err_t block_drop(struct core *core, struct shard *shard, uint64_t number)
{
    if ((number + 1) * CHUNK_SIZE > shard->next_sequence) {
        return NULL;
    }
    uint8_t key[BLOCK_KEY_SIZE];
    block_key(shard, number, key);
    TRY(state_remove(core, STORE_INDEX, span_of(key, sizeof key)));
    struct block *block = map_get(&shard->blocks, number);
    if (block != NULL) {
        forget(core, block);
    }
    return NULL;
}

err_t block_drop_last(struct core *core, struct shard *shard)
{
    uint8_t key[BLOCK_KEY_SIZE];
    size_t at = 0;
    struct block *block;
    block_key(shard, shard->next_sequence / CHUNK_SIZE, key);
    TRY(state_remove(core, STORE_INDEX, span_of(key, sizeof key)));
    while ((block = map_each(&shard->blocks, &at)) != NULL) {
        if (list_linked(&block->dirty)) {
            block_key(shard, block->number, key);
            TRY(state_remove(core, STORE_INDEX, span_of(key, sizeof key)));
        }
    }
    return NULL;
}

static err_t write_block(struct core *core, const struct block *block)
{
    uint8_t key[BLOCK_KEY_SIZE];
    block_key(block->shard, block->number, key);
    encode(block, &core->value);
    if (core->value.failed) {
        return ERR(MEMORY, "no memory for an index block");
    }
    return state_put(core, STORE_INDEX, span_of(key, sizeof key), buf_span(&core->value));
}

static err_t store_tail(struct core *core, struct shard *shard)
{
    struct block *block = NULL;
    TRY(block_get(core, shard, (shard->next_sequence - 1) / CHUNK_SIZE, &block));
    TRY(write_block(core, block));
    topic_mark_shard(core, shard);
    unlink_unstored(core, shard);
    return NULL;
}

err_t block_flush(struct core *core, bool all)
{
    struct list_link *link;
    while ((link = list_pop(&core->dirty_blocks)) != NULL) {
        struct block *block = container_of(link, struct block, dirty);
        bool needed = true;
        TRY(release_block_needed(core, block->shard, block->number, &needed));
        if (needed) {
            TRY(write_block(core, block));
        } else {
            TRY(block_drop(core, block->shard, block->number));
        }
    }
    while ((link = list_first(&core->unstored_shards)) != NULL) {
        struct shard *shard = container_of(link, struct shard, unstored);
        if (!all && core->log.appended_bytes - shard->unstored_at <= core->options.replay_bytes) {
            break;
        }
        TRY(store_tail(core, shard));
    }
    return NULL;
}

uint64_t block_checkpoint(const struct core *core)
{
    const struct list_link *link = list_first(&core->unstored_shards);
    if (link == NULL) {
        return msglog_end(core);
    }
    return container_of(link, struct shard, unstored)->unstored_from;
}

static bool is_unstored_tail(const struct block *block)
{
    const struct shard *shard = block->shard;
    return list_linked(&shard->unstored) &&
           block->number == (shard->next_sequence - 1) / CHUNK_SIZE;
}

size_t block_excess(const struct core *core)
{
    return core->block_pool.taken - core->unstored_count;
}

void block_trim(struct core *core)
{
    size_t looks = core->block_pool.taken;
    while (block_excess(core) > core->options.blocks_max && looks-- > 0) {
        struct block *block = container_of(list_first(&core->block_lru), struct block, lru);
        if (is_unstored_tail(block) || list_linked(&block->dirty)) {
            list_remove(&block->lru);
            list_append(&core->block_lru, &block->lru);
        } else {
            forget(core, block);
        }
    }
}

void block_forget(struct core *core, struct shard *shard)
{
    size_t at = 0;
    struct block *block;
    while ((block = map_each(&shard->blocks, &at)) != NULL) {
        if (list_linked(&block->dirty)) {
            list_remove(&block->dirty);
        }
        list_remove(&block->lru);
        pool_give(&core->block_pool, block);
    }
    map_deinit(&shard->blocks);
    unlink_unstored(core, shard);
}
