/* What the tests of the HTTP API stand on: the real API between a server and a router that are
 * played here.
 *
 * `call` sends one request and, unless `fake.hold` is set, lets what it started at the router
 * finish the way `fake` says. `answer` is what came back. The catalog is a plain array. Each test
 * program includes this once. */
#ifndef UNIT_API_FIXTURE_H
#define UNIT_API_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "broker/core/attributes.h"
#include "broker/core/message_id.h"
#include "broker/core/receipt.h"
#include "broker/http/api.h"
#include "broker/http/api_request.h"
#include "broker/http/text.h"
#include "broker/wire/reader.h"
#include "broker/wire/writer.h"

#define UNUSED __attribute__((unused)) /* not every program uses all of it */
enum { FIXTURE_SHARDS = 2, FIXTURE_SUBS = 3, FIXTURE_HEADERS = 16 };
#define FIXTURE_START_MS (UINT64_C(1767323045) * 1000 + 678)

/* ---- the catalog ---------------------------------------------------------------------------- */

struct catalog {
    struct catalog_topic topic; /* id 0: there is none */
    struct catalog_shard shards[FIXTURE_SHARDS];
    struct catalog_sub subs[FIXTURE_SUBS]; /* id 0: there is none; in order of name */
};

/* ---- what was asked and what is to come of it ----------------------------------------------- */

enum fake_kind {
    FAKE_NONE,
    FAKE_PUBLISH,
    FAKE_PULL,
    FAKE_SETTLE,
    FAKE_PEEK,
    FAKE_CHANGE,
    FAKE_STATS,
    FAKE_CONFIGURE
};

static struct {
    struct catalog catalog;
    bool hold;           /* do not finish what `call` starts */
    enum fake_kind kind; /* of what was started last */
    struct router_operation *operation;
    uint32_t started;
    uint32_t released;
    uint32_t cancelled;
    enum err_code code; /* what operations end with */
    const char *detail;
    uint32_t refuse_versions;    /* so many changes of the catalog lose a race first */
    enum err_code item_codes[8]; /* for messages and receipts, by index */
    enum durability durability;  /* what publishes end with */
    bool replayed;
    bool more;
    uint64_t count;
    struct reply reply;
    bool has_reply;
    bool volume_failed;
    bool volume_full;
    uint32_t waiting;
} fake;

static struct {
    bool done;
    int status;
    char content_type[64];
    char headers[1024];
    struct buf body;
    json_t *json;
} answer;

static struct api *api;
static struct clock fixture_clock;
static struct metrics fixture_metrics;
static struct http_exchange exchange;
static struct http_header request_headers[FIXTURE_HEADERS];

/* ---- the server, played --------------------------------------------------------------------- */

bool http_request_header(const struct http_exchange *of, const char *name, struct span *out)
{
    for (uint32_t index = 0; index < of->header_count; index++) {
        if (http_text_equal(of->headers[index].name, name)) {
            *out = of->headers[index].value;
            return true;
        }
    }
    return false;
}

void http_response_header(struct http_exchange *of, const char *name, struct span value)
{
    (void)of;
    size_t size = strlen(answer.headers);
    (void)snprintf(answer.headers + size, sizeof answer.headers - size, "%s: %.*s\n", name,
                   (int)value.size, (const char *)value.data);
}

