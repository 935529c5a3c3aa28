#include "broker/caller.h"

#include <assert.h>

static void caller_on_wake(uv_async_t *handle);

static void wake(void *context)
{
    struct caller *caller = context;
    (void)uv_async_send(&caller->wake);
}

err_t caller_init(struct caller *caller, uv_loop_t *loop)
{
    TRY(mailbox_init(&caller->works, SIZE_MAX, wake, caller));
    int rc = uv_async_init(loop, &caller->wake, caller_on_wake);
    if (rc != 0) {
        mailbox_deinit(&caller->works);
        return ERR(MEMORY, "wake the loop: %s", uv_strerror(rc));
    }
    uv_unref((uv_handle_t *)&caller->wake);
    pthread_mutex_init(&caller->lock, NULL);
    pthread_cond_init(&caller->changed, NULL);
    return NULL;
}

void caller_close(struct caller *caller)
{
    uv_close((uv_handle_t *)&caller->wake, NULL);
}

void caller_deinit(struct caller *caller)
{
    mailbox_deinit(&caller->works);
    pthread_cond_destroy(&caller->changed);
    pthread_mutex_destroy(&caller->lock);
}

static void caller_on_wake(uv_async_t *handle)
{
    struct caller *caller = container_of(handle, struct caller, wake);
    struct list works;
    struct list_link *link;
    list_init(&works);
    mailbox_take(&caller->works, &works, SIZE_MAX);
    while ((link = list_pop(&works)) != NULL) {
        struct caller_work *work = container_of(link, struct caller_work, link);
        work->run(work);
    }
}

void caller_run(struct caller *caller, struct caller_work *work)
{
    work->link = (struct list_link){0};
    work->done = false;
    bool taken = mailbox_send(&caller->works, &work->link);
    assert(taken);
    (void)taken;
    pthread_mutex_lock(&caller->lock);
    while (!work->done) {
        pthread_cond_wait(&caller->changed, &caller->lock);
    }
    pthread_mutex_unlock(&caller->lock);
}

void caller_done(struct caller *caller, struct caller_work *work)
{
    pthread_mutex_lock(&caller->lock);
    work->done = true;
    pthread_cond_broadcast(&caller->changed);
    pthread_mutex_unlock(&caller->lock);
}
