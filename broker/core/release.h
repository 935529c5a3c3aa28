/* When nobody needs a message any more.
 *
 * A message is needed by each lane of its shard that has not finished it, by retention, and by
 * sweeps that have not reached it. Each of these gives it up in one place, which calls
 * release_bits; the one that gives it up last counts the message out of its log segment. So a
 * message is counted out exactly once. */
#ifndef CORE_RELEASE_H
#define CORE_RELEASE_H

#include "broker/core/state.h"

/* `bits` of the shard's block `number` have just been given up. Gives up the index block too when
 * all of it is. */
err_t release_bits(struct core *core, struct shard *shard, uint64_t number,
                   const uint64_t bits[CHUNK_WORDS]) MUST_CHECK;

/* Which sequences of the shard's block `number` anybody needs. */
err_t release_needed_bits(struct core *core, struct shard *shard, uint64_t number,
                          uint64_t out[CHUNK_WORDS]) MUST_CHECK;
err_t release_needed(struct core *core, struct shard *shard, uint64_t sequence,
                     bool *out) MUST_CHECK;
err_t release_block_needed(struct core *core, struct shard *shard, uint64_t number,
                           bool *out) MUST_CHECK;
/* Whether a message published to the shard now is needed by anyone. */
bool release_wanted(const struct shard *shard);

/* The lane (or, without one, retention) gives up [from, to) in steps, from now on. */
err_t release_sweep(struct core *core, struct shard *shard, uint32_t sub_id, uint64_t from,
                    uint64_t to) MUST_CHECK;
/* One step of the oldest sweep: at most one block. `worked` false: there is none. */
err_t release_step(struct core *core, bool *worked) MUST_CHECK;
/* At start: the stored sweeps. */
err_t release_load(struct core *core) MUST_CHECK;

#endif
