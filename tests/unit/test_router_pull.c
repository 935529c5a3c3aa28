#include "broker/volume/router.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/pulls.h"

enum { MANY = 1000, DELAY_MS = 1000 };

/* A pull gathers from every volume, up to `max`. */
static void test_gathers(void **state)
{
    (void)state;
    const uint32_t counts[] = {1, 2, 4};
    for (size_t index = 0; index < sizeof counts / sizeof *counts; index++) {
        struct volumes volumes;
        struct volumes_pull pull;
        pulls_open(&volumes, counts[index]);
        volumes_publish_many(&volumes, "t", 40);
        volumes_pull_start(&volumes, &pull, "t", "s", 30, 0);
        volumes_await(&volumes, &pull.done);
        assert_int_equal(volumes_pull_count(&pull), 30);
        volumes_pull_free(&pull);
        volumes_pull_start(&volumes, &pull, "t", "s", 30, PULLS_WAIT_MS);
        volumes_await(&volumes, &pull.done);
        assert_int_equal(volumes_pull_count(&pull), 10);
        volumes_pull_free(&pull);
        volumes_close(&volumes);
    }
}

/* The sizes of a pull's messages stay within size_max over all volumes together; only the first
 * message comes whatever its size. */
static void check_size_max(uint32_t size_max)
{
    enum { BODY = 10, COUNT = 24 };
    struct volumes volumes;
    uint32_t total = 0;
    pulls_open(&volumes, 4);
    for (uint32_t index = 0; index < COUNT; index++) {
        (void)volumes_publish(&volumes, "t", volumes_message("", "0123456789"));
    }
    while (total < COUNT) {
        struct volumes_pull pull;
        volumes_pull_with(&volumes, &pull,
                          (struct router_pull){.topic = span_text("t"),
                                               .sub = span_text("s"),
                                               .max = COUNT,
                                               .size_max = size_max});
        volumes_await(&volumes, &pull.done);
        uint32_t count = volumes_pull_count(&pull);
        uint32_t fits = size_max < BODY ? 1 : size_max / BODY;
        assert_in_range(count, 1, fits);
        total += count;
        volumes_pull_free(&pull);
    }
    assert_int_equal(total, COUNT);
    volumes_close(&volumes);
}

static void test_size_max(void **state)
{
    (void)state;
    const uint32_t sizes[] = {1, 9, 10, 11, 19, 20, 35, 79, 240, 1000};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        check_size_max(sizes[index]);
    }
}

/* Pulls of one message each begin at another volume in turn, so none of them is starved. */
static void test_rotates(void **state)
{
    (void)state;
    enum { COUNT = 4, PULLS = 16 };
    struct volumes volumes;
    uint32_t from[COUNT] = {0};
    pulls_open(&volumes, COUNT);
    volumes_publish_many(&volumes, "t", 100);
    for (uint32_t index = 0; index < PULLS; index++) {
        struct volumes_pull pull;
        struct catalog_topic *topic = NULL;
        pulls_start(&volumes, &pull, 0);
        const struct receipt receipt = pulls_expect_one(&volumes, &pull);
        from[catalog_shard_by_id(volumes.catalog, receipt.shard_id, &topic)->volume]++;
    }
    for (uint32_t volume = 0; volume < COUNT; volume++) {
        assert_int_equal(from[volume], PULLS / COUNT);
    }
    volumes_close(&volumes);
}

/* Messages that cannot be delivered yet do not hide one behind them, however many there are. */
static void test_behind_delayed(void **state)
{
    (void)state;
    enum { DELAYED = 17000, AT_ONCE = 1000 }; /* more than one command looks at */
    struct volumes volumes;
    struct volumes_pull pull;
    static struct message_in messages[AT_ONCE];
    static struct publish_result results[AT_ONCE];
    pulls_open_with(&volumes, (struct volumes_options){.count = 1}, 1);
    for (size_t index = 0; index < AT_ONCE; index++) {
        messages[index] = volumes_message("", "body");
        messages[index].delay_ms = PULLS_WAIT_MS;
    }
    for (uint32_t count = 0; count < DELAYED; count += AT_ONCE) {
        struct router_publish publish = {
            .topic = span_text("t"), .messages = messages, .count = AT_ONCE, .results = results};
        bool done = false;
        volumes_prepare(&volumes, &publish.operation, &done);
        router_start_publish(volumes.router, &publish);
        volumes_await(&volumes, &done);
        assert_int_equal(publish.operation.result.code, ERR_NONE);
        router_release(&publish.operation);
    }
    pulls_publish(&volumes);
    pulls_start(&volumes, &pull, 0);
    assert_int_equal(pulls_expect_one(&volumes, &pull).sequence, DELAYED);
    volumes_close(&volumes);
}

