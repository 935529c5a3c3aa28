/* What the parts of the peer know of each other: peer.c has the connection, peer_send.c writes what
 * waits, peer_frames.c knows what is in the bytes that come. */
#ifndef CLIENT_PEER_INTERNAL_H
#define CLIENT_PEER_INTERNAL_H

#include "client/peer.h"

/* Polls the socket for these events only; false: no memory. */
bool peer_poll_for(struct flare_client *client, int events);
/* Loses the connection; `number` is an errno. */
void peer_lose_by(struct flare_client *client, const char *what, int number);

/* Tells options.trace of a frame, given without its size field. */
void peer_trace(struct flare_client *client, bool is_sent, struct span payload);

/* Asks for a pong that nobody waits for; false: no memory. */
bool peer_ping(struct flare_client *client);

#endif
