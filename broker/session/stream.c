/* Credit streams: each is one pull after the other, of what its credit still allows, waiting
 * without end. What a pull has been given is sent and taken off the credit; with none left, or when
 * the client does not read, nothing is asked for. */
#include <assert.h>
#include <stdlib.h>

#include "broker/session/session_internal.h"
#include "broker/volume/router_count.h"

enum { ARENA_MAX = 1 << 20, ARENA_KEEP = 0 };

static void stream_on_pulled(struct router_operation *operation);

static void count_streams(struct session_server *server, int64_t change)
{
    /* Changed by the one loop only, so reading and writing need not be one step. */
    _Atomic uint64_t *gauge = &server->options.metrics->wire_streams_open;
    metrics_set(gauge, (uint64_t)((int64_t)metrics_get(gauge) + change));
}

static void stream_free(struct session_stream *stream)
{
    count_streams(stream->server, -1);
    arena_deinit(&stream->arena);
    free(stream);
}

/* Tells the client and forgets the stream, which is asking for nothing. */
static void stream_end(struct session_stream *stream, enum err_code code, const char *detail)
{
    struct session_conn *conn = stream->conn;
    assert(!stream->is_pulling);
    if (conn != NULL) {
        const struct wire_ended ended = {
            .id = stream->id,
            .code = (uint32_t)code,
            .slug = span_text(code == ERR_NONE ? "" : err_slug(code)),
            .detail = span_text(detail == NULL ? "" : detail),
        };
        session_conn_send(conn, WIRE_ended, &ended);
        list_remove(&stream->link);
        map_remove(&conn->stream_map, stream->id);
        conn->request_count--;
    }
    stream_free(stream);
}

static uint32_t lower(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* It may have been deleted while the stream had no credit, and made again as another. */
static bool sub_is_there(const struct session_stream *stream)
{
    const struct catalog *catalog = router_catalog(stream->server->options.router);
    const struct catalog_sub *sub = catalog_sub_by_id(catalog, stream->sub_id);
    return sub != NULL && sub->state == CATALOG_ACTIVE;
}

void session_stream_go(struct session_stream *stream)
{
    struct session_conn *conn = stream->conn;
    if (stream->is_pulling || conn == NULL) {
        return;
    }
    if (conn->step != SESSION_OPEN) {
        stream_end(stream, ERR_UNAVAILABLE, "the broker is stopping");
        return;
    }
    if (stream->messages <= 0 || stream->bytes <= 0 || session_conn_is_full(conn)) {
        return;
    }
    if (!sub_is_there(stream)) {
        stream_end(stream, ERR_NOT_FOUND, "subscription: it does not exist");
        return;
    }
    stream->pull = (struct router_pull){
        .topic = span_of(stream->topic, stream->topic_size),
        .sub = span_of(stream->sub, stream->sub_size),
        .max = lower((uint64_t)stream->messages, SESSION_DELIVER_MAX),
        .size_max = lower((uint64_t)stream->bytes, SESSION_DELIVER_SIZE),
        .lease_ms = stream->lease_ms,
        .wait_ms = ROUTER_WAIT_FOR_EVER,
    };
    session_fit_frame(stream->server, &stream->pull);
    arena_reset(&stream->arena);
    stream->pull.operation.arena = &stream->arena;
    stream->pull.operation.done = stream_on_pulled;
    stream->pull.operation.user = stream;
    stream->is_pulling = true;
    router_start_pull(stream->server->options.router, &stream->pull);
}

static void stream_deliver(struct session_stream *stream)
{
    struct session_conn *conn = stream->conn;
    const struct router_operation *operation = &stream->pull.operation;
    uint64_t count = router_count_delivered(operation, stream->server->options.metrics);
    const struct reply *reply = NULL;
    if (count == 0) {
        return;
    }
    session_put_deliveries(session_conn_out(conn), WIRE_deliver, stream->id, stream->sub_id,
                           operation);
    stream->messages -= (int64_t)count;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        for (uint32_t index = 0; index < reply_delivery_count(reply); index++) {
            const struct delivery *delivery = reply_delivery(reply, index);
            stream->bytes -=
                (int64_t)delivery->key_size + delivery->attributes_size + delivery->body_size;
        }
    }
}

static void stream_on_pulled(struct router_operation *operation)
{
    struct session_stream *stream = operation->user;
    enum err_code code = operation->result.code;
    struct router_result result = operation->result;
    stream->is_pulling = false;
    if (stream->conn == NULL || code != ERR_NONE) {
        /* There is nothing to be given. */
    } else if (session_conn_is_over(stream->conn)) {
        router_return_pull(operation->router, &stream->pull); /* it asks again, once it is read */
    } else {
        stream_deliver(stream);
    }
    router_release(operation);
    if (stream->conn == NULL) {
        stream_free(stream);
    } else if (stream->is_cancelled) {
        stream_end(stream, ERR_NONE, NULL);
    } else if (code != ERR_NONE) {
        stream_end(stream, code, result.detail);
    } else {
        session_stream_go(stream);
    }
}

static void add_credit(struct session_stream *stream, uint32_t messages, uint32_t bytes)
{
    stream->messages += messages;
    stream->bytes += bytes;
    stream->messages =
        stream->messages < SESSION_CREDIT_MAX ? stream->messages : SESSION_CREDIT_MAX;
    stream->bytes = stream->bytes < SESSION_CREDIT_MAX ? stream->bytes : SESSION_CREDIT_MAX;
}

void session_stream_open(struct session_conn *conn, const struct wire_consume *consume,
                         uint32_t sub_id)
{
    struct session_stream *stream = calloc(1, sizeof *stream);
    assert(stream != NULL); /* STYLE 5: out of memory after the start is a crash */
    stream->conn = conn;
    stream->server = conn->server;
    stream->id = consume->id;
    stream->sub_id = sub_id;
    stream->lease_ms = consume->lease_ms;
    stream->topic_size = consume->topic.size;
    stream->sub_size = consume->subscription.size;
    memcpy(stream->topic, consume->topic.data, consume->topic.size);
    memcpy(stream->sub, consume->subscription.data, consume->subscription.size);
    arena_init(&stream->arena, ARENA_MAX, ARENA_KEEP);
    bool is_kept = map_put(&conn->stream_map, stream->id, stream);
    assert(is_kept);
    list_append(&conn->streams, &stream->link);
    conn->request_count++;
    count_streams(conn->server, 1);
    add_credit(stream, consume->messages, consume->bytes);
    session_stream_go(stream);
}

void session_stream_credit(struct session_conn *conn, const struct wire_credit *credit)
{
    struct session_stream *stream = map_get(&conn->stream_map, credit->id);
    if (stream == NULL) {
        return; /* it has crossed with the end; a failure could be taken for a later request's */
    }
    add_credit(stream, credit->messages, credit->bytes);
    if (!stream->is_cancelled) {
        session_stream_go(stream);
    }
}

void session_stream_cancel(struct session_conn *conn, const struct wire_cancel *cancel)
{
    struct session_stream *stream = map_get(&conn->stream_map, cancel->id);
    if (stream == NULL) {
        return;
    }
    if (stream->is_pulling) {
        stream->is_cancelled = true; /* ended is sent once what it is being given has gone back */
        router_cancel_pull(conn->server->options.router, &stream->pull);
    } else {
        stream_end(stream, ERR_NONE, NULL);
    }
}

void session_stream_abandon(struct session_stream *stream)
{
    stream->conn = NULL;
    if (stream->is_pulling) {
        router_cancel_pull(stream->server->options.router, &stream->pull);
    } else {
        stream_free(stream);
    }
}
