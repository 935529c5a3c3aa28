/* The HTTP server's requests and their answers, its addresses and its options, driven over real
 * loopback sockets from its own loop's thread, on simulated time (tests/lib/http_fixture.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "broker/http/conn.h"
#include "tests/lib/http_fixture.h"

/* ---- requests and answers -------------------------------------------------------------------- */

/* A connection serves one request after another, and a request is handed over as it was sent. */
static void test_keep_alive(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET /a%2Fb?x=1&y HTTP/1.1\r\nHost: a\r\n\r\n");
    http_socket_expect(&client, 200, "GET /a%2Fb?x=1&y=");
    http_socket_send(&client, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    http_socket_expect(&client, 200, "POST /p=hello");
    http_socket_send(&client, "PATCH /other HTTP/1.1\r\nHost: a\r\n\r\n");
    http_socket_expect(&client, 200, "PATCH /other=");
    assert_int_equal(http_fixture_counters(&fixture)->requests_total, 3);
    assert_int_equal(http_fixture_counters(&fixture)->connections_total, 1);
    http_socket_close(&client);
    HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 0);
    http_fixture_stop(&fixture);
}

/* The connection ends after the answer when the client or its version asks for that, and only then.
 */
static void test_connection_end(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        const char *header; /* of the answer */
        bool ends;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", NULL, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "Connection: close", true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", "Connection: close", true},
        {"GET / HTTP/1.0\r\n\r\n", "Connection: close", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "Connection: keep-alive", false},
    };
    struct http_fixture fixture;
    http_fixture_start(&fixture);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct http_socket_response response;
        struct http_socket client;
        http_socket_open(&client, &fixture);
        http_socket_send(&client, cases[i].request);
        http_socket_wait(&client, &response, true);
        assert_int_equal(response.status, 200);
        if (cases[i].header == NULL) {
            assert_null(strstr(response.head, "Connection:"));
        } else {
            assert_non_null(strstr(response.head, cases[i].header));
        }
        if (cases[i].ends) {
            http_socket_expect_end(&client);
        } else {
            http_socket_expect_alive(&client);
        }
        http_socket_close(&client);
    }
    http_fixture_stop(&fixture);
}

/* An answer carries the headers of RFC 9110 and those of the handler, but none that would split it.
 */
