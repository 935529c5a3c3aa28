/* Every bound of the HTTP server, on what a client sends and on the memory that it takes. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/http/conn.h"
#include "tests/lib/fault.h"
#include "tests/lib/http_fixture.h"

/* ---- limits ---------------------------------------------------------------------------------- */

static void make_head_of(struct buf *request, size_t size)
{
    buf_reset(request);
    buf_append_text(request, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    while (request->size < size - 4) {
        buf_append_byte(request, 'x');
    }
    buf_append_text(request, "\r\n\r\n");
    assert_int_equal(request->size, size);
}

static void make_headers(struct buf *request, size_t count)
{
    buf_reset(request);
    buf_append_text(request, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (size_t i = 1; i < count; i++) {
        buf_printf(request, "X%zu: y\r\n", i);
    }
    buf_append_text(request, "\r\n");
}

/* The head may be as large as its limit and no larger, and have as many headers. */
static void test_head_limits(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct buf request;
    http_fixture_start(&fixture);
    buf_init(&request, HTTP_FIXTURE_INPUT_MAX);
    for (size_t more = 0; more < 2; more++) {
        int status = more == 0 ? 200 : 431;
        make_head_of(&request, HTTP_FIXTURE_HEADER_SIZE_MAX + more);
        http_fixture_expect_status(&fixture, (char *)request.data, request.size, status);
        make_headers(&request, HTTP_FIXTURE_HEADER_COUNT_MAX + more);
        http_fixture_expect_status(&fixture, (char *)request.data, request.size, status);
    }
    /* A line without end is refused once it is too long, not kept. */
    buf_reset(&request);
    while (request.size < HTTP_FIXTURE_HEADER_SIZE_MAX + 1) {
        buf_append_byte(&request, 'G');
    }
    http_fixture_expect_status(&fixture, (char *)request.data, request.size, 431);
    buf_deinit(&request);
    http_fixture_stop(&fixture);
}

static void make_length_body(struct buf *request, size_t size)
{
    buf_reset(request);
    buf_printf(request, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", size);
    memset(buf_extend(request, size), 'x', size);
}

static void make_chunked_body(struct buf *request, size_t size, size_t chunk_size)
{
    buf_reset(request);
    buf_append_text(request, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    while (size > 0) {
        size_t part = size < chunk_size ? size : chunk_size;
        buf_printf(request, "%zx\r\n", part);
        memset(buf_extend(request, part), 'x', part);
        buf_append_text(request, "\r\n");
        size -= part;
    }
    buf_append_text(request, "0\r\n\r\n");
}

/* A body may be as large as its limit and no larger, however it is framed. */
static void test_body_limits(void **state)
{
    (void)state;
    static const size_t chunk_sizes[] = {HTTP_FIXTURE_BODY_SIZE_MAX * 2, 4096, 64};
    struct http_fixture fixture;
    struct buf request;
    http_fixture_start(&fixture);
    buf_init(&request, HTTP_FIXTURE_INPUT_MAX);
    for (size_t more = 0; more < 2; more++) {
        int status = more == 0 ? 200 : 413;
        make_length_body(&request, HTTP_FIXTURE_BODY_SIZE_MAX + more);
        http_fixture_expect_status(&fixture, (char *)request.data, request.size, status);
        for (size_t i = 0; i < sizeof chunk_sizes / sizeof chunk_sizes[0]; i++) {
            make_chunked_body(&request, HTTP_FIXTURE_BODY_SIZE_MAX + more, chunk_sizes[i]);
            http_fixture_expect_status(&fixture, (char *)request.data, request.size, status);
        }
    }
    buf_deinit(&request);
    http_fixture_stop(&fixture);
}

/* What is not body in a chunked body is bounded as well: size lines, extensions, trailers. */
static void test_chunk_overhead_limit(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct buf request;
    http_fixture_start(&fixture);
    buf_init(&request, HTTP_FIXTURE_INPUT_MAX);
    /* Five bytes of overhead a chunk, and five for the last. */
    make_chunked_body(&request, HTTP_CHUNK_OVERHEAD_MAX / 5 - 1, 1);
    http_fixture_expect_status(&fixture, (char *)request.data, request.size, 200);
    make_chunked_body(&request, HTTP_CHUNK_OVERHEAD_MAX / 5 + 1, 1);
    http_fixture_expect_status(&fixture, (char *)request.data, request.size, 413);
    buf_reset(&request);
    buf_append_text(&request, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;");
    memset(buf_extend(&request, HTTP_CHUNK_OVERHEAD_MAX), 'e', HTTP_CHUNK_OVERHEAD_MAX);
    http_fixture_expect_status(&fixture, (char *)request.data, request.size, 413);
    buf_deinit(&request);
    http_fixture_stop(&fixture);
}

/* Of a body that never ends, at most the limit and 64 KiB are read before the connection is gone.
 */
static void test_read_bound(void **state)
{
    (void)state;
    static const char *const heads[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    };
    static const char *const fills[] = {"xxxxxxxx", "xxxxxxxx", "1000\r\n", "a: b\r\n"};
    struct buf flood;
    buf_init(&flood, HTTP_FIXTURE_INPUT_MAX);
    for (size_t i = 0; i < 4; i++) {
        struct http_fixture fixture;
        struct http_socket client;
        http_fixture_start(&fixture);
        http_socket_open(&client, &fixture);
        buf_reset(&flood);
        buf_append_text(&flood, heads[i]);
        while (flood.size < HTTP_FIXTURE_INPUT_MAX - 8192) {
            buf_append_text(&flood, fills[i]);
            if (i == 2) {
                memset(buf_extend(&flood, 4096), 'x', 4096);
                buf_append_text(&flood, "\r\n");
            }
        }
        http_socket_push(&client, (char *)flood.data, flood.size, false);
        HTTP_FIXTURE_WAIT(&fixture, (http_socket_pump(&client), client.is_closed));
        assert_true(client.size == 0 || strncmp(client.data, "HTTP/1.1 413 ", 13) == 0);
        assert_int_equal(fixture.request_count, 0);
        uint64_t bound = HTTP_FIXTURE_BODY_SIZE_MAX + 64 * 1024 + strlen(heads[i]);
        assert_true(http_fixture_counters(&fixture)->received_bytes_total <= bound);
        http_socket_close(&client);
        http_fixture_stop(&fixture);
    }
    buf_deinit(&flood);
}

static void limit_requests(struct http_limits *limits)
{
    limits->requests_max = 3;
}

/* A connection serves as many requests as its limit says, and the last answer says that it is the
 * last. */
static void test_requests_limit(void **state)
{
    (void)state;
    static struct http_socket_response response;
    struct http_fixture fixture;
    struct http_socket client;
    http_fixture_start_with(&fixture, limit_requests);
    http_socket_open(&client, &fixture);
    for (int i = 1; i <= 3; i++) {
        http_socket_send(&client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        http_socket_wait(&client, &response, true);
        assert_int_equal(strstr(response.head, "Connection: close") != NULL, i == 3);
    }
    http_socket_expect_end(&client);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
}

static void limit_connections(struct http_limits *limits)
{
    limits->connections_max = 2;
}

/* A connection over the limit is told so and closed, and there is room again once another has gone.
 */
static void test_connections_limit(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct http_socket clients[4];
    http_fixture_start_with(&fixture, limit_connections);
    for (int i = 0; i < 2; i++) {
        http_socket_open(&clients[i], &fixture);
        http_socket_expect_alive(&clients[i]);
    }
    http_socket_open(&clients[2], &fixture);
    http_socket_send(&clients[2], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    http_socket_expect(&clients[2], 503, NULL);
    http_socket_expect_end(&clients[2]);
    assert_int_equal(http_fixture_counters(&fixture)->connections_refused_total, 1);
    assert_int_equal(http_fixture_counters(&fixture)->connections_open, 2);
    http_socket_close(&clients[0]);
    HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 1);
    http_socket_open(&clients[3], &fixture);
    http_socket_expect_alive(&clients[3]);
    for (int i = 1; i < 4; i++) {
        http_socket_close(&clients[i]);
    }
    http_fixture_stop(&fixture);
}

/* ---- memory ---------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_MEASURES_MEMORY 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TEST_MEASURES_MEMORY 0
#endif
#endif
#ifndef TEST_MEASURES_MEMORY
#define TEST_MEASURES_MEMORY 1 /* the sanitizers' allocators do not count */
#endif

/* A connection that has served a request and is idle again holds no slot and no buffer, and less
 * than 8 KiB in all. */
static void test_idle_memory(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    static int fds[COUNT];
    static char answer[4096];
    struct http_fixture fixture;
    http_fixture_start(&fixture);
    size_t before = mallinfo2().uordblks;
    for (size_t i = 0; i < COUNT; i++) {
        static const char request[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        fds[i] = http_fixture_connect(&fixture);
        assert_true(fds[i] >= 0);
        assert_int_equal(send(fds[i], request, sizeof request - 1, 0), sizeof request - 1);
        ssize_t size = -1;
        HTTP_FIXTURE_WAIT(&fixture, (size = recv(fds[i], answer, sizeof answer, MSG_DONTWAIT)) > 0);
    }
    size_t used = mallinfo2().uordblks - before;
    size_t idle_count = 0;
    struct list *idle = &fixture.server->steps[HTTP_STEP_IDLE];
    for (struct list_link *link = list_first(idle); link != NULL; link = list_next(idle, link)) {
        struct http_conn *conn = container_of(link, struct http_conn, link);
        assert_null(conn->slot);
        assert_null(conn->pending.data);
        idle_count++;
    }
    assert_int_equal(idle_count, COUNT);
    assert_true(sizeof(struct http_conn) < 1024);
    assert_true(!TEST_MEASURES_MEMORY || used / COUNT < 8192);
    for (size_t i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
    http_fixture_stop(&fixture);
}

/* Memory that runs out while a request arrives costs that request, never the server. */
static void test_no_memory(void **state)
{
    (void)state;
    struct http_fixture fixture;
    struct buf request;
    struct buf pieces;
    buf_init(&request, HTTP_FIXTURE_INPUT_MAX);
    buf_init(&pieces, HTTP_FIXTURE_INPUT_MAX);
    make_chunked_body(&request, 50000, 4096);
    make_length_body(&pieces, 50000);
    buf_append_span(&request, buf_span(&pieces));
    bool has_failed = true;
    http_fixture_start(&fixture);
    for (uint64_t nth = 1; has_failed; nth++) {
        struct http_socket client;
        http_socket_open(&client, &fixture);
        HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 1);
        fault_alloc_nth(nth);
        http_socket_push(&client, (char *)request.data, request.size, true);
        for (int i = 0; i < 20; i++) {
            http_fixture_turn(&fixture);
        }
        has_failed = fault_alloc_stop();
        http_socket_close(&client);
        HTTP_FIXTURE_WAIT(&fixture, http_fixture_counters(&fixture)->connections_open == 0);
        assert_int_equal(http_server_pending(fixture.server), 0);
    }
    struct http_socket client;
    http_socket_open(&client, &fixture);
    http_socket_expect_alive(&client);
    http_socket_close(&client);
    http_fixture_stop(&fixture);
    buf_deinit(&request);
    buf_deinit(&pieces);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_limits),          cmocka_unit_test(test_body_limits),
        cmocka_unit_test(test_chunk_overhead_limit), cmocka_unit_test(test_read_bound),
        cmocka_unit_test(test_requests_limit),       cmocka_unit_test(test_connections_limit),
        cmocka_unit_test(test_idle_memory),          cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
