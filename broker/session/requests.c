/* What frames ask for: each message a client may send has one row in `handlers`.
 *
 * A request keeps the chunk its frame lies in until it is answered, so nothing of it is copied. */
#include <assert.h>
#include <stdio.h>

#include "broker/base/log.h"
#include "broker/base/text.h"
#include "broker/core/attributes.h"
#include "broker/core/message_id.h"
#include "broker/core/receipt.h"
#include "broker/session/session_internal.h"
#include "broker/volume/router_count.h"

enum {
    FRAME_OVERHEAD = 64,     /* at most, of a frame of deliveries */
    DELIVERY_OVERHEAD = 128, /* and of each of them, beside key, attributes and body */
    ATTRIBUTES_SHARE = 256,  /* one in so many bytes of attributes */
};

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

static void *request_alloc(struct session_request *request, size_t count, size_t size)
{
    return arena_alloc(&request->arena, count * size);
}

static bool is_pull(const struct session_request *request)
{
    return request->frame.type == WIRE_pull;
}

/* Frees what the router has answered; the connection may take more now. */
static void request_end(struct session_request *request)
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

static void operation_prepare(struct session_request *request, router_done done)
{
    request->operation.arena = &request->arena;
    request->operation.done = done;
    request->operation.user = request;
}

/* Whether the operation has failed as a whole; then its request is answered so. */
static bool operation_failed(struct session_request *request)
{
    enum err_code code = request->operation.result.code;
    if (code != ERR_NONE && request->conn != NULL) {
        session_conn_fail(request->conn, request->id, code, request->operation.result.detail);
    }
    return code != ERR_NONE;
}

/* ---- publish --------------------------------------------------------------------------------- */

static err_t read_attributes(struct session_request *request, uint32_t index,
                             struct wire_list pairs, struct span *out)
{
    if (pairs.count == 0) {
        *out = span_of("", 0);
        return NULL;
    }
    if (pairs.count > ATTRIBUTES_COUNT_MAX) {
        return ERR(INVALID, "messages[%u].attributes: must be at most %d", index,
                   ATTRIBUTES_COUNT_MAX);
    }
    /* Encoded, a pair is at least two bytes; over the bound of the core it is refused below. */
    size_t size = pairs.items.size + (size_t)pairs.count * ATTRIBUTES_PAIR_SIZE;
    struct buf encoded = {
        .data = request_alloc(request, 1, size), .capacity = size, .size_max = size};
    if (encoded.data == NULL) {
        return ERR(TOO_LARGE, "the request takes too much memory to handle");
    }
    while (pairs.count > 0) {
        struct span name;
        struct span value;
        const char *fault = wire_map_next(&pairs, &name, &value)
                                ? attributes_fault(buf_span(&encoded), name, value)
                                : "must be strings to strings";
        if (fault != NULL) {
            return ERR(INVALID, "messages[%u].attributes: %s", index, fault);
        }
        attributes_add(&encoded, name, value);
    }
    *out = buf_span(&encoded);
    return NULL;
}

static err_t read_message(struct session_request *request, uint32_t index,
                          const struct wire_message *from, struct message_in *to)
{
    uint32_t size_max = request->server->options.limits.message_size_max;
    if (from->body.size > size_max) {
        return ERR(TOO_LARGE, "messages[%u].body: a message body has at most %u bytes", index,
                   size_max);
    }
    *to = (struct message_in){
        .key = from->key,
        .body = from->body,
        .idempotency_key = from->idempotency_key,
        .delay_ms = from->delay_ms,
        .ttl_ms = from->ttl_ms,
    };
    TRY(read_attributes(request, index, from->attributes, &to->attributes));
    to->payload_hash = router_payload_hash(to->key, to->attributes, to->body);
    return NULL;
}

static err_t read_messages(struct session_request *request, const struct wire_list *list)
{
    struct router_publish *publish = &request->publish;
    struct wire_items items;
    struct wire_message message;
    wire_items_begin(&items, "messages", WIRE_RECORD_message, list);
    while (wire_items_next(&items, &message)) {
        TRY(read_message(request, items.index, &message, &publish->messages[items.index]));
        publish->results[items.index] = (struct publish_result){.code = ERR_UNKNOWN};
    }
    return wire_items_finish(&items);
}

