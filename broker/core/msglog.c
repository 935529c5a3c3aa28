#include "broker/core/msglog.h"

#include "broker/base/bytes.h"
#include "broker/core/block.h"
#include "broker/core/release.h"

/* A segment in SEGMENT: version u8, closed u8, listed u8, zero u8, entries u32, live u32, rows u32,
 * size u64. */
enum {
    SEGMENT_VERSION = 1,
    SEGMENT_VALUE_SIZE = 24,
    SPARSE_SHARE = 2, /* less than one in so many entries needed: the segment is sparse */
};

static uint32_t segment_of(uint64_t position)
{
    return (uint32_t)(position >> 32);
}

static uint32_t row_of(uint64_t position)
{
    return (uint32_t)(position >> 16) & 0xffff;
}

static void row_key(uint64_t position, uint8_t out[MSGLOG_KEY_SIZE])
{
    uint8_t bytes[8];
    bytes_put_be64(bytes, position);
    memcpy(out, bytes, MSGLOG_KEY_SIZE);
}

uint64_t msglog_row_position(struct span key)
{
    uint8_t bytes[8] = {0};
    memcpy(bytes, key.data, key.size < MSGLOG_KEY_SIZE ? key.size : MSGLOG_KEY_SIZE);
    return bytes_get_be64(bytes);
}

void msglog_init(struct msglog *log)
{
    *log = (struct msglog){0};
    buf_init(&log->row, ROW_SIZE_MAX);
    map_init(&log->segments);
    list_init(&log->dirty);
}

void msglog_deinit(struct msglog *log)
{
    buf_deinit(&log->row);
    map_deinit(&log->segments);
}

static void mark_dirty(struct core *core, struct segment *segment)
{
    core->marks++;
    if (!list_linked(&segment->dirty)) {
        list_append(&core->log.dirty, &segment->dirty);
    }
}

static err_t segment_add(struct core *core, uint32_t number, struct segment **out)
{
    struct segment *segment = pool_take(&core->segment_pool);
    if (segment == NULL || !map_put(&core->log.segments, number, segment)) {
        return ERR(MEMORY, "no memory for a log segment");
    }
    segment->number = number;
    *out = segment;
    return NULL;
}

err_t msglog_segment(struct core *core, uint32_t number, struct segment **out)
{
    *out = map_get(&core->log.segments, number);
    if (*out != NULL) {
        return NULL;
    }
    uint8_t key[4];
    bytes_put_be32(key, number);
    struct span value;
    bool found = false;
    TRY(store_get(core->txn, STORE_SEGMENT, span_of(key, sizeof key), &value, &found));
    if (!found) {
        return NULL;
    }
    /* Rows are numbered in 16 bits. */
    if (value.size != SEGMENT_VALUE_SIZE || value.data[0] != SEGMENT_VERSION ||
        bytes_get_le32(value.data + 12) > UINT16_MAX + 1) {
        return ERR(CORRUPT, "log segment %u has a damaged record", number);
    }
    TRY(segment_add(core, number, out));
    (*out)->closed = value.data[1] != 0;
    (*out)->listed = value.data[2];
    (*out)->entries = bytes_get_le32(value.data + 4);
    (*out)->live = bytes_get_le32(value.data + 8);
    (*out)->rows = bytes_get_le32(value.data + 12);
    (*out)->size = bytes_get_le64(value.data + 16);
    return NULL;
}

/* The same when its record is damaged: then there is none either. */
static err_t look_at_segment(struct core *core, uint32_t number, struct segment **out)
{
    err_t err = msglog_segment(core, number, out);
    if (err_code(err) != ERR_CORRUPT) {
        return err;
    }
    core->corrupt++;
    err_free(err);
    *out = NULL;
    return NULL;
}

