#include "broker/base/text.h"

#define ONES UINT64_C(0x0101010101010101)
#define TOPS UINT64_C(0x8080808080808080)

/* Top bit set in (at least) the first byte of eight that is below `limit`, equal to `byte`, or not
 * ASCII. */
static uint64_t below(uint64_t eight, uint8_t limit)
{
    return (eight - ONES * limit) & ~eight & TOPS;
}

static uint64_t equal(uint64_t eight, uint8_t byte)
{
    return below(eight ^ (ONES * byte), 1);
}

size_t text_plain_run(struct span bytes, size_t from, bool quoted)
{
    size_t at = from;
    while (bytes.size - at >= 8) {
        uint64_t eight;
        memcpy(&eight, bytes.data + at, 8);
        uint64_t odd = (eight & TOPS) | below(eight, 0x20) | equal(eight, 0x7f);
        if (quoted) {
            odd |= equal(eight, '"') | equal(eight, '\\');
        }
        if (odd != 0) {
            break;
        }
        at += 8;
    }
    while (at < bytes.size) {
        uint8_t byte = bytes.data[at];
        if (byte < 0x20 || byte >= 0x7f || (quoted && (byte == '"' || byte == '\\'))) {
            break;
        }
        at++;
    }
    return at - from;
}

/* RFC 3629, table 3-7 of Unicode. */
size_t text_utf8_size(struct span bytes, size_t at)
{
    const uint8_t *p = bytes.data + at;
    size_t left = bytes.size - at;
    size_t size = 0;
    uint8_t second_min = 0x80;
    uint8_t second_max = 0xbf;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        size = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        size = 3;
        second_min = p[0] == 0xe0 ? 0xa0 : 0x80;
        second_max = p[0] == 0xed ? 0x9f : 0xbf;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        size = 4;
        second_min = p[0] == 0xf0 ? 0x90 : 0x80;
        second_max = p[0] == 0xf4 ? 0x8f : 0xbf;
    }
    if (size == 0 || size > left || p[1] < second_min || p[1] > second_max) {
        return 0;
    }
    for (size_t index = 2; index < size; index++) {
        if ((p[index] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return size;
}

enum text_class text_classify(struct span bytes)
{
    enum text_class found = TEXT_PLAIN;
    size_t at = 0;
    while (true) {
        at += text_plain_run(bytes, at, false);
        if (at == bytes.size) {
            return found;
        }
        uint8_t byte = bytes.data[at];
        if (byte == '\t' || byte == '\n' || byte == '\r') {
            found = TEXT_LINES;
            at++;
            continue;
        }
        size_t size = byte >= 0x80 ? text_utf8_size(bytes, at) : 0;
        if (size == 0) {
            return TEXT_BINARY;
        }
        at += size;
    }
}
