#include "broker/volume/router.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/base/random.h"
#include "tests/lib/deadline.h"
#include "tests/lib/volumes.h"

enum { SHARDS = 4 };

static const struct sub_settings usual = {.lease_ms = 30000, .max_attempts = 3};

static struct catalog_change put_topic(uint32_t shards)
{
    return (struct catalog_change){.op = CATALOG_TOPIC_PUT,
                                   .topic = span_text("t"),
                                   .shard_count = shards,
                                   .topic_settings = {.dedup_window_ms = 60000}};
}

static struct catalog_change put_sub(uint64_t lease_ms)
{
    return (struct catalog_change){.op = CATALOG_SUB_PUT,
                                   .topic = span_text("t"),
                                   .sub = span_text("s"),
                                   .sub_settings = {.lease_ms = lease_ms}};
}

static struct catalog_change drop_topic(void)
{
    return (struct catalog_change){
        .op = CATALOG_TOPIC_STATE, .topic = span_text("t"), .to = CATALOG_DELETING};
}

static struct catalog_change drop_sub(void)
{
    return (struct catalog_change){.op = CATALOG_SUB_STATE,
                                   .topic = span_text("t"),
                                   .sub = span_text("s"),
                                   .to = CATALOG_DELETING};
}

struct configuring {
    struct router_configure configure;
    bool done;
};

static void start(struct volumes *volumes, struct configuring *configuring,
                  struct catalog_change change)
{
    *configuring = (struct configuring){.configure = {.change = change}};
    volumes_prepare(volumes, &configuring->configure.operation, &configuring->done);
    router_start_configure(volumes->router, &configuring->configure);
}

static enum err_code run(struct volumes *volumes, struct catalog_change *change)
{
    struct configuring configuring;
    start(volumes, &configuring, *change);
    volumes_await(volumes, &configuring.done);
    router_release(&configuring.configure.operation);
    *change = configuring.configure.change;
    return configuring.configure.operation.result.code;
}

static enum err_code apply(struct volumes *volumes, struct catalog_change change)
{
    return run(volumes, &change);
}

static void open_volumes(struct volumes *volumes)
{
    const struct volumes_options options = {.count = 2};
    volumes_open(volumes, &options);
}

/* The subscription works on every shard: what is published to each comes back. */
static void expect_working(struct volumes *volumes)
{
    (void)volumes_drain_sub(volumes, "t", "s");
    volumes_publish_many(volumes, "t", 2 * SHARDS);
    assert_int_equal(volumes_drain_sub(volumes, "t", "s"), 2 * SHARDS);
}

/* The lease that a subscription now gives on both volumes. */
static void expect_lease(struct volumes *volumes, uint64_t lease_ms)
{
    struct volumes_pull pull;
    volumes_publish_many(volumes, "t", 2 * SHARDS);
    volumes_pull_start(volumes, &pull, "t", "s", 2 * SHARDS, 0);
    volumes_await(volumes, &pull.done);
    assert_int_equal(volumes_pull_count(&pull), 2 * SHARDS);
    for (const struct reply *reply = router_reply_next(&pull.pull.operation, NULL); reply != NULL;
         reply = router_reply_next(&pull.pull.operation, reply)) {
        for (uint32_t index = 0; index < reply_delivery_count(reply); index++) {
            assert_int_equal(reply_delivery(reply, index)->due_ms,
                             clock_wall_ms(&volumes->clock) + lease_ms);
        }
    }
    volumes_pull_free(&pull);
}