/* ---- what wakes a waiting pull -------------------------------------------------------------- */

static struct receipt lease_one(struct volumes *volumes)
{
    struct volumes_pull pull;
    pulls_publish(volumes);
    pulls_start(volumes, &pull, 0);
    return pulls_expect_one(volumes, &pull);
}

static void settle_one(struct volumes *volumes, struct receipt receipt,
                       enum router_settle_kind kind, bool reject, uint64_t delay_ms)
{
    enum err_code result = ERR_UNKNOWN;
    struct router_settle settle = {.topic = span_text("t"),
                                   .sub = span_text("s"),
                                   .kind = kind,
                                   .receipts = &receipt,
                                   .count = 1,
                                   .results = &result,
                                   .reject = reject,
                                   .has_delay = delay_ms > 0,
                                   .delay_ms = delay_ms};
    bool done = false;
    volumes_prepare(volumes, &settle.operation, &done);
    router_start_settle(volumes->router, &settle);
    volumes_await(volumes, &done);
    assert_int_equal(result, ERR_NONE);
    router_release(&settle.operation);
}

static void change(struct volumes *volumes, struct command command)
{
    struct router_change operation = {.topic = span_text("t"),
                                      .sub = span_text("s"),
                                      .command = command,
                                      .shard_number = UINT32_MAX};
    bool done = false;
    volumes_prepare(volumes, &operation.operation, &done);
    router_start_change(volumes->router, &operation);
    volumes_await(volumes, &done);
    assert_int_equal(operation.operation.result.code, ERR_NONE);
    assert_int_equal(operation.count, 1);
    router_release(&operation.operation);
}

/* Each has a part before the pull waits, which leaves nothing to be pulled, and one that wakes. */
struct cause {
    const char *name;
    void (*before)(struct volumes *volumes, struct receipt *receipt);
    void (*wake)(struct volumes *volumes, const struct receipt *receipt);
};

static void before_nothing(struct volumes *volumes, struct receipt *receipt)
{
    (void)volumes;
    (void)receipt;
}

static void before_lease(struct volumes *volumes, struct receipt *receipt)
{
    *receipt = lease_one(volumes);
}

static void before_delay(struct volumes *volumes, struct receipt *receipt)
{
    struct message_in message = volumes_message("", "body");
    (void)receipt;
    message.delay_ms = 5000;
    (void)volumes_publish(volumes, "t", message);
}

static void before_pause(struct volumes *volumes, struct receipt *receipt)
{
    struct sub_settings paused = pulls_usual;
    (void)receipt;
    paused.paused = true;
    pulls_publish(volumes);
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &paused), ERR_NONE);
}

static void before_dead(struct volumes *volumes, struct receipt *receipt)
{
    *receipt = lease_one(volumes);
    settle_one(volumes, *receipt, ROUTER_NACK, true, 0);
}

static void before_skip(struct volumes *volumes, struct receipt *receipt)
{
    (void)receipt;
    assert_int_equal(volumes_put_sub(volumes, "t", "other", &pulls_usual), ERR_NONE); /* keeps it */
    pulls_publish(volumes);
    change(volumes, (struct command){.type = COMMAND_SEEK, .seek = {.to = START_LATEST}});
}

static void before_in_flight(struct volumes *volumes, struct receipt *receipt)
{
    struct sub_settings one = pulls_usual;
    one.max_in_flight = 1;
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &one), ERR_NONE);
    const char *key = volumes_key_on(volumes, "t", 1, 0);
    struct volumes_pull pull;
    (void)volumes_publish(volumes, "t", volumes_message(key, "first"));
    (void)volumes_publish(volumes, "t", volumes_message(key, "second"));
    pulls_start(volumes, &pull, 0);
    *receipt = pulls_expect_one(volumes, &pull);
}

static void wake_publish(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    pulls_publish(volumes);
}

static void wake_nack(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_NACK, false, 0);
}

