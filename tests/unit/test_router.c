#include "broker/volume/router.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "tests/lib/fault.h"
#include "tests/lib/volumes.h"

enum { BATCH = 64 };

static const struct sub_settings usual = {.lease_ms = 30000, .max_attempts = 3};

static void open_with(struct volumes *volumes, struct volumes_options options, uint32_t shards)
{
    volumes_open(volumes, &options);
    assert_int_equal(volumes_put_topic(volumes, "t", shards), ERR_NONE);
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &usual), ERR_NONE);
}

static void open_volumes(struct volumes *volumes, uint32_t count)
{
    open_with(volumes, (struct volumes_options){.count = count}, 8);
}

static const struct catalog_topic *topic_of(struct volumes *volumes)
{
    const struct catalog_topic *topic = catalog_topic(volumes->catalog, span_text("t"));
    assert_non_null(topic);
    return topic;
}

static uint32_t volume_of(struct volumes *volumes, uint32_t shard_id)
{
    struct catalog_topic *topic = NULL;
    const struct catalog_shard *shard = catalog_shard_by_id(volumes->catalog, shard_id, &topic);
    assert_non_null(shard);
    return shard->volume;
}

/* ---- publishing ----------------------------------------------------------------------------- */

struct publishing {
    struct router_publish publish;
    struct message_in messages[BATCH];
    struct publish_result results[BATCH];
    bool done;
};

/* Publishes messages[0..count) and waits; the code of the whole. */
static void start_batch(struct volumes *volumes, struct publishing *publishing, uint32_t count,
                        bool atomic)
{
    for (uint32_t index = 0; index < count; index++) {
        publishing->results[index].code = ERR_UNKNOWN;
    }
    publishing->publish = (struct router_publish){.topic = span_text("t"),
                                                  .atomic = atomic,
                                                  .messages = publishing->messages,
                                                  .count = count,
                                                  .results = publishing->results};
    volumes_prepare(volumes, &publishing->publish.operation, &publishing->done);
    router_start_publish(volumes->router, &publishing->publish);
}

static enum err_code publish_batch(struct volumes *volumes, struct publishing *publishing,
                                   uint32_t count, bool atomic)
{
    start_batch(volumes, publishing, count, atomic);
    volumes_await(volumes, &publishing->done);
    router_release(&publishing->publish.operation);
    return publishing->publish.operation.result.code;
}

/* Messages with the keys "0", "1" ... */
static void fill_batch(struct volumes *volumes, struct publishing *publishing)
{
    for (uint32_t index = 0; index < BATCH; index++) {
        char *key = arena_alloc(&volumes->arena, 16);
        assert_non_null(key);
        snprintf(key, 16, "%u", index);
        publishing->messages[index] = volumes_message(key, "body");
    }
}

/* A topic's shards are spread over all volumes, and messages without a key over all shards. */
static void test_round_robin(void **state)
{
    (void)state;
    const uint32_t counts[] = {1, 2, 4};
    for (size_t index = 0; index < sizeof counts / sizeof *counts; index++) {
        struct volumes volumes;
        struct publishing publishing;
        uint32_t of_shard[8] = {0};
        uint32_t of_volume[VOLUMES_MAX] = {0};
        open_volumes(&volumes, counts[index]);
        for (uint32_t at = 0; at < BATCH; at++) {
            publishing.messages[at] = volumes_message("", "body");
        }
        assert_int_equal(publish_batch(&volumes, &publishing, BATCH, false), ERR_NONE);
        for (uint32_t at = 0; at < BATCH; at++) {
            assert_int_equal(publishing.results[at].code, ERR_NONE);
            of_shard[publishing.results[at].shard_number]++;
            of_volume[volume_of(&volumes, publishing.results[at].shard_id)]++;
        }
        for (uint32_t shard = 0; shard < 8; shard++) {
            assert_int_equal(of_shard[shard], BATCH / 8);
        }
        for (uint32_t volume = 0; volume < counts[index]; volume++) {
            assert_int_equal(of_volume[volume], BATCH / counts[index]);
        }
        assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), BATCH);
        volumes_close(&volumes);
    }
}

