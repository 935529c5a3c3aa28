/* Publishing: one message whose body is the request's, or a batch.
 *
 * Bodies are not copied here: the messages handed to the router point into the request. What a JSON
 * document held is decoded once, in the request's arena. */
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#include "broker/base/text.h"
#include "broker/core/attributes.h"
#include "broker/core/durability.h"
#include "broker/core/message_id.h"
#include "broker/http/api_request.h"
#include "broker/http/json.h"
#include "broker/http/text.h"
#include "broker/volume/router_count.h"

/* ---- attributes ----------------------------------------------------------------------------- */

/* A buf over memory of the request: it never grows, so it needs no release. */
static err_t attributes_begin(struct api_request *request, size_t size, struct buf *out)
{
    uint8_t *memory;
    TRY(api_alloc(request, 1, size, &memory));
    *out = (struct buf){.data = memory, .capacity = size, .size_max = size};
    return NULL;
}

/* ---- one ------------------------------------------------------------------------------------ */

enum publish_header {
    HEADER_KEY,
    HEADER_DELAY,
    HEADER_TTL,
    HEADER_IDEMPOTENCY_KEY,
    HEADER_CONTENT_TYPE,
    HEADER_TRACEPARENT,
    HEADERS,
};

/* The headers that speak of the message, with the rows that bound them. */
static const struct {
    struct span name;
    enum in_row row;
} publish_headers[HEADERS] = {
#define HEADER(text, field)                                                                        \
    {                                                                                              \
        {.data = (const uint8_t *)(text), .size = sizeof(text) - 1}, field                         \
    }
    [HEADER_KEY] = HEADER("Flare-Key", IN_message_key),
    [HEADER_DELAY] = HEADER("Flare-Delay", IN_message_delay),
    [HEADER_TTL] = HEADER("Flare-TTL", IN_message_ttl),
    [HEADER_IDEMPOTENCY_KEY] = HEADER("Idempotency-Key", IN_message_idempotency_key),
    [HEADER_CONTENT_TYPE] = HEADER("Content-Type", IN_message_attributes),
    [HEADER_TRACEPARENT] = HEADER("traceparent", IN_message_attributes),
#undef HEADER
};
static const struct span attribute_prefix = {.data = (const uint8_t *)"Flare-Attr-", .size = 11};

struct publish_request {
    struct router_publish publish;
    struct api_request *request;
    struct message_in message;
    struct publish_result result;
};

static err_t header_text(const char *name, struct span value, enum in_row row)
{
    const struct in_field *bounds = &api_in_fields[row];
    if (value.size < bounds->min || value.size > bounds->max) {
        return ERR(INVALID, "%s: must have between %llu and %llu bytes", name,
                   (unsigned long long)bounds->min, (unsigned long long)bounds->max);
    }
    if (text_classify(value) != TEXT_PLAIN) {
        return ERR(INVALID, "%s: must be UTF-8 without control characters", name);
    }
    return NULL;
}

static err_t header_duration(const char *name, struct span value, enum in_row row, uint64_t *out)
{
    const struct in_field *bounds = &api_in_fields[row];
    if (!api_in_duration(value, out)) {
        return ERR(INVALID, "%s: must be a duration such as 30s", name);
    }
    if (*out < bounds->min || *out > bounds->max) {
        return ERR(INVALID, "%s: must be between %llu and %llu ms", name,
                   (unsigned long long)bounds->min, (unsigned long long)bounds->max);
    }
    return NULL;
}

static err_t add_attribute(struct api_request *request, struct buf *encoded,
                           const struct http_header *header, size_t skipped)
{
    struct span name = span_of(header->name.data + skipped, header->name.size - skipped);
    char *lower = arena_text(&request->exchange->arena, name);
    if (lower == NULL) {
        return ERR(TOO_LARGE, "the request takes too much memory to handle");
    }
    for (size_t at = 0; at < name.size; at++) {
        lower[at] = (char)tolower((unsigned char)lower[at]);
    }
    if (skipped > 0 && (strcmp(lower, "content-type") == 0 || strcmp(lower, "traceparent") == 0)) {
        return ERR(INVALID, "Flare-Attr-%s: the header %s says this", lower, lower);
    }
    const char *fault =
        attributes_fault(buf_span(encoded), span_of(lower, name.size), header->value);
    if (fault != NULL) {
        return ERR(INVALID, "%.*s: %s", (int)header->name.size, (const char *)header->name.data,
                   fault);
    }
    attributes_add(encoded, span_of(lower, name.size), header->value);
    return NULL;
}

