/* Flare over its wire protocol, driven as the others are: in the driver's loop, without a thread of
 * its own. What has been published since the last advance leaves as one batch under a key of its
 * own, which is what libflare does and keeps it on one shard, so that one volume flushes it; a
 * consumer has two pulls under way, and its acks leave together with the next. */
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "broker/base/random.h"
#include "broker/wire/message.h"
#include "tools/bench/stream.h"

#define SUBSCRIPTION "peers"

enum {
    WAIT_MS = 600000,
    LEASE_MS = 3600000,
    RECORDS_MAX = 1 << 28,
    NAME_SIZE = 64,
    REPLY_TIMEOUT_MS = 30000,
    DRAIN_PULL_MAX = 1000
};

/* Messages sent in one frame: their slots are a list through `slot_next`. */
struct flare_request {
    uint32_t slot_first;
    uint32_t count; /* 0: not in use */
};

struct flare {
    struct stream stream;
    struct link_options options;
    uint32_t batch_max; /* messages of one publish, by the broker's limits */
    struct buf records; /* messages or receipts of the next frame */
    uint32_t record_count;
    uint32_t slot_first; /* of those messages */
    uint32_t slot_last;
    uint32_t *slot_next;
    struct flare_request *requests; /* of a publisher; the id is the index and one */
    uint32_t request_next;
    uint64_t key_seed;
    uint64_t key_number;
    uint64_t last_id; /* of a consumer's requests */
};

/* A topic of its own for each run: what an earlier one has left is in another. */
static char topic[NAME_SIZE];

/* ---- frames ---- */

/* The payload of the frame at `at`, or nothing when it is not whole; moves `at` behind it. */
static bool next_frame(const struct stream *stream, size_t *at, struct span *payload)
{
    size_t left = stream->in.size - *at;
    if (left < WIRE_SIZE_BYTES) {
        return false;
    }
    uint32_t size = wire_frame_size(stream->in.data + *at);
    if (left - WIRE_SIZE_BYTES < size) {
        return false;
    }
    *payload = span_of(stream->in.data + *at + WIRE_SIZE_BYTES, size);
    *at += WIRE_SIZE_BYTES + size;
    return true;
}

static err_t decode(struct span payload, struct wire_frame *out)
{
    TRY(wire_decode(payload, out));
    if (out->type == WIRE_failure) {
        return ERR(UNAVAILABLE, "flare: %.*s: %.*s", (int)out->failure.slug.size,
                   (const char *)out->failure.slug.data, (int)out->failure.detail.size,
                   (const char *)out->failure.detail.data);
    }
    return NULL;
}

/* Sends a request and waits for its answer, which is valid until the next. */
static err_t ask(struct stream *stream, enum wire_type type, const void *message,
                 struct wire_frame *out)
{
    struct span payload;
    size_t at = 0;
    buf_reset(&stream->in);
    wire_encode(&stream->out, type, message);
    for (;;) {
        struct link_wait wait = {.fd = -1};
        TRY(stream_send(stream));
        TRY(stream_receive(stream, &wait.again));
        if (next_frame(stream, &at, &payload)) {
            return decode(payload, out);
        }
        stream_wait(stream, &wait);
        struct pollfd poll_one = {.fd = wait.fd, .events = wait.events};
        if (poll(&poll_one, 1, REPLY_TIMEOUT_MS) == 0) {
            return ERR(TIMEOUT, "flare does not answer");
        }
    }
}

static err_t connect_to(struct stream *stream, const struct peer_address *address,
                        struct wire_frame *welcome)
{
    const struct wire_hello hello = {
        .id = 1, .version = WIRE_VERSION, .client = span_text("flare-peers")};
    TRY(stream_open(stream, address));
    return ask(stream, WIRE_hello, &hello, welcome);
}

/* ---- links ---- */

