#include "broker/base/mailbox.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

err_t mailbox_init(struct mailbox *mailbox, size_t count_max, void (*wake)(void *),
                   void *wake_context)
{
    assert(count_max > 0);
    *mailbox = (struct mailbox){
        .count_max = count_max,
        .wake = wake,
        .wake_context = wake_context,
    };
    list_init(&mailbox->messages);
    int rc = pthread_mutex_init(&mailbox->lock, NULL);
    if (rc != 0) {
        return ERR(MEMORY, "mutex of a mailbox: %s", strerror(rc));
    }
    /* A wall clock that is set back must not lengthen a wait. */
    pthread_condattr_t attributes;
    rc = pthread_condattr_init(&attributes);
    if (rc == 0) {
        rc = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (rc == 0) {
            rc = pthread_cond_init(&mailbox->changed, &attributes);
        }
        (void)pthread_condattr_destroy(&attributes);
    }
    if (rc != 0) {
        (void)pthread_mutex_destroy(&mailbox->lock);
        return ERR(MEMORY, "condition of a mailbox: %s", strerror(rc));
    }
    return NULL;
}

void mailbox_deinit(struct mailbox *mailbox)
{
    assert(list_empty(&mailbox->messages));
    (void)pthread_cond_destroy(&mailbox->changed);
    (void)pthread_mutex_destroy(&mailbox->lock);
}

static void mailbox_lock(struct mailbox *mailbox)
{
    int rc = pthread_mutex_lock(&mailbox->lock);
    assert(rc == 0);
    (void)rc;
}

static void mailbox_unlock(struct mailbox *mailbox)
{
    int rc = pthread_mutex_unlock(&mailbox->lock);
    assert(rc == 0);
    (void)rc;
}

static void mailbox_wake(struct mailbox *mailbox)
{
    if (mailbox->wake != NULL) {
        mailbox->wake(mailbox->wake_context);
    } else {
        (void)pthread_cond_broadcast(&mailbox->changed);
    }
}

static bool mailbox_put(struct mailbox *mailbox, struct list_link *link, size_t count_max)
{
    assert(!list_linked(link));
    mailbox_lock(mailbox);
    bool taken = !mailbox->closed && mailbox->count < count_max;
    bool was_empty = mailbox->count == 0 && !mailbox->corked;
    if (taken) {
        list_append(&mailbox->messages, link);
        mailbox->count++;
    }
    mailbox_unlock(mailbox);
    if (taken && was_empty) {
        mailbox_wake(mailbox);
    }
    return taken;
}

bool mailbox_send(struct mailbox *mailbox, struct list_link *link)
{
    return mailbox_put(mailbox, link, mailbox->count_max);
}

bool mailbox_send_over(struct mailbox *mailbox, struct list_link *link)
{
    return mailbox_put(mailbox, link, SIZE_MAX);
}

void mailbox_send_all(struct mailbox *mailbox, struct list *links, size_t count)
{
    assert(list_empty(links) == (count == 0));
    if (count == 0) {
        return;
    }
    mailbox_lock(mailbox);
    bool was_empty = mailbox->count == 0 && !mailbox->corked;
    list_splice(&mailbox->messages, links);
    mailbox->count += count;
    mailbox_unlock(mailbox);
    if (was_empty) {
        mailbox_wake(mailbox);
    }
}

void mailbox_cork(struct mailbox *mailbox)
{
    mailbox_lock(mailbox);
    assert(!mailbox->corked);
    mailbox->corked = true;
    mailbox_unlock(mailbox);
}

void mailbox_uncork(struct mailbox *mailbox)
{
    mailbox_lock(mailbox);
    assert(mailbox->corked);
    mailbox->corked = false;
    bool was_sent = mailbox->count > 0;
    mailbox_unlock(mailbox);
    if (was_sent) {
        mailbox_wake(mailbox);
    }
}

/* With the lock held: how many can be taken. */
static size_t mailbox_ready(const struct mailbox *mailbox)
{
    return mailbox->corked ? 0 : mailbox->count;
}

/* With the lock held. */
static size_t mailbox_move(struct mailbox *mailbox, struct list *out, size_t count_max)
{
    size_t count = mailbox_ready(mailbox);
    if (count == 0) {
        return 0;
    }
    if (count <= count_max) {
        list_splice(out, &mailbox->messages);
        mailbox->count = 0;
        return count;
    }
    for (size_t i = 0; i < count_max; i++) {
        list_append(out, list_pop(&mailbox->messages));
    }
    mailbox->count -= count_max;
    return count_max;
}

size_t mailbox_take(struct mailbox *mailbox, struct list *out, size_t count_max)
{
    mailbox_lock(mailbox);
    size_t count = mailbox_move(mailbox, out, count_max);
    mailbox_unlock(mailbox);
    return count;
}

/* The point in time `timeout_ms` from now; a time beyond what the clock can say is its last one. */
static struct timespec deadline_after(uint64_t timeout_ms)
{
    enum { YEAR_S = 366 * 24 * 3600 };
    struct timespec deadline;
    int rc = clock_gettime(CLOCK_MONOTONIC, &deadline);
    assert(rc == 0);
    (void)rc;
    uint64_t seconds = timeout_ms / 1000;
    deadline.tv_sec += seconds < YEAR_S ? (time_t)seconds : (time_t)YEAR_S;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
    if (deadline.tv_nsec >= 1000000000L) {
        deadline.tv_nsec -= 1000000000L;
        deadline.tv_sec++;
    }
    return deadline;
}

size_t mailbox_wait(struct mailbox *mailbox, struct list *out, size_t count_max,
                    uint64_t timeout_ms)
{
    assert(mailbox->wake == NULL); /* a hook replaces the condition */
    struct timespec deadline = {0};
    if (timeout_ms != UINT64_MAX) {
        deadline = deadline_after(timeout_ms);
    }
    mailbox_lock(mailbox);
    int rc = 0;
    while (mailbox_ready(mailbox) == 0 && !mailbox->closed && !mailbox->nudged && rc == 0) {
        rc = timeout_ms == UINT64_MAX
                 ? pthread_cond_wait(&mailbox->changed, &mailbox->lock)
                 : pthread_cond_timedwait(&mailbox->changed, &mailbox->lock, &deadline);
    }
    assert(rc == 0 || rc == ETIMEDOUT);
    mailbox->nudged = false;
    size_t count = mailbox_move(mailbox, out, count_max);
    mailbox_unlock(mailbox);
    return count;
}

void mailbox_nudge(struct mailbox *mailbox)
{
    mailbox_lock(mailbox);
    mailbox->nudged = true;
    mailbox_unlock(mailbox);
    mailbox_wake(mailbox);
}

void mailbox_close(struct mailbox *mailbox)
{
    mailbox_lock(mailbox);
    bool was_open = !mailbox->closed;
    mailbox->closed = true;
    mailbox_unlock(mailbox);
    if (was_open) {
        mailbox_wake(mailbox);
    }
}

size_t mailbox_count(struct mailbox *mailbox)
{
    mailbox_lock(mailbox);
    size_t count = mailbox->count;
    mailbox_unlock(mailbox);
    return count;
}

bool mailbox_closed(struct mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    bool closed = mailbox->closed;
    pthread_mutex_unlock(&mailbox->lock);
    return closed;
}
