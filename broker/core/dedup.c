#include "broker/core/dedup.h"

#include <xxhash.h>

#include "broker/base/bytes.h"

enum {
    DEDUP_VERSION = 1,
    DEDUP_BATCH_VERSION = 2,
    DEDUP_VALUE_SIZE = 32,
    DEDUP_RUN_SIZE = 16,
    MESSAGE_SEED = 0, /* of the hash of a key: what it is the key of */
    BATCH_SEED = 1,
};

static void make_key(const struct topic *topic, struct span idempotency_key, uint64_t seed,
                     uint8_t out[DEDUP_KEY_SIZE])
{
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(
        &hash, XXH3_128bits_withSeed(idempotency_key.data, idempotency_key.size, seed));
    bytes_put_be32(out, topic->id);
    memcpy(out + 4, hash.digest, sizeof hash.digest);
}

static bool is_valid(struct span value)
{
    return value.size == DEDUP_VALUE_SIZE && value.data[0] == DEDUP_VERSION;
}

static bool is_valid_batch(struct span value)
{
    return value.size > DEDUP_VALUE_SIZE && value.data[0] == DEDUP_BATCH_VERSION &&
           (value.size - DEDUP_VALUE_SIZE) % DEDUP_RUN_SIZE == 0;
}

bool dedup_applies(const struct topic *topic, const struct message_in *message)
{
    return message->idempotency_key.size > 0 && topic->settings.dedup_window_ms > 0;
}

uint64_t dedup_hash(struct span idempotency_key)
{
    return XXH3_64bits(idempotency_key.data, idempotency_key.size);
}

err_t dedup_look(struct core *core, const struct topic *topic, const struct message_in *message,
                 struct publish_result *result, enum dedup_verdict *out)
{
    uint8_t key[DEDUP_KEY_SIZE];
    struct span value;
    bool found = false;
    make_key(topic, message->idempotency_key, MESSAGE_SEED, key);
    TRY(store_get(core->txn, STORE_DEDUP, span_of(key, sizeof key), &value, &found));
    *out = DEDUP_NEW;
    if (!found || !is_valid(value) || bytes_get_le64(value.data + 24) <= core->now_ms) {
        return NULL;
    }
    if (bytes_get_le64(value.data + 16) != message->payload_hash) {
        *out = DEDUP_REUSED;
        return NULL;
    }
    result->shard_id = bytes_get_le32(value.data + 4);
    result->sequence = bytes_get_le64(value.data + 8);
    const struct shard *shard = state_shard(core, result->shard_id);
    result->shard_number = shard == NULL ? 0 : shard->number;
    result->replayed = true;
    *out = DEDUP_REPLAY;
    return NULL;
}

err_t dedup_note(struct core *core, const struct topic *topic, const struct message_in *message,
                 const struct publish_result *result)
{
    uint8_t key[DEDUP_KEY_SIZE];
    uint8_t value[DEDUP_VALUE_SIZE] = {DEDUP_VERSION};
    uint64_t expires_ms = state_later(core->now_ms, topic->settings.dedup_window_ms);
    make_key(topic, message->idempotency_key, MESSAGE_SEED, key);
    bytes_put_le32(value + 4, result->shard_id);
    bytes_put_le64(value + 8, result->sequence);
    bytes_put_le64(value + 16, message->payload_hash);
    bytes_put_le64(value + 24, expires_ms);
    TRY(state_put(core, STORE_DEDUP, span_of(key, sizeof key), span_of(value, sizeof value)));
    return due_add_dedup(core, key, expires_ms);
}

/* ---- batches --------------------------------------------------------------------------------- */

bool dedup_applies_to_batch(const struct topic *topic, const struct publish *publish)
{
    return publish->batch_key.size > 0 && topic->settings.dedup_window_ms > 0;
}

static uint64_t batch_hash(const struct publish *publish)
{
    uint64_t hash = publish->count;
    for (uint32_t index = 0; index < publish->count; index++) {
        uint8_t bytes[8];
        bytes_put_le64(bytes, publish->messages[index].payload_hash);
        hash = XXH3_64bits_withSeed(bytes, sizeof bytes, hash);
    }
    return hash;
}

