/* The index of everything that happens at a time (DUE). A row is a reason to look, not a promise:
 * what it points to may have changed, and then it does nothing.
 *
 * Key: due u64, kind u8; then sub u32, shard u32, chunk u64 (DUE_CHUNK) or topic u32, hash 16 bytes
 * (DUE_DEDUP). */
#ifndef CORE_DUE_H
#define CORE_DUE_H

#include "broker/core/state.h"

enum due_kind { DUE_CHUNK = 1, DUE_DEDUP = 2 };

enum { DUE_KEY_MAX = 29, DEDUP_KEY_SIZE = 20 };

struct due_row {
    uint64_t due_ms;
    uint8_t key[DUE_KEY_MAX];
    size_t key_size;
};

err_t due_add_chunk(struct core *core, const struct chunk *chunk, uint64_t due_ms) MUST_CHECK;
err_t due_remove_chunk(struct core *core, const struct chunk *chunk, uint64_t due_ms) MUST_CHECK;
err_t due_add_dedup(struct core *core, const uint8_t key[DEDUP_KEY_SIZE],
                    uint64_t due_ms) MUST_CHECK;

/* For checks: whether a row is there; the idempotency key that a row is about, false for another.
 */
err_t due_has_chunk(struct core *core, const struct chunk *chunk, uint64_t due_ms,
                    bool *out) MUST_CHECK;
bool due_dedup_key(struct span key, struct span *out);
err_t due_has_dedup(struct core *core, const uint8_t key[DEDUP_KEY_SIZE], uint64_t due_ms,
                    bool *out) MUST_CHECK;

/* The earliest row; `found` false when there is none. */
err_t due_first(struct core *core, struct due_row *out, bool *found) MUST_CHECK;
/* Removes the earliest rows that are due and does what they are for, until that has cost something:
 * `work`, 0 when nothing is due. */
err_t due_fire(struct core *core, uint32_t *work) MUST_CHECK;

#endif
