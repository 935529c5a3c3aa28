/* Pulls through the router: what one gathers, and how it ends. */
#include "broker/volume/router.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/lib/pulls.h"

/* ---- what it gathers ------------------------------------------------------------------------ */

/* A pull gathers from every volume, up to `max`. */
static void test_gathers(void **state)
{
    (void)state;
    const uint32_t counts[] = {1, 2, 4};
    for (size_t index = 0; index < sizeof counts / sizeof *counts; index++) {
        struct volumes volumes;
        struct volumes_pull pull;
        pulls_open(&volumes, counts[index]);
        volumes_publish_many(&volumes, "t", 40);
        volumes_pull_start(&volumes, &pull, "t", "s", 30, 0);
        volumes_await(&volumes, &pull.done);
        assert_int_equal(volumes_pull_count(&pull), 30);
        volumes_pull_free(&pull);
        volumes_pull_start(&volumes, &pull, "t", "s", 30, PULLS_WAIT_MS);
        volumes_await(&volumes, &pull.done);
        assert_int_equal(volumes_pull_count(&pull), 10);
        volumes_pull_free(&pull);
        volumes_close(&volumes);
    }
}

/* The sizes of a pull's messages stay within size_max over all volumes together; only the first
 * message comes whatever its size. */
static void check_size_max(uint32_t size_max)
{
    enum { BODY = 10, COUNT = 24 };
    struct volumes volumes;
    uint32_t total = 0;
    pulls_open(&volumes, 4);
    for (uint32_t index = 0; index < COUNT; index++) {
        (void)volumes_publish(&volumes, "t", volumes_message("", "0123456789"));
    }
    while (total < COUNT) {
        struct volumes_pull pull;
        volumes_pull_with(&volumes, &pull,
                          (struct router_pull){.topic = span_text("t"),
                                               .sub = span_text("s"),
                                               .max = COUNT,
                                               .size_max = size_max});
        volumes_await(&volumes, &pull.done);
        uint32_t count = volumes_pull_count(&pull);
        uint32_t fits = size_max < BODY ? 1 : size_max / BODY;
        assert_in_range(count, 1, fits);
        total += count;
        volumes_pull_free(&pull);
    }
    assert_int_equal(total, COUNT);
    volumes_close(&volumes);
}

static void test_size_max(void **state)
{
    (void)state;
    const uint32_t sizes[] = {1, 9, 10, 11, 19, 20, 35, 79, 240, 1000};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        check_size_max(sizes[index]);
    }
}

/* Pulls of one message each begin at another volume in turn, so none of them is starved. */
static void test_rotates(void **state)
{
    (void)state;
    enum { COUNT = 4, PULLS = 16 };
    struct volumes volumes;
    uint32_t from[COUNT] = {0};
    pulls_open(&volumes, COUNT);
    volumes_publish_many(&volumes, "t", 100);
    for (uint32_t index = 0; index < PULLS; index++) {
        struct volumes_pull pull;
        struct catalog_topic *topic = NULL;
        pulls_start(&volumes, &pull, 0);
        const struct receipt receipt = pulls_expect_one(&volumes, &pull);
        from[catalog_shard_by_id(volumes.catalog, receipt.shard_id, &topic)->volume]++;
    }
    for (uint32_t volume = 0; volume < COUNT; volume++) {
        assert_int_equal(from[volume], PULLS / COUNT);
    }
    volumes_close(&volumes);
}

/* Messages that cannot be delivered yet do not hide one behind them, however many there are. */
static void test_behind_delayed(void **state)
{
    (void)state;
    enum { DELAYED = 17000, AT_ONCE = 1000 }; /* more than one command looks at */
    struct volumes volumes;
    struct volumes_pull pull;
    static struct message_in messages[AT_ONCE];
    static struct publish_result results[AT_ONCE];
    pulls_open_with(&volumes, (struct volumes_options){.count = 1}, 1);
    for (size_t index = 0; index < AT_ONCE; index++) {
        messages[index] = volumes_message("", "body");
        messages[index].delay_ms = PULLS_WAIT_MS;
    }
    for (uint32_t count = 0; count < DELAYED; count += AT_ONCE) {
        struct router_publish publish = {
            .topic = span_text("t"), .messages = messages, .count = AT_ONCE, .results = results};
        bool done = false;
        volumes_prepare(&volumes, &publish.operation, &done);
        router_start_publish(volumes.router, &publish);
        volumes_await(&volumes, &done);
        assert_int_equal(publish.operation.result.code, ERR_NONE);
        router_release(&publish.operation);
    }
    pulls_publish(&volumes);
    pulls_start(&volumes, &pull, 0);
    assert_int_equal(pulls_expect_one(&volumes, &pull).sequence, DELAYED);
    volumes_close(&volumes);
}