static err_t read_header(struct api_request *request, const struct http_header *header,
                         enum publish_header which, struct message_in *message,
                         struct buf *attributes)
{
    const char *name = (const char *)publish_headers[which].name.data;
    enum in_row row = publish_headers[which].row;
    switch (which) {
    case HEADER_KEY:
        message->key = header->value;
        return header_text(name, header->value, row);
    case HEADER_IDEMPOTENCY_KEY:
        message->idempotency_key = header->value;
        return header_text(name, header->value, row);
    case HEADER_DELAY:
        return header_duration(name, header->value, row, &message->delay_ms);
    case HEADER_TTL:
        return header_duration(name, header->value, row, &message->ttl_ms);
    case HEADER_CONTENT_TYPE:
    case HEADER_TRACEPARENT:
        return add_attribute(request, attributes, header, 0);
    case HEADERS:
        break;
    }
    return NULL;
}

static enum publish_header header_of(struct span name)
{
    uint32_t which = 0;
    while (which < HEADERS && !http_text_same(name, publish_headers[which].name)) {
        which++;
    }
    return (enum publish_header)which;
}

static bool is_attribute(struct span name)
{
    return name.size > attribute_prefix.size &&
           http_text_same(span_of(name.data, attribute_prefix.size), attribute_prefix);
}

static err_t read_headers(struct api_request *request, struct message_in *message)
{
    const struct http_exchange *exchange = request->exchange;
    size_t size = 0;
    for (uint32_t index = 0; index < exchange->header_count; index++) {
        size += exchange->headers[index].name.size + exchange->headers[index].value.size;
    }
    struct buf attributes = {.data = NULL};
    TRY(attributes_begin(request, size + ATTRIBUTES_PAIR_SIZE * (size_t)exchange->header_count,
                         &attributes));
    uint32_t seen = 0;
    for (uint32_t index = 0; index < exchange->header_count; index++) {
        const struct http_header *header = &exchange->headers[index];
        enum publish_header which = header_of(header->name);
        if (which == HEADERS) {
            if (is_attribute(header->name)) {
                TRY(add_attribute(request, &attributes, header, attribute_prefix.size));
            }
            continue;
        }
        if ((seen & UINT32_C(1) << which) != 0) {
            return ERR(INVALID, "%s: is given twice",
                       (const char *)publish_headers[which].name.data);
        }
        seen |= UINT32_C(1) << which;
        TRY(read_header(request, header, which, message, &attributes));
    }
    message->attributes = buf_span(&attributes);
    return NULL;
}

static void put_result(struct out *out, const struct publish_result *result)
{
    char id[MESSAGE_ID_SIZE];
    message_id_format(result->shard_id, result->sequence, id);
    out_field_text(out, "id", id);
    out_field_u64(out, "shard", result->shard_number);
    out_field_u64(out, "sequence", result->sequence);
}

static void publish_on_done(struct router_operation *operation)
{
    struct publish_request *publish = operation->user;
    struct api_request *request = publish->request;
    const struct publish_result *result = &publish->result;
    if (operation->result.code == ERR_NONE && result->code == ERR_NONE) {
        router_count_published(&publish->publish, request->api->options.metrics);
        struct buf buf;
        struct out out;
        api_answer_begin(request, &buf, &out);
        out_map(&out);
        put_result(&out, result);
        out_field_text(&out, "durability", durability_text(publish->publish.durability));
        out_end(&out);
        if (result->replayed) {
            http_response_header(request->exchange, "Idempotent-Replayed", span_text("true"));
        }
        api_answer(request, 201, &buf);
    } else if (operation->result.code != ERR_NONE && operation->result.code != ERR_ABORTED) {
        api_problem(request, operation->result.code, operation->result.detail);
    } else {
        api_problem(request, result->code, operation->result.detail);
    }
}

