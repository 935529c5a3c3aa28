/* The HTTP API: what requests mean (SPEC, "HTTP API"). It sits between the server (server.h) and
 * the router (volume/router.h) and runs on their loop's thread only.
 *
 * api_on_request and api_on_problem are the server's hooks, with the api as `user`. Every request
 * is answered exactly once, from the call or later from a router callback; what it needs meanwhile
 * is in its exchange's arena. */
#ifndef HTTP_API_H
#define HTTP_API_H

#include "broker/base/clock.h"
#include "broker/http/server.h"
#include "broker/metrics/metrics.h"
#include "broker/volume/router.h"

struct api;

/* From the settings; api_documents.def has the bounds no setting passes. */
struct api_limits {
    uint32_t message_size_max; /* body of one message: 413 */
    uint32_t batch_count_max;  /* messages of one batch: 400 */
    uint32_t pull_count_max;   /* a pull that asks for more gets this */
    uint32_t pull_size_max;    /* likewise */
    uint64_t wait_max_ms;      /* likewise */
    uint32_t waiters_max;      /* further pulls are answered at once */
};

struct api_options {
    struct router *router;
    const struct clock *clock;
    const struct clock *socket_clock; /* the server's; NULL: the same one */
    struct metrics
        *metrics; /* shared with the volumes; the api counts requests and shows all of it */
    struct api_limits limits;
    const char *version; /* borrowed for good: FLARE_VERSION, FLARE_COMMIT */
    const char *commit;
};

err_t api_create(const struct api_options *options, struct api **out) MUST_CHECK;

/* The server whose counters /metrics and /v1/status show; the server is created with the api, so it
 * comes after. */
void api_set_server(struct api *api, const struct http_server *server);

/* Where the wire protocol is served, for /v1/status: HOST:PORT, or "" when it is not. Borrowed for
 * as long as the api. */
void api_set_wire(struct api *api, const char *address);

/* From now on /readyz says no. */
void api_drain(struct api *api);

/* After the last exchange has been answered. */
void api_destroy(struct api *api);

void api_on_request(void *api, struct http_exchange *exchange);
void api_on_problem(void *api, enum err_code code, const char *detail, struct buf *body,
                    const char **content_type);

#endif
