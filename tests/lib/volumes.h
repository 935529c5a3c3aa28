/* Volumes on memory stores, a catalog's volume and a router over them, for tests of broker/volume.
 *
 * Between each volume and its machine and store stands a stage, which can hold the thread before it
 * applies a command, fail commits and commands, and counts. Stores outlive their volumes, so that
 * volumes_restart is a stop and a start. Whatever waits does so for VOLUMES_WAIT_MS at most and
 * then fails the test. Not for more than one thread of the test. */
#ifndef LIB_VOLUMES_H
#define LIB_VOLUMES_H

#include <pthread.h>
#include <stdatomic.h>

#include "broker/volume/router.h"
#include "broker/volume/router_create.h"
#include "broker/volume/volume.h"
#include "tests/lib/tmpdir.h"

enum {
    VOLUMES_MAX = 8,
    VOLUMES_START_MS = 1000000,
    VOLUMES_BATCHES_MAX = 256,
    VOLUMES_WAIT_MS = 20000,
};

struct volumes_options {
    uint32_t count;       /* without the catalog's */
    bool real_time;       /* else a simulated clock, moved by volumes_advance */
    uint32_t mailbox_max; /* 0: 4096 */
    uint32_t batch_max;   /* 0: 1024 */
    uint64_t batch_bytes; /* 0: 16 MiB */
    uint64_t quota;
    uint64_t maintain_ms; /* 0: an hour */
    bool journals;        /* each volume but the catalog's has one, in a directory of the test */
};

struct volumes_stage {
    struct machine machine; /* what the volume sees */
    struct machine *inner;
    struct store *store;
    struct store_ops ops; /* the store's, with some in between */
    const struct store_ops *inner_ops;
    struct volumes *volumes;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool hold;
    bool held;
    bool batch_publishes; /* the batch has a publish that is not refused */
    uint32_t batch_size;
    enum err_code commit_code;
    uint32_t commit_count; /* so many commits are still to fail */
    bool publishes_only;
    enum command_type apply_type;
    enum err_code apply_code;
    uint64_t fail_call; /* of the store, from the beginning of the next transaction */
    bool busy;          /* the machine always has something to do */
    bool idle;          /* the thread has looked, and nothing is due */
    uint32_t ticks;
    uint32_t batch_sizes[VOLUMES_BATCHES_MAX];
    uint32_t batch_count;
};

struct volumes {
    struct volumes_options options;
    struct clock clock;
    struct volume *list[VOLUMES_MAX + 1]; /* the catalog's is the last */
    bool stopped[VOLUMES_MAX + 1];
    struct volumes_stage stages[VOLUMES_MAX + 1];
    struct catalog *catalog;
    struct router *router;
    struct arena arena;
    struct mailbox replies; /* of calls sent with volumes_send */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool woken;
    struct tmpdir tmpdir;    /* with options.journals */
    atomic_int commits_left; /* of all volumes, before all fail; negative: they do not */
};

void volumes_open(struct volumes *volumes, const struct volumes_options *options);
/* Ends the volumes and starts others on the same stores; faults end too. */
void volumes_restart(struct volumes *volumes);
void volumes_close(struct volumes *volumes);
/* Stops one before the others; volumes_restart starts it again. */
void volumes_stop_one(struct volumes *volumes, uint32_t index);

/* ---- the stage; `index` options.count is the catalog's ---- */

/* From now on the thread stops before the next command it would apply, a TICK aside. */
void volumes_hold(struct volumes *volumes, uint32_t index);
void volumes_await_held(struct volumes *volumes, uint32_t index);
bool volumes_is_held(struct volumes *volumes, uint32_t index);
void volumes_unhold(struct volumes *volumes, uint32_t index);

/* Until background work is done: no TICK comes before the next command or volumes_advance. */
void volumes_await_idle(struct volumes *volumes, uint32_t index);

/* Commits fail with `code` (ERR_NONE: no longer); with `publishes_only` only those of a batch that
 * publishes. */
void volumes_fail_commits(struct volumes *volumes, uint32_t index, enum err_code code,
                          bool publishes_only);
/* The next `count` commits fail. */
void volumes_fail_some_commits(struct volumes *volumes, uint32_t index, enum err_code code,
                               uint32_t count);
