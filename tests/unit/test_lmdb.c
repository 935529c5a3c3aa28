/* What only the body on LMDB has: files, maps, backups, the reserve. Conformance is in
 * test_store.c. */
#define _GNU_SOURCE
#include "storage/lmdb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/format.h"
#include "tests/lib/must.h"
#include "tests/lib/tmpdir.h"

struct fixture {
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    tmpdir_init(&fixture->tmpdir);
    tmpdir_file(&fixture->tmpdir, "volume.mdb", fixture->path);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    tmpdir_deinit(&fixture->tmpdir);
    free(fixture);
    return 0;
}

/* How most tests open: a new volume 3 of node 0x77 with a small map. */
static struct lmdb_options options_of(const char *path)
{
    return (struct lmdb_options){.path = path,
                                 .map_size = 64U << 20,
                                 .create = true,
                                 .role = "volume",
                                 .number = 3,
                                 .node_identity = 0x77};
}

static struct store *open_at(const char *path)
{
    struct lmdb_options options = options_of(path);
    struct store *store;
    must(lmdb_store_open(&options, &store));
    return store;
}

static struct store_txn *begin(struct store *store, enum store_mode mode)
{
    struct store_txn *txn;
    must(store_begin(store, mode, &txn));
    return txn;
}

static err_t fill(struct store *store, unsigned from, unsigned count)
{
    char value[1000];
    memset(value, 'v', sizeof value);
    struct store_txn *txn;
    TRY(store_begin(store, STORE_WRITE, &txn));
    for (unsigned i = from; i < from + count; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%08u", i);
        err_t err =
            store_put(txn, STORE_LOG, span_of(key, (size_t)size), span_of(value, sizeof value));
        if (err != NULL) {
            store_abort(txn);
            return err;
        }
    }
    TRY(store_commit(txn));
    return NULL;
}

static uint64_t count_log(struct store *store)
{
    struct store_txn *txn = begin(store, STORE_READ);
    uint64_t count;
    must(store_entries(txn, STORE_LOG, &count));
    store_abort(txn);
    return count;
}

static struct store_stats stats_of(struct store *store)
{
    struct store_stats stats;
    store_stats(store, &stats);
    return stats;
}

static unsigned count_files(const struct tmpdir *tmpdir)
{
    unsigned count = 0;
    DIR *directory = opendir(tmpdir->path);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(directory);
    return count;
}

static uint64_t file_size(const char *path)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return (uint64_t)status.st_size;
}

/* ---- opening ---- */

/* A missing environment is made only when asked for, under its own name and nothing else; it keeps
 * what it holds. */
static void test_create(void **state)
{
    struct fixture *fixture = *state;
    struct lmdb_options options = options_of(fixture->path);
    struct store *store;
    options.create = false;
    must_fail(lmdb_store_open(&options, &store), ERR_NOT_FOUND);
    options.create = true;
    options.read_only = true;
    must_fail(lmdb_store_open(&options, &store), ERR_NOT_FOUND);
    assert_int_equal(count_files(&fixture->tmpdir), 0);
    store = open_at(fixture->path);
    must(fill(store, 0, 10));
    store_close(store);
    assert_int_equal(count_files(&fixture->tmpdir), 2); /* data and lock */
    store = open_at(fixture->path);
    assert_int_equal(count_log(store), 10);
    store_close(store);
}

/* What a crash during creation left behind is in nobody's way. */
static void test_create_after_crash(void **state)
{
    struct fixture *fixture = *state;
    tmpdir_write(&fixture->tmpdir, "volume.mdb.new", "half of a page", 14);
    tmpdir_write(&fixture->tmpdir, "volume.mdb.new-lock", "x", 1);
    struct store *store = open_at(fixture->path);
    must(fill(store, 0, 1));
    store_close(store);
    assert_int_equal(count_files(&fixture->tmpdir), 2);
}

