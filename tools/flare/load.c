#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include "tools/flare/load.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/base/buf.h"
#include "tools/flare/progress.h"

enum { RECEIVE_SIZE = 256 * 1024, REPLY_MAX = 64 * 1024 * 1024, EVENTS_MAX = 128 };

/* A request that is under way. */
struct load_slot {
    struct load_request request;
    uint32_t replies_left;
    uint64_t sent_us;
};

struct load_connection {
    int socket;
    struct buf in;
    struct buf out; /* what the socket has not taken yet, from `out_sent` on */
    size_t out_sent;
    struct load_slot *slots;
    uint32_t *idle; /* the slots without a request, as a stack */
    uint32_t idle_count;
    bool waits_to_send;
};

struct load {
    const struct load_options *options;
    struct load_connection *connections;
    struct load_result *result;
    int epoll;
    uint32_t outstanding; /* slots of each connection */
    uint64_t busy;        /* requests under way */
    bool done;
};

void histogram_add(struct histogram *histogram, uint64_t value)
{
    uint64_t bucket = value;
    if (value >= HISTOGRAM_SUB) {
        /* The five bits after the leading one choose the bucket within its power of two. */
        uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - 5u;
        bucket = ((uint64_t)shift + 1) * HISTOGRAM_SUB + ((value >> shift) - HISTOGRAM_SUB);
    }
    assert(bucket < HISTOGRAM_BUCKETS);
    histogram->counts[bucket]++;
    histogram->count++;
    histogram->sum += value;
    histogram->max = value > histogram->max ? value : histogram->max;
}

void histogram_merge(struct histogram *histogram, const struct histogram *other)
{
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        histogram->counts[i] += other->counts[i];
    }
    histogram->count += other->count;
    histogram->sum += other->sum;
    histogram->max = other->max > histogram->max ? other->max : histogram->max;
}

static uint64_t bucket_value(uint64_t bucket)
{
    if (bucket < HISTOGRAM_SUB) {
        return bucket;
    }
    uint64_t shift = bucket / HISTOGRAM_SUB - 1;
    return ((bucket % HISTOGRAM_SUB + HISTOGRAM_SUB + 1) << shift) - 1;
}

uint64_t histogram_quantile(const struct histogram *histogram, double fraction)
{
    uint64_t wanted = (uint64_t)(fraction * (double)histogram->count);
    uint64_t passed = 0;
    for (uint64_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        passed += histogram->counts[bucket];
        if (passed > wanted) {
            uint64_t value = bucket_value(bucket);
            return value < histogram->max ? value : histogram->max;
        }
    }
    return histogram->max;
}

/* ---- framing ---- */

uint32_t load_http_status(struct span reply)
{
    if (reply.size < 12 || memcmp(reply.data, "HTTP/1.1 ", 9) != 0) {
        return 0;
    }
    uint32_t status = 0;
    for (size_t i = 9; i < 12; i++) {
        status = status * 10 + (uint32_t)(reply.data[i] - '0');
    }
    return status;
}

struct span load_http_body(struct span reply)
{
    const uint8_t *end = memmem(reply.data, reply.size, "\r\n\r\n", 4);
    assert(end != NULL); /* a framed reply has its headers */
    size_t head = (size_t)(end - reply.data) + 4;
    return span_of(reply.data + head, reply.size - head);
}

int64_t load_frame_http(struct span bytes)
{
    static const char name[] = "\r\ncontent-length:";
    const uint8_t *end = memmem(bytes.data, bytes.size, "\r\n\r\n", 4);
    if (end == NULL) {
        return 0;
    }
    size_t head = (size_t)(end - bytes.data) + 4;
    for (const uint8_t *line = memchr(bytes.data, '\r', head); line < end;
         line = memchr(line + 1, '\r', (size_t)(end - line))) {
        size_t left = (size_t)(end - line);
        if (left >= sizeof name && strncasecmp((const char *)line, name, sizeof name - 1) == 0) {
            uint64_t size = strtoull((const char *)line + sizeof name - 1, NULL, 10);
            if (size > REPLY_MAX) {
                return LOAD_FRAME_BAD;
            }
            return bytes.size - head < size ? 0 : (int64_t)(head + size);
        }
    }
    /* 204 has no body; anything else without a length is no reply of a broker. */
    return load_http_status(bytes) == 204 ? (int64_t)head : LOAD_FRAME_BAD;
}

int64_t load_frame_resp(struct span bytes)
{
    size_t at = 0;
    uint64_t pending = 1;
    while (pending > 0) {
        const uint8_t *line = bytes.data + at;
        const uint8_t *end = at < bytes.size ? memchr(line, '\n', bytes.size - at) : NULL;
        if (end == NULL) {
            return 0;
        }
        at = (size_t)(end - bytes.data) + 1;
        long long number = strtoll((const char *)line + 1, NULL, 10);
        pending--;
        if (line[0] == '*' && number > 0) {
            pending += (uint64_t)number;
        } else if (line[0] == '$' && number >= 0) {
            at += (size_t)number + 2;
            if (at > bytes.size) {
                return 0;
            }
        } else if (line[0] != '*' && line[0] != '$' && line[0] != '+' && line[0] != ':' &&
                   line[0] != '-') {
            return LOAD_FRAME_BAD;
        }
    }
    return (int64_t)at;
}

