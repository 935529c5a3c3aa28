/* The way of a message through publish, pull, ack, nack and extend, and what time does to it. Each
 * test ends with a check of every stored row (core_fixture_deinit). */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>
#include <xxhash.h>

#include "broker/core/state.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100, OTHER = 101, LEASE_MS = 30000 };

static struct core_fixture fixture;

static int setup(void **state)
{
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, NULL);
    *state = &fixture;
    return 0;
}

/* One topic of one shard with one subscription. */
static int setup_sub(void **state)
{
    setup(state);
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    core_fixture_commit(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

static enum err_code publish(struct message_in message, const char *body)
{
    message.shard_id = SHARD;
    message.body = span_text(body);
    return core_fixture_publish(&fixture, TOPIC, &message);
}

static void settings(struct sub_settings values)
{
    core_fixture_sub(&fixture, SUB, TOPIC, &values);
}

/* NACK of the first message of the last pull; true when it took effect. */
static bool nack(struct settle settle)
{
    struct receipt receipt = core_fixture_receipt(&fixture, SUB, 0);
    settle.sub_id = SUB;
    settle.receipts = &receipt;
    settle.count = 1;
    settle.results = fixture.results;
    struct command command = {.type = COMMAND_NACK, .settle = settle};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    return fixture.results[0] == ERR_NONE;
}

static void expect_attempt(uint16_t attempt)
{
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->attempt, attempt);
}

/* The only dead letter there is; its payload and note are in the reply. */
static const struct delivery *the_dead_letter(void)
{
    struct command command = {
        .type = COMMAND_PEEK,
        .peek = {.sub_id = SUB, .state = MESSAGE_DEAD, .max = 10, .size_max = UINT32_MAX},
    };
    core_fixture_apply(&fixture, &command, ERR_NONE);
    assert_int_equal(reply_delivery_count(&fixture.reply), 1);
    return reply_delivery(&fixture.reply, 0);
}

/* ---- publish, pull, ack --------------------------------------------------------------------- */

/* What is published is pulled once, in order, with its content, and is gone once acknowledged. */
static void publish_pull_ack(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 3);
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 3);
    for (uint32_t index = 0; index < 3; index++) {
        const struct delivery *delivery = reply_delivery(&fixture.reply, index);
        assert_int_equal(delivery->sequence, index);
        assert_int_equal(delivery->attempt, 1);
        assert_int_equal(delivery->published_ms, CORE_FIXTURE_START_MS);
        assert_int_equal(delivery->due_ms, CORE_FIXTURE_START_MS + LEASE_MS);
    }
    struct span body = delivery_body(&fixture.reply, reply_delivery(&fixture.reply, 2));
    assert_true(span_is(body, "shard 10 message 2"));
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 3);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 3); /* the batch was lost */
    assert_int_equal(core_fixture_drain(&fixture, SUB), 3);
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
}

/* Key, attributes and body come out as they went in, whichever of them is empty. */
static void content_survives(void **state)
{
    (void)state;
    static const char *const parts[][3] = {
        {"", "", ""}, {"k", "", ""}, {"", "a", ""}, {"", "", "b"}, {"key", "attributes", "body"},
    };
    for (size_t index = 0; index < sizeof parts / sizeof parts[0]; index++) {
        const struct message_in message = {
            .shard_id = SHARD,
            .key = span_text(parts[index][0]),
            .attributes = span_text(parts[index][1]),
            .body = span_text(parts[index][2]),
        };
        assert_int_equal(core_fixture_publish(&fixture, TOPIC, &message), ERR_NONE);
        assert_int_equal(fixture.published.sequence, index);
    }
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 5);
    for (uint32_t index = 0; index < 5; index++) {
        const struct delivery *delivery = reply_delivery(&fixture.reply, index);
        assert_true(span_is(delivery_key(&fixture.reply, delivery), parts[index][0]));
        assert_true(span_is(delivery_attributes(&fixture.reply, delivery), parts[index][1]));
        assert_true(span_is(delivery_body(&fixture.reply, delivery), parts[index][2]));
    }
}