void http_respond(struct http_exchange *of, int status, const char *content_type, struct buf *body)
{
    assert_false(answer.done); /* a request is answered once */
    answer.done = true;
    answer.status = status;
    if (content_type != NULL) {
        (void)snprintf(answer.content_type, sizeof answer.content_type, "%s", content_type);
    }
    if (body != NULL) {
        assert_false(body->failed);
        answer.body = *body;
        buf_init(body, 0);
    }
    arena_reset(&of->arena); /* ends the request and all of its memory, as the server does */
    if (strstr(answer.content_type, "json") != NULL) {
        answer.json = json_loadb((const char *)answer.body.data, answer.body.size,
                                 JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        assert_non_null(answer.json); /* what says it is JSON is JSON */
    }
}

const struct http_counters *http_server_counters(const struct http_server *server)
{
    static const struct http_counters none = {.connections_open = 1, .connections_total = 7};
    (void)server;
    return &none;
}

/* ---- the catalog, played -------------------------------------------------------------------- */

struct catalog_topic *catalog_topic(const struct catalog *catalog, struct span name)
{
    struct catalog_topic *topic = &fake.catalog.topic;
    (void)catalog;
    return topic->id != 0 && span_is(name, topic->name) ? topic : NULL;
}

struct catalog_topic *catalog_topic_after(const struct catalog *catalog, struct span name)
{
    struct catalog_topic *topic = &fake.catalog.topic;
    (void)catalog;
    return topic->id != 0 && span_compare(name, span_text(topic->name)) < 0 ? topic : NULL;
}

struct catalog_sub *catalog_sub(const struct catalog_topic *topic, struct span name)
{
    (void)topic;
    for (uint32_t index = 0; index < FIXTURE_SUBS; index++) {
        struct catalog_sub *sub = &fake.catalog.subs[index];
        if (sub->id != 0 && span_is(name, sub->name)) {
            return sub;
        }
    }
    return NULL;
}

struct catalog_sub *catalog_sub_after(const struct catalog_topic *topic, struct span name)
{
    (void)topic;
    for (uint32_t index = 0; index < FIXTURE_SUBS; index++) {
        struct catalog_sub *sub = &fake.catalog.subs[index];
        if (sub->id != 0 && span_compare(name, span_text(sub->name)) < 0) {
            return sub;
        }
    }
    return NULL;
}

struct catalog_sub *catalog_sub_by_id(const struct catalog *catalog, uint32_t id)
{
    (void)catalog;
    return id >= 1 && id <= FIXTURE_SUBS && fake.catalog.subs[id - 1].id == id
               ? &fake.catalog.subs[id - 1]
               : NULL;
}

const struct catalog_shard *catalog_shard_by_id(const struct catalog *catalog, uint32_t shard_id,
                                                struct catalog_topic **topic)
{
    (void)catalog;
    if (shard_id < 1 || shard_id > FIXTURE_SHARDS) {
        return NULL;
    }
    *topic = &fake.catalog.topic;
    return &fake.catalog.shards[shard_id - 1];
}

bool catalog_name_valid(struct span name)
{
    for (size_t at = 0; at < name.size; at++) {
        if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-",
                   name.data[at]) == NULL ||
            name.data[at] == '\0') {
            return false;
        }
    }
    return name.size >= 1 && name.size <= 255 && !span_is(name, ".") && !span_is(name, "..");
}

/* ---- the router, played --------------------------------------------------------------------- */

static void fake_start(enum fake_kind kind, struct router_operation *operation)
{
    assert_non_null(operation->arena);
    assert_non_null(operation->done);
    list_init(&operation->calls);
    operation->router = (struct router *)(void *)&fake; /* started: one release is due */
    fake.kind = kind;
    fake.operation = operation;
    fake.started++;
}

void router_start_publish(struct router *router, struct router_publish *publish)
{
    (void)router;
    fake_start(FAKE_PUBLISH, &publish->operation);
}

void router_start_pull(struct router *router, struct router_pull *pull)
{
    (void)router;
    fake_start(FAKE_PULL, &pull->operation);
}

void router_start_settle(struct router *router, struct router_settle *settle)
{
    (void)router;
    fake_start(FAKE_SETTLE, &settle->operation);
}

void router_start_peek(struct router *router, struct router_peek *peek)
{
    (void)router;
    fake_start(FAKE_PEEK, &peek->operation);
}

void router_start_change(struct router *router, struct router_change *change)
{
    (void)router;
    fake_start(FAKE_CHANGE, &change->operation);
}

void router_start_stats(struct router *router, struct router_stats *stats)
{
    (void)router;
    fake_start(FAKE_STATS, &stats->operation);
}

