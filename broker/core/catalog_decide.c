/* The machine that decides on changes of the catalog. */
#include <assert.h>

#include "broker/core/catalog_row.h"

struct deciding {
    struct machine machine;
    struct pool own; /* the memory of this struct */
    struct catalog *catalog;
    struct catalog_next next;
    bool dirty;
    struct buf value;  /* a row being written */
    struct buf shards; /* of a topic being created */
    struct store_txn *txn;
    struct reply *reply; /* of the command being served */
};

static struct deciding *deciding_of(const struct machine *machine)
{
    return container_of(machine, struct deciding, machine);
}

static err_t refuse(struct deciding *deciding, enum err_code code, const char *detail)
{
    reply_fail(deciding->reply, code, detail);
    return NULL;
}

/* Writes a row, hands it to the copies and takes it over here. */
static err_t put_row(struct deciding *deciding, enum catalog_kind kind, uint32_t id)
{
    uint8_t bytes[CATALOG_KEY_SIZE];
    catalog_row_key(kind, id, bytes);
    struct span key = span_of(bytes, sizeof bytes);
    struct span value = buf_span(&deciding->value);
    catalog_row_record(key, value, &deciding->reply->payload);
    if (deciding->value.failed || deciding->reply->payload.failed) {
        return ERR(MEMORY, "no memory for a change of the catalog");
    }
    deciding->dirty = true;
    TRY(store_put(deciding->txn, STORE_CATALOG, key, value));
    return catalog_row_take(deciding->catalog, key, value);
}

static err_t remove_row(struct deciding *deciding, enum catalog_kind kind, uint32_t id)
{
    uint8_t bytes[CATALOG_KEY_SIZE];
    catalog_row_key(kind, id, bytes);
    struct span key = span_of(bytes, sizeof bytes);
    catalog_row_record(key, span_of("", 0), &deciding->reply->payload);
    if (deciding->reply->payload.failed) {
        return ERR(MEMORY, "no memory for a change of the catalog");
    }
    deciding->dirty = true;
    TRY(store_remove(deciding->txn, STORE_CATALOG, key, NULL));
    catalog_row_forget(deciding->catalog, kind, id);
    return NULL;
}

static err_t put_topic(struct deciding *deciding, const struct catalog_topic *topic)
{
    buf_reset(&deciding->value);
    catalog_row_of_topic(topic, &deciding->value);
    return put_row(deciding, CATALOG_KIND_TOPIC, topic->id);
}

static err_t put_sub(struct deciding *deciding, const struct catalog_sub *sub)
{
    buf_reset(&deciding->value);
    catalog_row_of_sub(sub, &deciding->value);
    return put_row(deciding, CATALOG_KIND_SUB, sub->id);
}

/* `version` 0: there is no such thing yet. */
static bool precondition_holds(struct deciding *deciding, const struct catalog_change *change,
                               uint32_t version)
{
    if (change->create_only && version != 0) {
        reply_fail(deciding->reply, ERR_PRECONDITION, "it exists already");
        return false;
    }
    if (change->has_version && change->version != version) {
        reply_fail(deciding->reply, ERR_PRECONDITION, "it has changed since that version");
        return false;
    }
    return true;
}

/* ---- putting -------------------------------------------------------------------------------- */

static bool topic_settings_equal(const struct topic_settings *a, const struct topic_settings *b)
{
    return a->retention_ms == b->retention_ms && a->retention_bytes == b->retention_bytes &&
           a->dedup_window_ms == b->dedup_window_ms && a->durability == b->durability;
}

static bool sub_settings_equal(const struct sub_settings *a, const struct sub_settings *b)
{
    return a->lease_ms == b->lease_ms && a->retry_delay_ms == b->retry_delay_ms &&
           a->max_attempts == b->max_attempts && a->max_in_flight == b->max_in_flight &&
           a->ordering == b->ordering && a->mode == b->mode && a->paused == b->paused;
}

