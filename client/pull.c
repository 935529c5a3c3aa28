#include <flare/flare.h>

#include <stdlib.h>

#include "client/call.h"
#include "client/draft.h"
#include "client/parcel.h"
#include "client/problem.h"

enum { PULL_MAX = 10000, CONSUMER_MAX = 255, WAIT_MAX_MS = 86400000 };

struct pulling {
    struct call call;
    struct flare_pull options;
    uint64_t left_ms;  /* of the wait, beyond what is being waited for */
    uint64_t asked_ms; /* what the broker has been asked to wait ... */
    uint64_t asked_us; /* ... and when */
    flare_pulled done;
    void *user;
    struct flare_source source;
    char texts[]; /* of source and consumer */
};

/* What of the wait is asked for at once. */
static void take_wait(const struct flare_client *client, struct pulling *pulling)
{
    pulling->asked_ms = pulling->left_ms < WAIT_MAX_MS ? pulling->left_ms : WAIT_MAX_MS;
    pulling->left_ms -= pulling->asked_ms;
    pulling->asked_us = clock_mono_us(&client->clock);
}

/* The broker has waited as long as it could, by its clock, which a test may be moving: what it has
 * waited counts, and not what has passed here. One that lets nobody wait is not asked again. */
static void give_rest(const struct flare_client *client, struct pulling *pulling)
{
    uint64_t waited_ms = client->welcome.wait_max_ms;
    uint64_t rest_ms = pulling->asked_ms > waited_ms ? pulling->asked_ms - waited_ms : 0;
    pulling->left_ms = waited_ms == 0 ? 0 : pulling->left_ms + rest_ms;
}

/* The connection broke before an answer, so that only this side's clock tells how long was waited.
 */
static void give_back(const struct flare_client *client, struct pulling *pulling)
{
    uint64_t waited_ms = (clock_mono_us(&client->clock) - pulling->asked_us) / 1000;
    pulling->left_ms += pulling->asked_ms > waited_ms ? pulling->asked_ms - waited_ms : 0;
}

static enum flare_code encode(struct flare_client *client, struct pulling *pulling,
                              struct flare_error *error)
{
    take_wait(client, pulling);
    struct wire_pull message = {.topic = span_text(pulling->source.topic),
                                .subscription = span_text(pulling->source.subscription),
                                .max = pulling->options.max,
                                .max_bytes = pulling->options.max_bytes,
                                .wait_ms = pulling->asked_ms,
                                .lease_ms = pulling->options.lease_ms,
                                .consumer = draft_span(pulling->options.consumer)};
    return call_encode(client, &pulling->call, WIRE_pull, WIRE_pulled, &message, error);
}

static void end(struct pulling *pulling, struct flare_batch *batch, const struct flare_error *error)
{
    pulling->done(pulling->user, batch, error);
    call_free(&pulling->call);
}

/* For what is left of the wait. */
static void ask_again(struct flare_client *client, struct pulling *pulling)
{
    struct flare_error error;
    if (encode(client, pulling, &error) == FLARE_OK) {
        peer_submit(client, &pulling->call.ask);
    } else {
        end(pulling, NULL, &error);
    }
}

static err_t pull_on_end(struct flare_client *client, struct call *call,
                         const struct wire_frame *answer, enum ask_failure failure,
                         const struct flare_error *error)
{
    struct pulling *pulling = container_of(call, struct pulling, call);
    struct flare_batch *batch = NULL;
    if (answer == NULL) {
        bool is_leaving = client->peer.step == PEER_LEAVING && error->code == FLARE_ERR_UNAVAILABLE;
        if (failure == ASK_LOST || (failure == ASK_REFUSED && is_leaving)) {
            give_back(client, pulling);
            ask_again(client, pulling);
        } else {
            end(pulling, NULL, error);
        }
        return NULL;
    }
    give_rest(client, pulling);
    if (answer->pulled.deliveries.count == 0 && pulling->left_ms > 0) {
        ask_again(client, pulling);
        return NULL;
    }
    TRY(parcel_create(&answer->pulled.deliveries, &pulling->source, &batch));
    end(pulling, batch, NULL);
    return NULL;
}

static err_t check(const struct flare_source *source, const struct flare_pull *options)
{
    TRY(draft_check_source(source));
    TRY(draft_check_text("consumer", options->consumer, CONSUMER_MAX));
    return NULL;
}

/* Copies the texts behind the struct. */
static struct pulling *create(const struct flare_source *source, const struct flare_pull *options,
                              struct flare_error *error)
{
    const char *consumer = options->consumer == NULL ? "" : options->consumer;
    size_t consumer_size = strlen(consumer) + 1;
    struct pulling *pulling =
        call_create(sizeof *pulling + draft_source_size(source) + consumer_size, error);
    if (pulling == NULL) {
        return NULL;
    }
    char *end = draft_copy_source(pulling->texts, source, &pulling->source);
    pulling->options = *options;
    pulling->options.consumer = memcpy(end, consumer, consumer_size);
    return pulling;
}

enum flare_code flare_pull_async(struct flare_client *client, const struct flare_source *source,
                                 const struct flare_pull *options, flare_pulled done, void *user,
                                 struct flare_error *error)
{
    const struct flare_pull defaults = {0};
    options = options == NULL ? &defaults : options;
    err_t err = check(source, options);
    if (err != NULL) {
        return problem_of_err(error, err);
    }
    struct pulling *pulling = create(source, options, error);
    if (pulling == NULL) {
        return FLARE_ERR_MEMORY;
    }
    uint32_t max = options->max == 0 ? 1 : options->max;
    pulling->options.max = max < PULL_MAX ? max : PULL_MAX;
    pulling->left_ms = options->wait_ms;
    pulling->done = done;
    pulling->user = user;
    pulling->call.on_end = pull_on_end;
    enum flare_code code = encode(client, pulling, error);
    if (code == FLARE_OK) {
        code = call_submit(client, &pulling->call, error);
    }
    if (code != FLARE_OK) {
        call_free(&pulling->call);
    }
    return code;
}

static void on_pulled(void *user, struct flare_batch *batch, const struct flare_error *error)
{
    struct await *await = user;
    memcpy(await->data, &batch, sizeof batch);
    if (!await_finish(await, error)) {
        flare_batch_free(batch);
    }
}

enum flare_code flare_pull(struct flare_client *client, const struct flare_source *source,
                           const struct flare_pull *options, struct flare_batch **out,
                           struct flare_error *error)
{
    uint64_t wait_ms = options == NULL ? 0 : options->wait_ms;
    uint64_t request_ms = client->options.request_timeout_ms;
    uint64_t timeout_ms = wait_ms < UINT64_MAX - request_ms ? wait_ms + request_ms : UINT64_MAX;
    enum flare_code code = engine_may_block(client, error);
    if (code != FLARE_OK) {
        return code;
    }
    struct await *await = await_create(sizeof *out, error);
    if (await == NULL) {
        return FLARE_ERR_MEMORY;
    }
    code = flare_pull_async(client, source, options, on_pulled, await, error);
    if (code != FLARE_OK) {
        await_destroy(await);
        return code;
    }
    if (!await_wait(await, timeout_ms, error)) {
        return FLARE_ERR_TIMEOUT;
    }
    code = await->error.code;
    if (code == FLARE_OK) {
        memcpy(out, await->data, sizeof *out);
    }
    await_destroy(await);
    return code;
}
