/* Delivery: pull, and what a consumer does with what it got: ack, nack, extend. */
#include <assert.h>
#include <stdio.h>

#include "broker/base/log.h"
#include "broker/core/message_id.h"
#include "broker/core/receipt.h"
#include "broker/http/api_request.h"
#include "broker/http/text.h"
#include "broker/volume/router_count.h"

/* What surrounds a message in an answer, roughly: the buffer is reserved once instead of doubling.
 */
enum { DELIVERY_OVERHEAD = 448 };

/* ---- pull ----------------------------------------------------------------------------------- */

static void delivery_print(struct out *out, uint32_t sub_id, const struct reply *reply,
                           const struct delivery *delivery)
{
    char text[RECEIPT_TEXT_SIZE];
    const struct receipt receipt = {
        .sub_id = sub_id,
        .shard_id = delivery->shard_id,
        .sequence = delivery->sequence,
        .epoch = delivery->epoch,
        .grant = delivery->grant,
        .attempt = delivery->attempt,
    };
    out_map(out);
    receipt_format(&receipt, text);
    out_field_text(out, "receipt", text);
    message_id_format(delivery->shard_id, delivery->sequence, text);
    out_field_text(out, "id", text);
    out_field_u64(out, "shard", delivery->shard_number);
    out_field_u64(out, "sequence", delivery->sequence);
    out_field_u64(out, "epoch", delivery->epoch);
    out_field_key(out, delivery_key(reply, delivery));
    out_field_attributes(out, delivery_attributes(reply, delivery));
    out_field_u64(out, "attempt", delivery->attempt);
    out_field_time(out, "published_at", "published_ms", delivery->published_ms);
    out_field_time(out, "lease_until", "lease_until_ms", delivery->due_ms);
    out_field_body(out, delivery_body(reply, delivery));
    out_end(out);
}

static size_t pulled_size(const struct router_operation *operation)
{
    size_t size = 64;
    const struct reply *reply = NULL;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        size += reply->payload.size + (size_t)reply_delivery_count(reply) * DELIVERY_OVERHEAD;
    }
    return size;
}

struct pull_request {
    struct router_pull pull;
    struct api_request *request;
    uint32_t sub_id;
};

static void answer_pulled(struct pull_request *pull)
{
    struct api_request *request = pull->request;
    const struct router_operation *operation = &pull->pull.operation;
    struct buf buf;
    struct out out;
    api_answer_begin(request, &buf, &out);
    (void)buf_reserve(&buf, pulled_size(operation));
    out_map(&out);
    out_name(&out, "messages");
    out_array(&out);
    const struct reply *reply = NULL;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        uint32_t count = reply_delivery_count(reply);
        for (uint32_t index = 0; index < count; index++) {
            delivery_print(&out, pull->sub_id, reply, reply_delivery(reply, index));
        }
    }
    out_end(&out);
    out_end(&out);
    (void)router_count_delivered(operation, request->api->options.metrics);
    api_answer(request, 200, &buf);
}

static void pull_on_done(struct router_operation *operation)
{
    struct pull_request *pull = operation->user;
    pull->request->exchange->on_abandon = NULL;
    if (!api_failed(pull->request, operation)) {
        answer_pulled(pull);
    }
}

static void pull_on_abandon(struct http_exchange *exchange)
{
    struct pull_request *pull = exchange->user;
    exchange->on_abandon = NULL;
    router_cancel_pull(pull->request->api->router, &pull->pull);
}

/* The seconds of "wait=N" in a Prefer header (RFC 7240); false: it has none. */
static bool prefer_wait(struct span prefer, uint64_t *wait_s)
{
    while (prefer.size > 0) {
        const uint8_t *comma = memchr(prefer.data, ',', prefer.size);
        size_t size = comma == NULL ? prefer.size : (size_t)(comma - prefer.data);
        struct span one = http_text_trim(span_of(prefer.data, size));
        if (one.size > 5 && http_text_equal(span_of(one.data, 5), "wait=")) {
            return api_in_digits(span_of(one.data + 5, one.size - 5), wait_s);
        }
        size_t taken = comma == NULL ? size : size + 1;
        prefer = span_of(prefer.data + taken, prefer.size - taken);
    }
    return false;
}

