/* A line is put together in one array on the stack and written at once. LINE_TAIL bytes at its end
 * are kept free for what closes a line, so that a cut one still ends well (and is still JSON). What
 * does not fit is cut between characters, never inside one, nor inside an escape or a name. */
#include "broker/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "broker/base/clock.h"

enum { LINE_TAIL = 24, ESCAPE_SIZE = 16 };

struct line {
    enum log_format format;
    size_t size;
    bool cut; /* something did not fit; nothing more is added */
    char text[LOG_LINE_MAX];
};

static const char *const level_texts[] = {
    [LOG_LEVEL_ERROR] = "error",
    [LOG_LEVEL_WARN] = "warn",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_DEBUG] = "debug",
};

/* Nothing can be done about a log that cannot be written, so what fails is let go. */
void log_write_fd(void *context, const char *line, size_t size)
{
    const int *fd = context;
    ssize_t written = 0;
    do {
        written = write(*fd, line, size);
    } while (written < 0 && errno == EINTR);
}

static int log_fd = STDERR_FILENO;
static struct log_sink log_process = {
    .write = log_write_fd,
    .context = &log_fd,
    .format = LOG_FORMAT_HUMAN,
    .level = LOG_LEVEL_INFO,
};
static _Thread_local struct log_sink *log_sink_bound;

static struct log_sink *log_sink(void)
{
    return log_sink_bound != NULL ? log_sink_bound : &log_process;
}

void log_bind(struct log_sink *sink)
{
    log_sink_bound = sink;
}

struct log_sink *log_bound(void)
{
    return log_sink_bound;
}

void log_init(int fd, enum log_format format, enum log_level level)
{
    log_fd = fd;
    log_process.format = format;
    atomic_store_explicit(&log_process.level, (int)level, memory_order_relaxed);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_sink()->level, (int)level, memory_order_relaxed);
}

enum log_level log_level(void)
{
    return (enum log_level)atomic_load_explicit(&log_sink()->level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return level <= log_level();
}

bool log_parse_level(struct span text, enum log_level *out)
{
    for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
        if (span_is(text, level_texts[level])) {
            *out = (enum log_level)level;
            return true;
        }
    }
    return false;
}

const char *log_level_text(enum log_level level)
{
    return level_texts[level];
}

/* One piece that is either added whole or not at all. */
static void line_add(struct line *line, const char *text, size_t size)
{
    if (line->cut || line->size + size > sizeof line->text - LINE_TAIL) {
        line->cut = true;
        return;
    }
    memcpy(line->text + line->size, text, size);
    line->size += size;
}

/* What ends a value or the line: there is always room, cut or not. */
static void line_close(struct line *line, const char *text)
{
    size_t size = strlen(text);
    memcpy(line->text + line->size, text, size);
    line->size += size;
}

