/* RabbitMQ through librabbitmq: a quorum queue with publisher confirms, and a consumer whose
 * prefetch is two batches and whose acks cover all before them. The library writes each message
 * with calls of its own, so the socket is corked while several leave. */
#ifdef PEERS_RABBITMQ
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tools/bench/adapter.h"

#define QUEUE "flare-peers"

enum { CHANNEL = 1, FRAME_MAX = 131072, PERSISTENT = 2, SETTLE_MS = 500 };

struct rabbitmq {
    amqp_connection_state_t connection;
    struct link_options options;
    int fd;
    bool corked;
    uint64_t published;    /* the delivery tag of the last publish */
    uint64_t confirmed_to; /* tags up to this are confirmed */
    uint32_t *slots;       /* of a tag, at tag % (2 * window) */
    bool *waiting;         /* the same: not confirmed */
    uint64_t received;     /* the delivery tag of the last message */
    uint64_t acked;        /* tags up to this are acknowledged */
};

static err_t check_reply(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
        return NULL;
    }
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        return ERR(UNAVAILABLE, "rabbitmq: %s: %s", what, amqp_error_string2(reply.library_error));
    }
    if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *method = reply.reply.decoded;
        return ERR(UNAVAILABLE, "rabbitmq: %s: %.*s", what, (int)method->reply_text.len,
                   (const char *)method->reply_text.bytes);
    }
    return ERR(UNAVAILABLE, "rabbitmq: %s: method 0x%08x", what, reply.reply.id);
}

static err_t check_status(int status, const char *what)
{
    return status == AMQP_STATUS_OK
               ? NULL
               : ERR(UNAVAILABLE, "rabbitmq: %s: %s", what, amqp_error_string2(status));
}

static void disconnect(amqp_connection_state_t connection)
{
    if (connection != NULL) {
        (void)amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
        (void)amqp_destroy_connection(connection);
    }
}

