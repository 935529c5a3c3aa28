/* One connection: bytes in, frames out of them, bytes out, and every way it can end.
 *
 * Frames are taken while the window is open; what does not fit waits in the chunk, and then in the
 * kernel. What is sent gathers until the end of the loop's turn. The end of input means that the
 * client is gone: a half-closed connection cannot be told from a dead one, and a lease must not go
 * to the dead. */
#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/base/log.h"
#include "broker/session/session_internal.h"

static void conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out);
static void conn_on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer);
static void conn_on_written(uv_write_t *write, int status);
static void conn_on_shut_down(uv_shutdown_t *shutdown, int status);
static void conn_on_closed(uv_handle_t *handle);

static void conn_enter(struct session_conn *conn, enum session_step step, uint64_t timeout_ms)
{
    struct session_server *server = conn->server;
    if (list_linked(&conn->link)) {
        list_remove(&conn->link);
    }
    conn->step = step;
    conn->deadline_us =
        timeout_ms == 0 ? UINT64_MAX : clock_mono_us(server->options.clock) + timeout_ms * 1000;
    list_append(&server->steps[step], &conn->link);
}

static bool conn_takes_frames(const struct session_conn *conn)
{
    return conn->step == SESSION_HELLO || conn->step == SESSION_OPEN;
}

void session_conn_open(struct session_conn *conn)
{
    conn_enter(conn, SESSION_OPEN, 0);
}

void session_conn_touch(struct session_conn *conn)
{
    if (!list_linked(&conn->dirty) && conn->step != SESSION_CLOSING) {
        list_append(&conn->server->dirty, &conn->dirty);
    }
}

/* Until when more of the frame that has begun must have come. */
static void expect_input(struct session_conn *conn)
{
    conn->input_us = clock_mono_us(conn->server->options.clock) +
                     UINT64_C(1000) * conn->server->options.limits.write_timeout_ms;
}

static void set_reading(struct session_conn *conn, bool reads)
{
    if (reads == conn->is_reading) {
        return;
    }
    conn->is_reading = reads;
    expect_input(conn); /* the time in which it was not read is not the client's */
    if (!reads) {
        uv_read_stop(&conn->stream);
    } else if (uv_read_start(&conn->stream, conn_on_alloc, conn_on_read) != 0) {
        session_conn_close(conn);
    }
}

/* ---- end ------------------------------------------------------------------------------------ */

static void abandon_all(struct session_conn *conn)
{
    struct list_link *link;
    while ((link = list_pop(&conn->requests)) != NULL) {
        session_request_abandon(container_of(link, struct session_request, link));
    }
    while ((link = list_pop(&conn->streams)) != NULL) {
        session_stream_abandon(container_of(link, struct session_stream, link));
    }
    map_deinit(&conn->request_map);
    map_deinit(&conn->stream_map);
    map_init(&conn->request_map);
    map_init(&conn->stream_map);
    conn->request_count = 0;
    conn->pull_count = 0;
    conn->request_size = 0;
}

static void drop_chunk(struct session_conn *conn)
{
    if (conn->chunk != NULL) {
        session_chunk_drop(conn->server, conn->chunk);
        conn->chunk = NULL;
    }
    conn->at = 0;
}

void session_conn_close(struct session_conn *conn)
{
    if (conn->step == SESSION_CLOSING) {
        return;
    }
    conn_enter(conn, SESSION_CLOSING, 0);
    if (list_linked(&conn->dirty)) {
        list_remove(&conn->dirty);
    }
    abandon_all(conn);
    drop_chunk(conn);
    uv_close(&conn->handle, conn_on_closed);
}

static void conn_on_closed(uv_handle_t *handle)
{
    struct session_conn *conn = container_of(handle, struct session_conn, handle);
    struct session_server *server = conn->server;
    server->conn_count--;
    metrics_set(&server->options.metrics->wire_connections_open, server->conn_count);
    list_remove(&conn->link);
    buf_deinit(&conn->out);
    buf_deinit(&conn->writing);
    map_deinit(&conn->request_map);
    map_deinit(&conn->stream_map);
    free(conn);
    session_server_handle_closed(server);
}