/* A key's hash chooses the shard; a batch over several volumes gets its results in its own order,
 * and each shard numbers its messages in it. */
static void test_keys(void **state)
{
    (void)state;
    struct volumes volumes;
    struct publishing publishing;
    uint64_t next[8] = {0};
    open_volumes(&volumes, 4);
    fill_batch(&volumes, &publishing);
    assert_int_equal(publish_batch(&volumes, &publishing, BATCH, false), ERR_NONE);
    for (uint32_t at = 0; at < BATCH; at++) {
        const struct span key = publishing.messages[at].key;
        const struct catalog_shard *shard =
            catalog_topic_shard(topic_of(&volumes), XXH3_64bits(key.data, key.size));
        const struct publish_result *result = &publishing.results[at];
        assert_int_equal(result->code, ERR_NONE);
        assert_int_equal(result->shard_id, shard->place.shard_id);
        assert_int_equal(result->shard_number, shard->place.number);
        assert_int_equal(result->sequence, next[shard->place.number]++);
    }
    volumes_close(&volumes);
}

/* Without a key, the idempotency key chooses the shard, so a repetition finds the first result;
 * with another body it is refused. */
static void test_idempotency_key(void **state)
{
    (void)state;
    struct volumes volumes;
    struct publishing publishing;
    open_volumes(&volumes, 4);
    struct message_in message = volumes_message("", "body");
    message.idempotency_key = span_text("once");
    const struct publish_result first = volumes_publish(&volumes, "t", message);
    assert_false(first.replayed);
    for (uint32_t again = 0; again < 8; again++) {
        const struct publish_result result = volumes_publish(&volumes, "t", message);
        assert_true(result.replayed);
        assert_int_equal(result.shard_id, first.shard_id);
        assert_int_equal(result.sequence, first.sequence);
    }
    publishing.messages[0] = volumes_message("", "another");
    publishing.messages[0].idempotency_key = span_text("once");
    assert_int_equal(publish_batch(&volumes, &publishing, 1, false), ERR_IDEMPOTENCY_REUSED);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), 1);
    volumes_close(&volumes);
}

/* An atomic batch is taken when its shards lie on one volume; over two it is refused whole. */
static void test_atomic(void **state)
{
    (void)state;
    struct volumes volumes;
    struct publishing publishing;
    open_volumes(&volumes, 2);
    for (uint32_t at = 0; at < 10; at++) {
        publishing.messages[at] = volumes_message(volumes_key_on(&volumes, "t", 1, at), "body");
    }
    assert_int_equal(publish_batch(&volumes, &publishing, 10, true), ERR_NONE);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), 10);
    publishing.messages[5] = volumes_message(volumes_key_on(&volumes, "t", 0, 0), "body");
    assert_int_equal(publish_batch(&volumes, &publishing, 10, true), ERR_NOT_ATOMIC);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), 0);

    /* On one volume, one message that is refused takes the others with it. */
    publishing.messages[5] = volumes_message(volumes_key_on(&volumes, "t", 1, 5), "first");
    publishing.messages[5].idempotency_key = span_text("once");
    (void)volumes_publish(&volumes, "t", publishing.messages[5]);
    publishing.messages[5].body = span_text("another");
    publishing.messages[5].payload_hash++;
    assert_int_equal(publish_batch(&volumes, &publishing, 10, true), ERR_ABORTED);
    assert_int_equal(publishing.results[5].code, ERR_IDEMPOTENCY_REUSED);
    assert_int_equal(publishing.results[4].code, ERR_ABORTED);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), 1);
    volumes_close(&volumes);
}

