#include "tools/flare/lines.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { READ_SIZE = 256 * 1024 };

void lines_init(struct lines *lines, int fd)
{
    *lines = (struct lines){.fd = fd};
    buf_init(&lines->buf, LINES_SIZE_MAX);
}

void lines_deinit(struct lines *lines)
{
    buf_deinit(&lines->buf);
}

/* The end of the next line; NULL when it has not been read. */
static const uint8_t *find_end(struct lines *lines)
{
    size_t from = lines->searched > lines->at ? lines->searched : lines->at;
    const uint8_t *end = from < lines->buf.size
                             ? memchr(lines->buf.data + from, '\n', lines->buf.size - from)
                             : NULL;
    lines->searched = end == NULL ? lines->buf.size : from;
    return end;
}

bool lines_would_wait(struct lines *lines)
{
    struct pollfd input = {.fd = lines->fd, .events = POLLIN};
    return find_end(lines) == NULL && !lines->is_ended && poll(&input, 1, 0) == 0;
}

static err_t read_more(struct lines *lines)
{
    buf_consume(&lines->buf, lines->at);
    lines->searched -= lines->at;
    lines->at = 0;
    if (!buf_reserve(&lines->buf, READ_SIZE)) {
        return ERR(TOO_LARGE, "a line is larger than %d bytes", LINES_SIZE_MAX);
    }
    ssize_t size = 0;
    do {
        size = read(lines->fd, lines->buf.data + lines->buf.size, READ_SIZE);
    } while (size < 0 && errno == EINTR);
    if (size < 0) {
        return ERR(IO, "read a line: %s", strerror(errno));
    }
    lines->buf.size += (size_t)size;
    lines->is_ended = size == 0;
    return NULL;
}

err_t lines_next(struct lines *lines, struct span *out, bool *found)
{
    const uint8_t *end = NULL;
    while ((end = find_end(lines)) == NULL && !lines->is_ended) {
        TRY(read_more(lines));
    }
    const uint8_t *start = lines->buf.data + lines->at;
    size_t left = lines->buf.size - lines->at;
    size_t size = end == NULL ? left : (size_t)(end - start);
    *found = left > 0;
    *out = span_of(start, size);
    size_t taken = size + (end == NULL ? 0 : 1);
    lines->at += taken;
    lines->read += taken;
    return NULL;
}
