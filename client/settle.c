#include "client/settle.h"

#include <stdlib.h>

#include "broker/base/text.h"
#include "broker/wire/writer.h"
#include "client/draft.h"
#include "client/parcel.h"
#include "client/problem.h"

enum { REASON_MAX = 1024 };

struct settling {
    struct call call;
    flare_settled done;
    void *user;
    size_t count;
    enum flare_code codes[];
};

/* ---- frames -----------------------------------------------------------------------------------
 */

static err_t check_reason(const char *reason)
{
    if (reason == NULL) {
        return NULL;
    }
    size_t size = strnlen(reason, REASON_MAX + 1);
    if (size > REASON_MAX || text_classify(span_of(reason, size)) == TEXT_BINARY) {
        return ERR(INVALID, "reason: must be UTF-8 of at most %d bytes", REASON_MAX);
    }
    return NULL;
}

err_t settle_check(const struct flare_source *source, const struct flare_settle *settle)
{
    TRY(draft_check_source(source));
    if (settle->count > SETTLE_MAX) {
        return ERR(INVALID, "receipts: are more than %d", SETTLE_MAX);
    }
    if (settle->kind == FLARE_SETTLE_NACK) {
        if (settle->nack.reject && settle->nack.has_delay) {
            return ERR(INVALID, "delay_ms: is not for rejected messages");
        }
        TRY(check_reason(settle->nack.reason));
    }
    for (size_t index = 0; index < settle->count; index++) {
        uint8_t size = settle->receipts[index].size;
        if (size == 0 || size > sizeof settle->receipts[index].bytes) {
            return ERR(INVALID, "receipts[%zu]: is none", index);
        }
    }
    return NULL;
}

static bool put_receipts(struct buf *out, const struct flare_settle *settle)
{
    for (size_t index = 0; index < settle->count; index++) {
        writer_array(out, 1);
        writer_bin(out, span_of(settle->receipts[index].bytes, settle->receipts[index].size));
    }
    return !out->failed;
}

static enum flare_code encode(struct flare_client *client, struct call *call,
                              const struct flare_source *source, const struct flare_settle *settle,
                              const struct wire_list *receipts, struct flare_error *error)
{
    struct span topic = span_text(source->topic);
    struct span subscription = span_text(source->subscription);
    struct wire_ack ack = {.topic = topic, .subscription = subscription, .receipts = *receipts};
    struct wire_nack nack = {.topic = topic,
                             .subscription = subscription,
                             .delay_ms = settle->nack.has_delay ? settle->nack.delay_ms : WIRE_NIL,
                             .reject = settle->nack.reject,
                             .reason = draft_span(settle->nack.reason),
                             .receipts = *receipts};
    struct wire_extend extend = {.topic = topic,
                                 .subscription = subscription,
                                 .lease_ms = settle->lease_ms,
                                 .receipts = *receipts};
    switch (settle->kind) {
    case FLARE_SETTLE_ACK:
        return call_encode(client, call, WIRE_ack, WIRE_settled, &ack, error);
    case FLARE_SETTLE_NACK:
        return call_encode(client, call, WIRE_nack, WIRE_settled, &nack, error);
    case FLARE_SETTLE_EXTEND:
        return call_encode(client, call, WIRE_extend, WIRE_settled, &extend, error);
    }
    return problem_set(error, FLARE_ERR_INVALID, "kind: is none");
}

enum flare_code settle_encode(struct flare_client *client, struct call *call,
                              const struct flare_source *source, const struct flare_settle *settle,
                              struct flare_error *error)
{
    struct buf receipts;
    enum flare_code code = FLARE_ERR_MEMORY;
    buf_init(&receipts, (size_t)SETTLE_MAX * 72);
    if (put_receipts(&receipts, settle)) {
        struct wire_list list = {.count = (uint32_t)settle->count, .items = buf_span(&receipts)};
        code = encode(client, call, source, settle, &list, error);
    } else {
        (void)problem_set(error, code, "no memory for receipts");
    }
    buf_deinit(&receipts);
    return code;
}

err_t settle_take_codes(const struct wire_settled *settled, size_t count, enum flare_code *codes)
{
    struct wire_items items;
    struct wire_code code;
    size_t index = 0;
    if (settled->codes.count == 0) {
        for (; index < count; index++) {
            codes[index] = FLARE_OK;
        }
        return NULL;
    }
    if (settled->codes.count != count) {
        return ERR(INVALID, "the broker answered %u receipts of %zu", settled->codes.count, count);
    }
    wire_items_begin(&items, "codes", WIRE_RECORD_code, &settled->codes);
    while (wire_items_next(&items, &code)) {
        codes[index] = (enum flare_code)code.code;
        index++;
    }
    return wire_items_finish(&items);
}

/* ---- asynchronous -----------------------------------------------------------------------------
 */

