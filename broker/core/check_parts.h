/* The parts of a check, each over some of the tables. Private to check*.c. */
#ifndef CORE_CHECK_PARTS_H
#define CORE_CHECK_PARTS_H

#include "broker/core/check.h"
#include "broker/core/state.h"

/* One check being made. It works on a core loaded from the store, whose own functions decode rows
 * and say what is needed; what they then count is compared with what is stored. */
struct checking {
    struct store_txn *txn;
    struct core *core; /* NULL: it could not be loaded */
    struct check_report *report;
    struct buf text;
    struct map live; /* segment number -> struct check_live */
    struct pool live_pool;
    uint64_t delivery_rows; /* as the lanes explain them */
    uint64_t ready_rows;
    uint64_t dead_rows;
    uint64_t due_rows;
    uint64_t log_entries; /* as the segments count them */
    uint64_t log_live;
    uint64_t log_size;
};

struct check_live {
    uint64_t needed;
};

/* Adds a problem to the report. */
#define CHECK_PROBLEM(checking, ...)                                                               \
    do {                                                                                           \
        buf_reset(&(checking)->text);                                                              \
        buf_printf(&(checking)->text, __VA_ARGS__);                                                \
        check_keep(checking);                                                                      \
    } while (0)

/* What CHECK_PROBLEM has put into checking->text. */
void check_keep(struct checking *checking);
/* An error about stored bytes becomes a problem; any other is handed back. */
err_t check_absorb(struct checking *checking, err_t err) MUST_CHECK;

/* Calls `row` for each entry of a table. */
typedef err_t (*check_row)(struct checking *checking, struct span key, struct span value);
err_t check_table(struct checking *checking, enum store_table table, check_row row) MUST_CHECK;

/* LOG: each row and record. */
err_t check_log(struct checking *checking) MUST_CHECK;
/* SHARD, INDEX: every needed sequence leads to its record. */
err_t check_shards(struct checking *checking) MUST_CHECK;
/* DELIVERY, READY, DUE, DEAD: each lane and its chunks. */
err_t check_lanes(struct checking *checking) MUST_CHECK;
/* SEGMENT, GC: after the two that count. */
err_t check_segments(struct checking *checking) MUST_CHECK;
/* DUE, DEDUP, SWEEP: each row by itself. */
err_t check_times(struct checking *checking) MUST_CHECK;

#endif
