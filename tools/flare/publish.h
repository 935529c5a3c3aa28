/* Publishing many messages. Over HTTP they are collected in batches of MessagePack, each sent when
 * it is full; what the broker says it could not take now is sent again, nothing else is. Over the
 * wire protocol libflare does that (publish_wire.h). */
#ifndef FLARE_PUBLISH_H
#define FLARE_PUBLISH_H

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "broker/base/span.h"
#include "tools/flare/client.h"

enum { PUBLISH_BATCH_DEFAULT = 500, PUBLISH_BATCH_MAX = 10000, PUBLISH_SIZE_MAX = 8 * 1024 * 1024 };

struct publish_attribute {
    struct span name;
    struct span value;
};

/* Empty spans and zeros are left out of the request. */
struct publish_message {
    struct span body;
    struct span key;
    struct span idempotency_key;
    uint64_t delay_ms;
    uint64_t ttl_ms;
    const struct publish_attribute *attributes;
    uint32_t attribute_count;
};

struct publish_wire;

struct publisher {
    struct client *client;     /* HTTP, unless: */
    struct publish_wire *wire; /* taken */
    const char *topic;
    uint32_t batch_max;
    /* Called, if set, with the result document of every message published. */
    void (*on_result)(void *user, const json_t *result);
    void *user;
    struct buf messages; /* packed, without the array's head */
    struct buf request;
    uint32_t count; /* in `messages` */
    uint64_t published;
};

void publisher_init(struct publisher *publisher, struct client *client, const char *topic,
                    uint32_t batch_max);
void publisher_deinit(struct publisher *publisher);

/* Adds a message, after sending the batch if it would not fit. Over the wire an error may be that
 * of an earlier message. */
err_t publisher_add(struct publisher *publisher, const struct publish_message *message) MUST_CHECK;
/* Sends what is left, and has every message answered. */
err_t publisher_flush(struct publisher *publisher) MUST_CHECK;

/* The packed form of one message, and the head of a batch of `count`; also used by the benchmark.
 */
void publish_pack_message(struct buf *buf, const struct publish_message *message);
void publish_pack_head(struct buf *buf, uint32_t count);

#endif
