/* The router's insides, shared by its files: router.c (calls, polling), pull.c, configure.c,
 * requests.c. */
#ifndef VOLUME_ROUTER_INTERNAL_H
#define VOLUME_ROUTER_INTERNAL_H

#include "broker/base/map.h"
#include "broker/base/pool.h"
#include "broker/base/random.h"
#include "broker/volume/router.h"
#include "broker/volume/volume.h"

/* One command of an operation, to one volume. */
struct router_call {
    struct call call;
    struct list_link link; /* of its operation's answered calls, or of the unused ones */
    struct router_operation *operation; /* NULL: nobody waits for the reply any more */
    uint32_t volume;
    bool over;        /* the next step of what has been let in: sent over the mailbox's bound */
    uint32_t *places; /* where the results belong in the operation's own array; NULL: in order */
};

struct router {
    struct volume **volumes; /* the catalog's is the last */
    uint32_t volume_count;   /* without the catalog */
    const struct clock *clock;
    struct catalog *catalog;
    struct mailbox replies;
    void (*wake)(void *context);
    void *wake_context;
    struct pool call_pool;
    struct list unused_calls;
    size_t unused_size;   /* reply memory they keep */
    struct list finished; /* operations whose `done` is to be run */
    struct heap deadlines;
    struct random random;
    struct buf woken;
    struct map waiters; /* sub id -> struct router_waiters */
    uint32_t waiting;
    uint32_t pending;   /* operations not yet done */
    uint32_t calls_out; /* calls not yet back */
    uint32_t rotation;
    bool draining;
    bool polling; /* router_poll will run what is finished by itself */
};

/* Begins an operation: false when it has been finished at once, with a reason. */
bool router_begin(struct router *router, struct router_operation *operation,
                  void (*advance)(struct router_operation *, struct router_call *));

/* A call for a volume; NULL: no memory, and the operation is failed. */
struct router_call *router_call_new(struct router_operation *operation, uint32_t volume,
                                    enum command_type type);
/* Sends it; when the volume does not take it, the reply says so and comes back in the same way. */
void router_call_send(struct router *router, struct router_call *call);
void router_call_free(struct router *router, struct router_call *call);

/* Keeps the first failure. */
void router_fail(struct router_operation *operation, enum err_code code, const char *detail);
/* Runs `done` at the next poll. */
void router_finish(struct router_operation *operation);

/* Looks up an active topic or subscription; fails the operation when there is none. */
struct catalog_topic *router_find_topic(struct router_operation *operation, struct span name);
struct catalog_sub *router_find_sub(struct router_operation *operation, struct span topic,
                                    struct span sub);

/* Which volume a shard lies on; UINT32_MAX: there is no such shard. */
uint32_t router_volume_of(const struct router *router, uint32_t shard_id);

/* pull.c: there may be something for the subscription, in a volume that is not known to tell. */
void router_wake_sub(struct router *router, uint32_t sub_id);
/* The volume has told that there may be. */
void router_told(struct router *router, uint32_t sub_id, uint32_t volume);
/* So many messages are on their way to the volume: pulls that wait for what it has next ask right
 * behind them, and are answered after the same flush. */
void router_follow(struct router *router, const struct catalog_topic *topic, uint32_t volume,
                   uint64_t count);
/* Every pull of the subscription asks again. */
void router_wake_all(struct router *router, uint32_t sub_id);
void router_pull_expired(struct router *router, struct router_pull *pull);
/* The reply of a pull that nobody waits for any more: gives its messages back. */
void router_pull_orphan(struct router *router, struct router_call *call);

#endif
