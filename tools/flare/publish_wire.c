#include "tools/flare/publish_wire.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WINDOW = 16384, TEXTS_MAX = 1024 * 1024, ATTRIBUTES_MAX = 64 };

struct slot {
    struct publish_wire *wire;
    struct flare_result result;
    bool is_done;
};

/* The messages from `taken` to `added` are in the slots, each at its number modulo WINDOW. */
struct publish_wire {
    struct cli *cli;
    struct flare_client *client;
    const char *topic;
    struct buf texts;
    uint64_t added;
    uint64_t taken;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t answered;
    uint64_t answers;
    struct flare_error error; /* of the first message that failed; code 0: none */
    struct slot slots[WINDOW];
};

static void publish_on_answer(void *user, const struct flare_result *result,
                              const struct flare_error *error)
{
    struct slot *slot = user;
    struct publish_wire *wire = slot->wire;
    (void)pthread_mutex_lock(&wire->lock);
    slot->result = *result;
    slot->is_done = true;
    wire->answers++;
    if (error != NULL && wire->error.code == FLARE_OK) {
        wire->error = *error;
    }
    (void)pthread_cond_signal(&wire->answered);
    (void)pthread_mutex_unlock(&wire->lock);
}

err_t publish_wire_open(struct cli *cli, const char *address, const struct publisher *publisher,
                        struct publish_wire **out)
{
    pthread_condattr_t attributes;
    struct publish_wire *wire = calloc(1, sizeof *wire);
    if (wire == NULL) {
        return ERR(MEMORY, "no memory to publish");
    }
    wire->cli = cli;
    wire->topic = publisher->topic;
    buf_init(&wire->texts, TEXTS_MAX);
    (void)pthread_mutex_init(&wire->lock, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&wire->answered, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    for (size_t i = 0; i < WINDOW; i++) {
        wire->slots[i].wire = wire;
    }
    const struct link_options options = {.batch = publisher->batch_max};
    err_t err = link_open(cli, address, &options, &wire->client);
    if (err != NULL) {
        publish_wire_close(wire);
        return err_passed(err, __func__);
    }
    *out = wire;
    return NULL;
}

void publish_wire_close(struct publish_wire *wire)
{
    if (wire == NULL) {
        return;
    }
    flare_close(wire->client); /* afterwards no answer comes to a slot */
    (void)pthread_cond_destroy(&wire->answered);
    (void)pthread_mutex_destroy(&wire->lock);
    buf_deinit(&wire->texts);
    free(wire);
}

/* Waits for an answer to the oldest message; false when none at all has come in time. */
static bool wait_for_oldest(struct publish_wire *wire)
{
    const struct slot *slot = &wire->slots[wire->taken % WINDOW];
    bool in_time = true;
    (void)pthread_mutex_lock(&wire->lock);
    while (!slot->is_done && in_time) {
        struct timespec until;
        uint64_t answers = wire->answers;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)(wire->cli->timeout_ms / 1000) + 1;
        int rc = pthread_cond_timedwait(&wire->answered, &wire->lock, &until);
        in_time = rc == 0 || wire->answers > answers;
    }
    (void)pthread_mutex_unlock(&wire->lock);
    return in_time;
}

/* Takes the answers that have come, in order. */
static err_t take_answers(struct publish_wire *wire, struct publisher *publisher)
{
    for (;;) {
        struct slot *slot = &wire->slots[wire->taken % WINDOW];
        (void)pthread_mutex_lock(&wire->lock);
        bool ready = wire->taken < wire->added && slot->is_done;
        struct flare_error error = wire->error;
        (void)pthread_mutex_unlock(&wire->lock);
        if (!ready) {
            return NULL;
        }
        if (slot->result.code != FLARE_OK) {
            return link_error(wire->cli, slot->result.code, &error);
        }
        wire->taken++;
        publisher->published++;
        if (publisher->on_result != NULL) {
            json_t *result = link_result(&slot->result);
            publisher->on_result(publisher->user, result);
            json_decref(result);
        }
    }
}

/* Where a text will be in `texts`, terminated; libflare takes nothing else. */
static err_t put_text(struct publish_wire *wire, struct span text, size_t *place)
{
    if (text.size > 0 && memchr(text.data, '\0', text.size) != NULL) {
        return ERR(INVALID, "a key or attribute holds a zero byte");
    }
    *place = wire->texts.size;
    buf_append_span(&wire->texts, text);
    buf_append_byte(&wire->texts, '\0');
    return wire->texts.failed ? ERR(TOO_LARGE, "a key or attribute is too large") : NULL;
}

static const char *text_at(const struct publish_wire *wire, struct span text, size_t place)
{
    return text.size == 0 ? NULL : (const char *)wire->texts.data + place;
}

/* Hands one message to libflare, which copies it; its answer goes to `slot`. */
static err_t send_message(struct publish_wire *wire, const struct publish_message *message,
                          struct slot *slot)
{
    struct flare_attribute attributes[ATTRIBUTES_MAX];
    size_t places[2 * ATTRIBUTES_MAX];
    size_t key = 0;
    size_t idempotency_key = 0;
    struct flare_error error;
    uint32_t count = message->attribute_count;
    if (count > ATTRIBUTES_MAX) {
        return ERR(INVALID, "more than %d attributes", ATTRIBUTES_MAX);
    }
    buf_reset(&wire->texts);
    TRY(put_text(wire, message->key, &key));
    TRY(put_text(wire, message->idempotency_key, &idempotency_key));
    for (uint32_t i = 0; i < count; i++) {
        TRY(put_text(wire, message->attributes[i].name, &places[2 * i]));
        TRY(put_text(wire, message->attributes[i].value, &places[2 * i + 1]));
    }
    for (uint32_t i = 0; i < count; i++) { /* only now the texts no longer move */
        attributes[i].name = (const char *)wire->texts.data + places[2 * i];
        attributes[i].value = (const char *)wire->texts.data + places[2 * i + 1];
    }
    const struct flare_message sent = {.body = message->body.data,
                                       .body_size = message->body.size,
                                       .key = text_at(wire, message->key, key),
                                       .idempotency_key =
                                           text_at(wire, message->idempotency_key, idempotency_key),
                                       .attributes = attributes,
                                       .attribute_count = count,
                                       .delay_ms = message->delay_ms,
                                       .ttl_ms = message->ttl_ms};
    return link_error(
        wire->cli,
        flare_publish_async(wire->client, wire->topic, &sent, publish_on_answer, slot, &error),
        &error);
}

err_t publish_wire_finish(struct publish_wire *wire, struct publisher *publisher)
{
    TRY(take_answers(wire, publisher));
    while (wire->taken < wire->added) {
        if (!wait_for_oldest(wire)) {
            return ERR(TIMEOUT, "the broker does not answer");
        }
        TRY(take_answers(wire, publisher));
    }
    return NULL;
}

err_t publish_wire_add(struct publish_wire *wire, struct publisher *publisher,
                       const struct publish_message *message)
{
    TRY(take_answers(wire, publisher));
    while (wire->added - wire->taken == WINDOW) {
        if (!wait_for_oldest(wire)) {
            return ERR(TIMEOUT, "the broker does not answer");
        }
        TRY(take_answers(wire, publisher));
    }
    struct slot *slot = &wire->slots[wire->added % WINDOW];
    slot->is_done = false;
    err_t err = send_message(wire, message, slot);
    if (err == NULL) {
        wire->added++;
        return NULL;
    }
    err_t earlier = publish_wire_finish(wire, publisher);
    if (earlier == NULL) {
        return err;
    }
    err_free(err);
    return err_passed(earlier, __func__);
}
