#include "broker/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* A simulated clock stands still until it is moved, and gives both times from one number. */
static void test_simulated(void **state)
{
    (void)state;
    struct clock clock;
    clock_init_simulated(&clock, 1000);
    assert_int_equal(clock_wall_ms(&clock), 1000);
    assert_int_equal(clock_wall_ms(&clock), 1000);
    assert_int_equal(clock_mono_us(&clock), 1000000);
    clock_advance(&clock, 234);
    assert_int_equal(clock_wall_ms(&clock), 1234);
    assert_int_equal(clock_mono_us(&clock), 1234000);
}

/* The real clock says what the system says, and its monotonic time never goes back. */
static void test_real(void **state)
{
    (void)state;
    struct clock clock;
    clock_init_real(&clock);
    struct timespec before;
    struct timespec after;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &before), 0);
    uint64_t wall_ms = clock_wall_ms(&clock);
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &after), 0);
    assert_in_range(wall_ms, (uint64_t)before.tv_sec * 1000, (uint64_t)after.tv_sec * 1000 + 999);
    uint64_t last_us = clock_mono_us(&clock);
    for (int i = 0; i < 1000; i++) {
        uint64_t now_us = clock_mono_us(&clock);
        assert_true(now_us >= last_us);
        last_us = now_us;
    }
}

/* ISO 8601 in UTC with milliseconds, over leap days, ends of years, and clamped after year 9999. */
static void test_iso(void **state)
{
    (void)state;
    static const struct {
        uint64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {951782399999, "2000-02-28T23:59:59.999Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {951868800000, "2000-03-01T00:00:00.000Z"},
        {1767323045678, "2026-01-02T03:04:05.678Z"},
        {1798761599999, "2026-12-31T23:59:59.999Z"},
        {4107542400000, "2100-03-01T00:00:00.000Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {253402300800000, "9999-12-31T23:59:59.999Z"},
        {UINT64_MAX, "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[CLOCK_ISO_SIZE];
        clock_iso(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

/* Every day of four centuries has the date that libc gives it. */
static void test_iso_against_libc(void **state)
{
    (void)state;
    for (uint64_t day = 0; day < 400 * 366; day++) {
        time_t seconds = (time_t)(day * 86400 + day % 86400);
        struct tm parts;
        assert_non_null(gmtime_r(&seconds, &parts));
        char expected[64];
        assert_true(strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%S.000Z", &parts) > 0);
        char text[CLOCK_ISO_SIZE];
        clock_iso((uint64_t)seconds * 1000, text);
        if (strcmp(text, expected) != 0) {
            assert_string_equal(text, expected);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulated),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_iso),
        cmocka_unit_test(test_iso_against_libc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
