#include "broker/core/codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "broker/base/random.h"

enum { ITEMS_MAX = 5, ROUNDS = 200 };

/* A command with a value of its own in every field that is stored. */
struct sample {
    struct command command;
    struct message_in messages[ITEMS_MAX];
    struct receipt receipts[ITEMS_MAX];
    char text[CORE_NOTE_MAX + 4096];
};

static const enum command_type types[] = {COMMAND_PUBLISH, COMMAND_PULL,   COMMAND_ACK,
                                          COMMAND_NACK,    COMMAND_EXTEND, COMMAND_TICK};

enum { TYPES = sizeof types / sizeof *types };

static struct span some_text(struct sample *sample, struct random *random, size_t max)
{
    return span_of(sample->text, random_below(random, max + 1));
}

static bool toss(struct random *random)
{
    return random_chance(random, 1, 2);
}

static uint32_t any32(struct random *random)
{
    return (uint32_t)random_next(random);
}

static void draw_messages(struct sample *sample, struct random *random, uint32_t count)
{
    for (uint32_t index = 0; index < count; index++) {
        sample->messages[index] = (struct message_in){
            .shard_id = any32(random),
            .key = some_text(sample, random, 300),
            .attributes = some_text(sample, random, 300),
            .body = some_text(sample, random, 4000),
            .idempotency_key = some_text(sample, random, 255),
            .payload_hash = random_next(random),
            .delay_ms = random_next(random),
            .ttl_ms = random_next(random),
        };
    }
}

static void draw_arrays(struct sample *sample, struct random *random)
{
    for (size_t at = 0; at < sizeof sample->text; at++) {
        sample->text[at] = (char)random_next(random);
    }
    draw_messages(sample, random, ITEMS_MAX);
    for (uint32_t index = 0; index < ITEMS_MAX; index++) {
        sample->receipts[index] =
            (struct receipt){any32(random), any32(random), random_next(random),
                             any32(random), any32(random), (uint16_t)random_next(random)};
    }
}

static struct settle any_settle(struct sample *sample, struct random *random)
{
    return (struct settle){.sub_id = any32(random),
                           .receipts = sample->receipts,
                           .count = (uint32_t)random_below(random, ITEMS_MAX + 1),
                           .has_delay = toss(random),
                           .reject = toss(random),
                           .release = toss(random),
                           .delay_ms = random_next(random),
                           .note = some_text(sample, random, CORE_NOTE_MAX),
                           .lease_ms = random_next(random)};
}

static void draw(struct sample *sample, struct random *random, enum command_type type)
{
    struct command *command = &sample->command;
    draw_arrays(sample, random);
    *command =
        (struct command){.type = type, .now_ms = random_next(random), .no_space = toss(random)};
    uint32_t count = (uint32_t)random_below(random, ITEMS_MAX + 1);
    if (type == COMMAND_PUBLISH) {
        command->publish = (struct publish){.topic_id = any32(random),
                                            .atomic = toss(random),
                                            .batch_key = some_text(sample, random, 64),
                                            .messages = sample->messages,
                                            .count = count};
    } else if (type == COMMAND_PULL) {
        command->pull =
            (struct pull){any32(random), any32(random), any32(random),      toss(random),
                          any32(random), any32(random), random_next(random)};
    } else if (type == COMMAND_TICK) {
        command->tick.budget = any32(random);
    } else {
        command->settle = any_settle(sample, random);
    }
}

static void expect_publish(const struct publish *is, const struct publish *was)
{
    assert_int_equal(is->topic_id, was->topic_id);
    assert_int_equal(is->atomic, was->atomic);
    assert_true(span_equal(is->batch_key, was->batch_key));
    assert_int_equal(is->count, was->count);
    for (uint32_t index = 0; index < was->count; index++) {
        const struct message_in *a = &is->messages[index];
        const struct message_in *b = &was->messages[index];
        assert_int_equal(a->shard_id, b->shard_id);
        assert_true(span_equal(a->key, b->key));
        assert_true(span_equal(a->attributes, b->attributes));
        assert_true(span_equal(a->body, b->body));
        assert_true(span_equal(a->idempotency_key, b->idempotency_key));
        assert_int_equal(a->payload_hash, b->payload_hash);
        assert_int_equal(a->delay_ms, b->delay_ms);
        assert_int_equal(a->ttl_ms, b->ttl_ms);
        is->results[index] = (struct publish_result){.code = ERR_BUSY}; /* there is room */
    }
}

