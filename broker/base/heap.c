#include "broker/base/heap.h"

#include <assert.h>
#include <stdlib.h>

enum { HEAP_CAPACITY_MIN = 16 };

void heap_init(struct heap *heap)
{
    *heap = (struct heap){0};
}

void heap_deinit(struct heap *heap)
{
    free(heap->nodes);
    *heap = (struct heap){0};
}

/* Places count from 1, so that the parent of `place` is place / 2. */
static bool is_before(const struct heap_node *a, const struct heap_node *b)
{
    return a->due_ms < b->due_ms || (a->due_ms == b->due_ms && a->order < b->order);
}

static void heap_put(struct heap *heap, size_t place, struct heap_node *node)
{
    heap->nodes[place - 1] = node;
    node->index = place;
}

static void heap_rise(struct heap *heap, size_t place, struct heap_node *node)
{
    while (place > 1) {
        struct heap_node *parent = heap->nodes[place / 2 - 1];
        if (!is_before(node, parent)) {
            break;
        }
        heap_put(heap, place, parent);
        place /= 2;
    }
    heap_put(heap, place, node);
}

static void heap_sink(struct heap *heap, size_t place, struct heap_node *node)
{
    while (place <= heap->count / 2) {
        size_t child = place * 2;
        if (child < heap->count && is_before(heap->nodes[child], heap->nodes[child - 1])) {
            child++;
        }
        if (!is_before(heap->nodes[child - 1], node)) {
            break;
        }
        heap_put(heap, place, heap->nodes[child - 1]);
        place = child;
    }
    heap_put(heap, place, node);
}

static bool heap_grow(struct heap *heap)
{
    size_t capacity = heap->capacity == 0 ? HEAP_CAPACITY_MIN : heap->capacity * 2;
    if (capacity > SIZE_MAX / sizeof *heap->nodes) {
        return false;
    }
    struct heap_node **nodes = realloc(heap->nodes, capacity * sizeof *nodes);
    if (nodes == NULL) {
        return false;
    }
    heap->nodes = nodes;
    heap->capacity = capacity;
    return true;
}

bool heap_insert(struct heap *heap, struct heap_node *node)
{
    assert(node->index == 0);
    if (heap->count == heap->capacity && !heap_grow(heap)) {
        return false;
    }
    heap->count++;
    heap_rise(heap, heap->count, node);
    return true;
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
    size_t place = node->index;
    assert(place >= 1);
    assert(place <= heap->count);
    assert(heap->nodes[place - 1] == node);
    struct heap_node *last = heap->nodes[heap->count - 1];
    heap->count--;
    node->index = 0;
    if (last == node) {
        return;
    }
    /* The last node fills the gap; it may belong above it or below it, but not both. */
    if (place > 1 && is_before(last, heap->nodes[place / 2 - 1])) {
        heap_rise(heap, place, last);
    } else {
        heap_sink(heap, place, last);
    }
}

struct heap_node *heap_first(const struct heap *heap)
{
    return heap->count == 0 ? NULL : heap->nodes[0];
}
