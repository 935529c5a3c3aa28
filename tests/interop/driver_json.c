/* Commands and results of the driver as JSON. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/interop/driver.h"

json_t *result_make(enum flare_code code, const struct flare_error *error)
{
    if (code == FLARE_OK) {
        return json_pack("{s:s}", "code", "ok");
    }
    assert(error == NULL || error->code == code);
    return json_pack("{s:s, s:s}", "code", flare_code_name(code), "detail",
                     error == NULL ? "" : error->message);
}

static const char *code_text(enum flare_code code)
{
    return code == FLARE_OK ? "ok" : flare_code_name(code);
}

json_t *hex_encode(const void *bytes, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;
    char *text = malloc(2 * size + 1);
    assert(text != NULL);
    for (size_t index = 0; index < size; index++) {
        text[2 * index] = digits[from[index] >> 4];
        text[2 * index + 1] = digits[from[index] & 15];
    }
    text[2 * size] = '\0';
    json_t *value = json_string(text);
    free(text);
    return value;
}

static uint8_t nibble(char digit)
{
    return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

uint8_t *hex_decode(const char *text, size_t *size)
{
    *size = strlen(text) / 2;
    uint8_t *bytes = malloc(*size + 1);
    assert(bytes != NULL);
    for (size_t index = 0; index < *size; index++) {
        bytes[index] = (uint8_t)(nibble(text[2 * index]) << 4 | nibble(text[2 * index + 1]));
    }
    return bytes;
}

const char *field_text(const json_t *command, const char *name, const char *absent)
{
    const char *text = json_string_value(json_object_get(command, name));
    return text == NULL ? absent : text;
}

uint64_t field_number(const json_t *command, const char *name, uint64_t absent)
{
    const json_t *value = json_object_get(command, name);
    return value == NULL ? absent : (uint64_t)json_integer_value(value);
}

bool field_true(const json_t *command, const char *name)
{
    return json_is_true(json_object_get(command, name));
}

/* ---- deliveries and results ------------------------------------------------------------------ */

/* The library gives attributes by name only; those that the scenarios use. */
static json_t *attributes_out(const struct flare_delivery *delivery)
{
    static const char *const names[] = {"a", "b"};
    json_t *attributes = json_object();
    for (size_t index = 0; index < sizeof names / sizeof names[0]; index++) {
        char value[256];
        if (flare_delivery_attribute(delivery, names[index], value, sizeof value)) {
            json_object_set_new(attributes, names[index], json_string(value));
        }
    }
    assert(json_object_size(attributes) == delivery->attribute_count);
    return attributes;
}

json_t *result_delivery(const struct flare_delivery *delivery)
{
    json_t *value =
        json_pack("{s:s, s:o, s:o, s:s%, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "id", delivery->id,
                  "receipt", hex_encode(delivery->receipt.bytes, delivery->receipt.size), "body",
                  hex_encode(delivery->body, delivery->body_size), "key",
                  delivery->key_size == 0 ? "" : delivery->key, delivery->key_size, "attributes",
                  attributes_out(delivery), "shard", (json_int_t)delivery->shard, "sequence",
                  (json_int_t)delivery->sequence, "attempt", (json_int_t)delivery->attempt,
                  "published_ms", (json_int_t)delivery->published_ms, "lease_until_ms",
                  (json_int_t)delivery->lease_until_ms, "epoch", (json_int_t)delivery->epoch);
    assert(value != NULL);
    return value;
}

json_t *result_pulled(const struct flare_batch *batch)
{
    json_t *deliveries = json_array();
    for (size_t index = 0; index < flare_batch_count(batch); index++) {
        json_array_append_new(deliveries, result_delivery(flare_batch_get(batch, index)));
    }
    return json_pack("{s:s, s:o}", "code", "ok", "deliveries", deliveries);
}

json_t *result_published(const struct flare_result *results, size_t count)
{
    enum flare_code first = FLARE_OK;
    json_t *array = json_array();
    for (size_t index = 0; index < count; index++) {
        const struct flare_result *result = &results[index];
        first = first == FLARE_OK ? result->code : first;
        json_array_append_new(
            array, json_pack("{s:s, s:s, s:I, s:I, s:b, s:b}", "code", code_text(result->code),
                             "id", result->id, "shard", (json_int_t)result->shard, "sequence",
                             (json_int_t)result->sequence, "replayed", (int)result->replayed,
                             "relaxed", (int)result->relaxed));
    }
    return json_pack("{s:s, s:o}", "code", code_text(first), "results", array);
}

