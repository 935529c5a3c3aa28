/* The store: ordered tables in one environment, changed by one write transaction at a time.
 *
 * The core works through this interface only. It has two bodies, LMDB (lmdb.c) and memory
 * (memory.c), that pass one conformance suite. Rules common to both:
 *  - One writer: store_begin(STORE_WRITE) is called by one thread; read transactions may run beside
 * it in other threads (LMDB) and see the last commit.
 *  - A span handed out by get or a cursor points into the store. It is valid until the next change
 * in the same transaction or the transaction's end, whichever is first.
 *  - A commit that returns NULL is on stable storage (memory: visible). One that fails has changed
 * nothing, and the transaction is gone. ERR_NO_SPACE and ERR_MAP_FULL mean that the same batch may
 * be tried with less in it; any other failure of a commit means the environment must not be written
 * again.
 *  - After a change fails inside a transaction, only store_abort is allowed.
 *  - Keys are 1..STORE_KEY_MAX bytes and ordered by memcmp; values may be empty. */
#ifndef STORAGE_STORE_H
#define STORAGE_STORE_H

#include "broker/base/err.h"
#include "broker/base/span.h"

enum { STORE_KEY_MAX = 64 };

enum store_table {
#define TABLE(name, number, doc) STORE_##name = number,
#include "storage/tables.def"
    STORE_TABLE_COUNT
};

enum store_mode { STORE_READ, STORE_WRITE };

struct store;
struct store_txn;
struct store_cursor;

/* Figures of one environment; sizes in bytes. */
struct store_stats {
    uint64_t used_size; /* pages that hold something, in the last commit */
    uint64_t file_size; /* size of the data file */
    uint64_t
        reserve_size;  /* written blocks at its end that store_reserve made and nothing uses yet */
    uint64_t map_size; /* present bound of the file */
    uint64_t reader_age_ms; /* age of the oldest read transaction, 0 without one */
    uint64_t commit_count;
};

/* What a body implements. Every body embeds `struct store`, `struct store_txn` and `struct
 * store_cursor` as the first member of its own structs. */
struct store_ops {
    err_t (*begin)(struct store *store, enum store_mode mode, struct store_txn **out);
    err_t (*commit)(struct store_txn *txn);
    void (*abort)(struct store_txn *txn);
    err_t (*get)(struct store_txn *txn, enum store_table table, struct span key, struct span *out,
                 bool *found);
    err_t (*put)(struct store_txn *txn, enum store_table table, struct span key, struct span value,
                 bool append);
    err_t (*remove)(struct store_txn *txn, enum store_table table, struct span key, bool *found);
    err_t (*cursor_open)(struct store_txn *txn, enum store_table table, struct store_cursor **out);
    err_t (*cursor_seek)(struct store_cursor *cursor, struct span key, bool *found);
    err_t (*cursor_last)(struct store_cursor *cursor, bool *found);
    err_t (*cursor_next)(struct store_cursor *cursor, bool *found);
    err_t (*cursor_prev)(struct store_cursor *cursor, bool *found);
    void (*cursor_close)(struct store_cursor *cursor);
    err_t (*entries)(struct store_txn *txn, enum store_table table, uint64_t *out);
    err_t (*grow)(struct store *store);
    err_t (*reserve)(struct store *store, uint64_t size);
    err_t (*backup)(struct store *store, const char *path);
    void (*stats)(struct store *store, struct store_stats *out);
    err_t (*maintain)(struct store *store);
    void (*close)(struct store *store);
};

struct store {
    const struct store_ops *ops;
};

struct store_txn {
    struct store *store;
    enum store_mode mode;
    bool failed;      /* a change has failed: only store_abort is left */
    uint64_t changes; /* so far; a cursor from before the last one must seek again */
};

/* `key` and `value` are what the cursor stands on after a call that set found; both are empty when
 * it stands nowhere. A cursor survives changes made through its transaction only up to its next
 * seek: after a put or remove, seek again (a step instead is a bug, and asserted). */
struct store_cursor {
    struct store_txn *txn;
    enum store_table table;
    uint64_t changes; /* of its transaction when it was placed */
    struct span key;
    struct span value;
};

err_t store_begin(struct store *store, enum store_mode mode, struct store_txn **out) MUST_CHECK;
/* Both take the transaction. Open cursors must have been closed. */
err_t store_commit(struct store_txn *txn) MUST_CHECK;
void store_abort(struct store_txn *txn);

err_t store_get(struct store_txn *txn, enum store_table table, struct span key, struct span *out,
                bool *found) MUST_CHECK;
/* Replaces a value that is there. */
err_t store_put(struct store_txn *txn, enum store_table table, struct span key,
                struct span value) MUST_CHECK;
/* The caller promises that `key` is greater than every key of the table: pages fill up wholly. A
 * key that is not gives ERR_INVALID. */
err_t store_append(struct store_txn *txn, enum store_table table, struct span key,
                   struct span value) MUST_CHECK;
/* `found` may be NULL. */
err_t store_remove(struct store_txn *txn, enum store_table table, struct span key,
                   bool *found) MUST_CHECK;

err_t store_cursor_open(struct store_txn *txn, enum store_table table,
                        struct store_cursor **out) MUST_CHECK;
/* First entry at or after `key`, which may be empty: the first of all. */
err_t store_cursor_seek(struct store_cursor *cursor, struct span key, bool *found) MUST_CHECK;
err_t store_cursor_last(struct store_cursor *cursor, bool *found) MUST_CHECK;
/* A step past either end, or of a cursor that stands nowhere, finds nothing; it then stands
 * nowhere. */
err_t store_cursor_next(struct store_cursor *cursor, bool *found) MUST_CHECK;
err_t store_cursor_prev(struct store_cursor *cursor, bool *found) MUST_CHECK;
/* NULL does nothing. */
void store_cursor_close(struct store_cursor *cursor);

/* Number of entries of a table, without counting them. */
err_t store_entries(struct store_txn *txn, enum store_table table, uint64_t *out) MUST_CHECK;

/* After ERR_MAP_FULL, with no transaction open in this thread: doubles the map (waiting for readers
 * to end), up to the file's configured maximum; ERR_NO_SPACE when it is reached. */
err_t store_grow(struct store *store) MUST_CHECK;

/* Between transactions: works towards a file with `size` bytes of already written blocks that the
 * next commits can use without asking the file system for room, so that they go through on a full
 * disk. A call writes a bounded number of bytes: call it again after each batch; store_stats tells
 * how far it has come. ERR_NO_SPACE when the disk has no room for more (what is there stays). */
err_t store_reserve(struct store *store, uint64_t size) MUST_CHECK;

/* From any thread: a consistent, compact copy as of now, flushed, which opens as an environment.
 * `path` must not exist. */
err_t store_backup(struct store *store, const char *path) MUST_CHECK;

void store_stats(struct store *store, struct store_stats *out);

/* Now and then, from the writer thread between transactions: clears reader slots of dead processes.
 */
err_t store_maintain(struct store *store) MUST_CHECK;

/* No transaction may be open. NULL does nothing. */
void store_close(struct store *store);

#endif
