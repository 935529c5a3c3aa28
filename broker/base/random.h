/* Seeded pseudo-random numbers (xoshiro256**): the same seed gives the same run. Not for secrets.
 */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state[4];
};

void random_init(struct random *random, uint64_t seed);
uint64_t random_next(struct random *random);
/* Uniform in [0, bound); bound > 0. */
uint64_t random_below(struct random *random, uint64_t bound);
/* True with `numerator` in `denominator`. */
bool random_chance(struct random *random, uint32_t numerator, uint32_t denominator);
/* A seed from the system, for real use. */
uint64_t random_seed(void);

#endif
