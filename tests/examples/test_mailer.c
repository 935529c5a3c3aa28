/* An example: the test of a program that uses Flare, written with cmocka and libflare-broker.
 *
 *   cc test_mailer.c $(pkg-config --cflags --libs flare-broker cmocka)
 *
 * The program under test is a mailer: it takes an order from the queue, sends a mail, and
 * acknowledges the order. What it must survive is a crash in between. Each test has a broker of its
 * own, in memory, without a socket and with a clock that the test moves: nothing here sleeps, and
 * the tests can run at the same time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <flare/harness.h>

enum { LEASE_MS = 30000, RETRY_MS = 5000 };

static const struct flare_source mail_source = {.topic = "orders", .subscription = "mail"};

/* ---- the program under test ------------------------------------------------------------------ */

/* Takes one order, sends its mail, and acknowledges it, unless it `crashes` before. Whether there
 * was one. It would be given a client that is connected to the real broker. */
static bool mailer_run_once(struct flare_client *client, bool crashes, unsigned *mails)
{
    struct flare_batch *orders = NULL;
    assert_int_equal(flare_pull(client, &mail_source, NULL, &orders, NULL), FLARE_OK);
    bool found = flare_batch_count(orders) > 0;
    if (found) {
        ++*mails;
    }
    if (found && !crashes) {
        assert_int_equal(flare_batch_ack(client, orders, NULL), FLARE_OK);
    }
    flare_batch_free(orders);
    return found;
}

/* ---- its tests ------------------------------------------------------------------------------- */

static int setup(void **state)
{
    const struct flare_subscription mail = {
        .lease_ms = LEASE_MS, .retry_delay_ms = RETRY_MS, .max_attempts = 2};
    struct flare_harness *harness = NULL;
    if (flare_harness_open(NULL, &harness, NULL) != FLARE_OK) {
        return -1;
    }
    *state = harness;
    struct flare_broker *broker = flare_harness_broker(harness);
    return flare_broker_topic_put(broker, "orders", NULL, NULL) != FLARE_OK ||
           flare_broker_subscription_put(broker, &mail_source, &mail, NULL) != FLARE_OK;
}

static int teardown(void **state)
{
    flare_harness_close(*state); /* of a test that failed, shows the log */
    return 0;
}

static void publish(struct flare_harness *harness, const char *order)
{
    const struct flare_message message = {.body = order, .body_size = strlen(order)};
    assert_int_equal(flare_publish(flare_harness_client(harness), "orders", &message, NULL, NULL),
                     FLARE_OK);
}

static void expect(struct flare_harness *harness, struct flare_depths depths)
{
    assert_true(flare_harness_expect_depths(harness, &mail_source, &depths));
}

static void advance(struct flare_harness *harness, uint64_t ms)
{
    assert_int_equal(flare_broker_advance(flare_harness_broker(harness), ms, NULL), FLARE_OK);
}

/* An order gives one mail, and is done. */
static void test_mails_each_order_once(void **state)
{
    struct flare_harness *harness = *state;
    unsigned mails = 0;
    publish(harness, "order 1");
    publish(harness, "order 2");
    expect(harness, (struct flare_depths){.enqueued = 2});
    while (mailer_run_once(flare_harness_client(harness), false, &mails)) {
    }
    assert_int_equal(mails, 2);
    expect(harness, (struct flare_depths){0});
    flare_harness_pass(harness);
}

/* A mailer that crashes loses no order: it comes again once the lease and the delay are over. */
static void test_crash_loses_no_order(void **state)
{
    struct flare_harness *harness = *state;
    unsigned mails = 0;
    publish(harness, "order 1");
    assert_true(mailer_run_once(flare_harness_client(harness), true, &mails));
    expect(harness, (struct flare_depths){.leased = 1});
    advance(harness, LEASE_MS - 1);
    expect(harness, (struct flare_depths){.leased = 1});
    advance(harness, 1);
    expect(harness, (struct flare_depths){.scheduled = 1});
    assert_false(mailer_run_once(flare_harness_client(harness), false, &mails));
    advance(harness, RETRY_MS);
    assert_true(mailer_run_once(flare_harness_client(harness), false, &mails));
    expect(harness, (struct flare_depths){0});
    flare_harness_pass(harness);
}

/* An order that makes it crash every time does not come for ever. */
static void test_poison_becomes_dead_letter(void **state)
{
    struct flare_harness *harness = *state;
    static const char *const dead[] = {"order 666", NULL};
    unsigned mails = 0;
    publish(harness, dead[0]);
    for (unsigned attempt = 1; attempt <= 2; attempt++) {
        assert_true(mailer_run_once(flare_harness_client(harness), true, &mails));
        advance(harness, LEASE_MS + RETRY_MS);
    }
    assert_false(mailer_run_once(flare_harness_client(harness), true, &mails));
    assert_true(flare_harness_expect_bodies(harness, &mail_source, FLARE_MESSAGE_DEAD, dead));
    flare_harness_pass(harness);
}

int main(void)
{
#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_mails_each_order_once),
        CASE(test_crash_loses_no_order),
        CASE(test_poison_becomes_dead_letter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
