/* What the volumes say of topics: the rows of STATS, and their sums. */
#include <assert.h>
#include <stdlib.h>

#include "broker/http/api_request.h"

struct api_stats api_stats(const struct reply *reply)
{
    return (struct api_stats){.rest = buf_span(&reply->items)};
}

static const void *stats_take(struct api_stats *stats, size_t size)
{
    if (stats->rest.size < size) {
        return NULL;
    }
    const void *row = stats->rest.data;
    stats->rest = span_of(stats->rest.data + size, stats->rest.size - size);
    return row;
}

const struct shard_stats *api_stats_shard(struct api_stats *stats)
{
    return stats_take(stats, sizeof(struct shard_stats));
}

const struct sub_stats *api_stats_sub(struct api_stats *stats)
{
    const struct sub_stats *row = stats_take(stats, sizeof(struct sub_stats));
    assert(row != NULL); /* the volume counted them */
    return row;
}

static int figures_compare(const void *a, const void *b)
{
    uint32_t a_id = ((const struct api_figures *)a)->sub_id;
    uint32_t b_id = ((const struct api_figures *)b)->sub_id;
    return (a_id > b_id) - (a_id < b_id);
}

struct api_figures *api_figures_find(struct api_figures *figures, size_t count, uint32_t sub_id)
{
    struct api_figures key = {.sub_id = sub_id};
    return count == 0 ? NULL : bsearch(&key, figures, count, sizeof key, figures_compare);
}

static void figures_add(struct api_figures *figures, const struct sub_stats *stats)
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

void api_figures_gather(const struct router_operation *operation, struct api_figures *figures,
                        size_t count)
{
    if (count > 0) {
        qsort(figures, count, sizeof *figures, figures_compare);
    }
    const struct reply *reply = NULL;
    while ((reply = router_reply_next(operation, reply)) != NULL) {
        struct api_stats rows = api_stats(reply);
        const struct shard_stats *shard;
        while ((shard = api_stats_shard(&rows)) != NULL) {
            for (uint32_t index = 0; index < shard->sub_count; index++) {
                const struct sub_stats *row = api_stats_sub(&rows);
                struct api_figures *found = api_figures_find(figures, count, row->sub_id);
                if (found != NULL) {
                    figures_add(found, row);
                }
            }
        }
    }
}
