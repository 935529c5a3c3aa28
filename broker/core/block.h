/* The index from sequence to log position, in blocks of 256 sequences of a shard (INDEX).
 *
 * Value: version u8, width u8, count u16, base u64, then `count` differences to base plus one of
 * `width` bytes; 0: no position. The block at a shard's end is in memory only, until it is full, or
 * the log has grown by replay_bytes since its first entry; after a crash it comes back from the
 * log. */
#ifndef CORE_BLOCK_H
#define CORE_BLOCK_H

#include "broker/core/state.h"

/* The block, from memory or the store; an empty one when the store has none. */
err_t block_get(struct core *core, struct shard *shard, uint64_t number,
                struct block **out) MUST_CHECK;

/* Whether a stored value can be read. */
bool block_valid(struct span value);

/* Notes where the shard's next sequence lies (and counts it). */
err_t block_append(struct core *core, struct shard *shard, uint64_t position) MUST_CHECK;
/* At start: a record found in the log's tail. */
err_t block_recover(struct core *core, struct shard *shard, uint64_t sequence,
                    uint64_t position) MUST_CHECK;
/* After them all: what the log had grown to before the first one. */
void block_recovered(struct core *core, uint64_t appended_before);
/* A record has moved. */
err_t block_move(struct core *core, struct shard *shard, uint64_t sequence,
                 uint64_t position) MUST_CHECK;
err_t block_position(struct core *core, struct shard *shard, uint64_t sequence,
                     uint64_t *out) MUST_CHECK;

/* Nobody needs any of its sequences; does nothing to the unfinished block at the end. */
err_t block_drop(struct core *core, struct shard *shard, uint64_t number) MUST_CHECK;
/* Nobody needs anything of the shard, which goes: what may be stored of the block at its end, and
 * of those that have been filled since the last flush. */
err_t block_drop_last(struct core *core, struct shard *shard) MUST_CHECK;

/* Writes changed blocks; stores tails that the log has left behind (all of them when `all`). */
err_t block_flush(struct core *core, bool all) MUST_CHECK;
/* Everything before this position is in stored blocks. */
uint64_t block_checkpoint(const struct core *core);
/* Forgets blocks beyond the cache's bound. */
void block_trim(struct core *core);
/* Blocks in memory that could be forgotten: not those at the end of a shard that are only there. */
size_t block_excess(const struct core *core);
/* Forgets all blocks of a shard. */
void block_forget(struct core *core, struct shard *shard);

#endif
