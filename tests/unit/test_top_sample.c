/* Rates and order of flare top, from two looks made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tools/flare/top_sample.h"

static struct top_sample sample(uint64_t taken_us, const char *broker, const char *rows)
{
    json_error_t where;
    struct top_sample sample = {.taken_us = taken_us,
                                .broker = json_loads(broker, 0, &where),
                                .rows = json_loads(rows, 0, &where)};
    assert_non_null(sample.broker);
    assert_non_null(sample.rows);
    return sample;
}

#define ROW(topic, subscription, figures)                                                          \
    "\"" topic "/" subscription "\":{\"topic\":\"" topic "\",\"subscription\":\"" subscription     \
    "\"," figures "}"

/* A number of row `index`; -1 when it is not there. */
static json_int_t number(const json_t *rows, size_t index, const char *name)
{
    const json_t *value = json_object_get(json_array_get(rows, index), name);
    return value == NULL ? -1 : json_integer_value(value);
}

static void expect_order(const struct top_sample *now, const struct top_sample *before,
                         const char *sort, const char *order)
{
    char text[128] = "";
    json_t *rows = top_sample_rows(now, before, sort);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        size_t size = strlen(text);
        (void)snprintf(text + size, sizeof text - size, "%s/%s ",
                       json_string_value(json_object_get(row, "topic")),
                       json_string_value(json_object_get(row, "subscription")));
    }
    assert_string_equal(text, order);
    json_decref(rows);
}

/* Rates are what was counted between two looks, for a second: of published, delivered, and done,
 * which is what is neither enqueued, leased nor scheduled any more. */
static void test_rates_are_differences(void **state)
{
    (void)state;
    struct top_sample before =
        sample(1000000, "{\"published_total\":10,\"commits_total\":100}",
               "{" ROW("t", "s",
                       "\"published\":100,\"cursor\":40,\"enqueued\":60,\"leased\":10,"
                       "\"scheduled\":5") "}");
    struct top_sample now =
        sample(3000000, "{\"published_total\":31,\"commits_total\":90}",
               "{" ROW("t", "s",
                       "\"published\":300,\"cursor\":140,\"enqueued\":160,\"leased\":10,"
                       "\"scheduled\":25") "}");
    json_t *rows = top_sample_rows(&now, &before, "depth");
    assert_int_equal(number(rows, 0, "depth"), 195);
    assert_int_equal(number(rows, 0, "published_rate"), 100);
    assert_int_equal(number(rows, 0, "delivered_rate"), 50);
    assert_int_equal(number(rows, 0, "done_rate"), 40); /* 25 done, then 105 */
    json_decref(rows);
    json_t *broker = top_sample_broker(&now, &before);
    assert_int_equal(json_integer_value(json_object_get(broker, "published_rate")), 11);
    assert_null(json_object_get(broker, "commit_rate")); /* it has begun anew */
    json_decref(broker);
    top_sample_deinit(&before);
    top_sample_deinit(&now);
}

/* The first look has no rates, and neither has what was not there in the look before. */
static void test_what_is_new_has_no_rate(void **state)
{
    (void)state;
    struct top_sample before = sample(1000000, "{}", "{" ROW("t", "a", "\"published\":1") "}");
    struct top_sample now =
        sample(2000000, "{}",
               "{" ROW("t", "a", "\"published\":1") "," ROW("t", "b", "\"published\":1") "}");
    json_t *rows = top_sample_rows(&now, NULL, "name");
    assert_int_equal(number(rows, 0, "published_rate"), -1);
    json_decref(rows);
    rows = top_sample_rows(&now, &before, "name");
    assert_int_equal(number(rows, 0, "published_rate"), 0);
    assert_int_equal(number(rows, 1, "published_rate"), -1);
    assert_int_equal(number(rows, 1, "done_rate"), -1);
    json_decref(rows);
    top_sample_deinit(&before);
    top_sample_deinit(&now);
}

#define ROW_X "\"published\":9,\"enqueued\":1,\"dead\":3,\"oldest_ms\":5"
#define ROW_Y "\"published\":2,\"enqueued\":1,\"dead\":4,\"oldest_ms\":9"
#define ROW_Z "\"published\":2,\"leased\":7,\"dead\":1,\"oldest_ms\":7"
#define ROW_0 "\"published\":0"
#define ROWS(first, second, third) "{" first "," second "," third "}"

/* The greatest comes first; equals in order of name. */
static void test_rows_are_sorted(void **state)
{
    static const char rows_before[] =
        ROWS(ROW("b", "x", ROW_0), ROW("a", "y", ROW_0), ROW("a", "x", ROW_0));
    static const char rows_now[] =
        ROWS(ROW("b", "x", ROW_X), ROW("a", "y", ROW_Y), ROW("a", "x", ROW_Z));
    (void)state;
    struct top_sample before = sample(1000000, "{}", rows_before);
    struct top_sample now = sample(2000000, "{}", rows_now);
    expect_order(&now, &before, "depth", "a/x a/y b/x ");
    expect_order(&now, &before, "oldest", "a/y a/x b/x ");
    expect_order(&now, &before, "rate", "b/x a/x a/y ");
    expect_order(&now, &before, "dead", "a/y b/x a/x ");
    expect_order(&now, &before, "name", "a/x a/y b/x ");
    top_sample_deinit(&before);
    top_sample_deinit(&now);
    top_sample_deinit(&now);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates_are_differences),
        cmocka_unit_test(test_what_is_new_has_no_rate),
        cmocka_unit_test(test_rows_are_sorted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
