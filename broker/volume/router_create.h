/* Making a router: for the node, which owns volumes and catalog. */
#ifndef VOLUME_ROUTER_CREATE_H
#define VOLUME_ROUTER_CREATE_H

#include "broker/volume/router.h"
#include "broker/volume/volume.h"

enum { ROUTER_VOLUMES_MAX = 64 };

struct router_options {
    struct volume **volumes; /* volume_count of them, then the catalog's; borrowed */
    uint32_t volume_count;
    struct catalog *catalog; /* the router's copy, loaded; borrowed */
    const struct clock *clock;
    uint64_t seed;
    void (*wake)(void *context); /* router_poll has something to do; from any thread */
    void *wake_context;
};

err_t router_create(const struct router_options *options, struct router **out) MUST_CHECK;

/* Does, on every volume, what a stop in the middle left undone (topics and subscriptions half
 * created or half deleted, settings not yet everywhere). An operation like the others: start-up
 * waits for its `done`. */
struct router_reconcile {
    struct router_operation operation;
};
void router_start_reconcile(struct router *router, struct router_reconcile *reconcile);

/* When router_pending is 0; before the volumes are stopped. */
void router_destroy(struct router *router);

#endif
