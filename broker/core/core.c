#include "broker/core/core.h"

#include <assert.h>

#include "broker/base/bytes.h"
#include "broker/core/block.h"
#include "broker/core/chunk.h"
#include "broker/core/delivery.h"
#include "broker/core/due.h"
#include "broker/core/inspect.h"
#include "broker/core/messages.h"
#include "broker/core/msglog.h"
#include "broker/core/release.h"
#include "broker/core/retention.h"
#include "broker/core/state.h"
#include "broker/core/topic.h"

/* META "core": version u8, zero 7 bytes, applied u64, stamp u64, log end u64, checkpoint u64,
 * appended bytes u64, log entries u64, live entries u64, log bytes u64. */
enum {
    META_VERSION = 1,
    META_SIZE = 72,
    REPLAY_BYTES = 16 * 1024 * 1024,
    SLACK_SIZE = 32 * 1024 * 1024,
    SEGMENT_ENTRIES = 4096,
    CACHED_MAX = 8192,
    IDLE_MS = 2000, /* without a publish for so long, the log's tail is indexed so that dead
                       segments can go */
};

#define META_KEY "core"

static struct core *core_of(const struct machine *machine)
{
    return container_of(machine, struct core, machine);
}

err_t state_put(struct core *core, enum store_table table, struct span key, struct span value)
{
    core->changes++;
    core->marks++;
    return store_put(core->txn, table, key, value);
}

err_t state_append(struct core *core, enum store_table table, struct span key, struct span value)
{
    core->changes++;
    core->marks++;
    return store_append(core->txn, table, key, value);
}

err_t state_remove(struct core *core, enum store_table table, struct span key)
{
    core->changes++;
    core->marks++;
    return store_remove(core->txn, table, key, NULL);
}

struct topic *state_topic(const struct core *core, uint32_t id)
{
    return map_get(&core->topics, id);
}

struct shard *state_shard(const struct core *core, uint32_t id)
{
    return map_get(&core->shards, id);
}

struct sub *state_sub(const struct core *core, uint32_t id)
{
    return map_get(&core->subs, id);
}

