#include "tools/flare/check_log.h"

#include <stdarg.h>
#include <stdio.h>

#include "broker/base/buf.h"
#include "broker/base/bytes.h"
#include "broker/core/record.h"

/* A row: version u8, kind u8, zero u16, then whole records, or one piece of a large record. */
enum {
    ROW_VERSION = 1,
    ROW_RECORDS = 0,
    ROW_FIRST = 1,
    ROW_CONTINUED = 2,
    ROW_HEADER_SIZE = 4,
    ROW_KEY_SIZE = 6,
    LARGE_MAX = 128 * 1024 * 1024,
    FAULT_SIZE = 160
};

struct walk {
    struct check_log *check;
    struct span key;  /* of the present row */
    struct buf large; /* pieces of a large record so far; empty: none is open */
};

static void fault(struct walk *walk, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fault(struct walk *walk, const char *format, ...)
{
    char text[FAULT_SIZE];
    char place[64];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text - sizeof place, format, arguments);
    va_end(arguments);
    (void)snprintf(place, sizeof place, " (segment %u, row %u)",
                   walk->key.size == ROW_KEY_SIZE ? bytes_get_be32(walk->key.data) : 0,
                   walk->key.size == ROW_KEY_SIZE ? bytes_get_be16(walk->key.data + 4) : 0u);
    strncat(text, place, sizeof text - strlen(text) - 1);
    walk->check->faults++;
    walk->check->fault(walk->check->context, text);
}

static void check_records(struct walk *walk, struct span rest)
{
    while (rest.size > 0) {
        struct record record;
        uint64_t size = 0;
        if (!record_peek(rest, &record, &size) || size > rest.size) {
            fault(walk, "the header of a record is damaged");
            return;
        }
        if (record_get(span_of(rest.data, size), &record)) {
            walk->check->records++;
        } else {
            fault(walk, "shard %u sequence %llu fails its checksum", record.shard_id,
                  (unsigned long long)record.sequence);
        }
        rest = span_of(rest.data + size, rest.size - size);
    }
}

/* A large record is over when the next row is no piece of it. */
static void check_large(struct walk *walk)
{
    if (walk->large.size > 0) {
        check_records(walk, buf_span(&walk->large));
        buf_reset(&walk->large);
    }
}

static err_t check_row(struct walk *walk, struct span row)
{
    bool known = walk->key.size == ROW_KEY_SIZE && row.size >= ROW_HEADER_SIZE &&
                 row.data[0] == ROW_VERSION && row.data[1] <= ROW_CONTINUED;
    if (!known) {
        fault(walk, "a row of the log has no known form");
        return NULL;
    }
    uint8_t kind = row.data[1];
    struct span content = span_of(row.data + ROW_HEADER_SIZE, row.size - ROW_HEADER_SIZE);
    if (kind != ROW_CONTINUED) {
        check_large(walk);
    } else if (walk->large.size == 0) {
        fault(walk, "a piece of a record without its beginning");
        return NULL;
    }
    if (kind == ROW_RECORDS) {
        check_records(walk, content);
        return NULL;
    }
    buf_append_span(&walk->large, content);
    return walk->large.failed ? ERR(CORRUPT, "a record is larger than %d bytes", LARGE_MAX) : NULL;
}

static err_t walk_rows(struct walk *walk, struct store_cursor *cursor)
{
    bool found = false;
    TRY(store_cursor_seek(cursor, span_of(NULL, 0), &found));
    while (found) {
        walk->key = cursor->key;
        TRY(check_row(walk, cursor->value));
        walk->check->progress(walk->check->context, walk->check->records);
        TRY(store_cursor_next(cursor, &found));
    }
    check_large(walk);
    return NULL;
}

err_t check_log_run(struct store *store, struct check_log *check)
{
    struct walk walk = {.check = check};
    struct store_txn *txn = NULL;
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    check->records = check->faults = 0;
    buf_init(&walk.large, LARGE_MAX);
    TRY(store_begin(store, STORE_READ, &txn));
    TRY_OUT(store_cursor_open(txn, STORE_LOG, &cursor));
    TRY_OUT(walk_rows(&walk, cursor));
out:
    store_cursor_close(cursor);
    store_abort(txn);
    buf_deinit(&walk.large);
    return err;
}