/* A volume whose next message is too large for what still fits is not taken for an empty one: each
 * of several waiting pulls gets one, wherever they lie. */
static void test_what_does_not_fit_is_there(void **state)
{
    (void)state;
    enum { PULLS = 4 };
    static const char body[] = "sixty bytes sixty bytes sixty bytes sixty bytes sixty bytes.";
    struct volumes volumes;
    struct volumes_pull pulls[PULLS];
    pulls_open(&volumes, 2);
    for (size_t index = 0; index < PULLS; index++) {
        volumes_pull_with(&volumes, &pulls[index],
                          (struct router_pull){.topic = span_text("t"),
                                               .sub = span_text("s"),
                                               .max = 10,
                                               .size_max = 100,
                                               .wait_ms = PULLS_WAIT_MS});
    }
    volumes_quiesce(&volumes);
    for (uint32_t index = 0; index < PULLS; index++) {
        const char *key = volumes_key_on(&volumes, "t", index % 2, index / 2);
        (void)volumes_publish(&volumes, "t", volumes_message(key, body));
    }
    for (size_t index = 0; index < PULLS; index++) {
        volumes_await(&volumes, &pulls[index].done);
        assert_int_equal(volumes_pull_count(&pulls[index]), 1);
        volumes_pull_free(&pulls[index]);
    }
    volumes_close(&volumes);
}

/* ---- ends ----------------------------------------------------------------------------------- */

/* A pull that waits for nothing ends empty at its deadline, not before. */
static void test_deadline(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pull;
    pulls_open(&volumes, 2);
    pulls_start(&volumes, &pull, 0);
    pulls_expect_code(&volumes, &pull, ERR_NONE);
    pulls_start(&volumes, &pull, 0);
    router_cancel_pull(volumes.router, &pull.pull);
    assert_int_equal(router_next_due_ms(volumes.router), 0); /* it is done at the next poll */
    pulls_expect_code(&volumes, &pull, ERR_UNAVAILABLE);
    pulls_start_waiting(&volumes, &pull);
    assert_int_equal(router_next_due_ms(volumes.router), VOLUMES_START_MS + PULLS_WAIT_MS);
    volumes_advance(&volumes, PULLS_WAIT_MS - 1);
    volumes_quiesce(&volumes);
    assert_false(pull.done);
    volumes_advance(&volumes, 1);
    pulls_expect_code(&volumes, &pull, ERR_NONE);
    assert_int_equal(router_next_due_ms(volumes.router), UINT64_MAX);
    volumes_close(&volumes);
}

/* A drain answers the pulls that wait, and those that would wait, and refuses new ones. */
static void test_drain(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[3];
    pulls_open(&volumes, 2);
    assert_int_equal(volumes_put_sub(&volumes, "t", "other", NULL), ERR_NONE);
    pulls_start_waiting(&volumes, &pulls[0]);
    pulls_start_held_of(&volumes, &pulls[1], 1, "other"); /* where nothing is known yet */
    router_drain(volumes.router);
    pulls_start(&volumes, &pulls[2], PULLS_WAIT_MS);
    volumes_unhold(&volumes, 1);
    for (size_t index = 0; index < 3; index++) {
        pulls_expect_code(&volumes, &pulls[index], ERR_UNAVAILABLE);
    }
    assert_int_equal(router_pending(volumes.router), 0);
    volumes_close(&volumes);
}

