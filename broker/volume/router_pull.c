/* Pulls: each asks the volumes one after the other, from a rotating start, until it has what it
 * wants; with nothing in any of them it waits in all.
 *
 * A volume that had nothing is armed by the asking, and tells once when that may have changed; then
 * the pull that has waited longest asks again, and the volume that told first. When it gets
 * something, or cannot go on, the next one asks too, as there may be more. A wake-up that finds no
 * one waiting may be meant for a pull that has asked that volume already and is asking another:
 * such a pull asks again before it waits. So a wake-up is never lost: every waiting pull stands
 * behind volumes that are armed, or behind a pull that is asking.
 *
 * A pull that may wait does not ask volumes known to be armed: they have nothing, and will tell. An
 * answer says so only if no volume has told since it was asked for, as what it told may have
 * overtaken the answer.
 *
 * Most waits end with a publish that comes through here. The pulls that will have its messages do
 * not wait to be told of them: they ask right behind it, in the same batch. What they have pulled
 * then wakes nobody else. */
#include <assert.h>
#include <stdlib.h>

#include "broker/volume/router_create.h"
#include "broker/volume/router_internal.h"

/* Of one subscription, while there are pulls of it that wait or would wait. */
struct router_waiters {
    struct list waiting; /* struct router_pull.waiting, longest first */
    uint32_t waiting_count;
    uint32_t pull_count;  /* these and those that are asking */
    uint32_t wakes_unmet; /* wake-ups that found no one waiting */
    uint64_t tells;       /* wake-ups by volumes */
    uint64_t armed;       /* bits of the volumes that have nothing and will tell */
};
_Static_assert(ROUTER_VOLUMES_MAX <= 64, "a bit for each volume");

static void advance(struct router_operation *operation, struct router_call *call);
static void finish(struct router_pull *pull);
static void go_on(struct router_pull *pull);

static struct router_pull *pull_of(struct router_operation *operation)
{
    return container_of(operation, struct router_pull, operation);
}

static uint64_t bit_of(uint32_t volume)
{
    return UINT64_C(1) << volume;
}

static uint64_t all_volumes(const struct router *router)
{
    return UINT64_MAX >> (64 - router->volume_count);
}

/* Whether there is a volume left that may have something; it is pull->volume_next then. */
static bool find_next(struct router_pull *pull)
{
    const struct router *router = pull->operation.router;
    uint64_t armed = pull->waiters == NULL ? 0 : pull->waiters->armed;
    while (pull->volumes_asked < router->volume_count && (armed & bit_of(pull->volume_next)) != 0) {
        pull->volume_next = (pull->volume_next + 1) % router->volume_count;
        pull->volumes_asked++;
    }
    return pull->volumes_asked < router->volume_count;
}

static void ask_next(struct router_pull *pull)
{
    struct router *router = pull->operation.router;
    struct router_call *call = router_call_new(&pull->operation, pull->volume_next, COMMAND_PULL);
    if (call == NULL) {
        finish(pull);
        return;
    }
    call->call.command.pull = (struct pull){
        .sub_id = pull->sub_id,
        .max = pull->max - pull->taken,
        .size_max = pull->size_max - pull->taken_size,
        .size_strict = pull->taken > 0,
        .nonce = (uint32_t)random_next(&router->random),
        .rotation = router->rotation,
        .lease_ms = pull->lease_ms,
    };
    call->call.arm = pull->waiters != NULL;
    /* A full mailbox must not end the wait of those it let in, nor what goes on for ever. */
    call->over = pull->waited || pull->wait_ms == ROUTER_WAIT_FOR_EVER;
    pull->volume_next = (pull->volume_next + 1) % router->volume_count;
    pull->volumes_asked++;
    pull->tells = pull->waiters == NULL ? 0 : pull->waiters->tells;
    pull->call = call;
    router_call_send(router, call);
}

static void begin_round(struct router_pull *pull, uint32_t first)
{
    pull->operation.router->rotation++;
    pull->wakes_unmet = pull->waiters == NULL ? 0 : pull->waiters->wakes_unmet;
    pull->volume_next = first;
    pull->volumes_asked = 0;
    pull->left = 0;
}

/* Asks from `first` on; with no volume that may have something it goes on as after the last. */
static void ask_from(struct router_pull *pull, uint32_t first)
{
    begin_round(pull, first);
    if (find_next(pull)) {
        ask_next(pull);
    } else {
        go_on(pull);
    }
}

