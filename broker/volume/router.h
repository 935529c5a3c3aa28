/* The router: what the faces (HTTP, the wire protocol, callers in the process) ask the broker
 * through.
 *
 * It finds the shards and volumes a request concerns, sends each volume its commands, and puts the
 * replies together; a pull asks the volumes in turn and waits in all of them at once when there is
 * nothing. It belongs to one loop: every function is called from that loop's thread, and every
 * `done` runs there, from router_poll (never from inside the call that started the operation). An
 * operation is a struct the caller embeds, fills and keeps in place, with everything its spans
 * point into, until `done`. Each is done exactly once, with result.code and result.detail;
 * ERR_UNAVAILABLE while stopping or when a volume has failed. */
#ifndef VOLUME_ROUTER_H
#define VOLUME_ROUTER_H

#include "broker/base/arena.h"
#include "broker/base/clock.h"
#include "broker/base/heap.h"
#include "broker/core/catalog.h"
#include "broker/core/command.h"

struct router;
struct router_operation;
struct router_call;
struct router_waiters;

typedef void (*router_done)(struct router_operation *operation);

struct router_result {
    enum err_code code;
    char detail[200]; /* for people; begins with the field to blame when there is one: "shards: must
                         be ..." */
};

/* Common head of every operation. The caller sets arena, done and user. */
struct router_operation {
    struct arena
        *arena; /* for the router's parts of the operation; reset by the caller after `done` */
    router_done done;
    void *user;
    struct router_result result;
    /* the router's own */
    struct router *router;
    void (*advance)(struct router_operation *operation, struct router_call *call);
    struct list_link finished;
    struct list calls; /* replies to read in `done`; freed by router_release */
    uint32_t pending;
    uint32_t step;
};

/* Publishes. `messages[i].shard_id` is chosen by the router from `key`, else from the idempotency
 * key, else from the batch key, else round robin; the caller fills the rest, `payload_hash`
 * included (router_payload_hash). result.code tells of the whole (NOT_FOUND, NOT_ATOMIC ...); when
 * it is NONE or ABORTED, `results` tell of each message, and `durability` of how safe those that
 * were published are now: RELAXED when any was answered before its commit. */
struct router_publish {
    struct router_operation operation;
    struct span topic;
    bool atomic;
    struct span batch_key; /* the whole is published once under it; empty: none */
    struct message_in *messages;
    uint32_t count;
    struct publish_result *results; /* the caller's, `count` of them */
    enum durability durability;     /* out */
};

/* For one of a row of pulls, of which one is out at a time: a full mailbox does not refuse it. */
#define ROUTER_WAIT_FOR_EVER UINT64_MAX

struct router_pull {
    struct router_operation operation;
    struct span topic; /* both are looked up at the start and not kept */
    struct span sub;
    uint32_t max;
    uint32_t size_max;
    uint64_t lease_ms; /* 0: the subscription's */
    uint64_t wait_ms;  /* 0: answer at once; ROUTER_WAIT_FOR_EVER */
    /* the router's own */
    struct router_waiters *waiters; /* of its subscription, while it may wait */
    struct list_link waiting;
    struct heap_node deadline;
    uint32_t wakes_unmet; /* when it last began to ask */
    uint64_t tells;       /* when it last asked a volume */
    uint32_t sub_id;
    uint32_t volumes_asked;
    uint32_t volume_next;
    uint32_t taken;
    uint32_t taken_size;
    uint64_t left;            /* what the volumes it asked could still give */
    struct router_call *call; /* the one that is out */
    bool cancelled;
    bool expired;
    bool waited; /* it has been in line before */
};

enum router_settle_kind { ROUTER_ACK, ROUTER_NACK, ROUTER_EXTEND };

/* `receipts` are parsed by the caller; one of another subscription gives LEASE_LOST for it. */
struct router_settle {
    struct router_operation operation;
    struct span topic;
    struct span sub;
    enum router_settle_kind kind;
    struct receipt *receipts;
    uint32_t count;
    enum err_code *results; /* the caller's, `count` of them */
    bool has_delay;
    bool reject;
    uint64_t delay_ms;
    struct span note;
    uint64_t lease_ms;
};

