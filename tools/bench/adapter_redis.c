/* Redis Streams through hiredis: XADD in pipelines; XREADGROUP, whose batch is acknowledged by an
 * XACK that leaves together with the next XREADGROUP. Entries stay in the stream when they are
 * acknowledged, which is the cheapest Redis can do.
 *
 * Redis works the commands of a connection in order, so that nothing may follow a read that blocks,
 * least of all an XACK. While batches come full, two reads are under way that do not block; what
 * comes after one that was not full is waited for by one that does. */
#ifdef PEERS_REDIS
#include <assert.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/base/buf.h"
#include "tools/bench/adapter.h"

#define STREAM "flare-peers"
#define GROUP "peers"

enum { COMMAND_MAX = 1 << 20, COMMAND_SIZE = 128 };

struct redis {
    redisContext *context;
    struct link_options options;
    struct buf command;
    size_t head_size; /* of an XADD in `command`, before the body */
    uint32_t *slots;  /* of a publisher: a ring in the order of their commands */
    uint32_t slot_first;
    uint32_t slot_count;
    struct buf acks;       /* ids of a consumer's batch as arguments of an XACK */
    uint32_t ack_count;    /* how many */
    uint32_t acks_pending; /* XACKs that are not answered */
    uint32_t reads_wanted; /* pulls of the driver without their batch */
    uint32_t reads_pending;
    bool is_drained; /* the last read has left nothing */
};

static err_t connect_to(const struct peer_address *address, redisContext **out)
{
    redisContext *context = redisConnect(address->host, address->port);
    if (context == NULL || context->err != 0) {
        err_t err = ERR(UNAVAILABLE, "connect to redis: %s",
                        context == NULL ? "no memory" : context->errstr);
        redisFree(context);
        return err;
    }
    *out = context;
    return NULL;
}

