/* Clients of the HTTP server that vanish, and a server that stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "tests/lib/http_fixture.h"

/* ---- vanishing clients ----------------------------------------------------------------------- */

/* A client that goes away before its answer is noticed at once, its handler is told once, and the
 * answer given all the same ends the exchange. */
static void test_client_vanishes(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        struct http_fixture fixture;
        struct http_socket client;
        http_fixture_start(&fixture);
        fixture.answers_on_abandon = variant >= 2;
        http_socket_open(&client, &fixture);
        http_socket_send(&client, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\nGET /behind HTTP/1.1\r\n");
        HTTP_FIXTURE_WAIT(&fixture, fixture.held_count == 1);
        if (variant % 2 == 0) {
            http_socket_close(&client);
        } else {
            http_socket_reset(&client);
        }
        HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 0);
        assert_int_equal(fixture.abandon_count, 1);
        struct http_exchange *exchange = http_fixture_take_held(&fixture);
        if (!fixture.answers_on_abandon) {
            assert_int_equal(http_server_pending(fixture.server), 1);
            assert_true(exchange->abandoned);
            assert_true(span_is(exchange->path, "/hold"));
            http_fixture_respond(exchange, 200, "nobody reads this");
        }
        assert_int_equal(http_server_pending(fixture.server), 0);
        assert_int_equal(fixture.request_count, 1);
        http_fixture_stop(&fixture);
    }
}

/* A client that goes away in the middle of its request, or of its answer, leaves nothing behind. */
static void test_client_vanishes_in_transfer(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "GET / HT",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
        "GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    struct http_fixture fixture;
    http_fixture_start(&fixture);
    for (size_t i = 0; i < 8; i++) {
        struct http_socket client;
        http_socket_open(&client, &fixture);
        http_socket_send(&client, requests[i / 2]);
        HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 1);
        http_fixture_turn(&fixture);
        if (i % 2 == 0) {
            http_socket_close(&client);
        } else {
            http_socket_reset(&client);
        }
        HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 0);
    }
    assert_int_equal(http_server_pending(fixture.server), 0);
    http_fixture_stop(&fixture);
}

/* A client that half-closes while its answer is on its way still gets all of it. */
static void test_half_close_in_answer(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    HTTP_FIXTURE_WAIT(&fixture, fixture.request_count == 1);
    assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
    http_fixture_turn(&fixture);
    size_t received = 0;
    time_t since = 0;
    while (!client.is_closed) {
        client.size = 0;
        http_socket_pump(&client);
        received += client.size;
        http_fixture_check_patience(&since);
    }
    assert_true(received > HTTP_FIXTURE_BIG_SIZE);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* ---- end of the server ----------------------------------------------------------------------- */

/* Draining closes what is idle and refuses what is new, but a request that waits gets its answer,
 * as the last. */
static void test_drain(void **state)
{
    (void)state;
    static struct http_socket_response response;
    struct http_fixture fixture;
    struct http_socket idle;
    struct http_socket busy;
    http_fixture_start(&fixture);
    http_socket_open(&idle, &fixture);
    http_socket_expect_alive(&idle);
    http_socket_open(&busy, &fixture);
    http_socket_send(&busy, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    HTTP_FIXTURE_WAIT(&fixture, fixture.held_count == 1);
    http_server_drain(fixture.server);
    http_socket_expect_end(&idle);
    assert_int_equal(http_fixture_connect(&fixture), -1);
    assert_int_equal(http_server_pending(fixture.server), 1);
    http_fixture_respond(http_fixture_take_held(&fixture), 503, "stopping");
    http_socket_wait(&busy, &response, true);
    assert_non_null(strstr(response.head, "Connection: close"));
    http_socket_expect_end(&busy);
    assert_int_equal(http_server_pending(fixture.server), 0);
    http_socket_close(&idle);
    http_socket_close(&busy);
    http_fixture_stop(&fixture);
}

/* An answer that is on its way when draining begins is sent to its end, and its connection ends
 * with it. */
static void test_drain_in_answer(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start(&fixture);
    http_socket_open(&client, &fixture);
    http_socket_send(&client, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    HTTP_FIXTURE_WAIT(&fixture, fixture.request_count == 1);
    http_server_drain(fixture.server);
    size_t received = 0;
    time_t since = 0;
    while (!client.is_closed) {
        client.size = 0;
        http_socket_pump(&client);
        received += client.size;
        http_fixture_check_patience(&since);
    }
    assert_true(received > HTTP_FIXTURE_BIG_SIZE);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

/* Destroying closes connections in every state; an exchange still pending is abandoned and may be
 * answered after the server is gone. */
static void test_destroy_with_pending(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "",
        "GET / HT",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx",
        "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
        "nonsense\r\n\r\n",
    };
    enum { COUNT = sizeof requests / sizeof requests[0] };
    struct http_fixture fixture;
    struct http_socket clients[COUNT];
    http_fixture_start(&fixture);
    for (size_t i = 0; i < COUNT; i++) {
        http_socket_open(&clients[i], &fixture);
        http_socket_send(&clients[i], requests[i]);
    }
    HTTP_FIXTURE_WAIT(&fixture, fixture.held_count == 1 && fixture.request_count == 2);
    struct http_exchange *exchange = http_fixture_take_held(&fixture);
    http_fixture_stop(&fixture);
    assert_int_equal(fixture.abandon_count, 1);
    assert_true(exchange->abandoned);
    assert_true(span_is(exchange->path, "/hold"));
    http_fixture_respond(exchange, 200, "nobody reads this");
    for (size_t i = 0; i < COUNT; i++) {
        http_socket_close(&clients[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_vanishes),
        cmocka_unit_test(test_client_vanishes_in_transfer),
        cmocka_unit_test(test_half_close_in_answer),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_in_answer),
        cmocka_unit_test(test_destroy_with_pending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