/* A body of any size comes out as it went in: around what fits a log row, and over many rows; in
 * the batch that wrote it, and after a restart. */
static void bodies_of_any_size(void **state)
{
    (void)state;
    enum { FITS = ROW_SIZE_MAX - ROW_HEADER_SIZE - 40, MEBIBYTE = 1024 * 1024 };
    static const uint32_t sizes[] = {
        0,     1,   FITS - 1, FITS,          FITS + 1, ROW_SIZE_MAX - 1, ROW_SIZE_MAX, 32767, 32768,
        32769, 100, 2 * FITS, 2 * FITS + 45, 65536,    MEBIBYTE,         MEBIBYTE + 1,
    };
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    uint64_t hashes[COUNT];
    for (size_t index = 0; index < COUNT; index++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, sizes[index]);
    }
    for (int round = 0; round < 2; round++) {
        assert_int_equal(core_fixture_pull(&fixture, SUB, 100), COUNT);
        for (uint32_t index = 0; index < COUNT; index++) {
            const struct delivery *delivery = reply_delivery(&fixture.reply, index);
            const struct message_in got = {.body = delivery_body(&fixture.reply, delivery)};
            assert_int_equal(got.body.size, sizes[index]);
            if (round == 0) {
                hashes[index] = core_fixture_hash(&got);
                const uint8_t *last = got.body.data + got.body.size - 1;
                uint32_t at = sizes[index] - 1;
                assert_true(sizes[index] == 0 ||
                            *last == (uint8_t)(at * 31 + at / 251 + sizes[index]));
            }
            assert_int_equal(core_fixture_hash(&got), hashes[index]);
        }
        core_fixture_commit(&fixture);
        core_fixture_restart(&fixture);
        core_fixture_advance(&fixture, LEASE_MS);
    }
    assert_int_equal(core_fixture_drain(&fixture, SUB), COUNT);
}

/* A pull gives at most `max` messages and `size_max` bytes, but the first one whatever its size. */
static void pull_bounds(void **state)
{
    (void)state;
    for (int index = 0; index < 10; index++) {
        core_fixture_publish_sized(&fixture, TOPIC, SHARD, 100);
    }
    static const struct {
        uint32_t max;
        uint32_t size_max;
        uint32_t expected;
    } cases[] = {{1, UINT32_MAX, 1}, {2, 0, 1},         {9, 99, 1},  {9, 100, 1},
                 {9, 199, 1},        {9, 200, 2},       {9, 201, 2}, {0, UINT32_MAX, 0},
                 {9, UINT32_MAX, 1}, {9, UINT32_MAX, 0}};
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct command command = {
            .type = COMMAND_PULL,
            .pull = {.sub_id = SUB, .max = cases[index].max, .size_max = cases[index].size_max}};
        core_fixture_apply(&fixture, &command, ERR_NONE);
        assert_int_equal(reply_delivery_count(&fixture.reply), cases[index].expected);
    }
}

/* No more than max_in_flight messages of a shard are leased at once; an ack makes room. */
static void in_flight_bound(void **state)
{
    (void)state;
    settings((struct sub_settings){.lease_ms = LEASE_MS, .max_in_flight = 3});
    core_fixture_fill(&fixture, TOPIC, SHARD, 5);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 3);
    struct receipt receipt = core_fixture_receipt(&fixture, SUB, 1);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
    core_fixture_commit(&fixture);
    fixture.effects.woken.size = 0;
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &receipt, 1), 1);
    assert_int_equal(fixture.effects.woken.size, sizeof(uint32_t));
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->sequence, 3);
}

/* A pull takes from all shards alike, and one shard's emptiness does not leave it short. */
static void pull_is_fair(void **state)
{
    (void)state;
    core_fixture_topic(&fixture, 2, 20, 4, NULL);
    core_fixture_sub(&fixture, OTHER, 2, NULL);
    core_fixture_fill(&fixture, 2, 20, 50);
    core_fixture_fill(&fixture, 2, 21, 50);
    core_fixture_fill(&fixture, 2, 23, 5);
    assert_int_equal(core_fixture_pull(&fixture, OTHER, 30), 30);
    uint32_t counts[4] = {0};
    for (uint32_t index = 0; index < 30; index++) {
        counts[reply_delivery(&fixture.reply, index)->shard_id - 20]++;
    }
    assert_true(counts[0] >= 10 && counts[1] >= 10);
    assert_int_equal(counts[3], 5);
    assert_int_equal(core_fixture_pull(&fixture, OTHER, 1000), 75);
}

