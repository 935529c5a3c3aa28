#define _GNU_SOURCE
#include "client/peer_internal.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>

#include "client/engine.h"
#include "client/problem.h"

enum { PEER_VECTORS_MAX = 64 }; /* frames of one write */

void peer_submit(struct flare_client *client, struct ask *ask)
{
    list_append(&client->peer.pending, &ask->link);
}

bool peer_withdraw(struct flare_client *client, struct ask *ask)
{
    if (ask->is_sent) {
        return false;
    }
    list_remove(&ask->link);
    /* It may have been next in the room that another had left. */
    struct list_link *held = list_pop(&client->peer.held);
    if (held != NULL) {
        list_append(&client->peer.pending, held);
    }
    return true;
}

static void lose_write(struct flare_client *client)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        client->peer.is_blocked = true;
    } else {
        peer_lose_by(client, "cannot write to", errno);
    }
}

/* True: it is written. */
static bool write_hello(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    while (peer->hello_written < peer->hello.size) {
        ssize_t size = send(peer->socket, peer->hello.data + peer->hello_written,
                            peer->hello.size - peer->hello_written, MSG_NOSIGNAL);
        if (size < 0) {
            lose_write(client);
            return false;
        }
        peer->hello_written += (size_t)size;
    }
    return true;
}

/* An ask that the broker would cut the connection for. */
static void refuse_large(struct flare_client *client, struct ask *ask)
{
    struct flare_error error;
    list_remove(&ask->link);
    (void)problem_set(&error, FLARE_ERR_TOO_LARGE, "the broker takes %u bytes in one request",
                      client->welcome.frame_size_max);
    ask->on_failed(client, ask, ASK_OVER, &error);
}

static uint32_t waiting_max(const struct flare_client *client)
{
    uint32_t half = client->welcome.window_requests / 2;
    return half == 0 ? 1 : half;
}

/* The frames that may be written next. */
static size_t gather(struct flare_client *client, struct iovec *vectors)
{
    struct peer *peer = &client->peer;
    size_t count = 0;
    size_t answers = peer->by_id.count;
    uint32_t waiting = peer->waiting_count;
    struct list_link *next = NULL;
    for (struct list_link *link = list_first(&peer->pending);
         link != NULL && count < PEER_VECTORS_MAX; link = next) {
        struct ask *ask = container_of(link, struct ask, link);
        next = list_next(&peer->pending, link);
        size_t from = count == 0 ? peer->written : 0;
        if (ask->frame.size - WIRE_SIZE_BYTES > client->welcome.frame_size_max) {
            refuse_large(client, ask);
            continue;
        }
        if (ask_waits(ask) && waiting >= waiting_max(client) && from == 0) {
            list_remove(link);
            list_append(&peer->held, link);
            continue;
        }
        if (ask->answer != ASK_NO_ANSWER && answers >= client->welcome.window_requests) {
            break;
        }
        answers += ask->answer != ASK_NO_ANSWER;
        waiting += ask_waits(ask);
        vectors[count] = (struct iovec){.iov_base = (void *)(uintptr_t)(ask->frame.data + from),
                                        .iov_len = ask->frame.size - from};
        count++;
    }
    return count;
}

/* The first of `pending` has been written. */
static void pass_written(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    struct ask *ask = container_of(list_pop(&peer->pending), struct ask, link);
    peer->written = 0;
    ask->is_sent = true;
    peer_trace(client, true,
               span_of(ask->frame.data + WIRE_SIZE_BYTES, ask->frame.size - WIRE_SIZE_BYTES));
    if (ask->answer == ASK_NO_ANSWER) {
        (void)ask->on_answer(client, ask, NULL);
        return;
    }
    peer->waiting_count += ask_waits(ask);
    list_append(&peer->sent, &ask->link);
    bool is_put = map_put(&peer->by_id, ask->id, ask);
    assert(is_put); /* without memory for a pointer there is nothing to go on with */
    (void)is_put;
    if (ask->on_sent != NULL) {
        ask->on_sent(client, ask);
    }
}

/* False: no more can be written now. */
static bool write_once(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    struct iovec vectors[PEER_VECTORS_MAX];
    size_t count = gather(client, vectors);
    if (count == 0) {
        return false;
    }
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = count};
    ssize_t size = sendmsg(peer->socket, &message, MSG_NOSIGNAL);
    if (size < 0) {
        lose_write(client);
        return false;
    }
    if (list_empty(&peer->sent)) {
        peer->heard_us = client->now_us; /* as long as it reads, it owes nothing yet */
    }
    size_t left = (size_t)size;
    for (size_t index = 0; index < count && left >= vectors[index].iov_len; index++) {
        left -= vectors[index].iov_len;
        pass_written(client);
    }
    if (left > 0) {
        peer->written += left;
        container_of(list_first(&peer->pending), struct ask, link)->is_sent = true;
    }
    return true;
}

void peer_send(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    bool can_write = peer->step == PEER_GREETING || peer->step == PEER_READY;
    peer->is_blocked = false;
    if (can_write && write_hello(client) && peer->step == PEER_READY) {
        while (write_once(client)) {
        }
    }
    /* What waits for anything but room in the socket must not be woken by that. */
    int events = peer->is_blocked ? UV_READABLE | UV_WRITABLE : UV_READABLE;
    bool is_open = peer->step == PEER_GREETING || peer_is_connected(peer);
    if (is_open && !peer_poll_for(client, events)) {
        peer_lose_by(client, "cannot poll", ENOMEM);
    }
}
