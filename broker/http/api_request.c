/* What all handlers share: reading what the request says, and answering it. */
#include "broker/http/api_request.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>

#include "broker/base/log.h"
#include "broker/http/json.h"
#include "broker/http/text.h"
#include "broker/http/url.h"

static const char type_json[] = "application/json";
static const char type_msgpack[] = "application/msgpack";

/* ---- reading -------------------------------------------------------------------------------- */

static const char no_room[] = "the request takes too much memory to handle";

err_t api_alloc(struct api_request *request, size_t count, size_t size, void *out)
{
    void *memory = arena_calloc(&request->exchange->arena, count, size);
    if (memory == NULL) {
        return ERR(TOO_LARGE, "%s", no_room);
    }
    memcpy(out, &memory, sizeof memory);
    return NULL;
}

enum body_form { FORM_JSON, FORM_MSGPACK, FORM_OTHER };

/* By media type alone: parameters such as charset say nothing new. */
static enum body_form form_of(struct span type)
{
    static const struct {
        const char *type;
        enum body_form form;
    } known[] = {
        {"application/json", FORM_JSON},
        {"application/msgpack", FORM_MSGPACK},
        {"application/vnd.msgpack", FORM_MSGPACK},
        {"application/x-msgpack", FORM_MSGPACK},
    };
    const uint8_t *end = type.size == 0 ? NULL : memchr(type.data, ';', type.size);
    if (end != NULL) {
        type.size = (size_t)(end - type.data);
    }
    type = http_text_trim(type);
    for (size_t index = 0; index < sizeof known / sizeof known[0]; index++) {
        if (http_text_equal(type, known[index].type)) {
            return known[index].form;
        }
    }
    return FORM_OTHER;
}

/* The request's body as MessagePack: itself, or what its JSON says. */
static err_t read_body(struct api_request *request, struct span *out)
{
    struct span type;
    enum body_form form = FORM_JSON;
    if (http_request_header(request->exchange, "Content-Type", &type)) {
        form = form_of(type);
    }
    *out = request->exchange->body;
    if (form == FORM_MSGPACK || out->size == 0) {
        return NULL;
    }
    if (form == FORM_OTHER) {
        return ERR(UNSUPPORTED_TYPE, "Content-Type: must be %s or %s (curl: use --json)", type_json,
                   type_msgpack);
    }
    struct buf packed;
    buf_init(&packed, request->exchange->arena.size_max);
    err_t err = NULL;
    TRY_OUT(json_to_msgpack(*out, &packed));
    uint8_t *kept = arena_alloc(&request->exchange->arena, packed.size);
    if (kept == NULL) {
        err = ERR(TOO_LARGE, "%s", no_room);
        goto out;
    }
    memcpy(kept, packed.data, packed.size);
    *out = span_of(kept, packed.size);
out:
    buf_deinit(&packed);
    return err;
}

err_t api_read(struct api_request *request, enum in_row document,
               struct in_value values[IN_VALUES_MAX])
{
    struct span body;
    TRY(read_body(request, &body));
    return api_in_read_all(body, document, (struct in_place){.name = NULL}, values);
}

bool api_parameter(const struct api_request *request, const char *name, struct span *out)
{
    for (uint32_t index = 0; index < request->parameter_count; index++) {
        if (span_is(request->parameters[index].name, name)) {
            *out = request->parameters[index].value;
            return true;
        }
    }
    return false;
}

err_t api_parameter_bool(const struct api_request *request, const char *name, bool initial,
                         bool *out)
{
    struct span value;
    *out = initial;
    if (api_parameter(request, name, &value)) {
        *out = value.size == 0 || span_is(value, "true") || span_is(value, "1");
        if (!*out && !span_is(value, "false") && !span_is(value, "0")) {
            return ERR(INVALID, "%s: must be true or false", name);
        }
    }
    return NULL;
}

err_t api_read_page(const struct api_request *request, struct api_page *out)
{
    *out = (struct api_page){.limit = API_PAGE_DEFAULT};
    (void)api_parameter(request, "cursor", &out->cursor);
    struct span text;
    uint64_t limit = 0;
    if (api_parameter(request, "limit", &text)) {
        if (!api_in_digits(text, &limit) || limit < 1 || limit > API_PAGE_MAX) {
            return ERR(INVALID, "limit: must be between 1 and %d", API_PAGE_MAX);
        }
        out->limit = (uint32_t)limit;
    }
    return NULL;
}

