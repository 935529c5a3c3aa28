#include "broker/base/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "broker/base/random.h"

enum { KEYS = 512, STEPS = 200000 };

/* A map behaves as an array of its keys under any mix of changes. */
static void behaves_as_an_array_under_random_changes(void **state)
{
    (void)state;
    static char values[KEYS];
    void *model[KEYS] = {NULL};
    size_t count = 0;
    struct map map;
    struct random random;
    map_init(&map);
    random_init(&random, 7);
    for (int step = 0; step < STEPS; step++) {
        size_t key = random_below(&random, KEYS);
        /* Keys far apart share slots, keys close together too. */
        uint64_t spread = key % 2 == 0 ? key : (uint64_t)key << 40;
        if (random_chance(&random, 1, 2)) {
            count += model[key] == NULL;
            model[key] = &values[key];
            assert_true(map_put(&map, spread, model[key]));
        } else {
            count -= model[key] != NULL;
            assert_ptr_equal(map_remove(&map, spread), model[key]);
            model[key] = NULL;
        }
        assert_int_equal(map.count, count);
        size_t other = random_below(&random, KEYS);
        assert_ptr_equal(map_get(&map, other % 2 == 0 ? other : (uint64_t)other << 40),
                         model[other]);
    }
    map_deinit(&map);
}

static void each_value_is_visited_once(void **state)
{
    (void)state;
    static int seen[KEYS];
    struct map map;
    map_init(&map);
    for (size_t key = 0; key < KEYS; key++) {
        assert_true(map_put(&map, key * 3, &seen[key]));
    }
    size_t at = 0;
    int *value;
    while ((value = map_each(&map, &at)) != NULL) {
        (*value)++;
    }
    for (size_t key = 0; key < KEYS; key++) {
        assert_int_equal(seen[key], 1);
    }
    map_deinit(&map);
}

static void an_empty_map_has_nothing(void **state)
{
    (void)state;
    struct map map;
    size_t at = 0;
    map_init(&map);
    assert_null(map_get(&map, 0));
    assert_null(map_remove(&map, 0));
    assert_null(map_each(&map, &at));
    map_deinit(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behaves_as_an_array_under_random_changes),
        cmocka_unit_test(each_value_is_visited_once),
        cmocka_unit_test(an_empty_map_has_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
