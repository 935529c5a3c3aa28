/* What is in an environment, for a person. */
#include "broker/base/bytes.h"
#include "broker/core/catalog_row.h"
#include "broker/core/check_parts.h"
#include "broker/core/durability.h"
#include "broker/core/lifecycle.h"
#include "broker/core/msglog.h"
#include "broker/core/topic.h"

enum { LINE_MAX_SIZE = 1024, SEGMENTS_SHOWN_MAX = 64 };

/* One explanation being given. */
struct telling {
    struct store_txn *txn;
    check_line line;
    void *user;
    struct buf text;
};

/* Tells one line, cut off when it is very long. */
#define TELL(telling, ...)                                                                         \
    do {                                                                                           \
        buf_reset(&(telling)->text);                                                               \
        buf_printf(&(telling)->text, __VA_ARGS__);                                                 \
        tell(telling);                                                                             \
    } while (0)

static void tell(struct telling *telling)
{
    struct buf *text = &telling->text;
    bool failed = text->failed;
    text->failed = false;
    buf_append_byte(text, '\0');
    telling->line(telling->user,
                  failed || text->failed ? "(a line too long)" : (const char *)text->data);
}

static unsigned long long number(uint64_t value)
{
    return (unsigned long long)value;
}

/* ---- a volume ------------------------------------------------------------------------------- */

static void tell_lane(struct telling *telling, const struct lane *lane)
{
    TELL(
        telling,
        "    subscription %u: cursor %llu, enqueued %llu, leased %llu, scheduled %llu, ready %llu, "
        "dead %llu%s%s",
        lane->sub->id, number(lane->cursor), number(lane->shard->next_sequence - lane->cursor),
        number(lane->counts[MESSAGE_LEASED]), number(lane->counts[MESSAGE_SCHEDULED]),
        number(lane->counts[MESSAGE_READY]), number(lane->counts[MESSAGE_DEAD]),
        lane->sub->settings.paused ? ", paused" : "", lane->sub->dropping ? ", being deleted" : "");
}

static void tell_shard(struct telling *telling, const struct shard *shard)
{
    TELL(telling, "  shard %u (number %u): next sequence %llu, hashes %016llx to %016llx",
         shard->id, shard->number, number(shard->next_sequence), number(shard->hash_first),
         number(shard->hash_last));
    if (topic_retains(shard->topic)) {
        TELL(telling, "    retained from %llu, %llu bytes", number(shard->retained_from),
             number(shard->retained_bytes));
    }
    for (const struct list_link *link = list_first(&shard->sweeps); link != NULL;
         link = list_next(&shard->sweeps, link)) {
        const struct sweep *sweep = container_of(link, const struct sweep, link);
        TELL(telling, "    being released: %llu to %llu", number(sweep->from), number(sweep->to));
    }
    for (size_t index = 0; index < shard->lanes.count; index++) {
        tell_lane(telling, shard->lanes.items[index]);
    }
}

static void tell_topic(struct telling *telling, const struct topic *topic)
{
    TELL(telling,
         "topic %u: %zu shards here, %zu subscriptions, retention %llu ms and %llu bytes, "
         "idempotency window %llu ms, %s%s",
         topic->id, topic->shards.count, topic->subs.count, number(topic->settings.retention_ms),
         number(topic->settings.retention_bytes), number(topic->settings.dedup_window_ms),
         durability_text(topic->settings.durability), topic->dropping ? ", being deleted" : "");
    for (size_t index = 0; index < topic->shards.count; index++) {
        tell_shard(telling, topic->shards.items[index]);
    }
}

static err_t tell_segment(struct telling *telling, struct core *core, struct span key)
{
    struct segment *segment = NULL;
    if (key.size == sizeof segment->number) {
        TRY(msglog_segment(core, bytes_get_be32(key.data), &segment));
    }
    if (segment != NULL) {
        TELL(telling, "  segment %u: %u messages, %u needed, %u rows, %llu bytes%s",
             segment->number, segment->entries, segment->live, segment->rows, number(segment->size),
             segment->closed ? "" : ", being written");
    }
    return NULL;
}

/* The newest ones. */
static err_t tell_segments(struct telling *telling, struct core *core)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    bool found = false;
    uint64_t present = 0;
    uint64_t shown = 0;
    TRY(store_entries(core->txn, STORE_SEGMENT, &present));
    TELL(telling, "log: %llu segments, %llu messages, %llu needed, %llu bytes", number(present),
         number(core->log.entries), number(core->log.live), number(core->log.size));
    TRY(store_cursor_open(core->txn, STORE_SEGMENT, &cursor));
    TRY_OUT(store_cursor_last(cursor, &found));
    for (; found && shown < SEGMENTS_SHOWN_MAX; shown++) {
        TRY_OUT(tell_segment(telling, core, cursor->key));
        TRY_OUT(store_cursor_prev(cursor, &found));
    }
    if (shown < present) {
        TELL(telling, "  and %llu older ones", number(present - shown));
    }
