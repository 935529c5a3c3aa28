/* A volume with a journal: its thread, and when it flushes, commits and answers. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>

#include "broker/core/core.h"
#include "broker/volume/volume.h"
#include "storage/memory.h"
#include "tests/crash/iotrap.c" /* NOLINT(bugprone-suspicious-include): it must be in the program */
#include "tests/lib/deadline.h"
#include "tests/lib/must.h"
#include "tests/lib/tmpdir.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100, WAIT_MS = 20000, NEVER_MS = 3600000, SIZE = 256 * 1024 };

/* What has been observed so far. */
struct seen {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t counts[VOLUME_REFUSED + 1];
};

struct fixture {
    struct tmpdir tmpdir;
    struct clock clock;
    struct store *store;
    struct store_ops store_ops;
    const struct store_ops *inner_ops;
    struct volume *volume;
    struct mailbox replies;
    struct seen seen;
    uint32_t nonce;
};

static struct fixture fixture;

/* Publishes are answered early, as when a topic asks for no more. */
static bool relaxed;
static struct machine_ops ops;
static const struct machine_ops *inner;

static err_t apply(struct machine *machine, struct store_txn *txn, const struct command *command,
                   struct reply *reply, struct effects *effects)
{
    TRY(inner->apply(machine, txn, command, reply, effects));
    reply->early = reply->early || (relaxed && command->type == COMMAND_PUBLISH);
    return NULL;
}

/* The store outlives its volume. */
static void stay_open(struct store *store)
{
    (void)store;
}

static void observe(void *context, enum volume_measure measure, uint64_t value)
{
    struct seen *seen = context;
    (void)value;
    pthread_mutex_lock(&seen->lock);
    seen->counts[measure]++;
    pthread_cond_broadcast(&seen->changed);
    pthread_mutex_unlock(&seen->lock);
}

static uint64_t count_of(enum volume_measure measure)
{
    pthread_mutex_lock(&fixture.seen.lock);
    uint64_t count = fixture.seen.counts[measure];
    pthread_mutex_unlock(&fixture.seen.lock);
    return count;
}

static void await(enum volume_measure measure, uint64_t count)
{
    const struct deadline deadline = deadline_in(WAIT_MS);
    bool in_time = true;
    pthread_mutex_lock(&fixture.seen.lock);
    while (fixture.seen.counts[measure] < count && in_time) {
        in_time = deadline_wait(&deadline, &fixture.seen.changed, &fixture.seen.lock);
    }
    pthread_mutex_unlock(&fixture.seen.lock);
    assert_true(in_time);
}

static void wake(void *context)
{
    (void)context;
}

static void start(uint64_t checkpoint_ms, uint64_t relaxed_ms)
{
    char path[TMPDIR_PATH_SIZE];
    struct machine *machine = NULL;
    struct journal *journal = NULL;
    const struct journal_options options = {.path = tmpdir_file(&fixture.tmpdir, "journal", path),
                                            .size = SIZE};
    err_t err = journal_open(&options, &journal);
    if (err_code(err) == ERR_NOT_FOUND) {
        err_free(err);
        must(journal_create(&options));
        err = journal_open(&options, &journal);
    }
    must(err);
    must(core_create(&(struct core_options){0}, &machine));
    inner = machine->ops;
    ops = *inner;
    ops.apply = apply;
    machine->ops = &ops;
    const struct volume_options volume = {.name = "test",
                                          .store = fixture.store,
                                          .journal = journal,
                                          .machine = machine,
                                          .clock = &fixture.clock,
                                          .mailbox_max = 100,
                                          .batch_max = 100,
                                          .batch_bytes = 1 << 20,
                                          .checkpoint_ms = checkpoint_ms,
                                          .relaxed_ms = relaxed_ms,
                                          .maintain_ms = NEVER_MS,
                                          .wake = wake,
                                          .observe = observe,
                                          .observe_context = &fixture.seen};
    must(volume_start(&volume, &fixture.volume));
}

static void stop(void)
{
    volume_stop(fixture.volume);
    volume_destroy(fixture.volume);
}