/* A paused subscription gives nothing and keeps everything; resuming wakes it. */
static void paused(void **state)
{
    (void)state;
    settings((struct sub_settings){.lease_ms = LEASE_MS, .paused = true});
    core_fixture_fill(&fixture, TOPIC, SHARD, 2);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
    fixture.effects.woken.size = 0;
    settings((struct sub_settings){.lease_ms = LEASE_MS});
    assert_int_equal(fixture.effects.woken.size, sizeof(uint32_t));
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 2);
}

/* Publishing wakes each subscription of the topic once a batch. */
static void publishing_wakes(void **state)
{
    (void)state;
    core_fixture_sub(&fixture, OTHER, TOPIC, NULL);
    core_fixture_commit(&fixture);
    fixture.effects.woken.size = 0;
    core_fixture_fill(&fixture, TOPIC, SHARD, 3);
    assert_int_equal(fixture.effects.woken.size, 2 * sizeof(uint32_t));
    core_fixture_commit(&fixture);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    assert_int_equal(fixture.effects.woken.size, 4 * sizeof(uint32_t));
}

static uint32_t woken_at(size_t index)
{
    uint32_t sub_id;
    memcpy(&sub_id, fixture.effects.woken.data + index * sizeof sub_id, sizeof sub_id);
    return sub_id;
}

/* What is pulled in the batch of its publish wakes nobody; what is left, and what comes after,
 * does. */
static void pulling_all_wakes_nobody(void **state)
{
    (void)state;
    core_fixture_sub(&fixture, OTHER, TOPIC, NULL);
    core_fixture_commit(&fixture);
    buf_reset(&fixture.effects.woken);
    core_fixture_fill(&fixture, TOPIC, SHARD, 2);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    assert_false(fixture.reply.drained);
    assert_int_equal(woken_at(0), SUB);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    assert_true(fixture.reply.drained);
    assert_int_equal(woken_at(0), 0);
    assert_int_equal(woken_at(1), OTHER);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    assert_int_equal(fixture.effects.woken.size, 3 * sizeof(uint32_t));
    assert_int_equal(woken_at(2), SUB);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 1);
    assert_int_equal(woken_at(2), 0);
}

/* ---- leases --------------------------------------------------------------------------------- */

/* A lease ends exactly at its time: a receipt holds one millisecond before it, and not at it. */
static void lease_ends_on_time(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 2);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 2), 2);
    const struct receipt receipts[] = {core_fixture_receipt(&fixture, SUB, 0),
                                       core_fixture_receipt(&fixture, SUB, 1)};
    fixture.now_ms += LEASE_MS - 1;
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &receipts[0], 1), 1);
    fixture.now_ms += 1;
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &receipts[1], 1), 0);
    assert_int_equal(fixture.results[0], ERR_LEASE_LOST);
    core_fixture_advance(&fixture, 0);
    assert_int_equal(fixture.effects.leases_expired, 1);
    expect_attempt(2);
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, &receipts[1], 1), 0);
}

/* A receipt that does not name the present lease in every part takes no effect. */
static void only_the_present_receipt(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 2);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
    const struct receipt good = core_fixture_receipt(&fixture, SUB, 0);
    struct receipt wrong[6] = {good, good, good, good, good, good};
    wrong[0].sub_id = OTHER;
    wrong[1].shard_id++;
    wrong[2].sequence++;
    wrong[3].epoch++;
    wrong[4].grant++;
    wrong[5].attempt++;
    static const enum command_type types[] = {COMMAND_ACK, COMMAND_NACK, COMMAND_EXTEND};
    for (size_t type = 0; type < 3; type++) {
        struct command command = {
            .type = types[type],
            .settle = {.sub_id = SUB, .receipts = wrong, .count = 6, .results = fixture.results}};
        core_fixture_apply(&fixture, &command, ERR_NONE);
        for (size_t index = 0; index < 6; index++) {
            assert_int_equal(fixture.results[index], ERR_LEASE_LOST);
        }
    }
    const struct receipt twice[] = {good, good};
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_ACK, twice, 2), 1);
    assert_int_equal(fixture.results[1], ERR_LEASE_LOST);
}