static void ask_all(struct router_pull *pull)
{
    const struct router *router = pull->operation.router;
    ask_from(pull, (router->rotation + 1) % router->volume_count);
}

static void stop_waiting(struct router *router, struct router_pull *pull)
{
    list_remove(&pull->waiting);
    pull->waiters->waiting_count--;
    router->waiting--;
}

static void leave_waiters(struct router *router, struct router_pull *pull)
{
    struct router_waiters *waiters = pull->waiters;
    if (waiters == NULL) {
        return;
    }
    if (list_linked(&pull->waiting)) {
        stop_waiting(router, pull);
    }
    if (pull->deadline.index != 0) {
        heap_remove(&router->deadlines, &pull->deadline);
    }
    pull->waiters = NULL;
    waiters->pull_count--;
    if (waiters->pull_count == 0) {
        map_remove(&router->waiters, pull->sub_id);
        free(waiters);
    }
}

/* Without memory to wait with, it is answered at once. */
static void join_waiters(struct router *router, struct router_pull *pull)
{
    struct router_waiters *waiters = map_get(&router->waiters, pull->sub_id);
    if (waiters == NULL) {
        waiters = calloc(1, sizeof *waiters);
        if (waiters != NULL && !map_put(&router->waiters, pull->sub_id, waiters)) {
            free(waiters);
            waiters = NULL;
        }
        if (waiters == NULL) {
            return;
        }
        list_init(&waiters->waiting);
    }
    uint64_t now_ms = clock_mono_us(router->clock) / 1000;
    pull->deadline.due_ms =
        pull->wait_ms < UINT64_MAX - now_ms ? now_ms + pull->wait_ms : UINT64_MAX;
    waiters->pull_count++;
    pull->waiters = waiters;
    if (!heap_insert(&router->deadlines, &pull->deadline)) {
        leave_waiters(router, pull);
    }
}

void router_start_pull(struct router *router, struct router_pull *pull)
{
    pull->taken = 0;
    pull->taken_size = 0;
    pull->call = NULL;
    pull->cancelled = false;
    pull->expired = false;
    pull->waited = false;
    pull->waiting = (struct list_link){0};
    pull->deadline = (struct heap_node){0};
    pull->waiters = NULL;
    if (!router_begin(router, &pull->operation, advance)) {
        return;
    }
    const struct catalog_sub *sub = router_find_sub(&pull->operation, pull->topic, pull->sub);
    if (sub == NULL) {
        router_finish(&pull->operation);
        return;
    }
    pull->sub_id = sub->id;
    if (pull->wait_ms > 0) {
        join_waiters(router, pull);
    }
    ask_all(pull);
}

/* Wakes so many that each of `left` messages has one asking: one after the other, the last would
 * wait for as many commits as there are messages. */
static void wake_for(struct router *router, uint32_t sub_id, uint64_t left)
{
    struct router_waiters *waiters;
    while ((waiters = map_get(&router->waiters, sub_id)) != NULL &&
           !list_empty(&waiters->waiting) && waiters->pull_count - waiters->waiting_count < left &&
           waiters->armed != all_volumes(router)) {
        router_wake_sub(router, sub_id);
    }
}

static void finish(struct router_pull *pull)
{
    struct router *router = pull->operation.router;
    leave_waiters(router, pull);
    if (pull->taken > 0) {
        pull->operation.result.code = ERR_NONE; /* what was leased must reach the client */
    }
    router_finish(&pull->operation);
    if (pull->taken > 0 || pull->operation.result.code != ERR_NONE) {
        router_wake_sub(router, pull->sub_id); /* there may be more, for the next one */
        wake_for(router, pull->sub_id, pull->left);
    }
}

/* It may have become pointless while the last volume was asked; nobody would wake it any more. */
static bool may_wait(struct router_pull *pull)
{
    const struct router *router = pull->operation.router;
    const struct catalog_sub *sub = catalog_sub_by_id(router->catalog, pull->sub_id);
    if (router->draining) {
        router_fail(&pull->operation, ERR_UNAVAILABLE, "the broker is stopping");
    } else if (sub == NULL || sub->state != CATALOG_ACTIVE || sub->topic->state != CATALOG_ACTIVE) {
        router_fail(&pull->operation, ERR_NOT_FOUND, "subscription: it does not exist");
    }
    return pull->operation.result.code == ERR_NONE;
}

