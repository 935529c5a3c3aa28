/* What lies in the store under the queues: recovery of the log's tail, when messages are given up,
 * segments that go, retention, and that nothing is left of what is dropped. Each test ends with a
 * check of every stored row (core_fixture_deinit). */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

#include "broker/core/state.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100, OTHER = 101, LEASE_MS = 30000, KIBIBYTE = 1024 };

static struct core_fixture fixture;

static int setup_on(enum core_fixture_body body, const struct core_options *options)
{
    core_fixture_init(&fixture, body, options);
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    core_fixture_commit(&fixture);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_on(CORE_FIXTURE_MEMORY, NULL);
}

static int setup_lmdb(void **state)
{
    (void)state;
    return setup_on(CORE_FIXTURE_LMDB, NULL);
}

/* Few of everything in memory, so that all of it goes and comes back. */
static int setup_small_caches(void **state)
{
    (void)state;
    return setup_on(
        CORE_FIXTURE_MEMORY,
        &(struct core_options){.replay_bytes = 4 * KIBIBYTE, .chunks_max = 1, .blocks_max = 1});
}

/* Small segments and no room for waste, so that cleaning begins early. */
static int setup_tidy(void **state)
{
    (void)state;
    return setup_on(CORE_FIXTURE_MEMORY,
                    &(struct core_options){.slack_size = 64 * KIBIBYTE, .segment_entries = 64});
}

static int setup_tidy_lmdb(void **state)
{
    (void)state;
    return setup_on(CORE_FIXTURE_LMDB,
                    &(struct core_options){.slack_size = 64 * KIBIBYTE, .segment_entries = 64});
}

/* A segment for each commit. */
static int setup_lonely(void **state)
{
    (void)state;
    return setup_on(CORE_FIXTURE_MEMORY,
                    &(struct core_options){.segment_entries = 1, .blocks_max = 1});
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

static void retain(uint64_t ms, uint64_t bytes)
{
    const struct topic_settings settings = {.retention_ms = ms, .retention_bytes = bytes};
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, &settings);
    core_fixture_commit(&fixture);
}

static void drop_sub(uint32_t sub_id)
{
    struct command command = {.type = COMMAND_SUB_DROP, .sub_drop = sub_id};
    core_fixture_apply(&fixture, &command, ERR_NONE);
}

static void drop_topic(uint32_t topic_id)
{
    struct command command = {.type = COMMAND_TOPIC_DROP, .topic_drop = topic_id};
    core_fixture_apply(&fixture, &command, ERR_NONE);
}

static void expect_rows(enum store_table table, uint64_t rows)
{
    assert_int_equal(core_fixture_entries(&fixture, table), rows);
}

/* Nothing is stored but the volume's own record and the segment being written. */
static void expect_empty_store(void)
{
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        if (table != STORE_META && table != STORE_SEGMENT && table != STORE_LOG &&
            table != STORE_GC) {
            expect_rows((enum store_table)table, 0);
        }
    }
}

/* ---- restart -------------------------------------------------------------------------------- */

/* A step of a session; each may be the last thing before a crash. */
static void step(uint32_t number)
{
    static const uint32_t sizes[] = {10, 100, 0, 300, 40, 5};
    struct receipt receipt;
    switch (number % 8) {
    case 0:
    case 1:
    case 2:
        for (uint32_t index = 0; index < 90; index++) {
            core_fixture_publish_sized(&fixture, TOPIC, SHARD + index % 2, sizes[index % 6]);
        }
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, 70000);
        return;
    case 3:
    case 4:
        core_fixture_pull(&fixture, number % 2 == 0 ? SUB : OTHER, 100);
        return;
    case 5:
        core_fixture_pull(&fixture, SUB, 40);
        core_fixture_ack_all(&fixture, SUB);
        return;
    case 6:
        if (core_fixture_pull(&fixture, OTHER, 3) > 0) {
            receipt = core_fixture_receipt(&fixture, OTHER, 0);
            core_fixture_settle(&fixture, COMMAND_NACK, &receipt, 1);
        }
        return;
    default:
        core_fixture_advance(&fixture, 11000);
    }
}

