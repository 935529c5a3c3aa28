/* The client without memory: the nth allocation of each thing that is asked of it fails, until it
 * needs fewer. It says so, keeps nothing of it, and does the next thing well. No thread runs: the
 * test takes the client's turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/engine.h"
#include "client/intake.h"
#include "client/parcel.h"
#include "tests/lib/client_fixture.h"
#include "tests/lib/fault.h"

static const struct flare_source source = {"t", "s"};

static struct flare_client *create(void)
{
    static const struct flare_options options = {.url = "localhost:1", .name = "test"};
    struct flare_client *client = NULL;
    assert_null(engine_create(&options, &client));
    assert_null(engine_open_loop(client));
    return client;
}

/* Everything that was taken ends with FLARE_ERR_UNAVAILABLE. */
static void destroy(struct flare_client *client)
{
    const struct flare_error closed = {.code = FLARE_ERR_UNAVAILABLE, .message = "closed"};
    engine_turn(client);
    peer_fail_all(client, &closed);
    outbox_fail_all(client, &closed);
    engine_close_loop(client);
    engine_destroy(client);
}

static void on_pulled(void *user, struct flare_batch *batch, const struct flare_error *error)
{
    assert_null(batch);
    client_box_put(user, error->code, error);
}

static void on_settled(void *user, const enum flare_code *codes, size_t count,
                       const struct flare_error *error)
{
    assert_null(codes);
    assert_int_equal(count, 1);
    client_box_put(user, error->code, error);
}

/* ---- what is asked ----------------------------------------------------------------------------
 */

static enum flare_code publish(struct flare_client *client, struct client_box *box)
{
    static const struct flare_attribute attributes[] = {{"a", "b"}};
    static char body[40000];
    const struct flare_message message = {.body = body,
                                          .body_size = sizeof body,
                                          .key = "k",
                                          .attributes = attributes,
                                          .attribute_count = 1};
    return flare_publish_async(client, "t", &message, client_box_on_published, box, NULL);
}

static enum flare_code pull(struct flare_client *client, struct client_box *box)
{
    return flare_pull_async(client, &source, NULL, on_pulled, box, NULL);
}

static enum flare_code settle(struct flare_client *client, struct client_box *box)
{
    static const struct flare_receipt receipt = {1, {7}};
    static const struct flare_settle options = {
        .kind = FLARE_SETTLE_ACK, .receipts = &receipt, .count = 1};
    return flare_settle_async(client, &source, &options, on_settled, box, NULL);
}

static void expect_memory_errors(enum flare_code (*ask)(struct flare_client *client,
                                                        struct client_box *box))
{
    static struct client_box box = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                    .changed = PTHREAD_COND_INITIALIZER};
    uint64_t nth = 1;
    for (bool has_failed = true; has_failed; nth++) {
        struct flare_client *client = create();
        box.count = 0;
        fault_alloc_nth(nth);
        enum flare_code code = ask(client, &box);
        has_failed = fault_alloc_stop();
        assert_int_equal(code, has_failed ? FLARE_ERR_MEMORY : FLARE_OK);
        assert_int_equal(box.count, 0);
        assert_int_equal(ask(client, &box), FLARE_OK);
        destroy(client);
        assert_int_equal(box.count, has_failed ? 1 : 2);
        assert_int_equal(box.codes[0], FLARE_ERR_UNAVAILABLE);
    }
    assert_true(nth > 2);
}

static void test_publish(void **state)
{
    (void)state;
    expect_memory_errors(publish);
}

static void test_pull(void **state)
{
    (void)state;
    expect_memory_errors(pull);
}

static void test_settle(void **state)
{
    (void)state;
    expect_memory_errors(settle);
}

static void test_create(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct flare_client *client = NULL;
        const struct flare_options options = {.url = "localhost:1"};
        fault_alloc_nth(nth);
        err_t err = engine_create(&options, &client);
        if (!fault_alloc_stop()) {
            assert_null(err);
            engine_destroy(client);
            return;
        }
        assert_int_equal(err_code(err), ERR_MEMORY);
        err_free(err);
    }
}

static void test_stream(void **state)
{
    (void)state;
    const struct flare_stream_options options = {.handler = NULL, .concurrency = 3};
    for (uint64_t nth = 1;; nth++) {
        fault_alloc_nth(nth);
        struct flare_stream *stream = intake_create(NULL, &source, &options);
        if (!fault_alloc_stop()) {
            intake_destroy(stream);
            return;
        }
        assert_null(stream);
    }
}

/* Deliveries that are not well formed, or for which there is no memory, leave nothing behind. */
static void test_parcels(void **state)
{
    (void)state;
    struct flare_batch *batch = NULL;
    static const uint8_t bad[] = {0x91, 0xc0};
    const struct wire_list wrong = {.count = 1, .items = {bad, sizeof bad}};
    err_t err = parcel_create(&wrong, &source, &batch);
    assert_int_equal(err_code(err), ERR_INVALID);
    err_free(err);
    fault_alloc_nth(1);
    err = parcel_create(&wrong, &source, &batch);
    assert_true(fault_alloc_stop());
    assert_int_equal(err_code(err), ERR_MEMORY);
    err_free(err);
    assert_null(batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish), cmocka_unit_test(test_pull),
        cmocka_unit_test(test_settle),  cmocka_unit_test(test_create),
        cmocka_unit_test(test_stream),  cmocka_unit_test(test_parcels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