/* The lock file is ours alone, and so is the data. */
static void test_create_private(void **state)
{
    struct fixture *fixture = *state;
    store_close(open_at(fixture->path));
    struct stat status;
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

/* An environment opens only as what it was made as; a tool that names nothing opens any. */
static void test_identity(void **state)
{
    struct fixture *fixture = *state;
    store_close(open_at(fixture->path));
    static const struct {
        const char *role;
        uint32_t number;
        uint64_t identity;
        enum err_code code;
    } cases[] = {
        {"volume", 3, 0x77, ERR_NONE},   {"volume", 3, 0, ERR_NONE},
        {"volume", 4, 0x77, ERR_FORMAT}, {"catalog", 3, 0x77, ERR_FORMAT},
        {"volume", 3, 0x78, ERR_FORMAT}, {NULL, 0, 0, ERR_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store *store;
        err_t err = lmdb_store_open(&(struct lmdb_options){.path = fixture->path,
                                                           .map_size = 64U << 20,
                                                           .role = cases[i].role,
                                                           .number = cases[i].number,
                                                           .node_identity = cases[i].identity},
                                    &store);
        if (err == NULL) {
            store_close(store);
        }
        must_fail(err, cases[i].code);
    }
}

/* Files that are no environments are refused and left as they are. */
static void test_not_an_environment(void **state)
{
    struct fixture *fixture = *state;
    static const char text[] = "This is a text file, not an LMDB environment. ";
    static const struct {
        const char *name;
        size_t size;
        enum err_code code;
    } cases[] = {{"empty.mdb", 0, ERR_CORRUPT},
                 {"short.mdb", 10, ERR_FORMAT},
                 {"text.mdb", sizeof text, ERR_FORMAT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[TMPDIR_PATH_SIZE];
        tmpdir_write(&fixture->tmpdir, cases[i].name, text, cases[i].size);
        struct lmdb_options options =
            options_of(tmpdir_file(&fixture->tmpdir, cases[i].name, path));
        struct store *store;
        must_fail(lmdb_store_open(&options, &store), cases[i].code);
        options.read_only = true;
        must_fail(lmdb_store_open(&options, &store), cases[i].code);
        assert_int_equal(file_size(path), cases[i].size);
    }
    struct lmdb_options options = options_of(fixture->tmpdir.path);
    struct store *store;
    must_fail(lmdb_store_open(&options, &store), ERR_FORMAT);
}

static void make_foreign(const char *path, const char *table)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, table, MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static unsigned foreign_tables(const char *path)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_stat stat;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_RDONLY, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_stat(txn, dbi, &stat), 0);
    mdb_txn_abort(txn);
    mdb_env_close(env);
    return (unsigned)stat.ms_entries;
}

/* An LMDB file of another program is refused, and no table of ours is added to it. */
static void test_foreign(void **state)
{
    struct fixture *fixture = *state;
    static const char *const tables[] = {"other", "META"};
    for (size_t i = 0; i < 2; i++) {
        char path[TMPDIR_PATH_SIZE];
        tmpdir_file(&fixture->tmpdir, tables[i], path);
        make_foreign(path, tables[i]);
        struct lmdb_options options = options_of(path);
        struct store *store;
        must_fail(lmdb_store_open(&options, &store), ERR_FORMAT);
        assert_int_equal(foreign_tables(path), 1);
    }
}

/* A table that a newer program has and the file has not yet is added when it is opened for writing.
 */
static void test_missing_table(void **state)
{
    struct fixture *fixture = *state;
    store_close(open_at(fixture->path));
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_open(env, fixture->path, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "SWEEP", 0, &dbi), 0);
    assert_int_equal(mdb_drop(txn, dbi, 1), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    struct lmdb_options options = options_of(fixture->path);
    options.read_only = true;
    struct store *store;
    must_fail(lmdb_store_open(&options, &store), ERR_FORMAT);
    store = open_at(fixture->path);
    struct store_txn *write = begin(store, STORE_WRITE);
    must(store_put(write, STORE_SWEEP, span_text("key"), span_text("value")));
    must(store_commit(write));
    store_close(store);
    must(lmdb_store_open(&options, &store));
    store_close(store);
}

/* A reader offline sees the data and leaves no trace: no lock file, not one byte changed. */
static void test_read_only(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    must(fill(store, 0, 10));
    store_close(store);
    char lock[TMPDIR_PATH_SIZE];
    assert_int_equal(unlink(tmpdir_file(&fixture->tmpdir, "volume.mdb-lock", lock)), 0);
    assert_int_equal(chmod(fixture->path, 0400), 0);
    struct stat before;
    assert_int_equal(stat(fixture->path, &before), 0);
    struct lmdb_options options = options_of(fixture->path);
    options.read_only = true;
    must(lmdb_store_open(&options, &store));
    assert_int_equal(count_log(store), 10);
    store_close(store);
    struct stat after;
    assert_int_equal(stat(fixture->path, &after), 0);
    assert_int_equal(count_files(&fixture->tmpdir), 1);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

/* A file that lost its end is reported corrupt, at whatever page it was cut: no signal, no change.
 */
static void test_cut_off(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    must(fill(store, 0, 200));
    store_close(store);
    uint64_t pages = file_size(fixture->path) / 4096;
    struct lmdb_options options = options_of(fixture->path);
    for (uint64_t left = pages - 1; left >= 2; left--) {
        assert_int_equal(truncate(fixture->path, (off_t)(left * 4096)), 0);
        must_fail(lmdb_store_open(&options, &store), ERR_CORRUPT);
        assert_int_equal(file_size(fixture->path), left * 4096);
    }
    options.read_only = true;
    must_fail(lmdb_store_open(&options, &store), ERR_CORRUPT);
}

/* Pages that a transaction took and freed again are not written: a file without them at its end is
 * whole. */
static void test_unwritten_tail(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    /* Only once there are free pages does LMDB take back pages at once. */
    for (unsigned i = 0; i < 4; i++) {
        must(fill(store, 0, 30));
    }
    struct store_txn *txn = begin(store, STORE_WRITE);
    char value[3000] = {0};
    for (unsigned i = 0; i < 100; i++) {
        must(store_put(txn, STORE_DUE, span_of(&i, sizeof i), span_of(value, sizeof value)));
    }
    for (unsigned i = 0; i < 100; i++) {
        must(store_remove(txn, STORE_DUE, span_of(&i, sizeof i), NULL));
    }
    must(store_commit(txn));
    store_close(store);
    MDB_env *env;
    MDB_envinfo info;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, fixture->path, MDB_NOSUBDIR | MDB_RDONLY, 0600), 0);
    assert_int_equal(mdb_env_info(env, &info), 0);
    mdb_env_close(env);
    assert_true(file_size(fixture->path) < (info.me_last_pgno + 1) * 4096); /* as described */
    store = open_at(fixture->path);
    must(fill(store, 0, 300));
    assert_int_equal(count_log(store), 300);
    store_close(store);
}

