/* What a program asks its embedded broker: changes of the catalog, depths and lists. Each is one
 * operation of the router, started on the loop's thread and waited for. */
#include <stdio.h>

#include "broker/core/dead_reason.h"
#include "broker/core/message_id.h"
#include "broker/embedded.h"
#include "broker/volume/router_figures.h"

enum { LIST_MAX = 1000, LIST_SIZE_MAX = 1 << 20 };

_Static_assert((int)FLARE_ID_SIZE >= (int)MESSAGE_ID_SIZE, "an id fits");

/* The head of each: what the router reports is copied here on the loop's thread. */
struct ask {
    struct caller_work work;
    struct flare_broker *broker;
    struct arena arena;
    struct router_result result;
};

static enum flare_code ask_run(struct ask *ask, struct flare_broker *broker,
                               void (*run)(struct caller_work *work), struct flare_error *error)
{
    ask->broker = broker;
    ask->work.run = run;
    arena_init(&ask->arena, SIZE_MAX / 2, 0);
    caller_run(&broker->caller, &ask->work);
    arena_deinit(&ask->arena);
    return ask->result.code == ERR_NONE
               ? FLARE_OK
               : embedded_fail(error, ask->result.code, ask->result.detail);
}

static void ask_prepare(struct ask *ask, struct router_operation *operation, router_done done)
{
    operation->arena = &ask->arena;
    operation->done = done;
    operation->user = ask;
}

static void ask_fail(struct ask *ask, enum err_code code, const char *detail)
{
    ask->result.code = code;
    snprintf(ask->result.detail, sizeof ask->result.detail, "%s", detail);
}

static void ask_end(struct ask *ask, struct router_operation *operation)
{
    if (ask->result.code == ERR_NONE) {
        ask->result = operation->result;
    }
    router_release(operation);
    caller_done(&ask->broker->caller, &ask->work);
}

static struct ask *ask_of(struct caller_work *work)
{
    return container_of(work, struct ask, work);
}

static struct router *ask_router(const struct ask *ask)
{
    return node_router(ask->broker->node);
}

/* ---- settings ------------------------------------------------------------------------------- */

static uint64_t or_default(uint64_t value, uint64_t initial)
{
    return value == 0 ? initial : value;
}

static err_t check(const char *name, uint64_t value, uint64_t min, uint64_t max)
{
    return value >= min && value <= max ? NULL
                                        : ERR(INVALID, "%s: must be between %llu and %llu", name,
                                              (unsigned long long)min, (unsigned long long)max);
}

static err_t check_name(const char *field, const char *name)
{
    return catalog_name_valid(span_text(name))
               ? NULL
               : ERR(INVALID, "%s: must match [A-Za-z0-9._-]{1,255}, except . and ..", field);
}

static err_t read_topic(const struct flare_topic *topic, struct catalog_change *change)
{
    uint64_t window_ms =
        topic->idempotency_window_ms == FLARE_NONE
            ? 0
            : or_default(topic->idempotency_window_ms, CATALOG_DEDUP_WINDOW_DEFAULT_MS);
    TRY(check("shards", or_default(topic->shards, CATALOG_SHARDS_DEFAULT), 1, CORE_SHARDS_MAX));
    TRY(check("idempotency_window_ms", window_ms, 0, CATALOG_DEDUP_WINDOW_MAX_MS));
    if (topic->retention_ms != 0) {
        TRY(check("retention_ms", topic->retention_ms, CATALOG_RETENTION_MIN_MS,
                  CATALOG_RETENTION_MAX_MS));
    }
    TRY(check("retention_bytes", topic->retention_bytes, 0, CATALOG_RETENTION_BYTES_MAX));
    change->shard_count = topic->shards;
    change->topic_settings = (struct topic_settings){
        .retention_ms = topic->retention_ms,
        .retention_bytes = topic->retention_bytes,
        .dedup_window_ms = window_ms,
        .durability = topic->relaxed ? DURABILITY_RELAXED : DURABILITY_SYNCED,
    };
    return NULL;
}

static err_t read_start(const struct flare_subscription *subscription,
                        struct catalog_change *change)
{
    switch (subscription->start) {
    case FLARE_START_LATEST:
        change->start = START_LATEST;
        return NULL;
    case FLARE_START_EARLIEST:
        change->start = START_EARLIEST;
        return NULL;
    case FLARE_START_TIME:
        change->start = START_TIME;
        change->start_value = subscription->start_ms;
        return NULL;
    }
    return ERR(INVALID, "start: must be one of enum flare_start");
}

