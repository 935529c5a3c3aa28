#include "broker/volume/volume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/core/core.h"
#include "storage/memory.h"
#include "tests/lib/volumes.h"

enum { TOPIC = 1, SHARD = 1, SUB = 1, LEASE_MS = 30000, CALLS = 10 };

/* What a call of these tests points into. */
struct parts {
    struct message_in message;
    struct publish_result result;
    struct receipt receipt;
    enum err_code settled;
};

static const struct shard_place place = {
    .shard_id = SHARD, .number = 0, .hash_first = 0, .hash_last = UINT64_MAX};

static struct call *publish_call(struct volumes *volumes, struct parts *parts)
{
    struct call *call = volumes_call(volumes, COMMAND_PUBLISH);
    parts->message = volumes_message("", "body");
    parts->message.shard_id = SHARD;
    parts->result = (struct publish_result){.code = ERR_UNKNOWN};
    call->command.publish = (struct publish){
        .topic_id = TOPIC, .messages = &parts->message, .count = 1, .results = &parts->result};
    call->size = 4;
    return call;
}

static struct call *pull_call(struct volumes *volumes, bool arm)
{
    static uint32_t nonce;
    struct call *call = volumes_call(volumes, COMMAND_PULL);
    nonce += 1000; /* no two pulls have the same, as from a sender that draws it */
    call->command.pull = (struct pull){.sub_id = SUB, .max = 1, .size_max = 1024, .nonce = nonce};
    call->arm = arm;
    return call;
}

static struct call *ack_call(struct volumes *volumes, struct parts *parts,
                             const struct receipt *receipt)
{
    struct call *call = volumes_call(volumes, COMMAND_ACK);
    parts->receipt = *receipt;
    parts->settled = ERR_UNKNOWN;
    call->command.settle = (struct settle){
        .sub_id = SUB, .receipts = &parts->receipt, .count = 1, .results = &parts->settled};
    return call;
}

static void run_once(struct volumes *volumes, struct call *call)
{
    volumes_run(volumes, 0, call);
    assert_int_equal(call->reply.code, ERR_NONE);
    volumes_call_free(call);
}

static void publish(struct volumes *volumes)
{
    struct parts parts;
    run_once(volumes, publish_call(volumes, &parts));
    assert_int_equal(parts.result.code, ERR_NONE);
}

static struct receipt pull(struct volumes *volumes)
{
    struct call *call = pull_call(volumes, false);
    volumes_run(volumes, 0, call);
    assert_int_equal(reply_delivery_count(&call->reply), 1);
    const struct delivery *delivery = reply_delivery(&call->reply, 0);
    struct receipt receipt = {.sub_id = SUB,
                              .shard_id = SHARD,
                              .sequence = delivery->sequence,
                              .epoch = delivery->epoch,
                              .grant = delivery->grant,
                              .attempt = delivery->attempt};
    volumes_call_free(call);
    return receipt;
}

/* One topic of one shard, and one subscription that retries at once. */
static void put_topic(struct volumes *volumes)
{
    struct call *call = volumes_call(volumes, COMMAND_TOPIC_PUT);
    call->command.topic_put =
        (struct topic_put){.topic_id = TOPIC, .shards = &place, .shard_count = 1};
    run_once(volumes, call);
    call = volumes_call(volumes, COMMAND_SUB_PUT);
    call->command.sub_put =
        (struct sub_put){.sub_id = SUB, .topic_id = TOPIC, .settings = {.lease_ms = LEASE_MS}};
    run_once(volumes, call);
}

static void open_with(struct volumes *volumes, struct volumes_options options)
{
    options.count = 1;
    volumes_open(volumes, &options);
    put_topic(volumes);
}

static void open_usual(struct volumes *volumes)
{
    open_with(volumes, (struct volumes_options){0});
}

static struct sub_stats stats_of(struct volumes *volumes)
{
    struct call *call = volumes_call(volumes, COMMAND_STATS);
    volumes_run(volumes, 0, call);
    assert_int_equal(call->reply.code, ERR_NONE);
    struct sub_stats stats;
    assert_int_equal(call->reply.items.size, sizeof(struct shard_stats) + sizeof stats);
    memcpy(&stats, call->reply.items.data + sizeof(struct shard_stats), sizeof stats);
    volumes_call_free(call);
    return stats;
}

