/* The HTTP server, driven over real loopback sockets from its own loop's thread, on simulated time.
 */
#include "broker/http/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/http/conn.h"
#include "tests/lib/fault.h"

enum {
    TEST_HEADER_SIZE_MAX = 2048,
    TEST_HEADER_COUNT_MAX = 8,
    TEST_BODY_SIZE_MAX = 100000,
    TEST_HEADER_TIMEOUT_MS = 5000,
    TEST_IDLE_TIMEOUT_MS = 60000,
    TEST_WRITE_TIMEOUT_MS = 10000,
    TEST_BODY_RATE_MIN = 1000,
    TEST_HELD_MAX = 16,
    TEST_BIG_SIZE = 64 << 20, /* more than the kernel buffers between two sockets */
    TEST_INPUT_MAX = 1 << 20,
    TEST_PATIENCE_S = 20, /* real time after which a state that does not come fails the test */
};

/* ---- the server under test
 * ------------------------------------------------------------------------ */

struct fixture {
    uv_loop_t loop;
    struct clock clock;
    struct http_server *server;
    bool is_closed;
    struct http_exchange *held[TEST_HELD_MAX]; /* requests for /hold, not answered yet */
    size_t held_count;
    size_t request_count;
    size_t abandon_count;
    bool answers_on_abandon;
};

static void respond_text(struct http_exchange *exchange, int status, const char *text)
{
    struct buf body;
    buf_init(&body, 4096);
    buf_append_text(&body, text);
    http_respond(exchange, status, "text/plain", &body);
    assert_int_equal(body.size, 0); /* taken */
    buf_deinit(&body);
}

static void on_abandon(struct http_exchange *exchange)
{
    struct fixture *fixture = exchange->user;
    assert_true(exchange->abandoned);
    fixture->abandon_count++;
    if (fixture->answers_on_abandon) {
        respond_text(exchange, 200, "nobody reads this");
    }
}

/* "METHOD path?query=body", and what header X-Test was. */
static void respond_echo(struct http_exchange *exchange)
{
    struct buf body;
    struct span value;
    buf_init(&body, TEST_INPUT_MAX);
    buf_append_span(&body, exchange->method_text);
    buf_append_byte(&body, ' ');
    buf_append_span(&body, exchange->path);
    if (exchange->query.size > 0) {
        buf_append_byte(&body, '?');
        buf_append_span(&body, exchange->query);
    }
    buf_append_byte(&body, '=');
    buf_append_span(&body, exchange->body);
    if (http_request_header(exchange, "x-test", &value)) {
        http_response_header(exchange, "X-Echo", value);
        http_response_header(exchange, "X-Split", span_text("a\r\nX-Injected: b"));
    }
    http_respond(exchange, 200, "text/plain", &body);
}

static void respond_big(struct http_exchange *exchange)
{
    struct buf body;
    buf_init(&body, TEST_BIG_SIZE);
    memset(buf_extend(&body, TEST_BIG_SIZE), 'b', TEST_BIG_SIZE);
    http_respond(exchange, 200, "text/plain", &body);
}

static void respond_cut(struct http_exchange *exchange)
{
    struct buf body;
    buf_init(&body, 4);
    buf_append_text(&body, "longer than four");
    http_respond(exchange, 200, "text/plain", &body);
}

static void on_request(void *user, struct http_exchange *exchange)
{
    struct fixture *fixture = user;
    fixture->request_count++;
    if (span_is(exchange->path, "/hold")) {
        assert_true(fixture->held_count < TEST_HELD_MAX);
        exchange->user = fixture;
        exchange->on_abandon = on_abandon;
        fixture->held[fixture->held_count++] = exchange;
    } else if (span_is(exchange->path, "/big")) {
        respond_big(exchange);
    } else if (span_is(exchange->path, "/cut")) {
        respond_cut(exchange);
    } else if (span_is(exchange->path, "/none")) {
        http_respond(exchange, 204, NULL, NULL);
    } else {
        respond_echo(exchange);
    }
}

static void on_problem(void *user, enum err_code code, const char *detail, struct buf *body,
                       const char **content_type)
{
    (void)user;
    *content_type = "application/problem+json";
    buf_printf(body, "{\"code\":\"%s\",\"detail\":\"%s\"}", err_slug(code), detail);
}

static void on_server_closed(void *user)
{
    struct fixture *fixture = user;
    fixture->is_closed = true;
}

static struct http_server_options test_options(struct fixture *fixture)
{
    return (struct http_server_options){
        .loop = &fixture->loop,
        .clock = &fixture->clock,
        .limits =
            {
                .connections_max = 1000,
                .header_size_max = TEST_HEADER_SIZE_MAX,
                .header_count_max = TEST_HEADER_COUNT_MAX,
                .body_size_max = TEST_BODY_SIZE_MAX,
                .header_timeout_ms = TEST_HEADER_TIMEOUT_MS,
                .body_rate_min = TEST_BODY_RATE_MIN,
                .idle_timeout_ms = TEST_IDLE_TIMEOUT_MS,
                .write_timeout_ms = TEST_WRITE_TIMEOUT_MS,
            },
        .on_request = on_request,
        .on_problem = on_problem,
        .user = fixture,
    };
}

static void start_with(struct fixture *fixture, void (*change)(struct http_limits *limits))
{
    *fixture = (struct fixture){.is_closed = false};
    assert_int_equal(uv_loop_init(&fixture->loop), 0);
    clock_init_simulated(&fixture->clock, 1767323045678); /* 2026-01-02T03:04:05.678Z */
    struct http_server_options options = test_options(fixture);
    if (change != NULL) {
        change(&options.limits);
    }
    assert_null(http_server_create(&options, &fixture->server));
    assert_null(http_server_listen(fixture->server, "127.0.0.1:0"));
}

static void start(struct fixture *fixture)
{
    start_with(fixture, NULL);
}

