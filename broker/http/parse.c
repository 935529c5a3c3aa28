/* http-parser reads the head; everything it may be lenient about is checked here as well, because
 * strictness is a compile-time choice of that library and Debian's build is lenient: it takes a
 * bare LF as a line end, folded lines, spaces in names and before colons, any version number and
 * any byte in a target. Its view of the framing must then agree with ours, or the request is
 * refused. */
#include "broker/http/parse.h"

#include <assert.h>
#include <stdlib.h>

#include "broker/http/text.h"

/* http_parser.h has an enum http_method of its own, with other values. */
#define http_method http_parser_method
#include <http_parser.h>
#undef http_method

static int parse_on_url(http_parser *parser, const char *at, size_t size);
static int parse_on_name(http_parser *parser, const char *at, size_t size);
static int parse_on_value(http_parser *parser, const char *at, size_t size);
static int parse_on_head(http_parser *parser);

static const http_parser_settings parse_settings = {
    .on_url = parse_on_url,
    .on_header_field = parse_on_name,
    .on_header_value = parse_on_value,
    .on_headers_complete = parse_on_head,
};

/* What one run of http-parser over a head collects. */
struct parse_head {
    struct http_parse *parse;
    struct span target;
    bool keep_alive;
    bool chunked;
    uint64_t content_length;
};

static enum http_parse_state parse_fail(struct http_parse *parse, enum err_code code,
                                        const char *detail)
{
    parse->problem = code;
    parse->detail = detail;
    parse->step = HTTP_PARSE_STEP_END;
    return HTTP_PARSE_FAILED;
}

/* For checks in a row: the first complaint stays. Returns whether there is none. */
static bool parse_require(struct http_parse *parse, bool holds, const char *detail)
{
    if (!holds && parse->problem == ERR_NONE) {
        (void)parse_fail(parse, ERR_INVALID, detail);
    }
    return holds;
}

/* ---- life ---------------------------------------------------------------------------------- */

err_t http_parse_init(struct http_parse *parse, const struct http_limits *limits)
{
    *parse = (struct http_parse){.limits = limits};
    parse->headers = calloc(limits->header_count_max, sizeof *parse->headers);
    if (parse->headers == NULL) {
        return ERR(MEMORY, "no memory for %u headers", limits->header_count_max);
    }
    buf_init(&parse->head, limits->header_size_max);
    buf_init(&parse->body, limits->body_size_max);
    http_parse_reset(parse);
    return NULL;
}

void http_parse_deinit(struct http_parse *parse)
{
    free(parse->headers);
    parse->headers = NULL;
    buf_deinit(&parse->head);
    buf_deinit(&parse->body);
}

void http_parse_reset(struct http_parse *parse)
{
    if (parse->body.capacity > HTTP_PARSE_BODY_KEEP) {
        buf_deinit(&parse->body);
    }
    struct http_parse fresh = {
        .limits = parse->limits,
        .step = HTTP_PARSE_STEP_HEAD,
        .method = HTTP_METHOD_OTHER,
        .headers = parse->headers,
        .head = parse->head,
        .body = parse->body,
    };
    buf_reset(&fresh.head);
    buf_reset(&fresh.body);
    *parse = fresh;
}

bool http_parse_is_blank(const struct http_parse *parse)
{
    return parse->step == HTTP_PARSE_STEP_HEAD && parse->head.size == 0;
}

const char *http_parse_reason(int status)
{
    return http_status_str((enum http_status)status);
}

/* ---- callbacks of http-parser: the whole head is there, so each item comes in one piece -------
 */

static int parse_on_url(http_parser *parser, const char *at, size_t size)
{
    struct parse_head *head = parser->data;
    head->target = span_of(at, size);
    return 0;
}

static int parse_on_name(http_parser *parser, const char *at, size_t size)
{
    struct http_parse *parse = ((struct parse_head *)parser->data)->parse;
    if (parse->header_count == parse->limits->header_count_max) {
        (void)parse_fail(parse, ERR_HEADERS_TOO_LARGE, "too many headers");
        return -1;
    }
    bool is_token = size > 0;
    for (size_t i = 0; i < size && is_token; i++) {
        is_token = http_text_is_token((uint8_t)at[i]);
    }
    parse->headers[parse->header_count++] = (struct http_header){.name = span_of(at, size)};
    return parse_require(parse, is_token, "a header name is not a token") ? 0 : -1;
}

