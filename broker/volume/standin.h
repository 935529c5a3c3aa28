/* Stand-ins: publishes that were answered before their commit, copied.
 *
 * A batch whose commit finds no space is applied again with less in it. What has been answered must
 * be in it again, and its caller has taken its memory back; so a copy stands in the call's place in
 * the batch until a commit covers it. It holds the messages that were taken in, each with the place
 * it was answered with, and has nobody to be answered to. Owned by the volume's thread. */
#ifndef VOLUME_STANDIN_H
#define VOLUME_STANDIN_H

#include "broker/volume/volume.h"

/* False: nothing can stand in: there is no memory, or only a part of a batch with a key was taken
 * in. NULL in `out`: the publish changed nothing, so there is nothing to stand in. */
bool standin_create(const struct call *publish, struct call **out);
void standin_destroy(struct call *call);

bool standin_is(const struct call *call);

/* After it has been applied again: whether each message has the place it was answered with, or is
 * gone with its topic. */
bool standin_holds(const struct call *call);

#endif
