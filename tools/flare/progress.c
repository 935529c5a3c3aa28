#define _GNU_SOURCE /* pthread_timedjoin_np */
#include "tools/flare/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tools/flare/output.h"

enum {
    SILENT_US = 2000000,
    EVERY_US = 100000,
    JOIN_MS = 200,
    BAR_COLUMNS = 24,
    BAR_COLUMNS_MIN = 78, /* of a terminal that has room for a bar */
    COLUMNS_FALLBACK = 80,
};

uint64_t progress_now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

bool progress_join(pthread_t thread)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += JOIN_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

void progress_init(struct progress *progress, bool quiet)
{
    memset(progress, 0, sizeof *progress);
    progress->started_us = progress_now_us();
    progress->printed_us = progress->started_us;
    progress->begun_us = progress->started_us;
    progress->silent_us = SILENT_US;
    progress->unit = PROGRESS_COUNT;
    progress->enabled = !quiet && isatty(STDERR_FILENO) != 0;
}

void progress_begin(struct progress *progress, const char *deed, uint64_t total)
{
    (void)snprintf(progress->deed, sizeof progress->deed, "%s", deed);
    progress->total = total;
    progress->begun_us = progress_now_us();
}

static void append_amount(struct buf *out, enum progress_unit unit, uint64_t amount)
{
    switch (unit) {
    case PROGRESS_COUNT:
        output_count(out, amount);
        break;
    case PROGRESS_BYTES:
        output_size(out, amount);
        break;
    }
}

static void append_bar(struct buf *out, double part)
{
    int full = (int)(part * BAR_COLUMNS);
    buf_append_text(out, " [");
    for (int i = 0; i < BAR_COLUMNS; i++) {
        buf_append_byte(out, i < full ? '#' : '-');
    }
    buf_append_byte(out, ']');
}

void progress_line(const struct progress *progress, uint64_t done, uint64_t items,
                   uint64_t elapsed_us, size_t columns, struct buf *out)
{
    uint64_t total = progress->total;
    double seconds = (double)elapsed_us / 1e6;
    /* A guess of the total may be too small. */
    double part = total == 0 ? 0 : done >= total ? 1 : (double)done / (double)total;
    enum progress_unit unit = items == done ? progress->unit : PROGRESS_COUNT;
    buf_append_text(out, progress->deed);
    if (total > 0 && columns >= BAR_COLUMNS_MIN) {
        append_bar(out, part);
    }
    if (total > 0) {
        buf_printf(out, " %3d %%", (int)(part * 100));
    }
    buf_append_text(out, "  ");
    if (done == 0 && items == 0) { /* nothing is known but that it goes on */
        output_duration(out, elapsed_us / 1000000 * 1000);
        return;
    }
    append_amount(out, unit, items);
    if (seconds > 0) {
        buf_append_text(out, "  ");
        append_amount(out, unit, (uint64_t)((double)items / seconds));
        buf_append_text(out, "/s");
    }
    if (part > 0 && part < 1) {
        uint64_t left_s = (uint64_t)(seconds * (1 - part) / part + 0.5);
        buf_append_text(out, "  ");
        output_duration(out, (left_s == 0 ? 1 : left_s) * 1000);
        buf_append_text(out, " left");
    }
}

static size_t terminal_columns(void)
{
    struct winsize size = {0};
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : COLUMNS_FALLBACK;
}

static void draw(struct progress *progress, uint64_t done, uint64_t items, uint64_t now_us)
{
    struct buf line;
    size_t columns = terminal_columns();
    buf_init(&line, PROGRESS_LINE_MAX);
    progress_line(progress, done, items, now_us - progress->begun_us, columns, &line);
    size_t size = line.size < columns ? line.size : columns - 1; /* a full line would wrap */
    (void)fprintf(stderr, "\r\033[K%.*s", (int)size, (const char *)line.data);
    (void)fflush(stderr);
    buf_deinit(&line);
    progress->drawn = true;
    progress->printed_us = now_us;
}

void progress_step_items(struct progress *progress, uint64_t done, uint64_t items)
{
    if (progress == NULL || !progress->enabled) {
        return;
    }
    uint64_t now_us = progress_now_us();
    if (now_us - progress->started_us >= progress->silent_us &&
        now_us - progress->printed_us >= EVERY_US) {
        draw(progress, done, items, now_us);
    }
}

void progress_step(struct progress *progress, uint64_t done)
{
    progress_step_items(progress, done, done);
}

void progress_done(struct progress *progress)
{
    if (progress->drawn) {
        (void)fputs("\r\033[K", stderr);
        (void)fflush(stderr);
    }
    progress->drawn = false;
}

double progress_rate(const struct progress *progress, uint64_t count)
{
    uint64_t elapsed_us = progress_now_us() - progress->started_us;
    return elapsed_us == 0 ? 0 : (double)count * 1e6 / (double)elapsed_us;
}
