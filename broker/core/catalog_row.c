#include "broker/core/catalog_row.h"

#include "broker/base/bytes.h"

/* Topic: version u8, state u8, name size u16, shard count u32, object version u32,
 * durability u8, zero 3 bytes, created u64, retention u64, retention bytes u64, dedup window u64,
 * name, shards. Shard: id u32,
 * number u32, volume u16, state u8, zero u8, hash first u64, hash last u64. Sub:   version u8,
 * state u8, name size u16, topic u32, object version u32, start u8, paused u8, ordering u8, mode
 * u8, created u64, start value u64, lease u64, retry delay u64, max attempts u32, max in flight
 * u32, name. META "catalog": version u8, zero 3 bytes, topic u32, shard u32, sub u32, zero 8 bytes,
 * applied u64, stamp u64. A record: key, size of the value u32 (UINT32_MAX: gone), value. */
enum {
    ROW_VERSION = 1,
    TOPIC_SIZE = 48,
    SUB_SIZE = 56,
};

void catalog_row_key(enum catalog_kind kind, uint32_t id, uint8_t out[CATALOG_KEY_SIZE])
{
    out[0] = (uint8_t)kind;
    bytes_put_be32(out + 1, id);
}

static void put_shard(const struct catalog_shard *shard, uint8_t *to)
{
    bytes_put_le32(to, shard->place.shard_id);
    bytes_put_le32(to + 4, shard->place.number);
    bytes_put_le16(to + 8, shard->volume);
    to[10] = shard->state;
    to[11] = 0;
    bytes_put_le64(to + 12, shard->place.hash_first);
    bytes_put_le64(to + 20, shard->place.hash_last);
}

void catalog_row_read_shard(const uint8_t *bytes, struct catalog_shard *out)
{
    *out = (struct catalog_shard){
        .place = {.shard_id = bytes_get_le32(bytes),
                  .number = bytes_get_le32(bytes + 4),
                  .hash_first = bytes_get_le64(bytes + 12),
                  .hash_last = bytes_get_le64(bytes + 20)},
        .volume = bytes_get_le16(bytes + 8),
        .state = bytes[10],
    };
}

void catalog_row_of_topic(const struct catalog_topic *topic, struct buf *out)
{
    uint8_t head[TOPIC_SIZE] = {ROW_VERSION, (uint8_t)topic->state};
    size_t name_size = strlen(topic->name);
    bytes_put_le16(head + 2, (uint16_t)name_size);
    bytes_put_le32(head + 4, topic->shard_count);
    bytes_put_le32(head + 8, topic->version);
    head[12] = (uint8_t)topic->settings.durability;
    bytes_put_le64(head + 16, topic->created_ms);
    bytes_put_le64(head + 24, topic->settings.retention_ms);
    bytes_put_le64(head + 32, topic->settings.retention_bytes);
    bytes_put_le64(head + 40, topic->settings.dedup_window_ms);
    buf_append(out, head, sizeof head);
    buf_append(out, topic->name, name_size);
    for (uint32_t index = 0; index < topic->shard_count; index++) {
        uint8_t shard[CATALOG_SHARD_SIZE];
        put_shard(&topic->shards[index], shard);
        buf_append(out, shard, sizeof shard);
    }
}

bool catalog_row_name_valid(struct span name)
{
    for (size_t index = 0; index < name.size; index++) {
        uint8_t c = name.data[index];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-') {
            return false;
        }
    }
    return name.size >= 1 && name.size <= CORE_NAME_MAX;
}

/* The head's state and name, which both kinds have at the same place. */
static bool read_head(struct span value, size_t head_size, enum catalog_state *state, char *name)
{
    if (value.size < head_size || value.data[0] != ROW_VERSION || value.data[1] == CATALOG_NONE ||
        value.data[1] > CATALOG_DELETING) {
        return false;
    }
    size_t name_size = bytes_get_le16(value.data + 2);
    struct span text = span_of(value.data + head_size, name_size);
    if (name_size > value.size - head_size || !catalog_row_name_valid(text)) {
        return false;
    }
    *state = (enum catalog_state)value.data[1];
    memcpy(name, text.data, text.size);
    name[text.size] = '\0';
    return true;
}

/* The open shards must divide the hash space, in order, without a hole. */
static bool shards_valid(struct span shards)
{
    uint64_t next = 0;
    bool covered = false;
    for (size_t at = 0; at < shards.size; at += CATALOG_SHARD_SIZE) {
        struct catalog_shard shard;
        catalog_row_read_shard(shards.data + at, &shard);
        if (covered || shard.place.shard_id == 0 || shard.state != CATALOG_SHARD_OPEN ||
            shard.place.hash_first != next || shard.place.hash_last < next) {
            return false;
        }
        covered = shard.place.hash_last == UINT64_MAX;
        next = shard.place.hash_last + 1;
    }
    return covered;
}