/* Shard `number` begins at the hash space's number/count, rounded so that sizes differ by one at
 * most. 2^64 does not fit in its own integers, hence the detour over its quotient and rest. */
static uint64_t hash_first(uint32_t number, uint32_t count)
{
    bool even = UINT64_MAX % count == count - 1;
    uint64_t size = UINT64_MAX / count + (even ? 1 : 0);
    uint64_t longer = even ? 0 : UINT64_MAX % count + 1;
    return number * size + (number < longer ? number : longer);
}

static err_t make_shards(struct deciding *deciding, uint32_t count, uint32_t volume_count,
                         struct catalog_topic *topic)
{
    buf_reset(&deciding->shards);
    topic->shards = (void *)buf_extend(&deciding->shards, count * sizeof *topic->shards);
    if (topic->shards == NULL) {
        return ERR(MEMORY, "no memory for the shards of a topic");
    }
    for (uint32_t number = 0; number < count; number++) {
        bool last = number == count - 1;
        topic->shards[number] = (struct catalog_shard){
            .place = {.shard_id = deciding->next.shard_id++,
                      .number = number,
                      .hash_first = hash_first(number, count),
                      .hash_last = last ? UINT64_MAX : hash_first(number + 1, count) - 1},
            .volume = (uint16_t)((number + topic->id) % volume_count),
            .state = CATALOG_SHARD_OPEN,
        };
    }
    topic->shard_count = count;
    return NULL;
}

static err_t create_topic(struct deciding *deciding, struct catalog_change *change)
{
    uint32_t shard_count = change->shard_count == 0 ? CATALOG_SHARDS_DEFAULT : change->shard_count;
    if (shard_count > CORE_SHARDS_MAX) {
        return refuse(deciding, ERR_INVALID, "shards: must be between 1 and 4096");
    }
    if (deciding->next.topic_id == UINT32_MAX ||
        deciding->next.shard_id > UINT32_MAX - shard_count) {
        return refuse(deciding, ERR_QUOTA, "this data directory has no more ids for topics");
    }
    assert(change->volume_count >= 1 && change->volume_count <= UINT16_MAX);
    struct catalog_topic topic = {
        .id = deciding->next.topic_id++,
        .version = 1,
        .state = CATALOG_CREATING,
        .created_ms = deciding->next.now_ms,
        .settings = change->topic_settings,
    };
    memcpy(topic.name, change->topic.data, change->topic.size);
    TRY(make_shards(deciding, shard_count, change->volume_count, &topic));
    TRY(put_topic(deciding, &topic));
    deciding->reply->count = topic.id;
    change->created = true;
    change->changed = true;
    return NULL;
}

static err_t refuse_shards(struct deciding *deciding, const struct catalog_topic *topic)
{
    err_t err = ERR(EXISTS, "shards: the topic has %u, which does not change", topic->shard_count);
    reply_fail(deciding->reply, err_code(err), err_message(err));
    err_free(err);
    return NULL;
}

static err_t topic_put(struct deciding *deciding, struct catalog_change *change)
{
    struct catalog_topic *topic = catalog_topic(deciding->catalog, change->topic);
    if (topic != NULL && topic->state == CATALOG_DELETING) {
        return refuse(deciding, ERR_CONFLICT, "topic: it is being deleted");
    }
    if (!precondition_holds(deciding, change, topic == NULL ? 0 : topic->version)) {
        return NULL;
    }
    if (topic == NULL) {
        return create_topic(deciding, change);
    }
    if (change->shard_count != 0 && change->shard_count != topic->shard_count) {
        return refuse_shards(deciding, topic);
    }
    deciding->reply->count = topic->id;
    change->changed = topic->state == CATALOG_CREATING;
    if (topic_settings_equal(&topic->settings, &change->topic_settings)) {
        return NULL;
    }
    struct catalog_topic changed = *topic;
    changed.settings = change->topic_settings;
    changed.version++;
    change->changed = true;
    return put_topic(deciding, &changed);
}

