/* The commands that look or intervene from outside: peek, stats; redrive, purge, seek. */
#ifndef CORE_INSPECT_H
#define CORE_INSPECT_H

#include "broker/core/state.h"

err_t inspect_peek(struct core *core, const struct peek *peek, struct reply *reply) MUST_CHECK;
err_t inspect_stats(struct core *core, const struct stats *stats, struct reply *reply) MUST_CHECK;

err_t inspect_redrive(struct core *core, const struct redrive *redrive,
                      struct reply *reply) MUST_CHECK;
err_t inspect_purge(struct core *core, const struct purge *purge, struct reply *reply) MUST_CHECK;
err_t inspect_seek(struct core *core, const struct seek *seek, struct reply *reply) MUST_CHECK;

/* A dead letter by its place; spans into the store. `found` false: there is none at or after `from`
 * in this lane. */
struct delivery_dead;
err_t inspect_next_dead(struct core *core, const struct lane *lane, uint64_t from,
                        struct delivery_dead *out, bool *found) MUST_CHECK;

#endif
