#include "broker/core/delivery.h"
#include "broker/core/messages.h"

/* The chunk in which the receipt still holds its lease; NULL when it does not. */
static err_t leased(struct core *core, const struct sub *sub, const struct receipt *receipt,
                    struct chunk **out)
{
    struct lane *lane = receipt->sub_id == sub->id ? state_lane(sub, receipt->shard_id) : NULL;
    struct chunk *chunk = NULL;
    *out = NULL;
    if (lane == NULL || receipt->sequence >= lane->cursor || receipt->epoch != lane->epoch) {
        return NULL;
    }
    TRY(chunk_get(core, lane, receipt->sequence / CHUNK_SIZE, false, &chunk));
    if (chunk == NULL) {
        return NULL;
    }
    const struct entry *entry = &chunk->entries[receipt->sequence % CHUNK_SIZE];
    if (entry->state == MESSAGE_LEASED && entry->grant == receipt->grant &&
        entry->attempt == receipt->attempt && entry->due_ms > core->now_ms) {
        *out = chunk;
    }
    return NULL;
}

static err_t give_back(struct core *core, const struct settle *settle, struct chunk *chunk,
                       uint32_t index)
{
    struct entry *entry = &chunk->entries[index];
    struct sub *sub = chunk->lane->sub;
    if (settle->reject) {
        return delivery_bury(core, chunk, index, DEAD_REJECTED, settle->note);
    }
    if (settle->release) {
        entry->attempt--;
        entry->grant = 0;
        entry->due_ms = 0;
        return chunk_move(core, chunk, index, LIFECYCLE_COME_DUE);
    }
    uint64_t delay_ms = settle->has_delay ? settle->delay_ms : sub->settings.retry_delay_ms;
    return delivery_return(core, chunk, index, delay_ms, settle->note);
}

static err_t settle_one(struct core *core, const struct command *command, struct chunk *chunk,
                        uint32_t index)
{
    const struct settle *settle = &command->settle;
    struct entry *entry = &chunk->entries[index];
    if (command->type == COMMAND_ACK) {
        return chunk_move(core, chunk, index, LIFECYCLE_FINISH);
    }
    if (command->type == COMMAND_NACK) {
        return give_back(core, settle, chunk, index);
    }
    uint64_t lease_ms =
        settle->lease_ms != 0 ? settle->lease_ms : chunk->lane->sub->settings.lease_ms;
    entry->due_ms = state_later(core->now_ms, lease_ms);
    chunk_mark_dirty(core, chunk);
    return chunk_due(core, chunk, entry->due_ms);
}

err_t messages_settle(struct core *core, const struct command *command, struct reply *reply)
{
    const struct settle *settle = &command->settle;
    struct sub *sub = state_sub(core, settle->sub_id);
    bool exists = sub != NULL && !sub->dropping;
    for (uint32_t index = 0; index < settle->count; index++) {
        const struct receipt *receipt = &settle->receipts[index];
        struct chunk *chunk = NULL;
        if (exists) {
            TRY(leased(core, sub, receipt, &chunk));
        }
        settle->results[index] = !exists         ? ERR_NOT_FOUND
                                 : chunk == NULL ? ERR_LEASE_LOST
                                                 : ERR_NONE;
        if (chunk != NULL) {
            TRY(settle_one(core, command, chunk, (uint32_t)(receipt->sequence % CHUNK_SIZE)));
            reply->count++;
        }
    }
    if (!exists) {
        reply_fail(reply, ERR_NOT_FOUND, "subscription: it does not exist");
    }
    return NULL;
}