static void turn(struct fixture *fixture)
{
    uv_run(&fixture->loop, UV_RUN_NOWAIT);
}

/* Fails the test when what is waited for does not come. */
static void check_patience(time_t *since)
{
    if (*since == 0) {
        *since = time(NULL);
    }
    assert_true(time(NULL) - *since < TEST_PATIENCE_S);
}

#define WAIT_FOR(fixture, condition)                                                               \
    for (time_t since_ = 0; !(condition);) {                                                       \
        turn(fixture);                                                                             \
        check_patience(&since_);                                                                   \
    }

static void stop(struct fixture *fixture)
{
    http_server_destroy(fixture->server, on_server_closed, fixture);
    WAIT_FOR(fixture, fixture->is_closed);
    assert_int_equal(uv_loop_close(&fixture->loop), 0);
}

static void pass_time(struct fixture *fixture, uint64_t ms)
{
    clock_advance(&fixture->clock, ms);
    http_server_tick(fixture->server);
}

static const struct http_counters *counters(const struct fixture *fixture)
{
    return http_server_counters(fixture->server);
}

static struct http_exchange *take_held(struct fixture *fixture)
{
    assert_true(fixture->held_count > 0);
    return fixture->held[--fixture->held_count];
}

/* ---- a client
 * ------------------------------------------------------------------------------------- */

struct client {
    struct fixture *fixture;
    int fd;
    bool is_closed; /* the server has ended the connection */
    char *data;     /* received and not consumed, terminated */
    size_t size;
};

struct response {
    int status;
    char head[4096];
    char body[TEST_BODY_SIZE_MAX + 64];
    size_t body_size;
};

static uint16_t server_port(const struct fixture *fixture)
{
    const char *colon = strrchr(http_server_address(fixture->server), ':');
    return (uint16_t)strtoul(colon + 1, NULL, 10);
}

static int try_connect(const struct fixture *fixture)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(server_port(fixture))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void client_open(struct client *client, struct fixture *fixture)
{
    *client = (struct client){.fixture = fixture, .fd = try_connect(fixture)};
    assert_true(client->fd >= 0);
    client->data = calloc(1, TEST_INPUT_MAX + 1);
    assert_non_null(client->data);
}

static void client_close(struct client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
    }
    client->fd = -1;
    free(client->data);
    client->data = NULL;
}

/* Closes with a reset instead of an orderly end. */
static void client_reset(struct client *client)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    client_close(client);
}

/* Lets the server run, and takes what it has sent. */
static void client_pump(struct client *client)
{
    turn(client->fixture);
    while (!client->is_closed && client->size < TEST_INPUT_MAX) {
        ssize_t size = recv(client->fd, client->data + client->size, TEST_INPUT_MAX - client->size,
                            MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN) {
            break;
        }
        client->is_closed = size <= 0;
        client->size += size > 0 ? (size_t)size : 0;
    }
    client->data[client->size] = '\0';
}

/* Returns how much was sent before the server ended the connection, or stopped reading when
 * `is_patient` is false. */
