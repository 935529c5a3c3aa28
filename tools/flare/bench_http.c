/* The drivers that measure a broker over HTTP. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/wire/reader.h"
#include "broker/wire/writer.h"
#include "tools/flare/bench.h"
#include "tools/flare/bench_seen.h"
#include "tools/flare/publish.h"

enum { REQUEST_MAX = 64 * 1024 * 1024, EMPTY_WAIT_MS = 100 };

void bench_fill(struct buf *buf, uint32_t size)
{
    uint32_t state = 1;
    for (uint32_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        buf_append_byte(buf, (uint8_t)('a' + (state >> 24) % 26));
    }
}

static void request_head(struct buf *buf, const struct bench_settings *settings, const char *path,
                         const char *headers, size_t size)
{
    buf_printf(buf, "POST /v1/topics/%s%s HTTP/1.1\r\nHost: %s:%s\r\n%sContent-Length: %zu\r\n\r\n",
               settings->topic, path, settings->host, settings->port, headers, size);
}

static err_t check_status(struct span reply, uint32_t wanted)
{
    uint32_t status = load_http_status(reply);
    if (status != wanted) {
        struct span body = load_http_body(reply);
        return ERR(CONFLICT, "status %u instead of %u: %.*s", status, wanted,
                   (int)(body.size < 300 ? body.size : 300), (const char *)body.data);
    }
    return NULL;
}

/* ---- publish ---- */

struct bench_publish {
    struct buf request;
    uint32_t batch;
    uint64_t requests;
    uint64_t unsent;
    uint64_t unanswered;
};

static bool publish_next(void *user, uint32_t connection, uint32_t slot, struct load_request *out)
{
    (void)slot;
    struct bench_publish *publish = user;
    (void)connection;
    if (publish->unsent == 0) {
        return false;
    }
    publish->unsent--;
    *out = (struct load_request){.bytes = buf_span(&publish->request), .replies = 1};
    return true;
}

static err_t publish_reply(void *user, uint32_t connection, struct span reply)
{
    struct bench_publish *publish = user;
    (void)connection;
    TRY(check_status(reply, 201)); /* of a batch: every message of it was published */
    publish->unanswered--;
    return NULL;
}

static bool publish_done(void *user)
{
    const struct bench_publish *publish = user;
    return publish->unanswered == 0;
}

static uint64_t publish_count(void *user)
{
    const struct bench_publish *publish = user;
    return (publish->requests - publish->unanswered) * publish->batch;
}

static void build_publish(struct bench_publish *publish, const struct bench_settings *settings)
{
    struct buf body;
    struct buf text;
    buf_init(&publish->request, REQUEST_MAX);
    buf_init(&body, REQUEST_MAX);
    buf_init(&text, REQUEST_MAX);
    bench_fill(&text, settings->size);
    if (publish->batch == 1) {
        request_head(&publish->request, settings, "/messages", "", text.size);
        buf_append_span(&publish->request, buf_span(&text));
    } else {
        const struct publish_message message = {.body = buf_span(&text)};
        publish_pack_head(&body, publish->batch);
        for (uint32_t i = 0; i < publish->batch; i++) {
            publish_pack_message(&body, &message);
        }
        request_head(&publish->request, settings, "/batch",
                     "Content-Type: application/msgpack\r\nAccept: application/msgpack\r\n",
                     body.size);
        buf_append_span(&publish->request, buf_span(&body));
    }
    publish->request.failed |= body.failed || text.failed;
    buf_deinit(&body);
    buf_deinit(&text);
}

err_t bench_publish_run(const struct bench_settings *settings, uint64_t count, uint32_t connections,
                        uint32_t batch, struct load_result *out)
{
    static const struct load_driver driver = {publish_next, load_frame_http, publish_reply,
                                              publish_done, publish_count,   NULL};
    struct bench_publish publish = {.batch = batch};
    assert(count % batch == 0);
    publish.requests = count / batch;
    publish.unsent = publish.requests;
    publish.unanswered = publish.requests;
    build_publish(&publish, settings);
    if (publish.request.failed) {
        buf_deinit(&publish.request);
        return ERR(TOO_LARGE, "a request of %u bodies of %u bytes is too large", batch,
                   settings->size);
    }
    struct load_options options = {.host = settings->host,
                                   .port = settings->port,
                                   .connections = connections,
                                   .driver = &driver,
                                   .user = &publish,
                                   .timeout_ms = settings->timeout_ms,
                                   .progress = settings->progress};
    err_t err = count == 0 ? NULL : load_run(&options, out);
    buf_deinit(&publish.request);
    return err;
}

/* ---- consume ---- */

struct consumer_state {
    struct buf ack;      /* the request, built from what the pull brought */
    struct buf receipts; /* its list, before the head is known */
    uint32_t receipt_count;
};

struct bench_consume {
    const struct bench_settings *settings;
    struct buf pull;
    struct consumer_state *consumers;
    struct bench_seen seen;
    uint64_t acked;
};

/* One message of a pull's reply: its receipt goes into the list, its place into the bitmap. */
static err_t take_message(struct bench_consume *consume, struct consumer_state *consumer,
                          struct reader *reader)
{
    uint32_t fields = 0;
    uint64_t shard = UINT64_MAX;
    uint64_t sequence = UINT64_MAX;
    bool good = reader_map(reader, &fields);
    for (uint32_t i = 0; good && i < fields; i++) {
        struct span name;
        struct span receipt;
        good = reader_str(reader, &name);
        if (!good) {
            break;
        }
        if (span_is(name, "receipt")) {
            good = reader_str(reader, &receipt);
            if (good) {
                writer_str(&consumer->receipts, receipt);
                consumer->receipt_count++;
            }
        } else if (span_is(name, "shard")) {
            good = reader_u64(reader, &shard);
        } else if (span_is(name, "sequence")) {
            good = reader_u64(reader, &sequence);
        } else {
            good = reader_skip(reader);
        }
    }
    return good ? bench_seen_mark(&consume->seen, shard, sequence) : reader_finish(reader);
}

