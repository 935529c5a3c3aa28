/* What a long command says about itself on standard error: one line that is redrawn on a terminal,
 * a new line every few seconds otherwise, nothing in the first two seconds and nothing with
 * --quiet. */
#ifndef FLARE_PROGRESS_H
#define FLARE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    uint64_t started_us;
    uint64_t printed_us;
    uint64_t silent_us; /* from the start; two seconds unless changed */
    bool enabled;
    bool terminal;
    bool drawn;
};

void progress_init(struct progress *progress, bool quiet);
/* True when it is time for a line; cheap enough to ask for each batch. */
bool progress_due(struct progress *progress);
/* Prints one, after progress_due said so. */
void progress_print(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Removes the line from the terminal. */
void progress_done(struct progress *progress);

/* Monotonic microseconds. */
uint64_t progress_now_us(void);
/* Things per second since the start. */
double progress_rate(const struct progress *progress, uint64_t count);

#endif
