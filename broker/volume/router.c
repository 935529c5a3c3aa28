#include "broker/volume/router.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#define XXH_STATIC_LINKING_ONLY /* a hash state on the stack */
#include <xxhash.h>

#include "broker/base/map.h"
#include "broker/volume/router_create.h"
#include "broker/volume/router_internal.h"

/* Reply memory kept for the next use: by one unused call, and by all. */
enum { KEEP_ONE_MAX = 256 * 1024, KEEP_ALL_MAX = 4 * 1024 * 1024 };

err_t router_create(const struct router_options *options, struct router **out)
{
    struct router *router = calloc(1, sizeof *router);
    if (router == NULL) {
        return ERR(MEMORY, "no memory for the router");
    }
    err_t err = mailbox_init(&router->replies, SIZE_MAX, options->wake, options->wake_context);
    if (err != NULL) {
        free(router);
        return err_passed(err, __func__);
    }
    router->volumes = options->volumes;
    router->volume_count = options->volume_count;
    router->clock = options->clock;
    router->catalog = options->catalog;
    router->wake = options->wake;
    router->wake_context = options->wake_context;
    pool_init(&router->call_pool, sizeof(struct router_call));
    list_init(&router->unused_calls);
    list_init(&router->finished);
    heap_init(&router->deadlines);
    random_init(&router->random, options->seed);
    buf_init(&router->woken, SIZE_MAX / 2);
    map_init(&router->waiters);
    *out = router;
    return NULL;
}

void router_destroy(struct router *router)
{
    struct list_link *link;
    assert(router->pending == 0);
    while ((link = list_pop(&router->unused_calls)) != NULL) {
        struct router_call *call = container_of(link, struct router_call, link);
        reply_deinit(&call->call.reply);
    }
    map_deinit(&router->waiters);
    pool_deinit(&router->call_pool);
    heap_deinit(&router->deadlines);
    buf_deinit(&router->woken);
    mailbox_deinit(&router->replies);
    free(router);
}

void router_fail(struct router_operation *operation, enum err_code code, const char *detail)
{
    struct router_result *result = &operation->result;
    if (result->code == ERR_NONE && code != ERR_NONE) {
        result->code = code;
        snprintf(result->detail, sizeof result->detail, "%s", detail == NULL ? "" : detail);
    }
}

void router_finish(struct router_operation *operation)
{
    struct router *router = operation->router;
    assert(operation->pending == 0 && !list_linked(&operation->finished));
    bool first = list_empty(&router->finished);
    list_append(&router->finished, &operation->finished);
    if (first && !router->polling) {
        router->wake(router->wake_context);
    }
}

bool router_begin(struct router *router, struct router_operation *operation,
                  void (*advance)(struct router_operation *, struct router_call *))
{
    operation->router = router;
    operation->advance = advance;
    operation->result = (struct router_result){.code = ERR_NONE};
    operation->pending = 0;
    operation->step = 0;
    operation->finished = (struct list_link){0};
    list_init(&operation->calls);
    router->pending++;
    if (router->draining) {
        router_fail(operation, ERR_UNAVAILABLE, "the broker is stopping");
        router_finish(operation);
        return false;
    }
    return true;
}

static size_t reply_memory(const struct reply *reply)
{
    return reply->items.capacity + reply->payload.capacity;
}

struct router_call *router_call_new(struct router_operation *operation, uint32_t volume,
                                    enum command_type type)
{
    struct router *router = operation->router;
    struct list_link *link = list_pop(&router->unused_calls);
    struct router_call *call = link == NULL ? NULL : container_of(link, struct router_call, link);
    if (call != NULL) {
        router->unused_size -= reply_memory(&call->call.reply);
    } else {
        call = pool_take(&router->call_pool);
        if (call == NULL) {
            router_fail(operation, ERR_MEMORY, "the broker is out of memory");
            return NULL;
        }
        reply_init(&call->call.reply);
    }
    call->call.command = (struct command){.type = type};
    call->call.reply_to = &router->replies;
    call->call.size = 0;
    call->call.arm = false;
    call->operation = operation;
    call->volume = volume;
    call->over = false;
    call->places = NULL;
    return call;
}

void router_call_free(struct router *router, struct router_call *call)
{
    struct reply *reply = &call->call.reply;
    size_t size = reply_memory(reply);
    if (size > KEEP_ONE_MAX || router->unused_size + size > KEEP_ALL_MAX) {
        reply_deinit(reply);
        reply_init(reply);
        size = 0;
    }
    router->unused_size += size;
    list_prepend(&router->unused_calls, &call->link);
}

void router_call_send(struct router *router, struct router_call *call)
{
    if (call->operation != NULL) {
        call->operation->pending++;
    }
    router->calls_out++;
    struct volume *volume = router->volumes[call->volume];
    if (call->over ? volume_send_over(volume, &call->call) : volume_send(volume, &call->call)) {
        return;
    }
    if (call->over || router->draining) {
        volume_refuse(&call->call, ERR_UNAVAILABLE, "the broker is stopping");
    } else {
        volume_refuse(&call->call, ERR_BUSY, "the volume's mailbox is full");
    }
    struct list refused;
    list_init(&refused);
    list_append(&refused, &call->call.link);
    mailbox_send_all(&router->replies, &refused, 1);
}

