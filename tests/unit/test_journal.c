#define _GNU_SOURCE
#include "storage/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/base/random.h"
#include "storage/memory.h"
#include "tests/crash/iotrap.c" /* NOLINT(bugprone-suspicious-include): it must be in the program */
#include "tests/lib/must.h"
#include "tests/lib/tmpdir.h"

enum { SIZE = 256 * 1024, IDENTITY = 77, NUMBER = 3, GENERATION = 1001, RECORDS_MAX = 64 };

struct fixture {
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    struct journal *journal;
    struct random random;
};

static void expect(err_t err, enum err_code code)
{
    assert_int_equal(err_code(err), code);
    err_free(err);
}

static struct journal_options options_of(const struct fixture *fixture)
{
    return (struct journal_options){
        .path = fixture->path, .size = SIZE, .identity = IDENTITY, .number = NUMBER};
}

static void reopen(struct fixture *fixture)
{
    const struct journal_options options = options_of(fixture);
    journal_close(fixture->journal);
    fixture->journal = NULL;
    must(journal_open(&options, &fixture->journal));
}

static int setup(void **state)
{
    static struct fixture fixture;
    memset(&fixture, 0, sizeof fixture);
    tmpdir_init(&fixture.tmpdir);
    tmpdir_file(&fixture.tmpdir, "volume-3.journal", fixture.path);
    random_init(&fixture.random, 3);
    const struct journal_options options = options_of(&fixture);
    must(journal_create(&options));
    reopen(&fixture);
    journal_restart(fixture.journal, GENERATION);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    journal_close(fixture->journal);
    tmpdir_deinit(&fixture->tmpdir);
    return 0;
}

/* Record `number`: its first byte says which, its size follows from it too. */
static size_t size_of(unsigned number)
{
    static const size_t sizes[] = {1, 7, 100, 4000, 4096, 5000, 12000};
    return sizes[number % 7];
}

static err_t try_append(struct fixture *fixture, unsigned number)
{
    struct buf *record = journal_record(fixture->journal);
    uint8_t *bytes = buf_extend(record, size_of(number));
    memset(bytes, (int)number, size_of(number));
    return journal_append(fixture->journal);
}

static void append(struct fixture *fixture, unsigned number, bool flush)
{
    must(try_append(fixture, number));
    assert_true(journal_pending(fixture->journal));
    if (flush) {
        must(journal_flush(fixture->journal));
        assert_false(journal_pending(fixture->journal));
    }
}

/* The records from 0 on that are read, each checked; CORRUPT ends them as `code`. */
static unsigned count_read(struct fixture *fixture, uint64_t generation, enum err_code *code)
{
    struct span record;
    bool found = true;
    unsigned count = 0;
    err_t err = NULL;
    journal_rewind(fixture->journal, generation);
    while (found && err == NULL) {
        err = journal_next(fixture->journal, &record, &found);
        if (err == NULL && found) {
            assert_int_equal(record.size, size_of(count));
            assert_int_equal(record.data[0], count);
            assert_int_equal(record.data[record.size - 1], count);
            count++;
        }
    }
    *code = err_code(err);
    err_free(err);
    assert_int_equal(journal_count(fixture->journal), count);
    return count;
}

static void expect_read(struct fixture *fixture, unsigned count)
{
    enum err_code code;
    assert_int_equal(count_read(fixture, GENERATION, &code), count);
    assert_int_equal(code, ERR_NONE);
}

static void change(const struct fixture *fixture, uint64_t at, const void *data, size_t size)
{
    int fd = open(fixture->path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, size, (off_t)at), size);
    close(fd);
}

static uint8_t *image_of(const struct fixture *fixture)
{
    uint8_t *image = malloc(SIZE);
    int fd = open(fixture->path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, image, SIZE), SIZE);
    close(fd);
    return image;
}

/* Where record `number` lies in the file. */
static uint64_t place_of(const struct fixture *fixture, unsigned number)
{
    uint8_t *image = image_of(fixture);
    uint8_t wanted[JOURNAL_RECORD_HEADER + 1];
    uint64_t at = JOURNAL_BLOCK_SIZE;
    memset(wanted, (int)number, sizeof wanted);
    while (image[at + 24] != number || image[at + JOURNAL_RECORD_HEADER] != number ||
           memcmp(image + at + 8, "FLJ1", 4) != 0) {
        at += 8;
        assert_true(at + JOURNAL_RECORD_HEADER < SIZE);
    }
    free(image);
    return at;
}

/* What was appended is read in order, flushed or not, also by another process, which appends behind
 * it. */
static void test_round_trip(void **state)
{
    struct fixture *fixture = *state;
    expect_read(fixture, 0);
    for (unsigned number = 0; number < 20; number++) {
        append(fixture, number, random_chance(&fixture->random, 1, 2));
        if (number % 5 == 4) {
            reopen(fixture);
            expect_read(fixture, number + 1);
        }
    }
    assert_true(journal_used(fixture->journal) <= SIZE);
}

