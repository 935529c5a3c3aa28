/* Publishes that are answered before their commit: when, what a failure takes of them, and that a
 * batch which is applied again has them in it, once, where they were said to be. */
#include "broker/volume/volume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/fault.h"
#include "tests/lib/volumes.h"

enum { SYNCED = 1, RELAXED = 2, LEASE_MS = 30000, RETRY_MS = 500, WORK = 6, NAMES_MAX = 64 };

/* Topic, shard and subscription have one number. A publish of `count` messages named "0", "1" ...
 */
struct publishing {
    struct call *call;
    struct message_in messages[4];
    struct publish_result results[4];
    char bodies[4][16];
};

static struct volumes volumes;
static const struct shard_place places[] = {
    {0},
    {.shard_id = SYNCED, .hash_last = UINT64_MAX},
    {.shard_id = RELAXED, .hash_last = UINT64_MAX},
};

static void run_once(struct call *call)
{
    volumes_run(&volumes, 0, call);
    assert_int_equal(call->reply.code, ERR_NONE);
    volumes_call_free(call);
}

static void put_topic(uint32_t id, enum durability durability)
{
    struct call *call = volumes_call(&volumes, COMMAND_TOPIC_PUT);
    call->command.topic_put =
        (struct topic_put){.topic_id = id,
                           .settings = {.durability = durability, .dedup_window_ms = 1000},
                           .shards = &places[id],
                           .shard_count = 1};
    run_once(call);
    call = volumes_call(&volumes, COMMAND_SUB_PUT);
    call->command.sub_put =
        (struct sub_put){.sub_id = id, .topic_id = id, .settings = {.lease_ms = LEASE_MS}};
    run_once(call);
}

