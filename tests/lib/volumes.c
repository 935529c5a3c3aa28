#include "tests/lib/volumes.h"

#include <assert.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "broker/core/core.h"
#include "storage/memory.h"
#include "tests/lib/deadline.h"

enum { WAIT_MAX_MS = 20000, REPLAY_BYTES = 1024 * 1024, QUIESCE_ROUNDS = 2 };

/* ---- the stage ------------------------------------------------------------------------------ */

static struct volumes_stage *stage_of(const struct machine *machine)
{
    return container_of(machine, struct volumes_stage, machine);
}

/* The stage's own table of functions is in the stage: the way from a store to it. */
static struct volumes_stage *stage_of_store(const struct store *store)
{
    return container_of(store->ops, struct volumes_stage, ops);
}

static err_t stage_load(struct machine *machine, struct store_txn *txn)
{
    struct machine *inner = stage_of(machine)->inner;
    return inner->ops->load(inner, txn);
}

static err_t stage_apply(struct machine *machine, struct store_txn *txn,
                         const struct command *command, struct reply *reply,
                         struct effects *effects)
{
    struct volumes_stage *stage = stage_of(machine);
    pthread_mutex_lock(&stage->lock);
    stage->idle = false;
    while (stage->hold && command->type != COMMAND_TICK) {
        stage->held = true;
        pthread_cond_broadcast(&stage->changed);
        pthread_cond_wait(&stage->changed, &stage->lock);
    }
    stage->held = false;
    stage->ticks += command->type == COMMAND_TICK;
    stage->batch_publishes =
        stage->batch_publishes || (command->type == COMMAND_PUBLISH && !command->no_space);
    if (command->type != COMMAND_TICK) {
        stage->batch_count += stage->batch_size == 0;
        stage->batch_sizes[(stage->batch_count - 1) % VOLUMES_BATCHES_MAX] = ++stage->batch_size;
    }
    enum err_code code = command->type == stage->apply_type ? stage->apply_code : ERR_NONE;
    pthread_mutex_unlock(&stage->lock);
    if (code != ERR_NONE) {
        return err_make(code, __FILE__, __LINE__, __func__, "planted in apply");
    }
    return stage->inner->ops->apply(stage->inner, txn, command, reply, effects);
}

static err_t stage_flush(struct machine *machine, struct store_txn *txn)
{
    struct machine *inner = stage_of(machine)->inner;
    return inner->ops->flush(inner, txn);
}

static uint64_t stage_changes(const struct machine *machine)
{
    const struct machine *inner = stage_of(machine)->inner;
    return inner->ops->changes(inner);
}

static void stage_end_batch(struct machine *machine, bool durable)
{
    struct machine *inner = stage_of(machine)->inner;
    inner->ops->end_batch(inner, durable);
}

static bool stage_dirty(const struct machine *machine)
{
    const struct machine *inner = stage_of(machine)->inner;
    return inner->ops->dirty(inner);
}

static void stage_committed(struct machine *machine)
{
    struct machine *inner = stage_of(machine)->inner;
    inner->ops->committed(inner);
}

static uint64_t stage_now_ms(const struct machine *machine)
{
    struct machine *inner = stage_of(machine)->inner;
    return inner->ops->now_ms(inner);
}

static uint64_t stage_next_due_ms(const struct machine *machine)
{
    struct volumes_stage *stage = stage_of(machine);
    pthread_mutex_lock(&stage->lock);
    uint64_t due_ms = stage->busy ? 0 : stage->inner->ops->next_due_ms(stage->inner);
    stage->idle = due_ms > clock_wall_ms(&stage->volumes->clock);
    pthread_cond_broadcast(&stage->changed);
    pthread_mutex_unlock(&stage->lock);
    return due_ms;
}

static void stage_destroy(struct machine *machine)
{
    struct volumes_stage *stage = stage_of(machine);
    stage->inner->ops->destroy(stage->inner);
    stage->inner = NULL;
}

