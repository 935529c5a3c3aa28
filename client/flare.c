#include <flare/flare.h>

#include <assert.h>
#include <stdlib.h>

#include "broker/base/version.h"
#include "client/call.h"
#include "client/draft.h"
#include "client/intake.h"
#include "client/problem.h"

const char *flare_version(void)
{
    return FLARE_VERSION;
}

/* ---- connecting -------------------------------------------------------------------------------
 */

/* Until the broker has answered, the first try has failed, or the time is up. */
static enum flare_code await_welcome(struct flare_client *client, struct flare_error *error)
{
    struct timespec until = await_deadline(client->options.connect_timeout_ms);
    enum flare_code code = FLARE_OK;
    int rc = 0;
    (void)pthread_mutex_lock(&client->lock);
    while (!client->has_greeted && client->lost.code == FLARE_OK && rc == 0) {
        rc = pthread_cond_timedwait(&client->changed, &client->lock, &until);
    }
    if (!client->has_greeted) {
        code = client->lost.code != FLARE_OK
                   ? problem_copy(error, &client->lost)
                   : problem_set(error, FLARE_ERR_TIMEOUT, "no answer from the broker within %u ms",
                                 client->options.connect_timeout_ms);
    }
    (void)pthread_mutex_unlock(&client->lock);
    return code;
}

enum flare_code flare_connect(const struct flare_options *options, struct flare_client **out,
                              struct flare_error *error)
{
    struct flare_client *client = NULL;
    err_t err = engine_create(options, &client);
    if (err != NULL) {
        return problem_of_err(error, err);
    }
    err = engine_start(client);
    enum flare_code code = err != NULL ? problem_of_err(error, err) : await_welcome(client, error);
    if (code != FLARE_OK) {
        engine_stop(client);
        engine_destroy(client);
        return code;
    }
    *out = client;
    return FLARE_OK;
}

void flare_close(struct flare_client *client)
{
    if (client != NULL) {
        assert(!engine_is_own_thread(client)); /* a callback cannot wait for its own end */
        engine_leave(client);
        intake_close_all(client);
        engine_stop(client);
        engine_destroy(client);
    }
}

enum flare_code flare_ping(struct flare_client *client, struct flare_error *error)
{
    struct wire_ping ping = {0};
    const struct call_blocking blocking = {
        .type = WIRE_ping, .answer = WIRE_pong, .message = &ping};
    return call_block(client, &blocking, error);
}

void flare_get_limits(struct flare_client *client, struct flare_limits *out)
{
    (void)pthread_mutex_lock(&client->lock);
    *out = (struct flare_limits){.message_size_max = client->welcome.message_size_max,
                                 .batch_messages_max = client->welcome.batch_messages_max,
                                 .pull_messages_max = client->welcome.pull_messages_max,
                                 .pull_size_max = client->welcome.pull_size_max,
                                 .wait_max_ms = client->welcome.wait_max_ms};
    (void)pthread_mutex_unlock(&client->lock);
}

/* ---- configuring ------------------------------------------------------------------------------
 */

static void take_configured(const struct wire_frame *answer, void *data)
{
    *(bool *)data = answer->configured.created;
}

static enum flare_code configure(struct flare_client *client, enum wire_type type, void *message,
                                 bool *created, struct flare_error *error)
{
    bool is_created = false;
    const struct call_blocking blocking = {.type = type,
                                           .answer = WIRE_configured,
                                           .message = message,
                                           .take = take_configured,
                                           .data = &is_created,
                                           .data_size = sizeof is_created};
    enum flare_code code = call_block(client, &blocking, error);
    if (code == FLARE_OK && created != NULL) {
        *created = is_created;
    }
    return code;
}

/* The interface says 0 for the default and FLARE_NONE for nothing, the wire the other way round. */
static uint64_t maybe(uint64_t value, uint64_t none)
{
    return value == 0 ? WIRE_NIL : value == none ? 0 : value;
}

enum flare_code flare_topic_put(struct flare_client *client, const char *topic,
                                const struct flare_topic *settings, bool *created,
                                struct flare_error *error)
{
    const struct flare_topic defaults = {0};
    settings = settings == NULL ? &defaults : settings;
    err_t err = draft_check_name("topic", topic);
    if (err != NULL) {
        return problem_of_err(error, err);
    }
    struct wire_topic_put message = {.topic = span_text(topic),
                                     .shards = settings->shards,
                                     .retention_ms = settings->retention_ms,
                                     .retention_bytes = settings->retention_bytes,
                                     .idempotency_window_ms =
                                         maybe(settings->idempotency_window_ms, FLARE_NONE),
                                     .durability = settings->relaxed ? 1 : 0};
    return configure(client, WIRE_topic_put, &message, created, error);
}

enum flare_code flare_subscription_put(struct flare_client *client,
                                       const struct flare_source *source,
                                       const struct flare_subscription *settings, bool *created,
                                       struct flare_error *error)
{
    const struct flare_subscription defaults = {0};
    settings = settings == NULL ? &defaults : settings;
    err_t err = draft_check_source(source);
    if (err != NULL) {
        return problem_of_err(error, err);
    }
    struct wire_sub_put message = {.topic = span_text(source->topic),
                                   .subscription = span_text(source->subscription),
                                   .lease_ms = settings->lease_ms,
                                   .max_attempts = maybe(settings->max_attempts, FLARE_NONE_U32),
                                   .retry_delay_ms = settings->retry_delay_ms,
                                   .max_in_flight = settings->max_in_flight,
                                   .start = (uint32_t)settings->start,
                                   .start_ms = settings->start_ms};
    return configure(client, WIRE_sub_put, &message, created, error);
}
