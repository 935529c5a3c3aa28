/* What ack, nack and extend ask for, and their answer. */
#include "broker/core/receipt.h"
#include "broker/session/requests.h"
#include "broker/volume/router_count.h"

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
        (void)session_request_failed(request);
    }
    session_request_end(request);
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
    settle->receipts = session_request_alloc(request, list->count, sizeof *settle->receipts);
    settle->results = session_request_alloc(request, list->count, sizeof *settle->results);
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
    TRY(session_find_sub(request->server, topic, name, &sub));
    request->sub_id = sub->id;
    request->settle.topic = topic;
    request->settle.sub = name;
    TRY(read_receipts(request, receipts));
    session_request_prepare(request, settle_on_done);
    router_start_settle(request->server->options.router, &request->settle);
    return NULL;
}

err_t session_ack_start(struct session_request *request)
{
    const struct wire_ack *wire = &request->frame.ack;
    request->settle = (struct router_settle){.kind = ROUTER_ACK};
    return settle_start(request, wire->topic, wire->subscription, &wire->receipts);
}

err_t session_nack_start(struct session_request *request)
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

err_t session_extend_start(struct session_request *request)
{
    const struct wire_extend *wire = &request->frame.extend;
    TRY(session_check_lease(wire->lease_ms));
    request->settle = (struct router_settle){.kind = ROUTER_EXTEND, .lease_ms = wire->lease_ms};
    return settle_start(request, wire->topic, wire->subscription, &wire->receipts);
}