static int setup(void **state)
{
    (void)state;
    volumes_open(&volumes, &(struct volumes_options){.count = 1});
    put_topic(SYNCED, DURABILITY_SYNCED);
    put_topic(RELAXED, DURABILITY_RELAXED);
    volumes_await_idle(&volumes, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    volumes_close(&volumes);
    return 0;
}

/* Messages with the bodies `first`, `first` + 1 ... */
static struct call *publish_call(struct publishing *publishing, uint32_t topic_id, uint32_t first,
                                 uint32_t count)
{
    struct call *call = volumes_call(&volumes, COMMAND_PUBLISH);
    publishing->call = call;
    for (uint32_t index = 0; index < count; index++) {
        (void)snprintf(publishing->bodies[index], sizeof publishing->bodies[index], "%u",
                       first + index);
        publishing->messages[index] = volumes_message("", publishing->bodies[index]);
        publishing->messages[index].shard_id = topic_id;
        publishing->results[index] = (struct publish_result){.code = ERR_UNKNOWN};
    }
    call->command.publish = (struct publish){.topic_id = topic_id,
                                             .messages = publishing->messages,
                                             .count = count,
                                             .results = publishing->results};
    return call;
}

static struct call *pull_call(uint32_t sub_id, uint32_t max)
{
    static uint32_t nonce;
    struct call *call = volumes_call(&volumes, COMMAND_PULL);
    nonce += 1000;
    call->command.pull =
        (struct pull){.sub_id = sub_id, .max = max, .size_max = 1024, .nonce = nonce};
    return call;
}

/* What the sender does once it has its answer: its memory is used for something else. */
static void forget(struct publishing *publishing)
{
    memset(publishing->bodies, 'x', sizeof publishing->bodies);
    memset(publishing->messages, 0xff, sizeof publishing->messages);
}

static void expect_published(const struct publishing *publishing, bool early, uint64_t sequence)
{
    const struct publish *publish = &publishing->call->command.publish;
    assert_int_equal(publishing->call->reply.code, ERR_NONE);
    assert_int_equal(publishing->call->reply.early, early);
    for (uint32_t index = 0; index < publish->count; index++) {
        assert_int_equal(publishing->results[index].code, ERR_NONE);
        assert_int_equal(publishing->results[index].sequence, sequence + index);
    }
}

static void expect_refused(const struct publishing *publishing, enum err_code code)
{
    assert_int_equal(publishing->call->reply.code, code);
    assert_false(publishing->call->reply.early);
    assert_int_equal(publishing->results[0].code, code);
}

/* The messages of a topic that nobody has pulled are "0" to `count` - 1, in order. */
static void expect_messages(uint32_t topic_id, uint32_t count)
{
    struct call *call = pull_call(topic_id, NAMES_MAX);
    volumes_run(&volumes, 0, call);
    assert_int_equal(reply_delivery_count(&call->reply), count);
    for (uint32_t index = 0; index < count; index++) {
        char body[16];
        const struct delivery *delivery = reply_delivery(&call->reply, index);
        (void)snprintf(body, sizeof body, "%u", index);
        assert_int_equal(delivery->sequence, index);
        assert_int_equal(delivery->attempt, 1);
        assert_true(span_is(delivery_body(&call->reply, delivery), body));
    }
    volumes_call_free(call);
}

/* Sends `first`, which the thread is held in, and the others behind it as one batch; every one is
 * answered once. */
static void run_batch(struct call *const *calls, uint32_t count)
{
    struct call *stats = volumes_call(&volumes, COMMAND_STATS);
    volumes_hold(&volumes, 0);
    assert_true(volume_send(volumes.list[0], stats));
    volumes_await_held(&volumes, 0);
    for (uint32_t index = 0; index < count; index++) {
        assert_true(volume_send(volumes.list[0], calls[index]));
    }
    volumes_unhold(&volumes, 0);
    for (uint32_t index = 0; index <= count; index++) {
        const struct call *answered = volumes_answer(&volumes);
        uint32_t at = 0;
        while (at < count && calls[at] != answered) {
            at++;
        }
        assert_true(at < count || answered == stats);
    }
    assert_int_equal(mailbox_count(&volumes.replies), 0);
    volumes_call_free(stats);
}

static struct receipt receipt_of(const struct call *pull, uint32_t index)
{
    const struct delivery *delivery = reply_delivery(&pull->reply, index);
    return (struct receipt){.sub_id = pull->command.pull.sub_id,
                            .shard_id = delivery->shard_id,
                            .sequence = delivery->sequence,
                            .epoch = delivery->epoch,
                            .grant = delivery->grant,
                            .attempt = delivery->attempt};
}

static enum err_code ack(struct receipt receipt)
{
    enum err_code code = ERR_UNKNOWN;
    struct call *call = volumes_call(&volumes, COMMAND_ACK);
    call->command.settle = (struct settle){
        .sub_id = receipt.sub_id, .receipts = &receipt, .count = 1, .results = &code};
    volumes_run(&volumes, 0, call);
    volumes_call_free(call);
    return code;
}

/* Three publishes, the second to the synced topic, and a pull of the relaxed one. */
struct mixture {
    struct publishing publishings[3];
    struct call *calls[4];
};

static void run_mixture(struct mixture *mixture)
{
    struct publishing *publishings = mixture->publishings;
    mixture->calls[0] = publish_call(&publishings[0], RELAXED, 0, 2);
    mixture->calls[1] = publish_call(&publishings[1], SYNCED, 0, 1);
    mixture->calls[2] = publish_call(&publishings[2], RELAXED, 2, 3);
    mixture->calls[3] = pull_call(RELAXED, 1);
    run_batch(mixture->calls, 4);
    expect_published(&publishings[0], true, 0);
    expect_published(&publishings[2], true, 2);
    assert_true(mixture->calls[3]->reply.early);
    assert_int_equal(reply_delivery_count(&mixture->calls[3]->reply), 1);
    forget(&publishings[0]);
    forget(&publishings[2]);
}

static void free_mixture(struct mixture *mixture)
{
    for (uint32_t index = 0; index < 4; index++) {
        volumes_call_free(mixture->calls[index]);
    }
}

/* A publish to a relaxed topic is answered before its commit, which may fail: then it is lost. One
 * to a synced topic is answered after it, whatever is with it in the batch. */
static void answered_before_the_commit(void **state)
{
    (void)state;
    struct mixture mixture;
    volumes_fail_commits(&volumes, 0, ERR_IO, false);
    run_mixture(&mixture);
    expect_refused(&mixture.publishings[1], ERR_UNAVAILABLE);
    free_mixture(&mixture);
    volumes_restart(&volumes);
    expect_messages(RELAXED, 0);
    expect_messages(SYNCED, 0);
}

/* Without a failure both kinds are there. */
static void both_kinds_are_stored(void **state)
{
    (void)state;
    struct mixture mixture;
    run_mixture(&mixture);
    expect_published(&mixture.publishings[1], false, 0);
    assert_int_equal(ack(receipt_of(mixture.calls[3], 0)), ERR_NONE);
    free_mixture(&mixture);
    volumes_restart(&volumes);
    expect_messages(SYNCED, 1);
}

/* Applied again without the publishes that were refused, a batch has those that were answered:
 * once, in their places. What was pulled meanwhile is delivered again. */
static void applied_again(void **state)
{
    (void)state;
    struct mixture mixture;
    volumes_fail_some_commits(&volumes, 0, ERR_NO_SPACE, 1);
    run_mixture(&mixture);
    expect_refused(&mixture.publishings[1], ERR_NO_SPACE);
    assert_int_equal(ack(receipt_of(mixture.calls[3], 0)), ERR_LEASE_LOST);
    free_mixture(&mixture);
    volumes_restart(&volumes);
    expect_messages(RELAXED, 5);
    expect_messages(SYNCED, 0);
}

/* A map that is too small is grown, and everything is applied again. */
static void applied_again_in_a_larger_map(void **state)
{
    (void)state;
    struct mixture mixture;
    volumes_fail_some_commits(&volumes, 0, ERR_MAP_FULL, 2);
    run_mixture(&mixture);
    expect_published(&mixture.publishings[1], false, 0);
    free_mixture(&mixture);
    volumes_restart(&volumes);
    expect_messages(RELAXED, 5);
    expect_messages(SYNCED, 1);
}

/* There is no space without the other publishes either: what was answered waits in memory. */
static void set_aside(struct mixture *mixture)
{
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, false);
    run_mixture(mixture);
    volumes_fail_commits(&volumes, 0, ERR_NONE, false);
    expect_refused(&mixture->publishings[1], ERR_NO_SPACE);
    free_mixture(mixture);
}