static const struct machine_ops stage_ops = {
    .load = stage_load,
    .apply = stage_apply,
    .flush = stage_flush,
    .changes = stage_changes,
    .end_batch = stage_end_batch,
    .dirty = stage_dirty,
    .committed = stage_committed,
    .now_ms = stage_now_ms,
    .next_due_ms = stage_next_due_ms,
    .destroy = stage_destroy,
};

static void plant_store_fault(struct volumes_stage *stage, uint64_t n)
{
    stage->store->ops = stage->inner_ops; /* the store insists on its own */
    memory_store_fail_call(stage->store, n);
    stage->store->ops = &stage->ops;
}

static err_t stage_begin(struct store *store, enum store_mode mode, struct store_txn **out)
{
    struct volumes_stage *stage = stage_of_store(store);
    pthread_mutex_lock(&stage->lock);
    stage->batch_publishes = false;
    stage->batch_size = 0;
    uint64_t fail_call = stage->fail_call;
    stage->fail_call = 0;
    pthread_mutex_unlock(&stage->lock);
    if (fail_call > 0) {
        plant_store_fault(stage, fail_call);
    }
    return stage->inner_ops->begin(store, mode, out);
}

/* Takes one of the commits that are left. */
static bool commits_are_over(struct volumes *volumes)
{
    int left = atomic_load(&volumes->commits_left);
    while (left > 0 && !atomic_compare_exchange_weak(&volumes->commits_left, &left, left - 1)) {
    }
    return left == 0;
}

static err_t stage_commit(struct store_txn *txn)
{
    struct volumes_stage *stage = stage_of_store(txn->store);
    pthread_mutex_lock(&stage->lock);
    bool concerned = !stage->publishes_only || stage->batch_publishes;
    enum err_code code = concerned && stage->commit_count > 0 ? stage->commit_code : ERR_NONE;
    stage->commit_count -= code != ERR_NONE && stage->commit_count != UINT32_MAX;
    pthread_mutex_unlock(&stage->lock);
    if (code == ERR_NONE && commits_are_over(stage->volumes)) {
        code = ERR_IO;
    }
    if (code != ERR_NONE) {
        stage->inner_ops->abort(txn);
        return err_make(code, __FILE__, __LINE__, __func__, "planted in commit");
    }
    return stage->inner_ops->commit(txn);
}

static void stage_close(struct store *store)
{
    (void)store; /* it outlives its volume; volumes_close closes it */
}

void volumes_hold(struct volumes *volumes, uint32_t index)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    stage->hold = true;
    pthread_mutex_unlock(&stage->lock);
}

static void await_flag(struct volumes_stage *stage, const bool *flag)
{
    const struct deadline deadline = deadline_in(WAIT_MAX_MS);
    bool in_time = true;
    pthread_mutex_lock(&stage->lock);
    while (!*flag && in_time) {
        in_time = deadline_wait(&deadline, &stage->changed, &stage->lock);
    }
    pthread_mutex_unlock(&stage->lock);
    assert_true(in_time);
}

void volumes_await_held(struct volumes *volumes, uint32_t index)
{
    await_flag(&volumes->stages[index], &volumes->stages[index].held);
}

void volumes_await_idle(struct volumes *volumes, uint32_t index)
{
    await_flag(&volumes->stages[index], &volumes->stages[index].idle);
}

bool volumes_is_held(struct volumes *volumes, uint32_t index)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    bool held = stage->held;
    pthread_mutex_unlock(&stage->lock);
    return held;
}

void volumes_unhold(struct volumes *volumes, uint32_t index)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    stage->hold = false;
    stage->held = false;
    pthread_cond_broadcast(&stage->changed);
    pthread_mutex_unlock(&stage->lock);
}

void volumes_fail_commits(struct volumes *volumes, uint32_t index, enum err_code code,
                          bool publishes_only)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    stage->commit_code = code;
    stage->commit_count = UINT32_MAX;
    stage->publishes_only = publishes_only;
    pthread_mutex_unlock(&stage->lock);
}

void volumes_fail_some_commits(struct volumes *volumes, uint32_t index, enum err_code code,
                               uint32_t count)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    stage->commit_code = code;
    stage->commit_count = count;
    stage->publishes_only = false;
    pthread_mutex_unlock(&stage->lock);
}

