#include "tools/bench/ledger.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_AT = 0, INTENDED_AT = 8, CHECK_AT = 16 };

/* Tells a body of ours, whole, from anything else. */
static uint64_t check_of(uint64_t number, uint64_t size)
{
    return (number ^ size << 48) * 0x9e3779b97f4a7c15u;
}

static void put_u64(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof value);
}

static uint64_t get_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

err_t ledger_init(struct ledger *ledger, uint64_t count_max)
{
    *ledger = (struct ledger){.count_max = count_max};
    ledger->received_bits = calloc(count_max / 64 + 1, sizeof *ledger->received_bits);
    return ledger->received_bits == NULL ? ERR(MEMORY, "no memory for the ledger") : NULL;
}

void ledger_deinit(struct ledger *ledger)
{
    free(ledger->received_bits);
    ledger->received_bits = NULL;
}

void ledger_fill(uint8_t *body, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        body[i] = (uint8_t)('a' + i % 26);
    }
}

uint64_t ledger_send(struct ledger *ledger, uint8_t *body, uint32_t size, uint64_t intended_ns)
{
    assert(ledger->sent < ledger->count_max);
    assert(size >= LEDGER_BODY_MIN);
    uint64_t number = ledger->sent++;
    put_u64(body + NUMBER_AT, number);
    put_u64(body + INTENDED_AT, intended_ns);
    put_u64(body + CHECK_AT, check_of(number, size));
    return number;
}

bool ledger_receive(struct ledger *ledger, struct span body, uint64_t *intended_ns)
{
    uint64_t number = body.size < LEDGER_BODY_MIN ? UINT64_MAX : get_u64(body.data + NUMBER_AT);
    if (number >= ledger->sent || get_u64(body.data + CHECK_AT) != check_of(number, body.size)) {
        ledger->foreign++;
        return false;
    }
    uint64_t bit = (uint64_t)1 << (number & 63);
    if ((ledger->received_bits[number >> 6] & bit) != 0) {
        ledger->doubled++;
        return false;
    }
    ledger->received_bits[number >> 6] |= bit;
    ledger->received++;
    *intended_ns = get_u64(body.data + INTENDED_AT);
    return true;
}

bool ledger_is_even(const struct ledger *ledger, uint64_t held, bool consumed)
{
    uint64_t left = consumed ? 0 : ledger->sent;
    return ledger->confirmed == ledger->sent && ledger->confirmed_twice == 0 &&
           ledger_lost(ledger) == left && ledger->doubled == 0 && ledger->foreign == 0 &&
           held == left && (!consumed || ledger->acked == ledger->received);
}
