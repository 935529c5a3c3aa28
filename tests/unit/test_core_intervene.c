/* An operator's hand in the queues: redrive, purge, seek; and what can be seen: peek, statistics.
 * Each test ends with a check of every stored row (core_fixture_deinit). */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

#include "broker/core/state.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100, OTHER = 101, LEASE_MS = 30000 };

static struct core_fixture fixture;

/* Two shards, one subscription whose messages die at their first failure, and retention. */
static int setup(void **state)
{
    (void)state;
    const struct topic_settings retained = {.retention_ms = 3600000};
    const struct sub_settings fragile = {.lease_ms = LEASE_MS, .max_attempts = 1};
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, NULL);
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, &retained);
    core_fixture_sub(&fixture, SUB, TOPIC, &fragile);
    core_fixture_commit(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

static uint64_t redrive(struct redrive redrive)
{
    redrive.sub_id = SUB;
    struct command command = {.type = COMMAND_REDRIVE, .redrive = redrive};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    return fixture.reply.count;
}

static uint64_t purge(struct purge purge)
{
    purge.sub_id = SUB;
    struct command command = {.type = COMMAND_PURGE, .purge = purge};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    return fixture.reply.count;
}

static uint64_t seek(struct seek seek)
{
    seek.sub_id = SUB;
    struct command command = {.type = COMMAND_SEEK, .seek = seek};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    return fixture.reply.count;
}

static void expect_stats(uint64_t enqueued, uint64_t leased, uint64_t scheduled, uint64_t dead)
{
    struct sub_stats stats = core_fixture_stats(&fixture, SUB);
    assert_int_equal(stats.enqueued, enqueued);
    assert_int_equal(stats.leased, leased);
    assert_int_equal(stats.scheduled, scheduled);
    assert_int_equal(stats.dead, dead);
}

/* Publishes to both shards and lets all of it die; every third message was refused for good. */
static void make_dead(uint32_t each)
{
    core_fixture_fill(&fixture, TOPIC, SHARD, each);
    core_fixture_fill(&fixture, TOPIC, SHARD + 1, each);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 2 * each), 2 * each);
    struct receipt *receipts = calloc(2 * each, sizeof *receipts);
    uint32_t count = 0;
    for (uint32_t index = 0; index < 2 * each; index += 3) {
        receipts[count++] = core_fixture_receipt(&fixture, SUB, index);
    }
    struct command command = {.type = COMMAND_NACK,
                              .settle = {.sub_id = SUB,
                                         .receipts = receipts,
                                         .count = count,
                                         .results = fixture.results,
                                         .reject = true,
                                         .note = span_text("no")}};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    free(receipts);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_stats(0, 0, 0, 2 * each);
}

/* ---- redrive -------------------------------------------------------------------------------- */

/* A redriven message is delivered again with all its attempts, in its place in the order. */
static void redriven_is_as_new(void **state)
{
    (void)state;
    make_dead(3);
    assert_int_equal(redrive((struct redrive){.max = 100}), 6);
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    expect_stats(0, 0, 6, 0);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 100), 6);
    for (uint32_t index = 0; index < 6; index++) {
        const struct delivery *delivery = reply_delivery(&fixture.reply, index);
        assert_int_equal(delivery->attempt, 1);
        assert_int_equal(delivery->sequence, index % 3);
        assert_int_equal(delivery->reason, DEAD_NONE);
    }
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 6);
}

/* Redrive concerns only what it names: a reason, a shard, one sequence, so many; a dry run counts
 * and changes nothing. */
static void redrive_selects(void **state)
{
    (void)state;
    make_dead(300); /* in more than one chunk */
    assert_int_equal(
        redrive((struct redrive){.max = 1000, .reason = DEAD_REJECTED, .dry_run = true}), 200);
    assert_int_equal(redrive((struct redrive){.max = 1000, .reason = DEAD_EXPIRED}), 0);
    assert_int_equal(redrive((struct redrive){.max = 1000, .shard_id = SHARD, .dry_run = true}),
                     300);
    expect_stats(0, 0, 0, 600);
    const struct redrive one = {
        .max = 10, .shard_id = SHARD, .has_sequence = true, .sequence = 299};
    assert_int_equal(redrive(one), 1);
    assert_int_equal(redrive(one), 0);
    assert_int_equal(redrive((struct redrive){.max = 7}), 7);
    assert_true(fixture.reply.more);
    assert_int_equal(redrive((struct redrive){.max = 592}), 592);
    assert_false(fixture.reply.more);
    expect_stats(0, 0, 600, 0);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 600);
}

