/* The frames of ack, nack and extend, which the application's calls and the streams share. */
#ifndef CLIENT_SETTLE_H
#define CLIENT_SETTLE_H

#include "client/call.h"

enum { SETTLE_MAX = 10000 };

/* ERR_INVALID, or NULL. */
err_t settle_check(const struct flare_source *source, const struct flare_settle *settle) MUST_CHECK;
enum flare_code settle_encode(struct flare_client *client, struct call *call,
                              const struct flare_source *source, const struct flare_settle *settle,
                              struct flare_error *error);

/* Codes of an answer, one for each of `count` receipts. ERR_INVALID: it has another number. */
err_t settle_take_codes(const struct wire_settled *settled, size_t count,
                        enum flare_code *codes) MUST_CHECK;

#endif
