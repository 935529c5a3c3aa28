#define _GNU_SOURCE /* pipe2 */
/* What a long command says of itself: the line, and when it is drawn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/flare/progress.h"

/* ---- the line ---- */

struct line_case {
    uint64_t total;
    enum progress_unit unit;
    uint64_t done;
    uint64_t items;
    uint64_t elapsed_us;
    size_t columns;
    const char *line;
};

/* Percent, rate and time left for a known total; without one, what is known. A total that was
 * guessed too small is not passed. */
static void test_the_line_says_how_far_how_fast_and_how_long(void **state)
{
    static const struct line_case rows[] = {
        {1000, PROGRESS_COUNT, 250, 250, 1000000, 80,
         "working [######------------------]  25 %  250  250/s  3 s left"},
        {1000, PROGRESS_COUNT, 250, 250, 1000000, 78,
         "working [######------------------]  25 %  250  250/s  3 s left"},
        {1000, PROGRESS_COUNT, 250, 250, 1000000, 77, "working  25 %  250  250/s  3 s left"},
        {4096, PROGRESS_BYTES, 2048, 2048, 2000000, 80,
         "working [############------------]  50 %  2.0 KiB  1.0 KiB/s  2 s left"},
        {4096, PROGRESS_BYTES, 1024, 20000, 1000000, 80,
         "working [######------------------]  25 %  20,000  20,000/s  3 s left"},
        {1000, PROGRESS_COUNT, 999, 999, 1000000, 80,
         "working [#######################-]  99 %  999  999/s  1 s left"},
        {1000, PROGRESS_COUNT, 1000, 1000, 1000000, 80,
         "working [########################] 100 %  1,000  1,000/s"},
        {1000, PROGRESS_COUNT, 2000, 2000, 1000000, 80,
         "working [########################] 100 %  2,000  2,000/s"},
        {1000, PROGRESS_COUNT, 1, 1, 4000000, 80,
         "working [------------------------]   0 %  1  0/s  1 h 6 min left"},
        {0, PROGRESS_COUNT, 5, 5, 1000000, 80, "working  5  5/s"},
        {0, PROGRESS_COUNT, 5, 5, 0, 80, "working  5"},
        {0, PROGRESS_COUNT, 0, 0, 3900000, 80, "working  3 s"},
        {UINT64_MAX, PROGRESS_COUNT, UINT64_MAX / 2, 1, 1000000, 60,
         "working  50 %  1  1/s  1 s left"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct line_case *row = &rows[i];
        struct progress progress = {.total = row->total, .unit = row->unit, .deed = "working"};
        struct buf line;
        buf_init(&line, PROGRESS_LINE_MAX);
        progress_line(&progress, row->done, row->items, row->elapsed_us, row->columns, &line);
        buf_append_byte(&line, '\0');
        assert_false(line.failed);
        assert_string_equal((const char *)line.data, row->line);
        buf_deinit(&line);
    }
}

/* ---- drawing ---- */

struct capture {
    int saved; /* standard error meanwhile */
    int reading;
};

static void capture_start(struct capture *capture)
{
    int ends[2];
    (void)fflush(stderr);
    assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    capture->saved = dup(STDERR_FILENO);
    assert_true(capture->saved >= 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    (void)close(ends[1]);
    capture->reading = ends[0];
}

static void capture_stop(struct capture *capture, char *out, size_t size)
{
    (void)fflush(stderr);
    ssize_t got = read(capture->reading, out, size - 1);
    out[got < 0 ? 0 : got] = '\0';
    assert_true(dup2(capture->saved, STDERR_FILENO) >= 0);
    (void)close(capture->saved);
    (void)close(capture->reading);
}

/* Two seconds of silence, then the line, then not again at once; at the end it is taken away. */
static void test_short_commands_are_silent(void **state)
{
    struct capture capture;
    struct progress progress;
    char text[512];
    (void)state;
    capture_start(&capture);
    progress_init(&progress, false);
    assert_false(progress.enabled); /* a pipe is no terminal */
    progress.enabled = true;
    progress_begin(&progress, "working", 100);
    progress_step(&progress, 10);
    progress_step(NULL, 10);
    assert_false(progress.drawn);
    progress.started_us -= 2000000;
    progress.printed_us -= 2000000;
    progress.begun_us -= 2000000;
    progress_step(&progress, 50);
    assert_true(progress.drawn);
    progress_step(&progress, 99);
    progress_done(&progress);
    progress_done(&progress);
    capture_stop(&capture, text, sizeof text);
    static const char begin[] = "\r\033[Kworking [############------------]  50 %  50  ";
    assert_int_equal(strncmp(text, begin, sizeof begin - 1), 0);
    assert_null(strstr(text, "99"));
    const char *end = strstr(text, " left");
    assert_non_null(end);
    assert_string_equal(end, " left\r\033[K");
}

/* Without a terminal, and with --quiet, nothing is ever drawn. */
static void test_without_a_terminal_there_is_silence(void **state)
{
    struct capture capture;
    char text[512];
    (void)state;
    capture_start(&capture);
    for (int quiet = 0; quiet < 2; quiet++) {
        struct progress progress;
        progress_init(&progress, quiet != 0);
        progress.silent_us = 0;
        progress.printed_us -= 2000000;
        progress_begin(&progress, "working", 100);
        progress_step_items(&progress, 50, 5);
        progress_done(&progress);
    }
    capture_stop(&capture, text, sizeof text);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_line_says_how_far_how_fast_and_how_long),
        cmocka_unit_test(test_short_commands_are_silent),
        cmocka_unit_test(test_without_a_terminal_there_is_silence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