/* What was answered and finds no space waits; nothing is published before it, and when there is
 * space it comes first, in its places. */
static void waits_for_space(void **state)
{
    (void)state;
    struct mixture mixture;
    struct publishing refused;
    struct publishing later;
    set_aside(&mixture);
    expect_messages(RELAXED, 0);
    volumes_run(&volumes, 0, publish_call(&refused, RELAXED, 90, 1));
    expect_refused(&refused, ERR_NO_SPACE);
    volumes_call_free(refused.call);
    clock_advance(&volumes.clock, RETRY_MS);
    volumes_run(&volumes, 0, publish_call(&later, RELAXED, 5, 1));
    expect_published(&later, false, 5);
    volumes_call_free(later.call);
    expect_messages(RELAXED, 6);
    volumes_run(&volumes, 0, publish_call(&later, RELAXED, 6, 1));
    expect_published(&later, true, 6);
    volumes_call_free(later.call);
}

/* It comes by itself too, without another command, and again when there is still no space. */
static void comes_back_by_itself(void **state)
{
    (void)state;
    struct mixture mixture;
    set_aside(&mixture);
    uint64_t commits = volumes_commits(&volumes, 0);
    volumes_fail_some_commits(&volumes, 0, ERR_NO_SPACE, 1);
    volumes_advance(&volumes, RETRY_MS);
    while (volumes_commits(&volumes, 0) == commits) {
        volumes_advance(&volumes, RETRY_MS); /* the thread may have looked before */
        volumes_await_idle(&volumes, 0);
    }
    assert_int_equal(volumes_commits(&volumes, 0), commits + 1);
    expect_messages(RELAXED, 5);
}

/* While it waits no other publish is answered before its commit, so that no more than one batch has
 * to wait; with it, in the end, they go through or are refused. */