static err_t create_sub(struct deciding *deciding, struct catalog_change *change,
                        struct catalog_topic *topic)
{
    if (deciding->next.sub_id == UINT32_MAX) {
        return refuse(deciding, ERR_QUOTA, "this data directory has no more ids for subscriptions");
    }
    struct catalog_sub sub = {
        .id = deciding->next.sub_id++,
        .version = 1,
        .state = CATALOG_CREATING,
        .created_ms = deciding->next.now_ms,
        .topic = topic,
        .settings = change->sub_settings,
        .start = change->start,
        .start_value = change->start_value,
    };
    memcpy(sub.name, change->sub.data, change->sub.size);
    TRY(put_sub(deciding, &sub));
    deciding->reply->count = sub.id;
    change->created = true;
    change->changed = true;
    return NULL;
}

static err_t sub_put(struct deciding *deciding, struct catalog_change *change)
{
    struct catalog_topic *topic = catalog_topic(deciding->catalog, change->topic);
    if (topic == NULL) {
        return refuse(deciding, ERR_NOT_FOUND, "topic: it does not exist");
    }
    struct catalog_sub *sub = catalog_sub(topic, change->sub);
    if (topic->state != CATALOG_ACTIVE) {
        return refuse(deciding, ERR_CONFLICT,
                      topic->state == CATALOG_CREATING ? "topic: it is being created"
                                                       : "topic: it is being deleted");
    }
    if (sub != NULL && sub->state == CATALOG_DELETING) {
        return refuse(deciding, ERR_CONFLICT, "subscription: it is being deleted");
    }
    if (!precondition_holds(deciding, change, sub == NULL ? 0 : sub->version)) {
        return NULL;
    }
    if (sub == NULL) {
        return create_sub(deciding, change, topic);
    }
    deciding->reply->count = sub->id;
    change->changed = sub->state == CATALOG_CREATING;
    if (change->keep_paused) {
        change->sub_settings.paused = sub->settings.paused;
    }
    if (sub_settings_equal(&sub->settings, &change->sub_settings)) {
        return NULL;
    }
    struct catalog_sub changed = *sub;
    changed.settings = change->sub_settings;
    changed.version++;
    change->changed = true;
    return put_sub(deciding, &changed);
}

/* ---- moving states -------------------------------------------------------------------------- */

enum move { MOVE_DO, MOVE_AGAIN, MOVE_NOTHING, MOVE_REFUSED };

/* What a change to state `to` means for something in state `from`. */
static enum move move_of(enum catalog_state from, enum catalog_state to)
{
    if (from == to) {
        /* A deletion that is asked for again is carried through again: the first one may have been
         * cut off. */
        return to == CATALOG_DELETING ? MOVE_AGAIN : MOVE_NOTHING;
    }
    bool legal = (from == CATALOG_CREATING && to == CATALOG_ACTIVE) ||
                 (from == CATALOG_CREATING && to == CATALOG_DELETING) ||
                 (from == CATALOG_ACTIVE && to == CATALOG_DELETING) ||
                 (from == CATALOG_DELETING && to == CATALOG_NONE);
    return legal ? MOVE_DO : MOVE_REFUSED;
}

/* Decides on a move and tells; true when it is to be made. CATALOG_NONE in `from`: it does not
 * exist. */
static bool may_move(struct deciding *deciding, struct catalog_change *change,
                     enum catalog_state from, uint32_t version)
{
    enum move move = move_of(from, change->to);
    if (from == CATALOG_NONE && move != MOVE_NOTHING) {
        reply_fail(deciding->reply, ERR_NOT_FOUND, "it does not exist");
        return false;
    }
    if (move == MOVE_REFUSED) {
        reply_fail(deciding->reply, ERR_CONFLICT,
                   from == CATALOG_DELETING ? "it is being deleted" : "it is not being deleted");
        return false;
    }
    if (move == MOVE_NOTHING || !precondition_holds(deciding, change, version)) {
        return false;
    }
    change->changed = true;
    return move == MOVE_DO;
}

