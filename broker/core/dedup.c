#include "broker/core/dedup.h"

#include <xxhash.h>

#include "broker/base/bytes.h"

enum { DEDUP_VERSION = 1, DEDUP_VALUE_SIZE = 32 };

static void make_key(const struct topic *topic, struct span idempotency_key,
                     uint8_t out[DEDUP_KEY_SIZE])
{
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(idempotency_key.data, idempotency_key.size));
    bytes_put_be32(out, topic->id);
    memcpy(out + 4, hash.digest, sizeof hash.digest);
}

static bool is_valid(struct span value)
{
    return value.size == DEDUP_VALUE_SIZE && value.data[0] == DEDUP_VERSION;
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
    make_key(topic, message->idempotency_key, key);
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
    make_key(topic, message->idempotency_key, key);
    bytes_put_le32(value + 4, result->shard_id);
    bytes_put_le64(value + 8, result->sequence);
    bytes_put_le64(value + 16, message->payload_hash);
    bytes_put_le64(value + 24, expires_ms);
    TRY(state_put(core, STORE_DEDUP, span_of(key, sizeof key), span_of(value, sizeof value)));
    return due_add_dedup(core, key, expires_ms);
}

err_t dedup_expire(struct core *core, const uint8_t key[DEDUP_KEY_SIZE])
{
    struct span value;
    bool found = false;
    TRY(store_get(core->txn, STORE_DEDUP, span_of(key, DEDUP_KEY_SIZE), &value, &found));
    if (!found || (is_valid(value) && bytes_get_le64(value.data + 24) > core->now_ms)) {
        return NULL; /* the key was used again after its window and has a later row */
    }
    return state_remove(core, STORE_DEDUP, span_of(key, DEDUP_KEY_SIZE));
}
