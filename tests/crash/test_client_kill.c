/* kill -9 of the real broker while the C library publishes with resend, over and over: at the end
 * each message is in the log exactly once, and the client's callers have noticed nothing.
 *
 * FLARE_SEED replays the choices (not the timing), FLARE_KILL_CYCLES asks for more kills. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exactly_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
