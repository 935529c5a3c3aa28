#include "broker/datadir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/base/bytes.h"
#include "broker/base/file.h"
#include "broker/base/log.h"
#include "broker/base/random.h"
#include "storage/format.h"
#include "storage/lmdb.h"
#include "storage/memory.h"

#define VOLUMES_KEY "volumes"

static err_t join(const struct datadir *datadir, const char *name, char out[DATADIR_PATH_MAX])
{
    int size = snprintf(out, DATADIR_PATH_MAX, "%s/%s", datadir->path, name);
    if (size < 0 || size >= DATADIR_PATH_MAX) {
        return ERR(INVALID, "data: the path is too long");
    }
    return NULL;
}

static err_t make_directory(struct datadir *datadir, const char *path)
{
    int size = snprintf(datadir->path, sizeof datadir->path, "%s", path[0] == '\0' ? "" : path);
    if (size < 0 || size >= (int)sizeof datadir->path) {
        return ERR(INVALID, "data: the path is too long");
    }
    if (path[0] == '\0') {
        const char *parent = getenv("TMPDIR");
        snprintf(datadir->path, sizeof datadir->path, "%s/flare-XXXXXX",
                 parent == NULL ? "/tmp" : parent);
        if (mkdtemp(datadir->path) == NULL) {
            return ERR(IO, "make a temporary directory %s: %m", datadir->path);
        }
        datadir->temporary = true;
        return NULL;
    }
    if (mkdir(path, 0700) == 0) {
        return file_flush_directory(path); /* it must stay as what is confirmed in it does */
    }
    if (errno != EEXIST) {
        return ERR(IO, "make the data directory %s: %m", path);
    }
    return NULL;
}

static void read_pid(int fd, char out[32])
{
    ssize_t size = pread(fd, out, 31, 0);
    out[size < 0 ? 0 : size] = '\0';
    for (char *at = out; *at != '\0'; at++) {
        if (*at < '0' || *at > '9') {
            *at = '\0';
            break;
        }
    }
}