/* Applying a command of this type fails. */
void volumes_fail_apply(struct volumes *volumes, uint32_t index, enum command_type type,
                        enum err_code code);
/* The `n`th call to the store fails once, counted from the next transaction. */
void volumes_fail_store(struct volumes *volumes, uint32_t index, uint64_t n);
/* The machine claims to have something to do at once, for ever. */
void volumes_keep_busy(struct volumes *volumes, uint32_t index);
/* Of all volumes together: `count` commits succeed, then none does. */
void volumes_fail_after(struct volumes *volumes, int count);

/* Sizes of the batches since the last call, TICKs not counted, `max` at most; returns how many. */
uint32_t volumes_take_batches(struct volumes *volumes, uint32_t index, uint32_t *out, uint32_t max);
uint32_t volumes_ticks(struct volumes *volumes, uint32_t index);
uint64_t volumes_commits(struct volumes *volumes, uint32_t index);

/* Moves the simulated clock and tells everyone. */
void volumes_advance(struct volumes *volumes, uint64_t ms);

/* ---- calls, without the router ---- */

struct call *volumes_call(struct volumes *volumes, enum command_type type);
void volumes_call_free(struct call *call);
/* The next answer to a call that names volumes->replies. */
struct call *volumes_answer(struct volumes *volumes);
/* Sends and awaits it; no other may be out. */
void volumes_run(struct volumes *volumes, uint32_t index, struct call *call);

/* ---- operations of the router ---- */

/* Fills the head of an operation; *done becomes true. */
void volumes_prepare(struct volumes *volumes, struct router_operation *operation, bool *done);
/* Until the router has been woken; does not poll it. */
void volumes_await_wake(struct volumes *volumes);
/* Polls once there is something to do. */
void volumes_turn(struct volumes *volumes);
void volumes_await(struct volumes *volumes, const bool *done);
/* Polls until the thread of a volume is held. */
void volumes_turn_until_held(struct volumes *volumes, uint32_t index);
/* Until every volume has done what it was sent, and the router has taken in what came of it. */
void volumes_quiesce(struct volumes *volumes);

enum err_code volumes_put_topic(struct volumes *volumes, const char *topic, uint32_t shards);
/* The same, of a relaxed topic. */
enum err_code volumes_put_relaxed(struct volumes *volumes, const char *topic, uint32_t shards);
enum err_code volumes_put_sub(struct volumes *volumes, const char *topic, const char *sub,
                              const struct sub_settings *settings);
enum err_code volumes_drop_topic(struct volumes *volumes, const char *topic);
enum err_code volumes_drop_sub(struct volumes *volumes, const char *topic, const char *sub);

struct message_in volumes_message(const char *key, const char *body);
/* Publishes one message that must be taken. */
struct publish_result volumes_publish(struct volumes *volumes, const char *topic,
                                      struct message_in message);
/* Publishes `count` messages with bodies "0", "1" ... in one batch; all must be taken. */
void volumes_publish_many(struct volumes *volumes, const char *topic, uint32_t count);

struct volumes_pull {
    struct router_pull pull;
    bool done;
};

/* A key whose shard lies on a volume: the `nth` of "0", "1" ... */
const char *volumes_key_on(struct volumes *volumes, const char *topic, uint32_t volume,
                           uint32_t nth);

/* Starts a pull; `pull` must stay where it is until it is done. */
void volumes_pull_start(struct volumes *volumes, struct volumes_pull *pull, const char *topic,
                        const char *sub, uint32_t max, uint64_t wait_ms);
/* The same, with all that it may ask for. */
void volumes_pull_with(struct volumes *volumes, struct volumes_pull *pull,
                       struct router_pull wanted);
/* After `done`. */
uint32_t volumes_pull_count(const struct volumes_pull *pull);
/* The receipts of what it got, `max` at most; returns how many. */
uint32_t volumes_pull_receipts(const struct volumes_pull *pull, struct receipt *out, uint32_t max);
void volumes_pull_free(struct volumes_pull *pull);

/* Settles; every receipt must be good. */
void volumes_settle(struct volumes *volumes, enum router_settle_kind kind, const char *topic,
                    const char *sub, struct receipt *receipts, uint32_t count);

/* Pulls everything there is now, acknowledges it, and returns how many there were. */
uint32_t volumes_drain_sub(struct volumes *volumes, const char *topic, const char *sub);

#endif
