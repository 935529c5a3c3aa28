/* Retention: messages kept for a time or up to a size although nobody needs them, so that they can
 * be read again. */
#ifndef CORE_RETENTION_H
#define CORE_RETENTION_H

#include "broker/core/state.h"

/* Looks at the shard again at `due_ms` (or earlier, if that was asked before); UINT64_MAX: no more.
 */
err_t retention_schedule(struct core *core, struct shard *shard, uint64_t due_ms) MUST_CHECK;
/* A message of so many bytes has been published to the shard, whose topic retains. */
err_t retention_published(struct core *core, struct shard *shard, uint64_t size) MUST_CHECK;
/* Gives up what is too old or too much of the shard that is due; at most `budget` messages. */
err_t retention_step(struct core *core, uint32_t budget, uint32_t *worked) MUST_CHECK;

/* First sequence at or after `from` that was published at `time_ms` or later. */
err_t retention_find_time(struct core *core, const struct shard *shard, uint64_t from,
                          uint64_t time_ms, uint64_t *out) MUST_CHECK;

#endif