/* ---- children: limits and mounts that the other tests must not see ---- */

enum { CHILD_SKIPPED = 77 };

/* Runs `body` in a process of its own; its result is the exit status. */
static int in_child(int (*body)(const char *path), const char *path)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        /* No leak check: the child holds what its parent had allocated. */
        _exit(body(path));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int child_failed(int line, err_t err)
{
    fprintf(stderr, "child, line %d: %s\n", line, err == NULL ? "wrong" : err_describe(err));
    err_free(err);
    return 1;
}

#define CHILD_MUST(expression)                                                                     \
    do {                                                                                           \
        err_t child_err_ = (expression);                                                           \
        if (child_err_ != NULL) {                                                                  \
            return child_failed(__LINE__, child_err_);                                             \
        }                                                                                          \
    } while (0)
#define CHILD_TRUE(expression)                                                                     \
    do {                                                                                           \
        if (!(expression)) {                                                                       \
            return child_failed(__LINE__, NULL);                                                   \
        }                                                                                          \
    } while (0)

static uint64_t address_space(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu", &pages) != 1) {
        pages = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return pages * 4096;
}

static int open_in_little_space(const char *path)
{
    rlim_t bound = address_space() + (UINT64_C(3) << 30);
    struct rlimit limit = {bound, bound};
    CHILD_TRUE(setrlimit(RLIMIT_AS, &limit) == 0);
    struct lmdb_options options = options_of(path);
    options.map_size = 0;
    struct store *store;
    CHILD_MUST(lmdb_store_open(&options, &store));
    CHILD_MUST(fill(store, 0, 10));
    struct store_stats stats;
    store_stats(store, &stats);
    CHILD_TRUE(stats.map_size >= UINT64_C(1) << 30 && stats.map_size < bound);
    store_close(store);
    return 0;
}

/* Where a terabyte cannot be mapped, less is. */
static void test_map_fallback(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(in_child(open_in_little_space, fixture->path), 0);
}

/* ---- the map ---- */

/* A full map refuses the batch and nothing else; it grows to its greatest size and no further. */
static void test_grow(void **state)
{
    struct fixture *fixture = *state;
    struct lmdb_options options = options_of(fixture->path);
    options.map_size = 256 << 10;
    options.map_size_max = 900 << 10;
    struct store *store;
    must(lmdb_store_open(&options, &store));
    must(fill(store, 0, 10));
    must_fail(fill(store, 10, 400), ERR_MAP_FULL);
    assert_int_equal(count_log(store), 10);
    must(store_grow(store));
    assert_int_equal(stats_of(store).map_size, 512 << 10);
    must(fill(store, 10, 200));
    must(store_grow(store));
    assert_int_equal(stats_of(store).map_size, 900 << 10);
    must(fill(store, 210, 300));
    must_fail(store_grow(store), ERR_NO_SPACE);
    must_fail(fill(store, 1000, 2000), ERR_MAP_FULL);
    assert_int_equal(count_log(store), 510);
    store_close(store);
    /* The size is kept: opened with a smaller one, all of it is still there. */
    must(lmdb_store_open(&options, &store));
    assert_int_equal(count_log(store), 510);
    must_fail(store_grow(store), ERR_NONE);
    store_close(store);
}