static void nothing_else_is_early_meanwhile(void **state)
{
    (void)state;
    struct mixture mixture;
    struct publishing refused;
    set_aside(&mixture);
    clock_advance(&volumes.clock, RETRY_MS);
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, false);
    volumes_run(&volumes, 0, publish_call(&refused, RELAXED, 90, 1));
    expect_refused(&refused, ERR_NO_SPACE);
    volumes_call_free(refused.call);
    volumes_fail_commits(&volumes, 0, ERR_NONE, false);
    clock_advance(&volumes.clock, RETRY_MS);
    expect_messages(RELAXED, 5);
}

/* A stop tries once more; without space even then, it is lost as by a crash. */
static void a_stop_tries_once_more(void **state)
{
    (void)state;
    struct mixture mixture;
    set_aside(&mixture);
    volumes_restart(&volumes);
    expect_messages(RELAXED, 5);
    struct publishing lost;
    volumes_await_idle(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, false);
    volumes_run(&volumes, 0, publish_call(&lost, RELAXED, 90, 1));
    expect_published(&lost, true, 5);
    volumes_call_free(lost.call);
    volumes_restart(&volumes);
    volumes_await_idle(&volumes, 0);
    expect_messages(RELAXED, 0); /* the others are leased */
    volumes_run(&volumes, 0, publish_call(&lost, RELAXED, 5, 1));
    expect_published(&lost, true, 5);
    volumes_call_free(lost.call);
}

/* What waits for space goes with its topic. */
static void goes_with_its_topic(void **state)
{
    (void)state;
    struct mixture mixture;
    set_aside(&mixture);
    struct call *drop = volumes_call(&volumes, COMMAND_TOPIC_DROP);
    drop->command.topic_drop = RELAXED;
    run_once(drop);
    clock_advance(&volumes.clock, RETRY_MS);
    struct publishing other;
    volumes_run(&volumes, 0, publish_call(&other, SYNCED, 0, 1));
    expect_published(&other, false, 0);
    volumes_call_free(other.call);
    expect_messages(SYNCED, 1);
}

/* A repeated idempotency key is answered early with the first result and is not stored a second
 * time when the batch is applied again, not even once its window has passed. */
static void repeated_keys_are_not_kept(void **state)
{
    (void)state;
    struct publishing publishings[2];
    struct call *calls[2];
    for (uint32_t index = 0; index < 2; index++) {
        calls[index] = publish_call(&publishings[index], RELAXED, 0, 1);
        publishings[index].messages[0].idempotency_key = span_text("once");
    }
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, false);
    run_batch(calls, 2);
    volumes_fail_commits(&volumes, 0, ERR_NONE, false);
    expect_published(&publishings[0], true, 0);
    expect_published(&publishings[1], true, 0);
    assert_true(publishings[1].results[0].replayed);
    volumes_call_free(calls[0]);
    volumes_call_free(calls[1]);
    clock_advance(&volumes.clock, 2000);
    expect_messages(RELAXED, 1);
}

/* A batch that was answered early is remembered under its key when it is applied again; one of
 * which a part was refused waits for its commit. */
static void batch_keys_are_kept(void **state)
{
    (void)state;
    struct publishing publishings[3];
    struct call *calls[2];
    for (uint32_t index = 0; index < 3; index++) {
        struct call *call = publish_call(&publishings[index], RELAXED, index == 1 ? 2 : 0, 2);
        call->command.publish.batch_key = span_text(index == 1 ? "part" : "batch");
    }
    publishings[1].messages[1].shard_id = SYNCED;
    calls[0] = publishings[0].call;
    calls[1] = publishings[1].call;
    volumes_fail_some_commits(&volumes, 0, ERR_MAP_FULL, 1);
    run_batch(calls, 2);
    expect_published(&publishings[0], true, 0);
    assert_false(publishings[1].call->reply.early);
    assert_int_equal(publishings[1].results[0].code, ERR_NONE);
    assert_int_equal(publishings[1].results[1].code, ERR_NOT_FOUND);
    volumes_run(&volumes, 0, publishings[2].call);
    expect_published(&publishings[2], false, 0);
    assert_true(publishings[2].results[1].replayed);
    for (uint32_t index = 0; index < 3; index++) {
        volumes_call_free(publishings[index].call);
    }
    expect_messages(RELAXED, 3);
}

