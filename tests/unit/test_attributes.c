/* Attributes as bytes: pairs in the order given, and nothing read beyond what is there. */
#include "broker/core/attributes.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static struct buf make(void)
{
    struct buf buf;
    buf_init(&buf, 1 << 20);
    attributes_add(&buf, span_text("content-type"), span_text("text/plain"));
    attributes_add(&buf, span_text("empty"), span_text(""));
    attributes_add(&buf, span_text("zero"), span_of("a\0b", 3));
    return buf;
}

/* Pairs come back in the order given, values with any bytes. */
static void order_and_content(void **state)
{
    (void)state;
    struct buf buf = make();
    struct span rest = buf_span(&buf);
    struct span name;
    struct span value;
    assert_true(attributes_valid(rest));
    assert_true(attributes_next(&rest, &name, &value));
    assert_true(span_is(name, "content-type") && span_is(value, "text/plain"));
    assert_true(attributes_next(&rest, &name, &value));
    assert_true(span_is(name, "empty") && value.size == 0);
    assert_true(attributes_next(&rest, &name, &value));
    assert_true(span_is(name, "zero") && span_equal(value, span_of("a\0b", 3)));
    assert_false(attributes_next(&rest, &name, &value));
    assert_int_equal(rest.size, 0);
    buf_deinit(&buf);
}

/* A pair is found by its whole name. */
static void find(void **state)
{
    (void)state;
    struct buf buf = make();
    struct span value = span_of("untouched", 9);
    assert_true(attributes_find(buf_span(&buf), "zero", &value));
    assert_int_equal(value.size, 3);
    assert_false(attributes_find(buf_span(&buf), "zer", &value));
    assert_false(attributes_find(buf_span(&buf), "", &value));
    assert_false(attributes_find(span_of("", 0), "zero", &value));
    assert_int_equal(value.size, 3);
    buf_deinit(&buf);
}

/* Bytes cut off anywhere are not valid, except between two pairs, and are never read beyond. */
static void cut_anywhere(void **state)
{
    (void)state;
    struct buf buf = make();
    size_t first = 4 + 12 + 10;
    size_t second = first + 4 + 5;
    for (size_t cut = 0; cut <= buf.size; cut++) {
        uint8_t *exact = malloc(cut + 1);
        struct span value;
        memcpy(exact, buf.data, cut);
        bool whole = cut == 0 || cut == first || cut == second || cut == buf.size;
        assert_int_equal(attributes_valid(span_of(exact, cut)), whole);
        assert_int_equal(attributes_find(span_of(exact, cut), "zero", &value), cut == buf.size);
        free(exact);
    }
    buf_deinit(&buf);
}

/* A name or value has at most 65535 bytes; one more, or a full buffer, adds nothing at all. */
static void limits(void **state)
{
    (void)state;
    static const uint8_t bytes[UINT16_MAX + 1];
    for (size_t size = UINT16_MAX - 1; size <= UINT16_MAX + 1; size++) {
        struct buf buf;
        buf_init(&buf, 1 << 20);
        attributes_add(&buf, span_text("n"), span_of(bytes, size));
        assert_int_equal(buf.failed, size > UINT16_MAX);
        assert_int_equal(buf.size, buf.failed ? 0 : 5 + size);
        buf_reset(&buf);
        attributes_add(&buf, span_of(bytes, size), span_text("v"));
        assert_int_equal(buf.failed, size > UINT16_MAX);
        buf_deinit(&buf);
    }
    struct buf full;
    buf_init(&full, 12);
    attributes_add(&full, span_text("a"), span_text("b"));
    attributes_add(&full, span_text("c"), span_text("longer"));
    assert_true(full.failed);
    assert_int_equal(full.size, 6);
    assert_true(attributes_valid(buf_span(&full)));
    buf_deinit(&full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_and_content),
        cmocka_unit_test(find),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
