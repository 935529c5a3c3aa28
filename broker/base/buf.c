#include "broker/base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUF_CAPACITY_MIN = 256 };

void buf_init(struct buf *buf, size_t size_max)
{
    *buf = (struct buf){.size_max = size_max};
}

void buf_deinit(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){.size_max = buf->size_max};
}

void buf_reset(struct buf *buf)
{
    buf->size = 0;
    buf->failed = false;
}

bool buf_reserve(struct buf *buf, size_t size)
{
    assert(buf->size <= buf->size_max);
    if (size > buf->size_max - buf->size) {
        return false;
    }
    size_t needed = buf->size + size;
    if (needed <= buf->capacity && buf->data != NULL) {
        return true;
    }
    size_t capacity = buf->capacity < BUF_CAPACITY_MIN ? BUF_CAPACITY_MIN : buf->capacity;
    while (capacity < needed) {
        capacity = capacity > buf->size_max / 2 ? buf->size_max : capacity * 2;
    }
    if (capacity > buf->size_max) {
        capacity = buf->size_max;
    }
    /* One byte at least, so that a buffer whose maximum is 0 still has an address to hand out. */
    uint8_t *data = realloc(buf->data, capacity == 0 ? 1 : capacity);
    if (data == NULL) {
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

uint8_t *buf_extend(struct buf *buf, size_t size)
{
    if (buf->failed || !buf_reserve(buf, size)) {
        buf->failed = true;
        return NULL;
    }
    uint8_t *room = buf->data + buf->size;
    buf->size += size;
    return room;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
    uint8_t *room = buf_extend(buf, size);
    if (room != NULL && size > 0) {
        memcpy(room, data, size);
    }
}

void buf_append_span(struct buf *buf, struct span span)
{
    buf_append(buf, span.data, span.size);
}

void buf_append_text(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_append_byte(struct buf *buf, uint8_t byte)
{
    buf_append(buf, &byte, 1);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    if (buf->failed) {
        return;
    }
    char text[256]; /* most of what is printed fits; longer texts are formatted again */
    va_list arguments;
    va_list again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int wanted = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (wanted < 0) {
        buf->failed = true;
    } else if ((size_t)wanted < sizeof text) {
        buf_append(buf, text, (size_t)wanted);
    } else {
        /* Not in place: vsnprintf ends with a zero byte, for which there is no room in a text that
         * ends exactly at the maximum. */
        size_t size = (size_t)wanted;
        char *whole = size > buf->size_max - buf->size ? NULL : malloc(size + 1);
        if (whole == NULL) {
            buf->failed = true;
        } else {
            (void)vsnprintf(whole, size + 1, format, again);
            buf_append(buf, whole, size);
        }
        free(whole);
    }
    va_end(again);
}

void buf_consume(struct buf *buf, size_t size)
{
    assert(size <= buf->size);
    if (size > 0 && size < buf->size) {
        memmove(buf->data, buf->data + size, buf->size - size);
    }
    buf->size -= size;
}