static err_t segment_write(struct core *core, const struct segment *segment)
{
    uint8_t key[4];
    uint8_t value[SEGMENT_VALUE_SIZE] = {SEGMENT_VERSION, segment->closed, segment->listed, 0};
    bytes_put_be32(key, segment->number);
    bytes_put_le32(value + 4, segment->entries);
    bytes_put_le32(value + 8, segment->live);
    bytes_put_le32(value + 12, segment->rows);
    bytes_put_le64(value + 16, segment->size);
    return state_put(core, STORE_SEGMENT, span_of(key, sizeof key), span_of(value, sizeof value));
}

static void gc_key(uint8_t kind, uint32_t number, uint8_t out[5])
{
    out[0] = kind;
    bytes_put_be32(out + 1, number);
}

static err_t list_as(struct core *core, struct segment *segment, uint8_t kind)
{
    if (segment->listed == kind) {
        return NULL;
    }
    uint8_t key[5];
    if (segment->listed != 0) {
        gc_key(segment->listed, segment->number, key);
        TRY(state_remove(core, STORE_GC, span_of(key, sizeof key)));
        core->gc_rows--;
    }
    if (kind != 0) {
        gc_key(kind, segment->number, key);
        TRY(state_put(core, STORE_GC, span_of(key, sizeof key), span_of("", 0)));
        core->gc_rows++;
        core->work = true;
    }
    segment->listed = kind;
    mark_dirty(core, segment);
    return NULL;
}

/* Notes a closed segment that can go, now or by being rewritten. */
static err_t segment_check(struct core *core, struct segment *segment)
{
    if (!segment->closed) {
        return NULL;
    }
    if (segment->live == 0) {
        return list_as(core, segment, GC_DEAD);
    }
    if ((uint64_t)segment->live * SPARSE_SHARE < segment->entries) {
        return list_as(core, segment, GC_SPARSE);
    }
    return NULL;
}

static err_t open_next_segment(struct core *core)
{
    struct msglog *log = &core->log;
    struct segment *closed = log->tail;
    closed->closed = true;
    mark_dirty(core, closed);
    TRY(segment_check(core, closed));
    TRY(segment_add(core, closed->number + 1, &log->tail));
    mark_dirty(core, log->tail);
    return NULL;
}

err_t msglog_open(struct core *core, uint64_t end)
{
    struct msglog *log = &core->log;
    uint32_t number = segment_of(end);
    TRY(msglog_segment(core, number, &log->tail));
    if (log->tail == NULL) {
        TRY(segment_add(core, number, &log->tail));
    }
    if (log->tail->rows != row_of(end)) {
        return ERR(CORRUPT, "the log ends at row %u of segment %u, which has %u", row_of(end),
                   number, log->tail->rows);
    }
    log->batch_start = end;
    log->fresh_from = end;
    return NULL;
}

uint64_t msglog_end(const struct core *core)
{
    const struct msglog *log = &core->log;
    uint32_t row = log->tail->rows + (log->row.size > 0 ? 1 : 0);
    return msglog_position(log->tail->number, row, 0);
}

uint64_t msglog_next(const struct core *core)
{
    const struct msglog *log = &core->log;
    return msglog_position(log->tail->number, log->tail->rows, (uint32_t)log->row.size);
}

static err_t put_row(struct core *core, struct span row)
{
    struct segment *tail = core->log.tail;
    uint8_t key[MSGLOG_KEY_SIZE];
    row_key(msglog_position(tail->number, tail->rows, 0), key);
    TRY(state_append(core, STORE_LOG, span_of(key, sizeof key), row));
    tail->rows++;
    return NULL;
}

err_t msglog_finish_row(struct core *core)
{
    struct msglog *log = &core->log;
    if (log->row.size > 0) {
        TRY(put_row(core, buf_span(&log->row)));
        buf_reset(&log->row);
    }
    return NULL;
}

static void row_begin(struct buf *row, uint8_t kind)
{
    const uint8_t header[ROW_HEADER_SIZE] = {MSGLOG_ROW_VERSION, kind, 0, 0};
    buf_append(row, header, sizeof header);
}

