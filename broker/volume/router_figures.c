#include "broker/volume/router_figures.h"

#include <assert.h>
#include <stdlib.h>

struct router_rows router_rows(const struct reply *reply)
{
    return (struct router_rows){.rest = buf_span(&reply->items)};
}

static const void *stats_take(struct router_rows *stats, size_t size)
{
    if (stats->rest.size < size) {
        return NULL;
    }
    const void *row = stats->rest.data;
    stats->rest = span_of(stats->rest.data + size, stats->rest.size - size);
    return row;
}

const struct shard_stats *router_rows_shard(struct router_rows *stats)
{
    return stats_take(stats, sizeof(struct shard_stats));
}

const struct sub_stats *router_rows_sub(struct router_rows *stats)
{
    const struct sub_stats *row = stats_take(stats, sizeof(struct sub_stats));
    assert(row != NULL); /* the volume counted them */
    return row;
}

static int figures_compare(const void *a, const void *b)
{
    uint32_t a_id = ((const struct router_figures *)a)->sub_id;
    uint32_t b_id = ((const struct router_figures *)b)->sub_id;
    return (a_id > b_id) - (a_id < b_id);
}

struct router_figures *router_figures_find(struct router_figures *figures, size_t count,
                                           uint32_t sub_id)
{
    struct router_figures key = {.sub_id = sub_id};
    return count == 0 ? NULL : bsearch(&key, figures, count, sizeof key, figures_compare);
}

static void figures_add(struct router_figures *figures, const struct sub_stats *stats)
{
    figures->enqueued += stats->enqueued;
    figures->leased += stats->leased;
    figures->scheduled += stats->scheduled;
    figures->dead += stats->dead;
    if (stats->oldest_ms != 0 &&
        (figures->oldest_ms == 0 || stats->oldest_ms < figures->oldest_ms)) {
        figures->oldest_ms = stats->oldest_ms;
    }
}

void router_figures_gather(const struct router_operation *operation, struct router_figures *figures,
                           size_t count)
{
    if (count > 0) {
        qsort(figures, count, sizeof *figures, figures_compare);
    }
    const struct reply *reply = NULL;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        struct router_rows rows = router_rows(reply);
        const struct shard_stats *shard;
        while ((shard = router_rows_shard(&rows)) != NULL) {
            for (uint32_t index = 0; index < shard->sub_count; index++) {
                const struct sub_stats *row = router_rows_sub(&rows);
                struct router_figures *found = router_figures_find(figures, count, row->sub_id);
                if (found != NULL) {
                    figures_add(found, row);
                }
            }
        }
    }
}
