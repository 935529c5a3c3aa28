/* Bits in words of 64, for sets that are walked in order. */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void bitmap_set(uint64_t *words, size_t bit)
{
    words[bit / 64] |= 1ULL << (bit % 64);
}

static inline void bitmap_clear(uint64_t *words, size_t bit)
{
    words[bit / 64] &= ~(1ULL << (bit % 64));
}

static inline bool bitmap_test(const uint64_t *words, size_t bit)
{
    return (words[bit / 64] >> (bit % 64) & 1) != 0;
}

/* The first set bit at or after `from`, or `count`. */
static inline size_t bitmap_next(const uint64_t *words, size_t count, size_t from)
{
    while (from < count) {
        uint64_t word = words[from / 64] >> (from % 64);
        if (word != 0) {
            size_t bit = from + (size_t)__builtin_ctzll(word);
            return bit < count ? bit : count;
        }
        from = (from / 64 + 1) * 64;
    }
    return count;
}

/* Sets the bits [first, end). */
static inline void bitmap_set_range(uint64_t *words, size_t first, size_t end)
{
    while (first < end) {
        size_t next = (first / 64 + 1) * 64;
        size_t size = (next < end ? next : end) - first;
        words[first / 64] |= (size == 64 ? UINT64_MAX : (1ULL << size) - 1) << (first % 64);
        first += size;
    }
}

/* Room for `bit_count` bits, new ones clear; false when there is no memory. */
bool bitmap_grow(uint64_t **words, size_t *word_count, size_t bit_count);
void bitmap_free(uint64_t *words);

#endif
