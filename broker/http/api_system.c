/* The broker itself: status, log level, probes, metrics, its own description. */
#include <stdio.h>

#include "broker/base/log.h"
#include "broker/core/durability.h"
#include "broker/http/api_request.h"

/* ---- status --------------------------------------------------------------------------------- */

static const char *volume_state(const struct router_volume_status *status)
{
    return status->failed ? "failed" : status->full ? "full" : "ok";
}

static void volume_print(struct out *out, const struct router_volume_status *status)
{
    out_map(out);
    out_field_text(out, "name", status->name);
    out_field_text(out, "state", volume_state(status));
    if (status->failed) {
        out_field_text(out, "failure", status->failure);
    } else {
        out_field_null(out, "failure");
    }
    out_field_u64(out, "used_bytes", status->used_size);
    out_field_u64(out, "file_bytes", status->file_size);
    out_field_u64(out, "reader_age_ms", status->reader_age_ms);
    out_field_u64(out, "mailbox", status->mailbox_count);
    out_field_u64(out, "commands_total", status->commands_total);
    out_field_u64(out, "commits_total", status->commits_total);
    out_field_u64(out, "journal_bytes", status->journal_size);
    out_end(out);
}

struct counts {
    uint64_t topics;
    uint64_t subs;
};

static struct counts count_catalog(const struct catalog *catalog)
{
    struct counts counts = {.topics = 0};
    const struct catalog_topic *topic = catalog_topic_after(catalog, span_text(""));
    while (topic != NULL) {
        counts.topics++;
        counts.subs += topic->sub_count;
        topic = catalog_topic_after(catalog, span_text(topic->name));
    }
    return counts;
}

err_t api_status_get(struct api_request *request)
{
    const struct api *api = request->api;
    struct counts counts = count_catalog(router_catalog(api->router));
    struct buf buf;
    struct out out;
    api_answer_begin(request, &buf, &out);
    out_map(&out);
    out_field_text(&out, "version", api->options.version);
    out_field_text(&out, "commit", api->options.commit);
    out_field_time(&out, "started_at", "started_ms", api->started_ms);
    out_field_u64(&out, "uptime_ms", (clock_mono_us(api->clock) - api->started_us) / 1000);
    out_field_text(&out, "state", api->stopping ? "stopping" : "running");
    out_field_text(&out, "durability", durability_text(DURABILITY_SYNCED));
    out_field_u64(&out, "topics", counts.topics);
    out_field_u64(&out, "subscriptions", counts.subs);
    out_field_u64(&out, "waiting_pulls", router_waiting(api->router));
    out_field_u64(&out, "connections",
                  api->server == NULL ? 0 : http_server_counters(api->server)->connections_open);
    out_field_text(&out, "wire", api->wire_address);
    out_field_text(&out, "log_level", log_level_text(log_level()));
    out_name(&out, "volumes");
    out_array(&out);
    for (uint32_t index = 0; index <= router_volume_count(api->router); index++) {
        struct router_volume_status status;
        router_volume_status(api->router, index, &status);
        volume_print(&out, &status);
    }
    out_end(&out);
    out_end(&out);
    api_answer(request, 200, &buf);
    return NULL;
}

/* ---- log level ------------------------------------------------------------------------------ */

err_t api_log_level_get(struct api_request *request)
{
    struct buf buf;
    struct out out;
    api_answer_begin(request, &buf, &out);
    out_map(&out);
    out_field_text(&out, "level", log_level_text(log_level()));
    out_end(&out);
    api_answer(request, 200, &buf);
    return NULL;
}

err_t api_log_level_put(struct api_request *request)
{
    struct in_value values[IN_VALUES_MAX];
    enum log_level level = LOG_LEVEL_INFO;
    TRY(api_read(request, IN_log_level, values));
    if (!log_parse_level(values[IN(log_level, level)].span, &level)) {
        return ERR(INVALID, "level: must be error, warn, info or debug");
    }
    log_set_level(level);
    LOG_INFO("log level changed", LOG_TEXT("level", log_level_text(level)));
    return api_log_level_get(request);
}

/* ---- probes --------------------------------------------------------------------------------- */

enum { TEXT_MAX = 64 << 10 };
static const char type_text[] = "text/plain; charset=utf-8";

err_t api_health_get(struct api_request *request)
{
    struct buf buf;
    buf_init(&buf, TEXT_MAX);
    buf_append_text(&buf, "ok\n");
    api_answer_text(request, 200, type_text, &buf);
    return NULL;
}

static void check_print(struct buf *buf, bool verbose, bool passed, const char *name,
                        const char *what)
{
    if (verbose || !passed) {
        buf_printf(buf, "[%c] %s %s\n", passed ? '+' : '-', name, what);
    }
}

err_t api_ready_get(struct api_request *request)
{
    const struct api *api = request->api;
    bool verbose = false;
    TRY(api_parameter_bool(request, "verbose", false, &verbose));
    struct buf buf;
    buf_init(&buf, TEXT_MAX);
    bool ready = !api->stopping;
    check_print(&buf, verbose, ready, "running", ready ? "ok" : "failed: the broker is stopping");
    for (uint32_t index = 0; index <= router_volume_count(api->router); index++) {
        struct router_volume_status status;
        char what[sizeof status.failure + 64];
        router_volume_status(api->router, index, &status);
        (void)snprintf(what, sizeof what, "%s%s",
                       status.failed ? "failed: "
                       : status.full ? "ok, but full: publishing is refused"
                                     : "ok",
                       status.failed ? status.failure : "");
        check_print(&buf, verbose, !status.failed, status.name, what);
        ready = ready && !status.failed;
    }
    buf_append_text(&buf, ready ? "ready\n" : "not ready\n");
    api_answer_text(request, ready ? 200 : 503, type_text, &buf);
    return NULL;
}

err_t api_openapi_get(struct api_request *request)
{
    struct buf buf;
    buf_init(&buf, API_ANSWER_MAX);
    buf_append_span(&buf, buf_span(&request->api->openapi));
    api_answer_text(request, 200, "application/json", &buf);
    return NULL;
}
