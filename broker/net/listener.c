#include "broker/net/listener.h"

#include <assert.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/list.h"

enum { BACKLOG = 1024 };

static void listener_on_connection(uv_stream_t *stream, int status)
{
    struct net_listener *listener = container_of(stream, struct net_listener, tcp);
    listener->on_connection(listener, status);
}

static void listener_on_closed(uv_handle_t *handle)
{
    struct net_listener *listener = container_of(handle, struct net_listener, tcp);
    listener->on_closed(listener);
}

/* libuv writes with write(2), which kills the process when the peer has gone, unless the signal is
 * ignored. Only the default is replaced: a program that embeds the broker and handles the signal
 * keeps its handler. */
void net_ignore_sigpipe(void)
{
    struct sigaction action;
    sigset_t blocked;
    if (pthread_sigmask(SIG_SETMASK, NULL, &blocked) == 0 && sigismember(&blocked, SIGPIPE) == 1) {
        return;
    }
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
        action.sa_handler = SIG_IGN;
        (void)sigaction(SIGPIPE, &action, NULL);
    }
}

/* Splits "host:port" or "[IPv6]:port" into terminated texts. */
static err_t split_address(const char *address, char host[256], char port[6])
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address) {
        return ERR(INVALID, "%s is not HOST:PORT", address);
    }
    const char *begin = address;
    const char *end = colon;
    if (begin[0] == '[') {
        begin++;
        end--;
        if (end < begin || end[0] != ']') {
            return ERR(INVALID, "%s is not [IPV6]:PORT", address);
        }
    }
    size_t size = (size_t)(end - begin);
    size_t port_size = strlen(colon + 1);
    bool is_port = port_size >= 1 && port_size <= 5 && strspn(colon + 1, "0123456789") == port_size;
    if (size == 0 || size > 255 || !is_port || strtol(colon + 1, NULL, 10) > 65535) {
        return ERR(INVALID, "%s is not HOST:PORT with a port of 0 to 65535", address);
    }
    memcpy(host, begin, size);
    host[size] = '\0';
    memcpy(port, colon + 1, port_size + 1);
    return NULL;
}

static err_t name_address(struct net_listener *listener)
{
    struct sockaddr_storage bound = {0};
    int size = sizeof bound;
    int rc = uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&bound, &size);
    if (rc != 0) {
        return ERR(IO, "address of the listener: %s", uv_strerror(rc));
    }
    char host[64];
    char port[6];
    rc = getnameinfo((struct sockaddr *)&bound, (socklen_t)size, host, sizeof host, port,
                     sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    if (rc != 0) {
        return ERR(IO, "address of the listener: %s", gai_strerror(rc));
    }
    snprintf(listener->address, sizeof listener->address,
             bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return NULL;
}

static err_t bind_address(struct net_listener *listener, const char *address)
{
    char host[256];
    char port[6];
    TRY(split_address(address, host, port));
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, port, &wanted, &found);
    if (rc != 0) {
        return ERR(INVALID, "%s: %s", address, gai_strerror(rc));
    }
    rc = uv_tcp_bind(&listener->tcp, found->ai_addr, 0);
    freeaddrinfo(found);
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, listener_on_connection);
    }
    if (rc != 0) {
        return ERR(IO, "listen on %s: %s", address, uv_strerror(rc));
    }
    return NULL;
}

err_t net_listen(struct net_listener *listener, uv_loop_t *loop, const char *address)
{
    err_t err = NULL;
    assert(!listener->is_open);
    int rc = uv_tcp_init(loop, &listener->tcp);
    assert(rc == 0); /* opens no socket yet */
    listener->is_open = true;
    TRY_OUT(bind_address(listener, address));
    TRY_OUT(name_address(listener));
    return NULL;
out:
    net_listener_close(listener);
    return err;
}

void net_listener_close(struct net_listener *listener)
{
    if (listener->is_open) {
        listener->is_open = false;
        uv_close((uv_handle_t *)&listener->tcp, listener_on_closed);
    }
}