/* Whether a list of entity tags names `version`, or any with "*". */
static bool etags_match(struct span list, uint32_t version)
{
    char tag[16];
    int size = snprintf(tag, sizeof tag, "\"%u\"", version);
    while (list.size > 0) {
        const uint8_t *comma = memchr(list.data, ',', list.size);
        size_t item_size = comma == NULL ? list.size : (size_t)(comma - list.data);
        struct span item = http_text_trim(span_of(list.data, item_size));
        if (span_is(item, "*") || span_equal(item, span_of(tag, (size_t)size))) {
            return true;
        }
        size_t taken = comma == NULL ? item_size : item_size + 1;
        list = span_of(list.data + taken, list.size - taken);
    }
    return false;
}

err_t api_read_conditions(const struct api_request *request, uint32_t version,
                          struct catalog_change *change)
{
    struct span value;
    if (http_request_header(request->exchange, "If-Match", &value)) {
        if (version == 0 || !etags_match(value, version)) {
            return ERR(PRECONDITION, "If-Match: the present version is \"%u\"", version);
        }
        change->has_version = true;
        change->version = version;
    }
    if (http_request_header(request->exchange, "If-None-Match", &value)) {
        if (!span_is(http_text_trim(value), "*")) {
            return ERR(INVALID, "If-None-Match: only * is supported");
        }
        if (version != 0) {
            return ERR(PRECONDITION, "If-None-Match: it exists already");
        }
        change->create_only = true;
    }
    return NULL;
}

err_t api_find_topic(const struct api_request *request, struct catalog_topic **out)
{
    *out = catalog_topic(router_catalog(request->api->router), request->topic);
    if (*out == NULL) {
        return ERR(NOT_FOUND, "there is no topic \"%.*s\"", (int)request->topic.size,
                   (const char *)request->topic.data);
    }
    return NULL;
}

err_t api_find_sub(const struct api_request *request, struct catalog_sub **out)
{
    struct catalog_topic *topic;
    TRY(api_find_topic(request, &topic));
    *out = catalog_sub(topic, request->sub);
    if (*out == NULL) {
        return ERR(NOT_FOUND, "topic \"%s\" has no subscription \"%.*s\"", topic->name,
                   (int)request->sub.size, (const char *)request->sub.data);
    }
    return NULL;
}

bool api_take_start(struct span value, enum start_at *start, uint64_t *start_value)
{
    struct span text;
    *start_value = 0;
    if (api_in_integer(value, start_value)) {
        *start = START_TIME;
        return true;
    }
    if (!api_in_text(value, &text)) {
        return false;
    }
    *start = span_is(text, "latest")     ? START_LATEST
             : span_is(text, "earliest") ? START_EARLIEST
                                         : START_TIME;
    return *start != START_TIME || api_in_time(text, start_value);
}

void api_operation_end(struct api_request *request)
{
    if (request->operation != NULL) {
        router_release(request->operation);
        request->operation = NULL;
    }
}

void api_operation(struct api_request *request, struct router_operation *operation,
                   router_done done)
{
    api_operation_end(request);
    request->operation = operation;
    list_init(&operation->calls); /* nothing to release until it is started */
    operation->arena = &request->exchange->arena;
    operation->done = done;
    operation->user = request;
}

/* ---- answering ------------------------------------------------------------------------------ */

void api_answer_begin(const struct api_request *request, struct buf *buf, struct out *out)
{
    buf_init(buf, API_ANSWER_MAX);
    out_init(out, buf, request->msgpack);
}

void api_answer_text(struct api_request *request, int status, const char *content_type,
                     struct buf *buf)
{
    struct metrics *metrics = request->api->options.metrics;
    uint64_t now_us = clock_mono_us(request->api->options.socket_clock);
    uint64_t received_us = request->exchange->received_us;
    metrics_count_status(metrics, status);
    metrics_observe(&metrics->http_request_duration_seconds,
                    now_us > received_us ? now_us - received_us : 0);
    api_operation_end(request);
    http_respond(request->exchange, status, content_type, buf);
}

void api_answer(struct api_request *request, int status, struct buf *buf)
{
    if (!request->msgpack) {
        buf_append_byte(buf, '\n'); /* for people and their terminals */
    }
    api_answer_text(request, status, request->msgpack ? type_msgpack : type_json, buf);
}

void api_answer_empty(struct api_request *request, int status)
{
    api_answer_text(request, status, NULL, NULL);
}

