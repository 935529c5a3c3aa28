/* Clients of the HTTP server that take their time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "broker/http/conn.h"
#include "tests/lib/http_fixture.h"

/* Headers must be complete within their time, counted from the first byte of the request. */
static void test_slow_headers(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_expect_alive(&client);
    /* Idle time does not count. */
    http_fixture_pass_time(&fixture, HTTP_FIXTURE_HEADER_TIMEOUT_MS * 2);
    http_socket_send(&client, "GET / HT");
    http_socket_expect_quiet(&client);
    http_fixture_pass_time(&fixture, HTTP_FIXTURE_HEADER_TIMEOUT_MS - 1);
    http_socket_send(&client, "TP/1.1\r\nHo"); /* more of it wins no more time */
    http_socket_expect_quiet(&client);
    http_fixture_pass_time(&fixture, 1);
    http_socket_expect(&client, 408, NULL);
    http_socket_expect_end(&client);
    assert_int_equal(http_fixture_counters(&fixture)->timeouts_total, 1);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

static void limit_body_rate(struct http_limits *limits)
{
    limits->body_rate_min = 100;
}

/* A body that keeps the least rate is waited for; one that falls below it, or stops, is cut. */
static void test_slow_body(void **state)
{
    (void)state;
    struct http_fixture fixture;
    http_fixture_start_with(&fixture, limit_body_rate);
    static char part[500];
    memset(part, 'x', sizeof part);
    for (size_t size = sizeof part - 1; size <= sizeof part; size++) {
        struct http_socket client;
        http_socket_open(&client, &fixture);
        http_socket_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
        http_socket_expect_quiet(&client);
        http_socket_push(&client, part, size, true);
        http_socket_expect_quiet(&client);
        http_fixture_pass_time(&fixture, HTTP_BODY_WINDOW_MS - 1);
        http_socket_expect_quiet(&client);
        http_fixture_pass_time(&fixture, 1);
        if (size == sizeof part) {
            http_socket_push(&client, part, sizeof part, true);
            http_socket_expect(&client, 200, NULL);
        } else {
            http_socket_expect(&client, 408, NULL);
            http_socket_expect_end(&client);
        }
        http_socket_close(&client);
    }
    http_fixture_stop(&fixture);
}

static void allow_any_body_rate(struct http_limits *limits)
{
    limits->body_rate_min = 0;
}

/* A body that stops is cut even when its beginning was fast, or no rate is asked for. */
static void test_stalled_body(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start_with(&fixture, allow_any_body_rate);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx");
    http_socket_expect_quiet(&client);
    http_fixture_pass_time(&fixture, HTTP_BODY_WINDOW_MS);
    http_socket_expect_quiet(&client);
    http_fixture_pass_time(&fixture, HTTP_BODY_WINDOW_MS);
    http_socket_expect(&client, 408, NULL);
    http_socket_expect_end(&client);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* A client that does not read its answer is cut; one that reads slowly is not. */
static void test_slow_reader(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    HTTP_FIXTURE_WAIT(&fixture, fixture.request_count == 1);
    for (int i = 0; i < 3; i++) {
        /* What is read leaves room, so the server's queue has shrunk when it is looked at. */
        uint64_t wanted = 8 << 20;
        for (uint64_t got = 0; got < wanted; got += client.size) {
            client.size = 0;
            http_socket_pump(&client);
        }
        http_fixture_pass_time(&fixture, HTTP_FIXTURE_WRITE_TIMEOUT_MS);
        http_fixture_turn(&fixture);
        assert_int_equal(http_fixture_counters(&fixture)->connections_open, 1);
    }
    /* From here nothing is read. What still fits the kernel's buffers counts as progress, once. */
    for (int i = 0; i < 50; i++) {
        http_fixture_turn(&fixture);
    }
    http_fixture_pass_time(&fixture, HTTP_FIXTURE_WRITE_TIMEOUT_MS - 1);
    http_fixture_turn(&fixture);
    assert_int_equal(http_fixture_counters(&fixture)->connections_open, 1);
    http_fixture_pass_time(&fixture, 1);
    http_fixture_pass_time(&fixture, HTTP_FIXTURE_WRITE_TIMEOUT_MS);
    HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 0);
    assert_int_equal(http_fixture_counters(&fixture)->timeouts_total, 1);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* A connection without requests is closed when its time is over, without a word; a request wins it
 * new time. */
static void test_idle(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_expect_quiet(&client);
    http_fixture_pass_time(&fixture, HTTP_FIXTURE_IDLE_TIMEOUT_MS - 1);
    http_socket_expect_alive(&client);
    http_socket_send(&client, "\r\n"); /* an empty line is not a request */
    http_socket_expect_quiet(&client);
    http_fixture_pass_time(&fixture, HTTP_FIXTURE_IDLE_TIMEOUT_MS - 1);
    http_socket_expect_quiet(&client);
    http_fixture_pass_time(&fixture, 1);
    http_socket_expect_end(&client);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* A request that the handler takes its time with is not timed out. */
static void test_long_poll_has_no_timeout(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    HTTP_FIXTURE_WAIT(&fixture, fixture.held_count == 1);
    http_fixture_pass_time(&fixture, 3600 * 1000);
    http_socket_expect_quiet(&client);
    http_fixture_respond(http_fixture_take_held(&fixture), 200, "at last");
    http_socket_expect(&client, 200, "at last");
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* A refused client that goes on sending nothing is let go after the linger time. */
static void test_linger_ends(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "nonsense\r\n\r\n");
    http_socket_expect(&client, 400, NULL);
    http_socket_expect_end(&client);
    /* Half-closed, for the client to read. */
    assert_int_equal(http_fixture_counters(&fixture)->connections_open, 1);
    http_fixture_pass_time(&fixture, HTTP_LINGER_MS);
    HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 0);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* Of what a refused client goes on sending, no more than the drain bound is read. */
static void test_linger_is_bounded(void **state)
{
    (void)state;
    static const char request[] = "nonsense\r\n\r\n";
    static char flood[HTTP_FIXTURE_INPUT_MAX];
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, request);
    http_socket_expect(&client, 400, NULL);
    client.is_closed = false; /* only the server's half is */
    assert_true(http_socket_push(&client, flood, sizeof flood, false) >= HTTP_DRAIN_MAX);
    HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 0);
    assert_true(http_fixture_counters(&fixture)->received_bytes_total <=
                sizeof request + HTTP_DRAIN_MAX);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_headers), cmocka_unit_test(test_slow_body),
        cmocka_unit_test(test_stalled_body), cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_idle),         cmocka_unit_test(test_long_poll_has_no_timeout),
        cmocka_unit_test(test_linger_ends),  cmocka_unit_test(test_linger_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
