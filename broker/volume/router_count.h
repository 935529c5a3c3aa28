/* What the faces count of finished operations, in one way for all of them. */
#ifndef VOLUME_ROUTER_COUNT_H
#define VOLUME_ROUTER_COUNT_H

#include "broker/metrics/metrics.h"
#include "broker/volume/router.h"

/* Repeated messages were published before, with the answer they got then. */
void router_count_published(const struct router_publish *publish, struct metrics *metrics);

/* Returns how many messages a pull was given. */
uint64_t router_count_delivered(const struct router_operation *operation, struct metrics *metrics);

/* Returns how many receipts took no effect; `first` is the reason of the first of them. */
uint32_t router_count_settled(const struct router_settle *settle, struct metrics *metrics,
                              enum err_code *first);

#endif
