/* The commands that carry messages: publish, pull, settle (ack, nack, extend). */
#ifndef CORE_MESSAGES_H
#define CORE_MESSAGES_H

#include "broker/core/state.h"

err_t messages_publish(struct core *core, const struct command *command,
                       struct reply *reply) MUST_CHECK;
err_t messages_pull(struct core *core, const struct pull *pull, struct reply *reply) MUST_CHECK;
err_t messages_settle(struct core *core, const struct command *command,
                      struct reply *reply) MUST_CHECK;

/* Adds a message to a reply, with its payload when `record` is not NULL. False: it does not fit in
 * memory. */
bool messages_deliver(struct reply *reply, const struct lane *lane, const struct delivery *delivery,
                      const struct record *record, struct span note) MUST_CHECK;

#endif
