/* Decoding of one HTTP/1 request from bytes, without sockets and without time.
 *
 * The head is gathered line by line, each line checked as it ends, and then read by http-parser in
 * one go, so that its spans are contiguous; the body follows by Content-Length or in chunks
 * (chunk.h). What a request is does not depend on how its bytes were cut into reads;
 * tests/fuzz/fuzz_http.c holds it to that. One struct serves many requests one after another and
 * keeps its memory between them. */
#ifndef HTTP_PARSE_H
#define HTTP_PARSE_H

#include <stdbool.h>

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "broker/http/chunk.h"
#include "broker/http/server.h"

enum {
    HTTP_PARSE_HEAD_MAX = 64 * 1024,  /* greatest header_size_max; http-parser gives up at 80 KiB */
    HTTP_PARSE_BODY_KEEP = 16 * 1024, /* body memory kept for the next request */
};

enum http_parse_state {
    HTTP_PARSE_MORE = 1, /* all input used, the request goes on */
    HTTP_PARSE_HEAD,     /* the head is complete and a body follows: feed again */
    HTTP_PARSE_DONE,     /* the request is complete; the input may go on with the next one */
    HTTP_PARSE_FAILED,   /* `problem` says why; nothing after it can be trusted */
};

enum http_parse_step { HTTP_PARSE_STEP_HEAD, HTTP_PARSE_STEP_BODY, HTTP_PARSE_STEP_END };

struct http_parse {
    const struct http_limits *limits; /* must outlive every feed */
    enum http_parse_step step;

    /* The request; spans point into `head` and `body`. */
    enum http_method method;
    struct span method_text;
    struct span path;
    struct span query;
    struct http_header *headers; /* header_count_max of them */
    uint32_t header_count;
    bool keep_alive;
    bool expects_continue;
    bool http_1_0;
    struct buf body;

    enum err_code problem; /* of FAILED */
    const char *detail;

    struct buf head;
    size_t line_start;  /* of the line being gathered, in head */
    bool blank_skipped; /* one empty line before a request is forgiven (RFC 9112, 2.2) */
    bool chunked;
    uint64_t content_length;
    struct http_chunk chunk;
};

/* Without memory for the headers: ERR_MEMORY. */
err_t http_parse_init(struct http_parse *parse, const struct http_limits *limits) MUST_CHECK;
void http_parse_deinit(struct http_parse *parse);

/* Ready for the next request. */
void http_parse_reset(struct http_parse *parse);

/* Takes input until the head ends, the request ends or the input does; `used` is how much belonged
 * to it. */
enum http_parse_state http_parse_feed(struct http_parse *parse, struct span input, size_t *used);

/* Nothing of a request has been seen since the reset, except perhaps an empty line. */
bool http_parse_is_blank(const struct http_parse *parse);

/* "Not Found" for 404. */
const char *http_parse_reason(int status);

#endif