void api_answer_etag(struct api_request *request, uint32_t version)
{
    char tag[16];
    int size = snprintf(tag, sizeof tag, "\"%u\"", version);
    http_response_header(request->exchange, "ETag", span_of(tag, (size_t)size));
}

void api_out_next(struct out *out, bool more, struct span cursor)
{
    if (more) {
        out_field_span(out, "next", cursor);
    } else {
        out_field_null(out, "next");
    }
}

void api_out_age(struct out *out, const char *name, uint64_t since_ms, uint64_t now_ms)
{
    if (since_ms == 0) {
        out_field_null(out, name);
    } else {
        out_field_u64(out, name, now_ms > since_ms ? now_ms - since_ms : 0);
    }
}

/* ---- problems ------------------------------------------------------------------------------- */

/* The field a detail begins with: "messages[3].key" of "messages[3].key: must be ...". */
static struct span field_of(enum err_code code, const char *detail)
{
    int status = err_status(code);
    size_t size = 0;
    while (isalnum((unsigned char)detail[size]) ||
           (detail[size] != '\0' && strchr("_-.[]", detail[size]) != NULL)) {
        size++;
    }
    bool named = size > 0 && detail[size] == ':' && detail[size + 1] == ' ';
    return span_of(detail, named && (status < 500 || status == 501) ? size : 0);
}

/* A problem's members up to those a caller adds; request_id 0: the request never got one. */
static void problem_print(struct out *out, enum err_code code, const char *detail,
                          uint64_t request_id)
{
    char text[64];
    struct span field = field_of(code, detail);
    out_map(out);
    (void)snprintf(text, sizeof text, "urn:flare:problem:%s", err_slug(code));
    out_field_text(out, "type", text);
    out_field_text(out, "title", err_title(code));
    out_field_u64(out, "status", (uint64_t)err_status(code));
    out_field_text(out, "detail", detail[0] == '\0' ? err_title(code) : detail);
    out_field_text(out, "code", err_slug(code));
    out_field_bool(out, "retryable", err_retryable(code) != 0);
    if (field.size > 0) {
        out_field_span(out, "field", field);
    }
    if (request_id != 0) {
        (void)snprintf(text, sizeof text, "urn:flare:request:%llu", (unsigned long long)request_id);
        out_field_text(out, "instance", text);
    }
}

void api_problem_begin(struct api_request *request, enum err_code code, const char *detail,
                       struct buf *buf, struct out *out)
{
    buf_init(buf, API_ANSWER_MAX);
    out_init(out, buf, false);
    problem_print(out, code, detail, request->exchange->id);
    /* The other fives are states, not failures, and would flood the log. */
    if (err_status(code) == 500) {
        LOG_WARN("request failed", LOG_U64("request", request->exchange->id),
                 LOG_SPAN("path", request->exchange->path), LOG_TEXT("code", err_slug(code)),
                 LOG_TEXT("detail", detail));
    }
}

void api_problem_end(struct api_request *request, enum err_code code, struct buf *buf,
                     struct out *out)
{
    out_end(out);
    buf_append_byte(buf, '\n');
    int status = err_status(code);
    if (status == 429 || status == 503 || status == 507) {
        /* A full disk takes longer to mend than a full queue. */
        http_response_header(request->exchange, "Retry-After",
                             span_text(status == 507 ? "10" : "1"));
    }
    api_answer_text(request, status, "application/problem+json", buf);
}

void api_problem(struct api_request *request, enum err_code code, const char *detail)
{
    struct buf buf;
    struct out out;
    api_problem_begin(request, code, detail, &buf, &out);
    api_problem_end(request, code, &buf, &out);
}

bool api_failed(struct api_request *request, const struct router_operation *operation)
{
    if (operation->result.code == ERR_NONE) {
        return false;
    }
    api_problem(request, operation->result.code, operation->result.detail);
    return true;
}

void api_fail(struct api_request *request, err_t err)
{
    api_problem(request, err_code(err), err_message(err));
    err_free(err);
}

void api_on_problem(void *user, enum err_code code, const char *detail, struct buf *body,
                    const char **content_type)
{
    const struct api *api = user;
    struct out out;
    metrics_count_status(api->options.metrics, err_status(code));
    out_init(&out, body, false);
    problem_print(&out, code, detail == NULL ? "" : detail, 0);
    out_end(&out);
    buf_append_byte(body, '\n');
    *content_type = "application/problem+json";
}
