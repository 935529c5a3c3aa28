#include "tests/lib/sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_S = 20, IN_MAX = 64 << 20, READ_SIZE = 64 * 1024, QUIET_TURNS = 50 };

const struct session_limits sessions_limits = {
    .connections_max = 8,
    .frame_size_max = 1 << 20,
    .window_requests = 16,
    .window_size = 1 << 20,
    .hello_timeout_ms = 5000,
    .write_timeout_ms = 10000,
    .message_size_max = 300000,
    .batch_count_max = 1000,
    .pull_count_max = 1000,
    .pull_size_max = 1 << 20,
    .wait_max_ms = 20000,
    .waiters_max = 100,
};

static uint64_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

void sessions_open(struct sessions *sessions, uint32_t shards, const struct session_limits *limits)
{
    memset(sessions, 0, sizeof *sessions);
    volumes_open(&sessions->volumes, &(struct volumes_options){.count = 2});
    assert_int_equal(volumes_put_topic(&sessions->volumes, "t", shards), ERR_NONE);
    assert_int_equal(volumes_put_sub(&sessions->volumes, "t", "s", NULL), ERR_NONE);
    assert_int_equal(uv_loop_init(&sessions->loop), 0);
    const struct session_options options = {
        .loop = &sessions->loop,
        .clock = &sessions->volumes.clock,
        .router = sessions->volumes.router,
        .metrics = &sessions->metrics,
        .limits = limits == NULL ? sessions_limits : *limits,
        .version = "1.2.3",
    };
    assert_null(session_server_create(&options, &sessions->server));
}

static void on_closed(void *user)
{
    *(bool *)user = true;
}

void sessions_turn(struct sessions *sessions)
{
    router_poll(sessions->volumes.router);
    uv_run(&sessions->loop, UV_RUN_NOWAIT);
    sched_yield();
}

void sessions_destroy_server(struct sessions *sessions)
{
    session_server_destroy(sessions->server, on_closed, &sessions->is_closed);
    while (!sessions->is_closed) {
        uv_run(&sessions->loop, UV_RUN_ONCE);
    }
}

void sessions_close(struct sessions *sessions)
{
    uint64_t end_s = now_s() + PATIENCE_S;
    if (!sessions->is_closed) {
        session_server_drain(sessions->server);
        router_drain(sessions->volumes.router);
    }
    while (router_pending(sessions->volumes.router) > 0) {
        sessions_turn(sessions);
        assert_true(now_s() < end_s);
    }
    if (!sessions->is_closed) {
        sessions_destroy_server(sessions);
    }
    uv_run(&sessions->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&sessions->loop), 0);
    volumes_close(&sessions->volumes);
}

/* ---- clients --------------------------------------------------------------------------------- */

void session_client_open(struct session_client *client, struct sessions *sessions, bool silent)
{
    int fds[2];
    memset(client, 0, sizeof *client);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    client->sessions = sessions;
    client->fd = fds[0];
    buf_init(&client->out, IN_MAX);
    buf_init(&client->in, IN_MAX);
    assert_null(session_server_adopt(sessions->server, fds[1]));
    if (!silent) {
        const struct wire_hello hello = {.id = 1, .version = 9, .client = span_text("test")};
        session_client_send(client, WIRE_hello, &hello);
        (void)session_client_expect(client, WIRE_welcome, 1);
    }
}

void session_client_close(struct session_client *client)
{
    close(client->fd);
    client->fd = -1;
    buf_deinit(&client->out);
    buf_deinit(&client->in);
}

static void move_bytes(struct session_client *client)
{
    static uint8_t bytes[READ_SIZE];
    while (client->out.size > 0) {
        ssize_t size = send(client->fd, client->out.data, client->out.size, MSG_NOSIGNAL);
        if (size < 0) {
            break; /* full, or the server has ended it: then reading says so */
        }
        buf_consume(&client->out, (size_t)size);
    }
    ssize_t size;
    while ((size = recv(client->fd, bytes, sizeof bytes, 0)) > 0) {
        buf_append(&client->in, bytes, (size_t)size);
        assert_false(client->in.failed);
    }
    client->is_ended = client->is_ended || size == 0 || (size < 0 && errno != EAGAIN);
}

