/* What the core says of when a reply may leave (struct reply, `early`): only what a relaxed topic
 * brings may leave before its commit, and applied again it is what it was. */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum {
    SYNCED = 1,
    RELAXED = 2,
    SYNCED_SHARD = 10,
    RELAXED_SHARD = 20,
    SYNCED_SUB = 100,
    SUB = 200
};

static const struct topic_settings relaxed = {.durability = DURABILITY_RELAXED,
                                              .dedup_window_ms = 60000};
static struct core_fixture fixture;

static int setup(void **state)
{
    (void)state;
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, NULL);
    core_fixture_topic(&fixture, SYNCED, SYNCED_SHARD, 1, NULL);
    core_fixture_topic(&fixture, RELAXED, RELAXED_SHARD, 2, &relaxed);
    core_fixture_sub(&fixture, SYNCED_SUB, SYNCED, NULL);
    core_fixture_sub(&fixture, SUB, RELAXED, NULL);
    core_fixture_commit(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

/* Whether the answer to a publish may leave early; it must have this code. */
static bool publish_is_early(uint32_t topic_id, const struct message_in *message,
                             enum err_code code)
{
    assert_int_equal(core_fixture_publish(&fixture, topic_id, message), code);
    return fixture.reply.early;
}

static bool is_early(uint32_t topic_id, uint32_t shard_id)
{
    const struct message_in message = {.shard_id = shard_id, .body = span_text("body")};
    return publish_is_early(topic_id, &message, ERR_NONE);
}

static bool pull_is_early(uint32_t sub_id, uint32_t count)
{
    assert_int_equal(core_fixture_pull(&fixture, sub_id, 10), count);
    return fixture.reply.early;
}

/* A publish may be answered early when its topic is relaxed, after a restart too. */
static void only_relaxed_publishes_are_early(void **state)
{
    (void)state;
    assert_false(is_early(SYNCED, SYNCED_SHARD));
    assert_true(is_early(RELAXED, RELAXED_SHARD));
    assert_true(is_early(RELAXED, RELAXED_SHARD + 1));
    core_fixture_restart(&fixture);
    assert_false(is_early(SYNCED, SYNCED_SHARD));
    assert_true(is_early(RELAXED, RELAXED_SHARD));
}

/* What was refused for want of space or a topic is told with the commit, as nothing is urgent about
 * it; a repeated idempotency key is answered like its first. */
static void refusals_are_not_early(void **state)
{
    (void)state;
    const struct message_in keyed = {
        .shard_id = RELAXED_SHARD, .idempotency_key = span_text("once"), .body = span_text("body")};
    assert_true(publish_is_early(RELAXED, &keyed, ERR_NONE));
    assert_true(publish_is_early(RELAXED, &keyed, ERR_NONE));
    assert_true(fixture.published.replayed);
    assert_false(publish_is_early(RELAXED + 1, &keyed, ERR_NOT_FOUND));
    fixture.no_space = true;
    assert_false(publish_is_early(RELAXED, &keyed, ERR_NO_SPACE));
}

/* In the batch that puts the topic nothing is early, since another publish may stand before it. */
static void a_change_holds_from_the_next_batch(void **state)
{
    (void)state;
    assert_false(is_early(SYNCED, SYNCED_SHARD));
    core_fixture_topic(&fixture, SYNCED, SYNCED_SHARD, 1, &relaxed);
    assert_false(is_early(SYNCED, SYNCED_SHARD));
    assert_false(pull_is_early(SYNCED_SUB, 2));
    core_fixture_commit(&fixture);
    core_fixture_topic(&fixture, SYNCED, SYNCED_SHARD, 1, &relaxed); /* as it was: no change */
    assert_true(is_early(SYNCED, SYNCED_SHARD));
    core_fixture_topic(&fixture, SYNCED, SYNCED_SHARD, 2, &relaxed); /* another shard */
    assert_false(is_early(SYNCED, SYNCED_SHARD + 1));
    core_fixture_commit(&fixture);
    assert_true(is_early(SYNCED, SYNCED_SHARD + 1));
    core_fixture_topic(&fixture, SYNCED, SYNCED_SHARD, 2, NULL);
    assert_false(is_early(SYNCED, SYNCED_SHARD));
    core_fixture_commit(&fixture);
    assert_false(is_early(SYNCED, SYNCED_SHARD));
}

/* A pull may be answered early with what was published before its batch and, of a relaxed topic,
 * in it. One that gives nothing, and a settlement, wait for the commit. */
static void pulls_of_relaxed_topics_are_early(void **state)
{
    (void)state;
    (void)is_early(SYNCED, SYNCED_SHARD);
    (void)is_early(RELAXED, RELAXED_SHARD);
    assert_false(pull_is_early(SYNCED_SUB, 1));
    assert_true(pull_is_early(SUB, 1));
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 1);
    assert_false(fixture.reply.early);
    assert_false(pull_is_early(SUB, 0));
    (void)is_early(SYNCED, SYNCED_SHARD);
    core_fixture_commit(&fixture);
    assert_true(pull_is_early(SYNCED_SUB, 1));
}