static void wake_nack_delay(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_NACK, false, 1000);
}

static void wake_nack_later(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_NACK, false, 1000);
    volumes_advance(volumes, 1000);
}

static void wake_reject(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_NACK, true, 0);
}

static void wake_ack(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_ACK, false, 0);
}

static void wake_expiry(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    volumes_advance(volumes, pulls_usual.lease_ms);
}

static void wake_due(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    volumes_advance(volumes, 5000);
}

static void wake_resume(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &pulls_usual), ERR_NONE);
}

static void wake_redrive(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    change(volumes, (struct command){.type = COMMAND_REDRIVE, .redrive = {.max = 10}});
}

static void wake_seek(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    change(volumes, (struct command){.type = COMMAND_SEEK, .seek = {.to = START_EARLIEST}});
}

static void wake_purge(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    change(volumes, (struct command){.type = COMMAND_PURGE, .purge = {.delivery = true}});
}

static const struct cause causes[] = {
    {"publish", before_nothing, wake_publish},
    {"nack", before_lease, wake_nack},
    {"nack with a delay", before_lease, wake_nack_later},
    {"lease expiry", before_lease, wake_expiry},
    {"delay due", before_delay, wake_due},
    {"resume", before_pause, wake_resume},
    {"redrive", before_dead, wake_redrive},
    {"seek", before_skip, wake_seek},
    {"room in flight by ack", before_in_flight, wake_ack},
    {"room in flight by nack", before_in_flight, wake_nack},
    {"room in flight by nack with a delay", before_in_flight, wake_nack_delay},
    {"room in flight by reject", before_in_flight, wake_reject},
    {"room in flight by expiry", before_in_flight, wake_expiry},
    {"room in flight by purge", before_in_flight, wake_purge},
    {"room in flight by settings", before_in_flight, wake_resume},
};

/* A waiting pull gets a message as soon as there is one for it, whatever brings it about. */
static void test_wakes(void **state)
{
    (void)state;
    for (size_t index = 0; index < sizeof causes / sizeof *causes; index++) {
        const struct cause *cause = &causes[index];
        struct volumes volumes;
        struct volumes_pull pull;
        struct receipt receipt = {0};
        pulls_open(&volumes, 2);
        cause->before(&volumes, &receipt);
        pulls_start_waiting(&volumes, &pull);
        if (pull.done) {
            fail_msg("%s: there was a message before", cause->name);
        }
        cause->wake(&volumes, &receipt);
        (void)pulls_expect_one(&volumes, &pull);
        assert_int_equal(router_waiting(volumes.router), 0);
        volumes_close(&volumes);
    }
}

/* ---- many ----------------------------------------------------------------------------------- */

static void expect_each_one(struct volumes *volumes, struct volumes_pull *pulls, uint32_t count)
{
    struct receipt *receipts = calloc(count, sizeof *receipts);
    assert_non_null(receipts);
    for (uint32_t index = 0; index < count; index++) {
        receipts[index] = pulls_expect_one(volumes, &pulls[index]);
    }
    /* Every one can be acknowledged: no message was given twice. */
    volumes_settle(volumes, ROUTER_ACK, "t", "s", receipts, count);
    free(receipts);
    assert_int_equal(volumes_drain_sub(volumes, "t", "s"), 0);
}

static void check_many(uint32_t volume_count, bool at_once)
{
    struct volumes volumes;
    struct volumes_pull *pulls = calloc(MANY, sizeof *pulls);
    assert_non_null(pulls);
    pulls_open(&volumes, volume_count);
    for (uint32_t index = 0; index < MANY; index++) {
        pulls_start(&volumes, &pulls[index], PULLS_WAIT_MS);
    }
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), MANY);
    if (at_once) {
        volumes_publish_many(&volumes, "t", MANY);
    }
    for (uint32_t index = 0; index < MANY && !at_once; index++) {
        pulls_publish(&volumes);
    }
    expect_each_one(&volumes, pulls, MANY);
    assert_int_equal(router_waiting(volumes.router), 0);
    free(pulls);
    volumes_close(&volumes);
}

/* A thousand waiting pulls and a thousand messages: each gets one, none is lost or doubled. */
static void test_many(void **state)
{
    (void)state;
    check_many(1, true);
    check_many(2, true);
    check_many(4, false);
}