static void go_streams(struct session_conn *conn)
{
    struct list_link *link = list_first(&conn->streams);
    while (link != NULL) {
        struct list_link *next = list_next(&conn->streams, link);
        session_stream_go(container_of(link, struct session_stream, link));
        link = next;
    }
}

void session_conn_end(struct session_conn *conn)
{
    if (!conn_takes_frames(conn)) {
        return;
    }
    conn_enter(conn, SESSION_ENDING, 0);
    drop_chunk(conn);
    set_reading(conn, true); /* what comes is dropped, and the client's end is seen */
    go_streams(conn);        /* which ends them */
    session_conn_touch(conn);
}

bool session_conn_is_idle(const struct session_conn *conn)
{
    return conn->request_count == 0 && conn->out.size == 0 && !conn->is_writing;
}

/* All is sent. Closing while input is unread would reset the connection and could take the last
 * answer from the client, so it is half-closed first and input is dropped for a while. */
static void conn_shut(struct session_conn *conn)
{
    conn_enter(conn, SESSION_LINGER, SESSION_LINGER_MS);
    if (uv_shutdown(&conn->shutdown, &conn->stream, conn_on_shut_down) != 0) {
        session_conn_close(conn);
    }
}

static void conn_on_shut_down(uv_shutdown_t *shutdown, int status)
{
    if (status != 0) {
        session_conn_close(container_of(shutdown, struct session_conn, shutdown));
    }
}

/* ---- output --------------------------------------------------------------------------------- */

static size_t unsent(const struct session_conn *conn)
{
    return conn->out.size + (conn->is_writing ? conn->writing.size : 0);
}

bool session_conn_is_full(const struct session_conn *conn)
{
    return unsent(conn) > SESSION_OUT_HIGH;
}

bool session_conn_is_over(const struct session_conn *conn)
{
    return unsent(conn) > SESSION_OUT_HELD;
}

/* Output goes through buffers that idle connections do not keep. */
struct buf *session_conn_out(struct session_conn *conn)
{
    if (conn->out.capacity == 0) {
        conn->out = conn->server->spare_out;
        buf_init(&conn->server->spare_out, SESSION_OUT_MAX);
    }
    session_conn_touch(conn);
    return &conn->out;
}

static void give_out(struct session_conn *conn, struct buf *buf)
{
    struct session_server *server = conn->server;
    if (buf->capacity <= SESSION_OUT_KEEP && buf->capacity > server->spare_out.capacity) {
        struct buf spare = server->spare_out;
        server->spare_out = *buf;
        buf_reset(&server->spare_out);
        *buf = spare;
    }
    buf_deinit(buf);
    buf_init(buf, SESSION_OUT_MAX);
}

void session_conn_send(struct session_conn *conn, enum wire_type type, const void *message)
{
    wire_encode(session_conn_out(conn), type, message);
}

void session_conn_fail(struct session_conn *conn, uint64_t id, enum err_code code,
                       const char *detail)
{
    static const uint64_t wait_ms = 1000; /* as HTTP's Retry-After */
    const struct wire_failure failure = {
        .id = id,
        .code = (uint32_t)code,
        .slug = span_text(err_slug(code)),
        .detail = span_text(detail == NULL || detail[0] == '\0' ? err_title(code) : detail),
        .retryable = err_retryable(code) != 0,
        .retry_after_ms = err_retryable(code) != 0 && code != ERR_UNKNOWN ? wait_ms : 0,
    };
    metrics_add(&conn->server->options.metrics->wire_failures_total, 1);
    session_conn_send(conn, WIRE_failure, &failure);
    if (id == 0) {
        LOG_DEBUG("wire connection refused", LOG_U64("connection", conn->id),
                  LOG_TEXT("code", err_slug(code)), LOG_SPAN("detail", failure.detail));
        abandon_all(conn);
        session_conn_end(conn);
    }
}

