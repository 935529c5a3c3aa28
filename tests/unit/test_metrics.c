#define _GNU_SOURCE
#include "broker/metrics/metrics.h"

#include <ctype.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAGE_MAX = 1 << 20, NAME_SIZE = 128, FAMILY_MAX = 256 };

/* ---- a reader of the text format 0.0.4, strict where the format is
 * -------------------------------- */

/* What the page says, as a scraper would understand it. */
struct page {
    char family[NAME_SIZE]; /* the one its HELP and TYPE lines opened */
    char type[NAME_SIZE];
    char closed[FAMILY_MAX]
               [NAME_SIZE]; /* families that are over: their lines must be in one block */
    size_t closed_count;
    size_t sample_count;
    double last_bound; /* of the open histogram */
    double last_bucket;
    bool has_sum;
};

static const char *read_name(const char *at, char out[NAME_SIZE])
{
    size_t size = 0;
    assert_true(isalpha((unsigned char)*at) || *at == '_' || *at == ':');
    while (isalnum((unsigned char)at[size]) || at[size] == '_' || at[size] == ':') {
        assert_true(size + 1 < NAME_SIZE);
        out[size] = at[size];
        size++;
    }
    out[size] = '\0';
    return at + size;
}

static const char *expect_text(const char *at, const char *text)
{
    assert_memory_equal(at, text, strlen(text));
    return at + strlen(text);
}

/* {name="value",...}; the value of `le` goes to `bound`. */
static const char *read_labels(const char *at, double *bound)
{
    char name[NAME_SIZE];
    at = expect_text(at, "{");
    for (;;) {
        at = expect_text(read_name(at, name), "=\"");
        assert_null(strchr(name, ':'));
        if (strcmp(name, "le") == 0) {
            char *end = NULL;
            *bound = strtod(at, &end);
            assert_int_equal(*end, '"');
        }
        for (; *at != '"'; at++) {
            assert_int_not_equal(*at, '\0');
            assert_int_not_equal(*at, '\n');
            if (*at == '\\') {
                at++;
                assert_non_null(strchr("\\\"n", *at));
            }
        }
        at++;
        if (*at == '}') {
            return at + 1;
        }
        at = expect_text(at, ",");
    }
}

static void read_histogram_sample(struct page *page, const char *suffix, double bound, double value)
{
    if (strcmp(suffix, "_bucket") == 0) {
        assert_true(bound > page->last_bound);
        assert_true(value >= page->last_bucket);
        page->last_bound = bound;
        page->last_bucket = value;
    } else if (strcmp(suffix, "_sum") == 0) {
        page->has_sum = true;
    } else {
        assert_string_equal(suffix, "_count");
        assert_true(page->has_sum);
        assert_true(page->last_bound > 1e300); /* +Inf was the last bucket, and the count is its */
        assert_true(page->last_bucket >= value && page->last_bucket <= value);
    }
}

static void read_sample(struct page *page, const char *at)
{
    char name[NAME_SIZE];
    double bound = -1;
    at = read_name(at, name);
    if (*at == '{') {
        at = read_labels(at, &bound);
    }
    at = expect_text(at, " ");
    assert_false(isspace((unsigned char)*at));
    char *end = NULL;
    double value = strtod(at, &end);
    assert_int_equal(*end, '\0'); /* no time stamps */
    size_t size = strlen(page->family);
    assert_true(size > 0);
    assert_memory_equal(name, page->family, size);
    if (strcmp(page->type, "histogram") == 0) {
        read_histogram_sample(page, name + size, bound, value);
    } else {
        assert_string_equal(name, page->family);
    }
    page->sample_count++;
}

static void open_family(struct page *page, const char *name)
{
    for (size_t i = 0; i < page->closed_count; i++) {
        assert_string_not_equal(page->closed[i], name);
    }
    assert_true(page->closed_count < FAMILY_MAX);
    (void)snprintf(page->closed[page->closed_count++], NAME_SIZE, "%s", name);
    (void)snprintf(page->family, NAME_SIZE, "%s", name);
    page->type[0] = '\0';
    page->last_bound = -1;
    page->last_bucket = 0;
    page->has_sum = false;
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text);
    return size >= strlen(end) && strcmp(text + size - strlen(end), end) == 0;
}

