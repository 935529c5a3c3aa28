#include "broker/core/attributes.h"

#include "broker/base/bytes.h"

enum { PAIR_HEADER_SIZE = 4 };

void attributes_add(struct buf *buf, struct span name, struct span value)
{
    if (name.size > UINT16_MAX || value.size > UINT16_MAX) {
        buf->failed = true;
        return;
    }
    /* The whole pair or nothing, so that a full buffer still holds well-formed pairs. */
    uint8_t *pair = buf_extend(buf, PAIR_HEADER_SIZE + name.size + value.size);
    if (pair == NULL) {
        return;
    }
    bytes_put_le16(pair, (uint16_t)name.size);
    bytes_put_le16(pair + 2, (uint16_t)value.size);
    if (name.size > 0) {
        memcpy(pair + PAIR_HEADER_SIZE, name.data, name.size);
    }
    if (value.size > 0) {
        memcpy(pair + PAIR_HEADER_SIZE + name.size, value.data, value.size);
    }
}

bool attributes_next(struct span *rest, struct span *name, struct span *value)
{
    if (rest->size < PAIR_HEADER_SIZE) {
        return false;
    }
    size_t name_size = bytes_get_le16(rest->data);
    size_t value_size = bytes_get_le16(rest->data + 2);
    if (name_size + value_size > rest->size - PAIR_HEADER_SIZE) {
        return false;
    }
    const uint8_t *at = rest->data + PAIR_HEADER_SIZE;
    *name = span_of(at, name_size);
    *value = span_of(at + name_size, value_size);
    size_t size = PAIR_HEADER_SIZE + name_size + value_size;
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
    struct span present;
    struct span found;
    while (attributes_next(&attributes, &present, &found)) {
        if (span_is(present, name)) {
            *value = found;
            return true;
        }
    }
    return false;
}
