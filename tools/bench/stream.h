/* A connected socket that never blocks, with what is to be sent and what has come in buffers. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include "broker/base/buf.h"
#include "tools/bench/adapter.h"

struct stream {
    int fd; /* -1: closed */
    struct buf out;
    struct buf in; /* its user consumes it */
};

/* Blocks until it is connected. ERR_UNAVAILABLE. */
err_t stream_open(struct stream *stream, const struct peer_address *address) MUST_CHECK;
void stream_close(struct stream *stream);

/* Sends what the socket takes. */
err_t stream_send(struct stream *stream) MUST_CHECK;
/* Adds to `in` what has come; `*more` says that there may be more. */
err_t stream_receive(struct stream *stream, bool *more) MUST_CHECK;
/* What it waits for now. */
void stream_wait(const struct stream *stream, struct link_wait *wait);

#endif
