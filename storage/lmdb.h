/* The store on LMDB: one file, one environment, commits that are flushed before they return.
 *
 * Environment flags: MDB_NOSUBDIR | MDB_NOTLS, the default commit. Never MDB_NOSYNC, MDB_WRITEMAP,
 * MDB_DUPSORT (DESIGN 7). A new environment is created under a temporary name, committed, flushed
 * together with its directory and renamed, so that a crash leaves either none or a whole one. The
 * META table holds the format marker (format.h); opening checks it, runs migrations and refuses
 * newer formats by name. */
#ifndef STORAGE_LMDB_H
#define STORAGE_LMDB_H

#include "storage/store.h"

struct lmdb_options {
    const char *path;      /* of the data file; its lock file is path + "-lock" */
    uint64_t map_size;     /* first bound of the file; 0: 1 TiB, less where that cannot be mapped */
    uint64_t map_size_max; /* bound for store_grow; 0: 1 TiB */
    bool create;           /* make it when it is missing; otherwise ERR_NOT_FOUND */
    bool read_only;        /* offline tools: no locks taken for writing, nothing changed */
    const char
        *role; /* what it must be: "catalog", "volume"; written at creation, checked at open */
    uint32_t number;        /* which volume; likewise */
    uint64_t node_identity; /* random identity of the data directory; written at creation, checked
                               when not 0 */
};

err_t lmdb_store_open(const struct lmdb_options *options, struct store **out) MUST_CHECK;

#endif