/* The volumes hold the shards and cursors of what the catalog names, and of nothing else. */
static void expect_nothing_left(struct volumes *volumes)
{
    uint32_t expected = 0;
    for (const struct catalog_topic *topic = catalog_topic_after(volumes->catalog, span_text(""));
         topic != NULL; topic = catalog_topic_after(volumes->catalog, span_text(topic->name))) {
        expected += topic->shard_count * (1 + topic->sub_count);
    }
    for (uint32_t index = 0; index < volumes->options.count; index++) {
        volumes_await_idle(volumes, index);
    }
    struct router_stats stats = {0};
    bool done = false;
    uint32_t rows = 0;
    volumes_prepare(volumes, &stats.operation, &done);
    router_start_stats(volumes->router, &stats);
    volumes_await(volumes, &done);
    for (const struct reply *reply = router_reply_next(&stats.operation, NULL); reply != NULL;
         reply = router_reply_next(&stats.operation, reply)) {
        for (size_t offset = 0; offset < reply->items.size;) {
            struct shard_stats row;
            memcpy(&row, reply->items.data + offset, sizeof row);
            offset += sizeof row + row.sub_count * sizeof(struct sub_stats);
            rows += 1 + row.sub_count;
        }
    }
    assert_int_equal(rows, expected);
    router_release(&stats.operation);
}

/* Putting creates, changes, or finds it so already; each tells which, and preconditions hold. */
static void test_put(void **state)
{
    (void)state;
    struct volumes volumes;
    open_volumes(&volumes);
    assert_int_equal(apply(&volumes, put_sub(1000)), ERR_NOT_FOUND);
    struct catalog_change change = put_topic(SHARDS);
    assert_int_equal(run(&volumes, &change), ERR_NONE);
    assert_true(change.created && change.changed);
    change = put_topic(SHARDS);
    assert_int_equal(run(&volumes, &change), ERR_NONE);
    assert_false(change.created || change.changed);
    assert_int_equal(apply(&volumes, put_topic(SHARDS + 1)), ERR_EXISTS);
    change = put_topic(SHARDS);
    change.create_only = true;
    assert_int_equal(run(&volumes, &change), ERR_PRECONDITION);

    change = put_sub(1000);
    assert_int_equal(run(&volumes, &change), ERR_NONE);
    assert_true(change.created);
    expect_lease(&volumes, 1000);
    change = put_sub(2000);
    change.has_version = true;
    change.version = 1;
    assert_int_equal(run(&volumes, &change), ERR_NONE);
    assert_true(change.changed && !change.created);
    expect_lease(&volumes, 2000);
    change.sub_settings.lease_ms = 3000;
    assert_int_equal(run(&volumes, &change), ERR_PRECONDITION);
    expect_lease(&volumes, 2000);
    volumes_close(&volumes);
}

/* What is deleted is gone at once, and what is created again under its name starts anew. */
static void test_delete(void **state)
{
    (void)state;
    struct volumes volumes;
    open_volumes(&volumes);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(apply(&volumes, put_topic(SHARDS)), ERR_NONE);
        assert_int_equal(apply(&volumes, put_sub(1000)), ERR_NONE);
        volumes_publish_many(&volumes, "t", 10);
        assert_int_equal(apply(&volumes, drop_sub()), ERR_NONE);
        assert_int_equal(apply(&volumes, put_sub(1000)), ERR_NONE);
        assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), 0);
        volumes_publish_many(&volumes, "t", 10);
        assert_int_equal(apply(&volumes, drop_topic()), ERR_NONE);
        assert_int_equal(apply(&volumes, drop_topic()), ERR_NOT_FOUND);
        assert_null(catalog_topic(volumes.catalog, span_text("t")));
        volumes_quiesce(&volumes);
        expect_nothing_left(&volumes);
    }
    volumes_close(&volumes);
}

/* ---- at the same time ----------------------------------------------------------------------- */

