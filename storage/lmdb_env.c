#define _GNU_SOURCE
#include "storage/lmdb_env.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/base/file.h"

#define LMDB_MAP_SIZE (UINT64_C(1) << 40)
#define LMDB_MAP_SIZE_MIN (UINT64_C(64) << 20)

enum {
    LMDB_READERS_MAX = 254,
    LMDB_LOCK_SIZE = 16384, /* of the lock file with so many readers */
    LMDB_RESERVE_STEP = 1 << 20,
    LMDB_RESERVE_STEP_BEHIND = 16 << 20, /* when less than half of the reserve is there */
    LMDB_ZEROS_SIZE = 1 << 18
};

static const char *const lmdb_table_names[STORE_TABLE_COUNT] = {
#define TABLE(name, number, doc) [number] = #name,
#include "storage/tables.def"
};

/* ---- errors ---- */

static const struct {
    int rc;
    enum err_code code;
} lmdb_codes[] = {
    {MDB_MAP_FULL, ERR_MAP_FULL},       {MDB_TXN_FULL, ERR_TOO_LARGE},
    {MDB_READERS_FULL, ERR_BUSY},       {MDB_MAP_RESIZED, ERR_UNAVAILABLE},
    {MDB_PAGE_NOTFOUND, ERR_CORRUPT},   {MDB_CORRUPTED, ERR_CORRUPT},
    {MDB_CURSOR_FULL, ERR_CORRUPT},     {MDB_PAGE_FULL, ERR_CORRUPT},
    {MDB_INCOMPATIBLE, ERR_CORRUPT},    {MDB_INVALID, ERR_FORMAT},
    {MDB_VERSION_MISMATCH, ERR_FORMAT}, {MDB_PANIC, ERR_IO},
};

static enum err_code lmdb_code(int rc)
{
    for (size_t i = 0; i < sizeof lmdb_codes / sizeof lmdb_codes[0]; i++) {
        if (lmdb_codes[i].rc == rc) {
            return lmdb_codes[i].code;
        }
    }
    return rc > 0 ? file_code(rc) : ERR_INTERNAL;
}

err_t lmdb_env_err(const struct lmdb_env *env, int rc, const char *call)
{
    int cause = errno;
    if (rc == EIO && cause == 0) {
        return ERR(NO_SPACE, "%s of %s: a write was cut short", call, env->path);
    }
    return err_make(lmdb_code(rc), __FILE__, __LINE__, __func__, "%s of %s: %s", call, env->path,
                    mdb_strerror(rc));
}

/* ---- files ---- */

char *lmdb_env_lock_path(const char *path)
{
    char *lock = NULL;
    return asprintf(&lock, "%s-lock", path) < 0 ? NULL : lock;
}

err_t lmdb_env_rename(const char *from, const char *to)
{
    int rc = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
    if (rc != 0 && errno == EINVAL) {
        /* The file system knows no such flag; a link is never made over another file either. */
        rc = link(from, to);
        if (rc == 0) {
            rc = unlink(from);
        }
    }
    if (rc != 0) {
        return file_err("rename to", to);
    }
    TRY(file_flush_directory(to));
    return NULL;
}

static err_t lmdb_env_file_size(const struct lmdb_env *env, int *fd, uint64_t *out)
{
    struct stat status;
    int rc = mdb_env_get_fd(env->mdb, fd);
    assert(rc == 0);
    (void)rc;
    if (fstat(*fd, &status) != 0) {
        return file_err("stat", env->path);
    }
    *out = (uint64_t)status.st_size;
    return NULL;
}

/* Where the pages that the last commit knows of end in the file. */
static uint64_t lmdb_env_end(const struct lmdb_env *env)
{
    MDB_envinfo info;
    MDB_stat stat;
    int rc = mdb_env_info(env->mdb, &info);
    assert(rc == 0);
    rc = mdb_env_stat(env->mdb, &stat);
    assert(rc == 0);
    (void)rc;
    return ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
}

/* ---- open and close ---- */

static uint64_t lmdb_map_size(const struct lmdb_env *env)
{
    MDB_envinfo info;
    int rc = mdb_env_info(env->mdb, &info);
    assert(rc == 0);
    (void)rc;
    return info.me_mapsize;
}

/* A data file without its lock file has no writer, and an offline reader leaves no trace beside it.
 */
