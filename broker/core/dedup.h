/* The idempotency window (DEDUP): which message an idempotency key has already made.
 *
 * Key: topic u32, XXH3-128 of the idempotency key. Value: version u8, zero 3 bytes, shard u32,
 * sequence u64, payload hash u64, expires u64.
 *
 * A batch with a key of its own has one row for all its messages in a volume: the key is hashed
 * with another seed, the version is another, shard stands for the number of messages, sequence is
 * 0, and runs of messages in order follow: shard u32, count u32, first sequence u64; shard 0 and
 * the error code instead of the sequence for those that were refused. */
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
/* The same for a whole publish with a batch key: on REPLAY its results are filled. */
bool dedup_applies_to_batch(const struct topic *topic, const struct publish *publish);
err_t dedup_look_batch(struct core *core, const struct topic *topic, const struct publish *publish,
                       enum dedup_verdict *out) MUST_CHECK;
err_t dedup_note_batch(struct core *core, const struct topic *topic,
                       const struct publish *publish) MUST_CHECK;
err_t dedup_expire(struct core *core, const uint8_t key[DEDUP_KEY_SIZE]) MUST_CHECK;

#endif
