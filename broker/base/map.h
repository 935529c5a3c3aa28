/* A hash map from a 64-bit number to a pointer (open addressing). Values are never NULL. Order of
 * iteration is not defined: nothing that must be the same on every run may depend on it. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map {
    uint64_t *keys;
    void **values;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
};

void map_init(struct map *map);
void map_deinit(struct map *map);
/* NULL when there is none. */
void *map_get(const struct map *map, uint64_t key);
/* Replaces a value that is there; false when there is no memory. */
bool map_put(struct map *map, uint64_t key, void *value);
/* What was there, or NULL. */
void *map_remove(struct map *map, uint64_t key);
/* Iteration: start with *at == 0; NULL at the end. The map must not change meanwhile. */
void *map_each(const struct map *map, size_t *at);

#endif