/* ---- purge ---------------------------------------------------------------------------------- */

/* Purge drops what it names and nothing else: enqueued, in delivery, dead. */
static void purge_selects(void **state)
{
    (void)state;
    make_dead(5);
    core_fixture_fill(&fixture, TOPIC, SHARD, 20);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 8), 8);
    const struct receipt lost = core_fixture_receipt(&fixture, SUB, 0);
    expect_stats(12, 8, 0, 10);
    assert_int_equal(purge((struct purge){0}), 0);
    assert_int_equal(purge((struct purge){.enqueued = true}), 12);
    expect_stats(0, 8, 0, 10);
    assert_int_equal(purge((struct purge){.dead = true}), 10);
    expect_stats(0, 8, 0, 0);
    assert_int_equal(purge((struct purge){.delivery = true}), 8);
    expect_stats(0, 0, 0, 0);
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &lost, 1), 0);
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    core_fixture_fill(&fixture, TOPIC, SHARD, 2);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 2);
}

/* A purge of many messages is one command; what it skipped is given up in steps, crashes between
 * them included, and the other subscription keeps all of it. */
static void purge_of_many(void **state)
{
    (void)state;
    enum { COUNT = 5 * CHUNK_SIZE + 7 };
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, NULL); /* no retention */
    core_fixture_sub(&fixture, OTHER, TOPIC, NULL);
    core_fixture_fill(&fixture, TOPIC, SHARD, COUNT);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 3), 3);
    assert_int_equal(purge((struct purge){.enqueued = true}), COUNT - 3);
    core_fixture_commit(&fixture);
    for (uint32_t round = 0; round < 10; round++) {
        struct command tick = {.type = COMMAND_TICK, .tick = {.budget = 1}};
        core_fixture_apply(&fixture, &tick, ERR_NONE);
        core_fixture_commit(&fixture);
        core_fixture_restart(&fixture);
    }
    assert_int_equal(core_fixture_entries(&fixture, STORE_SWEEP), 0);
    assert_int_equal(core_fixture_drain(&fixture, OTHER), COUNT);
    expect_stats(0, 3, 0, 0);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_stats(0, 0, 0, 3);
}

/* ---- seek ----------------------------------------------------------------------------------- */

/* Back to the earliest: everything retention kept is enqueued again, whatever its state was. */
static void seek_back(void **state)
{
    (void)state;
    make_dead(2);
    core_fixture_fill(&fixture, TOPIC, SHARD, 2 * CHUNK_SIZE);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 100), 100);
    struct receipt held = core_fixture_receipt(&fixture, SUB, 0);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 100), 100);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 100);
    assert_int_equal(seek((struct seek){.to = START_EARLIEST, .dry_run = true}), 204);
    expect_stats(2 * CHUNK_SIZE - 200, 100, 0, 4);
    assert_int_equal(seek((struct seek){.to = START_EARLIEST}), 204);
    expect_stats(2 * CHUNK_SIZE + 4, 0, 0, 0);
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &held, 1), 0);
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->sequence, 0);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->attempt, 1);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 1);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 2 * CHUNK_SIZE + 3);
}

/* A receipt from before a seek back is refused even when the same message is leased again. */
static void seek_back_fences_receipts(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    const struct receipt old = core_fixture_receipt(&fixture, SUB, 0);
    seek((struct seek){.to = START_EARLIEST});
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &old, 1), 0);
    expect_stats(0, 1, 0, 0);
}

/* The cursor goes where seek names: a sequence, a time, an end; never before what is still there
 * and never beyond the shard's end. */