/* ---- connections ---- */

static int connect_to(const struct addrinfo *addresses)
{
    for (; addresses != NULL; addresses = addresses->ai_next) {
        int one = 1;
        int fd = socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, addresses->ai_addr, addresses->ai_addrlen) == 0 &&
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0 &&
            fcntl(fd, F_SETFL, O_NONBLOCK) == 0) {
            return fd;
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    return -1;
}

static err_t load_connect(struct load *load)
{
    const struct load_options *options = load->options;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    int rc = getaddrinfo(options->host, options->port, &hints, &addresses);
    if (rc != 0) {
        return ERR(UNAVAILABLE, "%s: %s", options->host, gai_strerror(rc));
    }
    err_t err = NULL;
    for (uint32_t i = 0; i < options->connections && err == NULL; i++) {
        struct load_connection *connection = &load->connections[i];
        connection->socket = connect_to(addresses);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (connection->socket < 0) {
            err = ERR(UNAVAILABLE, "connect to %s:%s: %s", options->host, options->port,
                      strerror(errno));
        } else if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->socket, &event) != 0) {
            err = ERR(IO, "epoll_ctl: %s", strerror(errno));
        }
    }
    freeaddrinfo(addresses);
    return err;
}

/* Asks for the socket's readiness to send only while something is left. */
static err_t watch_socket(struct load *load, uint32_t index, bool waits)
{
    struct load_connection *connection = &load->connections[index];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    event.events |= waits ? EPOLLOUT : 0u;
    if (waits == connection->waits_to_send) {
        return NULL;
    }
    connection->waits_to_send = waits;
    if (epoll_ctl(load->epoll, EPOLL_CTL_MOD, connection->socket, &event) != 0) {
        return ERR(IO, "epoll_ctl: %s", strerror(errno));
    }
    return NULL;
}

/* Writes what the socket takes. */
static err_t send_some(struct load *load, uint32_t index)
{
    struct load_connection *connection = &load->connections[index];
    const uint8_t *bytes = connection->out.data + connection->out_sent;
    size_t size = connection->out.size - connection->out_sent;
    ssize_t sent = size == 0 ? 0 : send(connection->socket, bytes, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        return ERR(UNAVAILABLE, "send: %s", strerror(errno));
    }
    connection->out_sent += sent < 0 ? 0 : (size_t)sent;
    if (connection->out_sent == connection->out.size) {
        buf_reset(&connection->out);
        connection->out_sent = 0;
    }
    return watch_socket(load, index, connection->out.size > 0);
}

/* Fills the idle slots of a connection as long as the driver has requests, and sends them together.
 */
static err_t send_next(struct load *load, uint32_t index)
{
    struct load_connection *connection = &load->connections[index];
    uint64_t now_us = progress_now_us();
    while (connection->idle_count > 0) {
        uint32_t number = connection->idle[connection->idle_count - 1];
        struct load_slot *slot = &connection->slots[number];
        if (!load->options->driver->next(load->options->user, index, number, &slot->request)) {
            break;
        }
        buf_append_span(&connection->out, slot->request.bytes);
        if (slot->request.replies > 0) {
            slot->replies_left = slot->request.replies;
            slot->sent_us = now_us;
            connection->idle_count--;
            load->busy++;
        }
    }
    if (connection->out.failed) {
        return ERR(TOO_LARGE, "more than %d bytes wait to be sent", REPLY_MAX);
    }
    return send_some(load, index);
}

/* One whole reply: to the driver, and to the request it answers. */
static err_t take_reply(struct load *load, uint32_t index, struct span reply)
{
    struct load_connection *connection = &load->connections[index];
    const struct load_driver *driver = load->options->driver;
    uint32_t number = driver->slot == NULL ? 0 : driver->slot(reply);
    struct load_slot *slot = number < load->outstanding ? &connection->slots[number] : NULL;
    if (number != LOAD_SLOT_NONE && (slot == NULL || slot->replies_left == 0)) {
        return ERR(FORMAT, "more came than was asked for");
    }
    TRY(driver->reply(load->options->user, index, reply));
    if (slot == NULL || --slot->replies_left > 0) {
        return NULL;
    }
    if (slot->request.kind < LOAD_KINDS) {
        histogram_add(&load->result->latencies[slot->request.kind],
                      progress_now_us() - slot->sent_us);
    }
    connection->idle[connection->idle_count] = number;
    connection->idle_count++;
    load->busy--;
    return NULL;
}

