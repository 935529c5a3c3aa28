/* What the two halves of the peer, peer.c (the socket) and peer_frames.c (what is in the bytes),
 * know of each other. */
#ifndef CLIENT_PEER_INTERNAL_H
#define CLIENT_PEER_INTERNAL_H

#include "client/peer.h"

/* Tells options.trace of a frame, given without its size field. */
void peer_trace(struct flare_client *client, bool is_sent, struct span payload);

/* Asks for a pong that nobody waits for; false: no memory. */
bool peer_ping(struct flare_client *client);

#endif
