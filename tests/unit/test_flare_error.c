#include <flare/error.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/base/err.h"

/* Each code has the name and the promise of its row in err.def. */
static void test_codes(void **state)
{
    (void)state;
#define ERROR(name, number, status, retryable, text)                                               \
    assert_string_equal(flare_code_name((enum flare_code)(number)), err_slug(ERR_##name));         \
    assert_int_equal(flare_code_retryable((enum flare_code)(number)), retryable);
#include "broker/base/err.def"
    assert_string_equal(flare_code_name(FLARE_OK), "none");
    assert_string_equal(flare_code_name(FLARE_ERR_LEASE_LOST), "lease_lost");
}

/* A newer broker's code is told apart from the known ones. */
static void test_unlisted_code(void **state)
{
    (void)state;
    assert_string_equal(flare_code_name((enum flare_code)999), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_unlisted_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