/* What cannot be published at all fails as a whole. */
static void test_publish_refused(void **state)
{
    (void)state;
    struct volumes volumes;
    struct publishing publishing;
    open_volumes(&volumes, 2);
    assert_int_equal(publish_batch(&volumes, &publishing, 0, false), ERR_INVALID);
    assert_int_equal(volumes_drop_topic(&volumes, "t"), ERR_NONE);
    publishing.messages[0] = volumes_message("", "body");
    assert_int_equal(publish_batch(&volumes, &publishing, 1, false), ERR_NOT_FOUND);
    volumes_close(&volumes);
}

/* A full mailbox refuses the messages of its volume, and only these. */
static void test_publish_busy(void **state)
{
    (void)state;
    struct volumes volumes;
    static struct publishing publishings[3];
    open_with(&volumes, (struct volumes_options){.count = 2, .mailbox_max = 1}, 8);
    volumes_quiesce(&volumes);
    volumes_hold(&volumes, 1);
    for (uint32_t index = 0; index < 3; index++) {
        struct publishing *publishing = &publishings[index];
        fill_batch(&volumes, publishing);
        publishing->publish = (struct router_publish){.topic = span_text("t"),
                                                      .messages = publishing->messages,
                                                      .count = BATCH,
                                                      .results = publishing->results};
        volumes_prepare(&volumes, &publishing->publish.operation, &publishing->done);
        router_start_publish(volumes.router, &publishing->publish);
        volumes_await_held(&volumes, 1); /* the first is taken out of the mailbox */
        while (publishing->publish.operation.pending > 1) {
            volumes_turn(&volumes); /* the other volume answers its part */
        }
    }
    volumes_await(&volumes, &publishings[2].done);
    assert_int_equal(publishings[2].publish.operation.result.code, ERR_NONE);
    for (uint32_t at = 0; at < BATCH; at++) {
        uint32_t volume = volume_of(&volumes, publishings[2].messages[at].shard_id);
        assert_int_equal(publishings[2].results[at].code, volume == 1 ? ERR_BUSY : ERR_NONE);
    }
    volumes_unhold(&volumes, 1);
    for (uint32_t index = 0; index < 3; index++) {
        volumes_await(&volumes, &publishings[index].done);
        router_release(&publishings[index].publish.operation);
    }
    volumes_close(&volumes);
}

/* What was published says how safe it is: answered before its flush, as a relaxed topic's is on
 * every volume from the change on, or after it. */
static void test_publish_durability(void **state)
{
    (void)state;
    struct volumes volumes;
    struct publishing publishing;
    open_with(&volumes, (struct volumes_options){.count = 2, .journals = true}, 8);
    fill_batch(&volumes, &publishing);
    assert_int_equal(publish_batch(&volumes, &publishing, BATCH, false), ERR_NONE);
    assert_int_equal(publishing.publish.durability, DURABILITY_SYNCED);
    assert_int_equal(volumes_put_relaxed(&volumes, "t", 8), ERR_NONE);
    assert_int_equal(publish_batch(&volumes, &publishing, BATCH, false), ERR_NONE);
    assert_int_equal(publishing.publish.durability, DURABILITY_RELAXED);
    assert_int_equal(publish_batch(&volumes, &publishing, 1, true), ERR_NONE);
    assert_int_equal(publishing.publish.durability, DURABILITY_RELAXED);
    assert_int_equal(volumes_put_topic(&volumes, "t", 8), ERR_NONE);
    assert_int_equal(publish_batch(&volumes, &publishing, BATCH, false), ERR_NONE);
    assert_int_equal(publishing.publish.durability, DURABILITY_SYNCED);
    volumes_close(&volumes);
}

/* Where every batch is committed at once, as nothing outlives the process before, a publish to a
 * relaxed topic waits for that, and says so; a pull in its batch waits too. */
