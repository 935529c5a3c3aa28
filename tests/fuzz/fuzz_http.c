/* The HTTP request decoder. Property: what a stream of bytes means does not depend on how it was
 * cut into reads: fed whole, byte by byte, and in pieces that the input itself decides, it gives
 * the same requests and the same refusal; and no request passes a limit. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "broker/http/parse.h"

/* Small, so that inputs reach them. */
static const struct http_limits fuzz_limits = {
    .header_size_max = 1024,
    .header_count_max = 16,
    .body_size_max = 256,
};

enum { FUZZ_CUT_WHOLE, FUZZ_CUT_BYTES, FUZZ_CUT_INPUT, FUZZ_CUT_COUNT, FUZZ_STORY_MAX = 1 << 20 };

static void tell_span(struct buf *story, struct span span)
{
    buf_printf(story, "%zu:", span.size);
    buf_append_span(story, span);
}

/* Everything a handler would see of a request. */
static void tell_request(struct buf *story, const struct http_parse *parse)
{
    buf_printf(story, "request %d %d %d", (int)parse->method, parse->keep_alive, parse->http_1_0);
    tell_span(story, parse->method_text);
    tell_span(story, parse->path);
    tell_span(story, parse->query);
    for (uint32_t i = 0; i < parse->header_count; i++) {
        tell_span(story, parse->headers[i].name);
        tell_span(story, parse->headers[i].value);
    }
    tell_span(story, buf_span(&parse->body));
}

static void require_limits(const struct http_parse *parse)
{
    FUZZ_REQUIRE(parse->head.size <= fuzz_limits.header_size_max);
    FUZZ_REQUIRE(parse->header_count <= fuzz_limits.header_count_max);
    FUZZ_REQUIRE(parse->body.size <= fuzz_limits.body_size_max);
    FUZZ_REQUIRE(parse->path.size == 0 || memchr(parse->path.data, ' ', parse->path.size) == NULL);
    for (uint32_t i = 0; i < parse->header_count; i++) {
        struct span value = parse->headers[i].value;
        FUZZ_REQUIRE(value.size == 0 || memchr(value.data, '\r', value.size) == NULL);
        FUZZ_REQUIRE(value.size == 0 || memchr(value.data, '\n', value.size) == NULL);
    }
}

static size_t cut_size(int cut, struct span left)
{
    if (cut == FUZZ_CUT_WHOLE) {
        return left.size;
    }
    size_t size = cut == FUZZ_CUT_BYTES ? 1 : 1 + left.data[0] % 7u;
    return size < left.size ? size : left.size;
}

/* Feeds the bytes as one connection would, and writes down what came of it. */
static void run(struct span input, int cut, struct buf *story)
{
    struct http_parse parse;
    err_t err = http_parse_init(&parse, &fuzz_limits);
    FUZZ_REQUIRE(err == NULL);
    enum http_parse_state state = HTTP_PARSE_MORE;
    while (input.size > 0 && state != HTTP_PARSE_FAILED) {
        size_t used = 0;
        struct span piece = span_of(input.data, cut_size(cut, input));
        state = http_parse_feed(&parse, piece, &used);
        FUZZ_REQUIRE(used <= piece.size);
        FUZZ_REQUIRE(state != HTTP_PARSE_MORE || used == piece.size);
        input = span_of(input.data + used, input.size - used);
        require_limits(&parse);
        if (state == HTTP_PARSE_DONE) {
            tell_request(story, &parse);
            http_parse_reset(&parse);
        }
    }
    if (state == HTTP_PARSE_FAILED) {
        FUZZ_REQUIRE(parse.problem != ERR_NONE);
        buf_printf(story, "refused %d %s", (int)parse.problem, parse.detail);
    }
    http_parse_deinit(&parse);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf stories[FUZZ_CUT_COUNT];
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        buf_init(&stories[cut], FUZZ_STORY_MAX);
        run(span_of(data, size), cut, &stories[cut]);
        FUZZ_REQUIRE(span_equal(buf_span(&stories[cut]), buf_span(&stories[0])));
    }
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        buf_deinit(&stories[cut]);
    }
    return 0;
}