/* The first that finds many messages makes as many others ask at the same time, not one after the
 * other, and no more than there are messages for. */
static void test_burst(void **state)
{
    (void)state;
    enum { WAITING = 100, MESSAGES = 40 };
    static struct volumes_pull pulls[WAITING];
    struct volumes volumes;
    pulls_open(&volumes, 1);
    for (size_t index = 0; index < WAITING; index++) {
        pulls_start_waiting(&volumes, &pulls[index]);
    }
    volumes_publish_many(&volumes, "t", MESSAGES);
    while (!pulls[0].done) {
        volumes_turn(&volumes);
    }
    assert_int_equal(router_waiting(volumes.router), WAITING - MESSAGES);
    for (size_t index = 0; index < MESSAGES; index++) {
        (void)pulls_expect_one(&volumes, &pulls[index]);
    }
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), WAITING - MESSAGES);
    router_drain(volumes.router);
    for (size_t index = MESSAGES; index < WAITING; index++) {
        pulls_expect_code(&volumes, &pulls[index], ERR_UNAVAILABLE);
    }
    volumes_close(&volumes);
}

/* Pulls that begin while messages come meet them all: no wake-up falls between asking and waiting.
 */
static void test_race(void **state)
{
    (void)state;
    enum { ROUNDS = 300 };
    struct volumes volumes;
    pulls_open(&volumes, 2);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct volumes_pull pulls[3];
        struct router_publish publish[3];
        struct publish_result results[3];
        struct message_in messages[3];
        bool done[3];
        for (uint32_t index = 0; index < 3; index++) {
            messages[index] = volumes_message("", "body");
            publish[index] = (struct router_publish){.topic = span_text("t"),
                                                     .messages = &messages[index],
                                                     .count = 1,
                                                     .results = &results[index]};
            volumes_prepare(&volumes, &publish[index].operation, &done[index]);
            if ((round >> index & 1) == 0) {
                pulls_start(&volumes, &pulls[index], PULLS_WAIT_MS);
                router_start_publish(volumes.router, &publish[index]);
            } else {
                router_start_publish(volumes.router, &publish[index]);
                router_poll(volumes.router);
                pulls_start(&volumes, &pulls[index], PULLS_WAIT_MS);
            }
        }
        for (uint32_t index = 0; index < 3; index++) {
            (void)pulls_expect_one(&volumes, &pulls[index]);
            volumes_await(&volumes, &done[index]);
            router_release(&publish[index].operation);
        }
    }
    volumes_close(&volumes);
}

/* ---- ends ----------------------------------------------------------------------------------- */

/* A pull that waits for nothing ends empty at its deadline, not before. */
static void test_deadline(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pull;
    pulls_open(&volumes, 2);
    pulls_start(&volumes, &pull, 0);
    pulls_expect_code(&volumes, &pull, ERR_NONE);
    pulls_start(&volumes, &pull, 0);
    router_cancel_pull(volumes.router, &pull.pull);
    assert_int_equal(router_next_due_ms(volumes.router), 0); /* it is done at the next poll */
    pulls_expect_code(&volumes, &pull, ERR_UNAVAILABLE);
    pulls_start_waiting(&volumes, &pull);
    assert_int_equal(router_next_due_ms(volumes.router), VOLUMES_START_MS + PULLS_WAIT_MS);
    volumes_advance(&volumes, PULLS_WAIT_MS - 1);
    volumes_quiesce(&volumes);
    assert_false(pull.done);
    volumes_advance(&volumes, 1);
    pulls_expect_code(&volumes, &pull, ERR_NONE);
    assert_int_equal(router_next_due_ms(volumes.router), UINT64_MAX);
    volumes_close(&volumes);
}

/* A pull whose client goes while it waits is gone: the next message is another's. */
static void test_cancel_waiting(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    pulls_open(&volumes, 2);
    pulls_start_waiting(&volumes, &pulls[0]);
    pulls_start_waiting(&volumes, &pulls[1]);
    router_cancel_pull(volumes.router, &pulls[0].pull);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    pulls_publish(&volumes);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_close(&volumes);
}

/* What a volume gives to a pull whose client has gone meanwhile goes back at once, does not count
 * as an attempt, and is the next one's. */
