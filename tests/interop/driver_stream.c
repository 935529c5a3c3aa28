/* Streams of the driver: a handler announces its delivery and waits for the verdict that a command
 * brings. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/interop/driver.h"

/* The delivery of one handler, on the handler's stack. */
struct work {
    struct work *next;
    json_t *delivery;
    enum flare_verdict verdict; /* 0: not yet */
    bool taken;
};

struct stream {
    struct flare_stream *stream;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct work *first; /* handlers at work, in the order in which they began */
    size_t waiting;     /* of them not taken */
    bool is_closing;
    char end[64]; /* why it has ended by itself; empty: it has not */
};

static enum flare_verdict on_delivery(void *user, const struct flare_delivery *delivery)
{
    struct stream *stream = user;
    struct work work = {.delivery = result_delivery(delivery)};
    pthread_mutex_lock(&stream->lock);
    struct work **last = &stream->first;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = &work;
    stream->waiting++;
    pthread_cond_broadcast(&stream->changed);
    while (work.verdict == 0 && !stream->is_closing) {
        pthread_cond_wait(&stream->changed, &stream->lock);
    }
    struct work **place = &stream->first;
    while (*place != &work) {
        place = &(*place)->next;
    }
    *place = work.next;
    pthread_mutex_unlock(&stream->lock);
    json_decref(work.delivery);
    return work.verdict != 0 ? work.verdict : FLARE_NACK;
}

static void on_end(void *user, const struct flare_error *error)
{
    struct stream *stream = user;
    pthread_mutex_lock(&stream->lock);
    strncpy(stream->end, flare_code_name(error->code), sizeof stream->end - 1);
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
}

static void stream_free(struct stream *stream)
{
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}

struct stream *stream_open(struct flare_client *client, const json_t *command, json_t **result)
{
    struct flare_error error = {.code = FLARE_OK};
    struct stream *stream = calloc(1, sizeof *stream);
    assert(stream != NULL);
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->changed, NULL);
    struct flare_source source = source_decode(command);
    struct flare_stream_options options = {
        .handler = on_delivery,
        .user = stream,
        .concurrency = (uint32_t)field_number(command, "concurrency", 1),
        .prefetch = (uint32_t)field_number(command, "prefetch", 0),
        .bytes = (uint32_t)field_number(command, "bytes", 0),
        .lease_ms = field_number(command, "lease_ms", 0),
        .on_end = on_end};
    enum flare_code code = flare_stream_open(client, &source, &options, &stream->stream, &error);
    *result = result_make(code, &error);
    if (code != FLARE_OK) {
        stream_free(stream);
        return NULL;
    }
    return stream;
}

json_t *stream_take(struct stream *stream, size_t count)
{
    json_t *deliveries = json_array();
    pthread_mutex_lock(&stream->lock);
    while (stream->waiting < count && stream->end[0] == '\0') {
        pthread_cond_wait(&stream->changed, &stream->lock);
    }
    for (struct work *work = stream->first; work != NULL && json_array_size(deliveries) < count;
         work = work->next) {
        if (!work->taken) {
            work->taken = true;
            stream->waiting--;
            json_array_append(deliveries, work->delivery);
        }
    }
    pthread_mutex_unlock(&stream->lock);
    return json_pack("{s:s, s:o}", "code", "ok", "deliveries", deliveries);
}

static enum flare_verdict verdict_parse(const char *name)
{
    static const char *const names[] = {[FLARE_ACK] = "ack",
                                        [FLARE_NACK] = "nack",
                                        [FLARE_REJECT] = "reject",
                                        [FLARE_KEEP] = "keep"};
    for (size_t index = 1; index < sizeof names / sizeof names[0]; index++) {
        if (strcmp(names[index], name) == 0) {
            return (enum flare_verdict)index;
        }
    }
    assert(false && "a verdict is ack, nack, reject or keep");
    return FLARE_KEEP;
}

json_t *stream_verdict(struct stream *stream, const char *receipt, const char *verdict)
{
    pthread_mutex_lock(&stream->lock);
    struct work *work = stream->first;
    while (work != NULL && (work->verdict != 0 ||
                            strcmp(field_text(work->delivery, "receipt", ""), receipt) != 0)) {
        work = work->next;
    }
    assert(work != NULL);
    work->verdict = verdict_parse(verdict);
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    return result_make(FLARE_OK, NULL);
}

json_t *stream_end(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    while (stream->end[0] == '\0') {
        pthread_cond_wait(&stream->changed, &stream->lock);
    }
    pthread_mutex_unlock(&stream->lock);
    return json_pack("{s:s, s:s}", "code", "ok", "end", stream->end);
}

void stream_close(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    stream->is_closing = true;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    flare_stream_close(stream->stream);
    stream_free(stream);
}
