/* The client as its parts see it: one thread with a loop, and the state it shares with the threads
 * of the application under one lock.
 *
 * The thread works in turns. A turn takes what has been submitted, lets the outbox seal batches,
 * writes, and sets one timer for the next thing that is due. Everything that happens to the loop
 * (bytes, a timer, a wake) ends with a turn, so that what callbacks have published meanwhile leaves
 * in one write. A thread that submits wakes the loop only when no wake is under way already. */
#ifndef CLIENT_ENGINE_H
#define CLIENT_ENGINE_H

#include <flare/flare.h>
#include <pthread.h>
#include <stdatomic.h>

#include "broker/base/clock.h"
#include "client/address.h"
#include "client/outbox.h"
#include "client/peer.h"

struct flare_client {
    struct flare_options options; /* with its defaults; texts are copies or NULL */
    struct address address;
    struct clock clock;
    _Atomic uint64_t last_id;
    _Atomic uint32_t message_size_max; /* of a body; as in `welcome` */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* of what is below, for those who wait: room, a connection, an end */
    bool is_woken;          /* a turn will come */
    bool is_leaving;        /* it is being closed: nothing waits for a connection any more */
    bool is_stopping;       /* nothing is taken any more */
    struct list submitted;  /* asks */
    struct list joining;    /* streams that are new */
    struct outbox outbox;   /* partly the thread's own: see there */
    struct wire_welcome welcome;
    bool has_greeted;        /* there is a connection, or there was one */
    struct flare_error lost; /* why there is none, when one was tried */

    /* The thread's own. */
    pthread_t thread;
    bool is_running; /* the thread has been started */
    uv_loop_t loop;
    uv_async_t wake;
    uv_timer_t timer;
    uint64_t timer_due_us; /* UINT64_MAX: it is not set */
    uint64_t now_us;       /* of this turn */
    struct peer peer;
    struct list intakes; /* streams; whoever closes one waits until it is not in here any more */
};

/* A client that does not run yet. */
err_t engine_create(const struct flare_options *options, struct flare_client **out) MUST_CHECK;
/* Its loop, which engine_start runs in a thread; the fuzzer takes turns by itself. */
err_t engine_open_loop(struct flare_client *client) MUST_CHECK;
void engine_close_loop(struct flare_client *client);
err_t engine_start(struct flare_client *client) MUST_CHECK;
/* From now on nothing waits for a connection: without one it fails. */
void engine_leave(struct flare_client *client);
/* Ends the thread, when it runs, having failed what waits. */
void engine_stop(struct flare_client *client);
void engine_destroy(struct flare_client *client);

/* Starts a thread without the application's signals, which are for its own. 0, or an errno. */
int engine_spawn(pthread_t *thread, void *(*run)(void *context), void *context);

/* 0 stands for the default. */
static inline void engine_put_default(uint32_t *option, uint32_t standard)
{
    *option = *option == 0 ? standard : *option;
}

static inline uint64_t engine_next_id(struct flare_client *client)
{
    return atomic_fetch_add_explicit(&client->last_id, 1, memory_order_relaxed) + 1;
}

static inline bool engine_is_own_thread(const struct flare_client *client)
{
    return client->is_running && pthread_equal(client->thread, pthread_self());
}

/* With the lock held: a turn is needed. True: the caller calls engine_signal once it has let go of
 * the lock. */
static inline bool engine_need_turn(struct flare_client *client)
{
    bool was_woken = client->is_woken;
    client->is_woken = true;
    return !was_woken;
}

void engine_signal(struct flare_client *client);

/* Gives an ask to the thread, from any thread. FLARE_ERR_UNAVAILABLE: the client is being
 * closed. On FLARE_OK the ask is taken. */
enum flare_code engine_submit(struct flare_client *client, struct ask *ask,
                              struct flare_error *error);

/* FLARE_ERR_CONFLICT on the client's thread, where nothing may block. */
enum flare_code engine_may_block(const struct flare_client *client, struct flare_error *error);

/* Everything that is possible now; ends everything that happens on the thread. */
void engine_turn(struct flare_client *client);

/* Tells on_state. */
void engine_tell(struct flare_client *client, enum flare_state state, const char *detail);

#endif
