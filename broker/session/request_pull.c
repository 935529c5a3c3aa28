/* What a pull asks for, and what a pull or a stream is given. */
#include <assert.h>

#include "broker/core/attributes.h"
#include "broker/core/message_id.h"
#include "broker/core/receipt.h"
#include "broker/session/requests.h"
#include "broker/volume/router_count.h"

enum {
    FRAME_OVERHEAD = 64,     /* at most, of a frame of deliveries */
    DELIVERY_OVERHEAD = 128, /* and of each of them, beside key, attributes and body */
    ATTRIBUTES_SHARE = 256,  /* one in so many bytes of attributes */
};

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
    if (conn == NULL || session_request_failed(request)) {
        /* There is nothing to be given. */
    } else if (session_conn_is_over(conn)) {
        router_return_pull(operation->router, &request->pull);
        session_conn_fail(conn, request->id, ERR_BUSY, "too many answers have not been read");
    } else {
        (void)router_count_delivered(operation, request->server->options.metrics);
        session_put_deliveries(session_conn_out(conn), WIRE_pulled, request->id, request->sub_id,
                               operation);
    }
    session_request_end(request);
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

err_t session_pull_start(struct session_request *request)
{
    const struct wire_pull *wire = &request->frame.pull;
    const struct session_limits *limits = &request->server->options.limits;
    struct router *router = request->server->options.router;
    struct catalog_sub *sub;
    TRY(session_check_lease(wire->lease_ms));
    TRY(session_find_sub(request->server, wire->topic, wire->subscription, &sub));
    request->sub_id = sub->id;
    request->pull = (struct router_pull){
        .topic = wire->topic,
        .sub = wire->subscription,
        .max = wire->max < limits->pull_count_max ? wire->max : limits->pull_count_max,
        .size_max = pull_size(request, wire->max_bytes),
        .lease_ms = wire->lease_ms,
        .wait_ms = wire->wait_ms < limits->wait_max_ms ? wire->wait_ms : limits->wait_max_ms,
    };
    if (router_waiting(router) >= limits->waiters_max || session_fills_window(request->conn, 0)) {
        request->pull.wait_ms = 0;
    }
    session_fit_frame(request->server, &request->pull);
    session_request_prepare(request, pull_on_done);
    router_start_pull(router, &request->pull);
    /* It may wait for long, and its names have been looked up. */
    session_chunk_drop(request->server, request->chunk);
    request->chunk = NULL;
    return NULL;
}