static err_t check_size(const struct api_request *request, const char *field, size_t size)
{
    uint32_t size_max = request->api->options.limits.message_size_max;
    return size <= size_max
               ? NULL
               : ERR(TOO_LARGE, "%s: a message body has at most %u bytes", field, size_max);
}

static void hash_payload(struct message_in *message)
{
    message->payload_hash = router_payload_hash(message->key, message->attributes, message->body);
}

err_t api_message_publish(struct api_request *request)
{
    struct publish_request *publish;
    TRY(check_size(request, "body", request->exchange->body.size));
    TRY(api_alloc(request, 1, sizeof *publish, &publish));
    TRY(read_headers(request, &publish->message));
    publish->request = request;
    publish->message.body = request->exchange->body;
    hash_payload(&publish->message);
    publish->result.code = ERR_UNKNOWN; /* until the router says what became of it */
    publish->publish.topic = request->topic;
    publish->publish.messages = &publish->message;
    publish->publish.count = 1;
    publish->publish.results = &publish->result;
    api_operation(request, &publish->publish.operation, publish_on_done);
    publish->publish.operation.user = publish;
    router_start_publish(request->api->router, &publish->publish);
    return NULL;
}

/* ---- many ----------------------------------------------------------------------------------- */

static err_t batch_attributes(struct api_request *request, struct span document, uint32_t index,
                              struct span *out)
{
    struct reader reader;
    uint32_t count = 0;
    reader_init(&reader, document);
    if (!reader_map(&reader, &count)) {
        return reader_finish(&reader);
    }
    if (count > ATTRIBUTES_COUNT_MAX) {
        return ERR(INVALID, "messages[%u].attributes: must be at most %d", index,
                   ATTRIBUTES_COUNT_MAX);
    }
    struct buf encoded = {.data = NULL};
    TRY(attributes_begin(request, document.size + ATTRIBUTES_PAIR_SIZE * (size_t)count, &encoded));
    for (uint32_t pair = 0; pair < count; pair++) {
        struct span name;
        struct span value;
        if (!reader_str(&reader, &name) || !reader_str(&reader, &value)) {
            return ERR(INVALID, "messages[%u].attributes: must be text", index);
        }
        const char *fault = attributes_fault(buf_span(&encoded), name, value);
        if (fault != NULL) {
            return ERR(INVALID, "messages[%u].attributes: %s", index, fault);
        }
        attributes_add(&encoded, name, value);
    }
    *out = buf_span(&encoded);
    return NULL;
}

static err_t batch_body(struct api_request *request, const struct in_value *values, uint32_t index,
                        struct span *out)
{
    const struct in_value *base64 = &values[IN(message, body_base64)];
    *out = values[IN(message, body)].span;
    if (base64->given) {
        uint8_t *decoded;
        size_t size = 0;
        if (values[IN(message, body)].given) {
            return ERR(INVALID, "messages[%u].body_base64: body is given too", index);
        }
        TRY(api_alloc(request, 1, json_base64_size(base64->span), &decoded));
        if (!json_base64_decode(base64->span, decoded, &size)) {
            return ERR(INVALID, "messages[%u].body_base64: is not valid base64", index);
        }
        *out = span_of(decoded, size);
    }
    if (out->size > request->api->options.limits.message_size_max) {
        char field[48];
        (void)snprintf(field, sizeof field, "messages[%u].body", index);
        return check_size(request, field, out->size);
    }
    return NULL;
}