static int setup(void **state)
{
    (void)state;
    memset(&fixture, 0, sizeof fixture);
    relaxed = false;
    tmpdir_init(&fixture.tmpdir);
    clock_init_real(&fixture.clock);
    must(memory_store_open(&fixture.store));
    fixture.inner_ops = fixture.store->ops;
    must(mailbox_init(&fixture.replies, 1000, NULL, NULL));
    pthread_mutex_init(&fixture.seen.lock, NULL);
    pthread_cond_init(&fixture.seen.changed, NULL);
    fixture.store_ops = *fixture.inner_ops;
    fixture.store_ops.close = stay_open;
    fixture.store->ops = &fixture.store_ops;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture.store->ops = fixture.inner_ops;
    store_close(fixture.store);
    mailbox_deinit(&fixture.replies);
    tmpdir_deinit(&fixture.tmpdir);
    return 0;
}

/* Sends a command and awaits its reply. */
static struct call *run(const struct command *command)
{
    struct call *call = calloc(1, sizeof *call);
    struct list list;
    assert_non_null(call);
    call->command = *command;
    call->reply_to = &fixture.replies;
    reply_init(&call->reply);
    assert_true(volume_send(fixture.volume, call));
    list_init(&list);
    assert_int_equal(mailbox_wait(&fixture.replies, &list, 1, WAIT_MS), 1);
    return container_of(list_pop(&list), struct call, link);
}

static enum err_code run_once(const struct command *command)
{
    struct call *call = run(command);
    enum err_code code = call->reply.code;
    reply_deinit(&call->reply);
    free(call);
    return code;
}

static enum err_code put_sub(uint64_t lease_ms)
{
    const struct command sub = {
        .type = COMMAND_SUB_PUT,
        .sub_put = {.sub_id = SUB, .topic_id = TOPIC, .settings = {.lease_ms = lease_ms}}};
    return run_once(&sub);
}

static void configure(void)
{
    static const struct shard_place place = {.shard_id = SHARD, .hash_last = UINT64_MAX};
    const struct command topic = {
        .type = COMMAND_TOPIC_PUT,
        .topic_put = {.topic_id = TOPIC, .shards = &place, .shard_count = 1}};
    assert_int_equal(run_once(&topic), ERR_NONE);
    assert_int_equal(put_sub(60000), ERR_NONE);
}

static enum err_code publish(void)
{
    struct publish_result result = {.code = ERR_NONE};
    const struct message_in message = {
        .shard_id = SHARD, .body = span_text("body"), .payload_hash = XXH3_64bits("body", 4)};
    const struct command command = {
        .type = COMMAND_PUBLISH,
        .publish = {.topic_id = TOPIC, .messages = &message, .count = 1, .results = &result}};
    enum err_code code = run_once(&command);
    assert_true(code != ERR_NONE || result.code == ERR_NONE);
    return code;
}

static uint32_t pull(uint32_t max)
{
    fixture.nonce += 1000;
    const struct command command = {
        .type = COMMAND_PULL,
        .pull = {.sub_id = SUB, .max = max, .size_max = 1 << 20, .nonce = fixture.nonce}};
    struct call *call = run(&command);
    uint32_t count = reply_delivery_count(&call->reply);
    reply_deinit(&call->reply);
    free(call);
    return count;
}

static struct volume_status status(void)
{
    struct volume_status out;
    volume_status(fixture.volume, &out);
    return out;
}

/* Each publish costs one flush and no commit; a stop commits all of it. */
static void test_one_flush_a_batch(void **state)
{
    (void)state;
    start(NEVER_MS, NEVER_MS);
    configure();
    assert_int_equal(publish(), ERR_NONE); /* the status is that after an earlier batch, at least */
    uint64_t commits = status().commits_total;
    uint64_t flushes = count_of(VOLUME_FLUSH_US);
    for (int count = 0; count < 20; count++) {
        assert_int_equal(publish(), ERR_NONE);
    }
    assert_int_equal(status().commits_total, commits);
    assert_int_equal(count_of(VOLUME_FLUSH_US), flushes + 20);
    assert_true(status().journal_size > 0);
    /* One that gives nothing changes nothing. */
    assert_int_equal(pull(21), 21);
    flushes = count_of(VOLUME_FLUSH_US);
    assert_int_equal(pull(1), 0);
    volume_stop(fixture.volume);
    assert_in_range(count_of(VOLUME_FLUSH_US), flushes, flushes + 1);
    assert_int_equal(count_of(VOLUME_CHECKPOINT_US), 1);
    assert_int_equal(status().journal_size, 0);
    volume_destroy(fixture.volume);
    start(NEVER_MS, NEVER_MS);
    assert_int_equal(pull(1), 0);
    assert_int_equal(publish(), ERR_NONE);
    assert_int_equal(pull(5), 1);
    stop();
}

