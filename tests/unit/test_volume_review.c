/* A volume under conditions that are not usual: a clock that was set back, a disk on which nothing
 * goes, load that never ends. */
#include "broker/volume/volume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/volumes.h"

enum { TOPIC = 1, SHARD = 1, SUB = 1, LEASE_MS = 30000, HOUR_MS = 3600 * 1000 };

static struct volumes volumes;

static void run_once(struct call *call)
{
    volumes_run(&volumes, 0, call);
    assert_int_equal(call->reply.code, ERR_NONE);
    volumes_call_free(call);
}

static void put_topic(const struct topic_settings *settings)
{
    static const struct shard_place place = {.shard_id = SHARD, .hash_last = UINT64_MAX};
    struct call *call = volumes_call(&volumes, COMMAND_TOPIC_PUT);
    call->command.topic_put = (struct topic_put){
        .topic_id = TOPIC, .settings = *settings, .shards = &place, .shard_count = 1};
    run_once(call);
    call = volumes_call(&volumes, COMMAND_SUB_PUT);
    call->command.sub_put =
        (struct sub_put){.sub_id = SUB, .topic_id = TOPIC, .settings = {.lease_ms = LEASE_MS}};
    run_once(call);
}

static enum err_code try_publish(void)
{
    struct message_in message = volumes_message("", "body");
    struct publish_result result;
    message.shard_id = SHARD;
    struct call *call = volumes_call(&volumes, COMMAND_PUBLISH);
    call->command.publish =
        (struct publish){.topic_id = TOPIC, .messages = &message, .count = 1, .results = &result};
    volumes_run(&volumes, 0, call);
    enum err_code code = call->reply.code;
    assert_int_equal(code, result.code);
    volumes_call_free(call);
    return code;
}

static void publish(void)
{
    assert_int_equal(try_publish(), ERR_NONE);
}

/* How many messages came. */
static uint32_t pull(void)
{
    static uint32_t nonce;
    struct call *call = volumes_call(&volumes, COMMAND_PULL);
    call->command.pull =
        (struct pull){.sub_id = SUB, .max = 1, .size_max = 1024, .nonce = nonce += 1000};
    volumes_run(&volumes, 0, call);
    assert_int_equal(call->reply.code, ERR_NONE);
    uint32_t count = reply_delivery_count(&call->reply);
    volumes_call_free(call);
    return count;
}

/* Leases end on time although the clock was set back by an hour: the time of a volume goes on from
 * its last stamp. */
static void clock_set_back(void **state)
{
    (void)state;
    volumes_open(&volumes, &(struct volumes_options){.count = 1});
    put_topic(&(struct topic_settings){0});
    volumes_advance(&volumes, HOUR_MS);
    publish();
    assert_int_equal(pull(), 1);
    volumes_stop_one(&volumes, 0);
    volumes_stop_one(&volumes, 1);
    clock_init_simulated(&volumes.clock, VOLUMES_START_MS);
    volumes_restart(&volumes);
    volumes_advance(&volumes, LEASE_MS - 1);
    assert_int_equal(pull(), 0);
    volumes_advance(&volumes, 1);
    assert_int_equal(pull(), 1);
    volumes_close(&volumes);
}

static enum err_code read_stats(struct shard_stats *out)
{
    struct call *call = volumes_call(&volumes, COMMAND_STATS);
    volumes_run(&volumes, 0, call);
    enum err_code code = call->reply.code;
    if (code == ERR_NONE) {
        memcpy(out, call->reply.items.data, sizeof *out);
    }
    volumes_call_free(call);
    return code;
}

/* Background work for which there is no room is put off: it is not tried over and over, and does
 * not take what is asked down with it. */
static void no_space_for_work(void **state)
{
    enum { LOOKS = 50 };
    (void)state;
    struct shard_stats stats;
    volumes_open(&volumes, &(struct volumes_options){.count = 1});
    put_topic(&(struct topic_settings){0});
    publish();
    assert_int_equal(pull(), 1);
    volumes_await_idle(&volumes, 0);
    uint32_t ticks = volumes_ticks(&volumes, 0);
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, false);
    volumes_advance(&volumes, LEASE_MS);
    for (uint32_t look = 0; look < LOOKS; look++) {
        assert_int_equal(read_stats(&stats), ERR_NONE);
    }
    assert_in_range(volumes_ticks(&volumes, 0) - ticks, 1, 3);
    volumes_fail_commits(&volumes, 0, ERR_NONE, false);
    volumes_advance(&volumes, 500);
    assert_int_equal(pull(), 1);
    volumes_close(&volumes);
}

static err_t cannot_grow(struct store *store)
{
    (void)store;
    return ERR(NO_SPACE, "it has its greatest size");
}

/* A batch that needs a larger map than there can be is not tried once more as it is. */
static void no_larger_map(void **state)
{
    (void)state;
    volumes_open(&volumes, &(struct volumes_options){.count = 1});
    put_topic(&(struct topic_settings){0});
    publish();
    volumes_await_idle(&volumes, 0);
    volumes.stages[0].ops.grow = cannot_grow;
    volumes_fail_some_commits(&volumes, 0, ERR_MAP_FULL, 1);
    assert_int_equal(try_publish(), ERR_NO_SPACE);
    volumes_close(&volumes);
}

/* Retention keeps up with publishers that never let the volume be idle. */
static void retention_under_load(void **state)
{
    enum { CALLS = 20, COUNT = 10000 };
    (void)state;
    static struct message_in messages[COUNT];
    static struct publish_result results[CALLS][COUNT];
    struct call *calls[CALLS];
    struct shard_stats stats;
    volumes_open(&volumes, &(struct volumes_options){.count = 1, .batch_max = 1});
    put_topic(&(struct topic_settings){.retention_bytes = 1});
    for (uint32_t index = 0; index < COUNT; index++) {
        messages[index] = volumes_message("", "body");
        messages[index].shard_id = SHARD;
    }
    volumes_hold(&volumes, 0);
    for (uint32_t index = 0; index < CALLS; index++) {
        calls[index] = volumes_call(&volumes, COMMAND_PUBLISH);
        calls[index]->command.publish = (struct publish){
            .topic_id = TOPIC, .messages = messages, .count = COUNT, .results = results[index]};
        assert_true(volume_send(volumes.list[0], calls[index]));
    }
    struct call *last = volumes_call(&volumes, COMMAND_STATS);
    assert_true(volume_send(volumes.list[0], last));
    volumes_unhold(&volumes, 0);
    for (uint32_t index = 0; index <= CALLS; index++) {
        (void)volumes_answer(&volumes);
    }
    memcpy(&stats, last->reply.items.data, sizeof stats);
    assert_int_equal(stats.next_sequence, CALLS * COUNT);
    assert_in_range(stats.next_sequence - stats.retained_from, 1, 2 * COUNT);
    for (uint32_t index = 0; index < CALLS; index++) {
        volumes_call_free(calls[index]);
    }
    volumes_call_free(last);
    volumes_close(&volumes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clock_set_back),
        cmocka_unit_test(no_space_for_work),
        cmocka_unit_test(no_larger_map),
        cmocka_unit_test(retention_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