/* Puts and deletions of one topic that run together each end, and leave it either whole or gone. */
static void test_concurrent(void **state)
{
    (void)state;
    enum { ROUNDS = 40, AT_ONCE = 8 };
    struct volumes volumes;
    struct random random;
    random_init(&random, 7);
    open_volumes(&volumes);
    for (int round = 0; round < ROUNDS; round++) {
        struct configuring all[AT_ONCE];
        for (int index = 0; index < AT_ONCE; index++) {
            const struct catalog_change changes[] = {put_topic(SHARDS), put_sub(1000), drop_topic(),
                                                     put_topic(SHARDS), put_sub(2000), drop_sub()};
            start(&volumes, &all[index], changes[random_below(&random, 6)]);
            if (random_chance(&random, 1, 2)) {
                router_poll(volumes.router);
            }
        }
        for (int index = 0; index < AT_ONCE; index++) {
            volumes_await(&volumes, &all[index].done);
            router_release(&all[index].configure.operation);
            enum err_code code = all[index].configure.operation.result.code;
            assert_true(code == ERR_NONE || code == ERR_CONFLICT || code == ERR_NOT_FOUND);
        }
        const struct catalog_topic *topic = catalog_topic(volumes.catalog, span_text("t"));
        assert_true(topic == NULL || topic->state == CATALOG_ACTIVE);
        const struct catalog_sub *sub = topic == NULL ? NULL : catalog_sub(topic, span_text("s"));
        assert_true(sub == NULL || sub->state == CATALOG_ACTIVE);
        if (sub != NULL) {
            expect_lease(&volumes, sub->settings.lease_ms);
        }
        assert_int_equal(apply(&volumes, put_topic(SHARDS)), ERR_NONE);
        assert_int_equal(apply(&volumes, put_sub(1000)), ERR_NONE);
        expect_working(&volumes);
    }
    volumes_close(&volumes);
}

/* Of two changes of settings that run together the later one holds, on every volume. */
static void test_last_settings(void **state)
{
    (void)state;
    enum { AT_ONCE = 10 };
    struct volumes volumes;
    struct configuring all[AT_ONCE];
    open_volumes(&volumes);
    assert_int_equal(apply(&volumes, put_topic(SHARDS)), ERR_NONE);
    for (uint64_t index = 0; index < AT_ONCE; index++) {
        start(&volumes, &all[index], put_sub(1000 + index));
    }
    for (uint64_t index = 0; index < AT_ONCE; index++) {
        volumes_await(&volumes, &all[index].done);
        assert_int_equal(all[index].configure.operation.result.code, ERR_NONE);
        router_release(&all[index].configure.operation);
    }
    expect_lease(&volumes, 1000 + AT_ONCE - 1);
    volumes_close(&volumes);
}

static enum err_code end(struct volumes *volumes, struct configuring *configuring)
{
    volumes_await(volumes, &configuring->done);
    router_release(&configuring->configure.operation);
    return configuring->configure.operation.result.code;
}

/* Until it has done what it was sent. */
static void await_volume(struct volumes *volumes, uint32_t index)
{
    struct call *call = volumes_call(volumes, COMMAND_STATS);
    volumes_run(volumes, index, call);
    volumes_call_free(call);
}

/* A deletion asked for twice ends twice: the second end does not take away what was created under
 * the name between them, even when that is being deleted too and a volume still has it. */
static void test_late_end_of_a_deletion(void **state)
{
    (void)state;
    struct volumes volumes;
    struct configuring first;
    struct configuring second;
    struct configuring put;
    struct configuring third;
    open_volumes(&volumes);
    assert_int_equal(apply(&volumes, put_topic(SHARDS)), ERR_NONE);
    volumes_hold(&volumes, 0);
    start(&volumes, &first, drop_topic());
    volumes_turn_until_held(&volumes, 0);
    await_volume(&volumes, 1);
    volumes_hold(&volumes, 1);
    start(&volumes, &second, drop_topic());
    volumes_turn_until_held(&volumes, 1);
    volumes_unhold(&volumes, 0);
    assert_int_equal(end(&volumes, &first), ERR_NONE);

    await_volume(&volumes, 0);
    volumes_hold(&volumes, 0);
    start(&volumes, &put, put_topic(SHARDS));
    start(&volumes, &third, drop_topic());
    const struct catalog_topic *topic = NULL;
    while (topic == NULL || topic->state != CATALOG_DELETING) {
        volumes_turn(&volumes);
        topic = catalog_topic(volumes.catalog, span_text("t"));
    }
    volumes_unhold(&volumes, 1);
    assert_int_equal(end(&volumes, &second), ERR_NONE);
    assert_non_null(catalog_topic(volumes.catalog, span_text("t")));
    volumes_unhold(&volumes, 0);
    assert_int_equal(end(&volumes, &third), ERR_NONE);
    assert_int_equal(end(&volumes, &put), ERR_CONFLICT);
    assert_null(catalog_topic(volumes.catalog, span_text("t")));
    volumes_quiesce(&volumes);
    expect_nothing_left(&volumes);
    volumes_close(&volumes);
}

