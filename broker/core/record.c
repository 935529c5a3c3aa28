#include "broker/core/record.h"

#include <xxhash.h>

#include "broker/base/bytes.h"

enum { FLAG_NOT_BEFORE = 1, FLAG_EXPIRES = 2, FLAGS_KNOWN = 3, CHECK_SIZE = 8 };

static uint8_t flags_of(const struct record *record)
{
    return (uint8_t)((record->not_before_ms != 0 ? FLAG_NOT_BEFORE : 0) |
                     (record->expires_ms != 0 ? FLAG_EXPIRES : 0));
}

static uint32_t header_size(uint8_t flags)
{
    return RECORD_HEADER_MIN + ((flags & FLAG_NOT_BEFORE) != 0 ? 8U : 0U) +
           ((flags & FLAG_EXPIRES) != 0 ? 8U : 0U);
}

uint32_t record_header_size(const struct record *record)
{
    return header_size(flags_of(record));
}

uint64_t record_size(const struct record *record)
{
    return (uint64_t)record_header_size(record) + record->key_size + record->attributes_size +
           record->body_size;
}

uint32_t record_put_header(const struct record *record, uint8_t out[RECORD_HEADER_MAX])
{
    uint8_t flags = flags_of(record);
    out[8] = RECORD_VERSION;
    out[9] = flags;
    bytes_put_le16(out + 10, (uint16_t)record->key_size);
    bytes_put_le16(out + 12, (uint16_t)record->attributes_size);
    bytes_put_le16(out + 14, 0);
    bytes_put_le32(out + 16, record->body_size);
    bytes_put_le32(out + 20, record->shard_id);
    bytes_put_le64(out + 24, record->sequence);
    bytes_put_le64(out + 32, record->published_ms);
    uint32_t size = RECORD_HEADER_MIN;
    if ((flags & FLAG_NOT_BEFORE) != 0) {
        bytes_put_le64(out + size, record->not_before_ms);
        size += 8;
    }
    if ((flags & FLAG_EXPIRES) != 0) {
        bytes_put_le64(out + size, record->expires_ms);
        size += 8;
    }
    bytes_put_le64(out,
                   XXH3_64bits_withSeed(out + CHECK_SIZE, size - CHECK_SIZE, record->payload_hash));
    return size;
}

bool record_peek(struct span bytes, struct record *out, uint64_t *size)
{
    if (bytes.size < RECORD_HEADER_MIN) {
        return false;
    }
    const uint8_t *data = bytes.data;
    uint8_t flags = data[9];
    uint32_t header = header_size(flags);
    if (data[8] != RECORD_VERSION || (flags & ~FLAGS_KNOWN) != 0 ||
        bytes_get_le16(data + 14) != 0 || bytes.size < header) {
        return false;
    }
    *out = (struct record){
        .key_size = bytes_get_le16(data + 10),
        .attributes_size = bytes_get_le16(data + 12),
        .body_size = bytes_get_le32(data + 16),
        .shard_id = bytes_get_le32(data + 20),
        .sequence = bytes_get_le64(data + 24),
        .published_ms = bytes_get_le64(data + 32),
    };
    const uint8_t *optional = data + RECORD_HEADER_MIN;
    if ((flags & FLAG_NOT_BEFORE) != 0) {
        out->not_before_ms = bytes_get_le64(optional);
        optional += 8;
    }
    if ((flags & FLAG_EXPIRES) != 0) {
        out->expires_ms = bytes_get_le64(optional);
    }
    uint64_t payload = (uint64_t)out->key_size + out->attributes_size + out->body_size;
    *size = header + payload;
    out->payload =
        span_of(data + header, payload < bytes.size - header ? payload : bytes.size - header);
    return true;
}

bool record_get(struct span bytes, struct record *out)
{
    uint64_t size = 0;
    if (!record_peek(bytes, out, &size) || bytes.size < size) {
        return false;
    }
    size_t header = size - out->payload.size;
    out->payload_hash = XXH3_64bits(out->payload.data, out->payload.size);
    uint64_t check =
        XXH3_64bits_withSeed(bytes.data + CHECK_SIZE, header - CHECK_SIZE, out->payload_hash);
    return check == bytes_get_le64(bytes.data);
}
