/* Errors by counting: the 1st, 2nd, ... call of the store, or allocation, of a session fails until
 * the session passes. Each failure is an error handed upward, and after it the core loads again
 * into what the last commit made. */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>
#include <xxhash.h>

#include "storage/memory.h"
#include "tests/lib/fault.h"

enum {
    TOPIC = 1,
    SHARD = 10,
    SUB = 100,
    OTHER = 101,
    LEASE_MS = 30000,
    PULLED_MAX = 64,
    MESSAGES_MAX = 300,
    BODY_MAX = 70000
};

static const uint32_t subs[] = {SUB, OTHER};

static struct core_fixture fixture;

/* What a session has pulled, for its later steps. */
struct session {
    struct receipt receipts[PULLED_MAX];
    uint32_t count;
    enum err_code results[PULLED_MAX];
};

/* ---- the session ---------------------------------------------------------------------------- */

static err_t act(struct command command)
{
    return core_fixture_try(&fixture, &command);
}

static err_t publish(uint32_t shard_id, uint32_t count, uint32_t size, uint64_t delay_ms)
{
    static const uint8_t body[BODY_MAX];
    static struct message_in messages[MESSAGES_MAX];
    static struct publish_result results[MESSAGES_MAX];
    for (uint32_t index = 0; index < count; index++) {
        messages[index] = (struct message_in){.shard_id = shard_id,
                                              .body = span_of(body, size),
                                              .payload_hash = XXH3_64bits(body, size),
                                              .delay_ms = delay_ms};
    }
    /* One of them under an idempotency key. */
    messages[0].idempotency_key = span_of(&size, sizeof size);
    return act((struct command){
        .type = COMMAND_PUBLISH,
        .publish = {.topic_id = TOPIC, .messages = messages, .count = count, .results = results}});
}

static err_t pull(struct session *session, uint32_t sub_id, uint32_t max)
{
    struct command command = {.type = COMMAND_PULL,
                              .pull = {.sub_id = sub_id, .max = max, .size_max = UINT32_MAX}};
    TRY(core_fixture_try(&fixture, &command));
    session->count = reply_delivery_count(&fixture.reply);
    for (uint32_t index = 0; index < session->count; index++) {
        session->receipts[index] = core_fixture_receipt(&fixture, sub_id, index);
    }
    return NULL;
}

static err_t settle(struct session *session, enum command_type type, uint32_t first, bool reject)
{
    if (first >= session->count) {
        return NULL;
    }
    struct command command = {.type = type,
                              .settle = {.sub_id = session->receipts[first].sub_id,
                                         .receipts = session->receipts + first,
                                         .count = session->count - first,
                                         .results = session->results,
                                         .reject = reject,
                                         .note = span_text("note")}};
    return core_fixture_try(&fixture, &command);
}

static err_t advance(uint64_t ms)
{
    struct command tick = {.type = COMMAND_TICK, .tick = {.budget = 600}};
    fixture.now_ms += ms;
    return core_fixture_try(&fixture, &tick);
}

static const struct shard_place places[] = {{.shard_id = SHARD, .hash_last = UINT64_MAX / 2},
                                            {.shard_id = SHARD + 1,
                                             .number = 1,
                                             .hash_first = UINT64_MAX / 2 + 1,
                                             .hash_last = UINT64_MAX}};

static err_t step_topic(struct session *session)
{
    (void)session;
    return act(
        (struct command){.type = COMMAND_TOPIC_PUT,
                         .topic_put = {.topic_id = TOPIC,
                                       .settings = {.dedup_window_ms = 100, .retention_ms = 50000},
                                       .shards = places,
                                       .shard_count = 2}});
}

static err_t step_sub(struct session *session)
{
    (void)session;
    return act((struct command){
        .type = COMMAND_SUB_PUT,
        .sub_put = {.sub_id = SUB,
                    .topic_id = TOPIC,
                    .settings = {.lease_ms = LEASE_MS, .retry_delay_ms = 7, .max_attempts = 2}}});
}