void volumes_fail_apply(struct volumes *volumes, uint32_t index, enum command_type type,
                        enum err_code code)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    stage->apply_type = type;
    stage->apply_code = code;
    pthread_mutex_unlock(&stage->lock);
}

void volumes_fail_store(struct volumes *volumes, uint32_t index, uint64_t n)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    stage->fail_call = n;
    pthread_mutex_unlock(&stage->lock);
}

void volumes_keep_busy(struct volumes *volumes, uint32_t index)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    stage->busy = true;
    pthread_mutex_unlock(&stage->lock);
    volume_wake(volumes->list[index]);
}

uint32_t volumes_take_batches(struct volumes *volumes, uint32_t index, uint32_t *out, uint32_t max)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    uint32_t count = stage->batch_count < max ? stage->batch_count : max;
    memcpy(out, stage->batch_sizes, count * sizeof *out);
    stage->batch_count = 0;
    pthread_mutex_unlock(&stage->lock);
    return count;
}

uint32_t volumes_ticks(struct volumes *volumes, uint32_t index)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    uint32_t ticks = stage->ticks;
    pthread_mutex_unlock(&stage->lock);
    return ticks;
}

void volumes_fail_after(struct volumes *volumes, int count)
{
    atomic_store(&volumes->commits_left, count);
}

/* ---- life ----------------------------------------------------------------------------------- */

static void wake(void *context)
{
    struct volumes *volumes = context;
    pthread_mutex_lock(&volumes->lock);
    volumes->woken = true;
    pthread_cond_broadcast(&volumes->changed);
    pthread_mutex_unlock(&volumes->lock);
}

static void open_stage(struct volumes *volumes, struct volumes_stage *stage)
{
    *stage = (struct volumes_stage){.machine.ops = &stage_ops, .volumes = volumes};
    assert_int_equal(pthread_mutex_init(&stage->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&stage->changed, NULL), 0);
    assert_null(memory_store_open(&stage->store));
    stage->inner_ops = stage->store->ops;
    stage->ops = *stage->inner_ops;
    stage->ops.begin = stage_begin;
    stage->ops.commit = stage_commit;
    stage->ops.close = stage_close;
    stage->store->ops = &stage->ops;
}

static void close_stage(struct volumes_stage *stage)
{
    stage->store->ops = stage->inner_ops;
    store_close(stage->store);
    pthread_cond_destroy(&stage->changed);
    pthread_mutex_destroy(&stage->lock);
}

static struct journal *open_journal(struct volumes *volumes, uint32_t index, const char *name)
{
    char path[TMPDIR_PATH_SIZE];
    struct journal *journal = NULL;
    if (!volumes->options.journals || index == volumes->options.count) {
        return NULL;
    }
    const struct journal_options options = {
        .path = tmpdir_file(&volumes->tmpdir, name, path), .size = 1 << 20, .number = index};
    err_t err = journal_open(&options, &journal);
    if (err_code(err) == ERR_NOT_FOUND) {
        err_free(err);
        assert_null(journal_create(&options));
        err = journal_open(&options, &journal);
    }
    assert_null(err);
    return journal;
}

static void start_volume(struct volumes *volumes, uint32_t index)
{
    const struct volumes_options *options = &volumes->options;
    struct volumes_stage *stage = &volumes->stages[index];
    char name[32];
    snprintf(name, sizeof name, index == options->count ? "catalog" : "volume-%u", index);
    if (index == options->count) {
        assert_null(catalog_machine_create(&stage->inner));
    } else {
        const struct core_options core = {.replay_bytes = REPLAY_BYTES};
        assert_null(core_create(&core, &stage->inner));
    }
    const struct volume_options volume = {
        .name = name,
        .store = stage->store,
        .journal = open_journal(volumes, index, name),
        .machine = &stage->machine,
        .clock = &volumes->clock,
        .mailbox_max = options->mailbox_max == 0 ? 4096 : options->mailbox_max,
        .batch_max = options->batch_max == 0 ? 1024 : options->batch_max,
        .batch_bytes = options->batch_bytes == 0 ? 16 * 1024 * 1024 : options->batch_bytes,
        .quota = options->quota,
        .maintain_ms = options->maintain_ms == 0 ? 3600 * 1000 : options->maintain_ms,
        .checkpoint_ms = 1000,
        .relaxed_ms = 10,
        .wake = wake,
        .wake_context = volumes,
    };
    assert_null(volume_start(&volume, &volumes->list[index]));
}

