/* Operations of the router that must succeed, each in one call. */
#include "tests/lib/volumes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <xxhash.h>

static enum err_code configure(struct volumes *volumes, struct catalog_change change)
{
    struct router_configure configure = {.change = change};
    bool done = false;
    volumes_prepare(volumes, &configure.operation, &done);
    router_start_configure(volumes->router, &configure);
    volumes_await(volumes, &done);
    router_release(&configure.operation);
    return configure.operation.result.code;
}

static enum err_code put_topic(struct volumes *volumes, const char *topic, uint32_t shards,
                               enum durability durability)
{
    return configure(volumes,
                     (struct catalog_change){
                         .op = CATALOG_TOPIC_PUT,
                         .topic = span_text(topic),
                         .shard_count = shards,
                         .topic_settings = {.dedup_window_ms = 60000, .durability = durability}});
}

enum err_code volumes_put_topic(struct volumes *volumes, const char *topic, uint32_t shards)
{
    return put_topic(volumes, topic, shards, DURABILITY_SYNCED);
}

enum err_code volumes_put_relaxed(struct volumes *volumes, const char *topic, uint32_t shards)
{
    return put_topic(volumes, topic, shards, DURABILITY_RELAXED);
}

enum err_code volumes_put_sub(struct volumes *volumes, const char *topic, const char *sub,
                              const struct sub_settings *settings)
{
    const struct sub_settings usual = {.lease_ms = 30000, .max_attempts = 3};
    return configure(volumes,
                     (struct catalog_change){.op = CATALOG_SUB_PUT,
                                             .topic = span_text(topic),
                                             .sub = span_text(sub),
                                             .sub_settings = settings == NULL ? usual : *settings});
}

enum err_code volumes_drop_topic(struct volumes *volumes, const char *topic)
{
    return configure(volumes, (struct catalog_change){.op = CATALOG_TOPIC_STATE,
                                                      .topic = span_text(topic),
                                                      .to = CATALOG_DELETING});
}

enum err_code volumes_drop_sub(struct volumes *volumes, const char *topic, const char *sub)
{
    return configure(volumes, (struct catalog_change){.op = CATALOG_SUB_STATE,
                                                      .topic = span_text(topic),
                                                      .sub = span_text(sub),
                                                      .to = CATALOG_DELETING});
}

struct message_in volumes_message(const char *key, const char *body)
{
    struct message_in message = {.key = span_text(key), .body = span_text(body)};
    message.payload_hash = router_payload_hash(message.key, message.attributes, message.body);
    return message;
}

struct publish_result volumes_publish(struct volumes *volumes, const char *topic,
                                      struct message_in message)
{
    struct publish_result result = {0};
    struct router_publish publish = {
        .topic = span_text(topic), .messages = &message, .count = 1, .results = &result};
    bool done = false;
    volumes_prepare(volumes, &publish.operation, &done);
    router_start_publish(volumes->router, &publish);
    volumes_await(volumes, &done);
    assert_int_equal(publish.operation.result.code, ERR_NONE);
    assert_int_equal(result.code, ERR_NONE);
    router_release(&publish.operation);
    return result;
}

void volumes_publish_many(struct volumes *volumes, const char *topic, uint32_t count)
{
    struct message_in *messages = calloc(count, sizeof *messages);
    struct publish_result *results = calloc(count, sizeof *results);
    assert_non_null(messages);
    assert_non_null(results);
    for (uint32_t index = 0; index < count; index++) {
        char *body = arena_alloc(&volumes->arena, 16);
        assert_non_null(body);
        snprintf(body, 16, "%u", index);
        messages[index] = volumes_message("", body);
    }
    struct router_publish publish = {
        .topic = span_text(topic), .messages = messages, .count = count, .results = results};
    bool done = false;
    volumes_prepare(volumes, &publish.operation, &done);
    router_start_publish(volumes->router, &publish);
    volumes_await(volumes, &done);
    assert_int_equal(publish.operation.result.code, ERR_NONE);
    for (uint32_t index = 0; index < count; index++) {
        assert_int_equal(results[index].code, ERR_NONE);
    }
    router_release(&publish.operation);
    free(messages);
    free(results);
}

