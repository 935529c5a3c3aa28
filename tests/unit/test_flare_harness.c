#include <flare/harness.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "tests/lib/fds.h"
#include "tests/lib/http_client.h"

/* What is written to standard error between its two calls. The files are opened before any broker:
 * libuv closes its own by a system call that TSan does not see, so one that gets the number of a
 * broker's connection looks as if it were still that. */
static int saved_stderr = -1;
static FILE *captured;

static int open_capture(void **state)
{
    (void)state;
    captured = tmpfile();
    saved_stderr = dup(STDERR_FILENO);
    return captured != NULL && saved_stderr >= 0 ? 0 : -1;
}

static int close_capture(void **state)
{
    (void)state;
    close(saved_stderr);
    return fclose(captured);
}

static void capture_begin(void)
{
    (void)fflush(stderr);
    assert_int_equal(ftruncate(fileno(captured), 0), 0);
    assert_int_equal(lseek(fileno(captured), 0, SEEK_SET), 0);
    assert_true(dup2(fileno(captured), STDERR_FILENO) >= 0);
}

static const char *capture_end(void)
{
    static char text[2 * FLARE_HARNESS_LOG_SIZE];
    (void)fflush(stderr);
    assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
    ssize_t size = pread(fileno(captured), text, sizeof text - 1, 0);
    assert_true(size >= 0);
    text[size] = '\0';
    return text;
}

static const struct flare_source mail_source = {.topic = "orders", .subscription = "mail"};
static const struct flare_source no_source = {.topic = "orders", .subscription = "none"};

static struct flare_harness *open_harness(const struct flare_broker_options *options)
{
    struct flare_harness *harness = NULL;
    assert_int_equal(flare_harness_open(options, &harness, NULL), FLARE_OK);
    return harness;
}

static struct flare_harness *open_http(void)
{
    struct flare_harness *harness =
        open_harness(&(struct flare_broker_options){.http = "127.0.0.1:0",
                                                    .simulated_ms = FLARE_HARNESS_START_MS,
                                                    .settings = "log-level = debug\n"});
    struct flare_broker *broker = flare_harness_broker(harness);
    assert_int_equal(flare_broker_topic_put(broker, "orders", NULL, NULL), FLARE_OK);
    assert_int_equal(flare_broker_subscription_put(broker, &mail_source, NULL, NULL), FLARE_OK);
    return harness;
}