static void answer_published(struct session_request *request)
{
    const struct router_publish *publish = &request->publish;
    uint8_t id[MESSAGE_ID_BYTES];
    struct wire_published published = {.id = request->id,
                                       .durability = (uint32_t)publish->durability,
                                       .results.count = publish->count};
    struct buf *out = session_conn_out(request->conn);
    size_t start = wire_begin(out, WIRE_published, &published);
    for (uint32_t index = 0; index < publish->count; index++) {
        const struct publish_result *from = &publish->results[index];
        struct wire_result result = {.code = (uint32_t)from->code};
        if (from->code == ERR_NONE) {
            message_id_encode(from->shard_id, from->sequence, id);
            result.id = span_of(id, sizeof id);
            result.shard = from->shard_number;
            result.sequence = from->sequence;
            result.replayed = from->replayed;
        }
        wire_put_record(out, WIRE_RECORD_result, &result);
    }
    wire_end(out, start, WIRE_published, &published);
}

static void publish_on_done(struct router_operation *operation)
{
    struct session_request *request = operation->user;
    enum err_code code = operation->result.code;
    if (code == ERR_NONE || code == ERR_ABORTED) {
        router_count_published(&request->publish, request->server->options.metrics);
    }
    if (request->conn == NULL) {
        /* Nobody is there to be told. */
    } else if (code == ERR_NONE || code == ERR_ABORTED) {
        answer_published(request);
    } else {
        (void)operation_failed(request);
    }
    request_end(request);
}

static err_t publish_start(struct session_request *request)
{
    const struct wire_publish *wire = &request->frame.publish;
    struct router_publish *publish = &request->publish;
    uint32_t count = wire->messages.count;
    uint32_t count_max = request->server->options.limits.batch_count_max;
    if (count < 1 || count > count_max) {
        return ERR(INVALID, "messages: must be between 1 and %u", count_max);
    }
    *publish = (struct router_publish){
        .topic = wire->topic, .atomic = wire->atomic, .batch_key = wire->batch_key, .count = count};
    publish->messages = request_alloc(request, count, sizeof *publish->messages);
    publish->results = request_alloc(request, count, sizeof *publish->results);
    if (publish->messages == NULL || publish->results == NULL) {
        return ERR(TOO_LARGE, "the request takes too much memory to handle");
    }
    TRY(read_messages(request, &wire->messages));
    operation_prepare(request, publish_on_done);
    router_start_publish(request->server->options.router, publish);
    return NULL;
}

/* ---- pull ------------------------------------------------------------------------------------ */

/* Attributes as the wire's map; `memory` is emptied first and holds the pairs. */
static struct wire_list put_attributes(struct span attributes, struct buf *memory)
{
    struct wire_list pairs = {0};
    struct span name;
    struct span value;
    buf_reset(memory);
    while (attributes_next(&attributes, &name, &value)) {
        wire_put_text(memory, name);
        wire_put_text(memory, value);
        pairs.count++;
    }
    pairs.items = buf_span(memory);
    return pairs;
}

static void put_delivery(struct buf *out, uint32_t sub_id, const struct reply *reply,
                         const struct delivery *from, struct buf *memory)
{
    uint8_t id[MESSAGE_ID_BYTES];
    uint8_t bytes[RECEIPT_SIZE];
    const struct receipt receipt = {
        .sub_id = sub_id,
        .shard_id = from->shard_id,
        .sequence = from->sequence,
        .epoch = from->epoch,
        .grant = from->grant,
        .attempt = from->attempt,
    };
    message_id_encode(from->shard_id, from->sequence, id);
    receipt_encode(&receipt, bytes);
    const struct wire_delivery delivery = {
        .id = span_of(id, sizeof id),
        .receipt = span_of(bytes, sizeof bytes),
        .shard = from->shard_number,
        .sequence = from->sequence,
        .attempt = from->attempt,
        .published_ms = from->published_ms,
        .lease_until_ms = from->due_ms,
        .body = delivery_body(reply, from),
        .key = delivery_key(reply, from),
        .attributes = put_attributes(delivery_attributes(reply, from), memory),
        .epoch = from->epoch,
    };
    wire_put_record(out, WIRE_RECORD_delivery, &delivery);
}

