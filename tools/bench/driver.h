/* Runs one stage of work against one broker and measures it: publishing, consuming, or both at
 * once, as fast as it goes or at a fixed rate.
 *
 * One thread drives all connections, or as many as a client library has. Latencies are measured per
 * message, from the moment a message was to be sent: at a fixed rate that is the schedule's, so
 * that a stall is charged to every message that it delays and not only to the one that met it. */
#ifndef BENCH_DRIVER_H
#define BENCH_DRIVER_H

#include "tools/bench/adapter.h"
#include "tools/bench/ledger.h"
#include "tools/flare/load.h"

struct stage {
    uint32_t publishers; /* 0: everything the ledger says was sent is consumed */
    uint32_t window;     /* outstanding messages of each */
    uint32_t size;       /* of a body */
    uint64_t count_max;  /* messages to publish, or until `seconds` have passed */
    uint64_t seconds;    /* 0: until count_max */
    uint64_t rate;       /* messages per second of all publishers; 0: as fast as it goes */
    uint32_t consumers;  /* 0: what is published stays */
    uint32_t batch;
    uint64_t patience_ms; /* without any progress: the stage ends as it is */
};

struct stage_result {
    uint64_t duration_us; /* from the first request to the last answer */
    uint64_t cpu_us;      /* of this process meanwhile */
    uint64_t published;
    uint64_t received;
    bool stalled;                /* patience was over: counts are short */
    struct histogram confirms;   /* microseconds to the confirmation of a message */
    struct histogram batches;    /* from asking for a batch to having it, of one that is asked */
    struct histogram end_to_end; /* from the moment to be sent to the consumer's having it */
};

/* Adds to `ledger`, which spans the stages of a run. Losing or doubling messages is no error here:
 * the ledger tells. */
err_t driver_run(const struct adapter *adapter, const struct peer_address *address,
                 const struct stage *stage, struct ledger *ledger,
                 struct stage_result *out) MUST_CHECK;

#endif
