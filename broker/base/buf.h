/* A growing byte buffer with a maximum set at buf_init.
 *
 * An append that would pass the maximum (or finds no memory) appends nothing and sets `failed`;
 * later appends do nothing too, so a writer checks once at the end. Data moves when it grows: keep
 * offsets. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>

#include "broker/base/span.h"

struct buf {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t size_max;
    bool failed;
};

void buf_init(struct buf *buf, size_t size_max);
void buf_deinit(struct buf *buf);

/* Empties it and clears `failed`; memory stays for the next use. */
void buf_reset(struct buf *buf);

/* Room for `size` more bytes, already counted in; NULL when it would pass the maximum. */
uint8_t *buf_extend(struct buf *buf, size_t size);

/* Room for at least `size` bytes without counting them in; false when that would pass the maximum.
 */
bool buf_reserve(struct buf *buf, size_t size);

void buf_append(struct buf *buf, const void *data, size_t size);
void buf_append_span(struct buf *buf, struct span span);
void buf_append_text(struct buf *buf, const char *text);
void buf_append_byte(struct buf *buf, uint8_t byte);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Removes the first `size` bytes. */
void buf_consume(struct buf *buf, size_t size);

static inline struct span buf_span(const struct buf *buf)
{
    return span_of(buf->data, buf->size);
}

#endif
