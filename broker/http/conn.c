/* One connection: bytes in, one exchange at a time, bytes out, and every way it can end.
 *
 * Input goes to the request being read. While a request is being handled or answered, input is
 * kept, so that the end of the client is still noticed; only when HTTP_PENDING_MAX of it has come
 * does reading stop. End of input while the handler has a request means that the client is gone: a
 * half-closed connection cannot be told from a dead one, and a lease must not go to the dead. Once
 * the answer is on its way, it is sent to its end. */
#include "broker/http/conn.h"

#include <assert.h>
#include <stdlib.h>

static void conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out);
static void conn_on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer);
static void conn_on_written(uv_write_t *write, int status);
static void conn_on_shut_down(uv_shutdown_t *shutdown, int status);
static void conn_on_closed(uv_handle_t *handle);

static struct http_conn *conn_of(uv_stream_t *stream)
{
    return container_of(stream, struct http_conn, tcp);
}

static uv_stream_t *conn_stream(struct http_conn *conn)
{
    return (uv_stream_t *)&conn->tcp;
}

static void conn_enter(struct http_conn *conn, enum http_step step)
{
    struct http_server *server = conn->server;
    if (list_linked(&conn->link)) {
        list_remove(&conn->link);
    }
    conn->step = step;
    uint64_t timeout_us = server->timeouts_us[step];
    conn->deadline_us =
        timeout_us == UINT64_MAX ? UINT64_MAX : clock_mono_us(server->options.clock) + timeout_us;
    list_append(&server->steps[step], &conn->link);
}

static bool conn_takes_input(const struct http_conn *conn)
{
    return conn->step == HTTP_STEP_IDLE || conn->step == HTTP_STEP_HEAD ||
           conn->step == HTTP_STEP_BODY;
}

static void conn_start_reading(struct http_conn *conn)
{
    if (conn->is_reading) {
        return;
    }
    conn->is_reading = true;
    if (uv_read_start(conn_stream(conn), conn_on_alloc, conn_on_read) != 0) {
        http_conn_close(conn);
    }
}

static void conn_stop_reading(struct http_conn *conn)
{
    conn->is_reading = false;
    uv_read_stop(conn_stream(conn));
}

static void conn_drop_pending(struct http_conn *conn)
{
    buf_deinit(&conn->pending);
    conn->pending_used = 0;
}

/* ---- end ------------------------------------------------------------------------------------ */

void http_conn_close(struct http_conn *conn)
{
    if (conn->step == HTTP_STEP_CLOSING) {
        return;
    }
    enum http_step step = conn->step;
    struct http_slot *slot = conn->slot;
    conn_enter(conn, HTTP_STEP_CLOSING);
    conn_drop_pending(conn);
    uv_close((uv_handle_t *)&conn->tcp, conn_on_closed);
    if (slot == NULL || step == HTTP_STEP_WRITING) {
        return; /* a slot being written is libuv's until conn_on_written */
    }
    conn->slot = NULL;
    if (slot->handled) {
        http_slot_abandon(slot);
    } else {
        http_slot_release(slot);
    }
}

static void conn_on_closed(uv_handle_t *handle)
{
    struct http_conn *conn = container_of(handle, struct http_conn, tcp);
    struct http_server *server = conn->server;
    if (conn->is_refused) {
        server->refused_count--;
    } else {
        server->open_count--;
        server->counters.connections_open--;
    }
    list_remove(&conn->link);
    free(conn);
    http_server_on_handle_closed(server);
}

/* The last answer is sent. Closing while input is unread would reset the connection and could take
 * the answer from the client, so where more may come the connection is half-closed first and input
 * dropped for a while. */
static void conn_end(struct http_conn *conn)
{
    bool has_input = conn->pending.size > conn->pending_used || !conn->is_reading;
    if (!conn->lingers && !has_input) {
        http_conn_close(conn);
        return;
    }
    conn->dropped += conn->pending.size - conn->pending_used;
    conn_drop_pending(conn);
    conn_enter(conn, HTTP_STEP_LINGER);
    if (conn->dropped >= HTTP_DRAIN_MAX ||
        uv_shutdown(&conn->shutdown, conn_stream(conn), conn_on_shut_down) != 0) {
        http_conn_close(conn);
        return;
    }
    conn_start_reading(conn);
}

