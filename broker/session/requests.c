/* What frames ask for: each message a client may send has one row in `handlers`.
 *
 * A request keeps the chunk its frame lies in until it is answered, so nothing of it is copied. */
#include "broker/session/requests.h"

#include <assert.h>

#include "broker/base/log.h"

/* The protocol's numbers and bounds are the core's. */
_Static_assert(DURABILITY_SYNCED == 0 && DURABILITY_RELAXED == 1, "messages.def says so");
_Static_assert(CORE_PULL_MAX == 10000 && CORE_RECEIPTS_MAX == 10000, "messages.def says so");
_Static_assert(CORE_NAME_MAX == 255 && CORE_KEY_MAX == 2048, "messages.def says so");
_Static_assert(CORE_SHARDS_MAX == 4096 && CATALOG_SHARDS_DEFAULT == 4, "messages.def says so");
_Static_assert(CATALOG_DEDUP_WINDOW_DEFAULT_MS == 300000 &&
                   CATALOG_DEDUP_WINDOW_MAX_MS == 604800000,
               "messages.def says so");
_Static_assert(CATALOG_RETENTION_MIN_MS == 1000 &&
                   CATALOG_RETENTION_MAX_MS == UINT64_C(315360000000) &&
                   CATALOG_RETENTION_BYTES_MAX == UINT64_C(9007199254740991),
               "messages.def says so");
_Static_assert(CATALOG_LEASE_DEFAULT_MS == 30000 && CATALOG_LEASE_MIN_MS == 100 &&
                   CATALOG_LEASE_MAX_MS == 43200000,
               "messages.def says so");
_Static_assert(CATALOG_ATTEMPTS_DEFAULT == 16 && CATALOG_ATTEMPTS_MAX == 65535 &&
                   CATALOG_RETRY_DELAY_MAX_MS == UINT64_C(2592000000) &&
                   CATALOG_IN_FLIGHT_MAX == 1000000,
               "messages.def says so");
_Static_assert(CORE_BODY_MAX == 64 << 20 && CORE_NOTE_MAX == 1024, "messages.def says so");

/* ---- under way and done ---------------------------------------------------------------------- */

void *session_request_alloc(struct session_request *request, size_t count, size_t size)
{
    return arena_alloc(&request->arena, count * size);
}

static bool is_pull(const struct session_request *request)
{
    return request->frame.type == WIRE_pull;
}

void session_request_end(struct session_request *request)
{
    struct session_conn *conn = request->conn;
    router_release(&request->operation);
    if (conn != NULL) {
        list_remove(&request->link);
        map_remove(&conn->request_map, request->id);
        conn->request_count--;
        conn->pull_count -= is_pull(request);
        conn->request_size -= request->size;
        session_conn_touch(conn);
    }
    session_request_give(request->server, request);
}

void session_request_abandon(struct session_request *request)
{
    request->conn = NULL;
    if (is_pull(request)) {
        router_cancel_pull(request->server->options.router, &request->pull);
    }
}

void session_request_prepare(struct session_request *request, router_done done)
{
    request->operation.arena = &request->arena;
    request->operation.done = done;
    request->operation.user = request;
}

bool session_request_failed(struct session_request *request)
{
    enum err_code code = request->operation.result.code;
    if (code != ERR_NONE && request->conn != NULL) {
        session_conn_fail(request->conn, request->id, code, request->operation.result.detail);
    }
    return code != ERR_NONE;
}

/* ---- what is asked of several ---- */

err_t session_find_sub(const struct session_server *server, struct span topic_name,
                       struct span name, struct catalog_sub **out)
{
    const struct catalog *catalog = router_catalog(server->options.router);
    struct catalog_topic *topic = catalog_topic(catalog, topic_name);
    if (topic == NULL || topic->state != CATALOG_ACTIVE) {
        return ERR(NOT_FOUND, "topic: it does not exist");
    }
    *out = catalog_sub(topic, name);
    if (*out == NULL || (*out)->state != CATALOG_ACTIVE) {
        return ERR(NOT_FOUND, "subscription: it does not exist");
    }
    return NULL;
}

err_t session_check_lease(uint64_t lease_ms)
{
    return lease_ms == 0 || lease_ms >= CATALOG_LEASE_MIN_MS
               ? NULL
               : ERR(INVALID, "lease_ms: must be 0, or at least %d", CATALOG_LEASE_MIN_MS);
}

bool session_fills_window(const struct session_conn *conn, uint32_t more)
{
    return conn->stream_map.count + conn->pull_count + more >=
           conn->server->options.limits.window_requests;
}

/* ---- hello and ping -------------------------------------------------------------------------- */

static err_t on_hello(struct session_conn *conn, const struct wire_frame *frame)
{
    const struct session_options *options = &conn->server->options;
    const struct session_limits *limits = &options->limits;
    char broker[255];
    if (conn->step != SESSION_HELLO) {
        return ERR(INVALID, "hello has been said");
    }
    (void)snprintf(broker, sizeof broker, "flared %s", options->version);
    const struct wire_welcome welcome = {
        .id = frame->id,
        .version = frame->hello.version < WIRE_VERSION ? frame->hello.version : WIRE_VERSION,
        .broker = span_text(broker),
        .frame_size_max = limits->frame_size_max,
        .window_requests = limits->window_requests,
        .window_size = limits->window_size,
        .message_size_max = limits->message_size_max,
        .batch_messages_max = limits->batch_count_max,
        .pull_messages_max = limits->pull_count_max,
        .pull_size_max = limits->pull_size_max,
        .wait_max_ms = limits->wait_max_ms,
    };
    session_conn_open(conn);
    session_conn_send(conn, WIRE_welcome, &welcome);
    LOG_DEBUG("wire connection", LOG_U64("connection", conn->id),
              LOG_SPAN("client", frame->hello.client));
    return NULL;
}

