/* Intrusive binary min-heap of deadlines: each element embeds a heap_node with its due time in
 * milliseconds; of those with the same time the one with the least `order` comes first. The array
 * of pointers grows on insert; insert returns false when there is no memory. */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    uint64_t due_ms;
    uint64_t order; /* may be 0 for all, where it does not matter */
    size_t index;   /* 1-based place in the heap; 0: not in one */
};

struct heap {
    struct heap_node **nodes;
    size_t count;
    size_t capacity;
};

void heap_init(struct heap *heap);
void heap_deinit(struct heap *heap);
bool heap_insert(struct heap *heap, struct heap_node *node);
void heap_remove(struct heap *heap, struct heap_node *node);
/* The earliest, or NULL. */
struct heap_node *heap_first(const struct heap *heap);

#endif