/* A record that a crash has cut at any byte is not there, nor is anything else. */
static void test_torn_tail(void **state)
{
    struct fixture *fixture = *state;
    append(fixture, 0, true);
    append(fixture, 1, true);
    append(fixture, 2, true);
    uint64_t at = place_of(fixture, 2);
    uint8_t *image = image_of(fixture);
    size_t size = JOURNAL_RECORD_HEADER + size_of(2);
    static const uint8_t zeros[JOURNAL_RECORD_HEADER + 100];
    for (size_t kept = 0; kept < size; kept++) {
        change(fixture, at, image + at, kept);
        change(fixture, at + kept, zeros, size - kept);
        reopen(fixture);
        expect_read(fixture, 2);
    }
    change(fixture, at, image + at, size);
    reopen(fixture);
    expect_read(fixture, 3);
    free(image);
}

/* A flushed record that is damaged before another is told, whichever byte it is; the records before
 * it are read. */
static void test_damage_is_told(void **state)
{
    struct fixture *fixture = *state;
    append(fixture, 0, true);
    append(fixture, 1, true);
    append(fixture, 2, false);
    append(fixture, 3, true);
    append(fixture, 4, true);
    uint8_t *image = image_of(fixture);
    uint64_t at = place_of(fixture, 2);
    for (size_t byte = 0; byte < JOURNAL_RECORD_HEADER + size_of(2); byte++) {
        enum err_code code;
        uint8_t changed = image[at + byte] ^ 0x10;
        change(fixture, at + byte, &changed, 1);
        assert_int_equal(count_read(fixture, GENERATION, &code), 2);
        assert_int_equal(code, ERR_CORRUPT);
        change(fixture, at + byte, image + at + byte, 1);
    }
    expect_read(fixture, 5);
    free(image);
}

/* Who has written a record misses it when the last one is damaged too, flushed or not; how often
 * they are read again, and how far, changes nothing in that, nor in what has been flushed. */
static void test_last_one_damaged(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned number = 0; number < 3; number++) {
        append(fixture, number, number < 2);
    }
    expect_read(fixture, 3);
    assert_true(journal_pending(fixture->journal));
    must(journal_flush(fixture->journal));
    expect_read(fixture, 3);
    assert_false(journal_pending(fixture->journal));
    uint64_t at = place_of(fixture, 2);
    change(fixture, at, "?", 1);
    for (unsigned round = 0; round < 2; round++) {
        enum err_code code;
        struct span record;
        bool found = false;
        journal_rewind(fixture->journal, GENERATION);
        must(journal_next(fixture->journal, &record, &found));
        assert_int_equal(count_read(fixture, GENERATION, &code), 2);
        assert_int_equal(code, ERR_CORRUPT);
    }
    reopen(fixture);
    expect_read(fixture, 2); /* as if a power failure had cut it short */
}

/* Of records that were not flushed a later one may have come to the disk and an earlier not: what
 * is appended in its place is not continued by it. */
static void test_unflushed_gap(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned number = 0; number < 7; number++) {
        append(fixture, number, number < 4);
    }
    uint8_t *image = image_of(fixture);
    uint64_t fourth = place_of(fixture, 4);
    uint64_t sixth = place_of(fixture, 6);
    static const uint8_t zeros[JOURNAL_RECORD_HEADER];
    change(fixture, fourth, zeros, sizeof zeros);
    reopen(fixture);
    expect_read(fixture, 4); /* and no damage: nothing says that record 4 had been flushed */
    append(fixture, 4, true);
    expect_read(fixture, 5);
    change(fixture, sixth, image + sixth, JOURNAL_RECORD_HEADER + size_of(6));
    append(fixture, 5, false);
    reopen(fixture);
    expect_read(fixture, 6);
    free(image);
}

/* Records of an earlier lap are never taken, wherever the present one ends. */
static void test_laps(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned number = 0; number < 12; number++) {
        append(fixture, number, true);
    }
    for (unsigned lap = 1; lap < 12; lap++) {
        enum err_code code;
        journal_restart(fixture->journal, GENERATION + lap);
        for (unsigned number = 0; number < 12 - lap; number++) {
            append(fixture, number, true);
        }
        reopen(fixture);
        assert_int_equal(count_read(fixture, GENERATION + lap, &code), 12 - lap);
        assert_int_equal(code, ERR_NONE);
        assert_int_equal(count_read(fixture, GENERATION + 100, &code), 0);
        assert_int_equal(code, ERR_NONE);
        /* An environment of an earlier commit finds that its records are gone. */
        assert_int_equal(count_read(fixture, GENERATION, &code), 0);
        assert_int_equal(code, lap < 12 ? ERR_CORRUPT : ERR_NONE);
    }
}

/* A record that does not fit is refused and changes nothing; one that just does is taken. */
static void test_full(void **state)
{
    struct fixture *fixture = *state;
    struct buf *record = journal_record(fixture->journal);
    size_t room = SIZE - JOURNAL_BLOCK_SIZE - JOURNAL_RECORD_HEADER;
    assert_non_null(buf_extend(record, room + 1));
    assert_false(journal_fits(fixture->journal));
    expect(journal_append(fixture->journal), ERR_NO_SPACE);
    expect_read(fixture, 0);
    record = journal_record(fixture->journal);
    memset(buf_extend(record, room), 0, room);
    assert_true(journal_fits(fixture->journal));
    must(journal_append(fixture->journal));
    must(journal_flush(fixture->journal));
    assert_int_equal(journal_used(fixture->journal), SIZE - JOURNAL_BLOCK_SIZE);
    expect(try_append(fixture, 0), ERR_NO_SPACE);
    assert_int_equal(journal_count(fixture->journal), 1);
    journal_restart(fixture->journal, GENERATION + 1);
    must(try_append(fixture, 0));
}

