#include "broker/core/topic.h"

#include <assert.h>

#include "broker/base/bytes.h"
#include "broker/core/block.h"
#include "broker/core/chunk.h"
#include "broker/core/delivery.h"
#include "broker/core/release.h"
#include "broker/core/retention.h"

/* TOPIC:    topic u32 -> version u8, dropping u8, durability u8, zero u8, retention u64, retention
 * bytes u64, dedup window u64 SHARD:    shard u32 -> version u8, zero 3 bytes, topic u32, number
 * u32, zero u32, hash first u64, hash last u64, next u64, retained from u64, retained bytes u64
 * SUB:      sub u32 -> version u8, flags u8, ordering u8, mode u8, topic u32, lease u64, retry
 * delay u64, max attempts u32, max in flight u32 DELIVERY: sub u32, shard u32 -> version u8, zero 3
 * bytes, epoch u32, grant u32, zero u32, cursor u64, then u64 counts of leased, scheduled, ready,
 * blocked, dead
 */
enum {
    ROW_VERSION = 1,
    TOPIC_SIZE = 28,
    SHARD_SIZE = 56,
    SUB_SIZE = 32,
    LANE_SIZE = 64,
    SUB_DROPPING = 1,
    SUB_PAUSED = 2,
};

bool topic_retains(const struct topic *topic)
{
    return !topic->dropping &&
           (topic->settings.retention_ms != 0 || topic->settings.retention_bytes != 0);
}

bool topic_answers_early(const struct core *core, const struct topic *topic)
{
    return topic->settings.durability == DURABILITY_RELAXED && topic->put_batch != core->batch;
}

uint64_t topic_shard_floor(const struct shard *shard)
{
    uint64_t floor = topic_retains(shard->topic) ? shard->retained_from : shard->next_sequence;
    for (size_t index = 0; index < shard->lanes.count; index++) {
        const struct lane *lane = shard->lanes.items[index];
        if (!lane->sub->dropping && lane->cursor < floor) {
            floor = lane->cursor;
        }
    }
    return floor;
}

void topic_mark_shard(struct core *core, struct shard *shard)
{
    core->marks++;
    if (!list_linked(&shard->dirty)) {
        list_append(&core->dirty_shards, &shard->dirty);
    }
}

void topic_mark_lane(struct core *core, struct lane *lane)
{
    core->marks++;
    bitmap_set(lane->sub->dirty_lanes, lane->slot);
    if (!list_linked(&lane->sub->dirty)) {
        list_append(&core->dirty_subs, &lane->sub->dirty);
    }
}

static err_t topic_write(struct core *core, const struct topic *topic)
{
    uint8_t key[4];
    uint8_t value[TOPIC_SIZE] = {ROW_VERSION, topic->dropping, (uint8_t)topic->settings.durability};
    bytes_put_be32(key, topic->id);
    bytes_put_le64(value + 4, topic->settings.retention_ms);
    bytes_put_le64(value + 12, topic->settings.retention_bytes);
    bytes_put_le64(value + 20, topic->settings.dedup_window_ms);
    return state_put(core, STORE_TOPIC, span_of(key, sizeof key), span_of(value, sizeof value));
}

err_t topic_shard_write(struct core *core, const struct shard *shard)
{
    uint8_t key[4];
    uint8_t value[SHARD_SIZE] = {ROW_VERSION};
    bytes_put_be32(key, shard->id);
    bytes_put_le32(value + 4, shard->topic->id);
    bytes_put_le32(value + 8, shard->number);
    bytes_put_le64(value + 16, shard->hash_first);
    bytes_put_le64(value + 24, shard->hash_last);
    bytes_put_le64(value + 32, shard->next_sequence);
    bytes_put_le64(value + 40, shard->retained_from);
    bytes_put_le64(value + 48, shard->retained_bytes);
    return state_put(core, STORE_SHARD, span_of(key, sizeof key), span_of(value, sizeof value));
}