struct growing {
    struct store *store;
    _Atomic bool has_grown;
};

static void *grow_in_thread(void *context)
{
    struct growing *growing = context;
    err_t err = store_grow(growing->store);
    growing->has_grown = true;
    return err;
}

/* Growing waits for a reader in another thread, whose spans stay where they are until it ends. */
static void test_grow_waits_for_reader(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    must(fill(store, 0, 10));
    struct store_txn *txn = begin(store, STORE_READ);
    struct span value;
    bool found;
    must(store_get(txn, STORE_LOG, span_text("00000005"), &value, &found));
    struct growing growing = {.store = store};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, grow_in_thread, &growing), 0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(value.data[i % value.size], 'v');
        sched_yield();
    }
    assert_false(growing.has_grown);
    store_abort(txn);
    void *err;
    assert_int_equal(pthread_join(thread, &err), 0);
    must(err);
    assert_int_equal(stats_of(store).map_size, 128U << 20);
    assert_int_equal(count_log(store), 10);
    store_close(store);
}

/* ---- readers ---- */

/* The age is that of the oldest read transaction, and nothing once all have ended. */
static void test_reader_age(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    assert_int_equal(stats_of(store).reader_age_ms, 0);
    struct store_txn *first = begin(store, STORE_READ);
    while (stats_of(store).reader_age_ms < 3) {
    }
    struct store_txn *second = begin(store, STORE_READ);
    assert_true(stats_of(store).reader_age_ms >= 3);
    store_abort(first);
    uint64_t age_ms = stats_of(store).reader_age_ms;
    while (stats_of(store).reader_age_ms <= age_ms) {
    }
    store_abort(second);
    assert_int_equal(stats_of(store).reader_age_ms, 0);
    must(store_maintain(store));
    store_close(store);
}

/* Every reader slot taken is a passing condition, and the figures still come. */
static void test_readers_full(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    must(fill(store, 0, 10));
    enum { TXNS = 300 };
    static struct store_txn *txns[TXNS];
    uint64_t used_size = stats_of(store).used_size;
    size_t count = 0;
    err_t err = NULL;
    while (count < TXNS && err == NULL) {
        err = store_begin(store, STORE_READ, &txns[count]);
        count += err == NULL;
    }
    assert_true(count >= 100);
    must_fail(err, ERR_BUSY);
    assert_int_equal(stats_of(store).used_size, used_size);
    while (count > 0) {
        store_abort(txns[--count]);
    }
    assert_int_equal(count_log(store), 10);
    store_close(store);
}

enum { READ_ROUNDS = 300 };

/* One value in two tables: a reader that sees them differ saw half a commit. */
static void *read_pairs(void *store)
{
    uintptr_t torn = 0;
    for (unsigned i = 0; i < READ_ROUNDS; i++) {
        struct store_txn *txn = begin(store, STORE_READ);
        struct span a;
        struct span b;
        bool found;
        must(store_get(txn, STORE_LOG, span_text("key"), &a, &found));
        must(store_get(txn, STORE_SUB, span_text("key"), &b, &found));
        torn += !span_equal(a, b);
        store_abort(txn);
    }
    return (void *)torn;
}

static void write_pair(struct store *store, uint32_t value)
{
    struct store_txn *txn = begin(store, STORE_WRITE);
    must(store_put(txn, STORE_LOG, span_text("key"), span_of(&value, sizeof value)));
    must(store_put(txn, STORE_SUB, span_text("key"), span_of(&value, sizeof value)));
    must(store_commit(txn));
}

/* Readers in other threads see whole commits while one thread writes. */
static void test_threads(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    write_pair(store, 0);
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_pairs, store), 0);
    }
    for (uint32_t i = 1; i < 50; i++) {
        write_pair(store, i);
        (void)stats_of(store);
    }
    for (size_t i = 0; i < 2; i++) {
        void *torn;
        assert_int_equal(pthread_join(threads[i], &torn), 0);
        assert_null(torn);
    }
    store_close(store);
}

