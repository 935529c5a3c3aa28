#include "tests/lib/http_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/http/conn.h"

enum { PATIENCE_S = 20 };

/* ---- the server under test ------------------------------------------------------------------- */

void http_fixture_respond(struct http_exchange *exchange, int status, const char *text)
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
    struct http_fixture *fixture = exchange->user;
    assert_true(exchange->abandoned);
    fixture->abandon_count++;
    if (fixture->answers_on_abandon) {
        http_fixture_respond(exchange, 200, "nobody reads this");
    }
}

/* "METHOD path?query=body", and what header X-Test was. */
static void respond_echo(struct http_exchange *exchange)
{
    struct buf body;
    struct span value;
    buf_init(&body, HTTP_FIXTURE_INPUT_MAX);
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
    buf_init(&body, HTTP_FIXTURE_BIG_SIZE);
    memset(buf_extend(&body, HTTP_FIXTURE_BIG_SIZE), 'b', HTTP_FIXTURE_BIG_SIZE);
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
    struct http_fixture *fixture = user;
    fixture->request_count++;
    if (span_is(exchange->path, "/hold")) {
        assert_true(fixture->held_count < HTTP_FIXTURE_HELD_MAX);
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
    struct http_fixture *fixture = user;
    fixture->is_closed = true;
}

struct http_server_options http_fixture_options(struct http_fixture *fixture)
{
    return (struct http_server_options){
        .loop = &fixture->loop,
        .clock = &fixture->clock,
        .limits =
            {
                .connections_max = 1000,
                .header_size_max = HTTP_FIXTURE_HEADER_SIZE_MAX,
                .header_count_max = HTTP_FIXTURE_HEADER_COUNT_MAX,
                .body_size_max = HTTP_FIXTURE_BODY_SIZE_MAX,
                .header_timeout_ms = HTTP_FIXTURE_HEADER_TIMEOUT_MS,
                .body_rate_min = HTTP_FIXTURE_BODY_RATE_MIN,
                .idle_timeout_ms = HTTP_FIXTURE_IDLE_TIMEOUT_MS,
                .write_timeout_ms = HTTP_FIXTURE_WRITE_TIMEOUT_MS,
            },
        .on_request = on_request,
        .on_problem = on_problem,
        .user = fixture,
    };
}

void http_fixture_start_with(struct http_fixture *fixture,
                             void (*change)(struct http_limits *limits))
{
    *fixture = (struct http_fixture){.is_closed = false};
    assert_int_equal(uv_loop_init(&fixture->loop), 0);
    clock_init_simulated(&fixture->clock, 1767323045678); /* 2026-01-02T03:04:05.678Z */
    struct http_server_options options = http_fixture_options(fixture);
    if (change != NULL) {
        change(&options.limits);
    }
    assert_null(http_server_create(&options, &fixture->server));
    assert_null(http_server_listen(fixture->server, "127.0.0.1:0"));
}

void http_fixture_start(struct http_fixture *fixture)
{
    http_fixture_start_with(fixture, NULL);
}

void http_fixture_turn(struct http_fixture *fixture)
{
    uv_run(&fixture->loop, UV_RUN_NOWAIT);
}

void http_fixture_check_patience(time_t *since)
{
    if (*since == 0) {
        *since = time(NULL);
    }
    assert_true(time(NULL) - *since < PATIENCE_S);
}

void http_fixture_stop(struct http_fixture *fixture)
{
    http_server_destroy(fixture->server, on_server_closed, fixture);
    HTTP_FIXTURE_WAIT(fixture, fixture->is_closed);
    assert_int_equal(uv_loop_close(&fixture->loop), 0);
}

void http_fixture_pass_time(struct http_fixture *fixture, uint64_t ms)
{
    clock_advance(&fixture->clock, ms);
    http_server_tick(fixture->server);
}

const struct http_counters *http_fixture_counters(const struct http_fixture *fixture)
{
    return http_server_counters(fixture->server);
}

struct http_exchange *http_fixture_take_held(struct http_fixture *fixture)
{
    assert_true(fixture->held_count > 0);
    return fixture->held[--fixture->held_count];
}

uint16_t http_fixture_port(const struct http_fixture *fixture)
{
    const char *colon = strrchr(http_server_address(fixture->server), ':');
    return (uint16_t)strtoul(colon + 1, NULL, 10);
}

int http_fixture_connect(const struct http_fixture *fixture)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(http_fixture_port(fixture))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- a client -------------------------------------------------------------------------------- */

void http_socket_open(struct http_socket *client, struct http_fixture *fixture)
{
    *client = (struct http_socket){.fixture = fixture, .fd = http_fixture_connect(fixture)};
    assert_true(client->fd >= 0);
    client->data = calloc(1, HTTP_FIXTURE_INPUT_MAX + 1);
    assert_non_null(client->data);
}

void http_socket_close(struct http_socket *client)
{
    if (client->fd >= 0) {
        close(client->fd);
    }
    client->fd = -1;
    free(client->data);
    client->data = NULL;
}

void http_socket_reset(struct http_socket *client)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    http_socket_close(client);
}