/* Fills the results from the runs of a row; false: they are not those of so many messages. */
static bool read_runs(const struct core *core, struct span runs, const struct publish *publish)
{
    uint32_t index = 0;
    for (size_t at = 0; at < runs.size; at += DEDUP_RUN_SIZE) {
        uint32_t shard_id = bytes_get_le32(runs.data + at);
        uint32_t count = bytes_get_le32(runs.data + at + 4);
        uint64_t first = bytes_get_le64(runs.data + at + 8);
        const struct shard *shard = shard_id == 0 ? NULL : state_shard(core, shard_id);
        uint32_t number = shard == NULL ? 0 : shard->number;
        if (count > publish->count - index) {
            return false;
        }
        for (uint32_t nth = 0; nth < count; nth++) {
            struct publish_result *result = &publish->results[index++];
            *result = (struct publish_result){.code = (enum err_code)first};
            if (shard_id != 0) {
                *result = (struct publish_result){.replayed = true,
                                                  .shard_id = shard_id,
                                                  .shard_number = number,
                                                  .sequence = first + nth};
            }
        }
    }
    return index == publish->count;
}

err_t dedup_look_batch(struct core *core, const struct topic *topic, const struct publish *publish,
                       enum dedup_verdict *out)
{
    uint8_t key[DEDUP_KEY_SIZE];
    struct span value;
    bool found = false;
    make_key(topic, publish->batch_key, BATCH_SEED, key);
    TRY(store_get(core->txn, STORE_DEDUP, span_of(key, sizeof key), &value, &found));
    *out = DEDUP_NEW;
    if (!found || !is_valid_batch(value) || bytes_get_le64(value.data + 24) <= core->now_ms) {
        return NULL;
    }
    struct span runs = span_of(value.data + DEDUP_VALUE_SIZE, value.size - DEDUP_VALUE_SIZE);
    bool same = bytes_get_le32(value.data + 4) == publish->count &&
                bytes_get_le64(value.data + 16) == batch_hash(publish);
    *out = same && read_runs(core, runs, publish) ? DEDUP_REPLAY : DEDUP_REUSED;
    return NULL;
}

/* What a result is in a run beside its shard: its sequence, or its code. */
static uint64_t run_value(const struct publish_result *result)
{
    return result->code == ERR_NONE ? result->sequence : (uint64_t)result->code;
}

static void put_runs(struct buf *row, const struct publish *publish)
{
    uint8_t *run = NULL;
    uint32_t count = 0;
    for (uint32_t index = 0; index < publish->count; index++) {
        const struct publish_result *result = &publish->results[index];
        uint32_t shard_id = result->code == ERR_NONE ? result->shard_id : 0;
        bool goes_on = run != NULL && bytes_get_le32(run) == shard_id &&
                       bytes_get_le64(run + 8) + (shard_id == 0 ? 0 : count) == run_value(result);
        if (!goes_on) {
            run = buf_extend(row, DEDUP_RUN_SIZE);
            count = 0;
            if (run == NULL) {
                return; /* the buffer says so */
            }
            bytes_put_le32(run, shard_id);
            bytes_put_le64(run + 8, run_value(result));
        }
        count++;
        bytes_put_le32(run + 4, count);
    }
}

err_t dedup_note_batch(struct core *core, const struct topic *topic, const struct publish *publish)
{
    uint8_t key[DEDUP_KEY_SIZE];
    struct buf *row = &core->scratch;
    uint64_t expires_ms = state_later(core->now_ms, topic->settings.dedup_window_ms);
    make_key(topic, publish->batch_key, BATCH_SEED, key);
    buf_reset(row);
    uint8_t *head = buf_extend(row, DEDUP_VALUE_SIZE);
    if (head != NULL) {
        memset(head, 0, DEDUP_VALUE_SIZE);
        head[0] = DEDUP_BATCH_VERSION;
        bytes_put_le32(head + 4, publish->count);
        bytes_put_le64(head + 16, batch_hash(publish));
        bytes_put_le64(head + 24, expires_ms);
        put_runs(row, publish);
    }
    if (row->failed) {
        return ERR(MEMORY, "no memory for the row of a batch key");
    }
    TRY(state_put(core, STORE_DEDUP, span_of(key, sizeof key), buf_span(row)));
    return due_add_dedup(core, key, expires_ms);
}

/* ---- both ------------------------------------------------------------------------------------ */

err_t dedup_expire(struct core *core, const uint8_t key[DEDUP_KEY_SIZE])
{
    struct span value;
    bool found = false;
    TRY(store_get(core->txn, STORE_DEDUP, span_of(key, DEDUP_KEY_SIZE), &value, &found));
    bool sound = found && (is_valid(value) || is_valid_batch(value));
    if (!found || (sound && bytes_get_le64(value.data + 24) > core->now_ms)) {
        return NULL; /* the key was used again after its window and has a later row */
    }
    return state_remove(core, STORE_DEDUP, span_of(key, DEDUP_KEY_SIZE));
}
