#include "tests/lib/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/process.h"
#include "tests/lib/tmpdir.h"

enum { OUT_MAX = 64 * 1024 * 1024, TIMEOUT_MS = 60000 };

static void read_error(const char *path, struct cli_outcome *outcome)
{
    FILE *file = fopen(path, "re");
    size_t size = file == NULL ? 0 : fread(outcome->err, 1, sizeof outcome->err - 1, file);
    outcome->err[size] = '\0';
    if (file != NULL) {
        (void)fclose(file);
    }
}

void cli_run_with(const struct cli_options *options, struct cli_outcome *outcome)
{
    struct process process = {0};
    struct tmpdir tmpdir;
    char error_path[TMPDIR_PATH_SIZE];
    char line[PROCESS_LINE_SIZE];
    const char *program = getenv("FLARE");
    const char *arguments[CLI_WORDS_MAX + 2] = {program != NULL ? program : "./flare"};
    const char *input = options->input;
    for (size_t i = 0; i < CLI_WORDS_MAX && options->words[i] != NULL; i++) {
        arguments[i + 1] = options->words[i];
    }
    tmpdir_init(&tmpdir);
    process_start(&process,
                  &(struct process_options){.arguments = arguments,
                                            .environment = options->environment,
                                            .error_path = tmpdir_file(&tmpdir, "err", error_path)});
    if (input != NULL) {
        (void)process_write(&process, input, strlen(input)); /* it may end without reading all */
    }
    process_close_input(&process);
    buf_init(&outcome->out, OUT_MAX);
    while (process_read_line(&process, line, sizeof line, TIMEOUT_MS)) {
        buf_append_text(&outcome->out, line);
        buf_append_byte(&outcome->out, '\n');
    }
    buf_append_byte(&outcome->out, 0);
    outcome->exit_code = process_wait(&process, TIMEOUT_MS);
    process_stop(&process);
    read_error(error_path, outcome);
    tmpdir_deinit(&tmpdir);
}

void cli_run(const char *url, const char *const *words, const char *input,
             struct cli_outcome *outcome)
{
    char variable[256];
    const char *const environment[] = {variable, "XDG_CONFIG_HOME=/nonexistent", NULL};
    (void)snprintf(variable, sizeof variable, "FLARE_URL=%s", url);
    cli_run_with(&(struct cli_options){.words = words, .input = input, .environment = environment},
                 outcome);
}

void cli_outcome_deinit(struct cli_outcome *outcome)
{
    buf_deinit(&outcome->out);
}
