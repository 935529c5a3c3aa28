#define _GNU_SOURCE
#include "tests/lib/http_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MAX = 256 << 20, REQUEST_MAX = 64 << 20, READ_SIZE = 64 << 10 };

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void http_client_init(struct http_client *client, uint16_t port)
{
    memset(client, 0, sizeof *client);
    client->port = port;
    client->socket = -1;
    client->timeout_ms = HTTP_CLIENT_TIMEOUT_MS;
    client->head = client->body = "";
    buf_init(&client->out, REQUEST_MAX);
    buf_init(&client->in, ANSWER_MAX);
}

void http_client_deinit(struct http_client *client)
{
    http_client_close(client);
    buf_deinit(&client->out);
    buf_deinit(&client->in);
}

void http_client_close(struct http_client *client)
{
    if (client->socket >= 0) {
        close(client->socket);
        client->socket = -1;
    }
}

static bool connect_client(struct http_client *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(client->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    client->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->socket < 0) {
        return false;
    }
    if (connect(client->socket, (const struct sockaddr *)&address, sizeof address) != 0) {
        http_client_close(client);
        return false;
    }
    (void)setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return true;
}

/* The last answer is no longer one. */
static void forget_answer(struct http_client *client)
{
    buf_reset(&client->in);
    client->status = 0;
    client->head = client->body = "";
    client->body_size = 0;
}

bool http_client_send_raw(struct http_client *client, struct span bytes)
{
    forget_answer(client);
    if (client->socket < 0 && !connect_client(client)) {
        return false;
    }
    while (bytes.size > 0) {
        ssize_t size = send(client->socket, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0) {
            return false; /* an answer may have come all the same, as a 413 */
        }
        bytes = span_of(bytes.data + size, bytes.size - (size_t)size);
    }
    return true;
}

bool http_client_send(struct http_client *client, const struct http_client_request *request)
{
    struct buf *out = &client->out;
    buf_reset(out);
    buf_printf(out, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%sContent-Length: %zu\r\n\r\n",
               request->method, request->path, (unsigned)client->port,
               request->headers == NULL ? "" : request->headers, request->body.size);
    buf_append_span(out, request->body);
    assert_false(out->failed);
    return http_client_send_raw(client, buf_span(out));
}

bool http_client_readable(const struct http_client *client, uint32_t timeout_ms)
{
    uint64_t end_ms = now_ms() + timeout_ms;
    struct pollfd events = {.fd = client->socket, .events = POLLIN};
    for (;;) {
        uint64_t now = now_ms();
        int count = poll(&events, 1, now < end_ms ? (int)(end_ms - now) : 0);
        if (count >= 0 || errno != EINTR) {
            return count > 0;
        }
    }
}

/* More of the answer; false at the end of the connection or of the time. */
static bool read_more(struct http_client *client, uint64_t end_ms)
{
    struct buf *in = &client->in;
    uint64_t now = now_ms();
    if (now >= end_ms || !http_client_readable(client, (uint32_t)(end_ms - now))) {
        return false;
    }
    assert_true(buf_reserve(in, READ_SIZE + 1));
    ssize_t size = recv(client->socket, in->data + in->size, READ_SIZE, 0);
    if (size <= 0) {
        return size < 0 && errno == EINTR;
    }
    in->size += (size_t)size;
    in->data[in->size] = '\0';
    return true;
}

/* Size of the answer's head with its empty line; 0 until it is whole. */
static size_t head_size(const struct http_client *client)
{
    const struct buf *in = &client->in;
    const uint8_t *end = in->size == 0 ? NULL : memmem(in->data, in->size, "\r\n\r\n", 4);
    return end == NULL ? 0 : (size_t)(end - in->data) + 4;
}

int http_client_receive(struct http_client *client)
{
    uint64_t end_ms = now_ms() + client->timeout_ms;
    size_t head;
    while ((head = head_size(client)) == 0) {
        if (client->socket < 0 || !read_more(client, end_ms)) {
            http_client_close(client);
            return 0;
        }
    }
    client->in.data[head - 1] = '\0';
    client->head = (const char *)client->in.data;
    char text[32];
    int status = (int)strtol(client->head + strlen("HTTP/1.1 "), NULL, 10);
    size_t size = http_client_header(client, "Content-Length", text, sizeof text) == NULL
                      ? 0
                      : strtoul(text, NULL, 10);
    while (client->in.size < head + size) {
        if (!read_more(client, end_ms)) {
            http_client_close(client);
            return 0;
        }
    }
    client->head = (const char *)client->in.data; /* it may have moved */
    client->body = client->head + head;
    client->body_size = size;
    client->status = status;
    if (http_client_header(client, "Connection", text, sizeof text) != NULL &&
        strcasecmp(text, "close") == 0) {
        http_client_close(client);
    }
    return status;
}

int http_client_request(struct http_client *client, const struct http_client_request *request)
{
    (void)http_client_send(client, request);
    return http_client_receive(client);
}

int http_client_do(struct http_client *client, const char *method, const char *path)
{
    return http_client_request(client,
                               &(struct http_client_request){.method = method, .path = path});
}

int http_client_json(struct http_client *client, const char *method, const char *path,
                     const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int size = vasprintf(&text, format, arguments);
    va_end(arguments);
    assert_true(size >= 0);
    int status = http_client_request(
        client, &(struct http_client_request){.method = method,
                                              .path = path,
                                              .headers = "Content-Type: application/json\r\n",
                                              .body = span_of(text, (size_t)size)});
    free(text);
    return status;
}

char *http_client_header(const struct http_client *client, const char *name, char *out, size_t size)
{
    const char *line = client->head;
    size_t name_size = strlen(name);
    while ((line = strstr(line, "\r\n")) != NULL) {
        line += 2;
        if (strncasecmp(line, name, name_size) == 0 && line[name_size] == ':') {
            const char *value = line + name_size + 1;
            value += strspn(value, " ");
            size_t value_size = strcspn(value, "\r");
            (void)snprintf(out, size, "%.*s", (int)value_size, value);
            return out;
        }
    }
    return NULL;
}

json_t *http_client_document(const struct http_client *client)
{
    json_error_t error;
    json_t *document = json_loadb(client->body, client->body_size, 0, &error);
    if (document == NULL) {
        fail_msg("status %d with what is no JSON (%s): %.400s", client->status, error.text,
                 client->body);
    }
    return document;
}