static err_t settle_on_end(struct flare_client *client, struct call *call,
                           const struct wire_frame *answer, enum ask_failure failure,
                           const struct flare_error *error)
{
    struct settling *settling = container_of(call, struct settling, call);
    (void)client;
    (void)failure;
    if (answer != NULL) {
        TRY(settle_take_codes(&answer->settled, settling->count, settling->codes));
    }
    if (settling->done != NULL) {
        settling->done(settling->user, answer == NULL ? NULL : settling->codes, settling->count,
                       error);
    }
    call_free(call);
    return NULL;
}

enum flare_code flare_settle_async(struct flare_client *client, const struct flare_source *source,
                                   const struct flare_settle *settle, flare_settled done,
                                   void *user, struct flare_error *error)
{
    err_t err = settle_check(source, settle);
    if (err != NULL) {
        return problem_of_err(error, err);
    }
    struct settling *settling =
        call_create(sizeof *settling + settle->count * sizeof settling->codes[0], error);
    if (settling == NULL) {
        return FLARE_ERR_MEMORY;
    }
    settling->count = settle->count;
    settling->done = done;
    settling->user = user;
    settling->call.on_end = settle_on_end;
    enum flare_code code = settle_encode(client, &settling->call, source, settle, error);
    if (code == FLARE_OK) {
        code = call_submit(client, &settling->call, error);
    }
    if (code != FLARE_OK) {
        call_free(&settling->call);
    }
    return code;
}

/* ---- blocking ---------------------------------------------------------------------------------
 */

/* In an await's data. */
struct settle_codes {
    struct await *await;
    enum flare_code codes[];
};

static void on_settled(void *user, const enum flare_code *codes, size_t count,
                       const struct flare_error *error)
{
    struct settle_codes *kept = user;
    if (codes != NULL && count > 0) {
        memcpy(kept->codes, codes, count * sizeof codes[0]);
    }
    (void)await_finish(kept->await, error);
}

static enum flare_code first_failure(const enum flare_code *codes, size_t count,
                                     struct flare_error *error)
{
    for (size_t index = 0; index < count; index++) {
        if (codes[index] != FLARE_OK) {
            return problem_of_code(error, (uint32_t)codes[index]);
        }
    }
    return FLARE_OK;
}

enum flare_code flare_settle(struct flare_client *client, const struct flare_source *source,
                             const struct flare_settle *settle, enum flare_code *codes,
                             struct flare_error *error)
{
    enum flare_code code = engine_may_block(client, error);
    if (code != FLARE_OK || settle->count == 0) {
        return code;
    }
    struct await *await =
        await_create(sizeof(struct settle_codes) + settle->count * sizeof(enum flare_code), error);
    if (await == NULL) {
        return FLARE_ERR_MEMORY;
    }
    struct settle_codes *kept = (struct settle_codes *)await->data;
    kept->await = await;
    code = flare_settle_async(client, source, settle, on_settled, kept, error);
    if (code != FLARE_OK) {
        await_destroy(await);
        return code;
    }
    if (!await_wait(await, client->options.request_timeout_ms, error)) {
        return FLARE_ERR_TIMEOUT;
    }
    code = await->error.code;
    if (code == FLARE_OK) {
        code = first_failure(kept->codes, settle->count, error);
        if (codes != NULL) {
            memcpy(codes, kept->codes, settle->count * sizeof codes[0]);
        }
    }
    await_destroy(await);
    return code;
}

enum flare_code flare_ack(struct flare_client *client, const struct flare_source *source,
                          const struct flare_receipt *receipts, size_t count,
                          struct flare_error *error)
{
    const struct flare_settle settle = {
        .kind = FLARE_SETTLE_ACK, .receipts = receipts, .count = count};
    return flare_settle(client, source, &settle, NULL, error);
}

enum flare_code flare_nack(struct flare_client *client, const struct flare_source *source,
                           const struct flare_nack *options, const struct flare_receipt *receipts,
                           size_t count, struct flare_error *error)
{
    struct flare_settle settle = {.kind = FLARE_SETTLE_NACK, .receipts = receipts, .count = count};
    if (options != NULL) {
        settle.nack = *options;
    }
    return flare_settle(client, source, &settle, NULL, error);
}

enum flare_code flare_extend(struct flare_client *client, const struct flare_source *source,
                             uint64_t lease_ms, const struct flare_receipt *receipts, size_t count,
                             struct flare_error *error)
{
    const struct flare_settle settle = {
        .kind = FLARE_SETTLE_EXTEND, .lease_ms = lease_ms, .receipts = receipts, .count = count};
    return flare_settle(client, source, &settle, NULL, error);
}

enum flare_code flare_batch_ack(struct flare_client *client, const struct flare_batch *batch,
                                struct flare_error *error)
{
    if (batch->count == 0) {
        return FLARE_OK;
    }
    struct flare_receipt *receipts = malloc(batch->count * sizeof *receipts);
    if (receipts == NULL) {
        return problem_set(error, FLARE_ERR_MEMORY, "no memory for receipts");
    }
    for (uint32_t index = 0; index < batch->count; index++) {
        receipts[index] = batch->items[index].delivery.receipt;
    }
    enum flare_code code = flare_ack(client, &batch->source, receipts, batch->count, error);
    free(receipts);
    return code;
}
