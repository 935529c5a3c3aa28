#include <flare/flare.h>

#include <assert.h>
#include <stdlib.h>

#include "client/draft.h"
#include "client/intake.h"
#include "client/problem.h"

enum {
    STREAM_CONCURRENCY_MAX = 1024,
    STREAM_PREFETCH_MAX = 1 << 20,
    STREAM_BYTES_MAX = 1 << 30,
    STREAM_BYTES = 16 << 20,
    STREAM_CONSUMER_MAX = 255,
    STREAM_LEASE_MIN_MS = 100,
    STREAM_LEASE_MAX_MS = 12 * 60 * 60 * 1000,
};

/* ---- handlers ---------------------------------------------------------------------------------
 */

static void wake_client(struct flare_client *client)
{
    (void)pthread_mutex_lock(&client->lock);
    bool must_signal = engine_need_turn(client);
    (void)pthread_mutex_unlock(&client->lock);
    if (must_signal) {
        engine_signal(client);
    }
}

/* With the lock held: the next delivery; NULL: the thread is to end. */
static struct parcel_item *next_item(struct flare_stream *stream)
{
    while (list_empty(&stream->waiting) && !stream->is_stopping) {
        (void)pthread_cond_wait(&stream->work, &stream->lock);
    }
    struct list_link *link = stream->is_stopping ? NULL : list_pop(&stream->waiting);
    return link == NULL ? NULL : container_of(link, struct parcel_item, link);
}

