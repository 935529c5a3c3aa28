/* Redrive, purge and seek: an operator's hand in the queues. */
#include "broker/core/delivery.h"
#include "broker/core/inspect.h"
#include "broker/core/release.h"
#include "broker/core/retention.h"
#include "broker/core/topic.h"

static struct sub *find_sub(struct core *core, uint32_t sub_id, struct reply *reply)
{
    struct sub *sub = state_sub(core, sub_id);
    if (sub == NULL || sub->dropping) {
        reply_fail(reply, ERR_NOT_FOUND, "subscription: it does not exist");
        return NULL;
    }
    return sub;
}

static bool redrive_matches(const struct redrive *redrive, const struct delivery_dead *dead)
{
    return (redrive->reason == DEAD_NONE || redrive->reason == dead->reason) &&
           (!redrive->has_sequence || redrive->sequence == dead->sequence);
}

static err_t revive(struct core *core, struct lane *lane, uint64_t sequence)
{
    struct chunk *chunk = NULL;
    uint32_t index = (uint32_t)(sequence % CHUNK_SIZE);
    TRY(chunk_get(core, lane, sequence / CHUNK_SIZE, false, &chunk));
    if (chunk == NULL || chunk->entries[index].state != MESSAGE_DEAD) {
        return ERR(CORRUPT, "dead letter %llu of shard %u is not in the delivery queue",
                   (unsigned long long)sequence, lane->shard->id);
    }
    return delivery_revive(core, chunk, index);
}

static err_t redrive_lane(struct core *core, struct lane *lane, const struct redrive *redrive,
                          struct reply *reply)
{
    uint64_t from = redrive->has_sequence ? redrive->sequence : 0;
    for (;;) {
        struct delivery_dead dead;
        bool found = false;
        TRY(inspect_next_dead(core, lane, from, &dead, &found));
        if (!found || (redrive->has_sequence && dead.sequence != redrive->sequence)) {
            return NULL;
        }
        if (redrive_matches(redrive, &dead)) {
            if (reply->count == redrive->max) {
                reply->more = true;
                return NULL;
            }
            reply->count++;
            if (!redrive->dry_run) {
                TRY(revive(core, lane, dead.sequence));
                TRY(delivery_trim(core));
            }
        }
        from = dead.sequence + 1;
    }
}

err_t inspect_redrive(struct core *core, const struct redrive *redrive, struct reply *reply)
{
    struct sub *sub = find_sub(core, redrive->sub_id, reply);
    for (size_t slot = 0; sub != NULL && slot < sub->lanes.count && !reply->more; slot++) {
        struct lane *lane = sub->lanes.items[slot];
        if (redrive->shard_id == 0 || redrive->shard_id == lane->shard->id) {
            TRY(redrive_lane(core, lane, redrive, reply));
        }
    }
    return NULL;
}

/* Of one chunk, if there is one: what the cursor passes on its way to `target` is done. */
static err_t skip_in_chunk(struct core *core, struct lane *lane, uint64_t number, uint64_t target)
{
    uint64_t base = number * CHUNK_SIZE;
    uint64_t first = lane->cursor > base ? lane->cursor - base : 0;
    uint64_t end = target - base < CHUNK_SIZE ? target - base : CHUNK_SIZE;
    struct chunk *chunk = NULL;
    TRY(chunk_get(core, lane, number, false, &chunk));
    if (chunk != NULL) {
        TRY(chunk_check_cursor(chunk));
        chunk_skip(core, chunk, (uint32_t)first, (uint32_t)end);
    }
    return NULL;
}

/* Moves the cursor forward: what it passes is done, and is released in steps. The chunk it is in
 * may be in memory only; those after it are there, without content, when it has been moved back
 * before and they still wait for a due time. */
static err_t skip_to(struct core *core, struct lane *lane, uint64_t target)
{
    uint64_t number = lane->cursor / CHUNK_SIZE;
    TRY(skip_in_chunk(core, lane, number, target));
    for (;;) {
        TRY(delivery_next_chunk(core, lane, STORE_DELIVERY, number + 1, &number));
        if (number > target / CHUNK_SIZE) {
            break;
        }
        TRY(skip_in_chunk(core, lane, number, target));
    }
    TRY(release_sweep(core, lane->shard, lane->sub->id, lane->cursor, target));
    lane->cursor = target;
    state_update_available(lane);
    topic_mark_lane(core, lane);
    return NULL;
}