static void reconcile(struct volumes *volumes)
{
    struct router_reconcile operation = {0};
    bool done = false;
    volumes_prepare(volumes, &operation.operation, &done);
    router_start_reconcile(volumes->router, &operation);
    volumes_await(volumes, &done);
    assert_int_equal(operation.operation.result.code, ERR_NONE);
    router_release(&operation.operation);
}

static void start_all(struct volumes *volumes)
{
    uint32_t count = volumes->options.count;
    struct store_txn *txn = NULL;
    volumes->catalog = catalog_create();
    assert_non_null(volumes->catalog);
    assert_null(store_begin(volumes->stages[count].store, STORE_READ, &txn));
    err_t err = catalog_load(volumes->catalog, txn);
    store_abort(txn);
    assert_null(err);
    for (uint32_t index = 0; index <= count; index++) {
        start_volume(volumes, index);
    }
    const struct router_options router = {
        .volumes = volumes->list,
        .volume_count = count,
        .catalog = volumes->catalog,
        .clock = &volumes->clock,
        .seed = 1,
        .wake = wake,
        .wake_context = volumes,
    };
    assert_null(router_create(&router, &volumes->router));
    reconcile(volumes);
}

void volumes_stop_one(struct volumes *volumes, uint32_t index)
{
    volumes_unhold(volumes, index);
    volume_stop(volumes->list[index]);
    volumes->stopped[index] = true;
}

static void stop_all(struct volumes *volumes)
{
    router_drain(volumes->router);
    for (uint32_t index = 0; index <= volumes->options.count; index++) {
        if (!volumes->stopped[index]) {
            volumes_stop_one(volumes, index);
        }
        volumes->stopped[index] = false;
    }
    while (router_pending(volumes->router) > 0) {
        router_poll(volumes->router);
    }
    router_destroy(volumes->router);
    for (uint32_t index = 0; index <= volumes->options.count; index++) {
        volume_destroy(volumes->list[index]);
    }
    catalog_destroy(volumes->catalog);
}

void volumes_open(struct volumes *volumes, const struct volumes_options *options)
{
    memset(volumes, 0, sizeof *volumes);
    volumes->options = *options;
    assert_in_range(options->count, 1, VOLUMES_MAX);
    if (options->real_time) {
        clock_init_real(&volumes->clock);
    } else {
        clock_init_simulated(&volumes->clock, VOLUMES_START_MS);
    }
    if (options->journals) {
        tmpdir_init(&volumes->tmpdir);
    }
    arena_init(&volumes->arena, SIZE_MAX / 2, 0);
    assert_null(mailbox_init(&volumes->replies, SIZE_MAX, NULL, NULL));
    assert_int_equal(pthread_mutex_init(&volumes->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&volumes->changed, NULL), 0);
    atomic_init(&volumes->commits_left, -1);
    for (uint32_t index = 0; index <= options->count; index++) {
        open_stage(volumes, &volumes->stages[index]);
    }
    start_all(volumes);
}

void volumes_restart(struct volumes *volumes)
{
    stop_all(volumes);
    volumes_fail_after(volumes, -1);
    for (uint32_t index = 0; index <= volumes->options.count; index++) {
        volumes_fail_commits(volumes, index, ERR_NONE, false);
        volumes_fail_apply(volumes, index, COMMAND_TICK, ERR_NONE);
        plant_store_fault(&volumes->stages[index], 0);
        volumes->stages[index].busy = false;
    }
    start_all(volumes);
}

