/* The environments of a data directory, opened for reading only: beside a running broker or without
 * one.
 *
 * Nothing is changed and no lock is taken that a broker would wait for. */
#ifndef FLARE_DATAFILES_H
#define FLARE_DATAFILES_H

#include "broker/base/err.h"
#include "storage/format.h"
#include "storage/store.h"

enum { DATAFILES_VOLUMES_MAX = 64, DATAFILES_PATH_MAX = 1280 };

/* One environment: the catalog is the first. */
struct datafile {
    char name[32]; /* "catalog.mdb", "volume-0.mdb" */
    char path[DATAFILES_PATH_MAX];
    char journal_path[DATAFILES_PATH_MAX]; /* of the journal that a volume has beside it */
    struct store *store;
    struct format_marker marker;
};

struct datafiles {
    struct datafile files[DATAFILES_VOLUMES_MAX + 1];
    uint32_t count; /* the catalog included */
};

/* NOT_FOUND when `directory` is no data directory, CORRUPT when one of its files is missing or of
 * another directory. */
err_t datafiles_open(const char *directory, struct datafiles *out) MUST_CHECK;
void datafiles_close(struct datafiles *files);

#endif
