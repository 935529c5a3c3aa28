/* Objects of one size, taken from slabs and given back to the pool, never to the system until
 * pool_deinit. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stddef.h>

struct pool_slab;

struct pool {
    size_t object_size;
    struct pool_slab *slabs;
    void *unused;
    size_t taken; /* objects in use */
};

void pool_init(struct pool *pool, size_t object_size);
/* Frees every object, taken or not. */
void pool_deinit(struct pool *pool);
/* Cleared; NULL when there is no memory. */
void *pool_take(struct pool *pool);
void pool_give(struct pool *pool, void *object);

#endif
