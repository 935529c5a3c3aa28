#include "client/intake.h"

#include <stdlib.h>

#include "client/problem.h"
#include "client/settle.h"

enum {
    EXTEND_MAX = 1000,           /* leases of one request */
    EXTEND_EARLY_PART = 8,       /* of a lease: what is due so soon is extended along */
    SETTLE_RETRY_US = 50000,     /* a verdict, after the broker was too busy for it */
    EXTEND_RETRY_US = 100000,    /* after the broker was too busy for it */
    UNKNOWN_LEASE_US = 30000000, /* when the broker does not say */
};

/* Verdicts of one kind, on their way. */
struct intake_verdicts {
    struct call call;
    struct flare_stream *stream;
    enum flare_verdict verdict;
    uint64_t refused_us; /* when the broker first was too busy for some; 0: it was not */
    size_t count;
    enum flare_code *codes;
    struct flare_receipt receipts[];
};

/* ---- holding ----------------------------------------------------------------------------------
 */

static void free_when_done(struct parcel_item *item)
{
    if (item->is_done && !item->is_extending) {
        item->batch->left--;
        if (item->batch->left == 0) {
            flare_batch_free(item->batch);
        }
    }
}

void intake_release(struct flare_stream *stream, struct parcel_item *item)
{
    stream->here--;
    stream->here_size -= parcel_credit(&item->delivery);
    if (list_linked(&item->held_link)) {
        list_remove(&item->held_link);
    }
    item->is_done = true;
    free_when_done(item);
}

/* ---- verdicts ---------------------------------------------------------------------------------
 */

static void verdicts_free(struct intake_verdicts *verdicts)
{
    free(verdicts->codes);
    call_free(&verdicts->call);
}

static void count_verdict(struct flare_stream_counts *counts, enum flare_verdict verdict,
                          enum flare_code code)
{
    if (code != FLARE_OK) {
        counts->lost++;
        return;
    }
    switch (verdict) {
    case FLARE_ACK:
        counts->acked++;
        return;
    case FLARE_NACK:
        counts->nacked++;
        return;
    case FLARE_REJECT:
        counts->rejected++;
        return;
    case FLARE_KEEP:
        counts->kept++;
        return;
    }
    counts->nacked++; /* INTAKE_RETURN */
}

