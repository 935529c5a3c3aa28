/* Pulls that wait, against the real broker: what wakes them, that none is missed among many, and
 * that one whose client has gone takes nothing with it. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/scene.h"

enum { WAITERS = 200, MEETINGS = 500, VANISHED = 40 };

/* As long as may be asked for: a wake-up that is lost shows as an empty answer. */
#define WAIT "{\"wait\":\"20s\"}"

/* ---- what wakes ---- */

static struct scene_message held; /* what an arrangement has pulled */

static void hold_one(struct scene *scene, const char *request)
{
    scene_publish(scene, NULL, "held");
    assert_int_equal(scene_pull(&scene->client, request, &held, 1), 1);
}

static void publish(struct scene *scene)
{
    scene_publish(scene, NULL, "new");
}

static void publish_delayed(struct scene *scene)
{
    scene_publish(scene, "Flare-Delay: 200ms\r\n", "late");
}

static void hold_long(struct scene *scene)
{
    hold_one(scene, "{\"lease\":\"1h\"}");
}

static void shorten(struct scene *scene)
{
    scene_settle(&scene->client, 200, "extend", held.receipt, ",\"lease\":200");
}

static void nack(struct scene *scene)
{
    scene_settle(&scene->client, 200, "nack", held.receipt, "");
}

static void nack_delayed(struct scene *scene)
{
    scene_settle(&scene->client, 200, "nack", held.receipt, ",\"delay\":200");
}

static void ack(struct scene *scene)
{
    scene_settle(&scene->client, 200, "ack", held.receipt, "");
}

static void pause_with_one(struct scene *scene)
{
    scene_expect(&scene->client, 200, "POST", SCENE_SUB "/pause", NULL);
    publish(scene);
}

static void resume(struct scene *scene)
{
    scene_expect(&scene->client, 200, "POST", SCENE_SUB "/resume", NULL);
}

static void kill_one(struct scene *scene)
{
    hold_long(scene);
    scene_settle(&scene->client, 200, "nack", held.receipt, ",\"reject\":true");
}

static void redrive(struct scene *scene)
{
    scene_expect(&scene->client, 200, "POST", SCENE_SUB "/redrive", "{}");
    assert_int_equal(scene_number(&scene->client, "redriven"), 1);
}

static void finish_one(struct scene *scene)
{
    hold_long(scene);
    ack(scene);
}

static void seek_back(struct scene *scene)
{
    scene_expect(&scene->client, 200, "POST", SCENE_SUB "/seek", "{\"to\":\"earliest\"}");
    assert_int_equal(scene_number(&scene->client, "moved"), 1);
}

/* One in flight at most, and one more behind it. */
static void fill_flight(struct scene *scene)
{
    scene_expect(&scene->client, 200, "PUT", SCENE_SUB, "{\"max_in_flight\":1}");
    hold_long(scene);
    publish(scene);
}

static void widen_flight(struct scene *scene)
{
    scene_expect(&scene->client, 200, "PUT", SCENE_SUB, "{\"max_in_flight\":2}");
}

static const struct {
    const char *what;
    void (*arrange)(struct scene *scene); /* leaves nothing to pull; may be NULL */
    void (*act)(struct scene *scene);     /* while the pull waits */
    uint64_t after_ms;                    /* that, at the earliest; clocks of 1 ms */
    uint32_t attempt;
} wakers[] = {
    {"a publish", NULL, publish, 0, 1},
    {"a delay that ends", NULL, publish_delayed, 199, 1},
    {"a lease that ends", hold_long, shorten, 199, 2},
    {"a nack", hold_long, nack, 0, 2},
    {"a nack with a delay", hold_long, nack_delayed, 199, 2},
    {"a resume", pause_with_one, resume, 0, 1},
    {"a redrive", kill_one, redrive, 0, 1},
    {"a seek", finish_one, seek_back, 0, 1},
    {"an ack that makes room", fill_flight, ack, 0, 1},
    {"a setting that makes room", fill_flight, widen_flight, 0, 1},
};

