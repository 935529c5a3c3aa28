/* Where the command-line tool takes its settings from, and the contexts it keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/cli.h"
#include "tests/lib/tmpdir.h"

enum { VARIABLES_MAX = 6, TEXT_MAX = 1024 };

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A directory of its own for the contexts of each test. */
struct home {
    struct tmpdir tmpdir;
    char variable[TMPDIR_PATH_SIZE + 32];
};

static int home_init(void **state)
{
    struct home *home = calloc(1, sizeof *home);
    assert_non_null(home);
    tmpdir_init(&home->tmpdir);
    (void)snprintf(home->variable, sizeof home->variable, "XDG_CONFIG_HOME=%s", home->tmpdir.path);
    *state = home;
    return 0;
}

static int home_deinit(void **state)
{
    struct home *home = *state;
    tmpdir_deinit(&home->tmpdir);
    free(home);
    return 0;
}

/* Runs the tool with the contexts of `home` and further variables. */
static struct cli_outcome run(const struct home *home, const char *const *words,
                              const char *const *variables)
{
    struct cli_outcome outcome;
    const char *environment[VARIABLES_MAX + 8] = {
        home->variable,   "FLARE_URL=",    "FLARE_WIRE=",     "FLARE_CONTEXT=",
        "FLARE_TIMEOUT=", "FLARE_FORMAT=", "FLARE_TRANSPORT="};
    for (size_t i = 0; variables != NULL && variables[i] != NULL; i++) {
        assert_true(i < VARIABLES_MAX);
        environment[7 + i] = variables[i];
    }
    cli_run_with(&(struct cli_options){.words = words, .environment = environment}, &outcome);
    return outcome;
}

static void expect_exit(const struct home *home, const char *const *words,
                        const char *const *variables, int exit_code, const char *err)
{
    struct cli_outcome outcome = run(home, words, variables);
    if (outcome.exit_code != exit_code) {
        fail_msg("flare %s %s exits with %d: %s", words[0], words[1], outcome.exit_code,
                 outcome.err);
    }
    if (err != NULL && strstr(outcome.err, err) == NULL) {
        fail_msg("'%s' is not in '%s'", err, outcome.err);
    }
    cli_outcome_deinit(&outcome);
}

static void keep(const struct home *home, const char *const *words)
{
    expect_exit(home, words, NULL, 0, NULL);
}

/* A line of `flare ctx show --plain`: "url\thttp://x\t--url\tFLARE_URL\n". */
static void expect_setting(const struct home *home, const char *const *words,
                           const char *const *variables, const char *line)
{
    struct cli_outcome outcome = run(home, words, variables);
    if (outcome.exit_code != 0 || strstr(cli_out(&outcome), line) == NULL) {
        fail_msg("'%s' is not in '%s' (%s)", line, cli_out(&outcome), outcome.err);
    }
    cli_outcome_deinit(&outcome);
}

/* ---- precedence ---- */

/* Flag before environment before context before default, each setting by itself. */
static void test_a_flag_beats_the_environment_beats_a_context_beats_the_default(void **state)
{
    const struct home *home = *state;
    static const struct {
        const char *words[9];
        const char *variables[4];
        const char *line;
    } rows[] = {
        {{"ctx", "show", "--plain", "--context", ""},
         {NULL},
         "url\thttp://127.0.0.1:8080\tthe default\t"},
        {{"ctx", "show", "--plain"}, {NULL}, "url\thttp://kept\tcontext a\t"},
        {{"ctx", "show", "--plain"}, {"FLARE_URL=http://env"}, "url\thttp://env\tFLARE_URL\t"},
        {{"ctx", "show", "--plain", "--url", "http://flag"},
         {"FLARE_URL=http://env"},
         "url\thttp://flag\t--url\t"},
        {{"ctx", "show", "--plain"}, {NULL}, "timeout\t1m\tcontext a\t"},
        {{"ctx", "show", "--plain"}, {"FLARE_TIMEOUT=2s"}, "timeout\t2s\tFLARE_TIMEOUT\t"},
        {{"ctx", "show", "--plain", "--timeout", "3s"},
         {"FLARE_TIMEOUT=2s"},
         "timeout\t3s\t--timeout\t"},
        {{"ctx", "show", "--plain"}, {NULL}, "transport\thttp\tcontext a\t"},
        {{"ctx", "show", "--plain", "--wire", "h:1"}, {NULL}, "transport\twire\t--wire\t"},
        {{"ctx", "show", "--plain", "--wire", "h:1", "--http"},
         {NULL},
         "transport\thttp\t--http\t"},
        {{"ctx", "show", "--plain"}, {"FLARE_FORMAT=json"}, "format\tplain\t--plain\t"},
        {{"ctx", "show", "--plain"}, {"FLARE_CONTEXT=b"}, "url\thttp://other\tcontext b\t"},
        {{"ctx", "show", "--plain", "--context", "a"},
         {"FLARE_CONTEXT=b"},
         "url\thttp://kept\tcontext a\t"},
        {{"ctx", "show", "b", "--plain"}, {NULL}, "url\thttp://other\tcontext b\t"},
    };
    keep(home, WORDS("ctx", "set", "a", "--url", "http://kept", "--timeout", "1m", "--http"));
    keep(home, WORDS("ctx", "set", "b", "--url", "http://other"));
    keep(home, WORDS("ctx", "use", "a"));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        expect_setting(home, rows[i].words, rows[i].variables, rows[i].line);
    }
}

