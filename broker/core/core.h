/* The core: what happens to a message, as a function of stored state and one command (STYLE 7, SPEC
 * 3).
 *
 * How it stores (SPEC "Storage"):
 *  - msglog   one append-only log per volume: rows of records, in segments that go as a whole when
 * nothing in them is needed any more; nearly dead ones are rewritten at the tail.
 *  - block    where in the log each of 256 sequences of a shard lies. Finished blocks are stored,
 * unfinished ones come back from the log's tail at start.
 *  - lane     one subscription on one shard: the cursor between enqueue and delivery queue, and
 * counts.
 *  - chunk    delivery state of 256 sequences of a lane; gone when all of them are done.
 *  - due      one index of everything that happens at a time.
 *  - release  decides when nobody needs a message any more, and counts it out of its segment.
 * Objects in memory are caches of stored rows; dirty ones are written once per batch by flush, in
 * key order. */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include "broker/core/machine.h"

/* 0 stands for the usual value; the simulation sets the least, so that what is rare happens all the
 * time. */
struct core_options {
    uint64_t replay_bytes;    /* of log read again at start; 16 MiB */
    uint64_t slack_size;      /* bytes of log nobody needs that may be left lying; 32 MiB */
    uint32_t segment_entries; /* of the log in one segment; 4096 */
    uint32_t chunks_max;      /* kept in memory between batches; 8192 */
    uint32_t blocks_max;      /* likewise; 8192 */
};

err_t core_create(const struct core_options *options, struct machine **out) MUST_CHECK;

#endif