struct catalog_topic *router_find_topic(struct router_operation *operation, struct span name)
{
    struct catalog_topic *topic = catalog_topic(operation->router->catalog, name);
    if (topic == NULL || topic->state != CATALOG_ACTIVE) {
        router_fail(operation, ERR_NOT_FOUND, "topic: it does not exist");
        return NULL;
    }
    return topic;
}

struct catalog_sub *router_find_sub(struct router_operation *operation, struct span topic_name,
                                    struct span name)
{
    struct catalog_topic *topic = router_find_topic(operation, topic_name);
    struct catalog_sub *sub = topic == NULL ? NULL : catalog_sub(topic, name);
    if (topic != NULL && (sub == NULL || sub->state != CATALOG_ACTIVE)) {
        router_fail(operation, ERR_NOT_FOUND, "subscription: it does not exist");
        return NULL;
    }
    return sub;
}

uint32_t router_volume_of(const struct router *router, uint32_t shard_id)
{
    struct catalog_topic *topic = NULL;
    const struct catalog_shard *shard = catalog_shard_by_id(router->catalog, shard_id, &topic);
    return shard == NULL ? UINT32_MAX : shard->volume;
}

uint64_t router_payload_hash(struct span key, struct span attributes, struct span body)
{
    if (key.size == 0 && attributes.size == 0) {
        return XXH3_64bits(body.data, body.size);
    }
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, key.data, key.size);
    XXH3_64bits_update(&state, attributes.data, attributes.size);
    XXH3_64bits_update(&state, body.data, body.size);
    return XXH3_64bits_digest(&state);
}

const struct catalog *router_catalog(const struct router *router)
{
    return router->catalog;
}

uint32_t router_volume_count(const struct router *router)
{
    return router->volume_count;
}

void router_volume_status(struct router *router, uint32_t index, struct router_volume_status *out)
{
    struct volume_status status;
    volume_status(router->volumes[index], &status);
    *out = (struct router_volume_status){
        .name = volume_name(router->volumes[index]),
        .failed = status.failed,
        .full = status.full,
        .used_size = status.store.used_size,
        .file_size = status.store.file_size,
        .reader_age_ms = status.store.reader_age_ms,
        .mailbox_count = status.mailbox_count,
        .commands_total = status.commands_total,
        .commits_total = status.commits_total,
        .journal_size = status.journal_size,
    };
    snprintf(out->failure, sizeof out->failure, "%s", status.failure);
}

uint32_t router_waiting(const struct router *router)
{
    return router->waiting;
}

const struct reply *router_reply_next(const struct router_operation *operation,
                                      const struct reply *previous)
{
    const struct list_link *link = NULL;
    if (previous == NULL) {
        link = list_first(&operation->calls);
    } else {
        const struct call *call = container_of(previous, const struct call, reply);
        link =
            list_next(&operation->calls, &container_of(call, const struct router_call, call)->link);
    }
    return link == NULL ? NULL : &container_of(link, const struct router_call, link)->call.reply;
}

void router_release(struct router_operation *operation)
{
    struct list_link *link;
    while ((link = list_pop(&operation->calls)) != NULL) {
        router_call_free(operation->router, container_of(link, struct router_call, link));
    }
}

static void take_replies(struct router *router)
{
    struct list replies;
    list_init(&replies);
    mailbox_take(&router->replies, &replies, SIZE_MAX);
    struct list_link *link;
    while ((link = list_pop(&replies)) != NULL) {
        struct router_call *call =
            container_of(container_of(link, struct call, link), struct router_call, call);
        struct router_operation *operation = call->operation;
        router->calls_out--;
        if (operation == NULL) {
            router_pull_orphan(router, call);
            continue;
        }
        operation->pending--;
        list_append(&operation->calls, &call->link);
        operation->advance(operation, call);
    }
}

static void take_woken(struct router *router)
{
    for (uint32_t volume = 0; volume < router->volume_count; volume++) {
        buf_reset(&router->woken);
        volume_take_woken(router->volumes[volume], &router->woken);
        const uint32_t *ids = (const uint32_t *)(const void *)router->woken.data;
        for (size_t index = 0; index < router->woken.size / sizeof *ids; index++) {
            router_told(router, ids[index], volume);
        }
    }
}

static void take_due(struct router *router)
{
    struct heap_node *node;
    uint64_t now_ms = clock_mono_us(router->clock) / 1000;
    while ((node = heap_first(&router->deadlines)) != NULL && node->due_ms <= now_ms) {
        heap_remove(&router->deadlines, node);
        router_pull_expired(router, container_of(node, struct router_pull, deadline));
    }
}

void router_poll(struct router *router)
{
    router->polling = true;
    take_replies(router);
    take_woken(router);
    take_due(router);
    router->polling = false;
    struct list finished;
    list_init(&finished);
    list_splice(&finished, &router->finished);
    struct list_link *link;
    while ((link = list_pop(&finished)) != NULL) {
        struct router_operation *operation = container_of(link, struct router_operation, finished);
        router->pending--;
        operation->done(operation);
    }
}

uint64_t router_next_due_ms(const struct router *router)
{
    if (!list_empty(&router->finished)) {
        return 0;
    }
    const struct heap_node *node = heap_first(&router->deadlines);
    return node == NULL ? UINT64_MAX : node->due_ms;
}

uint32_t router_pending(const struct router *router)
{
    return router->pending + router->calls_out;
}