static struct volume_status status_of(struct volumes *volumes)
{
    struct volume_status status;
    volume_status(volumes->list[0], &status);
    return status;
}

/* Holds the thread in the first call while the others gather behind it, then lets them go; the
 * first is answered alone, the others as the volume batches them. */
static void send_behind(struct volumes *volumes, struct call *first, struct call *const *others,
                        uint32_t count)
{
    volumes_hold(volumes, 0);
    assert_true(volume_send(volumes->list[0], first));
    volumes_await_held(volumes, 0);
    for (uint32_t index = 0; index < count; index++) {
        assert_true(volume_send(volumes->list[0], others[index]));
    }
    volumes_unhold(volumes, 0);
    for (uint32_t index = 0; index <= count; index++) {
        (void)volumes_answer(volumes);
    }
}

static void free_calls(struct call *const *calls, uint32_t count)
{
    for (uint32_t index = 0; index < count; index++) {
        volumes_call_free(calls[index]);
    }
}

/* What gathers while one batch is served becomes one commit. */
static void test_group_commit(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts[CALLS + 1];
    struct call *calls[CALLS + 1];
    open_usual(&volumes);
    volumes_await_idle(&volumes, 0);
    uint64_t commits = volumes_commits(&volumes, 0);
    for (uint32_t index = 0; index <= CALLS; index++) {
        calls[index] = publish_call(&volumes, &parts[index]);
    }
    send_behind(&volumes, calls[0], calls + 1, CALLS);
    for (uint32_t index = 0; index <= CALLS; index++) {
        assert_int_equal(parts[index].result.code, ERR_NONE);
        assert_int_equal(parts[index].result.sequence, index);
    }
    assert_int_equal(stats_of(&volumes).enqueued, CALLS + 1);
    assert_int_equal(volumes_commits(&volumes, 0), commits + 2);
    free_calls(calls, CALLS + 1);
    volumes_close(&volumes);
}

/* A batch that changes nothing is not committed. */
static void test_read_only(void **state)
{
    (void)state;
    struct volumes volumes;
    open_usual(&volumes);
    (void)stats_of(&volumes);
    volumes_await_idle(&volumes, 0);
    uint64_t commits = volumes_commits(&volumes, 0);
    run_once(&volumes, pull_call(&volumes, false));
    (void)stats_of(&volumes);
    (void)stats_of(&volumes);
    assert_int_equal(volumes_commits(&volumes, 0), commits);
    volumes_close(&volumes);
}

/* When a commit fails for good, what it was about to keep may be there after a start or not, and is
 * told so; the volume says why, and answers at once that it cannot serve. */
static void test_failed_flush(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts[3];
    open_usual(&volumes);
    publish(&volumes);
    publish(&volumes);
    const struct receipt receipt = pull(&volumes);
    volumes_await_idle(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_IO, false);
    struct call *calls[] = {publish_call(&volumes, &parts[0]),
                            ack_call(&volumes, &parts[1], &receipt),
                            publish_call(&volumes, &parts[2])};
    send_behind(&volumes, calls[0], calls + 1, 2);
    assert_int_equal(calls[0]->reply.code, ERR_UNKNOWN);
    assert_int_equal(parts[0].result.code, ERR_UNKNOWN);
    assert_int_equal(calls[1]->reply.code, ERR_UNAVAILABLE);
    assert_int_equal(calls[2]->reply.code, ERR_UNAVAILABLE);
    assert_int_equal(parts[1].settled, ERR_UNAVAILABLE);
    assert_int_equal(parts[2].result.code, ERR_UNAVAILABLE);
    assert_true(status_of(&volumes).failed);
    assert_string_equal(status_of(&volumes).failure, "planted in commit");
    free_calls(calls, 3);

    volumes_fail_commits(&volumes, 0, ERR_NONE, false); /* too late: it is never tried again */
    struct call *call = pull_call(&volumes, false);
    volumes_run(&volumes, 0, call);
    assert_int_equal(call->reply.code, ERR_UNAVAILABLE);
    volumes_call_free(call);

    volumes_restart(&volumes);
    assert_false(status_of(&volumes).failed);
    assert_int_equal(stats_of(&volumes).enqueued, 1);
    assert_int_equal(stats_of(&volumes).leased, 1);
    volumes_close(&volumes);
}