/* Without a command for a while, what the journal holds is committed. */
static void test_idle_commit(void **state)
{
    (void)state;
    start(100, NEVER_MS);
    configure();
    assert_int_equal(publish(), ERR_NONE);
    await(VOLUME_CHECKPOINT_US, 1);
    assert_int_equal(publish(), ERR_NONE);
    await(VOLUME_CHECKPOINT_US, 2);
    stop();
}

/* A commit on the way, of what configures, begins the interval of the next one anew. */
static void test_commit_in_between(void **state)
{
    enum { INTERVAL_MS = 1000, STEP_MS = 90, STEPS = 10 }; /* a tenth without a command commits */
    (void)state;
    clock_init_simulated(&fixture.clock, 1);
    start(INTERVAL_MS, NEVER_MS);
    configure();
    for (int half = 0; half < 2; half++) {
        for (int step = 0; step < STEPS; step++) {
            clock_advance(&fixture.clock, STEP_MS);
            assert_int_equal(publish(), ERR_NONE);
        }
        (void)volume_settle(fixture.volume);
        assert_int_equal(count_of(VOLUME_CHECKPOINT_US), 0);
        assert_int_equal(put_sub(1000 + (uint64_t)half), ERR_NONE);
    }
    stop();
}

/* A publish that asks for no more is answered once it is written, and flushed within the interval;
 * a synced one in between is flushed first, and the other with it. */
static void test_relaxed(void **state)
{
    (void)state;
    start(NEVER_MS, 50);
    configure();
    relaxed = true;
    uint64_t flushes = count_of(VOLUME_FLUSH_US);
    iotrap_start(fixture.tmpdir.path);
    assert_int_equal(publish(), ERR_NONE);
    iotrap_stop();
    bool written = false;
    for (size_t index = 0; index < iotrap_count(); index++) {
        written = written || iotrap_event(index)->kind == IOTRAP_WRITE;
    }
    assert_true(written);
    await(VOLUME_FLUSH_US, flushes + 1);
    stop();
    start(NEVER_MS, NEVER_MS);
    flushes = count_of(VOLUME_FLUSH_US);
    for (int count = 0; count < 5; count++) {
        assert_int_equal(publish(), ERR_NONE);
    }
    assert_int_equal(count_of(VOLUME_FLUSH_US), flushes);
    relaxed = false;
    assert_int_equal(publish(), ERR_NONE);
    assert_int_equal(count_of(VOLUME_FLUSH_US), flushes + 1);
    stop();
    iotrap_reset();
}

/* A pull waits for the flush of what it gives, if that was answered without one. */
static void test_pull_of_relaxed(void **state)
{
    (void)state;
    start(NEVER_MS, NEVER_MS);
    configure();
    relaxed = true;
    assert_int_equal(publish(), ERR_NONE);
    uint64_t flushes = count_of(VOLUME_FLUSH_US);
    assert_int_equal(pull(1), 1);
    assert_int_equal(count_of(VOLUME_FLUSH_US), flushes + 1);
    stop();
}

static void fail_commits(enum err_code code)
{
    fixture.store->ops = fixture.inner_ops; /* the store insists on its own */
    memory_store_fail_commits(fixture.store, code);
    fixture.store->ops = &fixture.store_ops;
}

/* On a disk without room what a stop cannot commit stays in the journal, and the next start, which
 * cannot either, serves it; with room again it is committed. */
static void test_no_room_at_stop_and_start(void **state)
{
    (void)state;
    start(NEVER_MS, NEVER_MS);
    configure();
    for (int count = 0; count < 3; count++) {
        assert_int_equal(publish(), ERR_NONE);
    }
    fail_commits(ERR_NO_SPACE);
    stop();
    for (int round = 0; round < 2; round++) {
        start(NEVER_MS, NEVER_MS);
        assert_int_equal(pull(1), 1);
        stop();
    }
    fail_commits(ERR_NONE);
    start(NEVER_MS, NEVER_MS);
    assert_int_equal(pull(3), 1);
    stop();
    start(NEVER_MS, NEVER_MS);
    assert_int_equal(pull(1), 0);
    stop();
}

/* Makes a commit fail for want of room, which publishes are refused for, and no other. */
static void fill_up(void)
{
    (void)volume_settle(fixture.volume);
    fail_commits(ERR_NO_SPACE);
    assert_int_equal(put_sub(1000), ERR_NO_SPACE);
    (void)volume_settle(fixture.volume);
    fail_commits(ERR_NONE);
}

/* On a full disk a batch costs no commit, unless it publishes: then it is looked whether there is
 * room again. */
