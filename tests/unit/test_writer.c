#define _GNU_SOURCE
#include "broker/volume/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "broker/base/bytes.h"
#include "broker/core/state.h"
#include "storage/memory.h"
#include "tests/crash/iotrap.c" /* NOLINT(bugprone-suspicious-include): it must be in the program */
#include "tests/lib/core_fixture.h"
#include "tests/lib/must.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100 };

static struct core_fixture fixture;
static struct tmpdir tmpdir;

static void expect(err_t err, enum err_code code)
{
    assert_int_equal(err_code(err), code);
    err_free(err);
}

static struct writer *writer(void)
{
    return fixture.writer;
}

static uint64_t commits(void)
{
    struct store_stats stats;
    store_stats(fixture.store, &stats);
    return stats.commit_count;
}

static uint64_t records(void)
{
    return journal_count(writer()->journal);
}

static int setup(void **state)
{
    char path[TMPDIR_PATH_SIZE];
    (void)state;
    tmpdir_init(&tmpdir);
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, NULL);
    core_fixture_journal(&fixture, tmpdir_file(&tmpdir, "journal", path));
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    core_fixture_commit(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    tmpdir_deinit(&tmpdir);
    return 0;
}

static void publish(uint32_t count)
{
    core_fixture_fill(&fixture, TOPIC, SHARD, count);
    core_fixture_commit(&fixture);
}

static void pull_and_ack(uint32_t count)
{
    assert_int_equal(core_fixture_pull(&fixture, SUB, count), count);
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), count);
    core_fixture_commit(&fixture);
}

/* Batches go to the journal, not to the store, and are there after a crash, commit or not. */
static void test_batches_outlive_a_crash(void **state)
{
    (void)state;
    uint64_t before = commits();
    publish(10);
    pull_and_ack(4);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 2), 2);
    core_fixture_commit(&fixture);
    struct receipt leased = core_fixture_receipt(&fixture, SUB, 0);
    assert_int_equal(commits(), before);
    assert_true(records() > 0);
    for (int crash = 0; crash < 3; crash++) {
        core_fixture_restart(&fixture);
        struct sub_stats stats = core_fixture_stats(&fixture, SUB);
        assert_int_equal(stats.cursor, 6);
        assert_int_equal(stats.enqueued, 4);
        assert_int_equal(stats.leased, 2);
        core_fixture_commit(&fixture);
    }
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &leased, 1), 1);
}

/* What is applied and not ended is lost with the process. */
static void test_open_batch_is_lost(void **state)
{
    (void)state;
    publish(3);
    core_fixture_fill(&fixture, TOPIC, SHARD, 5);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 3);
}

/* A batch that changes nothing leaves no record, asks for no flush and keeps no transaction. */
static void test_nothing_is_written_for_nothing(void **state)
{
    (void)state;
    assert_int_equal(core_fixture_pull(&fixture, SUB, 5), 0);
    (void)core_fixture_stats(&fixture, SUB);
    must(writer_append(writer()));
    assert_false(writer_pending(writer()));
    core_fixture_commit(&fixture);
    assert_int_equal(records(), 0);
    assert_false(writer_uncommitted(writer()));
}

/* What configures is committed, and with it what the journal held. */
static void test_configuration_is_committed(void **state)
{
    (void)state;
    publish(3);
    uint64_t before = commits();
    core_fixture_sub(&fixture, SUB + 1, TOPIC, NULL);
    core_fixture_commit(&fixture);
    assert_int_equal(commits(), before + 1);
    assert_int_equal(records(), 0);
    assert_false(writer_uncommitted(writer()));
    publish(1);
    assert_int_equal(records(), 1);
}

/* A batch whose record is large is committed; so is one that the journal has no room for. Either
 * way the journal begins anew. */
static void test_large_batches_are_committed(void **state)
{
    (void)state;
    publish(1);
    uint64_t before = commits();
    core_fixture_publish_sized(&fixture, TOPIC, SHARD, 300 * 1024);
    core_fixture_commit(&fixture);
    assert_int_equal(commits(), before + 1);
    assert_int_equal(records(), 0);
    core_fixture_publish_sized(&fixture, TOPIC, SHARD, 4 * JOURNAL_RECORD_MAX);
    core_fixture_commit(&fixture);
    assert_int_equal(commits(), before + 2);
    assert_true(writer()->record->capacity < 2 * JOURNAL_RECORD_MAX); /* it was not put there */
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 3);
    writer()->checkpoint_size = UINT64_MAX; /* nothing else commits */
    before = commits();
    for (uint32_t count = 0; commits() == before; count++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, 100 * 1024);
        must(writer_append(writer()));
        must(writer_flush(writer()));
        writer_end(writer());
        fixture.in_batch = false;
        assert_true(count < 10);
    }
    assert_int_equal(records(), 0);
}