/* The wire address of one broker is never used beside the URL of another one: when a stronger place
 * gives a URL alone, its broker is asked. */
static void test_a_wire_address_stays_with_its_url(void **state)
{
    const struct home *home = *state;
    keep(home, WORDS("ctx", "set", "a", "--url", "http://kept", "--wire", "kept:8089"));
    keep(home, WORDS("ctx", "use", "a"));
    expect_setting(home, WORDS("ctx", "show", "--plain"), NULL, "wire\tkept:8089\tcontext a\t");
    expect_setting(home, WORDS("ctx", "show", "--plain"), WORDS("FLARE_URL=http://env"),
                   "wire\t\tthe broker\t");
    expect_setting(home, WORDS("ctx", "show", "--plain"),
                   WORDS("FLARE_URL=http://env", "FLARE_WIRE=env:1"), "wire\tenv:1\tFLARE_WIRE\t");
    expect_setting(home, WORDS("ctx", "show", "--plain", "--url", "http://flag"),
                   WORDS("FLARE_WIRE=env:1"), "wire\t\tthe broker\t");
    expect_setting(home, WORDS("ctx", "show", "--plain", "--context", ""), NULL,
                   "wire\t127.0.0.1:8089\tthe default\t");
}

/* A command goes to the broker that the context names, in the format it names. */
static void test_a_command_runs_in_its_context(void **state)
{
    const struct home *home = *state;
    struct broker broker;
    char url[64];
    broker_start(&broker, &(struct broker_options){0});
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u", broker.port);
    keep(home, WORDS("ctx", "set", "here", "--url", url, "--plain"));
    keep(home, WORDS("topic", "put", "orders", "--context", "here"));
    struct cli_outcome outcome = run(home, WORDS("topic", "ls"), WORDS("FLARE_CONTEXT=here"));
    assert_int_equal(outcome.exit_code, 0);
    assert_memory_equal(cli_out(&outcome), "orders\tactive\t4\t", strlen("orders\tactive\t4\t"));
    cli_outcome_deinit(&outcome);
    outcome = run(home, WORDS("topic", "ls", "--table"), WORDS("FLARE_CONTEXT=here"));
    assert_memory_equal(cli_out(&outcome), "NAME ", strlen("NAME "));
    cli_outcome_deinit(&outcome);
    broker_stop(&broker);
}

/* A value that is none is refused with the place it comes from: as usage on the line, as
 * configuration elsewhere. */
static void test_bad_values_are_refused_with_their_place(void **state)
{
    const struct home *home = *state;
    expect_exit(home, WORDS("topic", "ls"), WORDS("FLARE_URL=x"), 78,
                "FLARE_URL: 'x' is not a URL");
    expect_exit(home, WORDS("topic", "ls"), WORDS("FLARE_WIRE=x"), 78, "FLARE_WIRE: 'x' is not an");
    expect_exit(home, WORDS("topic", "ls"), WORDS("FLARE_TIMEOUT=0"), 78, "FLARE_TIMEOUT 0: must");
    expect_exit(home, WORDS("topic", "ls"), WORDS("FLARE_FORMAT=xml"), 78, "FLARE_FORMAT: 'xml'");
    expect_exit(home, WORDS("topic", "ls"), WORDS("FLARE_CONTEXT=x"), 78, "no context x");
    static const char *const addresses[] = {"x",    "x:",     ":1",    "x:0",   "x:65536",
                                            "x:1x", "::1:80", "[::1]", "a/b:1", "x:-1"};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        expect_exit(home, WORDS("ctx", "set", "a", "--wire", addresses[i]), NULL, 64, "--wire");
    }
    keep(home, WORDS("ctx", "set", "a", "--wire", "[::1]:65535"));
    expect_exit(home, WORDS("ctx", "set", "a", "--url", "x"), NULL, 64, "--url: 'x' is not a URL");
    expect_setting(home, WORDS("ctx", "show", "a", "--plain"), NULL,
                   "wire\t[::1]:65535\tcontext a");
}

/* ---- keeping them ---- */