void router_start_configure(struct router *router, struct router_configure *configure)
{
    (void)router;
    fake_start(FAKE_CONFIGURE, &configure->operation);
}

void router_cancel_pull(struct router *router, struct router_pull *pull)
{
    (void)router;
    assert_ptr_equal(&pull->operation, fake.operation);
    fake.cancelled++;
}

const struct reply *router_reply_next(const struct router_operation *operation,
                                      const struct reply *previous)
{
    (void)operation;
    return previous == NULL && fake.has_reply ? &fake.reply : NULL;
}

void router_release(struct router_operation *operation)
{
    assert_true(
        list_empty(&operation->calls)); /* it is where and what it was when it was started */
    fake.released += operation->router != NULL;
    operation->router = NULL;
}

uint64_t router_payload_hash(struct span key, struct span attributes, struct span body)
{
    return key.size * 1000000 + attributes.size * 1000 + body.size;
}

const struct catalog *router_catalog(const struct router *router)
{
    (void)router;
    return &fake.catalog;
}

uint32_t router_volume_count(const struct router *router)
{
    (void)router;
    return 1;
}

void router_volume_status(struct router *router, uint32_t index, struct router_volume_status *out)
{
    (void)router;
    *out = (struct router_volume_status){
        .name = index == 0 ? "volume-0" : "catalog",
        .failed = index == 0 && fake.volume_failed,
        .full = index == 0 && fake.volume_full,
        .used_size = 4096,
        .reader_age_ms = 1500,
    };
    (void)snprintf(out->failure, sizeof out->failure, "%s", out->failed ? "fsync: EIO" : "");
}

uint32_t router_waiting(const struct router *router)
{
    (void)router;
    return fake.waiting;
}

/* ---- finishing ------------------------------------------------------------------------------ */

/* The member of which the operation started last is the head. */
#define FAKE_OPERATION(type) container_of(fake.operation, struct type, operation)

static void fake_configure(struct router_configure *configure)
{
    struct catalog_change *change = &configure->change;
    if (change->op == CATALOG_TOPIC_PUT) {
        struct catalog_topic *topic = &fake.catalog.topic;
        change->created = topic->id == 0;
        if (change->created) {
            memcpy(topic->name, change->topic.data, change->topic.size);
            topic->id = 1;
            topic->state = CATALOG_ACTIVE;
            topic->created_ms = FIXTURE_START_MS;
            topic->shard_count =
                change->shard_count == 0 ? CATALOG_SHARDS_DEFAULT : change->shard_count;
        }
        topic->version++;
        topic->settings = change->topic_settings;
    } else if (change->op == CATALOG_SUB_PUT) {
        struct catalog_sub *sub = catalog_sub(&fake.catalog.topic, change->sub);
        change->created = sub == NULL;
        if (sub == NULL) {
            sub = &fake.catalog.subs[FIXTURE_SUBS - 1];
            memcpy(sub->name, change->sub.data, change->sub.size);
            sub->id = FIXTURE_SUBS;
            sub->state = CATALOG_ACTIVE;
            sub->topic = &fake.catalog.topic;
            sub->created_ms = FIXTURE_START_MS;
        }
        sub->version++;
        bool paused = change->keep_paused ? sub->settings.paused : change->sub_settings.paused;
        sub->settings = change->sub_settings;
        sub->settings.paused = paused;
    }
}

