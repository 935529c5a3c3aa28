/* Waiting for something that happens on the client's thread: what makes a blocking function of an
 * asynchronous one.
 *
 * It is shared by the one who waits and the one who will call await_finish, and freed by whoever
 * is there last, since the first may run out of patience. `data` is the finisher's until it is
 * finished, then the waiter's. */
#ifndef CLIENT_AWAIT_H
#define CLIENT_AWAIT_H

#include <flare/error.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct await {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_finished;
    bool is_abandoned;        /* nobody waits any more */
    struct flare_error error; /* FLARE_OK, or why it has failed */
    max_align_t data[];
};

/* `size` bytes of data, cleared. NULL: no memory, and `error` says so. */
struct await *await_create(size_t size, struct flare_error *error);

/* The finisher's last use. `error` is NULL for success. False: nobody waits any more, so what would
 * have been the waiter's is to be freed. */
bool await_finish(struct await *await, const struct flare_error *error);

/* True: it is finished, and `await->error` says how, as `error` does of a failure. False:
 * FLARE_ERR_TIMEOUT; it belongs to the finisher now, and must not be touched any more. */
bool await_wait(struct await *await, uint64_t timeout_ms, struct flare_error *error);
/* By the waiter when it was finished, or when it never will be. */
void await_destroy(struct await *await);

/* For a condition that goes by the monotonic clock. */
struct timespec await_deadline(uint64_t timeout_ms);
/* Such a condition; false: no memory. */
bool await_cond_init(pthread_cond_t *cond);

#endif
