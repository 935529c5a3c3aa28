/* /metrics: what struct metrics counts, and what the catalog, the volumes and the server know at
 * the moment. */
#include <assert.h>
#include <stdlib.h>

#include "broker/http/api_request.h"
#include "broker/volume/router_figures.h"

enum { METRICS_PAGE_MAX = 64 << 20 };

static void write_process(const struct api *api, struct buf *out)
{
    const struct metrics_label labels[] = {
        {"version", span_text(api->options.version)},
        {"commit", span_text(api->options.commit)},
        {.name = NULL},
    };
    metrics_write_head(out, METRICS_build_info);
    metrics_write_sample(out, METRICS_build_info, labels, 1);
    metrics_write_head(out, METRICS_start_time_seconds);
    metrics_write_sample_ms(out, METRICS_start_time_seconds, NULL, api->started_ms);
}

/* ---- volumes -------------------------------------------------------------------------------- */

static void write_volume_state(const struct router_volume_status *status, struct buf *out)
{
    const struct {
        const char *name;
        bool holds;
    } states[] = {
        {"ready", !status->failed && !status->full},
        {"full", !status->failed && status->full},
        {"failed", status->failed},
    };
    for (size_t index = 0; index < sizeof states / sizeof states[0]; index++) {
        const struct metrics_label labels[] = {
            {"volume", span_text(status->name)},
            {"state", span_text(states[index].name)},
            {.name = NULL},
        };
        metrics_write_sample(out, METRICS_volume_state, labels, states[index].holds);
    }
}

static void write_volume(enum metrics_family family, const struct router_volume_status *status,
                         struct buf *out)
{
    const struct metrics_label labels[] = {
        {"volume", span_text(status->name)},
        {.name = NULL},
    };
    if (family == METRICS_volume_state) {
        write_volume_state(status, out);
    } else if (family == METRICS_volume_oldest_reader_age_seconds) {
        metrics_write_sample_ms(out, family, labels, status->reader_age_ms);
    } else {
        uint64_t value = family == METRICS_volume_mailbox_commands ? status->mailbox_count
                         : family == METRICS_volume_commands_total ? status->commands_total
                         : family == METRICS_volume_commits_total  ? status->commits_total
                         : family == METRICS_volume_journal_bytes  ? status->journal_size
                         : family == METRICS_volume_used_bytes     ? status->used_size
                                                                   : status->file_size;
        metrics_write_sample(out, family, labels, value);
    }
}

static void write_volumes(const struct api *api, struct buf *out)
{
    static const enum metrics_family families[] = {
        METRICS_volume_state,          METRICS_volume_mailbox_commands,
        METRICS_volume_commands_total, METRICS_volume_commits_total,
        METRICS_volume_journal_bytes,  METRICS_volume_used_bytes,
        METRICS_volume_file_bytes,     METRICS_volume_oldest_reader_age_seconds,
    };
    for (size_t index = 0; index < sizeof families / sizeof families[0]; index++) {
        metrics_write_head(out, families[index]);
        for (uint32_t volume = 0; volume <= router_volume_count(api->router); volume++) {
            struct router_volume_status status;
            router_volume_status(api->router, volume, &status);
            write_volume(families[index], &status, out);
        }
    }
}

/* ---- subscriptions -------------------------------------------------------------------------- */

struct sub_sample {
    const struct catalog_sub *sub;
    struct router_figures figures;
};

static void write_subs(const struct sub_sample *samples, size_t count, uint64_t now_ms,
                       struct buf *out)
{
    static const enum metrics_family families[] = {
        METRICS_subscription_backlog_messages,
        METRICS_subscription_leased_messages,
        METRICS_subscription_dead_messages,
        METRICS_subscription_oldest_unacknowledged_age_seconds,
    };
    for (size_t index = 0; index < sizeof families / sizeof families[0]; index++) {
        metrics_write_head(out, families[index]);
        for (size_t at = 0; at < count; at++) {
            const struct router_figures *figures = &samples[at].figures;
            const struct metrics_label labels[] = {
                {"topic", span_text(samples[at].sub->topic->name)},
                {"subscription", span_text(samples[at].sub->name)},
                {.name = NULL},
            };
            uint64_t oldest_ms = figures->oldest_ms;
            const uint64_t values[] = {
                figures->enqueued + figures->leased + figures->scheduled,
                figures->leased,
                figures->dead,
                oldest_ms == 0 || oldest_ms > now_ms ? 0 : now_ms - oldest_ms,
            };
            if (index == 3) {
                metrics_write_sample_ms(out, families[index], labels, values[index]);
            } else {
                metrics_write_sample(out, families[index], labels, values[index]);
            }
        }
    }
}

