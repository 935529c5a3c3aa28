/* Changes of the catalog, carried through on every volume (DESIGN 7): recorded first, then done by
 * each volume idempotently, then recorded as finished. A stop in between leaves a state that
 * reconcile finishes. */
#include "broker/volume/router_internal.h"

#include <stdio.h>

#include "broker/volume/router_create.h"

enum configure_step {
    STEP_RECORD,  /* the change is being recorded */
    STEP_VOLUMES, /* the volumes are doing it */
    STEP_FINISH,  /* that it is done is being recorded */
};

static void advance(struct router_operation *operation, struct router_call *call);

static struct router_configure *configure_of(struct router_operation *operation)
{
    return container_of(operation, struct router_configure, operation);
}

/* Once a change is recorded its steps must not be refused because requests fill a mailbox. */
static void send_step(struct router *router, struct router_call *call)
{
    call->over = call->operation->step != STEP_RECORD;
    router_call_send(router, call);
}

static void fail_memory(struct router_operation *operation)
{
    router_fail(operation, ERR_UNAVAILABLE, "the broker is out of memory");
}

static void send_catalog(struct router_operation *operation, struct catalog_change *change)
{
    struct router_call *call =
        router_call_new(operation, operation->router->volume_count, COMMAND_CATALOG);
    if (call != NULL) {
        change->volume_count = operation->router->volume_count;
        call->call.command.catalog = change;
        send_step(operation->router, call);
    }
}

static void send_topic_put(struct router_operation *operation, uint32_t volume,
                           const struct catalog_topic *topic)
{
    struct shard_place *places = arena_calloc(operation->arena, topic->shard_count, sizeof *places);
    struct router_call *call =
        places == NULL ? NULL : router_call_new(operation, volume, COMMAND_TOPIC_PUT);
    if (call == NULL) {
        fail_memory(operation);
        return;
    }
    uint32_t count = 0;
    for (uint32_t index = 0; index < topic->shard_count; index++) {
        if (topic->shards[index].volume == volume) {
            places[count++] = topic->shards[index].place;
        }
    }
    call->call.command.topic_put = (struct topic_put){
        .topic_id = topic->id, .settings = topic->settings, .shards = places, .shard_count = count};
    send_step(operation->router, call);
}

static void send_sub_put(struct router_operation *operation, uint32_t volume,
                         const struct catalog_sub *sub)
{
    struct router_call *call = router_call_new(operation, volume, COMMAND_SUB_PUT);
    if (call != NULL) {
        call->call.command.sub_put = (struct sub_put){.sub_id = sub->id,
                                                      .topic_id = sub->topic->id,
                                                      .settings = sub->settings,
                                                      .start = sub->start,
                                                      .start_value = sub->start_value};
        send_step(operation->router, call);
    }
}

static void send_drop(struct router_operation *operation, uint32_t volume, enum command_type type,
                      uint32_t id)
{
    struct router_call *call = router_call_new(operation, volume, type);
    if (call != NULL) {
        if (type == COMMAND_TOPIC_DROP) {
            call->call.command.topic_drop = id;
        } else {
            call->call.command.sub_drop = id;
        }
        send_step(operation->router, call);
    }
}

/* Pulls that wait for something that is gone find that out by asking again. */
static void wake_topic(struct router *router, const struct catalog_topic *topic)
{
    for (const struct list_link *link = list_first(&topic->subs); link != NULL;
         link = list_next(&topic->subs, link)) {
        router_wake_all(router, container_of(link, const struct catalog_sub, link)->id);
    }
}