/* After a crash at any point the broker looks from outside as it did at the last commit. */
static void restart_at_every_point(void **state)
{
    (void)state;
    static const uint32_t subs[] = {SUB, OTHER};
    const struct sub_settings few = {
        .lease_ms = LEASE_MS, .retry_delay_ms = 100, .max_attempts = 2};
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, NULL);
    core_fixture_sub(&fixture, OTHER, TOPIC, &few);
    core_fixture_commit(&fixture);
    for (uint32_t number = 0; number < 32; number++) {
        struct buf before;
        struct buf after;
        step(number);
        core_fixture_commit(&fixture);
        core_fixture_picture(&fixture, subs, 2, &before);
        step(number + 1); /* not committed, unless it is the clock that moves */
        if (number % 8 == 6) {
            buf_deinit(&before);
            core_fixture_picture(&fixture, subs, 2, &before);
        }
        core_fixture_restart(&fixture);
        core_fixture_picture(&fixture, subs, 2, &after);
        assert_string_equal(before.data, after.data);
        buf_deinit(&before);
        buf_deinit(&after);
    }
}

/* The end of a shard's index that is not stored comes back from the log: positions, the next
 * sequence, and what retention counts. */
static void tail_comes_back_from_the_log(void **state)
{
    (void)state;
    retain(0, KIBIBYTE * KIBIBYTE);
    core_fixture_fill(&fixture, TOPIC, SHARD, CHUNK_SIZE + 17);
    core_fixture_commit(&fixture);
    expect_rows(STORE_INDEX, 1); /* the full block only */
    core_fixture_restart(&fixture);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    assert_int_equal(fixture.published.sequence, CHUNK_SIZE + 17);
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_drain(&fixture, SUB), CHUNK_SIZE + 18);
}

/* What is read again at start is bounded: an unfinished block is stored once the log has grown by
 * replay_bytes since. */
static void tail_is_stored_when_the_log_moves_on(void **state)
{
    (void)state;
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, NULL);
    core_fixture_fill(&fixture, TOPIC, SHARD, 3);
    core_fixture_commit(&fixture);
    expect_rows(STORE_INDEX, 0);
    for (uint32_t round = 0; round < 8; round++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD + 1, KIBIBYTE);
        core_fixture_commit(&fixture);
    }
    expect_rows(STORE_INDEX, 2); /* the quiet shard's, and by now the busy one's */
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 11);
}

/* An idle volume stores what is left of its index, so that dead segments before it can go. */
static void idle_volume_gives_space_back(void **state)
{
    (void)state;
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, NULL);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1); /* holds the checkpoint back */
    core_fixture_commit(&fixture);
    for (uint32_t round = 0; round < 24; round++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD + 1, 200 * KIBIBYTE);
    }
    core_fixture_commit(&fixture);
    assert_true(core_fixture_entries(&fixture, STORE_SEGMENT) > 3);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 25);
    core_fixture_commit(&fixture);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_SEGMENT, 1);
}

/* ---- giving up ------------------------------------------------------------------------------ */

/* A shard that goes takes along a block that was stored unfinished, and has been filled since. */
static void dropped_shard_leaves_no_block(void **state)
{
    (void)state;
    core_fixture_topic(&fixture, OTHER, OTHER, 1, NULL);
    core_fixture_fill(&fixture, OTHER, OTHER, CHUNK_SIZE - 1);
    core_fixture_commit(&fixture);
    for (uint32_t round = 0; round < 8; round++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, KIBIBYTE);
        core_fixture_commit(&fixture);
    }
    expect_rows(STORE_INDEX, 2);
    core_fixture_fill(&fixture, OTHER, OTHER, 2);
    drop_topic(OTHER);
    struct command tick = {.type = COMMAND_TICK, .tick = {.budget = 1000}};
    core_fixture_apply(&fixture, &tick, ERR_NONE); /* before a flush has looked at it */
    drop_sub(SUB);
    drop_topic(TOPIC);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_empty_store();
}

/* A message is kept until the last subscription that needs it has finished it. */
static void two_subscriptions(void **state)
{
    (void)state;
    core_fixture_sub(&fixture, OTHER, TOPIC, NULL);
    for (uint32_t round = 0; round < 12; round++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, 200 * KIBIBYTE);
    }
    core_fixture_commit(&fixture);
    uint64_t segments = core_fixture_entries(&fixture, STORE_SEGMENT);
    assert_true(segments >= 2);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 12);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_SEGMENT, segments);
    assert_int_equal(core_fixture_drain(&fixture, OTHER), 12);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_SEGMENT, 1);
}

