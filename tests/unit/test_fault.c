#include "tests/lib/fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Three allocations of three kinds, each freed again; how many succeeded. */
static int allocate_thrice(void)
{
    void *volatile first = malloc(8);
    void *volatile second = calloc(2, 8);
    void *volatile third = realloc(NULL, 8);
    int count = (first != NULL) + (second != NULL) + (third != NULL);
    free(first);
    free(second);
    free(third);
    return count;
}

/* Exactly the chosen allocation fails, whatever kind it is; one past the end fails nothing. */
static void test_fails_the_nth(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 3; nth++) {
        fault_alloc_nth(nth);
        int count = allocate_thrice();
        assert_true(fault_alloc_stop());
        assert_int_equal(count, 2);
        assert_int_equal(fault_alloc_count(), 3);
    }
    fault_alloc_nth(4);
    int count = allocate_thrice();
    assert_false(fault_alloc_stop());
    assert_int_equal(count, 3);
}

/* From the chosen allocation on all fail, until it is stopped. */
static void test_fails_from_the_nth(void **state)
{
    (void)state;
    fault_alloc_from(2);
    int count = allocate_thrice();
    assert_true(fault_alloc_stop());
    assert_int_equal(count, 1);
    assert_int_equal(allocate_thrice(), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fails_the_nth),
        cmocka_unit_test(test_fails_from_the_nth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
