/* NATS JetStream through libnats. The library's own publishing and fetching hand each message
 * through threads and condition variables; the same requests on subjects of its protocol, with the
 * library reading in our loop, cost a fraction of that, so they are used here.
 *
 * Pulling keeps credit for two batches at the server; each message is acknowledged by itself, as
 * the explicit policy asks. */
#ifdef PEERS_NATS
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <assert.h>
#include <nats/nats.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/buf.h"
#include "tools/bench/adapter.h"

#define STREAM "flare-peers"
#define SUBJECT "flare-peers"
#define CONSUMER "peers"
#define NEXT_SUBJECT "$JS.API.CONSUMER.MSG.NEXT." STREAM "." CONSUMER

enum {
    NAME_SIZE = 96,
    BUFFER_SIZE = 256 * 1024,
    CONNECT_TIMEOUT_MS = 10000,
    PENDING_MAX = 1 << 20,
    SETTLE_MS = 100,
    HELD_BY_CONSUMER_MAX = 1 << 20
};
static const int64_t ack_wait_ns = 3600 * INT64_C(1000000000);
static const int64_t pull_expires_ns = 600 * INT64_C(1000000000);

struct nats {
    natsConnection *connection;
    natsSubscription *inbox;
    struct link_options options;
    natsSock socket;
    _Atomic bool wants_write;          /* a thread of the library may set it, too */
    char (*reply_subjects)[NAME_SIZE]; /* of a publisher's slots */
    char inbox_prefix[NAME_SIZE / 2];
    natsMsg **held; /* a consumer's messages that are not acknowledged */
    uint32_t held_count;
    uint32_t credit; /* messages asked for that have not come */
};

static err_t check(natsStatus status, const char *what)
{
    return status == NATS_OK ? NULL
                             : ERR(UNAVAILABLE, "nats: %s: %s", what, natsStatus_GetText(status));
}

/* ---- the library's hooks into an event loop ---- */

static natsStatus on_attach(void **user, void *loop, natsConnection *connection, natsSock socket)
{
    struct nats *link = loop;
    (void)connection;
    link->socket = socket;
    *user = link;
    return NATS_OK;
}

static natsStatus on_read(void *user, bool add)
{
    (void)user;
    (void)add; /* the driver always reads */
    return NATS_OK;
}

static natsStatus on_write(void *user, bool add)
{
    struct nats *link = user;
    link->wants_write = add;
    return NATS_OK;
}

static natsStatus on_detach(void *user)
{
    struct nats *link = user;
    link->socket = -1;
    return NATS_OK;
}

/* ---- links ---- */

static err_t connect_to(const struct peer_address *address, struct nats *link, natsConnection **out)
{
    natsOptions *options = NULL;
    char url[NAME_SIZE];
    (void)snprintf(url, sizeof url, "nats://%s:%u", address->host, address->port);
    natsStatus status = natsOptions_Create(&options);
    status = status != NATS_OK ? status : natsOptions_SetURL(options, url);
    status = status != NATS_OK ? status : natsOptions_SetAllowReconnect(options, false);
    status = status != NATS_OK ? status : natsOptions_SetTimeout(options, CONNECT_TIMEOUT_MS);
    status = status != NATS_OK ? status : natsOptions_SetIOBufSize(options, BUFFER_SIZE);
    /* Without it a thread of the library is who notices, a millisecond later, that there is
     * something to be sent; with it our hook is called at once. */
    status = status != NATS_OK ? status : natsOptions_SetSendAsap(options, true);
    status = status != NATS_OK ? status : natsOptions_SetMaxPendingMsgs(options, PENDING_MAX);
    if (link != NULL && status == NATS_OK) {
        status = natsOptions_SetEventLoop(options, link, on_attach, on_read, on_write, on_detach);
    }
    status = status != NATS_OK ? status : natsConnection_Connect(out, options);
    natsOptions_Destroy(options);
    return check(status, url);
}

