/* What the files of the volume share: volume.c is the thread and what others ask of it,
 * volume_batch.c serves one batch, volume_write.c knows when to flush, to commit and to refuse
 * publishes. All but `lock` and what it guards is the thread's. */
#ifndef VOLUME_VOLUME_INTERNAL_H
#define VOLUME_VOLUME_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "broker/base/map.h"
#include "broker/volume/volume.h"
#include "broker/volume/writer.h"

enum {
    VOLUME_NAME_SIZE = 32,
    VOLUME_SPACE_RETRY_MS =
        500, /* how long publishes are refused without trying after a full disk */
};

struct volume {
    struct volume_options options;
    char name[VOLUME_NAME_SIZE];
    struct log_sink *log; /* of whoever started it */
    pthread_t thread;
    struct mailbox mailbox;
    struct machine *machine;
    struct store *store;
    struct writer writer;
    struct list batch;      /* calls being served */
    uint64_t message_count; /* published by them */
    struct list waiting;    /* taken from the mailbox, for a later batch */
    size_t waiting_count;
    struct effects effects;
    struct reply tick_reply;
    struct map armed;        /* subscriptions to tell about */
    struct buf given;        /* ids of those whose messages the batch has given away already */
    uint64_t now_ms;         /* the last stamp ... */
    uint64_t now_mono_ms;    /* ... and when it was made */
    uint64_t maintained_ms;  /* monotonic */
    uint64_t space_retry_ms; /* monotonic: until then a commit has no space for publishes */
    uint64_t tick_retry_ms;  /* likewise for background work */
    uint64_t checkpoint_ms;  /* likewise: when what is applied is to be committed; 0: nothing is */
    uint64_t checkpoint_retry_ms; /* likewise: not before, as there was no room */
    uint64_t served_ms;           /* likewise: the last batch with a command in it */
    uint64_t relaxed_ms;  /* likewise: when what was answered early is to be flushed; 0: nothing */
    uint64_t settle_seen; /* settle_asked when the thread last found nothing to do */
    bool full;
    bool unsaved; /* the start had no room to commit what the journal holds */

    _Atomic uint64_t settle_asked; /* calls of volume_settle */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t settled;
    uint64_t settle_done; /* settle_seen, for those who wait ... */
    uint64_t settle_ms;   /* ... and in how many milliseconds something comes due */
    struct buf woken;
    struct volume_status status;
};

/* ---- volume_write.c ---- */

static inline uint64_t volume_mono_ms(const struct volume *volume)
{
    return clock_mono_us(volume->options.clock) / 1000;
}

void volume_observe(struct volume *volume, enum volume_measure measure, uint64_t value);

/* Ends it for good. */
void volume_fail(struct volume *volume, err_t err);

/* Makes all that was applied outlive a power failure. */
err_t volume_flush(struct volume *volume) MUST_CHECK;
/* The same between batches, when something may have been answered before its flush. */
void volume_flush_rest(struct volume *volume);

/* Publishes are refused from now on; `err` says why. */
void volume_note_no_space(struct volume *volume, err_t err);
/* Makes known how the volume is, after so many more commands. */
void volume_update_status(struct volume *volume, size_t commands);
/* Before a batch: whether there is room again. What frees some shows once it is committed, which
 * only publishes are worth. */
void volume_look_for_room(struct volume *volume);

/* Commits what the journal holds. Without room for that it stays there, and is tried again. */
void volume_checkpoint(struct volume *volume);
/* What must be written some time after the answers: flushes and commits. */
void volume_write_later(struct volume *volume);
/* How long until something is to be flushed or committed: UINT64_MAX when nothing is. */
uint64_t volume_time_to_write(const struct volume *volume);
void volume_maintain(struct volume *volume);

/* ---- volume_batch.c ---- */

/* The time for stamps. It does not stand still until a clock that has been set back comes up with
 * the last stamp, or nothing that waits for a time would come: it goes on with the monotonic one.
 */
uint64_t volume_read_time(struct volume *volume);
/* What has come due, and work in the background. */
bool volume_is_due(struct volume *volume);
/* Runs the batch, which holds so many calls, and answers all of them. */
void volume_serve(struct volume *volume, size_t count);

#endif