/* All of them have ended. */
static void verdicts_end(struct intake_verdicts *verdicts, enum flare_code code)
{
    struct flare_stream *stream = verdicts->stream;
    (void)pthread_mutex_lock(&stream->lock);
    for (size_t index = 0; index < verdicts->count; index++) {
        count_verdict(&stream->counts, verdicts->verdict, code);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    stream->settling--;
    verdicts_free(verdicts);
}

/* Those whose codes say so have ended; what the broker was too busy for is left. */
static void verdicts_take_codes(struct intake_verdicts *verdicts)
{
    struct flare_stream *stream = verdicts->stream;
    size_t left = 0;
    (void)pthread_mutex_lock(&stream->lock);
    for (size_t index = 0; index < verdicts->count; index++) {
        if (flare_code_retryable(verdicts->codes[index]) != 0) {
            verdicts->receipts[left] = verdicts->receipts[index];
            verdicts->codes[left] = verdicts->codes[index];
            left++;
        } else {
            count_verdict(&stream->counts, verdicts->verdict, verdicts->codes[index]);
        }
    }
    (void)pthread_mutex_unlock(&stream->lock);
    verdicts->count = left;
}

static enum flare_code verdicts_encode(struct intake_verdicts *verdicts)
{
    struct flare_settle settle = {.kind = verdicts->verdict == FLARE_ACK ? FLARE_SETTLE_ACK
                                                                         : FLARE_SETTLE_NACK,
                                  .receipts = verdicts->receipts,
                                  .count = verdicts->count};
    settle.nack.reject = verdicts->verdict == FLARE_REJECT;
    settle.nack.has_delay = verdicts->verdict == INTAKE_RETURN;
    return settle_encode(verdicts->stream->client, &verdicts->call, &verdicts->stream->source,
                         &settle, NULL);
}

/* They are sent again in a moment, unless that has gone on for long: a part of the broker that has
 * failed stays so until it is started again. */
static void verdicts_retry(struct flare_client *client, struct intake_verdicts *verdicts,
                           enum flare_code code)
{
    struct flare_stream *stream = verdicts->stream;
    uint64_t patience_us = (uint64_t)client->options.give_up_ms * 1000;
    verdicts->refused_us = verdicts->refused_us == 0 ? client->now_us : verdicts->refused_us;
    if (client->now_us - verdicts->refused_us >= patience_us ||
        verdicts_encode(verdicts) != FLARE_OK) {
        verdicts_end(verdicts, code);
        return;
    }
    if (list_empty(&stream->refused)) {
        stream->retry_us = client->now_us + SETTLE_RETRY_US;
    }
    list_append(&stream->refused, &verdicts->call.ask.link);
}

static err_t verdicts_on_end(struct flare_client *client, struct call *call,
                             const struct wire_frame *answer, enum ask_failure failure,
                             const struct flare_error *error)
{
    struct intake_verdicts *verdicts = container_of(call, struct intake_verdicts, call);
    if (answer != NULL) {
        TRY(settle_take_codes(&answer->settled, verdicts->count, verdicts->codes));
        verdicts_take_codes(verdicts);
        if (verdicts->count > 0) {
            verdicts_retry(client, verdicts, verdicts->codes[0]);
        } else {
            verdicts_end(verdicts, FLARE_OK);
        }
        return NULL;
    }
    /* Not so what the application settles: here nobody else would do it again, and to settle twice
     * does no harm. */
    if (failure == ASK_REFUSED && flare_code_retryable(error->code) != 0) {
        verdicts_retry(client, verdicts, error->code);
    } else if (failure == ASK_LOST && verdicts_encode(verdicts) == FLARE_OK) {
        peer_submit(client, &call->ask);
    } else {
        verdicts_end(verdicts, error->code);
    }
    return NULL;
}

void intake_retry_refused(struct flare_stream *stream)
{
    struct flare_client *client = stream->client;
    struct list_link *link;
    /* Without a connection they wait for it with the rest. */
    bool is_due = client->now_us >= stream->retry_us || !peer_is_ready(&client->peer);
    while (is_due && (link = list_pop(&stream->refused)) != NULL) {
        peer_submit(client, container_of(link, struct ask, link));
    }
}

/* Takes up to SETTLE_MAX of one verdict off the list. NULL: none has it, or there is no memory. */
static struct intake_verdicts *take_verdicts(struct flare_stream *stream, struct list *finished,
                                             enum flare_verdict verdict, size_t count)
{
    struct intake_verdicts *verdicts =
        call_create(sizeof *verdicts + count * sizeof verdicts->receipts[0], NULL);
    if (verdicts == NULL) {
        return NULL;
    }
    verdicts->codes = calloc(count, sizeof verdicts->codes[0]);
    if (verdicts->codes == NULL) {
        call_free(&verdicts->call);
        return NULL;
    }
    verdicts->call.on_end = verdicts_on_end;
    verdicts->stream = stream;
    verdicts->verdict = verdict;
    struct list_link *next = NULL;
    for (struct list_link *link = list_first(finished); link != NULL && verdicts->count < count;
         link = next) {
        struct parcel_item *item = container_of(link, struct parcel_item, link);
        next = list_next(finished, link);
        if (item->verdict == verdict) {
            verdicts->receipts[verdicts->count] = item->delivery.receipt;
            verdicts->count++;
            list_remove(link);
            intake_release(stream, item);
        }
    }
    return verdicts;
}

static void send_verdicts(struct flare_stream *stream, struct list *finished,
                          enum flare_verdict verdict, size_t count)
{
    while (count > 0) {
        size_t part = count < SETTLE_MAX ? count : SETTLE_MAX;
        struct intake_verdicts *verdicts = take_verdicts(stream, finished, verdict, part);
        if (verdicts == NULL) {
            return;
        }
        count -= part;
        stream->settling++;
        if (verdicts_encode(verdicts) == FLARE_OK) {
            peer_submit(stream->client, &verdicts->call.ask);
        } else {
            verdicts_end(verdicts, FLARE_ERR_MEMORY);
        }
    }
}

/* What needs no word to the broker. */
static void drop_silent(struct flare_stream *stream, struct list *finished)
{
    struct list_link *next = NULL;
    for (struct list_link *link = list_first(finished); link != NULL; link = next) {
        struct parcel_item *item = container_of(link, struct parcel_item, link);
        bool is_lost = atomic_load(&item->is_lost);
        next = list_next(finished, link);
        if (is_lost || item->verdict == FLARE_KEEP) {
            (void)pthread_mutex_lock(&stream->lock);
            count_verdict(&stream->counts, item->verdict,
                          is_lost ? FLARE_ERR_LEASE_LOST : FLARE_OK);
            (void)pthread_mutex_unlock(&stream->lock);
            list_remove(link);
            intake_release(stream, item);
        }
    }
}

void intake_settle_all(struct flare_stream *stream, struct list *finished)
{
    static const enum flare_verdict sent[] = {FLARE_ACK, FLARE_NACK, FLARE_REJECT, INTAKE_RETURN};
    size_t counts[sizeof sent / sizeof sent[0]] = {0};
    if (list_empty(finished)) {
        return;
    }
    drop_silent(stream, finished);
    for (struct list_link *link = list_first(finished); link != NULL;
         link = list_next(finished, link)) {
        enum flare_verdict verdict = container_of(link, struct parcel_item, link)->verdict;
        for (size_t index = 0; index < sizeof sent / sizeof sent[0]; index++) {
            counts[index] += sent[index] == verdict;
        }
    }
    for (size_t index = 0; index < sizeof sent / sizeof sent[0]; index++) {
        send_verdicts(stream, finished, sent[index], counts[index]);
    }
    /* Only without memory is anything left: it is tried again in the next turn. */
    (void)pthread_mutex_lock(&stream->lock);
    list_splice(&stream->finished, finished);
    (void)pthread_mutex_unlock(&stream->lock);
}

/* ---- leases -----------------------------------------------------------------------------------
 */

struct intake_extend {
    struct call call;
    struct flare_stream *stream;
    size_t count;
    enum flare_code *codes;
    struct parcel_item *items[];
};

static void extend_free(struct intake_extend *extend)
{
    free(extend->codes);
    call_free(&extend->call);
}

/* A lease has been lost: a handler that runs learns it, a message that waits is not begun. */
static void lose_lease(struct flare_stream *stream, struct parcel_item *item)
{
    atomic_store(&item->is_lost, true);
    if (list_linked(&item->held_link)) {
        list_remove(&item->held_link);
    }
    (void)pthread_mutex_lock(&stream->lock);
    bool is_running = item->is_running;
    bool is_waiting = !is_running && list_linked(&item->link) && item->verdict == 0;
    if (is_waiting) {
        list_remove(&item->link);
        stream->counts.waiting--;
        stream->counts.lost++;
    }
    (void)pthread_mutex_unlock(&stream->lock);
    if (is_waiting) {
        intake_release(stream, item);
    } else if (is_running && stream->options.on_lost != NULL) {
        stream->options.on_lost(stream->options.user, &item->delivery);
    }
}

/* Leases are of known length now: so are the times of those that came before. */
static void learn_lease(struct flare_stream *stream, uint64_t lease_ms)
{
    bool was_known = stream->lease_us != 0;
    stream->lease_us = lease_ms * 1000;
    for (struct list_link *link = list_first(&stream->held); link != NULL && !was_known;
         link = list_next(&stream->held, link)) {
        struct parcel_item *item = container_of(link, struct parcel_item, held_link);
        if (item->extend_us == UINT64_MAX) {
            item->extend_us = item->arrived_us + stream->lease_us / 2;
        }
    }
}

/* Its lease is to be extended soon, before those of what came later. */
static void hold_first(struct flare_stream *stream, struct parcel_item *item)
{
    struct list_link *place = &stream->held.head;
    struct list_link *link;
    while ((link = list_next(&stream->held, place)) != NULL &&
           container_of(link, struct parcel_item, held_link)->extend_us < item->extend_us) {
        place = link;
    }
    list_insert_after(place, &item->held_link);
}

static void extended(struct flare_stream *stream, struct parcel_item *item, enum flare_code code)
{
    uint64_t now_us = stream->client->now_us;
    uint64_t lease_us = stream->lease_us == 0 ? UNKNOWN_LEASE_US : stream->lease_us;
    if (item->is_done) {
        return;
    }
    if (code == FLARE_ERR_LEASE_LOST) {
        lose_lease(stream, item);
    } else if (code == FLARE_OK) {
        item->extend_us = now_us + lease_us / 2;
        list_append(&stream->held, &item->held_link);
    } else {
        item->extend_us = now_us + EXTEND_RETRY_US;
        hold_first(stream, item);
    }
}

static err_t extend_on_end(struct flare_client *client, struct call *call,
                           const struct wire_frame *answer, enum ask_failure failure,
                           const struct flare_error *error)
{
    struct intake_extend *extend = container_of(call, struct intake_extend, call);
    struct flare_stream *stream = extend->stream;
    (void)client;
    (void)failure;
    if (answer != NULL) {
        TRY(settle_take_codes(&answer->settled, extend->count, extend->codes));
        if (answer->settled.lease_ms > 0) {
            learn_lease(stream, answer->settled.lease_ms);
        }
    }
    stream->settling--;
    stream->is_learning = false;
    for (size_t index = 0; index < extend->count; index++) {
        struct parcel_item *item = extend->items[index];
        extended(stream, item, answer == NULL ? error->code : extend->codes[index]);
        item->is_extending = false;
        free_when_done(item);
    }
    extend_free(extend);
    return NULL;
}

static struct intake_extend *extend_create(struct flare_stream *stream, size_t count)
{
    struct intake_extend *extend =
        call_create(sizeof *extend + count * sizeof extend->items[0], NULL);
    if (extend == NULL) {
        return NULL;
    }
    extend->call.on_end = extend_on_end;
    extend->stream = stream;
    extend->codes = calloc(count, sizeof extend->codes[0]);
    if (extend->codes == NULL) {
        call_free(&extend->call);
        return NULL;
    }
    return extend;
}

static enum flare_code extend_encode(struct intake_extend *extend)
{
    struct flare_receipt *receipts = calloc(extend->count, sizeof *receipts);
    if (receipts == NULL) {
        return FLARE_ERR_MEMORY;
    }
    for (size_t index = 0; index < extend->count; index++) {
        receipts[index] = extend->items[index]->delivery.receipt;
    }
    const struct flare_settle settle = {.kind = FLARE_SETTLE_EXTEND,
                                        .lease_ms = extend->stream->options.lease_ms,
                                        .receipts = receipts,
                                        .count = extend->count};
    enum flare_code code = settle_encode(extend->stream->client, &extend->call,
                                         &extend->stream->source, &settle, NULL);
    free(receipts);
    return code;
}

/* Sends an extend for the first `count` that are held. */
static void extend_first(struct flare_stream *stream, size_t count)
{
    struct intake_extend *extend = extend_create(stream, count);
    if (extend == NULL) {
        return;
    }
    while (extend->count < count) {
        struct list_link *link = list_pop(&stream->held);
        struct parcel_item *item = container_of(link, struct parcel_item, held_link);
        item->is_extending = true;
        extend->items[extend->count] = item;
        extend->count++;
    }
    stream->settling++;
    if (extend_encode(extend) == FLARE_OK) {
        peer_submit(stream->client, &extend->call.ask);
    } else {
        const struct flare_error error = {.code = FLARE_ERR_MEMORY};
        err_free(extend_on_end(stream->client, &extend->call, NULL, ASK_OVER, &error));
    }
}

void intake_extend_due(struct flare_stream *stream)
{
    uint64_t now_us = stream->client->now_us;
    uint64_t until_us = now_us + stream->lease_us / EXTEND_EARLY_PART;
    size_t count = 0;
    struct list_link *link = list_first(&stream->held);
    if (link == NULL || !peer_is_ready(&stream->client->peer)) {
        return;
    }
    const struct parcel_item *first = container_of(link, struct parcel_item, held_link);
    if (first->extend_us == UINT64_MAX) {
        /* How long leases are is learned by extending one. */
        if (!stream->is_learning) {
            stream->is_learning = true;
            extend_first(stream, 1);
        }
        return;
    }
    if (first->extend_us > now_us) {
        return;
    }
    while (link != NULL && count < EXTEND_MAX &&
           container_of(link, struct parcel_item, held_link)->extend_us <= until_us) {
        count++;
        link = list_next(&stream->held, link);
    }
    extend_first(stream, count);
}
