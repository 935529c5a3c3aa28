/* Time as a value that can be injected: real, or simulated and moved by its owner.
 *
 * `wall_ms` is Unix time in milliseconds and goes into commands; `mono_us` never goes back and
 * measures durations. A simulated clock gives both from one number. Reading is thread-safe. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct clock {
    _Atomic uint64_t simulated_ms; /* 0: the real clock */
};

void clock_init_real(struct clock *clock);
void clock_init_simulated(struct clock *clock, uint64_t start_ms);
void clock_advance(struct clock *clock, uint64_t ms); /* simulated only */

uint64_t clock_wall_ms(const struct clock *clock);
uint64_t clock_mono_us(const struct clock *clock);

enum { CLOCK_ISO_SIZE = 25 };
/* "2026-01-02T03:04:05.678Z" (ISO 8601, UTC), terminated. */
void clock_iso(uint64_t wall_ms, char out[CLOCK_ISO_SIZE]);

#endif
