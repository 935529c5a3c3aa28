/* The whole broker as an object on a libuv loop: data directory, volumes, router and faces; started
 * and stopped in order. flared is one node and a loop; a program that embeds the broker has as many
 * as it likes. */
#ifndef BROKER_NODE_H
#define BROKER_NODE_H

#include <uv.h>

#include "broker/base/clock.h"
#include "broker/config/config.h"
#include "broker/volume/router.h"

struct node;

/* Opens everything, finishes what an earlier stop left half done, and listens. `config` and `clock`
 * are borrowed for the node's life. Blocks until the node is ready. Its threads log to the sink
 * that the calling one is bound to (log.h). */
err_t node_start(uv_loop_t *loop, const struct config *config, const struct clock *clock,
                 struct node **out) MUST_CHECK;

const char *node_http_address(const struct node *node); /* "": it does not listen */
const char *node_wire_address(const struct node *node); /* likewise */
const char *node_data(const struct node *node);

/* For what asks the broker on its loop without a socket. */
struct router *node_router(struct node *node);

/* On the loop's thread: serves the wire protocol on a connected stream socket, which it takes on
 * success. */
err_t node_adopt(struct node *node, int fd) MUST_CHECK;

/* On the loop's thread: waits until all that has begun and all that has come due by the clock is
 * done, waiting pulls aside, and gives in how many milliseconds something more comes due
 * (UINT64_MAX: nothing does). What a client has sent and the loop has not yet read has not begun.
 * For the owner of a simulated clock, who moves it and then calls this. */
uint64_t node_settle(struct node *node);

/* Takes nothing new, answers what has begun (config.drain_timeout_ms at most), then closes
 * everything; `on_stopped` runs from the loop when the node is gone. */
void node_stop(struct node *node, void (*on_stopped)(void *user), void *user);

#endif