static err_t remove_topic(struct deciding *deciding, const struct catalog_topic *topic)
{
    struct list_link *link;
    while ((link = list_first(&topic->subs)) != NULL) {
        const struct catalog_sub *sub = container_of(link, const struct catalog_sub, link);
        TRY(remove_row(deciding, CATALOG_KIND_SUB, sub->id));
    }
    return remove_row(deciding, CATALOG_KIND_TOPIC, topic->id);
}

/* Whether what has the name is meant: it may have been deleted, and another created under it. */
static bool is_meant(const struct catalog_change *change, uint32_t id)
{
    return change->id == 0 || change->id == id;
}

static err_t topic_state(struct deciding *deciding, struct catalog_change *change)
{
    struct catalog_topic *topic = catalog_topic(deciding->catalog, change->topic);
    topic = topic == NULL || is_meant(change, topic->id) ? topic : NULL;
    enum catalog_state from = topic == NULL ? CATALOG_NONE : topic->state;
    deciding->reply->count = topic == NULL ? 0 : topic->id;
    if (!may_move(deciding, change, from, topic == NULL ? 0 : topic->version)) {
        return NULL;
    }
    assert(topic != NULL); /* what is not there may move nowhere */
    if (change->to == CATALOG_NONE) {
        return remove_topic(deciding, topic);
    }
    struct catalog_topic changed = *topic;
    changed.state = change->to;
    return put_topic(deciding, &changed);
}

static err_t sub_state(struct deciding *deciding, struct catalog_change *change)
{
    struct catalog_topic *topic = catalog_topic(deciding->catalog, change->topic);
    struct catalog_sub *sub = topic == NULL ? NULL : catalog_sub(topic, change->sub);
    sub = sub == NULL || is_meant(change, sub->id) ? sub : NULL;
    enum catalog_state from = sub == NULL ? CATALOG_NONE : sub->state;
    deciding->reply->count = sub == NULL ? 0 : sub->id;
    if (!may_move(deciding, change, from, sub == NULL ? 0 : sub->version)) {
        return NULL;
    }
    assert(sub != NULL); /* what is not there may move nowhere */
    if (change->to == CATALOG_NONE) {
        return remove_row(deciding, CATALOG_KIND_SUB, sub->id);
    }
    struct catalog_sub changed = *sub;
    changed.state = change->to;
    return put_sub(deciding, &changed);
}

/* ---- the machine ---------------------------------------------------------------------------- */

static bool name_fits(const struct catalog_change *change, struct span name)
{
    bool put = change->op == CATALOG_TOPIC_PUT || change->op == CATALOG_SUB_PUT;
    return put ? catalog_name_valid(name) : catalog_row_name_valid(name);
}

static err_t decide(struct deciding *deciding, struct catalog_change *change)
{
    bool of_sub = change->op == CATALOG_SUB_PUT || change->op == CATALOG_SUB_STATE;
    change->created = false;
    change->changed = false;
    if (!name_fits(change, change->topic)) {
        return refuse(deciding, ERR_INVALID, "topic: must match [A-Za-z0-9._-]{1,255}");
    }
    if (of_sub && !name_fits(change, change->sub)) {
        return refuse(deciding, ERR_INVALID, "subscription: must match [A-Za-z0-9._-]{1,255}");
    }
    switch (change->op) {
    case CATALOG_TOPIC_PUT:
        return topic_put(deciding, change);
    case CATALOG_TOPIC_STATE:
        return topic_state(deciding, change);
    case CATALOG_SUB_PUT:
        return sub_put(deciding, change);
    case CATALOG_SUB_STATE:
        return sub_state(deciding, change);
    }
    return refuse(deciding, ERR_INVALID, "the catalog does not know this change");
}