static void test_cancel_asking(void **state)
{
    (void)state;
    for (uint32_t volume = 0; volume < 2; volume++) {
        struct volumes volumes;
        struct volumes_pull pulls[2];
        pulls_open(&volumes, 2);
        pulls_publish_on(&volumes, volume);
        pulls_start_held(&volumes, &pulls[0], volume);
        router_cancel_pull(volumes.router, &pulls[0].pull);
        pulls_start(&volumes, &pulls[1], PULLS_WAIT_MS);
        volumes_unhold(&volumes, volume);
        pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
        assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
        volumes_close(&volumes);
    }
}

/* One that had found nothing when it went leaves nothing behind. */
static void test_cancel_empty(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    pulls_open(&volumes, 2);
    pulls_start_held(&volumes, &pulls[0], 1);
    router_cancel_pull(volumes.router, &pulls[0].pull);
    volumes_unhold(&volumes, 1);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    pulls_start_waiting(&volumes, &pulls[1]);
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), 1);
    pulls_publish(&volumes);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_close(&volumes);
}

/* The same for one that was woken for it: the volume has told once and will not again, and another
 * one waits. */
static void test_cancel_woken(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    pulls_open(&volumes, 1);
    pulls_start_waiting(&volumes, &pulls[0]);
    pulls_start_waiting(&volumes, &pulls[1]);
    struct message_in message = volumes_message("", "body");
    message.delay_ms = DELAY_MS;
    (void)volumes_publish(&volumes, "t", message);
    volumes_quiesce(&volumes);
    uint64_t commits = volumes_commits(&volumes, 0);
    volumes_advance(&volumes, DELAY_MS);
    while (volumes_commits(&volumes, 0) == commits) {
        sched_yield(); /* until it has told */
    }
    volumes_hold(&volumes, 0);
    router_poll(volumes.router); /* the first one asks */
    volumes_await_held(&volumes, 0);
    router_cancel_pull(volumes.router, &pulls[0].pull);
    volumes_unhold(&volumes, 0);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_close(&volumes);
}

/* The same for what it has got from one volume while the next one is asked. */
static void test_cancel_partly_filled(void **state)
{
    (void)state;
    uint32_t partly = 0;
    for (uint32_t volume = 0; volume < 2; volume++) {
        struct volumes volumes;
        struct volumes_pull pulls[3];
        pulls_open(&volumes, 2);
        pulls_publish_on(&volumes, 0);
        pulls_publish_on(&volumes, 1);
        pulls_start_held(&volumes, &pulls[0], volume);
        partly += pulls[0].pull.taken > 0;
        router_cancel_pull(volumes.router, &pulls[0].pull);
        pulls_start(&volumes, &pulls[1], PULLS_WAIT_MS);
        pulls_start(&volumes, &pulls[2], PULLS_WAIT_MS);
        volumes_unhold(&volumes, volume);
        pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
        assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
        assert_int_equal(pulls_expect_one(&volumes, &pulls[2]).attempt, 1);
        volumes_close(&volumes);
    }
    assert_int_equal(partly, 1); /* the other one began with the volume that was held */
}

struct canceller {
    struct router_stats stats;
    struct volumes *volumes;
    struct volumes_pull *victim;
};

static void cancel_victim(struct router_operation *operation)
{
    struct canceller *canceller = operation->user;
    assert_false(canceller->victim->done);
    router_cancel_pull(canceller->volumes->router, &canceller->victim->pull);
}

/* The same for one that has all it wants but has not been told so yet. */
static void test_cancel_finished(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    struct canceller canceller = {.volumes = &volumes, .victim = &pulls[0]};
    pulls_open(&volumes, 1);
    pulls_publish(&volumes);
    volumes_quiesce(&volumes);
    volumes.woken = false;
    pulls_start(&volumes, &pulls[0], PULLS_WAIT_MS);
    volumes_await_wake(&volumes); /* its reply is there */
    bool unused;
    volumes_prepare(&volumes, &canceller.stats.operation, &unused);
    canceller.stats.operation.done = cancel_victim;
    canceller.stats.operation.user = &canceller;
    canceller.stats.topic = span_text("unknown");
    router_start_stats(volumes.router, &canceller.stats); /* it is done first in the next poll */
    router_poll(volumes.router);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    pulls_start(&volumes, &pulls[1], PULLS_WAIT_MS);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_close(&volumes);
}

