/* The drivers that measure a broker over its wire protocol: frames prepared beforehand, a window of
 * them on each connection, so that the client costs as little as it can.
 *
 * A request's id tells its slot in the window. Ids begin where MessagePack needs four bytes for
 * them, so that one prepared frame serves every slot: only these bytes change. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/wire/message.h"
#include "tools/flare/bench.h"
#include "tools/flare/bench_seen.h"

enum {
    FRAME_MAX = 256 * 1024 * 1024,
    ID_FIRST = 0x10000,
    ID_STREAM = 0xf0000, /* of the credit stream, which takes no slot */
    ID_AT = 7,           /* in a frame: after its size, the array, the number and one byte */
    EMPTY_WAIT_MS = 100,
    STREAM_SLOTS = 16, /* acks under way on one connection */
    BYTES_CREDIT = 1 << 30,
    UNTIMED = LOAD_KINDS, /* kind of what is not measured */
};

#define SUBSCRIPTION span_text("bench")

/* ---- frames ---- */

static int64_t whole_frame(struct span bytes)
{
    if (bytes.size < WIRE_SIZE_BYTES) {
        return 0;
    }
    uint64_t size = (uint64_t)wire_frame_size(bytes.data) + WIRE_SIZE_BYTES;
    if (size > FRAME_MAX) {
        return LOAD_FRAME_BAD;
    }
    return bytes.size < size ? 0 : (int64_t)size;
}

/* The number of the message and its id; zeros when they cannot be read, which decoding reports. */
static uint64_t read_head(struct span frame, uint64_t *id)
{
    struct reader reader;
    uint32_t count = 0;
    uint64_t type = 0;
    *id = 0;
    reader_init(&reader, span_of(frame.data + WIRE_SIZE_BYTES, frame.size - WIRE_SIZE_BYTES));
    bool good =
        reader_array(&reader, &count) && reader_u64(&reader, &type) && reader_u64(&reader, id);
    return good ? type : 0;
}

static uint32_t wire_slot(struct span frame)
{
    uint64_t id = 0;
    (void)read_head(frame, &id);
    return id >= ID_FIRST && id < ID_STREAM ? (uint32_t)(id - ID_FIRST) : LOAD_SLOT_NONE;
}

static void set_id(struct buf *frame, uint32_t slot)
{
    assert(frame->size >= ID_AT + 4 && frame->data[ID_AT - 1] == 0xce);
    wire_frame_put_size(frame->data + ID_AT, ID_FIRST + slot); /* four bytes, likewise */
}

static void build_hello(struct buf *frame)
{
    const struct wire_hello hello = {
        .id = ID_FIRST, .version = WIRE_VERSION, .client = span_text("flare bench")};
    buf_init(frame, 1024);
    wire_encode(frame, WIRE_hello, &hello);
}

static err_t take_frame(struct span frame, struct wire_frame *out)
{
    TRY(wire_decode(span_of(frame.data + WIRE_SIZE_BYTES, frame.size - WIRE_SIZE_BYTES), out));
    if (out->type == WIRE_failure) {
        return err_make((enum err_code)out->failure.code, __FILE__, __LINE__, __func__,
                        "%.*s: %.*s", (int)out->failure.slug.size,
                        (const char *)out->failure.slug.data, (int)out->failure.detail.size,
                        (const char *)out->failure.detail.data);
    }
    if (out->type == WIRE_goodbye) {
        return ERR(UNAVAILABLE, "the broker is stopping");
    }
    return NULL;
}

static void say_hello(struct buf *hello, uint32_t slot, struct load_request *out)
{
    set_id(hello, slot);
    *out = (struct load_request){.bytes = buf_span(hello), .replies = 1, .kind = UNTIMED};
}

/* ---- publish ---- */

struct wire_publish_load {
    struct buf hello;
    struct buf frame;
    bool *greeted; /* of each connection */
    uint32_t batch;
    uint64_t requests;
    uint64_t unsent;
    uint64_t unanswered;
};

