/* Receipts and message ids as text: opaque to clients, checked on the way in. */
#ifndef CORE_RECEIPT_H
#define CORE_RECEIPT_H

#include "broker/core/command.h"

enum { RECEIPT_TEXT_SIZE = 45, MESSAGE_ID_SIZE = 25 }; /* with the terminator */

/* Base64url of version, content and a checksum. */
void receipt_format(const struct receipt *receipt, char out[RECEIPT_TEXT_SIZE]);
bool receipt_parse(struct span text, struct receipt *out);

/* shard id and sequence in 24 hexadecimal digits: sorts in queue order within a shard. */
void message_id_format(uint32_t shard_id, uint64_t sequence, char out[MESSAGE_ID_SIZE]);
bool message_id_parse(struct span text, uint32_t *shard_id, uint64_t *sequence);

#endif