/* A drain answers the pulls that wait, and those that would wait, and refuses new ones. */
static void test_drain(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[3];
    pulls_open(&volumes, 2);
    assert_int_equal(volumes_put_sub(&volumes, "t", "other", NULL), ERR_NONE);
    pulls_start_waiting(&volumes, &pulls[0]);
    pulls_start_held_of(&volumes, &pulls[1], 1, "other"); /* where nothing is known yet */
    router_drain(volumes.router);
    pulls_start(&volumes, &pulls[2], PULLS_WAIT_MS);
    volumes_unhold(&volumes, 1);
    for (size_t index = 0; index < 3; index++) {
        pulls_expect_code(&volumes, &pulls[index], ERR_UNAVAILABLE);
    }
    assert_int_equal(router_pending(volumes.router), 0);
    volumes_close(&volumes);
}

static void expect_deleted(uint32_t volume, bool asks)
{
    struct volumes volumes;
    struct volumes_pull pulls[2];
    uint32_t count = asks ? 1 : 2; /* one that asks while others wait would know them to be empty */
    pulls_open(&volumes, 2);
    if (asks) {
        pulls_start_held(&volumes, &pulls[0], volume);
    } else {
        pulls_start_waiting(&volumes, &pulls[0]);
        pulls_start_waiting(&volumes, &pulls[1]);
        volumes_hold(&volumes, volume);
    }
    struct router_configure configure = {
        .change = {.op = volume == 0 ? CATALOG_SUB_STATE : CATALOG_TOPIC_STATE,
                   .topic = span_text("t"),
                   .sub = span_text("s"),
                   .to = CATALOG_DELETING}};
    bool done = false;
    volumes_prepare(&volumes, &configure.operation, &done);
    router_start_configure(volumes.router, &configure);
    while (catalog_topic(volumes.catalog, span_text("t"))->state == CATALOG_ACTIVE &&
           catalog_sub_by_id(volumes.catalog, pulls[0].pull.sub_id)->state == CATALOG_ACTIVE) {
        volumes_turn(&volumes);
    }
    volumes_unhold(&volumes, volume);
    volumes_await(&volumes, &done);
    router_release(&configure.operation);
    for (size_t index = 0; index < count; index++) {
        pulls_expect_code(&volumes, &pulls[index], ERR_NOT_FOUND);
    }
    volumes_close(&volumes);
}

/* A deletion ends the pulls of what is gone, those that wait and those that are about to. */
static void test_deleted(void **state)
{
    (void)state;
    for (uint32_t volume = 0; volume < 2; volume++) {
        expect_deleted(volume, false);
        expect_deleted(volume, true);
    }
}

/* A failed volume does not keep a pull from what the others have; with nothing there, the pull says
 * that not all could be asked. */
static void test_failed_volume(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pull;
    pulls_open(&volumes, 2);
    pulls_publish_on(&volumes, 1);
    pulls_publish_on(&volumes, 1);
    volumes_quiesce(&volumes);
    volumes_fail_apply(&volumes, 0, COMMAND_PULL, ERR_IO);
    pulls_start(&volumes, &pull, PULLS_WAIT_MS);
    (void)pulls_expect_one(&volumes, &pull);
    pulls_start(&volumes, &pull, PULLS_WAIT_MS);
    (void)pulls_expect_one(&volumes, &pull);
    pulls_start(&volumes, &pull, PULLS_WAIT_MS);
    pulls_expect_code(&volumes, &pull, ERR_UNAVAILABLE);
    volumes_close(&volumes);
}

/* A mailbox that requests fill up refuses new pulls, and does not end those that it let in, nor
 * one that waits for ever. */
static void test_busy(void **state)
{
    (void)state;
    enum { PULLS = 8 };
    struct volumes volumes;
    struct volumes_pull pulls[PULLS];
    struct volumes_pull refused[3];
    struct volumes_pull endless;
    pulls_open_with(&volumes, (struct volumes_options){.count = 1, .mailbox_max = 1}, 2);
    for (size_t index = 0; index < PULLS; index++) {
        pulls_start_waiting(&volumes, &pulls[index]);
    }
    volumes_hold(&volumes, 0);
    pulls_start(&volumes, &refused[0], 0);
    volumes_await_held(&volumes, 0);
    pulls_start(&volumes, &refused[1], 0);
    pulls_start(&volumes, &refused[2], 0);
    pulls_expect_code(&volumes, &refused[2], ERR_BUSY);
    pulls_start(&volumes, &endless, ROUTER_WAIT_FOR_EVER);
    volumes_unhold(&volumes, 0);
    pulls_expect_code(&volumes, &refused[0], ERR_NONE);
    pulls_expect_code(&volumes, &refused[1], ERR_NONE);

    volumes_publish_many(&volumes, "t", PULLS + 1);
    expect_each_one(&volumes, pulls, PULLS);
    (void)pulls_expect_one(&volumes, &endless);
    volumes_close(&volumes);
}

