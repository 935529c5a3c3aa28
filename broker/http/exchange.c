/* Exchanges: the pool they come from, what handlers ask of them, and the bytes of the answer. */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "broker/http/conn.h"
#include "broker/http/text.h"

/* Exchange ids are unique in the process, and a node may run several loops. */
static _Atomic uint64_t exchange_last_id;

static struct http_slot *slot_of(struct http_exchange *exchange)
{
    return container_of(exchange, struct http_slot, exchange);
}

/* ---- pool ----------------------------------------------------------------------------------- */

static struct http_slot *slot_create(struct http_server *server)
{
    struct http_slot *slot = calloc(1, sizeof *slot);
    if (slot == NULL) {
        return NULL;
    }
    err_t err = http_parse_init(&slot->parse, &server->options.limits);
    if (err != NULL) {
        err_free(err);
        free(slot);
        return NULL;
    }
    /* Decoding a body may take several times its size; what is beyond is not a request but an
     * attack. */
    size_t arena_max = 4 * (size_t)server->options.limits.body_size_max + (1 << 20);
    arena_init(&slot->exchange.arena, arena_max, HTTP_ARENA_KEEP);
    buf_init(&slot->extra, HTTP_ANSWER_HEAD_MAX / 2);
    buf_init(&slot->head, HTTP_ANSWER_HEAD_MAX);
    buf_init(&slot->answer, SIZE_MAX);
    return slot;
}

void http_slot_destroy(struct http_slot *slot)
{
    arena_deinit(&slot->exchange.arena);
    http_parse_deinit(&slot->parse);
    buf_deinit(&slot->extra);
    buf_deinit(&slot->head);
    buf_deinit(&slot->answer);
    free(slot);
}

struct http_slot *http_slot_acquire(struct http_server *server)
{
    struct list_link *link = list_pop(&server->free_slots);
    if (link != NULL) {
        server->free_slot_count--;
        return container_of(link, struct http_slot, link);
    }
    struct http_slot *slot = slot_create(server);
    if (slot != NULL) {
        slot->server = server;
    }
    return slot;
}

void http_slot_release(struct http_slot *slot)
{
    assert(!slot->handled);
    struct http_server *server = slot->server;
    if (server == NULL || server->is_destroyed || server->free_slot_count == HTTP_SLOTS_KEPT) {
        http_slot_destroy(slot);
        return;
    }
    slot->conn = NULL;
    http_parse_reset(&slot->parse);
    arena_reset(&slot->exchange.arena);
    slot->exchange = (struct http_exchange){.arena = slot->exchange.arena};
    buf_reset(&slot->extra);
    buf_reset(&slot->head);
    buf_deinit(&slot->answer);
    /* The one used last is the one still in the cache. */
    list_prepend(&server->free_slots, &slot->link);
    server->free_slot_count++;
}

/* ---- request -------------------------------------------------------------------------------- */

void http_slot_handle(struct http_slot *slot)
{
    struct http_server *server = slot->server;
    const struct http_parse *parse = &slot->parse;
    struct http_exchange *exchange = &slot->exchange;
    exchange->method = parse->method;
    exchange->method_text = parse->method_text;
    exchange->path = parse->path;
    exchange->query = parse->query;
    exchange->headers = parse->headers;
    exchange->header_count = parse->header_count;
    exchange->body = buf_span(&parse->body);
    exchange->id = atomic_fetch_add_explicit(&exchange_last_id, 1, memory_order_relaxed) + 1;
    slot->handled = true;
    list_append(&server->handled_slots, &slot->link);
    server->pending_count++;
    server->counters.requests_total++;
    server->options.on_request(server->options.user, exchange);
}

void http_slot_abandon(struct http_slot *slot)
{
    assert(slot->handled);
    slot->conn = NULL;
    slot->exchange.abandoned = true;
    if (slot->exchange.on_abandon != NULL) {
        slot->exchange.on_abandon(&slot->exchange);
    }
}

