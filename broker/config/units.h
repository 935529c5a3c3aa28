/* Numbers with units, of the broker and of the tools, read and written by one table: 64k is 65536,
 * 90s is 90000. */
#ifndef CONFIG_UNITS_H
#define CONFIG_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/base/span.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

#define SECOND ((uint64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define WEEK (7 * DAY)

struct unit {
    const char *suffix;
    uint64_t factor;
    bool is_read_only; /* never printed */
};

/* Those that are printed largest first, ended by a NULL suffix; a number without a suffix counts
 * ones. */
extern const struct unit units_none[];
extern const struct unit units_size[];
extern const struct unit units_duration[];

enum { UNITS_TEXT_SIZE = 24 };

/* Digits and at most one suffix, upper or lower case; false for anything else and past 64 bits. */
bool units_parse(const struct unit *units, struct span text, uint64_t *out);

/* In the largest unit that is exact, terminated. */
void units_print(const struct unit *units, uint64_t value, char out[UNITS_TEXT_SIZE]);

#endif