/* Extending moves the end of a lease from now on, forward or back. */
static void extend(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    expect_attempt(1);
    struct receipt receipt = core_fixture_receipt(&fixture, SUB, 0);
    fixture.now_ms += LEASE_MS - 1;
    assert_int_equal(core_fixture_settle(&fixture, COMMAND_EXTEND, &receipt, 1), 1);
    core_fixture_advance(&fixture, LEASE_MS - 1);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 0);
    struct command command = {.type = COMMAND_EXTEND,
                              .settle = {.sub_id = SUB,
                                         .receipts = &receipt,
                                         .count = 1,
                                         .results = fixture.results,
                                         .lease_ms = 5}};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    assert_int_equal(fixture.results[0], ERR_NONE);
    core_fixture_advance(&fixture, 4);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 0);
    core_fixture_advance(&fixture, 1);
    expect_attempt(2);
}

/* A lost lease waits for the subscription's retry delay before it is delivered again. */
static void retry_delay_after_a_lost_lease(void **state)
{
    (void)state;
    settings((struct sub_settings){.lease_ms = LEASE_MS, .retry_delay_ms = 500});
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    expect_attempt(1);
    core_fixture_advance(&fixture, LEASE_MS);
    assert_int_equal(core_fixture_stats(&fixture, SUB).scheduled, 1);
    core_fixture_advance(&fixture, 499);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 0);
    core_fixture_advance(&fixture, 1);
    expect_attempt(2);
}

/* Time never runs backwards: a stamp older than the last one counts as the last one. */
static void time_does_not_run_back(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    fixture.now_ms -= 5000;
    expect_attempt(1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->due_ms, CORE_FIXTURE_START_MS + LEASE_MS);
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    expect_attempt(1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->published_ms, CORE_FIXTURE_START_MS);
    fixture.now_ms += 5000;
}

/* ---- nack, attempts, dead letters ----------------------------------------------------------- */

/* A nack gives a message back: at once, or after its delay to the millisecond. */
static void nack_delay(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    expect_attempt(1);
    assert_true(nack((struct settle){0}));
    expect_attempt(2);
    assert_true(nack((struct settle){.has_delay = true, .delay_ms = 1000}));
    core_fixture_advance(&fixture, 999);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 0);
    core_fixture_advance(&fixture, 1);
    expect_attempt(3);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 1);
}

/* A delivery that never reached the client is given back without counting as an attempt. */
static void release_does_not_count(void **state)
{
    (void)state;
    settings((struct sub_settings){.lease_ms = LEASE_MS, .max_attempts = 1});
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    for (int round = 0; round < 3; round++) {
        expect_attempt(1);
        assert_true(nack((struct settle){.release = true}));
    }
    expect_attempt(1);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 1);
}

/* After max_attempts deliveries a message is a dead letter with its reason and last note, and not
 * one delivery earlier. */
static void attempts_used_up(void **state)
{
    (void)state;
    enum { MAX = 3 };
    settings((struct sub_settings){.lease_ms = LEASE_MS, .max_attempts = MAX});
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    core_fixture_commit(&fixture);
    for (uint16_t attempt = 1; attempt <= MAX; attempt++) {
        expect_attempt(attempt);
        assert_int_equal(core_fixture_stats(&fixture, SUB).dead, 0);
        core_fixture_restart(&fixture); /* uncommitted: the lease never was */
        expect_attempt(attempt);
        assert_true(nack((struct settle){.note = span_text("no luck")}));
        core_fixture_commit(&fixture);
    }
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 0);
    const struct delivery *dead = the_dead_letter();
    assert_int_equal(dead->reason, DEAD_ATTEMPTS);
    assert_int_equal(dead->attempt, MAX);
    assert_int_equal(dead->due_ms, fixture.now_ms);
    assert_true(span_is(delivery_note(&fixture.reply, dead), "no luck"));
    assert_true(span_is(delivery_body(&fixture.reply, dead), "shard 10 message 0"));
    assert_int_equal(fixture.effects.dead_lettered, 1);
}

