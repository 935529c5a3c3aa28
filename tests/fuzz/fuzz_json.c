/* JSON in and out, and the request documents. Properties: what JSON becomes is well-formed
 * MessagePack no deeper than promised; printed again and parsed again it is the same bytes; every
 * request document takes or refuses it without reading a byte too many; any bytes as a string are
 * JSON that parses; base64 goes there and back. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "broker/base/text.h"
#include "broker/http/api_in.h"
#include "broker/http/json.h"
#include "broker/wire/reader.h"

enum { FUZZ_SIZE_MAX = 1 << 22 };

/* Prints the next item of `reader` as JSON; recursion is bounded by the reader's depth. */
static void print_item(struct reader *reader, struct buf *out)
{
    struct reader_item item;
    FUZZ_REQUIRE(reader_next(reader, &item));
    switch (item.kind) {
    case READER_NIL:
        buf_append_text(out, "null");
        break;
    case READER_BOOL:
        buf_append_text(out, item.boolean ? "true" : "false");
        break;
    case READER_UINT:
        buf_printf(out, "%llu", (unsigned long long)item.unsigned_);
        break;
    case READER_INT:
        buf_printf(out, "%lld", (long long)item.signed_);
        break;
    case READER_STR:
        FUZZ_REQUIRE(text_classify(item.bytes) != TEXT_BINARY || item.bytes.size > 0);
        json_put_string(out, item.bytes);
        break;
    case READER_ARRAY:
    case READER_MAP:
        buf_append_byte(out, item.kind == READER_MAP ? '{' : '[');
        for (uint32_t index = 0; index < item.count; index++) {
            buf_append_text(out, index == 0 ? "" : ",");
            print_item(reader, out);
            if (item.kind == READER_MAP) {
                buf_append_byte(out, ':');
                print_item(reader, out);
            }
        }
        buf_append_byte(out, item.kind == READER_MAP ? '}' : ']');
        break;
    case READER_FLOAT:
    case READER_BIN:
    case READER_EXT:
        FUZZ_REQUIRE(false); /* JSON has none of these */
    }
}

static void check_again(struct span packed)
{
    struct reader reader;
    struct buf text;
    struct buf again;
    buf_init(&text, FUZZ_SIZE_MAX * 6);
    buf_init(&again, FUZZ_SIZE_MAX);
    reader_init(&reader, packed);
    print_item(&reader, &text);
    FUZZ_REQUIRE(reader_at_end(&reader));
    FUZZ_REQUIRE(!text.failed);
    err_t err = json_to_msgpack(buf_span(&text), &again);
    FUZZ_REQUIRE(err == NULL);
    FUZZ_REQUIRE(span_equal(packed, buf_span(&again)));
    buf_deinit(&text);
    buf_deinit(&again);
}

static void check_documents(struct span packed)
{
    for (uint32_t row = 0; row < IN_topic_answer; row++) {
        if (api_in_fields[row].kind == IN_KIND_NONE) {
            struct in_value values[IN_VALUES_MAX];
            err_free(
                api_in_read_all(packed, (enum in_row)row, (struct in_place){.name = NULL}, values));
        }
    }
}

static void check_string(struct span bytes)
{
    struct buf text;
    struct buf packed;
    buf_init(&text, FUZZ_SIZE_MAX * 6);
    buf_init(&packed, FUZZ_SIZE_MAX * 6);
    json_put_string(&text, bytes);
    err_t err = json_to_msgpack(buf_span(&text), &packed);
    FUZZ_REQUIRE(err == NULL);
    struct reader reader;
    struct span back;
    reader_init(&reader, buf_span(&packed));
    FUZZ_REQUIRE(reader_str(&reader, &back));
    FUZZ_REQUIRE(text_classify(bytes) == TEXT_BINARY || span_equal(back, bytes));
    buf_deinit(&text);
    buf_deinit(&packed);
}

static void check_base64(struct span bytes)
{
    struct buf text;
    buf_init(&text, FUZZ_SIZE_MAX * 2);
    json_put_base64(&text, bytes);
    size_t size = 0;
    uint8_t *decoded = malloc(json_base64_size(buf_span(&text)));
    FUZZ_REQUIRE(decoded != NULL);
    FUZZ_REQUIRE(json_base64_decode(buf_span(&text), decoded, &size));
    FUZZ_REQUIRE(span_equal(span_of(decoded, size), bytes));
    free(decoded);
    decoded = malloc(json_base64_size(bytes));
    FUZZ_REQUIRE(decoded != NULL);
    if (json_base64_decode(bytes, decoded, &size)) {
        FUZZ_REQUIRE(size <= json_base64_size(bytes));
    }
    free(decoded);
    buf_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > FUZZ_SIZE_MAX / 4) {
        return 0;
    }
    struct span input = span_of(data, size);
    struct buf packed;
    buf_init(&packed, FUZZ_SIZE_MAX);
    err_t err = json_to_msgpack(input, &packed);
    if (err == NULL) {
        check_again(buf_span(&packed));
        check_documents(buf_span(&packed));
    }
    err_free(err);
    buf_deinit(&packed);
    check_documents(input);
    check_string(input);
    check_base64(input);
    return 0;
}