static void seek_targets(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 10);
    fixture.now_ms += 50;
    core_fixture_fill(&fixture, TOPIC, SHARD, 10);
    static const struct {
        enum start_at to;
        uint64_t value;
        uint64_t enqueued;
    } cases[] = {
        {START_SEQUENCE, 5, 15},
        {START_SEQUENCE, 0, 20},
        {START_SEQUENCE, 19, 1},
        {START_SEQUENCE, 20, 0},
        {START_SEQUENCE, UINT64_MAX, 0},
        {START_TIME, CORE_FIXTURE_START_MS + 50, 10},
        {START_TIME, CORE_FIXTURE_START_MS + 51, 0},
        {START_TIME, CORE_FIXTURE_START_MS, 20},
        {START_TIME, UINT64_MAX, 0},
        {START_EARLIEST, 0, 20},
        {START_LATEST, 0, 0},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        seek((struct seek){.shard_id = SHARD, .to = cases[index].to, .value = cases[index].value});
        expect_stats(cases[index].enqueued, 0, 0, 0);
    }
    /* Nothing older than retention keeps comes back. */
    core_fixture_advance(&fixture, 3600000 - 50);
    seek((struct seek){.to = START_SEQUENCE, .value = 0});
    expect_stats(10, 0, 0, 0);
}

/* Without retention and other readers, what is finished is gone: a seek back finds only what this
 * subscription had not finished up to its cursor. */
static void seek_back_without_retention(void **state)
{
    (void)state;
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, NULL);
    core_fixture_fill(&fixture, TOPIC, SHARD, 10);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 6), 6);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 6);
    seek((struct seek){.to = START_EARLIEST});
    expect_stats(4, 0, 0, 0);
    /* Another subscription's backlog is still there for this one. */
    core_fixture_sub(&fixture, OTHER, TOPIC, NULL);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 4);
    seek((struct seek){.to = START_EARLIEST});
    expect_stats(4, 0, 0, 0);
    assert_int_equal(core_fixture_drain(&fixture, OTHER), 4);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 4);
}

/* Forward and back over what has been leased: at every step each message has one state, and a
 * restart finds the same. */
static void seek_to_and_fro(void **state)
{
    (void)state;
    static const uint64_t targets[] = {0, 300, 10, 700, 256, 255, 257, 0, 512, 1, 770, 600};
    core_fixture_fill(&fixture, TOPIC, SHARD, 3 * CHUNK_SIZE);
    for (size_t index = 0; index < sizeof targets / sizeof targets[0]; index++) {
        core_fixture_pull(&fixture, SUB, 40);
        if (index % 3 == 0) {
            core_fixture_ack_all(&fixture, SUB);
        }
        seek((struct seek){.shard_id = SHARD, .to = START_SEQUENCE, .value = targets[index]});
        core_fixture_commit(&fixture);
        core_fixture_restart(&fixture);
        uint64_t target = targets[index] < 768 ? targets[index] : 768;
        assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 768 - target);
        core_fixture_advance(&fixture, index % 2 == 0 ? 0 : 20000);
    }
    assert_int_equal(core_fixture_drain(&fixture, SUB), 3 * CHUNK_SIZE - 600);
}

/* ---- peek, statistics ----------------------------------------------------------------------- */

static struct peek peek_of(enum message_state state, uint32_t max)
{
    return (struct peek){.sub_id = SUB, .state = state, .max = max, .size_max = UINT32_MAX};
}

/* Each state is listed by itself, page by page, and looking changes nothing. */
static void peek_pages(void **state)
{
    (void)state;
    make_dead(150);
    core_fixture_fill(&fixture, TOPIC, SHARD, 400);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 100), 100);
    core_fixture_commit(&fixture);
    static const struct {
        enum message_state state;
        uint32_t expected;
    } cases[] = {
        {MESSAGE_NONE, 300}, {MESSAGE_LEASED, 100}, {MESSAGE_SCHEDULED, 0}, {MESSAGE_DEAD, 300}};
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        for (uint32_t max = 1; max <= 301; max += 60) {
            struct command command = {.type = COMMAND_PEEK,
                                      .peek = peek_of(cases[index].state, max)};
            uint32_t total = 0;
            do {
                core_fixture_apply(&fixture, &command, ERR_NONE);
                uint32_t count = reply_delivery_count(&fixture.reply);
                assert_true(count <= max);
                total += count;
                for (uint32_t row = 0; row < count; row++) {
                    assert_int_equal(reply_delivery(&fixture.reply, row)->state,
                                     cases[index].state);
                }
                command.peek.from_shard_id = fixture.reply.next_shard_id;
                command.peek.from_sequence = fixture.reply.next_sequence;
            } while (fixture.reply.more);
            assert_int_equal(total, cases[index].expected);
        }
    }
    assert_false(fixture.machine->ops->dirty(fixture.machine));
    expect_stats(300, 100, 0, 300);
}

