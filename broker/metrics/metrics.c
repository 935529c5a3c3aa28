#include "broker/metrics/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>

enum kind { KIND_counter, KIND_gauge, KIND_histogram, KIND_duration };

struct row {
    enum kind kind;
    const char *name;
    const char *help;
    size_t offset;            /* METRIC, SERIES: of the field in struct metrics */
    const char *label;        /* SERIES: NULL otherwise */
    const char *const *texts; /* SERIES: values of the label */
    size_t text_count;
};

static const struct row rows[] = {
#define METRIC(kind, name, help)                                                                   \
    {KIND_##kind, "flare_" #name, help, offsetof(struct metrics, name), NULL, NULL, 0},
#define SERIES(kind, name, label, texts, help)                                                     \
    {KIND_##kind,                                                                                  \
     "flare_" #name,                                                                               \
     help,                                                                                         \
     offsetof(struct metrics, name),                                                               \
     #label,                                                                                       \
     (const char *const[]){texts},                                                                 \
     sizeof((const char *const[]){texts}) / sizeof(const char *)},
#include "broker/metrics/metrics.def"
};

static const struct row families[] = {
#define FAMILY(kind, name, labels, help)                                                           \
    [METRICS_##name] = {KIND_##kind, "flare_" #name, help, 0, NULL, NULL, 0},
#include "broker/metrics/metrics.def"
};

static const char *const kind_texts[] = {
    [KIND_counter] = "counter",
    [KIND_gauge] = "gauge",
    [KIND_histogram] = "histogram",
    [KIND_duration] = "histogram",
};

/* ---- histograms -------------------------------------------------------------------------------
 */

/* Buckets are cut by value - 1, so that a power of two belongs to the bucket below it: the page
 * says "less than or equal". */
static size_t bucket_of(uint64_t value)
{
    uint64_t below = value == 0 ? 0 : value - 1;
    if (below < 4) {
        return (size_t)below;
    }
    unsigned power = 63 - (unsigned)__builtin_clzll(below);
    if (power >= METRICS_POWER_MAX) {
        return METRICS_BUCKET_COUNT - 1;
    }
    return (size_t)(power - 1) * 4 + ((below >> (power - 2)) & 3);
}

/* The greatest value of a bucket, which must not be the last. */
static uint64_t bucket_bound(size_t index)
{
    assert(index < METRICS_BUCKET_COUNT - 1);
    if (index < 4) {
        return index + 1;
    }
    return (uint64_t)(index % 4 + 5) << (index / 4 - 1);
}

void metrics_observe(struct metrics_histogram *histogram, uint64_t value)
{
    metrics_add(&histogram->buckets[bucket_of(value)], 1);
    metrics_add(&histogram->sum, value);
}

uint64_t metrics_observed(const struct metrics_histogram *histogram)
{
    uint64_t count = 0;
    for (size_t index = 0; index < METRICS_BUCKET_COUNT; index++) {
        count += metrics_get(&histogram->buckets[index]);
    }
    return count;
}

uint64_t metrics_quantile(const struct metrics_histogram *histogram, uint32_t per_mille)
{
    assert(per_mille <= 1000);
    /* One reading serves both loops: values may come in between. */
    uint64_t buckets[METRICS_BUCKET_COUNT];
    uint64_t count = 0;
    for (size_t index = 0; index < METRICS_BUCKET_COUNT; index++) {
        buckets[index] = metrics_get(&histogram->buckets[index]);
        count += buckets[index];
    }
    if (count == 0) {
        return 0;
    }
    uint64_t wanted = count / 1000 * per_mille + (count % 1000 * per_mille + 999) / 1000;
    uint64_t seen = 0;
    for (size_t index = 0; index < METRICS_BUCKET_COUNT - 1; index++) {
        seen += buckets[index];
        if (seen > 0 && seen >= wanted) {
            return bucket_bound(index);
        }
    }
    return UINT64_MAX;
}

void metrics_count_status(struct metrics *metrics, int status)
{
    assert(status >= 100);
    size_t index = (size_t)status / 100 - 1;
    assert(index < sizeof metrics->http_requests_total / sizeof metrics->http_requests_total[0]);
    metrics_add(&metrics->http_requests_total[index], 1);
}

/* ---- the page ---------------------------------------------------------------------------------
 */

static void write_head(struct buf *out, const struct row *row)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
               kind_texts[row->kind]);
}

