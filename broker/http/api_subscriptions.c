/* Subscriptions: create, show with their depths, list, pause, delete.
 *
 * An answer that shows subscriptions asks the volumes for their figures first, so every such
 * handler ends in a sub_view. A change is made against the version of the settings it was computed
 * from and computed again when another one came between, so that a PUT and a pause at the same time
 * lose nothing of each other. */
#include <assert.h>

#include "broker/http/api_request.h"
#include "broker/volume/router_figures.h"

/* ---- showing -------------------------------------------------------------------------------- */

struct sub_view {
    struct router_stats stats;
    struct api_request *request;
    int status;
    bool list;
    struct api_page page;
};

static const char *state_text(const struct catalog_sub *sub)
{
    switch (sub->state) {
    case CATALOG_CREATING:
        return "creating";
    case CATALOG_ACTIVE:
        return sub->settings.paused ? "paused" : "active";
    case CATALOG_DELETING:
        return "deleting";
    case CATALOG_NONE:
        break;
    }
    return "none";
}

static void sub_print(struct out *out, const struct catalog_sub *sub,
                      const struct router_figures *figures, uint64_t now_ms)
{
    const struct sub_settings *settings = &sub->settings;
    out_map(out);
    out_field_text(out, "name", sub->name);
    out_field_text(out, "topic", sub->topic->name);
    out_field_text(out, "state", state_text(sub));
    out_field_text(out, "mode", "passive");
    out_field_text(out, "ordering", "none");
    out_field_u64(out, "lease_ms", settings->lease_ms);
    out_field_u64(out, "max_attempts", settings->max_attempts);
    out_name(out, "retry");
    out_map(out);
    out_field_u64(out, "delay_ms", settings->retry_delay_ms);
    out_end(out);
    out_field_u64(out, "max_in_flight", settings->max_in_flight);
    out_field_time(out, "created_at", "created_ms", sub->created_ms);
    out_name(out, "enqueue_queue");
    out_map(out);
    out_field_u64(out, "depth", figures->enqueued);
    out_end(out);
    out_name(out, "delivery_queue");
    out_map(out);
    out_field_u64(out, "leased", figures->leased);
    out_field_u64(out, "scheduled", figures->scheduled);
    out_field_u64(out, "blocked", 0);
    out_field_u64(out, "dead", figures->dead);
    out_end(out);
    api_out_age(out, "oldest_unacknowledged_age_ms", figures->oldest_ms, now_ms);
    out_end(out);
}

static err_t answer_one(struct sub_view *view)
{
    struct api_request *request = view->request;
    struct catalog_sub *sub;
    TRY(api_find_sub(request, &sub));
    struct router_figures figures = {.sub_id = sub->id};
    router_figures_gather(&view->stats.operation, &figures, 1);
    struct buf buf;
    struct out out;
    api_answer_begin(request, &buf, &out);
    sub_print(&out, sub, &figures, clock_wall_ms(request->api->clock));
    api_answer_etag(request, sub->version);
    api_answer(request, view->status, &buf);
    return NULL;
}

static err_t answer_list(struct sub_view *view)
{
    struct api_request *request = view->request;
    struct catalog_topic *topic;
    TRY(api_find_topic(request, &topic));
    struct router_figures *figures;
    TRY(api_alloc(request, view->page.limit, sizeof *figures, &figures));
    size_t count = 0;
    struct catalog_sub *first = catalog_sub_after(topic, view->page.cursor);
    struct catalog_sub *end = first;
    while (end != NULL && count < view->page.limit) {
        figures[count++].sub_id = end->id;
        end = catalog_sub_after(topic, span_text(end->name));
    }
    router_figures_gather(&view->stats.operation, figures, count);
    uint64_t now_ms = clock_wall_ms(request->api->clock);
    struct span last = {0};
    struct buf buf;
    struct out out;
    api_answer_begin(request, &buf, &out);
    out_map(&out);
    out_name(&out, "items");
    out_array(&out);
    for (struct catalog_sub *sub = first; sub != end; sub = catalog_sub_after(topic, last)) {
        sub_print(&out, sub, router_figures_find(figures, count, sub->id), now_ms);
        last = span_text(sub->name);
    }
    out_end(&out);
    api_out_next(&out, end != NULL, last);
    out_end(&out);
    api_answer(request, 200, &buf);
    return NULL;
}