static err_t step_other(struct session *session)
{
    (void)session;
    return act((struct command){.type = COMMAND_SUB_PUT,
                                .sub_put = {.sub_id = OTHER,
                                            .topic_id = TOPIC,
                                            .settings = {.lease_ms = LEASE_MS},
                                            .start = START_EARLIEST}});
}

static err_t step_publish(struct session *session)
{
    (void)session;
    TRY(publish(SHARD, 40, 20, 0));
    return publish(SHARD + 1, 30, 300, 0);
}

static err_t step_publish_more(struct session *session)
{
    (void)session;
    fixture.now_ms += 200; /* out of the idempotency window */
    TRY(publish(SHARD, 250, 900, 0));
    return publish(SHARD + 1, 2, 70000, 5);
}

static err_t step_pull(struct session *session)
{
    return pull(session, SUB, 30);
}

static err_t step_pull_other(struct session *session)
{
    return pull(session, OTHER, PULLED_MAX);
}

static err_t step_ack(struct session *session)
{
    return settle(session, COMMAND_ACK, 5, false);
}

static err_t step_nack(struct session *session)
{
    return settle(session, COMMAND_NACK, 3, false);
}

static err_t step_reject(struct session *session)
{
    return settle(session, COMMAND_NACK, 1, true);
}

static err_t step_extend(struct session *session)
{
    return settle(session, COMMAND_EXTEND, 0, false);
}

static err_t step_later(struct session *session)
{
    (void)session;
    return advance(LEASE_MS);
}

static err_t step_redrive(struct session *session)
{
    (void)session;
    return act((struct command){.type = COMMAND_REDRIVE, .redrive = {.sub_id = SUB, .max = 10}});
}

static err_t step_seek(struct session *session)
{
    (void)session;
    return act(
        (struct command){.type = COMMAND_SEEK, .seek = {.sub_id = OTHER, .to = START_EARLIEST}});
}

static err_t step_purge(struct session *session)
{
    (void)session;
    return act((struct command){
        .type = COMMAND_PURGE,
        .purge = {.sub_id = OTHER, .enqueued = true, .delivery = true, .dead = true}});
}

static err_t step_drop_sub(struct session *session)
{
    (void)session;
    TRY(act((struct command){.type = COMMAND_SUB_DROP, .sub_drop = OTHER}));
    return advance(0);
}

static err_t step_drop_topic(struct session *session)
{
    (void)session;
    return act((struct command){.type = COMMAND_TOPIC_DROP, .topic_drop = TOPIC});
}

static err_t step_commit(struct session *session)
{
    (void)session;
    return core_fixture_try_commit(&fixture);
}

static err_t step_reload(struct session *session)
{
    (void)session;
    return core_fixture_try_reload(&fixture);
}

typedef err_t (*session_step)(struct session *session);

/* Every reload follows a commit, so that nothing is lost by it. */
static const session_step steps[] = {
    step_topic,      step_sub,     step_commit, step_publish, step_commit,       step_other,
    step_pull,       step_commit,  step_ack,    step_later,   step_publish_more, step_commit,
    step_pull,       step_nack,    step_commit, step_pull,    step_reject,       step_commit,
    step_pull_other, step_commit,  step_ack,    step_commit,  step_reload,       step_later,
    step_commit,     step_redrive, step_commit, step_pull,    step_extend,       step_commit,
    step_seek,       step_commit,  step_later,  step_commit,  step_pull_other,   step_purge,
    step_commit,     step_reload,  step_later,  step_commit,  step_drop_sub,     step_commit,
    step_reload,     step_later,   step_commit, step_later,   step_drop_topic,   step_commit,
    step_later,      step_later,   step_later,  step_commit,  step_reload,
};

enum { STEP_COUNT = sizeof steps / sizeof steps[0] };

/* ---- failing it ----------------------------------------------------------------------------- */

static bool is_commit(size_t step)
{
    return steps[step] == step_commit;
}

static void begin(void)
{
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY,
                      &(struct core_options){.replay_bytes = 8192,
                                             .slack_size = 1024,
                                             .segment_entries = 32,
                                             .chunks_max = 1,
                                             .blocks_max = 1});
}

