#include "client/outbox_internal.h"

#include <stdlib.h>

#include "broker/base/bytes.h"
#include "client/parcel.h"
#include "client/problem.h"

enum {
    REFUSED_PAUSE_MIN_US = 5000,
    REFUSED_PAUSE_MAX_US = 1000000,
    REFUSED_DOUBLINGS_MAX = 8,
    RESULT_ID_SIZE = 12,
    RESULT_NUMBERS_AT = 3 + RESULT_ID_SIZE,      /* shard and sequence, in the common form */
    RESULT_SIZE_MAX = RESULT_NUMBERS_AT + 2 * 9, /* of that, and bytes that may be looked at */
};

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
    outbox_give(outbox, batch);
    topic->batch_count--;
    outbox_release(outbox, topic);
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
    batch->refusal = (enum flare_code)code;
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
    outbox_wait(&client->outbox, batch->topic);
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

/* What a message's code says. A part of the broker that cannot serve the batch now has not looked
 * whether an earlier try, whose answer was lost, had put it there. */
static enum flare_code outcome(const struct outbox_batch *batch, uint32_t code)
{
    bool is_known = !batch->ask.is_doubtful || flare_code_retryable((enum flare_code)code) == 0;
    return is_known ? (enum flare_code)code : FLARE_ERR_UNKNOWN;
}

static void tell_results(struct flare_client *client, const struct outbox_batch *batch,
                         bool is_relaxed)
{
    struct flare_error error;
    for (uint32_t index = 0; index < batch->count; index++) {
        const struct wire_result *from = &client->outbox.results[index];
        struct flare_result result = {.code = outcome(batch, from->code),
                                      .replayed = from->replayed,
                                      .relaxed = is_relaxed,
                                      .shard = from->shard,
                                      .sequence = from->sequence};
        if (batch->entries[index].done == NULL) {
            continue;
        }
        parcel_put_id(result.id, from->id);
        if (result.code != FLARE_OK) {
            (void)problem_of_code(&error, (uint32_t)result.code);
        }
        batch->entries[index].done(batch->entries[index].user, &result,
                                   result.code == FLARE_OK ? NULL : &error);
    }
}

err_t outbox_on_answer(struct flare_client *client, struct ask *ask,
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

void outbox_on_failed(struct flare_client *client, struct ask *ask, enum ask_failure failure,
                      const struct flare_error *error)
{
    struct outbox_batch *batch = container_of(ask, struct outbox_batch, ask);
    if (failure == ASK_REFUSED && may_resend(client, batch, (uint32_t)error->code)) {
        batch_resend_later(client, batch);
        return;
    }
    struct flare_error unknown = *error;
    unknown.code = FLARE_ERR_UNKNOWN; /* an earlier try, whose answer was lost, may be there */
    batch_fail(client, batch, ask->is_doubtful ? &unknown : error);
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
        outbox_close_filling(topic);
        list_splice(&batches, &topic->refused);
        list_splice(&batches, &topic->ready);
    }
    (void)pthread_mutex_unlock(&client->lock);
    while ((link = list_pop(&batches)) != NULL) {
        struct outbox_batch *batch = container_of(link, struct outbox_batch, link);
        batch_fail(client, batch, batch->ask.is_sent ? &unknown : error);
    }
}