/* ---- backup ---- */

/* A backup holds the last commit, opens as an environment, and leaves no other file. */
static void test_backup(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    must(fill(store, 0, 500));
    struct store_txn *txn = begin(store, STORE_WRITE);
    for (unsigned i = 0; i < 400; i++) {
        char key[16];
        snprintf(key, sizeof key, "%08u", i);
        must(store_remove(txn, STORE_LOG, span_text(key), NULL));
    }
    must(store_commit(txn));
    txn = begin(store, STORE_WRITE);
    must(store_put(txn, STORE_LOG, span_text("uncommitted"), span_text("")));
    char path[TMPDIR_PATH_SIZE];
    must(store_backup(store, tmpdir_file(&fixture->tmpdir, "backup.mdb", path)));
    store_abort(txn);
    assert_int_equal(count_files(&fixture->tmpdir), 3);
    assert_true(file_size(path) < file_size(fixture->path) / 2); /* compact */
    store_close(store);
    store = open_at(path);
    assert_int_equal(count_log(store), 100);
    must(fill(store, 1000, 100));
    store_close(store);
}

/* A backup never writes over a file, and says which directory it cannot write into. */
static void test_backup_refused(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    char path[TMPDIR_PATH_SIZE];
    tmpdir_write(&fixture->tmpdir, "precious", "data", 4);
    must_fail(store_backup(store, tmpdir_file(&fixture->tmpdir, "precious", path)), ERR_EXISTS);
    assert_int_equal(file_size(path), 4);
    must_fail(store_backup(store, fixture->path), ERR_EXISTS);
    must_fail(store_backup(store, tmpdir_file(&fixture->tmpdir, "no/such/backup", path)),
              ERR_NOT_FOUND);
    assert_int_equal(count_files(&fixture->tmpdir), 3);
    store_close(store);
}

/* ---- the reserve ---- */

static err_t reserve_all(struct store *store, uint64_t size)
{
    struct store_stats stats;
    do {
        TRY(store_reserve(store, size));
        store_stats(store, &stats);
    } while (stats.reserve_size < size);
    return NULL;
}

/* The reserve grows in bounded steps, is not counted as used, moves with the last page and ends at
 * the map. */
static void test_reserve(void **state)
{
    struct fixture *fixture = *state;
    struct store *store = open_at(fixture->path);
    enum { SIZE = 4 << 20 };
    struct store_stats before = stats_of(store);
    must(store_reserve(store, SIZE));
    must(reserve_all(store, SIZE));
    assert_int_equal(stats_of(store).reserve_size, SIZE);
    assert_int_equal(stats_of(store).used_size, before.used_size);
    uint64_t size = stats_of(store).file_size;
    must(store_reserve(store, SIZE));
    assert_int_equal(stats_of(store).file_size, size);
    must(fill(store, 0, 1000));
    assert_int_equal(stats_of(store).file_size, size); /* the commit found its room */
    assert_true(stats_of(store).reserve_size < SIZE);
    must(store_reserve(store, SIZE));
    assert_true(stats_of(store).file_size <= size + (1 << 20));
    must(store_reserve(store, UINT64_MAX));
    assert_true(stats_of(store).file_size <= size + (17 << 20));
    must(reserve_all(store, SIZE));
    for (unsigned i = 0; i < 10; i++) {
        must(store_reserve(store, UINT64_MAX));
    }
    assert_int_equal(stats_of(store).file_size, stats_of(store).map_size);
    assert_int_equal(count_log(store), 1000);
    store_close(store);
    store = open_at(fixture->path);
    assert_int_equal(count_log(store), 1000);
    store_close(store);
}

static err_t replace_one(struct store *store, unsigned i)
{
    struct store_txn *txn;
    TRY(store_begin(store, STORE_WRITE, &txn));
    err_t err = store_put(txn, STORE_SUB, span_text("ack"), span_of(&i, sizeof i));
    if (err != NULL) {
        store_abort(txn);
        return err;
    }
    TRY(store_commit(txn));
    return NULL;
}

/* The disk refuses to let the file grow: with a reserve a hundred commits go through; large ones
 * are refused for want of room, and every time the next small one works again. */
static int commit_on_full_disk(struct store *store)
{
    for (unsigned i = 0; i < 100; i++) {
        CHILD_MUST(replace_one(store, i));
    }
    for (unsigned round = 0; round < 3; round++) {
        err_t err = fill(store, 0, 4000);
        CHILD_TRUE(err_code(err) == ERR_NO_SPACE);
        err_free(err);
        CHILD_MUST(replace_one(store, round));
    }
    err_t err = store_reserve(store, 8 << 20);
    CHILD_TRUE(err_code(err) == ERR_NO_SPACE);
    err_free(err);
    return 0;
}

