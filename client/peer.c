#define _GNU_SOURCE
#include "client/peer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/base/version.h"
#include "client/engine.h"
#include "client/intake.h"
#include "client/peer_internal.h"
#include "client/problem.h"

enum {
    PEER_IN_SIZE = 256 * 1024, /* to begin with; grows with the bytes that are there */
    PEER_READS_MAX = 8,        /* of one turn */
    PEER_PAUSE_DOUBLINGS_MAX = 16,
};

static void peer_on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses);
static void peer_on_event(uv_poll_t *handle, int status, int events);
static void peer_on_poll_closed(uv_handle_t *handle);

struct peer_poll {
    uv_poll_t handle;
    struct flare_client *client;
};

void peer_init(struct peer *peer)
{
    *peer = (struct peer){.step = PEER_IDLE, .socket = -1};
    list_init(&peer->pending);
    list_init(&peer->held);
    list_init(&peer->sent);
    map_init(&peer->by_id);
    buf_init(&peer->hello, WIRE_OVERHEAD_MAX);
}

void peer_deinit(struct peer *peer)
{
    assert(list_empty(&peer->pending) && list_empty(&peer->held) && list_empty(&peer->sent));
    map_deinit(&peer->by_id);
    buf_deinit(&peer->hello);
    free(peer->in);
}

/* ---- the end of a connection ------------------------------------------------------------------
 */

static void drop_socket(struct peer *peer)
{
    if (peer->poll != NULL) {
        (void)uv_poll_stop(&peer->poll->handle);
        uv_close((uv_handle_t *)&peer->poll->handle, peer_on_poll_closed);
        peer->poll = NULL;
    }
    if (peer->socket >= 0) {
        (void)close(peer->socket);
        peer->socket = -1;
    }
    peer->events = 0;
}

static void close_socket(struct peer *peer)
{
    drop_socket(peer);
    if (peer->addresses != NULL) {
        uv_freeaddrinfo(peer->addresses);
        peer->addresses = NULL;
    }
    if (peer->is_resolving) {
        (void)uv_cancel((uv_req_t *)&peer->resolving);
    }
    peer->in_size = 0;
    peer->hello_written = 0;
}

static void peer_on_poll_closed(uv_handle_t *handle)
{
    free(container_of(handle, struct peer_poll, handle));
}

/* Puts what had been sent back before what had not, or fails it. Callbacks run last, when the state
 * is whole again. */
static void recall_asks(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    struct list again;
    struct list failed;
    struct list_link *link;
    struct flare_error unknown;
    list_init(&again);
    list_init(&failed);
    while ((link = list_pop(&peer->sent)) != NULL) {
        struct ask *ask = container_of(link, struct ask, link);
        ask->is_doubtful = true;
        list_append(ask->fate == ASK_AGAIN ? &again : &failed, link);
    }
    if (peer->written > 0) {
        link = list_pop(&peer->pending);
        struct ask *ask = container_of(link, struct ask, link);
        list_append(ask->fate == ASK_AGAIN ? &again : &failed, link);
        peer->written = 0;
    }
    /* What has no answer speaks of streams of the connection that is gone. */
    while ((link = list_pop(&peer->pending)) != NULL) {
        struct ask *ask = container_of(link, struct ask, link);
        list_append(ask->answer != ASK_NO_ANSWER ? &again : &failed, link);
    }
    list_splice(&again, &peer->held);
    list_splice(&peer->pending, &again);
    map_deinit(&peer->by_id);
    map_init(&peer->by_id);
    peer->waiting_count = 0;
    (void)problem_set(&unknown, FLARE_ERR_UNKNOWN,
                      "the connection broke before the broker had answered");
    while ((link = list_pop(&failed)) != NULL) {
        struct ask *ask = container_of(link, struct ask, link);
        if (ask->answer != ASK_NO_ANSWER) {
            ask->on_failed(client, ask, ASK_LOST, &unknown);
        } else {
            (void)ask->on_answer(client, ask, NULL);
        }
    }
}

