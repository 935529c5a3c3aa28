/* Paths, query parameters and percent-decoding. */
#include "broker/http/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { TEST_ARENA_SIZE = 4096 };

static void assert_span(struct span actual, const char *expected)
{
    assert_int_equal(actual.size, strlen(expected));
    if (actual.size > 0) {
        assert_memory_equal(actual.data, expected, actual.size);
    }
}

/* A path has as many segments as slashes, and a segment is what stands between two. */
static void test_path_segments(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t count;
        const char *segments[4];
    } cases[] = {
        {"", 0, {NULL}},
        {"/", 1, {""}},
        {"/a", 1, {"a"}},
        {"/a/", 2, {"a", ""}},
        {"/v1/topics/orders", 3, {"v1", "topics", "orders"}},
        {"//", 2, {"", ""}},
        {"/a%2Fb/c", 2, {"a%2Fb", "c"}},
        {"*", 0, {NULL}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct span path = span_text(cases[i].path);
        struct span segment;
        assert_int_equal(http_path_count(path), cases[i].count);
        for (size_t j = 0; j < cases[i].count; j++) {
            assert_true(http_path_segment(path, j, &segment));
            assert_span(segment, cases[i].segments[j]);
        }
        assert_false(http_path_segment(path, cases[i].count, &segment));
    }
}

/* An escape is a percent sign and two digits, and gives any byte but NUL; a plus sign is a space in
 * queries only. */
static void test_decoding(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *as_path; /* NULL: refused */
        const char *as_query;
    } cases[] = {
        {"", "", ""},
        {"plain", "plain", "plain"},
        {"a%20b", "a b", "a b"},
        {"a+b", "a+b", "a b"},
        {"%2f%2F", "//", "//"},
        {"%41", "A", "A"},
        {"%ff", "\xff", "\xff"},
        {"%2541", "%41", "%41"},
        {"%01", "\x01", "\x01"},
        {"%00", NULL, NULL},
        {"a%00b", NULL, NULL},
        {"%", NULL, NULL},
        {"%4", NULL, NULL},
        {"a%4", NULL, NULL},
        {"%4g", NULL, NULL},
        {"%g4", NULL, NULL},
        {"%%41", NULL, NULL},
        {"%+1", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, TEST_ARENA_SIZE, 0);
        struct span text = span_text(cases[i].text);
        struct span out = span_text("untouched");
        assert_int_equal(http_percent_decode(&arena, text, &out), cases[i].as_path != NULL);
        assert_span(out, cases[i].as_path != NULL ? cases[i].as_path : "untouched");
        out = span_text("untouched");
        assert_int_equal(http_query_decode(&arena, text, &out), cases[i].as_query != NULL);
        assert_span(out, cases[i].as_query != NULL ? cases[i].as_query : "untouched");
        arena_deinit(&arena);
    }
}

/* What needs no decoding is not copied, so it fits even an arena that is full. */
static void test_plain_text_is_not_copied(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 0, 0);
    struct span text = span_text("orders");
    struct span out;
    assert_true(http_percent_decode(&arena, text, &out));
    assert_ptr_equal(out.data, text.data);
    assert_false(http_percent_decode(&arena, span_text("%41"), &out));
    arena_deinit(&arena);
}

/* A parameter is found by its decoded name, and one given twice is refused rather than chosen from.
 */
static void test_query_get(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        enum http_query result;
        const char *value;
    } cases[] = {
        {"", HTTP_QUERY_ABSENT, NULL},
        {"limit=30", HTTP_QUERY_FOUND, "30"},
        {"a=b&limit=30&c", HTTP_QUERY_FOUND, "30"},
        {"limit", HTTP_QUERY_FOUND, ""},
        {"limit=", HTTP_QUERY_FOUND, ""},
        {"limit=a=b", HTTP_QUERY_FOUND, "a=b"},
        {"limit=a%26b+c", HTTP_QUERY_FOUND, "a&b c"},
        {"%6cimit=1", HTTP_QUERY_FOUND, "1"},
        {"&&limit=1&&", HTTP_QUERY_FOUND, "1"},
        {"Limit=1", HTTP_QUERY_ABSENT, NULL},
        {"limits=1", HTTP_QUERY_ABSENT, NULL},
        {"=1", HTTP_QUERY_ABSENT, NULL},
        {"limit=1&limit=1", HTTP_QUERY_BAD, NULL},
        {"limit=%zz", HTTP_QUERY_BAD, NULL},
        {"%zz=1&limit=1", HTTP_QUERY_BAD, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena, TEST_ARENA_SIZE, 0);
        struct span value = span_text("untouched");
        enum http_query result = http_query_get(&arena, span_text(cases[i].query), "limit", &value);
        assert_int_equal(result, cases[i].result);
        assert_span(value, cases[i].value != NULL ? cases[i].value : "untouched");
        arena_deinit(&arena);
    }
}

/* Walking a query gives every parameter once, in order. */
static void test_query_next(void **state)
{
    (void)state;
    struct span rest = span_text("a=1&&b&c=x%20y");
    struct span name;
    struct span value;
    assert_true(http_query_next(&rest, &name, &value));
    assert_span(name, "a");
    assert_span(value, "1");
    assert_true(http_query_next(&rest, &name, &value));
    assert_span(name, "b");
    assert_span(value, "");
    assert_true(http_query_next(&rest, &name, &value));
    assert_span(name, "c");
    assert_span(value, "x%20y");
    assert_false(http_query_next(&rest, &name, &value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path_segments),
        cmocka_unit_test(test_decoding),
        cmocka_unit_test(test_plain_text_is_not_copied),
        cmocka_unit_test(test_query_get),
        cmocka_unit_test(test_query_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
