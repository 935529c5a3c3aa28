/* The msgpack reader, and the writer against it. */
#include "broker/wire/reader.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/wire/writer.h"

enum { TEST_BUF_SIZE = 1 << 20 };

#define BYTES(text) ((struct span){.data = (const uint8_t *)(text), .size = sizeof(text) - 1})

/* An integer reads as its value, whatever width and signedness it was sent with. */
static void test_integers(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        enum reader_kind kind;
        int64_t value;
    } cases[] = {
        {BYTES("\x00"), READER_UINT, 0},
        {BYTES("\x7f"), READER_UINT, 127},
        {BYTES("\xff"), READER_INT, -1},
        {BYTES("\xe0"), READER_INT, -32},
        {BYTES("\xcc\x00"), READER_UINT, 0},
        {BYTES("\xcc\xff"), READER_UINT, 255},
        {BYTES("\xcd\xff\xff"), READER_UINT, 65535},
        {BYTES("\xce\xff\xff\xff\xff"), READER_UINT, 4294967295},
        {BYTES("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"), READER_UINT, INT64_MAX},
        {BYTES("\xd0\x05"), READER_UINT, 5},
        {BYTES("\xd0\x80"), READER_INT, -128},
        {BYTES("\xd1\x80\x00"), READER_INT, -32768},
        {BYTES("\xd1\x00\x01"), READER_UINT, 1},
        {BYTES("\xd2\x80\x00\x00\x00"), READER_INT, -2147483648},
        {BYTES("\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), READER_INT, INT64_MIN},
        {BYTES("\xd3\xff\xff\xff\xff\xff\xff\xff\xff"), READER_INT, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reader reader;
        struct reader_item item;
        reader_init(&reader, cases[i].bytes);
        assert_true(reader_next(&reader, &item));
        assert_int_equal(item.kind, cases[i].kind);
        assert_true(item.kind == READER_INT ? item.signed_ == cases[i].value
                                            : item.unsigned_ == (uint64_t)cases[i].value);
        assert_null(reader_finish(&reader));
    }
}

/* A number that does not fit the wanted type is refused, not cut. */
static void test_integer_ranges(void **state)
{
    (void)state;
    struct reader reader;
    uint64_t unsigned_ = 7;
    reader_init(&reader, BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"));
    assert_true(reader_u64(&reader, &unsigned_));
    assert_true(unsigned_ == UINT64_MAX);
    reader_init(&reader, BYTES("\xff"));
    assert_false(reader_u64(&reader, &unsigned_));
    assert_true(unsigned_ == UINT64_MAX);
}

/* Strings, binaries and extensions are spans of the input, for every width of their length. */
static void test_blobs(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        enum reader_kind kind;
        int ext_type;
    } cases[] = {
        {BYTES("\xa2hi"), READER_STR, 0},
        {BYTES("\xd9\x02hi"), READER_STR, 0},
        {BYTES("\xda\x00\x02hi"), READER_STR, 0},
        {BYTES("\xdb\x00\x00\x00\x02hi"), READER_STR, 0},
        {BYTES("\xc4\x02hi"), READER_BIN, 0},
        {BYTES("\xc5\x00\x02hi"), READER_BIN, 0},
        {BYTES("\xc6\x00\x00\x00\x02hi"), READER_BIN, 0},
        {BYTES("\xd5\xffhi"), READER_EXT, -1},
        {BYTES("\xc7\x02\x07hi"), READER_EXT, 7},
        {BYTES("\xc8\x00\x02\x07hi"), READER_EXT, 7},
        {BYTES("\xc9\x00\x00\x00\x02\x07hi"), READER_EXT, 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reader reader;
        struct reader_item item;
        reader_init(&reader, cases[i].bytes);
        assert_true(reader_next(&reader, &item));
        assert_int_equal(item.kind, cases[i].kind);
        assert_int_equal(item.ext_type, cases[i].ext_type);
        assert_true(span_is(item.bytes, "hi"));
        assert_null(reader_finish(&reader));
        /* One byte less anywhere is an error, never a shorter value. */
        for (size_t size = 0; size < cases[i].bytes.size; size++) {
            reader_init(&reader, span_of(cases[i].bytes.data, size));
            assert_false(reader_next(&reader, &item));
        }
    }
    static const size_t fixed_sizes[] = {1, 2, 4, 8, 16};
    for (size_t i = 0; i < 5; i++) {
        uint8_t bytes[18] = {(uint8_t)(0xd4 + i), 3};
        struct reader reader;
        struct reader_item item;
        reader_init(&reader, span_of(bytes, 2 + fixed_sizes[i]));
        assert_true(reader_next(&reader, &item));
        assert_int_equal(item.bytes.size, fixed_sizes[i]);
        assert_true(reader_at_end(&reader));
    }
}

/* Both widths of float read as a double. */
static void test_floats(void **state)
{
    (void)state;
    struct reader reader;
    struct reader_item item;
    reader_init(&reader, BYTES("\xca\x3f\x00\x00\x00"));
    assert_true(reader_next(&reader, &item) && item.kind == READER_FLOAT);
    assert_true(item.number == 0.5);
    reader_init(&reader, BYTES("\xcb\xbf\xe0\x00\x00\x00\x00\x00\x00"));
    assert_true(reader_next(&reader, &item) && item.kind == READER_FLOAT);
    assert_true(item.number == -0.5);
    reader_init(&reader, BYTES("\xca\x7f\xc0\x00\x00"));
    assert_true(reader_next(&reader, &item) && item.kind == READER_FLOAT);
    assert_true(isnan(item.number));
}

/* A count or length is refused at once when the bytes left cannot hold it, alone or with what is
 * still owed. */
static void test_declared_sizes(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        uint32_t items; /* read well before the refusal */
    } cases[] = {
        {BYTES("\xdd\xff\xff\xff\xff"), 0},
        {BYTES("\xdf\xff\xff\xff\xff"), 0},
        {BYTES("\xdb\xff\xff\xff\xff"), 0},
        {BYTES("\xc6\xff\xff\xff\xff"), 0},
        {BYTES("\xc9\xff\xff\xff\xff\x01"), 0},
        {BYTES("\x91"), 0},
        {BYTES("\x81\xc0"), 0},
        {BYTES("\xdc\x00\x03\xc0\xc0"), 0},
        /* The outer array still owes one item, which the last byte is for. */
        {BYTES("\x92\x91\xc0"), 1},
        {BYTES("\x93\x92\xc0\xc0\xc0"), 1},
        {BYTES("\xdf\x80\x00\x00\x00\xc0\xc0"), 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reader reader;
        struct reader_item item;
        reader_init(&reader, cases[i].bytes);
        for (uint32_t j = 0; j < cases[i].items; j++) {
            assert_true(reader_next(&reader, &item));
        }
        assert_false(reader_next(&reader, &item));
        err_t err = reader_finish(&reader);
        assert_int_equal(err_code(err), ERR_INVALID);
        err_free(err);
    }
    struct reader reader;
    reader_init(&reader, BYTES("\x93\x92\xc0\xc0\xc0\xc0"));
    assert_true(reader_skip(&reader));
    assert_null(reader_finish(&reader));
}

/* `depth` arrays inside each other, around a nil; `tail` puts a nil before each, so that each is a
 * last item. */
static struct span nested(uint8_t *bytes, uint32_t depth, bool tail)
{
    size_t size = 0;
    for (uint32_t i = 0; i < depth; i++) {
        bytes[size++] = tail ? 0x92 : 0x91;
        if (tail) {
            bytes[size++] = 0xc0;
        }
    }
    bytes[size++] = 0xc0;
    return span_of(bytes, size);
}

/* Sixteen containers may be open inside each other, seventeen not, wherever the inner one stands.
 */
static void test_depth(void **state)
{
    (void)state;
    uint8_t bytes[2 * READER_DEPTH_MAX + 4];
    for (int tail = 0; tail < 2; tail++) {
        struct reader reader;
        reader_init(&reader, nested(bytes, READER_DEPTH_MAX, tail != 0));
        assert_true(reader_skip(&reader));
        assert_null(reader_finish(&reader));
        reader_init(&reader, nested(bytes, READER_DEPTH_MAX + 1, tail != 0));
        assert_false(reader_skip(&reader));
    }
    /* Containers beside each other are not depth, and empty ones never are. */
    uint8_t row[2 + READER_DEPTH_MAX * 4];
    struct reader reader;
    row[0] = 0xdc;
    row[1] = 0;
    row[2] = READER_DEPTH_MAX + 4;
    for (size_t i = 0; i < READER_DEPTH_MAX + 4; i++) {
        row[3 + 2 * i] = 0x91;
        row[4 + 2 * i] = 0x90;
    }
    reader_init(&reader, span_of(row, 3 + 2 * (READER_DEPTH_MAX + 4)));
    assert_true(reader_skip(&reader));
    assert_null(reader_finish(&reader));
}

/* A map is read by key, unknown keys are skipped with all they hold, and the rest still reads. */
static void test_map(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, TEST_BUF_SIZE);
    writer_map(&buf, 3);
    writer_text(&buf, "unknown");
    writer_array(&buf, 2);
    writer_map(&buf, 1);
    writer_u64(&buf, 1);
    writer_nil(&buf);
    writer_bin(&buf, BYTES("\x00\xff"));
    writer_text(&buf, "topic");
    writer_text(&buf, "orders");
    writer_text(&buf, "max");
    writer_u64(&buf, 300);
    assert_false(buf.failed);

    struct reader reader;
    uint32_t count = 0;
    struct span topic = {0};
    uint64_t max = 0;
    reader_init(&reader, buf_span(&buf));
    assert_true(reader_map(&reader, &count));
    for (uint32_t i = 0; i < count; i++) {
        struct span key;
        assert_true(reader_str(&reader, &key));
        if (span_is(key, "topic")) {
            assert_true(reader_str(&reader, &topic));
        } else if (span_is(key, "max")) {
            assert_true(reader_u64(&reader, &max));
        } else {
            assert_true(reader_skip(&reader));
        }
    }
    assert_null(reader_finish(&reader));
    assert_true(span_is(topic, "orders"));
    assert_int_equal(max, 300);
    buf_deinit(&buf);
}

/* The first failure stays, with its place, and nothing reads after it. */
static void test_failure_is_sticky(void **state)
{
    (void)state;
    struct reader reader;
    struct span text;
    uint64_t number = 0;
    reader_init(&reader, BYTES("\x93\x01\xc1\x02"));
    uint32_t count = 0;
    assert_true(reader_array(&reader, &count));
    assert_true(reader_u64(&reader, &number));
    assert_false(reader_str(&reader, &text));
    assert_false(reader_u64(&reader, &number));
    assert_false(reader_at_end(&reader));
    err_t err = reader_finish(&reader);
    assert_string_equal(err_message(err), "msgpack, byte 2: 0xc1 is not an item");
    err_free(err);
}

/* A message ends with its last item: an open container and bytes left over are both errors. */
static void test_finish(void **state)
{
    (void)state;
    struct reader reader;
    uint32_t count = 0;
    uint64_t number = 0;
    reader_init(&reader, BYTES("\x92\x01\x02"));
    assert_true(reader_array(&reader, &count));
    assert_true(reader_u64(&reader, &number));
    err_t err = reader_finish(&reader);
    assert_int_equal(err_code(err), ERR_INVALID);
    err_free(err);
    reader_init(&reader, BYTES("\x01\x02"));
    assert_true(reader_u64(&reader, &number));
    err = reader_finish(&reader);
    assert_int_equal(err_code(err), ERR_INVALID);
    err_free(err);
}

/* Another kind than the wanted one is refused, for every pair of kinds. */
static void test_kinds(void **state)
{
    (void)state;
    static const struct span samples[] = {
        BYTES("\xc0"),
        BYTES("\xc3"),
        BYTES("\x05"),
        BYTES("\xff"),
        BYTES("\xca\x00\x00\x00\x00"),
        BYTES("\xa0"),
        BYTES("\xc4\x00"),
        BYTES("\xd4\x01x"),
        BYTES("\x90"),
        BYTES("\x80"),
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct reader readers[4];
        uint64_t number;
        struct span bytes;
        uint32_t count;
        for (size_t j = 0; j < 4; j++) {
            reader_init(&readers[j], samples[i]);
        }
        assert_int_equal(reader_u64(&readers[0], &number), i == 2);
        assert_int_equal(reader_str(&readers[1], &bytes), i == 5);
        assert_int_equal(reader_array(&readers[2], &count), i == 8);
        assert_int_equal(reader_map(&readers[3], &count), i == 9);
    }
}

/* What is written reads back, at the edges of every width. */
static void test_round_trip(void **state)
{
    (void)state;
    static const uint64_t numbers[] = {0,     127,   128,         255,         256,
                                       65535, 65536, 4294967295u, 4294967296u, UINT64_MAX};
    static const int64_t signed_numbers[] = {-1,     -32,    -33,         -128,        -129,
                                             -32768, -32769, -2147483648, -2147483649, INT64_MIN};
    static const size_t sizes[] = {0, 31, 32, 255, 256, 65535, 65536};
    static uint8_t blob[65536];
    for (size_t i = 0; i < 10; i++) {
        struct buf buf;
        struct reader reader;
        struct reader_item item;
        uint64_t number = 0;
        buf_init(&buf, TEST_BUF_SIZE);
        writer_u64(&buf, numbers[i]);
        writer_i64(&buf, signed_numbers[i]);
        reader_init(&reader, buf_span(&buf));
        assert_true(reader_u64(&reader, &number));
        assert_true(reader_next(&reader, &item) && item.kind == READER_INT);
        assert_true(number == numbers[i]);
        assert_true(item.signed_ == signed_numbers[i]);
        assert_null(reader_finish(&reader));
        buf_deinit(&buf);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buf buf;
        struct reader reader;
        struct reader_item item;
        struct span bytes;
        buf_init(&buf, TEST_BUF_SIZE);
        writer_str(&buf, span_of(blob, sizes[i]));
        writer_bin(&buf, span_of(blob, sizes[i]));
        reader_init(&reader, buf_span(&buf));
        assert_true(reader_str(&reader, &bytes));
        assert_int_equal(bytes.size, sizes[i]);
        assert_true(reader_next(&reader, &item) && item.kind == READER_BIN);
        assert_int_equal(item.bytes.size, sizes[i]);
        assert_null(reader_finish(&reader));
        buf_deinit(&buf);
    }
}

/* A buf that is full fails and holds no more than it may. */
static void test_writer_is_bounded(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 4);
    writer_text(&buf, "abc");
    assert_false(buf.failed);
    writer_u64(&buf, 1);
    assert_true(buf.failed);
    assert_int_equal(buf.size, 4);
    buf_deinit(&buf);
    buf_init(&buf, 4);
    writer_bin(&buf, span_of("", (size_t)UINT32_MAX + 1));
    assert_true(buf.failed);
    assert_int_equal(buf.size, 0);
    buf_deinit(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_integer_ranges),
        cmocka_unit_test(test_blobs),
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_declared_sizes),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_failure_is_sticky),
        cmocka_unit_test(test_finish),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_writer_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