/* Bytes of the UTF-8 character that starts `text`; 0 when there is no valid one (RFC 3629). */
static size_t utf8_size(struct span text, uint32_t *code_point)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = text.data[0];
    size_t size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first > 0xf4 || size == 0 || size > text.size) {
        return 0;
    }
    uint32_t value = size == 1 ? first : first & (0x7fU >> size);
    for (size_t i = 1; i < size; i++) {
        if ((text.data[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (text.data[i] & 0x3fU);
    }
    if (value < least[size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
        return 0;
    }
    *code_point = value;
    return size;
}

/* Control characters (C0, DEL, C1) steer terminals, U+2028 and U+2029 end lines for some readers,
 * and the direction marks reorder what a person sees. */
static bool is_unsafe(uint32_t code_point)
{
    return code_point < 0x20 || (code_point >= 0x7f && code_point <= 0x9f) ||
           (code_point >= 0x200e && code_point <= 0x200f) ||
           (code_point >= 0x2028 && code_point <= 0x202e) ||
           (code_point >= 0x2066 && code_point <= 0x2069);
}

static void line_add_escaped(struct line *line, struct span value)
{
    while (value.size > 0 && !line->cut) {
        char escape[ESCAPE_SIZE] = "\\ufffd"; /* JSON has no way to say a byte that is no text */
        uint32_t code_point = 0;
        size_t size = utf8_size(value, &code_point);
        if (size == 0) {
            size = 1;
            if (line->format == LOG_FORMAT_HUMAN) {
                (void)snprintf(escape, sizeof escape, "\\x%02x", value.data[0]);
            }
            line_add(line, escape, strlen(escape));
        } else if (code_point == '"' || code_point == '\\') {
            (void)snprintf(escape, sizeof escape, "\\%c", (char)code_point);
            line_add(line, escape, strlen(escape));
        } else if (is_unsafe(code_point)) {
            (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)code_point);
            line_add(line, escape, strlen(escape));
        } else {
            line_add(line, (const char *)value.data, size);
        }
        value = span_of(value.data + size, value.size - size);
    }
}

/* Readable without quotes: no space, quote, '=' or byte that would be escaped. */
static bool is_plain(struct span value)
{
    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        if (byte <= ' ' || byte >= 0x7f || byte == '"' || byte == '\\' || byte == '=') {
            return false;
        }
    }
    return value.size > 0;
}

/* The name of a field, if it fits together with `value_size` bytes after it. */
static void line_add_name(struct line *line, const char *name, size_t value_size)
{
    bool json = line->format == LOG_FORMAT_JSON;
    size_t size = strlen(name) + sizeof ",\"\":" - 1;
    if (line->size + size + value_size > sizeof line->text - LINE_TAIL) {
        line->cut = true;
    }
    line_add(line, json ? ",\"" : " ", json ? 2 : 1);
    line_add(line, name, strlen(name));
    line_add(line, json ? "\":" : "=", json ? 2 : 1);
}

static void line_add_string(struct line *line, const char *name, struct span value)
{
    bool quoted = line->format == LOG_FORMAT_JSON || !is_plain(value);
    line_add_name(line, name, 1);
    if (line->cut) {
        return;
    }
    if (quoted) {
        line_add(line, "\"", 1);
    }
    line_add_escaped(line, value);
    if (quoted) {
        line_close(line, "\"");
    }
}

static void line_add_number(struct line *line, const char *name, const char *digits)
{
    line_add_name(line, name, strlen(digits));
    line_add(line, digits, strlen(digits));
}

static void line_add_field(struct line *line, const struct log_field *field)
{
    char digits[24];
    switch (field->kind) {
    case LOG_KIND_END:
        break;
    case LOG_KIND_TEXT:
        line_add_string(line, field->name,
                        span_text(field->value.text == NULL ? "" : field->value.text));
        break;
    case LOG_KIND_SPAN:
        line_add_string(line, field->name, field->value.span);
        break;
    case LOG_KIND_U64:
        (void)snprintf(digits, sizeof digits, "%" PRIu64, field->value.u64);
        line_add_number(line, field->name, digits);
        break;
    case LOG_KIND_I64:
        (void)snprintf(digits, sizeof digits, "%" PRId64, field->value.i64);
        line_add_number(line, field->name, digits);
        break;
    case LOG_KIND_ERR:
        line_add_string(line, "code", span_text(err_slug(err_code(field->value.err))));
        line_add_string(line, field->name, span_text(err_describe(field->value.err)));
        break;
    }
}

static void line_begin(struct line *line, enum log_level level, const char *event)
{
    static const struct clock real;
    char time[CLOCK_ISO_SIZE];
    clock_iso(clock_wall_ms(&real), time);
    if (line->format == LOG_FORMAT_JSON) {
        line_close(line, "{\"time\":\"");
        line_close(line, time);
        line_close(line, "\",\"level\":\"");
        line_close(line, level_texts[level]);
        line_close(line, "\"");
        line_add_string(line, "event", span_text(event));
    } else {
        line_close(line, time);
        line_close(line, " ");
        line_close(line, level_texts[level]);
        line_close(line, " ");
        line_add_escaped(line, span_text(event));
    }
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    int errno_before = errno;
    const struct log_sink *sink = log_sink();
    struct line line;
    line.format = sink->format;
    line.size = 0;
    line.cut = false;
    line_begin(&line, level, event);
    if (sink->name != NULL) {
        line_add_string(&line, "broker", span_text(sink->name));
    }
    for (; fields->kind != LOG_KIND_END && !line.cut; fields++) {
        line_add_field(&line, fields);
    }
    if (line.format == LOG_FORMAT_JSON) {
        line_close(&line, line.cut ? ",\"cut\":true}\n" : "}\n");
    } else {
        line_close(&line, line.cut ? " cut=true\n" : "\n");
    }
    sink->write(sink->context, line.text, line.size);
    errno = errno_before;
}
