#include "broker/base/pool.h"

#include <assert.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { SLAB_SIZE_MIN = 16 * 1024, SLAB_OBJECTS_MIN = 8 };

struct pool_slab {
    struct pool_slab *next;
    max_align_t objects[];
};

struct unused {
    struct unused *next;
};

void pool_init(struct pool *pool, size_t object_size)
{
    size_t align = alignof(max_align_t);
    *pool = (struct pool){.object_size = (object_size + align - 1) / align * align};
    assert(pool->object_size >= sizeof(struct unused));
}

void pool_deinit(struct pool *pool)
{
    while (pool->slabs != NULL) {
        struct pool_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        free(slab);
    }
    *pool = (struct pool){.object_size = pool->object_size};
}

static void push(struct pool *pool, void *object)
{
    struct unused *entry = object;
    entry->next = pool->unused;
    pool->unused = entry;
}

static int add_slab(struct pool *pool)
{
    size_t count = SLAB_SIZE_MIN / pool->object_size;
    if (count < SLAB_OBJECTS_MIN) {
        count = SLAB_OBJECTS_MIN;
    }
    struct pool_slab *slab = malloc(sizeof *slab + count * pool->object_size);
    if (slab == NULL) {
        return 0;
    }
    slab->next = pool->slabs;
    pool->slabs = slab;
    for (size_t index = count; index > 0; index--) {
        push(pool, (char *)slab->objects + (index - 1) * pool->object_size);
    }
    return 1;
}

void *pool_take(struct pool *pool)
{
    if (pool->unused == NULL && !add_slab(pool)) {
        return NULL;
    }
    struct unused *object = pool->unused;
    pool->unused = object->next;
    pool->taken++;
    memset(object, 0, pool->object_size);
    return object;
}

void pool_give(struct pool *pool, void *object)
{
    assert(pool->taken > 0);
    pool->taken--;
    push(pool, object);
}
