#include "broker/base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* The same seed gives the same run; another seed another one, also for seed 0. */
static void test_seed_decides(void **state)
{
    (void)state;
    struct random a;
    struct random b;
    struct random other;
    random_init(&a, 0);
    random_init(&b, 0);
    random_init(&other, 1);
    int differing = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t value = random_next(&a);
        assert_int_equal(random_next(&b), value);
        differing += random_next(&other) != value;
    }
    assert_int_equal(differing, 1000);
}

/* Saved seeds must give the same run in every later version: the reference values of SplitMix64
 * seeding xoshiro256** with 0 are fixed here. */
static void test_reference_values(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, 0);
    assert_int_equal(random.state[0], 0xe220a8397b1dcdafU);
    assert_int_equal(random.state[1], 0x6e789e6aa1b965f4U);
    static const uint64_t expected[] = {0x99ec5f36cb75f2b4U, 0xbf6e1f784956452aU,
                                        0x1a5f849d4933e6e0U};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(random_next(&random), expected[i]);
    }
}

/* Every value below the bound comes, none at or above it, and each about as often. */
static void test_below(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, 7);
    static const uint64_t bounds[] = {1, 2, 3, 10, 97};
    for (size_t b = 0; b < sizeof bounds / sizeof bounds[0]; b++) {
        uint32_t counts[97] = {0};
        uint64_t draws = 2000 * bounds[b];
        for (uint64_t i = 0; i < draws; i++) {
            uint64_t value = random_below(&random, bounds[b]);
            assert_true(value < bounds[b]);
            counts[value]++;
        }
        for (uint64_t value = 0; value < bounds[b]; value++) {
            assert_in_range(counts[value], 1700, 2300);
        }
    }
    assert_true(random_below(&random, UINT64_MAX) < UINT64_MAX);
}

/* A bound of two thirds of the range is fair too: folding 2^64 onto it would double its lower half.
 */
static void test_below_is_fair_for_large_bounds(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, 8);
    uint64_t bound = UINT64_MAX / 3 * 2;
    uint32_t low = 0;
    for (int i = 0; i < 10000; i++) {
        low += random_below(&random, bound) < bound / 2;
    }
    assert_in_range(low, 4700, 5300);
}

/* A chance of 0 never happens, one of all always, one of a quarter about every fourth time. */
static void test_chance(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, 9);
    int quarter = 0;
    for (int i = 0; i < 10000; i++) {
        assert_false(random_chance(&random, 0, 4));
        assert_true(random_chance(&random, 4, 4));
        quarter += random_chance(&random, 1, 4);
    }
    assert_in_range(quarter, 2200, 2800);
}

/* Seeds of the system differ from call to call. */
static void test_system_seed(void **state)
{
    (void)state;
    assert_int_not_equal(random_seed(), random_seed());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_decides), cmocka_unit_test(test_reference_values),
        cmocka_unit_test(test_below),        cmocka_unit_test(test_below_is_fair_for_large_bounds),
        cmocka_unit_test(test_chance),       cmocka_unit_test(test_system_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
