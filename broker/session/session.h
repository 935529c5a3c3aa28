/* The wire protocol's server (SPEC, "Wire protocol"): connections, requests and credit streams over
 * the router.
 *
 * Runs on one libuv loop and is used from that loop's thread only. Requests of one connection are
 * under way side by side; frames are decoded where they were read, and what is answered within one
 * turn of the loop leaves in one write. Every limit is in session_limits: a connection that has too
 * much unanswered, or does not read its answers, is not read from. An idle connection holds its
 * struct and nothing else. */
#ifndef SESSION_SESSION_H
#define SESSION_SESSION_H

#include <uv.h>

#include "broker/base/clock.h"
#include "broker/metrics/metrics.h"
#include "broker/volume/router.h"

struct session_limits {
    uint32_t connections_max; /* further ones are told `busy` and closed */
    uint32_t frame_size_max;  /* raised to what a message, and the answer to a batch, may take */
    uint32_t window_requests; /* unanswered requests of a connection, beyond which it is not read */
    uint32_t window_size;     /* and bytes of them, with the memory they take */
    uint32_t hello_timeout_ms; /* from accept to a whole hello */
    uint32_t write_timeout_ms; /* answers and begun frames that make no progress for so long: cut */
    uint32_t message_size_max;
    uint32_t batch_count_max;
    uint32_t pull_count_max;
    uint32_t pull_size_max;
    uint64_t wait_max_ms;
    uint32_t waiters_max; /* pulls that wait, in the whole broker */
};

struct session_options {
    uv_loop_t *loop;
    const struct clock *clock;
    struct router *router;
    struct metrics *metrics;
    struct session_limits limits;
    const char *version; /* borrowed for good: FLARE_VERSION */
};

struct session_server;

err_t session_server_create(const struct session_options *options,
                            struct session_server **out) MUST_CHECK;

/* Once per server; after an error the server can only be destroyed. As net_listen. */
err_t session_server_listen(struct session_server *server, const char *address) MUST_CHECK;
/* "127.0.0.1:8089", with the real port; "" when it does not listen. Valid as long as the server. */
const char *session_server_address(const struct session_server *server);

/* Serves a connected stream socket, TCP or local, which it takes on success. ERR_IO. */
err_t session_server_adopt(struct session_server *server, int fd) MUST_CHECK;

/* Stops accepting, says goodbye, and closes each connection once what it has begun is answered. */
void session_server_drain(struct session_server *server);
/* Connections that still have something to be answered or sent. */
uint32_t session_server_pending(const struct session_server *server);

/* Closes everything at once; `on_closed` runs from the loop when the last handle is gone, and the
 * server is freed before it. Every operation of the router must be done by then. */
void session_server_destroy(struct session_server *server, void (*on_closed)(void *user),
                            void *user);

#endif