static int parse_on_value(http_parser *parser, const char *at, size_t size)
{
    struct http_parse *parse = ((struct parse_head *)parser->data)->parse;
    assert(parse->header_count > 0);
    parse->headers[parse->header_count - 1].value = http_text_trim(span_of(at, size));
    return 0;
}

static int parse_on_head(http_parser *parser)
{
    struct parse_head *head = parser->data;
    head->keep_alive = http_should_keep_alive(parser) != 0;
    head->chunked = (parser->flags & F_CHUNKED) != 0;
    head->content_length = (parser->flags & F_CONTENTLENGTH) != 0 ? parser->content_length : 0;
    return 0;
}

/* ---- request line --------------------------------------------------------------------------- */

static enum http_method parse_method(struct span text)
{
    static const struct {
        const char *text;
        enum http_method method;
    } methods[] = {
        {"GET", HTTP_METHOD_GET},       {"HEAD", HTTP_METHOD_HEAD},
        {"PUT", HTTP_METHOD_PUT},       {"POST", HTTP_METHOD_POST},
        {"DELETE", HTTP_METHOD_DELETE}, {"OPTIONS", HTTP_METHOD_OPTIONS},
    };
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (span_is(text, methods[i].text)) {
            return methods[i].method;
        }
    }
    return HTTP_METHOD_OTHER;
}

static struct span parse_until(struct span text, uint8_t byte)
{
    const uint8_t *end = text.size == 0 ? NULL : memchr(text.data, byte, text.size);
    return end == NULL ? text : span_of(text.data, (size_t)(end - text.data));
}

/* Takes the method from the request line and checks the line's shape: single spaces, a known
 * version. */
static bool parse_request_line(struct http_parse *parse)
{
    struct span line = parse_until(buf_span(&parse->head), '\r');
    struct span method = parse_until(line, ' ');
    for (size_t i = 0; i < method.size; i++) {
        if (!http_text_is_token(method.data[i])) {
            return parse_require(parse, false, "the method is not a token");
        }
    }
    parse->method_text = method;
    parse->method = parse_method(method);
    static const size_t version_size = sizeof " HTTP/1.1" - 1;
    if (!parse_require(parse, method.size > 0 && line.size > method.size + 1 + version_size,
                       "the request line is not METHOD TARGET VERSION")) {
        return false;
    }
    struct span version = span_of(line.data + line.size - version_size, version_size);
    parse->http_1_0 = span_is(version, " HTTP/1.0");
    if (!parse_require(parse, parse->http_1_0 || span_is(version, " HTTP/1.1"),
                       "the HTTP version is not 1.0 or 1.1")) {
        return false;
    }
    const uint8_t *target = method.data + method.size + 1;
    for (const uint8_t *at = target; at < version.data; at++) {
        if (*at <= ' ' || *at >= 0x7f || *at == '#') {
            return parse_require(parse, false, "the request target has a byte it may not have");
        }
    }
    return true;
}

/* Leaves the path and query of an absolute-form target and checks that it names the same host. */
static bool parse_absolute(struct http_parse *parse, struct span *target, struct span host)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t size = strlen(schemes[i]);
        if (target->size < size || !http_text_equal(span_of(target->data, size), schemes[i])) {
            continue;
        }
        struct span rest = span_of(target->data + size, target->size - size);
        struct span authority = parse_until(parse_until(rest, '/'), '?');
        *target = span_of(rest.data + authority.size, rest.size - authority.size);
        return parse_require(parse, host.data == NULL || http_text_same(authority, host),
                             "the target names another host than the Host header");
    }
    return parse_require(parse, false, "the request target is not a path");
}

static bool parse_target(struct http_parse *parse, struct span target, struct span host)
{
    if (span_is(target, "*")) {
        parse->path = target;
        return parse_require(parse, parse->method == HTTP_METHOD_OPTIONS,
                             "the target * is for OPTIONS only");
    }
    if (target.data[0] != '/' && !parse_absolute(parse, &target, host)) {
        return false;
    }
    parse->path = parse_until(target, '?');
    if (parse->path.size < target.size) {
        parse->query =
            span_of(target.data + parse->path.size + 1, target.size - parse->path.size - 1);
    }
    if (parse->path.size == 0) {
        parse->path = span_text("/");
    }
    return true;
}