static void conn_flush(struct session_conn *conn)
{
    struct session_server *server = conn->server;
    if (conn->is_writing || conn->out.size == 0) {
        return;
    }
    assert(!conn->out.failed); /* STYLE 5: out of memory */
    uv_buf_t bytes = {.base = (char *)conn->out.data, .len = conn->out.size};
    /* Much output has kept the connection from being read: its end must be heard of, even when the
     * socket takes all of it at once, since nothing else may come that would let reading go on. */
    int written = session_conn_is_full(conn) ? 0 : uv_try_write(&conn->stream, &bytes, 1);
    if (written == UV_EAGAIN) {
        written = 0;
    }
    if (written < 0) {
        session_conn_close(conn);
        return;
    }
    metrics_add(&server->options.metrics->wire_sent_bytes_total, conn->out.size);
    if ((size_t)written == conn->out.size) {
        give_out(conn, &conn->out);
        return;
    }
    conn->writing = conn->out;
    buf_init(&conn->out, SESSION_OUT_MAX);
    bytes = (uv_buf_t){.base = (char *)conn->writing.data + written,
                       .len = conn->writing.size - (size_t)written};
    conn->is_writing = true;
    conn->unwritten = bytes.len;
    conn->progress_us = clock_mono_us(server->options.clock) +
                        UINT64_C(1000) * server->options.limits.write_timeout_ms;
    if (uv_write(&conn->write, &conn->stream, &bytes, 1, conn_on_written) != 0) {
        conn->is_writing = false;
        session_conn_close(conn);
    }
}

static void conn_on_written(uv_write_t *write, int status)
{
    struct session_conn *conn = container_of(write, struct session_conn, write);
    conn->is_writing = false;
    give_out(conn, &conn->writing);
    if (status != 0) {
        session_conn_close(conn);
        return;
    }
    session_conn_touch(conn);
}

/* ---- input ---------------------------------------------------------------------------------- */

static bool window_is_open(const struct session_conn *conn)
{
    const struct session_limits *limits = &conn->server->options.limits;
    return conn->request_count < limits->window_requests &&
           conn->request_size < limits->window_size && !session_conn_is_full(conn);
}

/* Bytes from conn->at on that have not been taken. */
static size_t kept_input(const struct session_conn *conn)
{
    return conn->chunk == NULL ? 0 : conn->chunk->size - conn->at;
}

/* The size of the frame at the front with its size field; 0: that has not come. */
static uint64_t next_frame(const struct session_conn *conn)
{
    return kept_input(conn) < WIRE_SIZE_BYTES
               ? 0
               : (uint64_t)WIRE_SIZE_BYTES + wire_frame_size(conn->chunk->data + conn->at);
}

static bool frame_is_allowed(struct session_conn *conn, uint64_t size)
{
    uint64_t max = conn->step == SESSION_HELLO ? SESSION_HELLO_SIZE_MAX
                                               : conn->server->options.limits.frame_size_max;
    if (size <= max + WIRE_SIZE_BYTES) {
        return true;
    }
    session_conn_fail(conn, 0, ERR_TOO_LARGE,
                      conn->step == SESSION_HELLO ? "the first frame has at most 4096 bytes"
                                                  : "the frame is larger than frame_size_max");
    return false;
}

/* Takes the whole frames that have come, as far as the window is open. */
static void conn_feed(struct session_conn *conn)
{
    while (conn_takes_frames(conn) && window_is_open(conn)) {
        uint64_t size = next_frame(conn);
        if (size != 0 && !frame_is_allowed(conn, size)) {
            return;
        }
        if (size == 0 || kept_input(conn) < size) {
            break;
        }
        struct span payload =
            span_of(conn->chunk->data + conn->at + WIRE_SIZE_BYTES, (size_t)size - WIRE_SIZE_BYTES);
        conn->at += (size_t)size;
        session_on_frame(conn, payload);
    }
    /* While requests refer to the chunk it is filled on, so that many small ones, each in a read of
     * its own, do not hold a chunk each. */
    bool is_unused = conn->chunk != NULL && conn->chunk->refs == 1 && kept_input(conn) == 0;
    if (conn_takes_frames(conn) && is_unused) {
        drop_chunk(conn);
    }
    if (conn_takes_frames(conn)) {
        set_reading(conn, window_is_open(conn));
    }
}