static void view_on_stats(struct router_operation *operation)
{
    struct sub_view *view = operation->user;
    if (!api_failed(view->request, operation)) {
        err_t err = view->list ? answer_list(view) : answer_one(view);
        if (err != NULL) {
            api_fail(view->request, err);
        }
    }
}

static void view_start(struct sub_view *view, struct api_request *request)
{
    view->request = request;
    api_operation(request, &view->stats.operation, view_on_stats);
    view->stats.operation.user = view;
    view->stats.topic = request->topic;
    router_start_stats(request->api->router, &view->stats);
}

err_t api_sub_get(struct api_request *request)
{
    struct catalog_sub *sub;
    struct sub_view *view;
    TRY(api_find_sub(request, &sub));
    TRY(api_alloc(request, 1, sizeof *view, &view));
    view->status = 200;
    view_start(view, request);
    return NULL;
}

err_t api_sub_list(struct api_request *request)
{
    struct catalog_topic *topic;
    struct sub_view *view;
    TRY(api_find_topic(request, &topic));
    TRY(api_alloc(request, 1, sizeof *view, &view));
    TRY(api_read_page(request, &view->page));
    view->list = true;
    view_start(view, request);
    return NULL;
}

/* ---- changing ------------------------------------------------------------------------------- */

enum { CHANGE_TRIES_MAX = 16 };

struct sub_change {
    struct router_configure configure;
    struct sub_view view;
    struct api_request *request;
    bool put;                     /* else pause or resume */
    struct sub_settings settings; /* of a PUT */
    enum start_at start;
    uint64_t start_value;
    bool paused;      /* of pause and resume */
    bool conditional; /* the client named the version: no second try */
    uint32_t tries;
};

static void change_on_done(struct router_operation *operation);

/* Computes the change from the settings as they are now, and starts it. */
static err_t change_start(struct sub_change *change)
{
    struct api_request *request = change->request;
    struct catalog_topic *topic;
    TRY(api_find_topic(request, &topic));
    struct catalog_sub *sub = catalog_sub(topic, request->sub);
    if (sub == NULL && !change->put) {
        return ERR(NOT_FOUND, "topic \"%s\" has no such subscription", topic->name);
    }
    struct router_configure *configure = &change->configure;
    *configure = (struct router_configure){.change = {.op = CATALOG_SUB_PUT,
                                                      .topic = request->topic,
                                                      .sub = request->sub,
                                                      .sub_settings = change->settings,
                                                      .start = change->start,
                                                      .start_value = change->start_value}};
    TRY(api_read_conditions(request, sub == NULL ? 0 : sub->version, &configure->change));
    change->conditional = configure->change.has_version || configure->change.create_only;
    if (change->put) {
        configure->change.keep_paused = true;
    } else {
        assert(sub != NULL); /* else it has been refused above */
        configure->change.has_version = true;
        configure->change.version = sub->version;
        configure->change.sub_settings = sub->settings;
        configure->change.sub_settings.paused = change->paused;
    }
    change->tries++;
    api_operation(request, &configure->operation, change_on_done);
    configure->operation.user = change;
    router_start_configure(request->api->router, configure);
    return NULL;
}

static void change_on_done(struct router_operation *operation)
{
    struct sub_change *change = operation->user;
    struct api_request *request = change->request;
    bool created = change->configure.change.created;
    if (operation->result.code == ERR_PRECONDITION && !change->conditional &&
        change->tries < CHANGE_TRIES_MAX) {
        api_operation_end(request);
        err_t err = change_start(change);
        if (err != NULL) {
            api_fail(request, err);
        }
        return;
    }
    bool failed = api_failed(request, operation);
    if (!failed) {
        change->view.status = created ? 201 : 200;
        view_start(&change->view, request);
    }
}