/* The one that has waited longest is served first, also when it was woken for nothing before. */
static void test_in_line(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[3];
    pulls_open(&volumes, 1);
    for (size_t index = 0; index < 3; index++) {
        pulls_start_waiting(&volumes, &pulls[index]);
    }
    /* A message that cannot be delivered yet wakes the first for nothing. */
    struct message_in delayed = volumes_message("", "body");
    delayed.delay_ms = PULLS_WAIT_MS / 2;
    (void)volumes_publish(&volumes, "t", delayed);
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), 3);
    for (size_t index = 0; index < 3; index++) {
        pulls_publish(&volumes);
        (void)pulls_expect_one(&volumes, &pulls[index]);
        volumes_quiesce(&volumes);
        assert_int_equal(router_waiting(volumes.router), 2 - index);
    }
    volumes_close(&volumes);
}

/* A pull of what does not exist says so. */
static void test_not_found(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pull;
    pulls_open(&volumes, 2);
    volumes_pull_start(&volumes, &pull, "t", "unknown", 1, PULLS_WAIT_MS);
    pulls_expect_code(&volumes, &pull, ERR_NOT_FOUND);
    volumes_pull_start(&volumes, &pull, "unknown", "s", 1, PULLS_WAIT_MS);
    pulls_expect_code(&volumes, &pull, ERR_NOT_FOUND);
    volumes_close(&volumes);
}

/* A volume whose next message is too large for what still fits is not taken for an empty one: each
 * of several waiting pulls gets one, wherever they lie. */
static void test_what_does_not_fit_is_there(void **state)
{
    (void)state;
    enum { PULLS = 4 };
    static const char body[] = "sixty bytes sixty bytes sixty bytes sixty bytes sixty bytes.";
    struct volumes volumes;
    struct volumes_pull pulls[PULLS];
    pulls_open(&volumes, 2);
    for (size_t index = 0; index < PULLS; index++) {
        volumes_pull_with(&volumes, &pulls[index],
                          (struct router_pull){.topic = span_text("t"),
                                               .sub = span_text("s"),
                                               .max = 10,
                                               .size_max = 100,
                                               .wait_ms = PULLS_WAIT_MS});
    }
    volumes_quiesce(&volumes);
    for (uint32_t index = 0; index < PULLS; index++) {
        const char *key = volumes_key_on(&volumes, "t", index % 2, index / 2);
        (void)volumes_publish(&volumes, "t", volumes_message(key, body));
    }
    for (size_t index = 0; index < PULLS; index++) {
        volumes_await(&volumes, &pulls[index].done);
        assert_int_equal(volumes_pull_count(&pulls[index]), 1);
        volumes_pull_free(&pulls[index]);
    }
    volumes_close(&volumes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gathers),         cmocka_unit_test(test_size_max),
        cmocka_unit_test(test_rotates),         cmocka_unit_test(test_behind_delayed),
        cmocka_unit_test(test_wakes),           cmocka_unit_test(test_many),
        cmocka_unit_test(test_burst),           cmocka_unit_test(test_race),
        cmocka_unit_test(test_deadline),        cmocka_unit_test(test_cancel_waiting),
        cmocka_unit_test(test_cancel_asking),   cmocka_unit_test(test_cancel_empty),
        cmocka_unit_test(test_cancel_woken),    cmocka_unit_test(test_cancel_partly_filled),
        cmocka_unit_test(test_cancel_finished), cmocka_unit_test(test_drain),
        cmocka_unit_test(test_deleted),         cmocka_unit_test(test_what_does_not_fit_is_there),
        cmocka_unit_test(test_failed_volume),   cmocka_unit_test(test_busy),
        cmocka_unit_test(test_in_line),         cmocka_unit_test(test_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
