/* Which messages of a run are where: every message carries a number, and each number must be
 * received exactly once.
 *
 * A body is that number, the moment it was to be sent, and filler up to its size. */
#ifndef BENCH_LEDGER_H
#define BENCH_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/err.h"
#include "broker/base/span.h"

enum { LEDGER_BODY_MIN = 24 };

struct ledger {
    uint64_t *received_bits;
    uint64_t count_max;
    uint64_t sent; /* numbers 0 to sent - 1 are in use */
    uint64_t confirmed;
    uint64_t received; /* each number once */
    uint64_t doubled;  /* received again */
    uint64_t foreign;  /* bodies that this run has not sent, or not like this */
    uint64_t acked;
    uint64_t confirmed_twice; /* confirmations of what was not waiting for one */
};

/* Room for `count_max` messages. ERR_MEMORY. */
err_t ledger_init(struct ledger *ledger, uint64_t count_max) MUST_CHECK;
void ledger_deinit(struct ledger *ledger);

/* Writes the next number and the moment into the front of a body of `size` bytes, which has its
 * filler from ledger_fill, and returns the number. There must be room. */
uint64_t ledger_send(struct ledger *ledger, uint8_t *body, uint32_t size, uint64_t intended_ns);
void ledger_fill(uint8_t *body, uint32_t size);

/* Counts a body. True the first time its number comes: `intended_ns` is then when it was to be
 * sent. */
bool ledger_receive(struct ledger *ledger, struct span body, uint64_t *intended_ns);

static inline uint64_t ledger_lost(const struct ledger *ledger)
{
    return ledger->sent - ledger->received;
}

/* Whether nothing was lost, doubled or altered. `held` is what the broker says it still has for
 * consumers: nothing of what was `consumed`, else exactly what was sent. */
bool ledger_is_even(const struct ledger *ledger, uint64_t held, bool consumed);

#endif