/* A journal opens beside its own environment only, and only whole. */
static void test_identity(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = NULL;
    struct journal_options options = options_of(fixture);
    options.identity++;
    expect(journal_open(&options, &journal), ERR_FORMAT);
    options = options_of(fixture);
    options.number++;
    expect(journal_open(&options, &journal), ERR_FORMAT);
    options = options_of(fixture);
    uint8_t *image = image_of(fixture);
    for (uint64_t at = 0; at < 64; at++) {
        uint8_t changed = image[at] ^ 1;
        change(fixture, at, &changed, 1);
        err_t err = journal_open(&options, &journal);
        assert_true(err_code(err) == ERR_CORRUPT || err_code(err) == ERR_FORMAT);
        err_free(err);
        change(fixture, at, image + at, 1);
    }
    free(image);
    assert_int_equal(truncate(fixture->path, SIZE - JOURNAL_BLOCK_SIZE), 0);
    expect(journal_open(&options, &journal), ERR_CORRUPT);
    assert_int_equal(truncate(fixture->path, 10), 0);
    expect(journal_open(&options, &journal), ERR_CORRUPT);
    assert_int_equal(unlink(fixture->path), 0);
    expect(journal_open(&options, &journal), ERR_NOT_FOUND);
}

static void fail_next(const struct fixture *fixture, unsigned kinds, int error)
{
    iotrap_fail(&(struct iotrap_fault){
        .prefix = fixture->tmpdir.path, .kinds = kinds, .nth = 1, .error = error});
}

/* A write that fails has appended nothing, whatever part of it was written; the next may succeed. A
 * write that is cut short is finished. */
static void test_failed_write(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        int error;
        enum err_code code;
    } cases[] = {{EIO, ERR_IO}, {ENOSPC, ERR_NO_SPACE}, {EDQUOT, ERR_NO_SPACE}};
    append(fixture, 0, true);
    for (size_t index = 0; index < sizeof cases / sizeof *cases; index++) {
        fail_next(fixture, IOTRAP_WRITE, cases[index].error);
        expect(try_append(fixture, 1), cases[index].code);
        assert_true(iotrap_fail_stop());
        assert_int_equal(journal_count(fixture->journal), 1);
        assert_false(journal_pending(fixture->journal));
    }
    fail_next(fixture, IOTRAP_WRITE, IOTRAP_SHORT);
    append(fixture, 1, true);
    assert_true(iotrap_fail_stop());
    reopen(fixture);
    expect_read(fixture, 2);
}

/* A flush that fails says so, and nothing is taken for flushed. */
static void test_failed_flush(void **state)
{
    struct fixture *fixture = *state;
    append(fixture, 0, false);
    fail_next(fixture, IOTRAP_FLUSH, EIO);
    expect(journal_flush(fixture->journal), ERR_IO);
    assert_true(iotrap_fail_stop());
    assert_true(journal_pending(fixture->journal));
}

/* Each write and flush of a creation fails once: there is no journal then, and no other file. */
static void test_failed_creation(void **state)
{
    struct fixture *fixture = *state;
    const struct journal_options options = options_of(fixture);
    struct journal *journal = NULL;
    assert_int_equal(unlink(fixture->path), 0);
    uint64_t nth = 1;
    for (;; nth++) {
        iotrap_fail(&(struct iotrap_fault){.prefix = fixture->tmpdir.path,
                                           .kinds = IOTRAP_WRITE | IOTRAP_FLUSH,
                                           .nth = nth,
                                           .error = ENOSPC});
        err_t err = journal_create(&options);
        if (!iotrap_fail_stop()) {
            must(err);
            break;
        }
        assert_int_equal(err_code(err), ERR_NO_SPACE);
        err_free(err);
    }
    assert_true(nth > 2);
    must(journal_open(&options, &journal));
    journal_close(journal);
}

/* The environment names a generation, or none. */
static void test_generation(void **state)
{
    (void)state;
    struct store *store;
    struct store_txn *txn;
    uint64_t generation = 1;
    must(memory_store_open(&store));
    must(store_begin(store, STORE_WRITE, &txn));
    must(journal_generation(txn, &generation));
    assert_int_equal(generation, 0);
    must(journal_put_generation(txn, UINT64_MAX));
    must(journal_generation(txn, &generation));
    assert_true(generation == UINT64_MAX);
    must(store_put(txn, STORE_META, span_text("journal"), span_text("other")));
    expect(journal_generation(txn, &generation), ERR_CORRUPT);
    store_abort(txn);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torn_tail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_one_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unflushed_gap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_laps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_creation, setup, teardown),
        cmocka_unit_test(test_generation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
