/* From a request to its handler. */
#include "broker/http/api.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/log.h"
#include "broker/http/api_request.h"
#include "broker/http/text.h"
#include "broker/http/url.h"

enum { OPENAPI_SIZE_MAX = 1 << 20 };

err_t api_create(const struct api_options *options, struct api **out)
{
    struct api *api = calloc(1, sizeof *api);
    if (api == NULL) {
        return ERR(MEMORY, "no memory for the HTTP API");
    }
    *api = (struct api){.options = *options,
                        .router = options->router,
                        .clock = options->clock,
                        .wire_address = ""};
    if (options->socket_clock == NULL) {
        api->options.socket_clock = options->clock;
    }
    api->started_ms = clock_wall_ms(api->clock);
    api->started_us = clock_mono_us(api->clock);
    buf_init(&api->openapi, OPENAPI_SIZE_MAX);
    openapi_print(options->version, &api->openapi);
    if (api->openapi.failed) {
        api_destroy(api);
        return ERR(MEMORY, "no memory for the HTTP API");
    }
    *out = api;
    return NULL;
}

void api_set_server(struct api *api, const struct http_server *server)
{
    api->server = server;
}

void api_set_wire(struct api *api, const char *address)
{
    api->wire_address = address;
}

void api_drain(struct api *api)
{
    api->stopping = true;
}

void api_destroy(struct api *api)
{
    if (api != NULL) {
        buf_deinit(&api->openapi);
        free(api);
    }
}

/* Which forms an Accept header allows, best first by quality; on a tie JSON. */
struct accepted {
    uint32_t json; /* quality in thousandths; 0: not allowed */
    uint32_t msgpack;
};

/* "q=0.8" as 800; what cannot be read counts as 1. */
static uint32_t quality_of(struct span parameters)
{
    while (parameters.size > 0) {
        const uint8_t *semicolon = memchr(parameters.data, ';', parameters.size);
        size_t size = semicolon == NULL ? parameters.size : (size_t)(semicolon - parameters.data);
        struct span one = http_text_trim(span_of(parameters.data, size));
        if (one.size >= 3 && (one.data[0] | 0x20) == 'q' && one.data[1] == '=') {
            uint32_t quality = one.data[2] == '1' ? 1000 : 0;
            uint32_t scale = 100;
            for (size_t at = 4; at < one.size && at < 7; at++, scale /= 10) {
                quality += one.data[at] >= '0' && one.data[at] <= '9'
                               ? (uint32_t)(one.data[at] - '0') * scale
                               : 0;
            }
            return quality > 1000 ? 1000 : quality;
        }
        size_t taken = semicolon == NULL ? size : size + 1;
        parameters = span_of(parameters.data + taken, parameters.size - taken);
    }
    return 1000;
}

static void accept_range(struct span range, struct accepted *accepted)
{
    const uint8_t *semicolon = range.size == 0 ? NULL : memchr(range.data, ';', range.size);
    size_t size = semicolon == NULL ? range.size : (size_t)(semicolon - range.data);
    struct span type = http_text_trim(span_of(range.data, size));
    size_t skipped = semicolon == NULL ? size : size + 1;
    uint32_t quality = quality_of(span_of(range.data + skipped, range.size - skipped));
    bool any = http_text_equal(type, "*/*") || http_text_equal(type, "application/*");
    bool json = http_text_equal(type, "application/json") ||
                http_text_equal(type, "application/problem+json");
    bool msgpack = http_text_equal(type, "application/msgpack") ||
                   http_text_equal(type, "application/vnd.msgpack") ||
                   http_text_equal(type, "application/x-msgpack");
    if (any || json) {
        accepted->json = quality > accepted->json ? quality : accepted->json;
    }
    if (any || msgpack) {
        accepted->msgpack = quality > accepted->msgpack ? quality : accepted->msgpack;
    }
}

/* Chooses the form of the answer; false: the client takes neither. */
static bool choose_form(struct api_request *request)
{
    struct span accept;
    if (!http_request_header(request->exchange, "Accept", &accept) || accept.size == 0 ||
        span_is(accept, "*/*")) {
        return true;
    }
    struct accepted accepted = {.json = 0};
    while (accept.size > 0) {
        const uint8_t *comma = memchr(accept.data, ',', accept.size);
        size_t size = comma == NULL ? accept.size : (size_t)(comma - accept.data);
        accept_range(span_of(accept.data, size), &accepted);
        size_t taken = comma == NULL ? size : size + 1;
        accept = span_of(accept.data + taken, accept.size - taken);
    }
    request->msgpack = accepted.msgpack > accepted.json;
    return accepted.msgpack > 0 || accepted.json > 0;
}

