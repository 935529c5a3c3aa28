/* The drivers that measure a Redis stream over RESP, with the same load generator. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tools/flare/bench.h"

enum { REQUEST_MAX = 64 * 1024 * 1024 };

#define STREAM "flare-bench"

static void command_head(struct buf *buf, size_t words)
{
    buf_printf(buf, "*%zu\r\n", words);
}

static void command_word(struct buf *buf, struct span word)
{
    buf_printf(buf, "$%zu\r\n", word.size);
    buf_append_span(buf, word);
    buf_append(buf, "\r\n", 2);
}

/* A command of plain words, ended by NULL. */
static void command(struct buf *buf, const char *const *words)
{
    size_t count = 0;
    while (words[count] != NULL) {
        count++;
    }
    command_head(buf, count);
    for (size_t i = 0; i < count; i++) {
        command_word(buf, span_text(words[i]));
    }
}

static err_t check_reply(struct span reply)
{
    if (reply.size == 0 || reply.data[0] == '-') {
        return ERR(CONFLICT, "redis: %.*s", (int)(reply.size < 200 ? reply.size : 200),
                   (const char *)reply.data);
    }
    return NULL;
}

/* ---- a fixed request, sent so many times: preparing and publishing ---- */

struct redis_fixed {
    struct buf request;
    uint32_t replies;    /* to one request */
    uint64_t unsent;     /* requests */
    uint64_t sent;       /* replies that will come in all */
    uint64_t unanswered; /* replies */
    struct buf last;     /* the last reply */
};

static bool fixed_next(void *user, uint32_t connection, uint32_t slot, struct load_request *out)
{
    (void)slot;
    struct redis_fixed *fixed = user;
    (void)connection;
    if (fixed->unsent == 0) {
        return false;
    }
    fixed->unsent--;
    *out = (struct load_request){.bytes = buf_span(&fixed->request), .replies = fixed->replies};
    return true;
}

static err_t fixed_reply(void *user, uint32_t connection, struct span reply)
{
    struct redis_fixed *fixed = user;
    (void)connection;
    TRY(check_reply(reply));
    fixed->unanswered--;
    if (fixed->unanswered == 0) {
        buf_append_span(&fixed->last, reply);
    }
    return NULL;
}

static bool fixed_done(void *user)
{
    const struct redis_fixed *fixed = user;
    return fixed->unanswered == 0;
}

/* One command of a pipeline is one message. */
static uint64_t fixed_count(void *user)
{
    const struct redis_fixed *fixed = user;
    return fixed->sent - fixed->unanswered;
}

static err_t run_fixed(const struct bench_settings *settings, struct redis_fixed *fixed,
                       uint64_t requests, uint32_t connections, struct load_result *out)
{
    static const struct load_driver driver = {fixed_next, load_frame_resp, fixed_reply,
                                              fixed_done, fixed_count,     NULL};
    struct load_options options = {.host = settings->host,
                                   .port = settings->port,
                                   .connections = connections,
                                   .driver = &driver,
                                   .user = fixed,
                                   .timeout_ms = settings->timeout_ms,
                                   .progress = settings->progress};
    fixed->unsent = requests;
    fixed->sent = requests * fixed->replies;
    fixed->unanswered = fixed->sent;
    buf_reset(&fixed->last);
    if (fixed->request.failed) {
        return ERR(TOO_LARGE, "a request is larger than %d bytes", REQUEST_MAX);
    }
    return requests == 0 ? NULL : load_run(&options, out);
}

err_t bench_redis_prepare(const struct bench_settings *settings, bool *synced)
{
    struct redis_fixed fixed = {.replies = 3};
    struct load_result result;
    buf_init(&fixed.request, REQUEST_MAX);
    buf_init(&fixed.last, REQUEST_MAX);
    command(&fixed.request, (const char *const[]){"DEL", STREAM, NULL});
    command(&fixed.request,
            (const char *const[]){"XGROUP", "CREATE", STREAM, "bench", "0", "MKSTREAM", NULL});
    command(&fixed.request, (const char *const[]){"CONFIG", "GET", "append*", NULL});
    err_t err = run_fixed(settings, &fixed, 1, 1, &result);
    if (err == NULL) {
        buf_append_byte(&fixed.last, 0);
        const char *config = (const char *)fixed.last.data;
        *synced = strstr(config, "appendonly\r\n$3\r\nyes") != NULL &&
                  strstr(config, "appendfsync\r\n$6\r\nalways") != NULL;
    }
    buf_deinit(&fixed.request);
    buf_deinit(&fixed.last);
    return err;
}

err_t bench_redis_publish_run(const struct bench_settings *settings, uint64_t count,
                              struct load_result *out)
{
    struct redis_fixed fixed = {.replies = settings->batch};
    struct buf body;
    assert(count % settings->batch == 0);
    buf_init(&fixed.request, REQUEST_MAX);
    buf_init(&fixed.last, REQUEST_MAX);
    buf_init(&body, REQUEST_MAX);
    bench_fill(&body, settings->size);
    for (uint32_t i = 0; i < settings->batch; i++) {
        command_head(&fixed.request, 5);
        command_word(&fixed.request, span_text("XADD"));
        command_word(&fixed.request, span_text(STREAM));
        command_word(&fixed.request, span_text("*"));
        command_word(&fixed.request, span_text("body"));
        command_word(&fixed.request, buf_span(&body));
    }
    err_t err = run_fixed(settings, &fixed, count / settings->batch, settings->connections, out);
    buf_deinit(&fixed.request);
    buf_deinit(&fixed.last);
    buf_deinit(&body);
    return err;
}