static void conn_on_shut_down(uv_shutdown_t *shutdown, int status)
{
    if (status != 0) {
        http_conn_close(container_of(shutdown, struct http_conn, shutdown));
    }
}

/* ---- input ---------------------------------------------------------------------------------- */

/* Answers a request that cannot be handled; the connection ends with it. */
static void conn_refuse(struct http_conn *conn, enum err_code code, const char *detail)
{
    if (conn->slot == NULL) {
        conn->slot = http_slot_acquire(conn->server);
    }
    if (conn->slot == NULL) {
        http_conn_close(conn);
        return;
    }
    conn->slot->conn = conn;
    conn->ends = true;
    conn->lingers = true;
    http_slot_refuse(conn->slot, code, detail);
    http_conn_send(conn);
}

/* The headers are complete and a body follows. */
static void conn_begin_body(struct http_conn *conn, bool has_input)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    conn->body_start_us = clock_mono_us(conn->server->options.clock);
    conn->slot->exchange.received_us = conn->body_start_us;
    conn->progress = 0;
    conn_enter(conn, HTTP_STEP_BODY);
    const struct http_parse *parse = &conn->slot->parse;
    if (!parse->expects_continue || parse->http_1_0 || has_input) {
        return;
    }
    /* Nothing else is on its way, so these few bytes always fit; a peer that they do not fit for is
     * no peer. */
    uv_buf_t bytes = uv_buf_init((char *)(uintptr_t)text, sizeof text - 1);
    if (uv_try_write(conn_stream(conn), &bytes, 1) != (int)(sizeof text - 1)) {
        http_conn_close(conn);
    }
}

static void conn_hand_over(struct http_conn *conn)
{
    struct http_slot *slot = conn->slot;
    uint32_t requests_max = conn->server->options.limits.requests_max;
    if (conn->step != HTTP_STEP_BODY) {
        slot->exchange.received_us = clock_mono_us(conn->server->options.clock);
    }
    conn->request_count++;
    conn->ends = !slot->parse.keep_alive || conn->request_count == requests_max;
    conn_enter(conn, HTTP_STEP_WAITING);
    http_slot_handle(slot);
}

/* The input has ended before the request has. */
static void conn_wait_for_more(struct http_conn *conn)
{
    if (conn->step != HTTP_STEP_IDLE) {
        return;
    }
    if (http_parse_is_blank(&conn->slot->parse)) {
        /* An empty line after a request is not the begin of another. */
        http_slot_release(conn->slot);
        conn->slot = NULL;
        return;
    }
    conn_enter(conn, HTTP_STEP_HEAD);
}

/* Gives input to the request being read, or begins one; returns how much of it was used. */
static size_t conn_feed_request(struct http_conn *conn, struct span input)
{
    if (conn->slot == NULL) {
        conn->slot = http_slot_acquire(conn->server);
        if (conn->slot == NULL) {
            http_conn_close(conn);
            return 0;
        }
        conn->slot->conn = conn;
    }
    size_t used = 0;
    switch (http_parse_feed(&conn->slot->parse, input, &used)) {
    case HTTP_PARSE_MORE:
        conn_wait_for_more(conn);
        break;
    case HTTP_PARSE_HEAD:
        conn_begin_body(conn, used < input.size);
        break;
    case HTTP_PARSE_DONE:
        conn_hand_over(conn);
        break;
    case HTTP_PARSE_FAILED:
        conn_refuse(conn, conn->slot->parse.problem, conn->slot->parse.detail);
        break;
    }
    return used;
}

/* Answers given meanwhile return here instead of feeding again, so the stack stays flat however
 * much is pipelined. */
static size_t conn_feed(struct http_conn *conn, struct span input)
{
    assert(!conn->is_feeding);
    conn->is_feeding = true;
    size_t used = 0;
    while (used < input.size && conn_takes_input(conn)) {
        used += conn_feed_request(conn, span_of(input.data + used, input.size - used));
    }
    conn->is_feeding = false;
    return used;
}

/* Keeps input that came while a request is being answered. */
static void conn_keep(struct http_conn *conn, struct span input)
{
    if (conn->pending_used > 0) {
        buf_consume(&conn->pending, conn->pending_used);
        conn->pending_used = 0;
    }
    buf_append_span(&conn->pending, input);
    if (conn->pending.failed) {
        http_conn_close(conn); /* no memory: what is lost here cannot be asked for again */
    } else if (conn->pending.size == HTTP_PENDING_MAX) {
        conn_stop_reading(conn);
    }
}

