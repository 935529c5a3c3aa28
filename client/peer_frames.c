#include "client/peer_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "client/call.h"
#include "client/problem.h"

enum {
    FRAME_SIZE_MAX_BEFORE = 64 * 1024, /* of a frame before the broker has told its limits */
    LINE_MAX_SIZE = 4096,              /* of a traced frame */
    LEAVE_MS = 5000,                   /* how long a broker that stops may take over its answers */
};

void peer_trace(struct flare_client *client, bool is_sent, struct span payload)
{
    struct wire_frame frame;
    struct buf line;
    if (client->options.trace == NULL) {
        return;
    }
    buf_init(&line, LINE_MAX_SIZE);
    err_free(wire_decode(payload, &frame));
    wire_print(&line, &frame);
    buf_append_byte(&line, 0);
    if (!line.failed) {
        client->options.trace(client->options.user, is_sent, (const char *)line.data);
    }
    buf_deinit(&line);
}

/* ---- asks -------------------------------------------------------------------------------------
 */

/* Takes an ask off what is under way. */
static void end_ask(struct flare_client *client, struct ask *ask)
{
    struct peer *peer = &client->peer;
    list_remove(&ask->link);
    void *removed = map_remove(&peer->by_id, ask->id);
    assert(removed == ask);
    (void)removed;
    if (ask_waits(ask)) {
        struct list_link *held = list_pop(&peer->held);
        peer->waiting_count--;
        if (held != NULL) {
            list_append(&peer->pending, held);
        }
    }
    peer->is_useful = true;
}

static err_t answer_ask(struct flare_client *client, struct ask *ask,
                        const struct wire_frame *frame)
{
    struct list_link *before = ask->link.prev;
    end_ask(client, ask);
    err_t err = ask->on_answer(client, ask, frame);
    if (err != NULL) {
        /* It is as before, to be sent again. */
        list_insert_after(before, &ask->link);
        return err_passed(err, __func__);
    }
    return NULL;
}

static err_t on_answer(struct flare_client *client, const struct wire_frame *frame)
{
    struct ask *ask = map_get(&client->peer.by_id, frame->id);
    if (ask == NULL || ask->answer != frame->type) {
        return ERR(INVALID, "the broker answered \"%s\" to nothing that was asked",
                   wire_shape(frame->type)->name);
    }
    return answer_ask(client, ask, frame);
}

static err_t on_failure(struct flare_client *client, const struct wire_frame *frame)
{
    const struct wire_failure *failure = &frame->failure;
    struct peer *peer = &client->peer;
    struct flare_error error;
    struct span text = failure->detail.size > 0 ? failure->detail : failure->slug;
    (void)problem_set(&error, (enum flare_code)failure->code, "%.*s", (int)text.size,
                      (const char *)text.data);
    if (failure->id == 0 || peer->step == PEER_GREETING) {
        bool is_known = strcmp(flare_code_name(error.code), "unknown") != 0;
        return err_make(is_known ? (enum err_code)failure->code : ERR_INTERNAL, __FILE__, __LINE__,
                        __func__, "%s", error.message);
    }
    struct ask *ask = map_get(&peer->by_id, failure->id);
    if (ask == NULL) {
        return NULL; /* of a frame without answer, say credit for a stream that has just ended */
    }
    end_ask(client, ask);
    if (peer->step == PEER_LEAVING && ask->fate == ASK_AGAIN &&
        error.code == FLARE_ERR_UNAVAILABLE) {
        list_append(&peer->pending, &ask->link);
        return NULL;
    }
    ask->on_failed(client, ask, ASK_REFUSED, &error);
    return NULL;
}

static err_t on_deliver(struct flare_client *client, const struct wire_frame *frame)
{
    struct ask *ask = map_get(&client->peer.by_id, frame->id);
    if (ask == NULL || ask->type != WIRE_consume) {
        return ERR(INVALID, "the broker delivered to a stream that is not open");
    }
    client->peer.is_useful = true;
    return ask->on_answer(client, ask, frame);
}