static void test_publish_durability_without_journal(void **state)
{
    (void)state;
    struct volumes volumes;
    struct publishing publishing;
    struct volumes_pull pull;
    struct router_stats first = {0}; /* the others make a batch behind it */
    bool first_done;
    open_volumes(&volumes, 1);
    assert_int_equal(volumes_put_relaxed(&volumes, "t", 8), ERR_NONE);
    volumes_hold(&volumes, 0);
    volumes_prepare(&volumes, &first.operation, &first_done);
    router_start_stats(volumes.router, &first);
    volumes_await_held(&volumes, 0);
    fill_batch(&volumes, &publishing);
    start_batch(&volumes, &publishing, BATCH, false);
    volumes_pull_start(&volumes, &pull, "t", "s", BATCH, 0);
    volumes_fail_commits(&volumes, 0, ERR_NO_SPACE, true);
    volumes_unhold(&volumes, 0);
    volumes_await(&volumes, &publishing.done);
    assert_int_equal(publishing.publish.operation.result.code, ERR_NO_SPACE);
    volumes_await(&volumes, &pull.done);
    assert_int_equal(volumes_pull_count(&pull), 0);
    volumes_pull_free(&pull);
    router_release(&publishing.publish.operation);
    volumes_await(&volumes, &first_done);
    router_release(&first.operation);
    volumes_close(&volumes);
}

/* A failed volume refuses the messages of its shards; the others' are taken. */
static void test_publish_failed_volume(void **state)
{
    (void)state;
    struct volumes volumes;
    struct publishing publishing;
    uint32_t taken = 0;
    open_volumes(&volumes, 2);
    volumes_quiesce(&volumes);
    volumes_fail_commits(&volumes, 0, ERR_IO, false);
    for (uint32_t round = 0; round < 2; round++) { /* when it fails, and when it has failed */
        fill_batch(&volumes, &publishing);
        assert_int_equal(publish_batch(&volumes, &publishing, BATCH, false), ERR_NONE);
        for (uint32_t at = 0; at < BATCH; at++) {
            bool failed = volume_of(&volumes, publishing.messages[at].shard_id) == 0;
            enum err_code expected = round == 0 ? ERR_UNKNOWN : ERR_UNAVAILABLE;
            assert_int_equal(publishing.results[at].code, failed ? expected : ERR_NONE);
            taken += !failed;
        }
    }
    publishing.messages[0] = volumes_message(volumes_key_on(&volumes, "t", 0, 0), "body");
    assert_int_equal(publish_batch(&volumes, &publishing, 1, false), ERR_UNAVAILABLE);
    struct router_volume_status status;
    router_volume_status(volumes.router, 0, &status);
    assert_true(status.failed);
    assert_string_equal(status.failure, "planted in commit");
    router_volume_status(volumes.router, 1, &status);
    assert_false(status.failed);
    volumes_restart(&volumes);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), taken);
    volumes_close(&volumes);
}

/* ---- settling ------------------------------------------------------------------------------- */

struct settling {
    struct receipt receipts[BATCH];
    enum err_code results[BATCH];
};

/* Publishes and pulls a batch. */
static void lease_batch(struct volumes *volumes, struct settling *settling, uint32_t count)
{
    struct volumes_pull pull;
    volumes_publish_many(volumes, "t", count);
    volumes_pull_start(volumes, &pull, "t", "s", count, 0);
    volumes_await(volumes, &pull.done);
    assert_int_equal(volumes_pull_receipts(&pull, settling->receipts, count), count);
    volumes_pull_free(&pull);
}

static enum err_code settle(struct volumes *volumes, struct settling *settling, uint32_t count,
                            enum router_settle_kind kind)
{
    struct router_settle operation = {.topic = span_text("t"),
                                      .sub = span_text("s"),
                                      .kind = kind,
                                      .receipts = settling->receipts,
                                      .count = count,
                                      .results = settling->results};
    bool done = false;
    for (uint32_t index = 0; index < count; index++) {
        settling->results[index] = ERR_UNKNOWN;
    }
    volumes_prepare(volumes, &operation.operation, &done);
    router_start_settle(volumes->router, &operation);
    volumes_await(volumes, &done);
    router_release(&operation.operation);
    return operation.operation.result.code;
}

/* Receipts of several volumes, among them foreign, stale and unknown ones, each get their own
 * result in its place; a second time all are stale. */