static bool publish_next(void *user, uint32_t connection, uint32_t slot, struct load_request *out)
{
    struct wire_publish_load *load = user;
    if (!load->greeted[connection]) {
        load->greeted[connection] = true;
        say_hello(&load->hello, slot, out);
        return true;
    }
    if (load->unsent == 0) {
        return false;
    }
    load->unsent--;
    set_id(&load->frame, slot);
    *out = (struct load_request){.bytes = buf_span(&load->frame), .replies = 1};
    return true;
}

/* Every message of it must have been published. */
static err_t check_published(const struct wire_publish_load *load,
                             const struct wire_published *published)
{
    struct wire_items items;
    struct wire_result result;
    enum err_code code = ERR_NONE;
    if (published->results.count != load->batch) {
        return ERR(FORMAT, "%u results came for %u messages", published->results.count,
                   load->batch);
    }
    wire_items_begin(&items, "results", WIRE_RECORD_result, &published->results);
    while (wire_items_next(&items, &result)) {
        code = result.code != 0 ? (enum err_code)result.code : code;
    }
    TRY(wire_items_finish(&items));
    return code == ERR_NONE ? NULL
                            : err_make(code, __FILE__, __LINE__, __func__,
                                       "messages were not published: %s", err_slug(code));
}

static err_t publish_reply(void *user, uint32_t connection, struct span reply)
{
    struct wire_publish_load *load = user;
    struct wire_frame frame;
    (void)connection;
    TRY(take_frame(reply, &frame));
    if (frame.type == WIRE_published) {
        TRY(check_published(load, &frame.published));
        load->unanswered--;
    }
    return NULL;
}

static bool publish_done(void *user)
{
    const struct wire_publish_load *load = user;
    return load->unanswered == 0;
}

static uint64_t publish_count(void *user)
{
    const struct wire_publish_load *load = user;
    return (load->requests - load->unanswered) * load->batch;
}

static void build_publish(struct wire_publish_load *load, const struct bench_settings *settings)
{
    struct buf text;
    const struct wire_publish publish = {
        .id = ID_FIRST, .topic = span_text(settings->topic), .messages = {.count = load->batch}};
    buf_init(&text, FRAME_MAX);
    bench_fill(&text, settings->size);
    const struct wire_message message = {.body = buf_span(&text)};
    buf_init(&load->frame, FRAME_MAX);
    size_t start = wire_begin(&load->frame, WIRE_publish, &publish);
    for (uint32_t i = 0; i < load->batch; i++) {
        wire_put_record(&load->frame, WIRE_RECORD_message, &message);
    }
    wire_end(&load->frame, start, WIRE_publish, &publish);
    load->frame.failed |= text.failed;
    buf_deinit(&text);
}

static struct load_options options_of(const struct bench_settings *settings,
                                      const struct load_driver *driver, void *user)
{
    return (struct load_options){.host = settings->host,
                                 .port = settings->port,
                                 .connections = settings->connections,
                                 .outstanding = settings->outstanding,
                                 .driver = driver,
                                 .user = user,
                                 .timeout_ms = settings->timeout_ms,
                                 .progress = settings->progress};
}

err_t bench_wire_publish_run(const struct bench_settings *settings, uint64_t count, uint32_t batch,
                             struct load_result *out)
{
    static const struct load_driver driver = {.next = publish_next,
                                              .frame = whole_frame,
                                              .reply = publish_reply,
                                              .done = publish_done,
                                              .count = publish_count,
                                              .slot = wire_slot};
    struct wire_publish_load load = {.batch = batch};
    struct load_options options = options_of(settings, &driver, &load);
    assert(count % batch == 0);
    if (count == 0) {
        return NULL;
    }
    load.requests = count / batch;
    load.unsent = load.requests;
    load.unanswered = load.requests;
    load.greeted = calloc(settings->connections, sizeof *load.greeted);
    build_hello(&load.hello);
    build_publish(&load, settings);
    err_t err =
        load.greeted == NULL ? ERR(MEMORY, "no memory for %u connections", settings->connections)
        : load.frame.failed  ? ERR(TOO_LARGE, "a request of %u bodies of %u bytes is too large",
                                   batch, settings->size)
                             : load_run(&options, out);
    free(load.greeted);
    buf_deinit(&load.hello);
    buf_deinit(&load.frame);
    return err;
}

/* ---- consume ---- */

