#include "client/outbox.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "broker/base/bytes.h"
#include "broker/base/random.h"
#include "client/await.h"
#include "client/draft.h"
#include "client/engine.h"
#include "client/problem.h"

enum {
    HEAD_ROOM = 512,          /* before the records, for the head of the frame */
    RECORDS_SIZE = 16 * 1024, /* of a new batch's buffer */
    ENTRIES_MIN = 64,
    SPARE_SIZE_MAX = 1 << 20, /* of a batch that is kept for its memory */
    REFUSED_PAUSE_MIN_US = 5000,
    REFUSED_PAUSE_MAX_US = 1000000,
    REFUSED_DOUBLINGS_MAX = 8,
    FRAME_OVERHEAD = 1024, /* of a publish beside its messages */
    RESULT_ID_SIZE = 12,
    RESULT_NUMBERS_AT = 3 + RESULT_ID_SIZE,      /* shard and sequence, in the common form */
    RESULT_SIZE_MAX = RESULT_NUMBERS_AT + 2 * 9, /* of that, and bytes that may be looked at */
};

static err_t batch_on_answer(struct flare_client *client, struct ask *ask,
                             const struct wire_frame *answer);
static void batch_on_failed(struct flare_client *client, struct ask *ask, enum ask_failure failure,
                            const struct flare_error *error);

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
    buf_init(&outbox->head, HEAD_ROOM);
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
    if (!buf_reserve(&batch->records, RECORDS_SIZE)) {
        free(batch);
        return NULL;
    }
    return batch;
}

static void batch_give(struct outbox *outbox, struct outbox_batch *batch)
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
    (void)buf_extend(&batch->records, HEAD_ROOM);
    list_append(&outbox->all, &batch->all_link);
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
static void topic_release(struct outbox *outbox, struct outbox_topic *topic)
{
    if (topic->under_way == 0 && topic->filling == NULL && !list_linked(&topic->link) &&
        outbox->topic_count > OUTBOX_TOPICS_IDLE_MAX) {
        topic_free(outbox, topic);
    }
}

static void topic_wait(struct outbox *outbox, struct outbox_topic *topic)
{
    if (!list_linked(&topic->link)) {
        list_append(&outbox->waiting, &topic->link);
    }
}

/* What is being filled takes no more. */
static void topic_close_filling(struct outbox_topic *topic)
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

/* With the lock held: waits until `size` more bytes may be unconfirmed. */
static enum flare_code wait_for_room(struct flare_client *client, size_t size,
                                     struct flare_error *error)
{
    struct outbox *outbox = &client->outbox;
    while (!client->is_stopping && outbox->unconfirmed_size > 0 &&
           outbox->unconfirmed_size + size > client->options.unconfirmed_size) {
        if (engine_is_own_thread(client)) {
            return problem_set(error, FLARE_ERR_BUSY, "%zu bytes are unconfirmed",
                               outbox->unconfirmed_size);
        }
        /* What lingers would keep its room for good. */
        flush_all(outbox);
        if (engine_need_turn(client)) {
            engine_signal(client);
        }
        (void)pthread_cond_wait(&client->changed, &client->lock);
    }
    if (client->is_stopping) {
        return problem_set(error, FLARE_ERR_UNAVAILABLE, "the client is being closed");
    }
    return FLARE_OK;
}

/* The batch that takes `put`, with room for it; NULL: no memory. `must_turn`: something may go now
 * that could not, or has begun to linger. */
static struct outbox_batch *batch_for(struct flare_client *client, struct outbox_topic *topic,
                                      const struct outbox_put *put, size_t size, bool *must_turn)
{
    struct outbox *outbox = &client->outbox;
    struct outbox_batch *filling = topic->filling;
    if (filling != NULL && (put->is_whole || filling->count >= outbox->batch_messages ||
                            filling->size + size > outbox->batch_size)) {
        topic_close_filling(topic);
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
        }
        return NULL;
    }
    return topic->filling;
}

static void batch_put(struct outbox_batch *batch, const struct outbox_put *put, size_t size)
{
    for (size_t index = 0; index < put->count; index++) {
        draft_put(&batch->records, &put->messages[index]);
        batch->is_keyed = batch->is_keyed || put->messages[index].key != NULL;
        batch->entries[batch->count] = (struct outbox_entry){
            .done = put->done,
            .user = put->user_step == 0 ? put->user : (char *)put->user + index * put->user_step};
        batch->count++;
    }
    batch->size += size;
    batch->is_whole = put->is_whole;
    batch->is_atomic = put->is_atomic;
}

