#include "broker/http/url.h"

#include "broker/http/text.h"

/* Takes what stands before the first `separator` off `rest`, and the separator with it. */
static struct span url_take(struct span *rest, uint8_t separator)
{
    const uint8_t *end = rest->size == 0 ? NULL : memchr(rest->data, separator, rest->size);
    struct span piece = *rest;
    if (end != NULL) {
        piece.size = (size_t)(end - rest->data);
    }
    size_t skipped = piece.size + (end != NULL);
    *rest = span_of(skipped == 0 ? rest->data : rest->data + skipped, rest->size - skipped);
    return piece;
}

size_t http_path_count(struct span path)
{
    size_t count = 0;
    for (size_t i = 0; i < path.size; i++) {
        count += path.data[i] == '/';
    }
    return count;
}

bool http_path_segment(struct span path, size_t index, struct span *out)
{
    if (index >= http_path_count(path)) {
        return false;
    }
    (void)url_take(&path, '/'); /* what stands before the first slash is nothing */
    struct span segment = url_take(&path, '/');
    for (size_t i = 0; i < index; i++) {
        segment = url_take(&path, '/');
    }
    *out = segment;
    return true;
}

/* `space` is the byte that stands for a space, '%' for none. */
static bool url_decode(struct arena *arena, struct span text, uint8_t space, struct span *out)
{
    size_t plain = 0;
    while (plain < text.size && text.data[plain] != '%' && text.data[plain] != space) {
        plain++;
    }
    if (plain == text.size) {
        *out = text;
        return true;
    }
    uint8_t *decoded = arena_alloc(arena, text.size);
    if (decoded == NULL) {
        return false;
    }
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        if (byte == '%') {
            int high = i + 2 < text.size ? http_text_hex(text.data[i + 1]) : -1;
            int low = i + 2 < text.size ? http_text_hex(text.data[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0)) {
                return false;
            }
            byte = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (byte == space) {
            byte = ' ';
        }
        decoded[size++] = byte;
    }
    *out = span_of(decoded, size);
    return true;
}

bool http_percent_decode(struct arena *arena, struct span text, struct span *out)
{
    return url_decode(arena, text, '%', out);
}

bool http_query_decode(struct arena *arena, struct span text, struct span *out)
{
    return url_decode(arena, text, '+', out);
}

bool http_query_next(struct span *rest, struct span *name, struct span *value)
{
    struct span parameter = {0};
    while (parameter.size == 0) {
        if (rest->size == 0) {
            return false;
        }
        parameter = url_take(rest, '&');
    }
    *name = url_take(&parameter, '=');
    *value = parameter;
    return true;
}

enum http_query http_query_get(struct arena *arena, struct span query, const char *name,
                               struct span *out)
{
    enum http_query result = HTTP_QUERY_ABSENT;
    struct span found_name;
    struct span found_value;
    struct span value = {0};
    while (http_query_next(&query, &found_name, &found_value)) {
        struct span decoded;
        if (!http_query_decode(arena, found_name, &decoded)) {
            return HTTP_QUERY_BAD;
        }
        if (!span_is(decoded, name)) {
            continue;
        }
        if (result == HTTP_QUERY_FOUND || !http_query_decode(arena, found_value, &value)) {
            return HTTP_QUERY_BAD;
        }
        result = HTTP_QUERY_FOUND;
    }
    if (result == HTTP_QUERY_FOUND) {
        *out = value;
    }
    return result;
}
