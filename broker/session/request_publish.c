/* What a publish asks for, and its answer. */
#include "broker/core/attributes.h"
#include "broker/core/message_id.h"
#include "broker/session/requests.h"
#include "broker/volume/router_count.h"

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
        .data = session_request_alloc(request, 1, size), .capacity = size, .size_max = size};
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
        (void)session_request_failed(request);
    }
    session_request_end(request);
}

err_t session_publish_start(struct session_request *request)
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
    publish->messages = session_request_alloc(request, count, sizeof *publish->messages);
    publish->results = session_request_alloc(request, count, sizeof *publish->results);
    if (publish->messages == NULL || publish->results == NULL) {
        return ERR(TOO_LARGE, "the request takes too much memory to handle");
    }
    TRY(read_messages(request, &wire->messages));
    session_request_prepare(request, publish_on_done);
    router_start_publish(request->server->options.router, publish);
    return NULL;
}