static void take_picture(struct buf *out)
{
    uint32_t count = 0;
    struct command stats = {.type = COMMAND_STATS};
    core_fixture_apply(&fixture, &stats, ERR_NONE);
    /* Peeks of a subscription that is not there yet, or no longer, would be refused. */
    for (uint32_t index = 0; index < 2; index++) {
        struct command peek = {.type = COMMAND_PEEK, .peek = {.sub_id = subs[index], .max = 1}};
        assert_null(core_fixture_try(&fixture, &peek));
        count += fixture.reply.code == ERR_NONE && count == index;
    }
    core_fixture_picture(&fixture, subs, count, out);
}

/* What the session looks like after each of its commits, taken without a fault. */
static void take_pictures(struct buf pictures[STEP_COUNT])
{
    struct session session = {0};
    begin();
    for (size_t step = 0; step < STEP_COUNT; step++) {
        err_t err = steps[step](&session);
        if (err != NULL) {
            fail_msg("step %zu: %s", step, err_describe(err));
        }
        if (is_commit(step)) {
            take_picture(&pictures[step]);
            assert_null(core_fixture_try_reload(&fixture));
        }
    }
    core_fixture_deinit(&fixture);
}

static bool alloc_fired;

/* The nth call from its start on fails with `code`. */
struct fault {
    void (*start)(uint64_t nth);
    void (*stop)(void);
    enum err_code code;
};

/* Runs the session with the nth call failing. When it fails, expects what the last commit made, and
 * that the broker goes on from there. False when the session needed fewer calls. */
static bool fail_nth(const struct fault *fault, uint64_t nth, const struct buf pictures[STEP_COUNT])
{
    static struct session session;
    const struct buf *committed = NULL;
    err_t err = NULL;
    begin();
    fault->start(nth);
    for (size_t step = 0; step < STEP_COUNT && err == NULL; step++) {
        err = steps[step](&session);
        if (err == NULL && is_commit(step)) {
            committed = &pictures[step];
        }
    }
    fault->stop();
    bool failed = err != NULL;
    assert_true(!failed || err_code(err) == fault->code);
    assert_true(failed || !alloc_fired); /* no failure is passed over in silence */
    err_free(err);
    if (failed) {
        struct buf after;
        assert_null(core_fixture_try_reload(&fixture));
        take_picture(&after);
        if (committed != NULL) {
            assert_string_equal(committed->data, after.data);
        }
        buf_deinit(&after);
        assert_null(core_fixture_try_reload(&fixture));
        core_fixture_advance(&fixture, LEASE_MS);
    }
    core_fixture_deinit(&fixture);
    return failed;
}

static void fail_every(const struct fault *fault)
{
    static struct buf pictures[STEP_COUNT];
    uint64_t nth = 1;
    take_pictures(pictures);
    while (fail_nth(fault, nth, pictures)) {
        nth++;
    }
    print_message("%llu places failed\n", (unsigned long long)nth - 1);
    assert_true(nth > 100); /* the session is not empty */
    for (size_t step = 0; step < STEP_COUNT; step++) {
        buf_deinit(&pictures[step]);
    }
}

static void store_start(uint64_t nth)
{
    memory_store_fail_call(fixture.store, nth);
}

static void store_stop(void)
{
    memory_store_fail_call(fixture.store, 0);
}

/* Whichever call of the store fails, the error comes out and the last commit is what is left. */
static void every_store_call(void **state)
{
    (void)state;
    fail_every(&(const struct fault){store_start, store_stop, ERR_IO});
}

static void alloc_stop(void)
{
    alloc_fired = fault_alloc_stop();
}

/* The same for whichever allocation. */
static void every_allocation(void **state)
{
    (void)state;
    fail_every(&(const struct fault){fault_alloc_nth, alloc_stop, ERR_MEMORY});
}

/* A core that cannot be made is an error, and leaves nothing behind. */
static void making_a_core(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct machine *machine = NULL;
        fault_alloc_nth(nth);
        err_t err = core_create(&(struct core_options){0}, &machine);
        if (!fault_alloc_stop()) {
            assert_null(err);
            machine->ops->destroy(machine);
            return;
        }
        assert_int_equal(err_code(err), ERR_MEMORY);
        err_free(err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_store_call),
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(making_a_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
