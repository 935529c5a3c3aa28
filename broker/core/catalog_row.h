/* Rows of the catalog (CATALOG), and the inside of its copies in memory. Private to the catalog.
 *
 * A row is what is stored, what a reply hands to other copies, and what a copy is built from; every
 * copy, the deciding one too, changes only by taking over rows. So the copies cannot drift apart,
 * and what would not come back from the store is never decided on. */
#ifndef CORE_CATALOG_ROW_H
#define CORE_CATALOG_ROW_H

#include "broker/base/array.h"
#include "broker/base/map.h"
#include "broker/base/pool.h"
#include "broker/core/catalog.h"

enum catalog_kind { CATALOG_KIND_TOPIC = 1, CATALOG_KIND_SUB = 2 };

enum {
    CATALOG_KEY_SIZE = 5, /* kind u8, id u32 */
    CATALOG_SHARD_OPEN = 1,
    CATALOG_SHARD_SIZE = 28,
    CATALOG_VALUE_MAX = 256 * 1024, /* a topic with all the shards it may have */
    CATALOG_NEXT_SIZE = 40,
};

#define CATALOG_META_KEY "catalog"

struct catalog {
    struct pool own; /* the memory of this struct */
    struct map topics;
    struct map subs;
    struct map shards;
    struct array by_name; /* topics */
    struct pool topic_pool;
    struct pool sub_pool;
};

/* META "catalog": what goes on from one command to the next. */
struct catalog_next {
    uint64_t applied; /* commands ever */
    uint64_t now_ms;  /* the last stamp */
    uint32_t topic_id;
    uint32_t shard_id;
    uint32_t sub_id;
};

void catalog_row_key(enum catalog_kind kind, uint32_t id, uint8_t out[CATALOG_KEY_SIZE]);
void catalog_row_of_topic(const struct catalog_topic *topic, struct buf *out);
void catalog_row_of_sub(const struct catalog_sub *sub, struct buf *out);
void catalog_row_of_next(const struct catalog_next *next, uint8_t out[CATALOG_NEXT_SIZE]);

/* Reading: false when the value is damaged. The id comes from the key, a topic's shards from the
 * rest of its value, CATALOG_SHARD_SIZE bytes each. */
bool catalog_row_read_topic(struct span value, struct catalog_topic *out, struct span *shards);
void catalog_row_read_shard(const uint8_t *bytes, struct catalog_shard *out);
bool catalog_row_read_sub(struct span value, struct catalog_sub *out, uint32_t *topic_id);
bool catalog_row_read_next(struct span value, struct catalog_next *out);

/* A name as rows may have it: catalog_name_valid, or "." or "..", which can only be deleted. */
bool catalog_row_name_valid(struct span name);

/* One row as another copy takes it; without a value: it is gone. */
void catalog_row_record(struct span key, struct span value, struct buf *out);

/* Takes over a row: makes the object or changes it in place. ERR_CORRUPT when it is damaged. */
err_t catalog_row_take(struct catalog *catalog, struct span key, struct span value) MUST_CHECK;
/* Forgets an object that is gone; a topic with its subscriptions. */
void catalog_row_forget(struct catalog *catalog, enum catalog_kind kind, uint32_t id);

#endif