static err_t sub_write(struct core *core, const struct sub *sub)
{
    uint8_t key[4];
    uint8_t flags =
        (uint8_t)((sub->dropping ? SUB_DROPPING : 0) | (sub->settings.paused ? SUB_PAUSED : 0));
    uint8_t value[SUB_SIZE] = {ROW_VERSION, flags, sub->settings.ordering, sub->settings.mode};
    bytes_put_be32(key, sub->id);
    bytes_put_le32(value + 4, sub->topic->id);
    bytes_put_le64(value + 8, sub->settings.lease_ms);
    bytes_put_le64(value + 16, sub->settings.retry_delay_ms);
    bytes_put_le32(value + 24, sub->settings.max_attempts);
    bytes_put_le32(value + 28, sub->settings.max_in_flight);
    return state_put(core, STORE_SUB, span_of(key, sizeof key), span_of(value, sizeof value));
}

static void lane_key(const struct lane *lane, uint8_t out[8])
{
    bytes_put_be32(out, lane->sub->id);
    bytes_put_be32(out + 4, lane->shard->id);
}

err_t topic_lane_write(struct core *core, const struct lane *lane)
{
    uint8_t key[8];
    uint8_t value[LANE_SIZE] = {ROW_VERSION};
    lane_key(lane, key);
    bytes_put_le32(value + 4, lane->epoch);
    bytes_put_le32(value + 8, lane->grant);
    bytes_put_le64(value + 16, lane->cursor);
    for (uint8_t state = MESSAGE_LEASED; state <= MESSAGE_DEAD; state++) {
        bytes_put_le64(value + 16 + 8 * state, lane->counts[state]);
    }
    return state_put(core, STORE_DELIVERY, span_of(key, sizeof key), span_of(value, sizeof value));
}

/* Where an item with this id belongs in an array ordered by id. */
#define PLACE_BY_ID(array, type, wanted)                                                           \
    __extension__({                                                                                \
        size_t place_ = (array)->count;                                                            \
        while (place_ > 0 && ((const type *)(array)->items[place_ - 1])->id > (wanted)) {          \
            place_--;                                                                              \
        }                                                                                          \
        place_;                                                                                    \
    })

/* What is listed in order is found when everything is forgotten, also when there is no memory for
 * the rest. */
static err_t topic_add(struct core *core, uint32_t id, struct topic **out)
{
    struct array *by_id = &core->topics_by_id;
    struct topic *topic = pool_take(&core->topic_pool);
    if (topic == NULL) {
        return ERR(MEMORY, "no memory for a topic");
    }
    topic->id = id;
    array_init(&topic->shards);
    array_init(&topic->subs);
    if (!array_insert(by_id, PLACE_BY_ID(by_id, struct topic, id), topic) ||
        !map_put(&core->topics, id, topic)) {
        return ERR(MEMORY, "no memory for a topic");
    }
    *out = topic;
    return NULL;
}

static err_t shard_add(struct core *core, struct topic *topic, uint32_t id, struct shard **out)
{
    struct shard *shard = pool_take(&core->shard_pool);
    if (shard == NULL) {
        return ERR(MEMORY, "no memory for a shard");
    }
    shard->id = id;
    shard->topic = topic;
    array_init(&shard->lanes);
    map_init(&shard->blocks);
    list_init(&shard->sweeps);
    if (!array_insert(&topic->shards, PLACE_BY_ID(&topic->shards, struct shard, id), shard) ||
        !map_put(&core->shards, id, shard)) {
        return ERR(MEMORY, "no memory for a shard");
    }
    *out = shard;
    return NULL;
}

static err_t sub_add(struct core *core, struct topic *topic, uint32_t id, struct sub **out)
{
    struct sub *sub = pool_take(&core->sub_pool);
    if (sub == NULL) {
        return ERR(MEMORY, "no memory for a subscription");
    }
    sub->id = id;
    sub->topic = topic;
    array_init(&sub->lanes);
    if (!array_insert(&topic->subs, PLACE_BY_ID(&topic->subs, struct sub, id), sub) ||
        !map_put(&core->subs, id, sub)) {
        return ERR(MEMORY, "no memory for a subscription");
    }
    *out = sub;
    return NULL;
}