static void test_settle(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    const enum router_settle_kind kinds[] = {ROUTER_ACK, ROUTER_NACK, ROUTER_EXTEND};
    for (size_t at = 0; at < sizeof kinds / sizeof *kinds; at++) {
        struct volumes volumes;
        struct settling settling;
        open_volumes(&volumes, 4);
        lease_batch(&volumes, &settling, COUNT);
        settling.receipts[3].sub_id++;
        settling.receipts[7].attempt++;
        settling.receipts[11].shard_id = 4711;
        settling.receipts[15].grant++;
        assert_int_equal(settle(&volumes, &settling, COUNT, kinds[at]), ERR_NONE);
        for (uint32_t index = 0; index < COUNT; index++) {
            assert_int_equal(settling.results[index],
                             index % 4 == 3 && index < 16 ? ERR_LEASE_LOST : ERR_NONE);
        }
        assert_int_equal(settle(&volumes, &settling, COUNT, kinds[at]), ERR_NONE);
        for (uint32_t index = 0; index < COUNT; index++) {
            bool again = kinds[at] == ROUTER_EXTEND && !(index % 4 == 3 && index < 16);
            assert_int_equal(settling.results[index], again ? ERR_NONE : ERR_LEASE_LOST);
        }
        volumes_close(&volumes);
    }
}

/* A failed volume fails the receipts of its shards; the others are settled, and told so. */
static void test_settle_failed_volume(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    struct volumes volumes;
    struct settling settling;
    uint32_t lost = 0;
    open_volumes(&volumes, 2);
    lease_batch(&volumes, &settling, COUNT);
    volumes_quiesce(&volumes);
    volumes_fail_commits(&volumes, 1, ERR_IO, false);
    assert_int_equal(settle(&volumes, &settling, COUNT, ROUTER_ACK), ERR_NONE);
    for (uint32_t index = 0; index < COUNT; index++) {
        bool failed = volume_of(&volumes, settling.receipts[index].shard_id) == 1;
        assert_int_equal(settling.results[index], failed ? ERR_UNKNOWN : ERR_NONE);
        lost += failed;
    }
    assert_in_range(lost, 1, COUNT - 1);
    /* When all fail in the same way, the whole fails. */
    uint32_t count = 0;
    for (uint32_t index = 0; index < COUNT; index++) {
        if (settling.results[index] == ERR_UNKNOWN) {
            settling.receipts[count++] = settling.receipts[index];
        }
    }
    assert_int_equal(settle(&volumes, &settling, count, ROUTER_ACK), ERR_UNAVAILABLE);
    assert_int_equal(settling.results[0], ERR_UNAVAILABLE);
    volumes_restart(&volumes);
    volumes_advance(&volumes, usual.lease_ms);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), lost);
    volumes_close(&volumes);
}

/* No receipts are settled at once; those of what does not exist are not. */
static void test_settle_nothing(void **state)
{
    (void)state;
    struct volumes volumes;
    struct settling settling;
    open_volumes(&volumes, 2);
    assert_int_equal(settle(&volumes, &settling, 0, ROUTER_ACK), ERR_NONE);
    lease_batch(&volumes, &settling, 4);
    assert_int_equal(volumes_drop_sub(&volumes, "t", "s"), ERR_NONE);
    assert_int_equal(settle(&volumes, &settling, 4, ROUTER_ACK), ERR_NOT_FOUND);
    volumes_close(&volumes);
}

/* ---- looking and intervening ---------------------------------------------------------------- */

enum { MESSAGES = 30, PLACES = 64 };

/* Where peeking has been: one flag for each (shard, sequence). */
struct seen {
    bool place[PLACES][PLACES];
    uint32_t count;
};