static void test_full(void **state)
{
    (void)state;
    clock_init_simulated(&fixture.clock, 1);
    start(NEVER_MS, NEVER_MS);
    configure();
    for (int count = 0; count < 5; count++) {
        assert_int_equal(publish(), ERR_NONE);
    }
    fill_up();
    for (int count = 0; count < 3; count++) {
        assert_int_equal(pull(1), 1);
    }
    assert_int_equal(count_of(VOLUME_CHECKPOINT_US), 0);
    for (int count = 0; count < 3; count++) {
        assert_int_equal(publish(), ERR_NO_SPACE);
        assert_int_equal(count_of(VOLUME_CHECKPOINT_US), 1);
    }
    assert_int_equal(pull(1), 1);
    assert_int_equal(count_of(VOLUME_CHECKPOINT_US), 1);
    clock_advance(&fixture.clock, 500);
    assert_int_equal(publish(), ERR_NONE);
    assert_int_equal(count_of(VOLUME_CHECKPOINT_US), 2);
    stop();
}

/* When the commit that looks for room fails for another reason, so has the volume. */
static void test_full_and_failed(void **state)
{
    (void)state;
    clock_init_simulated(&fixture.clock, 1);
    start(NEVER_MS, NEVER_MS);
    configure();
    assert_int_equal(publish(), ERR_NONE);
    fill_up();
    fail_commits(ERR_IO);
    assert_int_equal(publish(), ERR_UNAVAILABLE);
    assert_true(status().failed);
    fail_commits(ERR_NONE);
    stop();
}

/* What was answered early is flushed within its interval although a commit in between has found no
 * room: that one has flushed nothing. */
static void test_relaxed_without_room(void **state)
{
    enum { RELAXED_MS = 1000 };
    (void)state;
    clock_init_simulated(&fixture.clock, 1);
    start(NEVER_MS, RELAXED_MS);
    configure();
    relaxed = true;
    assert_int_equal(publish(), ERR_NONE);
    fail_commits(ERR_NO_SPACE);
    assert_int_equal(put_sub(30000), ERR_NO_SPACE);
    uint64_t flushes = count_of(VOLUME_FLUSH_US);
    clock_advance(&fixture.clock, RELAXED_MS);
    volume_wake(fixture.volume);
    await(VOLUME_FLUSH_US, flushes + 1);
    assert_false(status().failed);
    stop();
}

/* Whether the last thing that happened to a file is a flush. */
static bool is_flushed(void)
{
    size_t count = iotrap_count();
    return count > 0 && iotrap_event(count - 1)->kind == IOTRAP_FLUSH;
}

/* Nor is what was answered early lost by a power failure after a stop, or a start, that has no room
 * for a commit. */
static void test_relaxed_at_stop_and_start(void **state)
{
    (void)state;
    start(NEVER_MS, NEVER_MS);
    configure();
    relaxed = true;
    iotrap_start(fixture.tmpdir.path);
    assert_int_equal(publish(), ERR_NONE);
    assert_false(is_flushed());
    fail_commits(ERR_NO_SPACE);
    stop();
    assert_true(is_flushed());
    iotrap_start(fixture.tmpdir.path);
    uint64_t flushes = count_of(VOLUME_FLUSH_US);
    start(NEVER_MS, NEVER_MS);
    await(VOLUME_FLUSH_US, flushes + 1);
    assert_true(is_flushed());
    stop();
    iotrap_reset();
}

/* When the journal cannot be flushed the outcome is not known; the volume has failed from then on,
 * and what was confirmed is there after a start. */
static void test_failed_flush(void **state)
{
    (void)state;
    start(NEVER_MS, NEVER_MS);
    configure();
    assert_int_equal(publish(), ERR_NONE);
    iotrap_fail(&(struct iotrap_fault){
        .prefix = fixture.tmpdir.path, .kinds = IOTRAP_FLUSH, .nth = 1, .error = EIO});
    assert_int_equal(publish(), ERR_UNKNOWN);
    assert_true(iotrap_fail_stop());
    assert_int_equal(publish(), ERR_UNAVAILABLE);
    assert_true(status().failed);
    assert_int_equal(count_of(VOLUME_COMMIT_FAILED), 1);
    stop();
    start(NEVER_MS, NEVER_MS);
    assert_in_range(pull(10), 1, 2);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_flush_a_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_in_between, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relaxed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pull_of_relaxed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_at_stop_and_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_and_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relaxed_without_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relaxed_at_stop_and_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_flush, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