/* A chunk with room behind what is kept, which moves when it must. It grows with what has come, not
 * with what a size field promises. */
static struct session_chunk *chunk_with_room(struct session_conn *conn)
{
    struct session_server *server = conn->server;
    struct session_chunk *chunk = conn->chunk;
    if (chunk == NULL) {
        conn->at = 0;
        return session_chunk_take(server, SESSION_CHUNK_SIZE);
    }
    size_t kept = kept_input(conn);
    uint64_t frame = next_frame(conn);
    uint64_t end = conn->at + (frame == 0 ? WIRE_SIZE_BYTES : frame);
    bool is_roomy = kept > 0 || chunk->capacity - chunk->size >= SESSION_CHUNK_SIZE / 4;
    /* With a larger frame at its begin it is filled first, so that each growth doubles what is kept
     * and a frame is copied about once, in however small pieces it comes. */
    bool fits = end <= chunk->capacity || conn->at == 0;
    if (fits && chunk->size < chunk->capacity && is_roomy) {
        return chunk;
    }
    if (chunk->refs == 1 && conn->at > 0 && kept < chunk->capacity / 2) {
        memmove(chunk->data, chunk->data + conn->at, kept);
        chunk->size = kept;
        conn->at = 0;
        return chunk;
    }
    size_t wanted = 2 * kept > SESSION_CHUNK_SIZE ? 2 * kept : SESSION_CHUNK_SIZE;
    if (frame > 0 && wanted > frame && frame > SESSION_CHUNK_SIZE) {
        wanted = (size_t)frame;
    }
    struct session_chunk *larger = session_chunk_take(server, wanted);
    memcpy(larger->data, chunk->data + conn->at, kept);
    larger->size = kept;
    drop_chunk(conn);
    return larger;
}

static void conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct session_conn *conn = container_of(handle, struct session_conn, handle);
    if (!conn_takes_frames(conn)) {
        drop_chunk(conn); /* what comes is dropped */
    }
    conn->chunk = chunk_with_room(conn);
    *out = (uv_buf_t){.base = (char *)conn->chunk->data + conn->chunk->size,
                      .len = conn->chunk->capacity - conn->chunk->size};
}

static void conn_on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    (void)buffer;
    struct session_conn *conn = container_of(stream, struct session_conn, stream);
    if (size < 0) {
        session_conn_close(conn);
        return;
    }
    metrics_add(&conn->server->options.metrics->wire_received_bytes_total, (uint64_t)size);
    if (!conn_takes_frames(conn)) {
        drop_chunk(conn);
        conn->dropped += conn->step == SESSION_LINGER ? (size_t)size : 0;
        if (conn->dropped > SESSION_DROP_MAX) {
            session_conn_close(conn);
        }
        return;
    }
    conn->chunk->size += (size_t)size;
    expect_input(conn);
    conn_feed(conn);
}

void session_conn_turn(struct session_conn *conn)
{
    if (conn_takes_frames(conn)) {
        conn_feed(conn);
    }
    if (conn->step == SESSION_CLOSING) {
        return;
    }
    if (!session_conn_is_full(conn)) {
        go_streams(conn);
    }
    conn_flush(conn);
    if (conn->step == SESSION_ENDING && session_conn_is_idle(conn)) {
        conn_shut(conn);
    }
    if (list_linked(&conn->dirty) && conn->out.size == 0) {
        list_remove(&conn->dirty); /* this was its turn */
    }
}

/* ---- deadlines ------------------------------------------------------------------------------ */

