/* One look at a broker for `flare top`: depths as they are, and rates as what has changed since the
 * look before. Everything comes from the HTTP API; how much is asked for is bounded by the number
 * of topics that are wanted, not by those there are. */
#ifndef FLARE_TOP_SAMPLE_H
#define FLARE_TOP_SAMPLE_H

#include <jansson.h>
#include <stdint.h>

#include "tools/flare/client.h"

struct top_scope {
    const char *topic;   /* NULL: all */
    uint64_t topics_max; /* those with the greatest backlog are looked at */
};

struct top_sample {
    uint64_t taken_us;
    json_t *broker;       /* what it says of itself, and its counters */
    json_t *rows;         /* "topic/subscription" to its figures; "topic/" when it has none */
    uint64_t topics_left; /* topics that were not looked at */
};

/* NOT_FOUND when the topic of the scope is not there. */
err_t top_sample_take(struct client *client, const struct top_scope *scope,
                      struct top_sample *out) MUST_CHECK;
/* May be called on a zeroed one. */
void top_sample_deinit(struct top_sample *sample);

/* The rows as an array, with rates per second since `before`; without, rates are missing. `sort` is
 * "depth", "oldest", "rate", "dead" (the greatest first) or "name". The caller's to release. */
json_t *top_sample_rows(const struct top_sample *sample, const struct top_sample *before,
                        const char *sort);
/* The broker's document with its rates. The caller's to release. */
json_t *top_sample_broker(const struct top_sample *sample, const struct top_sample *before);

#endif
