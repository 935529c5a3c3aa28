/* Which bytes HTTP allows where (RFC 9110, 5.5 and 5.6.2), for every reader in this folder. */
#ifndef HTTP_TEXT_H
#define HTTP_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/span.h"

/* Of a method or a header name. */
bool http_text_is_token(uint8_t byte);

/* Of a header value: anything but control characters, tab allowed. */
static inline bool http_text_is_value(uint8_t byte)
{
    return (byte >= 0x20 && byte != 0x7f) || byte == '\t';
}

/* Value of a hexadecimal digit, -1 for another byte. */
static inline int http_text_hex(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    uint8_t lower = byte | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Equal but for the case of ASCII letters. */
bool http_text_equal(struct span span, const char *text);
bool http_text_same(struct span a, struct span b);

/* Without spaces and tabs at both ends. */
struct span http_text_trim(struct span span);

#endif
