/* Values at the ends of their ranges. */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>
#include <xxhash.h>

#include "broker/base/bytes.h"
#include "broker/core/state.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100 };

static struct core_fixture fixture;

static int setup(void **state)
{
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, NULL);
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

/* The largest message a broker can be configured to take can be read back, with the largest key and
 * attributes. */
static void largest_message(void **state)
{
    enum { BODY = CORE_BODY_MAX, ALL = CORE_KEY_MAX + CORE_ATTRIBUTES_MAX + BODY };
    (void)state;
    uint8_t *bytes = calloc(1, ALL);
    const struct message_in message = {
        .shard_id = SHARD,
        .key = span_of(bytes, CORE_KEY_MAX),
        .attributes = span_of(bytes, CORE_ATTRIBUTES_MAX),
        .body = span_of(bytes, BODY),
        .delay_ms = 1,
        .ttl_ms = 1000,
        .payload_hash = XXH3_64bits(bytes, ALL),
    };
    struct publish_result result;
    struct command publish = {
        .type = COMMAND_PUBLISH,
        .publish = {.topic_id = TOPIC, .messages = &message, .count = 1, .results = &result},
    };
    core_fixture_apply(&fixture, &publish, ERR_NONE);
    assert_int_equal(result.code, ERR_NONE);
    core_fixture_commit(&fixture);
    fixture.now_ms++;
    struct command pull = {.type = COMMAND_PULL, .pull = {.sub_id = SUB, .max = 1, .size_max = 1}};
    core_fixture_apply(&fixture, &pull, ERR_NONE);
    assert_int_equal(reply_delivery_count(&fixture.reply), 1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->body_size, BODY);
    free(bytes);
}

/* Times beyond the end of time mean its end, not its beginning. */
static void times_without_end(void **state)
{
    (void)state;
    const struct message_in delayed = {.shard_id = SHARD, .delay_ms = UINT64_MAX};
    const struct message_in lasting = {.shard_id = SHARD, .ttl_ms = UINT64_MAX};
    assert_int_equal(core_fixture_publish(&fixture, TOPIC, &delayed), ERR_NONE);
    assert_int_equal(core_fixture_publish(&fixture, TOPIC, &lasting), ERR_NONE);
    struct command pull = {
        .type = COMMAND_PULL,
        .pull = {.sub_id = SUB, .max = 2, .size_max = 1000, .lease_ms = UINT64_MAX}};
    core_fixture_apply(&fixture, &pull, ERR_NONE);
    assert_int_equal(reply_delivery_count(&fixture.reply), 1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->sequence, 1);
    core_fixture_advance(&fixture, 1000);
    assert_int_equal(core_fixture_stats(&fixture, SUB).leased, 1);
    assert_int_equal(core_fixture_stats(&fixture, SUB).scheduled, 1);
}

/* Nothing larger is taken in. */
static void too_large(void **state)
{
    enum { BODY = CORE_BODY_MAX + 1 };
    (void)state;
    uint8_t *bytes = calloc(1, BODY);
    const struct message_in messages[] = {
        {.shard_id = SHARD, .key = span_of(bytes, CORE_KEY_MAX + 1)},
        {.shard_id = SHARD, .attributes = span_of(bytes, CORE_ATTRIBUTES_MAX + 1)},
        {.shard_id = SHARD, .body = span_of(bytes, BODY)},
    };
    struct publish_result results[3];
    struct command publish = {
        .type = COMMAND_PUBLISH,
        .publish = {.topic_id = TOPIC, .messages = messages, .count = 3, .results = results},
    };
    core_fixture_apply(&fixture, &publish, ERR_NONE);
    for (size_t index = 0; index < 3; index++) {
        assert_int_equal(results[index].code, ERR_TOO_LARGE);
    }
    free(bytes);
}

/* A pull that finds only large messages it cannot give reads a bounded part of them. */
static void pull_past_large(void **state)
{
    enum { COUNT = 80, SIZE = 1024 * 1024 };
    (void)state;
    uint8_t *bytes = calloc(1, SIZE);
    for (uint32_t index = 0; index < COUNT; index++) {
        const struct message_in message = {
            .shard_id = SHARD, .body = span_of(bytes, SIZE), .ttl_ms = 1};
        assert_int_equal(core_fixture_publish(&fixture, TOPIC, &message), ERR_NONE);
    }
    free(bytes);
    core_fixture_commit(&fixture);
    fixture.now_ms++;
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
    assert_true(fixture.reply.more);
    struct sub_stats stats = core_fixture_stats(&fixture, SUB);
    assert_int_equal(stats.enqueued + stats.dead, COUNT);
    assert_in_range(stats.enqueued, 1, COUNT - 1);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
    assert_false(fixture.reply.more);
}