static int full_by_limit(const char *path)
{
    struct lmdb_options options = options_of(path);
    struct store *store;
    signal(SIGXFSZ, SIG_IGN);
    CHILD_MUST(lmdb_store_open(&options, &store));
    CHILD_MUST(reserve_all(store, 1 << 20));
    struct store_stats stats;
    store_stats(store, &stats);
    struct rlimit limit = {stats.file_size, RLIM_INFINITY};
    CHILD_TRUE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    int failed = commit_on_full_disk(store);
    if (failed != 0) {
        return failed;
    }
    limit.rlim_cur = RLIM_INFINITY;
    CHILD_TRUE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHILD_MUST(fill(store, 0, 4000));
    store_close(store);
    return 0;
}

static int full_without_reserve(const char *path)
{
    struct lmdb_options options = options_of(path);
    struct store *store;
    signal(SIGXFSZ, SIG_IGN);
    CHILD_MUST(lmdb_store_open(&options, &store));
    struct store_stats stats;
    store_stats(store, &stats);
    struct rlimit limit = {stats.file_size, RLIM_INFINITY};
    CHILD_TRUE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    unsigned done = 0;
    err_t err = NULL;
    while (err == NULL && done < 100) {
        err = fill(store, done, 1);
        done += err == NULL;
    }
    CHILD_TRUE(err_code(err) == ERR_NO_SPACE);
    err_free(err);
    store_close(store);
    return 0;
}

/* A limit on the file's size stands in for the full disk: writes up to it work, the one across it
 * is cut short. */
static void test_full_by_limit(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(in_child(full_by_limit, fixture->path), 0);
    char path[TMPDIR_PATH_SIZE];
    tmpdir_file(&fixture->tmpdir, "other.mdb", path);
    assert_int_equal(in_child(full_without_reserve, path), 0);
}

/* Fills the file system that `path` is on to the last block. */
static void fill_disk(const char *path)
{
    static const uint8_t bytes[4096];
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    while (write(fd, bytes, sizeof bytes) > 0) {
    }
    close(fd);
}

static int full_on_tmpfs(const char *path)
{
    char place[TMPDIR_PATH_SIZE];
    char file[TMPDIR_PATH_SIZE + 16];
    char filler[TMPDIR_PATH_SIZE + 16];
    snprintf(place, sizeof place, "%s.mount", path);
    snprintf(file, sizeof file, "%s/volume.mdb", place);
    snprintf(filler, sizeof filler, "%s/filler", place);
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return CHILD_SKIPPED;
    }
    if (mkdir(place, 0700) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", place, "tmpfs", 0, "size=8m") != 0) {
        return CHILD_SKIPPED;
    }
    struct lmdb_options options = options_of(file);
    struct store *store;
    CHILD_MUST(lmdb_store_open(&options, &store));
    CHILD_MUST(reserve_all(store, 1 << 20));
    fill_disk(filler);
    int failed = commit_on_full_disk(store);
    if (failed != 0) {
        return failed;
    }
    CHILD_TRUE(unlink(filler) == 0);
    CHILD_MUST(fill(store, 0, 4000));
    store_close(store);
    CHILD_MUST(lmdb_store_open(&options, &store));
    store_close(store);
    return 0;
}

/* The same on a real file system without one free block, and once there is room again. */
static void test_full_on_tmpfs(void **state)
{
    struct fixture *fixture = *state;
    int status = in_child(full_on_tmpfs, fixture->path);
    if (status == CHILD_SKIPPED) {
        skip();
    }
    assert_int_equal(status, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_create),
        CASE(test_create_after_crash),
        CASE(test_create_private),
        CASE(test_identity),
        CASE(test_not_an_environment),
        CASE(test_foreign),
        CASE(test_missing_table),
        CASE(test_read_only),
        CASE(test_cut_off),
        CASE(test_unwritten_tail),
        CASE(test_map_fallback),
        CASE(test_grow),
        CASE(test_grow_waits_for_reader),
        CASE(test_reader_age),
        CASE(test_readers_full),
        CASE(test_threads),
        CASE(test_backup),
        CASE(test_backup_refused),
        CASE(test_reserve),
        CASE(test_full_by_limit),
        CASE(test_full_on_tmpfs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
