/* The server: listener, timer, the end of each turn, what is kept for reuse, drain and destroy. */
#include <assert.h>
#include <stdlib.h>

#include "broker/base/log.h"
#include "broker/session/session_internal.h"

static void server_on_connection(struct net_listener *listener, int status);
static void server_on_listener_closed(struct net_listener *listener);
static void server_on_timer(uv_timer_t *timer);
static void server_on_before_wait(uv_prepare_t *prepare);
static void server_on_timer_closed(uv_handle_t *handle);
static void server_on_before_wait_closed(uv_handle_t *handle);

/* ---- create --------------------------------------------------------------------------------- */

/* The greatest message must fit in a frame, and so must the answer to the greatest batch: its
 * client would leave the connection over it and send the batch again, for ever. */
static uint32_t frame_size_max(const struct session_limits *limits)
{
    uint32_t message = limits->message_size_max + WIRE_OVERHEAD_MAX;
    uint32_t published = (limits->batch_count_max + 1) * WIRE_RESULT_SIZE_MAX;
    uint32_t least = message > published ? message : published;
    return limits->frame_size_max > least ? limits->frame_size_max : least;
}

err_t session_server_create(const struct session_options *options, struct session_server **out)
{
    struct session_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        return ERR(MEMORY, "no memory for the wire protocol's server");
    }
    net_ignore_sigpipe();
    server->options = *options;
    server->options.limits.frame_size_max = frame_size_max(&options->limits);
    for (size_t step = 0; step < SESSION_STEPS; step++) {
        list_init(&server->steps[step]);
    }
    list_init(&server->dirty);
    list_init(&server->chunks);
    list_init(&server->requests);
    buf_init(&server->spare_out, SESSION_OUT_MAX);
    int rc = uv_timer_init(options->loop, &server->timer);
    assert(rc == 0); /* both only fill the struct */
    rc = uv_prepare_init(options->loop, &server->before_wait);
    assert(rc == 0);
    uv_prepare_start(&server->before_wait, server_on_before_wait);
    server->handle_count = 2;
    *out = server;
    return NULL;
}

err_t session_server_listen(struct session_server *server, const char *address)
{
    assert(!server->is_draining);
    server->listener.on_connection = server_on_connection;
    server->listener.on_closed = server_on_listener_closed;
    server->handle_count++;
    TRY(net_listen(&server->listener, server->options.loop, address));
    return NULL;
}

const char *session_server_address(const struct session_server *server)
{
    return server->listener.address;
}

static void start_timer(struct session_server *server)
{
    if (!server->has_timer) {
        server->has_timer = true;
        uv_timer_start(&server->timer, server_on_timer, SESSION_TICK_MS, SESSION_TICK_MS);
    }
}

static void server_on_connection(struct net_listener *listener, int status)
{
    struct session_server *server = container_of(listener, struct session_server, listener);
    err_t err = status != 0 ? ERR(IO, "%s", uv_strerror(status)) : session_conn_begin(server, -1);
    if (err != NULL) {
        /* Out of file descriptors: libuv has turned the waiting clients away, and accepts again
         * later. */
        LOG_WARN("connection not accepted", LOG_ERR(err));
        err_free(err);
        return;
    }
    start_timer(server);
}

err_t session_server_adopt(struct session_server *server, int fd)
{
    if (server->is_draining) {
        return ERR(UNAVAILABLE, "the broker is stopping");
    }
    if (fd < 0) {
        return ERR(IO, "connection: %d is no socket", fd);
    }
    TRY(session_conn_begin(server, fd));
    start_timer(server);
    return NULL;
}

/* ---- what is kept for reuse ------------------------------------------------------------------ */

struct session_chunk *session_chunk_take(struct session_server *server, size_t capacity)
{
    struct list_link *link = capacity > SESSION_CHUNK_SIZE ? NULL : list_pop(&server->chunks);
    struct session_chunk *chunk;
    if (link != NULL) {
        server->chunk_count--;
        chunk = container_of(link, struct session_chunk, link);
    } else {
        capacity = capacity > SESSION_CHUNK_SIZE ? capacity : SESSION_CHUNK_SIZE;
        chunk = malloc(sizeof *chunk + capacity);
        assert(chunk != NULL); /* STYLE 5: out of memory after the start is a crash */
        chunk->link = (struct list_link){0};
        chunk->capacity = capacity;
    }
    chunk->refs = 1;
    chunk->size = 0;
    return chunk;
}

void session_chunk_drop(struct session_server *server, struct session_chunk *chunk)
{
    assert(chunk->refs > 0);
    chunk->refs--;
    if (chunk->refs > 0) {
        return;
    }
    if (chunk->capacity == SESSION_CHUNK_SIZE && server->chunk_count < SESSION_CHUNKS_KEPT) {
        list_prepend(&server->chunks, &chunk->link);
        server->chunk_count++;
    } else {
        free(chunk);
    }
}

