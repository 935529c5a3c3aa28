/* Damaged rows: a message whose bytes fail their check is never delivered but becomes a dead letter
 * of its own, everything else goes on, and the offline check names what is damaged. */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

#include "broker/base/bytes.h"
#include "broker/base/random.h"
#include "broker/core/check.h"
#include "broker/core/state.h"
#include "tests/lib/must.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100, LEASE_MS = 30000, VALUE_MAX = 65536 };

static struct core_fixture fixture;
static struct check_report report;

static int setup(void **state)
{
    (void)state;
    const struct topic_settings topic = {.dedup_window_ms = 600000};
    const struct sub_settings sub = {.lease_ms = LEASE_MS, .max_attempts = 2};
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, &(struct core_options){.segment_entries = 64});
    fixture.unchecked = true;
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, &topic);
    core_fixture_sub(&fixture, SUB, TOPIC, &sub);
    core_fixture_commit(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

/* A row of a table, copied out. */
struct row {
    uint8_t key[STORE_KEY_MAX];
    size_t key_size;
    uint8_t value[VALUE_MAX];
    size_t value_size;
};

/* The row at this place in the table's order; false when there are not so many. */
static bool get_row(enum store_table table, uint64_t place, struct row *out)
{
    struct store_txn *txn = NULL;
    struct store_cursor *cursor = NULL;
    bool found = false;
    must(store_begin(fixture.store, STORE_READ, &txn));
    must(store_cursor_open(txn, table, &cursor));
    must(store_cursor_seek(cursor, span_of("", 0), &found));
    for (; found && place > 0; place--) {
        must(store_cursor_next(cursor, &found));
    }
    if (found) {
        assert_true(cursor->value.size <= VALUE_MAX);
        out->key_size = cursor->key.size;
        out->value_size = cursor->value.size;
        memcpy(out->key, cursor->key.data, out->key_size);
        if (out->value_size > 0) {
            memcpy(out->value, cursor->value.data, out->value_size);
        }
    }
    store_cursor_close(cursor);
    store_abort(txn);
    return found;
}

/* A batch of the core's must not be open while a row is changed under it. */
static void close_batch(void)
{
    if (fixture.txn != NULL) {
        store_abort(fixture.txn);
        fixture.txn = NULL;
    }
}

static void put_row(enum store_table table, const struct row *row)
{
    struct store_txn *txn = NULL;
    close_batch();
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    must(store_put(txn, table, span_of(row->key, row->key_size),
                   span_of(row->value, row->value_size)));
    must(store_commit(txn));
}

static void remove_row(enum store_table table, const struct row *row)
{
    struct store_txn *txn = NULL;
    close_batch();
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    must(store_remove(txn, table, span_of(row->key, row->key_size), NULL));
    must(store_commit(txn));
}

static void check(void)
{
    close_batch();
    must(check_volume(fixture.store, &report));
}

static void expect_sound(void)
{
    check();
    for (uint32_t index = 0; index < report.kept; index++) {
        print_error("%s\n", report.problems[index]);
    }
    assert_int_equal(report.problem_count, 0);
}

/* At least one problem contains the text. */
static void expect_problem(const char *text)
{
    check();
    for (uint32_t index = 0; index < report.kept; index++) {
        if (strstr(report.problems[index], text) != NULL) {
            return;
        }
    }
    for (uint32_t index = 0; index < report.kept; index++) {
        print_error("%s\n", report.problems[index]);
    }
    fail_msg("no problem says \"%s\"", text);
}

/* ---- messages ------------------------------------------------------------------------------- */

/* Whichever bit of a stored message is flipped, that message is not delivered but buried as
 * corrupt, and its neighbours are delivered as they were. */
static void every_bit_of_a_message(void **state)
{
    (void)state;
    static struct row row;
    enum { RECORD = 40 + 18 };
    core_fixture_fill(&fixture, TOPIC, SHARD, 3);
    core_fixture_commit(&fixture);
    assert_true(get_row(STORE_LOG, 0, &row));
    assert_int_equal(row.value_size, ROW_HEADER_SIZE + 3 * RECORD);
    for (size_t bit = 0; bit < RECORD * 8; bit++) {
        struct row damaged = row;
        damaged.value[ROW_HEADER_SIZE + RECORD + bit / 8] ^= (uint8_t)(1U << bit % 8);
        put_row(STORE_LOG, &damaged);
        core_fixture_restart(&fixture);
        fixture.effects.corrupt = 0;
        assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 2);
        assert_int_equal(reply_delivery(&fixture.reply, 0)->sequence, 0);
        assert_int_equal(reply_delivery(&fixture.reply, 1)->sequence, 2);
        assert_true(fixture.effects.corrupt >= 1);
        struct command peek = {
            .type = COMMAND_PEEK,
            .peek = {.sub_id = SUB, .state = MESSAGE_DEAD, .max = 10, .size_max = 1000}};
        core_fixture_apply(&fixture, &peek, ERR_NONE);
        assert_int_equal(reply_delivery_count(&fixture.reply), 1);
        assert_int_equal(reply_delivery(&fixture.reply, 0)->reason, DEAD_CORRUPT);
        assert_int_equal(reply_delivery(&fixture.reply, 0)->sequence, 1);
        assert_int_equal(reply_delivery(&fixture.reply, 0)->body_size, 0);
        core_fixture_restart(&fixture);
    }
}

