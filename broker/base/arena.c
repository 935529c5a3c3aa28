#include "broker/base/arena.h"

#include <assert.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISONS 1
#endif
#endif
#ifdef ARENA_POISONS
#include <sanitizer/asan_interface.h>
#define ARENA_POISON(data, size) ASAN_POISON_MEMORY_REGION((data), (size))
#define ARENA_UNPOISON(data, size) ASAN_UNPOISON_MEMORY_REGION((data), (size))
#else
#define ARENA_POISON(data, size) ((void)(data), (void)(size))
#define ARENA_UNPOISON(data, size) ((void)(data), (void)(size))
#endif

enum {
    ARENA_ALIGN = alignof(max_align_t),
    ARENA_BLOCK_MIN = 4096,
    ARENA_BLOCK_STEP_MAX = 1 << 20, /* blocks double up to here: few blocks, little waste */
};

struct arena_block {
    struct arena_block *next;
    size_t capacity;
    size_t used;
    alignas(max_align_t) uint8_t data[];
};

void arena_init(struct arena *arena, size_t size_max, size_t keep_max)
{
    *arena = (struct arena){.size_max = size_max, .keep_max = keep_max};
}

static void block_destroy(struct arena_block *block)
{
    ARENA_UNPOISON(block->data, block->capacity);
    free(block);
}

void arena_deinit(struct arena *arena)
{
    while (arena->blocks != NULL) {
        struct arena_block *next = arena->blocks->next;
        block_destroy(arena->blocks);
        arena->blocks = next;
    }
    arena->used = 0;
}

void arena_reset(struct arena *arena)
{
    size_t kept = 0;
    struct arena_block **place = &arena->blocks;
    while (*place != NULL) {
        struct arena_block *block = *place;
        if (block->capacity > arena->keep_max - kept) {
            *place = block->next;
            block_destroy(block);
            continue;
        }
        kept += block->capacity;
        block->used = 0;
        ARENA_POISON(block->data, block->capacity);
        place = &block->next;
    }
    arena->used = 0;
}

static struct arena_block *block_create(struct arena *arena, size_t size)
{
    size_t capacity = ARENA_BLOCK_MIN;
    if (arena->blocks != NULL && arena->blocks->capacity >= ARENA_BLOCK_MIN) {
        size_t last = arena->blocks->capacity;
        capacity = last >= ARENA_BLOCK_STEP_MAX / 2 ? ARENA_BLOCK_STEP_MAX : last * 2;
    }
    if (capacity < size) {
        capacity = size;
    }
    if (capacity > SIZE_MAX - sizeof(struct arena_block)) {
        return NULL;
    }
    struct arena_block *block = malloc(sizeof *block + capacity);
    if (block == NULL) {
        return NULL;
    }
    block->capacity = capacity;
    block->used = 0;
    block->next = arena->blocks;
    arena->blocks = block;
    ARENA_POISON(block->data, block->capacity);
    return block;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    assert(arena->used <= arena->size_max);
    if (size > arena->size_max - arena->used) {
        return NULL;
    }
    /* First fit over a list that doubling keeps short; kept blocks serve again after a reset. */
    struct arena_block *block = arena->blocks;
    while (block != NULL && size > block->capacity - block->used) {
        block = block->next;
    }
    if (block == NULL) {
        block = block_create(arena, size);
        if (block == NULL) {
            return NULL;
        }
    }
    uint8_t *data = block->data + block->used;
    size_t room = block->capacity - block->used;
    size_t tail = (ARENA_ALIGN - size % ARENA_ALIGN) % ARENA_ALIGN;
    block->used += room - size < tail ? room : size + tail;
    arena->used += size;
    ARENA_UNPOISON(data, size);
    return data;
}

void *arena_calloc(struct arena *arena, size_t count, size_t size)
{
    size_t total = 0;
    if (__builtin_mul_overflow(count, size, &total)) {
        return NULL;
    }
    void *data = arena_alloc(arena, total);
    if (data != NULL) {
        memset(data, 0, total);
    }
    return data;
}

char *arena_text(struct arena *arena, struct span span)
{
    if (span.size == SIZE_MAX) {
        return NULL;
    }
    char *text = arena_alloc(arena, span.size + 1);
    if (text == NULL) {
        return NULL;
    }
    if (span.size > 0) {
        memcpy(text, span.data, span.size);
    }
    text[span.size] = '\0';
    return text;
}
