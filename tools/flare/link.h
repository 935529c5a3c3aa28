/* The wire protocol for commands: libflare's values as the documents and errors that they print,
 * which are the same as over HTTP. */
#ifndef FLARE_LINK_H
#define FLARE_LINK_H

#include <flare/flare.h>
#include <jansson.h>

#include "tools/flare/cli.h"

struct link_options {
    uint32_t batch; /* messages of one publish at most; 0: the library's own */
    void (*on_state)(void *user, enum flare_state state, const char *detail); /* may be NULL */
    void *user;
};

/* Connects to HOST:PORT with the settings of the command; `options` may be NULL. Closed with
 * flare_close. */
err_t link_open(struct cli *cli, const char *address, const struct link_options *options,
                struct flare_client **out) MUST_CHECK;

/* What libflare has said, once it was connected. NULL for FLARE_OK. */
err_t link_error(struct cli *cli, enum flare_code code, const struct flare_error *error) MUST_CHECK;

/* A published message and a leased one, as documents of the HTTP API. The caller's to release. */
json_t *link_result(const struct flare_result *result);
json_t *link_delivery(const struct flare_delivery *delivery);

/* A receipt as text: base64url. */
void link_receipt(const struct flare_receipt *receipt, struct buf *out);

#endif
