/* The `flare` program run once by a test, to its end. */
#ifndef LIB_CLI_H
#define LIB_CLI_H

#include "broker/base/buf.h"

enum { CLI_WORDS_MAX = 16, CLI_ERROR_SIZE = 4096 };

struct cli_outcome {
    int exit_code;
    struct buf out;           /* standard output, terminated */
    char err[CLI_ERROR_SIZE]; /* standard error, cut to fit, terminated */
};

struct cli_options {
    const char *const *words;       /* end with NULL */
    const char *input;              /* NULL: empty */
    const char *const *environment; /* "NAME=VALUE" added to ours; ends with NULL; may be NULL */
};

/* Runs `flare` ($FLARE, or the one of the build directory). */
void cli_run_with(const struct cli_options *options, struct cli_outcome *outcome);
/* The same with FLARE_URL set to `url` and without any context. */
void cli_run(const char *url, const char *const *words, const char *input,
             struct cli_outcome *outcome);
void cli_outcome_deinit(struct cli_outcome *outcome);

static inline const char *cli_out(const struct cli_outcome *outcome)
{
    return (const char *)outcome->out.data;
}

#endif
