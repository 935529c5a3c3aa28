#include "broker/base/arena.h"

#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#endif

#include "tests/lib/fault.h"

/* Blocks of every size are aligned for any type and do not overlap. */
static void test_blocks_are_apart(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    struct arena arena;
    arena_init(&arena, 1 << 20, 0);
    uint8_t *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = arena_alloc(&arena, i);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % alignof(max_align_t), 0);
        memset(blocks[i], (int)(i % 251), i);
    }
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_int_equal(blocks[i][j], i % 251);
        }
    }
    arena_deinit(&arena);
}

/* The maximum is exact and counts what was asked for; a reset gives all of it back. */
static void test_maximum(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 10000, 4096);
    for (int round = 0; round < 3; round++) {
        assert_null(arena_alloc(&arena, 10001));
        assert_non_null(arena_alloc(&arena, 9999));
        assert_null(arena_alloc(&arena, 2));
        assert_non_null(arena_alloc(&arena, 1));
        assert_int_equal(arena.used, 10000);
        assert_null(arena_alloc(&arena, 1));
        assert_non_null(arena_alloc(&arena, 0));
        assert_null(arena_alloc(&arena, SIZE_MAX));
        arena_reset(&arena);
        assert_int_equal(arena.used, 0);
    }
    arena_deinit(&arena);
}

/* Cleared elements are zero also where memory was used before, and a product that wraps is refused.
 */
static void test_cleared(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, SIZE_MAX, 1 << 20);
    memset(arena_alloc(&arena, 4000), 0xff, 4000);
    arena_reset(&arena);
    const uint8_t *data = arena_calloc(&arena, 1000, 4);
    for (size_t i = 0; i < 4000; i++) {
        assert_int_equal(data[i], 0);
    }
    assert_null(arena_calloc(&arena, SIZE_MAX / 2, 3));
    arena_deinit(&arena);
}

/* A text is a terminated copy of its span. */
static void test_text(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 6, 0);
    assert_string_equal(arena_text(&arena, span_of("hello world", 4)), "hell");
    assert_string_equal(arena_text(&arena, span_of(NULL, 0)), "");
    assert_null(arena_text(&arena, span_of(NULL, 0)));
    arena_deinit(&arena);
}

/* A reset keeps blocks up to `keep_max`: the next request of that size asks the system for nothing,
 * and one byte more than that is given back. */
static void test_keeps_up_to_its_bound(void **state)
{
    (void)state;
    static const struct {
        size_t keep_max;
        bool kept;
    } cases[] = {{0, false}, {4095, false}, {4096, true}, {1 << 20, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, 1 << 20, cases[i].keep_max);
        assert_non_null(arena_alloc(&arena, 100));
        arena_reset(&arena);
        fault_alloc_nth(1);
        bool got = arena_alloc(&arena, 4096) != NULL;
        assert_int_equal(fault_alloc_stop(), !cases[i].kept);
        assert_int_equal(got, cases[i].kept);
        arena_deinit(&arena);
    }
}

/* Without memory an allocation is NULL, counts nothing, and the arena goes on afterwards. */
static void test_without_memory(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1 << 20, 0);
    assert_non_null(arena_alloc(&arena, 4096));
    fault_alloc_nth(1);
    assert_null(arena_alloc(&arena, 4096));
    assert_true(fault_alloc_stop());
    assert_int_equal(arena.used, 4096);
    assert_non_null(arena_alloc(&arena, 4096));
    arena_deinit(&arena);
}

#ifdef HAS_ASAN
/* Under ASan the byte after an allocation, and all of one after the reset, may not be touched. */
static void test_poison(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1 << 20, 1 << 20);
    const uint8_t *data = arena_alloc(&arena, 13);
    assert_null(__asan_region_is_poisoned((void *)(uintptr_t)data, 13));
    assert_true(__asan_address_is_poisoned(data + 13));
    arena_reset(&arena);
    assert_true(__asan_address_is_poisoned(data));
    arena_deinit(&arena);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_apart),
        cmocka_unit_test(test_maximum),
        cmocka_unit_test(test_cleared),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_keeps_up_to_its_bound),
        cmocka_unit_test(test_without_memory),
#ifdef HAS_ASAN
        cmocka_unit_test(test_poison),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