/* The check names a damaged message by topic, shard and sequence, and only that one. */
static void check_names_the_message(void **state)
{
    (void)state;
    static struct row row;
    core_fixture_fill(&fixture, TOPIC, SHARD + 1, 5);
    core_fixture_commit(&fixture);
    assert_true(get_row(STORE_LOG, 0, &row));
    row.value[ROW_HEADER_SIZE + 3 * (40 + 18) + 45] ^= 1; /* in the body of the fourth */
    put_row(STORE_LOG, &row);
    expect_problem("topic 1, shard 11, sequence 3,");
    assert_int_equal(report.problem_count, 2); /* once in the log, once as needed */
    assert_int_equal(report.records, 5);
    assert_int_equal(report.needed, 5);
}

/* A large message is damaged when any of its pieces is: flipped, missing, short or of another
 * kind. */
static void pieces_of_a_large_message(void **state)
{
    (void)state;
    static struct row row;
    core_fixture_publish_sized(&fixture, TOPIC, SHARD, 100000);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    core_fixture_commit(&fixture);
    for (uint64_t place = 0; place < 4; place++) {
        for (int damage = 0; damage < 4; damage++) {
            assert_true(get_row(STORE_LOG, place, &row));
            struct row damaged = row;
            if (damage == 0) {
                damaged.value[damaged.value_size - 1] ^= 0x80;
            } else if (damage == 1) {
                damaged.value_size--;
            } else if (damage == 2) {
                damaged.value[1] ^= 1; /* kind */
            }
            if (damage == 3) {
                remove_row(STORE_LOG, &row);
            } else {
                put_row(STORE_LOG, &damaged);
            }
            core_fixture_restart(&fixture);
            assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 1);
            assert_int_equal(reply_delivery(&fixture.reply, 0)->sequence, 1);
            check();
            assert_true(report.problem_count > 0);
            put_row(STORE_LOG, &row);
        }
    }
    core_fixture_restart(&fixture);
    expect_sound();
}

/* A damaged message that is done with goes like any other, and its segment with it. */
static void damage_does_not_hold_space(void **state)
{
    (void)state;
    static struct row row;
    core_fixture_fill(&fixture, TOPIC, SHARD, 100);
    core_fixture_commit(&fixture);
    core_fixture_fill(&fixture, TOPIC, SHARD, 100);
    core_fixture_commit(&fixture);
    assert_true(get_row(STORE_LOG, 0, &row));
    row.value[100] ^= 1;
    put_row(STORE_LOG, &row);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 199);
    core_fixture_commit(&fixture);
    core_fixture_advance(&fixture, LEASE_MS);
    struct command purge = {.type = COMMAND_PURGE, .purge = {.sub_id = SUB, .dead = true}};
    core_fixture_apply(&fixture, &purge, ERR_NONE);
    assert_int_equal(fixture.reply.count, 1);
    core_fixture_advance(&fixture, LEASE_MS);
    assert_int_equal(core_fixture_entries(&fixture, STORE_SEGMENT), 1);
    expect_sound();
}

/* Nor does a segment to be cleaned whose record is damaged keep others from it. */
static void damaged_segment_to_clean(void **state)
{
    (void)state;
    static struct row row;
    for (int segment = 0; segment < 3; segment++) {
        core_fixture_fill(&fixture, TOPIC, SHARD, CHUNK_SIZE);
        core_fixture_commit(&fixture);
    }
    assert_int_equal(core_fixture_drain(&fixture, SUB), 3 * CHUNK_SIZE);
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_entries(&fixture, STORE_GC), 2);
    assert_true(get_row(STORE_SEGMENT, 0, &row));
    row.value[0] = 99;
    put_row(STORE_SEGMENT, &row);
    core_fixture_restart(&fixture);
    fixture.effects.corrupt = 0;
    core_fixture_advance(&fixture, LEASE_MS);
    (void)core_fixture_stats(&fixture, SUB);
    assert_int_equal(fixture.effects.corrupt, 1);
    assert_int_equal(core_fixture_entries(&fixture, STORE_GC), 0);
    assert_int_equal(core_fixture_entries(&fixture, STORE_SEGMENT), 2); /* and the last one */
    expect_problem("log segment 1 has a damaged record");
}

