#include "client/intake.h"

#include <assert.h>
#include <stdlib.h>

#include "client/draft.h"
#include "client/problem.h"

enum { REOPEN_MIN_US = 50000, REOPEN_DOUBLINGS_MAX = 5, PART_OF_SIZE = 4 };

static err_t consume_on_end(struct flare_client *client, struct call *call,
                            const struct wire_frame *answer, enum ask_failure failure,
                            const struct flare_error *error);

/* ---- what comes -------------------------------------------------------------------------------
 */

/* Sends a frame that speaks of the stream by its id and has no answer. False: no memory. */
static bool send_note(struct flare_stream *stream, enum wire_type type, void *message)
{
    struct call *call = call_create(sizeof *call, NULL);
    uint64_t id = stream->consume->ask.id;
    if (call == NULL) {
        return false;
    }
    call->on_end = call_forget;
    if (call_encode_as(call, id, type, ASK_NO_ANSWER, message, NULL) != FLARE_OK) {
        call_free(call);
        return false;
    }
    peer_submit(stream->client, &call->ask);
    return true;
}

static uint64_t extend_time_us(const struct flare_stream *stream, uint64_t from_us)
{
    return stream->lease_us == 0 ? UINT64_MAX : from_us + stream->lease_us / 2;
}

static void take_item(struct flare_stream *stream, struct parcel_item *item)
{
    stream->here++;
    stream->here_size += parcel_credit(&item->delivery);
    stream->credit_size -= (int64_t)parcel_credit(&item->delivery);
    item->arrived_us = stream->client->now_us;
    if (!stream->options.no_extend) {
        item->extend_us = extend_time_us(stream, item->arrived_us);
        list_append(&stream->held, &item->held_link);
    }
    list_append(&stream->waiting, &item->link);
}

