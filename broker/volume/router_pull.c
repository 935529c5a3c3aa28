/* Pulls: each asks the volumes one after the other, from a rotating start, until it has what it
 * wants; with nothing in any of them it waits in all.
 *
 * A volume that had nothing is armed by the asking, and tells once when that may have changed; then
 * the pull that has waited longest asks again. When it gets something, the next one asks too, as
 * there may be more. So a wake-up is never lost: every waiting pull stands behind volumes that are
 * armed, or behind a pull that is asking. */
#include <assert.h>
#include <stdlib.h>

#include "broker/volume/router_internal.h"

static void advance(struct router_operation *operation, struct router_call *call);

static struct router_pull *pull_of(struct router_operation *operation)
{
    return container_of(operation, struct router_pull, operation);
}

static void ask_next(struct router_pull *pull)
{
    struct router *router = pull->operation.router;
    struct router_call *call = router_call_new(&pull->operation, pull->volume_next, COMMAND_PULL);
    if (call == NULL) {
        router_finish(&pull->operation);
        return;
    }
    call->call.command.pull = (struct pull){
        .sub_id = pull->sub_id,
        .max = pull->max - pull->taken,
        .size_max = pull->size_max - pull->taken_size,
        .rotation = router->rotation,
        .lease_ms = pull->lease_ms,
    };
    call->call.arm = pull->wait_ms > 0;
    pull->volume_next = (pull->volume_next + 1) % router->volume_count;
    pull->volumes_asked++;
    pull->call = call;
    router_call_send(router, call);
}

static void ask_all(struct router_pull *pull)
{
    struct router *router = pull->operation.router;
    router->rotation++;
    pull->volume_next = router->rotation % router->volume_count;
    pull->volumes_asked = 0;
    ask_next(pull);
}

void router_start_pull(struct router *router, struct router_pull *pull)
{
    pull->taken = 0;
    pull->taken_size = 0;
    pull->call = NULL;
    pull->cancelled = false;
    pull->expired = false;
    pull->waiting = (struct list_link){0};
    pull->deadline = (struct heap_node){0};
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
        pull->deadline.due_ms = clock_mono_us(router->clock) / 1000 + pull->wait_ms;
        if (!heap_insert(&router->deadlines, &pull->deadline)) {
            pull->wait_ms = 0;
        }
    }
    ask_all(pull);
}

static struct list *waiters_of(struct router *router, uint32_t sub_id)
{
    struct list *list = map_get(&router->waiters, sub_id);
    if (list == NULL) {
        list = malloc(sizeof *list);
        if (list != NULL && !map_put(&router->waiters, sub_id, list)) {
            free(list);
            list = NULL;
        }
        if (list != NULL) {
            list_init(list);
        }
    }
    return list;
}

static void stop_waiting(struct router *router, struct router_pull *pull)
{
    struct list *list = map_get(&router->waiters, pull->sub_id);
    list_remove(&pull->waiting);
    router->waiting--;
    if (list_empty(list)) {
        map_remove(&router->waiters, pull->sub_id);
        free(list);
    }
}

static void finish(struct router_pull *pull)
{
    struct router *router = pull->operation.router;
    if (pull->deadline.index != 0) {
        heap_remove(&router->deadlines, &pull->deadline);
    }
    router_finish(&pull->operation);
    if (pull->taken > 0 || pull->cancelled) {
        router_wake_sub(router, pull->sub_id); /* there may be more, for the next one */
    }
}

static void wait(struct router_pull *pull)
{
    struct router *router = pull->operation.router;
    struct list *list = waiters_of(router, pull->sub_id);
    if (list == NULL) {
        finish(pull);
        return;
    }
    list_append(list, &pull->waiting);
    router->waiting++;
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
    router_fail(operation, reply->code, reply->detail);
    if (reply->items.size == 0) {
        list_remove(&call->link);
        router_call_free(router, call);
    }
    bool wants = pull->taken < pull->max && pull->taken_size < pull->size_max;
    if (more && !router->draining) {
        /* It passed over many that cannot be delivered now, and there is more behind them. */
        pull->volume_next = (pull->volume_next + router->volume_count - 1) % router->volume_count;
        pull->volumes_asked--;
    }
    if (operation->result.code == ERR_NONE && wants && pull->volumes_asked < router->volume_count) {
        ask_next(pull);
    } else if (operation->result.code != ERR_NONE || pull->taken > 0 || pull->wait_ms == 0 ||
               pull->expired) {
        if (pull->taken > 0) {
            operation->result.code = ERR_NONE; /* what was leased must reach the client */
        }
        finish(pull);
    } else if (router->draining) {
        router_fail(operation, ERR_UNAVAILABLE, "the broker is stopping");
        finish(pull);
    } else {
        wait(pull);
    }
}

void router_wake_sub(struct router *router, uint32_t sub_id)
{
    struct list *list = map_get(&router->waiters, sub_id);
    if (list != NULL) {
        struct router_pull *pull = container_of(list_first(list), struct router_pull, waiting);
        stop_waiting(router, pull);
        ask_all(pull);
    }
}

void router_pull_expired(struct router *router, struct router_pull *pull)
{
    pull->expired = true;
    if (list_linked(&pull->waiting)) {
        stop_waiting(router, pull);
        router_finish(&pull->operation);
    }
}

void router_cancel_pull(struct router *router, struct router_pull *pull)
{
    if (pull->cancelled || list_linked(&pull->operation.finished)) {
        return;
    }
    pull->cancelled = true;
    router_fail(&pull->operation, ERR_UNAVAILABLE, "the client has gone");
    if (list_linked(&pull->waiting)) {
        stop_waiting(router, pull);
    }
    if (pull->call != NULL) {
        pull->call->operation = NULL; /* its reply is nobody's: the messages go back */
        pull->call = NULL;
        pull->operation.pending--;
    }
    /* Earlier volumes may have given something already. */
    struct list_link *link;
    while ((link = list_pop(&pull->operation.calls)) != NULL) {
        router_pull_orphan(router, container_of(link, struct router_call, link));
    }
    if (pull->deadline.index != 0) {
        heap_remove(&router->deadlines, &pull->deadline);
    }
    router_finish(&pull->operation);
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
        free((void *)(uintptr_t)command->settle.receipts);
    } else if (command->type == COMMAND_PULL) {
        /* It may have been the one that was woken: let the next one look. */
        router_wake_sub(router, command->pull.sub_id);
    }
    router_call_free(router, call);
}

/* Takes any waiting pull; NULL: none. */
static struct router_pull *any_waiting(struct router *router)
{
    size_t at = 0;
    struct list *list = map_each(&router->waiters, &at);
    return list == NULL ? NULL : container_of(list_first(list), struct router_pull, waiting);
}

void router_drain(struct router *router)
{
    struct router_pull *pull;
    router->draining = true;
    while ((pull = any_waiting(router)) != NULL) {
        stop_waiting(router, pull);
        router_fail(&pull->operation, ERR_UNAVAILABLE, "the broker is stopping");
        if (pull->deadline.index != 0) {
            heap_remove(&router->deadlines, &pull->deadline);
        }
        router_finish(&pull->operation);
    }
}
