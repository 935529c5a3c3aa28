#define _GNU_SOURCE /* pipe2 */
/* Lines as they come out of a pipe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/flare/lines.h"

struct feed {
    int writing;
    int reading;
    struct lines lines;
};

static int feed_open(void **state)
{
    struct feed *feed = calloc(1, sizeof *feed);
    int ends[2];
    assert_non_null(feed);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    feed->reading = ends[0];
    feed->writing = ends[1];
    lines_init(&feed->lines, feed->reading);
    *state = feed;
    return 0;
}

static int feed_close(void **state)
{
    struct feed *feed = *state;
    lines_deinit(&feed->lines);
    (void)close(feed->reading);
    if (feed->writing >= 0) {
        (void)close(feed->writing);
    }
    free(feed);
    return 0;
}

static void feed_write(const struct feed *feed, const char *text)
{
    assert_int_equal(write(feed->writing, text, strlen(text)), strlen(text));
}

static void feed_end(struct feed *feed)
{
    (void)close(feed->writing);
    feed->writing = -1;
}

static void expect_line(struct feed *feed, const char *text)
{
    struct span line;
    bool found = false;
    assert_null(lines_next(&feed->lines, &line, &found));
    assert_true(found);
    assert_true(span_is(line, text));
}

static void expect_end(struct feed *feed)
{
    struct span line;
    bool found = true;
    assert_false(lines_would_wait(&feed->lines));
    assert_null(lines_next(&feed->lines, &line, &found));
    assert_false(found);
}

/* Each line comes without its end, empty ones too, and a last one that has none. */
static void test_lines_are_divided_at_their_ends(void **state)
{
    struct feed *feed = *state;
    feed_write(feed, "one\n\ntwo \r\n\nlast");
    feed_end(feed);
    expect_line(feed, "one");
    expect_line(feed, "");
    assert_int_equal(feed->lines.read, 5);
    expect_line(feed, "two \r");
    expect_line(feed, "");
    expect_line(feed, "last");
    assert_int_equal(feed->lines.read, 16);
    expect_end(feed);
    expect_end(feed);
}

/* Nothing is no line, and an end at the very end begins none. */
static void test_nothing_is_no_line(void **state)
{
    struct feed *feed = *state;
    feed_write(feed, "\n");
    feed_end(feed);
    expect_line(feed, "");
    expect_end(feed);
}

/* It says when the next line would have to be waited for: not while one is there, whole, in the
 * pipe or read already, nor at the end. */
static void test_it_says_when_it_would_wait(void **state)
{
    struct feed *feed = *state;
    assert_true(lines_would_wait(&feed->lines));
    feed_write(feed, "one\ntwo\nth");
    assert_false(lines_would_wait(&feed->lines));
    expect_line(feed, "one");
    assert_false(lines_would_wait(&feed->lines));
    expect_line(feed, "two");
    assert_true(lines_would_wait(&feed->lines)); /* a part is no line */
    feed_write(feed, "ree\n");
    assert_false(lines_would_wait(&feed->lines));
    expect_line(feed, "three");
    assert_true(lines_would_wait(&feed->lines));
    feed_end(feed);
    expect_end(feed);
}

/* A line longer than any buffer grows it. */
static void test_long_lines_are_whole(void **state)
{
    struct feed *feed = *state;
    enum { PIECE = 32768, PIECES = 40 };
    static char piece[PIECE + 1];
    struct span line;
    bool found = false;
    memset(piece, 'x', PIECE);
    pid_t writer = fork(); /* a pipe holds less than that */
    assert_true(writer >= 0);
    if (writer == 0) {
        for (int i = 0; i < PIECES; i++) {
            feed_write(feed, piece);
        }
        feed_write(feed, "\nnext\n");
        _exit(0);
    }
    assert_null(lines_next(&feed->lines, &line, &found));
    assert_true(found);
    assert_int_equal(line.size, PIECE * PIECES);
    assert_int_equal(line.data[line.size - 1], 'x');
    expect_line(feed, "next");
}

/* What cannot be read is an error. */
static void test_failures_are_reported(void **state)
{
    struct lines lines;
    struct span line;
    bool found = false;
    int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)state;
    lines_init(&lines, directory);
    err_t err = lines_next(&lines, &line, &found);
    assert_int_equal(err_code(err), ERR_IO);
    err_free(err);
    lines_deinit(&lines);
    (void)close(directory);
}

int main(void)
{
#define FEED_TEST(name) cmocka_unit_test_setup_teardown(name, feed_open, feed_close)
    const struct CMUnitTest tests[] = {
        FEED_TEST(test_lines_are_divided_at_their_ends), FEED_TEST(test_nothing_is_no_line),
        FEED_TEST(test_it_says_when_it_would_wait),      FEED_TEST(test_long_lines_are_whole),
        cmocka_unit_test(test_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
