/* A message as it lies in the log (SPEC "Message record"): header, then key, attributes and body.
 *
 *   0 check u64 | 8 version u8 | 9 flags u8 | 10 key size u16 | 12 attributes size u16 | 14 zero
 * u16 | 16 body size u32 20 shard u32 | 24 sequence u64 | 32 published u64 | [not before u64]
 * [expires u64] | key | attributes | body
 *
 * `check` is XXH3-64 of the header after it, seeded with the XXH3-64 of the payload: it covers
 * every byte. */
#ifndef CORE_RECORD_H
#define CORE_RECORD_H

#include "broker/base/span.h"

enum {
    RECORD_VERSION = 1,
    RECORD_HEADER_MIN = 40,
    RECORD_HEADER_MAX = 56,
};

struct record {
    uint32_t shard_id;
    uint64_t sequence;
    uint64_t published_ms;
    uint64_t not_before_ms; /* 0: at once */
    uint64_t expires_ms;    /* 0: never */
    uint64_t payload_hash;
    uint32_t key_size;
    uint32_t attributes_size;
    uint32_t body_size;
    struct span payload; /* key, attributes, body */
};

uint32_t record_header_size(const struct record *record);
uint64_t record_size(const struct record *record);

/* Writes the header only; returns its size. `payload_hash` and the sizes must be set. */
uint32_t record_put_header(const struct record *record, uint8_t out[RECORD_HEADER_MAX]);

/* Reads the header and says how big the whole record is, without checking the payload; false when
 * `bytes` cannot begin a record. For walking the log and for records in several pieces. */
bool record_peek(struct span bytes, struct record *out, uint64_t *size);

/* Reads and verifies a whole record at the start of `bytes`; false when anything is wrong with it.
 */
bool record_get(struct span bytes, struct record *out);

#endif