/* Lanes are added in order of shard id, as shard ids only grow. */
static err_t lane_add(struct core *core, struct sub *sub, struct shard *shard, uint64_t cursor,
                      struct lane **out)
{
    struct lane *lane = pool_take(&core->lane_pool);
    size_t words = sub->words;
    if (lane == NULL) {
        return ERR(MEMORY, "no memory for a subscription's shard");
    }
    /* Whole before anything else knows it: what runs out of memory below is taken apart again. */
    lane->sub = sub;
    lane->shard = shard;
    lane->slot = sub->lanes.count;
    lane->cursor = cursor;
    lane->epoch = 1;
    map_init(&lane->chunks);
    list_init(&lane->dirty_chunks);
    assert(lane->slot == 0 ||
           ((const struct lane *)sub->lanes.items[lane->slot - 1])->shard->id < shard->id);
    if (!array_append(&sub->lanes, lane) || !array_append(&shard->lanes, lane) ||
        !bitmap_grow(&sub->available, &words, sub->lanes.count) ||
        !bitmap_grow(&sub->dirty_lanes, &sub->words, sub->lanes.count)) {
        return ERR(MEMORY, "no memory for a subscription's shard");
    }
    *out = lane;
    return NULL;
}

static err_t place_shard(struct core *core, struct topic *topic, const struct shard_place *place)
{
    struct shard *shard = state_shard(core, place->shard_id);
    if (shard != NULL) {
        return NULL;
    }
    TRY(shard_add(core, topic, place->shard_id, &shard));
    topic->put_batch = core->batch;
    shard->number = place->number;
    shard->hash_first = place->hash_first;
    shard->hash_last = place->hash_last;
    topic_mark_shard(core, shard);
    for (size_t index = 0; index < topic->subs.count; index++) {
        struct sub *sub = topic->subs.items[index];
        struct lane *lane = NULL;
        if (!sub->dropping) {
            TRY(lane_add(core, sub, shard, 0, &lane));
            topic_mark_lane(core, lane);
        }
    }
    return NULL;
}

/* Retention begins with what comes now, and gives up what it kept when it ends. */
static err_t change_retention(struct core *core, struct topic *topic, bool retained)
{
    bool retains = topic_retains(topic);
    for (size_t index = 0; index < topic->shards.count; index++) {
        struct shard *shard = topic->shards.items[index];
        if (retained && !retains) {
            TRY(release_sweep(core, shard, 0, shard->retained_from, shard->next_sequence));
        }
        if (retained != retains) {
            shard->retained_from = shard->next_sequence;
            shard->retained_bytes = 0;
            topic_mark_shard(core, shard);
        }
        TRY(retention_schedule(core, shard, retains ? 0 : UINT64_MAX));
    }
    return NULL;
}

static bool topic_settings_equal(const struct topic_settings *a, const struct topic_settings *b)
{
    return a->retention_ms == b->retention_ms && a->retention_bytes == b->retention_bytes &&
           a->dedup_window_ms == b->dedup_window_ms && a->durability == b->durability;
}

/* Each start puts every topic and subscription again: what is as it was is not written, so that a
 * start works on a full disk. */
err_t topic_put(struct core *core, const struct topic_put *put, struct reply *reply)
{
    struct topic *topic = state_topic(core, put->topic_id);
    bool created = topic == NULL;
    if (created) {
        TRY(topic_add(core, put->topic_id, &topic));
    }
    if (topic->dropping) {
        reply_fail(reply, ERR_CONFLICT, "the topic is being deleted");
        return NULL;
    }
    bool retained = topic_retains(topic);
    if (created || !topic_settings_equal(&topic->settings, &put->settings)) {
        topic->settings = put->settings;
        topic->put_batch = core->batch;
        TRY(topic_write(core, topic));
    }
    for (uint32_t index = 0; index < put->shard_count; index++) {
        TRY(place_shard(core, topic, &put->shards[index]));
    }
    return change_retention(core, topic, retained);
}

static err_t start_cursor(struct core *core, const struct shard *shard, const struct sub_put *put,
                          uint64_t *out)
{
    uint64_t floor = topic_shard_floor(shard);
    switch (put->start) {
    case START_LATEST:
    case START_SEQUENCE:
        *out = shard->next_sequence;
        return NULL;
    case START_EARLIEST:
        *out = floor;
        return NULL;
    case START_TIME:
        return retention_find_time(core, shard, floor, put->start_value, out);
    }
    return NULL;
}

