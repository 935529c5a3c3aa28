/* The connection to the broker, and the frames on it. Belongs to the client's thread.
 *
 * It resolves, connects, greets, and when anything goes wrong begins anew after a pause that grows.
 * Frames wait in `pending` until there is a connection and room in the broker's window, are written
 * together, and are in `sent`, in order, until they are answered. When the connection breaks the
 * sent ones go back to the front of `pending`, or fail, as their fate says. */
#ifndef CLIENT_PEER_H
#define CLIENT_PEER_H

#include <flare/flare.h>
#include <uv.h>

#include "broker/base/map.h"
#include "client/ask.h"

enum peer_step {
    PEER_IDLE = 1,   /* not started, or stopped */
    PEER_PAUSING,    /* until the next try */
    PEER_RESOLVING,  /* the host's name */
    PEER_CONNECTING, /* to one of its addresses */
    PEER_GREETING,   /* hello is sent, welcome is awaited */
    PEER_READY,
    PEER_LEAVING, /* the broker has said goodbye: answers may come, nothing is sent */
};

/* What is polled, on its own since libuv wants it until it has closed. */
struct peer_poll;

struct peer {
    enum peer_step step;
    uint64_t step_due_us; /* when the step has taken too long, or the pause is over */
    uint32_t tries;       /* since the last connection that was of use */
    uint64_t lost_us;     /* since when there is none; 0: there is one */
    uint64_t heard_us;    /* when bytes came last, or it was first owed something */
    bool is_pinged;       /* since then */
    bool is_useful;       /* the broker has answered something on this connection */

    uv_getaddrinfo_t resolving;
    bool is_resolving;
    struct addrinfo *addresses;
    struct addrinfo *address; /* to be tried next */

    struct peer_poll *poll;
    int socket; /* -1: none */
    int events; /* polled for */

    struct list pending;
    struct list held; /* that wait in the broker, beyond what its window has room for */
    size_t written;   /* bytes of the first of `pending` */
    bool is_blocked;  /* the socket took no more the last time */
    struct list sent;
    struct map by_id;       /* of `sent` */
    uint32_t waiting_count; /* of `sent`, by ask_waits */
    struct buf hello;       /* the first frame, ... */
    size_t hello_written;   /* of which so much is written */

    uint8_t *in;
    size_t in_size;
    size_t in_capacity;
};

void peer_init(struct peer *peer);
/* It must be stopped and hold no ask. */
void peer_deinit(struct peer *peer);

/* Begins to connect. */
void peer_start(struct flare_client *client);
/* Ends the connection and begins no other. */
void peer_stop(struct flare_client *client);

/* Takes over an ask. */
void peer_submit(struct flare_client *client, struct ask *ask);
/* Gives one back that nobody has seen yet. False: some of it is sent, and it ends as any other. */
bool peer_withdraw(struct flare_client *client, struct ask *ask);
/* Writes what can be written. */
void peer_send(struct flare_client *client);
/* Acts on what is due. */
void peer_tick(struct flare_client *client, uint64_t now_us);
/* UINT64_MAX: nothing is. */
uint64_t peer_due_us(const struct flare_client *client);

/* Handles the frames at the begin of `bytes` and says in `used` how many bytes they have taken. An
 * error: the broker does not keep to the protocol, or has said that it cannot go on. */
err_t peer_receive(struct flare_client *client, struct span bytes, size_t *used) MUST_CHECK;

/* The connection is of no use any more. */
void peer_lose(struct flare_client *client, const struct flare_error *error);

/* Fails everything that waits, sent or not. */
void peer_fail_all(struct flare_client *client, const struct flare_error *error);

static inline bool peer_is_ready(const struct peer *peer)
{
    return peer->step == PEER_READY;
}

/* Answers may come. */
static inline bool peer_is_connected(const struct peer *peer)
{
    return peer->step == PEER_READY || peer->step == PEER_LEAVING;
}

#endif
