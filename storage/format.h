/* The format marker of an environment and the numbered migrations that bring old ones up to date.
 *
 * META holds, under "format": {record version u8, format version u16, role, number u32, identity
 * u64, created_ms u64, checksum u64} and under "migration/NNNN" one row per migration that has run.
 * FORMAT_VERSION is this program's; a higher one on disk is refused with ERR_FORMAT and both
 * numbers in the message. The first three bytes keep their meaning in every future format. All of
 * it goes through store.h, so both bodies share it. */
#ifndef STORAGE_FORMAT_H
#define STORAGE_FORMAT_H

#include "storage/store.h"

enum { FORMAT_VERSION = 2, FORMAT_ROLE_MAX = 15 };

struct format_marker {
    uint16_t version;
    char role[FORMAT_ROLE_MAX + 1];
    uint32_t number;
    uint64_t identity;
    uint64_t created_ms;
};

/* One step from an older format. `run` sees the changes of all steps before it. */
struct format_migration {
    uint32_t number; /* 1, 2, 3 ...: appended, never reused */
    const char *name;
    err_t (*run)(struct store_txn *txn);
};

struct format_migrations {
    const struct format_migration *items;
    size_t count;
};

/* Writes the marker of a new environment in `txn`, whose records are of this program's format:
 * every migration counts as done. */
err_t format_write(struct store_txn *txn, const struct format_marker *marker) MUST_CHECK;
/* Reads it; ERR_FORMAT when there is none, it is damaged, or it is newer than FORMAT_VERSION. */
err_t format_read(struct store_txn *txn, struct format_marker *out) MUST_CHECK;
/* Runs, in order, each migration that META does not list yet, in one write transaction of its own.
 */
err_t format_migrate(struct store *store) MUST_CHECK;
/* ERR_FORMAT when a migration has not run: for readers that may not change anything. */
err_t format_check(struct store_txn *txn) MUST_CHECK;

/* The same with another list than this program's. */
err_t format_migrate_with(struct store *store, struct format_migrations migrations) MUST_CHECK;
err_t format_check_with(struct store_txn *txn, struct format_migrations migrations) MUST_CHECK;

#endif