/* Contexts are listed with the one in use, changed field by field, and forgotten. */
static void test_contexts_are_kept_changed_and_forgotten(void **state)
{
    const struct home *home = *state;
    keep(home, WORDS("ctx", "set", "a", "--url", "http://one", "--timeout", "1m"));
    keep(home, WORDS("ctx", "set", "b", "--url", "http://two"));
    keep(home, WORDS("ctx", "use", "b"));
    keep(home, WORDS("ctx", "set", "a", "--url", "http://three", "--unset", "timeout"));
    struct cli_outcome list = run(home, WORDS("ctx", "ls", "--plain"), NULL);
    assert_string_equal(cli_out(&list), "no\ta\thttp://three\t\t\t\t\n"
                                        "yes\tb\thttp://two\t\t\t\t\n");
    cli_outcome_deinit(&list);
    keep(home, WORDS("ctx", "rm", "b"));
    expect_setting(home, WORDS("ctx", "show", "--plain"), NULL, "\tthe default\t");
    expect_exit(home, WORDS("ctx", "use", "b"), NULL, 66, "no context b");
    expect_exit(home, WORDS("ctx", "rm", "b"), NULL, 66, "no context b");
    keep(home, WORDS("ctx", "use", "a"));
    keep(home, WORDS("ctx", "use"));
    list = run(home, WORDS("ctx", "ls", "--plain"), NULL);
    assert_string_equal(cli_out(&list), "no\ta\thttp://three\t\t\t\t\n");
    cli_outcome_deinit(&list);
}

/* Names are short and plain; the longest one is one. */
static void test_names_have_rules(void **state)
{
    const struct home *home = *state;
    char name[66];
    memset(name, 'n', 65);
    name[65] = '\0';
    expect_exit(home, WORDS("ctx", "set", name, "--http"), NULL, 64, "is no name");
    keep(home, WORDS("ctx", "set", name + 1, "--http"));
    expect_exit(home, WORDS("ctx", "set", "", "--http"), NULL, 64, "is no name");
    expect_exit(home, WORDS("ctx", "set", "a b", "--http"), NULL, 64, "is no name");
    expect_exit(home, WORDS("ctx", "set", "a/b", "--http"), NULL, 64, "is no name");
    expect_exit(home, WORDS("ctx", "set", "--", "-a"), NULL, 64, "is no name");
}

/* Only their owner may read them, also when the file is a link to another place, which it stays. */
static void test_the_file_is_private_and_may_be_a_link(void **state)
{
    const struct home *home = *state;
    char path[TMPDIR_PATH_SIZE];
    char target[TMPDIR_PATH_SIZE];
    struct stat status;
    keep(home, WORDS("ctx", "set", "a", "--url", "http://one"));
    tmpdir_file(&home->tmpdir, "flare/contexts.json", path);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    tmpdir_file(&home->tmpdir, "elsewhere.json", target);
    assert_int_equal(rename(path, target), 0);
    assert_int_equal(symlink(target, path), 0);
    keep(home, WORDS("ctx", "set", "a", "--url", "http://two"));
    assert_int_equal(lstat(path, &status), 0);
    assert_true(S_ISLNK(status.st_mode));
    expect_setting(home, WORDS("ctx", "show", "a", "--plain"), NULL,
                   "url\thttp://two\tcontext a\t");
    assert_int_equal(lstat(target, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

/* A file that is not what the tool writes is refused by name: the broker that was meant is unknown.
 * What needs no context goes on. */
static void test_a_damaged_file_is_refused_by_name(void **state)
{
    const struct home *home = *state;
    char path[TMPDIR_PATH_SIZE];
    static const char *const texts[] = {
        "",
        "[]",
        "{",
        "{\"contexts\":[]}",
        "{\"current\":\"a\",\"contexts\":{}}",
        "{\"current\":1}",
        "{\"other\":{}}",
        "{\"contexts\":{\"a\":{\"colour\":\"red\"}}}",
        "{\"contexts\":{\"a\":{\"url\":1}}}",
        "{\"contexts\":{\"a\":{\"url\":\"x\"}}}",
        "{\"contexts\":{\"a b\":{}}}",
        "{\"contexts\":{\"a\":{},\"a\":{}}}",
    };
    keep(home, WORDS("ctx", "set", "a", "--url", "http://one"));
    tmpdir_file(&home->tmpdir, "flare/contexts.json", path);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        tmpdir_write(&home->tmpdir, "flare/contexts.json", texts[i], strlen(texts[i]));
        expect_exit(home, WORDS("topic", "ls"), NULL, 78, path);
        expect_exit(home, WORDS("ctx", "set", "b", "--http"), NULL, 78, path);
        expect_exit(home, WORDS("completion", "bash"), NULL, 0, NULL);
        expect_exit(home, WORDS("topic", "ls", "--help"), NULL, 0, NULL);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, home_init, home_deinit)
    const struct CMUnitTest tests[] = {
        TEST(test_a_flag_beats_the_environment_beats_a_context_beats_the_default),
        TEST(test_a_wire_address_stays_with_its_url),
        TEST(test_a_command_runs_in_its_context),
        TEST(test_bad_values_are_refused_with_their_place),
        TEST(test_contexts_are_kept_changed_and_forgotten),
        TEST(test_names_have_rules),
        TEST(test_the_file_is_private_and_may_be_a_link),
        TEST(test_a_damaged_file_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