void volumes_close(struct volumes *volumes)
{
    stop_all(volumes);
    for (uint32_t index = 0; index <= volumes->options.count; index++) {
        close_stage(&volumes->stages[index]);
    }
    if (volumes->options.journals) {
        tmpdir_deinit(&volumes->tmpdir);
    }
    mailbox_deinit(&volumes->replies);
    arena_deinit(&volumes->arena);
    pthread_cond_destroy(&volumes->changed);
    pthread_mutex_destroy(&volumes->lock);
}

uint64_t volumes_commits(struct volumes *volumes, uint32_t index)
{
    struct volume_status status;
    volume_status(volumes->list[index], &status);
    return status.commits_total;
}

void volumes_advance(struct volumes *volumes, uint64_t ms)
{
    clock_advance(&volumes->clock, ms);
    for (uint32_t index = 0; index <= volumes->options.count; index++) {
        volume_wake(volumes->list[index]);
    }
    wake(volumes);
}

/* ---- calls ---------------------------------------------------------------------------------- */

struct call *volumes_call(struct volumes *volumes, enum command_type type)
{
    struct call *call = calloc(1, sizeof *call);
    assert_non_null(call);
    call->command.type = type;
    call->reply_to = &volumes->replies;
    reply_init(&call->reply);
    return call;
}

void volumes_call_free(struct call *call)
{
    reply_deinit(&call->reply);
    free(call);
}

struct call *volumes_answer(struct volumes *volumes)
{
    struct list one;
    list_init(&one);
    assert_int_equal(mailbox_wait(&volumes->replies, &one, 1, WAIT_MAX_MS), 1);
    return container_of(list_pop(&one), struct call, link);
}

void volumes_run(struct volumes *volumes, uint32_t index, struct call *call)
{
    assert_true(volume_send(volumes->list[index], call));
    assert_ptr_equal(volumes_answer(volumes), call);
}

/* ---- operations ----------------------------------------------------------------------------- */

static void note_done(struct router_operation *operation)
{
    bool *done = operation->user;
    assert_false(*done); /* each is done exactly once */
    *done = true;
}

void volumes_prepare(struct volumes *volumes, struct router_operation *operation, bool *done)
{
    *done = false;
    operation->arena = &volumes->arena;
    operation->done = note_done;
    operation->user = done;
}

void volumes_await_wake(struct volumes *volumes)
{
    const struct deadline deadline = deadline_in(WAIT_MAX_MS);
    bool in_time = true;
    pthread_mutex_lock(&volumes->lock);
    while (!volumes->woken && in_time) {
        in_time = deadline_wait(&deadline, &volumes->changed, &volumes->lock);
    }
    pthread_mutex_unlock(&volumes->lock);
    assert_true(in_time);
}

void volumes_turn(struct volumes *volumes)
{
    volumes_await_wake(volumes);
    pthread_mutex_lock(&volumes->lock);
    volumes->woken = false;
    pthread_mutex_unlock(&volumes->lock);
    router_poll(volumes->router);
}

void volumes_await(struct volumes *volumes, const bool *done)
{
    while (!*done) {
        volumes_turn(volumes);
    }
}

void volumes_quiesce(struct volumes *volumes)
{
    /* Whom a batch wakes is told after its answers: the answer of the next batch is past that. */
    for (int round = 0; round < QUIESCE_ROUNDS; round++) {
        struct router_stats stats = {0};
        bool done = false;
        volumes_prepare(volumes, &stats.operation, &done);
        router_start_stats(volumes->router, &stats);
        volumes_await(volumes, &done);
        router_release(&stats.operation);
    }
    while (router_pending(volumes->router) > router_waiting(volumes->router)) {
        volumes_turn(volumes);
    }
}

static enum err_code configure(struct volumes *volumes, struct catalog_change change)
{
    struct router_configure configure = {.change = change};
    bool done = false;
    volumes_prepare(volumes, &configure.operation, &done);
    router_start_configure(volumes->router, &configure);
    volumes_await(volumes, &done);
    router_release(&configure.operation);
    return configure.operation.result.code;
}