static err_t on_ping(struct session_conn *conn, const struct wire_frame *frame)
{
    session_conn_send(conn, WIRE_pong, &(struct wire_pong){.id = frame->id});
    return NULL;
}

static err_t on_consume(struct session_conn *conn, const struct wire_frame *frame)
{
    const struct session_options *options = &conn->server->options;
    struct catalog_sub *sub;
    TRY(session_check_lease(frame->consume.lease_ms));
    TRY(session_find_sub(conn->server, frame->consume.topic, frame->consume.subscription, &sub));
    if (router_waiting(options->router) >= options->limits.waiters_max) {
        return ERR(BUSY, "too many pulls and streams wait");
    }
    if (session_fills_window(conn, 1)) {
        return ERR(BUSY, "the streams and pulls of the connection would fill its window");
    }
    session_stream_open(conn, &frame->consume, sub->id);
    return NULL;
}

static err_t on_credit(struct session_conn *conn, const struct wire_frame *frame)
{
    session_stream_credit(conn, &frame->credit);
    return NULL;
}

static err_t on_cancel(struct session_conn *conn, const struct wire_frame *frame)
{
    session_stream_cancel(conn, &frame->cancel);
    return NULL;
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* What a message does: at once, or as a request that is answered later. */
static const struct {
    err_t (*now)(struct session_conn *conn, const struct wire_frame *frame);
    err_t (*start)(struct session_request *request);
    bool opens; /* its id becomes used */
} handlers[] = {
    [WIRE_hello] = {.now = on_hello},
    [WIRE_ping] = {.now = on_ping, .opens = true},
    [WIRE_publish] = {.start = session_publish_start, .opens = true},
    [WIRE_pull] = {.start = session_pull_start, .opens = true},
    [WIRE_ack] = {.start = session_ack_start, .opens = true},
    [WIRE_nack] = {.start = session_nack_start, .opens = true},
    [WIRE_extend] = {.start = session_extend_start, .opens = true},
    [WIRE_consume] = {.now = on_consume, .opens = true},
    [WIRE_credit] = {.now = on_credit},
    [WIRE_cancel] = {.now = on_cancel},
    [WIRE_topic_put] = {.start = session_topic_put_start, .opens = true},
    [WIRE_sub_put] = {.start = session_sub_put_start, .opens = true},
};
enum { HANDLERS = sizeof handlers / sizeof handlers[0] };

static bool id_is_used(const struct session_conn *conn, uint64_t id)
{
    return map_get(&conn->request_map, id) != NULL || map_get(&conn->stream_map, id) != NULL;
}

/* Makes it one of the connection's requests and starts it. */
static err_t request_start(struct session_conn *conn, struct session_request *request, size_t size)
{
    request->conn = conn;
    request->id = request->frame.id;
    request->size = size;
    request->chunk = conn->chunk;
    request->chunk->refs++;
    request->operation = (struct router_operation){0};
    bool is_kept = map_put(&conn->request_map, request->id, request);
    assert(is_kept); /* STYLE 5: out of memory after the start is a crash */
    list_append(&conn->requests, &request->link);
    conn->request_count++;
    conn->pull_count += is_pull(request);
    err_t err = handlers[request->frame.type].start(request);
    /* Ten thousand empty messages are a small frame, and not a small request. A pull keeps nothing
     * of its frame and may wait for long: what it takes is bounded by how many there may be. */
    request->size = is_pull(request) ? 0 : request->size + request->arena.used;
    conn->request_size += request->size;
    return err == NULL ? NULL : err_passed(err, __func__);
}

static err_t take_frame(struct session_conn *conn, struct session_request *request,
                        struct span payload, bool *is_request)
{
    struct wire_frame *frame = &request->frame;
    TRY(wire_decode(payload, frame));
    if (frame->id == 0) {
        return ERR(INVALID, "0 is not an id");
    }
    if (wire_shape(frame->type)->sender != WIRE_FROM_CLIENT) {
        return ERR(INVALID, "%s is the broker's to send", wire_shape(frame->type)->name);
    }
    if (conn->step == SESSION_HELLO && frame->type != WIRE_hello) {
        frame->id = 0; /* it is the connection that fails */
        return ERR(INVALID, "the first frame must be hello");
    }
    assert((size_t)frame->type < HANDLERS);
    if (handlers[frame->type].opens && id_is_used(conn, frame->id)) {
        return ERR(CONFLICT, "id: a request or stream of this id is under way");
    }
    if (handlers[frame->type].now != NULL) {
        return handlers[frame->type].now(conn, frame);
    }
    *is_request = true;
    return request_start(conn, request, payload.size);
}

void session_on_frame(struct session_conn *conn, struct span payload)
{
    struct session_request *request = session_request_take(conn->server);
    bool is_request = false;
    metrics_add(&conn->server->options.metrics->wire_requests_total, 1);
    err_t err = take_frame(conn, request, payload, &is_request);
    if (err != NULL) {
        bool is_hello = conn->step == SESSION_HELLO;
        session_conn_fail(conn, is_hello ? 0 : request->frame.id, err_code(err), err_message(err));
        err_free(err);
    }
    if (!is_request) {
        session_request_give(conn->server, request);
    } else if (err != NULL) {
        session_request_end(request);
    }
}
