#include "broker/core/attributes.h"

#include "broker/base/bytes.h"
#include "broker/base/text.h"
#include "broker/core/command.h"

static bool name_valid(struct span name)
{
    for (size_t at = 0; at < name.size; at++) {
        uint8_t byte = name.data[at];
        bool is_good = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
                       byte == '.' || byte == '_' || byte == '-';
        if (!is_good) {
            return false;
        }
    }
    return name.size > 0 && name.size <= ATTRIBUTES_NAME_MAX;
}

static bool find(struct span attributes, struct span name, struct span *value)
{
    struct span present;
    struct span found;
    while (attributes_next(&attributes, &present, &found)) {
        if (span_equal(present, name)) {
            *value = found;
            return true;
        }
    }
    return false;
}

const char *attributes_fault(struct span encoded, struct span name, struct span value)
{
    struct span present;
    if (!name_valid(name)) {
        return "attribute names match [a-z0-9._-]{1,255}";
    }
    if (text_classify(value) != TEXT_PLAIN) {
        return "attribute values are UTF-8 without control characters";
    }
    if (find(encoded, name, &present)) {
        return "an attribute is given twice";
    }
    if (encoded.size + ATTRIBUTES_PAIR_SIZE + name.size + value.size > CORE_ATTRIBUTES_MAX) {
        return "the attributes take more than 32 KiB";
    }
    return NULL;
}

void attributes_add(struct buf *buf, struct span name, struct span value)
{
    if (name.size > UINT16_MAX || value.size > UINT16_MAX) {
        buf->failed = true;
        return;
    }
    /* The whole pair or nothing, so that a full buffer still holds well-formed pairs. */
    uint8_t *pair = buf_extend(buf, ATTRIBUTES_PAIR_SIZE + name.size + value.size);
    if (pair == NULL) {
        return;
    }
    bytes_put_le16(pair, (uint16_t)name.size);
    bytes_put_le16(pair + 2, (uint16_t)value.size);
    if (name.size > 0) {
        memcpy(pair + ATTRIBUTES_PAIR_SIZE, name.data, name.size);
    }
    if (value.size > 0) {
        memcpy(pair + ATTRIBUTES_PAIR_SIZE + name.size, value.data, value.size);
    }
}

bool attributes_next(struct span *rest, struct span *name, struct span *value)
{
    if (rest->size < ATTRIBUTES_PAIR_SIZE) {
        return false;
    }
    size_t name_size = bytes_get_le16(rest->data);
    size_t value_size = bytes_get_le16(rest->data + 2);
    if (name_size + value_size > rest->size - ATTRIBUTES_PAIR_SIZE) {
        return false;
    }
    const uint8_t *at = rest->data + ATTRIBUTES_PAIR_SIZE;
    *name = span_of(at, name_size);
    *value = span_of(at + name_size, value_size);
    size_t size = ATTRIBUTES_PAIR_SIZE + name_size + value_size;
    *rest = span_of(rest->data + size, rest->size - size);
    return true;
}

bool attributes_valid(struct span attributes)
{
    struct span name;
    struct span value;
    while (attributes_next(&attributes, &name, &value)) {
    }
    return attributes.size == 0;
}

bool attributes_find(struct span attributes, const char *name, struct span *value)
{
    return find(attributes, span_text(name), value);
}
