#include "tools/flare/trace.h"

#include <inttypes.h>
#include <stdio.h>

#include "broker/base/buf.h"
#include "tools/flare/output.h"
#include "tools/flare/progress.h"

enum { LINE_MAX_COLUMNS = 200, LINE_SIZE_MAX = 4096 };

void trace_line(char direction, struct span text)
{
    static uint64_t started_us = 0;
    struct buf line;
    uint64_t now_us = progress_now_us();
    if (started_us == 0) {
        started_us = now_us;
    }
    buf_init(&line, LINE_SIZE_MAX);
    output_visible(&line, text, LINE_MAX_COLUMNS);
    uint64_t elapsed_us = now_us - started_us;
    (void)fprintf(stderr, "%3" PRIu64 ".%06" PRIu64 " %c %.*s\n", elapsed_us / 1000000,
                  elapsed_us % 1000000, direction, (int)line.size, (const char *)line.data);
    buf_deinit(&line);
}
