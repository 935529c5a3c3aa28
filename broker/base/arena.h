/* Memory of one request: allocated by moving a pointer, given back all at once by arena_reset.
 *
 * Blocks are kept across resets up to `keep_max` bytes. Unused memory is poisoned under ASan.
 * Allocation past `size_max` returns NULL (the caller answers 413/503). */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

#include "broker/base/span.h"

struct arena_block;

struct arena {
    struct arena_block *blocks;
    size_t used;     /* bytes handed out since the last reset */
    size_t size_max; /* greatest `used` */
    size_t keep_max; /* block bytes kept by arena_reset */
};

void arena_init(struct arena *arena, size_t size_max, size_t keep_max);
void arena_deinit(struct arena *arena);
void arena_reset(struct arena *arena);

/* Aligned for any type, not cleared; NULL past the maximum or without memory. */
void *arena_alloc(struct arena *arena, size_t size);
/* The same, cleared, for `count` elements of `size` (checked for overflow). */
void *arena_calloc(struct arena *arena, size_t count, size_t size);
/* A terminated copy. */
char *arena_text(struct arena *arena, struct span span);

#endif
