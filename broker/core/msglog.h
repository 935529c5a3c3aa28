/* The volume's log: a stream of message records, written at its right edge only.
 *
 * Records are packed into rows of at most ROW_SIZE_MAX bytes, so that every value fills whole
 * pages, recycled runs of pages stay short and a commit writes few of them; a larger record goes on
 * through rows of its own. A position names a record: segment (32 bits), row in the segment (16),
 * offset in the row (16); 0 is none. Rows form segments (SEGMENT_*_MAX). A segment counts its
 * entries and those still needed; it is deleted as a whole. */
#ifndef CORE_MSGLOG_H
#define CORE_MSGLOG_H

#include "broker/core/state.h"

/* A row in LOG: segment u32, row u16 -> version u8, kind u8, zero u16, bytes. */
enum { MSGLOG_ROW_VERSION = 1, MSGLOG_KEY_SIZE = 6 };

enum msglog_row_kind {
    MSGLOG_RECORDS = 0,   /* whole records, one after the other */
    MSGLOG_FIRST = 1,     /* the beginning of one large record */
    MSGLOG_CONTINUED = 2, /* a further piece of it */
};

void msglog_init(struct msglog *log);
void msglog_deinit(struct msglog *log);

/* A record whose payload lies in `parts`. `live`: somebody needs it. */
struct msglog_parts {
    const struct span *spans;
    size_t count;
};
err_t msglog_append(struct core *core, const struct record *record, struct msglog_parts parts,
                    bool live, uint64_t *position) MUST_CHECK;

/* The record at a position, verified; spans into the store or the core's scratch, valid until the
 * next read or change. `ok` false: it is missing, damaged or another one. */
err_t msglog_read(struct core *core, uint64_t position, uint32_t shard_id, uint64_t sequence,
                  struct record *out, bool *ok) MUST_CHECK;

/* One entry of the position's segment is needed no more. When that is damaged, or counts none, it
 * stays: whoever is done with a message is not kept from it. */
err_t msglog_release(struct core *core, uint64_t position) MUST_CHECK;

/* Writes the row being filled. */
err_t msglog_finish_row(struct core *core) MUST_CHECK;
/* The position the next record would have at the earliest; always at the start of a row. */
uint64_t msglog_end(const struct core *core);
/* The same, but within the row being filled when there is one. */
uint64_t msglog_next(const struct core *core);
/* Writes what changed of the segments. */
err_t msglog_flush(struct core *core) MUST_CHECK;

/* One piece of cleaning within what lies before `checkpoint`: deletes a dead segment, or rewrites a
 * sparse one when the log holds much more than it needs. `work` is what that cost, about as much as
 * so many messages; 0: nothing to do. */
err_t msglog_clean(struct core *core, uint64_t checkpoint, uint32_t *work) MUST_CHECK;

/* One record of a row that holds whole ones. */
struct msglog_item {
    struct record record;
    size_t offset; /* of it in the row */
    uint64_t size;
    bool sound; /* its bytes pass their check; else only its header can be read, and may be wrong */
};
/* The next one at or after `*offset`, which it moves past it. Damage hides no more than it hit: the
 * walk goes on at the next sound record. `damaged` is set, and never cleared, when it met any.
 * False at the end. */
bool msglog_row_next(struct span row, size_t *offset, struct msglog_item *out, bool *damaged);

/* Reads the log again from a position; `visit` is called for every record in order. A record that
 * is not sound comes too when its header can be read. */
typedef err_t (*msglog_visit)(struct core *core, const struct record *record, uint64_t position,
                              bool sound);
err_t msglog_scan(struct core *core, uint64_t position, msglog_visit visit) MUST_CHECK;

/* Sets up the tail after a start: the next segment and row to write. */
err_t msglog_open(struct core *core, uint64_t end) MUST_CHECK;

/* What is counted of a segment; NULL when the store does not know it. */
err_t msglog_segment(struct core *core, uint32_t number, struct segment **out) MUST_CHECK;
/* The position at which a row begins, from its key. */
uint64_t msglog_row_position(struct span key);

static inline uint64_t msglog_position(uint32_t segment, uint32_t row, uint32_t offset)
{
    return (uint64_t)segment << 32 | (uint64_t)row << 16 | offset;
}

#endif
