/* Which messages a benchmark has been given: each must come exactly once. */
#ifndef FLARE_BENCH_SEEN_H
#define FLARE_BENCH_SEEN_H

#include <stdint.h>

#include "broker/base/err.h"

struct bench_seen_shard {
    uint8_t *bits;
    uint64_t size; /* bytes of `bits` */
};

struct bench_seen {
    struct bench_seen_shard *shards;
    uint32_t count;
    uint64_t received;
    uint64_t doubled;
};

err_t bench_seen_init(struct bench_seen *seen, uint32_t shards) MUST_CHECK;
void bench_seen_deinit(struct bench_seen *seen);

/* FORMAT for a shard that there is not. */
err_t bench_seen_mark(struct bench_seen *seen, uint64_t shard, uint64_t sequence) MUST_CHECK;
/* INTERNAL when any came twice. */
err_t bench_seen_check(const struct bench_seen *seen) MUST_CHECK;

#endif