/* A tick reads a bounded part of what retention gives up. */
static void retention_of_large(void **state)
{
    enum { COUNT = 20, SIZE = 1024 * 1024, BUDGET = 640, BUDGET_SIZE = BUDGET * 16384 };
    (void)state;
    struct topic_settings settings = {.retention_ms = 1000};
    core_fixture_topic(&fixture, TOPIC + 1, SHARD + 1, 1, &settings);
    for (uint32_t index = 0; index < COUNT; index++) {
        core_fixture_publish_sized(&fixture, TOPIC + 1, SHARD + 1, SIZE);
    }
    core_fixture_commit(&fixture);
    fixture.now_ms += 1000;
    struct command tick = {.type = COMMAND_TICK, .tick = {.budget = BUDGET}};
    core_fixture_apply(&fixture, &tick, ERR_NONE);
    struct command stats = {.type = COMMAND_STATS, .stats = {.topic_id = TOPIC + 1}};
    core_fixture_apply(&fixture, &stats, ERR_NONE);
    const struct shard_stats *shard = (const void *)fixture.reply.items.data;
    assert_in_range(shard->retained_from, 1, BUDGET_SIZE / SIZE + 1);
}

static const struct core *core(void)
{
    return container_of(fixture.machine, const struct core, machine);
}

static void expect_bounded(void)
{
    assert_true(core()->chunk_pool.taken <= 2 * fixture.options.chunks_max + 1);
    assert_true(core()->block_pool.taken <= 2 * fixture.options.blocks_max + 1);
}

/* Rejects one message of each chunk and finishes the others. */
static void reject_some(uint32_t count)
{
    for (uint32_t number = 0; number < count; number++) {
        assert_int_equal(core_fixture_pull(&fixture, SUB, CHUNK_SIZE), CHUNK_SIZE);
        struct receipt receipts[CHUNK_SIZE];
        for (uint32_t index = 0; index < CHUNK_SIZE; index++) {
            receipts[index] = core_fixture_receipt(&fixture, SUB, index);
        }
        assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, receipts + 1, CHUNK_SIZE - 1),
                         CHUNK_SIZE - 1);
        struct command command = {
            .type = COMMAND_NACK,
            .settle = {.sub_id = SUB,
                       .receipts = receipts,
                       .count = 1,
                       .results = fixture.results,
                       .reject = true},
        };
        core_fixture_apply(&fixture, &command, ERR_NONE);
        core_fixture_commit(&fixture);
    }
}

/* However many chunks a command touches, and the commands of a batch together, few are in memory.
 */
static void chunks_in_memory(void **state)
{
    enum { CHUNKS = 60, CACHED = 8 };
    (void)state;
    fixture.options.chunks_max = CACHED;
    fixture.options.blocks_max = CACHED;
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    core_fixture_sub(&fixture, SUB + 1, TOPIC, NULL); /* still needs all of it */
    core_fixture_fill(&fixture, TOPIC, SHARD, CHUNKS * CHUNK_SIZE);
    core_fixture_commit(&fixture);
    reject_some(CHUNKS);
    assert_int_equal(core_fixture_stats(&fixture, SUB).dead, CHUNKS);
    struct command redrive = {.type = COMMAND_REDRIVE, .redrive = {.sub_id = SUB, .max = CHUNKS}};
    core_fixture_apply(&fixture, &redrive, ERR_NONE);
    assert_int_equal(fixture.reply.count, CHUNKS);
    expect_bounded();
    for (uint32_t number = 0; number < CHUNKS; number++) {
        assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
        expect_bounded();
    }
    struct command purge = {.type = COMMAND_PURGE, .purge = {.sub_id = SUB, .delivery = true}};
    core_fixture_commit(&fixture);
    core_fixture_apply(&fixture, &purge, ERR_NONE);
    assert_int_equal(fixture.reply.count, CHUNKS);
    expect_bounded();
    core_fixture_commit(&fixture);
    struct command seek = {.type = COMMAND_SEEK, .seek = {.sub_id = SUB, .to = START_EARLIEST}};
    core_fixture_apply(&fixture, &seek, ERR_NONE);
    expect_bounded();
    reject_some(CHUNKS);
    core_fixture_apply(&fixture, &seek, ERR_NONE);
    expect_bounded();
    assert_int_equal(core_fixture_drain(&fixture, SUB), CHUNKS * CHUNK_SIZE);
}

/* A start after many short runs reads no more of the log than one after a long run. */
static void replay_stays_short(void **state)
{
    enum { REPLAY = 64 * 1024, RUNS = 20 };
    (void)state;
    fixture.options.replay_bytes = REPLAY;
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    for (uint32_t run = 0; run < RUNS; run++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, REPLAY / 4);
        core_fixture_commit(&fixture);
        core_fixture_restart(&fixture);
    }
    struct store_txn *txn = NULL;
    struct span value;
    bool found = false;
    assert_null(store_begin(fixture.store, STORE_READ, &txn));
    assert_null(store_get(txn, STORE_META, span_text("core"), &value, &found));
    uint64_t end = bytes_get_le64(value.data + 24);
    uint64_t checkpoint = bytes_get_le64(value.data + 32);
    store_abort(txn);
    assert_true(checkpoint >> 32 == end >> 32);
    uint64_t rows = (end >> 16 & 0xffff) - (checkpoint >> 16 & 0xffff);
    assert_in_range(rows, 0, 2 * REPLAY / (REPLAY / 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(largest_message, setup, teardown),
        cmocka_unit_test_setup_teardown(too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(times_without_end, setup, teardown),
        cmocka_unit_test_setup_teardown(pull_past_large, setup, teardown),
        cmocka_unit_test_setup_teardown(retention_of_large, setup, teardown),
        cmocka_unit_test_setup_teardown(chunks_in_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(replay_stays_short, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