/* On one connection, and once for each harness: see open_capture about the numbers of files. */
static void publish(struct flare_harness *harness, const char *const *bodies)
{
    struct http_client client;
    const char *address = flare_broker_http_address(flare_harness_broker(harness));
    http_client_init(&client, (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    for (; *bodies != NULL; bodies++) {
        const struct http_client_request request = {
            .method = "POST", .path = "/v1/topics/orders/messages", .body = span_text(*bodies)};
        assert_int_equal(http_client_request(&client, &request), 201);
    }
    http_client_deinit(&client);
}

/* A test that passes leaves nothing on the screen. */
static void test_silent_when_passed(void **state)
{
    (void)state;
    static const char *const bodies[] = {"b", "a", "a", NULL};
    struct flare_harness *harness = open_http();
    assert_int_equal(flare_broker_now_ms(flare_harness_broker(harness)), FLARE_HARNESS_START_MS);
    publish(harness, (const char *const[]){"a", "b", "a", NULL});
    capture_begin();
    const struct flare_depths expected = {.enqueued = 3};
    int depths = flare_harness_expect_depths(harness, &mail_source, &expected);
    int listed = flare_harness_expect_bodies(harness, &mail_source, FLARE_MESSAGE_ENQUEUED, bodies);
    int logged = flare_harness_expect_log(harness, "info broker opened data=:memory:");
    flare_harness_pass(harness);
    flare_harness_close(harness);
    flare_harness_close(NULL);
    const char *text = capture_end();
    assert_int_equal(depths, 1);
    assert_int_equal(listed, 1);
    assert_int_equal(logged, 1);
    assert_string_equal(text, "");
}

/* The harness's client is one, and is closed with it, whatever the test leaves undone. */
static void test_client(void **state)
{
    (void)state;
    static const char *const bodies[] = {"one", NULL};
    const struct flare_message message = {.body = "one", .body_size = 3};
    struct flare_batch *batch = NULL;
    struct flare_harness *harness = open_harness(NULL);
    struct flare_client *client = flare_harness_client(harness);
    assert_non_null(client);
    assert_ptr_equal(flare_harness_client(harness), client);
    assert_int_equal(flare_topic_put(client, "orders", NULL, NULL, NULL), FLARE_OK);
    assert_int_equal(flare_subscription_put(client, &mail_source, NULL, NULL, NULL), FLARE_OK);
    assert_int_equal(flare_publish(client, "orders", &message, NULL, NULL), FLARE_OK);
    assert_int_equal(flare_pull(client, &mail_source, NULL, &batch, NULL), FLARE_OK);
    assert_int_equal(flare_batch_count(batch), 1);
    flare_batch_free(batch);
    assert_true(flare_harness_expect_bodies(harness, &mail_source, FLARE_MESSAGE_LEASED, bodies));
    flare_harness_pass(harness);
    flare_harness_close(harness);
}

/* One that does not come to its end shows depths and log. */
static void test_shows_log_when_left(void **state)
{
    (void)state;
    struct flare_harness *harness = open_http();
    publish(harness, (const char *const[]){"a", NULL});
    capture_begin();
    flare_harness_close(harness);
    const char *text = capture_end();
    assert_non_null(strstr(text, "  orders/mail: enqueued=1 leased=0 scheduled=0 dead=0\n"));
    assert_non_null(strstr(text, "info broker opened data=:memory:\n"));
}

/* An expectation that does not hold says what was expected and what is, and makes the test one that
 * failed. */
static void test_expectations_fail(void **state)
{
    (void)state;
    static const char *const bodies[] = {"a", "c", NULL};
    static const struct flare_depths depths = {.dead = 1};
    static const char *const texts[] = {
        "orders/mail: expected enqueued=0 leased=0 scheduled=0 dead=1, but is enqueued=2 ",
        "missing: c\n",
        " attempts=0 b\n",
        "orders/mail: of the enqueued messages 1 are missing and 1 not expected\n",
        "the log does not say: nonsense\n",
        "orders/none: no depths: subscription: it does not exist\n",
        "orders/none: no list: subscription: it does not exist\n",
        "info broker opened",
    };
    struct flare_harness *harness = open_http();
    publish(harness, (const char *const[]){"a", "b", NULL});
    capture_begin();
    int held = flare_harness_expect_depths(harness, &mail_source, &depths);
    held += flare_harness_expect_bodies(harness, &mail_source, FLARE_MESSAGE_ENQUEUED, bodies);
    held += flare_harness_expect_log(harness, "nonsense");
    held += flare_harness_expect_depths(harness, &no_source, &depths);
    held += flare_harness_expect_bodies(harness, &no_source, FLARE_MESSAGE_DEAD, bodies);
    flare_harness_pass(harness);
    flare_harness_close(harness);
    const char *text = capture_end();
    assert_int_equal(held, 0);
    for (size_t index = 0; index < sizeof texts / sizeof texts[0]; index++) {
        if (strstr(text, texts[index]) == NULL) {
            print_error("not in it: %s\n%s", texts[index], text);
        }
        assert_non_null(strstr(text, texts[index]));
    }
}

/* The log is bounded: the last lines are kept whole, and it is said what is missing. */
static void test_log_is_bounded(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_harness *harness = open_http();
    const char *address = flare_broker_http_address(flare_harness_broker(harness));
    http_client_init(&client, (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    for (size_t size = 0; size < 2 * FLARE_HARNESS_LOG_SIZE; size += 64) {
        assert_int_equal(http_client_json(&client, "PUT", "/v1/log-level", "{\"level\":\"debug\"}"),
                         200);
    }
    http_client_deinit(&client);
    char *log = flare_harness_log(harness);
    assert_non_null(log);
    size_t size = strlen(log);
    assert_true(size > FLARE_HARNESS_LOG_SIZE - 4096);
    assert_true(size < FLARE_HARNESS_LOG_SIZE + 80);
    assert_int_equal(log[0], '(');
    const char *second = strchr(log, '\n') + 1;
    assert_memory_equal(second + 4, "-", 1); /* a line begins with its date */
    assert_int_equal(log[size - 1], '\n');
    assert_null(strstr(log, "broker opened"));
    free(log);
    flare_harness_pass(harness);
    flare_harness_close(harness);
}

/* A broker that cannot be opened says why. */
static void test_cannot_open(void **state)
{
    (void)state;
    struct flare_harness *harness = NULL;
    struct flare_error error = {.code = FLARE_OK};
    const struct flare_broker_options options = {.http = "nowhere"};
    capture_begin();
    enum flare_code code = flare_harness_open(&options, &harness, &error);
    const char *text = capture_end();
    assert_int_equal(code, FLARE_ERR_INVALID);
    assert_int_equal(error.code, FLARE_ERR_INVALID);
    assert_null(harness);
    assert_non_null(strstr(text, "flare harness: no broker: nowhere is not HOST:PORT"));
}

/* With FLARE_HARNESS_LOG=1 the log comes as it is written. */
static void test_live_log(void **state)
{
    (void)state;
    assert_int_equal(setenv("FLARE_HARNESS_LOG", "1", 1), 0);
    capture_begin();
    struct flare_harness *harness = open_harness(NULL);
    flare_harness_pass(harness);
    flare_harness_close(harness);
    const char *text = capture_end();
    assert_int_equal(unsetenv("FLARE_HARNESS_LOG"), 0);
    assert_non_null(strstr(text, "info broker opened"));
    assert_non_null(strstr(text, "info broker closed"));
}

/* There may be one for each of many tests: it has no socket of the network, and leaves no file
 * open.
 */
static void test_one_for_each_test(void **state)
{
    (void)state;
    enum { TESTS = 50 };
    size_t fds = fds_count();
    for (int test = 0; test < TESTS; test++) {
        struct flare_harness *harness = open_harness(NULL);
        assert_null(flare_broker_http_address(flare_harness_broker(harness)));
        assert_null(flare_broker_wire_address(flare_harness_broker(harness)));
        assert_non_null(flare_harness_client(harness));
        flare_harness_pass(harness);
        flare_harness_close(harness);
        assert_int_equal(fds_count(), fds);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silent_when_passed),
        cmocka_unit_test(test_client),
        cmocka_unit_test(test_shows_log_when_left),
        cmocka_unit_test(test_expectations_fail),
        cmocka_unit_test(test_log_is_bounded),
        cmocka_unit_test(test_cannot_open),
        cmocka_unit_test(test_live_log),
        cmocka_unit_test(test_one_for_each_test),
    };
    return cmocka_run_group_tests(tests, open_capture, close_capture);
}