/* A pull of what was published before needs no flush to be answered; when that flush fails, its
 * receipts are worth nothing and the message is delivered again as if for the first time. */
static void test_early_pull(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts;
    open_usual(&volumes);
    publish(&volumes);
    volumes_await_idle(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_IO, false);
    const struct receipt undone = pull(&volumes);
    volumes_restart(&volumes);
    run_once(&volumes, ack_call(&volumes, &parts, &undone));
    assert_int_equal(parts.settled, ERR_LEASE_LOST);
    const struct receipt receipt = pull(&volumes);
    assert_int_equal(receipt.attempt, 1);
    run_once(&volumes, ack_call(&volumes, &parts, &undone));
    assert_int_equal(parts.settled, ERR_LEASE_LOST);
    run_once(&volumes, ack_call(&volumes, &parts, &receipt));
    assert_int_equal(parts.settled, ERR_NONE);
    volumes_close(&volumes);
}

/* A pull of what was published in its own batch is answered only with that batch. */
static void test_no_early_pull(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts;
    open_usual(&volumes);
    volumes_await_idle(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_IO, false);
    struct call *calls[] = {volumes_call(&volumes, COMMAND_STATS), publish_call(&volumes, &parts),
                            pull_call(&volumes, false)};
    send_behind(&volumes, calls[0], calls + 1, 2);
    assert_int_equal(calls[2]->reply.code, ERR_UNKNOWN);
    assert_int_equal(reply_delivery_count(&calls[2]->reply), 0);
    free_calls(calls, 3);
    volumes_close(&volumes);
}

/* Without space for publishes they are refused, and what else is in their batch is done. They are
 * then refused without trying, and taken again half a second after there is space. */
static void check_no_space(enum err_code code)
{
    struct volumes volumes;
    struct parts parts[3];
    open_usual(&volumes);
    publish(&volumes);
    const struct receipt receipt = pull(&volumes);
    volumes_await_idle(&volumes, 0);
    uint64_t commits = volumes_commits(&volumes, 0);
    volumes_fail_commits(&volumes, 0, code, true);
    struct call *calls[] = {pull_call(&volumes, false), publish_call(&volumes, &parts[1]),
                            ack_call(&volumes, &parts[2], &receipt)};
    send_behind(&volumes, calls[0], calls + 1, 2);
    assert_int_equal(calls[1]->reply.code, ERR_NO_SPACE);
    assert_int_equal(parts[1].result.code, ERR_NO_SPACE);
    assert_int_equal(calls[2]->reply.code, ERR_NONE);
    assert_int_equal(parts[2].settled, ERR_NONE);
    free_calls(calls, 3);
    const struct sub_stats stats = stats_of(&volumes);
    assert_int_equal(stats.enqueued + stats.leased, 0);
    assert_int_equal(volumes_commits(&volumes, 0), commits + 1);
    assert_true(status_of(&volumes).full);
    assert_false(status_of(&volumes).failed);

    volumes_fail_commits(&volumes, 0, ERR_NONE, false);
    struct call *call = publish_call(&volumes, &parts[0]);
    volumes_run(&volumes, 0, call);
    assert_int_equal(parts[0].result.code, ERR_NO_SPACE);
    volumes_call_free(call);
    clock_advance(&volumes.clock, 500);
    publish(&volumes);
    assert_int_equal(stats_of(&volumes).enqueued, 1);
    assert_false(status_of(&volumes).full);
    volumes_close(&volumes);
}

static void test_no_space(void **state)
{
    (void)state;
    check_no_space(ERR_NO_SPACE);
    check_no_space(ERR_MAP_FULL);
}

/* Without space for anything the whole batch is refused and nothing has changed; the volume goes on
 * when there is space again. */
