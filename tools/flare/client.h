/* HTTP as the commands use it: one keep-alive connection, JSON documents, problems turned into
 * errors.
 *
 * Used by one thread. A request is filled, then taken by client_call, which frees it whatever
 * happens. */
#ifndef FLARE_CLIENT_H
#define FLARE_CLIENT_H

#include <curl/curl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "broker/base/buf.h"
#include "broker/base/err.h"

enum { CLIENT_REPLY_MAX = 256 * 1024 * 1024, CLIENT_PATH_MAX = 16 * 1024 };

struct client_options {
    const char *url; /* "http://host:port", with or without a path before /v1 */
    uint64_t timeout_ms;
    bool print; /* print the request as a curl command and send nothing */
    bool trace; /* show requests and replies on standard error */
};

struct request {
    const char *method;
    struct buf path;
    struct curl_slist *headers;
    char *text;               /* owned; what `body` points to, or NULL */
    struct span body;         /* borrowed for the call */
    const char *content_type; /* NULL: no body */
    uint64_t wait_ms;         /* the broker may take so much longer than usual */
    bool failed;              /* no memory while it was filled */
};

struct client;

err_t client_create(const struct client_options *options, struct client **out) MUST_CHECK;
void client_destroy(struct client *client);

/* Pattern of what there is below a topic and a subscription. */
#define CLIENT_SUB_PATH "/v1/topics/{}/subscriptions/{}"

/* Each "{}" of `pattern` is replaced by one text, percent-encoded. */
void request_init(struct request *request, const char *method, const char *pattern, ...);
/* Appends "name=value" to the query. */
void request_query(struct request *request, const char *name, const char *value);
void request_header(struct request *request, const char *name, const char *value);
/* Takes `document` and sends it as JSON. */
void request_json(struct request *request, json_t *document);

/* Takes the request. `out`, if not NULL, is the reply's document, which the caller frees. Errors:
 * UNAVAILABLE when the broker is not there, TIMEOUT, FORMAT for a reply that is not the API's,
 * otherwise the code of the problem. With `print`, ABORTED after printing. */
err_t client_call(struct client *client, struct request *request, json_t **out) MUST_CHECK;
/* The same for replies that are text; `out` is valid until the next call. */
err_t client_call_text(struct client *client, struct request *request, struct span *out) MUST_CHECK;

/* Of the last reply: its status (0 without one), its Retry-After, its problem document (borrowed,
 * or NULL). */
long client_status(const struct client *client);
uint64_t client_retry_after_ms(const struct client *client);
const json_t *client_problem(const struct client *client);
bool client_printed(const struct client *client);

/* What the code of a problem or of a result is here; ERR_NONE for one that this program does not
 * know. */
enum err_code client_code(const char *slug);

/* Makes libcurl show what it sends and receives on standard error (client_trace.c). */
void client_trace(CURL *easy);

/* The request as a curl command on standard output (client_curl.c). */
void client_print_curl(const char *url, const struct request *request);

#endif
