#include "tools/flare/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SILENT_US = 2000000, TERMINAL_EVERY_US = 200000, LINE_EVERY_US = 5000000 };

uint64_t progress_now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void progress_init(struct progress *progress, bool quiet)
{
    memset(progress, 0, sizeof *progress);
    progress->started_us = progress_now_us();
    progress->terminal = isatty(STDERR_FILENO) != 0;
    progress->printed_us = progress->started_us;
    progress->silent_us = SILENT_US;
    progress->enabled = !quiet;
}

bool progress_due(struct progress *progress)
{
    if (!progress->enabled) {
        return false;
    }
    uint64_t now_us = progress_now_us();
    uint64_t every_us = progress->terminal ? TERMINAL_EVERY_US : LINE_EVERY_US;
    if (now_us - progress->started_us < progress->silent_us ||
        now_us - progress->printed_us < every_us) {
        return false;
    }
    progress->printed_us = now_us;
    return true;
}

void progress_print(struct progress *progress, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs(progress->terminal ? "\r\033[K" : "", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputs(progress->terminal ? "" : "\n", stderr);
    (void)fflush(stderr);
    va_end(arguments);
    progress->drawn = true;
}

void progress_done(struct progress *progress)
{
    if (progress->drawn && progress->terminal) {
        (void)fputs("\r\033[K", stderr);
    }
    progress->drawn = false;
}

double progress_rate(const struct progress *progress, uint64_t count)
{
    uint64_t elapsed_us = progress_now_us() - progress->started_us;
    return elapsed_us == 0 ? 0 : (double)count * 1e6 / (double)elapsed_us;
}