void http_socket_pump(struct http_socket *client)
{
    http_fixture_turn(client->fixture);
    while (!client->is_closed && client->size < HTTP_FIXTURE_INPUT_MAX) {
        ssize_t size = recv(client->fd, client->data + client->size,
                            HTTP_FIXTURE_INPUT_MAX - client->size, MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN) {
            break;
        }
        client->is_closed = size <= 0;
        client->size += size > 0 ? (size_t)size : 0;
    }
    client->data[client->size] = '\0';
}

size_t http_socket_push(struct http_socket *client, const char *data, size_t size, bool is_patient)
{
    size_t sent = 0;
    size_t fruitless = 0;
    time_t since = 0;
    while (sent < size && !client->is_closed && (is_patient || fruitless < 100)) {
        ssize_t n = send(client->fd, data + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        fruitless = n > 0 ? 0 : fruitless + 1;
        sent += n > 0 ? (size_t)n : 0;
        client->is_closed = n < 0 && errno != EAGAIN;
        http_fixture_turn(client->fixture);
        http_fixture_check_patience(&since);
    }
    client->is_closed = false; /* what was answered before can still be read */
    return sent;
}

void http_socket_send(struct http_socket *client, const char *text)
{
    assert_int_equal(http_socket_push(client, text, strlen(text), true), strlen(text));
}

static void consume(struct http_socket *client, size_t size)
{
    memmove(client->data, client->data + size, client->size - size + 1);
    client->size -= size;
}

bool http_socket_take(struct http_socket *client, struct http_socket_response *response,
                      bool has_body)
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
    consume(client, head_size + body_size);
    return true;
}

void http_socket_wait(struct http_socket *client, struct http_socket_response *response,
                      bool has_body)
{
    time_t since = 0;
    while (!http_socket_take(client, response, has_body)) {
        assert_false(client->is_closed);
        http_socket_pump(client);
        http_fixture_check_patience(&since);
    }
}

void http_socket_expect(struct http_socket *client, int status, const char *body)
{
    static struct http_socket_response response;
    http_socket_wait(client, &response, true);
    assert_int_equal(response.status, status);
    if (body != NULL) {
        assert_string_equal(response.body, body);
    }
}

void http_socket_expect_end(struct http_socket *client)
{
    HTTP_FIXTURE_WAIT(client->fixture, (http_socket_pump(client), client->is_closed));
    assert_int_equal(client->size, 0);
}

void http_socket_expect_quiet(struct http_socket *client)
{
    for (int i = 0; i < 20; i++) {
        http_socket_pump(client);
    }
    assert_false(client->is_closed);
    assert_int_equal(client->size, 0);
}

void http_socket_expect_alive(struct http_socket *client)
{
    http_socket_send(client, "GET /alive HTTP/1.1\r\nHost: a\r\n\r\n");
    http_socket_expect(client, 200, "GET /alive=");
}

void http_fixture_expect_status(struct http_fixture *fixture, const char *request, size_t size,
                                int status)
{
    struct http_socket client;
    http_socket_open(&client, fixture);
    size_t sent = http_socket_push(&client, request, size, true);
    assert_true(status != 200 || sent == size);
    http_socket_expect(&client, status, NULL);
    if (status == 200) {
        http_socket_expect_alive(&client);
    } else {
        http_socket_expect_end(&client);
    }
    http_socket_close(&client);
}
