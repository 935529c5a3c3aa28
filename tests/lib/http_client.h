/* A small blocking HTTP/1.1 client for tests: one keep-alive connection, one request at a time.
 *
 *   http_client_init(&client, broker.port);
 *   int status = http_client_json(&client, "PUT", "/v1/topics/t", "{\"shards\":%d}", 4);
 *   assert_int_equal(status, 201);
 *   assert_non_null(strstr(client.body, "\"active\""));
 *
 * A status of 0 means that no whole answer came: the connection was refused or lost, or the time is
 * up. The outcome of the request is then not known, and the next request connects again. Nothing is
 * sent twice. */
#ifndef LIB_HTTP_CLIENT_H
#define LIB_HTTP_CLIENT_H

#include <jansson.h>
#include <stdint.h>

#include "broker/base/buf.h"

enum { HTTP_CLIENT_TIMEOUT_MS = 30000 };

struct http_client {
    uint16_t port;       /* on loopback */
    int socket;          /* -1: not connected */
    uint32_t timeout_ms; /* for an answer; HTTP_CLIENT_TIMEOUT_MS until set */
    int status;          /* of the last answer, which the rest is of, until the next request */
    const char *head;    /* status line and headers, terminated */
    const char *body;    /* terminated */
    size_t body_size;
    struct buf out;
    struct buf in;
};

struct http_client_request {
    const char *method;
    const char *path;
    const char *headers; /* whole lines, each with its CRLF; NULL: none */
    struct span body;
};

void http_client_init(struct http_client *client, uint16_t port);
void http_client_deinit(struct http_client *client);
/* Closes the connection; the next request opens another. */
void http_client_close(struct http_client *client);

/* The status, or 0. */
int http_client_request(struct http_client *client, const struct http_client_request *request);
/* A request without headers and body. */
int http_client_do(struct http_client *client, const char *method, const char *path);
/* A request with a JSON body written as by printf. */
int http_client_json(struct http_client *client, const char *method, const char *path,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The two halves of a request, for answers that are to be waited for later. */
bool http_client_send(struct http_client *client, const struct http_client_request *request);
int http_client_receive(struct http_client *client);
/* Sends bytes as they are. */
bool http_client_send_raw(struct http_client *client, struct span bytes);
/* Whether there is something to receive (or the connection has ended) within `timeout_ms`. */
bool http_client_readable(const struct http_client *client, uint32_t timeout_ms);

/* A header of the last answer into `out`, terminated and cut to fit; NULL when it has none. */
char *http_client_header(const struct http_client *client, const char *name, char *out,
                         size_t size);
/* The last answer as JSON, the caller's to json_decref; ends the test when it is none. */
json_t *http_client_document(const struct http_client *client);

#endif