struct wire_consumer {
    bool greeted;
    bool opened;
    struct buf ack;
    struct buf receipts; /* encoded, to be acknowledged */
    struct buf credit;
    uint32_t receipt_count;
    uint32_t acks; /* under way */
    uint32_t owed; /* messages whose credit is to be granted again */
    uint64_t owed_size;
};

struct wire_consume_load {
    const struct bench_settings *settings;
    struct buf hello;
    struct buf open; /* consume, or pull */
    struct wire_consumer *consumers;
    struct bench_seen seen;
    uint32_t window; /* credit of a connection in messages */
    uint64_t acked;
};

/* An ack of what has come, which begins a new collection. */
static void build_ack(struct wire_consume_load *load, struct wire_consumer *consumer, uint32_t slot,
                      struct load_request *out)
{
    const struct wire_ack ack = {
        .id = ID_FIRST,
        .topic = span_text(load->settings->topic),
        .subscription = SUBSCRIPTION,
        .receipts = {.count = consumer->receipt_count, .items = buf_span(&consumer->receipts)}};
    buf_reset(&consumer->ack);
    wire_encode(&consumer->ack, WIRE_ack, &ack);
    set_id(&consumer->ack, slot);
    buf_reset(&consumer->receipts);
    consumer->receipt_count = 0;
    consumer->acks++;
    *out = (struct load_request){.bytes = buf_span(&consumer->ack), .replies = 1, .kind = 1};
}

static void build_credit(struct wire_consumer *consumer, struct load_request *out)
{
    uint64_t size = consumer->owed_size < BYTES_CREDIT ? consumer->owed_size : BYTES_CREDIT;
    const struct wire_credit credit = {
        .id = ID_STREAM, .messages = consumer->owed, .bytes = (uint32_t)size};
    buf_reset(&consumer->credit);
    wire_encode(&consumer->credit, WIRE_credit, &credit);
    consumer->owed = 0;
    consumer->owed_size -= size;
    *out = (struct load_request){.bytes = buf_span(&consumer->credit), .replies = 0};
}

/* A stream: whole batches are acknowledged as they fill up, and what is left once nothing else is
 * under way; credit is granted again by halves. */
static bool stream_next(void *user, uint32_t connection, uint32_t slot, struct load_request *out)
{
    struct wire_consume_load *load = user;
    struct wire_consumer *consumer = &load->consumers[connection];
    if (!consumer->greeted) {
        consumer->greeted = true;
        say_hello(&load->hello, slot, out);
        return true;
    }
    if (!consumer->opened) {
        consumer->opened = true;
        *out = (struct load_request){.bytes = buf_span(&load->open), .replies = 0};
        return true;
    }
    if (consumer->receipt_count >= load->settings->batch ||
        (consumer->receipt_count > 0 && consumer->acks == 0)) {
        build_ack(load, consumer, slot, out);
        return true;
    }
    if (consumer->owed * 2 >= load->window) {
        build_credit(consumer, out);
        return true;
    }
    return false;
}

/* Pulls: one, and then its ack, one after the other. */
static bool pull_next(void *user, uint32_t connection, uint32_t slot, struct load_request *out)
{
    struct wire_consume_load *load = user;
    struct wire_consumer *consumer = &load->consumers[connection];
    if (!consumer->greeted) {
        consumer->greeted = true;
        say_hello(&load->hello, slot, out);
        return true;
    }
    if (consumer->receipt_count > 0) {
        build_ack(load, consumer, slot, out);
        return true;
    }
    set_id(&load->open, slot);
    *out = (struct load_request){.bytes = buf_span(&load->open), .replies = 1, .kind = 0};
    return true;
}

static err_t take_deliveries(struct wire_consume_load *load, struct wire_consumer *consumer,
                             const struct wire_list *deliveries)
{
    struct wire_items items;
    struct wire_delivery delivery;
    wire_items_begin(&items, "deliveries", WIRE_RECORD_delivery, deliveries);
    while (wire_items_next(&items, &delivery)) {
        const struct wire_receipt receipt = {.receipt = delivery.receipt};
        TRY(bench_seen_mark(&load->seen, delivery.shard, delivery.sequence));
        wire_put_record(&consumer->receipts, WIRE_RECORD_receipt, &receipt);
        consumer->receipt_count++;
        consumer->owed++;
        consumer->owed_size += delivery.body.size;
    }
    return wire_items_finish(&items);
}