void peer_fail_all(struct flare_client *client, const struct flare_error *error)
{
    struct peer *peer = &client->peer;
    struct list all;
    struct list_link *link;
    struct flare_error unknown = *error;
    list_init(&all);
    list_splice(&all, &peer->sent);
    list_splice(&all, &peer->pending);
    list_splice(&all, &peer->held);
    map_deinit(&peer->by_id);
    map_init(&peer->by_id);
    peer->waiting_count = 0;
    peer->written = 0;
    unknown.code = FLARE_ERR_UNKNOWN;
    while ((link = list_pop(&all)) != NULL) {
        struct ask *ask = container_of(link, struct ask, link);
        if (ask->answer == ASK_NO_ANSWER) {
            (void)ask->on_answer(client, ask, NULL);
        } else {
            ask->on_failed(client, ask, ASK_OVER, ask->is_sent ? &unknown : error);
        }
    }
}

static uint64_t pause_us(const struct flare_client *client)
{
    uint32_t tries = client->peer.tries;
    if (tries == 0) {
        return 0;
    }
    uint32_t doublings =
        tries - 1 < PEER_PAUSE_DOUBLINGS_MAX ? tries - 1 : PEER_PAUSE_DOUBLINGS_MAX;
    uint64_t pause_ms = (uint64_t)client->options.reconnect_min_ms << doublings;
    uint64_t max_ms = client->options.reconnect_max_ms;
    return (pause_ms < max_ms ? pause_ms : max_ms) * 1000;
}

void peer_lose(struct flare_client *client, const struct flare_error *error)
{
    struct peer *peer = &client->peer;
    if (peer->step == PEER_IDLE) {
        return;
    }
    bool was_connected = peer->step == PEER_READY || peer->step == PEER_LEAVING;
    close_socket(peer);
    peer->tries = peer->is_useful ? 0 : peer->tries;
    peer->is_useful = false;
    peer->step = PEER_PAUSING;
    peer->step_due_us = client->now_us + pause_us(client);
    peer->lost_us = peer->lost_us == 0 ? client->now_us : peer->lost_us;
    (void)pthread_mutex_lock(&client->lock);
    client->lost = *error;
    (void)pthread_cond_broadcast(&client->changed);
    (void)pthread_mutex_unlock(&client->lock);
    recall_asks(client);
    if (was_connected) {
        engine_tell(client, FLARE_STATE_LOST, error->message);
    }
}

void peer_lose_by(struct flare_client *client, const char *what, int number)
{
    struct flare_error error;
    const char *host = client->options.dial != NULL ? "the broker" : client->address.host;
    (void)problem_set(&error, FLARE_ERR_UNAVAILABLE, "%s %s: %s", what, host, strerror(number));
    peer_lose(client, &error);
}

void peer_stop(struct flare_client *client)
{
    close_socket(&client->peer);
    client->peer.step = PEER_IDLE;
}

/* ---- connecting -------------------------------------------------------------------------------
 */

bool peer_poll_for(struct flare_client *client, int events)
{
    struct peer *peer = &client->peer;
    if (peer->poll == NULL) {
        struct peer_poll *poll = calloc(1, sizeof *poll);
        if (poll == NULL) {
            return false;
        }
        if (uv_poll_init(&client->loop, &poll->handle, peer->socket) != 0) {
            free(poll);
            return false;
        }
        poll->client = client;
        peer->poll = poll;
    }
    if (peer->events != events) {
        peer->events = events;
        return uv_poll_start(&peer->poll->handle, events, peer_on_event) == 0;
    }
    return true;
}

