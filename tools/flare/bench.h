/* What the benchmarks share: their settings, and the JSON document each prints. */
#ifndef FLARE_BENCH_H
#define FLARE_BENCH_H

#include <jansson.h>

#include "broker/base/buf.h"
#include "tools/flare/cli.h"
#include "tools/flare/load.h"

struct bench_settings {
    uint32_t connections;
    uint32_t outstanding;   /* requests of a connection at the same time; of a stream its credit */
    bool wire;              /* not HTTP */
    bool redis;             /* neither */
    bool pull;              /* over the wire: pulls, not a credit stream */
    bool library;           /* over the wire: through libflare, not with prepared frames */
    uint32_t library_batch; /* messages it may put into one publish; 0: its own bound */
    uint32_t batch;         /* messages in one request; 1: one message, one request */
    uint32_t size;          /* of a body */
    uint32_t shards;
    uint64_t count;   /* messages that are measured */
    uint64_t backlog; /* messages that lie there before and afterwards */
    const char *topic;
    const char *durability; /* of the topic */
    char host[256];
    char port[8];
    uint64_t timeout_ms;
    struct progress *progress;
};

/* Publishing over HTTP: single requests, or batches of MessagePack. */
err_t bench_publish_run(const struct bench_settings *settings, uint64_t count, uint32_t connections,
                        uint32_t batch, struct load_result *out) MUST_CHECK;
/* Pulling and acknowledging by batches over HTTP; every message must come exactly once. */
err_t bench_consume_run(const struct bench_settings *settings, struct load_result *out) MUST_CHECK;

/* The same two over the wire protocol; `settings->batch` is that of the acks. */
err_t bench_wire_publish_run(const struct bench_settings *settings, uint64_t count, uint32_t batch,
                             struct load_result *out) MUST_CHECK;
err_t bench_wire_consume_run(const struct bench_settings *settings,
                             struct load_result *out) MUST_CHECK;

/* The same two through libflare; publishing keeps `outstanding` messages of each
 * connection under way.
 */
err_t bench_library_publish_run(struct cli *cli, const struct bench_settings *settings,
                                struct load_result *out) MUST_CHECK;
err_t bench_library_consume_run(struct cli *cli, const struct bench_settings *settings,
                                struct load_result *out) MUST_CHECK;

/* The same two against a Redis stream, for comparison: XADD in pipelines; XREADGROUP and XACK. */
err_t bench_redis_publish_run(const struct bench_settings *settings, uint64_t count,
                              struct load_result *out) MUST_CHECK;
err_t bench_redis_consume_run(const struct bench_settings *settings,
                              struct load_result *out) MUST_CHECK;
/* Empties the stream and makes its consumer group; also tells whether the server flushes always. */
err_t bench_redis_prepare(const struct bench_settings *settings, bool *synced) MUST_CHECK;

enum { BENCH_VOLUMES_MAX = 16 };

struct bench_core_settings {
    const char *directory;
    uint32_t volumes;
    uint32_t shards; /* of each volume */
    uint32_t size;
    uint32_t batch;       /* state changes in one commit, a third of each kind */
    uint32_t command_max; /* messages in one command */
    uint64_t count;       /* state changes of all volumes */
    uint64_t in_flight;   /* leased messages of each volume, all the time */
    bool random_acks;
    bool no_journal; /* every round is a commit of LMDB */
    struct progress *progress;
};

struct bench_core_result {
    uint64_t duration_us;
    uint64_t changes;
    uint64_t used_size;
    uint64_t file_size;
    struct histogram commits; /* one round: apply and flush */
};

/* The core and LMDB in this process (bench_core.c). */
err_t bench_core_run(const struct bench_core_settings *settings,
                     struct bench_core_result *out) MUST_CHECK;

/* Bytes that are the same in every run. */
void bench_fill(struct buf *buf, uint32_t size);

#endif