/* The naming rules of Prometheus, as far as a program can judge them. */
static void check_name(const char *name, const char *type)
{
    (void)expect_text(name, "flare_");
    for (const char *at = name; *at != '\0'; at++) {
        assert_true(islower((unsigned char)*at) || isdigit((unsigned char)*at) || *at == '_');
    }
    assert_int_equal(ends_with(name, "_total"), strcmp(type, "counter") == 0);
    static const char *const wrong[] = {"_ms", "_us", "_milliseconds", "_count", "_sum", "_bucket"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(ends_with(name, wrong[i]));
    }
}

static void read_comment(struct page *page, const char *at)
{
    char name[NAME_SIZE];
    if (strncmp(at, "# HELP ", 7) == 0) {
        at = expect_text(read_name(at + 7, name), " ");
        open_family(page, name);
        assert_true(strlen(at) > 5);
        assert_null(strchr(at, '\\'));
        assert_int_equal(at[strlen(at) - 1], '.');
        return;
    }
    at = read_name(expect_text(at, "# TYPE "), name);
    assert_string_equal(name, page->family);
    assert_string_equal(page->type, "");
    at = read_name(expect_text(at, " "), page->type);
    assert_int_equal(*at, '\0');
    assert_true(strcmp(page->type, "counter") == 0 || strcmp(page->type, "gauge") == 0 ||
                strcmp(page->type, "histogram") == 0);
    check_name(name, page->type);
}

/* Reads all of it and returns how many samples there are; its lines stay in `text`, cut. */
static size_t read_page(struct buf *text)
{
    assert_false(text->failed);
    assert_true(text->size > 0);
    assert_int_equal(text->data[text->size - 1], '\n');
    struct page *page = calloc(1, sizeof *page);
    assert_non_null(page);
    for (char *line = (char *)text->data; line < (char *)text->data + text->size;) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        if (line[0] == '#') {
            read_comment(page, line);
        } else {
            assert_true(page->type[0] != '\0');
            read_sample(page, line);
        }
        line = end + 1;
    }
    size_t count = page->sample_count;
    free(page);
    return count;
}

/* ---- tests -------------------------------------------------------------------------------------
 */

/* Whether the page has that line, before read_page cuts it. */
static bool has_line(const struct buf *page, const char *line)
{
    char wanted[256];
    int size = snprintf(wanted, sizeof wanted, "\n%s\n", line);
    assert_true(size > 0 && (size_t)size < sizeof wanted);
    return memmem(page->data, page->size, wanted, (size_t)size) != NULL;
}

static void open_page(struct buf *page, const struct metrics *metrics)
{
    buf_init(page, PAGE_MAX);
    metrics_write(page, metrics);
    assert_false(page->failed);
}

