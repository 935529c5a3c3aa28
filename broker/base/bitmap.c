#include "broker/base/bitmap.h"

#include <stdlib.h>
#include <string.h>

bool bitmap_grow(uint64_t **words, size_t *word_count, size_t bit_count)
{
    size_t needed = (bit_count + 63) / 64;
    if (needed <= *word_count) {
        return true;
    }
    size_t count = *word_count * 2 > needed ? *word_count * 2 : needed;
    uint64_t *bigger = realloc(*words, count * sizeof *bigger);
    if (bigger == NULL) {
        return false;
    }
    memset(bigger + *word_count, 0, (count - *word_count) * sizeof *bigger);
    *words = bigger;
    *word_count = count;
    return true;
}

void bitmap_free(uint64_t *words)
{
    free(words);
}