/* The last attempt's lost lease makes a dead letter too, and says so. */
static void lost_lease_buries(void **state)
{
    (void)state;
    settings((struct sub_settings){.lease_ms = LEASE_MS, .max_attempts = 1});
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    expect_attempt(1);
    core_fixture_advance(&fixture, LEASE_MS);
    const struct delivery *dead = the_dead_letter();
    assert_int_equal(dead->reason, DEAD_ATTEMPTS);
    assert_true(span_is(delivery_note(&fixture.reply, dead), "lease expired"));
}

/* A message refused for good is a dead letter at its first attempt; notes may have any size up to
 * their bound. */
static void rejected(void **state)
{
    (void)state;
    static char note[CORE_NOTE_MAX];
    memset(note, 'n', sizeof note);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    expect_attempt(1);
    assert_true(nack((struct settle){.reject = true, .note = span_of(note, sizeof note)}));
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    const struct delivery *dead = the_dead_letter();
    assert_int_equal(dead->reason, DEAD_REJECTED);
    assert_int_equal(dead->note_size, CORE_NOTE_MAX);
}

/* The number of attempts stops at its greatest value instead of beginning again. */
static void attempts_saturate(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    for (uint32_t round = 0; round < UINT16_MAX + 3; round++) {
        assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
        assert_true(nack((struct settle){0}));
        if (round % 1000 == 0) {
            core_fixture_commit(&fixture);
        }
    }
    expect_attempt(UINT16_MAX);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 1);
}

/* ---- delay, time to live -------------------------------------------------------------------- */

/* A delayed message is delivered at its time, and not a millisecond before. */
static void delay(void **state)
{
    (void)state;
    assert_int_equal(publish((struct message_in){.delay_ms = 1000}, "later"), ERR_NONE);
    assert_int_equal(publish((struct message_in){0}, "now"), ERR_NONE);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 1);
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 1);
    core_fixture_advance(&fixture, 999);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
    fixture.effects.woken.size = 0;
    core_fixture_advance(&fixture, 1);
    assert_int_equal(fixture.effects.woken.size, sizeof(uint32_t));
    expect_attempt(1);
}

/* A delay that has passed before anybody asked costs nothing. */
static void delay_already_over(void **state)
{
    (void)state;
    assert_int_equal(publish((struct message_in){.delay_ms = 1000}, "later"), ERR_NONE);
    fixture.now_ms += 1000;
    expect_attempt(1);
    assert_int_equal(core_fixture_entries(&fixture, STORE_READY), 0);
}

/* A message is delivered until its time to live ends, and then is a dead letter `expired`. */
static void time_to_live(void **state)
{
    (void)state;
    assert_int_equal(publish((struct message_in){.ttl_ms = 1000}, "short"), ERR_NONE);
    assert_int_equal(publish((struct message_in){.ttl_ms = 1001}, "longer"), ERR_NONE);
    fixture.now_ms += 1000;
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->sequence, 1);
    assert_int_equal(reply_delivery(&fixture.reply, 0)->expires_ms, CORE_FIXTURE_START_MS + 1001);
    const struct delivery *dead = the_dead_letter();
    assert_int_equal(dead->reason, DEAD_EXPIRED);
    assert_int_equal(dead->sequence, 0);
}

/* ---- idempotency, atomic batches, refusals -------------------------------------------------- */

/* Within the window a key gives the first result again, to the last millisecond; at its end the
 * key is free. */