static unsigned lmdb_flags(const struct lmdb_options *options, const char *path,
                           bool *out_of_memory)
{
    unsigned flags = MDB_NOSUBDIR | MDB_NOTLS;
    *out_of_memory = false;
    if (options->read_only) {
        flags |= MDB_RDONLY;
        char *lock = lmdb_env_lock_path(path);
        if (lock == NULL) {
            *out_of_memory = true;
        } else if (access(lock, F_OK) != 0 && errno == ENOENT) {
            flags |= MDB_NOLOCK;
        }
        free(lock);
    }
    return flags;
}

static int lmdb_env_try(struct lmdb_env *env, const char *path, unsigned flags, uint64_t map_size)
{
    int rc = mdb_env_create(&env->mdb);
    if (rc != 0) {
        env->mdb = NULL;
        return rc;
    }
    rc = mdb_env_set_maxdbs(env->mdb, STORE_TABLE_COUNT);
    if (rc == 0) {
        rc = mdb_env_set_maxreaders(env->mdb, LMDB_READERS_MAX);
    }
    if (rc == 0) {
        rc = mdb_env_set_mapsize(env->mdb, map_size);
    }
    if (rc == 0) {
        rc = mdb_env_open(env->mdb, path, flags, 0600);
    }
    if (rc != 0) {
        mdb_env_close(env->mdb);
        env->mdb = NULL;
    }
    return rc;
}

/* LMDB makes its lock file a hole and maps it: on a full disk the first write to it would end the
 * process with SIGBUS. Once its blocks are there it needs no room any more. */
static err_t lmdb_allocate_lock(const char *path)
{
    char *lock = lmdb_env_lock_path(path);
    if (lock == NULL) {
        return ERR(MEMORY, "no memory for a path");
    }
    err_t err = NULL;
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int rc = fd < 0 ? errno : posix_fallocate(fd, 0, LMDB_LOCK_SIZE);
    if (rc != 0) {
        errno = rc;
        err = file_err("allocate", lock);
    }
    if (fd >= 0) {
        close(fd);
    }
    free(lock);
    return err;
}

/* A sanitizer, a container or ulimit may leave less address space than was asked for. */
static err_t lmdb_env_open_mapped(struct lmdb_env *env, const struct lmdb_options *options,
                                  const char *path)
{
    if (!options->read_only) {
        TRY(lmdb_allocate_lock(path));
    }
    bool out_of_memory;
    unsigned flags = lmdb_flags(options, path, &out_of_memory);
    uint64_t map_size = options->map_size != 0 ? options->map_size : LMDB_MAP_SIZE;
    int rc = out_of_memory ? ENOMEM : lmdb_env_try(env, path, flags, map_size);
    while (rc == ENOMEM && !out_of_memory && map_size / 2 >= LMDB_MAP_SIZE_MIN) {
        map_size /= 2;
        rc = lmdb_env_try(env, path, flags, map_size);
    }
    if (rc != 0) {
        return lmdb_env_err(env, rc, "open");
    }
    int fd;
    rc = mdb_env_get_fd(env->mdb, &fd);
    assert(rc == 0);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        return file_err("close on exec", path);
    }
    return NULL;
}

