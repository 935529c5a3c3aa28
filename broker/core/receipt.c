#include "broker/core/receipt.h"

#include <xxhash.h>

#include "broker/base/bytes.h"

/* version u8, sub u32, shard u32, sequence u64, epoch u32, grant u32, attempt u16, big-endian; then
 * six bytes of checksum. The checksum tells a mistyped receipt from a stale one; it is no secret,
 * as a receipt gives no right that its subscription does not give. */
enum {
    RECEIPT_VERSION = 1,
    CONTENT_SIZE = 27,
    CHECK_SIZE = 6,
    GROUP_BYTES = 3,
    GROUP_DIGITS = 4,
};

_Static_assert(CONTENT_SIZE + CHECK_SIZE == RECEIPT_SIZE, "these are its parts");
/* Whole groups only: each receipt has exactly one text. */
_Static_assert(RECEIPT_SIZE % GROUP_BYTES == 0, "a receipt has no padding");
_Static_assert(RECEIPT_SIZE / GROUP_BYTES * GROUP_DIGITS + 1 == RECEIPT_TEXT_SIZE, "its text fits");

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* The value of a digit; false when it is none. */
static bool digit_value(uint8_t digit, uint32_t *out)
{
    const char *at = memchr(base64url, digit, sizeof base64url - 1);
    if (at == NULL) {
        return false;
    }
    *out = (uint32_t)(at - base64url);
    return true;
}

static void put_check(const uint8_t *content, uint8_t out[CHECK_SIZE])
{
    uint8_t hash[8];
    bytes_put_be64(hash, XXH3_64bits(content, CONTENT_SIZE));
    memcpy(out, hash, CHECK_SIZE);
}

void receipt_encode(const struct receipt *receipt, uint8_t out[RECEIPT_SIZE])
{
    out[0] = RECEIPT_VERSION;
    bytes_put_be32(out + 1, receipt->sub_id);
    bytes_put_be32(out + 5, receipt->shard_id);
    bytes_put_be64(out + 9, receipt->sequence);
    bytes_put_be32(out + 17, receipt->epoch);
    bytes_put_be32(out + 21, receipt->grant);
    bytes_put_be16(out + 25, receipt->attempt);
    put_check(out, out + CONTENT_SIZE);
}

bool receipt_decode(struct span bytes, struct receipt *out)
{
    uint8_t check[CHECK_SIZE];
    if (bytes.size != RECEIPT_SIZE || bytes.data[0] != RECEIPT_VERSION) {
        return false;
    }
    put_check(bytes.data, check);
    if (memcmp(bytes.data + CONTENT_SIZE, check, CHECK_SIZE) != 0) {
        return false;
    }
    *out = (struct receipt){
        .sub_id = bytes_get_be32(bytes.data + 1),
        .shard_id = bytes_get_be32(bytes.data + 5),
        .sequence = bytes_get_be64(bytes.data + 9),
        .epoch = bytes_get_be32(bytes.data + 17),
        .grant = bytes_get_be32(bytes.data + 21),
        .attempt = bytes_get_be16(bytes.data + 25),
    };
    return true;
}

void receipt_format(const struct receipt *receipt, char out[RECEIPT_TEXT_SIZE])
{
    uint8_t bytes[RECEIPT_SIZE];
    receipt_encode(receipt, bytes);
    for (size_t at = 0; at < RECEIPT_SIZE; at += GROUP_BYTES) {
        uint32_t group = (uint32_t)bytes[at] << 16 | (uint32_t)bytes[at + 1] << 8 | bytes[at + 2];
        for (size_t digit = 0; digit < GROUP_DIGITS; digit++) {
            *out++ = base64url[group >> (18 - 6 * digit) & 63];
        }
    }
    *out = '\0';
}

static bool decode_text(struct span text, uint8_t out[RECEIPT_SIZE])
{
    if (text.size != RECEIPT_TEXT_SIZE - 1) {
        return false;
    }
    const uint8_t *digits = text.data;
    for (size_t at = 0; at < RECEIPT_SIZE; at += GROUP_BYTES) {
        uint32_t group = 0;
        for (size_t digit = 0; digit < GROUP_DIGITS; digit++) {
            uint32_t value = 0;
            if (!digit_value(*digits++, &value)) {
                return false;
            }
            group = group << 6 | value;
        }
        out[at] = (uint8_t)(group >> 16);
        out[at + 1] = (uint8_t)(group >> 8);
        out[at + 2] = (uint8_t)group;
    }
    return true;
}

bool receipt_parse(struct span text, struct receipt *out)
{
    uint8_t bytes[RECEIPT_SIZE];
    return decode_text(text, bytes) && receipt_decode(span_of(bytes, sizeof bytes), out);
}
