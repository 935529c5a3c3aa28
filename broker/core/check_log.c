/* The log: every row, every record's checksum, and what is counted of segments. */
#include "broker/base/bytes.h"
#include "broker/core/check_parts.h"
#include "broker/core/msglog.h"

enum { SEGMENT_KEY_SIZE = 4, GC_KEY_SIZE = 5 };

/* The log being read, in order. */
struct reading {
    struct checking *checking;
    uint64_t segments; /* begun */
    uint32_t number;   /* of the segment now; 0: none yet */
    uint32_t rows;
    uint32_t entries;
    uint64_t size;
    uint64_t large_at; /* position of the large record being put together; 0: none */
    uint64_t large_size;
    struct buf large;
};

static const char *topic_text(const struct checking *checking, uint32_t shard_id, struct buf *out)
{
    const struct shard *shard =
        checking->core == NULL ? NULL : state_shard(checking->core, shard_id);
    buf_reset(out);
    if (shard == NULL) {
        buf_append_text(out, "unknown topic");
    } else {
        buf_printf(out, "topic %u", shard->topic->id);
    }
    buf_append_byte(out, '\0');
    return out->failed ? "topic" : (const char *)out->data;
}

static void name_damage(struct checking *checking, const struct record *record, uint64_t position)
{
    struct buf topic;
    buf_init(&topic, 64);
    CHECK_PROBLEM(checking,
                  "a message fails its checksum: %s, shard %u, sequence %llu, at position %016llx",
                  topic_text(checking, record->shard_id, &topic), record->shard_id,
                  (unsigned long long)record->sequence, (unsigned long long)position);
    buf_deinit(&topic);
}

static void count_record(struct reading *reading, uint64_t size)
{
    reading->entries++;
    reading->size += size;
    reading->checking->report->records++;
}

static void read_records(struct reading *reading, struct span row, uint64_t position)
{
    struct msglog_item item;
    size_t offset = ROW_HEADER_SIZE;
    bool damaged = false;
    bool named = false;
    while (msglog_row_next(row, &offset, &item, &damaged)) {
        count_record(reading, item.size);
        if (!item.sound) {
            named = true;
            name_damage(reading->checking, &item.record, position | item.offset);
        }
    }
    if (damaged && !named) {
        CHECK_PROBLEM(reading->checking, "parts of the log row at position %016llx cannot be read",
                      (unsigned long long)position);
    }
}

static void end_large(struct reading *reading)
{
    if (reading->large_at != 0) {
        CHECK_PROBLEM(reading->checking, "a large message is cut off: position %016llx",
                      (unsigned long long)reading->large_at);
        reading->large_at = 0;
    }
}

static err_t add_large(struct reading *reading, struct span row)
{
    buf_append(&reading->large, row.data + ROW_HEADER_SIZE, row.size - ROW_HEADER_SIZE);
    if (reading->large.failed) {
        return ERR(MEMORY, "no memory for a message of %llu bytes",
                   (unsigned long long)reading->large_size);
    }
    if (reading->large.size >= reading->large_size) {
        struct record record = {0};
        count_record(reading, reading->large_size);
        if (!record_get(buf_span(&reading->large), &record)) {
            name_damage(reading->checking, &record, reading->large_at);
        }
        reading->large_at = 0;
    }
    return NULL;
}

static err_t begin_large(struct reading *reading, struct span row, uint64_t position)
{
    struct record record;
    struct span first = span_of(row.data + ROW_HEADER_SIZE, row.size - ROW_HEADER_SIZE);
    if (!record_peek(first, &record, &reading->large_size) ||
        reading->large_size > MESSAGE_SIZE_MAX) {
        CHECK_PROBLEM(reading->checking, "a log row cannot be read from position %016llx on",
                      (unsigned long long)(position | ROW_HEADER_SIZE));
        return NULL;
    }
    reading->large_at = position | ROW_HEADER_SIZE;
    buf_reset(&reading->large);
    return add_large(reading, row);
}

/* Compares the segment just read with what is counted of it. */
static err_t end_segment(struct reading *reading)
{
    struct checking *checking = reading->checking;
    struct segment *segment = NULL;
    end_large(reading);
    if (reading->number == 0 || checking->core == NULL) {
        return NULL;
    }
    err_t err = msglog_segment(checking->core, reading->number, &segment);
    if (err != NULL) {
        return check_absorb(checking, err);
    }
    if (segment == NULL) {
        CHECK_PROBLEM(checking, "log segment %u is not counted", reading->number);
    } else if (segment->rows != reading->rows || segment->entries != reading->entries ||
               segment->size != reading->size) {
        CHECK_PROBLEM(
            checking,
            "log segment %u has %u rows, %u messages, %llu bytes; counted are %u, %u, %llu",
            reading->number, reading->rows, reading->entries, (unsigned long long)reading->size,
            segment->rows, segment->entries, (unsigned long long)segment->size);
    }
    return NULL;
}

static err_t begin_row(struct reading *reading, uint64_t position)
{
    uint32_t number = (uint32_t)(position >> 32);
    uint32_t row = (uint32_t)(position >> 16) & 0xffff;
    if (number != reading->number) {
        TRY(end_segment(reading));
        reading->segments++;
        reading->number = number;
        reading->rows = 0;
        reading->entries = 0;
        reading->size = 0;
    }
    if (row != reading->rows) {
        CHECK_PROBLEM(reading->checking, "rows %u to %u of log segment %u are missing",
                      reading->rows, row - 1, number);
    }
    reading->rows = row + 1;
    return NULL;
}