/* Spreads a record over rows of its own. */
static err_t append_large(struct core *core, struct span header, struct msglog_parts parts)
{
    struct buf *row = &core->log.row;
    row_begin(row, MSGLOG_FIRST);
    buf_append_span(row, header);
    for (size_t index = 0; index < parts.count; index++) {
        struct span rest = parts.spans[index];
        while (rest.size > 0) {
            if (row->size == ROW_SIZE_MAX) {
                TRY(msglog_finish_row(core));
                row_begin(row, MSGLOG_CONTINUED);
            }
            size_t size =
                ROW_SIZE_MAX - row->size < rest.size ? ROW_SIZE_MAX - row->size : rest.size;
            buf_append(row, rest.data, size);
            rest = span_of(rest.data + size, rest.size - size);
        }
    }
    return msglog_finish_row(core);
}

static void append_small(struct buf *row, struct span header, struct msglog_parts parts)
{
    if (row->size == 0) {
        row_begin(row, MSGLOG_RECORDS);
    }
    buf_append_span(row, header);
    for (size_t index = 0; index < parts.count; index++) {
        buf_append_span(row, parts.spans[index]);
    }
}

err_t msglog_append(struct core *core, const struct record *record, struct msglog_parts parts,
                    bool live, uint64_t *position)
{
    struct msglog *log = &core->log;
    struct buf *row = &log->row;
    uint64_t size = record_size(record);
    bool large = size > ROW_SIZE_MAX - ROW_HEADER_SIZE;
    if (row->size + size > ROW_SIZE_MAX || large) {
        TRY(msglog_finish_row(core));
    }
    struct segment *tail = log->tail;
    if (row->size == 0 && (tail->entries >= core->options.segment_entries ||
                           tail->size >= SEGMENT_SIZE_MAX || tail->rows >= SEGMENT_ROWS_MAX)) {
        TRY(open_next_segment(core));
        tail = log->tail;
    }
    uint32_t offset = row->size == 0 ? ROW_HEADER_SIZE : (uint32_t)row->size;
    *position = msglog_position(tail->number, tail->rows, offset);
    uint8_t header[RECORD_HEADER_MAX];
    struct span head = span_of(header, record_put_header(record, header));
    if (large) {
        TRY(append_large(core, head, parts));
    } else {
        append_small(row, head, parts);
    }
    if (row->failed) {
        return ERR(MEMORY, "no memory for a log row");
    }
    tail->entries++;
    tail->live += live;
    tail->size += size;
    log->entries++;
    log->live += live;
    log->size += size;
    log->appended_bytes += size;
    mark_dirty(core, tail);
    return NULL;
}

/* The row at a position, from the one being filled or the store. */
static err_t row_get(struct core *core, uint64_t position, struct span *out, bool *found)
{
    struct msglog *log = &core->log;
    uint64_t row = position >> 16;
    if (log->tail->number == segment_of(position) && log->tail->rows == row_of(position)) {
        *out = buf_span(&log->row);
        *found = log->row.size > 0;
        return NULL;
    }
    if (log->cached_row == row && log->cached_changes == core->changes && log->cached.size > 0) {
        *out = log->cached;
        *found = true;
        return NULL;
    }
    uint8_t key[MSGLOG_KEY_SIZE];
    row_key(position, key);
    TRY(store_get(core->txn, STORE_LOG, span_of(key, sizeof key), out, found));
    *found = *found && out->size > ROW_HEADER_SIZE && out->data[0] == MSGLOG_ROW_VERSION;
    if (*found) {
        log->cached_row = row;
        log->cached_changes = core->changes;
        log->cached = *out;
    }
    return NULL;
}