static err_t redis_open(const struct link_options *options, void **out)
{
    int one = 1;
    struct redis *link = calloc(1, sizeof *link);
    if (link == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    link->options = *options;
    link->is_drained = true;
    buf_init(&link->command, COMMAND_MAX);
    buf_init(&link->acks, COMMAND_MAX);
    *out = link;
    link->slots = calloc(options->window + 1, sizeof *link->slots);
    if (link->slots == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    TRY(connect_to(options->address, &link->context));
    /* It connected blocking, and is one that does not from now on. */
    link->context->flags &= ~REDIS_BLOCK;
    if (fcntl(link->context->fd, F_SETFL, O_NONBLOCK) != 0 ||
        setsockopt(link->context->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) {
        return ERR(IO, "a connection does not become non-blocking");
    }
    buf_printf(&link->command,
               "*5\r\n$4\r\nXADD\r\n$%zu\r\n" STREAM "\r\n$1\r\n*\r\n$1\r\nb\r\n$%u\r\n",
               sizeof STREAM - 1, options->size);
    link->head_size = link->command.size;
    return NULL;
}

static void redis_close(void *user)
{
    struct redis *link = user;
    redisFree(link->context);
    buf_deinit(&link->command);
    buf_deinit(&link->acks);
    free(link->slots);
    free(link);
}

static err_t redis_publish(void *user, uint32_t slot, struct span body)
{
    struct redis *link = user;
    assert(link->slot_count < link->options.window && body.size == link->options.size);
    link->command.size = link->head_size;
    buf_append_span(&link->command, body);
    buf_append(&link->command, "\r\n", 2);
    if (link->command.failed ||
        redisAppendFormattedCommand(link->context, (const char *)link->command.data,
                                    link->command.size) != REDIS_OK) {
        return ERR(MEMORY, "XADD: %s", link->context->errstr);
    }
    link->slots[(link->slot_first + link->slot_count++) % link->options.window] = slot;
    return NULL;
}

static err_t send_read(struct redis *link, const char *block)
{
    char read[COMMAND_SIZE];
    (void)snprintf(read, sizeof read,
                   "XREADGROUP GROUP " GROUP " c%u COUNT %u%s STREAMS " STREAM " >",
                   link->options.index, link->options.batch, block);
    if (redisAppendCommand(link->context, read) != REDIS_OK) {
        return ERR(MEMORY, "XREADGROUP: %s", link->context->errstr);
    }
    link->reads_pending++;
    return NULL;
}

static err_t send_reads(struct redis *link)
{
    if (link->is_drained) {
        return link->reads_pending == 0 ? send_read(link, " BLOCK 0") : NULL;
    }
    while (link->reads_pending < link->reads_wanted) {
        TRY(send_read(link, ""));
    }
    return NULL;
}

static err_t redis_pull(void *user)
{
    struct redis *link = user;
    link->reads_wanted++;
    return send_reads(link);
}

static err_t redis_ack(void *user)
{
    struct redis *link = user;
    link->command.size = 0;
    buf_printf(&link->command, "*%u\r\n$4\r\nXACK\r\n$%zu\r\n" STREAM "\r\n$%zu\r\n" GROUP "\r\n",
               3 + link->ack_count, sizeof STREAM - 1, sizeof GROUP - 1);
    buf_append_span(&link->command, buf_span(&link->acks));
    if (link->command.failed || link->acks.failed ||
        redisAppendFormattedCommand(link->context, (const char *)link->command.data,
                                    link->command.size) != REDIS_OK) {
        return ERR(MEMORY, "XACK: %s", link->context->errstr);
    }
    buf_reset(&link->acks);
    link->ack_count = 0;
    link->acks_pending++;
    return NULL;
}

/* ---- replies ---- */

/* [[stream, [[id, [field, body]], ...]]], or nothing */
static err_t take_entries(struct redis *link, const redisReply *reply)
{
    const redisReply *entries = reply->type == REDIS_REPLY_ARRAY && reply->elements == 1
                                    ? reply->element[0]->element[1]
                                    : NULL;
    size_t count = entries == NULL ? 0 : entries->elements;
    link->reads_pending--;
    link->is_drained = link->options.batch == 1 || count < link->options.batch;
    if (count == 0) {
        return send_reads(link);
    }
    for (size_t i = 0; i < count; i++) {
        const redisReply *id = entries->element[i]->element[0];
        const redisReply *fields = entries->element[i]->element[1];
        if (fields->elements != 2) {
            return ERR(FORMAT, "an entry has other fields than were sent");
        }
        buf_printf(&link->acks, "$%zu\r\n", id->len);
        buf_append(&link->acks, id->str, id->len);
        buf_append(&link->acks, "\r\n", 2);
        link->ack_count++;
        link->options.events->received(link->options.user,
                                       span_of(fields->element[1]->str, fields->element[1]->len));
    }
    link->reads_wanted--;
    link->options.events->batch_ended(link->options.user);
    return NULL;
}

static err_t take_reply(struct redis *link, const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        return ERR(UNAVAILABLE, "redis: %s", reply->str);
    }
    if (link->slot_count > 0) {
        uint32_t slot = link->slots[link->slot_first];
        link->slot_first = (link->slot_first + 1) % link->options.window;
        link->slot_count--;
        link->options.events->confirmed(link->options.user, slot);
        return NULL;
    }
    if (link->acks_pending > 0 && reply->type == REDIS_REPLY_INTEGER) {
        link->acks_pending--;
        link->options.events->acked(link->options.user, (uint32_t)reply->integer);
        return NULL;
    }
    if (link->reads_pending > 0) {
        return take_entries(link, reply);
    }
    return ERR(FORMAT, "redis answered more than it was asked");
}

static err_t take_replies(struct redis *link)
{
    for (;;) {
        void *reply = NULL;
        if (redisGetReplyFromReader(link->context, &reply) != REDIS_OK) {
            return ERR(FORMAT, "redis: %s", link->context->errstr);
        }
        if (reply == NULL) {
            return NULL;
        }
        err_t err = take_reply(link, reply);
        freeReplyObject(reply);
        TRY(err);
    }
}

static err_t redis_advance(void *user, struct link_wait *wait)
{
    struct redis *link = user;
    int all_sent = 0;
    if (redisBufferWrite(link->context, &all_sent) != REDIS_OK ||
        redisBufferRead(link->context) != REDIS_OK) {
        return ERR(UNAVAILABLE, "redis: %s", link->context->errstr);
    }
    TRY(take_replies(link));
    if (redisBufferWrite(link->context, &all_sent) != REDIS_OK) {
        return ERR(UNAVAILABLE, "redis: %s", link->context->errstr);
    }
    wait->fd = link->context->fd;
    wait->events = (short)(POLLIN | (all_sent == 0 ? POLLOUT : 0));
    return NULL;
}

/* ---- before and after ---- */

static err_t command(redisContext *context, const char *text, redisReply **out)
{
    redisReply *reply = redisCommand(context, text);
    if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
        err_t err = ERR(UNAVAILABLE, "%s: %s", text, reply == NULL ? context->errstr : reply->str);
        freeReplyObject(reply);
        return err;
    }
    *out = reply;
    return NULL;
}

static err_t redis_prepare(const struct peer_address *address)
{
    static const char *const commands[] = {"DEL " STREAM,
                                           "XGROUP CREATE " STREAM " " GROUP " 0 MKSTREAM"};
    redisContext *context = NULL;
    redisReply *reply = NULL;
    err_t err = NULL;
    TRY(connect_to(address, &context));
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        TRY_OUT(command(context, commands[i], &reply));
        freeReplyObject(reply);
    }
out:
    redisFree(context);
    return err;
}

/* The group's "pending" and "lag" of the answer [[name, value, ...]]. */
static err_t redis_held(const struct peer_address *address, uint64_t *out)
{
    redisContext *context = NULL;
    redisReply *reply = NULL;
    err_t err = NULL;
    uint64_t held = 0;
    TRY(connect_to(address, &context));
    TRY_OUT(command(context, "XINFO GROUPS " STREAM, &reply));
    for (size_t i = 0; reply->elements == 1 && i + 1 < reply->element[0]->elements; i += 2) {
        const char *name = reply->element[0]->element[i]->str;
        if (strcmp(name, "pending") == 0 || strcmp(name, "lag") == 0) {
            held += (uint64_t)reply->element[0]->element[i + 1]->integer;
        }
    }
    freeReplyObject(reply);
    *out = held;
out:
    redisFree(context);
    return err;
}

const struct adapter adapter_redis = {
    .name = "redis",
    .prepare = redis_prepare,
    .held = redis_held,
    .open = redis_open,
    .publish = redis_publish,
    .pull = redis_pull,
    .ack = redis_ack,
    .advance = redis_advance,
    .close = redis_close,
};
#endif