/* A checkpoint is wanted when so much is in the journal, and leaves it empty. */
static void test_checkpoints(void **state)
{
    (void)state;
    uint64_t before = commits();
    for (uint32_t count = 0; commits() == before; count++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, 20 * 1024);
        core_fixture_commit(&fixture);
        assert_true(count < 30);
    }
    assert_int_equal(records(), 0);
    publish(1);
    must(writer_checkpoint(writer()));
    assert_int_equal(commits(), before + 2);
    must(writer_checkpoint(writer()));
    assert_int_equal(commits(), before + 2);
    core_fixture_restart(&fixture);
    assert_true(core_fixture_stats(&fixture, SUB).enqueued > 3);
}

/* A commit between batches that finds no room loses nothing: it is tried again later, a crash in
 * between included. */
static void test_checkpoint_without_room(void **state)
{
    (void)state;
    publish(7);
    memory_store_fail_commits(fixture.store, ERR_NO_SPACE);
    expect(writer_checkpoint(writer()), ERR_NO_SPACE);
    assert_false(writer()->failed);
    assert_true(writer_uncommitted(writer()));
    pull_and_ack(2);
    core_fixture_restart(&fixture); /* nor has the start any room */
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 5);
    core_fixture_commit(&fixture);
    pull_and_ack(1);
    memory_store_fail_commits(fixture.store, ERR_NONE);
    must(writer_checkpoint(writer()));
    assert_int_equal(records(), 0);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 4);
}

/* The map grows as often as a commit needs. */
static void test_checkpoint_grows_the_map(void **state)
{
    (void)state;
    publish(2);
    memory_store_fail_commits(fixture.store, ERR_MAP_FULL);
    expect(writer_checkpoint(writer()), ERR_MAP_FULL); /* memory has none that would help */
    memory_store_fail_commits(fixture.store, ERR_NONE);
    must(writer_checkpoint(writer()));
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 2);
}

/* A commit that fails for another reason ends it: nothing is written any more. */
static void test_failed_commit(void **state)
{
    (void)state;
    publish(2);
    memory_store_fail_commits(fixture.store, ERR_IO);
    expect(writer_checkpoint(writer()), ERR_IO);
    assert_true(writer()->failed);
    memory_store_fail_commits(fixture.store, ERR_NONE);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 2);
}

/* Whichever call of the store fails within a batch: it alone is undone. */
static void test_lost_transaction(void **state)
{
    (void)state;
    publish(5);
    pull_and_ack(1);
    must(writer_checkpoint(writer()));
    core_fixture_restart(&fixture); /* nothing is in memory */
    for (uint64_t nth = 1;; nth++) {
        memory_store_fail_call(fixture.store, nth);
        uint32_t pulled = 0;
        struct command pull = {.type = COMMAND_PULL,
                               .pull = {.sub_id = SUB, .max = 1, .size_max = 1024}};
        err_t err = core_fixture_try(&fixture, &pull);
        if (err == NULL) {
            pulled = reply_delivery_count(&fixture.reply);
            memory_store_fail_call(fixture.store, 0);
            assert_int_equal(pulled, 1);
            assert_true(nth > 1);
            break;
        }
        assert_int_equal(err_code(err), ERR_IO);
        err_free(err);
        must(core_fixture_try_reload(&fixture));
        struct sub_stats stats = core_fixture_stats(&fixture, SUB);
        assert_int_equal(stats.enqueued, 4);
        assert_int_equal(stats.leased, 0);
        core_fixture_commit(&fixture);
    }
}

/* A pull gives a message early only when its publish is flushed; the flush of a later batch covers
 * earlier ones. */
static void test_early(void **state)
{
    (void)state;
    fixture.relaxed = true;
    publish(1);
    assert_true(journal_pending(writer()->journal));
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    assert_false(fixture.reply.early);
    fixture.relaxed = false;
    core_fixture_commit(&fixture);
    publish(1);
    fixture.relaxed = true;
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    assert_true(fixture.reply.early);
    core_fixture_commit(&fixture);
    fixture.relaxed = false;
}

static void fail_next(unsigned kinds, int error)
{
    iotrap_fail(
        &(struct iotrap_fault){.prefix = tmpdir.path, .kinds = kinds, .nth = 1, .error = error});
}

/* A journal that cannot be written or flushed ends it; one whose file system has no room does not:
 * the batch is committed. */
static void test_failed_journal(void **state)
{
    (void)state;
    publish(1);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    fail_next(IOTRAP_WRITE, ENOSPC);
    must(writer_append(writer()));
    assert_true(iotrap_fail_stop());
    assert_true(writer_is_direct(writer()));
    core_fixture_commit(&fixture);
    assert_int_equal(records(), 0);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    fail_next(IOTRAP_FLUSH, EIO);
    expect(core_fixture_try_commit(&fixture), ERR_IO);
    assert_true(iotrap_fail_stop());
    assert_true(writer()->failed);
    core_fixture_restart(&fixture);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    fail_next(IOTRAP_WRITE, EIO);
    expect(core_fixture_try_commit(&fixture), ERR_IO);
    assert_true(iotrap_fail_stop());
    assert_true(writer()->failed);
    core_fixture_restart(&fixture);
    assert_in_range(core_fixture_stats(&fixture, SUB).enqueued, 2, 4);
}

