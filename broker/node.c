#include "broker/node.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/base/log.h"
#include "broker/base/random.h"
#include "broker/base/version.h"
#include "broker/core/catalog.h"
#include "broker/core/core.h"
#include "broker/datadir.h"
#include "broker/http/api.h"
#include "broker/http/server.h"
#include "broker/metrics/metrics.h"
#include "broker/session/session.h"
#include "broker/volume/router_create.h"
#include "broker/volume/volume.h"
#include "broker/wire/message.h"

enum { DRAIN_LOOK_MS = 5 };

struct node {
    uv_loop_t *loop;
    const struct config *config;
    const struct clock *clock;
    struct clock socket_clock; /* real: a simulated day does not make a client slow */
    struct metrics *metrics;
    struct datadir datadir;
    struct volume *volumes[DATADIR_VOLUMES_MAX + 1]; /* the catalog's is the last */
    uint32_t volume_count;                           /* without the catalog's */
    struct catalog *catalog;
    struct router *router;
    struct api *api;
    struct http_server *server;
    struct session_server *sessions;
    uv_async_t wake;
    uv_timer_t due;
    uv_prepare_t before_wait;
    uv_timer_t drain;
    uint64_t drain_end_ms;
    uint32_t handles;
    void (*on_stopped)(void *user);
    void *on_stopped_user;
};

static void node_on_wake(uv_async_t *handle);
static void node_on_due(uv_timer_t *handle);
static void node_on_before_wait(uv_prepare_t *handle);
static void node_on_drain(uv_timer_t *handle);
static void node_on_handle_closed(uv_handle_t *handle);
static void node_on_http_closed(void *user);
static void node_on_sessions_closed(void *user);

static void wake(void *context)
{
    struct node *node = context;
    uv_async_send(&node->wake);
}

static void observe(void *context, enum volume_measure measure, uint64_t value)
{
    struct metrics *metrics = ((struct node *)context)->metrics;
    switch (measure) {
    case VOLUME_BATCH_US:
        metrics_observe(&metrics->commit_duration_seconds, value);
        break;
    case VOLUME_FLUSH_US:
        metrics_observe(&metrics->flush_duration_seconds, value);
        break;
    case VOLUME_CHECKPOINT_US:
        metrics_observe(&metrics->checkpoint_duration_seconds, value);
        break;
    case VOLUME_BATCH_SIZE:
        metrics_observe(&metrics->commit_commands, value);
        break;
    case VOLUME_COMMIT_FAILED:
        metrics_add(&metrics->commit_failures_total, value);
        break;
    case VOLUME_REFUSED:
        metrics_add(&metrics->commands_refused_total, value);
        break;
    }
}

static void report(void *context, const struct effects *effects)
{
    struct metrics *metrics = ((struct node *)context)->metrics;
    metrics_add(&metrics->leases_expired_total, effects->leases_expired);
    metrics_add(&metrics->messages_dead_lettered_total, effects->dead_lettered);
    metrics_add(&metrics->messages_expired_total, effects->expired);
    metrics_add(&metrics->corrupt_records_total, effects->corrupt);
}

/* Takes the store, and the journal when there is one, on success; the machine always. */
static err_t start_volume(struct node *node, const char *name, struct datadir_volume *files,
                          struct machine *machine, struct volume **out)
{
    const struct config *config = node->config;
    const struct volume_options options = {
        .name = name,
        .store = files->store,
        .journal = files->journal,
        .machine = machine,
        .clock = node->clock,
        .mailbox_max = config->mailbox_commands_max,
        .batch_max = config->commit_commands_max,
        .batch_bytes = config->commit_size_max,
        .quota = config->quota,
        .reserve = config->disk_reserve,
        .checkpoint_ms = config->checkpoint_interval_ms,
        .relaxed_ms = config->relaxed_interval_ms,
        .maintain_ms = config->maintenance_interval_ms,
        .wake = wake,
        .wake_context = node,
        .observe = observe,
        .report = report,
        .observe_context = node,
    };
    err_t err = volume_start(&options, out);
    if (err != NULL) {
        machine->ops->destroy(machine);
        err_t named = err_make(err_code(err), __FILE__, __LINE__, __func__, "%s/%s.mdb: %s",
                               node->datadir.path, name, err_message(err));
        err_free(err);
        return named;
    }
    *files = (struct datadir_volume){NULL, NULL};
    return NULL;
}