out:
    store_cursor_close(cursor);
    return err;
}

static const struct topic *topic_after(const struct core *core, uint32_t id)
{
    const struct topic *best = NULL;
    const struct topic *topic;
    size_t at = 0;
    while ((topic = map_each(&core->topics, &at)) != NULL) {
        if (topic->id > id && (best == NULL || topic->id < best->id)) {
            best = topic;
        }
    }
    return best;
}

static err_t tell_volume(struct telling *telling)
{
    struct machine *machine = NULL;
    TRY(core_create(&(struct core_options){0}, &machine));
    struct core *core = container_of(machine, struct core, machine);
    err_t err = NULL;
    TRY_OUT(machine->ops->load(machine, telling->txn));
    TELL(telling, "volume: %llu commands applied, last stamp %llu ms", number(core->applied),
         number(core->now_ms));
    const struct topic *topic = topic_after(core, 0);
    for (; topic != NULL; topic = topic_after(core, topic->id)) {
        tell_topic(telling, topic);
    }
    TRY_OUT(tell_segments(telling, core));
out:
    machine->ops->destroy(machine);
    return err;
}

/* ---- the catalog ---------------------------------------------------------------------------- */

static const char *state_text(enum catalog_state state)
{
    switch (state) {
    case CATALOG_NONE:
        return "none";
    case CATALOG_CREATING:
        return "being created";
    case CATALOG_ACTIVE:
        return "active";
    case CATALOG_DELETING:
        return "being deleted";
    }
    return "unknown";
}

static void tell_catalog_topic(struct telling *telling, const struct catalog_topic *topic)
{
    TELL(telling, "topic %u %s: %s, %u shards, %u subscriptions", topic->id, topic->name,
         state_text(topic->state), topic->shard_count, topic->sub_count);
    for (uint32_t index = 0; index < topic->shard_count; index++) {
        const struct catalog_shard *shard = &topic->shards[index];
        TELL(telling, "  shard %u (number %u): volume %u, hashes %016llx to %016llx",
             shard->place.shard_id, shard->place.number, shard->volume,
             number(shard->place.hash_first), number(shard->place.hash_last));
    }
    const struct catalog_sub *sub = catalog_sub_after(topic, span_of("", 0));
    for (; sub != NULL; sub = catalog_sub_after(topic, span_text(sub->name))) {
        TELL(telling, "  subscription %u %s: %s, lease %llu ms, %u attempts%s", sub->id, sub->name,
             state_text(sub->state), number(sub->settings.lease_ms), sub->settings.max_attempts,
             sub->settings.paused ? ", paused" : "");
    }
}

static err_t tell_catalog(struct telling *telling)
{
    struct catalog *catalog = catalog_create();
    if (catalog == NULL) {
        return ERR(MEMORY, "no memory for the catalog");
    }
    err_t err = NULL;
    TRY_OUT(catalog_load(catalog, telling->txn));
    const struct catalog_topic *topic = catalog_topic_after(catalog, span_of("", 0));
    for (; topic != NULL; topic = catalog_topic_after(catalog, span_text(topic->name))) {
        tell_catalog_topic(telling, topic);
    }
out:
    catalog_destroy(catalog);
    return err;
}

/* ---- either --------------------------------------------------------------------------------- */

static err_t tell_tables(struct telling *telling)
{
    static const char *const names[] = {
#define TABLE(name, number, doc) [number] = #name,
#include "storage/tables.def"
    };
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        uint64_t rows = 0;
        TRY(store_entries(telling->txn, (enum store_table)table, &rows));
        if (rows > 0) {
            TELL(telling, "table %s: %llu rows", names[table], number(rows));
        }
    }
    return NULL;
}

static err_t tell_all(struct telling *telling)
{
    uint64_t rows = 0;
    struct span value;
    bool is_catalog = false;
    TRY(store_entries(telling->txn, STORE_CATALOG, &rows));
    TRY(store_get(telling->txn, STORE_META, span_text(CATALOG_META_KEY), &value, &is_catalog));
    TRY(is_catalog || rows > 0 ? tell_catalog(telling) : tell_volume(telling));
    return tell_tables(telling);
}

err_t check_inspect(struct store *store, check_line line, void *user)
{
    struct telling telling = {.line = line, .user = user};
    TRY(store_begin(store, STORE_READ, &telling.txn));
    buf_init(&telling.text, LINE_MAX_SIZE);
    err_t err = tell_all(&telling);
    buf_deinit(&telling.text);
    store_abort(telling.txn);
    return err;
}