/* What other versions offer is told apart from what is nonsense. */
static err_t read_choice(const struct in_value *value, const char *field, const char *only,
                         const char *later)
{
    if (!value->given || span_is(value->span, only)) {
        return NULL;
    }
    struct span rest = span_text(later);
    while (rest.size > 0) {
        const uint8_t *space = memchr(rest.data, ' ', rest.size);
        size_t size = space == NULL ? rest.size : (size_t)(space - rest.data);
        if (span_equal(value->span, span_of(rest.data, size))) {
            return ERR(NOT_IMPLEMENTED, "%s: this version offers only \"%s\"", field, only);
        }
        size_t taken = space == NULL ? size : size + 1;
        rest = span_of(rest.data + taken, rest.size - taken);
    }
    return ERR(INVALID, "%s: must be \"%s\"", field, only);
}

static err_t read_settings(struct api_request *request, struct sub_change *change)
{
    struct in_value values[IN_VALUES_MAX];
    struct in_value retry[IN_VALUES_MAX];
    struct in_place place = {.name = "retry", .index = IN_NO_INDEX};
    TRY(api_read(request, IN_subscription, values));
    TRY(read_choice(&values[IN(subscription, mode)], "mode", "passive", "push"));
    TRY(read_choice(&values[IN(subscription, ordering)], "ordering", "none", "key shard"));
    TRY(api_in_read_all(values[IN(subscription, retry)].span, IN_retry, place, retry));
    change->settings = (struct sub_settings){
        .lease_ms = values[IN(subscription, lease)].number,
        .retry_delay_ms = retry[IN(retry, delay)].number,
        .max_attempts = (uint32_t)values[IN(subscription, max_attempts)].number,
        .max_in_flight = (uint32_t)values[IN(subscription, max_in_flight)].number,
    };
    change->start = START_LATEST;
    const struct in_value *start = &values[IN(subscription, start)];
    if (start->given && !api_take_start(start->span, &change->start, &change->start_value)) {
        return ERR(INVALID, "start: must be \"latest\", \"earliest\" or a time");
    }
    return NULL;
}

err_t api_sub_put(struct api_request *request)
{
    struct sub_change *change;
    TRY(api_alloc(request, 1, sizeof *change, &change));
    TRY(read_settings(request, change));
    change->request = request;
    change->put = true;
    return change_start(change);
}

static err_t set_paused(struct api_request *request, bool paused)
{
    struct in_value values[IN_VALUES_MAX];
    struct sub_change *change;
    TRY(api_read(request, IN_nothing, values));
    TRY(api_alloc(request, 1, sizeof *change, &change));
    change->request = request;
    change->paused = paused;
    return change_start(change);
}

err_t api_sub_pause(struct api_request *request)
{
    return set_paused(request, true);
}

err_t api_sub_resume(struct api_request *request)
{
    return set_paused(request, false);
}

static void sub_on_delete(struct router_operation *operation)
{
    struct api_request *request = operation->user;
    if (!api_failed(request, operation)) {
        api_answer_empty(request, 204);
    }
}

err_t api_sub_delete(struct api_request *request)
{
    struct catalog_sub *sub;
    struct router_configure *configure;
    TRY(api_find_sub(request, &sub));
    TRY(api_alloc(request, 1, sizeof *configure, &configure));
    configure->change.op = CATALOG_SUB_STATE;
    configure->change.topic = request->topic;
    configure->change.sub = request->sub;
    configure->change.to = CATALOG_DELETING;
    TRY(api_read_conditions(request, sub->version, &configure->change));
    api_operation(request, &configure->operation, sub_on_delete);
    router_start_configure(request->api->router, configure);
    return NULL;
}
