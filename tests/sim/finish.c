#include "tests/sim/finish.h"

enum {
    ROUNDS_MAX = 4000, /* in each, every subscription is pulled and acknowledged once: progress or a
                          failure */
    TICKS_MAX = 100000,
    TICK_BUDGET = 5000,
    DRAIN_STEP_MS = 2000,
    PULL_MAX = WORKLOAD_SETTLE_MAX,
};

/* One command alone, judged. Its pointers go into the first slot. */
static const struct reply *run(struct workload *workload, struct volume *volume,
                               const struct command *command)
{
    struct engine_batch *batch = &workload->batch;
    batch->commands[0] = *command;
    batch->commands[0].now_ms = workload->now_ms;
    batch->count = 1;
    batch->accident = ACCIDENT_NONE;
    /* A commit may show segments that can go. */
    batch->direct = command->type == COMMAND_TICK || random_chance(&workload->random, 1, 10);
    batch->checkpoint = false;
    (void)engine_run(&volume->engine, batch);
    model_judge(&volume->model, &batch->commands[0], &batch->replies[0]);
    model_judge_effects(&volume->model, &volume->engine.effects);
    return &batch->replies[0];
}

/* Pages through everything that is in one state. */
static void look(struct workload *workload, struct volume *volume, uint32_t sub_id,
                 enum message_state state)
{
    struct reply *reply = &workload->batch.replies[0];
    struct command command = {.type = COMMAND_PEEK};
    command.peek =
        (struct peek){.sub_id = sub_id, .state = state, .max = UINT32_MAX, .size_max = UINT32_MAX};
    do {
        engine_look(&volume->engine, &command, reply);
        model_note_unmoved(&volume->model, reply, sub_id);
        command.peek.from_shard_id = reply->next_shard_id;
        command.peek.from_sequence = reply->next_sequence;
    } while (reply->more);
}

void finish_doubt(struct workload *workload, struct volume *volume)
{
    struct model *model = &volume->model;
    if (!model->doubt) {
        return;
    }
    for (size_t topic_index = 0; topic_index < model->topics.count; topic_index++) {
        const struct model_topic *topic = model->topics.items[topic_index];
        for (size_t index = 0; index < topic->subs.count; index++) {
            const struct model_sub *sub = topic->subs.items[index];
            if (model_sub_in_doubt(model, sub)) {
                look(workload, volume, sub->id, MESSAGE_LEASED);
                look(workload, volume, sub->id, MESSAGE_SCHEDULED);
            }
        }
    }
    model_resolve_doubt(model);
    model_judge_effects(model, &(struct effects){.leases_expired = 0});
}

/* ---- draining ---- */

/* Everything that is given out is finished at once. */
static void pull_and_ack(struct workload *workload, struct volume *volume, uint32_t sub_id)
{
    struct slot *slot = &workload->slots[0];
    struct command command = {.type = COMMAND_PULL};
    command.pull = (struct pull){.sub_id = sub_id, .max = PULL_MAX, .size_max = UINT32_MAX};
    command.pull.nonce = (uint32_t)random_next(&workload->random);
    const struct reply *reply = run(workload, volume, &command);
    uint32_t count = reply_delivery_count(reply);
    for (uint32_t index = 0; index < count; index++) {
        const struct delivery *delivery = reply_delivery(reply, index);
        slot->receipts[index] =
            (struct receipt){sub_id,          delivery->shard_id, delivery->sequence,
                             delivery->epoch, delivery->grant,    delivery->attempt};
    }
    if (count > 0) {
        command.type = COMMAND_ACK;
        command.settle = (struct settle){
            .sub_id = sub_id, .receipts = slot->receipts, .count = count, .results = slot->codes};
        run(workload, volume, &command);
    }
}

static void tick(struct workload *workload, struct volume *volume)
{
    const struct command stats = {.type = COMMAND_STATS};
    struct command command = {.type = COMMAND_TICK};
    command.tick.budget = TICK_BUDGET;
    run(workload, volume, &command);
    finish_doubt(workload, volume);
    run(workload, volume, &stats);
}

/* Ticks when the machine says that something is due, moving the clock there and a little on. False:
 * nothing will ever be. */
static bool tick_when_due(struct workload *workload, struct volume *volume)
{
    uint64_t due_ms = engine_next_due_ms(&volume->engine);
    if (due_ms == UINT64_MAX) {
        return false;
    }
    workload->now_ms = due_ms > workload->now_ms ? due_ms : workload->now_ms;
    workload->now_ms += random_below(&workload->random, DRAIN_STEP_MS);
    tick(workload, volume);
    return true;
}

typedef void (*sub_visit)(struct workload *workload, struct volume *volume,
                          const struct model_sub *sub);

static void each_sub(struct workload *workload, struct volume *volume, sub_visit visit)
{
    for (size_t topic_index = 0; topic_index < volume->model.topics.count; topic_index++) {
        const struct model_topic *topic = volume->model.topics.items[topic_index];
        for (size_t index = 0; index < topic->subs.count; index++) {
            visit(workload, volume, topic->subs.items[index]);
        }
    }
}

static void resume(struct workload *workload, struct volume *volume, const struct model_sub *sub)
{
    struct command command = {.type = COMMAND_SUB_PUT};
    command.sub_put =
        (struct sub_put){.sub_id = sub->id, .topic_id = sub->topic->id, .settings = sub->settings};
    command.sub_put.settings.paused = false;
    command.sub_put.settings.max_in_flight = 0;
    run(workload, volume, &command);
}