static void read_wait(struct api_request *request, const struct in_value *wait, uint64_t *wait_ms)
{
    uint64_t wait_max_ms = request->api->options.limits.wait_max_ms;
    uint64_t wait_s = 0;
    struct span prefer;
    *wait_ms = wait->number < wait_max_ms ? wait->number : wait_max_ms;
    if (wait->given || !http_request_header(request->exchange, "Prefer", &prefer) ||
        !prefer_wait(prefer, &wait_s)) {
        return;
    }
    wait_s = wait_s < wait_max_ms / 1000 ? wait_s : wait_max_ms / 1000;
    *wait_ms = wait_s * 1000;
    char applied[32];
    int size = snprintf(applied, sizeof applied, "wait=%llu", (unsigned long long)wait_s);
    http_response_header(request->exchange, "Preference-Applied", span_of(applied, (size_t)size));
}

err_t api_sub_pull(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct catalog_sub *sub;
    struct pull_request *pull;
    const struct api_limits *limits = &request->api->options.limits;
    TRY(api_read(request, IN_pull, values));
    TRY(api_find_sub(request, &sub));
    TRY(api_alloc(request, 1, sizeof *pull, &pull));
    read_wait(request, &values[IN(pull, wait)], &pull->pull.wait_ms);
    uint64_t max = values[IN(pull, max)].number;
    uint64_t size_max = values[IN(pull, max_bytes)].number;
    pull->request = request;
    pull->sub_id = sub->id;
    pull->pull.topic = request->topic;
    pull->pull.sub = request->sub;
    pull->pull.max = (uint32_t)(max < limits->pull_count_max ? max : limits->pull_count_max);
    pull->pull.size_max =
        (uint32_t)(size_max < limits->pull_size_max ? size_max : limits->pull_size_max);
    pull->pull.lease_ms = values[IN(pull, lease)].number;
    if (router_waiting(request->api->router) >= limits->waiters_max) {
        pull->pull.wait_ms = 0;
    }
    LOG_DEBUG("pull", LOG_U64("request", request->exchange->id),
              LOG_SPAN("consumer", values[IN(pull, consumer)].span));
    api_operation(request, &pull->pull.operation, pull_on_done);
    pull->pull.operation.user = pull;
    request->exchange->user = pull;
    request->exchange->on_abandon = pull_on_abandon;
    router_start_pull(request->api->router, &pull->pull);
    return NULL;
}

/* ---- ack, nack, extend ---------------------------------------------------------------------- */

struct settle_request {
    struct router_settle settle;
    struct api_request *request;
    struct span receipts; /* as they came, to be named in a problem */
    uint64_t lease_ms;    /* of extend, for the answer */
};

static const char *const settle_names[] = {
    [ROUTER_ACK] = "acked", [ROUTER_NACK] = "nacked", [ROUTER_EXTEND] = "extended"};

static void answer_settled(struct settle_request *settle)
{
    struct buf buf;
    struct out out;
    api_answer_begin(settle->request, &buf, &out);
    out_map(&out);
    out_field_u64(&out, settle_names[settle->settle.kind], settle->settle.count);
    if (settle->settle.kind == ROUTER_EXTEND) {
        out_field_u64(&out, "lease_ms", settle->lease_ms);
    }
    out_end(&out);
    api_answer(settle->request, 200, &buf);
}

static void answer_unsettled(struct settle_request *settle, enum err_code code, uint32_t failed)
{
    const struct router_settle *operation = &settle->settle;
    char detail[96];
    (void)snprintf(detail, sizeof detail, "%u of %u receipts %s", failed, operation->count,
                   code == ERR_LEASE_LOST ? "no longer hold a lease" : "did not take effect");
    struct buf buf;
    struct out out;
    struct reader reader;
    uint32_t count = 0;
    reader_init(&reader, settle->receipts);
    bool sound = reader_array(&reader, &count);
    assert(sound); /* it was read before */
    api_problem_begin(settle->request, code, detail, &buf, &out);
    out_field_u64(&out, settle_names[operation->kind], operation->count - failed);
    out_name(&out, "results");
    out_array(&out);
    for (uint32_t index = 0; index < count; index++) {
        struct span receipt;
        sound = reader_str(&reader, &receipt);
        assert(sound);
        enum err_code one = operation->results[index];
        out_map(&out);
        out_field_span(&out, "receipt", receipt);
        out_field_text(&out, "code", one == ERR_NONE ? "ok" : err_slug(one));
        out_end(&out);
    }
    out_end(&out);
    api_problem_end(settle->request, code, &buf, &out);
}