/* Lists one page from where `peek` stands, and moves it on. */
static void peek_page(struct volumes *volumes, struct router_peek *peek, struct seen *seen)
{
    uint64_t size = 0;
    uint32_t count = 0;
    bool done = false;
    volumes_prepare(volumes, &peek->operation, &done);
    router_start_peek(volumes->router, peek);
    volumes_await(volumes, &done);
    assert_int_equal(peek->operation.result.code, ERR_NONE);
    for (const struct reply *reply = router_reply_next(&peek->operation, NULL); reply != NULL;
         reply = router_reply_next(&peek->operation, reply)) {
        for (uint32_t index = 0; index < reply_delivery_count(reply); index++, count++) {
            const struct delivery *delivery = reply_delivery(reply, index);
            assert_true(delivery->shard_id < PLACES && delivery->sequence < PLACES);
            bool *place = &seen->place[delivery->shard_id][delivery->sequence];
            assert_false(*place); /* nothing is listed twice */
            *place = true;
            size += delivery_body(reply, delivery).size;
        }
    }
    assert_in_range(count, 0, peek->max);
    assert_true(count <= 1 || size <= peek->size_max);
    seen->count += count;
    peek->from_shard_id = peek->next_shard_id;
    peek->from_sequence = peek->next_sequence;
    router_release(&peek->operation);
}

static void peek_all(struct volumes *volumes, enum message_state state, uint32_t max,
                     uint32_t size_max)
{
    struct seen seen = {.count = 0};
    struct router_peek peek = {.topic = span_text("t"),
                               .sub = span_text("s"),
                               .state = state,
                               .max = max,
                               .size_max = size_max,
                               .more = true};
    for (uint32_t pages = 0; peek.more; pages++) {
        assert_in_range(pages, 0, 2 * MESSAGES);
        peek_page(volumes, &peek, &seen);
    }
    assert_int_equal(seen.count, MESSAGES);
}

/* Whatever the size of a page, its pages list every message once, over all volumes. */
static void test_peek(void **state)
{
    (void)state;
    struct volumes volumes;
    struct settling settling;
    open_volumes(&volumes, 4);
    volumes_publish_many(&volumes, "t", MESSAGES);
    for (uint32_t max = 1; max <= MESSAGES + 1; max++) {
        peek_all(&volumes, MESSAGE_NONE, max, UINT32_MAX);
    }
    for (uint32_t size_max = 1; size_max <= 60; size_max += 3) {
        peek_all(&volumes, MESSAGE_NONE, MESSAGES, size_max);
    }
    struct volumes_pull pull;
    volumes_pull_start(&volumes, &pull, "t", "s", MESSAGES, 0);
    volumes_await(&volumes, &pull.done);
    assert_int_equal(volumes_pull_receipts(&pull, settling.receipts, BATCH), MESSAGES);
    volumes_pull_free(&pull);
    for (uint32_t max = 1; max <= MESSAGES + 1; max += 4) {
        peek_all(&volumes, MESSAGE_LEASED, max, UINT32_MAX);
    }
    volumes_close(&volumes);
}

/* A place of a shard that does not exist is no place to go on from. */
static void test_peek_unknown_place(void **state)
{
    (void)state;
    struct volumes volumes;
    struct router_peek peek = {.topic = span_text("t"),
                               .sub = span_text("s"),
                               .max = 1,
                               .size_max = 1,
                               .from_shard_id = 4711};
    bool done = false;
    open_volumes(&volumes, 2);
    volumes_prepare(&volumes, &peek.operation, &done);
    router_start_peek(volumes.router, &peek);
    volumes_await(&volumes, &done);
    assert_int_equal(peek.operation.result.code, ERR_INVALID);
    volumes_close(&volumes);
}

static struct router_change change_with(struct volumes *volumes, struct command command,
                                        uint32_t shard_number)
{
    struct router_change change = {.topic = span_text("t"),
                                   .sub = span_text("s"),
                                   .command = command,
                                   .shard_number = shard_number};
    bool done = false;
    volumes_prepare(volumes, &change.operation, &done);
    router_start_change(volumes->router, &change);
    volumes_await(volumes, &done);
    router_release(&change.operation);
    return change;
}

static uint64_t change_count(struct volumes *volumes, struct command command)
{
    const struct router_change change = change_with(volumes, command, UINT32_MAX);
    assert_int_equal(change.operation.result.code, ERR_NONE);
    assert_false(change.more);
    return change.count;
}

