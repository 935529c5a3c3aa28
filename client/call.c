#include "client/call.h"

#include <stdlib.h>

#include "client/problem.h"

static err_t call_on_answer(struct flare_client *client, struct ask *ask,
                            const struct wire_frame *answer)
{
    struct call *call = container_of(ask, struct call, ask);
    return call->on_end(client, call, answer, ASK_REFUSED, NULL);
}

static void call_on_failed(struct flare_client *client, struct ask *ask, enum ask_failure failure,
                           const struct flare_error *error)
{
    struct call *call = container_of(ask, struct call, ask);
    err_free(call->on_end(client, call, NULL, failure, error));
}

void *call_create(size_t size, struct flare_error *error)
{
    struct call *call = calloc(1, size);
    if (call == NULL) {
        (void)problem_set(error, FLARE_ERR_MEMORY, "no memory for a request");
        return NULL;
    }
    buf_init(&call->frame, UINT32_MAX);
    return call;
}

void call_free(struct call *call)
{
    buf_deinit(&call->frame);
    free(call);
}

err_t call_forget(struct flare_client *client, struct call *call, const struct wire_frame *answer,
                  enum ask_failure failure, const struct flare_error *error)
{
    (void)client;
    (void)answer;
    (void)failure;
    (void)error;
    call_free(call);
    return NULL;
}

/* What may simply be asked again: it does nothing, or nothing more when it is done twice. */
static enum ask_fate fate_of(enum wire_type type)
{
    bool is_settle = type == WIRE_ack || type == WIRE_nack || type == WIRE_extend;
    return is_settle || type == WIRE_consume || type == WIRE_pull ? ASK_UNKNOWN : ASK_AGAIN;
}

enum flare_code call_encode_as(struct call *call, uint64_t id, enum wire_type type,
                               enum wire_type answer, void *message, struct flare_error *error)
{
    memcpy(message, &id, sizeof id);
    buf_reset(&call->frame);
    wire_encode(&call->frame, type, message);
    if (call->frame.failed) {
        return problem_set(error, FLARE_ERR_MEMORY, "no memory for a request");
    }
    call->ask = (struct ask){.type = type,
                             .answer = answer,
                             .fate = fate_of(type),
                             .id = id,
                             .frame = buf_span(&call->frame),
                             .on_answer = call_on_answer,
                             .on_failed = call_on_failed};
    return FLARE_OK;
}

enum flare_code call_encode(struct flare_client *client, struct call *call, enum wire_type type,
                            enum wire_type answer, void *message, struct flare_error *error)
{
    return call_encode_as(call, engine_next_id(client), type, answer, message, error);
}

enum flare_code call_submit(struct flare_client *client, struct call *call,
                            struct flare_error *error)
{
    return engine_submit(client, &call->ask, error);
}

/* ---- blocking ---------------------------------------------------------------------------------
 */

struct call_waited {
    struct call call;
    struct await *await;
    void (*take)(const struct wire_frame *answer, void *data);
};

static err_t waited_on_end(struct flare_client *client, struct call *call,
                           const struct wire_frame *answer, enum ask_failure failure,
                           const struct flare_error *error)
{
    struct call_waited *waited = container_of(call, struct call_waited, call);
    (void)client;
    (void)failure;
    if (answer != NULL && waited->take != NULL) {
        waited->take(answer, waited->await->data);
    }
    (void)await_finish(waited->await, error);
    call_free(call);
    return NULL;
}

static enum flare_code wait_for(struct flare_client *client, struct await *await,
                                const struct call_blocking *blocking, struct flare_error *error)
{
    if (!await_wait(await, client->options.request_timeout_ms, error)) {
        return FLARE_ERR_TIMEOUT;
    }
    enum flare_code code = await->error.code;
    if (code == FLARE_OK && blocking->data != NULL) {
        memcpy(blocking->data, await->data, blocking->data_size);
    }
    await_destroy(await);
    return code;
}

enum flare_code call_block(struct flare_client *client, const struct call_blocking *blocking,
                           struct flare_error *error)
{
    enum flare_code code = engine_may_block(client, error);
    if (code != FLARE_OK) {
        return code;
    }
    struct call_waited *waited = call_create(sizeof *waited, error);
    if (waited == NULL) {
        return FLARE_ERR_MEMORY;
    }
    waited->call.on_end = waited_on_end;
    waited->take = blocking->take;
    code = call_encode(client, &waited->call, blocking->type, blocking->answer, blocking->message,
                       error);
    if (code == FLARE_OK) {
        waited->await = await_create(blocking->data_size, error);
        code = waited->await == NULL ? FLARE_ERR_MEMORY : FLARE_OK;
    }
    if (code != FLARE_OK) {
        call_free(&waited->call);
        return code;
    }
    struct await *await = waited->await;
    code = call_submit(client, &waited->call, error);
    if (code != FLARE_OK) {
        await_destroy(await);
        call_free(&waited->call);
        return code;
    }
    return wait_for(client, await, blocking, error);
}
