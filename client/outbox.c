#include "client/outbox_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "broker/base/random.h"
#include "client/await.h"
#include "client/draft.h"
#include "client/problem.h"

enum {
    ENTRIES_MIN = 4,
    SPARE_SIZE_MAX = 1 << 20, /* of a batch that is kept for its memory */
    FRAME_OVERHEAD = 1024,    /* of a publish beside its messages */
};

void outbox_init(struct outbox *outbox, const struct flare_options *options)
{
    *outbox = (struct outbox){.batch_messages = options->batch_messages,
                              .batch_size = options->batch_size};
    map_init(&outbox->topics);
    list_init(&outbox->waiting);
    list_init(&outbox->all);
    list_init(&outbox->spare);
    outbox->key_prefix = random_seed();
    outbox->key_count = random_seed();
    buf_init(&outbox->head, OUTBOX_HEAD_ROOM);
}

void outbox_limit(struct flare_client *client)
{
    struct outbox *outbox = &client->outbox;
    const struct wire_welcome *welcome = &client->welcome;
    size_t size_max =
        welcome->frame_size_max > FRAME_OVERHEAD ? welcome->frame_size_max - FRAME_OVERHEAD : 1;
    outbox->batch_messages = client->options.batch_messages < welcome->batch_messages_max
                                 ? client->options.batch_messages
                                 : welcome->batch_messages_max;
    outbox->batch_size =
        client->options.batch_size < size_max ? client->options.batch_size : size_max;
}

/* ---- batches ----------------------------------------------------------------------------------
 */

static void batch_free(struct outbox_batch *batch)
{
    buf_deinit(&batch->records);
    free(batch->entries);
    free(batch);
}

static struct outbox_batch *batch_take(struct outbox *outbox)
{
    struct list_link *link = list_pop(&outbox->spare);
    if (link != NULL) {
        outbox->spare_count--;
        return container_of(link, struct outbox_batch, link);
    }
    struct outbox_batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL) {
        return NULL;
    }
    buf_init(&batch->records, UINT32_MAX);
    if (!buf_reserve(&batch->records, OUTBOX_HEAD_ROOM)) {
        free(batch);
        return NULL;
    }
    return batch;
}

void outbox_give(struct outbox *outbox, struct outbox_batch *batch)
{
    if (outbox->spare_count >= OUTBOX_SPARE_MAX || batch->records.capacity > SPARE_SIZE_MAX) {
        batch_free(batch);
        return;
    }
    outbox->spare_count++;
    list_prepend(&outbox->spare, &batch->link);
}

static bool batch_reserve(struct outbox_batch *batch, size_t size, size_t count)
{
    if (!buf_reserve(&batch->records, size)) {
        return false;
    }
    if (batch->count + count <= batch->entries_capacity) {
        return true;
    }
    size_t capacity = batch->entries_capacity == 0 ? ENTRIES_MIN : 2 * batch->entries_capacity;
    while (capacity < batch->count + count) {
        capacity *= 2;
    }
    struct outbox_entry *entries = realloc(batch->entries, capacity * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    batch->entries = entries;
    batch->entries_capacity = (uint32_t)capacity;
    return true;
}

static struct outbox_batch *batch_begin(struct flare_client *client, struct outbox_topic *topic)
{
    struct outbox *outbox = &client->outbox;
    struct outbox_batch *batch = batch_take(outbox);
    if (batch == NULL) {
        return NULL;
    }
    struct buf records = batch->records;
    struct outbox_entry *entries = batch->entries;
    uint32_t entries_capacity = batch->entries_capacity;
    outbox->last_number++;
    *batch = (struct outbox_batch){.topic = topic,
                                   .number = outbox->last_number,
                                   .records = records,
                                   .entries = entries,
                                   .entries_capacity = entries_capacity,
                                   .begun_us = clock_mono_us(&client->clock)};
    buf_reset(&batch->records);
    (void)buf_extend(&batch->records, OUTBOX_HEAD_ROOM);
    list_append(&outbox->all, &batch->all_link);
    topic->batch_count++;
    return batch;
}

/* ---- topics -----------------------------------------------------------------------------------
 */

static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325U; /* FNV-1a */
    for (; *name != '\0'; name++) {
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3U;
    }
    return hash;
}

static struct outbox_topic *topic_find(struct outbox *outbox, const char *name)
{
    if (outbox->last != NULL && strcmp(outbox->last->name, name) == 0) {
        return outbox->last;
    }
    struct outbox_topic *topic = map_get(&outbox->topics, hash_name(name));
    while (topic != NULL && strcmp(topic->name, name) != 0) {
        topic = topic->next_of_hash;
    }
    return topic;
}

static struct outbox_topic *topic_take(struct outbox *outbox, const char *name)
{
    struct outbox_topic *topic = topic_find(outbox, name);
    if (topic == NULL) {
        topic = calloc(1, sizeof *topic);
        if (topic == NULL) {
            return NULL;
        }
        topic->hash = hash_name(name);
        topic->next_of_hash = map_get(&outbox->topics, topic->hash);
        if (!map_put(&outbox->topics, topic->hash, topic)) {
            free(topic);
            return NULL;
        }
        memcpy(topic->name, name, strlen(name) + 1);
        list_init(&topic->ready);
        list_init(&topic->refused);
        outbox->topic_count++;
    }
    outbox->last = topic;
    return topic;
}

