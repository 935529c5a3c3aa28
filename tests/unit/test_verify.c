#include "storage/verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "broker/base/bytes.h"
#include "broker/base/random.h"
#include "storage/lmdb.h"
#include "tests/lib/must.h"
#include "tests/lib/tmpdir.h"

enum { PAGE = 4096, META_COUNT = 2 };

/* A healthy environment in memory, and the place where damaged copies of it are checked. */
struct fixture {
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    uint8_t *bytes;
    size_t size;
    uint64_t entries[STORE_TABLE_COUNT];
};

static struct span key_of(unsigned i, char key[16])
{
    return span_of(key, (size_t)snprintf(key, 16, "key %08u", i));
}

static struct store *open_store(const char *path)
{
    struct store *store;
    must(lmdb_store_open(
        &(struct lmdb_options){
            .path = path, .map_size = 64U << 20, .create = true, .role = "volume", .number = 1},
        &store));
    return store;
}

/* Trees of several levels, large values, a free list: some puts and removals over several commits.
 */
static void fill(struct store *store)
{
    struct random random;
    random_init(&random, 3);
    static uint8_t value[20000];
    for (unsigned round = 0; round < 12; round++) {
        struct store_txn *txn;
        must(store_begin(store, STORE_WRITE, &txn));
        for (unsigned i = 0; i < 600; i++) {
            char key[16];
            struct span span = key_of((unsigned)random_below(&random, 3000), key);
            unsigned table =
                i % 2 == 0 ? STORE_LOG : (unsigned)random_below(&random, STORE_TABLE_COUNT);
            size_t size = random_chance(&random, 1, 50) ? sizeof value : 400;
            if (random_chance(&random, 1, 4)) {
                must(store_remove(txn, table, span, NULL));
            } else {
                must(store_put(txn, table, span, span_of(value, random_below(&random, size))));
            }
        }
        must(store_commit(txn));
    }
}

static void read_file(struct fixture *fixture)
{
    struct stat status;
    assert_int_equal(stat(fixture->path, &status), 0);
    fixture->size = (size_t)status.st_size;
    fixture->bytes = malloc(fixture->size);
    FILE *file = fopen(fixture->path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(fixture->bytes, 1, fixture->size, file), fixture->size);
    fclose(file);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    tmpdir_init(&fixture->tmpdir);
    tmpdir_file(&fixture->tmpdir, "volume.mdb", fixture->path);
    struct store *store = open_store(fixture->path);
    fill(store);
    struct store_txn *txn;
    must(store_begin(store, STORE_READ, &txn));
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++) {
        must(store_entries(txn, table, &fixture->entries[table]));
    }
    store_abort(txn);
    store_close(store);
    read_file(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    tmpdir_deinit(&fixture->tmpdir);
    free(fixture->bytes);
    free(fixture);
    return 0;
}

/* ---- what verify says ---- */

struct report {
    char first[256];
    unsigned count;
    unsigned progress_count;
    struct verify_figures figures;
};

static void on_problem(void *context, const char *text)
{
    struct report *report = context;
    if (report->count++ == 0) {
        snprintf(report->first, sizeof report->first, "%s", text);
    }
}

static void on_progress(void *context, uint64_t pages_done, uint64_t pages)
{
    struct report *report = context;
    assert_true(pages_done <= pages);
    report->progress_count++;
}

static struct report verify_at(const char *path)
{
    struct report report = {0};
    must(verify_file(path, &(struct verify_sink){&report, on_problem, on_progress},
                     &report.figures));
    assert_int_equal(report.count, report.figures.problem_count);
    return report;
}

/* The same of the bytes as they are now. */
static struct report verify_bytes(const struct fixture *fixture, size_t size)
{
    tmpdir_write(&fixture->tmpdir, "copy.mdb", fixture->bytes, size);
    char path[TMPDIR_PATH_SIZE];
    return verify_at(tmpdir_file(&fixture->tmpdir, "copy.mdb", path));
}

/* ---- finding things in the bytes ---- */

static uint8_t *page_at(const struct fixture *fixture, uint64_t page)
{
    assert_true((page + 1) * PAGE <= fixture->size);
    return fixture->bytes + page * PAGE;
}

/* The present meta page's roots: of the free list and of the table of tables. */
static uint64_t root_of(const struct fixture *fixture, unsigned core)
{
    const uint8_t *first = fixture->bytes + 16;
    const uint8_t *second = first + PAGE;
    const uint8_t *meta =
        bytes_get_le64(first + 128) > bytes_get_le64(second + 128) ? first : second;
    return bytes_get_le64(meta + 24 + 48 * core + 40);
}

