/* Work that other threads have done on a loop's thread, waiting for it.
 *
 * A piece of work is embedded in a struct of the thread that asks; `run` starts it on the loop's
 * thread, and caller_done, from there and now or later, lets the asking thread go on. */
#ifndef BROKER_CALLER_H
#define BROKER_CALLER_H

#include <pthread.h>
#include <stdbool.h>
#include <uv.h>

#include "broker/base/list.h"
#include "broker/base/mailbox.h"

struct caller {
    struct mailbox works;
    uv_async_t wake;
    pthread_mutex_t lock; /* of the works' `done` */
    pthread_cond_t changed;
};

struct caller_work {
    struct list_link link;
    void (*run)(struct caller_work *work);
    bool done;
};

/* The handle does not keep the loop running. */
err_t caller_init(struct caller *caller, uv_loop_t *loop) MUST_CHECK;
/* On the loop's thread, when nobody asks any more; the loop must run once more. */
void caller_close(struct caller *caller);
/* After the loop has run. */
void caller_deinit(struct caller *caller);

/* From any thread but the loop's: has `work` run and waits until it is done. */
void caller_run(struct caller *caller, struct caller_work *work);
/* On the loop's thread; `work` may be gone when this returns. */
void caller_done(struct caller *caller, struct caller_work *work);

#endif