void session_put_deliveries(struct buf *out, enum wire_type type, uint64_t id, uint32_t sub_id,
                            const struct router_operation *operation)
{
    /* Both messages have the list alone. */
    _Static_assert(sizeof(struct wire_pulled) == sizeof(struct wire_deliver), "of one shape");
    struct wire_pulled pulled = {.id = id};
    const struct reply *reply = NULL;
    struct buf memory;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        pulled.deliveries.count += reply_delivery_count(reply);
    }
    buf_init(&memory, 4 * CORE_ATTRIBUTES_MAX);
    size_t start = wire_begin(out, type, &pulled);
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        uint32_t count = reply_delivery_count(reply);
        for (uint32_t index = 0; index < count; index++) {
            put_delivery(out, sub_id, reply, reply_delivery(reply, index), &memory);
        }
    }
    wire_end(out, start, type, &pulled);
    buf_deinit(&memory);
}

static void pull_on_done(struct router_operation *operation)
{
    struct session_request *request = operation->user;
    struct session_conn *conn = request->conn;
    if (conn == NULL || operation_failed(request)) {
        /* There is nothing to be given. */
    } else if (session_conn_is_over(conn)) {
        router_return_pull(operation->router, &request->pull);
        session_conn_fail(conn, request->id, ERR_BUSY, "too many answers have not been read");
    } else {
        (void)router_count_delivered(operation, request->server->options.metrics);
        session_put_deliveries(session_conn_out(conn), WIRE_pulled, request->id, request->sub_id,
                               operation);
    }
    request_end(request);
}

/* The subscription, if it can be asked; the router says the same of what it is given later. */
static err_t find_sub(const struct session_server *server, struct span topic_name, struct span name,
                      struct catalog_sub **out)
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

static err_t check_lease(uint64_t lease_ms)
{
    return lease_ms == 0 || lease_ms >= CATALOG_LEASE_MIN_MS
               ? NULL
               : ERR(INVALID, "lease_ms: must be 0, or at least %d", CATALOG_LEASE_MIN_MS);
}

/* Pulls of one connection share a bound, so that it cannot ask for more than it could ever read. */
static uint32_t pull_size(const struct session_request *request, uint32_t wanted)
{
    const struct session_limits *limits = &request->server->options.limits;
    uint32_t share = limits->pull_size_max / request->conn->pull_count; /* with this one */
    share = share < SESSION_PULL_SIZE_MIN ? SESSION_PULL_SIZE_MIN : share;
    share = share < limits->pull_size_max ? share : limits->pull_size_max;
    return wanted == 0 || wanted > share ? share : wanted;
}

void session_fit_frame(const struct session_server *server, struct router_pull *pull)
{
    /* The longest of them take a little more room here than in the store. */
    uint32_t frame_size = server->options.limits.frame_size_max;
    uint32_t room = frame_size - frame_size / ATTRIBUTES_SHARE - FRAME_OVERHEAD;
    uint32_t max = room / 2 / DELIVERY_OVERHEAD;
    pull->max = pull->max < max ? pull->max : max;
    room -= pull->max * DELIVERY_OVERHEAD;
    pull->size_max = pull->size_max < room ? pull->size_max : room;
}

/* Whether what may wait for long, its streams and pulls and `more` of them, fills the window of the
 * connection: then nothing would be read of it, neither credit nor a cancel nor that it has ended.
 */
static bool fills_window(const struct session_conn *conn, uint32_t more)
{
    return conn->stream_map.count + conn->pull_count + more >=
           conn->server->options.limits.window_requests;
}

static err_t pull_start(struct session_request *request)
{
    const struct wire_pull *wire = &request->frame.pull;
    const struct session_limits *limits = &request->server->options.limits;
    struct router *router = request->server->options.router;
    struct catalog_sub *sub;
    TRY(check_lease(wire->lease_ms));
    TRY(find_sub(request->server, wire->topic, wire->subscription, &sub));
    request->sub_id = sub->id;
    request->pull = (struct router_pull){
        .topic = wire->topic,
        .sub = wire->subscription,
        .max = wire->max < limits->pull_count_max ? wire->max : limits->pull_count_max,
        .size_max = pull_size(request, wire->max_bytes),
        .lease_ms = wire->lease_ms,
        .wait_ms = wire->wait_ms < limits->wait_max_ms ? wire->wait_ms : limits->wait_max_ms,
    };
    if (router_waiting(router) >= limits->waiters_max || fills_window(request->conn, 0)) {
        request->pull.wait_ms = 0;
    }
    session_fit_frame(request->server, &request->pull);
    operation_prepare(request, pull_on_done);
    router_start_pull(router, &request->pull);
    /* It may wait for long, and its names have been looked up. */
    session_chunk_drop(request->server, request->chunk);
    request->chunk = NULL;
    return NULL;
}

