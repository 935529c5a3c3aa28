#include <flare/flare.h>

#include "client/await.h"
#include "client/engine.h"
#include "client/problem.h"

enum flare_code flare_publish_async(struct flare_client *client, const char *topic,
                                    const struct flare_message *message, flare_published done,
                                    void *user, struct flare_error *error)
{
    const struct outbox_put put = {.topic = topic,
                                   .messages = message,
                                   .count = 1,
                                   .wait_ms = UINT64_MAX,
                                   .done = done,
                                   .user = user};
    return outbox_add(client, &put, error);
}

/* ---- blocking ---------------------------------------------------------------------------------
 */

struct publish_gathered;

/* Where one result goes. */
struct publish_slot {
    struct publish_gathered *gathered;
    struct flare_result result;
};

/* In an await's data. */
struct publish_gathered {
    struct await *await;
    size_t left; /* messages without a result yet */
    struct flare_error error;
    struct publish_slot slots[];
};

static void on_published(void *user, const struct flare_result *result,
                         const struct flare_error *error)
{
    struct publish_slot *slot = user;
    struct publish_gathered *gathered = slot->gathered;
    slot->result = *result;
    if (error != NULL && gathered->error.code == FLARE_OK) {
        gathered->error = *error;
    }
    gathered->left--;
    if (gathered->left == 0) {
        (void)await_finish(gathered->await,
                           gathered->error.code == FLARE_OK ? NULL : &gathered->error);
    }
}

static enum flare_code publish_and_wait(struct flare_client *client, struct outbox_put *put,
                                        struct flare_result *results, struct flare_error *error)
{
    struct await *await = await_create(
        sizeof(struct publish_gathered) + put->count * sizeof(struct publish_slot), error);
    if (await == NULL) {
        return FLARE_ERR_MEMORY;
    }
    struct publish_gathered *gathered = (struct publish_gathered *)await->data;
    gathered->await = await;
    gathered->left = put->count;
    for (size_t index = 0; index < put->count; index++) {
        gathered->slots[index].gathered = gathered;
    }
    put->done = on_published;
    put->user = gathered->slots;
    put->user_step = sizeof(struct publish_slot);
    put->wait_ms = client->options.request_timeout_ms;
    enum flare_code code = outbox_add(client, put, error);
    if (code != FLARE_OK) {
        await_destroy(await);
        return code;
    }
    if (!await_wait(await, client->options.request_timeout_ms, error)) {
        return FLARE_ERR_TIMEOUT;
    }
    code = await->error.code;
    for (size_t index = 0; index < put->count && results != NULL; index++) {
        results[index] = gathered->slots[index].result;
    }
    await_destroy(await);
    return code;
}

enum flare_code flare_publish(struct flare_client *client, const char *topic,
                              const struct flare_message *message, struct flare_result *result,
                              struct flare_error *error)
{
    enum flare_code code = engine_may_block(client, error);
    if (code != FLARE_OK) {
        return code;
    }
    struct outbox_put put = {.topic = topic,
                             .messages = message,
                             .count = 1,
                             .is_urgent = client->options.linger_us == UINT32_MAX};
    return publish_and_wait(client, &put, result, error);
}

enum flare_code flare_publish_batch(struct flare_client *client, const char *topic,
                                    const struct flare_messages *messages,
                                    struct flare_result *results, struct flare_error *error)
{
    struct flare_limits limits;
    enum flare_code code = engine_may_block(client, error);
    if (code != FLARE_OK || messages->count == 0) {
        return code;
    }
    flare_get_limits(client, &limits);
    if (messages->count > limits.batch_messages_max) {
        return problem_set(error, FLARE_ERR_INVALID, "messages: are more than %u",
                           limits.batch_messages_max);
    }
    struct outbox_put put = {.topic = topic,
                             .messages = messages->items,
                             .count = messages->count,
                             .is_whole = true,
                             .is_atomic = messages->atomic};
    return publish_and_wait(client, &put, results, error);
}

enum flare_code flare_flush(struct flare_client *client, uint32_t timeout_ms,
                            struct flare_error *error)
{
    uint32_t wait_ms = timeout_ms == 0 ? client->options.request_timeout_ms : timeout_ms;
    enum flare_code code = engine_may_block(client, error);
    if (code != FLARE_OK) {
        return code;
    }
    if (!outbox_flush_wait(client, outbox_flush_begin(client), wait_ms)) {
        return problem_set(error, FLARE_ERR_TIMEOUT, "not all is answered after %u ms", wait_ms);
    }
    return FLARE_OK;
}