static err_t take_settled(struct wire_consume_load *load, struct wire_consumer *consumer,
                          const struct wire_settled *settled)
{
    if (settled->codes.count > 0) {
        return ERR(LEASE_LOST, "receipts were refused");
    }
    load->acked += settled->count;
    consumer->acks--;
    return NULL;
}

static err_t consume_reply(void *user, uint32_t connection, struct span reply)
{
    struct wire_consume_load *load = user;
    struct wire_consumer *consumer = &load->consumers[connection];
    struct wire_frame frame;
    TRY(take_frame(reply, &frame));
    if (frame.type == WIRE_deliver) {
        return take_deliveries(load, consumer, &frame.deliver.deliveries);
    }
    if (frame.type == WIRE_pulled) {
        return take_deliveries(load, consumer, &frame.pulled.deliveries);
    }
    if (frame.type == WIRE_settled) {
        return take_settled(load, consumer, &frame.settled);
    }
    if (frame.type == WIRE_ended) {
        return ERR(UNAVAILABLE, "a stream has ended: %.*s", (int)frame.ended.slug.size,
                   (const char *)frame.ended.slug.data);
    }
    return NULL;
}

static bool consume_done(void *user)
{
    const struct wire_consume_load *load = user;
    return load->acked >= load->settings->count;
}

static uint64_t consume_count(void *user)
{
    const struct wire_consume_load *load = user;
    return load->acked;
}

static void build_open(struct wire_consume_load *load)
{
    const struct bench_settings *settings = load->settings;
    const struct wire_consume consume = {.id = ID_STREAM,
                                         .topic = span_text(settings->topic),
                                         .subscription = SUBSCRIPTION,
                                         .messages = load->window,
                                         .bytes = BYTES_CREDIT};
    const struct wire_pull pull = {.id = ID_FIRST,
                                   .topic = span_text(settings->topic),
                                   .subscription = SUBSCRIPTION,
                                   .max = settings->batch,
                                   .wait_ms = EMPTY_WAIT_MS};
    buf_init(&load->open, 1024);
    if (settings->pull) {
        wire_encode(&load->open, WIRE_pull, &pull);
    } else {
        wire_encode(&load->open, WIRE_consume, &consume);
    }
}

static void consume_deinit(struct wire_consume_load *load)
{
    for (uint32_t i = 0; load->consumers != NULL && i < load->settings->connections; i++) {
        buf_deinit(&load->consumers[i].ack);
        buf_deinit(&load->consumers[i].receipts);
        buf_deinit(&load->consumers[i].credit);
    }
    free(load->consumers);
    bench_seen_deinit(&load->seen);
    buf_deinit(&load->hello);
    buf_deinit(&load->open);
}

err_t bench_wire_consume_run(const struct bench_settings *settings, struct load_result *out)
{
    const struct load_driver driver = {.next = settings->pull ? pull_next : stream_next,
                                       .frame = whole_frame,
                                       .reply = consume_reply,
                                       .done = consume_done,
                                       .count = consume_count,
                                       .slot = wire_slot};
    struct wire_consume_load load = {.settings = settings, .window = settings->outstanding};
    struct load_options options = options_of(settings, &driver, &load);
    err_t err = NULL;
    options.outstanding = settings->pull ? 1 : STREAM_SLOTS;
    build_hello(&load.hello);
    build_open(&load);
    TRY_OUT(bench_seen_init(&load.seen, settings->shards));
    load.consumers = calloc(settings->connections, sizeof *load.consumers);
    if (load.consumers == NULL) {
        err = ERR(MEMORY, "no memory for %u consumers", settings->connections);
        goto out;
    }
    for (uint32_t i = 0; i < settings->connections; i++) {
        buf_init(&load.consumers[i].ack, FRAME_MAX);
        buf_init(&load.consumers[i].receipts, FRAME_MAX);
        buf_init(&load.consumers[i].credit, 64);
    }
    TRY_OUT(load_run(&options, out));
    TRY_OUT(bench_seen_check(&load.seen));
out:
    consume_deinit(&load);
    return err;
}
