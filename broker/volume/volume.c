#include "broker/volume/volume.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/base/log.h"
#include "broker/base/map.h"
#include "broker/volume/standin.h"

enum {
    NAME_SIZE = 32,
    TICK_BUDGET = 4096,
    TICK_SHARE = 4, /* and so much more for each message that comes in, so that what it brings with
                     * it (its key's expiry, what retention gives up for it) cannot pile up */
    FULL_PERCENT = 90,
    SPACE_RETRY_MS = 500, /* how long publishes are refused without trying after a full disk */
    GROWS_MAX = 16,       /* doublings of the map for one batch */
    WOKEN_MAX = 64 * 1024 * 1024,
};

struct volume {
    struct volume_options options;
    char name[NAME_SIZE];
    pthread_t thread;
    struct log_sink *log; /* of whoever started it */
    struct mailbox mailbox;
    struct machine *machine;
    struct store *store;
    struct list batch;      /* calls being served */
    uint64_t message_count; /* published by them */
    struct list waiting;    /* taken from the mailbox, for a later batch */
    size_t waiting_count;
    struct list kept; /* stand-ins there was no space for: they go before the next publishes */
    bool hasty;       /* the batch may answer before its commit: it began without stand-ins */
    struct effects effects;
    struct reply tick_reply;
    struct map armed;        /* subscriptions to tell about */
    uint64_t now_ms;         /* the last stamp ... */
    uint64_t now_mono_ms;    /* ... and when it was made */
    uint64_t maintained_ms;  /* monotonic */
    uint64_t space_retry_ms; /* monotonic: until then a commit has no space for publishes */
    uint64_t tick_retry_ms;  /* likewise for background work */
    uint64_t settle_seen;    /* settle_asked when the thread last found nothing to do */
    bool full;
    bool failed;
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
};

static bool is_space(enum err_code code)
{
    return code == ERR_NO_SPACE || code == ERR_MAP_FULL;
}

static uint64_t mono_ms(const struct volume *volume)
{
    return clock_mono_us(volume->options.clock) / 1000;
}

static void clear_reply(struct reply *reply)
{
    buf_reset(&reply->items);
    buf_reset(&reply->payload);
    struct buf items = reply->items;
    struct buf payload = reply->payload;
    *reply = (struct reply){.items = items, .payload = payload};
}

static void clear_effects(struct effects *effects)
{
    struct buf woken = effects->woken;
    buf_reset(&woken);
    *effects = (struct effects){.woken = woken};
}

static void fail_volume(struct volume *volume, err_t err)
{
    volume->failed = true;
    pthread_mutex_lock(&volume->lock);
    volume->status.failed = true;
    snprintf(volume->status.failure, sizeof volume->status.failure, "%s", err_message(err));
    pthread_mutex_unlock(&volume->lock);
    LOG_ERROR("volume failed", LOG_TEXT("volume", volume->name), LOG_ERR(err));
}

void volume_refuse(struct call *call, enum err_code code, const char *detail)
{
    struct command *command = &call->command;
    clear_reply(&call->reply);
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
    clear_effects(&volume->effects);
    for (struct list_link *link = list_first(&volume->batch); link != NULL;
         link = list_next(&volume->batch, link)) {
        volume_refuse(container_of(link, struct call, link), code, detail);
    }
}

static err_t load(struct volume *volume)
{
    struct store_txn *txn = NULL;
    TRY(store_begin(volume->store, STORE_WRITE, &txn));
    err_t err = volume->machine->ops->load(volume->machine, txn);
    store_abort(txn);
    return err;
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
    return !volume->failed && mono_ms(volume) >= volume->tick_retry_ms &&
           volume->machine->ops->next_due_ms(volume->machine) <= read_time(volume);
}

static err_t tick(struct volume *volume, struct store_txn *txn)
{
    uint64_t budget = TICK_BUDGET + TICK_SHARE * volume->message_count;
    const struct command command = {
        .type = COMMAND_TICK,
        .now_ms = volume->now_ms,
        .tick.budget = budget < UINT32_MAX ? (uint32_t)budget : UINT32_MAX,
    };
    clear_reply(&volume->tick_reply);
    return volume->machine->ops->apply(volume->machine, txn, &command, &volume->tick_reply,
                                       &volume->effects);
}

