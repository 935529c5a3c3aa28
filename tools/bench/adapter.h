/* What the driver of the peers benchmark needs of a broker: one row of functions for each.
 *
 * A link is one connection to the broker, a publisher's or a consumer's. Nothing here blocks after
 * `open`: publish, pull and ack put bytes into the link's buffer, `advance` sends what is there,
 * reads what has come and reports it through the link's events, from within the call. So one thread
 * drives all links of a run, and what waits together leaves in one write.
 *
 * A client library with threads of its own reports its events from them instead, between `enter`
 * and `leave`, and its `advance` does nothing.
 *
 * Every adapter drives its broker the fastest way its protocol has, since what Flare is compared
 * with is the best they can do. */
#ifndef BENCH_ADAPTER_H
#define BENCH_ADAPTER_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/err.h"
#include "broker/base/span.h"

/* Where the broker is, and what its queue is to promise. */
struct peer_address {
    const char *host;
    uint16_t port;
    bool relaxed; /* confirmed before it is flushed, where the client is who chooses */
};

struct link_events {
    /* Around events that are reported from another thread than the driver's: `leave` publishes what
     * there is room for, so that it may go out before the thread returns to its loop. */
    void (*enter)(void *user);
    void (*leave)(void *user);
    /* Takes an error met there; the run ends with it. */
    void (*failed)(void *user, err_t err);
    /* The message of this slot is the broker's now. */
    void (*confirmed)(void *user, uint32_t slot);
    /* One message; valid for the call. */
    void (*received)(void *user, struct span body);
    /* What could be had at this moment for the oldest pull has been handed over: the driver
     * acknowledges it and pulls again. */
    void (*batch_ended)(void *user);
    /* Acknowledgements that the broker has taken; of one that does not answer them, that were sent.
     */
    void (*acked)(void *user, uint32_t count);
};

struct link_options {
    const struct peer_address *address;
    bool consumer;
    uint32_t index;  /* tells links apart; below LINKS_MAX */
    uint32_t window; /* of a publisher: messages outstanding at most, slots 0 to window - 1 */
    uint32_t size;   /* of a body */
    uint32_t batch;  /* of a consumer: messages of one pull at most */
    const struct link_events *events;
    void *user;
};

enum { LINKS_MAX = 256, WINDOW_MAX = 4096, BATCH_MAX = 4096, BODY_SIZE_MAX = 64 * 1024 };

/* What a link waits for before its next `advance`. */
struct link_wait {
    int fd;       /* -1: nothing */
    short events; /* of poll */
    bool again;   /* do not wait: more can be done at once */
};

struct adapter {
    const char *name;
    bool is_pushed;     /* messages come by credit, without being asked for batch by batch */
    uint32_t settle_ms; /* it does not answer acks: time to leave it to take the last of them */
    /* Makes an empty queue; one that is left from an earlier run is removed. */
    err_t (*prepare)(const struct peer_address *address);
    /* Messages that the broker still holds for the consumers, delivered or not. */
    err_t (*held)(const struct peer_address *address, uint64_t *out);
    err_t (*open)(const struct link_options *options, void **out);
    err_t (*publish)(void *link, uint32_t slot, struct span body);
    /* Asks for at most `batch` messages; one that is pushed messages gives credit instead. The
     * next batch is on its way while one is worked on: two are asked for at the begin and one at
     * each batch's end. Where messages go one at a time (a batch of 1) one is. */
    err_t (*pull)(void *link);
    /* Acknowledges all that was received and is not yet. */
    err_t (*ack)(void *link);
    err_t (*advance)(void *link, struct link_wait *wait);
    void (*close)(void *link);
};

/* NULL: there is none of this name, or its client library was not there when this was built. */
const struct adapter *adapter_find(const char *name);
/* The names there are, separated by spaces. */
const char *adapter_names(void);

extern const struct adapter adapter_flare;
extern const struct adapter adapter_libflare;
extern const struct adapter adapter_beanstalkd;
#ifdef PEERS_REDIS
extern const struct adapter adapter_redis;
#endif
#ifdef PEERS_NATS
extern const struct adapter adapter_nats;
#endif
#ifdef PEERS_RABBITMQ
extern const struct adapter adapter_rabbitmq;
#endif

#endif