static void expect_settle(const struct settle *is, const struct settle *was)
{
    assert_int_equal(is->sub_id, was->sub_id);
    assert_int_equal(is->count, was->count);
    assert_int_equal(is->has_delay, was->has_delay);
    assert_int_equal(is->reject, was->reject);
    assert_int_equal(is->release, was->release);
    assert_int_equal(is->delay_ms, was->delay_ms);
    assert_int_equal(is->lease_ms, was->lease_ms);
    assert_true(span_equal(is->note, was->note));
    for (uint32_t index = 0; index < was->count; index++) {
        const struct receipt *a = &is->receipts[index];
        const struct receipt *b = &was->receipts[index];
        assert_int_equal(a->sub_id, b->sub_id);
        assert_int_equal(a->shard_id, b->shard_id);
        assert_int_equal(a->sequence, b->sequence);
        assert_int_equal(a->epoch, b->epoch);
        assert_int_equal(a->grant, b->grant);
        assert_int_equal(a->attempt, b->attempt);
        is->results[index] = ERR_BUSY;
    }
}

static void expect_pull(const struct pull *is, const struct pull *was)
{
    assert_int_equal(is->sub_id, was->sub_id);
    assert_int_equal(is->max, was->max);
    assert_int_equal(is->size_max, was->size_max);
    assert_int_equal(is->size_strict, was->size_strict);
    assert_int_equal(is->nonce, was->nonce);
    assert_int_equal(is->rotation, was->rotation);
    assert_int_equal(is->lease_ms, was->lease_ms);
}

static void expect_command(const struct command *is, const struct command *was)
{
    assert_int_equal(is->type, was->type);
    assert_int_equal(is->now_ms, was->now_ms);
    assert_int_equal(is->no_space, was->no_space);
    if (was->type == COMMAND_PUBLISH) {
        expect_publish(&is->publish, &was->publish);
    } else if (was->type == COMMAND_PULL) {
        expect_pull(&is->pull, &was->pull);
    } else if (was->type == COMMAND_ACK || was->type == COMMAND_NACK ||
               was->type == COMMAND_EXTEND) {
        expect_settle(&is->settle, &was->settle);
    } else {
        assert_int_equal(is->tick.budget, was->tick.budget);
    }
}

struct fixture {
    struct random random;
    struct codec_room room;
    struct buf bytes;
    struct buf again;
    struct sample sample;
};

static int setup(void **state)
{
    static struct fixture fixture;
    random_init(&fixture.random, 7);
    codec_room_init(&fixture.room);
    buf_init(&fixture.bytes, 1 << 20);
    buf_init(&fixture.again, 1 << 20);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    codec_room_deinit(&fixture->room);
    buf_deinit(&fixture->bytes);
    buf_deinit(&fixture->again);
    return 0;
}

static err_t decode(struct fixture *fixture, struct span *bytes, struct command *out)
{
    return codec_get(bytes, &fixture->room, out);
}

/* Every command comes back with every field, and gives the same bytes again. */
static void test_round_trip(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned round = 0; round < ROUNDS * TYPES; round++) {
        struct command command;
        draw(&fixture->sample, &fixture->random, types[round % TYPES]);
        buf_reset(&fixture->bytes);
        codec_put(&fixture->sample.command, &fixture->bytes);
        struct span rest = buf_span(&fixture->bytes);
        assert_null(decode(fixture, &rest, &command));
        assert_int_equal(rest.size, 0);
        expect_command(&command, &fixture->sample.command);
        buf_reset(&fixture->again);
        codec_put(&command, &fixture->again);
        assert_true(span_equal(buf_span(&fixture->again), buf_span(&fixture->bytes)));
    }
}

