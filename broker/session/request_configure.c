/* What topic_put and sub_put ask for, and their answer. */
#include "broker/session/requests.h"

static void configure_on_done(struct router_operation *operation)
{
    struct session_request *request = operation->user;
    const struct catalog_change *change = &request->configure.change;
    const struct catalog *catalog = router_catalog(request->server->options.router);
    if (request->conn != NULL && !session_request_failed(request)) {
        const struct catalog_topic *topic = catalog_topic(catalog, change->topic);
        const struct catalog_sub *sub =
            topic == NULL || change->sub.size == 0 ? NULL : catalog_sub(topic, change->sub);
        const struct wire_configured configured = {
            .id = request->id,
            .created = change->created,
            .version = sub != NULL     ? sub->version
                       : topic != NULL ? topic->version
                                       : 0,
        };
        session_conn_send(request->conn, WIRE_configured, &configured);
    }
    session_request_end(request);
}

static err_t configure_start(struct session_request *request)
{
    session_request_prepare(request, configure_on_done);
    router_start_configure(request->server->options.router, &request->configure);
    return NULL;
}

err_t session_topic_put_start(struct session_request *request)
{
    const struct wire_topic_put *wire = &request->frame.topic_put;
    if (wire->retention_ms != 0 && wire->retention_ms < CATALOG_RETENTION_MIN_MS) {
        return ERR(INVALID, "retention_ms: must be 0, or at least %d", CATALOG_RETENTION_MIN_MS);
    }
    request->configure = (struct router_configure){
        .change = {.op = CATALOG_TOPIC_PUT,
                   .topic = wire->topic,
                   .shard_count = wire->shards,
                   .topic_settings = {.retention_ms = wire->retention_ms,
                                      .retention_bytes = wire->retention_bytes,
                                      .dedup_window_ms = wire->idempotency_window_ms == WIRE_NIL
                                                             ? CATALOG_DEDUP_WINDOW_DEFAULT_MS
                                                             : wire->idempotency_window_ms,
                                      .durability = (enum durability)wire->durability}}};
    return configure_start(request);
}

err_t session_sub_put_start(struct session_request *request)
{
    static const enum start_at starts[] = {START_LATEST, START_EARLIEST, START_TIME};
    const struct wire_sub_put *wire = &request->frame.sub_put;
    TRY(session_check_lease(wire->lease_ms));
    request->configure = (struct router_configure){
        .change = {.op = CATALOG_SUB_PUT,
                   .topic = wire->topic,
                   .sub = wire->subscription,
                   .sub_settings = {.lease_ms = wire->lease_ms == 0 ? CATALOG_LEASE_DEFAULT_MS
                                                                    : wire->lease_ms,
                                    .retry_delay_ms = wire->retry_delay_ms,
                                    .max_attempts = wire->max_attempts == WIRE_NIL
                                                        ? CATALOG_ATTEMPTS_DEFAULT
                                                        : (uint32_t)wire->max_attempts,
                                    .max_in_flight = wire->max_in_flight},
                   .keep_paused = true,
                   .start = starts[wire->start],
                   .start_value = wire->start_ms}};
    return configure_start(request);
}