/* A waiting pull is woken by whatever gives it something, and not before. */
static void test_what_wakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wakers / sizeof wakers[0]; i++) {
        struct scene scene;
        struct http_client waiter;
        struct scene_message message;
        scene_init_topic(&scene, "{\"shards\":1,\"retention\":{\"age\":\"1h\"}}", "{}");
        http_client_init(&waiter, scene.broker.port);
        if (wakers[i].arrange != NULL) {
            wakers[i].arrange(&scene);
        }
        scene_wait(&waiter, WAIT);
        scene_until_waiting(&scene, 1);
        uint64_t act_us = broker_now_us();
        assert_false(http_client_readable(&waiter, 0));
        wakers[i].act(&scene);
        assert_int_equal(http_client_receive(&waiter), 200);
        uint64_t took_us = broker_now_us() - act_us;
        if (scene_pulled(&waiter, &message, 1) != 1) {
            fail_msg("%s does not wake", wakers[i].what);
        }
        if (message.attempt != wakers[i].attempt || took_us < wakers[i].after_ms * 1000) {
            fail_msg("%s wakes after %lu us with attempt %u", wakers[i].what, took_us,
                     message.attempt);
        }
        http_client_deinit(&waiter);
        scene_deinit(&scene);
    }
}

/* A wait that ends without a message is an empty answer, not before the time asked for; Prefer says
 * the same. */
static void test_wait_ends(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message message;
    char applied[32];
    scene_init_topic(&scene, NULL, NULL);
    uint64_t start_us = broker_now_us();
    assert_int_equal(scene_pull(&scene.client, "{\"wait\":150}", &message, 1), 0);
    assert_true(broker_now_us() - start_us >= 149000); /* clocks of 1 ms */
    start_us = broker_now_us();
    assert_int_equal(
        http_client_request(&scene.client,
                            &(struct http_client_request){.method = "POST",
                                                          .path = SCENE_SUB "/pull",
                                                          .headers = "Prefer: wait=1\r\n"}),
        200);
    assert_true(broker_now_us() - start_us >= 999000);
    assert_string_equal(
        http_client_header(&scene.client, "Preference-Applied", applied, sizeof applied), "wait=1");
    scene_deinit(&scene);
}

/* Pulls that wait for a subscription that is deleted are told so. */
static void test_deletion_wakes(void **state)
{
    (void)state;
    static const char *const gone[] = {SCENE_SUB, SCENE_TOPIC};
    for (size_t i = 0; i < 2; i++) {
        struct scene scene;
        struct http_client waiter;
        scene_init_topic(&scene, NULL, NULL);
        http_client_init(&waiter, scene.broker.port);
        scene_wait(&waiter, WAIT);
        scene_until_waiting(&scene, 1);
        scene_expect(&scene.client, 204, "DELETE", gone[i], NULL);
        assert_int_equal(http_client_receive(&waiter), 404);
        http_client_deinit(&waiter);
        scene_deinit(&scene);
    }
}

/* ---- many ---- */

static struct http_client waiters[WAITERS];

static void publish_singly(struct scene *scene)
{
    for (unsigned i = 0; i < WAITERS; i++) {
        char body[16];
        (void)snprintf(body, sizeof body, "%u", i);
        scene_publish(scene, NULL, body);
    }
}

static void publish_together(struct scene *scene)
{
    struct buf body;
    buf_init(&body, 1 << 20);
    buf_append_text(&body, "{\"messages\":[");
    for (unsigned i = 0; i < WAITERS; i++) {
        buf_printf(&body, "%s{\"body\":\"%u\"}", i == 0 ? "" : ",", i);
    }
    buf_append(&body, "]}", 3);
    scene_expect(&scene->client, 201, "POST", SCENE_TOPIC "/batch", (const char *)body.data);
    buf_deinit(&body);
}

static void wake_many(void (*publish_all)(struct scene *scene))
{
    struct scene scene;
    bool seen[WAITERS] = {false};
    scene_init_topic(&scene, "{\"shards\":8}", "{}");
    for (unsigned i = 0; i < WAITERS; i++) {
        http_client_init(&waiters[i], scene.broker.port);
        scene_wait(&waiters[i], WAIT);
    }
    scene_until_waiting(&scene, WAITERS);
    publish_all(&scene);
    for (unsigned i = 0; i < WAITERS; i++) {
        struct scene_message message;
        assert_int_equal(http_client_receive(&waiters[i]), 200);
        assert_int_equal(scene_pulled(&waiters[i], &message, 1), 1);
        unsigned number = (unsigned)strtoul(message.body, NULL, 10);
        assert_true(number < WAITERS);
        assert_false(seen[number]);
        assert_int_equal(message.attempt, 1);
        seen[number] = true;
        http_client_deinit(&waiters[i]);
    }
    scene_until_waiting(&scene, 0);
    scene_deinit(&scene);
}