static err_t read_subscription(const struct flare_subscription *subscription,
                               struct catalog_change *change)
{
    struct sub_settings *settings = &change->sub_settings;
    uint64_t attempts = subscription->max_attempts == FLARE_NONE_U32
                            ? 0
                            : or_default(subscription->max_attempts, CATALOG_ATTEMPTS_DEFAULT);
    settings->lease_ms = or_default(subscription->lease_ms, CATALOG_LEASE_DEFAULT_MS);
    settings->retry_delay_ms = subscription->retry_delay_ms;
    settings->max_attempts = (uint32_t)attempts;
    settings->max_in_flight = subscription->max_in_flight;
    TRY(check("lease_ms", settings->lease_ms, CATALOG_LEASE_MIN_MS, CATALOG_LEASE_MAX_MS));
    TRY(check("max_attempts", attempts, 0, CATALOG_ATTEMPTS_MAX));
    TRY(check("retry_delay_ms", settings->retry_delay_ms, 0, CATALOG_RETRY_DELAY_MAX_MS));
    TRY(check("max_in_flight", settings->max_in_flight, 0, CATALOG_IN_FLIGHT_MAX));
    return read_start(subscription, change);
}

/* ---- topics and subscriptions --------------------------------------------------------------- */

struct configure {
    struct ask ask;
    struct router_configure router;
};

static void configure_on_done(struct router_operation *operation)
{
    ask_end(operation->user, operation);
}

static void configure_run(struct caller_work *work)
{
    struct ask *ask = ask_of(work);
    struct configure *configure = container_of(ask, struct configure, ask);
    ask_prepare(ask, &configure->router.operation, configure_on_done);
    router_start_configure(ask_router(ask), &configure->router);
}

static enum flare_code configure(struct flare_broker *broker, const struct catalog_change *change,
                                 struct flare_error *error)
{
    struct configure configure = {.router.change = *change};
    return ask_run(&configure.ask, broker, configure_run, error);
}

enum flare_code flare_broker_topic_put(struct flare_broker *broker, const char *topic,
                                       const struct flare_topic *settings,
                                       struct flare_error *error)
{
    static const struct flare_topic defaults;
    struct catalog_change change = {.op = CATALOG_TOPIC_PUT, .topic = span_text(topic)};
    err_t err = check_name("topic", topic);
    if (err == NULL) {
        err = read_topic(settings == NULL ? &defaults : settings, &change);
    }
    return err == NULL ? configure(broker, &change, error) : embedded_result(error, err);
}

enum flare_code flare_broker_topic_delete(struct flare_broker *broker, const char *topic,
                                          struct flare_error *error)
{
    const struct catalog_change change = {
        .op = CATALOG_TOPIC_STATE, .topic = span_text(topic), .to = CATALOG_DELETING};
    return configure(broker, &change, error);
}

enum flare_code flare_broker_subscription_put(struct flare_broker *broker,
                                              const struct flare_source *source,
                                              const struct flare_subscription *settings,
                                              struct flare_error *error)
{
    static const struct flare_subscription defaults;
    struct catalog_change change = {.op = CATALOG_SUB_PUT,
                                    .topic = span_text(source->topic),
                                    .sub = span_text(source->subscription),
                                    .keep_paused = true};
    err_t err = check_name("subscription", source->subscription);
    if (err == NULL) {
        err = read_subscription(settings == NULL ? &defaults : settings, &change);
    }
    return err == NULL ? configure(broker, &change, error) : embedded_result(error, err);
}

enum flare_code flare_broker_subscription_delete(struct flare_broker *broker,
                                                 const struct flare_source *source,
                                                 struct flare_error *error)
{
    const struct catalog_change change = {.op = CATALOG_SUB_STATE,
                                          .topic = span_text(source->topic),
                                          .sub = span_text(source->subscription),
                                          .to = CATALOG_DELETING};
    return configure(broker, &change, error);
}

/* ---- depths --------------------------------------------------------------------------------- */

struct survey {
    struct ask ask;
    struct router_stats router;
    struct span sub;
    struct flare_depths depths;
    flare_visit_depths visit;
    void *user;
};