/* ---- ack, nack, extend ----------------------------------------------------------------------- */

static uint64_t settled_lease_ms(const struct session_request *request)
{
    const struct router_settle *settle = &request->settle;
    const struct catalog *catalog = router_catalog(request->server->options.router);
    const struct catalog_sub *sub = catalog_sub_by_id(catalog, request->sub_id);
    if (settle->kind != ROUTER_EXTEND) {
        return 0;
    }
    return settle->lease_ms != 0 || sub == NULL ? settle->lease_ms : sub->settings.lease_ms;
}

static void answer_settled(struct session_request *request, uint32_t failed)
{
    const struct router_settle *settle = &request->settle;
    struct buf *out = session_conn_out(request->conn);
    struct wire_settled settled = {
        .id = request->id,
        .count = settle->count - failed,
        .lease_ms = settled_lease_ms(request),
        .codes.count = failed == 0 ? 0 : settle->count,
    };
    size_t start = wire_begin(out, WIRE_settled, &settled);
    for (uint32_t index = 0; index < settled.codes.count; index++) {
        const struct wire_code code = {.code = (uint32_t)settle->results[index]};
        wire_put_record(out, WIRE_RECORD_code, &code);
    }
    wire_end(out, start, WIRE_settled, &settled);
}

static void settle_on_done(struct router_operation *operation)
{
    struct session_request *request = operation->user;
    enum err_code code = operation->result.code;
    if (code == ERR_NONE || code == ERR_LEASE_LOST) {
        enum err_code first;
        uint32_t failed =
            router_count_settled(&request->settle, request->server->options.metrics, &first);
        if (request->conn != NULL) {
            answer_settled(request, failed);
        }
    } else {
        (void)operation_failed(request);
    }
    request_end(request);
}

static err_t read_receipts(struct session_request *request, const struct wire_list *list)
{
    struct router_settle *settle = &request->settle;
    struct wire_items items;
    struct wire_receipt receipt;
    if (list->count == 0) {
        return ERR(INVALID, "receipts: must be between 1 and %d", CORE_RECEIPTS_MAX);
    }
    settle->count = list->count;
    settle->receipts = request_alloc(request, list->count, sizeof *settle->receipts);
    settle->results = request_alloc(request, list->count, sizeof *settle->results);
    if (settle->receipts == NULL || settle->results == NULL) {
        return ERR(TOO_LARGE, "the request takes too much memory to handle");
    }
    wire_items_begin(&items, "receipts", WIRE_RECORD_receipt, list);
    while (wire_items_next(&items, &receipt)) {
        if (!receipt_decode(receipt.receipt, &settle->receipts[items.index])) {
            return ERR(INVALID, "receipts[%u]: is not a receipt", items.index);
        }
        settle->results[items.index] = ERR_UNKNOWN;
    }
    return wire_items_finish(&items);
}

static err_t settle_start(struct session_request *request, struct span topic, struct span name,
                          const struct wire_list *receipts)
{
    struct catalog_sub *sub;
    TRY(find_sub(request->server, topic, name, &sub));
    request->sub_id = sub->id;
    request->settle.topic = topic;
    request->settle.sub = name;
    TRY(read_receipts(request, receipts));
    operation_prepare(request, settle_on_done);
    router_start_settle(request->server->options.router, &request->settle);
    return NULL;
}

static err_t ack_start(struct session_request *request)
{
    const struct wire_ack *wire = &request->frame.ack;
    request->settle = (struct router_settle){.kind = ROUTER_ACK};
    return settle_start(request, wire->topic, wire->subscription, &wire->receipts);
}

static err_t nack_start(struct session_request *request)
{
    const struct wire_nack *wire = &request->frame.nack;
    request->settle = (struct router_settle){
        .kind = ROUTER_NACK,
        .has_delay = wire->delay_ms != WIRE_NIL,
        .delay_ms = wire->delay_ms != WIRE_NIL ? wire->delay_ms : 0,
        .reject = wire->reject,
        .note = wire->reason,
    };
    if (wire->reject && request->settle.has_delay) {
        return ERR(INVALID, "delay_ms: a rejected message is not delivered again");
    }
    return settle_start(request, wire->topic, wire->subscription, &wire->receipts);
}