static void expect_deleted(uint32_t volume, bool asks)
{
    struct volumes volumes;
    struct volumes_pull pulls[2];
    uint32_t count = asks ? 1 : 2; /* one that asks while others wait would know them to be empty */
    pulls_open(&volumes, 2);
    if (asks) {
        pulls_start_held(&volumes, &pulls[0], volume);
    } else {
        pulls_start_waiting(&volumes, &pulls[0]);
        pulls_start_waiting(&volumes, &pulls[1]);
        volumes_hold(&volumes, volume);
    }
    struct router_configure configure = {
        .change = {.op = volume == 0 ? CATALOG_SUB_STATE : CATALOG_TOPIC_STATE,
                   .topic = span_text("t"),
                   .sub = span_text("s"),
                   .to = CATALOG_DELETING}};
    bool done = false;
    volumes_prepare(&volumes, &configure.operation, &done);
    router_start_configure(volumes.router, &configure);
    while (catalog_topic(volumes.catalog, span_text("t"))->state == CATALOG_ACTIVE &&
           catalog_sub_by_id(volumes.catalog, pulls[0].pull.sub_id)->state == CATALOG_ACTIVE) {
        volumes_turn(&volumes);
    }
    volumes_unhold(&volumes, volume);
    volumes_await(&volumes, &done);
    router_release(&configure.operation);
    for (size_t index = 0; index < count; index++) {
        pulls_expect_code(&volumes, &pulls[index], ERR_NOT_FOUND);
    }
    volumes_close(&volumes);
}

/* A deletion ends the pulls of what is gone, those that wait and those that are about to. */
static void test_deleted(void **state)
{
    (void)state;
    for (uint32_t volume = 0; volume < 2; volume++) {
        expect_deleted(volume, false);
        expect_deleted(volume, true);
    }
}

/* A failed volume does not keep a pull from what the others have; with nothing there, the pull says
 * that not all could be asked. */
static void test_failed_volume(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pull;
    pulls_open(&volumes, 2);
    pulls_publish_on(&volumes, 1);
    pulls_publish_on(&volumes, 1);
    volumes_quiesce(&volumes);
    volumes_fail_apply(&volumes, 0, COMMAND_PULL, ERR_IO);
    pulls_start(&volumes, &pull, PULLS_WAIT_MS);
    (void)pulls_expect_one(&volumes, &pull);
    pulls_start(&volumes, &pull, PULLS_WAIT_MS);
    (void)pulls_expect_one(&volumes, &pull);
    pulls_start(&volumes, &pull, PULLS_WAIT_MS);
    pulls_expect_code(&volumes, &pull, ERR_UNAVAILABLE);
    volumes_close(&volumes);
}

/* A mailbox that requests fill up refuses new pulls, and does not end those that it let in, nor
 * one that waits for ever. */
static void test_busy(void **state)
{
    (void)state;
    enum { PULLS = 8 };
    struct volumes volumes;
    struct volumes_pull pulls[PULLS];
    struct volumes_pull refused[3];
    struct volumes_pull endless;
    pulls_open_with(&volumes, (struct volumes_options){.count = 1, .mailbox_max = 1}, 2);
    for (size_t index = 0; index < PULLS; index++) {
        pulls_start_waiting(&volumes, &pulls[index]);
    }
    volumes_hold(&volumes, 0);
    pulls_start(&volumes, &refused[0], 0);
    volumes_await_held(&volumes, 0);
    pulls_start(&volumes, &refused[1], 0);
    pulls_start(&volumes, &refused[2], 0);
    pulls_expect_code(&volumes, &refused[2], ERR_BUSY);
    pulls_start(&volumes, &endless, ROUTER_WAIT_FOR_EVER);
    volumes_unhold(&volumes, 0);
    pulls_expect_code(&volumes, &refused[0], ERR_NONE);
    pulls_expect_code(&volumes, &refused[1], ERR_NONE);

    volumes_publish_many(&volumes, "t", PULLS + 1);
    pulls_expect_each_one(&volumes, pulls, PULLS);
    (void)pulls_expect_one(&volumes, &endless);
    volumes_close(&volumes);
}

/* A pull of what does not exist says so. */
static void test_not_found(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pull;
    pulls_open(&volumes, 2);
    volumes_pull_start(&volumes, &pull, "t", "unknown", 1, PULLS_WAIT_MS);
    pulls_expect_code(&volumes, &pull, ERR_NOT_FOUND);
    volumes_pull_start(&volumes, &pull, "unknown", "s", 1, PULLS_WAIT_MS);
    pulls_expect_code(&volumes, &pull, ERR_NOT_FOUND);
    volumes_close(&volumes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gathers),
        cmocka_unit_test(test_size_max),
        cmocka_unit_test(test_rotates),
        cmocka_unit_test(test_behind_delayed),
        cmocka_unit_test(test_what_does_not_fit_is_there),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_deleted),
        cmocka_unit_test(test_failed_volume),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