static void wait(struct router_pull *pull)
{
    if (pull->waiters->wakes_unmet != pull->wakes_unmet) {
        ask_all(pull);
        return;
    }
    /* One that was woken for nothing keeps its place. */
    if (pull->waited) {
        list_prepend(&pull->waiters->waiting, &pull->waiting);
    } else {
        list_append(&pull->waiters->waiting, &pull->waiting);
    }
    pull->waited = true;
    pull->waiters->waiting_count++;
    pull->operation.router->waiting++;
}

/* Every volume that may have something has been asked. */
static void go_on(struct router_pull *pull)
{
    bool waits = pull->taken == 0 && pull->waiters != NULL && !pull->expired;
    if (waits && pull->operation.result.code == ERR_NONE && may_wait(pull)) {
        wait(pull);
    } else {
        finish(pull);
    }
}

/* Its volume has nothing more, and will tell when that changes, unless it has told already. */
static void note_armed(struct router_pull *pull, const struct router_call *call)
{
    struct router_waiters *waiters = pull->waiters;
    if (waiters != NULL && call_arms(&call->call) && pull->tells == waiters->tells) {
        waiters->armed |= bit_of(call->volume);
    }
}

static void advance(struct router_operation *operation, struct router_call *call)
{
    struct router_pull *pull = pull_of(operation);
    struct router *router = operation->router;
    const struct reply *reply = &call->call.reply;
    bool more = reply->more && reply->items.size == 0;
    pull->call = NULL;
    pull->taken += reply_delivery_count(reply);
    pull->taken_size += (uint32_t)reply->payload.size;
    pull->left += reply->left;
    router_fail(operation, reply->code, reply->detail);
    if (more && !router->draining) {
        /* It passed over many that cannot be delivered now, and there is more behind them. */
        pull->volume_next = (pull->volume_next + router->volume_count - 1) % router->volume_count;
        pull->volumes_asked--;
    } else {
        note_armed(pull, call);
    }
    if (reply->items.size == 0) {
        list_remove(&call->link);
        router_call_free(router, call);
    }
    /* A volume that fails does not keep others from delivering. */
    if (pull->taken < pull->max && pull->taken_size < pull->size_max && find_next(pull)) {
        ask_next(pull);
    } else {
        go_on(pull);
    }
}

/* The pull that has waited longest asks, from this volume on. */
static void wake_first(struct router *router, struct router_waiters *waiters, uint32_t first)
{
    if (list_empty(&waiters->waiting)) {
        waiters->wakes_unmet++;
        return;
    }
    struct router_pull *pull =
        container_of(list_first(&waiters->waiting), struct router_pull, waiting);
    stop_waiting(router, pull);
    ask_from(pull, first);
}

void router_wake_sub(struct router *router, uint32_t sub_id)
{
    struct router_waiters *waiters = map_get(&router->waiters, sub_id);
    if (waiters != NULL && waiters->armed != all_volumes(router)) {
        wake_first(router, waiters, (router->rotation + 1) % router->volume_count);
    }
}

void router_told(struct router *router, uint32_t sub_id, uint32_t volume)
{
    struct router_waiters *waiters = map_get(&router->waiters, sub_id);
    if (waiters != NULL) {
        waiters->tells++;
        waiters->armed &= ~bit_of(volume);
        wake_first(router, waiters, volume);
    }
}

/* As many as may have something of `count` messages. The volume stays armed: it tells if they leave
 * something, and nobody else need ask it before. */
static void follow(struct router *router, uint32_t sub_id, uint32_t volume, uint64_t count)
{
    struct router_waiters *waiters;
    while (count > 0 && (waiters = map_get(&router->waiters, sub_id)) != NULL &&
           (waiters->armed & bit_of(volume)) != 0 && !list_empty(&waiters->waiting)) {
        struct router_pull *pull =
            container_of(list_first(&waiters->waiting), struct router_pull, waiting);
        count -= pull->max < count ? pull->max : count;
        stop_waiting(router, pull);
        begin_round(pull, volume);
        ask_next(pull);
    }
}

void router_follow(struct router *router, const struct catalog_topic *topic, uint32_t volume,
                   uint64_t count)
{
    for (const struct list_link *link = list_first(&topic->subs); link != NULL;
         link = list_next(&topic->subs, link)) {
        const struct catalog_sub *sub = container_of(link, const struct catalog_sub, link);
        if (!sub->settings.paused) {
            follow(router, sub->id, volume, count);
        }
    }
}

