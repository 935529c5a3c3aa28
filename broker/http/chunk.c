#include "broker/http/chunk.h"

#include <assert.h>

#include "broker/http/text.h"

enum chunk_step {
    CHUNK_SIZE_FIRST = 1, /* first digit of a size line */
    CHUNK_SIZE,           /* further digits */
    CHUNK_EXTENSION,      /* after ';', up to CR */
    CHUNK_SIZE_LF,        /* the LF of the size line */
    CHUNK_DATA,
    CHUNK_DATA_CR, /* CR and LF after the data */
    CHUNK_DATA_LF,
    CHUNK_TRAILER_FIRST, /* first byte of a trailer line, or the CR of the end */
    CHUNK_TRAILER_NAME,
    CHUNK_TRAILER_VALUE,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
    CHUNK_END,
};

enum { CHUNK_REFUSED = 0 };

void http_chunk_init(struct http_chunk *chunk)
{
    *chunk = (struct http_chunk){.step = CHUNK_SIZE_FIRST};
}

static int chunk_size_step(struct http_chunk *chunk, uint8_t byte)
{
    int digit = http_text_hex(byte);
    if (digit >= 0 && chunk->digits < HTTP_CHUNK_DIGITS_MAX) {
        chunk->left = chunk->left << 4 | (uint64_t)digit;
        chunk->digits++;
        return CHUNK_SIZE;
    }
    if (chunk->digits == 0) {
        return CHUNK_REFUSED;
    }
    return byte == '\r' ? CHUNK_SIZE_LF : byte == ';' ? CHUNK_EXTENSION : CHUNK_REFUSED;
}

static int chunk_size_end(struct http_chunk *chunk)
{
    chunk->digits = 0;
    return chunk->left == 0 ? CHUNK_TRAILER_FIRST : CHUNK_DATA;
}

/* The step after `byte`, for every step but the data itself. */
static int chunk_next(struct http_chunk *chunk, uint8_t byte)
{
    assert(chunk->step != CHUNK_DATA);
    assert(chunk->step != CHUNK_END);
    switch ((enum chunk_step)chunk->step) {
    case CHUNK_SIZE_FIRST:
    case CHUNK_SIZE:
        return chunk_size_step(chunk, byte);
    case CHUNK_EXTENSION:
        return byte == '\r'               ? CHUNK_SIZE_LF
               : http_text_is_value(byte) ? CHUNK_EXTENSION
                                          : CHUNK_REFUSED;
    case CHUNK_SIZE_LF:
        return byte == '\n' ? chunk_size_end(chunk) : CHUNK_REFUSED;
    case CHUNK_DATA_CR:
        return byte == '\r' ? CHUNK_DATA_LF : CHUNK_REFUSED;
    case CHUNK_DATA_LF:
        return byte == '\n' ? CHUNK_SIZE_FIRST : CHUNK_REFUSED;
    case CHUNK_TRAILER_FIRST:
        return byte == '\r'               ? CHUNK_END_LF
               : http_text_is_token(byte) ? CHUNK_TRAILER_NAME
                                          : CHUNK_REFUSED;
    case CHUNK_TRAILER_NAME:
        return byte == ':'                ? CHUNK_TRAILER_VALUE
               : http_text_is_token(byte) ? CHUNK_TRAILER_NAME
                                          : CHUNK_REFUSED;
    case CHUNK_TRAILER_VALUE:
        return byte == '\r'               ? CHUNK_TRAILER_LF
               : http_text_is_value(byte) ? CHUNK_TRAILER_VALUE
                                          : CHUNK_REFUSED;
    case CHUNK_TRAILER_LF:
        return byte == '\n' ? CHUNK_TRAILER_FIRST : CHUNK_REFUSED;
    case CHUNK_END_LF:
        return byte == '\n' ? CHUNK_END : CHUNK_REFUSED;
    case CHUNK_DATA:
    case CHUNK_END:
        break;
    }
    return CHUNK_REFUSED;
}

static size_t chunk_take_data(struct http_chunk *chunk, struct span input, struct buf *body)
{
    size_t size = input.size < chunk->left ? input.size : (size_t)chunk->left;
    buf_append(body, input.data, size);
    chunk->left -= size;
    if (chunk->left == 0) {
        chunk->step = CHUNK_DATA_CR;
    }
    return size;
}

enum http_chunk_result http_chunk_feed(struct http_chunk *chunk, struct span input,
                                       struct buf *body, size_t *used)
{
    size_t at = 0;
    enum http_chunk_result result = HTTP_CHUNK_MORE;
    while (at < input.size && result == HTTP_CHUNK_MORE) {
        if (chunk->step == CHUNK_DATA) {
            at += chunk_take_data(chunk, span_of(input.data + at, input.size - at), body);
            continue;
        }
        chunk->step = chunk_next(chunk, input.data[at]);
        at++;
        chunk->overhead++;
        if (chunk->step == CHUNK_REFUSED) {
            result = HTTP_CHUNK_BAD;
        } else if (chunk->step == CHUNK_END) {
            result = HTTP_CHUNK_DONE;
        } else if (chunk->overhead > HTTP_CHUNK_OVERHEAD_MAX ||
                   (chunk->step == CHUNK_DATA && chunk->left > body->size_max - body->size)) {
            result = HTTP_CHUNK_TOO_LARGE;
        }
    }
    *used = at;
    return result;
}