/* With many pulls waiting for one message each and as many published, over several volumes, each
 * gets one, none twice. */
static void test_many_waiters(void **state)
{
    (void)state;
    wake_many(publish_singly);
    wake_many(publish_together);
}

/* A message that is published just while a pull looks, over several volumes, whether there is one,
 * is not overlooked. */
static void test_publish_while_asking(void **state)
{
    (void)state;
    struct scene scene;
    struct http_client waiter;
    scene_init_topic(&scene, "{\"shards\":4}", NULL);
    http_client_init(&waiter, scene.broker.port);
    for (unsigned i = 0; i < MEETINGS; i++) {
        struct scene_message message;
        scene_wait(&waiter, WAIT);
        scene_publish(&scene, NULL, "meet");
        assert_int_equal(http_client_receive(&waiter), 200);
        assert_int_equal(scene_pulled(&waiter, &message, 1), 1);
        scene_settle(&waiter, 200, "ack", message.receipt, "");
    }
    http_client_deinit(&waiter);
    scene_deinit(&scene);
}

/* ---- vanished clients ---- */

/* A message published after a waiting client has gone is there for the next one, and counts no
 * attempt, whether or not the broker has noticed by then. */
static void test_vanished_clients(void **state)
{
    (void)state;
    struct scene scene;
    scene_init_topic(&scene, "{\"shards\":4}", "{\"lease\":\"1h\"}");
    for (unsigned i = 0; i < VANISHED; i++) {
        struct http_client waiter;
        struct scene_message message;
        http_client_init(&waiter, scene.broker.port);
        scene_wait(&waiter, WAIT);
        scene_until_waiting(&scene, 1);
        http_client_close(&waiter);
        if (i % 2 == 0) {
            scene_until_waiting(&scene, 0);
        }
        scene_publish(&scene, NULL, "orphan");
        assert_int_equal(scene_pull(&scene.client, WAIT, &message, 1), 1);
        assert_int_equal(message.attempt, 1);
        scene_settle(&scene.client, 200, "ack", message.receipt, "");
        http_client_deinit(&waiter);
    }
    scene_expect(&scene.client, 200, "GET", SCENE_SUB, NULL);
    assert_int_equal(scene_number(&scene.client, "delivery_queue.leased"), 0);
    scene_deinit(&scene);
}

/* Among waiting clients of which half have just gone away, those that stay get all there is. */
static void test_vanished_among_many(void **state)
{
    (void)state;
    enum { COUNT = 60 };
    struct scene scene;
    scene_init_topic(&scene, "{\"shards\":4}", "{\"lease\":\"1h\"}");
    for (unsigned i = 0; i < COUNT; i++) {
        http_client_init(&waiters[i], scene.broker.port);
        scene_wait(&waiters[i], WAIT);
    }
    scene_until_waiting(&scene, COUNT);
    for (unsigned i = 0; i < COUNT; i += 2) {
        http_client_close(&waiters[i]);
    }
    for (unsigned i = 0; i < COUNT / 2; i++) {
        scene_publish(&scene, NULL, "one");
    }
    for (unsigned i = 1; i < COUNT; i += 2) {
        struct scene_message message;
        assert_int_equal(http_client_receive(&waiters[i]), 200);
        assert_int_equal(scene_pulled(&waiters[i], &message, 1), 1);
        assert_int_equal(message.attempt, 1);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        http_client_deinit(&waiters[i]);
    }
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_wakes),           cmocka_unit_test(test_wait_ends),
        cmocka_unit_test(test_deletion_wakes),       cmocka_unit_test(test_many_waiters),
        cmocka_unit_test(test_publish_while_asking), cmocka_unit_test(test_vanished_clients),
        cmocka_unit_test(test_vanished_among_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
