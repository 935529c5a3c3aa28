/* What the volumes say of topics: the rows of STATS, and their sums. */
#ifndef VOLUME_ROUTER_FIGURES_H
#define VOLUME_ROUTER_FIGURES_H

#include "broker/volume/router.h"

/* The rows of a reply to STATS, one after the other: each shard, then its sub_count subscriptions.
 */
struct router_rows {
    struct span rest;
};
struct router_rows router_rows(const struct reply *reply);
const struct shard_stats *router_rows_shard(struct router_rows *cursor); /* NULL: the end */
const struct sub_stats *router_rows_sub(struct router_rows *cursor);

/* Sums over the shards of subscriptions. Gathering sorts them by sub_id, so that they are found. */
struct router_figures {
    uint32_t sub_id;
    uint64_t enqueued;
    uint64_t leased;
    uint64_t scheduled;
    uint64_t dead;
    uint64_t oldest_ms; /* 0: none */
};
void router_figures_gather(const struct router_operation *operation, struct router_figures *figures,
                           size_t count);
struct router_figures *router_figures_find(struct router_figures *figures, size_t count,
                                           uint32_t sub_id);

#endif
