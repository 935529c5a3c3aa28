/* The core's objects in memory. Private to core/: each is a cache of stored rows, see core.h. */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include "broker/base/array.h"
#include "broker/base/bitmap.h"
#include "broker/base/heap.h"
#include "broker/base/list.h"
#include "broker/base/map.h"
#include "broker/base/pool.h"
#include "broker/core/core.h"
#include "broker/core/record.h"

enum {
    CHUNK_SIZE = 256, /* sequences in a chunk and in a block */
    CHUNK_WORDS = CHUNK_SIZE / 64,
    ROW_SIZE_MAX =
        8 * 4096 - 16, /* a log row fills whole pages: 16 is LMDB's overflow page header */
    ROW_HEADER_SIZE = 4,
    MESSAGE_SIZE_MAX = RECORD_HEADER_MAX + CORE_KEY_MAX + CORE_ATTRIBUTES_MAX + CORE_BODY_MAX,
    SEGMENT_SIZE_MAX = 1024 * 1024,
    SEGMENT_ROWS_MAX = 60000, /* rows are numbered in 16 bits; one record takes up to 2053 */
    STATE_COUNT = MESSAGE_DONE + 1,
};

struct topic {
    uint32_t id;
    bool dropping;
    struct topic_settings settings;
    uint64_t
        put_batch; /* the batch that last changed settings or shards; 0: none since the start */
    struct array shards; /* in order of id */
    struct array subs;   /* in order of id */
    struct list_link dropping_link;
};

/* Sequences skipped at once by a purge, a seek or a drop, and released in steps: [from, to). */
struct sweep {
    struct list_link link;      /* of its shard */
    struct list_link work_link; /* of the core */
    struct shard *shard;
    uint32_t sub_id; /* 0: retention */
    uint64_t from;
    uint64_t to;
};

struct block {
    struct shard *shard;
    uint64_t number;
    struct list_link lru;
    struct list_link dirty;
    uint64_t positions[CHUNK_SIZE]; /* 0: none */
};

struct shard {
    uint32_t id;
    uint32_t number;
    uint64_t hash_first;
    uint64_t hash_last;
    struct topic *topic;
    uint64_t next_sequence;
    uint64_t retained_from; /* what retention keeps begins here; next_sequence without retention */
    uint64_t retained_bytes;
    struct heap_node retention; /* when retention looks at it again */
    struct array lanes;
    struct list sweeps;
    struct map blocks; /* by number */
    /* The tail of the index that only the log's tail knows: from where, and the log's size then. */
    struct list_link unstored;
    uint64_t unstored_from;
    uint64_t unstored_at;
    struct list_link dirty;
};

struct sub {
    uint32_t id;
    bool dropping;
    struct topic *topic;
    struct sub_settings settings;
    struct array lanes;  /* in order of shard id: the slot numbers of the bitmaps */
    uint64_t *available; /* lanes with something to hand out */
    uint64_t *dirty_lanes;
    size_t words;
    uint64_t woken_batch;   /* the batch in which it was last woken ... */
    size_t woken_at;        /* ... and where that is said in its effects */
    struct list_link dirty; /* some of its lanes are */
    struct list_link dropping_link;
};

struct lane {
    struct sub *sub;
    struct shard *shard;
    size_t slot;
    uint64_t cursor; /* first sequence of the enqueue queue */
    uint32_t epoch;
    uint32_t grant; /* how many pulls have leased here */
    uint64_t counts[STATE_COUNT];
    struct map chunks; /* by number */
    struct list dirty_chunks;
};

struct entry {
    uint64_t due_ms; /* leased: end of the lease; scheduled: due; dead: since when */
    uint32_t grant;
    uint16_t attempt;
    uint8_t state;
    uint8_t reason;
};

struct chunk {
    struct lane *lane;
    uint64_t number;
    struct list_link lru;
    struct list_link dirty;
    uint64_t due_indexed_ms;           /* its row in DUE; 0: none */
    uint64_t outstanding[CHUNK_WORDS]; /* in delivery: neither none nor done */
    uint64_t finished[CHUNK_WORDS];    /* done since the last flush, not yet released */
    uint16_t counts[STATE_COUNT];
    bool stored;
    struct entry entries[CHUNK_SIZE];
};

