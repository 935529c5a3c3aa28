#include "broker/volume/volume.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/base/log.h"
#include "broker/base/map.h"
#include "broker/volume/writer.h"

enum {
    NAME_SIZE = 32,
    TICK_BUDGET = 4096,
    TICK_SHARE = 4, /* and so much more for each message that comes in, so that what it brings with
                     * it (its key's expiry, what retention gives up for it) cannot pile up */
    FULL_PERCENT = 90,
    SPACE_RETRY_MS = 500, /* how long publishes are refused without trying after a full disk */
    IDLE_SHARE = 10, /* with no command for one part in so many of the time that the journal may
                      * hold something, it is committed */
};

struct volume {
    struct volume_options options;
    char name[NAME_SIZE];
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

/* Why one attempt at a batch failed, and what can be done. */
struct attempt {
    err_t err;
    struct call *call; /* in whose apply; NULL: elsewhere */
    bool ticked;       /* background work was in it */
    bool grown;        /* there is more room now */
};

static uint64_t mono_ms(const struct volume *volume)
{
    return clock_mono_us(volume->options.clock) / 1000;
}

static void fail_volume(struct volume *volume, err_t err)
{
    volume->writer.failed = true;
    writer_drop(&volume->writer);
    pthread_mutex_lock(&volume->lock);
    volume->status.failed = true;
    snprintf(volume->status.failure, sizeof volume->status.failure, "%s", err_message(err));
    pthread_mutex_unlock(&volume->lock);
    LOG_ERROR("volume failed", LOG_TEXT("volume", volume->name), LOG_ERR(err));
}

void volume_refuse(struct call *call, enum err_code code, const char *detail)
{
    struct command *command = &call->command;
    reply_clear(&call->reply);
    reply_fail(&call->reply, code, detail);
    if (command->type == COMMAND_PUBLISH) {
        for (uint32_t index = 0; index < command->publish.count; index++) {
            command->publish.results[index] = (struct publish_result){.code = code};
        }
    }
    if (command->type == COMMAND_ACK || command->type == COMMAND_NACK ||
        command->type == COMMAND_EXTEND) {
        for (uint32_t index = 0; index < command->settle.count; index++) {
            command->settle.results[index] = code;
        }
    }
}

static void refuse_batch(struct volume *volume, enum err_code code, const char *detail)
{
    effects_clear(&volume->effects);
    for (struct list_link *link = list_first(&volume->batch); link != NULL;
         link = list_next(&volume->batch, link)) {
        volume_refuse(container_of(link, struct call, link), code, detail);
    }
}

/* The time for stamps. It does not stand still until a clock that has been set back comes up with
 * the last stamp, or nothing that waits for a time would come: it goes on with the monotonic one.
 */
static uint64_t read_time(struct volume *volume)
{
    uint64_t mono = mono_ms(volume);
    uint64_t wall = clock_wall_ms(volume->options.clock);
    volume->now_ms += mono - volume->now_mono_ms;
    volume->now_ms = wall > volume->now_ms ? wall : volume->now_ms;
    volume->now_mono_ms = mono;
    return volume->now_ms;
}

/* What has come due, and work in the background. */
static bool is_due(struct volume *volume)
{
    return !volume->writer.failed && mono_ms(volume) >= volume->tick_retry_ms &&
           volume->machine->ops->next_due_ms(volume->machine) <= read_time(volume);
}

static err_t tick(struct volume *volume)
{
    uint64_t budget = TICK_BUDGET + TICK_SHARE * volume->message_count;
    const struct command command = {
        .type = COMMAND_TICK,
        .now_ms = volume->now_ms,
        .tick.budget = budget < UINT32_MAX ? (uint32_t)budget : UINT32_MAX,
    };
    reply_clear(&volume->tick_reply);
    return writer_apply(&volume->writer, &command, &volume->tick_reply, &volume->effects);
}

bool call_arms(const struct call *call)
{
    const struct reply *reply = &call->reply;
    return call->arm && reply->code == ERR_NONE &&
           (reply->drained || (reply->items.size == 0 && !call->command.pull.size_strict));
}

static void tell(struct volume *volume, const uint32_t *sub_ids, size_t count)
{
    if (count == 0) {
        return;
    }
    pthread_mutex_lock(&volume->lock);
    buf_append(&volume->woken, sub_ids, count * sizeof *sub_ids);
    assert(!volume->woken.failed); /* a lost wake-up is a message that waits for nobody */
    pthread_mutex_unlock(&volume->lock);
    volume->options.wake(volume->options.wake_context);
}

/* Remembers a pull that left nothing and asked to be told. Without memory to remember it by, tells
 * at once: the pull is tried again. */
static void arm(struct volume *volume, const struct call *call)
{
    uint32_t sub_id = call->command.pull.sub_id;
    if (call_arms(call) && !map_put(&volume->armed, sub_id, volume)) {
        tell(volume, &sub_id, 1);
    }
}

/* Answers the calls that need not wait for the flush (struct reply, `early`): pulls, and when they
 * outlive the process already, others, whose flush must follow soon. Where they do not, in a batch
 * that is committed at once, a pull behind one of these waits too: it may give what that brought.
 */
static void answer_early(struct volume *volume)
{
    bool direct = writer_is_direct(&volume->writer);
    struct list_link *link = list_first(&volume->batch);
    while (link != NULL) {
        struct list_link *next = list_next(&volume->batch, link);
        struct call *call = container_of(link, struct call, link);
        bool pull = call->command.type == COMMAND_PULL;
        if (call->reply.early && !pull && direct) {
            return;
        }
        if (call->reply.early) {
            if (!pull && volume->relaxed_ms == 0) {
                volume->relaxed_ms = mono_ms(volume) + volume->options.relaxed_ms;
            }
            struct list alone;
            list_init(&alone);
            list_remove(link);
            list_append(&alone, link);
            arm(volume, call);
            mailbox_send_all(call->reply_to, &alone, 1);
        }
        link = next;
    }
}

static err_t apply_batch(struct volume *volume, bool no_space, struct attempt *attempt)
{
    uint64_t now_ms = read_time(volume);
    attempt->ticked = is_due(volume);
    if (attempt->ticked) {
        TRY(tick(volume));
    }
    for (struct list_link *link = list_first(&volume->batch); link != NULL;
         link = list_next(&volume->batch, link)) {
        struct call *call = container_of(link, struct call, link);
        call->command.now_ms = now_ms;
        call->command.no_space = no_space;
        reply_clear(&call->reply);
        attempt->call = call;
        TRY(writer_apply(&volume->writer, &call->command, &call->reply, &volume->effects));
    }
    attempt->call = NULL;
    return writer_append(&volume->writer);
}

static void observe(struct volume *volume, enum volume_measure measure, uint64_t value)
{
    if (volume->options.observe != NULL) {
        volume->options.observe(volume->options.observe_context, measure, value);
    }
}

/* Whether something less can be tried after a failure: any other ends the volume. */
static bool can_go_on(const struct volume *volume, const struct attempt *attempt)
{
    enum err_code code = err_code(attempt->err);
    if (volume->writer.failed) {
        return false;
    }
    return writer_is_space(code) ||
           (attempt->call != NULL && (code == ERR_CORRUPT || code == ERR_MEMORY));
}

/* Makes all that was applied outlive a power failure. */
static err_t flush(struct volume *volume)
{
    uint64_t start_us = clock_mono_us(volume->options.clock);
    err_t err = writer_flush(&volume->writer);
    observe(volume, VOLUME_FLUSH_US, clock_mono_us(volume->options.clock) - start_us);
    volume->relaxed_ms = err == NULL ? 0 : volume->relaxed_ms;
    return err;
}

/* The same between batches, when something may have been answered before its flush. */
static void flush_rest(struct volume *volume)
{
    bool pending = writer_pending(&volume->writer);
    err_t err = pending && !volume->writer.failed ? flush(volume) : NULL;
    if (err != NULL) {
        fail_volume(volume, err);
        err_free(err);
    }
    volume->relaxed_ms = 0;
}

/* Whether somebody waits for the flush, or must not be overtaken. */
static bool is_awaited(const struct volume *volume)
{
    return writer_is_direct(&volume->writer) ||
           (writer_pending(&volume->writer) && !list_empty(&volume->batch));
}

/* One attempt at the batch. After a failure nothing of it may stay: writer_recover must follow. */
static struct attempt try_batch(struct volume *volume, bool no_space)
{
    struct attempt attempt = {.err = NULL};
    effects_clear(&volume->effects);
    attempt.err = writer_begin(&volume->writer);
    if (attempt.err == NULL) {
        attempt.err = apply_batch(volume, no_space, &attempt);
    }
    if (attempt.err == NULL) {
        answer_early(volume);
    }
    if (attempt.err == NULL && is_awaited(volume)) {
        attempt.err = flush(volume);
    }
    if (attempt.err == NULL) {
        writer_end(&volume->writer);
    } else {
        observe(volume, VOLUME_COMMIT_FAILED, 1);
    }
    return attempt;
}

/* Takes a call that cannot be served out of the batch and answers it alone. */
static void refuse_alone(struct volume *volume, const struct attempt *attempt)
{
    struct list alone;
    list_init(&alone);
    list_remove(&attempt->call->link);
    list_append(&alone, &attempt->call->link);
    LOG_ERROR("command refused", LOG_TEXT("volume", volume->name), LOG_ERR(attempt->err));
    volume_refuse(attempt->call, err_code(attempt->err), err_message(attempt->err));
    mailbox_send_all(attempt->call->reply_to, &alone, 1);
}

static void note_no_space(struct volume *volume, err_t err)
{
    if (!volume->full) {
        LOG_WARN("volume full", LOG_TEXT("volume", volume->name), LOG_ERR(err));
    }
    volume->full = true;
    volume->space_retry_ms = mono_ms(volume) + SPACE_RETRY_MS;
}

/* Undoes a failed attempt. On failure the first reason is the one to tell when nothing can be done
 * about it. */
static void undo_batch(struct volume *volume, struct attempt *attempt)
{
    if (!can_go_on(volume, attempt)) {
        volume->writer.failed = true;
        return;
    }
    err_t err = writer_undo(&volume->writer, err_code(attempt->err), &attempt->grown);
    if (err != NULL) {
        err_free(attempt->err);
        attempt->err = err;
    }
}

/* Runs the batch until it is kept or refused. */
static void run_batch(struct volume *volume)
{
    bool no_space = volume->full;
    for (;;) {
        struct attempt attempt = try_batch(volume, no_space);
        if (attempt.err == NULL) {
            return;
        }
        undo_batch(volume, &attempt);
        enum err_code code = err_code(attempt.err);
        if (volume->writer.failed) {
            fail_volume(volume, attempt.err);
            /* A start may find what could not be flushed. */
            refuse_batch(volume, volume->writer.written ? ERR_UNKNOWN : ERR_UNAVAILABLE,
                         "the volume has failed");
            err_free(attempt.err);
            return;
        }
        if (attempt.grown) {
            /* The same again, with more room. */
        } else if (writer_is_space(code) && !no_space) {
            no_space = true;
            note_no_space(volume, attempt.err);
        } else if (writer_is_space(code) && attempt.ticked) {
            /* What was asked goes before what can wait. */
            volume->tick_retry_ms = mono_ms(volume) + SPACE_RETRY_MS;
        } else if (writer_is_space(code)) {
            note_no_space(volume, attempt.err);
            refuse_batch(volume, ERR_NO_SPACE, "the disk is full");
            err_free(attempt.err);
            return;
        } else {
            refuse_alone(volume, &attempt);
        }
        err_free(attempt.err);
    }
}

static void answer(struct volume *volume)
{
    while (!list_empty(&volume->batch)) {
        struct mailbox *reply_to =
            container_of(list_first(&volume->batch), struct call, link)->reply_to;
        struct list same;
        list_init(&same);
        size_t count = 0;
        struct list_link *link = list_first(&volume->batch);
        while (link != NULL && container_of(link, struct call, link)->reply_to == reply_to) {
            struct list_link *next = list_next(&volume->batch, link);
            struct call *call = container_of(link, struct call, link);
            call->reply.early = false; /* it has waited */
            arm(volume, call);
            list_remove(link);
            list_append(&same, link);
            link = next;
            count++;
        }
        mailbox_send_all(reply_to, &same, count);
    }
}

/* Tells about subscriptions that were armed and may now have something. */
static void tell_woken(struct volume *volume)
{
    uint32_t *ids = (uint32_t *)(void *)volume->effects.woken.data;
    size_t count = volume->effects.woken.size / sizeof *ids;
    size_t armed = 0;
    for (size_t index = 0; index < count; index++) {
        if (map_remove(&volume->armed, ids[index]) != NULL) {
            ids[armed++] = ids[index];
        }
    }
    tell(volume, ids, armed);
}

/* Whether publishes are to be refused now. */
static void update_full(struct volume *volume, uint64_t used_size)
{
    err_t err = store_reserve(volume->store, volume->options.reserve);
    uint64_t quota = volume->options.quota;
    bool over = quota != 0 && used_size >= quota / 100 * FULL_PERCENT;
    bool full = err != NULL || over || mono_ms(volume) < volume->space_retry_ms;
    if (full != volume->full) {
        LOG_WARN(full ? "volume full" : "volume has room again", LOG_TEXT("volume", volume->name),
                 LOG_U64("used_bytes", used_size));
    }
    volume->full = full;
    err_free(err);
}

/* What is known of the store changes with its commits only. */
static void update_store(struct volume *volume)
{
    struct store_stats stats;
    if (writer_uncommitted(&volume->writer)) {
        return;
    }
    store_stats(volume->store, &stats);
    if (!volume->writer.failed) {
        update_full(volume, stats.used_size);
    }
    pthread_mutex_lock(&volume->lock);
    volume->status.store = stats;
    volume->status.commits_total = stats.commit_count;
    pthread_mutex_unlock(&volume->lock);
}

static void update_status(struct volume *volume, size_t commands)
{
    const struct journal *journal = volume->writer.journal;
    update_store(volume);
    pthread_mutex_lock(&volume->lock);
    volume->status.full = volume->full;
    volume->status.commands_total += commands;
    volume->status.journal_size = journal == NULL ? 0 : journal_used(journal);
    pthread_mutex_unlock(&volume->lock);
}

/* Commits what the journal holds. Without room for that it stays there, and is tried again. */
static void checkpoint(struct volume *volume)
{
    uint64_t start_us = clock_mono_us(volume->options.clock);
    if (!writer_uncommitted(&volume->writer) || mono_ms(volume) < volume->checkpoint_retry_ms) {
        return;
    }
    err_t err = writer_checkpoint(&volume->writer);
    if (err == NULL) {
        observe(volume, VOLUME_CHECKPOINT_US, clock_mono_us(volume->options.clock) - start_us);
        volume->checkpoint_ms = 0;
        volume->relaxed_ms = 0;
        return;
    }
    observe(volume, VOLUME_COMMIT_FAILED, 1);
    if (volume->writer.failed) {
        fail_volume(volume, err);
    } else {
        note_no_space(volume, err);
        volume->checkpoint_retry_ms = volume->space_retry_ms;
    }
    err_free(err);
}

/* When what is applied is to be committed at the latest: UINT64_MAX for never. */
static uint64_t checkpoint_due_ms(const struct volume *volume)
{
    if (volume->writer.failed || !writer_uncommitted(&volume->writer)) {
        return UINT64_MAX;
    }
    uint64_t due_ms = volume->served_ms + volume->options.checkpoint_ms / IDLE_SHARE;
    due_ms = due_ms < volume->checkpoint_ms ? due_ms : volume->checkpoint_ms;
    return due_ms > volume->checkpoint_retry_ms ? due_ms : volume->checkpoint_retry_ms;
}

/* What must be written some time after the answers: flushes and commits. */
static void write_later(struct volume *volume)
{
    uint64_t now_ms = mono_ms(volume);
    if (volume->writer.failed) {
        return;
    }
    if (!writer_uncommitted(&volume->writer)) {
        volume->checkpoint_ms = 0;
    } else if (volume->checkpoint_ms == 0) {
        volume->checkpoint_ms = now_ms + volume->options.checkpoint_ms;
    }
    if (writer_wants_checkpoint(&volume->writer) || now_ms >= checkpoint_due_ms(volume)) {
        checkpoint(volume);
    }
    if (volume->relaxed_ms != 0 && now_ms >= volume->relaxed_ms) {
        flush_rest(volume);
    }
}

static void maintain(struct volume *volume)
{
    uint64_t now_ms = mono_ms(volume);
    if (now_ms < volume->maintained_ms + volume->options.maintain_ms) {
        return;
    }
    if (!volume->writer.failed) {
        checkpoint(volume);
    }
    if (writer_uncommitted(&volume->writer)) {
        return;
    }
    volume->maintained_ms = now_ms;
    err_t err = store_maintain(volume->store);
    if (err != NULL) {
        LOG_WARN("maintenance failed", LOG_TEXT("volume", volume->name), LOG_ERR(err));
        err_free(err);
    }
}

/* Whether there is room again. What frees some shows once it is committed, which only publishes are
 * worth. */
static void look_for_room(struct volume *volume)
{
    if (!volume->writer.failed && volume->full && volume->message_count > 0) {
        checkpoint(volume);
        update_status(volume, 0);
    }
}

static void serve_batch(struct volume *volume, size_t count)
{
    uint64_t start_us = clock_mono_us(volume->options.clock);
    look_for_room(volume);
    if (volume->writer.failed) {
        refuse_batch(volume, ERR_UNAVAILABLE, "the volume has failed");
        answer(volume);
        return;
    }
    volume->served_ms = count > 0 ? mono_ms(volume) : volume->served_ms;
    run_batch(volume);
    answer(volume);
    tell_woken(volume);
    if (volume->options.report != NULL) {
        volume->options.report(volume->options.observe_context, &volume->effects);
    }
    observe(volume, VOLUME_BATCH_US, clock_mono_us(volume->options.clock) - start_us);
    observe(volume, VOLUME_BATCH_SIZE, count);
    write_later(volume);
    update_status(volume, count);
    maintain(volume);
}

/* Moves calls into the batch up to its bounds. */
static size_t fill_batch(struct volume *volume)
{
    size_t count = 0;
    uint64_t size = 0;
    struct list_link *link;
    volume->message_count = 0;
    while (count < volume->options.batch_max && (link = list_first(&volume->waiting)) != NULL) {
        struct call *call = container_of(link, struct call, link);
        if (count > 0 && size + call->size > volume->options.batch_bytes) {
            break;
        }
        list_remove(link);
        list_append(&volume->batch, link);
        size += call->size;
        volume->message_count +=
            call->command.type == COMMAND_PUBLISH ? call->command.publish.count : 0;
        count++;
    }
    volume->waiting_count -= count;
    return count;
}

/* How long until something of the machine comes due: UINT64_MAX when nothing does. */
static uint64_t time_to_due(struct volume *volume)
{
    uint64_t due_ms =
        volume->writer.failed ? UINT64_MAX : volume->machine->ops->next_due_ms(volume->machine);
    if (due_ms == UINT64_MAX) {
        return UINT64_MAX;
    }
    uint64_t now_ms = read_time(volume);
    uint64_t wait_ms = due_ms <= now_ms ? 0 : due_ms - now_ms;
    uint64_t mono = mono_ms(volume);
    if (mono < volume->tick_retry_ms && wait_ms < volume->tick_retry_ms - mono) {
        wait_ms = volume->tick_retry_ms - mono;
    }
    return wait_ms;
}

/* How long until something is to be flushed or committed: UINT64_MAX when nothing is. */
static uint64_t time_to_write(const struct volume *volume)
{
    uint64_t write_ms = checkpoint_due_ms(volume);
    uint64_t mono = mono_ms(volume);
    if (volume->relaxed_ms != 0 && volume->relaxed_ms < write_ms) {
        write_ms = volume->relaxed_ms;
    }
    return write_ms == UINT64_MAX ? UINT64_MAX : write_ms > mono ? write_ms - mono : 0;
}

static uint64_t time_to_wait(struct volume *volume)
{
    if (volume->writer.failed) {
        return UINT64_MAX;
    }
    uint64_t times_ms[] = {time_to_due(volume), time_to_write(volume)};
    uint64_t wait_ms = volume->full ? SPACE_RETRY_MS : volume->options.maintain_ms;
    for (size_t index = 0; index < sizeof times_ms / sizeof times_ms[0]; index++) {
        wait_ms = times_ms[index] < wait_ms ? times_ms[index] : wait_ms;
    }
    return wait_ms;
}

/* Tells who waits in volume_settle that there is nothing to do. `asked` was read before looking. */
static void tell_settled(struct volume *volume, uint64_t asked)
{
    if (asked == volume->settle_seen) {
        return;
    }
    volume->settle_seen = asked;
    pthread_mutex_lock(&volume->lock);
    volume->settle_done = asked;
    volume->settle_ms = time_to_due(volume);
    pthread_cond_broadcast(&volume->settled);
    pthread_mutex_unlock(&volume->lock);
}

/* Takes no more than one batch may have: what is left in the mailbox keeps its senders back. */
static size_t take_calls(struct volume *volume, uint64_t timeout_ms)
{
    size_t max = volume->options.batch_max - volume->waiting_count;
    size_t count = 0;
    if (timeout_ms > 0) {
        count = mailbox_wait(&volume->mailbox, &volume->waiting, max, timeout_ms);
    } else if (max > 0) {
        count = mailbox_take(&volume->mailbox, &volume->waiting, max);
    }
    volume->waiting_count += count;
    return count;
}

/* What cannot be committed now is in the journal, for the next start. */
static void finish(struct volume *volume)
{
    volume->checkpoint_retry_ms = 0;
    if (!volume->writer.failed) {
        checkpoint(volume);
        flush_rest(volume);
        update_status(volume, 0);
    }
    writer_drop(&volume->writer);
}

/* A transaction belongs to its thread: what the start could not commit is built anew in this one.
 * Who was answered before its flush has waited for that long enough. */
static void take_over(struct volume *volume)
{
    err_t err = volume->unsaved ? writer_recover(&volume->writer) : NULL;
    if (err != NULL) {
        fail_volume(volume, err);
        err_free(err);
        return;
    }
    flush_rest(volume);
}

static void *run(void *argument)
{
    struct volume *volume = argument;
    log_bind(volume->log);
    take_over(volume);
    for (;;) {
        uint64_t asked = atomic_load(&volume->settle_asked);
        bool look = volume->waiting_count > 0 || asked != volume->settle_seen;
        take_calls(volume, look ? 0 : time_to_wait(volume));
        size_t count = fill_batch(volume);
        if (count > 0) {
            serve_batch(volume, count);
        } else if (mailbox_closed(&volume->mailbox)) {
            /* What has come due and what is left to do in the background go on at the next start.
             * Something may have come in after the wait and before the closing. */
            if (take_calls(volume, 0) == 0) {
                finish(volume);
                return NULL;
            }
        } else if (is_due(volume)) {
            serve_batch(volume, 0);
        } else {
            write_later(volume);
            update_status(volume, 0);
            maintain(volume);
            tell_settled(volume, asked);
        }
    }
}

static void free_volume(struct volume *volume)
{
    writer_deinit(&volume->writer);
    mailbox_deinit(&volume->mailbox);
    pthread_cond_destroy(&volume->settled);
    pthread_mutex_destroy(&volume->lock);
    effects_deinit(&volume->effects);
    buf_deinit(&volume->woken);
    reply_deinit(&volume->tick_reply);
    map_deinit(&volume->armed);
    free(volume);
}

err_t volume_start(const struct volume_options *options, struct volume **out)
{
    struct volume *volume = calloc(1, sizeof *volume);
    if (volume == NULL) {
        return ERR(MEMORY, "no memory for a volume");
    }
    err_t err = mailbox_init(&volume->mailbox, options->mailbox_max, NULL, NULL);
    if (err != NULL) {
        free(volume);
        return err_passed(err, __func__);
    }
    volume->options = *options;
    volume->log = log_bound();
    snprintf(volume->name, sizeof volume->name, "%s", options->name);
    volume->store = options->store;
    volume->machine = options->machine;
    list_init(&volume->batch);
    list_init(&volume->waiting);
    effects_init(&volume->effects);
    buf_init(&volume->woken, EFFECTS_WOKEN_MAX);
    reply_init(&volume->tick_reply);
    map_init(&volume->armed);
    pthread_mutex_init(&volume->lock, NULL);
    pthread_cond_init(&volume->settled, NULL);
    volume->maintained_ms = mono_ms(volume);
    volume->now_mono_ms = volume->maintained_ms;
    writer_init(&volume->writer, volume->store, volume->machine, options->journal,
                &(struct writer_options){.name = volume->name, .reserve = options->reserve});
    TRY_OUT(writer_open(&volume->writer));
    volume->now_ms = volume->machine->ops->now_ms(volume->machine);
    volume->unsaved = writer_uncommitted(&volume->writer);
    writer_drop(&volume->writer);
    update_status(volume, 0);
    if (pthread_create(&volume->thread, NULL, run, volume) != 0) {
        err = ERR(MEMORY, "no thread for %s", volume->name);
    }
out:
    if (err != NULL) {
        free_volume(volume);
        return err;
    }
    *out = volume;
    return NULL;
}

bool volume_send(struct volume *volume, struct call *call)
{
    bool taken = mailbox_send(&volume->mailbox, &call->link);
    if (!taken) {
        observe(volume, VOLUME_REFUSED, 1);
    }
    return taken;
}

bool volume_send_over(struct volume *volume, struct call *call)
{
    return mailbox_send_over(&volume->mailbox, &call->link);
}

void volume_cork(struct volume *volume)
{
    mailbox_cork(&volume->mailbox);
}

void volume_uncork(struct volume *volume)
{
    mailbox_uncork(&volume->mailbox);
}

void volume_wake(struct volume *volume)
{
    mailbox_nudge(&volume->mailbox);
}

uint64_t volume_settle(struct volume *volume)
{
    uint64_t asked = atomic_fetch_add(&volume->settle_asked, 1) + 1;
    mailbox_nudge(&volume->mailbox);
    pthread_mutex_lock(&volume->lock);
    while (volume->settle_done < asked) {
        pthread_cond_wait(&volume->settled, &volume->lock);
    }
    uint64_t due_in_ms = volume->settle_ms;
    pthread_mutex_unlock(&volume->lock);
    return due_in_ms;
}

void volume_take_woken(struct volume *volume, struct buf *out)
{
    pthread_mutex_lock(&volume->lock);
    buf_append_span(out, buf_span(&volume->woken));
    buf_reset(&volume->woken);
    pthread_mutex_unlock(&volume->lock);
}

void volume_status(struct volume *volume, struct volume_status *out)
{
    pthread_mutex_lock(&volume->lock);
    *out = volume->status;
    pthread_mutex_unlock(&volume->lock);
    out->mailbox_count = mailbox_count(&volume->mailbox);
}

const char *volume_name(const struct volume *volume)
{
    return volume->name;
}

void volume_stop(struct volume *volume)
{
    mailbox_close(&volume->mailbox);
    pthread_join(volume->thread, NULL);
}

void volume_destroy(struct volume *volume)
{
    struct machine *machine = volume->machine;
    struct store *store = volume->store;
    struct journal *journal = volume->options.journal;
    free_volume(volume); /* its transaction goes before the store */
    machine->ops->destroy(machine);
    store_close(store);
    journal_close(journal);
}
