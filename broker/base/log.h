/* The structured log: one line per event on standard error, `key=value` for people and tools, or
 * JSON.
 *
 *   LOG_INFO("volume opened", LOG_TEXT("path", path), LOG_U64("used_bytes", used));
 *   2026-01-02T03:04:05.678Z info volume opened path=/data/volume-0.mdb used_bytes=4096
 *
 * Values are quoted and control characters escaped, so no input can forge a line. The level can
 * change at run time from any thread. A line is one write; a line longer than LOG_LINE_MAX is cut
 * and says so.
 *
 * Where lines go belongs to the thread that logs: a broker that shares its process with others
 * binds its threads to a sink of its own, and no line of one gets among those of another. A thread
 * that is bound to none writes to the process's sink, which log_init sets. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/err.h"
#include "broker/base/span.h"

enum log_level { LOG_LEVEL_ERROR = 1, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_HUMAN, LOG_FORMAT_JSON };
enum { LOG_LINE_MAX = 4096 };

enum log_kind {
    LOG_KIND_END,
    LOG_KIND_TEXT,
    LOG_KIND_SPAN,
    LOG_KIND_U64,
    LOG_KIND_I64,
    LOG_KIND_ERR
};

struct log_field {
    enum log_kind kind;
    const char *name;
    union {
        const char *text;
        struct span span;
        uint64_t u64;
        int64_t i64;
        err_t err;
    } value;
};

#define LOG_TEXT(n, v) ((struct log_field){.kind = LOG_KIND_TEXT, .name = (n), .value.text = (v)})
#define LOG_SPAN(n, v) ((struct log_field){.kind = LOG_KIND_SPAN, .name = (n), .value.span = (v)})
#define LOG_U64(n, v) ((struct log_field){.kind = LOG_KIND_U64, .name = (n), .value.u64 = (v)})
#define LOG_I64(n, v) ((struct log_field){.kind = LOG_KIND_I64, .name = (n), .value.i64 = (v)})
#define LOG_ERR(v) ((struct log_field){.kind = LOG_KIND_ERR, .name = "error", .value.err = (v)})

#define LOG_AT(level, event, ...)                                                                  \
    do {                                                                                           \
        if (log_enabled(level)) {                                                                  \
            log_write(                                                                             \
                level, event,                                                                      \
                (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.kind = LOG_KIND_END}});     \
        }                                                                                          \
    } while (0)
#define LOG_ERROR(event, ...) LOG_AT(LOG_LEVEL_ERROR, event __VA_OPT__(, ) __VA_ARGS__)
#define LOG_WARN(event, ...) LOG_AT(LOG_LEVEL_WARN, event __VA_OPT__(, ) __VA_ARGS__)
#define LOG_INFO(event, ...) LOG_AT(LOG_LEVEL_INFO, event __VA_OPT__(, ) __VA_ARGS__)
#define LOG_DEBUG(event, ...) LOG_AT(LOG_LEVEL_DEBUG, event __VA_OPT__(, ) __VA_ARGS__)

struct log_sink {
    /* One whole line with its newline; from every thread bound to the sink, at the same time. */
    void (*write)(void *context, const char *line, size_t size);
    void *context;
    const char *name; /* given with each line as broker=NAME; NULL: it is not */
    enum log_format format;
    _Atomic int level; /* enum log_level */
};

/* From now on this thread logs to `sink`, which is borrowed; NULL: to the process's. A part that
 * starts a thread hands it log_bound() of its own. */
void log_bind(struct log_sink *sink);
struct log_sink *log_bound(void); /* NULL: the process's */

/* A sink's write: to the file descriptor that `context`, an int, holds. */
void log_write_fd(void *context, const char *line, size_t size);

/* The process's sink; before other threads start. `fd` is borrowed. */
void log_init(int fd, enum log_format format, enum log_level level);

/* Of the sink that the calling thread is bound to. */
void log_set_level(enum log_level level);
enum log_level log_level(void);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *event, const struct log_field *fields);

/* "error", "warn", "info", "debug"; false when `text` is none of them. */
bool log_parse_level(struct span text, enum log_level *out);
const char *log_level_text(enum log_level level);

#endif