/* Sends calls back; those that go to one place and follow each other go together. */
static void send_replies(struct list *calls)
{
    while (!list_empty(calls)) {
        struct call *first = container_of(list_first(calls), struct call, link);
        struct mailbox *reply_to = first->reply_to;
        struct list same;
        list_init(&same);
        size_t count = 0;
        struct list_link *link = list_first(calls);
        while (link != NULL && container_of(link, struct call, link)->reply_to == reply_to) {
            struct list_link *next = list_next(calls, link);
            list_remove(link);
            list_append(&same, link);
            link = next;
            count++;
        }
        mailbox_send_all(reply_to, &same, count);
    }
}

/* Answers what need not wait for the flush (struct reply, `early`). A publish leaves a stand-in in
 * its place; when there can be none, it waits, and so does what follows and may have seen it. */
static void answer_early(struct volume *volume)
{
    struct list early;
    list_init(&early);
    struct list_link *link = volume->hasty ? list_first(&volume->batch) : NULL;
    while (link != NULL) {
        struct list_link *next = list_next(&volume->batch, link);
        struct call *call = container_of(link, struct call, link);
        struct call *standin = NULL;
        if (call->reply.early && !standin_is(call)) {
            if (call->command.type == COMMAND_PUBLISH && !standin_create(call, &standin)) {
                break;
            }
            if (standin != NULL) {
                list_insert_after(link, &standin->link);
            }
            list_remove(link);
            list_append(&early, link);
        }
        link = next;
    }
    send_replies(&early);
}

static err_t apply_batch(struct volume *volume, struct store_txn *txn, bool no_space,
                         struct attempt *attempt)
{
    uint64_t now_ms = read_time(volume);
    attempt->ticked = is_due(volume);
    if (attempt->ticked) {
        TRY(tick(volume, txn));
    }
    for (struct list_link *link = list_first(&volume->batch); link != NULL;
         link = list_next(&volume->batch, link)) {
        struct call *call = container_of(link, struct call, link);
        call->command.now_ms = now_ms;
        call->command.no_space = no_space && !standin_is(call);
        clear_reply(&call->reply);
        attempt->call = call;
        TRY(volume->machine->ops->apply(volume->machine, txn, &call->command, &call->reply,
                                        &volume->effects));
        assert(!standin_is(call) || standin_holds(call));
    }
    attempt->call = NULL;
    answer_early(volume);
    return volume->machine->ops->flush(volume->machine, txn);
}

static void observe(struct volume *volume, enum volume_measure measure, uint64_t value)
{
    if (volume->options.observe != NULL) {
        volume->options.observe(volume->options.observe_context, measure, value);
    }
}

/* Whether something less can be tried after a failure: any other ends the volume. */
static bool can_go_on(const struct attempt *attempt)
{
    enum err_code code = err_code(attempt->err);
    bool refusable = attempt->call != NULL && !standin_is(attempt->call);
    return is_space(code) || (refusable && (code == ERR_CORRUPT || code == ERR_MEMORY));
}

/* One transaction for the batch. On failure nothing has changed; when it can go on, the machine has
 * been built anew. */