/* ---- consume: XREADGROUP and XACK in turn ---- */

struct redis_consumer {
    struct buf read;
    struct buf ack;
    struct buf ids; /* as words of a command */
    uint32_t id_count;
};

struct redis_consume {
    const struct bench_settings *settings;
    struct redis_consumer *consumers;
    uint64_t acked;
};

static bool consume_next(void *user, uint32_t connection, uint32_t slot, struct load_request *out)
{
    (void)slot;
    struct redis_consume *consume = user;
    struct redis_consumer *consumer = &consume->consumers[connection];
    if (consumer->id_count == 0) {
        *out = (struct load_request){.bytes = buf_span(&consumer->read), .replies = 1, .kind = 0};
        return true;
    }
    buf_reset(&consumer->ack);
    command_head(&consumer->ack, 3 + (size_t)consumer->id_count);
    command_word(&consumer->ack, span_text("XACK"));
    command_word(&consumer->ack, span_text(STREAM));
    command_word(&consumer->ack, span_text("bench"));
    buf_append_span(&consumer->ack, buf_span(&consumer->ids));
    *out = (struct load_request){.bytes = buf_span(&consumer->ack), .replies = 1, .kind = 1};
    return true;
}

/* Passes over one line and gives the number in it. The reply is whole: its frame was found. */
static long long take_line(struct span *rest)
{
    const uint8_t *end = memchr(rest->data, '\n', rest->size);
    assert(end != NULL);
    long long number = strtoll((const char *)rest->data + 1, NULL, 10);
    size_t size = (size_t)(end - rest->data) + 1;
    *rest = span_of(rest->data + size, rest->size - size);
    return number;
}

static struct span take_bulk(struct span *rest)
{
    long long number = take_line(rest);
    assert(number >= 0);
    size_t size = (size_t)number;
    assert(size + 2 <= rest->size);
    struct span bulk = span_of(rest->data, size);
    *rest = span_of(rest->data + size + 2, rest->size - size - 2);
    return bulk;
}

/* One stream, its name, a list of entries: each an id and a list of a field and its value. */
static void take_entries(struct redis_consumer *consumer, struct span reply)
{
    if (take_line(&reply) != 1) {
        return; /* nothing new */
    }
    (void)take_line(&reply);
    (void)take_bulk(&reply);
    long long count = take_line(&reply);
    for (long long i = 0; i < count; i++) {
        (void)take_line(&reply);
        command_word(&consumer->ids, take_bulk(&reply));
        consumer->id_count++;
        long long words = take_line(&reply);
        for (long long word = 0; word < words; word++) {
            (void)take_bulk(&reply);
        }
    }
}

static err_t consume_reply(void *user, uint32_t connection, struct span reply)
{
    struct redis_consume *consume = user;
    struct redis_consumer *consumer = &consume->consumers[connection];
    TRY(check_reply(reply));
    if (consumer->id_count == 0) {
        take_entries(consumer, reply);
        return NULL;
    }
    if (take_line(&reply) != (long long)consumer->id_count) {
        return ERR(INTERNAL, "redis acknowledged fewer entries than it was asked to");
    }
    consume->acked += consumer->id_count;
    consumer->id_count = 0;
    buf_reset(&consumer->ids);
    return NULL;
}

static bool consume_done(void *user)
{
    const struct redis_consume *consume = user;
    return consume->acked >= consume->settings->count;
}

static uint64_t consume_count(void *user)
{
    const struct redis_consume *consume = user;
    return consume->acked;
}

static void build_consumer(const struct bench_settings *settings, struct redis_consumer *consumer,
                           uint32_t index)
{
    char name[16];
    char count[16];
    (void)snprintf(name, sizeof name, "c%u", index);
    (void)snprintf(count, sizeof count, "%u", settings->batch);
    buf_init(&consumer->read, 4096);
    buf_init(&consumer->ack, REQUEST_MAX);
    buf_init(&consumer->ids, REQUEST_MAX);
    command(&consumer->read, (const char *const[]){"XREADGROUP", "GROUP", "bench", name, "COUNT",
                                                   count, "STREAMS", STREAM, ">", NULL});
}

err_t bench_redis_consume_run(const struct bench_settings *settings, struct load_result *out)
{
    static const struct load_driver driver = {consume_next, load_frame_resp, consume_reply,
                                              consume_done, consume_count,   NULL};
    struct redis_consume consume = {.settings = settings};
    struct load_options options = {.host = settings->host,
                                   .port = settings->port,
                                   .connections = settings->connections,
                                   .driver = &driver,
                                   .user = &consume,
                                   .timeout_ms = settings->timeout_ms,
                                   .progress = settings->progress};
    consume.consumers = calloc(settings->connections, sizeof *consume.consumers);
    if (consume.consumers == NULL) {
        return ERR(MEMORY, "no memory for %u consumers", settings->connections);
    }
    for (uint32_t i = 0; i < settings->connections; i++) {
        build_consumer(settings, &consume.consumers[i], i);
    }
    err_t err = load_run(&options, out);
    for (uint32_t i = 0; i < settings->connections; i++) {
        buf_deinit(&consume.consumers[i].read);
        buf_deinit(&consume.consumers[i].ack);
        buf_deinit(&consume.consumers[i].ids);
    }
    free(consume.consumers);
    return err;
}
