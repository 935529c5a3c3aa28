/* One batch of a volume: applied, kept or undone, answered. */
#include <assert.h>

#include "broker/base/log.h"
#include "broker/volume/volume_internal.h"

enum {
    TICK_BUDGET = 4096,
    TICK_SHARE = 4, /* and so much more for each message that comes in, so that what it brings with
                     * it (its key's expiry, what retention gives up for it) cannot pile up */
};

/* Why one attempt at a batch failed, and what can be done. */
struct attempt {
    err_t err;
    struct call *call; /* in whose apply; NULL: elsewhere */
    bool ticked;       /* background work was in it */
    bool grown;        /* there is more room now */
};

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

uint64_t volume_read_time(struct volume *volume)
{
    uint64_t mono = volume_mono_ms(volume);
    uint64_t wall = clock_wall_ms(volume->options.clock);
    volume->now_ms += mono - volume->now_mono_ms;
    volume->now_ms = wall > volume->now_ms ? wall : volume->now_ms;
    volume->now_mono_ms = mono;
    return volume->now_ms;
}

bool volume_is_due(struct volume *volume)
{
    return !volume->writer.failed && volume_mono_ms(volume) >= volume->tick_retry_ms &&
           volume->machine->ops->next_due_ms(volume->machine) <= volume_read_time(volume);
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

/* Should the batch be undone, what has been given of it is there again and nobody's. False: there
 * is no memory to remember it by, and it must not be given yet. */
static bool note_given(struct volume *volume, const struct call *call)
{
    if (call->command.type == COMMAND_PULL) {
        buf_append(&volume->given, &call->command.pull.sub_id, sizeof call->command.pull.sub_id);
    }
    return !volume->given.failed;
}

static void tell_given(struct volume *volume)
{
    const uint32_t *ids = (const uint32_t *)(const void *)volume->given.data;
    size_t count = volume->given.size / sizeof *ids;
    for (size_t index = 0; index < count; index++) {
        (void)map_remove(&volume->armed, ids[index]);
    }
    tell(volume, ids, count);
    buf_reset(&volume->given);
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
        if (call->reply.early && note_given(volume, call)) {
            if (!pull && volume->relaxed_ms == 0) {
                volume->relaxed_ms = volume_mono_ms(volume) + volume->options.relaxed_ms;
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
    uint64_t now_ms = volume_read_time(volume);
    attempt->ticked = volume_is_due(volume);
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
        attempt.err = volume_flush(volume);
    }
    if (attempt.err == NULL) {
        writer_end(&volume->writer);
    } else {
        volume_observe(volume, VOLUME_COMMIT_FAILED, 1);
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

/* Undoes a failed attempt. On failure the first reason is the one to tell when nothing can be done
 * about it. */
static void undo_batch(struct volume *volume, struct attempt *attempt)
{
    if (!can_go_on(volume, attempt)) {
        volume->writer.failed = true;
        return;
    }
    err_t err = writer_undo(&volume->writer, err_code(attempt->err), &attempt->grown);
    tell_given(volume);
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
            volume_fail(volume, attempt.err);
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
            volume_note_no_space(volume, attempt.err);
        } else if (writer_is_space(code) && attempt.ticked) {
            /* What was asked goes before what can wait. */
            volume->tick_retry_ms = volume_mono_ms(volume) + VOLUME_SPACE_RETRY_MS;
        } else if (writer_is_space(code)) {
            volume_note_no_space(volume, attempt.err);
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

void volume_serve(struct volume *volume, size_t count)
{
    uint64_t start_us = clock_mono_us(volume->options.clock);
    volume_look_for_room(volume);
    if (volume->writer.failed) {
        refuse_batch(volume, ERR_UNAVAILABLE, "the volume has failed");
        answer(volume);
        return;
    }
    buf_reset(&volume->given);
    volume->served_ms = count > 0 ? volume_mono_ms(volume) : volume->served_ms;
    run_batch(volume);
    answer(volume);
    tell_woken(volume);
    if (volume->options.report != NULL) {
        volume->options.report(volume->options.observe_context, &volume->effects);
    }
    volume_observe(volume, VOLUME_BATCH_US, clock_mono_us(volume->options.clock) - start_us);
    volume_observe(volume, VOLUME_BATCH_SIZE, count);
    volume_write_later(volume);
    volume_update_status(volume, count);
    volume_maintain(volume);
}