static void topic_free(struct outbox *outbox, struct outbox_topic *topic)
{
    struct outbox_topic *first = map_remove(&outbox->topics, topic->hash);
    struct outbox_topic *rest = NULL;
    while (first != NULL) {
        struct outbox_topic *next = first->next_of_hash;
        if (first != topic) {
            first->next_of_hash = rest;
            rest = first;
        }
        first = next;
    }
    if (rest != NULL) {
        bool is_put = map_put(&outbox->topics, topic->hash, rest);
        assert(is_put); /* it takes the place that has just become free */
        (void)is_put;
    }
    if (outbox->last == topic) {
        outbox->last = NULL;
    }
    outbox->topic_count--;
    free(topic);
}

/* A program may publish to ever new topics. */
void outbox_release(struct outbox *outbox, struct outbox_topic *topic)
{
    if (topic->batch_count == 0 && !list_linked(&topic->link) &&
        outbox->topic_count > OUTBOX_TOPICS_IDLE_MAX) {
        topic_free(outbox, topic);
    }
}

void outbox_wait(struct outbox *outbox, struct outbox_topic *topic)
{
    if (!list_linked(&topic->link)) {
        list_append(&outbox->waiting, &topic->link);
    }
}

/* What is being filled takes no more. */
void outbox_close_filling(struct outbox_topic *topic)
{
    if (topic->filling != NULL) {
        list_append(&topic->ready, &topic->filling->link);
        topic->filling = NULL;
        topic->is_flushing = false;
    }
}

void outbox_deinit(struct outbox *outbox)
{
    struct list_link *link;
    struct outbox_topic *topic;
    size_t at = 0;
    assert(list_empty(&outbox->all));
    while ((link = list_pop(&outbox->spare)) != NULL) {
        batch_free(container_of(link, struct outbox_batch, link));
    }
    while ((topic = map_each(&outbox->topics, &at)) != NULL) {
        while (topic != NULL) {
            struct outbox_topic *next = topic->next_of_hash;
            free(topic);
            topic = next;
        }
    }
    map_deinit(&outbox->topics);
    buf_deinit(&outbox->head);
    free(outbox->results);
}

/* ---- publishing -------------------------------------------------------------------------------
 */

static enum flare_code check(const struct flare_client *client, const struct outbox_put *put,
                             size_t *size, struct flare_error *error)
{
    err_t err = draft_check_name("topic", put->topic);
    *size = 0;
    for (size_t index = 0; index < put->count && err == NULL; index++) {
        const struct flare_message *message = &put->messages[index];
        /* Read without the lock: it is a bound that the broker checks anyway. */
        uint32_t size_max = atomic_load_explicit(&client->message_size_max, memory_order_relaxed);
        if (message->body_size > size_max) {
            return problem_set(error, FLARE_ERR_TOO_LARGE, "body: has more than %u bytes",
                               size_max);
        }
        err = draft_check(message);
        *size += err == NULL ? draft_size_max(message) : 0;
    }
    return problem_of_err(error, err);
}

static void flush_all(struct outbox *outbox)
{
    for (struct list_link *link = list_first(&outbox->waiting); link != NULL;
         link = list_next(&outbox->waiting, link)) {
        struct outbox_topic *topic = container_of(link, struct outbox_topic, link);
        topic->is_flushing = topic->filling != NULL;
    }
}

/* With the lock held. */
static bool has_room(const struct flare_client *client, size_t size)
{
    const struct outbox *outbox = &client->outbox;
    return outbox->unconfirmed_size == 0 ||
           outbox->unconfirmed_size + size <= client->options.unconfirmed_size;
}

static enum flare_code wait_for_room(struct flare_client *client, size_t size, uint64_t wait_ms,
                                     struct flare_error *error)
{
    struct outbox *outbox = &client->outbox;
    struct timespec until = await_deadline(wait_ms);
    bool is_late = false;
    while (!client->is_stopping && !has_room(client, size)) {
        if (engine_is_own_thread(client) || is_late) {
            return problem_set(error, is_late ? FLARE_ERR_TIMEOUT : FLARE_ERR_BUSY,
                               "%zu bytes are unconfirmed", outbox->unconfirmed_size);
        }
        /* What lingers would keep its room for good. */
        flush_all(outbox);
        if (engine_need_turn(client)) {
            engine_signal(client);
        }
        int rc = pthread_cond_timedwait(&client->changed, &client->lock, &until);
        is_late = rc == ETIMEDOUT;
    }
    return FLARE_OK;
}

static size_t records_size(const struct outbox_batch *batch)
{
    return batch->records.size - OUTBOX_HEAD_ROOM;
}

/* The batch that takes `put`, with room for it; NULL: no memory. `must_turn`: something may go now
 * that could not, or has begun to linger. */