/* Changes reach every volume and tell the sum; a shard that is named is changed alone. */
static void test_changes(void **state)
{
    (void)state;
    enum { COUNT = 32 };
    struct volumes volumes;
    struct settling settling;
    open_volumes(&volumes, 4);
    assert_int_equal(volumes_put_sub(&volumes, "t", "other", &usual), ERR_NONE); /* keeps all */
    volumes_publish_many(&volumes, "t", COUNT);
    struct command seek = {.type = COMMAND_SEEK, .seek = {.to = START_LATEST, .dry_run = true}};
    assert_int_equal(change_count(&volumes, seek), COUNT);
    seek.seek.dry_run = false;
    struct router_change change = change_with(&volumes, seek, 3);
    assert_int_equal(change.count, COUNT / 8);
    assert_int_equal(change_count(&volumes, seek), COUNT - COUNT / 8);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), 0);
    seek.seek.to = START_EARLIEST;
    assert_int_equal(change_count(&volumes, seek), COUNT);
    const struct command purge = {.type = COMMAND_PURGE,
                                  .purge = {.enqueued = true, .delivery = true}};
    assert_int_equal(change_count(&volumes, purge), COUNT);

    lease_batch(&volumes, &settling, COUNT);
    struct router_settle reject = {.topic = span_text("t"),
                                   .sub = span_text("s"),
                                   .kind = ROUTER_NACK,
                                   .receipts = settling.receipts,
                                   .count = COUNT,
                                   .results = settling.results,
                                   .reject = true};
    bool done = false;
    volumes_prepare(&volumes, &reject.operation, &done);
    router_start_settle(volumes.router, &reject);
    volumes_await(&volumes, &done);
    router_release(&reject.operation);
    const struct command redrive = {.type = COMMAND_REDRIVE, .redrive = {.max = 1000}};
    change = change_with(&volumes, redrive, 0);
    assert_int_equal(change.count, COUNT / 8);
    assert_int_equal(change_count(&volumes, redrive), COUNT - COUNT / 8);
    assert_int_equal(volumes_drain_sub(&volumes, "t", "s"), COUNT);
    assert_int_equal(change_with(&volumes, redrive, 8).operation.result.code, ERR_INVALID);
    volumes_close(&volumes);
}

/* The figures of a topic come from every volume; of those that answer, when one has failed. */
static void test_stats(void **state)
{
    (void)state;
    struct volumes volumes;
    open_volumes(&volumes, 4);
    assert_int_equal(volumes_put_topic(&volumes, "u", 4), ERR_NONE);
    const struct {
        const char *topic;
        uint32_t failed;
        uint32_t rows;
        enum err_code code;
    } cases[] = {{"t", 0, 8, ERR_NONE},
                 {"u", 0, 4, ERR_NONE},
                 {"", 0, 12, ERR_NONE},
                 {"unknown", 0, 0, ERR_NOT_FOUND},
                 {"", 1, 9, ERR_UNAVAILABLE}};
    for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
        struct router_stats stats = {.topic = span_text(cases[at].topic)};
        bool done = false;
        uint32_t rows = 0;
        if (cases[at].failed > 0) {
            volumes_fail_apply(&volumes, 0, COMMAND_STATS, ERR_IO);
        }
        volumes_prepare(&volumes, &stats.operation, &done);
        router_start_stats(volumes.router, &stats);
        volumes_await(&volumes, &done);
        assert_int_equal(stats.operation.result.code, cases[at].code);
        for (const struct reply *reply = router_reply_next(&stats.operation, NULL); reply != NULL;
             reply = router_reply_next(&stats.operation, reply)) {
            for (size_t offset = 0; offset < reply->items.size; rows++) {
                struct shard_stats row;
                memcpy(&row, reply->items.data + offset, sizeof row);
                offset += sizeof row + row.sub_count * sizeof(struct sub_stats);
            }
        }
        assert_int_equal(rows, cases[at].rows);
        router_release(&stats.operation);
    }
    volumes_close(&volumes);
}