static void send_volumes(struct router_configure *configure)
{
    struct router_operation *operation = &configure->operation;
    struct router *router = operation->router;
    const struct catalog_change *change = &configure->change;
    const struct catalog_topic *topic = catalog_topic(router->catalog, change->topic);
    enum catalog_op op = change->op;
    bool of_sub = op == CATALOG_SUB_PUT || op == CATALOG_SUB_STATE;
    const struct catalog_sub *sub =
        topic == NULL || !of_sub ? NULL : catalog_sub(topic, change->sub);
    if (topic == NULL || (of_sub && sub == NULL)) {
        router_fail(operation, ERR_CONFLICT, "it was deleted meanwhile");
        return;
    }
    configure->id = of_sub ? sub->id : topic->id;
    for (uint32_t volume = 0; volume < router->volume_count; volume++) {
        switch (op) {
        case CATALOG_TOPIC_PUT:
            send_topic_put(operation, volume, topic);
            break;
        case CATALOG_TOPIC_STATE:
            send_drop(operation, volume, COMMAND_TOPIC_DROP, topic->id);
            break;
        case CATALOG_SUB_PUT:
            send_sub_put(operation, volume, sub);
            break;
        case CATALOG_SUB_STATE:
            send_drop(operation, volume, COMMAND_SUB_DROP, sub->id);
            break;
        }
    }
    if (op == CATALOG_TOPIC_STATE) {
        wake_topic(router, topic);
    } else if (op == CATALOG_SUB_STATE) {
        router_wake_all(router, sub->id);
    }
}

static void send_finish(struct router_configure *configure)
{
    struct catalog_change *change = arena_calloc(configure->operation.arena, 1, sizeof *change);
    if (change == NULL) {
        fail_memory(&configure->operation);
        return;
    }
    bool of_sub =
        configure->change.op == CATALOG_SUB_PUT || configure->change.op == CATALOG_SUB_STATE;
    bool put = configure->change.op == CATALOG_TOPIC_PUT || configure->change.op == CATALOG_SUB_PUT;
    *change = (struct catalog_change){
        .op = of_sub ? CATALOG_SUB_STATE : CATALOG_TOPIC_STATE,
        .topic = configure->change.topic,
        .sub = configure->change.sub,
        .id = configure->id,
        .to = put ? CATALOG_ACTIVE : CATALOG_NONE,
    };
    send_catalog(&configure->operation, change);
}

/* Takes over what the catalog's thread has decided. */
static void install(struct router_operation *operation, const struct router_call *call)
{
    const struct reply *reply = &call->call.reply;
    router_fail(operation, reply->code, reply->detail);
    if (reply->code == ERR_NONE) {
        err_t err = catalog_install(operation->router->catalog, buf_span(&reply->payload));
        if (err != NULL) {
            router_fail(operation, err_code(err), err_message(err));
            err_free(err);
        }
    }
}

/* What is put again is carried through again: the first time a volume may have refused it. */
static bool is_to_be_done(const struct catalog_change *change)
{
    return change->changed || change->op == CATALOG_TOPIC_PUT || change->op == CATALOG_SUB_PUT;
}

static void advance(struct router_operation *operation, struct router_call *call)
{
    struct router_configure *configure = configure_of(operation);
    switch ((enum configure_step)operation->step) {
    case STEP_RECORD:
        install(operation, call);
        if (operation->result.code == ERR_NONE && is_to_be_done(&configure->change)) {
            operation->step = STEP_VOLUMES;
            send_volumes(configure);
        }
        break;
    case STEP_VOLUMES:
        router_fail(operation, call->call.reply.code, call->call.reply.detail);
        if (operation->pending == 0 && operation->result.code == ERR_NONE) {
            operation->step = STEP_FINISH;
            send_finish(configure);
        }
        break;
    case STEP_FINISH:
        install(operation, call);
        break;
    }
    if (operation->pending == 0) {
        router_finish(operation);
    }
}

void router_start_configure(struct router *router, struct router_configure *configure)
{
    if (!router_begin(router, &configure->operation, advance)) {
        return;
    }
    send_catalog(&configure->operation, &configure->change);
    if (configure->operation.pending == 0) {
        router_finish(&configure->operation);
    }
}

