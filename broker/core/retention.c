#include "broker/core/retention.h"

#include "broker/core/block.h"
#include "broker/core/msglog.h"
#include "broker/core/release.h"
#include "broker/core/topic.h"

enum { SIZE_PER_WORK = 16384 }; /* bytes that are read and checked in about the time of a message */

err_t retention_schedule(struct core *core, struct shard *shard, uint64_t due_ms)
{
    struct heap_node *node = &shard->retention;
    if (node->index != 0) {
        if (due_ms != UINT64_MAX && node->due_ms <= due_ms) {
            return NULL;
        }
        heap_remove(&core->retention, node);
    }
    if (due_ms == UINT64_MAX) {
        return NULL;
    }
    node->due_ms = due_ms;
    node->order = shard->id;
    if (!heap_insert(&core->retention, node)) {
        return ERR(MEMORY, "no memory for a retention deadline");
    }
    return NULL;
}

err_t retention_published(struct core *core, struct shard *shard, uint64_t size)
{
    const struct topic_settings *settings = &shard->topic->settings;
    shard->retained_bytes += size;
    if (settings->retention_bytes != 0 && shard->retained_bytes > settings->retention_bytes) {
        return retention_schedule(core, shard, 0);
    }
    if (settings->retention_ms != 0 && shard->retention.index == 0) {
        return retention_schedule(core, shard, state_later(core->now_ms, settings->retention_ms));
    }
    return NULL;
}

static err_t read_at(struct core *core, struct shard *shard, uint64_t sequence, struct record *out,
                     bool *ok)
{
    uint64_t position = 0;
    TRY(block_position(core, shard, sequence, &position));
    return msglog_read(core, position, shard->id, sequence, out, ok);
}

/* When the oldest retained message goes: 0 for at once, UINT64_MAX for never, or that there is
 * none.
 */
static err_t oldest_due(struct core *core, struct shard *shard, uint64_t *due_ms, uint64_t *size)
{
    const struct topic_settings *settings = &shard->topic->settings;
    struct record record;
    bool ok = false;
    *due_ms = UINT64_MAX;
    *size = 0;
    if (shard->retained_from >= shard->next_sequence) {
        return NULL;
    }
    TRY(read_at(core, shard, shard->retained_from, &record, &ok));
    *size = ok ? record_size(&record) : 0;
    bool much = settings->retention_bytes != 0 && shard->retained_bytes > settings->retention_bytes;
    if (!ok || much) {
        *due_ms = 0;
    } else if (settings->retention_ms != 0) {
        *due_ms = state_later(record.published_ms, settings->retention_ms);
    }
    return NULL;
}

/* Gives up messages of the first retained block, within the budget. */
static err_t give_up(struct core *core, struct shard *shard, uint32_t budget, uint32_t *worked)
{
    uint64_t number = shard->retained_from / CHUNK_SIZE;
    uint64_t bits[CHUNK_WORDS] = {0};
    uint64_t from = shard->retained_from;
    uint64_t work = 1;
    while (shard->retained_from / CHUNK_SIZE == number && work < budget) {
        uint64_t due_ms = 0;
        uint64_t size = 0;
        TRY(oldest_due(core, shard, &due_ms, &size));
        if (due_ms > core->now_ms) {
            break;
        }
        bitmap_set(bits, shard->retained_from % CHUNK_SIZE);
        shard->retained_bytes -= size < shard->retained_bytes ? size : shard->retained_bytes;
        shard->retained_from++;
        work += 1 + size / SIZE_PER_WORK;
    }
    if (shard->retained_from > from) {
        topic_mark_shard(core, shard);
        TRY(release_bits(core, shard, number, bits));
    }
    *worked += (uint32_t)work;
    return NULL;
}

/* What is scheduled may be earlier than what is due, as all are when they have been loaded. So that
 * what a tick gets done is a function of what is stored, that costs nothing, and the shards are
 * served in the order of what is due. */
err_t retention_step(struct core *core, uint32_t budget, uint32_t *worked)
{
    struct heap_node *node;
    *worked = 0;
    while (*worked < budget && (node = heap_first(&core->retention)) != NULL &&
           node->due_ms <= core->now_ms) {
        struct shard *shard = container_of(node, struct shard, retention);
        uint64_t due_ms = 0;
        uint64_t size = 0;
        heap_remove(&core->retention, node);
        TRY(oldest_due(core, shard, &due_ms, &size));
        if (due_ms <= node->due_ms) {
            TRY(give_up(core, shard, budget - *worked, worked));
            TRY(oldest_due(core, shard, &due_ms, &size));
        }
        TRY(retention_schedule(core, shard, due_ms));
    }
    return NULL;
}

err_t retention_find_time(struct core *core, const struct shard *shard, uint64_t from,
                          uint64_t time_ms, uint64_t *out)
{
    struct shard *readable = state_shard(core, shard->id);
    uint64_t low = from;
    uint64_t high = shard->next_sequence;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct record record;
        bool ok = false;
        TRY(read_at(core, readable, middle, &record, &ok));
        if (!ok || record.published_ms >= time_ms) { /* nothing is left out for a damaged one */
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    *out = low;
    return NULL;
}
