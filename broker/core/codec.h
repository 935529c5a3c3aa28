/* Commands as bytes, for the journal of a volume: versioned, without padding, and the same bytes
 * for the same command. What only a reply needs (places for results) is not in them.
 *
 * Decoding believes no count and no length that the remaining bytes cannot hold, and refuses values
 * that no command has. */
#ifndef CORE_CODEC_H
#define CORE_CODEC_H

#include "broker/core/command.h"

/* What decoded commands point into, beside the bytes they were decoded from. */
struct codec_room {
    struct buf items;   /* messages or receipts */
    struct buf results; /* places for the results */
};

void codec_room_init(struct codec_room *room);
void codec_room_deinit(struct codec_room *room);

/* Whether a command goes to the journal, so that it has bytes: PUBLISH, PULL, ACK, NACK, EXTEND and
 * TICK. What configures and repairs is rare and does not: when it is applied, retention may be
 * further than it would be when it is applied again (that is only bound by a tick's budget), and
 * what it moves over would not be the same. */
bool codec_takes(enum command_type type);

/* Appends a command; out->failed says that there was no memory. */
void codec_put(const struct command *command, struct buf *out);

/* Takes the first command off `bytes`. It is valid until `room` is used again, as long as the bytes
 * are. ERR_CORRUPT when they are not those of a command. */
err_t codec_get(struct span *bytes, struct codec_room *room, struct command *out) MUST_CHECK;

#endif
