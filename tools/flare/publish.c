#include "tools/flare/publish.h"

#include <assert.h>
#include <time.h>

#include "broker/wire/writer.h"
#include "tools/flare/publish_wire.h"

enum { TRIES_MAX = 20, RETRY_MS_MIN = 50, RETRY_MS_MAX = 5000 };

void publish_pack_message(struct buf *buf, const struct publish_message *message)
{
    writer_map(buf, 1u + (message->key.size > 0) + (message->idempotency_key.size > 0) +
                        (message->delay_ms > 0) + (message->ttl_ms > 0) +
                        (message->attribute_count > 0));
    if (message->key.size > 0) {
        writer_text(buf, "key");
        writer_str(buf, message->key);
    }
    if (message->idempotency_key.size > 0) {
        writer_text(buf, "idempotency_key");
        writer_str(buf, message->idempotency_key);
    }
    if (message->delay_ms > 0) {
        writer_text(buf, "delay");
        writer_u64(buf, message->delay_ms);
    }
    if (message->ttl_ms > 0) {
        writer_text(buf, "ttl");
        writer_u64(buf, message->ttl_ms);
    }
    if (message->attribute_count > 0) {
        writer_text(buf, "attributes");
        writer_map(buf, message->attribute_count);
        for (uint32_t i = 0; i < message->attribute_count; i++) {
            writer_str(buf, message->attributes[i].name);
            writer_str(buf, message->attributes[i].value);
        }
    }
    writer_text(buf, "body");
    writer_bin(buf, message->body);
}

void publish_pack_head(struct buf *buf, uint32_t count)
{
    writer_map(buf, 1);
    writer_text(buf, "messages");
    writer_array(buf, count);
}

void publisher_init(struct publisher *publisher, struct client *client, const char *topic,
                    uint32_t batch_max)
{
    assert(batch_max > 0 && batch_max <= PUBLISH_BATCH_MAX);
    *publisher = (struct publisher){.client = client, .topic = topic, .batch_max = batch_max};
    buf_init(&publisher->messages, (size_t)2 * PUBLISH_SIZE_MAX);
    buf_init(&publisher->request, (size_t)2 * PUBLISH_SIZE_MAX + 64);
}

void publisher_deinit(struct publisher *publisher)
{
    publish_wire_close(publisher->wire);
    buf_deinit(&publisher->messages);
    buf_deinit(&publisher->request);
}

static void wait_ms(uint64_t ms)
{
    struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&time, NULL);
}

static err_t send_once(struct publisher *publisher, json_t **out)
{
    struct request request;
    request_init(&request, "POST", "/v1/topics/{}/batch", publisher->topic);
    request.body = buf_span(&publisher->request);
    request.content_type = "application/msgpack";
    return client_call(publisher->client, &request, out);
}

/* Refused as a whole and for now: only then is it certain that sending it again doubles nothing. */
static bool refused_for_now(const struct publisher *publisher, err_t err)
{
    long status = client_status(publisher->client);
    return (status == 429 || status == 503 || status == 507) && err_retryable(err_code(err)) != 0;
}

static err_t send_until_answered(struct publisher *publisher, json_t **out)
{
    uint64_t pause_ms = RETRY_MS_MIN;
    for (unsigned tries = 1;; tries++) {
        err_t err = send_once(publisher, out);
        if (err == NULL || tries == TRIES_MAX || !refused_for_now(publisher, err)) {
            return err;
        }
        err_free(err);
        uint64_t asked_ms = client_retry_after_ms(publisher->client);
        uint64_t next_ms = asked_ms > pause_ms ? asked_ms : pause_ms;
        wait_ms(next_ms < RETRY_MS_MAX ? next_ms : RETRY_MS_MAX);
        pause_ms *= 2;
    }
}

/* Hands on what was published; an error when any message was not. */
static err_t take_results(struct publisher *publisher, const json_t *reply)
{
    const json_t *results = json_object_get(reply, "results");
    const char *first_code = NULL;
    uint64_t failed = 0;
    if (json_array_size(results) != publisher->count) {
        return ERR(FORMAT, "%u messages were sent and %zu results came back", publisher->count,
                   json_array_size(results));
    }
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *result = json_array_get(results, i);
        const char *code = json_string_value(json_object_get(result, "code"));
        if (code != NULL) {
            first_code = first_code == NULL ? code : first_code;
            failed++;
            continue;
        }
        publisher->published++;
        if (publisher->on_result != NULL) {
            publisher->on_result(publisher->user, result);
        }
    }
    if (failed > 0) {
        enum err_code code = client_code(first_code);
        return err_make(code == ERR_NONE ? ERR_FORMAT : code, __FILE__, __LINE__, __func__,
                        "%llu of %u messages of a batch were not published: %s",
                        (unsigned long long)failed, publisher->count, first_code);
    }
    return NULL;
}

err_t publisher_flush(struct publisher *publisher)
{
    json_t *reply = NULL;
    if (publisher->wire != NULL) {
        return publish_wire_finish(publisher->wire, publisher);
    }
    if (publisher->count == 0) {
        return NULL;
    }
    buf_reset(&publisher->request);
    publish_pack_head(&publisher->request, publisher->count);
    buf_append_span(&publisher->request, buf_span(&publisher->messages));
    if (publisher->messages.failed || publisher->request.failed) {
        return ERR(TOO_LARGE, "a message is larger than %d bytes", PUBLISH_SIZE_MAX);
    }
    TRY(send_until_answered(publisher, &reply));
    err_t err = take_results(publisher, reply);
    json_decref(reply);
    TRY(err);
    publisher->count = 0;
    buf_reset(&publisher->messages);
    return NULL;
}

err_t publisher_add(struct publisher *publisher, const struct publish_message *message)
{
    if (publisher->wire != NULL) {
        return publish_wire_add(publisher->wire, publisher, message);
    }
    if (publisher->count > 0 &&
        publisher->messages.size + message->body.size + message->key.size > PUBLISH_SIZE_MAX) {
        TRY(publisher_flush(publisher));
    }
    publish_pack_message(&publisher->messages, message);
    publisher->count++;
    if (publisher->count == publisher->batch_max) {
        TRY(publisher_flush(publisher));
    }
    return NULL;
}
