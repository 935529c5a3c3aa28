#include "broker/base/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/base/list.h"
#include "broker/base/random.h"
#include "tests/lib/fault.h"

enum { NODE_COUNT = 500, STEP_COUNT = 20000 };

/* An empty heap has no first, and a removed node can be inserted again. */
static void test_one(void **state)
{
    (void)state;
    struct heap heap;
    heap_init(&heap);
    assert_null(heap_first(&heap));
    struct heap_node node = {.due_ms = 7};
    for (int i = 0; i < 2; i++) {
        assert_true(heap_insert(&heap, &node));
        assert_ptr_equal(heap_first(&heap), &node);
        heap_remove(&heap, &node);
        assert_int_equal(node.index, 0);
        assert_null(heap_first(&heap));
    }
    heap_deinit(&heap);
}

/* Every node knows its place and none is due before its parent. */
static void check_shape(const struct heap *heap)
{
    for (size_t i = 0; i < heap->count; i++) {
        assert_int_equal(heap->nodes[i]->index, i + 1);
        assert_true(i == 0 || heap->nodes[(i + 1) / 2 - 1]->due_ms <= heap->nodes[i]->due_ms);
    }
}

/* Whatever is inserted and removed from anywhere, the first is the earliest of those inside. */
static void test_random_steps(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, 20240601);
    struct heap heap;
    heap_init(&heap);
    struct heap_node nodes[NODE_COUNT];
    memset(nodes, 0, sizeof nodes);
    for (int step = 0; step < STEP_COUNT; step++) {
        struct heap_node *node = &nodes[random_below(&random, NODE_COUNT)];
        if (node->index != 0) {
            heap_remove(&heap, node);
        } else {
            node->due_ms = random_below(&random, 50); /* many ties */
            assert_true(heap_insert(&heap, node));
        }
        if (step % 100 == 0) {
            check_shape(&heap);
        }
        const struct heap_node *first = heap_first(&heap);
        for (size_t i = 0; i < NODE_COUNT && step % 20 == 0; i++) {
            assert_true(nodes[i].index == 0 || first->due_ms <= nodes[i].due_ms);
        }
    }
    uint64_t last_ms = 0;
    while (heap_first(&heap) != NULL) {
        struct heap_node *first = heap_first(&heap);
        assert_true(first->due_ms >= last_ms);
        last_ms = first->due_ms;
        heap_remove(&heap, first);
    }
    heap_deinit(&heap);
}

/* The owner is found from its node, and the extremes of time have their places. */
static void test_owner_and_extremes(void **state)
{
    (void)state;
    struct owner {
        int before;
        struct heap_node node;
    } owners[] = {{.node.due_ms = UINT64_MAX}, {.node.due_ms = 0}, {.node.due_ms = 1}};
    struct heap heap;
    heap_init(&heap);
    for (size_t i = 0; i < 3; i++) {
        assert_true(heap_insert(&heap, &owners[i].node));
    }
    static const size_t order[] = {1, 2, 0};
    for (size_t i = 0; i < 3; i++) {
        struct heap_node *first = heap_first(&heap);
        assert_ptr_equal(container_of(first, struct owner, node), &owners[order[i]]);
        heap_remove(&heap, first);
    }
    heap_deinit(&heap);
}

/* An insert without memory is refused and leaves the heap and the node as they were. */
static void test_without_memory(void **state)
{
    (void)state;
    struct heap heap;
    heap_init(&heap);
    struct heap_node nodes[NODE_COUNT];
    memset(nodes, 0, sizeof nodes);
    size_t failures = 0;
    for (size_t i = 0; i < NODE_COUNT; i++) {
        nodes[i].due_ms = NODE_COUNT - i;
        fault_alloc_nth(1);
        bool inserted = heap_insert(&heap, &nodes[i]);
        bool failed = fault_alloc_stop();
        assert_int_equal(inserted, !failed);
        if (failed) {
            failures++;
            assert_int_equal(heap.count, i);
            assert_int_equal(nodes[i].index, 0);
            assert_true(heap_insert(&heap, &nodes[i]));
        }
    }
    assert_true(failures > 2);
    check_shape(&heap);
    heap_deinit(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_random_steps),
        cmocka_unit_test(test_owner_and_extremes),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