/* Whether the volume goes on after what it was sent; else it is started again. */
static bool works_or_restart(void)
{
    struct call *stats = volumes_call(&volumes, COMMAND_STATS);
    volumes_run(&volumes, 0, stats);
    bool works = stats->reply.code == ERR_NONE;
    volumes_call_free(stats);
    if (!works) {
        volumes_restart(&volumes);
    }
    return works;
}

static uint64_t next_sequence(uint32_t topic_id)
{
    struct shard_stats shard;
    struct call *stats = volumes_call(&volumes, COMMAND_STATS);
    stats->command.stats.topic_id = topic_id;
    volumes_run(&volumes, 0, stats);
    assert_true(stats->reply.items.size >= sizeof shard);
    memcpy(&shard, stats->reply.items.data, sizeof shard);
    volumes_call_free(stats);
    return shard.next_sequence;
}

/* Whichever call to the store fails: of the synced topic exactly what was called done is there
 * after a start, of the relaxed one a first part of it, and nothing else of either. */
static void any_store_call_fails(void **state)
{
    (void)state;
    uint64_t synced = 0;
    uint64_t relaxed = 0;
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        struct publishing publishings[WORK];
        uint64_t answered = relaxed;
        assert_in_range(nth, 1, 1000);
        failed = false;
        volumes_await_idle(&volumes, 0);
        volumes_fail_store(&volumes, 0, nth);
        for (uint32_t index = 0; index < WORK; index++) {
            uint32_t topic_id = index % 2 == 0 ? SYNCED : RELAXED;
            assert_true(
                volume_send(volumes.list[0], publish_call(&publishings[index], topic_id, 0, 2)));
        }
        for (uint32_t index = 0; index < WORK; index++) {
            const struct call *call = volumes_answer(&volumes);
            bool is_synced = call->command.publish.topic_id == SYNCED;
            uint64_t *count = is_synced ? &synced : &answered;
            if (call->reply.code == ERR_NONE) {
                assert_int_equal(call->command.publish.results[0].sequence, *count);
                *count += 2;
            } else {
                assert_int_equal(call->reply.code, ERR_UNAVAILABLE);
                failed = true;
            }
        }
        for (uint32_t index = 0; index < WORK; index++) {
            volumes_call_free(publishings[index].call);
        }
        failed = !works_or_restart() || failed;
        volumes_restart(&volumes);
        assert_int_equal(next_sequence(SYNCED), synced);
        assert_in_range(next_sequence(RELAXED), failed ? relaxed : answered, answered);
        relaxed = next_sequence(RELAXED);
    }
    assert_true(synced > 0 && relaxed > 0);
}

/* Whichever allocation fails, the one for the copy included: a publish that was answered is there
 * unless the volume has failed, one that was refused is not. */
static void any_allocation_fails(void **state)
{
    (void)state;
    bool failed = true;
    uint32_t waited = 0;
    for (uint64_t nth = 1; failed; nth++) {
        struct publishing publishing;
        assert_in_range(nth, 1, 1000);
        volumes_fail_some_commits(&volumes, 0, ERR_NO_SPACE, 1);
        struct call *call = publish_call(&publishing, RELAXED, 0, 1);
        fault_alloc_nth(nth);
        volumes_run(&volumes, 0, call);
        failed = fault_alloc_stop();
        waited += failed && call->reply.code == ERR_NO_SPACE;
        assert_int_equal(call->reply.early, call->reply.code == ERR_NONE);
        bool works = works_or_restart();
        expect_messages(RELAXED, call->reply.code == ERR_NONE && works);
        volumes_call_free(call);
        teardown(state);
        setup(state);
    }
    assert_true(waited > 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answered_before_the_commit),
        TEST(both_kinds_are_stored),
        TEST(applied_again),
        TEST(applied_again_in_a_larger_map),
        TEST(waits_for_space),
        TEST(comes_back_by_itself),
        TEST(nothing_else_is_early_meanwhile),
        TEST(a_stop_tries_once_more),
        TEST(goes_with_its_topic),
        TEST(repeated_keys_are_not_kept),
        TEST(batch_keys_are_kept),
        TEST(any_store_call_fails),
        TEST(any_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