static err_t take_deliveries(struct flare_stream *stream, const struct wire_deliver *deliver)
{
    struct flare_batch *batch = NULL;
    if (deliver->deliveries.count > stream->credit) {
        return ERR(INVALID, "the broker delivered more than was asked for");
    }
    TRY(parcel_create(&deliver->deliveries, &stream->source, &batch));
    if (batch->count == 0) {
        flare_batch_free(batch);
        return NULL;
    }
    stream->credit -= batch->count;
    stream->refusals = 0;
    (void)pthread_mutex_lock(&stream->lock);
    for (uint32_t index = 0; index < batch->count; index++) {
        take_item(stream, &batch->items[index]);
    }
    stream->counts.delivered += batch->count;
    stream->counts.waiting += batch->count;
    if (batch->count == 1) {
        (void)pthread_cond_signal(&stream->work);
    } else {
        (void)pthread_cond_broadcast(&stream->work);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    return NULL;
}

static bool is_opening(struct flare_stream *stream)
{
    (void)pthread_mutex_lock(&stream->lock);
    bool is_opening = stream->opening != NULL;
    (void)pthread_mutex_unlock(&stream->lock);
    return is_opening;
}

/* Whoever waits for flare_stream_open learns how it went. False: nobody does. */
static bool tell_opening(struct flare_stream *stream, const struct flare_error *error)
{
    (void)pthread_mutex_lock(&stream->lock);
    struct await *opening = stream->opening;
    stream->opening = NULL;
    (void)pthread_mutex_unlock(&stream->lock);
    if (opening != NULL) {
        (void)await_finish(opening, error);
    }
    return opening != NULL;
}

static void close_consume(struct flare_stream *stream)
{
    call_free(stream->consume);
    stream->consume = NULL;
    stream->credit = 0;
    stream->credit_size = 0;
}

/* The stream cannot be opened, or has ended. What may pass is tried again later. */
static void end_stream(struct flare_stream *stream, const struct flare_error *error)
{
    bool is_passing = error->code == FLARE_ERR_UNAVAILABLE || error->code == FLARE_ERR_BUSY;
    uint32_t doublings =
        stream->refusals < REOPEN_DOUBLINGS_MAX ? stream->refusals : REOPEN_DOUBLINGS_MAX;
    close_consume(stream);
    stream->refusals++;
    stream->reopen_us = stream->client->now_us + ((uint64_t)REOPEN_MIN_US << doublings);
    if (stream->is_cancelling || (is_passing && !is_opening(stream))) {
        return;
    }
    stream->is_over = true;
    if (!tell_opening(stream, error) && stream->options.on_end != NULL) {
        stream->options.on_end(stream->options.user, error);
    }
}

static err_t consume_on_end(struct flare_client *client, struct call *call,
                            const struct wire_frame *answer, enum ask_failure failure,
                            const struct flare_error *error)
{
    struct flare_stream *stream = call->owner;
    struct flare_error ended;
    (void)client;
    if (answer != NULL && answer->type == WIRE_deliver) {
        return take_deliveries(stream, &answer->deliver);
    }
    if (answer != NULL) {
        (void)problem_of_code(&ended, answer->ended.code);
        if (answer->ended.detail.size > 0) {
            (void)problem_set(&ended, (enum flare_code)answer->ended.code, "%.*s",
                              (int)answer->ended.detail.size,
                              (const char *)answer->ended.detail.data);
        }
        end_stream(stream, &ended);
    } else if (failure == ASK_REFUSED) {
        end_stream(stream, error);
    } else {
        close_consume(stream);
        if (failure == ASK_OVER) {
            (void)tell_opening(stream, error);
        }
    }
    return NULL;
}

/* ---- opening and granting ---------------------------------------------------------------------
 */

static int64_t room(const struct flare_stream *stream)
{
    int64_t all = (int64_t)stream->options.concurrency + stream->options.prefetch;
    return all - stream->here - stream->credit;
}

static int64_t room_size(const struct flare_stream *stream)
{
    return (int64_t)stream->options.bytes - (int64_t)stream->here_size - stream->credit_size;
}

static uint32_t positive(int64_t value)
{
    return value > 0 ? (uint32_t)value : 0;
}

struct intake_question {
    struct call call;
    uint64_t id; /* of the consume that was sent before it */
};

/* Answered after what was asked before it: the broker has taken the stream, or has said no. */
static err_t asked_on_end(struct flare_client *client, struct call *call,
                          const struct wire_frame *answer, enum ask_failure failure,
                          const struct flare_error *error)
{
    struct flare_stream *stream = call->owner;
    uint64_t id = container_of(call, struct intake_question, call)->id;
    (void)client;
    (void)failure;
    (void)error;
    stream->settling--;
    if (answer != NULL && stream->consume != NULL && stream->consume->ask.id == id) {
        (void)tell_opening(stream, NULL);
    }
    call_free(call);
    return NULL;
}

/* There is no answer to a consume that is taken, so one to a ping is waited for. It is sent right
 * behind the consume and not with it, since that may have to wait for room in the broker's window.
 */
static void ask_whether_open(struct flare_client *client, struct ask *consume)
{
    struct flare_stream *stream = container_of(consume, struct call, ask)->owner;
    struct wire_ping ping = {0};
    if (!is_opening(stream)) {
        return;
    }
    struct intake_question *question = call_create(sizeof *question, NULL);
    if (question == NULL) {
        return;
    }
    question->id = consume->id;
    question->call.owner = stream;
    question->call.on_end = asked_on_end;
    if (call_encode(client, &question->call, WIRE_ping, WIRE_pong, &ping, NULL) != FLARE_OK) {
        call_free(&question->call);
        return;
    }
    question->call.ask.fate = ASK_UNKNOWN;
    stream->settling++;
    peer_submit(client, &question->call.ask);
}

static void open_stream(struct flare_stream *stream)
{
    struct wire_consume message = {.topic = span_text(stream->source.topic),
                                   .subscription = span_text(stream->source.subscription),
                                   .messages = positive(room(stream)),
                                   .bytes = positive(room_size(stream)),
                                   .lease_ms = stream->options.lease_ms,
                                   .consumer = draft_span(stream->options.consumer)};
    struct call *call = call_create(sizeof *call, NULL);
    stream->reopen_us = stream->client->now_us + REOPEN_MIN_US;
    if (call == NULL) {
        return;
    }
    call->owner = stream;
    call->on_end = consume_on_end;
    if (call_encode(stream->client, call, WIRE_consume, WIRE_ended, &message, NULL) != FLARE_OK) {
        call_free(call);
        return;
    }
    call->ask.on_sent = ask_whether_open;
    stream->consume = call;
    stream->credit = message.messages;
    stream->credit_size = message.bytes;
    peer_submit(stream->client, &call->ask);
}

static void grant(struct flare_stream *stream)
{
    struct wire_credit credit = {.messages = positive(room(stream)),
                                 .bytes = positive(room_size(stream))};
    if (!stream->consume->ask.is_sent) {
        return; /* what it grants goes with it, should it have to be sent anew */
    }
    if (credit.messages == 0 && credit.bytes < stream->options.bytes / PART_OF_SIZE) {
        return;
    }
    if ((credit.messages > 0 || credit.bytes > 0) && send_note(stream, WIRE_credit, &credit)) {
        stream->credit += credit.messages;
        stream->credit_size += credit.bytes;
    }
}

/* ---- closing ----------------------------------------------------------------------------------
 */

/* Gives back what no handler has begun. With the stream's lock held. */
static void return_waiting(struct flare_stream *stream)
{
    struct list_link *link;
    while ((link = list_pop(&stream->waiting)) != NULL) {
        struct parcel_item *item = container_of(link, struct parcel_item, link);
        item->verdict = INTAKE_RETURN;
        list_append(&stream->finished, link);
    }
    stream->counts.waiting = 0;
}

static void cancel(struct flare_stream *stream)
{
    struct wire_cancel message = {0};
    if (stream->consume == NULL || stream->is_cancelling) {
        return;
    }
    if (peer_withdraw(stream->client, &stream->consume->ask)) {
        close_consume(stream); /* the broker knows of no stream that it could end */
    } else {
        stream->is_cancelling = send_note(stream, WIRE_cancel, &message);
    }
}

/* With the stream's lock held: whether nothing of it is left to do. */
static bool is_quiet(const struct flare_stream *stream)
{
    return stream->consume == NULL && stream->counts.running == 0 && list_empty(&stream->waiting) &&
           list_empty(&stream->finished) && stream->settling == 0;
}

static void detach_when_quiet(struct flare_stream *stream)
{
    (void)pthread_mutex_lock(&stream->lock);
    if (is_quiet(stream)) {
        list_remove(&stream->link);
        stream->is_detached = true;
        (void)pthread_cond_broadcast(&stream->changed);
    }
    (void)pthread_mutex_unlock(&stream->lock);
}

/* ---- turns ------------------------------------------------------------------------------------
 */

static void stream_turn(struct flare_stream *stream)
{
    struct flare_client *client = stream->client;
    struct list finished;
    bool is_ready = peer_is_ready(&client->peer);
    list_init(&finished);
    (void)pthread_mutex_lock(&stream->lock);
    bool is_closing = stream->is_closing;
    if (is_closing) {
        stream->is_over = true; /* it is not opened again */
        return_waiting(stream);
    }
    list_splice(&finished, &stream->finished);
    (void)pthread_mutex_unlock(&stream->lock);
    intake_settle_all(stream, &finished);
    intake_retry_refused(stream);
    if (is_closing) {
        cancel(stream);
        intake_extend_due(stream);
        detach_when_quiet(stream); /* whoever closes it may free it now */
        return;
    }
    if (is_ready && !stream->is_over) {
        if (stream->consume != NULL) {
            grant(stream);
        } else if (client->now_us >= stream->reopen_us) {
            open_stream(stream);
        }
    }
    intake_extend_due(stream);
}

void intake_turn(struct flare_client *client)
{
    struct list_link *next = NULL;
    (void)pthread_mutex_lock(&client->lock);
    list_splice(&client->intakes, &client->joining);
    (void)pthread_mutex_unlock(&client->lock);
    for (struct list_link *link = list_first(&client->intakes); link != NULL; link = next) {
        next = list_next(&client->intakes, link);
        stream_turn(container_of(link, struct flare_stream, link));
    }
}

uint64_t intake_due_us(const struct flare_client *client)
{
    uint64_t due_us = UINT64_MAX;
    if (!peer_is_ready(&client->peer)) {
        return due_us;
    }
    for (struct list_link *link = list_first(&client->intakes); link != NULL;
         link = list_next(&client->intakes, link)) {
        const struct flare_stream *stream = container_of(link, struct flare_stream, link);
        struct list_link *held = list_first(&stream->held);
        if (held != NULL) {
            uint64_t extend_us = container_of(held, struct parcel_item, held_link)->extend_us;
            due_us = extend_us < due_us ? extend_us : due_us;
        }
        if (!list_empty(&stream->refused)) {
            due_us = stream->retry_us < due_us ? stream->retry_us : due_us;
        }
        if (stream->consume == NULL && !stream->is_over && stream->reopen_us < due_us) {
            due_us = stream->reopen_us;
        }
    }
    return due_us;
}
