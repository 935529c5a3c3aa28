#include "broker/base/bitmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { BITS = 256, WORDS = BITS / 64 };

static void range_holds_exactly_its_bits(void **state)
{
    (void)state;
    for (size_t first = 0; first <= BITS; first += 7) {
        for (size_t end = first; end <= BITS; end++) {
            uint64_t words[WORDS] = {0};
            bitmap_set_range(words, first, end);
            for (size_t bit = 0; bit < BITS; bit++) {
                assert_int_equal(bitmap_test(words, bit), bit >= first && bit < end);
            }
        }
    }
}

static void next_finds_set_bits_in_order_and_nothing_past_the_count(void **state)
{
    (void)state;
    uint64_t words[WORDS] = {0};
    bitmap_set(words, 3);
    bitmap_set(words, 64);
    bitmap_set(words, 255);
    assert_int_equal(bitmap_next(words, BITS, 0), 3);
    assert_int_equal(bitmap_next(words, BITS, 4), 64);
    assert_int_equal(bitmap_next(words, BITS, 65), 255);
    assert_int_equal(bitmap_next(words, 255, 65), 255);
    assert_int_equal(bitmap_next(words, BITS, BITS), BITS);
    bitmap_clear(words, 64);
    assert_int_equal(bitmap_next(words, BITS, 4), 255);
}

static void growing_keeps_bits_and_clears_new_ones(void **state)
{
    (void)state;
    uint64_t *words = NULL;
    size_t count = 0;
    assert_true(bitmap_grow(&words, &count, 1));
    bitmap_set(words, 0);
    assert_true(bitmap_grow(&words, &count, 1000));
    assert_true(count * 64 >= 1000);
    assert_int_equal(bitmap_next(words, count * 64, 1), count * 64);
    assert_true(bitmap_test(words, 0));
    bitmap_free(words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_holds_exactly_its_bits),
        cmocka_unit_test(next_finds_set_bits_in_order_and_nothing_past_the_count),
        cmocka_unit_test(growing_keeps_bits_and_clears_new_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
