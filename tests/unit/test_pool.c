#include "broker/base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdint.h>
#include <string.h>

enum { OBJECTS = 1000 };

struct object {
    uint64_t words[5];
};

static void objects_are_cleared_aligned_and_apart(void **state)
{
    (void)state;
    static struct object *objects[OBJECTS];
    struct pool pool;
    pool_init(&pool, sizeof(struct object));
    for (size_t round = 0; round < 2; round++) {
        for (size_t index = 0; index < OBJECTS; index++) {
            objects[index] = pool_take(&pool);
            assert_non_null(objects[index]);
            assert_int_equal((uintptr_t)objects[index] % _Alignof(max_align_t), 0);
            for (size_t word = 0; word < 5; word++) {
                assert_int_equal(objects[index]->words[word], 0);
            }
            memset(objects[index], (int)(index % 251) + 1, sizeof *objects[index]);
        }
        assert_int_equal(pool.taken, OBJECTS);
        for (size_t index = 0; index < OBJECTS; index++) {
            uint8_t last[8];
            memset(last, (int)(index % 251) + 1, sizeof last);
            assert_memory_equal(&objects[index]->words[4], last, sizeof last);
            pool_give(&pool, objects[index]);
        }
        assert_int_equal(pool.taken, 0);
    }
    pool_deinit(&pool);
}

static void what_was_given_is_taken_again_first(void **state)
{
    (void)state;
    struct pool pool;
    pool_init(&pool, sizeof(struct object));
    void *first = pool_take(&pool);
    pool_give(&pool, first);
    assert_ptr_equal(pool_take(&pool), first);
    pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_cleared_aligned_and_apart),
        cmocka_unit_test(what_was_given_is_taken_again_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
