/* The parts of the model, for model*.c only: one judge for each kind of command, and the moves they
 * share. */
#ifndef SIM_MODEL_PARTS_H
#define SIM_MODEL_PARTS_H

#include "tests/sim/model.h"

/* model_topics.c */
void model_judge_topic_put(struct model *model, const struct topic_put *put,
                           const struct reply *reply);
void model_judge_topic_drop(struct model *model, uint32_t topic_id);
void model_judge_sub_put(struct model *model, const struct sub_put *put, const struct reply *reply);
void model_judge_sub_drop(struct model *model, uint32_t sub_id);
/* Whether publishes of the topic, and pulls of what they brought, may be answered before their
 * batch is committed. */
bool model_topic_early(const struct model_topic *topic);
/* First sequence at or after `from` published at `time_ms` or later. */
uint64_t model_find_time(const struct model_shard *shard, uint64_t from, uint64_t time_ms);

/* model_messages.c */
void model_judge_publish(struct model *model, const struct command *command,
                         const struct reply *reply);
void model_judge_pull(struct model *model, const struct pull *pull, const struct reply *reply);
void model_judge_settle(struct model *model, const struct command *command,
                        const struct reply *reply);

/* model_inspect.c */
void model_judge_peek(struct model *model, const struct peek *peek, const struct reply *reply);
void model_judge_redrive(struct model *model, const struct redrive *redrive,
                         const struct reply *reply);
void model_judge_purge(struct model *model, const struct purge *purge, const struct reply *reply);
void model_judge_seek(struct model *model, const struct seek *seek, const struct reply *reply);
void model_judge_stats(struct model *model, const struct stats *stats, const struct reply *reply);

/* model.c: how far retention may have come by `now_ms`, and that it has come so far. */
uint64_t model_retention_limit(const struct model_shard *shard, uint64_t now_ms);
void model_retention_adopt(struct model_shard *shard, uint64_t retained_from);

/* model.c: one message changes its state. */
struct model_entry *model_entry(struct model_lane *lane, uint64_t sequence);
void model_move(struct model_lane *lane, uint64_t sequence, enum message_state to);
void model_schedule(struct model_lane *lane, uint64_t sequence, uint64_t due_ms);
void model_bury(struct model *model, struct model_lane *lane, uint64_t sequence,
                enum dead_reason reason, const char *note);
/* A lease ended without success. */
void model_give_back(struct model *model, struct model_lane *lane, uint64_t sequence,
                     uint64_t delay_ms, const char *note);
/* The message of a reply is the one that was published, unchanged. */
void model_check_message(const struct model *model, const struct model_lane *lane,
                         const struct reply *reply, const struct delivery *delivery);

#endif
