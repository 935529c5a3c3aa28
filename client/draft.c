#include "client/draft.h"

#include "broker/base/text.h"
#include "broker/wire/writer.h"

/* The broker's bounds, beside those of messages.def. */
enum {
    DRAFT_NAME_MAX = 255,
    DRAFT_KEY_MAX = 2048,
    DRAFT_IDEMPOTENCY_KEY_MAX = 255,
    DRAFT_ATTRIBUTES_MAX = 64,
    DRAFT_ATTRIBUTES_SIZE_MAX = 32 * 1024,
    DRAFT_PAIR_SIZE = 4, /* what the broker counts of an attribute beside its texts */
    DRAFT_RECORD_OVERHEAD = 64,
    DRAFT_PAIR_OVERHEAD = 10,
};
#define DRAFT_DAY_MS UINT64_C(86400000)

static bool is_name_byte(uint8_t byte, bool takes_upper)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '.' ||
           byte == '_' || byte == '-' || (takes_upper && byte >= 'A' && byte <= 'Z');
}

static bool is_name(const char *name, bool takes_upper)
{
    size_t size = 0;
    while (size <= DRAFT_NAME_MAX && name[size] != '\0') {
        if (!is_name_byte((uint8_t)name[size], takes_upper)) {
            return false;
        }
        size++;
    }
    return size > 0 && size <= DRAFT_NAME_MAX;
}

err_t draft_check_name(const char *what, const char *name)
{
    if (name == NULL) {
        return ERR(INVALID, "%s: is missing", what);
    }
    if (!is_name(name, true) || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return ERR(INVALID, "%s: names match [A-Za-z0-9._-]{1,255}", what);
    }
    return NULL;
}

err_t draft_check_source(const struct flare_source *source)
{
    TRY(draft_check_name("topic", source->topic));
    TRY(draft_check_name("subscription", source->subscription));
    return NULL;
}

size_t draft_source_size(const struct flare_source *source)
{
    return strlen(source->topic) + strlen(source->subscription) + 2;
}

char *draft_copy_source(char *at, const struct flare_source *source, struct flare_source *out)
{
    size_t topic_size = strlen(source->topic) + 1;
    size_t subscription_size = strlen(source->subscription) + 1;
    out->topic = memcpy(at, source->topic, topic_size);
    out->subscription = memcpy(at + topic_size, source->subscription, subscription_size);
    return at + topic_size + subscription_size;
}

err_t draft_check_text(const char *what, const char *text, size_t size_max)
{
    if (text == NULL) {
        return NULL;
    }
    size_t size = strnlen(text, size_max + 1);
    if (size > size_max) {
        return ERR(INVALID, "%s: has more than %zu bytes", what, size_max);
    }
    if (text_classify(span_of(text, size)) != TEXT_PLAIN) {
        return ERR(INVALID, "%s: must be UTF-8 without control characters", what);
    }
    return NULL;
}

static err_t check_attributes(const struct flare_message *message)
{
    size_t size = 0;
    if (message->attribute_count > DRAFT_ATTRIBUTES_MAX) {
        return ERR(INVALID, "attributes: are more than %d", DRAFT_ATTRIBUTES_MAX);
    }
    for (size_t index = 0; index < message->attribute_count; index++) {
        const struct flare_attribute *attribute = &message->attributes[index];
        if (attribute->name == NULL || attribute->value == NULL ||
            !is_name(attribute->name, false)) {
            return ERR(INVALID, "attributes: names match [a-z0-9._-]{1,255}, values are texts");
        }
        TRY(draft_check_text("attributes", attribute->value, DRAFT_ATTRIBUTES_SIZE_MAX));
        for (size_t before = 0; before < index; before++) {
            if (strcmp(attribute->name, message->attributes[before].name) == 0) {
                return ERR(INVALID, "attributes: %s is given twice", attribute->name);
            }
        }
        size += DRAFT_PAIR_SIZE + strlen(attribute->name) + strlen(attribute->value);
    }
    if (size > DRAFT_ATTRIBUTES_SIZE_MAX) {
        return ERR(INVALID, "attributes: take more than 32 KiB");
    }
    return NULL;
}