static uint8_t *node_at(uint8_t *page, size_t index)
{
    return page + bytes_get_le16(page + 16 + 2 * index);
}

static uint64_t table_root(const struct fixture *fixture, const char *name)
{
    uint8_t *page = page_at(fixture, root_of(fixture, 1));
    for (size_t i = 0;; i++) {
        uint8_t *node = node_at(page, i);
        uint16_t key_size = bytes_get_le16(node + 6);
        if (span_is(span_of(node + 8, key_size), name)) {
            return bytes_get_le64(node + 8 + key_size + 40);
        }
    }
}

/* ---- cases ---- */

/* A healthy environment has no problem, every entry and every page is accounted for. */
static void test_healthy(void **state)
{
    struct fixture *fixture = *state;
    struct report report = verify_at(fixture->path);
    assert_string_equal(report.first, "");
    assert_memory_equal(report.figures.entries, fixture->entries, sizeof fixture->entries);
    assert_true(report.figures.free_count > 0);
    assert_int_equal(report.figures.lost_count, 0);
    assert_int_equal(report.figures.used_count + report.figures.free_count,
                     report.figures.page_count);
    assert_int_equal(report.figures.page_size, PAGE);
    assert_int_equal(bytes_get_le16(page_at(fixture, table_root(fixture, "LOG")) + 10), 1);
}

/* A new environment, empty but for its marker, is healthy, and so is a backup. */
static void test_new_and_backup(void **state)
{
    struct fixture *fixture = *state;
    char path[TMPDIR_PATH_SIZE];
    store_close(open_store(tmpdir_file(&fixture->tmpdir, "new.mdb", path)));
    assert_string_equal(verify_at(path).first, "");
    struct store *store = open_store(fixture->path);
    must(store_backup(store, tmpdir_file(&fixture->tmpdir, "backup.mdb", path)));
    store_close(store);
    struct report report = verify_at(path);
    assert_string_equal(report.first, "");
    assert_memory_equal(report.figures.entries, fixture->entries, sizeof fixture->entries);
}

/* What cannot be read is an error, what is no environment a problem. */
static void test_no_environment(void **state)
{
    struct fixture *fixture = *state;
    struct report report = {0};
    char path[TMPDIR_PATH_SIZE];
    err_t err = verify_file(tmpdir_file(&fixture->tmpdir, "missing", path),
                            &(struct verify_sink){&report, on_problem, NULL}, &report.figures);
    assert_int_equal(err_code(err), ERR_NOT_FOUND);
    err_free(err);
    static const char text[2 * PAGE] = "text";
    tmpdir_write(&fixture->tmpdir, "text", text, sizeof text);
    assert_int_equal(verify_at(tmpdir_file(&fixture->tmpdir, "text", path)).count, META_COUNT);
    tmpdir_write(&fixture->tmpdir, "empty", "", 0);
    assert_int_equal(verify_at(tmpdir_file(&fixture->tmpdir, "empty", path)).count, META_COUNT);
}

enum damage {
    WRONG_NUMBER,
    WRONG_KIND,
    BOUNDS,
    NODE_OUTSIDE,
    KEYS_SWAPPED,
    CHILD_TWICE,
    CHILD_OUTSIDE,
    KEY_SIZE,
    FREE_ALSO_USED,
    UNKNOWN_TABLE,
    META_MAGIC,
};

static void swap_slots(uint8_t *page, size_t a, size_t b)
{
    uint16_t slot = bytes_get_le16(page + 16 + 2 * a);
    bytes_put_le16(page + 16 + 2 * a, bytes_get_le16(page + 16 + 2 * b));
    bytes_put_le16(page + 16 + 2 * b, slot);
}