bool http_request_header(const struct http_exchange *exchange, const char *name, struct span *out)
{
    struct span wanted = span_text(name);
    for (uint32_t i = 0; i < exchange->header_count; i++) {
        if (http_text_same(exchange->headers[i].name, wanted)) {
            *out = exchange->headers[i].value;
            return true;
        }
    }
    return false;
}

/* ---- answer --------------------------------------------------------------------------------- */

void http_response_header(struct http_exchange *exchange, const char *name, struct span value)
{
    assert(name[0] != '\0');
    for (const char *at = name; *at != '\0'; at++) {
        assert(http_text_is_token((uint8_t)*at));
    }
    for (size_t i = 0; i < value.size; i++) {
        if (!http_text_is_value(value.data[i])) {
            return;
        }
    }
    struct buf *extra = &slot_of(exchange)->extra;
    /* All of a header or nothing: half a line would run into the next one. */
    if (!buf_reserve(extra, strlen(name) + 2 + value.size + 2)) {
        return;
    }
    buf_append_text(extra, name);
    buf_append_text(extra, ": ");
    buf_append_span(extra, value);
    buf_append_text(extra, "\r\n");
}

static void answer_number(struct buf *head, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    buf_append(head, digits + at, sizeof digits - at);
}

static void answer_line(struct buf *head, const char *name, const char *value)
{
    buf_append_text(head, name);
    buf_append_text(head, value);
    buf_append_text(head, "\r\n");
}

/* Writes the head for the body in slot->answer, and drops that body where none is sent. */
static void answer_finish(struct http_slot *slot, int status, const char *content_type)
{
    const struct http_conn *conn = slot->conn;
    struct buf *head = &slot->head;
    bool has_length = status != 204 && status != 304;
    buf_append_text(head, "HTTP/1.1 ");
    answer_number(head, (uint64_t)status);
    buf_append_byte(head, ' ');
    answer_line(head, http_parse_reason(status), "");
    answer_line(head, "Date: ", http_server_date(slot->server));
    if (content_type != NULL && has_length) {
        answer_line(head, "Content-Type: ", content_type);
    }
    if (has_length) {
        buf_append_text(head, "Content-Length: ");
        answer_number(head, slot->answer.size);
        buf_append_text(head, "\r\n");
    }
    if (conn->ends) {
        answer_line(head, "Connection: ", "close");
    } else if (slot->parse.http_1_0) {
        answer_line(head, "Connection: ", "keep-alive");
    }
    buf_append_span(head, buf_span(&slot->extra));
    buf_append_text(head, "\r\n");
    assert(!head->failed);
    if (!has_length || slot->parse.method == HTTP_METHOD_HEAD) {
        buf_deinit(&slot->answer);
    }
}

void http_slot_refuse(struct http_slot *slot, enum err_code code, const char *detail)
{
    const struct http_server_options *options = &slot->server->options;
    const char *content_type = NULL;
    buf_reset(&slot->extra);
    buf_deinit(&slot->answer);
    options->on_problem(options->user, code, detail, &slot->answer, &content_type);
    if (slot->answer.failed) {
        buf_deinit(&slot->answer);
    }
    answer_finish(slot, err_status(code), content_type);
}

void http_respond(struct http_exchange *exchange, int status, const char *content_type,
                  struct buf *body)
{
    struct http_slot *slot = slot_of(exchange);
    assert(slot->handled);
    assert(status >= 200);
    assert(status <= 599);
    slot->handled = false;
    if (slot->server != NULL) {
        list_remove(&slot->link);
        slot->server->pending_count--;
    }
    if (slot->conn == NULL) {
        if (body != NULL) {
            buf_deinit(body);
        }
        http_slot_release(slot);
        return;
    }
    assert(slot->server != NULL); /* its connections are closed before a server goes */
    slot->conn->ends = slot->conn->ends || slot->server->is_draining;
    if (body != NULL) {
        slot->answer = *body;
        buf_init(body, body->size_max);
    }
    if (slot->answer.failed) {
        /* A body that was cut short must not pass for a whole one. */
        http_slot_refuse(slot, ERR_INTERNAL, "the answer is larger than its limit");
    } else {
        answer_finish(slot, status, content_type);
    }
    http_conn_send(slot->conn);
}