/* Lets the operation started last end as `fake` says. */
UNUSED static void finish(void)
{
    struct router_operation *operation = fake.operation;
    assert_non_null(operation);
    operation->result.code = fake.code;
    if (fake.kind == FAKE_CONFIGURE && fake.refuse_versions > 0) {
        fake.refuse_versions--;
        operation->result.code = ERR_PRECONDITION;
    } else if (fake.kind == FAKE_CONFIGURE && fake.code == ERR_NONE) {
        fake_configure(FAKE_OPERATION(router_configure));
    } else if (fake.kind == FAKE_PUBLISH) {
        struct router_publish *publish = FAKE_OPERATION(router_publish);
        publish->durability = fake.durability;
        for (uint32_t index = 0; index < publish->count; index++) {
            publish->results[index] = (struct publish_result){
                .code = index < 8 ? fake.item_codes[index] : ERR_NONE,
                .replayed = fake.replayed,
                .shard_id = 1,
                .shard_number = 0,
                .sequence = 17 + index,
            };
        }
    } else if (fake.kind == FAKE_SETTLE) {
        struct router_settle *settle = FAKE_OPERATION(router_settle);
        for (uint32_t index = 0; index < settle->count; index++) {
            settle->results[index] = index < 8 ? fake.item_codes[index] : ERR_NONE;
        }
    } else if (fake.kind == FAKE_CHANGE) {
        FAKE_OPERATION(router_change)->count = fake.count;
        FAKE_OPERATION(router_change)->more = fake.more;
    } else if (fake.kind == FAKE_PEEK) {
        FAKE_OPERATION(router_peek)->more = fake.more;
        FAKE_OPERATION(router_peek)->next_shard_id = 2;
        FAKE_OPERATION(router_peek)->next_sequence = 5;
    }
    (void)snprintf(operation->result.detail, sizeof operation->result.detail, "%s",
                   fake.detail == NULL ? "" : fake.detail);
    fake.operation = NULL;
    operation->done(operation);
}

/* ---- requests and answers ------------------------------------------------------------------- */

UNUSED static void answer_clear(void)
{
    json_decref(answer.json);
    buf_deinit(&answer.body);
    memset(&answer, 0, sizeof answer);
    buf_init(&answer.body, 0);
}

/* Sends a request. `headers` is "Name: value\n..." or NULL; the path may have a query. */
UNUSED static void send_bytes(enum http_method method, const char *path, const char *headers,
                              struct span body)
{
    static char lines[4096];
    answer_clear();
    arena_reset(&exchange.arena);
    const char *query = strchr(path, '?');
    size_t size = query == NULL ? strlen(path) : (size_t)(query - path);
    exchange = (struct http_exchange){
        .arena = exchange.arena,
        .method = method,
        .path = span_of(path, size),
        .query = query == NULL ? span_of(NULL, 0) : span_text(query + 1),
        .headers = request_headers,
        .body = body,
        .id = 4711,
    };
    (void)snprintf(lines, sizeof lines, "%s", headers == NULL ? "" : headers);
    for (char *line = strtok(lines, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *colon = strchr(line, ':');
        assert_true(exchange.header_count < FIXTURE_HEADERS);
        request_headers[exchange.header_count++] =
            (struct http_header){span_of(line, (size_t)(colon - line)), span_text(colon + 2)};
    }
    api_on_request(api, &exchange);
    while (!fake.hold && fake.operation != NULL) {
        finish();
    }
}

UNUSED static void call(enum http_method method, const char *path, const char *headers,
                        const char *body)
{
    send_bytes(method, path, headers, body == NULL ? span_of(NULL, 0) : span_text(body));
    assert_true(fake.hold || answer.done);
}

UNUSED static json_t *member(const json_t *of, const char *name)
{
    json_t *found = json_object_get(of, name);
    if (found == NULL) {
        fail_msg("the answer has no %s: %.*s", name, (int)answer.body.size,
                 (const char *)answer.body.data);
    }
    return found;
}

#define expect_text(of, name, text) assert_string_equal(json_string_value(member(of, name)), text)
#define expect_number(of, name, number)                                                            \
    assert_int_equal(json_integer_value(member(of, name)), (json_int_t)(number))

UNUSED static void expect_header(const char *line)
{
    if (strstr(answer.headers, line) == NULL) {
        fail_msg("the answer has no header %s but\n%s", line, answer.headers);
    }
}

/* That the request was refused with this code, blaming this field (NULL: none), and nothing was
 * started. */
UNUSED static void expect_problem(enum err_code code, const char *field)
{
    assert_true(answer.done);
    if (answer.status != err_status(code) ||
        strcmp(answer.content_type, "application/problem+json") != 0) {
        fail_msg("status %d instead of %d: %.*s", answer.status, err_status(code),
                 (int)answer.body.size, (const char *)answer.body.data);
    }
    expect_text(answer.json, "code", err_slug(code));
    expect_number(answer.json, "status", err_status(code));
    expect_text(answer.json, "title", err_title(code));
    assert_int_equal(json_is_true(member(answer.json, "retryable")), err_retryable(code));
    expect_text(answer.json, "instance", "urn:flare:request:4711");
    if (field == NULL) {
        assert_null(json_object_get(answer.json, "field"));
    } else {
        expect_text(answer.json, "field", field);
    }
}

/* That `of` has the fields of the rows of `document` and no others. */
UNUSED static void expect_document(const json_t *of, enum in_row document)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)of, name, value)
    {
        bool known = false;
        for (uint32_t row = document + 1; row < IN_ROWS && api_in_fields[row].kind != IN_KIND_NONE;
             row++) {
            known = known || strcmp(api_in_fields[row].name, name) == 0;
        }
        if (!known) {
            fail_msg("%s has a field %s that api_documents.def does not know",
                     api_in_fields[document].name, name);
        }
    }
    for (uint32_t row = document + 1; row < IN_ROWS && api_in_fields[row].kind != IN_KIND_NONE;
         row++) {
        if (api_in_fields[row].required) {
            (void)member(of, api_in_fields[row].name);
        }
    }
}