/* Hands the whole replies in the buffer to the driver, then sends what there is to send. */
static err_t take_replies(struct load *load, uint32_t index)
{
    struct load_connection *connection = &load->connections[index];
    size_t at = 0;
    while (at < connection->in.size) {
        struct span rest = span_of(connection->in.data + at, connection->in.size - at);
        int64_t size = load->options->driver->frame(rest);
        if (size == 0) {
            break;
        }
        if (size < 0) {
            return ERR(FORMAT, "%s:%s does not speak the protocol", load->options->host,
                       load->options->port);
        }
        TRY(take_reply(load, index, span_of(rest.data, (size_t)size)));
        at += (size_t)size;
    }
    buf_consume(&connection->in, at);
    load->done = load->options->driver->done(load->options->user);
    return load->done ? NULL : send_next(load, index);
}

static err_t receive(struct load *load, uint32_t index)
{
    struct load_connection *connection = &load->connections[index];
    if (!buf_reserve(&connection->in, RECEIVE_SIZE)) {
        return ERR(TOO_LARGE, "a reply is larger than %d bytes", REPLY_MAX);
    }
    ssize_t size = recv(connection->socket, connection->in.data + connection->in.size,
                        connection->in.capacity - connection->in.size, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
        return NULL;
    }
    if (size <= 0) {
        return ERR(UNAVAILABLE, "the server closed a connection%s%s", size < 0 ? ": " : "",
                   size < 0 ? strerror(errno) : "");
    }
    connection->in.size += (size_t)size;
    return take_replies(load, index);
}

static err_t handle(struct load *load, const struct epoll_event *event)
{
    uint32_t index = event->data.u32;
    if ((event->events & EPOLLOUT) != 0) {
        TRY(send_some(load, index));
    }
    if ((event->events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) {
        return receive(load, index);
    }
    return NULL;
}

static err_t run_loop(struct load *load)
{
    struct epoll_event events[EVENTS_MAX];
    for (uint32_t i = 0; i < load->options->connections; i++) {
        TRY(send_next(load, i));
    }
    bool streams = load->options->driver->slot != NULL; /* more may come without being asked for */
    while (!load->done && (load->busy > 0 || streams)) {
        int count = epoll_wait(load->epoll, events, EVENTS_MAX, (int)load->options->timeout_ms);
        if (count < 0 && errno != EINTR) {
            return ERR(IO, "epoll_wait: %s", strerror(errno));
        }
        if (count == 0) {
            return ERR(TIMEOUT, "no reply for %llu ms",
                       (unsigned long long)load->options->timeout_ms);
        }
        for (int i = 0; i < count && !load->done; i++) {
            TRY(handle(load, &events[i]));
        }
        if (load->options->progress != NULL) {
            progress_step(load->options->progress,
                          load->options->driver->count(load->options->user));
        }
    }
    return NULL;
}

uint64_t load_cpu_us(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void load_deinit(struct load *load)
{
    for (uint32_t i = 0; load->connections != NULL && i < load->options->connections; i++) {
        if (load->connections[i].socket >= 0) {
            (void)close(load->connections[i].socket);
        }
        buf_deinit(&load->connections[i].in);
        buf_deinit(&load->connections[i].out);
        free(load->connections[i].slots);
        free(load->connections[i].idle);
    }
    free(load->connections);
    if (load->epoll >= 0) {
        (void)close(load->epoll);
    }
}

/* A connection that is still to be made; false: no memory. */
static bool init_connection(struct load *load, struct load_connection *connection)
{
    connection->socket = -1;
    buf_init(&connection->in, REPLY_MAX);
    buf_init(&connection->out, REPLY_MAX);
    connection->slots = calloc(load->outstanding, sizeof *connection->slots);
    connection->idle = calloc(load->outstanding, sizeof *connection->idle);
    if (connection->slots == NULL || connection->idle == NULL) {
        return false;
    }
    for (uint32_t i = load->outstanding; i > 0; i--) { /* the lowest on top */
        connection->idle[connection->idle_count] = i - 1;
        connection->idle_count++;
    }
    return true;
}

err_t load_run(const struct load_options *options, struct load_result *out)
{
    struct load load = {.options = options, .result = out};
    err_t err = NULL;
    assert(options->connections > 0 && options->connections <= LOAD_CONNECTIONS_MAX);
    memset(out, 0, sizeof *out);
    load.outstanding = options->outstanding == 0 ? 1 : options->outstanding;
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.connections = calloc(options->connections, sizeof *load.connections);
    bool ready = load.epoll >= 0 && load.connections != NULL;
    for (uint32_t i = 0; load.connections != NULL && i < options->connections; i++) {
        ready = init_connection(&load, &load.connections[i]) && ready;
    }
    if (!ready) {
        err = ERR(MEMORY, "no memory for %u connections", options->connections);
        goto out;
    }
    TRY_OUT(load_connect(&load));
    uint64_t cpu_before_us = load_cpu_us();
    uint64_t started_us = progress_now_us();
    TRY_OUT(run_loop(&load));
    out->duration_us = progress_now_us() - started_us;
    out->cpu_us = load_cpu_us() - cpu_before_us;
out:
    load_deinit(&load);
    return err;
}
