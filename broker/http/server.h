/* The HTTP/1.1 server: sockets, framing and limits; what the requests mean is elsewhere (routes.h).
 *
 * Runs on one libuv loop and is used from that loop's thread only. http-parser sits behind parse.c,
 * which checks what it lets through. Requests of one connection are answered in order, one at a
 * time; what a client pipelines waits in the connection, bounded. Every limit is in http_limits; a
 * request that passes one gets its problem answer and the connection is closed after at most DRAIN
 * bytes more. An idle connection holds no read buffer.
 *
 * Rules for smuggling (RFC 9112): both Content-Length and Transfer-Encoding, several different
 * Content-Lengths, a transfer coding other than a single final "chunked", bare CR or LF, space
 * before a colon, obsolete folding, missing or repeated Host, absolute-form that differs from Host:
 * 400 and close. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "broker/base/arena.h"
#include "broker/base/buf.h"
#include "broker/base/clock.h"
#include "broker/base/err.h"
#include "broker/base/span.h"

struct http_limits {
    uint32_t connections_max;  /* further ones are accepted, answered 503 and closed */
    uint32_t header_size_max;  /* request line and headers together: 431 */
    uint32_t header_count_max; /* 431 */
    uint32_t body_size_max;    /* 413, after at most this plus 64 KiB have been read; in chunks also
                                  when what is not body (sizes, trailers) passes 32 KiB */
    uint32_t header_timeout_ms; /* first byte to end of headers: 408 */
    uint32_t body_rate_min; /* bytes per second, averaged from the end of the headers: 408; so is a
                               body of which nothing comes for 5 s */
    uint32_t idle_timeout_ms;  /* between requests: closed */
    uint32_t write_timeout_ms; /* a response that makes no progress for so long: cut */
    uint32_t requests_max;     /* per connection; 0: no bound */
};

enum http_method {
    HTTP_METHOD_GET,
    HTTP_METHOD_HEAD,
    HTTP_METHOD_PUT,
    HTTP_METHOD_POST,
    HTTP_METHOD_DELETE,
    HTTP_METHOD_OPTIONS,
    HTTP_METHOD_OTHER
};

struct http_header {
    struct span name; /* as sent; compare with http_request_header */
    struct span value;
};

/* One request and its answer. Lives until http_respond has been called and the response is written
 * or the connection is gone; the spans of the request live as long. The handler answers exactly
 * once, now or later. */
struct http_exchange {
    struct arena arena; /* for whoever handles the request; reset when the exchange ends */
    enum http_method method;
    struct span method_text;
    struct span path;  /* without query, percent-encoding untouched */
    struct span query; /* without '?' */
    struct http_header *headers;
    uint32_t header_count;
    struct span body;
    uint64_t received_us; /* clock_mono_us at the end of the headers */
    uint64_t id;          /* unique in this process; for the log */
    /* The client is gone: http_respond still ends the exchange, but sends nothing. The end of a
     * client's input while its request is being handled counts as gone, since a half-closed
     * connection cannot be told from a dead one. */
    bool abandoned;
    /* Called once, if set, when the client goes away before the answer; may call http_respond. */
    void (*on_abandon)(struct http_exchange *exchange);
    void *user; /* the handler's */
};

/* Counters since the start, for /metrics. */
struct http_counters {
    uint64_t connections_total;
    uint64_t connections_open;
    uint64_t connections_refused_total;
    uint64_t requests_total;
    uint64_t received_bytes_total;
    uint64_t sent_bytes_total;
    uint64_t timeouts_total;
};

struct http_server;

struct http_server_options {
    uv_loop_t *loop;
    const struct clock *clock;
    struct http_limits limits;
    /* A whole request has arrived. */
    void (*on_request)(void *user, struct http_exchange *exchange);
    /* A request failed before it could be handled: fill `body` and `content_type` for this error
     * and status. */
    void (*on_problem)(void *user, enum err_code code, const char *detail, struct buf *body,
                       const char **content_type);
    void *user;
};

/* Ignores SIGPIPE for the process where it is not handled, unless the calling thread blocks it:
 * writing to a client that has gone would kill it. */
err_t http_server_create(const struct http_server_options *options,
                         struct http_server **out) MUST_CHECK;

/* Once per server; after an error the server can only be destroyed. Binds "host:port" (IPv4, [IPv6]
 * or name; port 0: any free one) and accepts. ERR_INVALID names a bad address, ERR_IO a port in
 * use. */
err_t http_server_listen(struct http_server *server, const char *address) MUST_CHECK;

/* "127.0.0.1:8080", with the real port; valid as long as the server. */
const char *http_server_address(const struct http_server *server);

/* Stops accepting and closes idle connections; answers carry "Connection: close" from now on. */
void http_server_drain(struct http_server *server);

/* Number of exchanges not yet answered. */
uint32_t http_server_pending(const struct http_server *server);

const struct http_counters *http_server_counters(const struct http_server *server);

/* Closes everything at once; `on_closed` runs from the loop when the last handle is gone, and the
 * server is freed before it. Exchanges still pending are abandoned first; they outlive the server
 * until they are answered. */
void http_server_destroy(struct http_server *server, void (*on_closed)(void *user), void *user);

/* First header of that name (case-insensitive); false when there is none. */
bool http_request_header(const struct http_exchange *exchange, const char *name, struct span *out);

/* An additional response header; name and value are copied and must be free of CR, LF and NUL
 * (asserted for the name; such a value is dropped). Before http_respond. */
void http_response_header(struct http_exchange *exchange, const char *name, struct span value);

/* Ends the exchange. Takes the content of `body` (its memory is moved out and the buf is left
 * empty; NULL: no body). Content-Length, Date and Connection are added here; HEAD sends no body. */
void http_respond(struct http_exchange *exchange, int status, const char *content_type,
                  struct buf *body);

#endif