/* PEEK, from a position (0, 0: the start); gathers up to `max`. */
struct router_peek {
    struct router_operation operation;
    struct span topic;
    struct span sub;
    enum message_state state;
    uint32_t max;
    uint32_t size_max;
    uint32_t from_shard_id;
    uint64_t from_sequence;
    /* out */
    bool more;
    uint32_t next_shard_id;
    uint64_t next_sequence;
    /* the router's own */
    uint32_t shard_index;
    uint32_t found;
    uint32_t found_size;
};

/* REDRIVE, PURGE and SEEK on every volume concerned; `count` is the sum. `command` is filled by the
 * caller (type and its part of the union, without sub_id); for SEEK and REDRIVE of one shard
 * `shard_number` names it (UINT32_MAX: all). */
struct router_change {
    struct router_operation operation;
    struct span topic;
    struct span sub;
    struct command command;
    uint32_t shard_number;
    uint64_t count; /* out */
    bool more;      /* out: REDRIVE stopped at its bound */
};

/* STATS of a topic, or of all (topic empty); the replies hold the rows (see router_reply_next). */
struct router_stats {
    struct router_operation operation;
    struct span topic;
};

/* A change of the catalog, carried through on every volume concerned before `done`. The caller
 * fills `change` (op TOPIC_PUT, SUB_PUT, or *_STATE to DELETING); volume_count is the router's.
 * After `done` the router's catalog shows it. Deletion is done when it can no longer be seen; space
 * is given back in the background. */
struct router_configure {
    struct router_operation operation;
    struct catalog_change change;
    uint32_t id; /* the router's own: of what is changed */
};

struct router_volume_status {
    const char *name; /* "volume-0", "catalog" */
    bool failed;
    bool full;
    char failure[160]; /* why it failed */
    uint64_t used_size;
    uint64_t file_size;
    uint64_t reader_age_ms;
    uint64_t mailbox_count;
    uint64_t commands_total;
    uint64_t commits_total;
    uint64_t journal_size;
};

/* Starting any operation: it is checked and sent at once; errors come through `done` as well. */
void router_start_publish(struct router *router, struct router_publish *publish);
void router_start_pull(struct router *router, struct router_pull *pull);
void router_start_settle(struct router *router, struct router_settle *settle);
void router_start_peek(struct router *router, struct router_peek *peek);
void router_start_change(struct router *router, struct router_change *change);
void router_start_stats(struct router *router, struct router_stats *stats);
void router_start_configure(struct router *router, struct router_configure *configure);

/* The client of this pull is gone: it is no longer woken, and what it may still be given goes back
 * at once without counting as an attempt. `done` still runs (result.code UNAVAILABLE). */
void router_cancel_pull(struct router *router, struct router_pull *pull);

/* In `done` of a pull: what it was given cannot be taken and goes back, likewise. */
void router_return_pull(struct router *router, struct router_pull *pull);

/* In `done`: the replies of the operation, one after the other; NULL begins, NULL ends. */
const struct reply *router_reply_next(const struct router_operation *operation,
                                      const struct reply *previous);
/* After `done`, when the replies have been read: gives their memory back. */
void router_release(struct router_operation *operation);

/* Hash of a message's payload as the record checksum wants it. */
uint64_t router_payload_hash(struct span key, struct span attributes, struct span body);

/* The catalog as of the last finished change; valid until the loop's next turn. */
const struct catalog *router_catalog(const struct router *router);

uint32_t router_volume_count(const struct router *router); /* without the catalog */
/* index == router_volume_count: the catalog. */
void router_volume_status(struct router *router, uint32_t index, struct router_volume_status *out);

/* Waiting pulls now. */
uint32_t router_waiting(const struct router *router);

/* Runs what has come back from the volumes and what has come due; called when the wake hook has
 * been called, and at router_next_due_ms at the latest. */
void router_poll(struct router *router);
/* On the scale of clock_mono_us / 1000; UINT64_MAX: nothing waits for a time, 0: at once. */
uint64_t router_next_due_ms(const struct router *router);

/* Answers waiting pulls with UNAVAILABLE and refuses new operations; what is in the volumes still
 * finishes. */
void router_drain(struct router *router);
/* Operations not yet done, and commands not yet back. */
uint32_t router_pending(const struct router *router);

#endif