static void test_no_space_at_all(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts[3];
    open_usual(&volumes);
    publish(&volumes);
    publish(&volumes);
    const struct receipt receipt = pull(&volumes);
    const struct sub_stats before = stats_of(&volumes);
    volumes_await_idle(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, false);
    struct call *calls[] = {publish_call(&volumes, &parts[0]),
                            ack_call(&volumes, &parts[1], &receipt),
                            publish_call(&volumes, &parts[2])};
    send_behind(&volumes, calls[0], calls + 1, 2);
    for (uint32_t index = 0; index < 3; index++) {
        assert_int_equal(calls[index]->reply.code, ERR_NO_SPACE);
    }
    assert_int_equal(parts[0].result.code, ERR_NO_SPACE);
    assert_int_equal(parts[1].settled, ERR_NO_SPACE);
    free_calls(calls, 3);
    const struct sub_stats after = stats_of(&volumes);
    assert_memory_equal(&before, &after, sizeof before);
    assert_false(status_of(&volumes).failed);

    volumes_fail_commits(&volumes, 0, ERR_NONE, false);
    run_once(&volumes, ack_call(&volumes, &parts[1], &receipt));
    assert_int_equal(parts[1].settled, ERR_NONE);
    volumes_advance(&volumes, 500);
    publish(&volumes);
    volumes_close(&volumes);
}

/* Above 90 % of its quota a volume takes no publishes; the rest goes on. */
static void test_quota(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts;
    open_with(&volumes, (struct volumes_options){.quota = 2000});
    uint32_t count = 0;
    for (enum err_code code = ERR_NONE; code == ERR_NONE; count++) {
        struct call *call = publish_call(&volumes, &parts);
        volumes_run(&volumes, 0, call);
        code = call->reply.code;
        assert_true(code == ERR_NONE || code == ERR_NO_SPACE);
        volumes_call_free(call);
        assert_in_range(count, 0, 1000);
    }
    assert_in_range(count, 3, 1000);
    assert_true(status_of(&volumes).full);
    assert_in_range(status_of(&volumes).store.used_size, 1800, 2400);
    const struct receipt receipt = pull(&volumes);
    run_once(&volumes, ack_call(&volumes, &parts, &receipt));
    assert_int_equal(parts.settled, ERR_NONE);
    volumes_close(&volumes);
}

/* A command that meets damaged data is refused alone; what is with it in the batch is done. */
static void test_corrupt(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts[2];
    open_usual(&volumes);
    volumes_fail_apply(&volumes, 0, COMMAND_PEEK, ERR_CORRUPT);
    struct call *peek = volumes_call(&volumes, COMMAND_PEEK);
    peek->command.peek = (struct peek){.sub_id = SUB, .max = 1};
    struct call *calls[] = {pull_call(&volumes, false), publish_call(&volumes, &parts[0]), peek,
                            publish_call(&volumes, &parts[1])};
    send_behind(&volumes, calls[0], calls + 1, 3);
    assert_int_equal(parts[0].result.code, ERR_NONE);
    assert_int_equal(peek->reply.code, ERR_CORRUPT);
    assert_int_equal(parts[1].result.code, ERR_NONE);
    assert_int_equal(stats_of(&volumes).enqueued, 2);
    assert_false(status_of(&volumes).failed);
    free_calls(calls, 4);
    volumes_close(&volumes);
}

/* Whichever call to the store fails: what was called done is there after a start, what was not is
 * not, and the volume never goes on after a failure. */