static enum flare_code add_locked(struct flare_client *client, const struct outbox_put *put,
                                  size_t size, bool *must_signal, struct flare_error *error)
{
    struct outbox *outbox = &client->outbox;
    bool must_turn = false;
    enum flare_code code = wait_for_room(client, size, error);
    if (code != FLARE_OK) {
        return code;
    }
    struct outbox_topic *topic = topic_take(outbox, put->topic);
    struct outbox_batch *batch =
        topic == NULL ? NULL : batch_for(client, topic, put, size, &must_turn);
    if (batch == NULL) {
        return problem_set(error, FLARE_ERR_MEMORY, "no memory for a message");
    }
    batch_put(batch, put, size);
    outbox->unconfirmed_size += size;
    topic_wait(outbox, topic);
    if (put->is_whole || batch->count >= outbox->batch_messages) {
        topic_close_filling(topic);
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

/* ---- sending ----------------------------------------------------------------------------------
 */

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
    assert(!outbox->head.failed && outbox->head.size <= HEAD_ROOM && !batch->records.failed);
    uint8_t *frame = batch->records.data + HEAD_ROOM - outbox->head.size;
    size_t size = outbox->head.size + batch->records.size - HEAD_ROOM;
    memcpy(frame, outbox->head.data, outbox->head.size);
    wire_frame_put_size(frame, (uint32_t)(size - WIRE_SIZE_BYTES));
    batch->ask = (struct ask){.type = WIRE_publish,
                              .answer = WIRE_published,
                              .fate = client->options.no_resend ? ASK_UNKNOWN : ASK_AGAIN,
                              .id = publish.id,
                              .frame = span_of(frame, size),
                              .on_answer = batch_on_answer,
                              .on_failed = batch_on_failed};
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

/* What has been refused goes first, and as long as some of it waits, nothing else of its topic. */
static void send_refused(struct flare_client *client, struct outbox_topic *topic)
{
    struct list_link *next = NULL;
    for (struct list_link *link = list_first(&topic->refused); link != NULL; link = next) {
        struct outbox_batch *batch = container_of(link, struct outbox_batch, link);
        next = list_next(&topic->refused, link);
        if (batch->retry_us <= client->now_us) {
            list_remove(link);
            peer_submit(client, &batch->ask);
        }
    }
}

static void topic_send(struct flare_client *client, struct outbox_topic *topic)
{
    send_refused(client, topic);
    if (!list_empty(&topic->refused)) {
        return;
    }
    if (list_empty(&topic->ready) && topic->filling != NULL && filling_may_go(client, topic)) {
        topic_close_filling(topic);
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
            topic_close_filling(topic);
        }
    }
}

/* What it waits for beside an answer. */
static uint64_t topic_due_us(const struct flare_client *client, const struct outbox_topic *topic)
{
    uint64_t due_us = UINT64_MAX;
    for (struct list_link *link = list_first(&topic->refused); link != NULL;
         link = list_next(&topic->refused, link)) {
        const struct outbox_batch *batch = container_of(link, struct outbox_batch, link);
        due_us = batch->retry_us < due_us ? batch->retry_us : due_us;
    }
    if (list_empty(&topic->refused) && list_empty(&topic->ready) && topic->filling != NULL) {
        due_us = linger_end_us(client, topic->filling);
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

/* ---- answers ----------------------------------------------------------------------------------
 */

static void put_id(char *out, struct span id)
{
    static const char digits[] = "0123456789abcdef";
    size_t size = id.size < (FLARE_ID_SIZE - 1) / 2 ? id.size : (FLARE_ID_SIZE - 1) / 2;
    for (size_t at = 0; at < size; at++) {
        out[2 * at] = digits[id.data[at] >> 4];
        out[2 * at + 1] = digits[id.data[at] & 15];
    }
    out[2 * size] = '\0';
}

/* It has been answered: room first, so that callbacks can publish. */
static void batch_leave(struct flare_client *client, struct outbox_batch *batch)
{
    (void)pthread_mutex_lock(&client->lock);
    if (batch->ask.on_answer != NULL) {
        batch->topic->under_way--;
        batch->topic->keyed_under_way -= batch->is_keyed;
    }
    client->outbox.unconfirmed_size -= batch->size;
    (void)pthread_cond_broadcast(&client->changed);
    (void)pthread_mutex_unlock(&client->lock);
}

/* Its callbacks have been called. */
static void batch_end(struct flare_client *client, struct outbox_batch *batch)
{
    struct outbox *outbox = &client->outbox;
    (void)pthread_mutex_lock(&client->lock);
    struct outbox_topic *topic = batch->topic;
    list_remove(&batch->all_link);
    batch_give(outbox, batch);
    topic_release(outbox, topic);
    (void)pthread_cond_broadcast(&client->changed);
    (void)pthread_mutex_unlock(&client->lock);
}

static void batch_fail(struct flare_client *client, struct outbox_batch *batch,
                       const struct flare_error *error)
{
    const struct flare_result result = {.code = error->code};
    batch_leave(client, batch);
    for (uint32_t index = 0; index < batch->count; index++) {
        if (batch->entries[index].done != NULL) {
            batch->entries[index].done(batch->entries[index].user, &result, error);
        }
    }
    batch_end(client, batch);
}

static bool may_resend(const struct flare_client *client, struct outbox_batch *batch, uint32_t code)
{
    if (client->options.no_resend || (code != FLARE_ERR_BUSY && code != FLARE_ERR_UNAVAILABLE)) {
        return false;
    }
    batch->refused_us = batch->refused_us == 0 ? client->now_us : batch->refused_us;
    return client->now_us - batch->refused_us < (uint64_t)client->options.give_up_ms * 1000;
}

static void batch_resend_later(struct flare_client *client, struct outbox_batch *batch)
{
    uint32_t doublings =
        batch->refusals < REFUSED_DOUBLINGS_MAX ? batch->refusals : REFUSED_DOUBLINGS_MAX;
    uint64_t pause_us = (uint64_t)REFUSED_PAUSE_MIN_US << doublings;
    batch->refusals++;
    batch->retry_us =
        client->now_us + (pause_us < REFUSED_PAUSE_MAX_US ? pause_us : REFUSED_PAUSE_MAX_US);
    (void)pthread_mutex_lock(&client->lock);
    list_append(&batch->topic->refused, &batch->link);
    topic_wait(&client->outbox, batch->topic);
    (void)pthread_mutex_unlock(&client->lock);
}

static bool reserve_results(struct outbox *outbox, uint32_t count)
{
    if (count <= outbox->results_capacity) {
        return true;
    }
    struct wire_result *results = realloc(outbox->results, count * sizeof *results);
    if (results == NULL) {
        return false;
    }
    outbox->results = results;
    outbox->results_capacity = count;
    return true;
}

/* A number of the wire, at `at`, of which nine bytes can be read. */
static bool take_uint(const uint8_t **at, uint64_t *out)
{
    const uint8_t *from = *at;
    switch (from[0]) {
    case 0xcc:
        *out = from[1];
        *at += 2;
        return true;
    case 0xcd:
        *out = bytes_get_be16(from + 1);
        *at += 3;
        return true;
    case 0xce:
        *out = bytes_get_be32(from + 1);
        *at += 5;
        return true;
    case 0xcf:
        *out = bytes_get_be64(from + 1);
        *at += 9;
        return true;
    default:
        *out = from[0];
        *at += 1;
        return from[0] < 0x80;
    }
}

/* The result of a message that was simply published, which nearly all are: three fields. Returns
 * how many bytes it has; 0: it is another, for the decoder that knows them all. */
static size_t take_common_result(struct span bytes, struct wire_result *out)
{
    uint64_t shard;
    uint64_t sequence;
    const uint8_t *at = bytes.data + RESULT_NUMBERS_AT;
    bool is_common = bytes.size >= RESULT_SIZE_MAX && bytes.data[0] == 0x93 &&
                     bytes.data[1] == 0xc4 && bytes.data[2] == RESULT_ID_SIZE;
    if (!is_common || !take_uint(&at, &shard) || shard > UINT32_MAX || !take_uint(&at, &sequence)) {
        return 0;
    }
    *out = (struct wire_result){.id = span_of(bytes.data + 3, RESULT_ID_SIZE),
                                .shard = (uint32_t)shard,
                                .sequence = sequence};
    return (size_t)(at - bytes.data);
}

static err_t take_result(struct span bytes, struct wire_result *out, size_t *used)
{
    struct wire_items items;
    const struct wire_list one = {.count = 1, .items = bytes};
    *used = take_common_result(bytes, out);
    if (*used == 0) {
        wire_items_begin(&items, "results", WIRE_RECORD_result, &one);
        (void)wire_items_next(&items, out);
        TRY(wire_items_finish(&items));
        *used = items.reader.at;
    }
    return NULL;
}

/* Decodes all of them before the first is told, since what the broker got wrong is asked again. */
static err_t take_results(struct flare_client *client, const struct outbox_batch *batch,
                          const struct wire_list *results)
{
    struct outbox *outbox = &client->outbox;
    struct span rest = results->items;
    size_t used = 0;
    if (results->count != batch->count) {
        return ERR(INVALID, "the broker answered %u messages of %u", results->count, batch->count);
    }
    if (!reserve_results(outbox, batch->count)) {
        return ERR(MEMORY, "no memory for the results of a batch");
    }
    for (uint32_t index = 0; index < batch->count; index++) {
        TRY(take_result(rest, &outbox->results[index], &used));
        rest = span_of(rest.data + used, rest.size - used);
    }
    return rest.size == 0 ? NULL : ERR(INVALID, "results: more bytes than results");
}

bool outbox_peek(struct span payload, struct wire_frame *out)
{
    struct reader reader;
    uint32_t fields = 0;
    uint32_t count = 0;
    uint64_t type = 0;
    uint64_t id = 0;
    uint64_t durability = 0;
    if (payload.size < 2 || payload.data[1] != WIRE_published) {
        return false;
    }
    reader_init(&reader, payload);
    if (!reader_array(&reader, &fields) || fields != 4 || !reader_u64(&reader, &type) ||
        type != WIRE_published || !reader_u64(&reader, &id) || !reader_u64(&reader, &durability) ||
        durability > UINT32_MAX || !reader_array(&reader, &count)) {
        return false;
    }
    out->type = WIRE_published;
    out->published = (struct wire_published){
        .id = id,
        .durability = (uint32_t)durability,
        .results = {.count = count,
                    .items = span_of(payload.data + reader.at, payload.size - reader.at)}};
    return true;
}

static void tell_results(struct flare_client *client, const struct outbox_batch *batch,
                         bool is_relaxed)
{
    struct flare_error error;
    for (uint32_t index = 0; index < batch->count; index++) {
        const struct wire_result *from = &client->outbox.results[index];
        struct flare_result result = {.code = (enum flare_code)from->code,
                                      .replayed = from->replayed,
                                      .relaxed = is_relaxed,
                                      .shard = from->shard,
                                      .sequence = from->sequence};
        if (batch->entries[index].done == NULL) {
            continue;
        }
        put_id(result.id, from->id);
        if (from->code != FLARE_OK) {
            (void)problem_of_code(&error, from->code);
        }
        batch->entries[index].done(batch->entries[index].user, &result,
                                   from->code == FLARE_OK ? NULL : &error);
    }
}

static err_t batch_on_answer(struct flare_client *client, struct ask *ask,
                             const struct wire_frame *answer)
{
    struct outbox_batch *batch = container_of(ask, struct outbox_batch, ask);
    TRY(take_results(client, batch, &answer->published.results));
    for (uint32_t index = 0; index < batch->count; index++) {
        uint32_t code = client->outbox.results[index].code;
        if (code != FLARE_OK && may_resend(client, batch, code)) {
            batch_resend_later(client, batch);
            return NULL;
        }
    }
    batch_leave(client, batch);
    tell_results(client, batch, answer->published.durability != 0);
    batch_end(client, batch);
    return NULL;
}

static void batch_on_failed(struct flare_client *client, struct ask *ask, enum ask_failure failure,
                            const struct flare_error *error)
{
    struct outbox_batch *batch = container_of(ask, struct outbox_batch, ask);
    if (failure == ASK_REFUSED && may_resend(client, batch, (uint32_t)error->code)) {
        batch_resend_later(client, batch);
        return;
    }
    batch_fail(client, batch, error);
}

void outbox_fail_all(struct flare_client *client, const struct flare_error *error)
{
    struct outbox *outbox = &client->outbox;
    struct list batches;
    struct list_link *link;
    struct flare_error unknown = *error;
    unknown.code = FLARE_ERR_UNKNOWN; /* some messages of a batch may have been taken */
    list_init(&batches);
    (void)pthread_mutex_lock(&client->lock);
    while ((link = list_pop(&outbox->waiting)) != NULL) {
        struct outbox_topic *topic = container_of(link, struct outbox_topic, link);
        topic_close_filling(topic);
        list_splice(&batches, &topic->refused);
        list_splice(&batches, &topic->ready);
    }
    (void)pthread_mutex_unlock(&client->lock);
    while ((link = list_pop(&batches)) != NULL) {
        struct outbox_batch *batch = container_of(link, struct outbox_batch, link);
        batch_fail(client, batch, batch->ask.is_sent ? &unknown : error);
    }
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
