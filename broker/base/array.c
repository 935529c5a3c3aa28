#include "broker/base/array.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void array_init(struct array *array)
{
    *array = (struct array){0};
}

void array_deinit(struct array *array)
{
    free(array->items);
    *array = (struct array){0};
}

bool array_append(struct array *array, void *item)
{
    return array_insert(array, array->count, item);
}

bool array_insert(struct array *array, size_t index, void *item)
{
    assert(index <= array->count);
    if (array->count == array->capacity) {
        size_t capacity = array->capacity == 0 ? 4 : array->capacity * 2;
        void **items = realloc(array->items, capacity * sizeof *items);
        if (items == NULL) {
            return false;
        }
        array->items = items;
        array->capacity = capacity;
    }
    memmove(array->items + index + 1, array->items + index,
            (array->count - index) * sizeof *array->items);
    array->items[index] = item;
    array->count++;
    return true;
}

void array_remove(struct array *array, size_t index)
{
    assert(index < array->count);
    memmove(array->items + index, array->items + index + 1,
            (array->count - index - 1) * sizeof *array->items);
    array->count--;
}