static void idempotency_window(void **state)
{
    (void)state;
    enum { WINDOW_MS = 5000 };
    static const struct {
        uint64_t after_ms;
        bool replayed;
    } cases[] = {{0, true}, {WINDOW_MS - 1, true}, {WINDOW_MS, false}, {WINDOW_MS + 1, false}};
    const struct topic_settings window = {.dedup_window_ms = WINDOW_MS};
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, &window);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        const char key[] = {'k', (char)('0' + index), '\0'};
        const struct message_in message = {.idempotency_key = span_text(key)};
        assert_int_equal(publish(message, "once"), ERR_NONE);
        assert_false(fixture.published.replayed);
        uint64_t first = fixture.published.sequence;
        fixture.now_ms += cases[index].after_ms;
        core_fixture_commit(&fixture);
        core_fixture_restart(&fixture);
        assert_int_equal(publish(message, "once"), ERR_NONE);
        assert_int_equal(fixture.published.replayed, cases[index].replayed);
        assert_int_equal(fixture.published.sequence, cases[index].replayed ? first : first + 1);
        assert_int_equal(fixture.published.shard_id, SHARD);
    }
    core_fixture_advance(&fixture, 2 * WINDOW_MS);
    assert_int_equal(core_fixture_entries(&fixture, STORE_DEDUP), 0);
    assert_int_equal(core_fixture_entries(&fixture, STORE_DUE), 0);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 6);
}

/* A key used again right after its window, before anything else happened, has a window of its own.
 */
static void idempotency_key_again(void **state)
{
    (void)state;
    const struct topic_settings window = {.dedup_window_ms = 5000};
    const struct message_in message = {.idempotency_key = span_text("k")};
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, &window);
    assert_int_equal(publish(message, "once"), ERR_NONE);
    fixture.now_ms += 5000;
    assert_int_equal(publish(message, "again"), ERR_NONE);
    assert_false(fixture.published.replayed);
    core_fixture_advance(&fixture, 0); /* the first window's end */
    assert_int_equal(publish(message, "again"), ERR_NONE);
    assert_true(fixture.published.replayed);
}

/* A key used again with another message is refused, and the first message stays. */
static void idempotency_key_reused(void **state)
{
    (void)state;
    const struct topic_settings window = {.dedup_window_ms = 5000};
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, &window);
    const struct message_in message = {.idempotency_key = span_text("k")};
    assert_int_equal(publish(message, "one"), ERR_NONE);
    assert_int_equal(publish(message, "two"), ERR_IDEMPOTENCY_REUSED);
    struct message_in keyed = message;
    keyed.key = span_text("o"); /* the same bytes, cut elsewhere: the broker cannot tell */
    assert_int_equal(publish(keyed, "ne"), ERR_NONE);
    assert_true(fixture.published.replayed);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 1);
}

/* Publishes three messages under a batch key, the middle one too large; `body` tells batches apart.
 */
static enum err_code publish_keyed(const char *batch_key, const char *body,
                                   struct publish_result results[3])
{
    static const uint8_t large[CORE_KEY_MAX + 1];
    struct message_in messages[3] = {
        {.shard_id = SHARD, .body = span_text(body)},
        {.shard_id = SHARD, .key = span_of(large, sizeof large)},
        {.shard_id = SHARD, .body = span_text("last")},
    };
    for (size_t index = 0; index < 3; index++) {
        messages[index].payload_hash =
            XXH3_64bits(messages[index].body.data, messages[index].body.size);
    }
    struct command command = {.type = COMMAND_PUBLISH,
                              .publish = {.topic_id = TOPIC,
                                          .batch_key = span_text(batch_key),
                                          .messages = messages,
                                          .count = 3,
                                          .results = results}};
    assert_null(core_fixture_try(&fixture, &command));
    return fixture.reply.code;
}

/* A batch under its key gives the first results again, refusals too, over commits and restarts and
 * to the last millisecond of the window; then it is published anew. */
