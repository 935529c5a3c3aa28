#include "broker/volume/router_count.h"

void router_count_published(const struct router_publish *publish, struct metrics *metrics)
{
    uint64_t published = 0;
    uint64_t replayed = 0;
    uint64_t size = 0;
    for (uint32_t index = 0; index < publish->count; index++) {
        const struct publish_result *result = &publish->results[index];
        if (result->code == ERR_NONE && result->replayed) {
            replayed++;
        } else if (result->code == ERR_NONE) {
            published++;
            size += publish->messages[index].body.size;
        }
    }
    metrics_add(&metrics->messages_published_total, published);
    metrics_add(&metrics->messages_published_bytes_total, size);
    metrics_add(&metrics->messages_deduplicated_total, replayed);
}

uint64_t router_count_delivered(const struct router_operation *operation, struct metrics *metrics)
{
    uint64_t delivered = 0;
    const struct reply *reply = NULL;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        delivered += reply_delivery_count(reply);
    }
    metrics_add(&metrics->messages_delivered_total, delivered);
    return delivered;
}

uint32_t router_count_settled(const struct router_settle *settle, struct metrics *metrics,
                              enum err_code *first)
{
    _Atomic uint64_t *const counters[] = {
        [ROUTER_ACK] = &metrics->messages_acknowledged_total,
        [ROUTER_NACK] = &metrics->messages_nacked_total,
        [ROUTER_EXTEND] = &metrics->leases_extended_total,
    };
    uint32_t failed = 0;
    *first = ERR_NONE;
    for (uint32_t index = 0; index < settle->count; index++) {
        enum err_code one = settle->results[index];
        failed += one != ERR_NONE;
        *first = *first == ERR_NONE ? one : *first;
    }
    metrics_add(counters[settle->kind], settle->count - failed);
    metrics_add(&metrics->receipts_refused_total, failed);
    return failed;
}