static struct flare_depths depths_of(const struct router_figures *figures)
{
    return (struct flare_depths){.enqueued = figures->enqueued,
                                 .leased = figures->leased,
                                 .scheduled = figures->scheduled,
                                 .dead = figures->dead};
}

static void depths_on_done(struct router_operation *operation)
{
    struct ask *ask = operation->user;
    struct survey *survey = container_of(ask, struct survey, ask);
    const struct catalog *catalog = router_catalog(ask_router(ask));
    const struct catalog_topic *topic = catalog_topic(catalog, survey->router.topic);
    const struct catalog_sub *sub = topic == NULL ? NULL : catalog_sub(topic, survey->sub);
    if (operation->result.code == ERR_NONE && (sub == NULL || sub->state != CATALOG_ACTIVE)) {
        ask_fail(ask, ERR_NOT_FOUND, "subscription: it does not exist");
    } else if (operation->result.code == ERR_NONE) {
        struct router_figures figures = {.sub_id = sub->id};
        router_figures_gather(operation, &figures, 1);
        survey->depths = depths_of(&figures);
    }
    ask_end(ask, operation);
}

static void depths_run(struct caller_work *work)
{
    struct ask *ask = ask_of(work);
    struct survey *survey = container_of(ask, struct survey, ask);
    ask_prepare(ask, &survey->router.operation, depths_on_done);
    router_start_stats(ask_router(ask), &survey->router);
}

enum flare_code flare_broker_depths(struct flare_broker *broker, const struct flare_source *source,
                                    struct flare_depths *out, struct flare_error *error)
{
    struct survey survey = {.router.topic = span_text(source->topic),
                            .sub = span_text(source->subscription)};
    err_t err = check_name("topic", source->topic); /* an empty one would mean all */
    if (err != NULL) {
        return embedded_result(error, err);
    }
    enum flare_code code = ask_run(&survey.ask, broker, depths_run, error);
    if (code == FLARE_OK) {
        *out = survey.depths;
    }
    return code;
}

/* Calls `each` for the active subscriptions of active topics; returns how many there are. */
static size_t each_sub(const struct catalog *catalog,
                       void (*each)(void *user, size_t index, const struct catalog_sub *sub),
                       void *user)
{
    size_t count = 0;
    struct span name = span_text("");
    const struct catalog_topic *topic;
    while ((topic = catalog_topic_after(catalog, name)) != NULL) {
        const struct catalog_sub *sub = catalog_sub_after(topic, span_text(""));
        for (; sub != NULL; sub = catalog_sub_after(topic, span_text(sub->name))) {
            if (topic->state != CATALOG_ACTIVE || sub->state != CATALOG_ACTIVE) {
                continue;
            }
            if (each != NULL) {
                each(user, count, sub);
            }
            count++;
        }
        name = span_text(topic->name);
    }
    return count;
}

struct surveyed {
    struct survey *survey;
    struct router_figures *figures;
    size_t count;
};

static void note_sub(void *user, size_t index, const struct catalog_sub *sub)
{
    const struct surveyed *surveyed = user;
    surveyed->figures[index].sub_id = sub->id;
}

static void visit_sub(void *user, size_t index, const struct catalog_sub *sub)
{
    (void)index;
    const struct surveyed *surveyed = user;
    const struct survey *survey = surveyed->survey;
    const struct flare_depths depths =
        depths_of(router_figures_find(surveyed->figures, surveyed->count, sub->id));
    const struct flare_source source = {.topic = sub->topic->name, .subscription = sub->name};
    survey->visit(survey->user, &source, &depths);
}

static void survey_on_done(struct router_operation *operation)
{
    struct ask *ask = operation->user;
    const struct catalog *catalog = router_catalog(ask_router(ask));
    struct surveyed surveyed = {.survey = container_of(ask, struct survey, ask)};
    surveyed.count = each_sub(catalog, NULL, NULL);
    if (operation->result.code == ERR_NONE && surveyed.count > 0) {
        surveyed.figures = arena_calloc(&ask->arena, surveyed.count, sizeof *surveyed.figures);
        if (surveyed.figures == NULL) {
            ask_fail(ask, ERR_MEMORY, "no memory for the depths");
        } else {
            (void)each_sub(catalog, note_sub, &surveyed);
            router_figures_gather(operation, surveyed.figures, surveyed.count);
            (void)each_sub(catalog, visit_sub, &surveyed);
        }
    }
    ask_end(ask, operation);
}