static void batch_key_window(void **state)
{
    (void)state;
    enum { WINDOW_MS = 5000 };
    const struct topic_settings window = {.dedup_window_ms = WINDOW_MS};
    struct publish_result first[3];
    struct publish_result again[3];
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, &window);
    assert_int_equal(publish_keyed("b", "x", first), ERR_NONE);
    assert_int_equal(first[1].code, ERR_TOO_LARGE);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(publish_keyed("b", "x", again), ERR_NONE);
        for (size_t index = 0; index < 3; index++) {
            assert_int_equal(again[index].code, first[index].code);
            assert_int_equal(again[index].replayed, index != 1);
            assert_int_equal(again[index].sequence, first[index].sequence);
            assert_int_equal(again[index].shard_id, first[index].shard_id);
            assert_int_equal(again[index].shard_number, first[index].shard_number);
        }
        fixture.now_ms += round == 1 ? WINDOW_MS - 1 : 0;
        core_fixture_commit(&fixture);
        core_fixture_restart(&fixture);
    }
    fixture.now_ms += 1;
    assert_int_equal(publish_keyed("b", "x", again), ERR_NONE);
    assert_false(again[0].replayed);
    assert_int_equal(again[0].sequence, first[2].sequence + 1);
    core_fixture_advance(&fixture, 2 * WINDOW_MS);
    assert_int_equal(core_fixture_entries(&fixture, STORE_DEDUP), 0);
    assert_int_equal(core_fixture_entries(&fixture, STORE_DUE), 0);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 4);
}

/* Other messages under a batch key are refused as a whole; a message's idempotency key of the same
 * bytes is another key. */
static void batch_key_reused(void **state)
{
    (void)state;
    const struct topic_settings window = {.dedup_window_ms = 5000};
    struct publish_result results[3];
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, &window);
    assert_int_equal(publish_keyed("b", "x", results), ERR_NONE);
    assert_int_equal(publish_keyed("b", "y", results), ERR_IDEMPOTENCY_REUSED);
    for (size_t index = 0; index < 3; index++) {
        assert_int_equal(results[index].code, ERR_IDEMPOTENCY_REUSED);
    }
    const struct message_in message = {.idempotency_key = span_text("b")};
    assert_int_equal(publish(message, "x"), ERR_NONE);
    assert_false(fixture.published.replayed);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 3);
}

/* Without a window, keys are not remembered. */
static void no_window_no_memory(void **state)
{
    (void)state;
    const struct message_in message = {.idempotency_key = span_text("k")};
    assert_int_equal(publish(message, "one"), ERR_NONE);
    assert_int_equal(publish(message, "one"), ERR_NONE);
    assert_false(fixture.published.replayed);
    assert_int_equal(core_fixture_entries(&fixture, STORE_DEDUP), 0);
}

static void publish_two(bool atomic, const struct message_in messages[2],
                        struct publish_result results[2])
{
    struct command command = {.type = COMMAND_PUBLISH,
                              .publish = {.topic_id = TOPIC,
                                          .atomic = atomic,
                                          .messages = messages,
                                          .count = 2,
                                          .results = results}};
    assert_null(core_fixture_try(&fixture, &command));
}

/* Of an atomic batch either all messages are taken or none; of another one those that can be. */
static void atomic_batch(void **state)
{
    (void)state;
    struct publish_result results[2] = {{.code = ERR_NONE}};
    const struct message_in empty = {0};
    uint64_t hash = core_fixture_hash(&empty);
    const struct message_in good[] = {{.shard_id = SHARD, .payload_hash = hash},
                                      {.shard_id = SHARD, .payload_hash = hash}};
    const struct message_in bad[] = {{.shard_id = SHARD, .payload_hash = hash}, {.shard_id = 999}};
    publish_two(true, bad, results);
    assert_int_equal(fixture.reply.code, ERR_ABORTED);
    assert_int_equal(results[0].code, ERR_ABORTED);
    assert_int_equal(results[1].code, ERR_NOT_FOUND);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 0);
    publish_two(true, good, results);
    assert_int_equal(fixture.reply.code, ERR_NONE);
    assert_int_equal(results[1].sequence, 1);
    publish_two(false, bad, results);
    assert_int_equal(results[0].code, ERR_NONE);
    assert_int_equal(results[1].code, ERR_NOT_FOUND);
    assert_int_equal(core_fixture_stats(&fixture, SUB).enqueued, 3);
}

/* On a full volume publishing is refused, and everything that gives room back still works. */
static void no_space(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 2);
    fixture.no_space = true;
    assert_int_equal(publish((struct message_in){0}, "one more"), ERR_NO_SPACE);
    assert_int_equal(fixture.reply.code, ERR_NO_SPACE);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 2);
    fixture.no_space = false;
    assert_int_equal(publish((struct message_in){0}, "one more"), ERR_NONE);
}