/* ---- HTTP ----------------------------------------------------------------------------------- */

static void write_http(const struct api *api, struct buf *out)
{
    static const struct http_counters none;
    const struct http_counters *counters =
        api->server == NULL ? &none : http_server_counters(api->server);
    const struct {
        enum metrics_family family;
        uint64_t value;
    } rows[] = {
        {METRICS_http_connections_total, counters->connections_total},
        {METRICS_http_connections_open, counters->connections_open},
        {METRICS_http_connections_refused_total, counters->connections_refused_total},
        {METRICS_http_received_bytes_total, counters->received_bytes_total},
        {METRICS_http_sent_bytes_total, counters->sent_bytes_total},
        {METRICS_http_timeouts_total, counters->timeouts_total},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        metrics_write_head(out, rows[index].family);
        metrics_write_sample(out, rows[index].family, NULL, rows[index].value);
    }
}

/* ---- the page ------------------------------------------------------------------------------- */

/* Every subscription of every topic, with its figures when `operation` has them. */
static err_t gather_subs(struct api_request *request, const struct router_operation *operation,
                         struct sub_sample **out, size_t *out_count)
{
    const struct catalog *catalog = router_catalog(request->api->router);
    size_t count = 0;
    for (const struct catalog_topic *topic = catalog_topic_after(catalog, span_text(""));
         topic != NULL; topic = catalog_topic_after(catalog, span_text(topic->name))) {
        count += topic->sub_count;
    }
    struct router_figures *figures;
    struct sub_sample *samples;
    TRY(api_alloc(request, count, sizeof *figures, &figures));
    TRY(api_alloc(request, count, sizeof *samples, &samples));
    size_t at = 0;
    for (const struct catalog_topic *topic = catalog_topic_after(catalog, span_text(""));
         topic != NULL; topic = catalog_topic_after(catalog, span_text(topic->name))) {
        for (const struct catalog_sub *sub = catalog_sub_after(topic, span_text(""));
             sub != NULL && at < count; sub = catalog_sub_after(topic, span_text(sub->name))) {
            figures[at].sub_id = sub->id;
            samples[at++].sub = sub;
        }
    }
    router_figures_gather(operation, figures, at);
    for (size_t index = 0; index < at; index++) {
        samples[index].figures = *router_figures_find(figures, at, samples[index].sub->id);
    }
    *out = samples;
    *out_count = at;
    return NULL;
}

static err_t answer_metrics(struct api_request *request, const struct router_operation *operation)
{
    struct api *api = request->api;
    struct metrics *metrics = api->options.metrics;
    struct sub_sample *samples = NULL;
    size_t count = 0;
    /* Volumes that cannot answer must not hide why they cannot. */
    if (operation->result.code == ERR_NONE) {
        TRY(gather_subs(request, operation, &samples, &count));
    }
    struct buf buf;
    buf_init(&buf, METRICS_PAGE_MAX);
    metrics_set(&metrics->pulls_waiting, router_waiting(api->router));
    write_process(api, &buf);
    metrics_write(&buf, metrics);
    write_volumes(api, &buf);
    write_subs(samples, count, clock_wall_ms(api->clock), &buf);
    write_http(api, &buf);
    api_answer_text(request, 200, METRICS_CONTENT_TYPE, &buf);
    return NULL;
}

static void metrics_on_stats(struct router_operation *operation)
{
    struct api_request *request = operation->user;
    err_t err = answer_metrics(request, operation);
    if (err != NULL) {
        api_fail(request, err);
    }
}

err_t api_metrics_get(struct api_request *request)
{
    struct router_stats *stats;
    TRY(api_alloc(request, 1, sizeof *stats, &stats));
    api_operation(request, &stats->operation, metrics_on_stats);
    router_start_stats(request->api->router, stats);
    return NULL;
}
