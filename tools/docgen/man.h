/* Manual pages: flare(1), one for each command of it, flared(8). They are printed from the tables
 * of commands, options and settings, as --help is, and are build artefacts. */
#ifndef DOCGEN_MAN_H
#define DOCGEN_MAN_H

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "tools/flare/options.h"

enum { MAN_PAGE_MAX = 256 * 1024, MAN_NAME_MAX = 64 };

/* "flare-topic-put" of "topic put". */
void man_name(const struct cli_command *command, char out[MAN_NAME_MAX]);

void man_print_overview(struct buf *out);
void man_print_command(const struct cli_command *command, struct buf *out);
void man_print_broker(struct buf *out);

/* Text as roff shows it unchanged: nothing in it can be a request or an escape. It may begin a line
 * of the page or follow on one. */
void man_print_text(const char *text, struct buf *out);

/* Writes every page to `directory`, which is made when it is missing. */
err_t man_write(const char *directory) MUST_CHECK;

#endif