void session_client_send_raw(struct session_client *client, struct span bytes)
{
    buf_append_span(&client->out, bytes);
    move_bytes(client);
}

void session_client_send(struct session_client *client, enum wire_type type, const void *message)
{
    wire_encode(&client->out, type, message);
    assert_false(client->out.failed);
    move_bytes(client);
}

void session_client_publish(struct session_client *client, uint64_t id, uint32_t count, size_t size)
{
    struct wire_publish publish = {.id = id, .topic = span_text("t"), .messages.count = count};
    uint8_t *body = calloc(1, size + 1);
    assert_non_null(body);
    const struct wire_message message = {.body = span_of(body, size)};
    size_t start = wire_begin(&client->out, WIRE_publish, &publish);
    for (uint32_t index = 0; index < count; index++) {
        wire_put_record(&client->out, WIRE_RECORD_message, &message);
    }
    wire_end(&client->out, start, WIRE_publish, &publish);
    free(body);
    move_bytes(client);
}

/* The size of the whole frame at the front; 0: it has not come. */
static size_t front_size(const struct session_client *client)
{
    size_t left = client->in.size - client->used;
    if (left < WIRE_SIZE_BYTES) {
        return 0;
    }
    size_t size = WIRE_SIZE_BYTES + (size_t)wire_frame_size(client->in.data + client->used);
    return left < size ? 0 : size;
}

const struct wire_frame *session_client_take(struct session_client *client)
{
    uint64_t end_s = now_s() + PATIENCE_S;
    size_t size;
    buf_consume(&client->in, client->used);
    client->used = 0;
    while ((size = front_size(client)) == 0) {
        assert_false(client->is_ended);
        assert_true(now_s() < end_s);
        sessions_turn(client->sessions);
        move_bytes(client);
    }
    assert_null(wire_decode(span_of(client->in.data + WIRE_SIZE_BYTES, size - WIRE_SIZE_BYTES),
                            &client->frame));
    client->used = size;
    return &client->frame;
}

const struct wire_frame *session_client_expect(struct session_client *client, enum wire_type type,
                                               uint64_t id)
{
    (void)session_client_take(client);
    if (client->frame.type != type || client->frame.id != id) {
        struct buf line;
        buf_init(&line, READ_SIZE);
        wire_print(&line, &client->frame);
        fail_msg("%.*s, not %s #%llu", (int)line.size, (const char *)line.data,
                 wire_shape(type)->name, (unsigned long long)id);
    }
    return &client->frame;
}

void session_client_expect_failure(struct session_client *client, uint64_t id, enum err_code code,
                                   const char *words)
{
    const struct wire_failure *failure = &session_client_expect(client, WIRE_failure, id)->failure;
    char detail[1025];
    (void)snprintf(detail, sizeof detail, "%.*s", (int)failure->detail.size,
                   (const char *)failure->detail.data);
    assert_int_equal(failure->code, code);
    assert_true(span_is(failure->slug, err_slug(code)));
    assert_int_equal(failure->retryable, err_retryable(code));
    if (strstr(detail, words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", detail, words);
    }
}

void session_client_expect_end(struct session_client *client)
{
    uint64_t end_s = now_s() + PATIENCE_S;
    while (!client->is_ended) {
        assert_true(now_s() < end_s);
        sessions_turn(client->sessions);
        move_bytes(client);
    }
}

bool session_client_has_frame(struct session_client *client)
{
    buf_consume(&client->in, client->used);
    client->used = 0;
    for (int turn = 0; turn < QUIET_TURNS && front_size(client) == 0; turn++) {
        sessions_turn(client->sessions);
        volumes_quiesce(&client->sessions->volumes);
        move_bytes(client);
    }
    return front_size(client) > 0;
}

uint32_t session_client_deliveries(const struct session_client *client, struct wire_delivery *out,
                                   uint32_t max)
{
    /* Both messages that carry deliveries have the list at the same place. */
    const struct wire_list *list = &client->frame.pulled.deliveries;
    struct wire_items items;
    uint32_t count = 0;
    wire_items_begin(&items, "deliveries", WIRE_RECORD_delivery, list);
    while (count < max && wire_items_next(&items, &out[count])) {
        count++;
    }
    assert_null(wire_items_finish(&items));
    return list->count;
}