static void damage(const struct fixture *fixture, enum damage kind)
{
    uint8_t *branch = page_at(fixture, table_root(fixture, "LOG"));
    uint8_t *leaf = page_at(fixture, bytes_get_le32(node_at(branch, 0)));
    switch (kind) {
    case WRONG_NUMBER:
        bytes_put_le64(leaf, bytes_get_le64(leaf) + 1);
        break;
    case WRONG_KIND:
        bytes_put_le16(leaf + 10, 1);
        break;
    case BOUNDS:
        bytes_put_le16(leaf + 12, PAGE + 2);
        break;
    case NODE_OUTSIDE:
        bytes_put_le16(leaf + 16, PAGE - 4);
        break;
    case KEYS_SWAPPED:
        swap_slots(leaf, 0, 1);
        break;
    case CHILD_TWICE:
        bytes_put_le32(node_at(branch, 1), bytes_get_le32(node_at(branch, 0)));
        break;
    case CHILD_OUTSIDE:
        bytes_put_le32(node_at(branch, 1), UINT32_MAX);
        break;
    case KEY_SIZE:
        bytes_put_le16(node_at(leaf, 0) + 6, 200);
        break;
    case FREE_ALSO_USED: {
        uint8_t *node = node_at(page_at(fixture, root_of(fixture, 0)), 0);
        bytes_put_le64(node + 8 + 8 + 8, table_root(fixture, "LOG"));
        break;
    }
    case UNKNOWN_TABLE:
        node_at(page_at(fixture, root_of(fixture, 1)), 0)[8] = 'Z';
        break;
    case META_MAGIC:
        fixture->bytes[16] ^= 1;
        break;
    }
}

/* Each kind of damage is named. */
static void test_damage(void **state)
{
    static const struct {
        enum damage kind;
        const char *text;
    } cases[] = {
        {WRONG_NUMBER, "says it is page"},
        {WRONG_KIND, "is of kind"},
        {BOUNDS, "has bounds"},
        {NODE_OUTSIDE, "is outside it"},
        {KEYS_SWAPPED, "out of order"},
        {CHILD_TWICE, "another use"},
        {CHILD_OUTSIDE, "outside the file"},
        {KEY_SIZE, "key of 200 bytes"},
        {FREE_ALSO_USED, "has another use"},
        {UNKNOWN_TABLE, "unknown table Z"},
        {META_MAGIC, "meta page 0 is damaged"},
    };
    struct fixture *fixture = *state;
    uint8_t *healthy = malloc(fixture->size);
    memcpy(healthy, fixture->bytes, fixture->size);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        damage(fixture, cases[i].kind);
        struct report report = verify_bytes(fixture, fixture->size);
        if (strstr(report.first, cases[i].text) == NULL) {
            fail_msg("\"%s\" is not: %s", report.first, cases[i].text);
        }
        memcpy(fixture->bytes, healthy, fixture->size);
    }
    free(healthy);
    assert_int_equal(verify_bytes(fixture, fixture->size).count, 0);
}

/* A file that lost its end has problems, wherever it was cut, unless only free pages are gone. */
static void test_cut_off(void **state)
{
    struct fixture *fixture = *state;
    for (size_t pages = 0; pages < fixture->size / PAGE; pages += 1 + pages / 8) {
        struct report report = verify_bytes(fixture, pages * PAGE + 100);
        assert_true(report.count > 0 || pages > fixture->size / PAGE / 2);
        if (pages <= META_COUNT) {
            assert_true(report.count > 0);
        }
    }
}

/* Whatever a page has become, checking it ends and stays inside it. A used page of noise is always
 * noticed. */
static void test_noise(void **state)
{
    struct fixture *fixture = *state;
    struct random random;
    random_init(&random, 11);
    uint8_t saved[PAGE];
    unsigned noticed = 0;
    enum { TRIALS = 400 };
    for (unsigned trial = 0; trial < TRIALS; trial++) {
        uint64_t page = trial % 8 == 0 ? random_below(&random, META_COUNT)
                                       : random_below(&random, fixture->size / PAGE);
        uint8_t *bytes = page_at(fixture, page);
        memcpy(saved, bytes, PAGE);
        /* From one flipped byte near the header to a page of noise. */
        unsigned count = 1U << random_below(&random, 12);
        for (unsigned i = 0; i < count; i++) {
            uint64_t bound = random_chance(&random, 1, 2) ? 64 : PAGE;
            bytes[random_below(&random, bound)] = (uint8_t)random_next(&random);
        }
        noticed += verify_bytes(fixture, fixture->size).count > 0;
        memcpy(bytes, saved, PAGE);
    }
    /* The rest were free pages, insides of values or bytes that did not change. */
    assert_true(noticed > TRIALS / 4);
    memset(page_at(fixture, table_root(fixture, "LOG")), 0, PAGE);
    assert_true(verify_bytes(fixture, fixture->size).count > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_healthy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_and_backup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_environment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
