/* Completions: what bash offers with the real script, and that every script knows the tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/broker.h"
#include "tests/lib/cli.h"
#include "tools/flare/commands.h"

enum { LINE_TIMEOUT_MS = 30000 };

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- bash, running the script ---- */

/* Sources the script, then answers each line of input with what would be offered. */
static const char driver[] = "set -u\n"
                             "source \"$1\"\n"
                             "while IFS= read -r COMP_LINE; do\n"
                             "    COMP_POINT=${#COMP_LINE}\n"
                             "    COMPREPLY=()\n"
                             "    _flare flare\n"
                             "    echo \"${COMPREPLY[*]}\"\n"
                             "done\n";

struct shell {
    struct tmpdir tmpdir;
    struct broker broker;
    struct process process;
    char program[4096]; /* the tool's real path: bash starts it */
};

static void write_script(struct shell *shell, const char *name)
{
    struct cli_outcome outcome;
    cli_run("", WORDS("completion", name), NULL, &outcome);
    assert_int_equal(outcome.exit_code, 0);
    tmpdir_write(&shell->tmpdir, name, outcome.out.data, outcome.out.size - 1);
    cli_outcome_deinit(&outcome);
}

static int shell_start(void **state)
{
    struct shell *shell = calloc(1, sizeof *shell);
    char url[64];
    char config[TMPDIR_PATH_SIZE + 32];
    char script[TMPDIR_PATH_SIZE];
    char path[TMPDIR_PATH_SIZE];
    assert_non_null(shell);
    const char *program = getenv("FLARE");
    assert_non_null(realpath(program != NULL ? program : "./flare", shell->program));
    tmpdir_init(&shell->tmpdir);
    broker_start(&shell->broker, &(struct broker_options){0});
    write_script(shell, "bash");
    tmpdir_write(&shell->tmpdir, "driver", driver, sizeof driver - 1);
    (void)snprintf(url, sizeof url, "FLARE_URL=http://127.0.0.1:%u", shell->broker.port);
    (void)snprintf(config, sizeof config, "XDG_CONFIG_HOME=%s", shell->tmpdir.path);
    const char *const environment[] = {url, config, NULL};
    const char *const arguments[] = {"bash", tmpdir_file(&shell->tmpdir, "driver", path),
                                     tmpdir_file(&shell->tmpdir, "bash", script), NULL};
    process_start(&shell->process,
                  &(struct process_options){.arguments = arguments, .environment = environment});
    *state = shell;
    return 0;
}

static int shell_stop(void **state)
{
    struct shell *shell = *state;
    process_close_input(&shell->process);
    int status = process_wait(&shell->process, LINE_TIMEOUT_MS);
    process_stop(&shell->process);
    broker_stop(&shell->broker);
    tmpdir_deinit(&shell->tmpdir);
    free(shell);
    return status;
}

/* What bash offers for "flare " and these words. */
static void expect_offer(struct shell *shell, const char *words, const char *offer)
{
    char line[PROCESS_LINE_SIZE];
    (void)snprintf(line, sizeof line, "%s %s\n", shell->program, words);
    assert_true(process_write(&shell->process, line, strlen(line)));
    assert_true(process_read_line(&shell->process, line, sizeof line, LINE_TIMEOUT_MS));
    if (strcmp(line, offer) != 0) {
        fail_msg("flare %s: '%s' is offered instead of '%s'", words, line, offer);
    }
}

static void run(const struct shell *shell, const char *const *words)
{
    struct cli_outcome outcome;
    char url[64];
    char config[TMPDIR_PATH_SIZE + 32];
    (void)snprintf(url, sizeof url, "FLARE_URL=http://127.0.0.1:%u", shell->broker.port);
    (void)snprintf(config, sizeof config, "XDG_CONFIG_HOME=%s", shell->tmpdir.path);
    cli_run_with(&(struct cli_options){.words = words, .environment = WORDS(url, config)},
                 &outcome);
    assert_int_equal(outcome.exit_code, 0);
    cli_outcome_deinit(&outcome);
}

/* Commands of one word and of two, options of the command and of all, choices. */
static void test_bash_offers_what_is_fixed(void **state)
{
    struct shell *shell = *state;
    expect_offer(shell, "to", "topic top");
    expect_offer(shell, "topi", "topic");
    expect_offer(shell, "red", "redrive");
    expect_offer(shell, "__", "");
    expect_offer(shell, "topic ", "put create get ls rm");
    expect_offer(shell, "--timeout 5s sub pu", "put purge");
    expect_offer(shell, "topic put orders --sh", "--shards");
    expect_offer(shell, "topic get orders --sh", "");
    expect_offer(shell, "topic get orders --ti", "--timeout");
    expect_offer(shell, "sub purge a b --what ", "all enqueued delivery dead");
    expect_offer(shell, "sub purge a b --what de", "delivery dead");
    expect_offer(shell, "sub purge a b --what=de", "delivery dead");
    expect_offer(shell, "sub purge a b --what dead --y", "--yes");
    expect_offer(shell, "topic put orders --shards ", "");
    expect_offer(shell, "completion ", "bash zsh fish");
    expect_offer(shell, "completion bash ", "");
    expect_offer(shell, "nonsense ", "");
}

