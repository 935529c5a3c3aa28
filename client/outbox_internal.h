/* What the parts of the outbox know of each other: outbox.c takes messages in, outbox_send.c lets
 * batches go, outbox_answer.c ends them. Functions that take the outbox want the lock held. */
#ifndef CLIENT_OUTBOX_INTERNAL_H
#define CLIENT_OUTBOX_INTERNAL_H

#include "client/engine.h"

enum { OUTBOX_HEAD_ROOM = 512 }; /* before the records of a batch, for the head of its frame */

/* The topic has something to send. */
void outbox_wait(struct outbox *outbox, struct outbox_topic *topic);
/* What is being filled takes no more. */
void outbox_close_filling(struct outbox_topic *topic);

/* Takes a batch that has ended, for its memory. */
void outbox_give(struct outbox *outbox, struct outbox_batch *batch);
/* Forgets a topic that has nothing to send, when there are many. */
void outbox_release(struct outbox *outbox, struct outbox_topic *topic);

/* Of a batch's ask. */
err_t outbox_on_answer(struct flare_client *client, struct ask *ask,
                       const struct wire_frame *answer) MUST_CHECK;
void outbox_on_failed(struct flare_client *client, struct ask *ask, enum ask_failure failure,
                      const struct flare_error *error);

#endif