/* ---- headers that decide the framing ----------------------------------------------------------
 */

static bool parse_host_is_valid(struct span host)
{
    for (size_t i = 0; i < host.size; i++) {
        uint8_t byte = host.data[i];
        bool is_plain =
            (byte >= '0' && byte <= '9') || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z');
        if (!is_plain && (byte == 0 || strchr(".-_~:[]%", byte) == NULL)) {
            return false;
        }
    }
    return host.size > 0;
}

/* Decimal digits only; false also when it does not fit. */
static bool parse_length(struct span text, uint64_t *out)
{
    uint64_t value = 0;
    if (text.size == 0 || text.size > 18) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = value;
    return true;
}

static bool parse_framing(struct http_parse *parse, struct span *host)
{
    struct span length = {0};
    struct span coding = {0};
    bool valid = true;
    for (uint32_t i = 0; i < parse->header_count && valid; i++) {
        struct span name = parse->headers[i].name;
        struct span value = parse->headers[i].value;
        if (http_text_equal(name, "host")) {
            valid =
                parse_require(parse, host->data == NULL, "more than one Host header") &&
                parse_require(parse, parse_host_is_valid(value), "the Host header is not valid");
            *host = value;
        } else if (http_text_equal(name, "content-length")) {
            valid = parse_require(parse, length.data == NULL, "more than one Content-Length") &&
                    parse_require(parse, parse_length(value, &parse->content_length),
                                  "the Content-Length is not a number");
            length = value;
        } else if (http_text_equal(name, "transfer-encoding")) {
            valid = parse_require(parse, coding.data == NULL, "more than one Transfer-Encoding") &&
                    parse_require(parse, http_text_equal(value, "chunked"),
                                  "a transfer coding other than a single chunked");
            coding = value;
            parse->chunked = true;
        } else if (http_text_equal(name, "expect")) {
            parse->expects_continue = http_text_equal(value, "100-continue");
        }
    }
    return valid &&
           parse_require(parse, length.data == NULL || coding.data == NULL,
                         "both Content-Length and Transfer-Encoding") &&
           parse_require(parse, coding.data == NULL || !parse->http_1_0,
                         "a transfer coding in HTTP/1.0") &&
           parse_require(parse, host->data != NULL || parse->http_1_0, "no Host header");
}

/* ---- head ----------------------------------------------------------------------------------- */

/* http-parser knows a list of methods; one that is a token but not on it is not an error of
 * framing. */
static enum http_parse_state parse_refusal(struct http_parse *parse, enum http_errno errno_)
{
    if (parse->problem != ERR_NONE) {
        return HTTP_PARSE_FAILED;
    }
    if (errno_ == HPE_INVALID_METHOD && parse->method_text.size > 0) {
        return parse_fail(parse, ERR_NOT_IMPLEMENTED, "the method is not known");
    }
    return parse_fail(parse, ERR_INVALID,
                      errno_ == HPE_OK ? "the request framing is ambiguous"
                                       : http_errno_description(errno_));
}

static enum http_parse_state parse_head(struct http_parse *parse)
{
    if (!parse_request_line(parse)) {
        return HTTP_PARSE_FAILED;
    }
    struct parse_head head = {.parse = parse};
    http_parser parser;
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = &head;
    size_t size = http_parser_execute(&parser, &parse_settings, (const char *)parse->head.data,
                                      parse->head.size);
    enum http_errno errno_ = HTTP_PARSER_ERRNO(&parser);
    if (errno_ != HPE_OK || size != parse->head.size || head.target.data == NULL) {
        return parse_refusal(parse, errno_);
    }
    struct span host = {0};
    if (!parse_framing(parse, &host) || !parse_target(parse, head.target, host)) {
        return HTTP_PARSE_FAILED;
    }
    if (head.chunked != parse->chunked || head.content_length != parse->content_length) {
        return parse_refusal(parse, HPE_OK);
    }
    parse->keep_alive = head.keep_alive;
    if (parse->content_length > parse->limits->body_size_max) {
        return parse_fail(parse, ERR_TOO_LARGE, "the Content-Length is over the limit");
    }
    if (parse->chunked || parse->content_length > 0) {
        http_chunk_init(&parse->chunk);
        parse->step = HTTP_PARSE_STEP_BODY;
        return HTTP_PARSE_HEAD;
    }
    parse->step = HTTP_PARSE_STEP_END;
    return HTTP_PARSE_DONE;
}

