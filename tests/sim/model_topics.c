/* The model's topics, shards and subscriptions. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/bitmap.h"
#include "tests/sim/model_parts.h"

static bool retains(const struct topic_settings *settings)
{
    return settings->retention_ms != 0 || settings->retention_bytes != 0;
}

static bool settings_equal(const struct topic_settings *a, const struct topic_settings *b)
{
    return a->retention_ms == b->retention_ms && a->retention_bytes == b->retention_bytes &&
           a->dedup_window_ms == b->dedup_window_ms && a->durability == b->durability;
}

bool model_topic_early(const struct model_topic *topic)
{
    return topic->settings.durability == DURABILITY_RELAXED && !topic->put;
}

uint64_t model_floor(const struct model_shard *shard)
{
    const struct model_topic *topic = shard->topic;
    uint64_t floor = retains(&topic->settings) ? shard->retained_from : shard->count;
    for (size_t index = 0; index < topic->subs.count; index++) {
        const struct model_lane *lane = model_lane(topic->subs.items[index], shard);
        floor = lane->cursor < floor ? lane->cursor : floor;
    }
    return floor;
}

uint64_t model_find_time(const struct model_shard *shard, uint64_t from, uint64_t time_ms)
{
    while (from < shard->count && shard->messages[from].published_ms < time_ms) {
        from++;
    }
    return from;
}

static void keep(bool ok)
{
    assert(ok); /* the simulation has memory or ends */
}

/* What was published before a subscription's start is nothing to it. */
static void lane_add(struct model_sub *sub, struct model_shard *shard, uint64_t cursor)
{
    struct model_lane *lane = calloc(1, sizeof *lane);
    keep(lane != NULL);
    *lane = (struct model_lane){.sub = sub, .shard = shard, .due_ms = UINT64_MAX};
    for (uint64_t sequence = 0; sequence < cursor; sequence++) {
        model_move(lane, sequence, MESSAGE_DONE);
    }
    lane->cursor = cursor;
    keep(array_append(&sub->lanes, lane));
}

static void lane_free(struct model_lane *lane)
{
    free(lane->entries);
    bitmap_free(lane->ready);
    bitmap_free(lane->busy);
    bitmap_free(lane->seen);
    free(lane);
}

static void shard_add(struct model *model, struct model_topic *topic,
                      const struct shard_place *place)
{
    struct model_shard *shard = calloc(1, sizeof *shard);
    keep(shard != NULL);
    shard->topic = topic;
    shard->place = *place;
    shard->index = topic->shards.count;
    topic->put = true;
    keep(array_append(&topic->shards, shard) && map_put(&model->shard_ids, place->shard_id, shard));
    for (size_t index = 0; index < topic->subs.count; index++) {
        lane_add(topic->subs.items[index], shard, 0);
    }
}

void model_judge_topic_put(struct model *model, const struct topic_put *put,
                           const struct reply *reply)
{
    bool dropped = map_get(&model->dropped_ids, put->topic_id) != NULL;
    MODEL_EXPECT(model, reply->code == (dropped ? ERR_CONFLICT : ERR_NONE), "topic %u: %s",
                 put->topic_id, err_slug(reply->code));
    if (dropped) {
        return;
    }
    struct model_topic *topic = model_topic(model, put->topic_id);
    if (topic == NULL) {
        topic = calloc(1, sizeof *topic);
        keep(topic != NULL);
        topic->id = put->topic_id;
        topic->firsts = calloc(MODEL_KEYS_MAX, sizeof *topic->firsts);
        topic->batches = calloc(MODEL_BATCHES_MAX, sizeof *topic->batches);
        keep(topic->firsts != NULL && topic->batches != NULL);
        keep(array_append(&model->topics, topic) && map_put(&model->topic_ids, topic->id, topic));
    }
    bool retained = retains(&topic->settings);
    topic->put = topic->put || !settings_equal(&topic->settings, &put->settings);
    topic->settings = put->settings;
    for (uint32_t index = 0; index < put->shard_count; index++) {
        if (model_shard(model, put->shards[index].shard_id) == NULL) {
            shard_add(model, topic, &put->shards[index]);
        }
    }
    /* Retention keeps what is published from now on. */
    for (size_t index = 0; !retained && index < topic->shards.count; index++) {
        struct model_shard *shard = topic->shards.items[index];
        shard->retained_from = shard->count;
        shard->retained_bytes = 0;
    }
}

static uint64_t start_of(const struct model_shard *shard, const struct sub_put *put)
{
    uint64_t floor = model_floor(shard);
    switch (put->start) {
    case START_LATEST:
    case START_SEQUENCE:
        return shard->count;
    case START_EARLIEST:
        return floor;
    case START_TIME:
        return model_find_time(shard, floor, put->start_value);
    }
    return shard->count;
}

void model_judge_sub_put(struct model *model, const struct sub_put *put, const struct reply *reply)
{
    struct model_topic *topic = model_topic(model, put->topic_id);
    bool gone = topic == NULL || map_get(&model->dropped_ids, put->sub_id) != NULL;
    MODEL_EXPECT(model, reply->code == (gone ? ERR_NOT_FOUND : ERR_NONE),
                 "subscription %u of topic %u: %s", put->sub_id, put->topic_id,
                 err_slug(reply->code));
    if (gone) {
        return;
    }
    struct model_sub *sub = model_sub(model, put->sub_id);
    if (sub != NULL) {
        sub->settings = put->settings;
        return;
    }
    sub = calloc(1, sizeof *sub);
    keep(sub != NULL);
    *sub = (struct model_sub){.id = put->sub_id, .topic = topic, .settings = put->settings};
    for (size_t index = 0; index < topic->shards.count; index++) {
        struct model_shard *shard = topic->shards.items[index];
        lane_add(sub, shard, start_of(shard, put));
    }
    keep(array_append(&topic->subs, sub) && map_put(&model->sub_ids, sub->id, sub));
}

static void array_take_out(struct array *array, const void *item)
{
    size_t index = 0;
    while (array->items[index] != item) {
        index++;
    }
    array_remove(array, index);
}

void model_judge_sub_drop(struct model *model, uint32_t sub_id)
{
    struct model_sub *sub = model_sub(model, sub_id);
    if (sub == NULL) {
        return;
    }
    for (size_t slot = 0; slot < sub->lanes.count; slot++) {
        lane_free(sub->lanes.items[slot]);
    }
    array_take_out(&sub->topic->subs, sub);
    array_deinit(&sub->lanes);
    map_remove(&model->sub_ids, sub_id);
    keep(map_put(&model->dropped_ids, sub_id, model));
    free(sub);
}

void model_judge_topic_drop(struct model *model, uint32_t topic_id)
{
    struct model_topic *topic = model_topic(model, topic_id);
    if (topic == NULL) {
        return;
    }
    while (topic->subs.count > 0) {
        const struct model_sub *sub = topic->subs.items[0];
        model_judge_sub_drop(model, sub->id);
    }
    for (size_t index = 0; index < topic->shards.count; index++) {
        struct model_shard *shard = topic->shards.items[index];
        map_remove(&model->shard_ids, shard->place.shard_id);
        free(shard->messages);
        free(shard);
    }
    array_take_out(&model->topics, topic);
    array_deinit(&topic->shards);
    array_deinit(&topic->subs);
    map_remove(&model->topic_ids, topic_id);
    free(topic->firsts);
    for (size_t index = 0; index < MODEL_BATCHES_MAX; index++) {
        free(topic->batches[index].messages);
        free(topic->batches[index].results);
    }
    free(topic->batches);
    keep(map_put(&model->dropped_ids, topic_id, model));
    free(topic);
}