static err_t read_row(struct reading *reading, struct span key, struct span row)
{
    uint64_t position = msglog_row_position(key);
    bool sound = key.size == MSGLOG_KEY_SIZE && row.size > ROW_HEADER_SIZE &&
                 row.size <= ROW_SIZE_MAX && row.data[0] == MSGLOG_ROW_VERSION;
    TRY(begin_row(reading, position));
    uint8_t kind = sound ? row.data[1] : UINT8_MAX;
    if (kind == MSGLOG_CONTINUED && reading->large_at != 0) {
        return add_large(reading, row);
    }
    end_large(reading);
    if (kind == MSGLOG_FIRST) {
        return begin_large(reading, row, position);
    }
    if (kind == MSGLOG_RECORDS) {
        read_records(reading, row, position);
        return NULL;
    }
    CHECK_PROBLEM(reading->checking, "the log row at position %016llx cannot be read",
                  (unsigned long long)position);
    return NULL;
}

static err_t read_log(struct reading *reading)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    bool found = false;
    TRY(store_cursor_open(reading->checking->txn, STORE_LOG, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of("", 0), &found));
    while (found) {
        TRY_OUT(read_row(reading, cursor->key, cursor->value));
        TRY_OUT(store_cursor_next(cursor, &found));
    }
    TRY_OUT(end_segment(reading));
out:
    store_cursor_close(cursor);
    return err;
}

err_t check_log(struct checking *checking)
{
    struct reading reading = {.checking = checking};
    buf_init(&reading.large, MESSAGE_SIZE_MAX + ROW_SIZE_MAX);
    err_t err = read_log(&reading);
    buf_deinit(&reading.large);
    return err;
}

/* ---- SEGMENT, GC ---------------------------------------------------------------------------- */

static err_t has_gc_row(struct checking *checking, const struct segment *segment, bool *out)
{
    uint8_t key[GC_KEY_SIZE] = {segment->listed};
    struct span value;
    bytes_put_be32(key + 1, segment->number);
    return store_get(checking->txn, STORE_GC, span_of(key, sizeof key), &value, out);
}

static err_t has_rows(struct checking *checking, const struct segment *segment, bool *out)
{
    uint8_t key[MSGLOG_KEY_SIZE] = {0};
    struct span value;
    bytes_put_be32(key, segment->number);
    return store_get(checking->txn, STORE_LOG, span_of(key, sizeof key), &value, out);
}

static err_t check_segment(struct checking *checking, struct span key, struct span value)
{
    struct segment *segment = NULL;
    (void)value;
    if (key.size != SEGMENT_KEY_SIZE) {
        CHECK_PROBLEM(checking, "a row of the log's segments has a damaged key");
        return NULL;
    }
    uint32_t number = bytes_get_be32(key.data);
    err_t err = msglog_segment(checking->core, number, &segment);
    if (err != NULL) {
        return check_absorb(checking, err);
    }
    const struct check_live *live = map_get(&checking->live, number);
    uint64_t needed = live == NULL ? 0 : live->needed;
    if (segment->live != needed) {
        CHECK_PROBLEM(checking, "log segment %u counts %u messages as needed, but %llu are", number,
                      segment->live, (unsigned long long)needed);
    }
    bool listed = true;
    if (segment->listed != 0) {
        TRY(has_gc_row(checking, segment, &listed));
    }
    bool present = true;
    if (segment->rows != 0) {
        TRY(has_rows(checking, segment, &present));
    }
    if (!listed || !present) {
        CHECK_PROBLEM(checking, "log segment %u lacks its row in %s", number,
                      listed ? "the log" : "the list of segments to clean");
    }
    checking->log_entries += segment->entries;
    checking->log_live += segment->live;
    checking->log_size += segment->size;
    return NULL;
}

static err_t check_gc_row(struct checking *checking, struct span key, struct span value)
{
    struct segment *segment = NULL;
    (void)value;
    if (key.size == GC_KEY_SIZE) {
        err_t err = msglog_segment(checking->core, bytes_get_be32(key.data + 1), &segment);
        if (err != NULL) {
            return check_absorb(checking, err);
        }
    }
    if (segment == NULL || segment->listed != key.data[0]) {
        CHECK_PROBLEM(checking, "the list of segments to clean has a row for nothing");
    }
    return NULL;
}

err_t check_segments(struct checking *checking)
{
    const struct msglog *log = &checking->core->log;
    TRY(check_table(checking, STORE_SEGMENT, check_segment));
    TRY(check_table(checking, STORE_GC, check_gc_row));
    if (checking->log_entries != log->entries || checking->log_live != log->live ||
        checking->log_size != log->size) {
        CHECK_PROBLEM(checking,
                      "the log's segments have %llu messages, %llu needed, %llu bytes; counted are "
                      "%llu, %llu, %llu",
                      (unsigned long long)checking->log_entries,
                      (unsigned long long)checking->log_live,
                      (unsigned long long)checking->log_size, (unsigned long long)log->entries,
                      (unsigned long long)log->live, (unsigned long long)log->size);
    }
    return NULL;
}