/* Counts the pages from `first` on that the free list holds. */
static int lmdb_count_free(MDB_txn *txn, uint64_t first, uint64_t *out)
{
    enum { FREE_LIST };
    MDB_cursor *cursor;
    MDB_val key;
    MDB_val pages;
    int rc = mdb_cursor_open(txn, FREE_LIST, &cursor);
    if (rc != 0) {
        return rc;
    }
    *out = 0;
    while ((rc = mdb_cursor_get(cursor, &key, &pages, MDB_NEXT)) == 0) {
        const size_t *ids = pages.mv_data;
        if (pages.mv_size < sizeof ids[0] || ids[0] > pages.mv_size / sizeof ids[0] - 1) {
            rc = MDB_CORRUPTED;
            break;
        }
        for (size_t i = 1; i <= ids[0]; i++) {
            *out += ids[i] >= first;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static err_t lmdb_env_check_missing(const struct lmdb_env *env, uint64_t file_size, uint64_t end)
{
    MDB_txn *txn;
    MDB_stat stat;
    uint64_t free_count = 0;
    int rc = mdb_env_stat(env->mdb, &stat);
    assert(rc == 0);
    rc = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return lmdb_env_err(env, rc, "begin");
    }
    rc = lmdb_count_free(txn, file_size / stat.ms_psize, &free_count);
    mdb_txn_abort(txn);
    if (rc != 0 || free_count < end / stat.ms_psize - file_size / stat.ms_psize) {
        return ERR(CORRUPT, "%s has been cut off: %lu of %lu bytes are there", env->path, file_size,
                   end);
    }
    return NULL;
}

/* A file that was cut off would end the process with SIGBUS once a page behind its end is read.
 * Pages may be missing rightly, though: those freed in the transaction that first took them are
 * never written. The two are told apart by the free list, read with the file extended, since to
 * LMDB a page of zeros is no page and gives a clean error. */
static err_t lmdb_env_check_end(const struct lmdb_env *env)
{
    int fd;
    uint64_t file_size;
    TRY(lmdb_env_file_size(env, &fd, &file_size));
    uint64_t end = lmdb_env_end(env);
    if (file_size >= end) {
        return NULL;
    }
    if (env->read_only) {
        return ERR(CORRUPT,
                   "%s is cut off, or needs to be opened for writing once: %lu of %lu bytes",
                   env->path, file_size, end);
    }
    if (ftruncate(fd, (off_t)end) != 0) {
        return file_err("extend", env->path);
    }
    err_t err = lmdb_env_check_missing(env, file_size, end);
    if (err != NULL) {
        (void)!ftruncate(fd, (off_t)file_size); /* evidence stays as it was found */
        return err_passed(err, __func__);
    }
    return NULL;
}

/* Opens the tables that are there, or all with `flags` MDB_CREATE; the others stay 0, which is no
 * table. */
static err_t lmdb_env_open_tables(struct lmdb_env *env, unsigned flags)
{
    MDB_txn *txn;
    errno = 0;
    int rc = mdb_txn_begin(env->mdb, NULL, flags == MDB_CREATE ? 0 : MDB_RDONLY, &txn);
    if (rc != 0) {
        return lmdb_env_err(env, rc, "begin");
    }
    for (unsigned i = 0; i < STORE_TABLE_COUNT && (rc == 0 || rc == MDB_NOTFOUND); i++) {
        rc = mdb_dbi_open(txn, lmdb_table_names[i], flags, &env->tables[i]);
        if (rc == MDB_NOTFOUND) {
            env->tables[i] = 0;
        }
    }
    if (rc != 0 && rc != MDB_NOTFOUND) {
        mdb_txn_abort(txn);
        return lmdb_env_err(env, rc, "open the tables");
    }
    /* A reader too has to commit, or its tables are closed again. */
    rc = mdb_txn_commit(txn);
    if (rc != 0) {
        return lmdb_env_err(env, rc, "commit");
    }
    return NULL;
}

err_t lmdb_env_complete(struct lmdb_env *env)
{
    for (unsigned i = 0; i < STORE_TABLE_COUNT; i++) {
        if (env->tables[i] != 0) {
            continue;
        }
        if (env->read_only) {
            return ERR(FORMAT, "%s has no table %s yet: start the broker on it once", env->path,
                       lmdb_table_names[i]);
        }
        return lmdb_env_open_tables(env, MDB_CREATE);
    }
    return NULL;
}

err_t lmdb_env_open(struct lmdb_env *env, const struct lmdb_options *options, const char *path,
                    bool fresh)
{
    *env = (struct lmdb_env){
        .read_only = options->read_only,
        .map_size_max = options->map_size_max != 0 ? options->map_size_max : LMDB_MAP_SIZE,
    };
    clock_init_real(&env->clock);
    list_init(&env->readers);
    pthread_mutex_init(&env->lock, NULL);
    pthread_cond_init(&env->changed, NULL);
    err_t err = NULL;
    env->path = strdup(path);
    if (env->path == NULL) {
        err = ERR(MEMORY, "no memory for a path");
        goto out;
    }
    TRY_OUT(lmdb_env_open_mapped(env, options, path));
    TRY_OUT(lmdb_env_check_end(env));
    TRY_OUT(lmdb_env_open_tables(env, fresh ? MDB_CREATE : 0));
    if (env->tables[STORE_META] == 0) {
        err = ERR(FORMAT, "%s has no table META: not an environment of Flare", path);
        goto out;
    }
    if (!env->read_only) {
        TRY_OUT(lmdb_env_maintain(env));
    }
out:
    if (err != NULL) {
        lmdb_env_close(env);
    }
    return err;
}

void lmdb_env_close(struct lmdb_env *env)
{
    assert(list_empty(&env->readers));
    if (env->mdb != NULL) {
        mdb_env_close(env->mdb);
    }
    pthread_cond_destroy(&env->changed);
    pthread_mutex_destroy(&env->lock);
    free(env->path);
}

err_t lmdb_env_maintain(struct lmdb_env *env)
{
    int dead;
    int rc = mdb_reader_check(env->mdb, &dead);
    if (rc != 0) {
        return lmdb_env_err(env, rc, "reader check");
    }
    return NULL;
}

/* ---- readers and the map ---- */

void lmdb_env_enter(struct lmdb_env *env, struct lmdb_reader *reader)
{
    pthread_mutex_lock(&env->lock);
    while (env->growing) {
        pthread_cond_wait(&env->changed, &env->lock);
    }
    reader->since_us = clock_mono_us(&env->clock);
    list_append(&env->readers, &reader->link);
    pthread_mutex_unlock(&env->lock);
}

void lmdb_env_leave(struct lmdb_env *env, struct lmdb_reader *reader)
{
    pthread_mutex_lock(&env->lock);
    list_remove(&reader->link);
    if (env->growing && list_empty(&env->readers)) {
        pthread_cond_broadcast(&env->changed);
    }
    pthread_mutex_unlock(&env->lock);
}

/* LMDB unmaps before it maps and cannot go back, so the new size is tried beside the old map first.
 */
static err_t lmdb_env_try_map(const struct lmdb_env *env, uint64_t size)
{
    int fd;
    int rc = mdb_env_get_fd(env->mdb, &fd);
    assert(rc == 0);
    (void)rc;
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return ERR(NO_SPACE, "map %lu bytes of %s: %s", size, env->path, strerror(errno));
    }
    munmap(map, size);
    return NULL;
}

err_t lmdb_env_grow(struct lmdb_env *env)
{
    uint64_t size = lmdb_map_size(env);
    if (size >= env->map_size_max) {
        return ERR(NO_SPACE, "%s has reached its greatest size of %lu bytes", env->path, size);
    }
    size = size < env->map_size_max / 2 ? size * 2 : env->map_size_max;
    TRY(lmdb_env_try_map(env, size));
    pthread_mutex_lock(&env->lock);
    env->growing = true;
    while (!list_empty(&env->readers)) {
        pthread_cond_wait(&env->changed, &env->lock);
    }
    int rc = mdb_env_set_mapsize(env->mdb, size);
    env->growing = false;
    pthread_cond_broadcast(&env->changed);
    pthread_mutex_unlock(&env->lock);
    if (rc != 0) {
        return lmdb_env_err(env, rc, "grow");
    }
    return NULL;
}

/* ---- figures ---- */

/* Pages in use are counted where they are used; what remains of the file is free to be used again.
 */
static err_t lmdb_env_used(struct lmdb_env *env, uint64_t *out)
{
    enum { FREE_LIST, MAIN, CORE_COUNT };
    MDB_txn *txn;
    int rc = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return lmdb_env_err(env, rc, "begin");
    }
    uint64_t pages = 2;
    uint64_t page_size = 0;
    for (unsigned i = 0; i < CORE_COUNT + STORE_TABLE_COUNT && rc == 0; i++) {
        MDB_stat stat;
        rc = mdb_stat(txn, i < CORE_COUNT ? i : env->tables[i - CORE_COUNT], &stat);
        if (rc == 0) {
            page_size = stat.ms_psize;
            pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
        }
    }
    mdb_txn_abort(txn);
    if (rc != 0) {
        return lmdb_env_err(env, rc, "stat");
    }
    *out = pages * page_size;
    return NULL;
}

