/* Checks and explains an environment offline: reads all of it in one read transaction and changes
 * nothing. Memory is bounded: rows are read one after the other, and only a counter per log segment
 * is kept. */
#ifndef CORE_CHECK_H
#define CORE_CHECK_H

#include <stdbool.h>

#include "storage/store.h"

enum { CHECK_PROBLEMS_MAX = 100, CHECK_PROBLEM_SIZE = 240 };

struct check_report {
    uint64_t rows[STORE_TABLE_COUNT];
    uint64_t records; /* messages whose stored bytes were verified */
    uint64_t needed;  /* of them, those that somebody still needs */
    uint64_t problem_count;
    uint32_t kept; /* the first problems, as text */
    char problems[CHECK_PROBLEMS_MAX][CHECK_PROBLEM_SIZE];
};

/* A volume, row by row and table against table: every record's checksum, a way from each needed
 * sequence to its record, counts of segments and lanes, and that each index has a row where and
 * only where it should. An error means that the store could not be read; what is wrong with what
 * was read is in the report. */
err_t check_volume(struct store *store, struct check_report *report) MUST_CHECK;
err_t check_catalog(struct store *store, struct check_report *report) MUST_CHECK;

/* Tells a person what is in an environment, one line a call, without a newline. */
typedef void (*check_line)(void *user, const char *text);
err_t check_inspect(struct store *store, check_line line, void *user) MUST_CHECK;

#endif
