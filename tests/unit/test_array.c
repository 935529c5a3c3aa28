#include "broker/base/array.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void expect(const struct array *array, const char *names)
{
    size_t index = 0;
    for (; names[index] != '\0'; index++) {
        assert_int_equal(*(const char *)array->items[index], names[index]);
    }
    assert_int_equal(array->count, index);
}

static void items_stay_in_the_order_they_were_put(void **state)
{
    (void)state;
    static char names[] = "abcdefgh";
    struct array array;
    array_init(&array);
    for (size_t index = 0; index < 6; index++) {
        assert_true(array_append(&array, &names[index]));
    }
    expect(&array, "abcdef");
    assert_true(array_insert(&array, 0, &names[6]));
    assert_true(array_insert(&array, 3, &names[7]));
    expect(&array, "gabhcdef");
    array_remove(&array, 0);
    array_remove(&array, 6);
    array_remove(&array, 2);
    expect(&array, "abcde");
    array_deinit(&array);
    assert_int_equal(array.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_stay_in_the_order_they_were_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