static err_t purge_delivery(struct core *core, struct lane *lane, uint32_t states, uint64_t *count)
{
    for (uint64_t number = 0;; number++) {
        struct chunk *chunk = NULL;
        TRY(delivery_next_chunk(core, lane, STORE_DELIVERY, number, &number));
        if (number == UINT64_MAX) {
            return NULL;
        }
        TRY(chunk_get(core, lane, number, false, &chunk));
        if (chunk != NULL) {
            TRY(delivery_drop(core, chunk, states, count));
            TRY(delivery_trim(core));
        }
    }
}

err_t inspect_purge(struct core *core, const struct purge *purge, struct reply *reply)
{
    struct sub *sub = find_sub(core, purge->sub_id, reply);
    uint32_t states = 0;
    if (purge->delivery) {
        states |= 1U << MESSAGE_LEASED | 1U << MESSAGE_SCHEDULED | 1U << MESSAGE_READY;
    }
    if (purge->dead) {
        states |= 1U << MESSAGE_DEAD;
    }
    TRY(delivery_flush(core));
    for (size_t slot = 0; sub != NULL && slot < sub->lanes.count; slot++) {
        struct lane *lane = sub->lanes.items[slot];
        if (purge->enqueued && lane->cursor < lane->shard->next_sequence) {
            reply->count += lane->shard->next_sequence - lane->cursor;
            TRY(skip_to(core, lane, lane->shard->next_sequence));
        }
        if (states != 0) {
            TRY(purge_delivery(core, lane, states, &reply->count));
        }
    }
    return NULL;
}

/* Moves the cursor back: what lies after it is enqueued again, whatever its state was. What the
 * lane had finished or skipped is still needed by others there (topic_shard_floor), so it has not
 * been given up. */
static err_t go_back_to(struct core *core, struct lane *lane, uint64_t target)
{
    const uint32_t all =
        1U << MESSAGE_LEASED | 1U << MESSAGE_SCHEDULED | 1U << MESSAGE_READY | 1U << MESSAGE_DEAD;
    struct chunk *chunk = NULL;
    /* It may be in memory only. */
    TRY(chunk_get(core, lane, lane->cursor / CHUNK_SIZE, false, &chunk));
    if (chunk != NULL) {
        TRY(delivery_reset(core, chunk, target, all));
    }
    for (uint64_t number = target / CHUNK_SIZE;; number++) {
        TRY(delivery_next_chunk(core, lane, STORE_DELIVERY, number, &number));
        if (number == UINT64_MAX) {
            break;
        }
        TRY(chunk_get(core, lane, number, false, &chunk));
        TRY(delivery_reset(core, chunk, target, all));
        TRY(delivery_trim(core));
    }
    lane->cursor = target;
    state_update_available(lane);
    topic_mark_lane(core, lane);
    return state_wake(core, lane->sub);
}

static err_t seek_target(struct core *core, const struct lane *lane, const struct seek *seek,
                         uint64_t *out)
{
    uint64_t floor = topic_shard_floor(lane->shard);
    uint64_t end = lane->shard->next_sequence;
    *out = end;
    switch (seek->to) {
    case START_LATEST:
        return NULL;
    case START_EARLIEST:
        *out = floor;
        return NULL;
    case START_SEQUENCE:
        *out = seek->value < floor ? floor : seek->value < end ? seek->value : end;
        return NULL;
    case START_TIME:
        return retention_find_time(core, lane->shard, floor, seek->value, out);
    }
    return NULL;
}

static err_t seek_lane(struct core *core, struct lane *lane, const struct seek *seek,
                       struct reply *reply)
{
    uint64_t target = 0;
    TRY(seek_target(core, lane, seek, &target));
    reply->count += target > lane->cursor ? target - lane->cursor : lane->cursor - target;
    if (seek->dry_run || target == lane->cursor) {
        return NULL;
    }
    return target > lane->cursor ? skip_to(core, lane, target) : go_back_to(core, lane, target);
}

err_t inspect_seek(struct core *core, const struct seek *seek, struct reply *reply)
{
    struct sub *sub = find_sub(core, seek->sub_id, reply);
    TRY(delivery_flush(core));
    for (size_t slot = 0; sub != NULL && slot < sub->lanes.count; slot++) {
        struct lane *lane = sub->lanes.items[slot];
        if (seek->shard_id == 0 || seek->shard_id == lane->shard->id) {
            TRY(seek_lane(core, lane, seek, reply));
        }
    }
    return NULL;
}
