/* What every command of `flare` is given, and the rows of each file.
 *
 * Data goes to standard output, everything else to standard error. A command returns its error;
 * main reports it once and turns it into an exit code of sysexits(3). */
#ifndef FLARE_CLI_H
#define FLARE_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <sysexits.h>

#include "broker/base/err.h"
#include "tools/flare/client.h"
#include "tools/flare/contexts.h"
#include "tools/flare/options.h"
#include "tools/flare/settings.h"

enum cli_format { CLI_TABLE = 1, CLI_PLAIN, CLI_JSON };

struct cli {
    struct client *client; /* NULL for a command of no broker */
    struct contexts contexts;
    struct settings settings;
    const char *url;
    uint64_t timeout_ms;
    enum cli_format format;
    bool quiet;
    bool color;    /* of standard output */
    bool print;    /* --curl */
    bool trace;    /* what is sent and received goes to standard error */
    int blame;     /* exit code of an error that is not the broker's; 0: by its code */
    int exit_code; /* when the command succeeds; 0 unless it says otherwise */
};

/* An error of the command line itself. */
#define USAGE(cli, ...) ((cli)->blame = EX_USAGE, ERR(INVALID, __VA_ARGS__))

/* Finds the settings of a command and takes them over; the options of the client come from there.
 */
err_t cli_configure(struct cli *cli, const struct arguments *arguments) MUST_CHECK;

/* A note for people on standard error, unless --quiet. */
void cli_note(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Asks on the terminal for `name` to be typed before what cannot be undone; without a terminal or
 * `yes` that is a usage error. */
err_t cli_confirm(struct cli *cli, bool yes, const char *deed, const char *name) MUST_CHECK;

/* Of a command that has no other option than not to ask so. */
enum { CLI_REMOVE_YES };
extern const struct option_row cli_remove_options[];

/* Sets `name` in `document` to an option's number, if it was given. */
void cli_set_number(json_t *document, const char *name, const struct arguments *arguments,
                    uint32_t option);

/* Rows of each file, ended by one without a name. */
extern const struct cli_command topic_commands[];
extern const struct cli_command sub_commands[];
extern const struct cli_command pub_commands[];
extern const struct cli_command pull_commands[];
extern const struct cli_command tail_commands[];
extern const struct cli_command peek_commands[];
extern const struct cli_command status_commands[];
extern const struct cli_command top_commands[];
extern const struct cli_command data_commands[];
extern const struct cli_command job_commands[];
extern const struct cli_command bench_commands[];
extern const struct cli_command ctx_commands[];
extern const struct cli_command completion_commands[];

#endif