struct segment {
    uint32_t number;
    uint32_t entries;
    uint32_t live;
    uint32_t rows;
    uint64_t size;
    bool closed;
    uint8_t listed; /* its row in GC: 0 none, else enum gc_kind */
    struct list_link dirty;
};

enum gc_kind { GC_DEAD = 1, GC_SPARSE = 2 };

struct msglog {
    struct segment *tail;
    struct buf row;          /* being filled; written when full and at flush */
    uint64_t batch_start;    /* position at which the appends since the last flush begin */
    uint64_t fresh_from;     /* what lies from here on need not be on disk yet */
    uint64_t appended_bytes; /* since the beginning of time */
    uint64_t entries;        /* in all segments */
    uint64_t live;           /* of them, those somebody needs */
    uint64_t size;           /* bytes of all entries */
    struct map segments;     /* by number */
    struct list dirty;
    uint64_t cached_row;     /* the row read last ... */
    uint64_t cached_changes; /* ... and when: valid while the store has not changed since */
    struct span cached;
};

struct core {
    struct machine machine;
    struct pool own; /* the core itself is its one object */
    struct core_options options;
    struct store_txn *txn; /* of the call being served */
    struct effects *effects;
    uint64_t changes;           /* to the store, in this process */
    uint64_t marks;             /* changes of what is to be stored, in memory or the store */
    uint64_t changes_committed; /* `changes` when the last batch ended */
    uint64_t batch;
    uint64_t now_ms;
    uint64_t applied; /* commands ever */
    uint64_t due_next_ms;
    uint64_t gc_rows;

    struct map topics;
    struct array topics_by_id; /* the same, for walks in order */
    struct map shards;
    struct map subs;
    struct pool topic_pool;
    struct pool shard_pool;
    struct pool sub_pool;
    struct pool lane_pool;
    struct pool chunk_pool;
    struct pool block_pool;
    struct pool segment_pool;
    struct pool sweep_pool;

    struct msglog log;
    struct list chunk_lru; /* all cached chunks, least recently used first */
    struct list block_lru;
    struct list dirty_subs;
    struct list dirty_shards;
    struct list dirty_blocks;
    struct list unstored_shards; /* in order of unstored_from */
    size_t unstored_count;
    struct list sweeps;
    struct list dropping_subs;
    struct list dropping_topics;
    struct heap retention;
    struct buf scratch;    /* a large record in one piece */
    struct buf copy;       /* a payload on its way to the tail */
    struct buf row_copy;   /* a row being walked */
    struct buf value;      /* a row being encoded */
    uint64_t corrupt;      /* damage found outside apply, reported with the next command */
    bool work;             /* there may be background work */
    uint64_t published_ms; /* last publish */
    uint64_t checkpoint;   /* as last written */
};

/* Every change of the store goes through these: they end the life of spans into it. */
err_t state_put(struct core *core, enum store_table table, struct span key,
                struct span value) MUST_CHECK;
err_t state_append(struct core *core, enum store_table table, struct span key,
                   struct span value) MUST_CHECK;
err_t state_remove(struct core *core, enum store_table table, struct span key) MUST_CHECK;

struct topic *state_topic(const struct core *core, uint32_t id);
struct shard *state_shard(const struct core *core, uint32_t id);
struct sub *state_sub(const struct core *core, uint32_t id); /* also a dropping one */
struct lane *state_lane(const struct sub *sub, uint32_t shard_id);

/* A time beyond the end of time is its end. */
static inline uint64_t state_later(uint64_t time_ms, uint64_t ms)
{
    return ms < UINT64_MAX - time_ms ? time_ms + ms : UINT64_MAX;
}

/* Sets or clears the lane's bit of `available`: after any change of its cursor or of what is ready.
 * A pull divides by their number, so that a bit left behind would change what it gives. */
void state_update_available(struct lane *lane);

/* The subscription may have something to pull now. */
err_t state_wake(struct core *core, struct sub *sub) MUST_CHECK;
/* What the batch has woken it for is gone: only what comes after this wakes it. */
void state_unwake(struct core *core, struct sub *sub);

#endif