/* Goes on with what was pipelined. */
static void conn_resume(struct http_conn *conn)
{
    if (conn->pending.size > 0) {
        struct span rest = span_of(conn->pending.data + conn->pending_used,
                                   conn->pending.size - conn->pending_used);
        size_t used = conn_feed(conn, rest);
        if (conn->step == HTTP_STEP_CLOSING || conn->step == HTTP_STEP_LINGER) {
            return; /* what was pending is gone already */
        }
        conn->pending_used += used;
        if (conn->pending_used == conn->pending.size) {
            conn_drop_pending(conn); /* an idle connection holds no buffer */
        }
    }
    if (conn->pending.size - conn->pending_used < HTTP_PENDING_MAX / 2) {
        conn_start_reading(conn);
    }
}

static void conn_drop(struct http_conn *conn, size_t size)
{
    conn->dropped += size;
    if (conn->dropped >= HTTP_DRAIN_MAX) {
        http_conn_close(conn);
    }
}

static void conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct http_conn *conn = container_of(handle, struct http_conn, tcp);
    size_t size = HTTP_READ_SIZE;
    if (conn->lingers || conn->step == HTTP_STEP_LINGER) {
        size = HTTP_DRAIN_MAX - conn->dropped;
    } else if (!conn_takes_input(conn)) {
        size = HTTP_PENDING_MAX - (conn->pending.size - conn->pending_used);
    }
    size = size < HTTP_READ_SIZE ? size : HTTP_READ_SIZE;
    *out = uv_buf_init((char *)conn->server->read_buffer, (unsigned)size);
}

static void conn_on_end_of_input(struct http_conn *conn, bool is_half)
{
    if (is_half && conn->step == HTTP_STEP_WRITING) {
        conn_stop_reading(conn);
        conn->ends = true;
        conn_drop_pending(conn);
        return;
    }
    http_conn_close(conn);
}

static void conn_on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct http_conn *conn = conn_of(stream);
    if (size < 0) {
        conn_on_end_of_input(conn, size == UV_EOF);
        return;
    }
    struct span input = span_of(buffer->base, (size_t)size);
    conn->server->counters.received_bytes_total += input.size;
    if (conn_takes_input(conn)) {
        size_t used = conn_feed(conn, input);
        input = span_of(input.data + used, input.size - used);
    }
    if (input.size == 0 || conn->step == HTTP_STEP_CLOSING) {
        return;
    }
    if (conn->lingers || conn->step == HTTP_STEP_LINGER) {
        conn_drop(conn, input.size);
    } else {
        conn_keep(conn, input);
    }
}

/* ---- output --------------------------------------------------------------------------------- */

/* The answer is in the hands of the kernel. */
static void conn_answered(struct http_conn *conn)
{
    http_slot_release(conn->slot);
    conn->slot = NULL;
    if (conn->ends || conn->server->is_draining) {
        conn_end(conn);
        return;
    }
    conn_enter(conn, HTTP_STEP_IDLE);
    if (!conn->is_feeding) {
        conn_resume(conn);
    }
}

/* Leaves in `parts` what is to be sent after the first `sent` bytes; returns how many parts that
 * is. */
static unsigned conn_parts(const struct http_slot *slot, size_t sent, uv_buf_t parts[2])
{
    const struct buf *bufs[] = {&slot->head, &slot->answer};
    unsigned count = 0;
    for (size_t i = 0; i < 2; i++) {
        size_t skipped = sent < bufs[i]->size ? sent : bufs[i]->size;
        sent -= skipped;
        if (skipped < bufs[i]->size) {
            /* uv_buf_t cannot hold more than 4 GiB where it has 32-bit lengths; Linux has none of
             * those. */
            parts[count++] =
                (uv_buf_t){.base = (char *)bufs[i]->data + skipped, .len = bufs[i]->size - skipped};
        }
    }
    return count;
}

void http_conn_send(struct http_conn *conn)
{
    struct http_slot *slot = conn->slot;
    struct http_server *server = conn->server;
    size_t total = slot->head.size + slot->answer.size;
    uv_buf_t parts[2];
    unsigned count = conn_parts(slot, 0, parts);
    int written = uv_try_write(conn_stream(conn), parts, count);
    if (written == UV_EAGAIN) {
        written = 0;
    }
    if (written < 0) {
        http_conn_close(conn);
        return;
    }
    server->counters.sent_bytes_total += total;
    if ((size_t)written == total) {
        conn_answered(conn);
        return;
    }
    count = conn_parts(slot, (size_t)written, parts);
    if (uv_write(&slot->write, conn_stream(conn), parts, count, conn_on_written) != 0) {
        http_conn_close(conn);
        return;
    }
    conn->progress = total - (size_t)written;
    conn_enter(conn, HTTP_STEP_WRITING);
}