static err_t connect_to(const struct peer_address *address, amqp_connection_state_t *out)
{
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = connection == NULL ? NULL : amqp_tcp_socket_new(connection);
    err_t err = NULL;
    if (socket == NULL) {
        err = ERR(MEMORY, "no memory for a connection");
        goto out;
    }
    TRY_OUT(check_status(amqp_socket_open(socket, address->host, address->port), "connect"));
    TRY_OUT(check_reply(
        amqp_login(connection, "/", 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"),
        "login"));
    (void)amqp_channel_open(connection, CHANNEL);
    TRY_OUT(check_reply(amqp_get_rpc_reply(connection), "open a channel"));
    *out = connection;
    return NULL;
out:
    if (connection != NULL) {
        (void)amqp_destroy_connection(connection);
    }
    return err;
}

static err_t start_publisher(struct rabbitmq *link)
{
    size_t ring = 2 * (size_t)link->options.window;
    link->slots = calloc(ring, sizeof *link->slots);
    link->waiting = calloc(ring, sizeof *link->waiting);
    if (link->slots == NULL || link->waiting == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    (void)amqp_confirm_select(link->connection, CHANNEL);
    return check_reply(amqp_get_rpc_reply(link->connection), "confirm.select");
}

static err_t start_consumer(struct rabbitmq *link)
{
    uint32_t batch = link->options.batch;
    (void)amqp_basic_qos(link->connection, CHANNEL, 0, (uint16_t)(batch == 1 ? 1 : 2 * batch), 0);
    TRY(check_reply(amqp_get_rpc_reply(link->connection), "basic.qos"));
    (void)amqp_basic_consume(link->connection, CHANNEL, amqp_cstring_bytes(QUEUE), amqp_empty_bytes,
                             0, 0, 0, amqp_empty_table);
    return check_reply(amqp_get_rpc_reply(link->connection), "basic.consume");
}

static err_t rabbitmq_open(const struct link_options *options, void **out)
{
    struct rabbitmq *link = calloc(1, sizeof *link);
    if (link == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    link->options = *options;
    *out = link;
    TRY(connect_to(options->address, &link->connection));
    link->fd = amqp_get_sockfd(link->connection);
    return options->consumer ? start_consumer(link) : start_publisher(link);
}

static void rabbitmq_close(void *user)
{
    struct rabbitmq *link = user;
    disconnect(link->connection);
    free(link->slots);
    free(link->waiting);
    free(link);
}

static void cork(struct rabbitmq *link, bool corked)
{
    int value = corked;
    if (link->corked != corked) {
        link->corked = corked;
        (void)setsockopt(link->fd, IPPROTO_TCP, TCP_CORK, &value, sizeof value);
    }
}

static err_t rabbitmq_publish(void *user, uint32_t slot, struct span body)
{
    static const amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
                                                       .delivery_mode = PERSISTENT};
    struct rabbitmq *link = user;
    uint64_t tag = ++link->published;
    size_t at = tag % (2 * link->options.window);
    assert(!link->waiting[at]);
    link->slots[at] = slot;
    link->waiting[at] = true;
    if (link->options.window > 1) {
        cork(link, true);
    }
    /* The library takes bytes to be sent as bytes that it might write to. */
    const amqp_bytes_t bytes = {.len = body.size, .bytes = (void *)(uintptr_t)body.data};
    return check_status(amqp_basic_publish(link->connection, CHANNEL, amqp_empty_bytes,
                                           amqp_cstring_bytes(QUEUE), 0, 0, &properties, bytes),
                        "publish");
}

/* Its messages are pushed: the prefetch is the credit, and acks renew it. */
static err_t rabbitmq_pull(void *user)
{
    (void)user;
    return NULL;
}

static err_t rabbitmq_ack(void *user)
{
    struct rabbitmq *link = user;
    uint32_t count = (uint32_t)(link->received - link->acked);
    TRY(check_status(amqp_basic_ack(link->connection, CHANNEL, link->received, 1), "ack"));
    link->acked = link->received;
    link->options.events->acked(link->options.user, count);
    return NULL;
}

/* ---- frames ---- */

static void confirm_tag(struct rabbitmq *link, uint64_t tag)
{
    size_t at = tag % (2 * link->options.window);
    if (link->waiting[at]) {
        link->waiting[at] = false;
        link->options.events->confirmed(link->options.user, link->slots[at]);
    }
}

/* All tags up to this one: those that are not confirmed are among the last of the ring, where an
 * older tag would be taken for the one that has its place now. */
static void confirm_to(struct rabbitmq *link, uint64_t last)
{
    uint64_t ring = 2 * (uint64_t)link->options.window;
    uint64_t oldest = link->published < ring ? 1 : link->published - ring + 1;
    uint64_t first = link->confirmed_to + 1 > oldest ? link->confirmed_to + 1 : oldest;
    for (uint64_t tag = first; tag <= last; tag++) {
        confirm_tag(link, tag);
    }
    link->confirmed_to = last;
}

static err_t take_confirms(struct rabbitmq *link)
{
    static const struct timeval at_once;
    for (;;) {
        amqp_frame_t frame;
        int status = amqp_simple_wait_frame_noblock(link->connection, &frame, &at_once);
        if (status == AMQP_STATUS_TIMEOUT) {
            return NULL;
        }
        TRY(check_status(status, "receive"));
        if (frame.frame_type != AMQP_FRAME_METHOD ||
            frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
            return ERR(UNAVAILABLE, "rabbitmq: method 0x%08x instead of a confirmation",
                       frame.payload.method.id);
        }
        const amqp_basic_ack_t *ack = frame.payload.method.decoded;
        if (ack->multiple) {
            confirm_to(link, ack->delivery_tag);
        } else {
            confirm_tag(link, ack->delivery_tag);
        }
        amqp_maybe_release_buffers_on_channel(link->connection, CHANNEL);
    }
}

static err_t take_messages(struct rabbitmq *link)
{
    static const struct timeval at_once;
    for (;;) {
        amqp_envelope_t envelope;
        amqp_rpc_reply_t reply = amqp_consume_message(link->connection, &envelope, &at_once, 0);
        if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION &&
            reply.library_error == AMQP_STATUS_TIMEOUT) {
            break;
        }
        TRY(check_reply(reply, "consume"));
        link->received = envelope.delivery_tag;
        link->options.events->received(
            link->options.user, span_of(envelope.message.body.bytes, envelope.message.body.len));
        amqp_destroy_envelope(&envelope);
        amqp_maybe_release_buffers_on_channel(link->connection, CHANNEL);
        if (link->received - link->acked >= link->options.batch) {
            link->options.events->batch_ended(link->options.user);
        }
    }
    if (link->received > link->acked) {
        link->options.events->batch_ended(link->options.user);
    }
    return NULL;
}

static err_t rabbitmq_advance(void *user, struct link_wait *wait)
{
    struct rabbitmq *link = user;
    cork(link, false);
    TRY(link->options.consumer ? take_messages(link) : take_confirms(link));
    wait->fd = link->fd;
    wait->events = POLLIN;
    return NULL;
}

/* ---- before and after ---- */

static err_t rabbitmq_prepare(const struct peer_address *address)
{
    amqp_connection_state_t connection = NULL;
    amqp_table_entry_t entries[] = {
        {.key = amqp_cstring_bytes("x-queue-type"),
         .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("quorum")}}};
    const amqp_table_t arguments = {.num_entries = 1, .entries = entries};
    err_t err = NULL;
    TRY_OUT(connect_to(address, &connection));
    (void)amqp_queue_delete(connection, CHANNEL, amqp_cstring_bytes(QUEUE), 0, 0);
    TRY_OUT(check_reply(amqp_get_rpc_reply(connection), "queue.delete"));
    (void)amqp_queue_declare(connection, CHANNEL, amqp_cstring_bytes(QUEUE), 0, 1, 0, 0, arguments);
    TRY_OUT(check_reply(amqp_get_rpc_reply(connection), "queue.declare"));
out:
    disconnect(connection);
    return err;
}

/* What consumers had and did not acknowledge is back in the queue once they are gone. */
static err_t rabbitmq_held(const struct peer_address *address, uint64_t *out)
{
    amqp_connection_state_t connection = NULL;
    err_t err = NULL;
    TRY_OUT(connect_to(address, &connection));
    const amqp_queue_declare_ok_t *answer = amqp_queue_declare(
        connection, CHANNEL, amqp_cstring_bytes(QUEUE), 1, 1, 0, 0, amqp_empty_table);
    TRY_OUT(check_reply(amqp_get_rpc_reply(connection), "queue.declare"));
    *out = answer->message_count;
out:
    disconnect(connection);
    return err;
}

const struct adapter adapter_rabbitmq = {
    .name = "rabbitmq",
    .is_pushed = true,
    .settle_ms = SETTLE_MS,
    .prepare = rabbitmq_prepare,
    .held = rabbitmq_held,
    .open = rabbitmq_open,
    .publish = rabbitmq_publish,
    .pull = rabbitmq_pull,
    .ack = rabbitmq_ack,
    .advance = rabbitmq_advance,
    .close = rabbitmq_close,
};
#endif