static void greet(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    int on = 1;
    /* Neither means anything to a socket that is not TCP's. */
    (void)setsockopt(peer->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(peer->socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    char name[256];
    (void)snprintf(name, sizeof name, "%s libflare/%s", client->options.name, FLARE_VERSION);
    struct wire_hello hello = {
        .id = engine_next_id(client), .version = WIRE_VERSION, .client = span_text(name)};
    buf_reset(&peer->hello);
    wire_encode(&peer->hello, WIRE_hello, &hello);
    peer->hello_written = 0;
    peer->in_size = 0;
    peer->step = PEER_GREETING;
    peer->heard_us = client->now_us;
    if (!peer_poll_for(client, UV_READABLE)) {
        peer_lose_by(client, "cannot poll", ENOMEM);
        return;
    }
    peer_trace(client, true,
               span_of(peer->hello.data + WIRE_SIZE_BYTES, peer->hello.size - WIRE_SIZE_BYTES));
    peer_send(client);
}

/* Tries the addresses that are left, until one is under way. */
static void connect_next(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    int number = ENOENT;
    while (peer->address != NULL) {
        const struct addrinfo *address = peer->address;
        peer->address = address->ai_next;
        drop_socket(peer);
        peer->socket = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (peer->socket < 0) {
            number = errno;
            continue;
        }
        int rc = connect(peer->socket, address->ai_addr, address->ai_addrlen);
        if (rc == 0) {
            greet(client);
            return;
        }
        number = errno;
        if (number == EINPROGRESS) {
            peer->step = PEER_CONNECTING;
            if (peer_poll_for(client, UV_WRITABLE)) {
                return;
            }
            number = ENOMEM;
        }
    }
    peer_lose_by(client, "cannot connect to", number);
}

static void peer_on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct flare_client *client = request->data;
    struct peer *peer = &client->peer;
    struct flare_error error;
    peer->is_resolving = false;
    client->now_us = clock_mono_us(&client->clock);
    if (peer->step != PEER_RESOLVING) {
        uv_freeaddrinfo(addresses);
    } else if (status != 0) {
        (void)problem_set(&error, FLARE_ERR_UNAVAILABLE, "cannot resolve %s: %s",
                          client->address.host, uv_strerror(status));
        peer_lose(client, &error);
    } else {
        peer->addresses = addresses;
        peer->address = addresses;
        connect_next(client);
    }
    if (peer->step != PEER_IDLE) {
        engine_turn(client);
    }
}

static void dial(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    peer->socket = client->options.dial(client->options.dial_user);
    if (peer->socket < 0) {
        peer_lose_by(client, "cannot dial", ECONNREFUSED);
        return;
    }
    int flags = fcntl(peer->socket, F_GETFL);
    if (flags < 0 || fcntl(peer->socket, F_SETFL, flags | O_NONBLOCK) != 0) {
        peer_lose_by(client, "cannot use the socket to", errno);
        return;
    }
    greet(client);
}

static void try_once(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    if (peer->is_resolving) {
        peer->step_due_us = client->now_us + (uint64_t)client->options.reconnect_max_ms * 1000;
        return;
    }
    peer->tries++;
    peer->step_due_us = client->now_us + (uint64_t)client->options.connect_timeout_ms * 1000;
    if (client->options.dial != NULL) {
        dial(client);
        return;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    peer->step = PEER_RESOLVING;
    peer->resolving.data = client;
    int rc = uv_getaddrinfo(&client->loop, &peer->resolving, peer_on_resolved, client->address.host,
                            client->address.port, &hints);
    peer->is_resolving = rc == 0;
    if (rc != 0) {
        peer_lose_by(client, "cannot resolve", ENOMEM);
    }
}

void peer_start(struct flare_client *client)
{
    client->now_us = clock_mono_us(&client->clock);
    client->peer.lost_us = client->now_us;
    client->peer.step = PEER_PAUSING;
    client->peer.step_due_us = client->now_us;
    engine_turn(client);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Room for the rest of a frame whose begin is there already: doubled when it is full, so that a
 * size is believed only as its bytes come. */
static bool make_room(struct peer *peer)
{
    if (peer->in_size < peer->in_capacity) {
        return true;
    }
    size_t capacity = peer->in_capacity == 0 ? PEER_IN_SIZE : 2 * peer->in_capacity;
    uint8_t *in = realloc(peer->in, capacity);
    if (in == NULL) {
        return false;
    }
    peer->in = in;
    peer->in_capacity = capacity;
    return true;
}

static void lose_for(struct flare_client *client, err_t err)
{
    struct flare_error error;
    client->peer.is_useful = false; /* the next one may be the same: a pause before it */
    (void)problem_of_err(&error, err);
    peer_lose(client, &error);
}

/* False: there is nothing more to read now, or no connection any more. */
static bool read_once(struct flare_client *client)
{
    struct peer *peer = &client->peer;
    size_t used = 0;
    if (!make_room(peer)) {
        peer_lose_by(client, "cannot read from", ENOMEM);
        return false;
    }
    size_t room = peer->in_capacity - peer->in_size;
    ssize_t size = recv(peer->socket, peer->in + peer->in_size, room, 0);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return false;
    }
    if (size <= 0) {
        peer_lose_by(client, "lost the connection to", size < 0 ? errno : ECONNRESET);
        return false;
    }
    peer->heard_us = client->now_us;
    peer->is_pinged = false;
    peer->in_size += (size_t)size;
    err_t err = peer_receive(client, span_of(peer->in, peer->in_size), &used);
    if (err != NULL) {
        lose_for(client, err);
        return false;
    }
    peer->in_size -= used;
    if (used > 0 && peer->in_size > 0) {
        memmove(peer->in, peer->in + used, peer->in_size);
    }
    return (size_t)size == room;
}

static void end_connecting(struct flare_client *client)
{
    int number = 0;
    socklen_t size = sizeof number;
    if (getsockopt(client->peer.socket, SOL_SOCKET, SO_ERROR, &number, &size) != 0) {
        number = errno;
    }
    if (number == 0) {
        greet(client);
    } else if (client->peer.address != NULL) {
        connect_next(client);
    } else {
        peer_lose_by(client, "cannot connect to", number);
    }
}

static void peer_on_event(uv_poll_t *handle, int status, int events)
{
    struct flare_client *client = container_of(handle, struct peer_poll, handle)->client;
    struct peer *peer = &client->peer;
    client->now_us = clock_mono_us(&client->clock);
    if (peer->step == PEER_CONNECTING) {
        end_connecting(client);
    } else if (status < 0 || (events & UV_READABLE) != 0) {
        uint32_t reads = 0;
        while (reads < PEER_READS_MAX && read_once(client)) {
            reads++;
        }
    }
    /* What can be written again is written by the turn. */
    engine_turn(client);
}

/* ---- time -------------------------------------------------------------------------------------
 */

static uint64_t silence_us(const struct flare_client *client)
{
    return (uint64_t)client->options.request_timeout_ms * 1000;
}

static uint64_t give_up_us(const struct flare_client *client)
{
    return client->peer.lost_us + (uint64_t)client->options.give_up_ms * 1000;
}

/* Whether the broker is to answer, or to read on. */
static bool is_awaited(const struct peer *peer)
{
    return !list_empty(&peer->sent) || peer->written > 0;
}

/* A broker that owes answers and has not been heard for a while is asked whether it lives. */
static void watch(struct flare_client *client, uint64_t now_us)
{
    struct peer *peer = &client->peer;
    struct flare_error error;
    uint64_t silent_us = now_us - peer->heard_us;
    if (silent_us >= silence_us(client)) {
        (void)problem_set(&error, FLARE_ERR_UNAVAILABLE, "the broker has been silent for %u ms",
                          client->options.request_timeout_ms);
        peer_lose(client, &error);
    } else if (silent_us >= silence_us(client) / 2 && !peer->is_pinged) {
        peer->is_pinged = peer_ping(client);
    }
}

static void time_out(struct flare_client *client)
{
    struct flare_error error;
    bool is_leaving = client->peer.step == PEER_LEAVING;
    (void)problem_set(&error, is_leaving ? FLARE_ERR_UNAVAILABLE : FLARE_ERR_TIMEOUT, "%s",
                      is_leaving ? "the broker is stopping"
                                 : "the broker has not answered in time");
    peer_lose(client, &error);
}

static void give_up(struct flare_client *client)
{
    struct flare_error error;
    (void)problem_set(&error, FLARE_ERR_UNAVAILABLE, "no connection for %u ms: %.160s",
                      client->options.give_up_ms, client->lost.message);
    peer_fail_all(client, &error);
    outbox_fail_all(client, &error);
}

void peer_tick(struct flare_client *client, uint64_t now_us)
{
    struct peer *peer = &client->peer;
    if (peer->step == PEER_READY) {
        if (is_awaited(peer)) {
            watch(client, now_us);
        }
    } else if (peer->step == PEER_PAUSING && now_us >= peer->step_due_us) {
        try_once(client);
    } else if (peer->step != PEER_IDLE && now_us >= peer->step_due_us) {
        time_out(client);
    }
    if (peer->lost_us != 0 && now_us >= give_up_us(client)) {
        give_up(client);
    }
}

uint64_t peer_due_us(const struct flare_client *client)
{
    const struct peer *peer = &client->peer;
    if (peer->step == PEER_IDLE) {
        return UINT64_MAX;
    }
    if (peer->step == PEER_READY) {
        uint64_t quiet_us = peer->is_pinged ? silence_us(client) : silence_us(client) / 2;
        return is_awaited(peer) ? peer->heard_us + quiet_us : UINT64_MAX;
    }
    bool has_given_up = peer->lost_us == 0 || client->now_us >= give_up_us(client);
    return has_given_up || peer->step_due_us < give_up_us(client) ? peer->step_due_us
                                                                  : give_up_us(client);
}
