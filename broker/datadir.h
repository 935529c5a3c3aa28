/* The data directory: its lock, its identity, and which environments it holds.
 *
 *   lock            held by the running broker (flock), holds its pid
 *   catalog.mdb     the catalog; META "volumes" says how many volumes there are
 *   volume-N.mdb    the volumes
 *   volume-N.journal   what each has done since its last commit
 *
 * Or no directory at all: with the path DATADIR_MEMORY the stores are in memory and end with it. */
#ifndef BROKER_DATADIR_H
#define BROKER_DATADIR_H

#include "broker/base/err.h"
#include "storage/journal.h"

#define DATADIR_MEMORY ":memory:"

enum { DATADIR_PATH_MAX = 1200, DATADIR_VOLUMES_MAX = 64 };

struct datadir_volume {
    struct store *store;
    struct journal *journal; /* NULL: it has none */
};

struct datadir {
    char path[DATADIR_PATH_MAX];
    int lock_fd;
    bool temporary; /* removed when it is closed */
    struct datadir_volume catalog;
    struct datadir_volume volumes[DATADIR_VOLUMES_MAX];
    uint32_t volume_count;
};

struct datadir_options {
    const char *path; /* empty: a new temporary directory; or DATADIR_MEMORY */
    uint32_t volumes; /* at least so many; a directory that has more keeps them */
    uint64_t map_size;
    uint64_t map_size_max;
    uint64_t journal_size; /* of new journals, and of old ones that hold nothing; 0: none is made */
};

/* Makes what is missing of a new directory, refuses one in use (ERR_LOCKED, with the pid) and one
 * of which a part is missing. The stores and journals are open on success; whoever takes one sets
 * it to NULL here. A volume that has never had a journal goes without when there is no room for
 * one. */
err_t datadir_open(const struct datadir_options *options, struct datadir *out) MUST_CHECK;

/* Closes the stores that are still here and gives up the lock. */
void datadir_close(struct datadir *datadir);

#endif
