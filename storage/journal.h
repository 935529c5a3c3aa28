/* A journal: one preallocated file beside an environment, to which batches of commands are appended
 * before the environment's next commit holds what they did. An append and its flush overwrite
 * blocks that have been written before, which costs one flush of a few blocks.
 *
 * The file is a header block, which names the environment it belongs to and is never written again,
 * and records. A record has a checksum of all its bytes, and in them a generation, its number in
 * it, and the checksum of the record before. The generation is a random number that the environment
 * keeps: each commit of it names another, and the records from the front on that have it are what
 * was done since. So whatever else lies in the file (of laps before, of a write that was never
 * flushed) is not taken for one, and a commit needs no write here to make all records before it
 * worthless. A record tells how many records before it had been flushed when it was written; so one
 * that must be there and is not is damage, and is told from an end. Blocks that hold a flushed
 * record are not written again before the next generation.
 *
 * What is in a record is its owner's; nothing here knows of commands. One thread. */
#ifndef STORAGE_JOURNAL_H
#define STORAGE_JOURNAL_H

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "storage/store.h"

enum {
    JOURNAL_BLOCK_SIZE = 4096,
    JOURNAL_RECORD_HEADER = 48,
    JOURNAL_SIZE_MIN = 64 * 1024,
    JOURNAL_RECORD_MAX = 256 * 1024, /* with its header: to commit more is cheaper than to write it
                                      * twice */
};

struct journal_options {
    const char *path;
    uint64_t size;     /* of a new one, in whole blocks; at least JOURNAL_SIZE_MIN */
    uint64_t identity; /* of the data directory */
    uint32_t number;   /* of the volume */
    bool read_only;    /* for offline tools */
};

struct journal;

/* The generation that an environment names: META "journal" (version u8, zero 7 bytes, generation
 * u64). 0: it has never had a journal, and may be without one. */
err_t journal_generation(struct store_txn *txn, uint64_t *out) MUST_CHECK;
err_t journal_read_generation(struct store *store, uint64_t *out) MUST_CHECK; /* by itself */
err_t journal_put_generation(struct store_txn *txn, uint64_t generation) MUST_CHECK;

/* Makes the file, whole and flushed under a temporary name first; ERR_EXISTS never: one that is
 * there is replaced. */
err_t journal_create(const struct journal_options *options) MUST_CHECK;
/* ERR_NOT_FOUND when there is none; ERR_FORMAT when it is another environment's, or newer;
 * ERR_CORRUPT when its header is damaged. */
err_t journal_open(const struct journal_options *options, struct journal **out) MUST_CHECK;
void journal_close(struct journal *journal); /* NULL does nothing */

/* Goes to the front: the records of `generation` are read from there on with journal_next, and once
 * that has found the last one appended with journal_append. */
void journal_rewind(struct journal *journal, uint64_t generation);
/* The next record's bytes, valid until the next call of any function. ERR_CORRUPT when records that
 * had been flushed are missing, or that have been read or appended before through this journal. */
err_t journal_next(struct journal *journal, struct span *out, bool *found) MUST_CHECK;

/* An empty generation: there is nothing to be read in it, appending begins at the front. */
void journal_restart(struct journal *journal, uint64_t generation);

/* Begins the next record; its owner appends its bytes, which must be some. When the buffer has
 * failed there are more of them than a record may have, or no memory. */
struct buf *journal_record(struct journal *journal);
/* Whether it fits behind the others as it is. */
bool journal_fits(const struct journal *journal);
/* Writes the record behind the others, without flushing. ERR_NO_SPACE when it does not fit, or the
 * file system has no room for it (one that never overwrites): then nothing was appended. */
err_t journal_append(struct journal *journal) MUST_CHECK;
/* Flushes what was appended; does nothing when all of it is. A failure is never to be tried again.
 */
err_t journal_flush(struct journal *journal) MUST_CHECK;

/* Whether something appended has not been flushed. */
bool journal_pending(const struct journal *journal);
/* Of the present generation: records, and bytes of the file they take up. */
uint64_t journal_count(const struct journal *journal);
uint64_t journal_used(const struct journal *journal);
uint64_t journal_size(const struct journal *journal);

#endif