static err_t load_catalog(struct node *node)
{
    struct store_txn *txn = NULL;
    node->catalog = catalog_create();
    if (node->catalog == NULL) {
        return ERR(MEMORY, "no memory for the catalog");
    }
    TRY(store_begin(node->datadir.catalog.store, STORE_READ, &txn));
    err_t err = catalog_load(node->catalog, txn);
    store_abort(txn);
    return err;
}

static err_t start_volumes(struct node *node)
{
    const struct core_options options = {
        .chunks_max = node->config->cached_chunks_max,
        .blocks_max = node->config->cached_blocks_max,
    };
    uint32_t count = node->datadir.volume_count;
    struct machine *machine = NULL;
    for (uint32_t number = 0; number < count; number++) {
        char name[32];
        snprintf(name, sizeof name, "volume-%u", number);
        TRY(core_create(&options, &machine));
        TRY(start_volume(node, name, &node->datadir.volumes[number], machine,
                         &node->volumes[number]));
        node->volume_count = number + 1;
    }
    TRY(catalog_machine_create(&machine));
    return start_volume(node, "catalog", &node->datadir.catalog, machine, &node->volumes[count]);
}

static err_t start_router(struct node *node)
{
    const struct router_options options = {
        .volumes = node->volumes,
        .volume_count = node->volume_count,
        .catalog = node->catalog,
        .clock = node->clock,
        .seed = random_seed(),
        .wake = wake,
        .wake_context = node,
    };
    return router_create(&options, &node->router);
}

static void init_handle(struct node *node, uv_handle_t *handle, int rc)
{
    assert(rc == 0); /* these fail only when the process is out of file descriptors at start */
    handle->data = node;
    node->handles++;
}

static void start_handles(struct node *node)
{
    uv_loop_t *loop = node->loop;
    init_handle(node, (uv_handle_t *)&node->wake, uv_async_init(loop, &node->wake, node_on_wake));
    init_handle(node, (uv_handle_t *)&node->due, uv_timer_init(loop, &node->due));
    init_handle(node, (uv_handle_t *)&node->drain, uv_timer_init(loop, &node->drain));
    init_handle(node, (uv_handle_t *)&node->before_wait, uv_prepare_init(loop, &node->before_wait));
    uv_prepare_start(&node->before_wait, node_on_before_wait);
}

static void note_done(struct router_operation *operation)
{
    *(bool *)operation->user = true;
}

/* Does what a stop in the middle of a change left undone, before anyone is let in. */
static err_t reconcile(struct node *node)
{
    struct arena arena;
    bool done = false;
    struct router_reconcile operation = {
        .operation = {.arena = &arena, .done = note_done, .user = &done}};
    arena_init(&arena, SIZE_MAX / 2, 0);
    router_start_reconcile(node->router, &operation);
    while (!done) {
        uv_run(node->loop, UV_RUN_ONCE);
    }
    arena_deinit(&arena);
    if (operation.operation.result.code != ERR_NONE) {
        return ERR(INTERNAL, "finish what was half done: %s", operation.operation.result.detail);
    }
    return NULL;
}

static err_t start_http(struct node *node)
{
    const struct config *config = node->config;
    const struct api_options api = {
        .router = node->router,
        .clock = node->clock,
        .socket_clock = &node->socket_clock,
        .metrics = node->metrics,
        .limits = {.message_size_max = config->message_size_max,
                   .batch_count_max = config->batch_messages_max,
                   .pull_count_max = config->pull_messages_max,
                   .pull_size_max = config->pull_size_max,
                   .wait_max_ms = config->wait_max_ms,
                   .waiters_max = config->waiters_max},
        .version = FLARE_VERSION,
        .commit = FLARE_COMMIT,
    };
    TRY(api_create(&api, &node->api));
    const struct http_server_options server = {
        .loop = node->loop,
        .clock = &node->socket_clock,
        .limits = {.connections_max = config->http_connections_max,
                   .header_size_max = config->http_header_size_max,
                   .header_count_max = config->http_header_count_max,
                   .body_size_max = config->http_body_size_max,
                   .header_timeout_ms = config->http_header_timeout_ms,
                   .body_rate_min = config->http_body_rate_min,
                   .idle_timeout_ms = config->http_idle_timeout_ms,
                   .write_timeout_ms = config->http_write_timeout_ms,
                   .requests_max = config->http_requests_max},
        .on_request = api_on_request,
        .on_problem = api_on_problem,
        .user = node->api,
    };
    TRY(http_server_create(&server, &node->server));
    api_set_server(node->api, node->server);
    return http_server_listen(node->server, config->http);
}