static void test_answer_headers(void **state)
{
    (void)state;
    static struct http_socket_response response;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET / HTTP/1.1\r\nHost: a\r\nX-TEST:  \t v w \t\r\n\r\n");
    http_socket_wait(&client, &response, true);
    assert_string_equal(response.head, "HTTP/1.1 200 OK\r\n"
                                       "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n"
                                       "Content-Type: text/plain\r\n"
                                       "Content-Length: 6\r\n"
                                       "X-Echo: v w\r\n\r\n");
    clock_advance(&fixture.clock, 1000);
    http_socket_send(&client, "GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    http_socket_wait(&client, &response, true);
    assert_string_equal(response.head, "HTTP/1.1 204 No Content\r\n"
                                       "Date: Fri, 02 Jan 2026 03:04:06 GMT\r\n\r\n");
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* An answer that its handler could not write whole becomes a 500, never a shorter answer. */
static void test_answer_cut_short(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    http_socket_expect(&client, 500, NULL);
    http_socket_expect_alive(&client);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* HEAD is answered with the length of the body and without the body. */
static void test_head(void **state)
{
    (void)state;
    static struct http_socket_response response;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
    http_socket_wait(&client, &response, false);
    assert_int_equal(response.status, 200);
    assert_non_null(strstr(response.head, "Content-Length: 8\r\n"));
    http_socket_expect_alive(&client); /* the next answer begins right after the head */
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* Pipelined requests are answered in order, whatever their framing, and even when the input ends
 * behind them. */
static void test_pipelining(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
                              "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                              "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "2;ext=1\r\nde\r\n1\r\nf\r\n0\r\nX-Trailer: t\r\n\r\n"
                              "\r\n" /* after a body, an empty line is forgiven */
                              "GET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
                              "GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                              "GET /6 HTTP/1.1\r\nHost: a\r\n\r\n");
    http_socket_expect(&client, 200, "GET /1=");
    http_socket_expect(&client, 200, "POST /2=abc");
    http_socket_expect(&client, 200, "POST /3=def");
    http_socket_expect(&client, 200, "GET /4=");
    http_socket_expect(&client, 200, "GET /5=");
    assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
    http_socket_expect_end(&client); /* nothing behind the close is served */
    assert_int_equal(fixture.request_count, 5);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* Requests of one connection are handled one at a time: the next begins when the one before has its
 * answer. */
static void test_one_at_a_time(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client,
                     "GET /hold HTTP/1.1\r\nHost: a\r\n\r\nGET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
                     "GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        HTTP_FIXTURE_WAIT(&fixture, fixture.held_count == 1);
        assert_int_equal(http_server_pending(fixture.server), 1);
        http_socket_expect_quiet(&client);
        assert_int_equal(fixture.held_count, 1);
        http_fixture_respond(http_fixture_take_held(&fixture), 200, "held");
        http_socket_expect(&client, 200, "held");
    }
    http_socket_expect(&client, 200, "GET /last=");
    /* Idle again, it has given its buffer back. */
    struct list_link *link = list_first(&fixture.server->steps[HTTP_STEP_IDLE]);
    assert_non_null(link);
    assert_null(container_of(link, struct http_conn, link)->pending.data);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* What is pipelined behind a request that waits is kept up to a bound, then left in the socket, and
 * never lost. */
static void test_pending_is_bounded(void **state)
{
    (void)state;
    enum { COUNT = 40000 };
    static const char request[] = "GET /n HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char first[] = "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n";
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, first);
    HTTP_FIXTURE_WAIT(&fixture, fixture.held_count == 1);
    size_t size = COUNT * (sizeof request - 1);
    char *flood = malloc(size);
    assert_non_null(flood);
    for (size_t i = 0; i < COUNT; i++) {
        memcpy(flood + i * (sizeof request - 1), request, sizeof request - 1);
    }
    size_t sent = http_socket_push(&client, flood, size, false);
    uint64_t received = http_fixture_counters(&fixture)->received_bytes_total - (sizeof first - 1);
    assert_true(received <= HTTP_PENDING_MAX);
    assert_true(sent > received);
    http_fixture_respond(http_fixture_take_held(&fixture), 200, "held");
    http_socket_expect(&client, 200, "held");
    /* The rest of a request cut in the middle, then a last one. */
    size_t rest = sent % (sizeof request - 1);
    if (rest > 0) {
        size_t missing = sizeof request - 1 - rest;
        assert_int_equal(http_socket_push(&client, request + rest, missing, true), missing);
        sent += missing;
    }
    for (size_t i = 0; i < sent / (sizeof request - 1); i++) {
        http_socket_expect(&client, 200, "GET /n=");
    }
    http_socket_expect_alive(&client);
    free(flood);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

struct later {
    uv_timer_t timer;
    struct http_exchange *exchange;
};

static void on_later(uv_timer_t *timer)
{
    struct later *later = (struct later *)timer;
    http_fixture_respond(later->exchange, 202, "later");
    uv_close((uv_handle_t *)timer, NULL);
}

/* An exchange may be answered from any later callback of the loop; its spans live until then. */
static void test_answer_later(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    struct later later;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "POST /hold?q HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    HTTP_FIXTURE_WAIT(&fixture, fixture.held_count == 1);
    later.exchange = http_fixture_take_held(&fixture);
    http_socket_expect_quiet(&client);
    assert_true(span_is(later.exchange->path, "/hold"));
    assert_true(span_is(later.exchange->query, "q"));
    assert_true(span_is(later.exchange->body, "body"));
    uv_timer_init(&fixture.loop, &later.timer);
    uv_timer_start(&later.timer, on_later, 0, 0);
    http_socket_expect(&client, 202, "later");
    assert_int_equal(http_server_pending(fixture.server), 0);
    http_socket_expect_alive(&client);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* An answer larger than the socket's buffers arrives whole. */
static void test_big_answer(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    HTTP_FIXTURE_WAIT(&fixture,
                      (http_socket_pump(&client), strstr(client.data, "\r\n\r\n") != NULL));
    size_t total =
        (size_t)(strstr(client.data, "\r\n\r\n") - client.data) + 4 + HTTP_FIXTURE_BIG_SIZE;
    size_t received = 0;
    time_t since = 0;
    while (received < total) {
        http_socket_pump(&client);
        assert_false(client.is_closed);
        received += client.size;
        assert_true(client.size == 0 || client.data[client.size - 1] == 'b');
        client.size = 0;
        http_fixture_check_patience(&since);
    }
    assert_int_equal(received, total);
    http_socket_expect_alive(&client);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* A client that waits for 100 Continue gets it once its headers are found good, and not when they
 * are not. */
static void test_expect(void **state)
{
    (void)state;
    static struct http_socket_response response;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(
        &client, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n");
    http_socket_wait(&client, &response, true);
    assert_string_equal(response.head, "HTTP/1.1 100 Continue\r\n\r\n");
    http_socket_send(&client, "hi");
    http_socket_expect(&client, 200, "PUT /=hi");
    /* The body is there already. */
    http_socket_send(
        &client,
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi");
    http_socket_expect(&client, 200, "PUT /=hi");
    /* No body is announced. */
    http_socket_send(&client, "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    http_socket_expect(&client, 200, "GET /=");
    http_socket_send(
        &client,
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\nExpect: 100-continue\r\n\r\n");
    http_socket_expect(&client, 413, NULL);
    http_socket_expect_end(&client);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* ---- addresses and options ------------------------------------------------------------------- */

/* A bad address and a port in use are different errors, and a server that could not listen can be
 * destroyed. */
static void test_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "localhost",
        ":80",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:x",
        "127.0.0.1:-1",
        "[::1:80",
        "[]:80",
        "no such host:80",
        "127.0.0.1:123456",
    };
    struct http_fixture fixture;
    http_fixture_start(&fixture);
    assert_true(strncmp(http_server_address(fixture.server), "127.0.0.1:", 10) == 0);
    assert_true(http_fixture_port(&fixture) > 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0] + 1; i++) {
        bool is_in_use = i == sizeof bad / sizeof bad[0];
        struct http_fixture other = {.is_closed = false};
        assert_int_equal(uv_loop_init(&other.loop), 0);
        clock_init_simulated(&other.clock, 1);
        struct http_server_options options = http_fixture_options(&other);
        assert_null(http_server_create(&options, &other.server));
        err_t err = http_server_listen(other.server,
                                       is_in_use ? http_server_address(fixture.server) : bad[i]);
        assert_int_equal(err_code(err), is_in_use ? ERR_IO : ERR_INVALID);
        err_free(err);
        http_fixture_stop(&other);
    }
    http_fixture_stop(&fixture);
}

/* Limits that cannot be kept are refused at the start. */
static void test_bad_limits(void **state)
{
    (void)state;
    struct http_fixture fixture;
    for (int i = 0; i < 4; i++) {
        struct http_server_options options = http_fixture_options(&fixture);
        struct http_server *server = NULL;
        options.limits.header_size_max = i == 0 ? 0 : i == 1 ? HTTP_PARSE_HEAD_MAX + 1 : 1024;
        options.limits.header_count_max = i == 2 ? 0 : 8;
        options.limits.connections_max = i == 3 ? 0 : 8;
        err_t err = http_server_create(&options, &server);
        assert_int_equal(err_code(err), ERR_INVALID);
        assert_null(server);
        err_free(err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_alive),     cmocka_unit_test(test_connection_end),
        cmocka_unit_test(test_answer_headers), cmocka_unit_test(test_answer_cut_short),
        cmocka_unit_test(test_head),           cmocka_unit_test(test_pipelining),
        cmocka_unit_test(test_one_at_a_time),  cmocka_unit_test(test_pending_is_bounded),
        cmocka_unit_test(test_answer_later),   cmocka_unit_test(test_big_answer),
        cmocka_unit_test(test_expect),         cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_bad_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