struct session_request *session_request_take(struct session_server *server)
{
    struct list_link *link = list_pop(&server->requests);
    struct session_request *request;
    if (link != NULL) {
        server->request_count--;
        return container_of(link, struct session_request, link);
    }
    request = calloc(1, sizeof *request);
    assert(request != NULL);
    request->server = server;
    arena_init(&request->arena, SESSION_ARENA_MAX, SESSION_ARENA_KEEP);
    return request;
}

void session_request_give(struct session_server *server, struct session_request *request)
{
    if (request->chunk != NULL) {
        session_chunk_drop(server, request->chunk);
        request->chunk = NULL;
    }
    if (server->request_count < SESSION_REQUESTS_KEPT) {
        arena_reset(&request->arena);
        list_prepend(&server->requests, &request->link);
        server->request_count++;
    } else {
        arena_deinit(&request->arena);
        free(request);
    }
}

/* ---- time ----------------------------------------------------------------------------------- */

static void server_on_before_wait(uv_prepare_t *prepare)
{
    struct session_server *server = container_of(prepare, struct session_server, before_wait);
    struct list dirty;
    struct list_link *link;
    list_init(&dirty);
    list_splice(&dirty, &server->dirty);
    while ((link = list_pop(&dirty)) != NULL) {
        session_conn_turn(container_of(link, struct session_conn, dirty));
    }
}

void session_server_tick(struct session_server *server)
{
    uint64_t now_us = clock_mono_us(server->options.clock);
    for (size_t step = 0; step < SESSION_CLOSING; step++) {
        struct list_link *link = list_first(&server->steps[step]);
        while (link != NULL) {
            struct list_link *next = list_next(&server->steps[step], link);
            session_conn_on_deadline(container_of(link, struct session_conn, link), now_us);
            link = next;
        }
    }
}

static void server_on_timer(uv_timer_t *timer)
{
    struct session_server *server = container_of(timer, struct session_server, timer);
    session_server_tick(server);
    if (server->conn_count == 0) {
        /* An idle server does not wake its process. */
        server->has_timer = false;
        uv_timer_stop(timer);
    }
}

/* ---- end ------------------------------------------------------------------------------------ */

void session_server_drain(struct session_server *server)
{
    server->is_draining = true;
    net_listener_close(&server->listener);
    for (size_t step = 0; step < SESSION_LINGER; step++) {
        struct list_link *link = list_first(&server->steps[step]);
        while (link != NULL) {
            struct session_conn *conn = container_of(link, struct session_conn, link);
            struct list_link *next = list_next(&server->steps[step], link);
            if (conn->step == SESSION_OPEN) {
                session_conn_send(conn, WIRE_goodbye, &(struct wire_goodbye){.id = 0});
            }
            session_conn_end(conn);
            link = next;
        }
    }
}

uint32_t session_server_pending(const struct session_server *server)
{
    uint32_t pending = 0;
    for (size_t step = 0; step < SESSION_LINGER; step++) {
        for (const struct list_link *link = list_first(&server->steps[step]); link != NULL;
             link = list_next(&server->steps[step], link)) {
            pending += !session_conn_is_idle(container_of(link, struct session_conn, link));
        }
    }
    return pending;
}

void session_server_destroy(struct session_server *server, void (*on_closed)(void *user),
                            void *user)
{
    assert(!server->is_destroyed);
    server->is_destroyed = true;
    server->is_draining = true;
    server->on_closed = on_closed;
    server->closed_user = user;
    net_listener_close(&server->listener);
    for (size_t step = 0; step < SESSION_CLOSING; step++) {
        struct list_link *link;
        while ((link = list_first(&server->steps[step])) != NULL) {
            struct session_conn *conn = container_of(link, struct session_conn, link);
            if (conn->step == SESSION_ENDING) {
                session_conn_turn(conn); /* what has just been answered leaves all the same */
            }
            session_conn_close(conn);
        }
    }
    uv_close((uv_handle_t *)&server->timer, server_on_timer_closed);
    uv_close((uv_handle_t *)&server->before_wait, server_on_before_wait_closed);
}

static void server_on_listener_closed(struct net_listener *listener)
{
    session_server_handle_closed(container_of(listener, struct session_server, listener));
}

static void server_on_timer_closed(uv_handle_t *handle)
{
    session_server_handle_closed(container_of(handle, struct session_server, timer));
}

static void server_on_before_wait_closed(uv_handle_t *handle)
{
    session_server_handle_closed(container_of(handle, struct session_server, before_wait));
}

static void free_server(struct session_server *server)
{
    struct list_link *link;
    while ((link = list_pop(&server->chunks)) != NULL) {
        free(container_of(link, struct session_chunk, link));
    }
    while ((link = list_pop(&server->requests)) != NULL) {
        struct session_request *request = container_of(link, struct session_request, link);
        arena_deinit(&request->arena);
        free(request);
    }
    buf_deinit(&server->spare_out);
    free(server);
}

void session_server_handle_closed(struct session_server *server)
{
    assert(server->handle_count > 0);
    server->handle_count--;
    if (server->handle_count > 0 || !server->is_destroyed) {
        return;
    }
    void (*on_closed)(void *) = server->on_closed;
    void *user = server->closed_user;
    free_server(server);
    if (on_closed != NULL) {
        on_closed(user);
    }
}
