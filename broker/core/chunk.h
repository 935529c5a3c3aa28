/* Delivery state of 256 sequences of a lane (DELIVERY), and the indexes that lead to it (READY,
 * DUE).
 *
 * A chunk that is neither in memory nor stored holds nothing in delivery: of its sequences, those
 * before the lane's cursor are done. */
#ifndef CORE_CHUNK_H
#define CORE_CHUNK_H

#include "broker/core/lifecycle.h"
#include "broker/core/state.h"

enum { CHUNK_KEY_SIZE = 16 };

/* From memory or the store; NULL in `out` when there is none and `create` is false. A created one
 * has its sequences before the cursor marked done. */
err_t chunk_get(struct core *core, struct lane *lane, uint64_t number, bool create,
                struct chunk **out) MUST_CHECK;

/* The same without creating one, for work that concerns others too: damage is reported, and such a
 * chunk is not in `out`. */
err_t chunk_look(struct core *core, struct lane *lane, uint64_t number, struct chunk **out,
                 bool *damaged) MUST_CHECK;

/* Before the cursor moves on through it: what the cursor has passed has a state, and nothing else.
 */
err_t chunk_check_cursor(const struct chunk *chunk) MUST_CHECK;

/* One move of one message, with its counts and indexes, and a wake-up when it makes something to
 * pull. Of the entry it sets only the state. */
err_t chunk_move(struct core *core, struct chunk *chunk, uint32_t index,
                 enum lifecycle_event event) MUST_CHECK;
/* It no longer has anything ready. */
err_t chunk_unlist_ready(struct core *core, const struct chunk *chunk) MUST_CHECK;
/* The chunk must be looked at by `due_ms`. */
err_t chunk_due(struct core *core, struct chunk *chunk, uint64_t due_ms) MUST_CHECK;
/* Skipped sequences [first, end) of the chunk, which a sweep releases, are done. */
void chunk_skip(struct core *core, struct chunk *chunk, uint32_t first, uint32_t end);
/* Its DUE row `due_ms` has been removed; looks for the next time. */
err_t chunk_due_fired(struct core *core, struct chunk *chunk, uint64_t due_ms) MUST_CHECK;
/* Removes it and its index rows, whatever is in it; counts of the lane follow. */
err_t chunk_erase(struct core *core, struct chunk *chunk) MUST_CHECK;

/* Sequences of the chunk that the lane needs, finished ones not yet released included; of a damaged
 * one all. */
err_t chunk_needed(struct core *core, struct lane *lane, uint64_t number,
                   uint64_t bits[CHUNK_WORDS]) MUST_CHECK;

/* The same for one sequence. */
err_t chunk_needs(struct core *core, struct lane *lane, uint64_t sequence, bool *out) MUST_CHECK;

void chunk_mark_dirty(struct core *core, struct chunk *chunk);
/* Writes or removes the row of a dirty chunk. */
err_t chunk_write(struct core *core, struct chunk *chunk) MUST_CHECK;
void chunk_trim(struct core *core);
void chunk_forget_all(struct core *core, struct lane *lane);

void chunk_key(const struct lane *lane, uint64_t number, uint8_t out[CHUNK_KEY_SIZE]);
/* Decodes a stored row into `chunk` (entries and counts); false when it is damaged. */
bool chunk_decode(struct span value, struct chunk *chunk);

#endif