static struct outbox_batch *batch_for(struct flare_client *client, struct outbox_topic *topic,
                                      const struct outbox_put *put, size_t size, bool *must_turn)
{
    struct outbox *outbox = &client->outbox;
    struct outbox_batch *filling = topic->filling;
    if (filling != NULL && (put->is_whole || filling->count >= outbox->batch_messages ||
                            records_size(filling) + size > outbox->batch_size)) {
        outbox_close_filling(topic);
        *must_turn = true;
    }
    if (topic->filling == NULL) {
        topic->filling = batch_begin(client, topic);
        *must_turn = true;
    }
    if (topic->filling != NULL && !batch_reserve(topic->filling, size, put->count)) {
        if (topic->filling->count == 0) {
            list_remove(&topic->filling->all_link);
            batch_free(topic->filling);
            topic->filling = NULL;
            topic->batch_count--;
        }
        return NULL;
    }
    return topic->filling;
}

/* What the batch takes of `unconfirmed_size` for it: of small messages to many topics most of the
 * memory is the batches. */
static size_t cost_of(const struct outbox_batch *batch, const struct outbox_put *put, size_t size)
{
    size_t begun = batch->count == 0 ? sizeof *batch + OUTBOX_HEAD_ROOM : 0;
    return begun + size + put->count * sizeof batch->entries[0];
}

static void batch_put(struct outbox_batch *batch, const struct outbox_put *put)
{
    for (size_t index = 0; index < put->count; index++) {
        draft_put(&batch->records, &put->messages[index]);
        batch->is_keyed = batch->is_keyed || put->messages[index].key != NULL;
        batch->entries[batch->count] = (struct outbox_entry){
            .done = put->done,
            .user = put->user_step == 0 ? put->user : (char *)put->user + index * put->user_step};
        batch->count++;
    }
    batch->is_atomic = put->is_atomic;
}

static enum flare_code add_locked(struct flare_client *client, const struct outbox_put *put,
                                  size_t size, bool *must_signal, struct flare_error *error)
{
    struct outbox *outbox = &client->outbox;
    bool must_turn = false;
    enum flare_code code =
        has_room(client, size) ? FLARE_OK : wait_for_room(client, size, put->wait_ms, error);
    if (code != FLARE_OK) {
        return code;
    }
    if (client->is_stopping) {
        return problem_set(error, FLARE_ERR_UNAVAILABLE, "the client is being closed");
    }
    struct outbox_topic *topic = topic_take(outbox, put->topic);
    struct outbox_batch *batch =
        topic == NULL ? NULL : batch_for(client, topic, put, size, &must_turn);
    if (batch == NULL) {
        return problem_set(error, FLARE_ERR_MEMORY, "no memory for a message");
    }
    size_t cost = cost_of(batch, put, size);
    batch->size += cost;
    outbox->unconfirmed_size += cost;
    batch_put(batch, put);
    outbox_wait(outbox, topic);
    if (put->is_whole || batch->count >= outbox->batch_messages) {
        outbox_close_filling(topic);
        must_turn = true;
    } else if (put->is_urgent) {
        topic->is_flushing = true;
        must_turn = true;
    }
    *must_signal = must_turn && engine_need_turn(client);
    return FLARE_OK;
}

enum flare_code outbox_add(struct flare_client *client, const struct outbox_put *put,
                           struct flare_error *error)
{
    size_t size = 0;
    bool must_signal = false;
    enum flare_code code = check(client, put, &size, error);
    if (code != FLARE_OK) {
        return code;
    }
    (void)pthread_mutex_lock(&client->lock);
    code = add_locked(client, put, size, &must_signal, error);
    (void)pthread_mutex_unlock(&client->lock);
    if (must_signal) {
        engine_signal(client);
    }
    return code;
}

/* ---- flushing ---------------------------------------------------------------------------------
 */

uint64_t outbox_flush_begin(struct flare_client *client)
{
    (void)pthread_mutex_lock(&client->lock);
    flush_all(&client->outbox);
    uint64_t number = client->outbox.last_number;
    bool must_signal = engine_need_turn(client);
    (void)pthread_mutex_unlock(&client->lock);
    if (must_signal) {
        engine_signal(client);
    }
    return number;
}

static bool is_flushed(const struct outbox *outbox, uint64_t number)
{
    struct list_link *first = list_first(&outbox->all);
    return first == NULL || container_of(first, struct outbox_batch, all_link)->number > number;
}

bool outbox_flush_wait(struct flare_client *client, uint64_t number, uint64_t timeout_ms)
{
    struct timespec until = await_deadline(timeout_ms);
    (void)pthread_mutex_lock(&client->lock);
    bool is_over = is_flushed(&client->outbox, number);
    while (!is_over) {
        int rc = pthread_cond_timedwait(&client->changed, &client->lock, &until);
        is_over = is_flushed(&client->outbox, number);
        if (rc == ETIMEDOUT) {
            break;
        }
    }
    (void)pthread_mutex_unlock(&client->lock);
    return is_over;
}