/* Without subscription and retention a message is wanted by nobody and its segment goes. */
static void wanted_by_nobody(void **state)
{
    (void)state;
    drop_sub(SUB);
    core_fixture_advance(&fixture, 0);
    for (uint32_t round = 0; round < 2000; round++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, 2 * KIBIBYTE);
    }
    core_fixture_commit(&fixture);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_SEGMENT, 1);
    assert_true(core_fixture_entries(&fixture, STORE_INDEX) <= 1);
}

/* Messages that nobody finishes stay readable when the segments around them are rewritten, and the
 * log's size follows what is needed. */
static void sparse_segments_are_rewritten(void **state)
{
    (void)state;
    enum { ROUNDS = 50, EACH = 100, STRAGGLERS = ROUNDS };
    static struct receipt kept[STRAGGLERS];
    static uint8_t first_byte[STRAGGLERS];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t index = 0; index < EACH; index++) {
            core_fixture_publish_sized(&fixture, TOPIC, SHARD, KIBIBYTE + round);
        }
        assert_int_equal(core_fixture_pull(&fixture, SUB, EACH), EACH);
        kept[round] = core_fixture_receipt(&fixture, SUB, 0);
        first_byte[round] = (uint8_t)(KIBIBYTE + round);
        struct receipt done[EACH];
        for (uint32_t index = 1; index < EACH; index++) {
            done[index] = core_fixture_receipt(&fixture, SUB, index);
        }
        assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, done + 1, EACH - 1), EACH - 1);
        core_fixture_commit(&fixture);
    }
    assert_true(core_fixture_entries(&fixture, STORE_SEGMENT) > 50);
    core_fixture_advance(&fixture, 3000); /* idle */
    assert_true(core_fixture_entries(&fixture, STORE_SEGMENT) < 10);
    core_fixture_restart(&fixture);
    core_fixture_advance(&fixture, LEASE_MS);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1000), STRAGGLERS);
    for (uint32_t index = 0; index < STRAGGLERS; index++) {
        const struct delivery *delivery = reply_delivery(&fixture.reply, index);
        struct span body = delivery_body(&fixture.reply, delivery);
        assert_int_equal(delivery->sequence, kept[index].sequence);
        assert_int_equal(body.size, KIBIBYTE + index);
        assert_int_equal(body.data[0], first_byte[index]);
    }
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), STRAGGLERS);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_SEGMENT, 1);
}

/* Chunks and index blocks that do not fit in memory come back from the store as they were. */
static void caches_come_back(void **state)
{
    (void)state;
    enum { COUNT = 20 * CHUNK_SIZE };
    core_fixture_fill(&fixture, TOPIC, SHARD, COUNT);
    core_fixture_commit(&fixture);
    struct receipt *receipts = calloc(COUNT, sizeof *receipts);
    uint32_t pulled = 0;
    while (pulled < COUNT) {
        uint32_t count = core_fixture_pull(&fixture, SUB, 300);
        for (uint32_t index = 0; index < count; index++) {
            receipts[pulled++] = core_fixture_receipt(&fixture, SUB, index);
        }
        core_fixture_commit(&fixture);
    }
    /* In steps that jump from chunk to chunk. */
    for (uint32_t step = 0; step < 64; step++) {
        static struct receipt some[COUNT / 64];
        for (uint32_t index = 0; index < COUNT / 64; index++) {
            some[index] = receipts[step + index * 64];
        }
        assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, some, COUNT / 64), COUNT / 64);
        core_fixture_commit(&fixture);
    }
    free(receipts);
    expect_rows(STORE_DELIVERY, 1);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_DUE, 0);
}

/* Every message of a chunk can have a state, a time and a lease of its own: none is stored as
 * another's (256 runs, the longest row there is). */