/* ---- set-up --------------------------------------------------------------------------------- */

static void fixture_catalog(void)
{
    struct catalog_topic *topic = &fake.catalog.topic;
    *topic = (struct catalog_topic){
        .id = 1,
        .version = 3,
        .state = CATALOG_ACTIVE,
        .created_ms = FIXTURE_START_MS,
        .name = "orders",
        .settings = {.dedup_window_ms = 300000},
        .shard_count = FIXTURE_SHARDS,
        .shards = fake.catalog.shards,
        .sub_count = 2,
    };
    for (uint32_t number = 0; number < FIXTURE_SHARDS; number++) {
        fake.catalog.shards[number] = (struct catalog_shard){
            .place = {.shard_id = number + 1, .number = number}, .volume = (uint16_t)number};
    }
    static const char *const names[] = {"audit", "billing"};
    for (uint32_t index = 0; index < 2; index++) {
        struct catalog_sub *sub = &fake.catalog.subs[index];
        *sub = (struct catalog_sub){
            .id = index + 1,
            .version = 5,
            .state = CATALOG_ACTIVE,
            .created_ms = FIXTURE_START_MS,
            .topic = topic,
            .settings = {.lease_ms = 30000, .max_attempts = 16},
        };
        (void)snprintf(sub->name, sizeof sub->name, "%s", names[index]);
    }
}

UNUSED static int fixture_set_up(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof fake);
    memset(&exchange, 0, sizeof exchange);
    memset(&fixture_metrics, 0, sizeof fixture_metrics);
    fixture_catalog();
    reply_init(&fake.reply);
    clock_init_simulated(&fixture_clock, FIXTURE_START_MS);
    arena_init(&exchange.arena, 65 << 20, 1 << 20);
    const struct api_options options = {
        .clock = &fixture_clock,
        .metrics = &fixture_metrics,
        .limits = {.message_size_max = 1 << 20,
                   .batch_count_max = 100,
                   .pull_count_max = 10000,
                   .pull_size_max = 16 << 20,
                   .wait_max_ms = 20000,
                   .waiters_max = 10},
        .version = "0.1.0+gabc1234.20260101",
        .commit = "abc1234",
    };
    err_t err = api_create(&options, &api);
    assert_null(err);
    return 0;
}

UNUSED static int fixture_tear_down(void **state)
{
    (void)state;
    answer_clear();
    reply_deinit(&fake.reply);
    arena_deinit(&exchange.arena);
    api_destroy(api);
    return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_set_up, fixture_tear_down)

#endif