/* Commands follow one another; each takes its bytes and no others. */
static void test_sequence(void **state)
{
    struct fixture *fixture = *state;
    struct command command;
    buf_reset(&fixture->bytes);
    for (unsigned index = 0; index < TYPES; index++) {
        draw(&fixture->sample, &fixture->random, types[index]);
        codec_put(&fixture->sample.command, &fixture->bytes);
    }
    struct span rest = buf_span(&fixture->bytes);
    for (unsigned index = 0; index < TYPES; index++) {
        assert_null(decode(fixture, &rest, &command));
        assert_int_equal(command.type, types[index]);
    }
    assert_int_equal(rest.size, 0);
    err_t err = decode(fixture, &rest, &command);
    assert_int_equal(err_code(err), ERR_CORRUPT);
    err_free(err);
}

static void expect_refused(struct fixture *fixture, struct span bytes)
{
    struct command command;
    err_t err = decode(fixture, &bytes, &command);
    assert_int_equal(err_code(err), ERR_CORRUPT);
    err_free(err);
}

/* What is cut short anywhere, or says so, is refused; nothing beyond it is read. */
static void test_truncation(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned index = 0; index < TYPES; index++) {
        draw(&fixture->sample, &fixture->random, types[index]);
        buf_reset(&fixture->bytes);
        codec_put(&fixture->sample.command, &fixture->bytes);
        for (size_t size = 0; size < fixture->bytes.size; size++) {
            expect_refused(fixture, span_of(fixture->bytes.data, size));
            if (size >= 4) {
                /* The size in front agrees with what is there, what follows does not. */
                buf_reset(&fixture->again);
                buf_append(&fixture->again, fixture->bytes.data, size);
                uint32_t inner = (uint32_t)(size - 4);
                memcpy(fixture->again.data, &inner, sizeof inner);
                expect_refused(fixture, buf_span(&fixture->again));
            }
        }
    }
}

/* A count that the bytes cannot hold makes nobody reserve memory for it. */
static void test_counts_are_not_believed(void **state)
{
    struct fixture *fixture = *state;
    const struct command publish = {.type = COMMAND_PUBLISH};
    buf_reset(&fixture->bytes);
    codec_put(&publish, &fixture->bytes);
    memset(fixture->bytes.data + fixture->bytes.size - 4, 0xff, 4);
    expect_refused(fixture, buf_span(&fixture->bytes));
    assert_true(fixture->room.items.capacity < 1 << 20);
}

/* A changed byte gives another command, whose bytes are those, or none. */
static void test_changed_bytes(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned index = 0; index < TYPES; index++) {
        draw(&fixture->sample, &fixture->random, types[index]);
        buf_reset(&fixture->bytes);
        codec_put(&fixture->sample.command, &fixture->bytes);
        for (size_t at = 0; at < fixture->bytes.size && at < 400; at++) {
            fixture->bytes.data[at] ^= (uint8_t)(1 + random_below(&fixture->random, 255));
            struct span rest = buf_span(&fixture->bytes);
            struct command command;
            err_t err = decode(fixture, &rest, &command);
            if (err == NULL) {
                buf_reset(&fixture->again);
                codec_put(&command, &fixture->again);
                assert_true(
                    span_equal(buf_span(&fixture->again),
                               span_of(fixture->bytes.data, fixture->bytes.size - rest.size)));
            }
            err_free(err);
        }
    }
}

/* What changes nothing has no bytes, nor what is committed at once; such a command is refused. */
static void test_what_is_taken(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned type = COMMAND_TOPIC_PUT; type <= COMMAND_CATALOG; type++) {
        bool taken = false;
        for (unsigned index = 0; index < TYPES; index++) {
            taken = taken || types[index] == (enum command_type)type;
        }
        assert_int_equal(codec_takes((enum command_type)type), taken);
        const struct command tick = {.type = COMMAND_TICK};
        buf_reset(&fixture->bytes);
        codec_put(&tick, &fixture->bytes);
        fixture->bytes.data[5] = (uint8_t)type;
        if (!taken) {
            expect_refused(fixture, buf_span(&fixture->bytes));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sequence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_counts_are_not_believed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_changed_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_taken, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
