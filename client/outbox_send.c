#include "client/outbox_internal.h"

#include <assert.h>

#include "broker/base/bytes.h"

/* Makes a frame of it: the head goes right before the records. */
static void batch_seal(struct flare_client *client, struct outbox_batch *batch)
{
    struct outbox *outbox = &client->outbox;
    uint8_t key[OUTBOX_KEY_SIZE];
    struct wire_publish publish = {.id = engine_next_id(client),
                                   .topic = span_text(batch->topic->name),
                                   .atomic = batch->is_atomic,
                                   .messages = {.count = batch->count}};
    if (!client->options.no_resend) {
        outbox->key_count++;
        bytes_put_be64(key, outbox->key_prefix);
        bytes_put_be64(key + 8, outbox->key_count);
        publish.batch_key = span_of(key, sizeof key);
    }
    buf_reset(&outbox->head);
    (void)wire_begin(&outbox->head, WIRE_publish, &publish);
    assert(!outbox->head.failed && outbox->head.size <= OUTBOX_HEAD_ROOM && !batch->records.failed);
    uint8_t *frame = batch->records.data + OUTBOX_HEAD_ROOM - outbox->head.size;
    size_t size = outbox->head.size + batch->records.size - OUTBOX_HEAD_ROOM;
    memcpy(frame, outbox->head.data, outbox->head.size);
    wire_frame_put_size(frame, (uint32_t)(size - WIRE_SIZE_BYTES));
    batch->ask = (struct ask){.type = WIRE_publish,
                              .answer = WIRE_published,
                              .fate = client->options.no_resend ? ASK_UNKNOWN : ASK_AGAIN,
                              .id = publish.id,
                              .frame = span_of(frame, size),
                              .on_answer = outbox_on_answer,
                              .on_failed = outbox_on_failed};
}

/* Order within a key: the broker may refuse one batch and take the next. */
static bool may_overtake(const struct outbox_topic *topic, const struct outbox_batch *batch)
{
    return topic->under_way == 0 || (!batch->is_keyed && topic->keyed_under_way == 0);
}

static uint64_t linger_end_us(const struct flare_client *client, const struct outbox_batch *batch)
{
    uint32_t linger_us = client->options.linger_us;
    return linger_us == UINT32_MAX ? UINT64_MAX : batch->begun_us + linger_us;
}

static bool filling_may_go(const struct flare_client *client, const struct outbox_topic *topic)
{
    bool is_alone = topic->under_way == 0 && client->options.linger_us != UINT32_MAX;
    return is_alone || topic->is_flushing ||
           client->now_us >= linger_end_us(client, topic->filling);
}

static void batch_send(struct flare_client *client, struct outbox_batch *batch)
{
    struct outbox_topic *topic = batch->topic;
    topic->under_way++;
    topic->keyed_under_way += batch->is_keyed;
    batch_seal(client, batch);
    peer_submit(client, &batch->ask);
}

/* What has been refused goes first. True: some of it waits since the broker is busy, and nothing
 * else of the topic is to be added to that. (Where order matters, what has been refused holds back
 * what comes after it anyway: it still is under way.) */
static bool send_refused(struct flare_client *client, struct outbox_topic *topic)
{
    struct list_link *next = NULL;
    bool is_busy = false;
    for (struct list_link *link = list_first(&topic->refused); link != NULL; link = next) {
        struct outbox_batch *batch = container_of(link, struct outbox_batch, link);
        next = list_next(&topic->refused, link);
        if (batch->retry_us <= client->now_us) {
            list_remove(link);
            peer_submit(client, &batch->ask);
        } else {
            is_busy = is_busy || batch->refusal == FLARE_ERR_BUSY;
        }
    }
    return is_busy;
}

static void topic_send(struct flare_client *client, struct outbox_topic *topic)
{
    if (send_refused(client, topic)) {
        return;
    }
    if (list_empty(&topic->ready) && topic->filling != NULL && filling_may_go(client, topic)) {
        outbox_close_filling(topic);
    }
    for (struct list_link *link = list_first(&topic->ready); link != NULL;
         link = list_first(&topic->ready)) {
        struct outbox_batch *batch = container_of(link, struct outbox_batch, link);
        if (!may_overtake(topic, batch)) {
            return;
        }
        list_remove(link);
        batch_send(client, batch);
        if (list_empty(&topic->ready) && topic->filling != NULL && filling_may_go(client, topic)) {
            outbox_close_filling(topic);
        }
    }
}

/* What it waits for beside an answer. */
static uint64_t topic_due_us(const struct flare_client *client, const struct outbox_topic *topic)
{
    uint64_t due_us = UINT64_MAX;
    bool is_busy = false;
    for (struct list_link *link = list_first(&topic->refused); link != NULL;
         link = list_next(&topic->refused, link)) {
        const struct outbox_batch *batch = container_of(link, struct outbox_batch, link);
        due_us = batch->retry_us < due_us ? batch->retry_us : due_us;
        is_busy = is_busy || batch->refusal == FLARE_ERR_BUSY;
    }
    if (list_empty(&topic->ready) && topic->filling != NULL) {
        uint64_t linger_us = linger_end_us(client, topic->filling);
        due_us = !is_busy && linger_us < due_us ? linger_us : due_us;
    }
    return due_us;
}

void outbox_send(struct flare_client *client)
{
    struct outbox *outbox = &client->outbox;
    struct list_link *next = NULL;
    outbox->due_us = UINT64_MAX;
    if (!peer_is_ready(&client->peer)) {
        return;
    }
    (void)pthread_mutex_lock(&client->lock);
    for (struct list_link *link = list_first(&outbox->waiting); link != NULL; link = next) {
        struct outbox_topic *topic = container_of(link, struct outbox_topic, link);
        next = list_next(&outbox->waiting, link);
        topic_send(client, topic);
        if (list_empty(&topic->refused) && list_empty(&topic->ready) && topic->filling == NULL) {
            list_remove(link);
            continue;
        }
        uint64_t due_us = topic_due_us(client, topic);
        outbox->due_us = due_us < outbox->due_us ? due_us : outbox->due_us;
    }
    (void)pthread_mutex_unlock(&client->lock);
}