/* Cleaning moves the sound messages out of a sparse segment and leaves a damaged one where it is,
 * to be found and named. */
static void cleaning_around_damage(void **state)
{
    (void)state;
    static struct row row;
    static struct receipt done[64];
    enum { EACH = 64, ROUNDS = 20 };
    fixture.options.slack_size = 1024;
    core_fixture_restart(&fixture);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        core_fixture_fill(&fixture, TOPIC, SHARD, EACH);
        core_fixture_commit(&fixture);
        if (round == 3) { /* its second message, which is never finished, nor is the first */
            assert_true(get_row(STORE_LOG, 3, &row));
            row.value[ROW_HEADER_SIZE + 58 + 50] ^= 1;
            put_row(STORE_LOG, &row);
            core_fixture_restart(&fixture);
        }
        uint32_t count = core_fixture_pull(&fixture, SUB, EACH);
        assert_int_equal(count, round == 3 ? EACH - 1 : EACH);
        for (uint32_t index = 1; index < count; index++) {
            done[index] = core_fixture_receipt(&fixture, SUB, index);
        }
        assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, done + 1, count - 1),
                         count - 1);
        core_fixture_commit(&fixture);
    }
    core_fixture_advance(&fixture, 3000);
    assert_true(core_fixture_entries(&fixture, STORE_SEGMENT) < 6);
    core_fixture_restart(&fixture);
    core_fixture_advance(&fixture, LEASE_MS);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1000), ROUNDS);
    expect_problem("topic 1, shard 10, sequence 193,"); /* 3 * EACH + 1 */
    assert_int_equal(report.problem_count, 2);
}

/* An index block that cannot be read makes its messages dead letters; others are delivered. */
static void damaged_index(void **state)
{
    (void)state;
    static struct row row;
    core_fixture_fill(&fixture, TOPIC, SHARD, 2 * CHUNK_SIZE);
    core_fixture_commit(&fixture);
    assert_true(get_row(STORE_INDEX, 0, &row));
    row.value[0] = 99;
    put_row(STORE_INDEX, &row);
    expect_problem("the index of topic 1, shard 10 is damaged from sequence 0 on");
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_drain(&fixture, SUB), CHUNK_SIZE);
    assert_int_equal(core_fixture_stats(&fixture, SUB).dead, CHUNK_SIZE);
}

/* A cursor that does not agree with the messages around it is refused before a pull or a seek takes
 * it further: a hole below it would lose messages, one above it would give them twice. */
static void cursor_off_its_chunk(void **state)
{
    (void)state;
    static struct row row;
    static const int8_t offsets[] = {-1, 1, -10, 10};
    core_fixture_fill(&fixture, TOPIC, SHARD, 30);
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 15), 15);
    core_fixture_commit(&fixture);
    assert_true(get_row(STORE_DELIVERY, 0, &row));
    for (size_t index = 0; index < sizeof offsets; index++) {
        struct row damaged = row;
        damaged.value[16] = (uint8_t)(15 + offsets[index]);
        put_row(STORE_DELIVERY, &damaged);
        struct command commands[] = {
            {.type = COMMAND_PULL, .pull = {.sub_id = SUB, .max = 1}},
            {.type = COMMAND_SEEK, .seek = {.sub_id = SUB, .to = START_LATEST}},
            {.type = COMMAND_PURGE, .purge = {.sub_id = SUB, .enqueued = true}},
        };
        for (size_t at = 0; at < sizeof commands / sizeof commands[0]; at++) {
            must(core_fixture_try_reload(&fixture));
            err_t err = core_fixture_try(&fixture, &commands[at]);
            assert_int_equal(err_code(err), ERR_CORRUPT);
            err_free(err);
        }
        expect_problem("the cursor does not agree");
    }
    put_row(STORE_DELIVERY, &row);
    must(core_fixture_try_reload(&fixture));
    assert_int_equal(core_fixture_pull(&fixture, SUB, 100), 15);
}

/* ---- the check ------------------------------------------------------------------------------ */

