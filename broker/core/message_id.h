/* Message ids as text: shard id and sequence in 24 hexadecimal digits, which sort in queue order
 * within a shard. Opaque to clients, checked on the way in. */
#ifndef CORE_MESSAGE_ID_H
#define CORE_MESSAGE_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/span.h"

enum {
    MESSAGE_ID_BYTES = 12,
    MESSAGE_ID_SIZE = 25, /* of the text, with the terminator */
};

/* As the wire protocol carries it. */
void message_id_encode(uint32_t shard_id, uint64_t sequence, uint8_t out[MESSAGE_ID_BYTES]);

void message_id_format(uint32_t shard_id, uint64_t sequence, char out[MESSAGE_ID_SIZE]);
bool message_id_parse(struct span text, uint32_t *shard_id, uint64_t *sequence);

#endif
