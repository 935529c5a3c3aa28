/* What the broker counts, and how it shows it: the text format of Prometheus, version 0.0.4.
 *
 * struct metrics holds a number for each METRIC and SERIES row of metrics.def. Any thread may
 * change any of them; each is atomic for itself and ordered with nothing, so a page may show the
 * messages of a commit without its time. FAMILY rows have no number here: whoever knows it writes
 * it when the page is asked for. Zeroed memory is a valid struct metrics. */
#ifndef METRICS_METRICS_H
#define METRICS_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "broker/base/buf.h"
#include "broker/base/span.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Log-linear: what lies between two powers of two is cut into 4 buckets of one width, so a value is
 * known to a quarter of itself at worst. A bucket holds its upper bound. The page shows only the
 * powers of two; quantiles see every bucket. */
enum {
    METRICS_POWER_MAX = 26, /* 2^26 us are 67 s; greater values share the last bucket */
    METRICS_BUCKET_COUNT = 4 * (METRICS_POWER_MAX - 1) + 1,
};

struct metrics_histogram {
    _Atomic uint64_t buckets[METRICS_BUCKET_COUNT];
    _Atomic uint64_t sum;
};

#define METRICS_FIELD_counter(name) _Atomic uint64_t name
#define METRICS_FIELD_gauge(name) _Atomic uint64_t name
#define METRICS_FIELD_histogram(name) struct metrics_histogram name
#define METRICS_FIELD_duration(name) struct metrics_histogram name
#define METRICS_COUNT(...) (sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *))

struct metrics {
#define METRIC(kind, name, help) METRICS_FIELD_##kind(name);
#define SERIES(kind, name, label, texts, help) METRICS_FIELD_##kind(name[METRICS_COUNT(texts)]);
#include "broker/metrics/metrics.def"
};

#undef METRICS_FIELD_counter
#undef METRICS_FIELD_gauge
#undef METRICS_FIELD_histogram
#undef METRICS_FIELD_duration
#undef METRICS_COUNT

/* The FAMILY rows: METRICS_volume_state ... */
enum metrics_family {
#define FAMILY(kind, name, labels, help) METRICS_##name,
#include "broker/metrics/metrics.def"
    METRICS_FAMILY_COUNT
};

/* A label of a sample: its value is UTF-8, and escaped when it is written. */
struct metrics_label {
    const char *name;
    struct span value;
};

static inline void metrics_add(_Atomic uint64_t *counter, uint64_t count)
{
    atomic_fetch_add_explicit(counter, count, memory_order_relaxed);
}

static inline void metrics_set(_Atomic uint64_t *gauge, uint64_t value)
{
    atomic_store_explicit(gauge, value, memory_order_relaxed);
}

static inline uint64_t metrics_get(const _Atomic uint64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

/* One value of a histogram; of a duration, microseconds. */
void metrics_observe(struct metrics_histogram *histogram, uint64_t value);

/* How many values there are. */
uint64_t metrics_observed(const struct metrics_histogram *histogram);

/* The least bound that `per_mille` of the values do not exceed: 500 for the median. 0 without
 * values, UINT64_MAX when it lies in the last bucket. */
uint64_t metrics_quantile(const struct metrics_histogram *histogram, uint32_t per_mille);

/* Counts an answer by the class of its status, 100 to 599. */
void metrics_count_status(struct metrics *metrics, int status);

/* All METRIC and SERIES rows. */
void metrics_write(struct buf *out, const struct metrics *metrics);

/* A FAMILY: its head once, then its samples right after it, each with other labels. `labels` ends
 * with a NULL name; NULL: none. */
void metrics_write_head(struct buf *out, enum metrics_family family);
void metrics_write_sample(struct buf *out, enum metrics_family family,
                          const struct metrics_label *labels, uint64_t value);
/* A value in milliseconds, for families in seconds. */
void metrics_write_sample_ms(struct buf *out, enum metrics_family family,
                             const struct metrics_label *labels, uint64_t value_ms);

#endif