/* A store with rows in every table. */
static void make_everything(void)
{
    const struct message_in keyed = {.shard_id = SHARD, .idempotency_key = span_text("k")};
    core_fixture_fill(&fixture, TOPIC, SHARD, 3 * CHUNK_SIZE);
    core_fixture_fill(&fixture, TOPIC, SHARD + 1, 40);
    assert_int_equal(core_fixture_publish(&fixture, TOPIC, &keyed), ERR_NONE);
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 200), 200);
    core_fixture_commit(&fixture);
    struct receipt receipts[3];
    for (uint32_t index = 0; index < 3; index++) {
        receipts[index] = core_fixture_receipt(&fixture, SUB, index + 100);
    }
    struct command nack = {.type = COMMAND_NACK,
                           .settle = {.sub_id = SUB,
                                      .receipts = receipts,
                                      .count = 2,
                                      .results = fixture.results,
                                      .reject = true}};
    core_fixture_apply(&fixture, &nack, ERR_NONE);
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_NACK, &receipts[2], 1), 1);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 300), 300);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 300);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    const struct receipt ready = core_fixture_receipt(&fixture, SUB, 0);
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_NACK, &ready, 1), 1);
    struct command seek = {
        .type = COMMAND_SEEK,
        .seek = {.sub_id = SUB, .shard_id = SHARD, .to = START_SEQUENCE, .value = 700}};
    core_fixture_apply(&fixture, &seek, ERR_NONE);
    core_fixture_commit(&fixture);
}

static const enum store_table tables[] = {
    STORE_META,  STORE_LOG, STORE_SEGMENT, STORE_INDEX, STORE_SHARD, STORE_SUB,   STORE_DELIVERY,
    STORE_READY, STORE_DUE, STORE_DEAD,    STORE_DEDUP, STORE_SWEEP, STORE_TOPIC, STORE_GC,
};

/* A missing row is noticed, whichever it is, in every table but one: nothing in the store is
 * without a second place that knows of it. Only an idempotency key may be gone before its time is
 * looked at, when it was used twice. */
static void check_misses_every_row(void **state)
{
    (void)state;
    static struct row row;
    make_everything();
    expect_sound();
    for (size_t table = 0; table < sizeof tables / sizeof tables[0]; table++) {
        assert_true(get_row(tables[table], 0, &row));
        for (uint64_t place = 0; get_row(tables[table], place, &row); place++) {
            remove_row(tables[table], &row);
            check();
            if (report.problem_count == 0 && tables[table] != STORE_DEDUP) {
                fail_msg("row %llu of table %d is not missed", (unsigned long long)place,
                         (int)tables[table]);
            }
            put_row(tables[table], &row);
        }
    }
    expect_sound();
}

/* A row of nothing is noticed in every table that is an index of another. */
static void check_finds_orphans(void **state)
{
    (void)state;
    static const enum store_table indexes[] = {STORE_SEGMENT, STORE_INDEX, STORE_DELIVERY,
                                               STORE_READY,   STORE_DUE,   STORE_DEAD,
                                               STORE_DEDUP,   STORE_SWEEP, STORE_GC};
    static struct row row;
    make_everything();
    for (size_t table = 0; table < sizeof indexes / sizeof indexes[0]; table++) {
        assert_true(get_row(indexes[table], 0, &row));
        row.key[0] = 0xee;
        put_row(indexes[table], &row);
        check();
        if (report.problem_count == 0) {
            fail_msg("a row of nothing in table %d is not noticed", (int)indexes[table]);
        }
        remove_row(indexes[table], &row);
    }
    expect_sound();
}

/* Counts that do not agree with what they count are noticed. */
static void check_compares_counts(void **state)
{
    (void)state;
    static const struct {
        enum store_table table;
        uint64_t place;
        size_t offset;
        const char *problem;
    } cases[] = {
        {STORE_SEGMENT, 0, 4, "log segment 1 has"},
        {STORE_SEGMENT, 0, 8, "log segment 1 counts"},
        {STORE_SEGMENT, 0, 16, "log segment 1 has"},
        {STORE_DELIVERY, 0, 24, "leased, but has"},
        {STORE_DELIVERY, 0, 56, "dead, but has"},
        {STORE_DELIVERY, 0, 16, "as needed, but"},
        {STORE_META, 0, 48, "the log's segments have"},
        {STORE_META, 0, 56, "the log's segments have"},
        {STORE_META, 0, 26, "the log ends at row"},
    };
    static struct row row;
    make_everything();
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        assert_true(get_row(cases[index].table, cases[index].place, &row));
        struct row damaged = row;
        damaged.value[cases[index].offset] ^= 1;
        put_row(cases[index].table, &damaged);
        expect_problem(cases[index].problem);
        put_row(cases[index].table, &row);
    }
    expect_sound();
}