static void chunk_of_different_messages(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, CHUNK_SIZE);
    core_fixture_commit(&fixture);
    for (uint32_t index = 0; index < CHUNK_SIZE; index++) {
        struct command pull = {.type = COMMAND_PULL,
                               .pull = {.sub_id = SUB, .max = 1, .lease_ms = 1000 + index * 10}};
        core_fixture_apply(&fixture, &pull, ERR_NONE);
        assert_int_equal(reply_delivery(&fixture.reply, 0)->sequence, index);
        if (index % 3 == 0) {
            struct receipt receipt = core_fixture_receipt(&fixture, SUB, 0);
            struct command nack = {.type = COMMAND_NACK,
                                   .settle = {.sub_id = SUB,
                                              .receipts = &receipt,
                                              .count = 1,
                                              .results = fixture.results,
                                              .has_delay = true,
                                              .delay_ms = 1000 + index * 10}};
            core_fixture_apply(&fixture, &nack, ERR_NONE);
        }
    }
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_stats(&fixture, SUB).scheduled, (CHUNK_SIZE + 2) / 3);
    core_fixture_advance(&fixture, 1000 - 10);
    for (uint32_t index = 0; index < CHUNK_SIZE; index++) {
        core_fixture_advance(&fixture, 10);
        assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 1);
        const struct delivery *delivery = reply_delivery(&fixture.reply, 0);
        assert_int_equal(delivery->sequence, index);
        assert_int_equal(delivery->attempt, 2);
        assert_int_equal(core_fixture_ack_all(&fixture, SUB), 1);
        core_fixture_commit(&fixture);
        core_fixture_restart(&fixture);
    }
    expect_rows(STORE_DELIVERY, 1);
}

/* The index finds messages however far apart they lie in the log: side by side in a row, in rows,
 * and each in a segment of its own. */
static void index_of_any_width(void **state)
{
    (void)state;
    static const uint32_t others[] = {0, 0, 1, 300, 40000, 0, 1, 70000};
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, NULL);
    for (uint32_t index = 0; index < 2 * CHUNK_SIZE; index++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, index);
        if (others[index / 64] > 0) {
            core_fixture_publish_sized(&fixture, TOPIC, SHARD + 1, others[index / 64]);
            core_fixture_commit(&fixture);
        }
    }
    core_fixture_commit(&fixture);
    assert_true(core_fixture_entries(&fixture, STORE_SEGMENT) > 256);
    core_fixture_restart(&fixture);
    struct command seek = {.type = COMMAND_SEEK,
                           .seek = {.sub_id = SUB, .shard_id = SHARD + 1, .to = START_LATEST}};
    core_fixture_apply(&fixture, &seek, ERR_NONE);
    for (uint32_t index = 0; index < 2 * CHUNK_SIZE; index++) {
        assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
        const struct delivery *delivery = reply_delivery(&fixture.reply, 0);
        assert_int_equal(delivery->sequence, index);
        assert_int_equal(delivery->body_size, index);
    }
}

/* ---- retention ------------------------------------------------------------------------------ */

static uint32_t readable_again(void)
{
    struct command seek = {.type = COMMAND_SEEK, .seek = {.sub_id = SUB, .to = START_EARLIEST}};
    core_fixture_apply(&fixture, &seek, ERR_NONE);
    return core_fixture_drain(&fixture, SUB);
}

/* Retained by age: a finished message can be read again until its age reaches the limit, and no
 * longer. */
static void retention_by_age(void **state)
{
    (void)state;
    enum { AGE_MS = 10000 };
    retain(AGE_MS, 0);
    core_fixture_fill(&fixture, TOPIC, SHARD, 5);
    fixture.now_ms += 1;
    core_fixture_fill(&fixture, TOPIC, SHARD, 7);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 12);
    core_fixture_advance(&fixture, AGE_MS - 2);
    assert_int_equal(readable_again(), 12);
    core_fixture_advance(&fixture, 1);
    assert_int_equal(readable_again(), 7);
    core_fixture_restart(&fixture);
    core_fixture_advance(&fixture, 1);
    assert_int_equal(readable_again(), 0);
}

/* Retained by size: the oldest go as soon as there are more bytes than that, never the newest. */
static void retention_by_bytes(void **state)
{
    (void)state;
    enum { RECORD = 40 + 1000, KEPT = 10 };
    retain(0, RECORD * KEPT);
    for (uint32_t index = 0; index < KEPT; index++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, 1000);
    }
    assert_int_equal(core_fixture_drain(&fixture, SUB), KEPT);
    core_fixture_advance(&fixture, 0);
    assert_int_equal(readable_again(), KEPT); /* exactly the limit */
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    core_fixture_publish_sized(&fixture, TOPIC, SHARD, 1000);
    core_fixture_advance(&fixture, 0);
    assert_int_equal(readable_again(), KEPT);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 0);
    core_fixture_publish_sized(&fixture, TOPIC, SHARD, 1);
    core_fixture_advance(&fixture, 0);
    assert_int_equal(readable_again(), KEPT); /* one of 1000 bytes has gone for it */
}

