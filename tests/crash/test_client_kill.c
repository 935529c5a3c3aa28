/* kill -9 of the real broker while the C library publishes with resend and streams, over and over:
 * each message is in the log exactly once and is handled at least once, the client's callers notice
 * nothing, and a handler whose lease has been lost is told.
 *
 * FLARE_SEED replays the choices (not the timing), FLARE_KILL_CYCLES asks for more kills. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/base/random.h"
#include "tests/lib/client_scene.h"

enum { CYCLES = 50, AHEAD = 4000, CONFIRMED_MAX = 3000 };

static uint64_t environment_number(const char *name, uint64_t standard)
{
    const char *text = getenv(name);
    return text == NULL ? standard : strtoull(text, NULL, 0);
}

static void test_exactly_once(void **state)
{
    (void)state;
    uint64_t cycles = environment_number("FLARE_KILL_CYCLES", CYCLES);
    uint64_t seed = environment_number("FLARE_SEED", random_seed());
    struct client_scene scene;
    struct client_tally tally;
    struct client_census census;
    struct random random;
    /* Many small batches are under way at any time. */
    const struct flare_options options = {
        .batch_messages = 64, .linger_us = 1000, .reconnect_min_ms = 5, .reconnect_max_ms = 20};
    print_message("seed %llu\n", (unsigned long long)seed);
    random_init(&random, seed);
    client_tally_init(&tally);
    client_scene_init(&scene, "{\"shards\":6}", NULL, &options);
    uint32_t sent = 0;
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        uint32_t confirmed = sent + (uint32_t)random_below(&random, CONFIRMED_MAX);
        client_scene_publish_numbers(&scene, &tally, sent, sent + AHEAD);
        sent += AHEAD;
        client_tally_wait(&tally, confirmed);
        client_scene_restart(&scene, true);
    }
    client_tally_wait(&tally, sent);
    assert_int_equal(tally.failed, 0);
    print_message("%u messages, %u of them published by a try whose answer was lost\n", sent,
                  tally.replayed);
    client_census_init(&census, sent);
    client_census_take(&census, &scene);
    client_census_expect_once(&census);
    client_census_deinit(&census);
    client_scene_deinit(&scene);
    client_tally_deinit(&tally);
}

/* ---- streams ---- */

enum { TAKEN_IN = 200 }; /* one message in so many is taken from its handler */

struct handled {
    struct client_tally tally; /* counts messages handled for the first time */
    pthread_mutex_t lock;
    struct client_census census;
    struct flare_client *thief;
    _Atomic uint32_t told; /* handlers that were told that their lease was lost */
    _Atomic uint32_t taken;
};

/* Gives the message back over another connection, as if its lease had run out, and waits until its
 * handler's own side knows; false: the broker was killed meanwhile and did not take it. */
static bool take_away(struct handled *handled, const struct flare_delivery *delivery)
{
    enum flare_code code =
        flare_nack(handled->thief, &delivery->source, NULL, &delivery->receipt, 1, NULL);
    if (code != FLARE_OK) {
        return false;
    }
    atomic_fetch_add(&handled->taken, 1);
    while (!flare_delivery_lost(delivery)) {
        sched_yield();
    }
    atomic_fetch_add(&handled->told, 1);
    return true;
}

static enum flare_verdict handle(void *user, const struct flare_delivery *delivery)
{
    struct handled *handled = user;
    if (delivery->sequence % TAKEN_IN == 0 && delivery->attempt == 1 &&
        take_away(handled, delivery)) {
        return FLARE_ACK; /* too late, and without effect: it comes again */
    }
    pthread_mutex_lock(&handled->lock);
    bool is_first = client_census_add(&handled->census, delivery);
    pthread_mutex_unlock(&handled->lock);
    if (is_first) {
        client_tally_add(&handled->tally);
    }
    return FLARE_ACK;
}

/* Messages are handled while they are published, over kills of the broker: each at least once. */
static void test_at_least_once(void **state)
{
    (void)state;
    enum { MESSAGES = 400 }; /* of each cycle */
    uint64_t cycles = environment_number("FLARE_KILL_CYCLES", CYCLES);
    uint32_t count = (uint32_t)cycles * MESSAGES;
    struct client_scene scene;
    struct client_tally tally;
    struct handled handled = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct flare_stream *stream = NULL;
    const struct flare_options options = {.reconnect_min_ms = 5, .reconnect_max_ms = 20};
    const struct flare_stream_options streaming = {
        .handler = handle, .user = &handled, .concurrency = 4, .prefetch = 50};
    client_tally_init(&tally);
    client_tally_init(&handled.tally);
    client_census_init(&handled.census, count);
    client_scene_init(&scene, "{\"shards\":6}", "{\"lease\":\"1s\"}", &options);
    handled.thief = client_scene_connect(&scene);
    assert_int_equal(
        flare_stream_open(scene.client, &client_scene_source, &streaming, &stream, NULL), FLARE_OK);
    for (uint32_t cycle = 0; cycle < cycles; cycle++) {
        client_scene_publish_numbers(&scene, &tally, cycle * MESSAGES, (cycle + 1) * MESSAGES);
        client_tally_wait(&handled.tally, cycle * MESSAGES + MESSAGES / 2);
        client_scene_restart(&scene, true);
    }
    client_tally_wait(&tally, count);
    assert_int_equal(tally.failed, 0);
    client_tally_wait(&handled.tally, count);
    flare_stream_close(stream); /* when its last handlers have been told */
    uint32_t taken = atomic_load(&handled.taken);
    assert_int_equal(atomic_load(&handled.told), taken);
    assert_true(taken > 0);
    assert_int_equal(handled.census.others, 0);
    print_message("%u messages handled at least once, %u handlers told of a lost lease\n", count,
                  taken);
    flare_close(handled.thief);
    client_scene_deinit(&scene);
    client_census_deinit(&handled.census);
    client_tally_deinit(&handled.tally);
    client_tally_deinit(&tally);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exactly_once),
        cmocka_unit_test(test_at_least_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
