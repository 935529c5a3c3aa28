/* The format marker of an environment and the numbered migrations that bring old ones up to date.
 *
 * META holds, under "format": {version u16, role, number u32, identity u64, created_ms u64} and
 * under "migration/NNNN" one row per migration that has run. FORMAT_VERSION is this program's; a
 * higher one on disk is refused with ERR_FORMAT and both numbers in the message. All of it goes
 * through store.h, so both bodies share it. */
#ifndef STORAGE_FORMAT_H
#define STORAGE_FORMAT_H

#include "storage/store.h"

enum { FORMAT_VERSION = 1, FORMAT_ROLE_MAX = 15 };

struct format_marker {
    uint16_t version;
    char role[FORMAT_ROLE_MAX + 1];
    uint32_t number;
    uint64_t identity;
    uint64_t created_ms;
};

/* Writes the marker of a new environment in `txn`. */
err_t format_write(struct store_txn *txn, const struct format_marker *marker) MUST_CHECK;
/* Reads it; ERR_FORMAT when there is none, it is damaged, or it is newer than FORMAT_VERSION. */
err_t format_read(struct store_txn *txn, struct format_marker *out) MUST_CHECK;
/* Runs, in order, each migration that META does not list yet, in one write transaction of its own.
 */
err_t format_migrate(struct store *store) MUST_CHECK;

#endif
