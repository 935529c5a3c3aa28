#define _GNU_SOURCE /* of load.c */
/* What the load generator's figures rest on: its histogram and its framing of replies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>

/* The tool is a program, not a library: its test compiles the files it is about. */
#include "tools/flare/load.c"
#include "tools/flare/progress.c"

/* Quantiles are exact for small values and never more than 1/32 above the true one for large ones.
 */
static void test_quantiles_are_within_three_percent(void **state)
{
    static const double fractions[] = {0, 0.5, 0.9, 0.99, 0.999};
    struct histogram *histogram = calloc(1, sizeof *histogram);
    (void)state;
    assert_non_null(histogram);
    for (uint64_t value = 1; value <= 1000000; value++) {
        histogram_add(histogram, value);
    }
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        uint64_t exact = (uint64_t)(fractions[i] * 1000000) + 1;
        uint64_t found = histogram_quantile(histogram, fractions[i]);
        assert_in_range(found, exact, exact + exact / 32);
    }
    assert_int_equal(histogram->max, 1000000);
    assert_int_equal(histogram_quantile(histogram, 1), 1000000);
    free(histogram);
}

/* Merging gives what adding all values to one would have given; the greatest values have their
 * buckets. */
static void test_merging_adds_counts(void **state)
{
    struct histogram *parts = calloc(3, sizeof *parts);
    (void)state;
    assert_non_null(parts);
    for (uint64_t value = 0; value < 2000; value++) {
        histogram_add(&parts[value % 2], value * value);
        histogram_add(&parts[2], value * value);
    }
    histogram_add(&parts[0], UINT64_MAX);
    histogram_add(&parts[2], UINT64_MAX);
    histogram_merge(&parts[0], &parts[1]);
    assert_memory_equal(&parts[0], &parts[2], sizeof parts[0]);
    free(parts);
}

struct frame_case {
    int64_t (*frame)(struct span bytes);
    const char *reply;
};

static const struct frame_case frame_rows[] = {
    {load_frame_http, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nDate: x\r\n\r\n{}"},
    {load_frame_http, "HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n"},
    {load_frame_http, "HTTP/1.1 204 No Content\r\n\r\n"},
    {load_frame_resp, "+OK\r\n"},
    {load_frame_resp, "$3\r\na\r\n\r\n"},
    {load_frame_resp, "$-1\r\n"},
    {load_frame_resp, "*-1\r\n"},
    {load_frame_resp, "*0\r\n"},
    {load_frame_resp, "*2\r\n*2\r\n:1\r\n$2\r\nab\r\n$0\r\n\r\n"},
};

/* A reply is found when its last byte is there and not before, whatever follows it. */
static void test_a_frame_ends_with_its_last_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof frame_rows / sizeof frame_rows[0]; i++) {
        const struct frame_case *row = &frame_rows[i];
        size_t size = strlen(row->reply);
        for (size_t part = 0; part < size; part++) {
            uint8_t *copy =
                malloc(part + 1); /* no byte more, so that a sanitizer sees an overrun */
            assert_non_null(copy);
            memcpy(copy, row->reply, part);
            assert_int_equal(row->frame(span_of(copy, part)), 0);
            free(copy);
        }
        char followed[128];
        (void)snprintf(followed, sizeof followed, "%s%s", row->reply, row->reply);
        assert_int_equal(row->frame(span_text(followed)), size);
    }
}

/* What is no reply of the protocol is told apart from one that is not complete. */
static void test_other_protocols_are_refused(void **state)
{
    (void)state;
    assert_int_equal(load_frame_http(span_text("HTTP/1.1 200 OK\r\n\r\n")), LOAD_FRAME_BAD);
    assert_int_equal(
        load_frame_http(span_text("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")),
        LOAD_FRAME_BAD);
    assert_int_equal(load_frame_resp(span_text("HTTP/1.1 200 OK\r\n")), LOAD_FRAME_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles_are_within_three_percent),
        cmocka_unit_test(test_merging_adds_counts),
        cmocka_unit_test(test_a_frame_ends_with_its_last_byte),
        cmocka_unit_test(test_other_protocols_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