static void survey_run(struct caller_work *work)
{
    struct ask *ask = ask_of(work);
    struct survey *survey = container_of(ask, struct survey, ask);
    ask_prepare(ask, &survey->router.operation, survey_on_done);
    router_start_stats(ask_router(ask), &survey->router);
}

enum flare_code flare_broker_each_subscription(struct flare_broker *broker,
                                               flare_visit_depths visit, void *user,
                                               struct flare_error *error)
{
    struct survey survey = {.visit = visit, .user = user};
    return ask_run(&survey.ask, broker, survey_run, error);
}

/* ---- lists ---------------------------------------------------------------------------------- */

/* Which state is asked for, and how it is called. */
static const struct {
    enum message_state state;
    const char *name;
} states[] = {
    [FLARE_MESSAGE_ENQUEUED] = {MESSAGE_NONE, "enqueued"},
    [FLARE_MESSAGE_LEASED] = {MESSAGE_LEASED, "leased"},
    [FLARE_MESSAGE_SCHEDULED] = {MESSAGE_SCHEDULED, "scheduled"},
    [FLARE_MESSAGE_DEAD] = {MESSAGE_DEAD, "dead"},
};
enum { STATES = sizeof states / sizeof states[0] };

const char *flare_message_state_name(enum flare_message_state state)
{
    return state != 0 && (unsigned)state < STATES ? states[state].name : "unknown";
}

struct list_work {
    struct ask ask;
    struct router_peek router;
    const struct flare_list_options *options;
    uint32_t left;
};

static void visit_delivery(const struct list_work *list, const struct reply *reply,
                           const struct delivery *delivery)
{
    struct span key = delivery_key(reply, delivery);
    struct span body = delivery_body(reply, delivery);
    bool dead = delivery->state == MESSAGE_DEAD;
    struct flare_listed message = {
        .shard = delivery->shard_number,
        .sequence = delivery->sequence,
        .state = list->options->state,
        .attempts = delivery->attempt,
        .published_ms = delivery->published_ms,
        .due_ms = delivery->due_ms,
        .reason = dead ? dead_reason_text(delivery->reason) : "",
        .key = key.data,
        .key_size = key.size,
        .body = body.data,
        .body_size = body.size,
    };
    message_id_format(delivery->shard_id, delivery->sequence, message.id);
    list->options->visit(list->options->user, &message);
}

static void list_on_done(struct router_operation *operation)
{
    struct ask *ask = operation->user;
    struct list_work *list = container_of(ask, struct list_work, ask);
    const struct reply *reply = NULL;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        for (uint32_t index = 0; index < reply_delivery_count(reply); index++) {
            visit_delivery(list, reply, reply_delivery(reply, index));
            list->left--;
        }
    }
    if (operation->result.code != ERR_NONE || !list->router.more || list->left == 0) {
        ask_end(ask, operation);
        return;
    }
    router_release(operation);
    list->router.max = list->left;
    list->router.from_shard_id = list->router.next_shard_id;
    list->router.from_sequence = list->router.next_sequence;
    router_start_peek(ask_router(ask), &list->router);
}

static void list_run(struct caller_work *work)
{
    struct ask *ask = ask_of(work);
    struct list_work *list = container_of(ask, struct list_work, ask);
    ask_prepare(ask, &list->router.operation, list_on_done);
    router_start_peek(ask_router(ask), &list->router);
}

enum flare_code flare_broker_list(struct flare_broker *broker,
                                  const struct flare_list_options *options,
                                  struct flare_error *error)
{
    if (options->state == 0 || (unsigned)options->state >= STATES) {
        return embedded_fail(error, ERR_INVALID, "state: must be one of enum flare_message_state");
    }
    struct list_work list = {.options = options};
    list.left = options->max == 0 ? LIST_MAX : options->max;
    list.router.topic = span_text(options->source.topic);
    list.router.sub = span_text(options->source.subscription);
    list.router.state = states[options->state].state;
    list.router.max = list.left;
    list.router.size_max = LIST_SIZE_MAX;
    return ask_run(&list.ask, broker, list_run, error);
}