static struct attempt try_batch(struct volume *volume, bool no_space)
{
    struct attempt attempt = {.err = NULL};
    struct store_txn *txn = NULL;
    clear_effects(&volume->effects);
    attempt.err = store_begin(volume->store, STORE_WRITE, &txn);
    if (attempt.err != NULL) {
        return attempt;
    }
    attempt.err = apply_batch(volume, txn, no_space, &attempt);
    if (attempt.err != NULL) {
        store_abort(txn);
    } else if (!volume->machine->ops->dirty(volume->machine)) {
        store_abort(txn);
        volume->machine->ops->committed(volume->machine);
        return attempt;
    } else {
        uint64_t start_us = clock_mono_us(volume->options.clock);
        attempt.err = store_commit(txn);
        observe(volume, VOLUME_FLUSH_US, clock_mono_us(volume->options.clock) - start_us);
    }
    if (attempt.err == NULL) {
        volume->machine->ops->committed(volume->machine);
        return attempt;
    }
    observe(volume, VOLUME_COMMIT_FAILED, 1);
    if (!can_go_on(&attempt)) {
        return attempt; /* the first reason is the one to tell */
    }
    err_t err = load(volume);
    if (err != NULL) {
        err_free(attempt.err);
        attempt = (struct attempt){.err = err};
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

/* Takes the stand-ins out of the batch, for later; false: there are none. */
static bool set_aside(struct volume *volume)
{
    bool any = false;
    struct list_link *link = list_first(&volume->batch);
    while (link != NULL) {
        struct list_link *next = list_next(&volume->batch, link);
        if (standin_is(container_of(link, struct call, link))) {
            list_remove(link);
            list_append(&volume->kept, link);
            any = true;
        }
        link = next;
    }
    return any;
}

static bool must_retry(const struct volume *volume)
{
    return !volume->failed && !list_empty(&volume->kept) &&
           mono_ms(volume) >= volume->space_retry_ms;
}

/* Puts the stand-ins that were set aside before everything else in the batch. */
static void take_kept(struct volume *volume)
{
    volume->hasty = list_empty(&volume->kept);
    if (must_retry(volume)) {
        list_splice(&volume->kept, &volume->batch);
        list_splice(&volume->batch, &volume->kept);
    }
}

/* Runs the batch until it is committed or refused. While stand-ins are set aside nothing else is
 * published, so that they find the places they were answered with. */
static void run_batch(struct volume *volume)
{
    uint32_t grows = 0;
    take_kept(volume);
    bool no_space = volume->full || !list_empty(&volume->kept);
    for (;;) {
        struct attempt attempt = try_batch(volume, no_space);
        if (attempt.err == NULL) {
            return;
        }
        enum err_code code = err_code(attempt.err);
        if (code == ERR_MAP_FULL && grows < GROWS_MAX) {
            err_t err = store_grow(volume->store);
            grows = err == NULL ? grows + 1 : GROWS_MAX;
            err_free(err);
        } else if (is_space(code) && !no_space) {
            no_space = true;
            note_no_space(volume, attempt.err);
        } else if (is_space(code) && attempt.ticked) {
            /* What was asked goes before what can wait. */
            volume->tick_retry_ms = mono_ms(volume) + SPACE_RETRY_MS;
        } else if (is_space(code) && set_aside(volume)) {
            note_no_space(volume, attempt.err);
        } else if (is_space(code)) {
            note_no_space(volume, attempt.err);
            refuse_batch(volume, ERR_NO_SPACE, "the disk is full");
            err_free(attempt.err);
            return;
        } else if (can_go_on(&attempt)) {
            refuse_alone(volume, &attempt);
        } else {
            fail_volume(volume, attempt.err);
            refuse_batch(volume, ERR_UNAVAILABLE, "the volume has failed");
            err_free(attempt.err);
            return;
        }
        err_free(attempt.err);
    }
}

/* Remembers the pulls that found nothing and asked to be told. */
static void arm(struct volume *volume)
{
    for (struct list_link *link = list_first(&volume->batch); link != NULL;
         link = list_next(&volume->batch, link)) {
        struct call *call = container_of(link, struct call, link);
        if (call->arm && call->reply.code == ERR_NONE && call->reply.items.size == 0 &&
            !map_put(&volume->armed, call->command.pull.sub_id, volume)) {
            /* Without memory to remember it by, tell at once: the pull is tried again. */
            buf_append(&volume->effects.woken, &call->command.pull.sub_id,
                       sizeof call->command.pull.sub_id);
        }
    }
}

static void drop_standins(struct list *calls)
{
    struct list_link *link = list_first(calls);
    while (link != NULL) {
        struct list_link *next = list_next(calls, link);
        struct call *call = container_of(link, struct call, link);
        if (standin_is(call)) {
            list_remove(link);
            standin_destroy(call);
        }
        link = next;
    }
}

static void answer(struct volume *volume)
{
    drop_standins(&volume->batch);
    for (struct list_link *link = list_first(&volume->batch); link != NULL;
         link = list_next(&volume->batch, link)) {
        container_of(link, struct call, link)->reply.early = false;
    }
    send_replies(&volume->batch);
}

/* Tells about subscriptions that were armed and may now have something. */
static void tell_woken(struct volume *volume)
{
    const uint32_t *ids = (const uint32_t *)(const void *)volume->effects.woken.data;
    size_t count = volume->effects.woken.size / sizeof *ids;
    bool any = false;
    pthread_mutex_lock(&volume->lock);
    for (size_t index = 0; index < count; index++) {
        if (map_remove(&volume->armed, ids[index]) != NULL) {
            buf_append(&volume->woken, &ids[index], sizeof ids[index]);
            any = true;
        }
    }
    assert(!volume->woken.failed); /* a lost wake-up is a message that waits for nobody */
    pthread_mutex_unlock(&volume->lock);
    if (any) {
        volume->options.wake(volume->options.wake_context);
    }
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

static void update_status(struct volume *volume, size_t commands)
{
    struct store_stats stats;
    store_stats(volume->store, &stats);
    if (!volume->failed) {
        update_full(volume, stats.used_size);
    }
    pthread_mutex_lock(&volume->lock);
    volume->status.full = volume->full;
    volume->status.store = stats;
    volume->status.commands_total += commands;
    volume->status.commits_total = stats.commit_count;
    pthread_mutex_unlock(&volume->lock);
}

static void maintain(struct volume *volume)
{
    uint64_t now_ms = mono_ms(volume);
    if (now_ms < volume->maintained_ms + volume->options.maintain_ms) {
        return;
    }
    volume->maintained_ms = now_ms;
    err_t err = store_maintain(volume->store);
    if (err != NULL) {
        LOG_WARN("maintenance failed", LOG_TEXT("volume", volume->name), LOG_ERR(err));
        err_free(err);
    }
}

static void serve_batch(struct volume *volume, size_t count)
{
    uint64_t start_us = clock_mono_us(volume->options.clock);
    if (volume->failed) {
        refuse_batch(volume, ERR_UNAVAILABLE, "the volume has failed");
        answer(volume);
        return;
    }
    if (volume->full) {
        update_status(volume, 0); /* there may be room again */
    }
    run_batch(volume);
    arm(volume);
    answer(volume);
    tell_woken(volume);
    if (volume->options.report != NULL) {
        volume->options.report(volume->options.observe_context, &volume->effects);
    }
    observe(volume, VOLUME_BATCH_US, clock_mono_us(volume->options.clock) - start_us);
    observe(volume, VOLUME_BATCH_SIZE, count);
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

/* UINT64_MAX: nothing comes due. */
static uint64_t time_to_due(struct volume *volume)
{
    uint64_t due_ms =
        volume->failed ? UINT64_MAX : volume->machine->ops->next_due_ms(volume->machine);
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

static uint64_t time_to_wait(struct volume *volume)
{
    if (volume->failed) {
        return UINT64_MAX;
    }
    uint64_t wait_ms = time_to_due(volume);
    uint64_t look_ms = volume->full ? SPACE_RETRY_MS : volume->options.maintain_ms;
    return wait_ms > look_ms ? look_ms : wait_ms;
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

static void *run(void *argument)
{
    struct volume *volume = argument;
    log_bind(volume->log);
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
                volume->space_retry_ms = 0;
                if (must_retry(volume)) {
                    serve_batch(volume, 0); /* the last chance of what has been answered */
                }
                return NULL;
            }
        } else if (is_due(volume) || must_retry(volume)) {
            serve_batch(volume, 0);
        } else {
            update_status(volume, 0);
            maintain(volume);
            tell_settled(volume, asked);
        }
    }
}

static void free_volume(struct volume *volume)
{
    mailbox_deinit(&volume->mailbox);
    pthread_cond_destroy(&volume->settled);
    pthread_mutex_destroy(&volume->lock);
    buf_deinit(&volume->effects.woken);
    buf_deinit(&volume->woken);
    drop_standins(&volume->kept);
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
    snprintf(volume->name, sizeof volume->name, "%s", options->name);
    volume->store = options->store;
    volume->machine = options->machine;
    volume->log = log_bound();
    list_init(&volume->batch);
    list_init(&volume->kept);
    list_init(&volume->waiting);
    buf_init(&volume->effects.woken, WOKEN_MAX);
    buf_init(&volume->woken, WOKEN_MAX);
    reply_init(&volume->tick_reply);
    map_init(&volume->armed);
    pthread_mutex_init(&volume->lock, NULL);
    pthread_cond_init(&volume->settled, NULL);
    volume->maintained_ms = mono_ms(volume);
    volume->now_mono_ms = volume->maintained_ms;
    TRY_OUT(load(volume));
    volume->now_ms = volume->machine->ops->now_ms(volume->machine);
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

struct store *volume_store(struct volume *volume)
{
    return volume->store;
}

void volume_stop(struct volume *volume)
{
    mailbox_close(&volume->mailbox);
    pthread_join(volume->thread, NULL);
}

void volume_destroy(struct volume *volume)
{
    volume->machine->ops->destroy(volume->machine);
    store_close(volume->store);
    free_volume(volume);
}
