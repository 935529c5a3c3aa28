/* Topics: create, show, list, delete. */
#include <stdio.h>

#include "broker/core/durability.h"
#include "broker/http/api_request.h"

static const char *state_text(enum catalog_state state)
{
    switch (state) {
    case CATALOG_CREATING:
        return "creating";
    case CATALOG_ACTIVE:
        return "active";
    case CATALOG_DELETING:
        return "deleting";
    case CATALOG_NONE:
        break;
    }
    return "none";
}

static void topic_print(struct out *out, const struct catalog_topic *topic)
{
    const struct topic_settings *settings = &topic->settings;
    out_map(out);
    out_field_text(out, "name", topic->name);
    out_field_text(out, "state", state_text(topic->state));
    out_field_u64(out, "shards", topic->shard_count);
    if (settings->retention_ms == 0 && settings->retention_bytes == 0) {
        out_field_null(out, "retention");
    } else {
        out_name(out, "retention");
        out_map(out);
        if (settings->retention_ms == 0) {
            out_field_null(out, "age_ms");
        } else {
            out_field_u64(out, "age_ms", settings->retention_ms);
        }
        if (settings->retention_bytes == 0) {
            out_field_null(out, "bytes");
        } else {
            out_field_u64(out, "bytes", settings->retention_bytes);
        }
        out_end(out);
    }
    out_field_u64(out, "idempotency_window_ms", settings->dedup_window_ms);
    out_field_text(out, "durability", durability_text(settings->durability));
    out_field_u64(out, "subscriptions", topic->sub_count);
    out_field_time(out, "created_at", "created_ms", topic->created_ms);
    out_end(out);
}

static void answer_topic(struct api_request *request, int status, const struct catalog_topic *topic)
{
    struct buf buf;
    struct out out;
    api_answer_begin(request, &buf, &out);
    topic_print(&out, topic);
    api_answer_etag(request, topic->version);
    api_answer(request, status, &buf);
}

err_t api_topic_get(struct api_request *request)
{
    struct catalog_topic *topic;
    TRY(api_find_topic(request, &topic));
    answer_topic(request, 200, topic);
    return NULL;
}

err_t api_topic_list(struct api_request *request)
{
    struct api_page page;
    TRY(api_read_page(request, &page));
    const struct catalog *catalog = router_catalog(request->api->router);
    struct catalog_topic *topic = catalog_topic_after(catalog, page.cursor);
    struct span last = {0};
    struct buf buf;
    struct out out;
    api_answer_begin(request, &buf, &out);
    out_map(&out);
    out_name(&out, "items");
    out_array(&out);
    for (uint32_t count = 0; topic != NULL && count < page.limit; count++) {
        topic_print(&out, topic);
        last = span_text(topic->name);
        topic = catalog_topic_after(catalog, last);
    }
    out_end(&out);
    api_out_next(&out, topic != NULL, last);
    out_end(&out);
    api_answer(request, 200, &buf);
    return NULL;
}

static void topic_on_put(struct router_operation *operation)
{
    struct api_request *request = operation->user;
    const struct router_configure *configure =
        container_of(operation, struct router_configure, operation);
    if (!api_failed(request, operation)) {
        struct catalog_topic *topic;
        err_t err = api_find_topic(request, &topic);
        if (err == NULL) {
            answer_topic(request, configure->change.created ? 201 : 200, topic);
        } else {
            err_free(err);
            api_problem(request, ERR_CONFLICT, "the topic was deleted meanwhile");
        }
    }
}

static err_t read_retention(struct span document, struct topic_settings *settings)
{
    struct in_value values[IN_VALUES_MAX];
    struct in_place place = {.name = "retention", .index = IN_NO_INDEX};
    TRY(api_in_read_all(document, IN_retention, place, values));
    settings->retention_ms = values[IN(retention, age)].number;
    settings->retention_bytes = values[IN(retention, bytes)].number;
    if (settings->retention_ms == 0 && settings->retention_bytes == 0) {
        return ERR(INVALID, "retention: must have an age or bytes; null is none");
    }
    return NULL;
}

static err_t read_durability(const struct in_value *value, struct topic_settings *settings)
{
    if (value->given && !durability_read(value->span, &settings->durability)) {
        return ERR(INVALID, "durability: must be \"synced\" or \"relaxed\"");
    }
    return NULL;
}

err_t api_topic_put(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    struct router_configure *configure;
    TRY(api_read(request, IN_topic, values));
    TRY(api_alloc(request, 1, sizeof *configure, &configure));
    struct catalog_change *change = &configure->change;
    change->op = CATALOG_TOPIC_PUT;
    change->topic = request->topic;
    if (values[IN(topic, shards)].given) {
        change->shard_count = (uint32_t)values[IN(topic, shards)].number;
    }
    change->topic_settings.dedup_window_ms = values[IN(topic, idempotency_window)].number;
    if (values[IN(topic, retention)].given) {
        TRY(read_retention(values[IN(topic, retention)].span, &change->topic_settings));
    }
    TRY(read_durability(&values[IN(topic, durability)], &change->topic_settings));
    const struct catalog_topic *topic =
        catalog_topic(router_catalog(request->api->router), request->topic);
    TRY(api_read_conditions(request, topic == NULL ? 0 : topic->version, change));
    api_operation(request, &configure->operation, topic_on_put);
    router_start_configure(request->api->router, configure);
    return NULL;
}

static void topic_on_delete(struct router_operation *operation)
{
    struct api_request *request = operation->user;
    if (!api_failed(request, operation)) {
        api_answer_empty(request, 204);
    }
}

err_t api_topic_delete(struct api_request *request)
{
    struct catalog_topic *topic;
    struct router_configure *configure;
    TRY(api_find_topic(request, &topic));
    TRY(api_alloc(request, 1, sizeof *configure, &configure));
    configure->change.op = CATALOG_TOPIC_STATE;
    configure->change.topic = request->topic;
    configure->change.to = CATALOG_DELETING;
    TRY(api_read_conditions(request, topic->version, &configure->change));
    api_operation(request, &configure->operation, topic_on_delete);
    router_start_configure(request->api->router, configure);
    return NULL;
}