/* The server is there also without a listener, for programs that embed the broker. */
static err_t start_wire(struct node *node)
{
    const struct config *config = node->config;
    const struct session_options options = {
        .loop = node->loop,
        .clock = &node->socket_clock,
        .router = node->router,
        .metrics = node->metrics,
        .limits = {.connections_max = config->wire_connections_max,
                   .frame_size_max = config->wire_frame_size_max,
                   .window_requests = config->wire_window_requests,
                   .window_size = config->wire_window_size,
                   .hello_timeout_ms = config->http_header_timeout_ms,
                   .write_timeout_ms = config->http_write_timeout_ms,
                   .message_size_max = config->message_size_max,
                   .batch_count_max = config->batch_messages_max,
                   .pull_count_max = config->pull_messages_max,
                   .pull_size_max = config->pull_size_max,
                   .wait_max_ms = config->wait_max_ms,
                   .waiters_max = config->waiters_max},
        .version = FLARE_VERSION,
    };
    TRY(session_server_create(&options, &node->sessions));
    return strcmp(config->wire, "off") == 0 ? NULL
                                            : session_server_listen(node->sessions, config->wire);
}

/* Ends the threads; what they still answer is delivered. */
static void stop_volumes(struct node *node)
{
    for (uint32_t index = 0; index <= node->volume_count; index++) {
        if (node->volumes[index] != NULL) {
            volume_stop(node->volumes[index]);
        }
    }
    while (node->router != NULL && router_pending(node->router) > 0) {
        router_poll(node->router);
    }
}

static void free_node(struct node *node)
{
    if (node->router != NULL) {
        router_destroy(node->router);
    }
    for (uint32_t index = 0; index <= node->volume_count; index++) {
        if (node->volumes[index] != NULL) {
            volume_destroy(node->volumes[index]);
        }
    }
    if (node->api != NULL) {
        api_destroy(node->api);
    }
    if (node->catalog != NULL) {
        catalog_destroy(node->catalog);
    }
    datadir_close(&node->datadir);
    free(node->metrics);
    free(node);
}

static void close_handles(struct node *node)
{
    uv_close((uv_handle_t *)&node->wake, node_on_handle_closed);
    uv_close((uv_handle_t *)&node->due, node_on_handle_closed);
    uv_close((uv_handle_t *)&node->drain, node_on_handle_closed);
    uv_close((uv_handle_t *)&node->before_wait, node_on_handle_closed);
}

/* Closes the faces one after the other, then what is left. */
static void close_next(struct node *node)
{
    if (node->server != NULL) {
        http_server_destroy(node->server, node_on_http_closed, node);
    } else if (node->sessions != NULL) {
        session_server_destroy(node->sessions, node_on_sessions_closed, node);
    } else {
        close_handles(node);
    }
}

static void node_on_http_closed(void *user)
{
    struct node *node = user;
    node->server = NULL;
    close_next(node);
}

static void node_on_sessions_closed(void *user)
{
    struct node *node = user;
    node->sessions = NULL;
    close_next(node);
}

static void shut(struct node *node)
{
    stop_volumes(node);
    close_next(node);
}

static void node_on_handle_closed(uv_handle_t *handle)
{
    struct node *node = handle->data;
    node->handles--;
    if (node->handles > 0) {
        return;
    }
    void (*on_stopped)(void *) = node->on_stopped;
    void *user = node->on_stopped_user;
    free_node(node);
    if (on_stopped != NULL) {
        on_stopped(user);
    }
}

static void node_on_wake(uv_async_t *handle)
{
    struct node *node = handle->data;
    router_poll(node->router);
}

static void node_on_due(uv_timer_t *handle)
{
    struct node *node = handle->data;
    router_poll(node->router);
}

