#include "broker/base/map.h"

#include <assert.h>
#include <stdlib.h>

enum { CAPACITY_MIN = 8 };

static size_t slot_of(const struct map *map, uint64_t key)
{
    uint64_t hash = key * 0x9E3779B97F4A7C15ULL;
    hash ^= hash >> 32;
    return (size_t)hash & (map->capacity - 1);
}

void map_init(struct map *map)
{
    *map = (struct map){0};
}

void map_deinit(struct map *map)
{
    free(map->keys);
    free(map->values);
    *map = (struct map){0};
}

void *map_get(const struct map *map, uint64_t key)
{
    if (map->count == 0) {
        return NULL;
    }
    size_t slot = slot_of(map, key);
    while (map->values[slot] != NULL) {
        if (map->keys[slot] == key) {
            return map->values[slot];
        }
        slot = (slot + 1) & (map->capacity - 1);
    }
    return NULL;
}

static void insert(struct map *map, uint64_t key, void *value)
{
    size_t slot = slot_of(map, key);
    while (map->values[slot] != NULL && map->keys[slot] != key) {
        slot = (slot + 1) & (map->capacity - 1);
    }
    if (map->values[slot] == NULL) {
        map->count++;
    }
    map->keys[slot] = key;
    map->values[slot] = value;
}

static bool grow(struct map *map)
{
    size_t capacity = map->capacity == 0 ? CAPACITY_MIN : map->capacity * 2;
    struct map bigger = {.capacity = capacity};
    bigger.keys = malloc(capacity * sizeof *bigger.keys);
    bigger.values = calloc(capacity, sizeof *bigger.values);
    if (bigger.keys == NULL || bigger.values == NULL) {
        map_deinit(&bigger);
        return false;
    }
    for (size_t slot = 0; slot < map->capacity; slot++) {
        if (map->values[slot] != NULL) {
            insert(&bigger, map->keys[slot], map->values[slot]);
        }
    }
    map_deinit(map);
    *map = bigger;
    return true;
}

bool map_put(struct map *map, uint64_t key, void *value)
{
    assert(value != NULL);
    if ((map->count + 1) * 4 > map->capacity * 3 && !grow(map)) {
        return false;
    }
    insert(map, key, value);
    return true;
}

void *map_remove(struct map *map, uint64_t key)
{
    if (map->count == 0) {
        return NULL;
    }
    size_t mask = map->capacity - 1;
    size_t slot = slot_of(map, key);
    while (map->values[slot] != NULL && map->keys[slot] != key) {
        slot = (slot + 1) & mask;
    }
    void *value = map->values[slot];
    if (value == NULL) {
        return NULL;
    }
    /* Close the gap: move back what would no longer be found. */
    size_t gap = slot;
    for (size_t next = (gap + 1) & mask; map->values[next] != NULL; next = (next + 1) & mask) {
        size_t home = slot_of(map, map->keys[next]);
        if (((next - home) & mask) >= ((next - gap) & mask)) {
            map->keys[gap] = map->keys[next];
            map->values[gap] = map->values[next];
            gap = next;
        }
    }
    map->values[gap] = NULL;
    map->count--;
    return value;
}

void *map_each(const struct map *map, size_t *at)
{
    while (*at < map->capacity) {
        void *value = map->values[(*at)++];
        if (value != NULL) {
            return value;
        }
    }
    return NULL;
}