/* Puts a large record together in scratch. */
static err_t gather(struct core *core, uint64_t position, struct span first, struct span *out,
                    bool *ok)
{
    struct record head;
    uint64_t size = 0;
    *ok = false;
    if (!record_peek(first, &head, &size) || size < first.size) {
        return NULL;
    }
    struct buf *scratch = &core->scratch;
    buf_reset(scratch);
    buf_append_span(scratch, first);
    while (scratch->size < size && !scratch->failed) {
        position += 1U << 16;
        struct span row;
        bool found = false;
        TRY(row_get(core, position, &row, &found));
        if (!found || row.data[1] != MSGLOG_CONTINUED ||
            row.size - ROW_HEADER_SIZE > size - scratch->size) {
            return NULL;
        }
        buf_append(scratch, row.data + ROW_HEADER_SIZE, row.size - ROW_HEADER_SIZE);
    }
    if (scratch->failed) {
        return ERR(MEMORY, "no memory for a message of %llu bytes", (unsigned long long)size);
    }
    *out = buf_span(scratch);
    *ok = true;
    return NULL;
}

static err_t read_bytes(struct core *core, uint64_t position, struct span *out, bool *ok)
{
    struct span row;
    *ok = false;
    TRY(row_get(core, position & ~0xffffULL, &row, ok));
    uint32_t offset = (uint32_t)position & 0xffff;
    if (!*ok || offset < ROW_HEADER_SIZE || offset >= row.size) {
        *ok = false;
        return NULL;
    }
    *out = span_of(row.data + offset, row.size - offset);
    if (row.data[1] == MSGLOG_FIRST) {
        return gather(core, position & ~0xffffULL, *out, out, ok);
    }
    *ok = row.data[1] == MSGLOG_RECORDS;
    return NULL;
}

err_t msglog_read(struct core *core, uint64_t position, uint32_t shard_id, uint64_t sequence,
                  struct record *out, bool *ok)
{
    struct span bytes;
    *ok = false;
    if (position == 0) {
        return NULL;
    }
    TRY(read_bytes(core, position, &bytes, ok));
    *ok = *ok && record_get(bytes, out) && out->shard_id == shard_id && out->sequence == sequence;
    return NULL;
}

err_t msglog_release(struct core *core, uint64_t position)
{
    struct segment *segment = NULL;
    TRY(look_at_segment(core, segment_of(position), &segment));
    if (segment == NULL || segment->live == 0) {
        core->corrupt++;
        return NULL;
    }
    segment->live--;
    core->log.live--;
    mark_dirty(core, segment);
    return segment_check(core, segment);
}

err_t msglog_flush(struct core *core)
{
    struct msglog *log = &core->log;
    TRY(msglog_finish_row(core));
    struct list_link *link;
    while ((link = list_pop(&log->dirty)) != NULL) {
        TRY(segment_write(core, container_of(link, struct segment, dirty)));
    }
    log->batch_start = msglog_end(core);
    return NULL;
}

static void segment_forget(struct core *core, struct segment *segment)
{
    if (list_linked(&segment->dirty)) {
        list_remove(&segment->dirty);
    }
    map_remove(&core->log.segments, segment->number);
    pool_give(&core->segment_pool, segment);
}

static err_t delete_segment(struct core *core, struct segment *segment)
{
    uint8_t key[MSGLOG_KEY_SIZE];
    for (uint32_t row = 0; row < segment->rows; row++) {
        row_key(msglog_position(segment->number, row, 0), key);
        TRY(state_remove(core, STORE_LOG, span_of(key, sizeof key)));
    }
    TRY(list_as(core, segment, 0));
    uint8_t number[4];
    bytes_put_be32(number, segment->number);
    TRY(state_remove(core, STORE_SEGMENT, span_of(number, sizeof number)));
    core->log.entries -= segment->entries;
    core->log.size -= segment->size;
    segment_forget(core, segment);
    return NULL;
}

