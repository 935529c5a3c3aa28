/* The chunked transfer coding of one request body, decoded as it arrives.
 *
 * Strict on purpose: http-parser reads chunks too, but Debian builds it lenient, and it then takes
 * a chunk longer than its size line says and a bare LF inside a chunk extension, both of which
 * smuggle requests past a proxy. Extensions and trailer fields are checked and dropped. What is not
 * body (size lines, extensions, trailers) counts as overhead and is bounded, so that a body of tiny
 * chunks cannot cost more to read than the body limit allows. */
#ifndef HTTP_CHUNK_H
#define HTTP_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "broker/base/buf.h"
#include "broker/base/span.h"

enum { HTTP_CHUNK_OVERHEAD_MAX = 32 * 1024, HTTP_CHUNK_DIGITS_MAX = 16 };

enum http_chunk_result {
    HTTP_CHUNK_MORE = 1,  /* all input used, the body goes on */
    HTTP_CHUNK_DONE,      /* the body has ended; what follows is the next request */
    HTTP_CHUNK_BAD,       /* not the chunked coding */
    HTTP_CHUNK_TOO_LARGE, /* the body passes its maximum, or the overhead its own */
};

struct http_chunk {
    int step;        /* of the state machine in chunk.c */
    uint32_t digits; /* of the size line so far */
    uint64_t left;   /* bytes of this chunk still to come */
    size_t overhead; /* bytes that were not body */
};

void http_chunk_init(struct http_chunk *chunk);

/* Appends what `input` holds of the body to `body`, whose size_max is the body limit; `used` is how
 * much of the input belongs to this body. */
enum http_chunk_result http_chunk_feed(struct http_chunk *chunk, struct span input,
                                       struct buf *body, size_t *used);

#endif