/* Retention never takes what a subscription still needs. */
static void retention_spares_the_backlog(void **state)
{
    (void)state;
    retain(1000, 0);
    core_fixture_fill(&fixture, TOPIC, SHARD, 3 * CHUNK_SIZE + 5);
    core_fixture_advance(&fixture, 5000);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 3 * CHUNK_SIZE + 5);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_INDEX, 0);
}

/* When retention is switched off, what it kept is given up; when it is switched on, it begins with
 * what comes then. */
static void retention_on_and_off(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 5);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 5);
    retain(60000, 0);
    core_fixture_fill(&fixture, TOPIC, SHARD, 2 * CHUNK_SIZE);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 2 * CHUNK_SIZE);
    core_fixture_advance(&fixture, 1);
    assert_int_equal(readable_again(), 2 * CHUNK_SIZE);
    retain(0, 0);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_SWEEP, 0);
    assert_int_equal(readable_again(), 0);
    core_fixture_commit(&fixture);
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_INDEX, 0);
}

/* ---- where a subscription starts ------------------------------------------------------------ */

/* A new subscription sees what its start names: nothing old, everything there still is, or what
 * was published from a time on. */
static void start_positions(void **state)
{
    (void)state;
    retain(600000, 0);
    core_fixture_fill(&fixture, TOPIC, SHARD, 4);
    fixture.now_ms += 100;
    core_fixture_fill(&fixture, TOPIC, SHARD, 3);
    static const struct {
        enum start_at start;
        uint64_t value;
        uint32_t expected;
    } cases[] = {
        {START_LATEST, 0, 0},
        {START_EARLIEST, 0, 7},
        {START_TIME, 0, 7},
        {START_TIME, CORE_FIXTURE_START_MS, 7},
        {START_TIME, CORE_FIXTURE_START_MS + 1, 3},
        {START_TIME, CORE_FIXTURE_START_MS + 100, 3},
        {START_TIME, CORE_FIXTURE_START_MS + 101, 0},
    };
    for (uint32_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct command command = {.type = COMMAND_SUB_PUT,
                                  .sub_put = {.sub_id = 200 + index,
                                              .topic_id = TOPIC,
                                              .settings = {.lease_ms = LEASE_MS},
                                              .start = cases[index].start,
                                              .start_value = cases[index].value}};
        core_fixture_apply(&fixture, &command, ERR_NONE);
        assert_int_equal(core_fixture_drain(&fixture, 200 + index), cases[index].expected);
    }
}

/* Putting a topic or subscription again changes settings only: no cursor moves, no shard is made
 * twice; new shards join the subscriptions there are. */
static void putting_again(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 4);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 2), 2);
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 2);
    assert_int_equal(core_fixture_stats(&fixture, SUB).leased, 2);
    core_fixture_fill(&fixture, TOPIC, SHARD + 1, 3);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 5);
}

/* ---- dropping ------------------------------------------------------------------------------- */

/* A session that leaves rows of every kind. */
static void make_everything(void)
{
    const struct topic_settings all = {
        .retention_ms = 600000, .retention_bytes = 1 << 30, .dedup_window_ms = 5000};
    const struct sub_settings few = {.lease_ms = LEASE_MS, .max_attempts = 1};
    core_fixture_topic(&fixture, TOPIC, SHARD, 3, &all);
    core_fixture_sub(&fixture, OTHER, TOPIC, &few);
    for (uint32_t shard = 0; shard < 3; shard++) {
        core_fixture_fill(&fixture, TOPIC, SHARD + shard, 2 * CHUNK_SIZE + 10);
    }
    const struct message_in message = {.shard_id = SHARD, .idempotency_key = span_text("k")};
    assert_int_equal(core_fixture_publish(&fixture, TOPIC, &message), ERR_NONE);
    assert_int_equal(core_fixture_pull(&fixture, OTHER, 700), 700);
    core_fixture_advance(&fixture, LEASE_MS); /* dead letters */
    assert_int_equal(core_fixture_pull(&fixture, OTHER, 50), 50);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 600), 600);
    struct receipt receipt = core_fixture_receipt(&fixture, SUB, 0);
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_NACK, &receipt, 1), 1); /* ready */
    struct command seek = {.type = COMMAND_SEEK, .seek = {.sub_id = OTHER, .to = START_LATEST}};
    core_fixture_apply(&fixture, &seek, ERR_NONE);
    core_fixture_commit(&fixture);
    assert_true(core_fixture_entries(&fixture, STORE_DEAD) > 0);
    assert_true(core_fixture_entries(&fixture, STORE_READY) > 0);
    assert_true(core_fixture_entries(&fixture, STORE_SWEEP) > 0);
    assert_true(core_fixture_entries(&fixture, STORE_DUE) > 0);
}

