/* Private to the API: one request on its way through a handler, and what all handlers share.
 *
 * A handler reads the request, starts an operation and returns; the operation's `done` answers. An
 * error a handler returns before it has started anything is answered for it. */
#ifndef HTTP_API_REQUEST_H
#define HTTP_API_REQUEST_H

#include "broker/http/api.h"
#include "broker/http/api_in.h"
#include "broker/http/api_out.h"
#include "broker/http/routes.h"

enum {
    API_ANSWER_MAX = 96 << 20, /* a pull of 16 MiB, every byte escaped, with what surrounds it */
    API_PAGE_DEFAULT = 30,
    API_PAGE_MAX = 1000,
    API_PARAMETERS_MAX = 4, /* of one route */
};

struct api {
    struct api_options options;
    struct router *router;
    const struct clock *clock;
    const struct http_server *server; /* NULL: not yet */
    const char *wire_address;
    uint64_t started_ms;
    uint64_t started_us;
    bool stopping;
    struct buf openapi;
};

struct api_parameter {
    struct span name;
    struct span value;
};

struct api_request {
    struct api *api;
    struct http_exchange *exchange;
    const struct route *route;
    struct span topic;
    struct span sub;
    struct router_operation *operation; /* the present one, released when the exchange ends */
    bool msgpack;                       /* what the answer is to be */
    uint32_t parameter_count;
    struct api_parameter parameters[API_PARAMETERS_MAX];
};

#define ROUTE(method, pattern, handler, ...) err_t api_##handler(struct api_request *request);
#include "broker/http/routes.def"

/* ---- reading ---- */

/* The request's document, decoded. */
err_t api_read(struct api_request *request, enum in_row document,
               struct in_value values[IN_VALUES_MAX]) MUST_CHECK;
/* A query parameter; false: not given. */
bool api_parameter(const struct api_request *request, const char *name, struct span *out);
/* "true" (also without a value) or "false". */
err_t api_parameter_bool(const struct api_request *request, const char *name, bool initial,
                         bool *out) MUST_CHECK;
struct api_page {
    uint32_t limit;
    struct span cursor; /* empty: from the start */
};
err_t api_read_page(const struct api_request *request, struct api_page *out) MUST_CHECK;
/* If-Match and If-None-Match, against the present version (0: there is none), into `change`. */
err_t api_read_conditions(const struct api_request *request, uint32_t version,
                          struct catalog_change *change) MUST_CHECK;

/* Cleared memory that lives as long as the request; ERR_TOO_LARGE when the request has had enough.
 */
err_t api_alloc(struct api_request *request, size_t count, size_t size, void *out) MUST_CHECK;

/* The topic and subscription of the path; ERR_NOT_FOUND. Valid until the next turn of the loop. */
err_t api_find_topic(const struct api_request *request, struct catalog_topic **out) MUST_CHECK;
err_t api_find_sub(const struct api_request *request, struct catalog_sub **out) MUST_CHECK;

/* Sets up the common head of an operation, in the request's memory. The one before it is over. What
 * an operation gave may be read until the exchange is ended. */
void api_operation(struct api_request *request, struct router_operation *operation,
                   router_done done);
/* Gives back the replies of the request's operation. Ending the exchange does it as well, since all
 * of this memory is gone after that; it is called before an operation's memory is used for the
 * next. */
void api_operation_end(struct api_request *request);

/* ---- answering ---- */

/* Whatever ends the exchange also ends the life of the request and of all its memory. */

/* Begins the document of an answer in an empty buf. */
void api_answer_begin(const struct api_request *request, struct buf *buf, struct out *out);
/* Ends the exchange with it; takes the content of `buf`. */
void api_answer(struct api_request *request, int status, struct buf *buf);
void api_answer_empty(struct api_request *request, int status);
void api_answer_text(struct api_request *request, int status, const char *content_type,
                     struct buf *buf);

/* Ends the exchange with a problem; `detail` may name the field to blame first: "shards: must be
 * ...". */
void api_problem(struct api_request *request, enum err_code code, const char *detail);
/* The same with members of the caller's between the two. */
void api_problem_begin(struct api_request *request, enum err_code code, const char *detail,
                       struct buf *buf, struct out *out);
void api_problem_end(struct api_request *request, enum err_code code, struct buf *buf,
                     struct out *out);
/* Answers an operation that failed with its problem, and says so. */
bool api_failed(struct api_request *request, const struct router_operation *operation);
/* Takes `err`. */
void api_fail(struct api_request *request, err_t err);

void api_answer_etag(struct api_request *request, uint32_t version);

/* Ends a list: "next", the cursor of the next page, null when `more` is false. */
void api_out_next(struct out *out, bool more, struct span cursor);

/* How long ago `since_ms` was, or null when it is 0: nothing. */
void api_out_age(struct out *out, const char *name, uint64_t since_ms, uint64_t now_ms);

/* The openapi document (openapi.c). */
void openapi_print(const char *version, struct buf *out);

/* A subscription's start or a seek's goal: "earliest", "latest", a time. False: none of them. */
bool api_take_start(struct span value, enum start_at *start, uint64_t *start_value);

#endif
