#include "tests/lib/volumes_internal.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/core/core.h"
#include "tests/lib/deadline.h"

enum { REPLAY_BYTES = 1024 * 1024, QUIESCE_ROUNDS = 2 };

/* ---- life ----------------------------------------------------------------------------------- */

static void wake(void *context)
{
    struct volumes *volumes = context;
    pthread_mutex_lock(&volumes->lock);
    volumes->woken = true;
    pthread_cond_broadcast(&volumes->changed);
    pthread_mutex_unlock(&volumes->lock);
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
    const struct deadline deadline = deadline_in(VOLUMES_WAIT_MS);
    while (router_pending(volumes->router) > 0) {
        assert_false(deadline_passed(&deadline));
        router_poll(volumes->router);
        sched_yield();
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
        volumes_stage_open(volumes, &volumes->stages[index]);
    }
    start_all(volumes);
}

void volumes_restart(struct volumes *volumes)
{
    stop_all(volumes);
    volumes_fail_after(volumes, -1);
    for (uint32_t index = 0; index <= volumes->options.count; index++) {
        volumes_stage_mend(&volumes->stages[index]);
    }
    start_all(volumes);
}

void volumes_close(struct volumes *volumes)
{
    stop_all(volumes);
    for (uint32_t index = 0; index <= volumes->options.count; index++) {
        volumes_stage_close(&volumes->stages[index]);
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
    assert_int_equal(mailbox_wait(&volumes->replies, &one, 1, VOLUMES_WAIT_MS), 1);
    return container_of(list_pop(&one), struct call, link);
}

void volumes_run(struct volumes *volumes, uint32_t index, struct call *call)
{
    assert_true(volume_send(volumes->list[index], call));
    assert_ptr_equal(volumes_answer(volumes), call);
}

/* ---- waiting -------------------------------------------------------------------------------- */

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
    const struct deadline deadline = deadline_in(VOLUMES_WAIT_MS);
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

void volumes_turn_until_held(struct volumes *volumes, uint32_t index)
{
    const struct deadline deadline = deadline_in(VOLUMES_WAIT_MS);
    while (!volumes_is_held(volumes, index)) {
        assert_false(deadline_passed(&deadline));
        router_poll(volumes->router);
        sched_yield();
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