/* A web page on another site must not use the broker through its visitor's browser. */
static bool origin_allowed(const struct http_exchange *exchange)
{
    struct span origin;
    struct span host;
    if (!http_request_header(exchange, "Origin", &origin)) {
        return true;
    }
    if (!http_request_header(exchange, "Host", &host)) {
        return false;
    }
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t index = 0; index < 2; index++) {
        struct span scheme = span_text(schemes[index]);
        if (span_starts_with(origin, scheme) &&
            http_text_same(span_of(origin.data + scheme.size, origin.size - scheme.size), host)) {
            return true;
        }
    }
    return false;
}

static err_t read_name(struct api_request *request, const char *what, struct span *name)
{
    if (name->data == NULL) {
        return NULL; /* the route has none */
    }
    if (!http_percent_decode(&request->exchange->arena, *name, name) ||
        !catalog_name_valid(*name)) {
        return ERR(INVALID, "%s: must match [A-Za-z0-9._-]{1,255}", what);
    }
    return NULL;
}

static err_t read_parameters(struct api_request *request)
{
    struct span rest = request->exchange->query;
    struct api_parameter one;
    while (http_query_next(&rest, &one.name, &one.value)) {
        if (!route_has_parameter(request->route, one.name)) {
            return ERR(INVALID, "there is no such query parameter here");
        }
        for (uint32_t index = 0; index < request->parameter_count; index++) {
            if (span_equal(request->parameters[index].name, one.name)) {
                return ERR(INVALID, "a query parameter is given twice");
            }
        }
        if (!http_query_decode(&request->exchange->arena, one.value, &one.value)) {
            return ERR(INVALID, "a query parameter is badly encoded");
        }
        request->parameters[request->parameter_count++] = one;
    }
    return NULL;
}

/* OPTIONS, and methods a path does not have. */
static void answer_allow(struct api_request *request, uint32_t methods)
{
    char allow[64];
    size_t size = (size_t)snprintf(allow, sizeof allow, "OPTIONS");
    for (int method = HTTP_METHOD_GET; method < HTTP_METHOD_OPTIONS; method++) {
        if ((methods & UINT32_C(1) << method) != 0) {
            size += (size_t)snprintf(allow + size, sizeof allow - size, ", %s",
                                     route_method_text((enum http_method)method));
            assert(size < sizeof allow); /* all of the names fit */
        }
    }
    http_response_header(request->exchange, "Allow", span_text(allow));
    if (request->exchange->method == HTTP_METHOD_OPTIONS) {
        api_answer_empty(request, 204);
        return;
    }
    char detail[128];
    (void)snprintf(detail, sizeof detail, "this path has: %s", allow);
    api_problem(request, ERR_METHOD, detail);
}

static err_t handle(struct api_request *request)
{
    struct http_exchange *exchange = request->exchange;
    if (!origin_allowed(exchange)) {
        return ERR(INVALID, "Origin: requests from other sites are not served");
    }
    struct route_match match = route_find(exchange->method, exchange->path);
    if (match.route == NULL) {
        if (match.methods != 0) {
            answer_allow(request, match.methods);
            return NULL;
        }
        return ERR(NOT_FOUND, "there is no such path; /openapi.json lists those there are");
    }
    request->route = match.route;
    request->topic = match.topic;
    request->sub = match.subscription;
    if (match.route->answer < ROUTE_DOCUMENT_none && !choose_form(request)) {
        return ERR(NOT_ACCEPTABLE, "Accept: must allow application/json or application/msgpack");
    }
    TRY(read_name(request, "topic", &request->topic));
    TRY(read_name(request, "subscription", &request->sub));
    TRY(read_parameters(request));
    LOG_DEBUG("request", LOG_U64("request", exchange->id), LOG_TEXT("route", match.route->name),
              LOG_SPAN("path", exchange->path));
    return match.route->handle(request);
}

void api_on_request(void *user, struct http_exchange *exchange)
{
    struct api *api = user;
    struct api_request *request = arena_calloc(&exchange->arena, 1, sizeof *request);
    struct api_request fallback = {.api = api, .exchange = exchange};
    if (request == NULL) {
        api_problem(&fallback, ERR_UNAVAILABLE, "no memory for the request");
        return;
    }
    *request = fallback;
    err_t err = handle(request);
    if (err != NULL) {
        api_fail(request, err);
    }
}