/* Names of topics, subscriptions and contexts are those there are now. */
static void test_bash_offers_live_names(void **state)
{
    struct shell *shell = *state;
    char elsewhere[128];
    expect_offer(shell, "topic get ", "");
    run(shell, WORDS("topic", "put", "orders"));
    run(shell, WORDS("topic", "put", "others.2"));
    run(shell, WORDS("sub", "put", "orders", "billing"));
    run(shell, WORDS("ctx", "set", "prod", "--http"));
    expect_offer(shell, "topic get ", "orders others.2");
    expect_offer(shell, "pull or", "orders");
    expect_offer(shell, "pull orders ", "billing");
    expect_offer(shell, "pull --max 10 orders b", "billing");
    expect_offer(shell, "pull others.2 ", "");
    expect_offer(shell, "pull nowhere ", "");
    expect_offer(shell, "pull orders billing ", "");
    expect_offer(shell, "ack orders billing ", "");
    expect_offer(shell, "ctx use ", "prod");
    expect_offer(shell, "topic ls --context p", "prod");
    /* Another broker is asked when the line names one, and silence is no offer. */
    expect_offer(shell, "--url http://127.0.0.1:1 pull ", "");
    (void)snprintf(elsewhere, sizeof elsewhere, "--url=http://127.0.0.1:%u pull o",
                   shell->broker.port);
    expect_offer(shell, elsewhere, "orders others.2");
}

/* ---- names ---- */

/* Who completes a word is not bothered with errors: no broker, no topic, no such kind of name. */
static void test_names_that_cannot_be_had_are_none(void **state)
{
    static const char *const lines[][4] = {
        {"__complete", "topics"},        {"__complete", "subscriptions", "a"},
        {"__complete", "subscriptions"}, {"__complete", "contexts"},
        {"__complete", "nonsense"},      {"__complete", "topics", "--context", "x"}};
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct cli_outcome outcome;
        const char *const words[] = {lines[i][0], lines[i][1], lines[i][2], lines[i][3], NULL};
        cli_run("http://127.0.0.1:1", words, NULL, &outcome);
        assert_int_equal(outcome.exit_code, 0);
        assert_string_equal(cli_out(&outcome), "");
        assert_string_equal(outcome.err, "");
        cli_outcome_deinit(&outcome);
    }
}

/* ---- structure ---- */

static void expect_text(const char *script, const char *format, const char *first,
                        const char *second)
{
    char text[512];
    (void)snprintf(text, sizeof text, format, first, second);
    if (strstr(script, text) == NULL) {
        fail_msg("the script lacks: %s", text);
    }
}

struct script_case {
    const char *shell;
    const char *option; /* "%s" is the option's name, then its help */
    const char *verb;   /* the verb, then its summary */
};

/* Every command and every option of the tables is in every script, and nothing hidden is. */
static void test_every_script_knows_every_row(void **state)
{
    static const struct script_case rows[] = {{"bash", "--%s ", "%s "},
                                              {"zsh", "--%s:", "'%s:%.20s"},
                                              {"fish", " -l %s", " -xa %s -d '%.20s"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cli_outcome outcome;
        const struct cli_command *command = NULL;
        size_t position = 0;
        cli_run("", WORDS("completion", rows[i].shell), NULL, &outcome);
        const char *script = cli_out(&outcome);
        while ((command = commands_next(&position)) != NULL) {
            const char *space = strchr(command->name, ' ');
            expect_text(script, rows[i].verb, space == NULL ? command->name : space + 1,
                        command->summary);
            for (const struct option_row *row = command->options; row != NULL && row->name != NULL;
                 row++) {
                expect_text(script, rows[i].option, row->name, "");
            }
        }
        assert_true(position > 20);
        assert_null(strstr(script, "__complete:"));
        assert_null(strstr(script, "-xa __complete"));
        cli_outcome_deinit(&outcome);
    }
}

/* Text from the tables cannot end a quotation: each line of zsh and fish has its quotes in pairs.
 */
static void test_quotations_end_where_they_should(void **state)
{
    static const char *const shells[] = {"bash", "zsh", "fish"};
    (void)state;
    for (size_t i = 0; i < sizeof shells / sizeof shells[0]; i++) {
        struct cli_outcome outcome;
        char *rest = NULL;
        cli_run("", WORDS("completion", shells[i]), NULL, &outcome);
        for (char *line = strtok_r((char *)outcome.out.data, "\n", &rest); line != NULL;
             line = strtok_r(NULL, "\n", &rest)) {
            unsigned quotes = 0;
            for (const char *at = line; *at != '\0'; at++) {
                bool escaped = *at == '\\' && at[1] == '\'';
                quotes += *at == '\'';
                at += escaped;
            }
            if (line[0] != '#' && quotes % 2 != 0) {
                fail_msg("%s: a quotation does not end: %s", shells[i], line);
            }
        }
        cli_outcome_deinit(&outcome);
    }
}

int main(void)
{
#define SHELL_TEST(name) cmocka_unit_test_setup_teardown(name, shell_start, shell_stop)
    const struct CMUnitTest tests[] = {
        SHELL_TEST(test_bash_offers_what_is_fixed),
        SHELL_TEST(test_bash_offers_live_names),
        cmocka_unit_test(test_names_that_cannot_be_had_are_none),
        cmocka_unit_test(test_every_script_knows_every_row),
        cmocka_unit_test(test_quotations_end_where_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
