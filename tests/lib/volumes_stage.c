/* What stands between a volume and its machine and store. */
#include "tests/lib/volumes_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "storage/memory.h"
#include "tests/lib/deadline.h"

/* ---- the machine ---------------------------------------------------------------------------- */

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

/* ---- the store ------------------------------------------------------------------------------ */

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

void volumes_stage_open(struct volumes *volumes, struct volumes_stage *stage)
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

void volumes_stage_close(struct volumes_stage *stage)
{
    stage->store->ops = stage->inner_ops;
    store_close(stage->store);
    pthread_cond_destroy(&stage->changed);
    pthread_mutex_destroy(&stage->lock);
}

void volumes_stage_mend(struct volumes_stage *stage)
{
    pthread_mutex_lock(&stage->lock);
    stage->commit_code = ERR_NONE;
    stage->apply_code = ERR_NONE;
    stage->fail_call = 0;
    stage->busy = false;
    pthread_mutex_unlock(&stage->lock);
    plant_store_fault(stage, 0);
}

/* ---- holding, failing, counting -------------------------------------------------------------- */

void volumes_hold(struct volumes *volumes, uint32_t index)
{
    struct volumes_stage *stage = &volumes->stages[index];
    pthread_mutex_lock(&stage->lock);
    stage->hold = true;
    pthread_mutex_unlock(&stage->lock);
}

static void await_flag(struct volumes_stage *stage, const bool *flag)
{
    const struct deadline deadline = deadline_in(VOLUMES_WAIT_MS);
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