/* Applied again without the other topics' publishes, after their batch was lost, early ones get the
 * sequences they were answered with. */
static void sequences_come_again(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        for (uint64_t sequence = 0; sequence < 300; sequence++) {
            if (round == 0) {
                (void)is_early(SYNCED, SYNCED_SHARD);
            }
            assert_true(is_early(RELAXED, RELAXED_SHARD + (uint32_t)(sequence % 2)));
            assert_int_equal(fixture.published.sequence, sequence / 2);
        }
        if (round < 2) {
            core_fixture_restart(&fixture);
        }
    }
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 300);
    assert_int_equal(core_fixture_stats(&fixture, SYNCED_SUB).enqueued, 0);
}

/* A stored topic without the byte, as all were before there was a choice, is synced; one that says
 * what no version knows is damaged. */
static void stored_topics_without_durability_are_synced(void **state)
{
    (void)state;
    static const enum err_code loaded[] = {ERR_NONE, ERR_NONE, ERR_CORRUPT, ERR_CORRUPT};
    static const uint8_t bytes[] = {DURABILITY_SYNCED, DURABILITY_RELAXED, DURABILITY_COUNT, 0xff};
    static const uint8_t key[4] = {0, 0, 0, RELAXED};
    for (size_t index = 0; index < sizeof bytes; index++) {
        struct store_txn *txn = NULL;
        struct span value;
        uint8_t copy[64];
        bool found = false;
        assert_null(store_begin(fixture.store, STORE_WRITE, &txn));
        assert_null(store_get(txn, STORE_TOPIC, span_of(key, 4), &value, &found));
        assert_true(found && value.size < sizeof copy);
        memcpy(copy, value.data, value.size);
        copy[2] = bytes[index];
        assert_null(store_put(txn, STORE_TOPIC, span_of(key, 4), span_of(copy, value.size)));
        assert_null(store_commit(txn));
        err_t err = core_fixture_try_reload(&fixture);
        assert_int_equal(err_code(err), loaded[index]);
        err_free(err);
        if (loaded[index] == ERR_NONE) {
            assert_int_equal(is_early(RELAXED, RELAXED_SHARD), bytes[index] == DURABILITY_RELAXED);
            core_fixture_commit(&fixture);
        }
    }
    fixture.unchecked = true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_relaxed_publishes_are_early, setup, teardown),
        cmocka_unit_test_setup_teardown(refusals_are_not_early, setup, teardown),
        cmocka_unit_test_setup_teardown(a_change_holds_from_the_next_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(pulls_of_relaxed_topics_are_early, setup, teardown),
        cmocka_unit_test_setup_teardown(sequences_come_again, setup, teardown),
        cmocka_unit_test_setup_teardown(stored_topics_without_durability_are_synced, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