/* A peek looks at a bounded number of messages in delivery and says where to go on, though it found
 * none. */
static void peek_is_bounded(void **state)
{
    (void)state;
    enum { CHUNKS = 258 };
    for (uint32_t number = 0; number < CHUNKS; number++) {
        core_fixture_fill(&fixture, TOPIC, SHARD, CHUNK_SIZE);
        assert_int_equal(core_fixture_pull(&fixture, SUB, CHUNK_SIZE), CHUNK_SIZE);
        core_fixture_commit(&fixture);
    }
    struct command command = {.type = COMMAND_PEEK, .peek = peek_of(MESSAGE_SCHEDULED, 10)};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    assert_int_equal(reply_delivery_count(&fixture.reply), 0);
    assert_true(fixture.reply.more);
    assert_int_equal(fixture.reply.next_sequence, 256 * CHUNK_SIZE);
    command.peek.from_shard_id = fixture.reply.next_shard_id;
    command.peek.from_sequence = fixture.reply.next_sequence;
    core_fixture_apply(&fixture, &command, ERR_NONE);
    assert_false(fixture.reply.more);
}

/* A page holds at most size_max bytes, but at least one message. */
static void peek_size(void **state)
{
    (void)state;
    for (int index = 0; index < 5; index++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, 1000);
    }
    static const uint32_t sizes[] = {0, 999, 1000, 1999, 2000, 5000};
    static const uint32_t expected[] = {1, 1, 1, 1, 2, 5};
    for (size_t index = 0; index < 6; index++) {
        struct command command = {.type = COMMAND_PEEK, .peek = peek_of(MESSAGE_NONE, 10)};
        command.peek.size_max = sizes[index];
        core_fixture_apply(&fixture, &command, ERR_NONE);
        assert_int_equal(reply_delivery_count(&fixture.reply), expected[index]);
        assert_int_equal(fixture.reply.more, expected[index] < 5);
    }
}

/* The oldest age is that of the first message neither finished nor dead. */
static void oldest_unfinished(void **state)
{
    (void)state;
    assert_int_equal(core_fixture_stats(&fixture, SUB).oldest_ms, 0);
    make_dead(1);
    assert_int_equal(core_fixture_stats(&fixture, SUB).oldest_ms, 0);
    uint64_t first_ms = fixture.now_ms;
    core_fixture_fill(&fixture, TOPIC, SHARD + 1, 1);
    fixture.now_ms += 7;
    core_fixture_fill(&fixture, TOPIC, SHARD + 1, 1);
    assert_int_equal(core_fixture_stats(&fixture, SUB).oldest_ms, first_ms);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    assert_int_equal(core_fixture_stats(&fixture, SUB).oldest_ms, first_ms);
    struct receipt receipt = {0};
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    receipt = core_fixture_receipt(&fixture, SUB, 0);
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &receipt, 1), 1);
    assert_int_equal(core_fixture_stats(&fixture, SUB).oldest_ms, first_ms);
    core_fixture_advance(&fixture, LEASE_MS);
    assert_int_equal(core_fixture_stats(&fixture, SUB).oldest_ms, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(redriven_is_as_new), TEST(redrive_selects),
        TEST(purge_selects),      TEST(purge_of_many),
        TEST(seek_back),          TEST(seek_back_fences_receipts),
        TEST(seek_targets),       TEST(seek_back_without_retention),
        TEST(seek_to_and_fro),    TEST(peek_pages),
        TEST(peek_is_bounded),    TEST(peek_size),
        TEST(oldest_unfinished),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
