#include "broker/base/err.h"

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { ERR_MESSAGE_SIZE = 512, ERR_DESCRIPTION_SIZE = 1024, ERR_TRACE_MAX = 8 };

struct err {
    enum err_code code;
    bool fixed; /* one of err_without_memory: shared by all threads, never written, never freed */
    int line;
    int trace_count;
    const char *file;
    const char *trace[ERR_TRACE_MAX]; /* the names of functions are static: pointers are enough */
    char message[ERR_MESSAGE_SIZE];
    char description[ERR_DESCRIPTION_SIZE];
};

struct err_row {
    const char *name;
    int status;
    int retryable;
    const char *title;
};

static const struct err_row err_rows[] = {
#define ERROR(name, number, status, retryable, text) [number] = {#name, status, retryable, text},
#include "broker/base/err.def"
};

enum { ERR_ROW_COUNT = sizeof err_rows / sizeof err_rows[0], ERR_SLUG_SIZE = 32 };

#define ERROR(name, number, status, retryable, text)                                               \
    _Static_assert(sizeof #name <= ERR_SLUG_SIZE, "the slug of " #name " fits");
#include "broker/base/err.def"

/* What ERR() gives when there is no memory for an error of its own. The code survives, because it
 * is what callers act on; the place is lost, because keeping it would need memory that is not
 * shared. */
#define FIXED_TEXT(text) text " (and no memory for details)"
static struct err err_without_memory[ERR_ROW_COUNT] = {
#define ERROR(name, number, status, retryable, text)                                               \
    [number] = {.code = ERR_##name,                                                                \
                .fixed = true,                                                                     \
                .message = FIXED_TEXT(text),                                                       \
                .description = FIXED_TEXT(text)},
#include "broker/base/err.def"
};
#undef FIXED_TEXT

static char err_slugs[ERR_ROW_COUNT][ERR_SLUG_SIZE];
static pthread_once_t err_slugs_once = PTHREAD_ONCE_INIT;

static void err_slugs_fill(void)
{
    for (size_t index = 0; index < ERR_ROW_COUNT; index++) {
        const char *name = err_rows[index].name;
        for (size_t i = 0; name != NULL && name[i] != '\0'; i++) {
            bool upper = name[i] >= 'A' && name[i] <= 'Z';
            err_slugs[index][i] = upper ? (char)(name[i] - 'A' + 'a') : name[i];
        }
    }
}

static size_t err_index(enum err_code code)
{
    size_t index = (size_t)code;
    assert(index < ERR_ROW_COUNT);
    assert(err_rows[index].name != NULL);
    return index;
}

err_t err_make(enum err_code code, const char *file, int line, const char *function,
               const char *format, ...)
{
    assert(code != ERR_NONE);
    size_t index = err_index(code);
    struct err *err = malloc(sizeof *err);
    if (err == NULL) {
        return &err_without_memory[index];
    }
    err->code = code;
    err->fixed = false;
    err->file = file;
    err->line = line;
    err->trace[0] = function;
    err->trace_count = 1;
    err->description[0] = '\0';
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    if (size < 0) { /* an encoding error of %ls: the title still says what kind it is */
        (void)snprintf(err->message, sizeof err->message, "%s", err_rows[index].title);
    }
    return err;
}

err_t err_passed(err_t err, const char *function)
{
    assert(err != NULL);
    if (!err->fixed && err->trace_count < ERR_TRACE_MAX) {
        err->trace[err->trace_count] = function;
        err->trace_count++;
    }
    return err;
}

void err_free(err_t err)
{
    if (err != NULL && !err->fixed) {
        free(err);
    }
}

enum err_code err_code(err_t err)
{
    return err == NULL ? ERR_NONE : err->code;
}

const char *err_message(err_t err)
{
    return err == NULL ? err_title(ERR_NONE) : err->message;
}

/* Appends to a text that may already be cut. */
static void describe_add(struct err *err, size_t *size, const char *text)
{
    size_t room = sizeof err->description - *size;
    int wanted = snprintf(err->description + *size, room, "%s", text);
    assert(wanted >= 0);
    *size += (size_t)wanted < room ? (size_t)wanted : room - 1;
}

const char *err_describe(err_t err)
{
    if (err == NULL) {
        return err_title(ERR_NONE);
    }
    if (err->fixed) {
        return err->description;
    }
    char line[16];
    (void)snprintf(line, sizeof line, ":%d", err->line);
    size_t size = 0;
    describe_add(err, &size, err->message);
    describe_add(err, &size, " (");
    describe_add(err, &size, err->file);
    describe_add(err, &size, line);
    for (int i = 0; i < err->trace_count; i++) {
        describe_add(err, &size, i == 0 ? ", " : " <- ");
        describe_add(err, &size, err->trace[i]);
    }
    describe_add(err, &size, ")");
    return err->description;
}

const char *err_slug(enum err_code code)
{
    size_t index = err_index(code);
    int rc = pthread_once(&err_slugs_once, err_slugs_fill);
    assert(rc == 0);
    (void)rc;
    return err_slugs[index];
}

int err_status(enum err_code code)
{
    return err_rows[err_index(code)].status;
}

int err_retryable(enum err_code code)
{
    return err_rows[err_index(code)].retryable;
}

const char *err_title(enum err_code code)
{
    return err_rows[err_index(code)].title;
}