/* Before the loop sleeps: sets the one timer for what the router waits for. */
static void node_on_before_wait(uv_prepare_t *handle)
{
    struct node *node = handle->data;
    uint64_t due_ms = node->router == NULL ? UINT64_MAX : router_next_due_ms(node->router);
    if (due_ms == UINT64_MAX) {
        uv_timer_stop(&node->due);
        return;
    }
    uint64_t now_ms = clock_mono_us(node->clock) / 1000;
    uv_timer_start(&node->due, node_on_due, due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

static void node_on_drain(uv_timer_t *handle)
{
    struct node *node = handle->data;
    bool busy = (node->server != NULL && http_server_pending(node->server) > 0) ||
                session_server_pending(node->sessions) > 0 || router_pending(node->router) > 0;
    if (busy && uv_now(node->loop) < node->drain_end_ms) {
        return;
    }
    uv_timer_stop(handle);
    shut(node);
}

err_t node_start(uv_loop_t *loop, const struct config *config, const struct clock *clock,
                 struct node **out)
{
    err_t err = NULL;
    struct node *node = calloc(1, sizeof *node);
    if (node == NULL) {
        return ERR(MEMORY, "no memory for the broker");
    }
    node->loop = loop;
    node->config = config;
    node->clock = clock;
    clock_init_real(&node->socket_clock);
    node->datadir.lock_fd = -1;
    node->metrics = calloc(1, sizeof *node->metrics);
    start_handles(node);
    if (node->metrics == NULL) {
        err = ERR(MEMORY, "no memory for the metrics");
        goto out;
    }
    const struct datadir_options options = {.path = config->data,
                                            .volumes = config->volumes,
                                            .map_size = config->map_size,
                                            .map_size_max = config->map_size_max,
                                            .journal_size = config->journal_size};
    TRY_OUT(datadir_open(&options, &node->datadir));
    TRY_OUT(load_catalog(node));
    TRY_OUT(start_volumes(node));
    TRY_OUT(start_router(node));
    TRY_OUT(reconcile(node));
    if (strcmp(config->http, "off") != 0) {
        TRY_OUT(start_http(node));
    }
    TRY_OUT(start_wire(node));
    if (node->api != NULL) {
        api_set_wire(node->api, node_wire_address(node));
    }
    *out = node;
    return NULL;
out:
    shut(node);
    uv_run(loop, UV_RUN_DEFAULT);
    return err;
}

const char *node_http_address(const struct node *node)
{
    return node->server == NULL ? "" : http_server_address(node->server);
}

const char *node_wire_address(const struct node *node)
{
    return session_server_address(node->sessions);
}

const char *node_data(const struct node *node)
{
    return node->datadir.path;
}

struct router *node_router(struct node *node)
{
    return node->router;
}

err_t node_adopt(struct node *node, int fd)
{
    return session_server_adopt(node->sessions, fd);
}

/* How long until the router or a volume has something due; every volume has done what it can. */
static uint64_t settle_once(struct node *node)
{
    uint64_t due_in_ms = UINT64_MAX;
    for (uint32_t index = 0; index <= node->volume_count; index++) {
        uint64_t volume_ms = volume_settle(node->volumes[index]);
        due_in_ms = volume_ms < due_in_ms ? volume_ms : due_in_ms;
    }
    router_poll(node->router);
    uint64_t due_ms = router_next_due_ms(node->router);
    if (due_ms != UINT64_MAX) {
        uint64_t now_ms = clock_mono_us(node->clock) / 1000;
        uint64_t router_ms = due_ms > now_ms ? due_ms - now_ms : 0;
        due_in_ms = router_ms < due_in_ms ? router_ms : due_in_ms;
    }
    return due_in_ms;
}

uint64_t node_settle(struct node *node)
{
    uint64_t due_in_ms = settle_once(node);
    while (router_pending(node->router) > router_waiting(node->router)) {
        due_in_ms = settle_once(node);
    }
    return due_in_ms;
}

void node_stop(struct node *node, void (*on_stopped)(void *user), void *user)
{
    node->on_stopped = on_stopped;
    node->on_stopped_user = user;
    router_drain(node->router);
    if (node->server != NULL) {
        api_drain(node->api);
        http_server_drain(node->server);
    }
    session_server_drain(node->sessions);
    node->drain_end_ms = uv_now(node->loop) + node->config->drain_timeout_ms;
    uv_timer_start(&node->drain, node_on_drain, 0, DRAIN_LOOK_MS);
}