/* A batch that was published before the volume was full takes no room when it is sent again:
 * whoever missed its answer must not be told that it was refused. */
static void no_space_for_a_batch_again(void **state)
{
    (void)state;
    const struct topic_settings window = {.dedup_window_ms = 5000};
    struct publish_result first[3];
    struct publish_result again[3];
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, &window);
    assert_int_equal(publish_keyed("b", "x", first), ERR_NONE);
    core_fixture_commit(&fixture);
    fixture.no_space = true;
    assert_int_equal(publish_keyed("b", "x", again), ERR_NONE);
    assert_true(again[0].replayed);
    assert_int_equal(again[2].sequence, first[2].sequence);
    assert_int_equal(publish_keyed("b", "y", again), ERR_IDEMPOTENCY_REUSED);
    assert_int_equal(publish_keyed("c", "x", again), ERR_NO_SPACE);
    assert_int_equal(again[1].code, ERR_NO_SPACE);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 2);
}

/* Commands about things that do not exist, or no longer, say so and change nothing. */
static void unknown_things(void **state)
{
    (void)state;
    const struct receipt receipt = {.sub_id = 7, .shard_id = SHARD};
    const struct message_in message = {.shard_id = SHARD};
    struct command commands[] = {
        {.type = COMMAND_PULL, .pull = {.sub_id = 7, .max = 1}},
        {.type = COMMAND_ACK,
         .settle = {.sub_id = 7, .receipts = &receipt, .count = 1, .results = fixture.results}},
        {.type = COMMAND_PEEK, .peek = {.sub_id = 7}},
        {.type = COMMAND_REDRIVE, .redrive = {.sub_id = 7, .max = 1}},
        {.type = COMMAND_PURGE, .purge = {.sub_id = 7}},
        {.type = COMMAND_SEEK, .seek = {.sub_id = 7}},
        {.type = COMMAND_SUB_PUT, .sub_put = {.sub_id = 8, .topic_id = 9}},
    };
    for (size_t index = 0; index < sizeof commands / sizeof commands[0]; index++) {
        core_fixture_apply(&fixture, &commands[index], ERR_NOT_FOUND);
    }
    assert_int_equal(fixture.results[0], ERR_NOT_FOUND);
    assert_int_equal(core_fixture_publish(&fixture, 9, &message), ERR_NOT_FOUND);
    struct command drop_topic = {.type = COMMAND_TOPIC_DROP, .topic_drop = 9};
    struct command drop_sub = {.type = COMMAND_SUB_DROP, .sub_drop = 7};
    struct command catalog = {.type = COMMAND_CATALOG};
    core_fixture_apply(&fixture, &drop_topic, ERR_NONE); /* gone is what was asked for */
    core_fixture_apply(&fixture, &drop_sub, ERR_NONE);
    core_fixture_apply(&fixture, &catalog, ERR_INVALID);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_sub, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(publish_pull_ack),
        TEST(content_survives),
        TEST(bodies_of_any_size),
        TEST(pull_bounds),
        TEST(in_flight_bound),
        TEST(pull_is_fair),
        TEST(paused),
        TEST(publishing_wakes),
        TEST(pulling_all_wakes_nobody),
        TEST(lease_ends_on_time),
        TEST(only_the_present_receipt),
        TEST(extend),
        TEST(retry_delay_after_a_lost_lease),
        TEST(time_does_not_run_back),
        TEST(nack_delay),
        TEST(release_does_not_count),
        TEST(attempts_used_up),
        TEST(lost_lease_buries),
        TEST(rejected),
        TEST(attempts_saturate),
        TEST(delay),
        TEST(delay_already_over),
        TEST(time_to_live),
        TEST(idempotency_window),
        TEST(idempotency_key_again),
        TEST(idempotency_key_reused),
        TEST(batch_key_window),
        TEST(batch_key_reused),
        TEST(no_window_no_memory),
        TEST(atomic_batch),
        TEST(no_space),
        TEST(no_space_for_a_batch_again),
        TEST(unknown_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
