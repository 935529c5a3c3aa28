/* Records: what is packed into bytes comes out again, and anything else is refused. */
#include "broker/core/record.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>
#include <xxhash.h>

enum { PAYLOAD_MAX = 4096 };

static struct record make(uint32_t key, uint32_t attributes, uint32_t body, const uint8_t *payload)
{
    size_t size = (size_t)key + attributes + body;
    return (struct record){
        .shard_id = 0x01020304,
        .sequence = 0x1122334455667788,
        .published_ms = 1700000000000,
        .payload_hash = XXH3_64bits(payload, size),
        .key_size = key,
        .attributes_size = attributes,
        .body_size = body,
        .payload = span_of(payload, size),
    };
}

static size_t write(const struct record *record, uint8_t *out)
{
    uint32_t header = record_put_header(record, out);
    memcpy(out + header, record->payload.data, record->payload.size);
    assert_int_equal(record_header_size(record), header);
    assert_int_equal(record_size(record), header + record->payload.size);
    return header + record->payload.size;
}

static void expect_equal(const struct record *a, const struct record *b)
{
    assert_int_equal(a->shard_id, b->shard_id);
    assert_int_equal(a->sequence, b->sequence);
    assert_int_equal(a->published_ms, b->published_ms);
    assert_int_equal(a->not_before_ms, b->not_before_ms);
    assert_int_equal(a->expires_ms, b->expires_ms);
    assert_int_equal(a->payload_hash, b->payload_hash);
    assert_int_equal(a->key_size, b->key_size);
    assert_int_equal(a->attributes_size, b->attributes_size);
    assert_int_equal(a->body_size, b->body_size);
    assert_true(span_equal(a->payload, b->payload));
}

/* What is written is read again, with every combination of optional fields and empty parts, and
 * whatever follows it. */
static void round_trip(void **state)
{
    (void)state;
    static uint8_t payload[PAYLOAD_MAX];
    static uint8_t bytes[RECORD_HEADER_MAX + PAYLOAD_MAX + 8];
    for (unsigned bits = 0; bits < 32; bits++) {
        memset(payload, (int)bits, sizeof payload);
        struct record record = make((bits & 1) != 0 ? 17 : 0, (bits & 2) != 0 ? 300 : 0,
                                    (bits & 4) != 0 ? 1000 : 0, payload);
        record.not_before_ms = (bits & 8) != 0 ? UINT64_MAX : 0;
        record.expires_ms = (bits & 16) != 0 ? 1 : 0;
        size_t size = write(&record, bytes);
        struct record read;
        assert_true(record_get(span_of(bytes, size), &read));
        expect_equal(&record, &read);
        assert_true(record_get(span_of(bytes, size + 8), &read));
        expect_equal(&record, &read);
    }
}

/* A record with any one bit flipped is refused. */
static void every_bit(void **state)
{
    (void)state;
    static const uint8_t payload[] = "key attributes body";
    uint8_t bytes[RECORD_HEADER_MAX + sizeof payload];
    struct record record = make(4, 11, 4, payload);
    record.not_before_ms = 5;
    record.expires_ms = 6;
    size_t size = write(&record, bytes);
    struct record read;
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_false(record_get(span_of(bytes, size), &read));
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    assert_true(record_get(span_of(bytes, size), &read));
}

/* A record cut off anywhere is refused; its header alone says how big it is. */
static void cut_anywhere(void **state)
{
    (void)state;
    static const uint8_t payload[] = "0123456789";
    uint8_t bytes[RECORD_HEADER_MAX + sizeof payload];
    struct record record = make(0, 0, 10, payload);
    size_t size = write(&record, bytes);
    struct record read;
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *exact = malloc(cut + 1); /* so that a sanitizer sees a read behind the end */
        uint64_t whole = 0;
        memcpy(exact, bytes, cut);
        assert_false(record_get(span_of(exact, cut), &read));
        bool peeked = record_peek(span_of(exact, cut), &read, &whole);
        assert_int_equal(peeked, cut >= RECORD_HEADER_MIN);
        assert_true(!peeked || (whole == size && read.payload.size == cut - RECORD_HEADER_MIN));
        free(exact);
    }
}

/* Two parts that exchange bytes at their border are different records. */
static void borders_are_covered(void **state)
{
    (void)state;
    static const uint8_t payload[] = "abcdef";
    uint8_t bytes[RECORD_HEADER_MAX + sizeof payload];
    struct record record = make(2, 2, 2, payload);
    size_t size = write(&record, bytes);
    struct record read;
    bytes[10]--; /* one byte less of key, one more of attributes: the same total */
    bytes[12]++;
    assert_false(record_get(span_of(bytes, size), &read));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_bit),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(borders_are_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