static err_t extend_start(struct session_request *request)
{
    const struct wire_extend *wire = &request->frame.extend;
    TRY(check_lease(wire->lease_ms));
    request->settle = (struct router_settle){.kind = ROUTER_EXTEND, .lease_ms = wire->lease_ms};
    return settle_start(request, wire->topic, wire->subscription, &wire->receipts);
}

/* ---- topic_put, sub_put ---------------------------------------------------------------------- */

static void configure_on_done(struct router_operation *operation)
{
    struct session_request *request = operation->user;
    const struct catalog_change *change = &request->configure.change;
    const struct catalog *catalog = router_catalog(request->server->options.router);
    if (request->conn != NULL && !operation_failed(request)) {
        const struct catalog_topic *topic = catalog_topic(catalog, change->topic);
        const struct catalog_sub *sub =
            topic == NULL || change->sub.size == 0 ? NULL : catalog_sub(topic, change->sub);
        const struct wire_configured configured = {
            .id = request->id,
            .created = change->created,
            .version = sub != NULL     ? sub->version
                       : topic != NULL ? topic->version
                                       : 0,
        };
        session_conn_send(request->conn, WIRE_configured, &configured);
    }
    request_end(request);
}

static err_t configure_start(struct session_request *request)
{
    operation_prepare(request, configure_on_done);
    router_start_configure(request->server->options.router, &request->configure);
    return NULL;
}

static err_t topic_put_start(struct session_request *request)
{
    const struct wire_topic_put *wire = &request->frame.topic_put;
    if (wire->retention_ms != 0 && wire->retention_ms < CATALOG_RETENTION_MIN_MS) {
        return ERR(INVALID, "retention_ms: must be 0, or at least %d", CATALOG_RETENTION_MIN_MS);
    }
    request->configure = (struct router_configure){
        .change = {.op = CATALOG_TOPIC_PUT,
                   .topic = wire->topic,
                   .shard_count = wire->shards,
                   .topic_settings = {.retention_ms = wire->retention_ms,
                                      .retention_bytes = wire->retention_bytes,
                                      .dedup_window_ms = wire->idempotency_window_ms == WIRE_NIL
                                                             ? CATALOG_DEDUP_WINDOW_DEFAULT_MS
                                                             : wire->idempotency_window_ms,
                                      .durability = (enum durability)wire->durability}}};
    return configure_start(request);
}

static err_t sub_put_start(struct session_request *request)
{
    static const enum start_at starts[] = {START_LATEST, START_EARLIEST, START_TIME};
    const struct wire_sub_put *wire = &request->frame.sub_put;
    TRY(check_lease(wire->lease_ms));
    request->configure = (struct router_configure){
        .change = {.op = CATALOG_SUB_PUT,
                   .topic = wire->topic,
                   .sub = wire->subscription,
                   .sub_settings = {.lease_ms = wire->lease_ms == 0 ? CATALOG_LEASE_DEFAULT_MS
                                                                    : wire->lease_ms,
                                    .retry_delay_ms = wire->retry_delay_ms,
                                    .max_attempts = wire->max_attempts == WIRE_NIL
                                                        ? CATALOG_ATTEMPTS_DEFAULT
                                                        : (uint32_t)wire->max_attempts,
                                    .max_in_flight = wire->max_in_flight},
                   .keep_paused = true,
                   .start = starts[wire->start],
                   .start_value = wire->start_ms}};
    return configure_start(request);
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
    TRY(check_lease(frame->consume.lease_ms));
    TRY(find_sub(conn->server, frame->consume.topic, frame->consume.subscription, &sub));
    if (router_waiting(options->router) >= options->limits.waiters_max) {
        return ERR(BUSY, "too many pulls and streams wait");
    }
    if (fills_window(conn, 1)) {
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
    [WIRE_publish] = {.start = publish_start, .opens = true},
    [WIRE_pull] = {.start = pull_start, .opens = true},
    [WIRE_ack] = {.start = ack_start, .opens = true},
    [WIRE_nack] = {.start = nack_start, .opens = true},
    [WIRE_extend] = {.start = extend_start, .opens = true},
    [WIRE_consume] = {.now = on_consume, .opens = true},
    [WIRE_credit] = {.now = on_credit},
    [WIRE_cancel] = {.now = on_cancel},
    [WIRE_topic_put] = {.start = topic_put_start, .opens = true},
    [WIRE_sub_put] = {.start = sub_put_start, .opens = true},
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
        request_end(request);
    }
}
