/* The idempotency window (DEDUP): which message an idempotency key has already made.
 *
 * Key: topic u32, XXH3-128 of the idempotency key. Value: version u8, zero 3 bytes, shard u32,
 * sequence u64, payload hash u64, expires u64. */
#ifndef CORE_DEDUP_H
#define CORE_DEDUP_H

#include "broker/core/due.h"
#include "broker/core/state.h"

enum dedup_verdict {
    DEDUP_NEW,
    DEDUP_REPLAY, /* the same message was published: `result` tells which */
    DEDUP_REUSED, /* another message was published under this key */
};

/* Whether the message falls under its topic's window. */
bool dedup_applies(const struct topic *topic, const struct message_in *message);
/* For tables of the idempotency keys of one command. */
uint64_t dedup_hash(struct span idempotency_key);

err_t dedup_look(struct core *core, const struct topic *topic, const struct message_in *message,
                 struct publish_result *result, enum dedup_verdict *out) MUST_CHECK;
err_t dedup_note(struct core *core, const struct topic *topic, const struct message_in *message,
                 const struct publish_result *result) MUST_CHECK;
err_t dedup_expire(struct core *core, const uint8_t key[DEDUP_KEY_SIZE]) MUST_CHECK;

#endif