static void test_any_store_call_fails(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts[3];
    uint64_t enqueued = 1;
    open_usual(&volumes);
    publish(&volumes);
    publish(&volumes);
    const struct receipt receipt = pull(&volumes);
    parts[2].settled = ERR_UNKNOWN;
    for (uint64_t nth = 1; parts[2].settled != ERR_NONE; nth++) {
        assert_in_range(nth, 1, 1000);
        struct call *calls[] = {publish_call(&volumes, &parts[0]),
                                publish_call(&volumes, &parts[1]),
                                ack_call(&volumes, &parts[2], &receipt)};
        volumes_await_idle(&volumes, 0);
        volumes_fail_store(&volumes, 0, nth);
        bool failed = false;
        for (uint32_t index = 0; index < 3; index++) {
            assert_true(volume_send(volumes.list[0], calls[index]));
        }
        for (uint32_t index = 0; index < 3; index++) {
            assert_ptr_equal(volumes_answer(&volumes), calls[index]);
            enum err_code code = calls[index]->reply.code;
            assert_true(code == ERR_UNAVAILABLE || code == ERR_UNKNOWN ||
                        (code == ERR_NONE && !failed));
            failed = code != ERR_NONE;
            enqueued += code == ERR_NONE && index < 2;
        }
        free_calls(calls, 3);
        volumes_restart(&volumes);
        const struct sub_stats stats = stats_of(&volumes);
        assert_int_equal(stats.enqueued, enqueued);
        assert_int_equal(stats.leased, failed ? 1 : 0);
    }
    volumes_close(&volumes);
}

/* A mailbox takes its bound and refuses the next; what has been let in before may go over it. */
static void test_mailbox_full(void **state)
{
    (void)state;
    enum { BOUND = 4 };
    struct volumes volumes;
    struct call *calls[BOUND + 3];
    open_with(&volumes, (struct volumes_options){.mailbox_max = BOUND});
    for (uint32_t index = 0; index < BOUND + 3; index++) {
        calls[index] = volumes_call(&volumes, COMMAND_STATS);
    }
    volumes_hold(&volumes, 0);
    assert_true(volume_send(volumes.list[0], calls[0]));
    volumes_await_held(&volumes, 0);
    for (uint32_t index = 1; index <= BOUND; index++) {
        assert_true(volume_send(volumes.list[0], calls[index]));
    }
    assert_false(volume_send(volumes.list[0], calls[BOUND + 1]));
    assert_true(volume_send_over(volumes.list[0], calls[BOUND + 2]));
    assert_int_equal(status_of(&volumes).mailbox_count, BOUND + 1);
    volumes_unhold(&volumes, 0);
    for (uint32_t index = 0; index < BOUND + 2; index++) {
        assert_ptr_not_equal(volumes_answer(&volumes), calls[BOUND + 1]);
    }
    volumes_run(&volumes, 0, calls[BOUND + 1]);
    free_calls(calls, BOUND + 3);
    volumes_close(&volumes);
}

/* The first `large` of the calls behind the first one are of 1000 bytes, the others of `size`. */
static void check_batches(struct volumes_options options, uint32_t size, uint32_t large,
                          const uint32_t *expected, uint32_t expected_count)
{
    struct volumes volumes;
    struct parts parts[CALLS + 1];
    struct call *calls[CALLS + 1];
    uint32_t sizes[VOLUMES_BATCHES_MAX];
    open_with(&volumes, options);
    for (uint32_t index = 0; index <= CALLS; index++) {
        calls[index] = publish_call(&volumes, &parts[index]);
        calls[index]->size = index <= large ? 1000 : size;
    }
    (void)volumes_take_batches(&volumes, 0, sizes, VOLUMES_BATCHES_MAX);
    send_behind(&volumes, calls[0], calls + 1, CALLS);
    assert_int_equal(volumes_take_batches(&volumes, 0, sizes, VOLUMES_BATCHES_MAX), expected_count);
    assert_memory_equal(sizes, expected, expected_count * sizeof *expected);
    free_calls(calls, CALLS + 1);
    volumes_close(&volumes);
}