/* A command that meets damage only when it is applied again is left out; those around it are not.
 */
static void test_damage_on_the_way_back(void **state)
{
    (void)state;
    struct store_txn *txn = NULL;
    uint8_t key[16];
    publish(4);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 2), 2);
    core_fixture_commit(&fixture);
    must(writer_checkpoint(writer()));
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 2);
    core_fixture_commit(&fixture);
    publish(3);
    writer_drop(writer());
    bytes_put_be32(key, SUB);
    bytes_put_be32(key + 4, SHARD);
    bytes_put_be64(key + 8, 0);
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    must(store_put(txn, STORE_DELIVERY, span_of(key, sizeof key), span_text("damaged")));
    must(store_commit(txn));
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 5);
    fixture.unchecked = true;
}

static void damage_segment(uint32_t number, uint8_t version, uint32_t live)
{
    struct store_txn *txn = NULL;
    uint8_t key[4];
    uint8_t value[24] = {version, 1};
    bytes_put_be32(key, number);
    bytes_put_le32(value + 4, CHUNK_SIZE);
    bytes_put_le32(value + 8, live);
    bytes_put_le32(value + 12, 1);
    writer_drop(writer());
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    must(store_put(txn, STORE_SEGMENT, span_of(key, sizeof key), span_of(value, sizeof value)));
    must(store_commit(txn));
    core_fixture_restart(&fixture);
}

/* A message of a log segment whose record is damaged, or counts too few, is finished like any
 * other: not even the commit, which is where the segment would learn of it, fails. */
static void test_damaged_segment(void **state)
{
    (void)state;
    fixture.unchecked = true;
    fixture.options.segment_entries = CHUNK_SIZE;
    core_fixture_restart(&fixture);
    for (int segment = 0; segment < 2; segment++) {
        publish(CHUNK_SIZE);
        must(writer_checkpoint(writer()));
    }
    for (int damage = 0; damage < 2; damage++) {
        damage_segment(1, damage == 0 ? 99 : 1, 0);
        pull_and_ack(2);
        assert_true(writer_uncommitted(writer()));
        must(writer_checkpoint(writer()));
        pull_and_ack(1);
        core_fixture_restart(&fixture);
        fixture.effects.corrupt = 0;
        pull_and_ack(1);
        must(writer_checkpoint(writer()));
        (void)core_fixture_stats(&fixture, SUB);
        assert_true(fixture.effects.corrupt > 0);
        core_fixture_restart(&fixture);
        assert_int_equal(core_fixture_stats(&fixture, SUB).cursor, (damage + 1) * 4);
    }
    assert_int_equal(core_fixture_drain(&fixture, SUB), 2 * CHUNK_SIZE - 8);
}

/* Of an environment that has never had a journal and has no room for the commit that names its
 * first generation, nothing is journaled. */
static void test_no_room_for_the_first_generation(void **state)
{
    (void)state;
    char path[TMPDIR_PATH_SIZE];
    struct core_fixture fresh;
    core_fixture_init(&fresh, CORE_FIXTURE_MEMORY, NULL);
    memory_store_fail_commits(fresh.store, ERR_NO_SPACE);
    core_fixture_journal(&fresh, tmpdir_file(&tmpdir, "other", path));
    assert_null(fresh.writer->journal);
    memory_store_fail_commits(fresh.store, ERR_NONE);
    core_fixture_topic(&fresh, TOPIC, SHARD, 1, NULL);
    core_fixture_commit(&fresh);
    assert_false(writer_uncommitted(fresh.writer));
    core_fixture_deinit(&fresh);
}

/* Nor is it gone on without a journal for another reason, whichever call of the store it is. */
static void test_failed_first_generation(void **state)
{
    (void)state;
    char path[TMPDIR_PATH_SIZE];
    struct journal *journal = NULL;
    const struct journal_options options = {.path = tmpdir_file(&tmpdir, "other", path),
                                            .size = JOURNAL_SIZE_MIN};
    must(journal_create(&options));
    must(journal_open(&options, &journal));
    bool opened = false;
    for (uint64_t nth = 1; !opened; nth++) {
        struct core_fixture fresh;
        struct writer other;
        core_fixture_init(&fresh, CORE_FIXTURE_MEMORY, NULL);
        writer_init(&other, fresh.store, fresh.machine, journal,
                    &(struct writer_options){.name = "other"});
        memory_store_fail_call(fresh.store, nth);
        err_t err = writer_open(&other);
        memory_store_fail_call(fresh.store, 0);
        opened = err == NULL;
        assert_true(opened ? other.journal != NULL : err_code(err) == ERR_IO);
        err_free(err);
        writer_deinit(&other);
        core_fixture_deinit(&fresh);
    }
    journal_close(journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_batches_outlive_a_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_batch_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_written_for_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_configuration_is_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_batches_are_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checkpoints, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checkpoint_without_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checkpoint_grows_the_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_transaction, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_journal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_on_the_way_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_segment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_for_the_first_generation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_first_generation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