static bool sub_settings_equal(const struct sub_settings *a, const struct sub_settings *b)
{
    return a->lease_ms == b->lease_ms && a->retry_delay_ms == b->retry_delay_ms &&
           a->max_attempts == b->max_attempts && a->max_in_flight == b->max_in_flight &&
           a->ordering == b->ordering && a->mode == b->mode && a->paused == b->paused;
}

err_t topic_sub_put(struct core *core, const struct sub_put *put, struct reply *reply)
{
    struct topic *topic = state_topic(core, put->topic_id);
    struct sub *sub = state_sub(core, put->sub_id);
    if (topic == NULL || topic->dropping || (sub != NULL && sub->dropping)) {
        reply_fail(reply, ERR_NOT_FOUND, "topic: it does not exist");
        return NULL;
    }
    bool created = sub == NULL;
    if (created) {
        TRY(sub_add(core, topic, put->sub_id, &sub));
    }
    if (created || !sub_settings_equal(&sub->settings, &put->settings)) {
        sub->settings = put->settings;
        TRY(sub_write(core, sub));
    }
    for (size_t index = 0; created && index < topic->shards.count; index++) {
        struct shard *shard = topic->shards.items[index];
        uint64_t cursor = 0;
        struct lane *lane = NULL;
        TRY(start_cursor(core, shard, put, &cursor));
        TRY(lane_add(core, sub, shard, cursor, &lane));
        state_update_available(lane);
        topic_mark_lane(core, lane);
    }
    /* It may have been resumed, or given more room in flight. */
    return created ? NULL : state_wake(core, sub);
}

err_t topic_sub_drop(struct core *core, uint32_t sub_id)
{
    struct sub *sub = state_sub(core, sub_id);
    if (sub == NULL || sub->dropping) {
        return NULL;
    }
    sub->dropping = true;
    list_append(&core->dropping_subs, &sub->dropping_link);
    core->work = true;
    TRY(state_wake(core, sub)); /* whoever waits for it learns that it is gone */
    return sub_write(core, sub);
}

err_t topic_drop(struct core *core, uint32_t topic_id)
{
    struct topic *topic = state_topic(core, topic_id);
    if (topic == NULL || topic->dropping) {
        return NULL;
    }
    bool retained = topic_retains(topic);
    topic->dropping = true;
    TRY(topic_write(core, topic));
    TRY(change_retention(core, topic, retained));
    for (size_t index = 0; index < topic->subs.count; index++) {
        TRY(topic_sub_drop(core, ((struct sub *)topic->subs.items[index])->id));
    }
    list_append(&core->dropping_topics, &topic->dropping_link);
    core->work = true;
    return NULL;
}

static void array_remove_item(struct array *array, const void *item)
{
    for (size_t index = array->count; index > 0; index--) { /* most go last first */
        if (array->items[index - 1] == item) {
            array_remove(array, index - 1);
            return;
        }
    }
}

static void lane_forget(struct core *core, struct lane *lane)
{
    chunk_forget_all(core, lane);
    array_remove_item(&lane->shard->lanes, lane);
    array_remove_item(&lane->sub->lanes, lane);
    pool_give(&core->lane_pool, lane);
}

static void sub_forget(struct core *core, struct sub *sub)
{
    while (sub->lanes.count > 0) {
        lane_forget(core, sub->lanes.items[sub->lanes.count - 1]);
    }
    if (list_linked(&sub->dirty)) {
        list_remove(&sub->dirty);
    }
    if (list_linked(&sub->dropping_link)) {
        list_remove(&sub->dropping_link);
    }
    array_deinit(&sub->lanes);
    bitmap_free(sub->available);
    bitmap_free(sub->dirty_lanes);
    array_remove_item(&sub->topic->subs, sub);
    map_remove(&core->subs, sub->id);
    pool_give(&core->sub_pool, sub);
}

static void shard_forget(struct core *core, struct shard *shard)
{
    block_forget(core, shard);
    if (list_linked(&shard->dirty)) {
        list_remove(&shard->dirty);
    }
    if (shard->retention.index != 0) {
        heap_remove(&core->retention, &shard->retention);
    }
    array_deinit(&shard->lanes);
    array_remove_item(&shard->topic->shards, shard);
    map_remove(&core->shards, shard->id);
    pool_give(&core->shard_pool, shard);
}