json_t *result_settled(const enum flare_code *codes, size_t count)
{
    enum flare_code first = FLARE_OK;
    json_t *array = json_array();
    for (size_t index = 0; index < count; index++) {
        first = first == FLARE_OK ? codes[index] : first;
        json_array_append_new(array, json_string(code_text(codes[index])));
    }
    return json_pack("{s:s, s:o}", "code", code_text(first), "codes", array);
}

/* ---- messages and receipts ------------------------------------------------------------------- */

static void attributes_in(struct flare_message *message, json_t *attributes)
{
    const char *name;
    json_t *value;
    struct flare_attribute *list = calloc(json_object_size(attributes) + 1, sizeof *list);
    assert(list != NULL);
    json_object_foreach(attributes, name, value)
    {
        list[message->attribute_count].name = name;
        list[message->attribute_count].value = json_string_value(value);
        message->attribute_count++;
    }
    message->attributes = list;
}

void message_list_init(struct message_list *list, const json_t *command)
{
    const json_t *array = json_object_get(command, "messages");
    list->count = json_array_size(array);
    list->items = calloc(list->count + 1, sizeof *list->items);
    assert(list->items != NULL);
    for (size_t index = 0; index < list->count; index++) {
        const json_t *from = json_array_get(array, index);
        struct flare_message *message = &list->items[index];
        message->body = hex_decode(field_text(from, "body", ""), &message->body_size);
        message->key = field_text(from, "key", NULL);
        message->idempotency_key = field_text(from, "idempotency_key", NULL);
        message->delay_ms = field_number(from, "delay_ms", 0);
        message->ttl_ms = field_number(from, "ttl_ms", 0);
        attributes_in(message, json_object_get(from, "attributes"));
    }
}

void message_list_deinit(struct message_list *list)
{
    for (size_t index = 0; index < list->count; index++) {
        free((void *)(uintptr_t)list->items[index].body);
        free((void *)(uintptr_t)list->items[index].attributes);
    }
    free(list->items);
}

struct flare_source source_decode(const json_t *command)
{
    return (struct flare_source){.topic = field_text(command, "topic", ""),
                                 .subscription = field_text(command, "subscription", "")};
}

struct flare_pull pull_decode(const json_t *command)
{
    return (struct flare_pull){.max = (uint32_t)field_number(command, "max", 1),
                               .max_bytes = (uint32_t)field_number(command, "max_bytes", 0),
                               .wait_ms = field_number(command, "wait_ms", 0),
                               .lease_ms = field_number(command, "lease_ms", 0),
                               .consumer = field_text(command, "consumer", NULL)};
}

static struct flare_receipt *receipts_decode(const json_t *array)
{
    size_t count = json_array_size(array);
    struct flare_receipt *receipts = calloc(count + 1, sizeof *receipts);
    assert(receipts != NULL);
    for (size_t index = 0; index < count; index++) {
        size_t size;
        uint8_t *bytes = hex_decode(json_string_value(json_array_get(array, index)), &size);
        assert(size <= sizeof receipts[index].bytes);
        receipts[index].size = (uint8_t)size;
        memcpy(receipts[index].bytes, bytes, size);
        free(bytes);
    }
    return receipts;
}

static enum flare_settle_kind kind_decode(const char *name)
{
    static const char *const names[] = {
        [FLARE_SETTLE_ACK] = "ack", [FLARE_SETTLE_NACK] = "nack", [FLARE_SETTLE_EXTEND] = "extend"};
    for (size_t index = 1; index < sizeof names / sizeof names[0]; index++) {
        if (strcmp(names[index], name) == 0) {
            return (enum flare_settle_kind)index;
        }
    }
    assert(false && "a kind is ack, nack or extend");
    return FLARE_SETTLE_ACK;
}

struct flare_settle settle_decode(const json_t *command)
{
    const json_t *receipts = json_object_get(command, "receipts");
    return (struct flare_settle){.kind = kind_decode(field_text(command, "kind", "")),
                                 .nack = {.has_delay = json_object_get(command, "delay_ms") != NULL,
                                          .delay_ms = field_number(command, "delay_ms", 0),
                                          .reject = field_true(command, "reject"),
                                          .reason = field_text(command, "reason", NULL)},
                                 .lease_ms = field_number(command, "lease_ms", 0),
                                 .receipts = receipts_decode(receipts),
                                 .count = json_array_size(receipts)};
}
