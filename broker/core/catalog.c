#include "broker/core/catalog.h"

#include <assert.h>

#include "broker/base/bytes.h"
#include "broker/core/catalog_row.h"

enum { RECORD_HEADER_SIZE = CATALOG_KEY_SIZE + 4, SHARDS_SIZE_MAX = 1024 * 1024 };

_Static_assert(SHARDS_SIZE_MAX >= CORE_SHARDS_MAX * sizeof(struct catalog_shard), "all fit");
_Static_assert(CATALOG_VALUE_MAX >= CORE_SHARDS_MAX * CATALOG_SHARD_SIZE + 1024, "all fit");

/* A topic with what only this file uses of it. */
struct topic_entry {
    struct catalog_topic topic;
    struct buf shards;    /* the memory of topic.shards */
    struct array by_name; /* its subscriptions */
};

static struct topic_entry *entry_of(const struct catalog_topic *topic)
{
    return container_of(topic, struct topic_entry, topic);
}

bool catalog_name_valid(struct span name)
{
    return catalog_row_name_valid(name) && !span_is(name, ".") && !span_is(name, "..");
}

/* ---- look-ups ------------------------------------------------------------------------------- */

static struct span topic_name(const void *item)
{
    return span_text(((const struct catalog_topic *)item)->name);
}

static struct span sub_name(const void *item)
{
    return span_text(((const struct catalog_sub *)item)->name);
}

typedef struct span (*name_of)(const void *item);