static void drain_sub(struct workload *workload, struct volume *volume, const struct model_sub *sub)
{
    if (model_sub_unfinished(sub)) {
        pull_and_ack(workload, volume, sub->id);
    }
}

static void redrive_sub(struct workload *workload, struct volume *volume,
                        const struct model_sub *sub)
{
    struct command command = {.type = COMMAND_REDRIVE};
    command.redrive = (struct redrive){.sub_id = sub->id, .max = UINT32_MAX};
    run(workload, volume, &command);
}

static void purge_sub(struct workload *workload, struct volume *volume, const struct model_sub *sub)
{
    struct command command = {.type = COMMAND_PURGE};
    command.purge = (struct purge){.sub_id = sub->id, .dead = true};
    run(workload, volume, &command);
}

static bool is_unfinished(const struct volume *volume)
{
    for (size_t topic_index = 0; topic_index < volume->model.topics.count; topic_index++) {
        const struct model_topic *topic = volume->model.topics.items[topic_index];
        for (size_t index = 0; index < topic->subs.count; index++) {
            if (model_sub_unfinished(topic->subs.items[index])) {
                return true;
            }
        }
    }
    return false;
}

/* Time stands still while there is something to pull; then it goes on to when the machine wants to
 * be called. */
static void drain(struct workload *workload, struct volume *volume)
{
    for (uint32_t round = 0; is_unfinished(volume); round++) {
        uint64_t moved = volume->model.figures.delivered + volume->model.figures.dead;
        MODEL_EXPECT(&volume->model, round < ROUNDS_MAX, "after %u rounds messages are left",
                     round);
        each_sub(workload, volume, drain_sub);
        if (moved == volume->model.figures.delivered + volume->model.figures.dead &&
            is_unfinished(volume)) {
            MODEL_EXPECT(&volume->model, tick_when_due(workload, volume),
                         "messages are left and the machine has nothing to do");
        }
    }
}

static void end_retention(struct workload *workload, struct volume *volume)
{
    for (size_t index = 0; index < volume->model.topics.count; index++) {
        const struct model_topic *topic = volume->model.topics.items[index];
        struct command command = {.type = COMMAND_TOPIC_PUT};
        command.topic_put = (struct topic_put){.topic_id = topic->id, .settings = topic->settings};
        command.topic_put.settings.retention_ms = 0;
        command.topic_put.settings.retention_bytes = 0;
        run(workload, volume, &command);
    }
}

static void drop_topics(struct workload *workload, struct volume *volume)
{
    while (volume->model.topics.count > 0) {
        const struct model_topic *topic = volume->model.topics.items[0];
        struct command command = {.type = COMMAND_TOPIC_DROP};
        command.topic_drop = topic->id;
        run(workload, volume, &command);
    }
}

/* ---- what is left in the store ---- */

static void tick_to_the_end(struct workload *workload, struct volume *volume)
{
    uint32_t ticks = 0;
    while (tick_when_due(workload, volume)) {
        MODEL_EXPECT(&volume->model, ++ticks < TICKS_MAX, "after %u ticks there is still work",
                     ticks);
    }
}

static void check_rows(struct volume *volume)
{
    const struct model *model = &volume->model;
    uint64_t topics = model->topics.count;
    uint64_t shards = 0;
    uint64_t subs = 0;
    uint64_t lanes = 0;
    for (size_t index = 0; index < topics; index++) {
        const struct model_topic *topic = model->topics.items[index];
        shards += topic->shards.count;
        subs += topic->subs.count;
        lanes += topic->shards.count * topic->subs.count;
    }
    /* The log keeps its open segment, and each shard the unfinished block of its index. */
    const struct {
        const char *name;
        enum store_table table;
        uint64_t rows_max;
    } rows[] = {
        {"TOPIC", STORE_TOPIC, topics},
        {"SHARD", STORE_SHARD, shards},
        {"SUB", STORE_SUB, subs},
        {"INDEX", STORE_INDEX, shards},
        {"DELIVERY", STORE_DELIVERY, lanes},
        {"SEGMENT", STORE_SEGMENT, 1},
        {"READY", STORE_READY, 0},
        {"DUE", STORE_DUE, 0},
        {"DEAD", STORE_DEAD, 0},
        {"DEDUP", STORE_DEDUP, 0},
        {"SWEEP", STORE_SWEEP, 0},
        {"GC", STORE_GC, 0},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        uint64_t count = engine_rows(&volume->engine, rows[index].table);
        MODEL_EXPECT(model, count <= rows[index].rows_max,
                     "when all is done, table %s has %llu rows where %llu are needed",
                     rows[index].name, (unsigned long long)count,
                     (unsigned long long)rows[index].rows_max);
    }
}

void finish_volume(struct workload *workload, struct volume *volume)
{
    workload->now_ms =
        workload->now_ms > volume->model.now_ms ? workload->now_ms : volume->model.now_ms;
    if (random_chance(&workload->random, 1, 2)) {
        engine_restart(&volume->engine);
    }
    each_sub(workload, volume, resume);
    drain(workload, volume);
    if (random_chance(&workload->random, 1, 2)) {
        each_sub(workload, volume, redrive_sub);
        drain(workload, volume);
    }
    each_sub(workload, volume, purge_sub);
    end_retention(workload, volume);
    if (random_chance(&workload->random, 1, 2)) {
        drop_topics(workload, volume);
    }
    tick_to_the_end(workload, volume);
    check_rows(volume);
    engine_check(&volume->engine);
}