static enum err_code put_topic(struct volumes *volumes, const char *topic, uint32_t shards,
                               enum durability durability)
{
    return configure(volumes,
                     (struct catalog_change){
                         .op = CATALOG_TOPIC_PUT,
                         .topic = span_text(topic),
                         .shard_count = shards,
                         .topic_settings = {.dedup_window_ms = 60000, .durability = durability}});
}

enum err_code volumes_put_topic(struct volumes *volumes, const char *topic, uint32_t shards)
{
    return put_topic(volumes, topic, shards, DURABILITY_SYNCED);
}

enum err_code volumes_put_relaxed(struct volumes *volumes, const char *topic, uint32_t shards)
{
    return put_topic(volumes, topic, shards, DURABILITY_RELAXED);
}

enum err_code volumes_put_sub(struct volumes *volumes, const char *topic, const char *sub,
                              const struct sub_settings *settings)
{
    const struct sub_settings usual = {.lease_ms = 30000, .max_attempts = 3};
    return configure(volumes,
                     (struct catalog_change){.op = CATALOG_SUB_PUT,
                                             .topic = span_text(topic),
                                             .sub = span_text(sub),
                                             .sub_settings = settings == NULL ? usual : *settings});
}

enum err_code volumes_drop_topic(struct volumes *volumes, const char *topic)
{
    return configure(volumes, (struct catalog_change){.op = CATALOG_TOPIC_STATE,
                                                      .topic = span_text(topic),
                                                      .to = CATALOG_DELETING});
}

enum err_code volumes_drop_sub(struct volumes *volumes, const char *topic, const char *sub)
{
    return configure(volumes, (struct catalog_change){.op = CATALOG_SUB_STATE,
                                                      .topic = span_text(topic),
                                                      .sub = span_text(sub),
                                                      .to = CATALOG_DELETING});
}

struct message_in volumes_message(const char *key, const char *body)
{
    struct message_in message = {.key = span_text(key), .body = span_text(body)};
    message.payload_hash = router_payload_hash(message.key, message.attributes, message.body);
    return message;
}

struct publish_result volumes_publish(struct volumes *volumes, const char *topic,
                                      struct message_in message)
{
    struct publish_result result = {0};
    struct router_publish publish = {
        .topic = span_text(topic), .messages = &message, .count = 1, .results = &result};
    bool done = false;
    volumes_prepare(volumes, &publish.operation, &done);
    router_start_publish(volumes->router, &publish);
    volumes_await(volumes, &done);
    assert_int_equal(publish.operation.result.code, ERR_NONE);
    assert_int_equal(result.code, ERR_NONE);
    router_release(&publish.operation);
    return result;
}

void volumes_publish_many(struct volumes *volumes, const char *topic, uint32_t count)
{
    struct message_in *messages = calloc(count, sizeof *messages);
    struct publish_result *results = calloc(count, sizeof *results);
    assert_non_null(messages);
    assert_non_null(results);
    for (uint32_t index = 0; index < count; index++) {
        char *body = arena_alloc(&volumes->arena, 16);
        assert_non_null(body);
        snprintf(body, 16, "%u", index);
        messages[index] = volumes_message("", body);
    }
    struct router_publish publish = {
        .topic = span_text(topic), .messages = messages, .count = count, .results = results};
    bool done = false;
    volumes_prepare(volumes, &publish.operation, &done);
    router_start_publish(volumes->router, &publish);
    volumes_await(volumes, &done);
    assert_int_equal(publish.operation.result.code, ERR_NONE);
    for (uint32_t index = 0; index < count; index++) {
        assert_int_equal(results[index].code, ERR_NONE);
    }
    router_release(&publish.operation);
    free(messages);
    free(results);
}

const char *volumes_key_on(struct volumes *volumes, const char *topic_name, uint32_t volume,
                           uint32_t nth)
{
    enum { KEY_SIZE = 16, KEYS_MAX = 100000 };
    const struct catalog_topic *topic = catalog_topic(volumes->catalog, span_text(topic_name));
    assert_non_null(topic);
    char *key = arena_alloc(&volumes->arena, KEY_SIZE);
    assert_non_null(key);
    for (uint32_t number = 0; number < KEYS_MAX; number++) {
        int size = snprintf(key, KEY_SIZE, "%u", number);
        uint64_t hash = XXH3_64bits(key, (size_t)size);
        if (catalog_topic_shard(topic, hash)->volume == volume && nth-- == 0) {
            return key;
        }
    }
    fail_msg("no key lands on volume %u", volume);
    return NULL;
}

