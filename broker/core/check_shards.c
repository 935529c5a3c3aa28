/* Shards: every sequence that somebody needs has a position in the index, and its record is there.
 */
#include "broker/base/bytes.h"
#include "broker/core/block.h"
#include "broker/core/check_parts.h"
#include "broker/core/chunk.h"
#include "broker/core/delivery.h"
#include "broker/core/msglog.h"
#include "broker/core/release.h"
#include "broker/core/topic.h"

enum { INDEX_KEY_SIZE = 12 };

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The first block at or after `from` in which the shard may need something, so that a long gap
 * between an old dead letter and the backlog costs nothing. UINT64_MAX: none. */
static err_t next_block(struct checking *checking, const struct shard *shard, uint64_t from,
                        uint64_t *out)
{
    uint64_t best = UINT64_MAX;
    if (topic_retains(shard->topic)) {
        uint64_t retained = shard->retained_from / CHUNK_SIZE;
        best = retained > from ? retained : from;
    }
    for (struct list_link *link = list_first(&shard->sweeps); link != NULL;
         link = list_next(&shard->sweeps, link)) {
        const struct sweep *sweep = container_of(link, struct sweep, link);
        uint64_t first = sweep->from / CHUNK_SIZE;
        if (sweep->to > from * CHUNK_SIZE) {
            best = lesser(best, first > from ? first : from);
        }
    }
    for (size_t index = 0; index < shard->lanes.count; index++) {
        const struct lane *lane = shard->lanes.items[index];
        uint64_t enqueued = lane->cursor / CHUNK_SIZE;
        uint64_t chunk = 0;
        TRY(delivery_next_chunk(checking->core, lane, STORE_DELIVERY, from, &chunk));
        best = lesser(best, lesser(chunk, enqueued > from ? enqueued : from));
    }
    *out = best == UINT64_MAX || best * CHUNK_SIZE >= shard->next_sequence ? UINT64_MAX : best;
    return NULL;
}

static err_t count_needed(struct checking *checking, uint32_t segment)
{
    struct check_live *live = map_get(&checking->live, segment);
    if (live == NULL) {
        live = pool_take(&checking->live_pool);
        if (live == NULL || !map_put(&checking->live, segment, live)) {
            return ERR(MEMORY, "no memory to count log segments");
        }
    }
    live->needed++;
    checking->report->needed++;
    return NULL;
}

static err_t check_sequence(struct checking *checking, struct shard *shard, uint64_t sequence)
{
    struct record record;
    uint64_t position = 0;
    bool ok = false;
    TRY(block_position(checking->core, shard, sequence, &position));
    if (position == 0) {
        CHECK_PROBLEM(checking,
                      "a message is needed but not indexed: topic %u, shard %u, sequence %llu",
                      shard->topic->id, shard->id, (unsigned long long)sequence);
        return NULL;
    }
    TRY(msglog_read(checking->core, position, shard->id, sequence, &record, &ok));
    if (!ok) {
        CHECK_PROBLEM(checking,
                      "a needed message cannot be read: topic %u, shard %u, sequence %llu, at "
                      "position %016llx",
                      shard->topic->id, shard->id, (unsigned long long)sequence,
                      (unsigned long long)position);
    }
    return count_needed(checking, (uint32_t)(position >> 32));
}

static err_t check_block(struct checking *checking, struct shard *shard, uint64_t number)
{
    uint64_t bits[CHUNK_WORDS];
    TRY(release_needed_bits(checking->core, shard, number, bits));
    uint64_t left = shard->next_sequence - number * CHUNK_SIZE;
    size_t count = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE;
    for (size_t index = bitmap_next(bits, count, 0); index < count;
         index = bitmap_next(bits, count, index + 1)) {
        TRY(check_sequence(checking, shard, number * CHUNK_SIZE + index));
    }
    chunk_trim(checking->core);
    block_trim(checking->core);
    return NULL;
}

static err_t check_shard(struct checking *checking, struct shard *shard)
{
    uint64_t number = 0;
    for (;; number++) {
        TRY(next_block(checking, shard, number, &number));
        if (number == UINT64_MAX) {
            return NULL;
        }
        err_t err = check_block(checking, shard, number);
        TRY(check_absorb(checking, err));
    }
}

/* Whether the row is a block that its shard has a use for. */
static err_t check_index_row(struct checking *checking, struct span key, struct span value)
{
    struct shard *shard = NULL;
    bool needed = true;
    if (key.size == INDEX_KEY_SIZE) {
        shard = state_shard(checking->core, bytes_get_be32(key.data));
    }
    if (shard == NULL) {
        CHECK_PROBLEM(checking, "the index has a row for no shard");
        return NULL;
    }
    uint64_t number = bytes_get_be64(key.data + 4);
    if (!block_valid(value)) {
        CHECK_PROBLEM(checking, "the index of topic %u, shard %u is damaged from sequence %llu on",
                      shard->topic->id, shard->id, (unsigned long long)(number * CHUNK_SIZE));
        return NULL;
    }
    if ((number + 1) * CHUNK_SIZE <= shard->next_sequence) {
        err_t err = release_block_needed(checking->core, shard, number, &needed);
        TRY(check_absorb(checking, err));
    }
    if (!needed) {
        CHECK_PROBLEM(checking, "the index of shard %u keeps block %llu, which nobody needs",
                      shard->id, (unsigned long long)number);
    }
    chunk_trim(checking->core);
    return NULL;
}

err_t check_shards(struct checking *checking)
{
    size_t at = 0;
    struct shard *shard;
    TRY(check_table(checking, STORE_INDEX, check_index_row));
    while ((shard = map_each(&checking->core->shards, &at)) != NULL) {
        TRY(check_shard(checking, shard));
    }
    return NULL;
}