struct publishing {
    struct router_publish publish;
    struct message_in message;
    struct publish_result result;
    bool done;
};

/* A subscription that is created while publishers run misses nothing that was confirmed after its
 * creation was. */
static void test_created_under_load(void **state)
{
    (void)state;
    enum { COUNT = 400, AT_ONCE = 16, CREATE_AT = 100, CREATED_BY = 300 };
    static struct publishing all[COUNT];
    struct volumes volumes;
    struct configuring create = {.done = false};
    bool wanted[COUNT] = {false};
    uint32_t first = 0;
    uint32_t wanted_count = 0;
    open_volumes(&volumes);
    assert_int_equal(apply(&volumes, put_topic(SHARDS)), ERR_NONE);
    for (uint32_t next = 0; first < COUNT;) {
        for (; next < COUNT && next < first + AT_ONCE; next++) {
            struct publishing *one = &all[next];
            one->message = volumes_message("", "body");
            one->publish = (struct router_publish){.topic = span_text("t"),
                                                   .messages = &one->message,
                                                   .count = 1,
                                                   .results = &one->result};
            volumes_prepare(&volumes, &one->publish.operation, &one->done);
            router_start_publish(volumes.router, &one->publish);
            if (next == CREATE_AT) {
                start(&volumes, &create, put_sub(30000));
            } else if (next == CREATED_BY) {
                volumes_await(&volumes, &create.done);
            }
        }
        for (uint32_t index = first; create.done && index < next; index++) {
            wanted[index] = wanted[index] || !all[index].done;
        }
        volumes_await(&volumes, &all[first].done);
        for (; first < next && all[first].done; first++) {
            wanted_count += wanted[first];
            router_release(&all[first].publish.operation);
        }
    }
    router_release(&create.configure.operation);
    assert_in_range(wanted_count, COUNT - CREATED_BY - 1, COUNT - CREATE_AT);
    uint32_t got = volumes_drain_sub(&volumes, "t", "s");
    assert_in_range(got, wanted_count, COUNT - CREATE_AT + AT_ONCE);
    volumes_close(&volumes);
}

/* ---- stops in the middle -------------------------------------------------------------------- */

static void before_nothing(struct volumes *volumes)
{
    (void)volumes;
}

static void before_topic(struct volumes *volumes)
{
    assert_int_equal(apply(volumes, put_topic(SHARDS)), ERR_NONE);
}

static void before_sub(struct volumes *volumes)
{
    before_topic(volumes);
    assert_int_equal(apply(volumes, put_sub(1000)), ERR_NONE);
    volumes_publish_many(volumes, "t", 10);
}

static void after_put_topic(struct volumes *volumes, bool done)
{
    const struct catalog_topic *topic = catalog_topic(volumes->catalog, span_text("t"));
    assert_true(!done || topic != NULL);
    assert_true(topic == NULL || topic->state == CATALOG_ACTIVE);
    if (topic != NULL) {
        assert_int_equal(apply(volumes, put_sub(1000)), ERR_NONE);
        expect_working(volumes);
    }
}

