/* A bounded queue of owned messages between threads (any number of senders, one receiver).
 *
 * Senders link elements in; the receiver takes everything there is in one move. A full mailbox
 * refuses, so pressure goes back to the sender. The receiver waits on a condition with a deadline
 * or, when it has a loop of its own, is woken through a hook (called without the lock held, once
 * per change from empty to not empty, and once when the mailbox closes: a receiver that leaves
 * messages inside comes back by itself). */
#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "broker/base/err.h"
#include "broker/base/list.h"

struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct list messages;
    size_t count;
    size_t count_max;
    bool closed;
    bool nudged;
    bool corked;
    void (*wake)(void *context); /* NULL: the receiver waits on the condition */
    void *wake_context;
};

err_t mailbox_init(struct mailbox *mailbox, size_t count_max, void (*wake)(void *),
                   void *wake_context) MUST_CHECK;
/* It must be empty, and its senders gone. */
void mailbox_deinit(struct mailbox *mailbox);

/* Takes `link` on true. False: full or closed, and the message stays the caller's. */
bool mailbox_send(struct mailbox *mailbox, struct list_link *link);

/* The same whatever the bound, so false means closed: for the next step of what has been let in
 * already. */
bool mailbox_send_over(struct mailbox *mailbox, struct list_link *link);

/* Takes every element of `links` (`count` of them) whatever the bound: for replies, whose number
 * the requests already bound. Also after mailbox_close: an answer on its way is not lost. */
void mailbox_send_all(struct mailbox *mailbox, struct list *links, size_t count);

/* What is sent until mailbox_uncork is taken together: meanwhile the receiver is given nothing. For
 * one sender, and not for long. */
void mailbox_cork(struct mailbox *mailbox);
void mailbox_uncork(struct mailbox *mailbox);

/* Moves up to `count_max` messages to the end of `out` (an initialised list) and returns how many;
 * 0: none. */
size_t mailbox_take(struct mailbox *mailbox, struct list *out, size_t count_max);

/* The same, but waits until there is one, the mailbox is closed, or `timeout_ms` have passed
 * (UINT64_MAX: for ever). */
size_t mailbox_wait(struct mailbox *mailbox, struct list *out, size_t count_max,
                    uint64_t timeout_ms);

/* Makes the wait that is under way, or the next one, return at once with nothing: what it waits for
 * beside messages, a time, may have come. */
void mailbox_nudge(struct mailbox *mailbox);

/* No more is taken in; waiters wake. What is inside can still be taken. */
void mailbox_close(struct mailbox *mailbox);

/* How many wait now; for metrics, since it may have changed on return. */
size_t mailbox_count(struct mailbox *mailbox);
bool mailbox_closed(struct mailbox *mailbox);

#endif