static void topic_forget(struct core *core, struct topic *topic)
{
    if (list_linked(&topic->dropping_link)) {
        list_remove(&topic->dropping_link);
    }
    array_deinit(&topic->shards);
    array_deinit(&topic->subs);
    map_remove(&core->topics, topic->id);
    array_remove_item(&core->topics_by_id, topic);
    pool_give(&core->topic_pool, topic);
}

/* Removes the last lane of a dropped subscription: first its chunks, one a step, then its row. */
static err_t drop_lane_step(struct core *core, struct lane *lane)
{
    bool found = false;
    TRY(delivery_drop_first_chunk(core, lane, &found));
    if (found) {
        return NULL;
    }
    struct shard *shard = lane->shard;
    uint64_t cursor = lane->cursor;
    uint8_t key[8];
    lane_key(lane, key);
    TRY(state_remove(core, STORE_DELIVERY, span_of(key, sizeof key)));
    uint32_t sub_id = lane->sub->id;
    lane_forget(core, lane);
    return release_sweep(core, shard, sub_id, cursor, shard->next_sequence);
}

static err_t drop_sub_step(struct core *core, struct sub *sub)
{
    if (sub->lanes.count > 0) {
        return drop_lane_step(core, sub->lanes.items[sub->lanes.count - 1]);
    }
    uint8_t key[4];
    bytes_put_be32(key, sub->id);
    TRY(state_remove(core, STORE_SUB, span_of(key, sizeof key)));
    sub_forget(core, sub);
    return NULL;
}

static err_t drop_shard(struct core *core, struct shard *shard)
{
    uint8_t key[4];
    bytes_put_be32(key, shard->id);
    TRY(block_drop_last(core, shard));
    TRY(state_remove(core, STORE_SHARD, span_of(key, sizeof key)));
    shard_forget(core, shard);
    return NULL;
}

static err_t drop_topic_step(struct core *core, struct topic *topic, bool *worked)
{
    if (topic->shards.count > 0) {
        struct shard *shard = topic->shards.items[topic->shards.count - 1];
        /* Its messages are released first, by the sweeps. */
        *worked = list_empty(&shard->sweeps) && topic->subs.count == 0;
        return *worked ? drop_shard(core, shard) : NULL;
    }
    *worked = topic->subs.count == 0;
    if (*worked) {
        uint8_t key[4];
        bytes_put_be32(key, topic->id);
        TRY(state_remove(core, STORE_TOPIC, span_of(key, sizeof key)));
        topic_forget(core, topic);
    }
    return NULL;
}

err_t topic_drop_step(struct core *core, bool *worked)
{
    struct list_link *link = list_first(&core->dropping_subs);
    *worked = link != NULL;
    if (link != NULL) {
        return drop_sub_step(core, container_of(link, struct sub, dropping_link));
    }
    link = list_first(&core->dropping_topics);
    return link == NULL
               ? NULL
               : drop_topic_step(core, container_of(link, struct topic, dropping_link), worked);
}

void topic_forget_all(struct core *core)
{
    const struct array *topics = &core->topics_by_id;
    while (topics->count > 0) {
        struct topic *topic = topics->items[topics->count - 1];
        while (topic->subs.count > 0) {
            sub_forget(core, topic->subs.items[topic->subs.count - 1]);
        }
        while (topic->shards.count > 0) {
            shard_forget(core, topic->shards.items[topic->shards.count - 1]);
        }
        topic_forget(core, topic);
    }
}

typedef err_t (*load_row)(struct core *core, uint32_t id, const uint8_t *value);

/* Calls `row` for each entry of a table whose key is an id and whose value has this size. */
static err_t load_table(struct core *core, enum store_table table, size_t value_size, load_row row)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    bool found = false;
    const uint8_t zero = 0;
    TRY(store_cursor_open(core->txn, table, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of(&zero, 1), &found));
    while (found) {
        if (cursor->key.size != 4 || cursor->value.size != value_size ||
            cursor->value.data[0] != ROW_VERSION) {
            err = ERR(CORRUPT, "a row of table %d is damaged", (int)table);
            goto out;
        }
        TRY_OUT(row(core, bytes_get_be32(cursor->key.data), cursor->value.data));
        TRY_OUT(store_cursor_next(cursor, &found));
    }
