/* Pieces of a request target: path segments, query parameters, percent-decoding (RFC 3986).
 *
 * A path is split before it is decoded, so "%2F" in a name is part of that name. */
#ifndef HTTP_URL_H
#define HTTP_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "broker/base/arena.h"
#include "broker/base/span.h"

/* How many segments a path has: "/v1/topics" has 2, "/" has 1, an empty one. */
size_t http_path_count(struct span path);

/* Segment `index` of a path, still encoded; false when there is none. */
bool http_path_segment(struct span path, size_t index, struct span *out);

/* Decodes %XX, into the arena where there is any. False: a broken escape, an escaped NUL, or the
 * arena is full. */
bool http_percent_decode(struct arena *arena, struct span text, struct span *out);

/* Takes the next "name=value" off `rest`, both still encoded; a name without '=' has an empty
 * value. False at the end. Empty parameters ("a=1&&b=2") are skipped. */
bool http_query_next(struct span *rest, struct span *name, struct span *value);

/* As http_percent_decode, and '+' is a space, as forms write it. */
bool http_query_decode(struct arena *arena, struct span text, struct span *out);

enum http_query {
    HTTP_QUERY_ABSENT,
    HTTP_QUERY_FOUND,
    HTTP_QUERY_BAD, /* not decodable, or given more than once */
};

/* The decoded value of the parameter called `name`; `out` is written when it is found. */
enum http_query http_query_get(struct arena *arena, struct span query, const char *name,
                               struct span *out);

#endif
