/* What the commands that consume have in common: their options, what they print, and their requests
 * over HTTP, which take what libflare takes over the wire protocol. */
#ifndef FLARE_DELIVERIES_H
#define FLARE_DELIVERIES_H

#include <flare/flare.h>
#include <jansson.h>

#include "tools/flare/client.h"
#include "tools/flare/options.h"
#include "tools/flare/output.h"

/* Rows of options. */
#define DELIVERIES_BODY_ROW                                                                        \
    {                                                                                              \
        .name = "body", .letter = 'b', .kind = OPTION_FLAG,                                        \
        .help = "print only the bodies, each as it is and followed by a new line"                  \
    }
#define DELIVERIES_LEASE_ROW(help_text)                                                            \
    {                                                                                              \
        .name = "lease", .kind = OPTION_DURATION, .min = 100, .max = 43200000, .value = "TIME",    \
        .help = help_text                                                                          \
    }
#define DELIVERIES_CONSUMER_ROW                                                                    \
    {                                                                                              \
        .name = "consumer", .kind = OPTION_TEXT, .value = "NAME",                                  \
        .help = "who asks, for the broker's log"                                                   \
    }

/* Of a message whose receipt is of no use when it is printed. */
extern const struct field deliveries_fields[];

/* A body as --body prints it, and that of a message's document. */
void deliveries_print_body(struct span body);
err_t deliveries_print_document(const json_t *message) MUST_CHECK;

/* `out` is the reply's document, the caller's to release. */
err_t deliveries_pull(struct client *client, const struct flare_source *source,
                      const struct flare_pull *pull, json_t **out) MUST_CHECK;
/* Takes `document`, which has the receipts and what goes with `verb`: ack, nack or extend. `out`
 * (may be NULL) is the reply's. */
err_t deliveries_settle(struct client *client, const struct flare_source *source, const char *verb,
                        json_t *document, json_t **out) MUST_CHECK;

#endif