static void conn_on_written(uv_write_t *write, int status)
{
    struct http_slot *slot = container_of(write, struct http_slot, write);
    struct http_conn *conn = slot->conn;
    if (status == 0 && conn->step == HTTP_STEP_WRITING) {
        conn_answered(conn);
        return;
    }
    http_slot_release(slot);
    conn->slot = NULL;
    http_conn_close(conn);
}

/* ---- deadlines ------------------------------------------------------------------------------ */

/* A body must have come at the least rate on average, and something of it since the last look. */
static bool conn_body_is_slow(struct http_conn *conn, uint64_t now_us)
{
    size_t received = conn->slot->parse.body.size;
    uint64_t elapsed_ms = (now_us - conn->body_start_us) / 1000;
    uint64_t wanted = elapsed_ms * conn->server->options.limits.body_rate_min / 1000;
    bool is_slow = received < wanted || received == conn->progress;
    conn->progress = received;
    return is_slow;
}

static bool conn_write_is_stuck(struct http_conn *conn)
{
    size_t left = uv_stream_get_write_queue_size(conn_stream(conn));
    bool is_stuck = left == conn->progress;
    conn->progress = left;
    return is_stuck;
}

void http_conn_on_deadline(struct http_conn *conn, uint64_t now_us)
{
    bool is_moving = (conn->step == HTTP_STEP_BODY && !conn_body_is_slow(conn, now_us)) ||
                     (conn->step == HTTP_STEP_WRITING && !conn_write_is_stuck(conn));
    if (is_moving) {
        conn_enter(conn, conn->step); /* to the end of its list, with a new deadline */
        return;
    }
    if (conn->step != HTTP_STEP_IDLE && conn->step != HTTP_STEP_LINGER) {
        conn->server->counters.timeouts_total++;
    }
    if (conn->step == HTTP_STEP_HEAD) {
        conn_refuse(conn, ERR_TIMEOUT, "the headers took too long to arrive");
    } else if (conn->step == HTTP_STEP_BODY) {
        conn_refuse(conn, ERR_TIMEOUT, "the body arrives too slowly");
    } else {
        http_conn_close(conn);
    }
}

/* ---- begin ---------------------------------------------------------------------------------- */

/* Over the limit: an answer, if there is room for one more of these, and the end. */
static void conn_turn_away(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    conn->is_refused = true;
    server->counters.connections_refused_total++;
    server->refused_count++;
    if (server->refused_count > HTTP_REFUSED_MAX) {
        http_conn_close(conn);
        return;
    }
    conn_start_reading(conn);
    if (conn->step != HTTP_STEP_CLOSING) {
        conn_refuse(conn, ERR_UNAVAILABLE, "too many connections");
    }
}

void http_conn_accept(struct http_server *server)
{
    struct http_conn *conn = calloc(1, sizeof *conn);
    assert(conn != NULL); /* STYLE 5: out of memory after the start is a crash */
    conn->server = server;
    buf_init(&conn->pending, HTTP_PENDING_MAX);
    int rc = uv_tcp_init(server->options.loop, &conn->tcp);
    assert(rc == 0); /* opens no socket, so nothing in it can fail */
    server->handle_count++;
    server->counters.connections_total++;
    conn_enter(conn, HTTP_STEP_IDLE);
    bool is_over = server->open_count >= server->options.limits.connections_max;
    rc = uv_accept((uv_stream_t *)&server->listener.tcp, conn_stream(conn));
    if (rc == 0 && is_over) {
        conn_turn_away(conn);
        return;
    }
    server->open_count++;
    server->counters.connections_open++;
    if (rc != 0) {
        http_conn_close(conn);
        return;
    }
    /* Both only improve what works without them. */
    (void)uv_tcp_nodelay(&conn->tcp, 1);
    (void)uv_tcp_keepalive(&conn->tcp, 1, HTTP_KEEPALIVE_S);
    conn_start_reading(conn);
}
