/* When a volume writes: flushes, commits, and whether there is room for more. */
#include <stdio.h>

#include "broker/base/log.h"
#include "broker/volume/volume_internal.h"

enum {
    FULL_PERCENT = 90,
    IDLE_SHARE = 10, /* with no command for one part in so many of the time that the journal may
                      * hold something, it is committed */
};

void volume_observe(struct volume *volume, enum volume_measure measure, uint64_t value)
{
    if (volume->options.observe != NULL) {
        volume->options.observe(volume->options.observe_context, measure, value);
    }
}

void volume_fail(struct volume *volume, err_t err)
{
    volume->writer.failed = true;
    writer_drop(&volume->writer);
    pthread_mutex_lock(&volume->lock);
    volume->status.failed = true;
    snprintf(volume->status.failure, sizeof volume->status.failure, "%s", err_message(err));
    pthread_mutex_unlock(&volume->lock);
    LOG_ERROR("volume failed", LOG_TEXT("volume", volume->name), LOG_ERR(err));
}

err_t volume_flush(struct volume *volume)
{
    uint64_t start_us = clock_mono_us(volume->options.clock);
    err_t err = writer_flush(&volume->writer);
    volume_observe(volume, VOLUME_FLUSH_US, clock_mono_us(volume->options.clock) - start_us);
    volume->relaxed_ms = err == NULL ? 0 : volume->relaxed_ms;
    return err;
}

void volume_flush_rest(struct volume *volume)
{
    bool pending = writer_pending(&volume->writer);
    err_t err = pending && !volume->writer.failed ? volume_flush(volume) : NULL;
    if (err != NULL) {
        volume_fail(volume, err);
        err_free(err);
    }
    volume->relaxed_ms = 0;
}

/* ---- room ---- */

void volume_note_no_space(struct volume *volume, err_t err)
{
    if (!volume->full) {
        LOG_WARN("volume full", LOG_TEXT("volume", volume->name), LOG_ERR(err));
    }
    volume->full = true;
    volume->space_retry_ms = volume_mono_ms(volume) + VOLUME_SPACE_RETRY_MS;
}

/* Whether publishes are to be refused now. */
static void update_full(struct volume *volume, uint64_t used_size)
{
    err_t err = store_reserve(volume->store, volume->options.reserve);
    uint64_t quota = volume->options.quota;
    bool over = quota != 0 && used_size >= quota / 100 * FULL_PERCENT;
    bool full = err != NULL || over || volume_mono_ms(volume) < volume->space_retry_ms;
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

void volume_update_status(struct volume *volume, size_t commands)
{
    const struct journal *journal = volume->writer.journal;
    update_store(volume);
    pthread_mutex_lock(&volume->lock);
    volume->status.full = volume->full;
    volume->status.commands_total += commands;
    volume->status.journal_size = journal == NULL ? 0 : journal_used(journal);
    pthread_mutex_unlock(&volume->lock);
}

/* ---- between batches ---- */

void volume_checkpoint(struct volume *volume)
{
    uint64_t start_us = clock_mono_us(volume->options.clock);
    if (!writer_uncommitted(&volume->writer) ||
        volume_mono_ms(volume) < volume->checkpoint_retry_ms) {
        return;
    }
    err_t err = writer_checkpoint(&volume->writer);
    if (err == NULL) {
        volume_observe(volume, VOLUME_CHECKPOINT_US,
                       clock_mono_us(volume->options.clock) - start_us);
        volume->checkpoint_ms = 0;
        volume->relaxed_ms = 0;
        return;
    }
    volume_observe(volume, VOLUME_COMMIT_FAILED, 1);
    if (volume->writer.failed) {
        volume_fail(volume, err);
    } else {
        volume_note_no_space(volume, err);
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

void volume_write_later(struct volume *volume)
{
    uint64_t now_ms = volume_mono_ms(volume);
    if (volume->writer.failed) {
        return;
    }
    if (!writer_uncommitted(&volume->writer)) {
        volume->checkpoint_ms = 0;
    } else if (volume->checkpoint_ms == 0) {
        volume->checkpoint_ms = now_ms + volume->options.checkpoint_ms;
    }
    if (writer_wants_checkpoint(&volume->writer) || now_ms >= checkpoint_due_ms(volume)) {
        volume_checkpoint(volume);
    }
    if (volume->relaxed_ms != 0 && now_ms >= volume->relaxed_ms) {
        volume_flush_rest(volume);
    }
}

uint64_t volume_time_to_write(const struct volume *volume)
{
    uint64_t write_ms = checkpoint_due_ms(volume);
    uint64_t mono = volume_mono_ms(volume);
    if (volume->relaxed_ms != 0 && volume->relaxed_ms < write_ms) {
        write_ms = volume->relaxed_ms;
    }
    return write_ms == UINT64_MAX ? UINT64_MAX : write_ms > mono ? write_ms - mono : 0;
}

void volume_maintain(struct volume *volume)
{
    uint64_t now_ms = volume_mono_ms(volume);
    if (now_ms < volume->maintained_ms + volume->options.maintain_ms) {
        return;
    }
    if (!volume->writer.failed) {
        volume_checkpoint(volume);
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

void volume_look_for_room(struct volume *volume)
{
    if (!volume->writer.failed && volume->full && volume->message_count > 0) {
        volume_checkpoint(volume);
        volume_update_status(volume, 0);
    }
}
