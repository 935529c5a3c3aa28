/* A volume: one thread, one environment, one state machine, one mailbox (DESIGN 3).
 *
 * The thread takes what the mailbox holds, applies it, writes it to the journal or commits it
 * (writer.h; one flush for all), then sends the replies: nothing leaves before the flush that made
 * it true. While it flushes, the next batch gathers. What the journal holds is committed after so
 * much, after a time, when nothing comes in, and at the end.
 *
 * When a commit fails for want of space, the batch is run again with its publishes refused; when
 * that fails too, all of it is refused and nothing has changed. Publishes are then refused without
 * trying, and tried again twice a second. When a write fails for any other reason the volume stops
 * for good (a failed flush is never retried): it answers UNAVAILABLE and says why in its status. A
 * command that meets damaged data is refused alone. */
#ifndef VOLUME_VOLUME_H
#define VOLUME_VOLUME_H

#include "broker/base/clock.h"
#include "broker/base/mailbox.h"
#include "broker/core/machine.h"
#include "storage/journal.h"

/* A command on its way to a volume and back. Owned by whoever has it: sender, mailbox, thread,
 * sender again. */
struct call {
    struct list_link link;
    struct command command;
    struct reply reply;
    struct mailbox *reply_to;
    uint32_t size; /* bytes of messages in it */
    bool arm; /* PULL: when it leaves nothing, tell when there may be more (volume_take_woken) */
};

/* Counts and times kept by the thread; durations go to `observe`. */
enum volume_measure {
    VOLUME_BATCH_US,
    VOLUME_FLUSH_US,
    VOLUME_CHECKPOINT_US, /* the commit of what the journal holds */
    VOLUME_BATCH_SIZE,
    VOLUME_COMMIT_FAILED,
    VOLUME_REFUSED, /* a full mailbox; from the sender's thread */
};

struct volume_options {
    const char *name;        /* for the log; copied */
    struct store *store;     /* taken on success */
    struct journal *journal; /* likewise; NULL: every batch is committed */
    struct machine *machine; /* likewise */
    const struct clock *clock;
    uint32_t mailbox_max;   /* commands waiting; further ones are refused with BUSY */
    uint32_t batch_max;     /* commands in one batch */
    uint64_t batch_bytes;   /* bytes of messages in one batch */
    uint64_t quota;         /* bytes; 0: none. Publishes are refused at 90 % of it */
    uint64_t reserve;       /* bytes kept ready for commits on a full disk */
    uint64_t checkpoint_ms; /* how long something may be in the journal only */
    uint64_t relaxed_ms;    /* how long what was answered before its flush may wait for one */
    uint64_t maintain_ms;   /* how often stale readers are cleared and the reserve is filled up when
                               nothing happens */
    void (*wake)(
        void *context); /* replies or woken subscriptions are there to be taken; from the thread */
    void *wake_context;
    /* May be NULL; from the thread. */
    void (*observe)(void *context, enum volume_measure measure, uint64_t value);
    void (*report)(void *context, const struct effects *effects);
    void *observe_context;
};

struct volume_status {
    bool failed;
    bool full;
    char failure[160];
    struct store_stats store;
    uint64_t mailbox_count;
    uint64_t commands_total;
    uint64_t commits_total;
    uint64_t journal_size; /* bytes of the journal since the last commit */
};

struct volume;

/* Loads the machine and starts the thread. */
err_t volume_start(const struct volume_options *options, struct volume **out) MUST_CHECK;

/* Takes `call` on true; its reply comes to call->reply_to. False: the mailbox is full or closed. */
bool volume_send(struct volume *volume, struct call *call);
/* The same whatever the mailbox's bound, for the next step of something that has been let in.
 * False: it is closed. */
bool volume_send_over(struct volume *volume, struct call *call);

/* Calls sent between these come in one batch, as far as it may hold them. For one sender, and not
 * for long: the thread is given nothing meanwhile. */
void volume_cork(struct volume *volume);
void volume_uncork(struct volume *volume);

/* Whether this answer to a call leaves its volume armed: it tells when there may be something. */
bool call_arms(const struct call *call);

/* Gives a call the answer of one that was not served: to all it asks, each message of a publish and
 * each receipt of a settlement. */
void volume_refuse(struct call *call, enum err_code code, const char *detail);

/* Makes the thread look at the clock again: the owner of a simulated one has advanced it. */
void volume_wake(struct volume *volume);

/* Waits until the thread has done all that it was sent before and all that has come due by its
 * clock, and told of it; in how many milliseconds something more comes due (UINT64_MAX: nothing
 * does). For the owner of a simulated clock; not once volume_stop has been called. */
uint64_t volume_settle(struct volume *volume);

/* Moves the ids of woken subscriptions to the end of `out`. */
void volume_take_woken(struct volume *volume, struct buf *out);

void volume_status(struct volume *volume, struct volume_status *out);
const char *volume_name(const struct volume *volume);

/* Finishes what the mailbox holds, commits all and ends the thread; the replies are sent, and it
 * takes nothing more. */
void volume_stop(struct volume *volume);
/* After volume_stop: closes store, journal and machine. */
void volume_destroy(struct volume *volume);

#endif
