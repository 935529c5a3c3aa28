/* A listening TCP socket on a libuv loop: the address as people write it, binding, and the name it
 * got. For every face that has an address of its own.
 *
 * Embedded by its owner. Once net_listen has been called, `on_closed` runs from the loop, once:
 * after net_listener_close, or after the failure that closed it. */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include <stdbool.h>
#include <uv.h>

#include "broker/base/err.h"

enum { NET_ADDRESS_SIZE = 80 };

struct net_listener {
    uv_tcp_t tcp;
    bool is_open;
    char address[NET_ADDRESS_SIZE]; /* "127.0.0.1:8080", with the real port */
    void (*on_connection)(struct net_listener *listener, int status); /* status: libuv's */
    void (*on_closed)(struct net_listener *listener);
};

/* Binds "host:port" (IPv4, [IPv6] or name; port 0: any free one) and accepts; both callbacks are
 * set before. ERR_INVALID names a bad address, ERR_IO a port in use. */
err_t net_listen(struct net_listener *listener, uv_loop_t *loop, const char *address) MUST_CHECK;

/* Nothing when it is closed already or was never open. */
void net_listener_close(struct net_listener *listener);

/* Writing to a peer that has gone would kill the process: ignores the signal for it, unless the
 * process handles it or the calling thread, which must be the one that writes, blocks it. */
void net_ignore_sigpipe(void);

#endif