struct lane *state_lane(const struct sub *sub, uint32_t shard_id)
{
    size_t low = 0;
    size_t high = sub->lanes.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct lane *lane = sub->lanes.items[middle];
        if (lane->shard->id == shard_id) {
            return lane;
        }
        if (lane->shard->id < shard_id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

void state_update_available(struct lane *lane)
{
    if (lane->counts[MESSAGE_READY] > 0 || lane->cursor < lane->shard->next_sequence) {
        bitmap_set(lane->sub->available, lane->slot);
    } else {
        bitmap_clear(lane->sub->available, lane->slot);
    }
}

err_t state_wake(struct core *core, struct sub *sub)
{
    if (sub->woken_batch == core->batch) {
        return NULL;
    }
    sub->woken_batch = core->batch;
    sub->woken_at = core->effects->woken.size;
    buf_append(&core->effects->woken, &sub->id, sizeof sub->id);
    return core->effects->woken.failed ? ERR(MEMORY, "no memory for wake-ups") : NULL;
}

void state_unwake(struct core *core, struct sub *sub)
{
    static const uint32_t nobody = 0;
    struct buf *woken = &core->effects->woken;
    bool said = sub->woken_batch == core->batch && sub->woken_at + sizeof sub->id <= woken->size &&
                memcmp(woken->data + sub->woken_at, &sub->id, sizeof sub->id) == 0;
    if (said) {
        memcpy(woken->data + sub->woken_at, &nobody, sizeof nobody);
        sub->woken_batch = 0;
    }
}

void reply_fail(struct reply *reply, enum err_code code, const char *detail)
{
    reply->code = code;
    size_t size = detail == NULL ? 0 : strlen(detail);
    size = size < sizeof reply->detail - 1 ? size : sizeof reply->detail - 1;
    memcpy(reply->detail, detail == NULL ? "" : detail, size);
    reply->detail[size] = '\0';
}

void reply_init(struct reply *reply)
{
    *reply = (struct reply){.code = ERR_NONE};
    buf_init(&reply->items, SIZE_MAX / 2);
    buf_init(&reply->payload, UINT32_MAX);
}

void reply_deinit(struct reply *reply)
{
    buf_deinit(&reply->items);
    buf_deinit(&reply->payload);
}

void reply_clear(struct reply *reply)
{
    struct buf items = reply->items;
    struct buf payload = reply->payload;
    buf_reset(&items);
    buf_reset(&payload);
    *reply = (struct reply){.code = ERR_NONE, .items = items, .payload = payload};
}

void effects_init(struct effects *effects)
{
    *effects = (struct effects){0};
    buf_init(&effects->woken, EFFECTS_WOKEN_MAX);
}

void effects_deinit(struct effects *effects)
{
    buf_deinit(&effects->woken);
}

void effects_clear(struct effects *effects)
{
    struct buf woken = effects->woken;
    buf_reset(&woken);
    *effects = (struct effects){.woken = woken};
}

static void init_state(struct core *core)
{
    msglog_init(&core->log);
    list_init(&core->chunk_lru);
    list_init(&core->block_lru);
    list_init(&core->dirty_subs);
    list_init(&core->dirty_shards);
    list_init(&core->dirty_blocks);
    list_init(&core->unstored_shards);
    list_init(&core->sweeps);
    list_init(&core->dropping_subs);
    list_init(&core->dropping_topics);
    core->changes++;
    core->changes_committed = core->changes;
    core->batch++;
    core->gc_rows = 0;
    core->due_next_ms = UINT64_MAX;
    core->work = true;
}

static void deinit_state(struct core *core)
{
    topic_forget_all(core);
    pool_deinit(&core->sweep_pool);
    pool_deinit(&core->segment_pool);
    msglog_deinit(&core->log);
}

static err_t update_due(struct core *core)
{
    struct due_row row;
    bool found = false;
    TRY(due_first(core, &row, &found));
    core->due_next_ms = found ? row.due_ms : UINT64_MAX;
    return NULL;
}

/* Records of one shard lie in the log without gaps, so one that is not sound is believed only when
 * it is the very next; a gap before a sound one is what damage has hidden. Messages in a gap have
 * no position, and are reported as corrupt when they are wanted. */
static err_t recover_record(struct core *core, const struct record *record, uint64_t position,
                            bool sound)
{
    struct shard *shard = state_shard(core, record->shard_id);
    core->log.appended_bytes += record_size(record);
    if (shard == NULL || (!sound && record->sequence != shard->next_sequence)) {
        return NULL; /* the shard may have been removed since */
    }
    /* Full blocks and the end of a shard are stored together. */
    if (record->sequence / CHUNK_SIZE > shard->next_sequence / CHUNK_SIZE) {
        core->corrupt++;
        return NULL;
    }
    if (record->sequence >= shard->next_sequence && topic_retains(shard->topic)) {
        shard->retained_bytes += record_size(record);
    }
    return block_recover(core, shard, record->sequence, position);
}

/* How far the log has grown since a tail's first entry counts on over a stop: what is to be read
 * again would otherwise add up from one short run to the next. */
static err_t recover_tail(struct core *core, uint64_t checkpoint)
{
    struct msglog *log = &core->log;
    uint64_t appended = log->appended_bytes;
    log->appended_bytes = 0; /* of those that are read, for now */
    TRY(msglog_scan(core, checkpoint, recover_record));
    block_recovered(core, appended > log->appended_bytes ? appended - log->appended_bytes : 0);
    log->appended_bytes = appended;
    return NULL;
}

static err_t load_meta(struct core *core, uint64_t *end, uint64_t *checkpoint)
{
    struct span value;
    bool found = false;
    *end = msglog_position(1, 0, 0);
    *checkpoint = *end;
    core->applied = 0;
    core->now_ms = 0;
    TRY(store_get(core->txn, STORE_META, span_text(META_KEY), &value, &found));
    if (!found) {
        return NULL;
    }
    if (value.size != META_SIZE || value.data[0] != META_VERSION) {
        return ERR(CORRUPT, "the volume's own record is damaged");
    }
    core->applied = bytes_get_le64(value.data + 8);
    core->now_ms = bytes_get_le64(value.data + 16);
    *end = bytes_get_le64(value.data + 24);
    *checkpoint = bytes_get_le64(value.data + 32);
    core->log.appended_bytes = bytes_get_le64(value.data + 40);
    core->log.entries = bytes_get_le64(value.data + 48);
    core->log.live = bytes_get_le64(value.data + 56);
    core->log.size = bytes_get_le64(value.data + 64);
    return NULL;
}

/* A cursor behind a shard's end says that the log's last messages are damaged beyond recognition:
 * their sequences must not be given again. They were in the unfinished block; a cursor further away
 * is damaged itself. */
static err_t raise_end(struct core *core, struct shard *shard, const struct lane *lane)
{
    uint64_t block_end = (shard->next_sequence / CHUNK_SIZE + 1) * CHUNK_SIZE;
    if (lane->cursor <= shard->next_sequence) {
        return NULL;
    }
    if (lane->cursor > block_end) {
        return ERR(CORRUPT, "the cursor of subscription %u is beyond the end of shard %u",
                   lane->sub->id, shard->id);
    }
    shard->next_sequence = lane->cursor;
    core->corrupt++;
    return NULL;
}

static err_t check_ends(struct core *core)
{
    uint64_t published_max = core->log.appended_bytes / RECORD_HEADER_MIN;
    size_t at = 0;
    struct shard *shard;
    while ((shard = map_each(&core->shards, &at)) != NULL) {
        for (size_t index = 0; index < shard->lanes.count; index++) {
            TRY(raise_end(core, shard, shard->lanes.items[index]));
        }
        if (shard->next_sequence > published_max || shard->retained_from > shard->next_sequence) {
            return ERR(CORRUPT, "shard %u ends where it never was", shard->id);
        }
    }
    return NULL;
}

static void set_available(struct core *core)
{
    size_t at = 0;
    struct sub *sub;
    while ((sub = map_each(&core->subs, &at)) != NULL) {
        for (size_t slot = 0; slot < sub->lanes.count; slot++) {
            state_update_available(sub->lanes.items[slot]);
        }
    }
}

static err_t core_load(struct machine *machine, struct store_txn *txn)
{
    struct core *core = core_of(machine);
    uint64_t end = 0;
    uint64_t checkpoint = 0;
    deinit_state(core);
    init_state(core);
    core->txn = txn;
    TRY(load_meta(core, &end, &checkpoint));
    TRY(msglog_open(core, end));
    TRY(topic_load(core));
    TRY(store_entries(txn, STORE_GC, &core->gc_rows));
    TRY(recover_tail(core, checkpoint));
    core->checkpoint = checkpoint;
    TRY(check_ends(core));
    TRY(release_load(core));
    set_available(core);
    return update_due(core);
}

/* What has come due first, then work in the background, until the budget is used. */
static err_t work_step(struct core *core, uint32_t budget, uint32_t *used, bool *worked)
{
    uint32_t work = 0;
    TRY(due_fire(core, &work));
    if (work == 0) {
        TRY(retention_step(core, budget, &work));
    }
    *used += work;
    *worked = work > 0;
    if (*worked) {
        return NULL;
    }
    TRY(release_step(core, worked));
    if (!*worked && !(list_empty(&core->dropping_subs) && list_empty(&core->dropping_topics))) {
        TRY(delivery_flush(core));
        TRY(topic_drop_step(core, worked));
    }
    *used += *worked ? CHUNK_SIZE : 0;
    return NULL;
}

static bool is_idle(const struct core *core)
{
    return core->gc_rows > 0 && !list_empty(&core->unstored_shards) &&
           core->published_ms + IDLE_MS <= core->now_ms;
}

/* At least one piece, whatever else there is to do: under load too space must come back. */
static err_t clean(struct core *core, uint32_t budget, uint32_t *used, bool *worked)
{
    do {
        uint32_t work = 0;
        TRY(msglog_clean(core, core->checkpoint, &work));
        *used += work;
        *worked = work > 0;
    } while (*worked && *used < budget);
    return NULL;
}

static err_t tick(struct core *core, const struct tick *tick, struct reply *reply)
{
    uint32_t used = 0;
    bool worked = true;
    bool cleaned = false;
    while (worked && used < tick->budget) {
        TRY(work_step(core, tick->budget - used, &used, &worked));
    }
    if (!worked && is_idle(core)) {
        TRY(delivery_flush(core));
        TRY(block_flush(core, true));
    }
    TRY(clean(core, tick->budget, &used, &cleaned));
    TRY(update_due(core));
    core->work = worked || cleaned;
    reply->count = used;
    reply->more = core->work;
    return NULL;
}

static err_t dispatch(struct core *core, const struct command *command, struct reply *reply)
{
    switch (command->type) {
    case COMMAND_TOPIC_PUT:
        return topic_put(core, &command->topic_put, reply);
    case COMMAND_TOPIC_DROP:
        return topic_drop(core, command->topic_drop);
    case COMMAND_SUB_PUT:
        return topic_sub_put(core, &command->sub_put, reply);
    case COMMAND_SUB_DROP:
        return topic_sub_drop(core, command->sub_drop);
    case COMMAND_PUBLISH:
        return messages_publish(core, command, reply);
    case COMMAND_PULL:
        return messages_pull(core, &command->pull, reply);
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_EXTEND:
        return messages_settle(core, command, reply);
    case COMMAND_PEEK:
        return inspect_peek(core, &command->peek, reply);
    case COMMAND_REDRIVE:
        return inspect_redrive(core, &command->redrive, reply);
    case COMMAND_PURGE:
        return inspect_purge(core, &command->purge, reply);
    case COMMAND_SEEK:
        return inspect_seek(core, &command->seek, reply);
    case COMMAND_STATS:
        return inspect_stats(core, &command->stats, reply);
    case COMMAND_TICK:
        return tick(core, &command->tick, reply);
    case COMMAND_CATALOG:
        break;
    }
    reply_fail(reply, ERR_INVALID, "a volume does not take this command");
    return NULL;
}

static err_t core_apply(struct machine *machine, struct store_txn *txn,
                        const struct command *command, struct reply *reply, struct effects *effects)
{
    struct core *core = core_of(machine);
    core->txn = txn;
    core->effects = effects;
    core->now_ms = command->now_ms > core->now_ms ? command->now_ms : core->now_ms;
    core->applied++;
    effects->corrupt += core->corrupt;
    core->corrupt = 0;
    TRY(delivery_trim(core));
    return dispatch(core, command, reply);
}

static err_t write_meta(struct core *core)
{
    uint8_t value[META_SIZE] = {META_VERSION};
    uint64_t checkpoint = block_checkpoint(core);
    /* A new segment before the checkpoint may be one that waits to be cleaned. */
    core->work = core->work || (core->gc_rows > 0 && checkpoint >> 32 != core->checkpoint >> 32);
    core->checkpoint = checkpoint;
    bytes_put_le64(value + 8, core->applied);
    bytes_put_le64(value + 16, core->now_ms);
    bytes_put_le64(value + 24, msglog_end(core));
    bytes_put_le64(value + 32, checkpoint);
    bytes_put_le64(value + 40, core->log.appended_bytes);
    bytes_put_le64(value + 48, core->log.entries);
    bytes_put_le64(value + 56, core->log.live);
    bytes_put_le64(value + 64, core->log.size);
    return state_put(core, STORE_META, span_text(META_KEY), span_of(value, sizeof value));
}

static bool is_clean(const struct core *core)
{
    return core->changes == core->changes_committed && list_empty(&core->dirty_subs) &&
           list_empty(&core->dirty_shards) && list_empty(&core->dirty_blocks) &&
           list_empty(&core->log.dirty);
}

static err_t core_flush(struct machine *machine, struct store_txn *txn)
{
    struct core *core = core_of(machine);
    struct list_link *link;
    core->txn = txn;
    if (is_clean(core)) {
        return NULL;
    }
    TRY(delivery_flush(core));
    TRY(block_flush(core, false));
    while ((link = list_pop(&core->dirty_shards)) != NULL) {
        TRY(topic_shard_write(core, container_of(link, struct shard, dirty)));
    }
    TRY(msglog_flush(core));
    TRY(update_due(core));
    return write_meta(core);
}

static bool core_dirty(const struct machine *machine)
{
    return !is_clean(core_of(machine));
}

static uint64_t core_changes(const struct machine *machine)
{
    return core_of(machine)->marks;
}

static void core_end_batch(struct machine *machine, bool durable)
{
    struct core *core = core_of(machine);
    core->batch++;
    if (durable) {
        core->log.fresh_from = msglog_next(core);
    }
}

static void core_committed(struct machine *machine)
{
    struct core *core = core_of(machine);
    core_end_batch(machine, true);
    core->changes++;
    core->changes_committed = core->changes;
    chunk_trim(core);
    block_trim(core);
}

static uint64_t core_now_ms(const struct machine *machine)
{
    return core_of(machine)->now_ms;
}

static uint64_t core_next_due_ms(const struct machine *machine)
{
    const struct core *core = core_of(machine);
    if (core->work) {
        return 0;
    }
    uint64_t due_ms = core->due_next_ms;
    const struct heap_node *node = heap_first(&core->retention);
    if (node != NULL && node->due_ms < due_ms) {
        due_ms = node->due_ms;
    }
    if (core->gc_rows > 0 && !list_empty(&core->unstored_shards)) {
        uint64_t idle_ms = core->published_ms + IDLE_MS;
        due_ms = idle_ms < due_ms ? idle_ms : due_ms;
    }
    return due_ms;
}

static void core_destroy(struct machine *machine)
{
    struct core *core = core_of(machine);
    deinit_state(core);
    map_deinit(&core->topics);
    array_deinit(&core->topics_by_id);
    map_deinit(&core->shards);
    map_deinit(&core->subs);
    heap_deinit(&core->retention);
    pool_deinit(&core->topic_pool);
    pool_deinit(&core->shard_pool);
    pool_deinit(&core->sub_pool);
    pool_deinit(&core->lane_pool);
    pool_deinit(&core->chunk_pool);
    pool_deinit(&core->block_pool);
    buf_deinit(&core->scratch);
    buf_deinit(&core->copy);
    buf_deinit(&core->row_copy);
    buf_deinit(&core->value);
    struct pool own = core->own;
    pool_deinit(&own);
}

static const struct machine_ops core_ops = {
    .load = core_load,
    .apply = core_apply,
    .flush = core_flush,
    .changes = core_changes,
    .end_batch = core_end_batch,
    .dirty = core_dirty,
    .committed = core_committed,
    .now_ms = core_now_ms,
    .next_due_ms = core_next_due_ms,
    .destroy = core_destroy,
};

static void set_usual(struct core_options *options)
{
    options->replay_bytes = options->replay_bytes == 0 ? REPLAY_BYTES : options->replay_bytes;
    options->slack_size = options->slack_size == 0 ? SLACK_SIZE : options->slack_size;
    options->segment_entries =
        options->segment_entries == 0 ? SEGMENT_ENTRIES : options->segment_entries;
    options->chunks_max = options->chunks_max == 0 ? CACHED_MAX : options->chunks_max;
    options->blocks_max = options->blocks_max == 0 ? CACHED_MAX : options->blocks_max;
}

err_t core_create(const struct core_options *options, struct machine **out)
{
    struct pool own;
    pool_init(&own, sizeof(struct core));
    struct core *core = pool_take(&own);
    if (core == NULL) {
        return ERR(MEMORY, "no memory for a volume");
    }
    core->own = own;
    core->machine.ops = &core_ops;
    core->options = *options;
    set_usual(&core->options);
    map_init(&core->topics);
    array_init(&core->topics_by_id);
    map_init(&core->shards);
    map_init(&core->subs);
    heap_init(&core->retention);
    pool_init(&core->topic_pool, sizeof(struct topic));
    pool_init(&core->shard_pool, sizeof(struct shard));
    pool_init(&core->sub_pool, sizeof(struct sub));
    pool_init(&core->lane_pool, sizeof(struct lane));
    pool_init(&core->chunk_pool, sizeof(struct chunk));
    pool_init(&core->block_pool, sizeof(struct block));
    pool_init(&core->segment_pool, sizeof(struct segment));
    pool_init(&core->sweep_pool, sizeof(struct sweep));
    buf_init(&core->scratch, MESSAGE_SIZE_MAX);
    buf_init(&core->copy, MESSAGE_SIZE_MAX);
    buf_init(&core->row_copy, ROW_SIZE_MAX);
    buf_init(&core->value, CHUNK_SIZE * 32);
    init_state(core);
    *out = &core->machine;
    return NULL;
}