void volumes_pull_with(struct volumes *volumes, struct volumes_pull *pull,
                       struct router_pull wanted)
{
    *pull = (struct volumes_pull){.pull = wanted};
    volumes_prepare(volumes, &pull->pull.operation, &pull->done);
    router_start_pull(volumes->router, &pull->pull);
}

void volumes_pull_start(struct volumes *volumes, struct volumes_pull *pull, const char *topic,
                        const char *sub, uint32_t max, uint64_t wait_ms)
{
    volumes_pull_with(volumes, pull,
                      (struct router_pull){.topic = span_text(topic),
                                           .sub = span_text(sub),
                                           .max = max,
                                           .size_max = 1024 * 1024,
                                           .wait_ms = wait_ms});
}

uint32_t volumes_pull_count(const struct volumes_pull *pull)
{
    uint32_t count = 0;
    assert_true(pull->done);
    for (const struct reply *reply = router_reply_next(&pull->pull.operation, NULL); reply != NULL;
         reply = router_reply_next(&pull->pull.operation, reply)) {
        count += reply_delivery_count(reply);
    }
    return count;
}

uint32_t volumes_pull_receipts(const struct volumes_pull *pull, struct receipt *out, uint32_t max)
{
    uint32_t count = 0;
    assert_true(pull->done);
    for (const struct reply *reply = router_reply_next(&pull->pull.operation, NULL); reply != NULL;
         reply = router_reply_next(&pull->pull.operation, reply)) {
        for (uint32_t index = 0; index < reply_delivery_count(reply) && count < max; index++) {
            const struct delivery *delivery = reply_delivery(reply, index);
            out[count++] = (struct receipt){.sub_id = pull->pull.sub_id,
                                            .shard_id = delivery->shard_id,
                                            .sequence = delivery->sequence,
                                            .epoch = delivery->epoch,
                                            .grant = delivery->grant,
                                            .attempt = delivery->attempt};
        }
    }
    return count;
}

void volumes_pull_free(struct volumes_pull *pull)
{
    assert_true(pull->done);
    router_release(&pull->pull.operation);
}

void volumes_settle(struct volumes *volumes, enum router_settle_kind kind, const char *topic,
                    const char *sub, struct receipt *receipts, uint32_t count)
{
    enum err_code *results = calloc(count, sizeof *results);
    assert_non_null(results);
    struct router_settle settle = {.topic = span_text(topic),
                                   .sub = span_text(sub),
                                   .kind = kind,
                                   .receipts = receipts,
                                   .count = count,
                                   .results = results};
    bool done = false;
    volumes_prepare(volumes, &settle.operation, &done);
    router_start_settle(volumes->router, &settle);
    volumes_await(volumes, &done);
    assert_int_equal(settle.operation.result.code, ERR_NONE);
    for (uint32_t index = 0; index < count; index++) {
        assert_int_equal(results[index], ERR_NONE);
    }
    router_release(&settle.operation);
    free(results);
}

uint32_t volumes_drain_sub(struct volumes *volumes, const char *topic, const char *sub)
{
    enum { AT_ONCE = 1000 };
    static struct receipt receipts[AT_ONCE];
    uint32_t total = 0;
    for (;;) {
        struct volumes_pull pull;
        volumes_pull_start(volumes, &pull, topic, sub, AT_ONCE, 0);
        volumes_await(volumes, &pull.done);
        assert_int_equal(pull.pull.operation.result.code, ERR_NONE);
        uint32_t count = volumes_pull_receipts(&pull, receipts, AT_ONCE);
        volumes_pull_free(&pull);
        if (count == 0) {
            return total;
        }
        volumes_settle(volumes, ROUTER_ACK, topic, sub, receipts, count);
        total += count;
    }
}
