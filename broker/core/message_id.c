#include "broker/core/message_id.h"

#include <string.h>

#include "broker/base/bytes.h"

_Static_assert(MESSAGE_ID_BYTES * 2 + 1 == MESSAGE_ID_SIZE, "an id's text fits");

static const char hexadecimal[] = "0123456789abcdef";

/* The value of a digit; false when it is none, as capitals are: each id has exactly one text. */
static bool digit_value(uint8_t digit, uint32_t *out)
{
    const char *at = memchr(hexadecimal, digit, sizeof hexadecimal - 1);
    if (at == NULL) {
        return false;
    }
    *out = (uint32_t)(at - hexadecimal);
    return true;
}

void message_id_encode(uint32_t shard_id, uint64_t sequence, uint8_t out[MESSAGE_ID_BYTES])
{
    bytes_put_be32(out, shard_id);
    bytes_put_be64(out + 4, sequence);
}

void message_id_format(uint32_t shard_id, uint64_t sequence, char out[MESSAGE_ID_SIZE])
{
    uint8_t bytes[MESSAGE_ID_BYTES];
    message_id_encode(shard_id, sequence, bytes);
    for (size_t at = 0; at < MESSAGE_ID_BYTES; at++) {
        *out++ = hexadecimal[bytes[at] >> 4];
        *out++ = hexadecimal[bytes[at] & 15];
    }
    *out = '\0';
}

bool message_id_parse(struct span text, uint32_t *shard_id, uint64_t *sequence)
{
    uint8_t bytes[MESSAGE_ID_BYTES];
    if (text.size != MESSAGE_ID_SIZE - 1) {
        return false;
    }
    for (size_t at = 0; at < MESSAGE_ID_BYTES; at++) {
        uint32_t high = 0;
        uint32_t low = 0;
        if (!digit_value(text.data[2 * at], &high) || !digit_value(text.data[2 * at + 1], &low)) {
            return false;
        }
        bytes[at] = (uint8_t)(high << 4 | low);
    }
    *shard_id = bytes_get_be32(bytes);
    *sequence = bytes_get_be64(bytes + 4);
    return true;
}