static size_t client_push(struct client *client, const char *data, size_t size, bool is_patient)
{
    size_t sent = 0;
    size_t fruitless = 0;
    time_t since = 0;
    while (sent < size && !client->is_closed && (is_patient || fruitless < 100)) {
        ssize_t n = send(client->fd, data + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        fruitless = n > 0 ? 0 : fruitless + 1;
        sent += n > 0 ? (size_t)n : 0;
        client->is_closed = n < 0 && errno != EAGAIN;
        turn(client->fixture);
        check_patience(&since);
    }
    client->is_closed = false; /* what was answered before can still be read */
    return sent;
}

static void client_send(struct client *client, const char *text)
{
    assert_int_equal(client_push(client, text, strlen(text), true), strlen(text));
}

static void client_consume(struct client *client, size_t size)
{
    memmove(client->data, client->data + size, client->size - size + 1);
    client->size -= size;
}

/* Takes a whole response off what has come; false when it has not. */
static bool client_take(struct client *client, struct response *response, bool has_body)
{
    char *end = strstr(client->data, "\r\n\r\n");
    if (end == NULL) {
        return false;
    }
    size_t head_size = (size_t)(end - client->data) + 4;
    assert_true(head_size < sizeof response->head);
    memcpy(response->head, client->data, head_size);
    response->head[head_size] = '\0';
    assert_int_equal(sscanf(response->head, "HTTP/1.1 %d ", &response->status), 1);
    char *length = strstr(response->head, "\r\nContent-Length: ");
    size_t body_size = length == NULL || !has_body ? 0 : strtoul(length + 18, NULL, 10);
    assert_true(body_size < sizeof response->body);
    if (client->size < head_size + body_size) {
        return false;
    }
    memcpy(response->body, client->data + head_size, body_size);
    response->body[body_size] = '\0';
    response->body_size = body_size;
    client_consume(client, head_size + body_size);
    return true;
}

static void client_wait(struct client *client, struct response *response, bool has_body)
{
    time_t since = 0;
    while (!client_take(client, response, has_body)) {
        assert_false(client->is_closed);
        client_pump(client);
        check_patience(&since);
    }
}

static void client_expect(struct client *client, int status, const char *body)
{
    static struct response response;
    client_wait(client, &response, true);
    assert_int_equal(response.status, status);
    if (body != NULL) {
        assert_string_equal(response.body, body);
    }
}

static void client_expect_end(struct client *client)
{
    WAIT_FOR(client->fixture, (client_pump(client), client->is_closed));
    assert_int_equal(client->size, 0);
}

/* The connection is open and nothing has been sent on it. */
static void client_expect_quiet(struct client *client)
{
    for (int i = 0; i < 20; i++) {
        client_pump(client);
    }
    assert_false(client->is_closed);
    assert_int_equal(client->size, 0);
}

/* The connection serves a further request. */
static void client_expect_alive(struct client *client)
{
    client_send(client, "GET /alive HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect(client, 200, "GET /alive=");
}

/* ---- requests and answers
 * --------------------------------------------------------------------------- */

/* A connection serves one request after another, and a request is handed over as it was sent. */
static void test_keep_alive(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET /a%2Fb?x=1&y HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect(&client, 200, "GET /a%2Fb?x=1&y=");
    client_send(&client, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    client_expect(&client, 200, "POST /p=hello");
    client_send(&client, "PATCH /other HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect(&client, 200, "PATCH /other=");
    assert_int_equal(counters(&fixture)->requests_total, 3);
    assert_int_equal(counters(&fixture)->connections_total, 1);
    client_close(&client);
    WAIT_FOR(&fixture, counters(&fixture)->connections_open == 0);
    stop(&fixture);
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
    struct fixture fixture;
    start(&fixture);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct response response;
        struct client client;
        client_open(&client, &fixture);
        client_send(&client, cases[i].request);
        client_wait(&client, &response, true);
        assert_int_equal(response.status, 200);
        if (cases[i].header == NULL) {
            assert_null(strstr(response.head, "Connection:"));
        } else {
            assert_non_null(strstr(response.head, cases[i].header));
        }
        if (cases[i].ends) {
            client_expect_end(&client);
        } else {
            client_expect_alive(&client);
        }
        client_close(&client);
    }
    stop(&fixture);
}

/* An answer carries the headers of RFC 9110 and those of the handler, but none that would split it.
 */
static void test_answer_headers(void **state)
{
    (void)state;
    static struct response response;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET / HTTP/1.1\r\nHost: a\r\nX-TEST:  \t v w \t\r\n\r\n");
    client_wait(&client, &response, true);
    assert_string_equal(response.head, "HTTP/1.1 200 OK\r\n"
                                       "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n"
                                       "Content-Type: text/plain\r\n"
                                       "Content-Length: 6\r\n"
                                       "X-Echo: v w\r\n\r\n");
    clock_advance(&fixture.clock, 1000);
    client_send(&client, "GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    client_wait(&client, &response, true);
    assert_string_equal(response.head, "HTTP/1.1 204 No Content\r\n"
                                       "Date: Fri, 02 Jan 2026 03:04:06 GMT\r\n\r\n");
    client_close(&client);
    stop(&fixture);
}

/* An answer that its handler could not write whole becomes a 500, never a shorter answer. */
static void test_answer_cut_short(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect(&client, 500, NULL);
    client_expect_alive(&client);
    client_close(&client);
    stop(&fixture);
}

/* HEAD is answered with the length of the body and without the body. */
static void test_head(void **state)
{
    (void)state;
    static struct response response;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client_wait(&client, &response, false);
    assert_int_equal(response.status, 200);
    assert_non_null(strstr(response.head, "Content-Length: 8\r\n"));
    client_expect_alive(&client); /* the next answer begins right after the head */
    client_close(&client);
    stop(&fixture);
}

/* Pipelined requests are answered in order, whatever their framing, and even when the input ends
 * behind them. */
static void test_pipelining(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
                         "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                         "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                         "2;ext=1\r\nde\r\n1\r\nf\r\n0\r\nX-Trailer: t\r\n\r\n"
                         "\r\n" /* after a body, an empty line is forgiven */
                         "GET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
                         "GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                         "GET /6 HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect(&client, 200, "GET /1=");
    client_expect(&client, 200, "POST /2=abc");
    client_expect(&client, 200, "POST /3=def");
    client_expect(&client, 200, "GET /4=");
    client_expect(&client, 200, "GET /5=");
    assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
    client_expect_end(&client); /* nothing behind the close is served */
    assert_int_equal(fixture.request_count, 5);
    client_close(&client);
    stop(&fixture);
}

/* Requests of one connection are handled one at a time: the next begins when the one before has its
 * answer. */
static void test_one_at_a_time(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client,
                "GET /hold HTTP/1.1\r\nHost: a\r\n\r\nGET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
                "GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        WAIT_FOR(&fixture, fixture.held_count == 1);
        assert_int_equal(http_server_pending(fixture.server), 1);
        client_expect_quiet(&client);
        assert_int_equal(fixture.held_count, 1);
        respond_text(take_held(&fixture), 200, "held");
        client_expect(&client, 200, "held");
    }
    client_expect(&client, 200, "GET /last=");
    /* Idle again, it has given its buffer back. */
    struct list_link *link = list_first(&fixture.server->steps[HTTP_STEP_IDLE]);
    assert_non_null(link);
    assert_null(container_of(link, struct http_conn, link)->pending.data);
    client_close(&client);
    stop(&fixture);
}

/* What is pipelined behind a request that waits is kept up to a bound, then left in the socket, and
 * never lost. */
static void test_pending_is_bounded(void **state)
{
    (void)state;
    enum { COUNT = 40000 };
    static const char request[] = "GET /n HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char first[] = "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n";
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, first);
    WAIT_FOR(&fixture, fixture.held_count == 1);
    size_t size = COUNT * (sizeof request - 1);
    char *flood = malloc(size);
    assert_non_null(flood);
    for (size_t i = 0; i < COUNT; i++) {
        memcpy(flood + i * (sizeof request - 1), request, sizeof request - 1);
    }
    size_t sent = client_push(&client, flood, size, false);
    uint64_t received = counters(&fixture)->received_bytes_total - (sizeof first - 1);
    assert_true(received <= HTTP_PENDING_MAX);
    assert_true(sent > received);
    respond_text(take_held(&fixture), 200, "held");
    client_expect(&client, 200, "held");
    /* The rest of a request cut in the middle, then a last one. */
    size_t rest = sent % (sizeof request - 1);
    if (rest > 0) {
        size_t missing = sizeof request - 1 - rest;
        assert_int_equal(client_push(&client, request + rest, missing, true), missing);
        sent += missing;
    }
    for (size_t i = 0; i < sent / (sizeof request - 1); i++) {
        client_expect(&client, 200, "GET /n=");
    }
    client_expect_alive(&client);
    free(flood);
    client_close(&client);
    stop(&fixture);
}

struct later {
    uv_timer_t timer;
    struct http_exchange *exchange;
};

static void on_later(uv_timer_t *timer)
{
    struct later *later = (struct later *)timer;
    respond_text(later->exchange, 202, "later");
    uv_close((uv_handle_t *)timer, NULL);
}

/* An exchange may be answered from any later callback of the loop; its spans live until then. */
static void test_answer_later(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    struct later later;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "POST /hold?q HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    WAIT_FOR(&fixture, fixture.held_count == 1);
    later.exchange = take_held(&fixture);
    client_expect_quiet(&client);
    assert_true(span_is(later.exchange->path, "/hold"));
    assert_true(span_is(later.exchange->query, "q"));
    assert_true(span_is(later.exchange->body, "body"));
    uv_timer_init(&fixture.loop, &later.timer);
    uv_timer_start(&later.timer, on_later, 0, 0);
    client_expect(&client, 202, "later");
    assert_int_equal(http_server_pending(fixture.server), 0);
    client_expect_alive(&client);
    client_close(&client);
    stop(&fixture);
}

/* An answer larger than the socket's buffers arrives whole. */
static void test_big_answer(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    WAIT_FOR(&fixture, (client_pump(&client), strstr(client.data, "\r\n\r\n") != NULL));
    size_t total = (size_t)(strstr(client.data, "\r\n\r\n") - client.data) + 4 + TEST_BIG_SIZE;
    size_t received = 0;
    time_t since = 0;
    while (received < total) {
        client_pump(&client);
        assert_false(client.is_closed);
        received += client.size;
        assert_true(client.size == 0 || client.data[client.size - 1] == 'b');
        client.size = 0;
        check_patience(&since);
    }
    assert_int_equal(received, total);
    client_expect_alive(&client);
    client_close(&client);
    stop(&fixture);
}

/* A client that waits for 100 Continue gets it once its headers are found good, and not when they
 * are not. */
static void test_expect(void **state)
{
    (void)state;
    static struct response response;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client,
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n");
    client_wait(&client, &response, true);
    assert_string_equal(response.head, "HTTP/1.1 100 Continue\r\n\r\n");
    client_send(&client, "hi");
    client_expect(&client, 200, "PUT /=hi");
    /* The body is there already. */
    client_send(&client,
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi");
    client_expect(&client, 200, "PUT /=hi");
    /* No body is announced. */
    client_send(&client, "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    client_expect(&client, 200, "GET /=");
    client_send(
        &client,
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\nExpect: 100-continue\r\n\r\n");
    client_expect(&client, 413, NULL);
    client_expect_end(&client);
    client_close(&client);
    stop(&fixture);
}

/* ---- limits
 * ----------------------------------------------------------------------------------------- */

/* Sends a request and expects this status; on an error the connection must end too. */
static void expect_status(struct fixture *fixture, const char *request, size_t size, int status)
{
    struct client client;
    client_open(&client, fixture);
    size_t sent = client_push(&client, request, size, true);
    assert_true(status != 200 || sent == size);
    client_expect(&client, status, NULL);
    if (status == 200) {
        client_expect_alive(&client);
    } else {
        client_expect_end(&client);
    }
    client_close(&client);
}

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
    struct fixture fixture;
    struct buf request;
    start(&fixture);
    buf_init(&request, TEST_INPUT_MAX);
    for (size_t more = 0; more < 2; more++) {
        int status = more == 0 ? 200 : 431;
        make_head_of(&request, TEST_HEADER_SIZE_MAX + more);
        expect_status(&fixture, (char *)request.data, request.size, status);
        make_headers(&request, TEST_HEADER_COUNT_MAX + more);
        expect_status(&fixture, (char *)request.data, request.size, status);
    }
    /* A line without end is refused once it is too long, not kept. */
    buf_reset(&request);
    while (request.size < TEST_HEADER_SIZE_MAX + 1) {
        buf_append_byte(&request, 'G');
    }
    expect_status(&fixture, (char *)request.data, request.size, 431);
    buf_deinit(&request);
    stop(&fixture);
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
    static const size_t chunk_sizes[] = {TEST_BODY_SIZE_MAX * 2, 4096, 64};
    struct fixture fixture;
    struct buf request;
    start(&fixture);
    buf_init(&request, TEST_INPUT_MAX);
    for (size_t more = 0; more < 2; more++) {
        int status = more == 0 ? 200 : 413;
        make_length_body(&request, TEST_BODY_SIZE_MAX + more);
        expect_status(&fixture, (char *)request.data, request.size, status);
        for (size_t i = 0; i < sizeof chunk_sizes / sizeof chunk_sizes[0]; i++) {
            make_chunked_body(&request, TEST_BODY_SIZE_MAX + more, chunk_sizes[i]);
            expect_status(&fixture, (char *)request.data, request.size, status);
        }
    }
    buf_deinit(&request);
    stop(&fixture);
}

/* What is not body in a chunked body is bounded as well: size lines, extensions, trailers. */
static void test_chunk_overhead_limit(void **state)
{
    (void)state;
    struct fixture fixture;
    struct buf request;
    start(&fixture);
    buf_init(&request, TEST_INPUT_MAX);
    /* Five bytes of overhead a chunk, and five for the last. */
    make_chunked_body(&request, HTTP_CHUNK_OVERHEAD_MAX / 5 - 1, 1);
    expect_status(&fixture, (char *)request.data, request.size, 200);
    make_chunked_body(&request, HTTP_CHUNK_OVERHEAD_MAX / 5 + 1, 1);
    expect_status(&fixture, (char *)request.data, request.size, 413);
    buf_reset(&request);
    buf_append_text(&request, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;");
    memset(buf_extend(&request, HTTP_CHUNK_OVERHEAD_MAX), 'e', HTTP_CHUNK_OVERHEAD_MAX);
    expect_status(&fixture, (char *)request.data, request.size, 413);
    buf_deinit(&request);
    stop(&fixture);
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
    buf_init(&flood, TEST_INPUT_MAX);
    for (size_t i = 0; i < 4; i++) {
        struct fixture fixture;
        struct client client;
        start(&fixture);
        client_open(&client, &fixture);
        buf_reset(&flood);
        buf_append_text(&flood, heads[i]);
        while (flood.size < TEST_INPUT_MAX - 8192) {
            buf_append_text(&flood, fills[i]);
            if (i == 2) {
                memset(buf_extend(&flood, 4096), 'x', 4096);
                buf_append_text(&flood, "\r\n");
            }
        }
        client_push(&client, (char *)flood.data, flood.size, false);
        WAIT_FOR(&fixture, (client_pump(&client), client.is_closed));
        assert_true(client.size == 0 || strncmp(client.data, "HTTP/1.1 413 ", 13) == 0);
        assert_int_equal(fixture.request_count, 0);
        uint64_t bound = TEST_BODY_SIZE_MAX + 64 * 1024 + strlen(heads[i]);
        assert_true(counters(&fixture)->received_bytes_total <= bound);
        client_close(&client);
        stop(&fixture);
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
    static struct response response;
    struct fixture fixture;
    struct client client;
    start_with(&fixture, limit_requests);
    client_open(&client, &fixture);
    for (int i = 1; i <= 3; i++) {
        client_send(&client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client_wait(&client, &response, true);
        assert_int_equal(strstr(response.head, "Connection: close") != NULL, i == 3);
    }
    client_expect_end(&client);
    client_close(&client);
    stop(&fixture);
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
    struct fixture fixture;
    struct client clients[4];
    start_with(&fixture, limit_connections);
    for (int i = 0; i < 2; i++) {
        client_open(&clients[i], &fixture);
        client_expect_alive(&clients[i]);
    }
    client_open(&clients[2], &fixture);
    client_send(&clients[2], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect(&clients[2], 503, NULL);
    client_expect_end(&clients[2]);
    assert_int_equal(counters(&fixture)->connections_refused_total, 1);
    assert_int_equal(counters(&fixture)->connections_open, 2);
    client_close(&clients[0]);
    WAIT_FOR(&fixture, counters(&fixture)->connections_open == 1);
    client_open(&clients[3], &fixture);
    client_expect_alive(&clients[3]);
    for (int i = 1; i < 4; i++) {
        client_close(&clients[i]);
    }
    stop(&fixture);
}

/* ---- smuggling
 * -------------------------------------------------------------------------------------- */

#define HEAD "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED HEAD "Transfer-Encoding: chunked\r\n\r\n"
#define RAW(text) text, sizeof(text) - 1

static const struct {
    const char *data;
    size_t size;
} smuggling[] = {
    {RAW(HEAD "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")},
    {RAW(HEAD "Content-Length: 1\r\nContent-Length: 1\r\n\r\na")},
    {RAW(HEAD "Content-Length: 1, 1\r\n\r\na")},
    {RAW(HEAD "Content-Length: +1\r\n\r\na")},
    {RAW(HEAD "Content-Length: -1\r\n\r\na")},
    {RAW(HEAD "Content-Length: 0x1\r\n\r\na")},
    {RAW(HEAD "Content-Length: 1 1\r\n\r\na")},
    {RAW(HEAD "Content-Length: 1a\r\n\r\na")},
    {RAW(HEAD "Content-Length:\r\n\r\n")},
    {RAW(HEAD "Content-Length: 18446744073709551617\r\n\r\na")},
    {RAW(HEAD "Transfer-Encoding: identity\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: \x0b"
              "chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding:\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "X: a\r\n\tb\r\n\r\n")},
    {RAW(HEAD "X: a\nContent-Length: 1\r\n\r\na")},
    {RAW(HEAD "X: a\rContent-Length: 1\r\n\r\na")},
    {RAW(HEAD "X: a\r\r\n\r\n")},
    {RAW(HEAD "X: a\0b\r\n\r\n")},
    {RAW(HEAD "X: a\x01"
              "b\r\n\r\n")},
    {RAW(HEAD "X: a\x7f\r\n\r\n")},
    {RAW(HEAD "X\0: a\r\n\r\n")},
    {RAW(HEAD "X(: a\r\n\r\n")},
    {RAW(HEAD "X\x80: a\r\n\r\n")},
    {RAW(HEAD ": a\r\n\r\n")},
    {RAW(HEAD "no colon\r\n\r\n")},
    {RAW(HEAD "\n")},
    {RAW("GET / HTTP/1.1\nHost: a\n\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a\n\r\n")},
    {RAW("GET / HTTP/1.1\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n")},
    {RAW("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost:\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a b\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n")},
    {RAW("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET a HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET * HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")},
    {RAW("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET /a\x80 HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET  / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET /  HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET / x HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.1 \r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/2.0\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.2\r\nHost: a\r\n\r\n")},
    {RAW("GET / http/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.11\r\nHost: a\r\n\r\n")},
    {RAW("GET /\r\nHost: a\r\n\r\n")},
    {RAW("GET HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW(" GET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW(CHUNKED "1\r\nxyz\r\n0\r\n\r\n")},
    {RAW(CHUNKED "1\r\nxy\n0\r\n\r\n")},
    {RAW(CHUNKED "1\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "1\r\nx\n0\r\n\r\n")},
    {RAW(CHUNKED "1\r\nx\r0\r\n\r\n")},
    {RAW(CHUNKED "1;a\nb\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "1;a\rb\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "1 ;a\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED " 1\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "0x1\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "+1\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "-1\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED ";a\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "g\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "00000000000000001\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "0\r\nX : a\r\n\r\n")},
    {RAW(CHUNKED "0\r\n folded\r\n\r\n")},
    {RAW(CHUNKED "0\r\nX: a\n\r\n")},
    {RAW(CHUNKED "0\r\nno colon\r\n\r\n")},
    {RAW(CHUNKED "0\r\n\rx")},
    {RAW("\x16\x03\x01\x02\n")},
};

/* What two readers could frame or route differently is refused with 400, reaches no handler, and
 * ends the connection. */
static void test_smuggling(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture);
    for (size_t i = 0; i < sizeof smuggling / sizeof smuggling[0]; i++) {
        print_message("case %zu\n", i);
        expect_status(&fixture, smuggling[i].data, smuggling[i].size, 400);
        assert_int_equal(fixture.request_count, 0);
    }
    stop(&fixture);
}

/* Unusual but unambiguous requests are served. */
static void test_unusual_requests(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
        const char *body;
    } cases[] = {
        {"GET http://a/x?y HTTP/1.1\r\nHost: A\r\n\r\n", 200, "GET /x?y="},
        {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 200, "GET /="},
        {"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", 200, "GET /?q="},
        {"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, "GET /="},
        {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200, "OPTIONS *="},
        {"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, "GET /="},
        {"GET / HTTP/1.1\r\nHost:a\r\nX:\r\n\r\n", 200, "GET /="},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\r\n\r\n", 200, "GET /="},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 200, "GET /="},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 02\r\n\r\nhi", 200, "GET /=hi"},
        {"GET / HTTP/1.1\r\nHost: a\r\nTRANSFER-encoding: Chunked\r\n\r\n0002\r\nhi\r\n00\r\n\r\n",
         200, "GET /=hi"},
        {"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501, NULL},
        {"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501, NULL},
    };
    struct fixture fixture;
    start(&fixture);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client client;
        client_open(&client, &fixture);
        client_send(&client, cases[i].request);
        client_expect(&client, cases[i].status, cases[i].body);
        client_close(&client);
    }
    stop(&fixture);
}

/* ---- slow clients
 * ------------------------------------------------------------------------------------ */

/* Headers must be complete within their time, counted from the first byte of the request. */
static void test_slow_headers(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_expect_alive(&client);
    pass_time(&fixture, TEST_HEADER_TIMEOUT_MS * 2); /* idle time does not count */
    client_send(&client, "GET / HT");
    client_expect_quiet(&client);
    pass_time(&fixture, TEST_HEADER_TIMEOUT_MS - 1);
    client_send(&client, "TP/1.1\r\nHo"); /* more of it wins no more time */
    client_expect_quiet(&client);
    pass_time(&fixture, 1);
    client_expect(&client, 408, NULL);
    client_expect_end(&client);
    assert_int_equal(counters(&fixture)->timeouts_total, 1);
    client_close(&client);
    stop(&fixture);
}

static void limit_body_rate(struct http_limits *limits)
{
    limits->body_rate_min = 100;
}

/* A body that keeps the least rate is waited for; one that falls below it, or stops, is cut. */
static void test_slow_body(void **state)
{
    (void)state;
    struct fixture fixture;
    start_with(&fixture, limit_body_rate);
    static char part[500];
    memset(part, 'x', sizeof part);
    for (size_t size = sizeof part - 1; size <= sizeof part; size++) {
        struct client client;
        client_open(&client, &fixture);
        client_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
        client_expect_quiet(&client);
        client_push(&client, part, size, true);
        client_expect_quiet(&client);
        pass_time(&fixture, HTTP_BODY_WINDOW_MS - 1);
        client_expect_quiet(&client);
        pass_time(&fixture, 1);
        if (size == sizeof part) {
            client_push(&client, part, sizeof part, true);
            client_expect(&client, 200, NULL);
        } else {
            client_expect(&client, 408, NULL);
            client_expect_end(&client);
        }
        client_close(&client);
    }
    stop(&fixture);
}

static void allow_any_body_rate(struct http_limits *limits)
{
    limits->body_rate_min = 0;
}

/* A body that stops is cut even when its beginning was fast, or no rate is asked for. */
static void test_stalled_body(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start_with(&fixture, allow_any_body_rate);
    client_open(&client, &fixture);
    client_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx");
    client_expect_quiet(&client);
    pass_time(&fixture, HTTP_BODY_WINDOW_MS);
    client_expect_quiet(&client);
    pass_time(&fixture, HTTP_BODY_WINDOW_MS);
    client_expect(&client, 408, NULL);
    client_expect_end(&client);
    client_close(&client);
    stop(&fixture);
}

/* A client that does not read its answer is cut; one that reads slowly is not. */
static void test_slow_reader(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    WAIT_FOR(&fixture, fixture.request_count == 1);
    for (int i = 0; i < 3; i++) {
        /* What is read leaves room, so the server's queue has shrunk when it is looked at. */
        uint64_t wanted = 8 << 20;
        for (uint64_t got = 0; got < wanted; got += client.size) {
            client.size = 0;
            client_pump(&client);
        }
        pass_time(&fixture, TEST_WRITE_TIMEOUT_MS);
        turn(&fixture);
        assert_int_equal(counters(&fixture)->connections_open, 1);
    }
    /* From here nothing is read. What still fits the kernel's buffers counts as progress, once. */
    for (int i = 0; i < 50; i++) {
        turn(&fixture);
    }
    pass_time(&fixture, TEST_WRITE_TIMEOUT_MS - 1);
    turn(&fixture);
    assert_int_equal(counters(&fixture)->connections_open, 1);
    pass_time(&fixture, 1);
    pass_time(&fixture, TEST_WRITE_TIMEOUT_MS);
    WAIT_FOR(&fixture, counters(&fixture)->connections_open == 0);
    assert_int_equal(counters(&fixture)->timeouts_total, 1);
    client_close(&client);
    stop(&fixture);
}

/* A connection without requests is closed when its time is over, without a word; a request wins it
 * new time. */
static void test_idle(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_expect_quiet(&client);
    pass_time(&fixture, TEST_IDLE_TIMEOUT_MS - 1);
    client_expect_alive(&client);
    client_send(&client, "\r\n"); /* an empty line is not a request */
    client_expect_quiet(&client);
    pass_time(&fixture, TEST_IDLE_TIMEOUT_MS - 1);
    client_expect_quiet(&client);
    pass_time(&fixture, 1);
    client_expect_end(&client);
    client_close(&client);
    stop(&fixture);
}

/* A request that the handler takes its time with is not timed out. */
static void test_long_poll_has_no_timeout(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    WAIT_FOR(&fixture, fixture.held_count == 1);
    pass_time(&fixture, 3600 * 1000);
    client_expect_quiet(&client);
    respond_text(take_held(&fixture), 200, "at last");
    client_expect(&client, 200, "at last");
    client_close(&client);
    stop(&fixture);
}

/* A refused client that goes on sending nothing is let go after the linger time. */
static void test_linger_ends(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "nonsense\r\n\r\n");
    client_expect(&client, 400, NULL);
    client_expect_end(&client);
    assert_int_equal(counters(&fixture)->connections_open,
                     1); /* half-closed, for the client to read */
    pass_time(&fixture, HTTP_LINGER_MS);
    WAIT_FOR(&fixture, counters(&fixture)->connections_open == 0);
    client_close(&client);
    stop(&fixture);
}

/* Of what a refused client goes on sending, no more than the drain bound is read. */
static void test_linger_is_bounded(void **state)
{
    (void)state;
    static const char request[] = "nonsense\r\n\r\n";
    static char flood[TEST_INPUT_MAX];
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, request);
    client_expect(&client, 400, NULL);
    client.is_closed = false; /* only the server's half is */
    assert_true(client_push(&client, flood, sizeof flood, false) >= HTTP_DRAIN_MAX);
    WAIT_FOR(&fixture, counters(&fixture)->connections_open == 0);
    assert_true(counters(&fixture)->received_bytes_total <= sizeof request + HTTP_DRAIN_MAX);
    client_close(&client);
    stop(&fixture);
}

/* ---- vanishing clients
 * ------------------------------------------------------------------------------- */

/* A client that goes away before its answer is noticed at once, its handler is told once, and the
 * answer given all the same ends the exchange. */
static void test_client_vanishes(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        struct fixture fixture;
        struct client client;
        start(&fixture);
        fixture.answers_on_abandon = variant >= 2;
        client_open(&client, &fixture);
        client_send(&client, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\nGET /behind HTTP/1.1\r\n");
        WAIT_FOR(&fixture, fixture.held_count == 1);
        if (variant % 2 == 0) {
            client_close(&client);
        } else {
            client_reset(&client);
        }
        WAIT_FOR(&fixture, counters(&fixture)->connections_open == 0);
        assert_int_equal(fixture.abandon_count, 1);
        struct http_exchange *exchange = take_held(&fixture);
        if (!fixture.answers_on_abandon) {
            assert_int_equal(http_server_pending(fixture.server), 1);
            assert_true(exchange->abandoned);
            assert_true(span_is(exchange->path, "/hold"));
            respond_text(exchange, 200, "nobody reads this");
        }
        assert_int_equal(http_server_pending(fixture.server), 0);
        assert_int_equal(fixture.request_count, 1);
        stop(&fixture);
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
    struct fixture fixture;
    start(&fixture);
    for (size_t i = 0; i < 8; i++) {
        struct client client;
        client_open(&client, &fixture);
        client_send(&client, requests[i / 2]);
        WAIT_FOR(&fixture, counters(&fixture)->connections_open == 1);
        turn(&fixture);
        if (i % 2 == 0) {
            client_close(&client);
        } else {
            client_reset(&client);
        }
        WAIT_FOR(&fixture, counters(&fixture)->connections_open == 0);
    }
    assert_int_equal(http_server_pending(fixture.server), 0);
    stop(&fixture);
}

/* A client that half-closes while its answer is on its way still gets all of it. */
static void test_half_close_in_answer(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    WAIT_FOR(&fixture, fixture.request_count == 1);
    assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
    turn(&fixture);
    size_t received = 0;
    time_t since = 0;
    while (!client.is_closed) {
        client.size = 0;
        client_pump(&client);
        received += client.size;
        check_patience(&since);
    }
    assert_true(received > TEST_BIG_SIZE);
    client_close(&client);
    stop(&fixture);
}

/* ---- end of the server
 * ------------------------------------------------------------------------------- */

/* Draining closes what is idle and refuses what is new, but a request that waits gets its answer,
 * as the last. */
static void test_drain(void **state)
{
    (void)state;
    static struct response response;
    struct fixture fixture;
    struct client idle;
    struct client busy;
    start(&fixture);
    client_open(&idle, &fixture);
    client_expect_alive(&idle);
    client_open(&busy, &fixture);
    client_send(&busy, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    WAIT_FOR(&fixture, fixture.held_count == 1);
    http_server_drain(fixture.server);
    client_expect_end(&idle);
    assert_int_equal(try_connect(&fixture), -1);
    assert_int_equal(http_server_pending(fixture.server), 1);
    respond_text(take_held(&fixture), 503, "stopping");
    client_wait(&busy, &response, true);
    assert_non_null(strstr(response.head, "Connection: close"));
    client_expect_end(&busy);
    assert_int_equal(http_server_pending(fixture.server), 0);
    client_close(&idle);
    client_close(&busy);
    stop(&fixture);
}

/* An answer that is on its way when draining begins is sent to its end, and its connection ends
 * with it. */
static void test_drain_in_answer(void **state)
{
    (void)state;
    struct fixture fixture;
    struct client client;
    start(&fixture);
    client_open(&client, &fixture);
    client_send(&client, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    WAIT_FOR(&fixture, fixture.request_count == 1);
    http_server_drain(fixture.server);
    size_t received = 0;
    time_t since = 0;
    while (!client.is_closed) {
        client.size = 0;
        client_pump(&client);
        received += client.size;
        check_patience(&since);
    }
    assert_true(received > TEST_BIG_SIZE);
    client_close(&client);
    stop(&fixture);
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
    struct fixture fixture;
    struct client clients[COUNT];
    start(&fixture);
    for (size_t i = 0; i < COUNT; i++) {
        client_open(&clients[i], &fixture);
        client_send(&clients[i], requests[i]);
    }
    WAIT_FOR(&fixture, fixture.held_count == 1 && fixture.request_count == 2);
    struct http_exchange *exchange = take_held(&fixture);
    stop(&fixture);
    assert_int_equal(fixture.abandon_count, 1);
    assert_true(exchange->abandoned);
    assert_true(span_is(exchange->path, "/hold"));
    respond_text(exchange, 200, "nobody reads this");
    for (size_t i = 0; i < COUNT; i++) {
        client_close(&clients[i]);
    }
}

/* ---- memory
 * ------------------------------------------------------------------------------------------- */

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
    struct fixture fixture;
    start(&fixture);
    size_t before = mallinfo2().uordblks;
    for (size_t i = 0; i < COUNT; i++) {
        static const char request[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        fds[i] = try_connect(&fixture);
        assert_true(fds[i] >= 0);
        assert_int_equal(send(fds[i], request, sizeof request - 1, 0), sizeof request - 1);
        ssize_t size = -1;
        WAIT_FOR(&fixture, (size = recv(fds[i], answer, sizeof answer, MSG_DONTWAIT)) > 0);
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
    stop(&fixture);
}

/* Memory that runs out while a request arrives costs that request, never the server. */
static void test_no_memory(void **state)
{
    (void)state;
    struct fixture fixture;
    struct buf request;
    struct buf pieces;
    buf_init(&request, TEST_INPUT_MAX);
    buf_init(&pieces, TEST_INPUT_MAX);
    make_chunked_body(&request, 50000, 4096);
    make_length_body(&pieces, 50000);
    buf_append_span(&request, buf_span(&pieces));
    bool has_failed = true;
    start(&fixture);
    for (uint64_t nth = 1; has_failed; nth++) {
        struct client client;
        client_open(&client, &fixture);
        WAIT_FOR(&fixture, counters(&fixture)->connections_open == 1);
        fault_alloc_nth(nth);
        client_push(&client, (char *)request.data, request.size, true);
        for (int i = 0; i < 20; i++) {
            turn(&fixture);
        }
        has_failed = fault_alloc_stop();
        client_close(&client);
        WAIT_FOR(&fixture, counters(&fixture)->connections_open == 0);
        assert_int_equal(http_server_pending(fixture.server), 0);
    }
    struct client client;
    client_open(&client, &fixture);
    client_expect_alive(&client);
    client_close(&client);
    stop(&fixture);
    buf_deinit(&request);
    buf_deinit(&pieces);
}

/* ---- addresses
 * ----------------------------------------------------------------------------------------- */

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
    struct fixture fixture;
    start(&fixture);
    assert_true(strncmp(http_server_address(fixture.server), "127.0.0.1:", 10) == 0);
    assert_true(server_port(&fixture) > 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0] + 1; i++) {
        bool is_in_use = i == sizeof bad / sizeof bad[0];
        struct fixture other = {.is_closed = false};
        assert_int_equal(uv_loop_init(&other.loop), 0);
        clock_init_simulated(&other.clock, 1);
        struct http_server_options options = test_options(&other);
        assert_null(http_server_create(&options, &other.server));
        err_t err = http_server_listen(other.server,
                                       is_in_use ? http_server_address(fixture.server) : bad[i]);
        assert_int_equal(err_code(err), is_in_use ? ERR_IO : ERR_INVALID);
        err_free(err);
        stop(&other);
    }
    stop(&fixture);
}

/* Limits that cannot be kept are refused at the start. */
static void test_bad_limits(void **state)
{
    (void)state;
    struct fixture fixture;
    for (int i = 0; i < 4; i++) {
        struct http_server_options options = test_options(&fixture);
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
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_connection_end),
        cmocka_unit_test(test_answer_headers),
        cmocka_unit_test(test_answer_cut_short),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_pipelining),
        cmocka_unit_test(test_one_at_a_time),
        cmocka_unit_test(test_pending_is_bounded),
        cmocka_unit_test(test_answer_later),
        cmocka_unit_test(test_big_answer),
        cmocka_unit_test(test_expect),
        cmocka_unit_test(test_head_limits),
        cmocka_unit_test(test_body_limits),
        cmocka_unit_test(test_chunk_overhead_limit),
        cmocka_unit_test(test_read_bound),
        cmocka_unit_test(test_requests_limit),
        cmocka_unit_test(test_connections_limit),
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_unusual_requests),
        cmocka_unit_test(test_slow_headers),
        cmocka_unit_test(test_slow_body),
        cmocka_unit_test(test_stalled_body),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_long_poll_has_no_timeout),
        cmocka_unit_test(test_linger_ends),
        cmocka_unit_test(test_linger_is_bounded),
        cmocka_unit_test(test_client_vanishes),
        cmocka_unit_test(test_client_vanishes_in_transfer),
        cmocka_unit_test(test_half_close_in_answer),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_in_answer),
        cmocka_unit_test(test_destroy_with_pending),
        cmocka_unit_test(test_idle_memory),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_bad_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