static void *stream_run(void *context)
{
    struct flare_stream *stream = context;
    struct parcel_item *item;
    (void)pthread_mutex_lock(&stream->lock);
    while ((item = next_item(stream)) != NULL) {
        item->is_running = true;
        stream->counts.waiting--;
        stream->counts.running++;
        (void)pthread_mutex_unlock(&stream->lock);
        enum flare_verdict verdict = stream->options.handler(stream->options.user, &item->delivery);
        (void)pthread_mutex_lock(&stream->lock);
        bool is_known = verdict >= FLARE_ACK && verdict <= FLARE_KEEP;
        item->verdict = is_known ? verdict : FLARE_NACK;
        item->is_running = false;
        stream->counts.running--;
        bool is_first = list_empty(&stream->finished);
        list_append(&stream->finished, &item->link);
        (void)pthread_mutex_unlock(&stream->lock);
        /* Further ones are found by the same turn. */
        if (is_first) {
            wake_client(stream->client);
        }
        (void)pthread_mutex_lock(&stream->lock);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static err_t check_options(const struct flare_source *source, struct flare_stream_options *options)
{
    TRY(draft_check_source(source));
    TRY(draft_check_text("consumer", options->consumer, STREAM_CONSUMER_MAX));
    engine_put_default(&options->concurrency, 1);
    engine_put_default(&options->bytes, STREAM_BYTES);
    if (options->handler == NULL) {
        return ERR(INVALID, "handler: is missing");
    }
    if (options->concurrency > STREAM_CONCURRENCY_MAX) {
        return ERR(INVALID, "concurrency: must be %d at most", STREAM_CONCURRENCY_MAX);
    }
    if (options->prefetch > STREAM_PREFETCH_MAX) {
        return ERR(INVALID, "prefetch: must be %d at most", STREAM_PREFETCH_MAX);
    }
    if (options->bytes > STREAM_BYTES_MAX) {
        return ERR(INVALID, "bytes: must be %d at most", STREAM_BYTES_MAX);
    }
    if (options->lease_ms != 0 &&
        (options->lease_ms < STREAM_LEASE_MIN_MS || options->lease_ms > STREAM_LEASE_MAX_MS)) {
        return ERR(INVALID, "lease_ms: must be between %d and %d", STREAM_LEASE_MIN_MS,
                   STREAM_LEASE_MAX_MS);
    }
    return NULL;
}

void intake_destroy(struct flare_stream *stream)
{
    (void)pthread_cond_destroy(&stream->work);
    (void)pthread_cond_destroy(&stream->changed);
    (void)pthread_mutex_destroy(&stream->lock);
    free(stream->workers);
    free(stream);
}

struct flare_stream *intake_create(struct flare_client *client, const struct flare_source *source,
                                   const struct flare_stream_options *options)
{
    const char *consumer = options->consumer == NULL ? "" : options->consumer;
    size_t consumer_size = strlen(consumer) + 1;
    struct flare_stream *stream =
        calloc(1, sizeof *stream + draft_source_size(source) + consumer_size);
    if (stream == NULL) {
        return NULL;
    }
    char *end = draft_copy_source(stream->texts, source, &stream->source);
    stream->client = client;
    stream->is_detached = true;
    stream->options = *options;
    stream->options.consumer = memcpy(end, consumer, consumer_size);
    stream->lease_us = options->lease_ms * 1000;
    list_init(&stream->waiting);
    list_init(&stream->finished);
    list_init(&stream->held);
    list_init(&stream->refused);
    stream->workers = calloc(options->concurrency, sizeof *stream->workers);
    bool is_made = stream->workers != NULL && await_cond_init(&stream->work);
    if (is_made && !await_cond_init(&stream->changed)) {
        (void)pthread_cond_destroy(&stream->work);
        is_made = false;
    }
    if (!is_made) {
        free(stream->workers);
        free(stream);
        return NULL;
    }
    (void)pthread_mutex_init(&stream->lock, NULL); /* a default one cannot fail */
    return stream;
}

static void stop_workers(struct flare_stream *stream)
{
    (void)pthread_mutex_lock(&stream->lock);
    stream->is_stopping = true;
    (void)pthread_cond_broadcast(&stream->work);
    (void)pthread_mutex_unlock(&stream->lock);
    for (uint32_t index = 0; index < stream->worker_count; index++) {
        (void)pthread_join(stream->workers[index], NULL);
    }
}

static bool start_workers(struct flare_stream *stream)
{
    while (stream->worker_count < stream->options.concurrency &&
           engine_spawn(&stream->workers[stream->worker_count], stream_run, stream) == 0) {
        stream->worker_count++;
    }
    return stream->worker_count == stream->options.concurrency;
}

/* Hands it to the client's thread. False: the client is being closed. */
static bool join_client(struct flare_stream *stream)
{
    struct flare_client *client = stream->client;
    (void)pthread_mutex_lock(&client->lock);
    bool is_taken = !client->is_stopping;
    if (is_taken) {
        stream->is_detached = false;
        list_append(&client->joining, &stream->link);
    }
    (void)pthread_mutex_unlock(&client->lock);
    if (is_taken) {
        wake_client(client);
    }
    return is_taken;
}

static enum flare_code open_and_wait(struct flare_stream *stream, struct flare_error *error)
{
    struct await *await = await_create(0, error);
    if (await == NULL) {
        return FLARE_ERR_MEMORY;
    }
    stream->opening = await;
    if (!join_client(stream)) {
        stream->opening = NULL;
        await_destroy(await);
        return problem_set(error, FLARE_ERR_UNAVAILABLE, "the client is being closed");
    }
    if (!await_wait(await, stream->client->options.request_timeout_ms, error)) {
        return FLARE_ERR_TIMEOUT;
    }
    enum flare_code code = await->error.code;
    await_destroy(await);
    return code;
}

enum flare_code flare_stream_open(struct flare_client *client, const struct flare_source *source,
                                  const struct flare_stream_options *options,
                                  struct flare_stream **out, struct flare_error *error)
{
    struct flare_stream_options checked = *options;
    enum flare_code code = engine_may_block(client, error);
    if (code != FLARE_OK) {
        return code;
    }
    err_t err = check_options(source, &checked);
    if (err != NULL) {
        return problem_of_err(error, err);
    }
    struct flare_stream *stream = intake_create(client, source, &checked);
    if (stream == NULL || !start_workers(stream)) {
        if (stream != NULL) {
            stop_workers(stream);
            intake_destroy(stream);
        }
        return problem_set(error, FLARE_ERR_MEMORY, "no memory or threads for a stream");
    }
    code = open_and_wait(stream, error);
    if (code != FLARE_OK) {
        flare_stream_close(stream);
        return code;
    }
    *out = stream;
    return FLARE_OK;
}

static void forget_opening(struct flare_stream *stream)
{
    (void)pthread_mutex_lock(&stream->lock);
    stream->is_closing = true;
    struct await *opening = stream->opening;
    stream->opening = NULL;
    (void)pthread_mutex_unlock(&stream->lock);
    if (opening != NULL) {
        (void)await_finish(opening, NULL);
    }
}

void flare_stream_close(struct flare_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    assert(!engine_is_own_thread(stream->client)); /* a callback cannot wait for its own end */
    forget_opening(stream);
    wake_client(stream->client);
    (void)pthread_mutex_lock(&stream->lock);
    while (!stream->is_detached) {
        (void)pthread_cond_wait(&stream->changed, &stream->lock);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    stop_workers(stream);
    intake_destroy(stream);
}

void intake_close_all(struct flare_client *client)
{
    bool is_more = true;
    while (is_more) {
        (void)pthread_mutex_lock(&client->lock);
        struct list_link *link = list_first(&client->joining);
        link = link == NULL ? list_first(&client->intakes) : link;
        (void)pthread_mutex_unlock(&client->lock);
        is_more = link != NULL;
        if (is_more) {
            flare_stream_close(container_of(link, struct flare_stream, link));
        }
    }
}

void flare_stream_get_counts(struct flare_stream *stream, struct flare_stream_counts *out)
{
    (void)pthread_mutex_lock(&stream->lock);
    *out = stream->counts;
    (void)pthread_mutex_unlock(&stream->lock);
}