static err_t machine_apply(struct machine *machine, struct store_txn *txn,
                           const struct command *command, struct reply *reply,
                           struct effects *effects)
{
    struct deciding *deciding = deciding_of(machine);
    (void)effects;
    deciding->txn = txn;
    deciding->reply = reply;
    deciding->next.applied++;
    if (command->now_ms > deciding->next.now_ms) {
        deciding->next.now_ms = command->now_ms;
    }
    if (command->type != COMMAND_CATALOG) {
        return refuse(deciding, ERR_INVALID, "the catalog does not take this command");
    }
    return decide(deciding, command->catalog);
}

static err_t machine_load(struct machine *machine, struct store_txn *txn)
{
    struct deciding *deciding = deciding_of(machine);
    struct span value;
    bool found = false;
    deciding->dirty = false;
    deciding->next = (struct catalog_next){.topic_id = 1, .shard_id = 1, .sub_id = 1};
    TRY(catalog_load(deciding->catalog, txn));
    TRY(store_get(txn, STORE_META, span_text(CATALOG_META_KEY), &value, &found));
    /* Ids must never be given twice, so they are not guessed when what counts them is lost. */
    bool lost = !found && deciding->catalog->by_name.count > 0;
    if (lost || (found && !catalog_row_read_next(value, &deciding->next))) {
        return ERR(CORRUPT, "the catalog's own record is damaged");
    }
    return NULL;
}

static err_t machine_flush(struct machine *machine, struct store_txn *txn)
{
    const struct deciding *deciding = deciding_of(machine);
    uint8_t value[CATALOG_NEXT_SIZE];
    if (!deciding->dirty) {
        return NULL;
    }
    catalog_row_of_next(&deciding->next, value);
    return store_put(txn, STORE_META, span_text(CATALOG_META_KEY), span_of(value, sizeof value));
}

static bool machine_dirty(const struct machine *machine)
{
    return deciding_of(machine)->dirty;
}

static void machine_committed(struct machine *machine)
{
    deciding_of(machine)->dirty = false;
}

static uint64_t machine_now_ms(const struct machine *machine)
{
    return deciding_of(machine)->next.now_ms;
}

static uint64_t machine_next_due_ms(const struct machine *machine)
{
    (void)machine;
    return UINT64_MAX;
}

static void machine_destroy(struct machine *machine)
{
    struct deciding *deciding = deciding_of(machine);
    catalog_destroy(deciding->catalog);
    buf_deinit(&deciding->value);
    buf_deinit(&deciding->shards);
    struct pool own = deciding->own;
    pool_deinit(&own);
}

static const struct machine_ops machine_ops = {
    .load = machine_load,
    .apply = machine_apply,
    .flush = machine_flush,
    .dirty = machine_dirty,
    .committed = machine_committed,
    .now_ms = machine_now_ms,
    .next_due_ms = machine_next_due_ms,
    .destroy = machine_destroy,
};

err_t catalog_machine_create(struct machine **out)
{
    struct pool own;
    pool_init(&own, sizeof(struct deciding));
    struct deciding *deciding = pool_take(&own);
    if (deciding == NULL) {
        return ERR(MEMORY, "no memory for the catalog");
    }
    deciding->own = own;
    deciding->machine.ops = &machine_ops;
    buf_init(&deciding->value, CATALOG_VALUE_MAX);
    buf_init(&deciding->shards, CORE_SHARDS_MAX * sizeof(struct catalog_shard));
    deciding->catalog = catalog_create();
    if (deciding->catalog == NULL) {
        machine_destroy(&deciding->machine);
        return ERR(MEMORY, "no memory for the catalog");
    }
    *out = &deciding->machine;
    return NULL;
}

struct catalog *catalog_of(struct machine *machine)
{
    return deciding_of(machine)->catalog;
}
