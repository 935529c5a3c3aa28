/* A growing array of pointers. */
#ifndef BASE_ARRAY_H
#define BASE_ARRAY_H

#include <stdbool.h>
#include <stddef.h>

struct array {
    void **items;
    size_t count;
    size_t capacity;
};

void array_init(struct array *array);
void array_deinit(struct array *array);
/* False when there is no memory. */
bool array_append(struct array *array, void *item);
bool array_insert(struct array *array, size_t index, void *item);
void array_remove(struct array *array, size_t index);

#endif
