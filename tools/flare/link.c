#include "tools/flare/link.h"

#include <stdio.h>
#include <string.h>

#include "broker/base/clock.h"
#include "broker/base/text.h"
#include "broker/http/json.h"
#include "broker/wire/message.h"
#include "tools/flare/trace.h"

enum { CONNECT_TIMEOUT_MS = 5000, TEXT_MAX = 128 * 1024 * 1024 };

static void link_on_frame(void *user, bool is_sent, const char *line)
{
    (void)user;
    trace_line(is_sent ? TRACE_SENT : TRACE_RECEIVED, span_text(line));
}

err_t link_open(struct cli *cli, const char *address, const struct link_options *options,
                struct flare_client **out)
{
    static const struct link_options defaults;
    struct flare_error error;
    uint32_t timeout_ms = (uint32_t)cli->timeout_ms;
    options = options == NULL ? &defaults : options;
    const struct flare_options settings = {
        .url = address,
        .name = "flare",
        .connect_timeout_ms = timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : CONNECT_TIMEOUT_MS,
        .request_timeout_ms = timeout_ms,
        .give_up_ms = timeout_ms,
        .batch_messages = options->batch,
        .trace = cli->trace ? link_on_frame : NULL,
        .on_state = options->on_state,
        .user = options->user};
    enum flare_code code = flare_connect(&settings, out, &error);
    if (code == FLARE_OK) {
        return NULL;
    }
    return err_make((enum err_code)code, __FILE__, __LINE__, __func__,
                    "cannot reach %s: %s (is flared running? flared --data DIR; --http takes the "
                    "other way)",
                    address, error.message);
}

err_t link_error(struct cli *cli, enum flare_code code, const struct flare_error *error)
{
    if (code == FLARE_OK) {
        return NULL;
    }
    if (code == FLARE_ERR_UNAVAILABLE) { /* it was there: it is worth trying again */
        cli->blame = EX_TEMPFAIL;
    }
    return err_make((enum err_code)code, __FILE__, __LINE__, __func__, "%s (%s)", error->message,
                    flare_code_name(code));
}

json_t *link_result(const struct flare_result *result)
{
    return json_pack("{s:s, s:I, s:I, s:s}", "id", result->id, "shard", (json_int_t)result->shard,
                     "sequence", (json_int_t)result->sequence, "durability",
                     result->relaxed ? "relaxed" : "synced");
}

static void set_span(json_t *document, const char *name, const struct buf *text)
{
    (void)json_object_set_new(document, name, json_stringn((const char *)text->data, text->size));
}

static void set_time(json_t *document, const char *iso_name, const char *ms_name, uint64_t ms)
{
    char iso[CLOCK_ISO_SIZE];
    clock_iso(ms, iso);
    (void)json_object_set_new(document, iso_name, json_string(iso));
    (void)json_object_set_new(document, ms_name, json_integer((json_int_t)ms));
}

/* As the HTTP API does: readable text as it is, all else in base64. */
static void set_body(json_t *document, struct span body)
{
    struct buf text;
    if (text_classify(body) != TEXT_BINARY) {
        (void)json_object_set_new(
            document, "body",
            json_stringn(body.size == 0 ? "" : (const char *)body.data, body.size));
        return;
    }
    buf_init(&text, TEXT_MAX);
    json_put_base64(&text, body);
    set_span(document, "body_base64", &text);
    buf_deinit(&text);
}

static json_t *attributes_of(const struct flare_delivery *delivery)
{
    struct wire_list map = {.count = delivery->attribute_count,
                            .items = span_of(delivery->attributes, delivery->attributes_size)};
    struct span name;
    struct span value;
    json_t *attributes = json_object();
    while (wire_map_next(&map, &name, &value)) {
        char key[512];
        (void)snprintf(key, sizeof key, "%.*s", (int)name.size, (const char *)name.data);
        (void)json_object_set_new(attributes, key,
                                  json_stringn((const char *)value.data, value.size));
    }
    return attributes;
}

void link_receipt(const struct flare_receipt *receipt, struct buf *out)
{
    size_t start = out->size;
    json_put_base64(out, span_of(receipt->bytes, receipt->size));
    while (out->size > start && out->data[out->size - 1] == '=') {
        out->size--;
    }
    for (size_t i = start; i < out->size; i++) {
        uint8_t character = out->data[i];
        out->data[i] = character == '+' ? '-' : character == '/' ? '_' : character;
    }
}

json_t *link_delivery(const struct flare_delivery *delivery)
{
    struct buf receipt;
    json_t *document = json_object();
    buf_init(&receipt, TEXT_MAX);
    link_receipt(&delivery->receipt, &receipt);
    set_span(document, "receipt", &receipt);
    buf_deinit(&receipt);
    (void)json_object_set_new(document, "id", json_string(delivery->id));
    (void)json_object_set_new(document, "shard", json_integer((json_int_t)delivery->shard));
    (void)json_object_set_new(document, "sequence", json_integer((json_int_t)delivery->sequence));
    (void)json_object_set_new(document, "epoch", json_integer((json_int_t)delivery->epoch));
    if (delivery->key_size > 0) {
        (void)json_object_set_new(document, "key", json_stringn(delivery->key, delivery->key_size));
    }
    (void)json_object_set_new(document, "attributes", attributes_of(delivery));
    (void)json_object_set_new(document, "attempt", json_integer((json_int_t)delivery->attempt));
    set_time(document, "published_at", "published_ms", delivery->published_ms);
    set_time(document, "lease_until", "lease_until_ms", delivery->lease_until_ms);
    set_body(document, span_of(delivery->body, delivery->body_size));
    return document;
}
