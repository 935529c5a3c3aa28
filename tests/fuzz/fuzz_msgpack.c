/* The msgpack reader and writer. Property: what is read, written and read again is the same, what
 * is written is never longer than what was read, skipping ends where reading does, and counts never
 * add up to more than the input. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "broker/wire/reader.h"
#include "broker/wire/writer.h"

enum { FUZZ_SIZE_MAX = 1 << 20 };

/* `raw` is what the item was read from. */
static void write_item(struct buf *to, const struct reader_item *item, struct span raw)
{
    switch (item->kind) {
    case READER_NIL:
        writer_nil(to);
        break;
    case READER_BOOL:
        writer_bool(to, item->boolean);
        break;
    case READER_UINT:
        writer_u64(to, item->unsigned_);
        break;
    case READER_INT:
        writer_i64(to, item->signed_);
        break;
    case READER_FLOAT:
    case READER_EXT: /* nothing we write has them */
        buf_append_span(to, raw);
        break;
    case READER_STR:
        writer_str(to, item->bytes);
        break;
    case READER_BIN:
        writer_bin(to, item->bytes);
        break;
    case READER_ARRAY:
        writer_array(to, item->count);
        break;
    case READER_MAP:
        writer_map(to, item->count);
        break;
    }
}

/* A NaN must come back as the same NaN, so bits are compared and not values. */
static uint64_t float_bits(double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static int same_item(const struct reader_item *a, const struct reader_item *b)
{
    if (a->kind != b->kind) {
        return 0;
    }
    switch (a->kind) {
    case READER_NIL:
        return 1;
    case READER_BOOL:
        return a->boolean == b->boolean;
    case READER_UINT:
        return a->unsigned_ == b->unsigned_;
    case READER_INT:
        return a->signed_ == b->signed_ && a->signed_ < 0;
    case READER_FLOAT:
        return float_bits(a->number) == float_bits(b->number);
    case READER_STR:
    case READER_BIN:
        return span_equal(a->bytes, b->bytes);
    case READER_EXT:
        return a->ext_type == b->ext_type && span_equal(a->bytes, b->bytes);
    case READER_ARRAY:
    case READER_MAP:
        return a->count == b->count;
    }
    return 0;
}

/* Reads one item with all that is in it and writes it again. */
static bool copy_item(struct reader *reader, struct buf *to, uint64_t *declared)
{
    uint64_t left = 1;
    for (; left > 0; left--) {
        struct reader_item item;
        size_t start = reader->at;
        if (!reader_next(reader, &item)) {
            return false;
        }
        if (item.kind == READER_ARRAY || item.kind == READER_MAP) {
            uint64_t count = (uint64_t)item.count * (item.kind == READER_MAP ? 2 : 1);
            left += count;
            *declared += count;
        }
        write_item(to, &item, span_of(reader->input.data + start, reader->at - start));
    }
    return true;
}

static void require_same(struct span a, struct span b)
{
    struct reader first;
    struct reader second;
    reader_init(&first, a);
    reader_init(&second, b);
    while (!reader_at_end(&first)) {
        struct reader_item left;
        struct reader_item right;
        FUZZ_REQUIRE(reader_next(&first, &left));
        FUZZ_REQUIRE(reader_next(&second, &right));
        FUZZ_REQUIRE(same_item(&left, &right));
    }
    FUZZ_REQUIRE(reader_at_end(&second));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader reader;
    struct buf copy;
    struct buf again;
    uint64_t declared = 0;
    buf_init(&copy, FUZZ_SIZE_MAX);
    buf_init(&again, FUZZ_SIZE_MAX);
    reader_init(&reader, span_of(data, size));
    bool is_read = copy_item(&reader, &copy, &declared);
    FUZZ_REQUIRE(declared <= size);
    if (is_read && size <= FUZZ_SIZE_MAX / 2) {
        struct reader skipper;
        reader_init(&skipper, span_of(data, size));
        FUZZ_REQUIRE(reader_skip(&skipper));
        FUZZ_REQUIRE(skipper.at == reader.at);
        FUZZ_REQUIRE(!copy.failed);
        struct span whole = buf_span(&copy);
        require_same(span_of(data, reader.at), whole);
        reader_init(&reader, whole);
        FUZZ_REQUIRE(copy_item(&reader, &again, &declared));
        FUZZ_REQUIRE(span_equal(whole, buf_span(&again)));
    }
    err_free(reader_finish(&reader));
    buf_deinit(&copy);
    buf_deinit(&again);
    return 0;
}