static void after_put_sub(struct volumes *volumes, bool done)
{
    const struct catalog_topic *topic = catalog_topic(volumes->catalog, span_text("t"));
    const struct catalog_sub *sub = catalog_sub(topic, span_text("s"));
    assert_true(!done || sub != NULL);
    assert_true(sub == NULL || sub->state == CATALOG_ACTIVE);
    if (sub != NULL) {
        expect_working(volumes);
    }
}

static void after_change_sub(struct volumes *volumes, bool done)
{
    const struct catalog_topic *topic = catalog_topic(volumes->catalog, span_text("t"));
    const struct catalog_sub *sub = catalog_sub(topic, span_text("s"));
    assert_int_equal(sub->state, CATALOG_ACTIVE);
    assert_true(sub->settings.lease_ms == 2000 || !done);
    (void)volumes_drain_sub(volumes, "t", "s");
    expect_lease(volumes, sub->settings.lease_ms);
}

static void after_drop_sub(struct volumes *volumes, bool done)
{
    const struct catalog_topic *topic = catalog_topic(volumes->catalog, span_text("t"));
    const struct catalog_sub *sub = catalog_sub(topic, span_text("s"));
    assert_true(!done || sub == NULL);
    if (sub != NULL) {
        assert_int_equal(sub->state, CATALOG_ACTIVE);
        assert_int_equal(volumes_drain_sub(volumes, "t", "s"), 10);
    } else {
        assert_int_equal(apply(volumes, put_sub(1000)), ERR_NONE);
        assert_int_equal(volumes_drain_sub(volumes, "t", "s"), 0);
    }
    expect_working(volumes);
}

static void after_drop_topic(struct volumes *volumes, bool done)
{
    const struct catalog_topic *topic = catalog_topic(volumes->catalog, span_text("t"));
    assert_true(!done || topic == NULL);
    if (topic != NULL) {
        after_drop_sub(volumes, false);
        return;
    }
    before_topic(volumes);
    assert_int_equal(apply(volumes, put_sub(1000)), ERR_NONE);
    expect_working(volumes);
}

struct step_case {
    void (*before)(struct volumes *volumes);
    struct catalog_change change;
    void (*after)(struct volumes *volumes, bool done);
};

/* Stops everything after `commits` more commits in the middle of a change; true when it was done by
 * then. */
static bool check_stop(const struct step_case *one, int commits)
{
    struct volumes volumes;
    open_volumes(&volumes);
    one->before(&volumes);
    for (uint32_t index = 0; index <= volumes.options.count; index++) {
        volumes_await_idle(&volumes, index);
    }
    volumes_fail_after(&volumes, commits);
    enum err_code code = apply(&volumes, one->change);
    assert_true(code == ERR_NONE || code == ERR_UNKNOWN);
    volumes_restart(&volumes);
    volumes_restart(&volumes); /* finding nothing more to finish */
    expect_nothing_left(&volumes);
    one->after(&volumes, code == ERR_NONE);
    volumes_close(&volumes);
    return code == ERR_NONE;
}

/* After a stop at any step of a change, the next start leaves it either undone or finished on every
 * volume, and finished when it was confirmed. */
static void test_stops(void **state)
{
    (void)state;
    const struct step_case cases[] = {
        {before_nothing, put_topic(SHARDS), after_put_topic},
        {before_topic, put_sub(1000), after_put_sub},
        {before_sub, put_sub(2000), after_change_sub},
        {before_sub, drop_sub(), after_drop_sub},
        {before_sub, drop_topic(), after_drop_topic},
    };
    for (size_t index = 0; index < sizeof cases / sizeof *cases; index++) {
        int commits = 0;
        while (!check_stop(&cases[index], commits)) {
            commits++;
            assert_in_range(commits, 1, 20);
        }
        assert_in_range(commits, 3, 20); /* record, two volumes, finish */
    }
}

