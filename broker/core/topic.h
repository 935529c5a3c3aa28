/* Topics, shards, subscriptions and lanes of this volume: their rows, creation and removal (TOPIC,
 * SHARD, SUB, DELIVERY). */
#ifndef CORE_TOPIC_H
#define CORE_TOPIC_H

#include "broker/core/state.h"

err_t topic_put(struct core *core, const struct topic_put *put, struct reply *reply) MUST_CHECK;
err_t topic_drop(struct core *core, uint32_t topic_id) MUST_CHECK;
err_t topic_sub_put(struct core *core, const struct sub_put *put, struct reply *reply) MUST_CHECK;
err_t topic_sub_drop(struct core *core, uint32_t sub_id) MUST_CHECK;

/* One step of removing what has been dropped. `worked` false: nothing is being removed. */
err_t topic_drop_step(struct core *core, bool *worked) MUST_CHECK;

/* Whether what this batch does to the topic's messages may be answered before its commit: not in a
 * batch that puts the topic, which may have to be applied again without what came before. */
bool topic_answers_early(const struct core *core, const struct topic *topic);
/* Whether retention keeps messages that no subscription needs. */
bool topic_retains(const struct topic *topic);
/* The first sequence from which on every message of the shard is still there. */
uint64_t topic_shard_floor(const struct shard *shard);

void topic_mark_shard(struct core *core, struct shard *shard);
void topic_mark_lane(struct core *core, struct lane *lane);
err_t topic_shard_write(struct core *core, const struct shard *shard) MUST_CHECK;
err_t topic_lane_write(struct core *core, const struct lane *lane) MUST_CHECK;

/* At start: everything of these kinds. */
err_t topic_load(struct core *core) MUST_CHECK;
/* Forgets all of it, without touching the store. */
void topic_forget_all(struct core *core);

#endif