/* A dropped subscription leaves no row, and what only it needed is given up. */
static void dropped_subscription_leaves_nothing(void **state)
{
    (void)state;
    make_everything();
    retain(0, 0);
    drop_sub(SUB);
    drop_sub(OTHER);
    core_fixture_restart(&fixture); /* the drop was not committed: it is all still there */
    assert_true(core_fixture_stats(&fixture, SUB).leased > 0);
    drop_sub(SUB);
    drop_sub(OTHER);
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture); /* committed, not begun: it is carried through */
    core_fixture_advance(&fixture, 0);
    static const enum store_table empty[] = {STORE_SUB, STORE_DELIVERY, STORE_READY, STORE_DEAD,
                                             STORE_SWEEP};
    for (size_t index = 0; index < sizeof empty / sizeof empty[0]; index++) {
        expect_rows(empty[index], 0);
    }
    core_fixture_advance(&fixture, LEASE_MS);
    expect_rows(STORE_DUE, 0);
    core_fixture_advance(&fixture, LEASE_MS);
}

/* A dropped topic leaves no row once its idempotency window has passed, whenever a crash comes. */
static void dropped_topic_leaves_nothing(void **state)
{
    (void)state;
    make_everything();
    drop_topic(TOPIC);
    const struct message_in message = {.shard_id = SHARD};
    assert_int_equal(core_fixture_publish(&fixture, TOPIC, &message), ERR_NOT_FOUND);
    core_fixture_commit(&fixture);
    /* A tick at a time with a crash behind each. */
    while (fixture.machine->ops->next_due_ms(fixture.machine) <= fixture.now_ms) {
        struct command tick = {.type = COMMAND_TICK, .tick = {.budget = 700}};
        core_fixture_apply(&fixture, &tick, ERR_NONE);
        bool more = fixture.reply.more;
        core_fixture_commit(&fixture);
        core_fixture_restart(&fixture);
        if (!more) {
            break;
        }
    }
    core_fixture_advance(&fixture, 10 * LEASE_MS);
    expect_empty_store();
}

/* Dropping and making again under the same ids is refused while the drop goes on. */
static void dropping_is_final(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 5);
    drop_topic(TOPIC);
    struct command topic = {.type = COMMAND_TOPIC_PUT, .topic_put = {.topic_id = TOPIC}};
    struct command sub = {.type = COMMAND_SUB_PUT, .sub_put = {.sub_id = SUB, .topic_id = TOPIC}};
    core_fixture_apply(&fixture, &topic, ERR_CONFLICT);
    core_fixture_apply(&fixture, &sub, ERR_NOT_FOUND);
    drop_topic(TOPIC); /* again: nothing more to do */
    core_fixture_advance(&fixture, LEASE_MS);
    expect_empty_store();
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
#define SMALL(function) cmocka_unit_test_setup_teardown(function, setup_small_caches, teardown)
#define LMDB(function)                                                                             \
    {                                                                                              \
#function "_lmdb", function, setup_lmdb, teardown, NULL                                    \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(restart_at_every_point),
        SMALL(restart_at_every_point),
        LMDB(restart_at_every_point),
        TEST(tail_comes_back_from_the_log),
        SMALL(tail_is_stored_when_the_log_moves_on),
        SMALL(dropped_shard_leaves_no_block),
        TEST(idle_volume_gives_space_back),
        TEST(two_subscriptions),
        SMALL(wanted_by_nobody),
        cmocka_unit_test_setup_teardown(sparse_segments_are_rewritten, setup_tidy, teardown),
        {"sparse_segments_are_rewritten_lmdb", sparse_segments_are_rewritten, setup_tidy_lmdb,
         teardown, NULL},
        SMALL(caches_come_back),
        SMALL(chunk_of_different_messages),
        cmocka_unit_test_setup_teardown(index_of_any_width, setup_lonely, teardown),
        TEST(retention_by_age),
        TEST(retention_by_bytes),
        SMALL(retention_spares_the_backlog),
        TEST(retention_on_and_off),
        TEST(start_positions),
        TEST(putting_again),
        TEST(dropped_subscription_leaves_nothing),
        TEST(dropped_topic_leaves_nothing),
        LMDB(dropped_topic_leaves_nothing),
        TEST(dropping_is_final),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