void lmdb_env_stats(struct lmdb_env *env, struct store_stats *out)
{
    struct lmdb_reader self;
    lmdb_env_enter(env, &self);
    uint64_t used_size = 0;
    err_t err = lmdb_env_used(env, &used_size);
    int fd;
    uint64_t end = lmdb_env_end(env);
    out->map_size = lmdb_map_size(env);
    if (err == NULL) {
        err = lmdb_env_file_size(env, &fd, &out->file_size);
    }
    out->reserve_size = out->file_size > end ? out->file_size - end : 0;
    lmdb_env_leave(env, &self);
    pthread_mutex_lock(&env->lock);
    /* Without a free reader slot the figure of the last time has to do. */
    if (err == NULL) {
        env->used_size = used_size;
    }
    out->used_size = env->used_size;
    if (!list_empty(&env->readers)) {
        const struct lmdb_reader *oldest =
            container_of(list_first(&env->readers), struct lmdb_reader, link);
        out->reader_age_ms = (clock_mono_us(&env->clock) - oldest->since_us) / 1000;
    }
    pthread_mutex_unlock(&env->lock);
    err_free(err);
}

/* ---- the reserve ---- */

/* Asking the kernel to begin with the writing keeps it out of the next commit's flush. */
static err_t lmdb_write_zeros(const struct lmdb_env *env, int fd, uint64_t from, uint64_t to)
{
    static uint8_t zeros[LMDB_ZEROS_SIZE];
    for (uint64_t at = from; at < to;) {
        uint64_t size = to - at < sizeof zeros ? to - at : sizeof zeros;
        ssize_t written = pwrite(fd, zeros, size, (off_t)at);
        if (written < 0 && errno != EINTR) {
            return file_err("extend", env->path);
        }
        if (written == 0) {
            return ERR(NO_SPACE, "extend %s: nothing was written", env->path);
        }
        at += written > 0 ? (uint64_t)written : 0;
    }
    (void)sync_file_range(fd, (off_t)from, (off_t)(to - from), SYNC_FILE_RANGE_WRITE);
    return NULL;
}