/* While it drains, everything new is refused. */
static void test_drain(void **state)
{
    (void)state;
    struct volumes volumes;
    struct publishing publishing;
    struct settling settling;
    open_volumes(&volumes, 2);
    lease_batch(&volumes, &settling, 4);
    router_drain(volumes.router);
    publishing.messages[0] = volumes_message("", "body");
    assert_int_equal(publish_batch(&volumes, &publishing, 1, false), ERR_UNAVAILABLE);
    assert_int_equal(settle(&volumes, &settling, 4, ROUTER_ACK), ERR_UNAVAILABLE);
    assert_int_equal(volumes_put_topic(&volumes, "u", 1), ERR_UNAVAILABLE);
    assert_int_equal(router_pending(volumes.router), 0);
    volumes_close(&volumes);
}

/* ---- without memory ------------------------------------------------------------------------- */

/* Publishes, pulls, acknowledges, lists and purges a little; adds up what was confirmed. */
static void use_all(struct volumes *volumes, uint32_t *published, uint32_t *acked)
{
    static struct publishing publishing;
    static struct settling settling;
    struct volumes_pull pull;
    for (uint32_t index = 0; index < 8; index++) {
        publishing.messages[index] = volumes_message("", "body");
    }
    (void)publish_batch(volumes, &publishing, 8, false);
    for (uint32_t index = 0; index < 8; index++) {
        *published += publishing.results[index].code == ERR_NONE;
    }
    volumes_pull_start(volumes, &pull, "t", "s", 4, 1);
    volumes_advance(volumes, 1);
    volumes_await(volumes, &pull.done);
    uint32_t count = volumes_pull_receipts(&pull, settling.receipts, 4);
    volumes_pull_free(&pull);
    (void)settle(volumes, &settling, count, ROUTER_ACK);
    for (uint32_t index = 0; index < count; index++) {
        *acked += settling.results[index] == ERR_NONE;
    }
    struct router_peek peek = {
        .topic = span_text("t"), .sub = span_text("s"), .max = 10, .size_max = UINT32_MAX};
    bool done = false;
    volumes_prepare(volumes, &peek.operation, &done);
    router_start_peek(volumes->router, &peek);
    volumes_await(volumes, &done);
    router_release(&peek.operation);
    (void)change_with(volumes, (struct command){.type = COMMAND_REDRIVE, .redrive = {.max = 9}},
                      UINT32_MAX);
    (void)volumes_put_sub(volumes, "t", "other", &usual);
    (void)volumes_drop_sub(volumes, "t", "other");
}

/* Whichever allocation fails, every operation ends once, and what was confirmed is neither lost nor
 * there twice. */
static void test_any_allocation_fails(void **state)
{
    (void)state;
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        struct volumes volumes;
        uint32_t published = 0;
        uint32_t acked = 0;
        open_volumes(&volumes, 2);
        volumes_quiesce(&volumes);
        fault_alloc_nth(nth);
        use_all(&volumes, &published, &acked);
        failed = fault_alloc_stop();
        volumes_restart(&volumes);
        volumes_advance(&volumes, usual.lease_ms + 1);
        uint32_t left = volumes_drain_sub(&volumes, "t", "s");
        assert_int_equal(left + acked, published);
        assert_in_range(nth, 1, 5000);
        volumes_close(&volumes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_idempotency_key),
        cmocka_unit_test(test_atomic),
        cmocka_unit_test(test_publish_refused),
        cmocka_unit_test(test_publish_busy),
        cmocka_unit_test(test_publish_durability),
        cmocka_unit_test(test_publish_durability_without_journal),
        cmocka_unit_test(test_publish_failed_volume),
        cmocka_unit_test(test_settle),
        cmocka_unit_test(test_settle_failed_volume),
        cmocka_unit_test(test_settle_nothing),
        cmocka_unit_test(test_peek),
        cmocka_unit_test(test_peek_unknown_place),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_any_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