out:
    store_cursor_close(cursor);
    return err;
}

static err_t load_topic(struct core *core, uint32_t id, const uint8_t *value)
{
    struct topic *topic = NULL;
    if (value[2] >= DURABILITY_COUNT) {
        return ERR(CORRUPT, "topic %u has durability %u", id, value[2]);
    }
    TRY(topic_add(core, id, &topic));
    topic->dropping = value[1] != 0;
    topic->settings.durability = (enum durability)value[2];
    topic->settings.retention_ms = bytes_get_le64(value + 4);
    topic->settings.retention_bytes = bytes_get_le64(value + 12);
    topic->settings.dedup_window_ms = bytes_get_le64(value + 20);
    if (topic->dropping) {
        list_append(&core->dropping_topics, &topic->dropping_link);
        core->work = true;
    }
    return NULL;
}

static err_t load_shard(struct core *core, uint32_t id, const uint8_t *value)
{
    struct topic *topic = state_topic(core, bytes_get_le32(value + 4));
    struct shard *shard = NULL;
    if (topic == NULL) {
        return ERR(CORRUPT, "shard %u belongs to no topic", id);
    }
    TRY(shard_add(core, topic, id, &shard));
    shard->number = bytes_get_le32(value + 8);
    shard->hash_first = bytes_get_le64(value + 16);
    shard->hash_last = bytes_get_le64(value + 24);
    shard->next_sequence = bytes_get_le64(value + 32);
    shard->retained_from = bytes_get_le64(value + 40);
    shard->retained_bytes = bytes_get_le64(value + 48);
    return retention_schedule(core, shard, topic_retains(topic) ? 0 : UINT64_MAX);
}

static err_t load_lane(struct core *core, struct sub *sub, struct shard *shard)
{
    const struct lane names = {.sub = sub, .shard = shard};
    uint8_t key[8];
    lane_key(&names, key);
    struct span value;
    bool found = false;
    TRY(store_get(core->txn, STORE_DELIVERY, span_of(key, sizeof key), &value, &found));
    if (!found) {
        return NULL; /* already removed by a drop */
    }
    if (value.size != LANE_SIZE || value.data[0] != ROW_VERSION) {
        return ERR(CORRUPT, "the cursor of subscription %u on shard %u is damaged", sub->id,
                   shard->id);
    }
    struct lane *lane = NULL;
    TRY(lane_add(core, sub, shard, bytes_get_le64(value.data + 16), &lane));
    lane->epoch = bytes_get_le32(value.data + 4);
    lane->grant = bytes_get_le32(value.data + 8);
    for (uint8_t state = MESSAGE_LEASED; state <= MESSAGE_DEAD; state++) {
        lane->counts[state] = bytes_get_le64(value.data + 16 + 8 * state);
    }
    return NULL;
}

static err_t load_sub(struct core *core, uint32_t id, const uint8_t *value)
{
    struct topic *topic = state_topic(core, bytes_get_le32(value + 4));
    struct sub *sub = NULL;
    if (topic == NULL) {
        return ERR(CORRUPT, "subscription %u belongs to no topic", id);
    }
    TRY(sub_add(core, topic, id, &sub));
    sub->dropping = (value[1] & SUB_DROPPING) != 0;
    sub->settings = (struct sub_settings){
        .paused = (value[1] & SUB_PAUSED) != 0,
        .ordering = value[2],
        .mode = value[3],
        .lease_ms = bytes_get_le64(value + 8),
        .retry_delay_ms = bytes_get_le64(value + 16),
        .max_attempts = bytes_get_le32(value + 24),
        .max_in_flight = bytes_get_le32(value + 28),
    };
    if (sub->dropping) {
        list_append(&core->dropping_subs, &sub->dropping_link);
        core->work = true;
    }
    for (size_t index = 0; index < topic->shards.count; index++) {
        TRY(load_lane(core, sub, topic->shards.items[index]));
    }
    return NULL;
}

err_t topic_load(struct core *core)
{
    TRY(load_table(core, STORE_TOPIC, TOPIC_SIZE, load_topic));
    TRY(load_table(core, STORE_SHARD, SHARD_SIZE, load_shard));
    return load_table(core, STORE_SUB, SUB_SIZE, load_sub);
}