static err_t flare_open(const struct link_options *options, void **out)
{
    struct wire_frame welcome;
    struct flare *link = calloc(1, sizeof *link);
    if (link == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    link->options = *options;
    link->stream.fd = -1;
    link->key_seed = random_seed();
    *out = link;
    buf_init(&link->records, RECORDS_MAX);
    link->slot_next = calloc(options->window + 1, sizeof *link->slot_next);
    link->requests = calloc(options->window + 1, sizeof *link->requests);
    if (link->slot_next == NULL || link->requests == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    TRY(connect_to(&link->stream, options->address, &welcome));
    buf_reset(&link->stream.in);
    link->batch_max = welcome.welcome.batch_messages_max;
    return NULL;
}

static void flare_close(void *user)
{
    struct flare *link = user;
    stream_close(&link->stream);
    buf_deinit(&link->records);
    free(link->slot_next);
    free(link->requests);
    free(link);
}

/* Sends the messages that were published since the last time. */
static void send_batch(struct flare *link)
{
    while (link->requests[link->request_next].count > 0) {
        link->request_next = (link->request_next + 1) % link->options.window;
    }
    const uint64_t key[] = {link->key_seed, ++link->key_number};
    const struct wire_publish publish = {
        .id = (uint64_t)link->request_next + 1,
        .topic = span_text(topic),
        .batch_key = span_of(key, sizeof key),
        .messages = {.count = link->record_count, .items = buf_span(&link->records)},
    };
    wire_encode(&link->stream.out, WIRE_publish, &publish);
    link->requests[link->request_next] =
        (struct flare_request){.slot_first = link->slot_first, .count = link->record_count};
    link->request_next = (link->request_next + 1) % link->options.window;
    link->record_count = 0;
    buf_reset(&link->records);
}

static err_t flare_publish(void *user, uint32_t slot, struct span body)
{
    struct flare *link = user;
    const struct wire_message message = {.body = body};
    wire_put_record(&link->records, WIRE_RECORD_message, &message);
    if (link->record_count++ == 0) {
        link->slot_first = slot;
    } else {
        link->slot_next[link->slot_last] = slot;
    }
    link->slot_last = slot;
    if (link->record_count == link->batch_max) {
        send_batch(link);
    }
    return NULL;
}

static err_t flare_pull(void *user)
{
    struct flare *link = user;
    const struct wire_pull pull = {
        .id = ++link->last_id,
        .topic = span_text(topic),
        .subscription = span_text(SUBSCRIPTION),
        .max = link->options.batch,
        .wait_ms = WAIT_MS,
    };
    wire_encode(&link->stream.out, WIRE_pull, &pull);
    return NULL;
}

static err_t flare_ack(void *user)
{
    struct flare *link = user;
    const struct wire_ack ack = {
        .id = ++link->last_id,
        .topic = span_text(topic),
        .subscription = span_text(SUBSCRIPTION),
        .receipts = {.count = link->record_count, .items = buf_span(&link->records)},
    };
    wire_encode(&link->stream.out, WIRE_ack, &ack);
    link->record_count = 0;
    buf_reset(&link->records);
    return NULL;
}

/* ---- answers ---- */

static err_t take_published(struct flare *link, const struct wire_published *published)
{
    struct wire_items items;
    struct wire_result result;
    if (published->id == 0 || published->id > link->options.window) {
        return ERR(FORMAT, "flare: an answer without a request");
    }
    struct flare_request request = link->requests[published->id - 1];
    link->requests[published->id - 1].count = 0;
    if (request.count != published->results.count) {
        return ERR(FORMAT, "flare: results of other messages");
    }
    uint32_t slot = request.slot_first;
    wire_items_begin(&items, "results", WIRE_RECORD_result, &published->results);
    while (wire_items_next(&items, &result)) {
        if (result.code != ERR_NONE) {
            return ERR(UNAVAILABLE, "flare: publish: problem %u", result.code);
        }
        uint32_t next = link->slot_next[slot];
        link->options.events->confirmed(link->options.user, slot);
        slot = next;
    }
    return wire_items_finish(&items);
}

static err_t take_pulled(struct flare *link, const struct wire_pulled *pulled)
{
    struct wire_items items;
    struct wire_delivery delivery;
    wire_items_begin(&items, "deliveries", WIRE_RECORD_delivery, &pulled->deliveries);
    while (wire_items_next(&items, &delivery)) {
        const struct wire_receipt receipt = {.receipt = delivery.receipt};
        wire_put_record(&link->records, WIRE_RECORD_receipt, &receipt);
        link->record_count++;
        link->options.events->received(link->options.user, delivery.body);
    }
    link->options.events->batch_ended(link->options.user);
    return wire_items_finish(&items);
}

static err_t take_frame(struct flare *link, struct span payload)
{
    struct wire_frame frame;
    TRY(decode(payload, &frame));
    if (frame.type == WIRE_published) {
        return take_published(link, &frame.published);
    }
    if (frame.type == WIRE_pulled) {
        return take_pulled(link, &frame.pulled);
    }
    if (frame.type == WIRE_settled) {
        link->options.events->acked(link->options.user, frame.settled.count);
        return NULL;
    }
    return ERR(FORMAT, "flare: message %d was not expected", (int)frame.type);
}

static err_t flare_advance(void *user, struct link_wait *wait)
{
    struct flare *link = user;
    struct span payload;
    size_t at = 0;
    if (!link->options.consumer && link->record_count > 0) {
        send_batch(link);
    }
    TRY(stream_send(&link->stream));
    TRY(stream_receive(&link->stream, &wait->again));
    while (next_frame(&link->stream, &at, &payload)) {
        TRY(take_frame(link, payload));
    }
    buf_consume(&link->stream.in, at);
    TRY(stream_send(&link->stream));
    stream_wait(&link->stream, wait);
    return NULL;
}

/* ---- before and after ---- */

static err_t flare_prepare(const struct peer_address *address)
{
    struct stream stream = {.fd = -1};
    struct wire_frame answer;
    struct timespec now;
    err_t err = NULL;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(topic, sizeof topic, "peers-%lld-%ld", (long long)now.tv_sec, now.tv_nsec);
    const struct wire_topic_put topic_put = {.id = 2,
                                             .topic = span_text(topic),
                                             .idempotency_window_ms = WIRE_NIL,
                                             .durability = address->relaxed ? 1 : 0};
    const struct wire_sub_put sub_put = {.id = 3,
                                         .topic = span_text(topic),
                                         .subscription = span_text(SUBSCRIPTION),
                                         .lease_ms = LEASE_MS,
                                         .max_attempts = WIRE_NIL};
    TRY_OUT(connect_to(&stream, address, &answer));
    TRY_OUT(ask(&stream, WIRE_topic_put, &topic_put, &answer));
    TRY_OUT(ask(&stream, WIRE_sub_put, &sub_put, &answer));
out:
    stream_close(&stream);
    return err;
}

/* What is left to be pulled, by pulling it: every ack has been answered by now, so that nothing
 * that was delivered is still leased. */
static err_t flare_held(const struct peer_address *address, uint64_t *out)
{
    struct stream stream = {.fd = -1};
    struct wire_frame answer;
    err_t err = NULL;
    uint64_t held = 0;
    struct wire_pull pull = {.id = 1,
                             .topic = span_text(topic),
                             .subscription = span_text(SUBSCRIPTION),
                             .max = DRAIN_PULL_MAX};
    TRY_OUT(connect_to(&stream, address, &answer));
    do {
        pull.id++;
        TRY_OUT(ask(&stream, WIRE_pull, &pull, &answer));
        held += answer.pulled.deliveries.count;
    } while (answer.pulled.deliveries.count > 0);
    *out = held;
out:
    stream_close(&stream);
    return err;
}

const struct adapter adapter_flare = {
    .name = "flare",
    .prepare = flare_prepare,
    .held = flare_held,
    .open = flare_open,
    .publish = flare_publish,
    .pull = flare_pull,
    .ack = flare_ack,
    .advance = flare_advance,
    .close = flare_close,
};