static err_t take_pull(struct bench_consume *consume, struct consumer_state *consumer,
                       struct span reply)
{
    struct reader reader;
    struct span name;
    uint32_t fields = 0;
    uint32_t count = 0;
    TRY(check_status(reply, 200));
    reader_init(&reader, load_http_body(reply));
    if (!reader_map(&reader, &fields) || fields != 1 || !reader_str(&reader, &name) ||
        !span_is(name, "messages") || !reader_array(&reader, &count)) {
        return ERR(FORMAT, "the reply to a pull is not a list of messages");
    }
    for (uint32_t i = 0; i < count; i++) {
        TRY(take_message(consume, consumer, &reader));
    }
    return reader_finish(&reader);
}

static const char consume_headers[] =
    "Content-Type: application/msgpack\r\nAccept: application/msgpack\r\n";

static void build_ack(const struct bench_consume *consume, struct consumer_state *consumer)
{
    struct buf head;
    buf_init(&head, 32);
    writer_map(&head, 1);
    writer_text(&head, "receipts");
    writer_array(&head, consumer->receipt_count);
    buf_reset(&consumer->ack);
    request_head(&consumer->ack, consume->settings, "/subscriptions/bench/ack", consume_headers,
                 head.size + consumer->receipts.size);
    buf_append_span(&consumer->ack, buf_span(&head));
    buf_append_span(&consumer->ack, buf_span(&consumer->receipts));
    buf_deinit(&head);
}

/* A connection with receipts acknowledges them; one without pulls. */
static bool consume_next(void *user, uint32_t connection, uint32_t slot, struct load_request *out)
{
    (void)slot;
    struct bench_consume *consume = user;
    struct consumer_state *consumer = &consume->consumers[connection];
    if (consumer->receipt_count > 0) {
        build_ack(consume, consumer);
        *out = (struct load_request){.bytes = buf_span(&consumer->ack), .replies = 1, .kind = 1};
        return true;
    }
    *out = (struct load_request){.bytes = buf_span(&consume->pull), .replies = 1, .kind = 0};
    return true;
}

static err_t consume_reply(void *user, uint32_t connection, struct span reply)
{
    struct bench_consume *consume = user;
    struct consumer_state *consumer = &consume->consumers[connection];
    if (consumer->receipt_count == 0) {
        return take_pull(consume, consumer, reply);
    }
    TRY(check_status(reply, 200));
    consume->acked += consumer->receipt_count;
    consumer->receipt_count = 0;
    buf_reset(&consumer->receipts);
    return NULL;
}

static bool consume_done(void *user)
{
    const struct bench_consume *consume = user;
    return consume->acked >= consume->settings->count;
}

static uint64_t consume_count(void *user)
{
    const struct bench_consume *consume = user;
    return consume->acked;
}

static void build_pull(struct bench_consume *consume)
{
    struct buf body;
    buf_init(&body, 256);
    buf_init(&consume->pull, 4096);
    writer_map(&body, 3);
    writer_text(&body, "max");
    writer_u64(&body, consume->settings->batch);
    writer_text(&body, "max_bytes");
    writer_u64(&body, 16 * 1024 * 1024);
    writer_text(&body, "wait");
    writer_u64(&body, EMPTY_WAIT_MS);
    request_head(&consume->pull, consume->settings, "/subscriptions/bench/pull", consume_headers,
                 body.size);
    buf_append_span(&consume->pull, buf_span(&body));
    buf_deinit(&body);
}

static void consume_deinit(struct bench_consume *consume)
{
    for (uint32_t i = 0; consume->consumers != NULL && i < consume->settings->connections; i++) {
        buf_deinit(&consume->consumers[i].ack);
        buf_deinit(&consume->consumers[i].receipts);
    }
    free(consume->consumers);
    bench_seen_deinit(&consume->seen);
    buf_deinit(&consume->pull);
}

err_t bench_consume_run(const struct bench_settings *settings, struct load_result *out)
{
    static const struct load_driver driver = {consume_next, load_frame_http, consume_reply,
                                              consume_done, consume_count,   NULL};
    struct bench_consume consume = {.settings = settings};
    struct load_options options = {.host = settings->host,
                                   .port = settings->port,
                                   .connections = settings->connections,
                                   .driver = &driver,
                                   .user = &consume,
                                   .timeout_ms = settings->timeout_ms,
                                   .progress = settings->progress};
    err_t err = NULL;
    build_pull(&consume);
    TRY_OUT(bench_seen_init(&consume.seen, settings->shards));
    consume.consumers = calloc(settings->connections, sizeof *consume.consumers);
    if (consume.consumers == NULL || consume.pull.failed) {
        err = ERR(MEMORY, "no memory for %u consumers", settings->connections);
        goto out;
    }
    for (uint32_t i = 0; i < settings->connections; i++) {
        buf_init(&consume.consumers[i].ack, REQUEST_MAX);
        buf_init(&consume.consumers[i].receipts, REQUEST_MAX);
    }
    TRY_OUT(load_run(&options, out));
    TRY_OUT(bench_seen_check(&consume.seen));
out:
    consume_deinit(&consume);
    return err;
}