static void write_escaped(struct buf *out, struct span value)
{
    for (size_t i = 0; i < value.size; i++) {
        switch (value.data[i]) {
        case '\\':
            buf_append_text(out, "\\\\");
            break;
        case '"':
            buf_append_text(out, "\\\"");
            break;
        case '\n':
            buf_append_text(out, "\\n");
            break;
        default:
            buf_append_byte(out, value.data[i]);
            break;
        }
    }
}

static void write_labels(struct buf *out, const struct metrics_label *labels)
{
    if (labels == NULL || labels->name == NULL) {
        return;
    }
    buf_append_byte(out, '{');
    for (size_t i = 0; labels[i].name != NULL; i++) {
        buf_printf(out, "%s%s=\"", i == 0 ? "" : ",", labels[i].name);
        write_escaped(out, labels[i].value);
        buf_append_byte(out, '"');
    }
    buf_append_byte(out, '}');
}

/* A number of the histogram: as it is, or microseconds as seconds. */
static void write_measure(struct buf *out, const struct row *row, uint64_t value)
{
    if (row->kind == KIND_duration) {
        buf_printf(out, "%" PRIu64 ".%06" PRIu64, value / 1000000, value % 1000000);
    } else {
        buf_printf(out, "%" PRIu64, value);
    }
}

static void write_histogram(struct buf *out, const struct row *row,
                            const struct metrics_histogram *histogram)
{
    uint64_t count = 0;
    for (size_t index = 0; index < METRICS_BUCKET_COUNT - 1; index++) {
        count += metrics_get(&histogram->buckets[index]);
        uint64_t bound = bucket_bound(index);
        if ((bound & (bound - 1)) == 0) {
            buf_printf(out, "%s_bucket{le=\"", row->name);
            write_measure(out, row, bound);
            buf_printf(out, "\"} %" PRIu64 "\n", count);
        }
    }
    /* The count is what the buckets held, not a number of its own that might differ from them. */
    count += metrics_get(&histogram->buckets[METRICS_BUCKET_COUNT - 1]);
    buf_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum ", row->name, count, row->name);
    write_measure(out, row, metrics_get(&histogram->sum));
    buf_printf(out, "\n%s_count %" PRIu64 "\n", row->name, count);
}

static void write_row(struct buf *out, const struct row *row, const void *field)
{
    write_head(out, row);
    if (row->kind == KIND_histogram || row->kind == KIND_duration) {
        write_histogram(out, row, field);
        return;
    }
    const _Atomic uint64_t *numbers = field;
    if (row->label == NULL) {
        buf_printf(out, "%s %" PRIu64 "\n", row->name, metrics_get(&numbers[0]));
    }
    for (size_t i = 0; i < row->text_count; i++) {
        buf_printf(out, "%s{%s=\"%s\"} %" PRIu64 "\n", row->name, row->label, row->texts[i],
                   metrics_get(&numbers[i]));
    }
}

void metrics_write(struct buf *out, const struct metrics *metrics)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_row(out, &rows[i], (const char *)metrics + rows[i].offset);
    }
}

static const struct row *family_row(enum metrics_family family)
{
    size_t index = (size_t)family;
    assert(index < METRICS_FAMILY_COUNT);
    return &families[index];
}

void metrics_write_head(struct buf *out, enum metrics_family family)
{
    write_head(out, family_row(family));
}

void metrics_write_sample(struct buf *out, enum metrics_family family,
                          const struct metrics_label *labels, uint64_t value)
{
    buf_append_text(out, family_row(family)->name);
    write_labels(out, labels);
    buf_printf(out, " %" PRIu64 "\n", value);
}

void metrics_write_sample_ms(struct buf *out, enum metrics_family family,
                             const struct metrics_label *labels, uint64_t value_ms)
{
    buf_append_text(out, family_row(family)->name);
    write_labels(out, labels);
    buf_printf(out, " %" PRIu64 ".%03" PRIu64 "\n", value_ms / 1000, value_ms % 1000);
}