/* Where `name` is, or belongs, in an array ordered by name. */
static size_t place_of(const struct array *array, name_of read, struct span name, bool *found)
{
    size_t low = 0;
    size_t high = array->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (span_compare(read(array->items[middle]), name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *found = low < array->count && span_equal(read(array->items[low]), name);
    return low;
}

static void *find(const struct array *array, name_of read, struct span name)
{
    bool found = false;
    size_t place = place_of(array, read, name, &found);
    return found ? array->items[place] : NULL;
}

static void *find_after(const struct array *array, name_of read, struct span name)
{
    bool found = false;
    size_t place = place_of(array, read, name, &found) + (found ? 1 : 0);
    return place < array->count ? array->items[place] : NULL;
}

struct catalog_topic *catalog_topic(const struct catalog *catalog, struct span name)
{
    return find(&catalog->by_name, topic_name, name);
}

struct catalog_topic *catalog_topic_by_id(const struct catalog *catalog, uint32_t id)
{
    return map_get(&catalog->topics, id);
}

struct catalog_sub *catalog_sub(const struct catalog_topic *topic, struct span name)
{
    return find(&entry_of(topic)->by_name, sub_name, name);
}

struct catalog_sub *catalog_sub_by_id(const struct catalog *catalog, uint32_t id)
{
    return map_get(&catalog->subs, id);
}

struct catalog_topic *catalog_topic_after(const struct catalog *catalog, struct span name)
{
    return find_after(&catalog->by_name, topic_name, name);
}

struct catalog_sub *catalog_sub_after(const struct catalog_topic *topic, struct span name)
{
    return find_after(&entry_of(topic)->by_name, sub_name, name);
}

const struct catalog_shard *catalog_topic_shard(const struct catalog_topic *topic, uint64_t hash)
{
    uint32_t low = 0;
    uint32_t high = topic->shard_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (topic->shards[middle].place.hash_first <= hash) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &topic->shards[low];
}

const struct catalog_shard *catalog_shard_by_id(const struct catalog *catalog, uint32_t shard_id,
                                                struct catalog_topic **topic)
{
    const struct catalog_shard *shard = map_get(&catalog->shards, shard_id);
    if (shard != NULL) {
        *topic = shard->topic;
    }
    return shard;
}

/* ---- taking over rows ----------------------------------------------------------------------- */

static err_t no_memory(void)
{
    return ERR(MEMORY, "no memory for the catalog");
}

static err_t topic_add(struct catalog *catalog, uint32_t id, struct span name,
                       struct topic_entry **out)
{
    bool found = false;
    size_t place = place_of(&catalog->by_name, topic_name, name, &found);
    if (found) {
        return ERR(CORRUPT, "the catalog has two topics named %.*s", (int)name.size,
                   (const char *)name.data);
    }
    struct topic_entry *entry = pool_take(&catalog->topic_pool);
    if (entry == NULL) {
        return no_memory();
    }
    entry->topic.id = id;
    memcpy(entry->topic.name, name.data, name.size);
    list_init(&entry->topic.subs);
    buf_init(&entry->shards, SHARDS_SIZE_MAX);
    array_init(&entry->by_name);
    if (!map_put(&catalog->topics, id, entry)) {
        pool_give(&catalog->topic_pool, entry);
        return no_memory();
    }
    if (!array_insert(&catalog->by_name, place, entry)) {
        map_remove(&catalog->topics, id);
        pool_give(&catalog->topic_pool, entry);
        return no_memory();
    }
    *out = entry;
    return NULL;
}

static void shards_forget(struct catalog *catalog, struct catalog_topic *topic)
{
    for (uint32_t index = 0; index < topic->shard_count; index++) {
        map_remove(&catalog->shards, topic->shards[index].place.shard_id);
    }
    topic->shard_count = 0;
}

static err_t shards_take(struct catalog *catalog, struct topic_entry *entry, struct span shards)
{
    struct catalog_topic *topic = &entry->topic;
    size_t count = shards.size / CATALOG_SHARD_SIZE;
    shards_forget(catalog, topic);
    buf_reset(&entry->shards);
    topic->shards = (void *)buf_extend(&entry->shards, count * sizeof *topic->shards);
    if (topic->shards == NULL) {
        return no_memory();
    }
    for (size_t index = 0; index < count; index++) {
        struct catalog_shard *shard = &topic->shards[index];
        catalog_row_read_shard(shards.data + index * CATALOG_SHARD_SIZE, shard);
        shard->topic = topic;
        if (map_get(&catalog->shards, shard->place.shard_id) != NULL) {
            return ERR(CORRUPT, "the catalog has two shards %u", shard->place.shard_id);
        }
        if (!map_put(&catalog->shards, shard->place.shard_id, shard)) {
            return no_memory();
        }
        topic->shard_count++;
    }
    return NULL;
}

static err_t topic_take(struct catalog *catalog, uint32_t id, struct span value)
{
    struct catalog_topic read;
    struct span shards;
    if (!catalog_row_read_topic(value, &read, &shards)) {
        return ERR(CORRUPT, "the catalog's row of topic %u is damaged", id);
    }
    struct topic_entry *entry = map_get(&catalog->topics, id);
    if (entry == NULL) {
        TRY(topic_add(catalog, id, span_text(read.name), &entry));
        assert(entry != NULL);
    }
    entry->topic.version = read.version;
    entry->topic.state = read.state;
    entry->topic.created_ms = read.created_ms;
    entry->topic.settings = read.settings;
    return shards_take(catalog, entry, shards);
}

static err_t sub_add(struct catalog *catalog, struct topic_entry *entry,
                     const struct catalog_sub *read, struct catalog_sub **out)
{
    bool found = false;
    size_t place = place_of(&entry->by_name, sub_name, span_text(read->name), &found);
    if (found) {
        return ERR(CORRUPT, "topic %s has two subscriptions named %s", entry->topic.name,
                   read->name);
    }
    struct catalog_sub *sub = pool_take(&catalog->sub_pool);
    if (sub == NULL) {
        return no_memory();
    }
    *sub = *read;
    sub->topic = &entry->topic;
    if (!map_put(&catalog->subs, sub->id, sub)) {
        pool_give(&catalog->sub_pool, sub);
        return no_memory();
    }
    if (!array_insert(&entry->by_name, place, sub)) {
        map_remove(&catalog->subs, sub->id);
        pool_give(&catalog->sub_pool, sub);
        return no_memory();
    }
    /* Ids only grow, so this is their order. */
    list_append(&entry->topic.subs, &sub->link);
    entry->topic.sub_count++;
    *out = sub;
    return NULL;
}

static err_t sub_take(struct catalog *catalog, uint32_t id, struct span value)
{
    struct catalog_sub read;
    uint32_t topic_id = 0;
    if (!catalog_row_read_sub(value, &read, &topic_id)) {
        return ERR(CORRUPT, "the catalog's row of subscription %u is damaged", id);
    }
    struct topic_entry *entry = map_get(&catalog->topics, topic_id);
    if (entry == NULL) {
        return ERR(CORRUPT, "subscription %u belongs to no topic", id);
    }
    read.id = id;
    struct catalog_sub *sub = map_get(&catalog->subs, id);
    if (sub == NULL) {
        TRY(sub_add(catalog, entry, &read, &sub));
        assert(sub != NULL);
    }
    sub->version = read.version;
    sub->state = read.state;
    sub->settings = read.settings;
    return NULL;
}

err_t catalog_row_take(struct catalog *catalog, struct span key, struct span value)
{
    uint32_t id = key.size == CATALOG_KEY_SIZE ? bytes_get_be32(key.data + 1) : 0;
    if (id != 0 && key.data[0] == CATALOG_KIND_TOPIC) {
        return topic_take(catalog, id, value);
    }
    if (id != 0 && key.data[0] == CATALOG_KIND_SUB) {
        return sub_take(catalog, id, value);
    }
    return ERR(CORRUPT, "the catalog has a row of an unknown kind");
}

static void sub_forget(struct catalog *catalog, struct catalog_sub *sub)
{
    struct array *by_name = &entry_of(sub->topic)->by_name;
    bool found = false;
    size_t place = place_of(by_name, sub_name, span_text(sub->name), &found);
    assert(found);
    array_remove(by_name, place);
    list_remove(&sub->link);
    sub->topic->sub_count--;
    map_remove(&catalog->subs, sub->id);
    pool_give(&catalog->sub_pool, sub);
}

static void topic_forget(struct catalog *catalog, struct topic_entry *entry)
{
    struct list_link *link;
    while ((link = list_first(&entry->topic.subs)) != NULL) {
        sub_forget(catalog, container_of(link, struct catalog_sub, link));
    }
    bool found = false;
    size_t place = place_of(&catalog->by_name, topic_name, span_text(entry->topic.name), &found);
    assert(found);
    array_remove(&catalog->by_name, place);
    shards_forget(catalog, &entry->topic);
    buf_deinit(&entry->shards);
    array_deinit(&entry->by_name);
    map_remove(&catalog->topics, entry->topic.id);
    pool_give(&catalog->topic_pool, entry);
}

void catalog_row_forget(struct catalog *catalog, enum catalog_kind kind, uint32_t id)
{
    struct topic_entry *entry;
    struct catalog_sub *sub;
    switch (kind) {
    case CATALOG_KIND_TOPIC:
        entry = map_get(&catalog->topics, id);
        if (entry != NULL) {
            topic_forget(catalog, entry);
        }
        return;
    case CATALOG_KIND_SUB:
        sub = map_get(&catalog->subs, id);
        if (sub != NULL) {
            sub_forget(catalog, sub);
        }
        return;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

struct catalog *catalog_create(void)
{
    /* The core has no malloc; a pool of one gives it its own memory. */
    struct pool own;
    pool_init(&own, sizeof(struct catalog));
    struct catalog *catalog = pool_take(&own);
    if (catalog == NULL) {
        return NULL;
    }
    catalog->own = own;
    map_init(&catalog->topics);
    map_init(&catalog->subs);
    map_init(&catalog->shards);
    array_init(&catalog->by_name);
    pool_init(&catalog->topic_pool, sizeof(struct topic_entry));
    pool_init(&catalog->sub_pool, sizeof(struct catalog_sub));
    return catalog;
}

static void clear(struct catalog *catalog)
{
    while (catalog->by_name.count > 0) {
        topic_forget(catalog, catalog->by_name.items[catalog->by_name.count - 1]);
    }
}

void catalog_destroy(struct catalog *catalog)
{
    if (catalog == NULL) {
        return;
    }
    clear(catalog);
    map_deinit(&catalog->topics);
    map_deinit(&catalog->subs);
    map_deinit(&catalog->shards);
    array_deinit(&catalog->by_name);
    pool_deinit(&catalog->topic_pool);
    pool_deinit(&catalog->sub_pool);
    struct pool own = catalog->own;
    pool_deinit(&own);
}

/* Takes the next record off `rest`. */
static err_t install_next(struct catalog *catalog, struct span *rest)
{
    if (rest->size < RECORD_HEADER_SIZE) {
        return ERR(CORRUPT, "a record of the catalog is cut off");
    }
    struct span key = span_of(rest->data, CATALOG_KEY_SIZE);
    uint32_t size = bytes_get_le32(rest->data + CATALOG_KEY_SIZE);
    *rest = span_of(rest->data + RECORD_HEADER_SIZE, rest->size - RECORD_HEADER_SIZE);
    if (size == UINT32_MAX) {
        uint32_t id = bytes_get_be32(key.data + 1);
        if (key.data[0] != CATALOG_KIND_TOPIC && key.data[0] != CATALOG_KIND_SUB) {
            return ERR(CORRUPT, "a record of the catalog is of an unknown kind");
        }
        catalog_row_forget(catalog, (enum catalog_kind)key.data[0], id);
        return NULL;
    }
    if (size > rest->size) {
        return ERR(CORRUPT, "a record of the catalog is cut off");
    }
    struct span value = span_of(rest->data, size);
    *rest = span_of(rest->data + size, rest->size - size);
    return catalog_row_take(catalog, key, value);
}

err_t catalog_install(struct catalog *catalog, struct span record)
{
    while (record.size > 0) {
        TRY(install_next(catalog, &record));
    }
    return NULL;
}

err_t catalog_load(struct catalog *catalog, struct store_txn *txn)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    bool found = false;
    clear(catalog);
    TRY(store_cursor_open(txn, STORE_CATALOG, &cursor));
    /* Topics have the lower kind: they come before their subscriptions. */
    TRY_OUT(store_cursor_seek(cursor, span_of("", 0), &found));
    while (found) {
        TRY_OUT(catalog_row_take(catalog, cursor->key, cursor->value));
        TRY_OUT(store_cursor_next(cursor, &found));
    }
out:
    store_cursor_close(cursor);
    return err;
}
