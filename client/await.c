#include "client/await.h"

#include <errno.h>
#include <stdlib.h>

#include "client/problem.h"

bool await_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) {
        return false;
    }
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    int rc = pthread_cond_init(cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    return rc == 0;
}

struct timespec await_deadline(uint64_t timeout_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t nanoseconds = (uint64_t)until.tv_nsec + timeout_ms % 1000 * 1000000;
    until.tv_sec += (time_t)(timeout_ms / 1000 + nanoseconds / 1000000000);
    until.tv_nsec = (long)(nanoseconds % 1000000000);
    return until;
}

struct await *await_create(size_t size, struct flare_error *error)
{
    struct await *await = calloc(1, sizeof *await + size);
    if (await == NULL || !await_cond_init(&await->changed)) {
        free(await);
        (void)problem_set(error, FLARE_ERR_MEMORY, "no memory for a request");
        return NULL;
    }
    (void)pthread_mutex_init(&await->lock, NULL); /* a default one cannot fail */
    return await;
}

void await_destroy(struct await *await)
{
    (void)pthread_cond_destroy(&await->changed);
    (void)pthread_mutex_destroy(&await->lock);
    free(await);
}

bool await_finish(struct await *await, const struct flare_error *error)
{
    (void)pthread_mutex_lock(&await->lock);
    await->is_finished = true;
    if (error != NULL) {
        await->error = *error;
    }
    bool is_abandoned = await->is_abandoned;
    (void)pthread_cond_signal(&await->changed);
    (void)pthread_mutex_unlock(&await->lock);
    if (is_abandoned) {
        await_destroy(await);
    }
    return !is_abandoned;
}

bool await_wait(struct await *await, uint64_t timeout_ms, struct flare_error *error)
{
    struct timespec until = await_deadline(timeout_ms);
    int rc = 0;
    (void)pthread_mutex_lock(&await->lock);
    while (!await->is_finished && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&await->changed, &await->lock, &until);
    }
    bool is_finished = await->is_finished;
    await->is_abandoned = !is_finished;
    (void)pthread_mutex_unlock(&await->lock);
    if (!is_finished) {
        (void)problem_set(error, FLARE_ERR_TIMEOUT, "no answer within %llu ms",
                          (unsigned long long)timeout_ms);
    } else if (await->error.code != FLARE_OK) {
        (void)problem_copy(error, &await->error);
    }
    return is_finished;
}
