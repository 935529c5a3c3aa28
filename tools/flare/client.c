#include "tools/flare/client.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "broker/base/version.h"

enum { CONNECT_TIMEOUT_MS = 5000 };

struct client {
    CURL *easy;
    char *url;
    uint64_t timeout_ms;
    bool print;
    bool printed;
    long status;
    uint64_t retry_after_ms;
    json_t *problem;
    struct buf reply;
    char error[CURL_ERROR_SIZE];
};

static size_t client_on_body(char *data, size_t size, size_t count, void *user);

static void set_common_options(struct client *client)
{
    CURL *easy = client->easy;
    /* None of these can fail: each is known to every libcurl this builds with. */
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, client->error);
    (void)curl_easy_setopt(easy, CURLOPT_USERAGENT, "flare/" FLARE_VERSION_NUMBER);
    (void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, client_on_body);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, client);
    /* A broker is asked directly: a proxy meant for the web must not see its messages. */
    (void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
}

err_t client_create(const struct client_options *options, struct client **out)
{
    size_t size = strlen(options->url);
    bool http = strncasecmp(options->url, "http://", 7) == 0;
    bool https = strncasecmp(options->url, "https://", 8) == 0;
    if (!http && !https) {
        return ERR(INVALID, "'%s' is not a URL such as http://127.0.0.1:8080", options->url);
    }
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return ERR(MEMORY, "no memory for a client");
    }
    buf_init(&client->reply, CLIENT_REPLY_MAX);
    client->timeout_ms = options->timeout_ms;
    client->print = options->print;
    client->url = strdup(options->url);
    client->easy = curl_easy_init();
    if (client->url == NULL || client->easy == NULL) {
        client_destroy(client);
        return ERR(MEMORY, "no memory for a client");
    }
    while (size > 0 && client->url[size - 1] == '/') {
        size--;
        client->url[size] = '\0';
    }
    set_common_options(client);
    if (options->trace) {
        client_trace(client->easy);
    }
    *out = client;
    return NULL;
}

void client_destroy(struct client *client)
{
    if (client == NULL) {
        return;
    }
    curl_easy_cleanup(client->easy);
    buf_deinit(&client->reply);
    json_decref(client->problem);
    free(client->url);
    free(client);
}

static void append_encoded(struct buf *buf, const char *text)
{
    static const char unreserved[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text != '\0'; text++) {
        if (strchr(unreserved, *text) != NULL) {
            buf_append_byte(buf, (uint8_t)*text);
        } else {
            buf_printf(buf, "%%%02X", (unsigned)(uint8_t)*text);
        }
    }
}

void request_init(struct request *request, const char *method, const char *pattern, ...)
{
    memset(request, 0, sizeof *request);
    request->method = method;
    buf_init(&request->path, CLIENT_PATH_MAX);
    va_list texts;
    va_start(texts, pattern);
    for (const char *at = pattern; *at != '\0'; at++) {
        if (at[0] == '{' && at[1] == '}') {
            append_encoded(&request->path, va_arg(texts, const char *));
            at++;
        } else {
            buf_append_byte(&request->path, (uint8_t)*at);
        }
    }
    va_end(texts);
}

void request_query(struct request *request, const char *name, const char *value)
{
    bool first =
        request->path.size == 0 || memchr(request->path.data, '?', request->path.size) == NULL;
    buf_append_byte(&request->path, first ? '?' : '&');
    append_encoded(&request->path, name);
    buf_append_byte(&request->path, '=');
    append_encoded(&request->path, value);
}

void request_header(struct request *request, const char *name, const char *value)
{
    struct buf line;
    buf_init(&line, CLIENT_PATH_MAX);
    /* libcurl takes "Name:" for a header to leave out and "Name;" for one with an empty value. */
    buf_printf(&line, value[0] == '\0' ? "%s;%s" : "%s: %s", name, value);
    buf_append_byte(&line, 0);
    struct curl_slist *grown =
        line.failed ? NULL : curl_slist_append(request->headers, (const char *)line.data);
    buf_deinit(&line);
    if (grown == NULL) {
        request->failed = true;
        return;
    }
    request->headers = grown;
}

void request_json(struct request *request, json_t *document)
{
    request->text = document == NULL ? NULL : json_dumps(document, JSON_COMPACT);
    json_decref(document);
    if (request->text == NULL) {
        request->failed = true;
        return;
    }
    request->body = span_text(request->text);
    request->content_type = "application/json";
}

static void request_deinit(struct request *request)
{
    buf_deinit(&request->path);
    curl_slist_free_all(request->headers);
    free(request->text);
    memset(request, 0, sizeof *request);
}

static size_t client_on_body(char *data, size_t size, size_t count, void *user)
{
    struct client *client = user;
    size_t total = size * count;
    buf_append(&client->reply, data, total);
    return client->reply.failed ? 0 : total;
}

/* What libcurl says when there is no reply. */
static err_t transport_error(const struct client *client, CURLcode code)
{
    const char *detail = client->error[0] != '\0' ? client->error : curl_easy_strerror(code);
    if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST) {
        return ERR(UNAVAILABLE, "cannot reach %s: %s (is flared running? flared --data DIR)",
                   client->url, detail);
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        return ERR(TIMEOUT, "no reply from %s in time: %s", client->url, detail);
    }
    if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL) {
        return ERR(INVALID, "%s: %s", client->url, detail);
    }
    if (code == CURLE_WRITE_ERROR) {
        return ERR(TOO_LARGE, "the reply of %s is larger than %d bytes", client->url,
                   CLIENT_REPLY_MAX);
    }
    if (code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING) {
        return ERR(UNAVAILABLE, "%s closed the connection: %s", client->url, detail);
    }
    return ERR(FORMAT, "%s does not speak HTTP as a broker does: %s", client->url, detail);
}