static void reconcile_sub(struct router_operation *operation, const struct catalog_sub *sub)
{
    for (uint32_t volume = 0; volume < operation->router->volume_count; volume++) {
        if (sub->state == CATALOG_DELETING) {
            send_drop(operation, volume, COMMAND_SUB_DROP, sub->id);
        } else {
            send_sub_put(operation, volume, sub);
        }
    }
}

static void reconcile_topic(struct router_operation *operation, const struct catalog_topic *topic)
{
    for (uint32_t volume = 0; volume < operation->router->volume_count; volume++) {
        if (topic->state == CATALOG_DELETING) {
            send_drop(operation, volume, COMMAND_TOPIC_DROP, topic->id);
        } else {
            send_topic_put(operation, volume, topic);
        }
    }
    for (const struct list_link *link = list_first(&topic->subs);
         link != NULL && topic->state != CATALOG_DELETING; link = list_next(&topic->subs, link)) {
        reconcile_sub(operation, container_of(link, const struct catalog_sub, link));
    }
}

static struct span name_span(struct router_operation *operation, const char *name)
{
    const char *copy = arena_text(operation->arena, span_text(name));
    return copy == NULL ? span_of("", 0) : span_text(copy);
}

static void settle_state(struct router_operation *operation, const struct catalog_topic *topic,
                         const struct catalog_sub *sub, enum catalog_state state)
{
    struct catalog_change *change = arena_calloc(operation->arena, 1, sizeof *change);
    if (change == NULL) {
        fail_memory(operation);
        return;
    }
    *change = (struct catalog_change){
        .op = sub == NULL ? CATALOG_TOPIC_STATE : CATALOG_SUB_STATE,
        .topic = name_span(operation, topic->name),
        .sub = sub == NULL ? span_of("", 0) : name_span(operation, sub->name),
        .id = sub == NULL ? topic->id : sub->id,
        .to = state == CATALOG_CREATING ? CATALOG_ACTIVE : CATALOG_NONE,
    };
    send_catalog(operation, change);
}

/* Records as finished what the volumes have done. */
static void settle_states(struct router_operation *operation)
{
    const struct catalog *catalog = operation->router->catalog;
    for (const struct catalog_topic *topic = catalog_topic_after(catalog, span_of("", 0));
         topic != NULL; topic = catalog_topic_after(catalog, span_text(topic->name))) {
        if (topic->state != CATALOG_ACTIVE) {
            settle_state(operation, topic, NULL, topic->state);
        }
        for (const struct list_link *link = list_first(&topic->subs);
             link != NULL && topic->state != CATALOG_DELETING;
             link = list_next(&topic->subs, link)) {
            const struct catalog_sub *sub = container_of(link, const struct catalog_sub, link);
            if (sub->state != CATALOG_ACTIVE) {
                settle_state(operation, topic, sub, sub->state);
            }
        }
    }
}

static void reconcile_advance(struct router_operation *operation, struct router_call *call)
{
    if (operation->step == STEP_FINISH) {
        install(operation, call);
    } else {
        router_fail(operation, call->call.reply.code, call->call.reply.detail);
    }
    list_remove(&call->link);
    router_call_free(operation->router, call);
    if (operation->pending == 0 && operation->step != STEP_FINISH &&
        operation->result.code == ERR_NONE) {
        operation->step = STEP_FINISH;
        settle_states(operation);
    }
    if (operation->pending == 0) {
        router_finish(operation);
    }
}

void router_start_reconcile(struct router *router, struct router_reconcile *reconcile)
{
    struct router_operation *operation = &reconcile->operation;
    if (!router_begin(router, operation, reconcile_advance)) {
        return;
    }
    operation->step = STEP_VOLUMES;
    for (const struct catalog_topic *topic = catalog_topic_after(router->catalog, span_of("", 0));
         topic != NULL; topic = catalog_topic_after(router->catalog, span_text(topic->name))) {
        reconcile_topic(operation, topic);
    }
    if (operation->pending == 0) {
        router_finish(operation);
    }
}
