/* What is read back from the store or from clients as packed bytes: message records, attributes,
 * delivery chunks, receipts and message ids. The first byte of the input picks the decoder.
 * Property: what one accepts, written again and read again, is the same; a record with any bit
 * changed is refused. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "broker/core/attributes.h"
#include "broker/core/chunk.h"
#include "broker/core/message_id.h"
#include "broker/core/receipt.h"
#include "broker/core/record.h"

enum { TARGETS = 5, BUF_MAX = 1 << 20 };

/* Writes the record as the log does; `bytes` has room for it. */
static size_t write_record(const struct record *record, uint8_t *bytes)
{
    uint32_t header = record_put_header(record, bytes);
    memcpy(bytes + header, record->payload.data, record->payload.size);
    return header + record->payload.size;
}

static void fuzz_record(struct span input)
{
    struct record record;
    struct record again;
    uint64_t size = 0;
    bool peeked = record_peek(input, &record, &size);
    if (!record_get(input, &record)) {
        if (!peeked || input.size < size) {
            return;
        }
        /* Only the check is wrong: made right, it must be read. */
        record_peek(input, &record, &size);
        record.payload_hash = XXH3_64bits(record.payload.data, record.payload.size);
    }
    uint8_t *bytes = malloc(record_size(&record));
    FUZZ_REQUIRE(bytes != NULL);
    size_t written = write_record(&record, bytes);
    FUZZ_REQUIRE(written == record_size(&record));
    FUZZ_REQUIRE(record_get(span_of(bytes, written), &again));
    FUZZ_REQUIRE(again.sequence == record.sequence && again.shard_id == record.shard_id);
    FUZZ_REQUIRE(again.not_before_ms == record.not_before_ms);
    FUZZ_REQUIRE(again.expires_ms == record.expires_ms);
    FUZZ_REQUIRE(span_equal(again.payload, record.payload));
    bytes[record.sequence % written] ^= (uint8_t)(1U << record.published_ms % 8);
    FUZZ_REQUIRE(!record_get(span_of(bytes, written), &again));
    free(bytes);
}

static void fuzz_attributes(struct span input)
{
    if (!attributes_valid(input)) {
        return;
    }
    struct buf written;
    buf_init(&written, BUF_MAX);
    struct span rest = input;
    struct span name;
    struct span value;
    while (attributes_next(&rest, &name, &value)) {
        attributes_add(&written, name, value);
    }
    FUZZ_REQUIRE(span_equal(buf_span(&written), input));
    buf_deinit(&written);
}

static void fuzz_chunk(struct span input)
{
    struct chunk *chunk = calloc(1, sizeof *chunk);
    FUZZ_REQUIRE(chunk != NULL);
    if (chunk_decode(input, chunk)) {
        size_t total = 0;
        for (size_t state = 0; state < STATE_COUNT; state++) {
            total += chunk->counts[state];
        }
        FUZZ_REQUIRE(total == CHUNK_SIZE);
        for (size_t index = 0; index < CHUNK_SIZE; index++) {
            uint8_t state = chunk->entries[index].state;
            FUZZ_REQUIRE(state < STATE_COUNT);
            bool in_delivery = state != MESSAGE_NONE && state != MESSAGE_DONE;
            FUZZ_REQUIRE(bitmap_test(chunk->outstanding, index) == in_delivery);
        }
    }
    free(chunk);
}

static void fuzz_receipt(struct span input)
{
    struct receipt receipt;
    char text[RECEIPT_TEXT_SIZE];
    if (receipt_parse(input, &receipt)) {
        receipt_format(&receipt, text);
        FUZZ_REQUIRE(span_equal(span_text(text), input));
    }
}

static void fuzz_message_id(struct span input)
{
    uint32_t shard_id = 0;
    uint64_t sequence = 0;
    char text[MESSAGE_ID_SIZE];
    if (message_id_parse(input, &shard_id, &sequence)) {
        message_id_format(shard_id, sequence, text);
        FUZZ_REQUIRE(span_equal(span_text(text), input));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[TARGETS])(struct span) = {
        fuzz_record, fuzz_attributes, fuzz_chunk, fuzz_receipt, fuzz_message_id,
    };
    if (size > 0) {
        targets[data[0] % TARGETS](span_of(data + 1, size - 1));
    }
    return 0;
}