static err_t nats_open(const struct link_options *options, void **out)
{
    struct nats *link = calloc(1, sizeof *link);
    if (link == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    link->options = *options;
    link->socket = -1;
    *out = link;
    link->reply_subjects = calloc(options->window + 1, sizeof *link->reply_subjects);
    link->held = calloc(2 * options->batch + 1, sizeof(natsMsg *));
    if (link->reply_subjects == NULL || link->held == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    (void)snprintf(link->inbox_prefix, sizeof link->inbox_prefix, "_PEERS.%u.", options->index);
    for (uint32_t slot = 0; slot < options->window; slot++) {
        (void)snprintf(link->reply_subjects[slot], NAME_SIZE, "%s%u", link->inbox_prefix, slot);
    }
    TRY(connect_to(options->address, link, &link->connection));
    char wildcard[NAME_SIZE];
    (void)snprintf(wildcard, sizeof wildcard, "%s*", link->inbox_prefix);
    TRY(check(natsConnection_SubscribeSync(&link->inbox, link->connection, wildcard), wildcard));
    return check(natsSubscription_SetPendingLimits(link->inbox, -1, -1), "limits");
}

static void nats_close(void *user)
{
    struct nats *link = user;
    natsSubscription_Destroy(link->inbox);
    natsConnection_Destroy(link->connection);
    for (uint32_t i = 0; i < link->held_count; i++) {
        natsMsg_Destroy(link->held[i]);
    }
    free(link->held);
    free(link->reply_subjects);
    free(link);
}

static err_t nats_publish(void *user, uint32_t slot, struct span body)
{
    struct nats *link = user;
    return check(natsConnection_PublishRequest(link->connection, SUBJECT,
                                               link->reply_subjects[slot], body.data,
                                               (int)body.size),
                 "publish");
}

/* One at a time is that; larger batches are asked for before the one before has been worked off. */
static uint32_t credit_max(const struct nats *link)
{
    return link->options.batch == 1 ? 1 : 2 * link->options.batch;
}

static err_t nats_pull(void *user)
{
    struct nats *link = user;
    while (link->credit + link->options.batch <= credit_max(link)) {
        char request[NAME_SIZE];
        int size = snprintf(request, sizeof request, "{\"batch\":%u,\"expires\":%lld}",
                            link->options.batch, (long long)pull_expires_ns);
        char inbox[NAME_SIZE];
        (void)snprintf(inbox, sizeof inbox, "%sp", link->inbox_prefix);
        TRY(check(
            natsConnection_PublishRequest(link->connection, NEXT_SUBJECT, inbox, request, size),
            "pull"));
        link->credit += link->options.batch;
    }
    return NULL;
}

static err_t nats_ack(void *user)
{
    struct nats *link = user;
    uint32_t count = link->held_count;
    for (uint32_t i = 0; i < count; i++) {
        TRY(check(
            natsConnection_Publish(link->connection, natsMsg_GetReply(link->held[i]), "+ACK", 4),
            "ack"));
        natsMsg_Destroy(link->held[i]);
    }
    link->held_count = 0;
    link->options.events->acked(link->options.user, count);
    return NULL;
}

/* ---- messages ---- */

static err_t take_confirmation(struct nats *link, natsMsg *message)
{
    struct span body = span_of(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message));
    const char *slot = natsMsg_GetSubject(message) + strlen(link->inbox_prefix);
    err_t err = NULL;
    if (body.size == 0 || memmem(body.data, body.size, "\"error\"", 7) != NULL) {
        err = ERR(UNAVAILABLE, "nats: publish: %.*s", (int)body.size, (const char *)body.data);
    } else {
        link->options.events->confirmed(link->options.user, (uint32_t)strtoul(slot, NULL, 10));
    }
    natsMsg_Destroy(message);
    return err;
}

/* A message, or without a reply subject word of a pull that ended early. */
static err_t take_message(struct nats *link, natsMsg *message)
{
    if (natsMsg_GetReply(message) == NULL) {
        const char *status = NULL;
        (void)natsMsgHeader_Get(message, "Status", &status);
        err_t err = ERR(UNAVAILABLE, "nats: a pull ended: %s", status == NULL ? "?" : status);
        natsMsg_Destroy(message);
        return err;
    }
    assert(link->held_count <= 2 * link->options.batch);
    link->held[link->held_count++] = message;
    link->credit -= link->credit > 0 ? 1 : 0;
    link->options.events->received(
        link->options.user,
        span_of(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message)));
    return NULL;
}