bool catalog_row_read_topic(struct span value, struct catalog_topic *out, struct span *shards)
{
    *out = (struct catalog_topic){0};
    if (!read_head(value, TOPIC_SIZE, &out->state, out->name)) {
        return false;
    }
    const uint8_t *head = value.data;
    size_t head_size = TOPIC_SIZE + strlen(out->name);
    out->shard_count = bytes_get_le32(head + 4);
    out->version = bytes_get_le32(head + 8);
    out->created_ms = bytes_get_le64(head + 16);
    out->settings.retention_ms = bytes_get_le64(head + 24);
    out->settings.retention_bytes = bytes_get_le64(head + 32);
    out->settings.dedup_window_ms = bytes_get_le64(head + 40);
    out->settings.durability = (enum durability)head[12];
    *shards = span_of(head + head_size, value.size - head_size);
    return head[12] < DURABILITY_COUNT && out->shard_count <= CORE_SHARDS_MAX &&
           shards->size == (size_t)out->shard_count * CATALOG_SHARD_SIZE && shards_valid(*shards);
}

void catalog_row_of_sub(const struct catalog_sub *sub, struct buf *out)
{
    uint8_t head[SUB_SIZE] = {ROW_VERSION, (uint8_t)sub->state};
    size_t name_size = strlen(sub->name);
    bytes_put_le16(head + 2, (uint16_t)name_size);
    bytes_put_le32(head + 4, sub->topic->id);
    bytes_put_le32(head + 8, sub->version);
    head[12] = (uint8_t)sub->start;
    head[13] = sub->settings.paused;
    head[14] = sub->settings.ordering;
    head[15] = sub->settings.mode;
    bytes_put_le64(head + 16, sub->created_ms);
    bytes_put_le64(head + 24, sub->start_value);
    bytes_put_le64(head + 32, sub->settings.lease_ms);
    bytes_put_le64(head + 40, sub->settings.retry_delay_ms);
    bytes_put_le32(head + 48, sub->settings.max_attempts);
    bytes_put_le32(head + 52, sub->settings.max_in_flight);
    buf_append(out, head, sizeof head);
    buf_append(out, sub->name, name_size);
}

bool catalog_row_read_sub(struct span value, struct catalog_sub *out, uint32_t *topic_id)
{
    *out = (struct catalog_sub){0};
    if (!read_head(value, SUB_SIZE, &out->state, out->name)) {
        return false;
    }
    const uint8_t *head = value.data;
    *topic_id = bytes_get_le32(head + 4);
    out->version = bytes_get_le32(head + 8);
    out->start = (enum start_at)head[12];
    out->created_ms = bytes_get_le64(head + 16);
    out->start_value = bytes_get_le64(head + 24);
    out->settings = (struct sub_settings){
        .lease_ms = bytes_get_le64(head + 32),
        .retry_delay_ms = bytes_get_le64(head + 40),
        .max_attempts = bytes_get_le32(head + 48),
        .max_in_flight = bytes_get_le32(head + 52),
        .ordering = head[14],
        .mode = head[15],
        .paused = head[13] != 0,
    };
    return head[12] <= START_SEQUENCE && value.size == SUB_SIZE + strlen(out->name);
}

void catalog_row_of_next(const struct catalog_next *next, uint8_t out[CATALOG_NEXT_SIZE])
{
    memset(out, 0, CATALOG_NEXT_SIZE);
    out[0] = ROW_VERSION;
    bytes_put_le32(out + 4, next->topic_id);
    bytes_put_le32(out + 8, next->shard_id);
    bytes_put_le32(out + 12, next->sub_id);
    bytes_put_le64(out + 24, next->applied);
    bytes_put_le64(out + 32, next->now_ms);
}

bool catalog_row_read_next(struct span value, struct catalog_next *out)
{
    if (value.size != CATALOG_NEXT_SIZE || value.data[0] != ROW_VERSION) {
        return false;
    }
    *out = (struct catalog_next){
        .topic_id = bytes_get_le32(value.data + 4),
        .shard_id = bytes_get_le32(value.data + 8),
        .sub_id = bytes_get_le32(value.data + 12),
        .applied = bytes_get_le64(value.data + 24),
        .now_ms = bytes_get_le64(value.data + 32),
    };
    return out->topic_id != 0 && out->shard_id != 0 && out->sub_id != 0;
}

void catalog_row_record(struct span key, struct span value, struct buf *out)
{
    uint8_t size[4];
    bytes_put_le32(size, value.size == 0 ? UINT32_MAX : (uint32_t)value.size);
    buf_append_span(out, key);
    buf_append(out, size, sizeof size);
    buf_append_span(out, value);
}