/* Random damage to any value ends neither a check nor a broker: loading, serving and ticking
 * succeed or report, and what is delivered is what was published. */
static void random_damage_is_survived(void **state)
{
    (void)state;
    static struct row row;
    struct random random;
    random_init(&random, 7);
    make_everything();
    for (uint32_t round = 0; round < 3000; round++) {
        enum store_table table = tables[random_below(&random, sizeof tables / sizeof tables[0])];
        uint64_t place = random_below(&random, 8);
        if (!get_row(table, place, &row) || row.value_size == 0) {
            continue;
        }
        struct row damaged = row;
        size_t at = (size_t)random_below(&random, row.value_size);
        bool bit = random_chance(&random, 1, 2);
        damaged.value[at] ^= (uint8_t)(bit ? 1U << random_below(&random, 8) : random_next(&random));
        if (round % 5 == 0) {
            damaged.value_size = at;
        }
        put_row(table, &damaged);
        check();
        err_t err = core_fixture_try_reload(&fixture);
        for (uint32_t turn = 0; turn < 4 && err == NULL; turn++) {
            struct command pull = {.type = COMMAND_PULL,
                                   .pull = {.sub_id = SUB, .max = 50, .size_max = 100000}};
            err = core_fixture_try(&fixture, &pull);
            for (uint32_t index = 0; err == NULL && index < reply_delivery_count(&fixture.reply);
                 index++) {
                struct span body =
                    delivery_body(&fixture.reply, reply_delivery(&fixture.reply, index));
                assert_true(body.size == 0 || memcmp(body.data, "shard 1", 7) == 0);
            }
            struct command tick = {.type = COMMAND_TICK, .tick = {.budget = 1000}};
            err = err != NULL ? err : core_fixture_try(&fixture, &tick);
            fixture.now_ms += turn == 2 ? LEASE_MS : 0;
        }
        err_free(err);
        put_row(table, &row);
        must(core_fixture_try_reload(&fixture));
    }
    expect_sound();
}

/* ---- inspect -------------------------------------------------------------------------------- */

static void collect(void *user, const char *text)
{
    buf_printf(user, "%s\n", text);
}

/* What is told of a volume names its topics, positions, depths, segments and tables. */
static void inspect_tells(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "topic 1: 2 shards here, 1 subscriptions, retention 0 ms and 4096 bytes, ",
        " bytes, idempotency window 600000 ms, synced\n",
        "  shard 10 (number 0): next sequence 5, hashes 0000000000000000 to 7ffffffffffffffe\n",
        "    retained from 0, 290 bytes\n",
        "    being released: 3 to 4\n",
        "    subscription 100: cursor 4, enqueued 1, leased 3, scheduled 0, ready 0, dead 0\n",
        "log: 1 segments, 5 messages, 5 needed, 290 bytes\n",
        "  segment 1: 5 messages, 5 needed, 1 rows, 290 bytes, being written\n",
        "table LOG: 1 rows\n",
    };
    const struct topic_settings retained = {.retention_bytes = 4096, .dedup_window_ms = 600000};
    struct buf text;
    buf_init(&text, 65536);
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, &retained);
    core_fixture_fill(&fixture, TOPIC, SHARD, 5);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 3), 3);
    struct command seek = {
        .type = COMMAND_SEEK,
        .seek = {.sub_id = SUB, .shard_id = SHARD, .to = START_SEQUENCE, .value = 4}};
    core_fixture_apply(&fixture, &seek, ERR_NONE);
    core_fixture_commit(&fixture);
    must(check_inspect(fixture.store, collect, &text));
    buf_append_byte(&text, '\0');
    for (size_t index = 0; index < sizeof expected / sizeof expected[0]; index++) {
        if (strstr((const char *)text.data, expected[index]) == NULL) {
            fail_msg("not told: %sbut:\n%s", expected[index], text.data);
        }
    }
    buf_deinit(&text);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_bit_of_a_message),
        TEST(check_names_the_message),
        TEST(pieces_of_a_large_message),
        TEST(damage_does_not_hold_space),
        TEST(damaged_segment_to_clean),
        TEST(cleaning_around_damage),
        TEST(damaged_index),
        TEST(cursor_off_its_chunk),
        TEST(check_misses_every_row),
        TEST(check_finds_orphans),
        TEST(check_compares_counts),
        TEST(random_damage_is_survived),
        TEST(inspect_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