/* A batch holds at most batch_max commands and batch_bytes of messages, but always one command. */
static void test_batch_bounds(void **state)
{
    (void)state;
    const uint32_t by_count[] = {1, 4, 4, 2};
    const uint32_t by_bytes[] = {1, 3, 3, 3, 1};
    const uint32_t by_fewer_bytes[] = {1, 2, 2, 2, 2, 2};
    const uint32_t by_both[] = {1, 1, 1, 1, 1, 4, 2};
    const uint32_t alone[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    check_batches((struct volumes_options){.batch_max = 4}, 1, 0, by_count, 4);
    check_batches((struct volumes_options){.batch_bytes = 300}, 100, 0, by_bytes, 5);
    check_batches((struct volumes_options){.batch_bytes = 300}, 101, 0, by_fewer_bytes, 6);
    check_batches((struct volumes_options){.batch_max = 4, .batch_bytes = 300}, 1, 4, by_both, 7);
    check_batches((struct volumes_options){.batch_bytes = 300}, 1000, 0, alone, CALLS + 1);
}

/* Waits until the volume says that a subscription may have something, and takes the ids. */
static void take_told(struct volumes *volumes, struct buf *out)
{
    buf_reset(out);
    while (out->size == 0) {
        volumes_await_wake(volumes);
        pthread_mutex_lock(&volumes->lock);
        volumes->woken = false;
        pthread_mutex_unlock(&volumes->lock);
        volume_take_woken(volumes->list[0], out);
    }
}

static void check_told(struct volumes *volumes)
{
    struct buf told;
    const uint32_t sub_id = SUB;
    buf_init(&told, 1024);
    take_told(volumes, &told);
    assert_int_equal(told.size, sizeof sub_id);
    assert_memory_equal(told.data, &sub_id, sizeof sub_id);
    buf_deinit(&told);
}

static void check_not_told(struct volumes *volumes)
{
    struct buf told;
    buf_init(&told, 1024);
    (void)stats_of(volumes); /* a batch tells after its answers: by the second it has */
    (void)stats_of(volumes);
    volume_take_woken(volumes->list[0], &told);
    assert_int_equal(told.size, 0);
    buf_deinit(&told);
}

/* A lease ends when the clock says so, without any command. */
static void test_tick_simulated(void **state)
{
    (void)state;
    struct volumes volumes;
    open_usual(&volumes);
    publish(&volumes);
    (void)pull(&volumes);
    run_once(&volumes, pull_call(&volumes, true));
    volumes_advance(&volumes, LEASE_MS - 1);
    assert_int_equal(stats_of(&volumes).leased, 1);
    check_not_told(&volumes);
    volumes_advance(&volumes, 1);
    check_told(&volumes);
    const struct sub_stats stats = stats_of(&volumes);
    assert_int_equal(stats.leased, 0);
    assert_int_equal(stats.scheduled, 1);
    assert_int_equal(pull(&volumes).attempt, 2);
    volumes_close(&volumes);
}

static void test_tick_real(void **state)
{
    (void)state;
    struct volumes volumes;
    open_with(&volumes, (struct volumes_options){.real_time = true});
    publish(&volumes);
    /* In one batch, so that the lease does not end between the two. */
    struct call *calls[] = {volumes_call(&volumes, COMMAND_STATS), pull_call(&volumes, false),
                            pull_call(&volumes, true)};
    calls[1]->command.pull.lease_ms = 10;
    send_behind(&volumes, calls[0], calls + 1, 2);
    assert_int_equal(reply_delivery_count(&calls[1]->reply), 1);
    assert_int_equal(reply_delivery_count(&calls[2]->reply), 0);
    free_calls(calls, 3);
    check_told(&volumes);
    assert_int_equal(pull(&volumes).attempt, 2);
    volumes_close(&volumes);
}

/* Once a volume has settled, what was sent and what has come due is done, and it is known when it
 * is worth moving the clock to. */
static void test_settle(void **state)
{
    (void)state;
    struct volumes volumes;
    open_usual(&volumes);
    assert_int_equal(volume_settle(volumes.list[0]), UINT64_MAX);
    publish(&volumes);
    (void)pull(&volumes);
    assert_int_equal(volume_settle(volumes.list[0]), LEASE_MS);
    clock_advance(&volumes.clock, LEASE_MS - 1);
    assert_int_equal(volume_settle(volumes.list[0]), 1);
    uint32_t ticks = volumes_ticks(&volumes, 0);
    clock_advance(&volumes.clock, 1);
    assert_int_equal(volume_settle(volumes.list[0]), UINT64_MAX);
    assert_int_equal(volumes_ticks(&volumes, 0), ticks + 1);
    struct parts parts;
    struct call *call = publish_call(&volumes, &parts);
    assert_true(volume_send(volumes.list[0], call));
    (void)volume_settle(volumes.list[0]);
    assert_int_equal(mailbox_count(&volumes.replies), 1);
    assert_ptr_equal(volumes_answer(&volumes), call);
    volumes_call_free(call);
    volumes_close(&volumes);
}

/* A volume that has failed has nothing to come, and does not keep the clock's owner waiting. */
static void test_settle_failed(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts;
    open_usual(&volumes);
    publish(&volumes);
    (void)pull(&volumes);
    volumes_await_idle(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_IO, false);
    struct call *call = publish_call(&volumes, &parts);
    volumes_run(&volumes, 0, call);
    assert_int_equal(call->reply.code, ERR_UNKNOWN);
    volumes_call_free(call);
    assert_int_equal(volume_settle(volumes.list[0]), UINT64_MAX);
    volumes_close(&volumes);
}

/* Who was told once that there may be something is not told again before asking again; who did not
 * ask to be told, found something, or was refused, is not told. */
static void test_armed(void **state)
{
    (void)state;
    struct volumes volumes;
    open_usual(&volumes);
    run_once(&volumes, pull_call(&volumes, true));
    publish(&volumes);
    check_told(&volumes);
    publish(&volumes);
    check_not_told(&volumes);

    run_once(&volumes, pull_call(&volumes, true)); /* it leaves the second one */
    publish(&volumes);
    check_not_told(&volumes);
    (void)pull(&volumes);
    run_once(&volumes, pull_call(&volumes, true)); /* it takes the last one */
    publish(&volumes);
    check_told(&volumes);

    (void)pull(&volumes);
    run_once(&volumes, pull_call(&volumes, false));
    publish(&volumes);
    check_not_told(&volumes);

    (void)pull(&volumes);
    publish(&volumes);
    struct parts parts;
    const struct receipt receipt = pull(&volumes);
    volumes_await_idle(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, false);
    struct call *calls[] = {volumes_call(&volumes, COMMAND_STATS), pull_call(&volumes, true),
                            ack_call(&volumes, &parts, &receipt)};
    send_behind(&volumes, calls[0], calls + 1, 2);
    assert_int_equal(calls[1]->reply.code, ERR_NO_SPACE);
    free_calls(calls, 3);
    volumes_fail_commits(&volumes, 0, ERR_NONE, false);
    volumes_advance(&volumes, 500);
    publish(&volumes);
    check_not_told(&volumes);
    volumes_close(&volumes);
}

/* A pull that was answered with nothing is told of a publish in its own batch. */
static void test_armed_in_batch(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts;
    open_usual(&volumes);
    struct call *calls[] = {volumes_call(&volumes, COMMAND_STATS), pull_call(&volumes, true),
                            publish_call(&volumes, &parts)};
    send_behind(&volumes, calls[0], calls + 1, 2);
    assert_int_equal(reply_delivery_count(&calls[1]->reply), 0);
    check_told(&volumes);
    free_calls(calls, 3);
    volumes_close(&volumes);
}

/* Nothing is told of what a pull of the same batch has taken, and all of what comes after it. */
static void test_taken_in_batch(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts[2];
    open_usual(&volumes);
    run_once(&volumes, pull_call(&volumes, true));
    struct call *calls[] = {volumes_call(&volumes, COMMAND_STATS),
                            publish_call(&volumes, &parts[0]), pull_call(&volumes, true),
                            publish_call(&volumes, &parts[1])};
    send_behind(&volumes, calls[0], calls + 1, 2);
    assert_int_equal(reply_delivery_count(&calls[2]->reply), 1);
    check_not_told(&volumes);
    free_calls(calls, 3);
    calls[0] = volumes_call(&volumes, COMMAND_STATS);
    calls[1] = publish_call(&volumes, &parts[0]);
    calls[2] = pull_call(&volumes, true);
    send_behind(&volumes, calls[0], calls + 1, 3);
    assert_int_equal(reply_delivery_count(&calls[2]->reply), 1);
    check_told(&volumes);
    free_calls(calls, 4);
    volumes_close(&volumes);
}

/* What a pull was given before its batch was undone is told of: nobody has it. */
static void test_given_and_undone(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts;
    open_usual(&volumes);
    publish(&volumes);
    struct call *calls[] = {volumes_call(&volumes, COMMAND_STATS), pull_call(&volumes, true),
                            publish_call(&volumes, &parts)};
    volumes_await_idle(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, true);
    send_behind(&volumes, calls[0], calls + 1, 2);
    assert_int_equal(reply_delivery_count(&calls[1]->reply), 1);
    assert_int_equal(parts.result.code, ERR_NO_SPACE);
    check_told(&volumes);
    assert_int_equal(stats_of(&volumes).enqueued, 1);
    volumes_fail_commits(&volumes, 0, ERR_NONE, false);
    free_calls(calls, 3);
    volumes_close(&volumes);
}

/* A stop answers everything the mailbox holds, and takes nothing more. */
static void test_stop_drains(void **state)
{
    (void)state;
    struct volumes volumes;
    struct parts parts[CALLS];
    struct call *calls[CALLS];
    open_usual(&volumes);
    volumes_hold(&volumes, 0);
    for (uint32_t index = 0; index < CALLS; index++) {
        calls[index] = publish_call(&volumes, &parts[index]);
        assert_true(volume_send(volumes.list[0], calls[index]));
    }
    volumes_await_held(&volumes, 0);
    volumes_unhold(&volumes, 0);
    volumes_stop_one(&volumes, 0);
    struct call *late = volumes_call(&volumes, COMMAND_STATS);
    assert_false(volume_send(volumes.list[0], late));
    assert_false(volume_send_over(volumes.list[0], late));
    volumes_call_free(late);
    assert_int_equal(mailbox_count(&volumes.replies), CALLS);
    for (uint32_t index = 0; index < CALLS; index++) {
        assert_ptr_equal(volumes_answer(&volumes), calls[index]);
        assert_int_equal(parts[index].result.code, ERR_NONE);
    }
    free_calls(calls, CALLS);
    volumes_restart(&volumes);
    assert_int_equal(stats_of(&volumes).enqueued, CALLS);
    volumes_close(&volumes);
}

/* Background work that is not done does not delay a stop, nor commands. */
static void test_busy(void **state)
{
    (void)state;
    struct volumes volumes;
    open_usual(&volumes);
    volumes_keep_busy(&volumes, 0);
    uint32_t ticks = volumes_ticks(&volumes, 0);
    publish(&volumes);
    publish(&volumes);
    while (volumes_ticks(&volumes, 0) < ticks + 10) {
        (void)stats_of(&volumes);
    }
    volumes_close(&volumes);
}

/* A volume that cannot load leaves store and machine to its caller. */
static void test_start_fails(void **state)
{
    (void)state;
    struct clock clock;
    struct store *store = NULL;
    struct machine *machine = NULL;
    struct volume *volume = NULL;
    const struct core_options core = {0};
    clock_init_real(&clock);
    assert_null(memory_store_open(&store));
    assert_null(core_create(&core, &machine));
    const struct volume_options options = {.name = "broken",
                                           .store = store,
                                           .machine = machine,
                                           .clock = &clock,
                                           .mailbox_max = 1,
                                           .batch_max = 1};
    memory_store_fail_call(store, 3);
    err_t err = volume_start(&options, &volume);
    assert_int_equal(err_code(err), ERR_IO);
    assert_null(volume);
    err_free(err);
    machine->ops->destroy(machine);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_commit),    cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_failed_flush),    cmocka_unit_test(test_early_pull),
        cmocka_unit_test(test_no_early_pull),   cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_no_space_at_all), cmocka_unit_test(test_quota),
        cmocka_unit_test(test_corrupt),         cmocka_unit_test(test_any_store_call_fails),
        cmocka_unit_test(test_mailbox_full),    cmocka_unit_test(test_batch_bounds),
        cmocka_unit_test(test_tick_simulated),  cmocka_unit_test(test_tick_real),
        cmocka_unit_test(test_armed),           cmocka_unit_test(test_armed_in_batch),
        cmocka_unit_test(test_taken_in_batch),  cmocka_unit_test(test_given_and_undone),
        cmocka_unit_test(test_stop_drains),     cmocka_unit_test(test_busy),
        cmocka_unit_test(test_start_fails),     cmocka_unit_test(test_settle),
        cmocka_unit_test(test_settle_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
