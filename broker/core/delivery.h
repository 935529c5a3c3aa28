/* What happens to messages in delivery: leases that end, retries that come due, dead letters
 * (DEAD).
 *
 * DEAD: sub u32, shard u32, sequence u64 -> version u8, reason u8, attempts u16, zero u32, since
 * u64, note bytes. */
#ifndef CORE_DELIVERY_H
#define CORE_DELIVERY_H

#include "broker/core/chunk.h"

enum { DELIVERY_DEAD_KEY_SIZE = 16, DELIVERY_DEAD_MIN = 16 };

/* A dead letter's row, decoded; spans into it. */
struct delivery_dead {
    uint32_t shard_id;
    uint64_t sequence;
    enum dead_reason reason;
    uint16_t attempt;
    uint64_t since_ms;
    struct span note;
};

/* A lease ended without success: the message is a dead letter when its attempts are used up, else
 * it is delivered again after `delay_ms`. */
err_t delivery_return(struct core *core, struct chunk *chunk, uint32_t index, uint64_t delay_ms,
                      struct span note) MUST_CHECK;
err_t delivery_bury(struct core *core, struct chunk *chunk, uint32_t index, enum dead_reason reason,
                    struct span note) MUST_CHECK;
/* Takes a dead letter back to work with all its attempts. */
err_t delivery_revive(struct core *core, struct chunk *chunk, uint32_t index) MUST_CHECK;
/* Drops whatever of the chunk is in one of the states (a bit each); returns how many. */
err_t delivery_drop(struct core *core, struct chunk *chunk, uint32_t states,
                    uint64_t *count) MUST_CHECK;

/* Makes everything of the chunk at or after sequence `target` enqueued again; `states`: those that
 * are in delivery. What was done there must be still needed by others. */
err_t delivery_reset(struct core *core, struct chunk *chunk, uint64_t target,
                     uint32_t states) MUST_CHECK;

/* Everything of the chunk whose time has come. */
err_t delivery_come_due(struct core *core, struct chunk *chunk) MUST_CHECK;

/* Writes what has changed, in key order, and releases what is done. */
err_t delivery_flush(struct core *core) MUST_CHECK;

/* Between messages, in the middle of a batch: brings what is kept in memory back to its bounds.
 * Ends the life of chunks and blocks. */
err_t delivery_trim(struct core *core) MUST_CHECK;

/* Drops all of the lane's first stored chunk; `found` false when it has none. */
err_t delivery_drop_first_chunk(struct core *core, struct lane *lane, bool *found) MUST_CHECK;
/* The lane's first stored chunk at or after `from`; UINT64_MAX: none. */
err_t delivery_next_chunk(struct core *core, const struct lane *lane, enum store_table table,
                          uint64_t from, uint64_t *out) MUST_CHECK;

void delivery_dead_key(const struct lane *lane, uint64_t sequence,
                       uint8_t out[DELIVERY_DEAD_KEY_SIZE]);
bool delivery_dead_decode(struct span key, struct span value, struct delivery_dead *out);

#endif
