#include "tools/flare/bench_seen.h"

#include <stdlib.h>
#include <string.h>

err_t bench_seen_init(struct bench_seen *seen, uint32_t shards)
{
    *seen = (struct bench_seen){.count = shards};
    seen->shards = calloc(shards, sizeof *seen->shards);
    return seen->shards == NULL ? ERR(MEMORY, "no memory to follow the messages") : NULL;
}

void bench_seen_deinit(struct bench_seen *seen)
{
    for (uint32_t i = 0; seen->shards != NULL && i < seen->count; i++) {
        free(seen->shards[i].bits);
    }
    free(seen->shards);
    seen->shards = NULL;
}

err_t bench_seen_mark(struct bench_seen *seen, uint64_t shard, uint64_t sequence)
{
    if (shard >= seen->count || sequence > UINT32_MAX) {
        return ERR(FORMAT, "a message of shard %llu, sequence %llu", (unsigned long long)shard,
                   (unsigned long long)sequence);
    }
    struct bench_seen_shard *place = &seen->shards[shard];
    if (sequence / 8 >= place->size) {
        uint64_t size = sequence / 4 + 4096;
        uint8_t *bits = realloc(place->bits, size);
        if (bits == NULL) {
            return ERR(MEMORY, "no memory to follow the messages");
        }
        memset(bits + place->size, 0, size - place->size);
        place->bits = bits;
        place->size = size;
    }
    uint8_t bit = (uint8_t)(1u << (sequence % 8));
    seen->doubled += (place->bits[sequence / 8] & bit) != 0;
    place->bits[sequence / 8] |= bit;
    seen->received++;
    return NULL;
}

err_t bench_seen_check(const struct bench_seen *seen)
{
    return seen->doubled == 0
               ? NULL
               : ERR(INTERNAL, "%llu messages came twice", (unsigned long long)seen->doubled);
}