err_t lmdb_env_reserve(struct lmdb_env *env, uint64_t size)
{
    int fd;
    uint64_t file_size;
    TRY(lmdb_env_file_size(env, &fd, &file_size));
    uint64_t end = lmdb_env_end(env);
    uint64_t map_size = lmdb_map_size(env);
    uint64_t from = file_size > end ? file_size : end;
    uint64_t to = size < map_size - end ? end + size : map_size;
    if (from >= to) {
        return NULL;
    }
    uint64_t step = from - end < size / 2 ? LMDB_RESERVE_STEP_BEHIND : LMDB_RESERVE_STEP;
    TRY(lmdb_write_zeros(env, fd, from, to - from < step ? to : from + step));
    return NULL;
}

/* ---- backup ---- */

/* A page that neither a table nor the free list knows stops the compact copy; a plain one still
 * holds all. */
static int lmdb_env_copy(struct lmdb_env *env, int fd)
{
    errno = 0;
    int rc = mdb_env_copyfd2(env->mdb, fd, MDB_CP_COMPACT);
    if (rc == MDB_INCOMPATIBLE) {
        if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
            return errno;
        }
        rc = mdb_env_copyfd2(env->mdb, fd, 0);
    }
    return rc;
}

static err_t lmdb_env_backup_as(struct lmdb_env *env, char *name, const char *path)
{
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0) {
        return file_err("create", name);
    }
    struct lmdb_reader self;
    lmdb_env_enter(env, &self);
    int rc = lmdb_env_copy(env, fd);
    err_t err = rc != 0 ? lmdb_env_err(env, rc, "backup") : NULL;
    lmdb_env_leave(env, &self);
    if (err == NULL && fsync(fd) != 0) {
        err = file_err("flush", name);
    }
    if (close(fd) != 0 && err == NULL) {
        err = file_err("close", name);
    }
    if (err == NULL) {
        err = lmdb_env_rename(name, path);
    }
    if (err != NULL) {
        unlink(name);
        return err_passed(err, __func__);
    }
    return NULL;
}

err_t lmdb_env_backup(struct lmdb_env *env, const char *path)
{
    if (access(path, F_OK) == 0) {
        return ERR(EXISTS, "%s exists: a backup is never written over a file", path);
    }
    char *name;
    if (asprintf(&name, "%s.XXXXXX", path) < 0) {
        return ERR(MEMORY, "no memory for a path");
    }
    err_t err = lmdb_env_backup_as(env, name, path);
    free(name);
    return err == NULL ? NULL : err_passed(err, __func__);
}
