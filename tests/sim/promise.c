#include "tests/sim/promise.h"

/* Keeps the messages of a publish that were taken in, with what was answered of them. */
static void keep_promised(struct slot *slot, const struct command *command)
{
    uint32_t count = 0;
    for (uint32_t index = 0; index < command->publish.count; index++) {
        const struct publish_result *result = &slot->results[index];
        if (result->code == ERR_NONE && !result->replayed) {
            slot->messages[count] = slot->messages[index];
            slot->promised[count++] = result->sequence;
        }
    }
    if (count > 0) {
        slot->promise = *command;
        slot->promise.publish.count = count;
        slot->promise.publish.atomic = false;
    }
}

uint64_t promise_note(struct workload *workload, struct volume *volume)
{
    struct engine_batch *batch = &workload->batch;
    uint64_t count = 0;
    for (uint32_t index = 0; index < batch->count; index++) {
        struct slot *slot = &workload->slots[index];
        const struct command *command = &batch->commands[index];
        slot->promise = (struct command){.now_ms = 0};
        slot->answered = batch->answered && batch->replies[index].early;
        if (slot->answered && command->type == COMMAND_PUBLISH) {
            model_promise(&volume->model, &command->publish);
            keep_promised(slot, command);
            count += slot->promise.publish.count;
        }
    }
    if (count > 0) {
        trace_note(volume->model.trace, "%llu messages of it have been answered",
                   (unsigned long long)count);
    }
    return count;
}

void promise_prepare(struct workload *workload, enum promise_part part)
{
    struct engine_batch *batch = &workload->batch;
    batch->accident = ACCIDENT_NONE;
    workload->now_ms += workload_below(workload, workload->swarm.step_ms + 1U);
    for (uint32_t index = 0; index < batch->count; index++) {
        const struct slot *slot = &workload->slots[index];
        struct command *command = &batch->commands[index];
        bool promised = slot->promise.type == COMMAND_PUBLISH;
        if (promised && part != PROMISE_OTHERS) {
            *command = slot->promise;
        } else if (slot->answered || part == PROMISE_ALONE) {
            *command = (struct command){.type = COMMAND_STATS};
        }
        command->now_ms = workload->now_ms;
        command->no_space = !promised;
    }
}

void promise_check(const struct workload *workload, const struct volume *volume)
{
    for (uint32_t index = 0; index < workload->batch.count; index++) {
        const struct slot *slot = &workload->slots[index];
        const struct publish *publish = &slot->promise.publish;
        if (slot->promise.type != COMMAND_PUBLISH ||
            model_topic(&volume->model, publish->topic_id) == NULL) {
            continue;
        }
        for (uint32_t at = 0; at < publish->count; at++) {
            const struct publish_result *result = &slot->results[at];
            MODEL_EXPECT(&volume->model,
                         result->code == ERR_NONE && !result->replayed &&
                             result->sequence == slot->promised[at],
                         "message %u:%llu was answered, and applied again it is %u:%llu (%s)",
                         slot->messages[at].shard_id, (unsigned long long)slot->promised[at],
                         result->shard_id, (unsigned long long)result->sequence,
                         err_slug(result->code));
        }
    }
}

void promise_break(struct workload *workload, struct volume *volume)
{
    struct reply *reply = &workload->batch.replies[0];
    const struct command stats = {.type = COMMAND_STATS};
    engine_look(&volume->engine, &stats, reply);
    model_judge(&volume->model, &stats, reply);
    model_lose_promised(&volume->model);
}