/* Zeroed, every METRIC and SERIES row is on the page, once, with its type and by the grammar. */
static void test_empty_page(void **state)
{
    (void)state;
    static const struct metrics metrics;
    struct buf page;
    open_page(&page, &metrics);
#define METRIC(kind, name, help)                                                                   \
    assert_non_null(memmem(page.data, page.size, "# HELP flare_" #name " " help "\n",              \
                           strlen("# HELP flare_" #name " " help "\n")));
#define SERIES(kind, name, label, texts, help) METRIC(kind, name, help)
#include "broker/metrics/metrics.def"
    assert_true(has_line(&page, "flare_messages_published_total 0"));
    assert_true(has_line(&page, "flare_http_requests_total{status=\"5xx\"} 0"));
    assert_true(read_page(&page) > 50);
    buf_deinit(&page);
}

/* What was counted and set is what is shown; answers are counted by the class of their status. */
static void test_values(void **state)
{
    (void)state;
    struct metrics metrics;
    memset(&metrics, 0, sizeof metrics);
    metrics_add(&metrics.messages_published_total, 5);
    metrics_add(&metrics.messages_published_total, UINT32_MAX);
    metrics_set(&metrics.pulls_waiting, 9);
    metrics_set(&metrics.pulls_waiting, 3);
    static const int statuses[] = {100, 199, 200, 299, 204, 404, 599};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        metrics_count_status(&metrics, statuses[i]);
    }
    struct buf page;
    open_page(&page, &metrics);
    assert_true(has_line(&page, "flare_messages_published_total 4294967300"));
    assert_true(has_line(&page, "flare_pulls_waiting 3"));
    assert_true(has_line(&page, "flare_http_requests_total{status=\"1xx\"} 2"));
    assert_true(has_line(&page, "flare_http_requests_total{status=\"2xx\"} 3"));
    assert_true(has_line(&page, "flare_http_requests_total{status=\"3xx\"} 0"));
    assert_true(has_line(&page, "flare_http_requests_total{status=\"4xx\"} 1"));
    assert_true(has_line(&page, "flare_http_requests_total{status=\"5xx\"} 1"));
    (void)read_page(&page);
    buf_deinit(&page);
}

/* A value at a power of two is counted under it and one above is not; durations are in seconds. */
static void test_histogram_page(void **state)
{
    (void)state;
    struct metrics metrics;
    memset(&metrics, 0, sizeof metrics);
    metrics_observe(&metrics.commit_duration_seconds, 1024);
    metrics_observe(&metrics.commit_duration_seconds, 1025);
    metrics_observe(&metrics.commit_duration_seconds, UINT32_MAX);
    metrics_observe(&metrics.commit_commands, 0);
    metrics_observe(&metrics.commit_commands, 1);
    metrics_observe(&metrics.commit_commands, 64);
    struct buf page;
    open_page(&page, &metrics);
    static const char *const lines[] = {
        "flare_commit_duration_seconds_bucket{le=\"0.000512\"} 0",
        "flare_commit_duration_seconds_bucket{le=\"0.001024\"} 1",
        "flare_commit_duration_seconds_bucket{le=\"0.002048\"} 2",
        "flare_commit_duration_seconds_bucket{le=\"67.108864\"} 2",
        "flare_commit_duration_seconds_bucket{le=\"+Inf\"} 3",
        "flare_commit_duration_seconds_sum 4294.969344",
        "flare_commit_duration_seconds_count 3",
        "flare_commit_commands_bucket{le=\"1\"} 2",
        "flare_commit_commands_bucket{le=\"32\"} 2",
        "flare_commit_commands_bucket{le=\"64\"} 3",
        "flare_commit_commands_sum 65",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (!has_line(&page, lines[i])) {
            fail_msg("missing: %s", lines[i]);
        }
    }
    (void)read_page(&page);
    buf_deinit(&page);
}

/* A quantile is never below the value it stands for, and at most a quarter above it. */
static void test_quantile_is_close(void **state)
{
    (void)state;
    for (uint64_t value = 1; value <= (uint64_t)1 << METRICS_POWER_MAX; value += value / 37 + 1) {
        struct metrics_histogram histogram;
        memset(&histogram, 0, sizeof histogram);
        metrics_observe(&histogram, value);
        uint64_t bound = metrics_quantile(&histogram, 500);
        assert_true(bound >= value);
        assert_true(bound <= value + value / 4 + 1);
        assert_int_equal(metrics_quantile(&histogram, 0), bound);
        assert_int_equal(metrics_quantile(&histogram, 1000), bound);
    }
}

/* The bounds of the table itself: the last known value, and the first that is only "more". */
static void test_last_bucket(void **state)
{
    (void)state;
    static const struct {
        uint64_t value;
        uint64_t bound;
    } cases[] = {
        {0, 1},
        {1, 1},
        {2, 2},
        {4, 4},
        {5, 5},
        {((uint64_t)1 << 26) - 1, (uint64_t)1 << 26},
        {(uint64_t)1 << 26, (uint64_t)1 << 26},
        {((uint64_t)1 << 26) + 1, UINT64_MAX},
        {UINT64_MAX, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct metrics_histogram histogram;
        memset(&histogram, 0, sizeof histogram);
        assert_int_equal(metrics_quantile(&histogram, 990), 0);
        metrics_observe(&histogram, cases[i].value);
        assert_int_equal(metrics_quantile(&histogram, 990), cases[i].bound);
    }
}

/* Quantiles count: of a thousand values, 990 per mille is at or above the 990th and no further. */
static void test_quantile_counts(void **state)
{
    (void)state;
    struct metrics_histogram histogram;
    memset(&histogram, 0, sizeof histogram);
    for (int i = 0; i < 990; i++) {
        metrics_observe(&histogram, 16);
    }
    for (int i = 0; i < 10; i++) {
        metrics_observe(&histogram, 4096);
    }
    assert_int_equal(metrics_observed(&histogram), 1000);
    assert_int_equal(metrics_quantile(&histogram, 500), 16);
    assert_int_equal(metrics_quantile(&histogram, 990), 16);
    assert_int_equal(metrics_quantile(&histogram, 991), 4096);
}

/* Families are written by whoever knows them: one head, then samples with any label value escaped.
 */
static void test_families(void **state)
{
    (void)state;
    struct buf page;
    buf_init(&page, PAGE_MAX);
    metrics_write_head(&page, METRICS_start_time_seconds);
    metrics_write_sample_ms(&page, METRICS_start_time_seconds, NULL, 1767323045007);
    metrics_write_head(&page, METRICS_subscription_backlog_messages);
    static const char *const topics[] = {"orders", "a\"b", "a\\b", "a\nb", "", "\xc3\xa9}"};
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        const struct metrics_label labels[] = {{"topic", span_text(topics[i])},
                                               {"subscription", span_text("billing")},
                                               {NULL, span_of(NULL, 0)}};
        metrics_write_sample(&page, METRICS_subscription_backlog_messages, labels, UINT64_MAX);
    }
    metrics_write_head(&page, METRICS_subscription_oldest_unacknowledged_age_seconds);
    assert_true(has_line(&page, "flare_start_time_seconds 1767323045.007"));
    static const char *const escaped[] = {"orders", "a\\\"b", "a\\\\b", "a\\nb", "", "\xc3\xa9}"};
    for (size_t i = 0; i < sizeof escaped / sizeof escaped[0]; i++) {
        char line[256];
        (void)snprintf(line, sizeof line,
                       "flare_subscription_backlog_messages{topic=\"%s\",subscription=\"billing\"} "
                       "18446744073709551615",
                       escaped[i]);
        assert_true(has_line(&page, line));
    }
    assert_int_equal(read_page(&page), 7);
    buf_deinit(&page);
}

/* Every family can follow the fixed rows on one page, and no name is used twice. */
static void test_whole_page(void **state)
{
    (void)state;
    static const struct metrics metrics;
    struct buf page;
    open_page(&page, &metrics);
    const struct metrics_label labels[] = {{"volume", span_text("volume-0")},
                                           {NULL, span_of(NULL, 0)}};
    for (int family = 0; family < METRICS_FAMILY_COUNT; family++) {
        metrics_write_head(&page, (enum metrics_family)family);
        metrics_write_sample(&page, (enum metrics_family)family, labels, 1);
    }
    (void)read_page(&page);
    buf_deinit(&page);
}

enum { THREAD_COUNT = 3, ROUND_COUNT = 20000 };

static void *count_up(void *context)
{
    struct metrics *metrics = context;
    for (uint64_t i = 0; i < ROUND_COUNT; i++) {
        metrics_add(&metrics->messages_delivered_total, 2);
        metrics_observe(&metrics->flush_duration_seconds, i);
    }
    return NULL;
}

/* Threads that count at once lose nothing. */
static void test_threads(void **state)
{
    (void)state;
    static struct metrics metrics;
    pthread_t threads[THREAD_COUNT];
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &metrics), 0);
    }
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(metrics_get(&metrics.messages_delivered_total),
                     2 * THREAD_COUNT * ROUND_COUNT);
    assert_int_equal(metrics_observed(&metrics.flush_duration_seconds), THREAD_COUNT * ROUND_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_page),     cmocka_unit_test(test_values),
        cmocka_unit_test(test_histogram_page), cmocka_unit_test(test_quantile_is_close),
        cmocka_unit_test(test_last_bucket),    cmocka_unit_test(test_quantile_counts),
        cmocka_unit_test(test_families),       cmocka_unit_test(test_whole_page),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