/* A start finishes more than a mailbox holds. */
static void test_many_topics(void **state)
{
    (void)state;
    enum { TOPICS = 50 };
    const struct volumes_options options = {.count = 2, .mailbox_max = 4};
    struct volumes volumes;
    volumes_open(&volumes, &options);
    char name[16];
    for (uint32_t index = 0; index < TOPICS; index++) {
        snprintf(name, sizeof name, "topic-%u", index);
        assert_int_equal(volumes_put_topic(&volumes, name, 2), ERR_NONE);
        assert_int_equal(volumes_put_sub(&volumes, name, "s", &usual), ERR_NONE);
    }
    volumes_restart(&volumes);
    for (uint32_t index = 0; index < TOPICS; index++) {
        snprintf(name, sizeof name, "topic-%u", index);
        volumes_publish_many(&volumes, name, 4);
        assert_int_equal(volumes_drain_sub(&volumes, name, "s"), 4);
    }
    volumes_close(&volumes);
}

/* A mailbox that requests fill up does not keep a change from being carried through. */
static void test_busy(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[3];
    struct configuring changing;
    const struct volumes_options options = {.count = 2, .mailbox_max = 1};
    volumes_open(&volumes, &options);
    before_topic(&volumes);
    assert_int_equal(apply(&volumes, put_sub(1000)), ERR_NONE);
    volumes_quiesce(&volumes);
    volumes_hold(&volumes, 0);
    for (size_t index = 0; index < 3; index++) {
        volumes_pull_start(&volumes, &pulls[index], "t", "s", 1, 0);
        if (index == 0) {
            volumes_turn_until_held(&volumes, 0);
        }
    }
    start(&volumes, &changing, put_sub(2000));
    const struct deadline deadline = deadline_in(VOLUMES_WAIT_MS);
    struct volume_status status;
    do { /* until its step for the held volume has gone into the full mailbox */
        assert_false(deadline_passed(&deadline));
        router_poll(volumes.router);
        sched_yield();
        volume_status(volumes.list[0], &status);
    } while (!changing.done && status.mailbox_count < 2);
    volumes_unhold(&volumes, 0);
    volumes_await(&volumes, &changing.done);
    assert_int_equal(changing.configure.operation.result.code, ERR_NONE);
    router_release(&changing.configure.operation);
    for (size_t index = 0; index < 3; index++) {
        volumes_await(&volumes, &pulls[index].done);
        volumes_pull_free(&pulls[index]);
    }
    expect_lease(&volumes, 2000);
    volumes_close(&volumes);
}

/* A change that one volume refused is carried through there when it is made again. */
static void test_made_again(void **state)
{
    (void)state;
    struct volumes volumes;
    open_volumes(&volumes);
    before_topic(&volumes);
    assert_int_equal(apply(&volumes, put_sub(1000)), ERR_NONE);
    volumes_fail_apply(&volumes, 1, COMMAND_SUB_PUT, ERR_MEMORY);
    assert_int_not_equal(apply(&volumes, put_sub(2000)), ERR_NONE);
    volumes_fail_apply(&volumes, 1, COMMAND_SUB_PUT, ERR_NONE);
    assert_int_equal(apply(&volumes, put_sub(2000)), ERR_NONE);
    expect_lease(&volumes, 2000);

    volumes_fail_apply(&volumes, 0, COMMAND_SUB_DROP, ERR_MEMORY);
    assert_int_not_equal(apply(&volumes, drop_sub()), ERR_NONE);
    volumes_fail_apply(&volumes, 0, COMMAND_SUB_DROP, ERR_NONE);
    assert_int_equal(apply(&volumes, drop_sub()), ERR_NONE);
    assert_int_equal(apply(&volumes, put_sub(1000)), ERR_NONE);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), 0);
    volumes_close(&volumes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put),
        cmocka_unit_test(test_delete),
        cmocka_unit_test(test_concurrent),
        cmocka_unit_test(test_last_settings),
        cmocka_unit_test(test_late_end_of_a_deletion),
        cmocka_unit_test(test_created_under_load),
        cmocka_unit_test(test_stops),
        cmocka_unit_test(test_many_topics),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