/* Moves a record that is still needed to the tail. */
static err_t rewrite(struct core *core, const struct record *record, uint64_t position, bool sound)
{
    if (!sound) {
        return NULL; /* damaged: it stays where it is, and so does its segment */
    }
    struct shard *shard = state_shard(core, record->shard_id);
    uint64_t present = 0;
    bool needed = false;
    if (shard != NULL) {
        TRY(block_position(core, shard, record->sequence, &present));
    }
    if (present == position) {
        TRY(release_needed(core, shard, record->sequence, &needed));
    }
    if (!needed) {
        return NULL;
    }
    struct record whole;
    bool ok = false;
    TRY(msglog_read(core, position, record->shard_id, record->sequence, &whole, &ok));
    if (!ok) {
        return ERR(CORRUPT, "a message changes while it is read: shard %u, sequence %llu",
                   record->shard_id, (unsigned long long)record->sequence);
    }
    uint64_t moved = 0;
    buf_reset(&core->copy);
    buf_append_span(&core->copy, whole.payload);
    if (core->copy.failed) {
        return ERR(MEMORY, "no memory to rewrite a message");
    }
    struct span payload = buf_span(&core->copy);
    TRY(msglog_append(core, &whole, (struct msglog_parts){&payload, 1}, true, &moved));
    TRY(block_move(core, shard, record->sequence, moved));
    return msglog_release(core, position);
}

static bool is_sound(struct span row, size_t offset)
{
    struct record record;
    return record_get(span_of(row.data + offset, row.size - offset), &record);
}

/* Where to go on after a damaged record: where its header says that it ends if that is right, else
 * at the next place where a sound one begins. */
static size_t after_damage(struct span row, size_t offset, uint64_t size)
{
    if (size != 0 && (offset + size == row.size || is_sound(row, offset + size))) {
        return offset + size;
    }
    do {
        offset++;
    } while (offset < row.size && !is_sound(row, offset));
    return offset;
}

bool msglog_row_next(struct span row, size_t *offset, struct msglog_item *out, bool *damaged)
{
    while (*offset < row.size) {
        struct span rest = span_of(row.data + *offset, row.size - *offset);
        bool named = record_peek(rest, &out->record, &out->size) && out->size <= rest.size;
        out->offset = *offset;
        out->sound = named && record_get(rest, &out->record);
        if (out->sound) {
            *offset += out->size;
            return true;
        }
        *damaged = true;
        *offset = after_damage(row, *offset, named ? out->size : 0);
        if (named) {
            return true;
        }
    }
    return false;
}

static err_t visit_large(struct core *core, uint64_t position, struct span row, msglog_visit visit,
                         bool *damaged)
{
    struct record record;
    struct record whole;
    uint64_t size = 0;
    bool sound = false;
    struct span first = span_of(row.data + ROW_HEADER_SIZE, row.size - ROW_HEADER_SIZE);
    if (!record_peek(first, &record, &size)) {
        *damaged = true;
        return NULL;
    }
    position |= ROW_HEADER_SIZE;
    TRY(msglog_read(core, position, record.shard_id, record.sequence, &whole, &sound));
    *damaged = !sound;
    return visit(core, &record, position, sound);
}

/* Calls `visit` for each record of one row; `damaged`: some of it cannot be read. */
static err_t visit_row(struct core *core, uint64_t position, struct span row, msglog_visit visit,
                       bool *damaged)
{
    *damaged = row.size < ROW_HEADER_SIZE || row.data[0] != MSGLOG_ROW_VERSION;
    if (*damaged || row.data[1] == MSGLOG_CONTINUED) {
        return NULL;
    }
    if (row.data[1] == MSGLOG_FIRST) {
        return visit_large(core, position, row, visit, damaged);
    }
    size_t offset = ROW_HEADER_SIZE;
    struct msglog_item item;
    while (msglog_row_next(row, &offset, &item, damaged)) {
        TRY(visit(core, &item.record, position | item.offset, item.sound));
    }
    return NULL;
}

/* Copies a row out, as visiting may change the store, which ends the life of spans into it. */
static err_t copy_row(struct core *core, uint64_t position, bool *found)
{
    uint8_t key[MSGLOG_KEY_SIZE];
    struct span value;
    row_key(position, key);
    TRY(store_get(core->txn, STORE_LOG, span_of(key, sizeof key), &value, found));
    if (!*found) {
        return NULL;
    }
    buf_reset(&core->row_copy);
    buf_append_span(&core->row_copy, value);
    return core->row_copy.failed ? ERR(MEMORY, "no memory to read a log row") : NULL;
}