err_t draft_check(const struct flare_message *message)
{
    if (message->body == NULL && message->body_size > 0) {
        return ERR(INVALID, "body: is missing");
    }
    TRY(draft_check_text("key", message->key, DRAFT_KEY_MAX));
    if (message->idempotency_key != NULL) {
        TRY(draft_check_text("idempotency_key", message->idempotency_key,
                             DRAFT_IDEMPOTENCY_KEY_MAX));
    }
    if (message->delay_ms > 30 * DRAFT_DAY_MS) {
        return ERR(INVALID, "delay_ms: must be 30 days at most");
    }
    if (message->ttl_ms > 365 * DRAFT_DAY_MS) {
        return ERR(INVALID, "ttl_ms: must be 365 days at most");
    }
    return message->attribute_count == 0 ? NULL : check_attributes(message);
}

size_t draft_size_max(const struct flare_message *message)
{
    size_t size = DRAFT_RECORD_OVERHEAD + message->body_size;
    size += message->key == NULL ? 0 : strlen(message->key);
    size += message->idempotency_key == NULL ? 0 : strlen(message->idempotency_key);
    for (size_t index = 0; index < message->attribute_count; index++) {
        size += DRAFT_PAIR_OVERHEAD + strlen(message->attributes[index].name) +
                strlen(message->attributes[index].value);
    }
    return size;
}

/* Fields at the end that are not given are left out. */
static uint32_t field_count(const struct flare_message *message)
{
    if (message->idempotency_key != NULL && message->idempotency_key[0] != '\0') {
        return 6;
    }
    if (message->ttl_ms > 0) {
        return 5;
    }
    if (message->delay_ms > 0) {
        return 4;
    }
    if (message->attribute_count > 0) {
        return 3;
    }
    return message->key != NULL && message->key[0] != '\0' ? 2 : 1;
}

static void put_text(struct buf *out, const char *text)
{
    if (text == NULL || text[0] == '\0') {
        writer_nil(out);
    } else {
        writer_text(out, text);
    }
}

static void put_attributes(struct buf *out, const struct flare_message *message)
{
    if (message->attribute_count == 0) {
        writer_nil(out);
        return;
    }
    writer_map(out, (uint32_t)message->attribute_count);
    for (size_t index = 0; index < message->attribute_count; index++) {
        writer_text(out, message->attributes[index].name);
        writer_text(out, message->attributes[index].value);
    }
}

/* The record of messages.def, field by field: its encoder would want the attributes as bytes, which
 * takes memory, and here there must be none to take. */
static void put_uncommon(struct buf *out, const struct flare_message *message)
{
    uint32_t count = field_count(message);
    writer_array(out, count);
    writer_bin(out, span_of(message->body, message->body_size));
    if (count > 1) {
        put_text(out, message->key);
    }
    if (count > 2) {
        put_attributes(out, message);
    }
    if (count > 3) {
        writer_u64(out, message->delay_ms);
    }
    if (count > 4) {
        writer_u64(out, message->ttl_ms);
    }
    if (count > 5) {
        put_text(out, message->idempotency_key);
    }
}

/* The common case, a short body and perhaps a short key, written here: it is what every publish
 * pays while the lock is held. */
static bool is_common(const struct flare_message *message, size_t key_size)
{
    return message->body_size > 0 && message->body_size <= UINT16_MAX && key_size < 32 &&
           message->attribute_count == 0 && message->delay_ms == 0 && message->ttl_ms == 0 &&
           message->idempotency_key == NULL;
}

void draft_put(struct buf *out, const struct flare_message *message)
{
    size_t key_size = message->key == NULL ? 0 : strlen(message->key);
    if (!is_common(message, key_size)) {
        put_uncommon(out, message);
        return;
    }
    size_t head = message->body_size <= UINT8_MAX ? 3 : 4;
    size_t tail = key_size == 0 ? 0 : 1 + key_size;
    uint8_t *to = buf_extend(out, head + message->body_size + tail);
    if (to == NULL) {
        return;
    }
    to[0] = key_size == 0 ? 0x91 : 0x92; /* an array of one or two */
    to[1] = head == 3 ? 0xc4 : 0xc5;     /* a binary, its size in one byte or two */
    to[2] = (uint8_t)(head == 3 ? message->body_size : message->body_size >> 8);
    if (head == 4) {
        to[3] = (uint8_t)message->body_size;
    }
    memcpy(to + head, message->body, message->body_size);
    if (key_size > 0) {
        to[head + message->body_size] = (uint8_t)(0xa0 | key_size); /* a short string */
        memcpy(to + head + message->body_size + 1, message->key, key_size);
    }
}