static err_t take_lock(struct datadir *datadir)
{
    char path[DATADIR_PATH_MAX];
    TRY(join(datadir, "lock", path));
    datadir->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (datadir->lock_fd < 0) {
        return ERR(IO, "open %s: %m", path);
    }
    if (flock(datadir->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[32];
        read_pid(datadir->lock_fd, pid);
        close(datadir->lock_fd);
        datadir->lock_fd = -1;
        return ERR(LOCKED, "the data directory %s is in use by the broker with pid %s",
                   datadir->path, pid[0] == '\0' ? "(unknown)" : pid);
    }
    char pid[32];
    int size = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    /* Written over what is there, whose block is not given up first: the disk may be full. */
    if (pwrite(datadir->lock_fd, pid, (size_t)size, 0) != size ||
        ftruncate(datadir->lock_fd, size) != 0) {
        return ERR(IO, "write %s: %m", path);
    }
    return NULL;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static err_t identity_of(struct store *store, uint64_t *out)
{
    struct store_txn *txn = NULL;
    struct format_marker marker;
    TRY(store_begin(store, STORE_READ, &txn));
    err_t err = format_read(txn, &marker);
    store_abort(txn);
    if (err == NULL) {
        *out = marker.identity;
    }
    return err;
}

static err_t read_volume_count(struct store *catalog, uint32_t *out)
{
    struct store_txn *txn = NULL;
    struct span value;
    bool found = false;
    TRY(store_begin(catalog, STORE_READ, &txn));
    err_t err = store_get(txn, STORE_META, span_text(VOLUMES_KEY), &value, &found);
    if (err == NULL && found && value.size != 4) {
        err = ERR(CORRUPT, "the catalog's count of volumes is damaged");
    }
    if (err == NULL) {
        *out = found ? bytes_get_le32(value.data) : 0;
    }
    store_abort(txn);
    return err;
}

static err_t write_volume_count(struct store *catalog, uint32_t count)
{
    struct store_txn *txn = NULL;
    uint8_t value[4];
    bytes_put_le32(value, count);
    TRY(store_begin(catalog, STORE_WRITE, &txn));
    err_t err = store_put(txn, STORE_META, span_text(VOLUMES_KEY), span_of(value, sizeof value));
    if (err != NULL) {
        store_abort(txn);
        return err;
    }
    return store_commit(txn);
}

static err_t open_catalog(struct datadir *datadir, struct lmdb_options options)
{
    char path[DATADIR_PATH_MAX];
    char volume[DATADIR_PATH_MAX];
    TRY(join(datadir, "catalog.mdb", path));
    TRY(join(datadir, "volume-0.mdb", volume));
    if (!exists(path) && exists(volume)) {
        return ERR(CORRUPT, "%s has volumes but no catalog.mdb: restore it from a backup",
                   datadir->path);
    }
    options.path = path;
    options.role = "catalog";
    options.create = true;
    options.node_identity = exists(path) ? 0 : random_seed() | 1;
    return lmdb_store_open(&options, &datadir->catalog.store);
}

static err_t open_volumes(struct datadir *datadir, struct lmdb_options options, uint32_t recorded,
                          uint32_t count)
{
    for (uint32_t number = 0; number < count; number++) {
        char name[32];
        char path[DATADIR_PATH_MAX];
        snprintf(name, sizeof name, "volume-%u.mdb", number);
        TRY(join(datadir, name, path));
        options.path = path;
        options.role = "volume";
        options.number = number;
        options.create = number >= recorded;
        TRY(lmdb_store_open(&options, &datadir->volumes[number].store));
        datadir->volume_count = number + 1;
    }
    return NULL;
}

static err_t check_volume_count(uint32_t count)
{
    return count <= DATADIR_VOLUMES_MAX ? NULL
                                        : ERR(INVALID, "volumes: at most %d", DATADIR_VOLUMES_MAX);
}

/* Whether nothing in the journal is newer than the volume's last commit. */
static err_t is_spent(struct journal *journal, uint64_t generation, bool *out)
{
    struct span record;
    bool found = false;
    journal_rewind(journal, generation);
    TRY(journal_next(journal, &record, &found));
    *out = !found;
    return NULL;
}

/* Makes the journal anew, where nothing is lost by that: when there is none, or in another size. */
static err_t make_journal(const struct journal_options *options, uint64_t generation,
                          struct journal **journal)
{
    bool spent = true;
    if (*journal != NULL) {
        TRY(is_spent(*journal, generation, &spent));
    }
    if (*journal != NULL &&
        (!spent || options->size == 0 || journal_size(*journal) == options->size)) {
        return NULL;
    }
    err_t err = journal_create(options);
    if (err_code(err) == ERR_NO_SPACE) {
        LOG_WARN("no room for a journal", LOG_TEXT("path", options->path), LOG_ERR(err));
        err_free(err);
        return NULL;
    }
    TRY(err);
    journal_close(*journal);
    *journal = NULL;
    return journal_open(options, journal);
}

static err_t open_journal(struct datadir *datadir, const struct datadir_options *options,
                          uint64_t identity, uint32_t number)
{
    struct datadir_volume *volume = &datadir->volumes[number];
    char name[32];
    char path[DATADIR_PATH_MAX];
    uint64_t generation = 0;
    snprintf(name, sizeof name, "volume-%u.journal", number);
    TRY(join(datadir, name, path));
    const struct journal_options journal = {
        .path = path,
        .size = options->journal_size / JOURNAL_BLOCK_SIZE * JOURNAL_BLOCK_SIZE,
        .identity = identity,
        .number = number,
    };
    TRY(journal_read_generation(volume->store, &generation));
    if (exists(path)) {
        TRY(journal_open(&journal, &volume->journal));
    } else if (generation == 0 && options->journal_size == 0) {
        return NULL;
    } else if (generation != 0) {
        return ERR(CORRUPT, "%s is missing: restore the data directory from a backup", path);
    }
    return make_journal(&journal, generation, &volume->journal);
}

static err_t open_stores(struct datadir *datadir, const struct datadir_options *options)
{
    struct lmdb_options lmdb = {.map_size = options->map_size,
                                .map_size_max = options->map_size_max};
    uint32_t recorded = 0;
    TRY(open_catalog(datadir, lmdb));
    TRY(identity_of(datadir->catalog.store, &lmdb.node_identity));
    TRY(read_volume_count(datadir->catalog.store, &recorded));
    uint32_t count = recorded > options->volumes ? recorded : options->volumes;
    TRY(check_volume_count(count));
    TRY(open_volumes(datadir, lmdb, recorded, count));
    for (uint32_t number = 0; number < count; number++) {
        TRY(open_journal(datadir, options, lmdb.node_identity, number));
    }
    return count == recorded ? NULL : write_volume_count(datadir->catalog.store, count);
}

static err_t open_memory(struct datadir *datadir, const struct datadir_options *options)
{
    snprintf(datadir->path, sizeof datadir->path, "%s", DATADIR_MEMORY);
    TRY(check_volume_count(options->volumes));
    TRY(memory_store_open(&datadir->catalog.store));
    for (uint32_t number = 0; number < options->volumes; number++) {
        TRY(memory_store_open(&datadir->volumes[number].store));
        datadir->volume_count = number + 1;
    }
    return NULL;
}

err_t datadir_open(const struct datadir_options *options, struct datadir *out)
{
    err_t err = NULL;
    *out = (struct datadir){.lock_fd = -1};
    if (strcmp(options->path, DATADIR_MEMORY) == 0) {
        TRY_OUT(open_memory(out, options));
        return NULL;
    }
    TRY_OUT(make_directory(out, options->path));
    TRY_OUT(take_lock(out));
    TRY_OUT(open_stores(out, options));
out:
    if (err != NULL) {
        datadir_close(out);
    }
    return err;
}

/* Removes the files of a temporary directory, which has no folders. */
static void remove_directory(const struct datadir *datadir)
{
    DIR *dir = opendir(datadir->path);
    if (dir == NULL) {
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
    rmdir(datadir->path);
}

void datadir_close(struct datadir *datadir)
{
    for (uint32_t number = 0; number < datadir->volume_count; number++) {
        store_close(datadir->volumes[number].store);
        journal_close(datadir->volumes[number].journal);
    }
    store_close(datadir->catalog.store);
    if (datadir->temporary) {
        remove_directory(datadir);
    }
    if (datadir->lock_fd >= 0) {
        close(datadir->lock_fd);
    }
    *datadir = (struct datadir){.lock_fd = -1};
}
