#include "broker/base/random.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/types.h>

static uint64_t rotate_left(uint64_t value, int count)
{
    return (value << count) | (value >> (64 - count));
}

/* SplitMix64: spreads any seed, 0 too, over the whole state, which must not be all zero. */
static uint64_t split_mix(uint64_t *seed)
{
    *seed += 0x9e3779b97f4a7c15U;
    uint64_t value = *seed;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
    return value ^ (value >> 31);
}

void random_init(struct random *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        random->state[i] = split_mix(&seed);
    }
}

uint64_t random_next(struct random *random)
{
    uint64_t *state = random->state;
    uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

uint64_t random_below(struct random *random, uint64_t bound)
{
    assert(bound > 0);
    /* 2^64 mod bound values at the low end would make the small results more likely: draw again. */
    uint64_t unfair = (0 - bound) % bound;
    uint64_t value = random_next(random);
    while (value < unfair) {
        value = random_next(random);
    }
    return value % bound;
}

bool random_chance(struct random *random, uint32_t numerator, uint32_t denominator)
{
    return random_below(random, denominator) < numerator;
}

uint64_t random_seed(void)
{
    uint64_t seed = 0;
    ssize_t size = 0;
    do {
        size = getrandom(&seed, sizeof seed, 0);
    } while (size < 0 && errno == EINTR);
    if (size != (ssize_t)sizeof seed) {
        abort(); /* no entropy source at all: a constant seed would repeat identities */
    }
    return seed;
}