static err_t take_messages(struct nats *link)
{
    for (;;) {
        natsMsg *message = NULL;
        natsStatus status = natsSubscription_NextMsg(&message, link->inbox, 0);
        if (status == NATS_TIMEOUT) {
            break;
        }
        TRY(check(status, "receive"));
        if (!link->options.consumer) {
            TRY(take_confirmation(link, message));
            continue;
        }
        TRY(take_message(link, message));
        if (link->held_count == link->options.batch) {
            link->options.events->batch_ended(link->options.user);
        }
    }
    if (link->held_count > 0) {
        link->options.events->batch_ended(link->options.user);
    }
    return NULL;
}

static err_t nats_advance(void *user, struct link_wait *wait)
{
    struct nats *link = user;
    struct pollfd readable = {.fd = link->socket, .events = POLLIN};
    if (link->wants_write) {
        natsConnection_ProcessWriteEvent(link->connection);
    }
    if (poll(&readable, 1, 0) > 0) {
        natsConnection_ProcessReadEvent(link->connection);
    }
    TRY(take_messages(link));
    if (link->wants_write) {
        natsConnection_ProcessWriteEvent(link->connection);
    }
    if (natsConnection_IsClosed(link->connection)) {
        return ERR(UNAVAILABLE, "nats: the server closed a connection");
    }
    wait->fd = link->socket;
    wait->events = (short)(POLLIN | (link->wants_write ? POLLOUT : 0));
    return NULL;
}

/* ---- before and after ---- */

static err_t open_stream(const struct peer_address *address, natsConnection **connection,
                         jsCtx **context)
{
    TRY(connect_to(address, NULL, connection));
    return check(natsConnection_JetStream(context, *connection, NULL), "JetStream");
}

static err_t make_stream(jsCtx *context)
{
    static const char *subjects[] = {SUBJECT};
    jsStreamConfig stream;
    jsConsumerConfig consumer;
    jsErrCode code = 0;
    (void)js_DeleteStream(context, STREAM, NULL, &code); /* there may be none */
    (void)jsStreamConfig_Init(&stream);
    stream.Name = STREAM;
    stream.Subjects = subjects;
    stream.SubjectsLen = 1;
    stream.Storage = js_FileStorage;
    TRY(check(js_AddStream(NULL, context, &stream, NULL, &code), "add the stream"));
    (void)jsConsumerConfig_Init(&consumer);
    consumer.Durable = CONSUMER;
    consumer.AckPolicy = js_AckExplicit;
    consumer.AckWait = ack_wait_ns;
    consumer.MaxAckPending = HELD_BY_CONSUMER_MAX;
    return check(js_AddConsumer(NULL, context, STREAM, &consumer, NULL, &code), "add the consumer");
}

static err_t nats_prepare(const struct peer_address *address)
{
    natsConnection *connection = NULL;
    jsCtx *context = NULL;
    err_t err = NULL;
    TRY_OUT(open_stream(address, &connection, &context));
    TRY_OUT(make_stream(context));
out:
    jsCtx_Destroy(context);
    natsConnection_Destroy(connection);
    return err;
}

static err_t nats_held(const struct peer_address *address, uint64_t *out)
{
    natsConnection *connection = NULL;
    jsCtx *context = NULL;
    jsConsumerInfo *info = NULL;
    err_t err = NULL;
    TRY_OUT(open_stream(address, &connection, &context));
    TRY_OUT(check(js_GetConsumerInfo(&info, context, STREAM, CONSUMER, NULL, NULL), "held"));
    *out = info->NumPending + (uint64_t)info->NumAckPending;
out:
    jsConsumerInfo_Destroy(info);
    jsCtx_Destroy(context);
    natsConnection_Destroy(connection);
    return err;
}

const struct adapter adapter_nats = {
    .name = "nats",
    .is_pushed = true,
    .settle_ms = SETTLE_MS,
    .prepare = nats_prepare,
    .held = nats_held,
    .open = nats_open,
    .publish = nats_publish,
    .pull = nats_pull,
    .ack = nats_ack,
    .advance = nats_advance,
    .close = nats_close,
};
#endif
