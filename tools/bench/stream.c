#include "tools/bench/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_MAX = 1 << 30, RECEIVE_SIZE = 256 * 1024 };

err_t stream_open(struct stream *stream, const struct peer_address *address)
{
    int one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(address->port)};
    buf_init(&stream->out, BUFFER_MAX);
    buf_init(&stream->in, BUFFER_MAX);
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (stream->fd < 0 || inet_pton(AF_INET, address->host, &to.sin_addr) != 1 ||
        connect(stream->fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        fcntl(stream->fd, F_SETFL, O_NONBLOCK) != 0) {
        return ERR(UNAVAILABLE, "connect to %s:%u: %s", address->host, address->port,
                   strerror(errno));
    }
    return NULL;
}

void stream_close(struct stream *stream)
{
    if (stream->fd >= 0) {
        (void)close(stream->fd);
        stream->fd = -1;
    }
    buf_deinit(&stream->out);
    buf_deinit(&stream->in);
}

err_t stream_send(struct stream *stream)
{
    if (stream->out.failed) {
        return ERR(MEMORY, "no memory for what is to be sent");
    }
    if (stream->out.size == 0) {
        return NULL;
    }
    ssize_t size = send(stream->fd, stream->out.data, stream->out.size, MSG_NOSIGNAL);
    if (size < 0 && errno != EAGAIN && errno != EINTR) {
        return ERR(UNAVAILABLE, "send: %s", strerror(errno));
    }
    buf_consume(&stream->out, size < 0 ? 0 : (size_t)size);
    return NULL;
}

err_t stream_receive(struct stream *stream, bool *more)
{
    *more = false;
    if (!buf_reserve(&stream->in, RECEIVE_SIZE)) {
        return ERR(MEMORY, "no memory for what was received");
    }
    size_t room = stream->in.capacity - stream->in.size;
    ssize_t size = recv(stream->fd, stream->in.data + stream->in.size, room, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
        return NULL;
    }
    if (size <= 0) {
        return ERR(UNAVAILABLE, "the server closed a connection%s%s", size < 0 ? ": " : "",
                   size < 0 ? strerror(errno) : "");
    }
    stream->in.size += (size_t)size;
    *more = (size_t)size == room;
    return NULL;
}

void stream_wait(const struct stream *stream, struct link_wait *wait)
{
    wait->fd = stream->fd;
    wait->events = (short)(POLLIN | (stream->out.size > 0 ? POLLOUT : 0));
}
