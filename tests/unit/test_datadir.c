#include "broker/datadir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/format.h"
#include "tests/lib/must.h"
#include "tests/lib/tmpdir.h"

enum { SMALL = 64 * 1024, LARGE = 256 * 1024, GENERATION = 7 };

static struct tmpdir tmpdir;

static int setup(void **state)
{
    (void)state;
    tmpdir_init(&tmpdir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_deinit(&tmpdir);
    return 0;
}

static err_t try_open(uint64_t journal_size, struct datadir *datadir)
{
    char path[TMPDIR_PATH_SIZE];
    const struct datadir_options options = {.path = tmpdir_file(&tmpdir, "data", path),
                                            .volumes = 2,
                                            .map_size = 1 << 26,
                                            .map_size_max = 1 << 26,
                                            .journal_size = journal_size};
    return datadir_open(&options, datadir);
}

static void open_with(uint64_t journal_size, struct datadir *datadir)
{
    must(try_open(journal_size, datadir));
}

static char *journal_file(unsigned number, char path[TMPDIR_PATH_SIZE])
{
    char name[64];
    (void)snprintf(name, sizeof name, "data/volume-%u.journal", number);
    return tmpdir_file(&tmpdir, name, path);
}

/* As a broker does that writes to the journal. */
static void name_generation(struct datadir *datadir, unsigned number, uint64_t generation)
{
    struct store_txn *txn = NULL;
    must(store_begin(datadir->volumes[number].store, STORE_WRITE, &txn));
    must(journal_put_generation(txn, generation));
    must(store_commit(txn));
}

static void append(struct journal *journal, uint64_t generation)
{
    journal_restart(journal, generation);
    buf_append_text(journal_record(journal), "a record");
    must(journal_append(journal));
    must(journal_flush(journal));
}

static void expect_refused(const char *text)
{
    struct datadir datadir;
    err_t err = try_open(SMALL, &datadir);
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), text));
    err_free(err);
}

/* Each volume of a new directory has a journal, the catalog none; they open again. */
static void test_new_directory(void **state)
{
    (void)state;
    char path[TMPDIR_PATH_SIZE];
    struct datadir datadir;
    for (int round = 0; round < 2; round++) {
        open_with(SMALL, &datadir);
        assert_null(datadir.catalog.journal);
        for (unsigned number = 0; number < 2; number++) {
            struct stat status;
            assert_int_equal(journal_size(datadir.volumes[number].journal), SMALL);
            assert_int_equal(stat(journal_file(number, path), &status), 0);
            assert_int_equal(status.st_size, SMALL);
        }
        datadir_close(&datadir);
    }
}

/* A directory from before there were journals gets them, and a program of that time refuses it. */
static void test_old_directory(void **state)
{
    (void)state;
    struct datadir datadir;
    struct format_marker marker;
    struct store_txn *txn = NULL;
    open_with(0, &datadir);
    assert_null(datadir.volumes[0].journal);
    datadir_close(&datadir);
    open_with(SMALL, &datadir);
    assert_non_null(datadir.volumes[0].journal);
    assert_non_null(datadir.volumes[1].journal);
    must(store_begin(datadir.volumes[0].store, STORE_READ, &txn));
    must(format_read(txn, &marker));
    store_abort(txn);
    assert_int_equal(marker.version, 2);
    datadir_close(&datadir);
}

/* A journal that is missing may have held what was confirmed; so may another's in its place. */
static void test_missing_and_foreign(void **state)
{
    (void)state;
    char path[TMPDIR_PATH_SIZE];
    char other[TMPDIR_PATH_SIZE];
    struct datadir datadir;
    open_with(SMALL, &datadir);
    name_generation(&datadir, 1, GENERATION);
    datadir_close(&datadir);
    journal_file(1, path);
    tmpdir_file(&tmpdir, "kept", other);
    assert_int_equal(rename(path, other), 0);
    expect_refused("volume-1.journal is missing");
    assert_int_equal(rename(journal_file(0, other), path), 0);
    expect_refused("belongs to volume 0");
}

/* Another size is taken when the journal holds nothing, and what it holds is never dropped. */
static void test_another_size(void **state)
{
    (void)state;
    struct datadir datadir;
    struct span record;
    bool found = false;
    open_with(SMALL, &datadir);
    for (unsigned number = 0; number < 2; number++) {
        name_generation(&datadir, number, GENERATION);
    }
    append(datadir.volumes[0].journal, GENERATION);
    append(datadir.volumes[1].journal, GENERATION - 1); /* committed since */
    datadir_close(&datadir);
    open_with(LARGE, &datadir);
    assert_int_equal(journal_size(datadir.volumes[0].journal), SMALL);
    assert_int_equal(journal_size(datadir.volumes[1].journal), LARGE);
    journal_rewind(datadir.volumes[0].journal, GENERATION);
    must(journal_next(datadir.volumes[0].journal, &record, &found));
    assert_true(found);
    assert_true(span_is(record, "a record"));
    name_generation(&datadir, 0, GENERATION + 1);
    datadir_close(&datadir);
    open_with(LARGE, &datadir);
    assert_int_equal(journal_size(datadir.volumes[0].journal), LARGE);
    datadir_close(&datadir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_new_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_and_foreign, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_size, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
