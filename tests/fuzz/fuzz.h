/* What every fuzz target includes: the one function it defines, and the check it states its
 * property with.
 *
 * A target reads one input and returns 0. It must leave nothing behind: the next input starts from
 * the same state. libFuzzer calls it in the fuzz build; replay.c runs the corpus through it in all
 * others. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert it names the target's property, and no build can switch it off. */
#define FUZZ_REQUIRE(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: property broken: %s\n", __FILE__, __LINE__, #condition);       \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