static bool write_is_stuck(struct session_conn *conn, uint64_t now_us)
{
    if (!conn->is_writing || now_us < conn->progress_us) {
        return false;
    }
    size_t left = uv_stream_get_write_queue_size(&conn->stream);
    bool is_stuck = left >= conn->unwritten;
    conn->unwritten = left;
    conn->progress_us = now_us + UINT64_C(1000) * conn->server->options.limits.write_timeout_ms;
    return is_stuck;
}

/* A part of a frame is kept, and no more of it has come for too long. Any progress will do: it is
 * who has stopped in the middle that would keep the memory for ever. */
static bool frame_is_stuck(const struct session_conn *conn, uint64_t now_us)
{
    return conn->step == SESSION_OPEN && conn->is_reading && kept_input(conn) > 0 &&
           now_us >= conn->input_us;
}

void session_conn_on_deadline(struct session_conn *conn, uint64_t now_us)
{
    bool is_stuck = write_is_stuck(conn, now_us);
    bool is_late = now_us >= conn->deadline_us;
    const char *late = is_late && conn->step == SESSION_HELLO ? "hello took too long to arrive"
                       : frame_is_stuck(conn, now_us)         ? "the rest of a frame did not arrive"
                                                              : NULL;
    if (is_stuck || late != NULL) {
        metrics_add(&conn->server->options.metrics->wire_timeouts_total, 1);
    }
    if (is_stuck || (is_late && conn->step == SESSION_LINGER)) {
        session_conn_close(conn);
    } else if (late != NULL) {
        session_conn_fail(conn, 0, ERR_TIMEOUT, late);
    }
}

/* ---- begin ---------------------------------------------------------------------------------- */

/* The handle fits the socket: libuv has one for the internet's and one for local ones. It looks at
 * neither, and could only abort over what cannot be waited for. */
static int open_socket(struct session_conn *conn, int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    bool is_socket = fd < 0 || getsockname(fd, (struct sockaddr *)&address, &size) == 0;
    if (address.ss_family == AF_UNIX) {
        int rc = uv_pipe_init(conn->server->options.loop, &conn->pipe, 0);
        assert(rc == 0);
        return uv_pipe_open(&conn->pipe, fd);
    }
    int rc = uv_tcp_init(conn->server->options.loop, &conn->tcp);
    assert(rc == 0); /* opens no socket, so nothing in it can fail */
    if (!is_socket) {
        return UV_ENOTSOCK;
    }
    rc = fd >= 0 ? uv_tcp_open(&conn->tcp, fd)
                 : uv_accept((uv_stream_t *)&conn->server->listener.tcp, &conn->stream);
    if (rc == 0) {
        /* Both only improve what works without them. */
        (void)uv_tcp_nodelay(&conn->tcp, 1);
        (void)uv_tcp_keepalive(&conn->tcp, 1, SESSION_KEEPALIVE_S);
    }
    return rc;
}

err_t session_conn_begin(struct session_server *server, int fd)
{
    struct session_conn *conn = calloc(1, sizeof *conn);
    assert(conn != NULL); /* STYLE 5: out of memory after the start is a crash */
    conn->server = server;
    conn->id = ++server->conn_id;
    buf_init(&conn->out, SESSION_OUT_MAX);
    buf_init(&conn->writing, SESSION_OUT_MAX);
    list_init(&conn->requests);
    list_init(&conn->streams);
    map_init(&conn->request_map);
    map_init(&conn->stream_map);
    conn_enter(conn, SESSION_HELLO, server->options.limits.hello_timeout_ms);
    bool is_over = server->conn_count >= server->options.limits.connections_max;
    server->conn_count++;
    server->handle_count++;
    metrics_add(&server->options.metrics->wire_connections_total, 1);
    metrics_set(&server->options.metrics->wire_connections_open, server->conn_count);
    int rc = open_socket(conn, fd);
    if (rc != 0) {
        session_conn_close(conn);
        return ERR(IO, "connection: %s", uv_strerror(rc));
    }
    set_reading(conn, true);
    if (is_over && conn->step != SESSION_CLOSING) {
        session_conn_fail(conn, 0, ERR_BUSY, "too many connections");
    }
    return NULL;
}