static void settle_on_done(struct router_operation *operation)
{
    struct settle_request *settle = operation->user;
    enum err_code code = operation->result.code;
    if (code != ERR_NONE && code != ERR_LEASE_LOST) {
        api_problem(settle->request, code, operation->result.detail);
        return;
    }
    enum err_code first = ERR_NONE;
    uint32_t failed =
        router_count_settled(&settle->settle, settle->request->api->options.metrics, &first);
    if (failed > 0) {
        answer_unsettled(settle, first, failed);
    } else {
        answer_settled(settle);
    }
}

static err_t read_receipts(struct api_request *request, struct settle_request *settle)
{
    struct router_settle *operation = &settle->settle;
    struct reader reader;
    reader_init(&reader, settle->receipts);
    if (!reader_array(&reader, &operation->count)) {
        return reader_finish(&reader);
    }
    if (operation->count < 1 || operation->count > CORE_RECEIPTS_MAX) {
        return ERR(INVALID, "receipts: must be between 1 and %d", CORE_RECEIPTS_MAX);
    }
    TRY(api_alloc(request, operation->count, sizeof *operation->receipts, &operation->receipts));
    TRY(api_alloc(request, operation->count, sizeof *operation->results, &operation->results));
    for (uint32_t index = 0; index < operation->count; index++) {
        struct span text;
        if (!reader_str(&reader, &text) || !receipt_parse(text, &operation->receipts[index])) {
            return ERR(INVALID, "receipts[%u]: is not a receipt", index);
        }
        operation->results[index] = ERR_UNKNOWN; /* until the router says what became of it */
    }
    return NULL;
}

static err_t settle_start(struct settle_request *settle, struct api_request *request,
                          enum router_settle_kind kind, struct span receipts)
{
    struct catalog_sub *sub;
    TRY(api_find_sub(request, &sub));
    settle->request = request;
    settle->receipts = receipts;
    settle->settle.kind = kind;
    settle->settle.topic = request->topic;
    settle->settle.sub = request->sub;
    settle->lease_ms =
        settle->settle.lease_ms != 0 ? settle->settle.lease_ms : sub->settings.lease_ms;
    TRY(read_receipts(request, settle));
    api_operation(request, &settle->settle.operation, settle_on_done);
    settle->settle.operation.user = settle;
    router_start_settle(request->api->router, &settle->settle);
    return NULL;
}

err_t api_sub_ack(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct settle_request *settle;
    TRY(api_read(request, IN_ack, values));
    TRY(api_alloc(request, 1, sizeof *settle, &settle));
    return settle_start(settle, request, ROUTER_ACK, values[IN(ack, receipts)].span);
}

err_t api_sub_nack(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct settle_request *settle;
    TRY(api_read(request, IN_nack, values));
    TRY(api_alloc(request, 1, sizeof *settle, &settle));
    settle->settle.has_delay = values[IN(nack, delay)].given;
    settle->settle.delay_ms = values[IN(nack, delay)].number;
    settle->settle.reject = values[IN(nack, reject)].number != 0;
    settle->settle.note = values[IN(nack, reason)].span;
    if (settle->settle.reject && settle->settle.has_delay) {
        return ERR(INVALID, "delay: a rejected message is not delivered again");
    }
    return settle_start(settle, request, ROUTER_NACK, values[IN(nack, receipts)].span);
}

err_t api_sub_extend(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct settle_request *settle;
    TRY(api_read(request, IN_extend, values));
    TRY(api_alloc(request, 1, sizeof *settle, &settle));
    settle->settle.lease_ms = values[IN(extend, lease)].number;
    return settle_start(settle, request, ROUTER_EXTEND, values[IN(extend, receipts)].span);
}
