#include "broker/volume/volume.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/base/log.h"
#include "broker/volume/volume_internal.h"

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
    uint64_t now_ms = volume_read_time(volume);
    uint64_t wait_ms = due_ms <= now_ms ? 0 : due_ms - now_ms;
    uint64_t mono = volume_mono_ms(volume);
    if (mono < volume->tick_retry_ms && wait_ms < volume->tick_retry_ms - mono) {
        wait_ms = volume->tick_retry_ms - mono;
    }
    return wait_ms;
}

static uint64_t time_to_wait(struct volume *volume)
{
    if (volume->writer.failed) {
        return UINT64_MAX;
    }
    uint64_t times_ms[] = {time_to_due(volume), volume_time_to_write(volume)};
    uint64_t wait_ms = volume->full ? VOLUME_SPACE_RETRY_MS : volume->options.maintain_ms;
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
        volume_checkpoint(volume);
        volume_flush_rest(volume);
        volume_update_status(volume, 0);
    }
    writer_drop(&volume->writer);
}

/* A transaction belongs to its thread: what the start could not commit is built anew in this one.
 * Who was answered before its flush has waited for that long enough. */
static void take_over(struct volume *volume)
{
    err_t err = volume->unsaved ? writer_recover(&volume->writer) : NULL;
    if (err != NULL) {
        volume_fail(volume, err);
        err_free(err);
        return;
    }
    volume_flush_rest(volume);
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
            volume_serve(volume, count);
        } else if (mailbox_closed(&volume->mailbox)) {
            /* What has come due and what is left to do in the background go on at the next start.
             * Something may have come in after the wait and before the closing. */
            if (take_calls(volume, 0) == 0) {
                finish(volume);
                return NULL;
            }
        } else if (volume_is_due(volume)) {
            volume_serve(volume, 0);
        } else {
            volume_write_later(volume);
            volume_update_status(volume, 0);
            volume_maintain(volume);
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
    buf_deinit(&volume->given);
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
    buf_init(&volume->given, EFFECTS_WOKEN_MAX);
    reply_init(&volume->tick_reply);
    map_init(&volume->armed);
    pthread_mutex_init(&volume->lock, NULL);
    pthread_cond_init(&volume->settled, NULL);
    volume->maintained_ms = volume_mono_ms(volume);
    volume->now_mono_ms = volume->maintained_ms;
    writer_init(&volume->writer, volume->store, volume->machine, options->journal,
                &(struct writer_options){.name = volume->name, .reserve = options->reserve});
    TRY_OUT(writer_open(&volume->writer));
    volume->now_ms = volume->machine->ops->now_ms(volume->machine);
    volume->unsaved = writer_uncommitted(&volume->writer);
    writer_drop(&volume->writer);
    volume_update_status(volume, 0);
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
        volume_observe(volume, VOLUME_REFUSED, 1);
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