void router_wake_all(struct router *router, uint32_t sub_id)
{
    struct list waiting;
    struct list_link *link;
    struct router_waiters *waiters = map_get(&router->waiters, sub_id);
    if (waiters == NULL) {
        return;
    }
    waiters->wakes_unmet++; /* for those that are asking */
    waiters->tells++;
    waiters->armed = 0;
    waiters->waiting_count = 0;
    list_init(&waiting);
    list_splice(&waiting, &waiters->waiting);
    while ((link = list_pop(&waiting)) != NULL) {
        router->waiting--;
        ask_all(container_of(link, struct router_pull, waiting));
    }
}

void router_pull_expired(struct router *router, struct router_pull *pull)
{
    pull->expired = true;
    if (list_linked(&pull->waiting)) {
        leave_waiters(router, pull);
        router_finish(&pull->operation);
    }
}

void router_return_pull(struct router *router, struct router_pull *pull)
{
    struct list_link *link;
    while ((link = list_pop(&pull->operation.calls)) != NULL) {
        router_pull_orphan(router, container_of(link, struct router_call, link));
    }
}

void router_cancel_pull(struct router *router, struct router_pull *pull)
{
    struct router_operation *operation = &pull->operation;
    if (pull->cancelled) {
        return;
    }
    pull->cancelled = true;
    operation->result.code = ERR_NONE;
    router_fail(operation, ERR_UNAVAILABLE, "the client has gone");
    if (pull->call != NULL) {
        pull->call->operation = NULL; /* its reply is nobody's: the messages go back */
        pull->call = NULL;
        operation->pending--;
    }
    router_return_pull(router, pull); /* what it has got already */
    leave_waiters(router, pull);
    if (!list_linked(&operation->finished)) {
        router_finish(operation);
    }
}

/* Sends back what a vanished client was given. The receipts live in the call's own reply until it
 * is answered. */
static void release(struct router *router, struct router_call *call)
{
    struct reply *reply = &call->call.reply;
    uint32_t count = reply_delivery_count(reply);
    uint32_t sub_id = call->call.command.pull.sub_id;
    struct receipt *receipts = calloc(count, sizeof *receipts + sizeof(enum err_code));
    if (receipts == NULL) {
        router_call_free(router, call); /* the leases run out by themselves */
        return;
    }
    for (uint32_t index = 0; index < count; index++) {
        const struct delivery *delivery = reply_delivery(reply, index);
        receipts[index] = (struct receipt){
            .sub_id = sub_id,
            .shard_id = delivery->shard_id,
            .sequence = delivery->sequence,
            .epoch = delivery->epoch,
            .grant = delivery->grant,
            .attempt = delivery->attempt,
        };
    }
    call->call.command = (struct command){.type = COMMAND_NACK};
    call->call.command.settle = (struct settle){
        .sub_id = sub_id,
        .receipts = receipts,
        .count = count,
        .results = (enum err_code *)(void *)(receipts + count),
        .release = true,
    };
    call->call.arm = false;
    call->operation = NULL;
    call->over = true;
    router_call_send(router, call);
}

void router_pull_orphan(struct router *router, struct router_call *call)
{
    const struct command *command = &call->call.command;
    if (command->type == COMMAND_PULL && call->call.reply.items.size > 0) {
        release(router, call);
        return;
    }
    if (command->type == COMMAND_NACK) {
        /* The volume was not armed while the messages were out. */
        router_wake_sub(router, command->settle.sub_id);
        free((void *)(uintptr_t)command->settle.receipts);
    } else if (command->type == COMMAND_PULL) {
        /* It may have been the one that was woken: let the next one look. */
        router_wake_sub(router, command->pull.sub_id);
    }
    router_call_free(router, call);
}

/* Any pull that waits; NULL: none. */
static struct router_pull *any_waiting(struct router *router)
{
    size_t at = 0;
    struct router_waiters *waiters;
    while ((waiters = map_each(&router->waiters, &at)) != NULL) {
        if (!list_empty(&waiters->waiting)) {
            return container_of(list_first(&waiters->waiting), struct router_pull, waiting);
        }
    }
    return NULL;
}

void router_drain(struct router *router)
{
    struct router_pull *pull;
    router->draining = true;
    while ((pull = any_waiting(router)) != NULL) {
        router_fail(&pull->operation, ERR_UNAVAILABLE, "the broker is stopping");
        leave_waiters(router, pull);
        router_finish(&pull->operation);
    }
}
