/* Publishes to relaxed topics that were answered with a batch that was lost then.
 *
 * A volume that goes on applies them again, where they were or later but before any other publish,
 * and each message gets the sequence it was answered with. When the process ends first they are
 * lost: of each shard a last part, never one of a synced topic. */
#ifndef SIM_PROMISE_H
#define SIM_PROMISE_H

#include "tests/sim/workload.h"

/* The batch was lost after its early replies had been sent: the model is told of them. How many
 * messages were promised. */
uint64_t promise_note(struct workload *workload, struct volume *volume);

/* What of the lost batch is to be applied again. */
enum promise_part {
    PROMISE_BATCH,  /* all but the pulls that were answered and the publishes that were not */
    PROMISE_OTHERS, /* the same without the promises, for which there is no space yet */
    PROMISE_ALONE,  /* only they */
};
/* Changes the commands of the batch accordingly; what is left out becomes a STATS. */
void promise_prepare(struct workload *workload, enum promise_part part);
/* A part with them has been committed: each message is where it was promised, unless its topic is
 * gone. */
void promise_check(const struct workload *workload, const struct volume *volume);

/* The process has ended: what was promised and not committed is lost, and nothing else. */
void promise_break(struct workload *workload, struct volume *volume);

#endif
