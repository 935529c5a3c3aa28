/* Lines of a file or pipe, which also tell whether the next one is there: what has been read may
 * then be sent on before waiting for more. */
#ifndef FLARE_LINES_H
#define FLARE_LINES_H

#include <stdbool.h>

#include "broker/base/buf.h"
#include "broker/base/err.h"

enum { LINES_SIZE_MAX = 256 * 1024 * 1024 };

struct lines {
    int fd; /* borrowed */
    struct buf buf;
    size_t at;       /* of the next line */
    size_t searched; /* up to here there is no end of it */
    uint64_t read;   /* bytes of the lines handed out, with their ends */
    bool is_ended;
};

void lines_init(struct lines *lines, int fd);
void lines_deinit(struct lines *lines);

/* True when the next call would wait for whoever writes. */
bool lines_would_wait(struct lines *lines);
/* The next line without its end, valid until the next call; false at the end. A last line without
 * an end is one too. ERR_IO; ERR_TOO_LARGE for a line beyond LINES_SIZE_MAX. */
err_t lines_next(struct lines *lines, struct span *out, bool *found) MUST_CHECK;

#endif
