#include "broker/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/fault.h"

/* What is appended comes out in order, whatever way it went in. */
static void test_appends(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 4096);
    buf_append(&buf, "ab", 2);
    buf_append(&buf, NULL, 0);
    buf_append_text(&buf, "cd");
    buf_append_span(&buf, span_text("ef"));
    buf_append_span(&buf, span_of(NULL, 0));
    buf_append_byte(&buf, 'g');
    buf_printf(&buf, "%d-%s", 42, "x");
    memcpy(buf_extend(&buf, 2), "yz", 2);
    assert_true(span_is(buf_span(&buf), "abcdefg42-xyz"));
    assert_false(buf.failed);
    buf_deinit(&buf);
}

/* The maximum is exact: max bytes fit, max + 1 append nothing, and the failure stays until reset.
 */
static void test_maximum(void **state)
{
    (void)state;
    static const size_t maxima[] = {0, 1, 255, 256, 257, 1000};
    for (size_t i = 0; i < sizeof maxima / sizeof maxima[0]; i++) {
        for (size_t size = maxima[i] == 0 ? 0 : maxima[i] - 1; size <= maxima[i] + 1; size++) {
            struct buf buf;
            buf_init(&buf, maxima[i]);
            uint8_t *room = buf_extend(&buf, size);
            bool fits = size <= maxima[i];
            assert_int_equal(room != NULL, fits);
            assert_int_equal(buf.failed, !fits);
            assert_int_equal(buf.size, fits ? size : 0);
            buf_reset(&buf);
            assert_false(buf.failed);
            buf_deinit(&buf);
        }
    }
}

/* After a failure nothing more is appended, so a torn text cannot look whole. */
static void test_failure_stays(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 4);
    buf_append_text(&buf, "abc");
    buf_append_text(&buf, "de");
    buf_append_byte(&buf, 'f');
    buf_printf(&buf, "g");
    assert_true(buf.failed);
    assert_true(span_is(buf_span(&buf), "abc"));
    buf_reset(&buf);
    buf_append_text(&buf, "wxyz");
    assert_true(span_is(buf_span(&buf), "wxyz"));
    buf_deinit(&buf);
}

/* Printing obeys the maximum exactly, for texts shorter and longer than its array on the stack. */
static void test_printf_maximum(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 255, 256, 257, 1000};
    char text[1001];
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int over = 0; over <= 1; over++) {
            struct buf buf;
            buf_init(&buf, sizes[i]);
            buf_printf(&buf, "%.*s", (int)sizes[i] + over, text);
            assert_int_equal(buf.failed, over);
            assert_int_equal(buf.size, over ? 0 : sizes[i]);
            assert_true(over || memcmp(buf.data, text, sizes[i]) == 0);
            buf_deinit(&buf);
        }
    }
}

/* A size that would wrap around is refused like any other that is too large. */
static void test_huge_size(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, SIZE_MAX);
    buf_append_text(&buf, "abc");
    assert_false(buf_reserve(&buf, SIZE_MAX));
    assert_false(buf.failed);
    assert_null(buf_extend(&buf, SIZE_MAX - 2));
    assert_true(buf.failed);
    buf_deinit(&buf);
}

/* Reserved room is room: the appends that fill it do not move the data. */
static void test_reserve(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 10000);
    assert_true(buf_reserve(&buf, 10000));
    const uint8_t *data = buf.data;
    for (int i = 0; i < 10000; i++) {
        buf_append_byte(&buf, (uint8_t)i);
    }
    assert_ptr_equal(buf.data, data);
    assert_false(buf_reserve(&buf, 1));
    assert_true(buf_reserve(&buf, 0));
    buf_deinit(&buf);
}

/* Consuming takes from the front, from nothing to everything. */
static void test_consume(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 100);
    buf_append_text(&buf, "abcdef");
    buf_consume(&buf, 0);
    buf_consume(&buf, 2);
    assert_true(span_is(buf_span(&buf), "cdef"));
    buf_consume(&buf, 4);
    assert_int_equal(buf.size, 0);
    buf_append_text(&buf, "gh");
    assert_true(span_is(buf_span(&buf), "gh"));
    buf_deinit(&buf);
}

/* Whichever allocation fails, the append fails as a whole and what was there stays. */
static void test_without_memory(void **state)
{
    (void)state;
    uint64_t nth = 1;
    for (;; nth++) {
        struct buf buf;
        buf_init(&buf, 100000);
        fault_alloc_nth(nth);
        buf_append_text(&buf, "abc");
        buf_printf(&buf, "%0*d", 1000, 7);
        if (!fault_alloc_stop()) {
            assert_false(buf.failed);
            assert_int_equal(buf.size, 1003);
            buf_deinit(&buf);
            break;
        }
        assert_true(buf.failed);
        assert_true(buf.size == 0 || span_is(buf_span(&buf), "abc"));
        buf_deinit(&buf);
    }
    assert_true(nth > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends),       cmocka_unit_test(test_maximum),
        cmocka_unit_test(test_failure_stays), cmocka_unit_test(test_printf_maximum),
        cmocka_unit_test(test_huge_size),     cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_consume),       cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