static err_t batch_message(struct api_request *request, struct reader *reader, uint32_t index,
                           struct message_in *message)
{
    struct in_value values[IN_VALUES_MAX];
    struct in_place place = {.name = "messages", .index = index};
    TRY(api_in_read(reader, IN_message, place, values));
    TRY(batch_body(request, values, index, &message->body));
    if (values[IN(message, attributes)].given) {
        TRY(batch_attributes(request, values[IN(message, attributes)].span, index,
                             &message->attributes));
    }
    message->key = values[IN(message, key)].span;
    message->idempotency_key = values[IN(message, idempotency_key)].span;
    message->delay_ms = values[IN(message, delay)].number;
    message->ttl_ms = values[IN(message, ttl)].number;
    hash_payload(message);
    return NULL;
}

static uint32_t batch_published(const struct router_publish *publish)
{
    uint32_t published = 0;
    for (uint32_t index = 0; index < publish->count; index++) {
        published += publish->results[index].code == ERR_NONE;
    }
    return published;
}

static void batch_print(struct out *out, const struct router_publish *publish, uint32_t published)
{
    out_name(out, "results");
    out_array(out);
    for (uint32_t index = 0; index < publish->count; index++) {
        const struct publish_result *result = &publish->results[index];
        out_map(out);
        if (result->code == ERR_NONE) {
            put_result(out, result);
            if (result->replayed) {
                out_field_bool(out, "replayed", true);
            }
        } else {
            out_field_text(out, "code", err_slug(result->code));
            out_field_bool(out, "retryable", err_retryable(result->code) != 0);
        }
        out_end(out);
    }
    out_end(out);
    out_field_u64(out, "published", published);
    out_field_u64(out, "failed", publish->count - published);
}

/* What to blame when nothing was published: the first failure that is not only another's. */
static enum err_code batch_blame(const struct router_publish *publish)
{
    for (uint32_t index = 0; index < publish->count; index++) {
        enum err_code code = publish->results[index].code;
        if (code != ERR_NONE && code != ERR_ABORTED) {
            return code;
        }
    }
    return ERR_ABORTED;
}

static void batch_on_done(struct router_operation *operation)
{
    struct api_request *request = operation->user;
    const struct router_publish *publish =
        container_of(operation, struct router_publish, operation);
    enum err_code code = operation->result.code;
    uint32_t published = batch_published(publish);
    struct buf buf;
    struct out out;
    if (code != ERR_NONE && code != ERR_ABORTED) {
        api_problem(request, code, operation->result.detail);
    } else if (published == 0) {
        code = batch_blame(publish);
        api_problem_begin(request, code, operation->result.detail, &buf, &out);
        batch_print(&out, publish, 0);
        api_problem_end(request, code, &buf, &out);
    } else {
        router_count_published(publish, request->api->options.metrics);
        api_answer_begin(request, &buf, &out);
        out_map(&out);
        batch_print(&out, publish, published);
        out_field_text(&out, "durability", durability_text(publish->durability));
        out_end(&out);
        api_answer(request, published == publish->count ? 201 : 207, &buf);
    }
}

err_t api_batch_publish(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct router_publish *publish;
    struct reader reader;
    uint32_t count_max = request->api->options.limits.batch_count_max;
    TRY(api_read(request, IN_batch, values));
    TRY(api_alloc(request, 1, sizeof *publish, &publish));
    TRY(api_parameter_bool(request, "atomic", false, &publish->atomic));
    reader_init(&reader, values[IN(batch, messages)].span);
    if (!reader_array(&reader, &publish->count)) {
        return reader_finish(&reader);
    }
    if (publish->count < 1 || publish->count > count_max) {
        return ERR(INVALID, "messages: must be between 1 and %u", count_max);
    }
    TRY(api_alloc(request, publish->count, sizeof *publish->messages, &publish->messages));
    TRY(api_alloc(request, publish->count, sizeof *publish->results, &publish->results));
    for (uint32_t index = 0; index < publish->count; index++) {
        TRY(batch_message(request, &reader, index, &publish->messages[index]));
        publish->results[index].code = ERR_UNKNOWN;
    }
    publish->topic = request->topic;
    api_operation(request, &publish->operation, batch_on_done);
    router_start_publish(request->api->router, publish);
    return NULL;
}
