/* One LMDB environment as a file: made, opened, measured, grown, reserved, copied, closed. lmdb.c
 * puts transactions on top of it; nothing else includes this.
 *
 * It keeps count of the read transactions of this process, since the map must not move under one
 * and since the oldest one holds back the reuse of pages. */
#ifndef STORAGE_LMDB_ENV_H
#define STORAGE_LMDB_ENV_H

#include <lmdb.h>
#include <pthread.h>

#include "broker/base/clock.h"
#include "broker/base/list.h"
#include "storage/lmdb.h"

struct lmdb_reader {
    struct list_link link;
    uint64_t since_us;
};

struct lmdb_env {
    MDB_env *mdb;
    MDB_dbi tables[STORE_TABLE_COUNT];
    char *path;
    bool read_only;
    uint64_t map_size_max;
    struct clock clock;
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t changed;
    struct list readers; /* oldest first */
    bool growing;        /* the map is about to move: readers wait */
    uint64_t used_size;  /* as last measured */
};

/* The error of an LMDB call that returned `rc`. To tell a short write, which LMDB reports as EIO,
 * from a failing disk it looks at errno: set that to 0 before a call that may write. */
err_t lmdb_env_err(const struct lmdb_env *env, int rc, const char *call) MUST_CHECK;

/* Opens the file at `path`. One that is not `fresh` must hold the META table at least, so that its
 * marker can be looked at before anything is changed; lmdb_env_complete then adds the tables that
 * it lacks. */
err_t lmdb_env_open(struct lmdb_env *env, const struct lmdb_options *options, const char *path,
                    bool fresh) MUST_CHECK;
/* Must be called before any table but META is used. ERR_FORMAT when one is missing and may not be
 * added. */
err_t lmdb_env_complete(struct lmdb_env *env) MUST_CHECK;
void lmdb_env_close(struct lmdb_env *env);

/* Around each read transaction; waits while the map moves. */
void lmdb_env_enter(struct lmdb_env *env, struct lmdb_reader *reader);
void lmdb_env_leave(struct lmdb_env *env, struct lmdb_reader *reader);

/* These do what store.h says of the functions of the same names. */
err_t lmdb_env_grow(struct lmdb_env *env) MUST_CHECK;
err_t lmdb_env_reserve(struct lmdb_env *env, uint64_t size) MUST_CHECK;
err_t lmdb_env_backup(struct lmdb_env *env, const char *path) MUST_CHECK;
void lmdb_env_stats(struct lmdb_env *env, struct store_stats *out);
err_t lmdb_env_maintain(struct lmdb_env *env) MUST_CHECK;

/* Gives the flushed file `from` the name `to`, which must be free, for good: the directory is
 * flushed too. */
err_t lmdb_env_rename(const char *from, const char *to) MUST_CHECK;
/* The name of the lock file that LMDB keeps beside the data file `path`; NULL: no memory. Caller
 * frees. */
char *lmdb_env_lock_path(const char *path);

#endif
