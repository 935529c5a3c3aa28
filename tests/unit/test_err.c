#include "broker/base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "tests/lib/fault.h"

static err_t open_data(void)
{
    return ERR(IO, "open %s: %d", "/data", 5);
}

static err_t pass(void)
{
    TRY(open_data());
    return NULL;
}

static err_t pass_and_release(int *released)
{
    err_t err = NULL;
    TRY_OUT(pass());
    *released = -1;
out:
    *released += 1;
    return err;
}

static err_t pass_deep(int depth)
{
    if (depth == 0) {
        return open_data();
    }
    TRY(pass_deep(depth - 1));
    return NULL;
}

/* An error tells what failed, where it was made and which functions it has left, in that order. */
static void test_describes_its_way(void **state)
{
    (void)state;
    int released = 0;
    err_t err = pass_and_release(&released);
    assert_int_equal(released, 1);
    assert_int_equal(err_code(err), ERR_IO);
    assert_string_equal(err_message(err), "open /data: 5");
    const char *text = err_describe(err);
    assert_ptr_equal(strstr(text, "open /data: 5 ("), text);
    assert_non_null(strstr(text, "test_err.c:"));
    assert_non_null(strstr(text, ", open_data <- pass <- pass_and_release)"));
    err_free(err);
}

/* The trace keeps the first eight functions: where it came from matters more than where it went. */
static void test_trace_is_bounded(void **state)
{
    (void)state;
    err_t err = pass_deep(20);
    const char *text = err_describe(err);
    size_t arrows = 0;
    for (const char *at = strstr(text, " <- "); at != NULL; at = strstr(at + 1, " <- ")) {
        arrows++;
    }
    assert_int_equal(arrows, 7);
    assert_non_null(strstr(text, ", open_data <- pass_deep"));
    err_free(err);
}

/* A message of any length is cut, never written past its room; describing twice says the same. */
static void test_long_message_is_cut(void **state)
{
    (void)state;
    char long_text[4096];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    err_t err = ERR(INVALID, "%s", long_text);
    assert_true(strlen(err_message(err)) > 100);
    assert_true(strlen(err_message(err)) < sizeof long_text - 1);
    size_t size = strlen(err_describe(err));
    assert_int_equal(strlen(err_describe(err)), size);
    err_free(err);
}

/* Success is NULL, and every question may be asked of it. */
static void test_null_is_success(void **state)
{
    (void)state;
    assert_int_equal(err_code(NULL), ERR_NONE);
    assert_string_equal(err_message(NULL), "Success");
    assert_string_equal(err_describe(NULL), "Success");
    err_free(NULL);
}

/* Without memory an error is still made, handed upward and freed, and keeps its code. */
static void test_without_memory(void **state)
{
    (void)state;
    fault_alloc_from(1);
    err_t err = pass();
    err_t other = ERR(LEASE_LOST, "receipt");
    assert_true(fault_alloc_stop());
    assert_int_equal(err_code(err), ERR_IO);
    assert_int_equal(err_code(other), ERR_LEASE_LOST);
    assert_non_null(strstr(err_describe(err), err_title(ERR_IO)));
    assert_non_null(strstr(err_message(err), err_title(ERR_IO)));
    err_free(err);
    assert_int_equal(err_code(err), ERR_IO); /* shared and never freed */
    err_free(other);
}

/* Every row of err.def is found under its number, and its slug is its name in lower case. */
static void test_rows(void **state)
{
    (void)state;
    size_t count = 0;
#define ERROR(name, number, status, retryable, text)                                               \
    assert_int_equal(err_status(ERR_##name), status);                                              \
    assert_int_equal(err_retryable(ERR_##name), retryable);                                        \
    assert_string_equal(err_title(ERR_##name), text);                                              \
    assert_int_equal(strcasecmp(err_slug(ERR_##name), #name), 0);                                  \
    assert_null(strpbrk(err_slug(ERR_##name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ"));                      \
    count++;
#include "broker/base/err.def"
    assert_true(count > 20);
    assert_string_equal(err_slug(ERR_LEASE_LOST), "lease_lost");
    assert_string_equal(err_slug(ERR_NOT_FOUND), "not_found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describes_its_way),   cmocka_unit_test(test_trace_is_bounded),
        cmocka_unit_test(test_long_message_is_cut), cmocka_unit_test(test_null_is_success),
        cmocka_unit_test(test_without_memory),      cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
