/* The catalog: topics, their shards and subscriptions, with their settings and states.
 *
 * One small environment holds it, changed by CATALOG commands through the same volume thread code
 * as messages. A `struct catalog` is the whole content in memory. The catalog's own thread has one,
 * which decides; the router has another, kept equal by installing the records that come back with
 * each reply. What spans volumes (a topic with shards in several) goes through states: it is
 * recorded as CREATING, each volume does its part idempotently, then it is recorded as ACTIVE;
 * deletion likewise through DELETING. Start-up finishes what was half done. */
#ifndef CORE_CATALOG_H
#define CORE_CATALOG_H

#include "broker/base/list.h"
#include "broker/core/command.h"
#include "broker/core/machine.h"

/* Settings of what is created without saying otherwise, and their bounds, which each face checks.
 */
enum {
    CATALOG_SHARDS_DEFAULT = 4,
    CATALOG_DEDUP_WINDOW_DEFAULT_MS = 300000,
    CATALOG_DEDUP_WINDOW_MAX_MS = 7 * 86400000,
    CATALOG_RETENTION_MIN_MS = 1000,
    CATALOG_LEASE_DEFAULT_MS = 30000,
    CATALOG_LEASE_MIN_MS = 100,
    CATALOG_LEASE_MAX_MS = 86400000 / 2,
    CATALOG_ATTEMPTS_DEFAULT = 16,
    CATALOG_ATTEMPTS_MAX = UINT16_MAX,
    CATALOG_IN_FLIGHT_MAX = 1000000,
};
#define CATALOG_RETENTION_MAX_MS (3650 * UINT64_C(86400000))
#define CATALOG_RETENTION_BYTES_MAX ((UINT64_C(1) << 53) - 1)
#define CATALOG_RETRY_DELAY_MAX_MS (30 * UINT64_C(86400000))

enum catalog_state { CATALOG_NONE, CATALOG_CREATING, CATALOG_ACTIVE, CATALOG_DELETING };

struct catalog_shard {
    struct shard_place place;
    struct catalog_topic *topic;
    uint16_t volume;
    uint8_t state; /* 1: open; closed ones come with live resharding */
};

struct catalog_topic {
    uint32_t id;
    uint32_t version; /* grows with every change of the settings: the ETag */
    enum catalog_state state;
    uint64_t created_ms;
    char name[CORE_NAME_MAX + 1];
    struct topic_settings settings;
    uint32_t shard_count;
    struct catalog_shard *shards; /* in order of hash_first */
    struct list subs;             /* struct catalog_sub.link, in order of id */
    uint32_t sub_count;
    uint32_t round_robin; /* the router's */
};

struct catalog_sub {
    struct list_link link;
    uint32_t id;
    uint32_t version;
    enum catalog_state state;
    uint64_t created_ms;
    struct catalog_topic *topic;
    char name[CORE_NAME_MAX + 1];
    struct sub_settings settings;
    enum start_at start;
    uint64_t start_value;
    void *waiters; /* the router's */
};

struct catalog;

/* Look-ups; NULL when there is none. Things in DELETING are found too: callers check the state. */
struct catalog_topic *catalog_topic(const struct catalog *catalog, struct span name);
struct catalog_topic *catalog_topic_by_id(const struct catalog *catalog, uint32_t id);
struct catalog_sub *catalog_sub(const struct catalog_topic *topic, struct span name);
struct catalog_sub *catalog_sub_by_id(const struct catalog *catalog, uint32_t id);
/* Topics in order of name: the first one after `name` (empty: the first). Subscriptions likewise.
 */
struct catalog_topic *catalog_topic_after(const struct catalog *catalog, struct span name);
struct catalog_sub *catalog_sub_after(const struct catalog_topic *topic, struct span name);
/* The topic's open shard for a hash. */
const struct catalog_shard *catalog_topic_shard(const struct catalog_topic *topic, uint64_t hash);
/* The shard with this id and its topic; NULL when unknown. */
const struct catalog_shard *catalog_shard_by_id(const struct catalog *catalog, uint32_t shard_id,
                                                struct catalog_topic **topic);

/* [A-Za-z0-9._-]{1,255}, except "." and "..", which would be steps in a path. */
bool catalog_name_valid(struct span name);

enum catalog_op {
    CATALOG_TOPIC_PUT,   /* creates (CREATING) or updates settings */
    CATALOG_TOPIC_STATE, /* CREATING -> ACTIVE, ACTIVE -> DELETING, DELETING -> gone */
    CATALOG_SUB_PUT,
    CATALOG_SUB_STATE,
};

struct catalog_change {
    enum catalog_op op;
    struct span topic;
    struct span sub;
    enum catalog_state to; /* *_STATE; CATALOG_NONE: gone */
    uint32_t id;      /* *_STATE: only of this one, not of another that has its name; 0: of any */
    bool has_version; /* If-Match: refuse with PRECONDITION unless it is the present version */
    uint32_t version;
    bool create_only; /* If-None-Match: * */
    uint32_t
        shard_count; /* CATALOG_TOPIC_PUT; 0: as it is, or CATALOG_SHARDS_DEFAULT of a new one */
    uint32_t volume_count;
    struct topic_settings topic_settings;
    struct sub_settings sub_settings;
    bool keep_paused; /* CATALOG_SUB_PUT of one that exists: it stays paused, or not, as it is */
    enum start_at start;
    uint64_t start_value;
    bool created; /* out */
    bool changed; /* out: false when it was so already */
};

struct catalog *catalog_create(void); /* NULL: no memory */
void catalog_destroy(struct catalog *catalog);

/* The machine that decides; `catalog_of` gives its content. Destroyed with machine_destroy. */
err_t catalog_machine_create(struct machine **out) MUST_CHECK;
struct catalog *catalog_of(struct machine *machine);

/* Installs into another copy what a reply to a CATALOG command carries in reply->payload. */
err_t catalog_install(struct catalog *catalog, struct span record) MUST_CHECK;
/* Reads all of it from the store: start-up of another copy. */
err_t catalog_load(struct catalog *catalog, struct store_txn *txn) MUST_CHECK;

#endif
