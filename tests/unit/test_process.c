#include "tests/lib/process.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/tmpdir.h"

enum { DEADLINE_MS = 30000, LINE_SIZE = 128 };

static void start(struct process *process, const char *script, const char *error_path)
{
    const char *const arguments[] = {"sh", "-c", script, NULL};
    const char *const environment[] = {"FLARE_PROCESS_TEST=here", NULL};
    process_start(process, &(struct process_options){.arguments = arguments,
                                                     .environment = environment,
                                                     .error_path = error_path});
}

/* Lines arrive one by one, the last also without a newline, then there is none. */
static void test_reads_lines(void **state)
{
    struct process *process = *state;
    char line[LINE_SIZE];
    start(process, "echo one; echo $FLARE_PROCESS_TEST; echo; printf end", NULL);
    static const char *const expected[] = {"one", "here", "", "end"};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_true(process_read_line(process, line, sizeof line, DEADLINE_MS));
        assert_string_equal(line, expected[i]);
    }
    assert_false(process_read_line(process, line, sizeof line, DEADLINE_MS));
    assert_int_equal(process_wait(process, DEADLINE_MS), 0);
}

/* A line that does not come makes the wait end at its deadline, with the process left alone. */
static void test_waits_no_longer_than_told(void **state)
{
    struct process *process = *state;
    char line[LINE_SIZE];
    start(process, "echo ready; read word; echo got $word; exit 3", NULL);
    assert_true(process_wait_line(process, "read", line, sizeof line, DEADLINE_MS));
    assert_false(process_read_line(process, line, sizeof line, 1));
    assert_int_equal(process_wait(process, 1), -1);
    assert_true(process_write(process, "it\n", 3));
    assert_true(process_wait_line(process, "got", line, sizeof line, DEADLINE_MS));
    assert_string_equal(line, "got it");
    assert_int_equal(process_wait(process, DEADLINE_MS), 3);
}

/* A signal ends it, and its status says which. */
static void test_reports_the_signal(void **state)
{
    struct process *process = *state;
    char line[LINE_SIZE];
    start(process, "echo ready; exec cat", NULL);
    assert_true(process_read_line(process, line, sizeof line, DEADLINE_MS));
    process_signal(process, SIGTERM);
    assert_int_equal(process_wait(process, DEADLINE_MS), 128 + SIGTERM);
}

/* Stopping kills a program that would run for ever, and may be repeated. */
static void test_stop_kills(void **state)
{
    struct process *process = *state;
    start(process, "exec cat", NULL);
    process_stop(process);
    assert_int_equal(process_wait(process, 0), 128 + SIGKILL);
    process_stop(process);
}

/* A program that does not exist exits with 127, and says so where its errors go. */
static void test_missing_program(void **state)
{
    struct process *process = *state;
    struct tmpdir directory;
    tmpdir_init(&directory);
    char path[TMPDIR_PATH_SIZE];
    const char *const arguments[] = {"/no/such/program", NULL};
    process_start(process,
                  &(struct process_options){.arguments = arguments,
                                            .error_path = tmpdir_file(&directory, "errors", path)});
    assert_int_equal(process_wait(process, DEADLINE_MS), 127);
    const char *const cat[] = {"cat", path, NULL};
    struct process reader;
    process_start(&reader, &(struct process_options){.arguments = cat});
    char line[LINE_SIZE];
    bool found = process_wait_line(&reader, "/no/such/program", line, sizeof line, DEADLINE_MS);
    process_stop(&reader);
    tmpdir_deinit(&directory);
    assert_true(found);
}

static int setup(void **state)
{
    static struct process process;
    memset(&process, 0, sizeof process);
    *state = &process;
    return 0;
}

static int teardown(void **state)
{
    process_stop(*state);
    return 0;
}

int main(void)
{
#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_reads_lines), CASE(test_waits_no_longer_than_told), CASE(test_reports_the_signal),
        CASE(test_stop_kills),  CASE(test_missing_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
