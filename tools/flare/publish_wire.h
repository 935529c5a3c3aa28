/* Publishing many messages over the wire protocol: each is handed to libflare at once, which makes
 * batches of those that wait for the broker anyway. A stream of lines that trickles in is so
 * published line by line, and a file at full speed.
 *
 * Results are handed on in the order of the messages, on the caller's thread. */
#ifndef FLARE_PUBLISH_WIRE_H
#define FLARE_PUBLISH_WIRE_H

#include "tools/flare/link.h"
#include "tools/flare/publish.h"

struct publish_wire;

/* `on_result` may be NULL. */
err_t publish_wire_open(struct cli *cli, const char *address, const struct publisher *publisher,
                        struct publish_wire **out) MUST_CHECK;
/* What has not been answered is given up. NULL does nothing. */
void publish_wire_close(struct publish_wire *wire);

/* Waits while too many are unanswered. An error is that of an earlier message, or of this one when
 * all before it have been published. */
err_t publish_wire_add(struct publish_wire *wire, struct publisher *publisher,
                       const struct publish_message *message) MUST_CHECK;
/* Waits until every message has been answered. */
err_t publish_wire_finish(struct publish_wire *wire, struct publisher *publisher) MUST_CHECK;

#endif