static err_t on_welcome(struct flare_client *client, const struct wire_frame *frame)
{
    const struct wire_welcome *welcome = &frame->welcome;
    struct peer *peer = &client->peer;
    char detail[256];
    if (peer->step != PEER_GREETING) {
        return ERR(INVALID, "the broker said welcome twice");
    }
    if (welcome->version > WIRE_VERSION) {
        return ERR(INVALID, "the broker speaks version %u of the protocol, this is %d",
                   welcome->version, WIRE_VERSION);
    }
    (void)snprintf(detail, sizeof detail, "%.*s", (int)welcome->broker.size,
                   (const char *)welcome->broker.data);
    peer->step = PEER_READY;
    peer->lost_us = 0;
    (void)pthread_mutex_lock(&client->lock);
    client->welcome = *welcome;
    client->welcome.broker = (struct span){0};
    atomic_store(&client->message_size_max, welcome->message_size_max);
    client->has_greeted = true;
    outbox_limit(client);
    (void)pthread_cond_broadcast(&client->changed);
    (void)pthread_mutex_unlock(&client->lock);
    engine_tell(client, FLARE_STATE_CONNECTED, detail);
    return NULL;
}

static void on_goodbye(struct flare_client *client)
{
    client->peer.step = PEER_LEAVING;
    client->peer.step_due_us = client->now_us + (uint64_t)LEAVE_MS * 1000;
}

/* ---- pings ------------------------------------------------------------------------------------
 */

bool peer_ping(struct flare_client *client)
{
    struct wire_ping message = {0};
    struct call *call = call_create(sizeof *call, NULL);
    if (call == NULL) {
        return false;
    }
    call->on_end = call_forget;
    if (call_encode(client, call, WIRE_ping, WIRE_pong, &message, NULL) != FLARE_OK) {
        call_free(call);
        return false;
    }
    call->ask.fate = ASK_UNKNOWN; /* it is about this connection */
    peer_submit(client, &call->ask);
    return true;
}

/* ---- frames -----------------------------------------------------------------------------------
 */

static err_t on_known_frame(struct flare_client *client, const struct wire_frame *frame)
{
    switch (frame->type) {
    case WIRE_welcome:
        return on_welcome(client, frame);
    case WIRE_failure:
        return on_failure(client, frame);
    case WIRE_goodbye:
        on_goodbye(client);
        return NULL;
    case WIRE_deliver:
        return on_deliver(client, frame);
    case WIRE_pong:
    case WIRE_published:
    case WIRE_pulled:
    case WIRE_settled:
    case WIRE_configured:
    case WIRE_ended:
        return on_answer(client, frame);
    case WIRE_hello:
    case WIRE_ping:
    case WIRE_publish:
    case WIRE_pull:
    case WIRE_ack:
    case WIRE_nack:
    case WIRE_extend:
    case WIRE_consume:
    case WIRE_credit:
    case WIRE_cancel:
    case WIRE_topic_put:
    case WIRE_sub_put:
        break;
    }
    return ERR(INVALID, "the broker sent \"%s\", which is a client's",
               wire_shape(frame->type)->name);
}

static err_t on_frame(struct flare_client *client, struct span payload)
{
    struct wire_frame frame;
    err_t err = outbox_peek(payload, &frame) ? NULL : wire_decode(payload, &frame);
    if (err != NULL && err_code(err) == ERR_NOT_IMPLEMENTED) {
        err_free(err); /* of a later version: it is of no interest to this one */
        return NULL;
    }
    TRY(err);
    if (client->options.trace != NULL) {
        peer_trace(client, false, payload);
    }
    if (client->peer.step == PEER_GREETING && frame.type != WIRE_welcome &&
        frame.type != WIRE_failure) {
        return ERR(INVALID, "the broker sent \"%s\" before it said welcome",
                   wire_shape(frame.type)->name);
    }
    return on_known_frame(client, &frame);
}

err_t peer_receive(struct flare_client *client, struct span bytes, size_t *used)
{
    size_t at = 0;
    *used = 0;
    while (bytes.size - at >= WIRE_SIZE_BYTES) {
        size_t size = wire_frame_size(bytes.data + at);
        size_t size_max =
            client->has_greeted ? client->welcome.frame_size_max : FRAME_SIZE_MAX_BEFORE;
        if (memcmp(bytes.data + at, "HTTP", WIRE_SIZE_BYTES) == 0 && !client->has_greeted) {
            return ERR(INVALID, "what answers speaks HTTP; the wire protocol has its own address");
        }
        if (size > size_max) {
            return ERR(TOO_LARGE, "the broker sent a frame of %zu bytes, the limit is %zu", size,
                       size_max);
        }
        if (bytes.size - at - WIRE_SIZE_BYTES < size) {
            break;
        }
        TRY(on_frame(client, span_of(bytes.data + at + WIRE_SIZE_BYTES, size)));
        at += WIRE_SIZE_BYTES + size;
        *used = at;
    }
    return NULL;
}