/* ---- lines ---------------------------------------------------------------------------------- */

/* A line of the head has its LF. Checked here, before http-parser sees it: CRLF and nothing else
 * ends a line, no folding, and no control characters (which http-parser refuses too, but only while
 * nobody builds it with lenient headers). */
static enum http_parse_state parse_line(struct http_parse *parse)
{
    const uint8_t *line = parse->head.data + parse->line_start;
    size_t size = parse->head.size - parse->line_start;
    bool is_first = parse->line_start == 0;
    if (size < 2 || line[size - 2] != '\r') {
        return parse_fail(parse, ERR_INVALID, "a line ends with a bare LF");
    }
    if (size == 2 && !is_first) {
        return parse_head(parse);
    }
    if (size == 2) {
        if (parse->blank_skipped) {
            return parse_fail(parse, ERR_INVALID, "empty lines before the request");
        }
        parse->blank_skipped = true;
        buf_reset(&parse->head);
        return HTTP_PARSE_MORE;
    }
    for (size_t i = 0; i < size - 2; i++) {
        if (!http_text_is_value(line[i])) {
            return parse_fail(parse, ERR_INVALID, "a control character in the head");
        }
    }
    if (line[0] == ' ' || line[0] == '\t') {
        return parse_fail(parse, ERR_INVALID, "a folded header line");
    }
    parse->line_start = parse->head.size;
    return HTTP_PARSE_MORE;
}

static enum http_parse_state parse_feed_head(struct http_parse *parse, struct span input,
                                             size_t *used)
{
    enum http_parse_state state = HTTP_PARSE_MORE;
    size_t at = 0;
    while (at < input.size && state == HTTP_PARSE_MORE) {
        const uint8_t *from = input.data + at;
        const uint8_t *lf = memchr(from, '\n', input.size - at);
        size_t size = lf == NULL ? input.size - at : (size_t)(lf - from) + 1;
        if (size > parse->head.size_max - parse->head.size) {
            *used = at;
            return parse_fail(parse, ERR_HEADERS_TOO_LARGE, "the headers are over the limit");
        }
        buf_append(&parse->head, from, size);
        if (parse->head.failed) {
            *used = at;
            return parse_fail(parse, ERR_UNAVAILABLE, "no memory for the headers");
        }
        at += size;
        if (lf != NULL) {
            state = parse_line(parse);
        }
    }
    *used = at;
    return state;
}

static enum http_parse_state parse_feed_chunks(struct http_parse *parse, struct span input,
                                               size_t *used)
{
    switch (http_chunk_feed(&parse->chunk, input, &parse->body, used)) {
    case HTTP_CHUNK_MORE:
        return HTTP_PARSE_MORE;
    case HTTP_CHUNK_DONE:
        parse->step = HTTP_PARSE_STEP_END;
        return HTTP_PARSE_DONE;
    case HTTP_CHUNK_BAD:
        return parse_fail(parse, ERR_INVALID, "the body is not chunked as it says");
    case HTTP_CHUNK_TOO_LARGE:
        break;
    }
    return parse_fail(parse, ERR_TOO_LARGE, "the body is over the limit");
}

static enum http_parse_state parse_feed_length(struct http_parse *parse, struct span input,
                                               size_t *used)
{
    uint64_t left = parse->content_length - parse->body.size;
    size_t size = input.size < left ? input.size : (size_t)left;
    buf_append(&parse->body, input.data, size);
    *used = size;
    if (size < left) {
        return HTTP_PARSE_MORE;
    }
    parse->step = HTTP_PARSE_STEP_END;
    return HTTP_PARSE_DONE;
}

enum http_parse_state http_parse_feed(struct http_parse *parse, struct span input, size_t *used)
{
    *used = 0;
    if (parse->step == HTTP_PARSE_STEP_HEAD) {
        return parse_feed_head(parse, input, used);
    }
    assert(parse->step == HTTP_PARSE_STEP_BODY);
    enum http_parse_state state = parse->chunked ? parse_feed_chunks(parse, input, used)
                                                 : parse_feed_length(parse, input, used);
    if (parse->body.failed && state != HTTP_PARSE_FAILED) {
        return parse_fail(parse, ERR_UNAVAILABLE, "no memory for the body");
    }
    return state;
}