const char *volumes_key_on(struct volumes *volumes, const char *topic_name, uint32_t volume,
                           uint32_t nth)
{
    enum { KEY_SIZE = 16, KEYS_MAX = 100000 };
    const struct catalog_topic *topic = catalog_topic(volumes->catalog, span_text(topic_name));
    assert_non_null(topic);
    char *key = arena_alloc(&volumes->arena, KEY_SIZE);
    assert_non_null(key);
    for (uint32_t number = 0; number < KEYS_MAX; number++) {
        int size = snprintf(key, KEY_SIZE, "%u", number);
        uint64_t hash = XXH3_64bits(key, (size_t)size);
        if (catalog_topic_shard(topic, hash)->volume == volume && nth-- == 0) {
            return key;
        }
    }
    fail_msg("no key lands on volume %u", volume);
    return NULL;
}

void volumes_pull_with(struct volumes *volumes, struct volumes_pull *pull,
                       struct router_pull wanted)
{
    *pull = (struct volumes_pull){.pull = wanted};
    volumes_prepare(volumes, &pull->pull.operation, &pull->done);
    router_start_pull(volumes->router, &pull->pull);
}

void volumes_pull_start(struct volumes *volumes, struct volumes_pull *pull, const char *topic,
                        const char *sub, uint32_t max, uint64_t wait_ms)
{
    volumes_pull_with(volumes, pull,
                      (struct router_pull){.topic = span_text(topic),
                                           .sub = span_text(sub),
                                           .max = max,
                                           .size_max = 1024 * 1024,
                                           .wait_ms = wait_ms});
}

uint32_t volumes_pull_count(const struct volumes_pull *pull)
{
    uint32_t count = 0;
    assert_true(pull->done);
    for (const struct reply *reply = router_reply_next(&pull->pull.operation, NULL); reply != NULL;
         reply = router_reply_next(&pull->pull.operation, reply)) {
        count += reply_delivery_count(reply);
    }
    return count;
}

uint32_t volumes_pull_receipts(const struct volumes_pull *pull, struct receipt *out, uint32_t max)
{
    uint32_t count = 0;
    assert_true(pull->done);
    for (const struct reply *reply = router_reply_next(&pull->pull.operation, NULL); reply != NULL;
         reply = router_reply_next(&pull->pull.operation, reply)) {
        for (uint32_t index = 0; index < reply_delivery_count(reply) && count < max; index++) {
            const struct delivery *delivery = reply_delivery(reply, index);
            out[count++] = (struct receipt){.sub_id = pull->pull.sub_id,
                                            .shard_id = delivery->shard_id,
                                            .sequence = delivery->sequence,
                                            .epoch = delivery->epoch,
                                            .grant = delivery->grant,
                                            .attempt = delivery->attempt};
        }
    }
    return count;
}

void volumes_pull_free(struct volumes_pull *pull)
{
    assert_true(pull->done);
    router_release(&pull->pull.operation);
}

void volumes_settle(struct volumes *volumes, enum router_settle_kind kind, const char *topic,
                    const char *sub, struct receipt *receipts, uint32_t count)
{
    enum err_code *results = calloc(count, sizeof *results);
    assert_non_null(results);
    struct router_settle settle = {.topic = span_text(topic),
                                   .sub = span_text(sub),
                                   .kind = kind,
                                   .receipts = receipts,
                                   .count = count,
                                   .results = results};
    bool done = false;
    volumes_prepare(volumes, &settle.operation, &done);
    router_start_settle(volumes->router, &settle);
    volumes_await(volumes, &done);
    assert_int_equal(settle.operation.result.code, ERR_NONE);
    for (uint32_t index = 0; index < count; index++) {
        assert_int_equal(results[index], ERR_NONE);
    }
    router_release(&settle.operation);
    free(results);
}

uint32_t volumes_drain_sub(struct volumes *volumes, const char *topic, const char *sub)
{
    enum { AT_ONCE = 1000 };
    static struct receipt receipts[AT_ONCE];
    uint32_t total = 0;
    for (;;) {
        struct volumes_pull pull;
        volumes_pull_start(volumes, &pull, topic, sub, AT_ONCE, 0);
        volumes_await(volumes, &pull.done);
        assert_int_equal(pull.pull.operation.result.code, ERR_NONE);
        uint32_t count = volumes_pull_receipts(&pull, receipts, AT_ONCE);
        volumes_pull_free(&pull);
        if (count == 0) {
            return total;
        }
        volumes_settle(volumes, ROUTER_ACK, topic, sub, receipts, count);
        total += count;
    }
}