/* Visits the records of a segment from a row on. Each row is looked up by its number, so that one
 * whose key is damaged hides no other. `damaged` counts rows that are missing or not sound. */
static err_t visit_segment(struct core *core, const struct segment *segment, uint32_t row,
                           msglog_visit visit, uint64_t *damaged)
{
    for (; row < segment->rows; row++) {
        uint64_t position = msglog_position(segment->number, row, 0);
        bool found = false;
        bool not_sound = false;
        TRY(copy_row(core, position, &found));
        if (found) {
            TRY(visit_row(core, position, buf_span(&core->row_copy), visit, &not_sound));
        }
        *damaged += !found || not_sound;
    }
    return NULL;
}

static err_t rewrite_segment(struct core *core, struct segment *segment)
{
    uint64_t damaged = 0;
    TRY(visit_segment(core, segment, 0, rewrite, &damaged));
    /* What could not be moved is damaged and stays; do not try again. */
    return segment->live == 0 ? NULL : list_as(core, segment, 0);
}

/* The first listed segment of a kind that lies before the checkpoint. One whose record is damaged
 * is taken off the list, which is `work` too. */
static err_t listed_segment(struct core *core, uint8_t kind, uint64_t checkpoint,
                            struct segment **out, uint32_t *work)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    uint8_t key[5];
    gc_key(kind, 0, key);
    uint32_t number = 0;
    bool found = false;
    *out = NULL;
    TRY(store_cursor_open(core->txn, STORE_GC, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of(key, sizeof key), &found));
    found = found && cursor->key.size == sizeof key && cursor->key.data[0] == kind;
    if (found) {
        number = bytes_get_be32(cursor->key.data + 1);
    }
out:
    store_cursor_close(cursor);
    if (err != NULL || !found || number >= segment_of(checkpoint)) {
        return err;
    }
    TRY(look_at_segment(core, number, out));
    if (*out == NULL) {
        *work = 1;
        core->gc_rows--;
        gc_key(kind, number, key);
        return state_remove(core, STORE_GC, span_of(key, sizeof key));
    }
    return NULL;
}

/* Whether the log holds much more than twice what is needed. */
static bool is_wasteful(const struct core *core)
{
    const struct msglog *log = &core->log;
    uint64_t needed = SPARSE_SHARE * log->live;
    return log->entries > needed &&
           log->size / log->entries * (log->entries - needed) > core->options.slack_size;
}

err_t msglog_clean(struct core *core, uint64_t checkpoint, uint32_t *work)
{
    struct segment *segment = NULL;
    *work = 0;
    if (core->gc_rows == 0) {
        return NULL;
    }
    TRY(listed_segment(core, GC_DEAD, checkpoint, &segment, work));
    if (segment != NULL) {
        *work = 1 + segment->rows;
        return delete_segment(core, segment);
    }
    if (is_wasteful(core)) {
        TRY(listed_segment(core, GC_SPARSE, checkpoint, &segment, work));
    }
    if (segment != NULL) {
        *work = 1 + segment->rows + segment->entries;
        return rewrite_segment(core, segment);
    }
    return NULL;
}

err_t msglog_scan(struct core *core, uint64_t position, msglog_visit visit)
{
    uint32_t row = row_of(position);
    uint32_t last = core->log.tail->number;
    uint64_t segments = 0;
    TRY(store_entries(core->txn, STORE_SEGMENT, &segments));
    /* Nothing from the checkpoint on has been deleted. */
    if (position > msglog_end(core) || last - segment_of(position) > segments) {
        return ERR(CORRUPT, "the log is to be read again from segment %u to %u, but has %llu",
                   segment_of(position), last, (unsigned long long)segments);
    }
    for (uint32_t number = segment_of(position); number <= last; number++) {
        struct segment *segment = NULL;
        TRY(msglog_segment(core, number, &segment));
        if (segment == NULL) {
            core->corrupt++; /* segments are deleted before the checkpoint only */
        } else {
            TRY(visit_segment(core, segment, row, visit, &core->corrupt));
        }
        row = 0;
    }
    return NULL;
}
