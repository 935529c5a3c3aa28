#include "broker/base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

/* The last millisecond of the year 9999: four digits hold no later year. */
#define CLOCK_ISO_LAST_MS 253402300799999U

void clock_init_real(struct clock *clock)
{
    atomic_init(&clock->simulated_ms, 0);
}

void clock_init_simulated(struct clock *clock, uint64_t start_ms)
{
    assert(start_ms > 0);
    atomic_init(&clock->simulated_ms, start_ms);
}

void clock_advance(struct clock *clock, uint64_t ms)
{
    uint64_t before = atomic_fetch_add(&clock->simulated_ms, ms);
    assert(before != 0);
    (void)before;
}

static struct timespec clock_read(clockid_t id)
{
    struct timespec now;
    int rc = clock_gettime(id, &now);
    assert(rc == 0);
    (void)rc;
    assert(now.tv_sec >= 0);
    return now;
}

uint64_t clock_wall_ms(const struct clock *clock)
{
    uint64_t simulated_ms = atomic_load(&clock->simulated_ms);
    if (simulated_ms != 0) {
        return simulated_ms;
    }
    struct timespec now = clock_read(CLOCK_REALTIME);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t clock_mono_us(const struct clock *clock)
{
    uint64_t simulated_ms = atomic_load(&clock->simulated_ms);
    if (simulated_ms != 0) {
        return simulated_ms * 1000;
    }
    struct timespec now = clock_read(CLOCK_MONOTONIC);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void put_digits(char *out, int count, uint64_t value)
{
    for (int i = count - 1; i >= 0; i--) {
        out[i] = (char)('0' + value % 10);
        value /= 10;
    }
}

void clock_iso(uint64_t wall_ms, char out[CLOCK_ISO_SIZE])
{
    uint64_t ms = wall_ms < CLOCK_ISO_LAST_MS ? wall_ms : CLOCK_ISO_LAST_MS;
    uint64_t second = ms / 1000;
    uint64_t day = second / 86400;
    /* Days to date, H. Hinnant's way: years that begin in March put the leap day last, so one
     * formula covers every month. gmtime_r would ask for a lock and the time zone. */
    uint64_t shifted = day + 719468;
    uint64_t era = shifted / 146097;
    uint64_t day_of_era = shifted % 146097;
    uint64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t march_month = (5 * day_of_year + 2) / 153;
    uint64_t month = march_month < 10 ? march_month + 3 : march_month - 9;
    uint64_t year = era * 400 + year_of_era + (month <= 2 ? 1 : 0);

    static const char pattern[CLOCK_ISO_SIZE] = "0000-00-00T00:00:00.000Z";
    for (size_t i = 0; i < sizeof pattern; i++) {
        out[i] = pattern[i];
    }
    put_digits(out, 4, year);
    put_digits(out + 5, 2, month);
    put_digits(out + 8, 2, day_of_year - (153 * march_month + 2) / 5 + 1);
    put_digits(out + 11, 2, second / 3600 % 24);
    put_digits(out + 14, 2, second / 60 % 60);
    put_digits(out + 17, 2, second % 60);
    put_digits(out + 20, 3, ms % 1000);
}
