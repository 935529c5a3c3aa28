/* What a long command says about itself on standard error: a bar with percent, rate and the time
 * that is left, redrawn in one line of a terminal. Nothing without a terminal, nothing with
 * --quiet, nothing in the first two seconds. */
#ifndef FLARE_PROGRESS_H
#define FLARE_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/base/buf.h"

enum { PROGRESS_DEED_SIZE = 64, PROGRESS_LINE_MAX = 512 };

enum progress_unit { PROGRESS_COUNT = 1, PROGRESS_BYTES };

struct progress {
    uint64_t started_us;
    uint64_t printed_us;
    uint64_t silent_us; /* from the start; two seconds unless changed */
    uint64_t begun_us;  /* the present deed */
    uint64_t total;     /* 0: unknown */
    enum progress_unit unit;
    char deed[PROGRESS_DEED_SIZE];
    bool enabled;
    bool drawn;
};

void progress_init(struct progress *progress, bool quiet);

/* What is counted from now on, from 0 to `total`; 0 when nobody knows. */
void progress_begin(struct progress *progress, const char *deed, uint64_t total);
/* Draws the line when it is time; cheap enough for each batch. `progress` may be NULL. */
void progress_step(struct progress *progress, uint64_t done);
/* The same where the rate is that of other things than are counted: lines of a file's bytes. */
void progress_step_items(struct progress *progress, uint64_t done, uint64_t items);
/* Removes the line from the terminal. */
void progress_done(struct progress *progress);

/* The line without what moves the cursor, for a terminal of `columns`: after `elapsed_us` of the
 * deed. */
void progress_line(const struct progress *progress, uint64_t done, uint64_t items,
                   uint64_t elapsed_us, size_t columns, struct buf *out);

/* Joins a thread that ends within a fifth of a second; false when it has not, and there is progress
 * to be shown. */
bool progress_join(pthread_t thread);

/* Monotonic microseconds. */
uint64_t progress_now_us(void);
/* Things per second since the start. */
double progress_rate(const struct progress *progress, uint64_t count);

#endif