/* The headers that must be free of libcurl's own ideas, then the caller's. */
static struct curl_slist *complete_headers(struct request *request)
{
    if (request->content_type != NULL) {
        request_header(request, "Content-Type", request->content_type);
        /* No round trip for "100 Continue" before a large batch: it is an empty line to libcurl. */
        struct curl_slist *grown = curl_slist_append(request->headers, "Expect:");
        request->failed |= grown == NULL;
        request->headers = grown == NULL ? request->headers : grown;
    }
    return request->headers;
}

static CURLcode perform(struct client *client, struct request *request, const char *url)
{
    CURL *easy = client->easy;
    uint64_t timeout_ms = client->timeout_ms + request->wait_ms;
    bool get = strcmp(request->method, "GET") == 0;
    struct curl_slist *headers = complete_headers(request);
    if (request->failed) {
        return CURLE_OUT_OF_MEMORY;
    }
    (void)curl_easy_setopt(easy, CURLOPT_URL, url);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, get ? NULL : request->method);
    if (request->content_type != NULL || strcmp(request->method, "POST") == 0) {
        (void)curl_easy_setopt(easy, CURLOPT_POST, 1L);
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.size);
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
                               request->body.size == 0 ? "" : (const char *)request->body.data);
    }
    client->error[0] = '\0';
    CURLcode code = curl_easy_perform(easy);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
    return code;
}

static void read_reply_facts(struct client *client)
{
    curl_off_t retry_after = 0;
    (void)curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &client->status);
    (void)curl_easy_getinfo(client->easy, CURLINFO_RETRY_AFTER, &retry_after);
    client->retry_after_ms = retry_after > 0 ? (uint64_t)retry_after * 1000 : 0;
}

/* Sends the request; afterwards client->status and client->reply hold the reply. */
static err_t exchange(struct client *client, struct request *request)
{
    struct buf url;
    client->status = 0;
    client->retry_after_ms = 0;
    json_decref(client->problem);
    client->problem = NULL;
    buf_reset(&client->reply);
    buf_init(&url, CLIENT_PATH_MAX * 2);
    buf_append_text(&url, client->url);
    buf_append_span(&url, buf_span(&request->path));
    buf_append_byte(&url, 0);
    if (request->failed || request->path.failed || url.failed) {
        buf_deinit(&url);
        return ERR(MEMORY, "the request does not fit in memory or in its limits");
    }
    if (client->print) {
        client_print_curl((const char *)url.data, request);
        client->printed = true;
        buf_deinit(&url);
        return ERR(ABORTED, "printed, not sent");
    }
    CURLcode code = perform(client, request, (const char *)url.data);
    buf_deinit(&url);
    if (code == CURLE_OUT_OF_MEMORY) {
        return ERR(MEMORY, "no memory for a request");
    }
    if (code != CURLE_OK) {
        return transport_error(client, code);
    }
    read_reply_facts(client);
    return NULL;
}

enum err_code client_code(const char *slug)
{
    static const enum err_code codes[] = {
#define ERROR(name, number, status, retryable, text) ERR_##name,
#include "broker/base/err.def"
    };
    for (size_t i = 0; slug != NULL && i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i] != ERR_NONE && strcmp(err_slug(codes[i]), slug) == 0) {
            return codes[i];
        }
    }
    return ERR_NONE;
}

/* The problem the reply holds as an error; it stays readable through client_problem. */
static err_t problem_error(struct client *client)
{
    json_error_t where;
    client->problem = json_loadb((const char *)client->reply.data, client->reply.size, 0, &where);
    const char *slug = json_string_value(json_object_get(client->problem, "code"));
    const char *title = json_string_value(json_object_get(client->problem, "title"));
    const char *detail = json_string_value(json_object_get(client->problem, "detail"));
    enum err_code code = client_code(slug);
    if (code == ERR_NONE) {
        return ERR(FORMAT, "%s answered with status %ld and no problem this program knows%s%s",
                   client->url, client->status, slug == NULL ? "" : ": ", slug == NULL ? "" : slug);
    }
    return err_make(code, __FILE__, __LINE__, __func__, "%s%s%s (%s)", title == NULL ? "" : title,
                    title != NULL && detail != NULL ? ": " : "", detail == NULL ? "" : detail,
                    slug);
}

err_t client_call_text(struct client *client, struct request *request, struct span *out)
{
    err_t err = exchange(client, request);
    request_deinit(request);
    TRY(err);
    if (client->status < 200 || client->status >= 300) {
        return problem_error(client);
    }
    *out = buf_span(&client->reply);
    return NULL;
}

err_t client_call(struct client *client, struct request *request, json_t **out)
{
    struct span text;
    TRY(client_call_text(client, request, &text));
    if (out == NULL) {
        return NULL;
    }
    json_error_t where;
    json_t *document = json_loadb((const char *)text.data, text.size, JSON_ALLOW_NUL, &where);
    if (!json_is_object(document)) {
        json_decref(document);
        return ERR(FORMAT, "%s answered with something that is not a JSON document", client->url);
    }
    *out = document;
    return NULL;
}

long client_status(const struct client *client)
{
    return client->status;
}

uint64_t client_retry_after_ms(const struct client *client)
{
    return client->retry_after_ms;
}

const json_t *client_problem(const struct client *client)
{
    return client->problem;
}

bool client_printed(const struct client *client)
{
    return client->printed;
}
