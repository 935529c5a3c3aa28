/* kill -9 of the real broker right after it has answered, over and over, with topics of both
 * durabilities on two volumes: of neither anything is lost, as what is answered before its flush is
 * in the journal's file. (What a power failure takes is the simulation's and crash/replay_core's.)
 *
 * FLARE_SEED replays the choices (not the timing). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/random.h"
#include "tests/lib/scene.h"

enum {
    KILLS = 40,
    REQUESTS_MAX = 20, /* between two of them */
    BATCH_MAX = 5,
    SHARDS = 2,
    MESSAGES_MAX = KILLS * REQUESTS_MAX * BATCH_MAX,
};

static const char *const arguments[] = {"--volumes", "2", "--disk-reserve", "1m", NULL};

/* A topic, named by its durability, and what was answered of it. */
struct told {
    const char *durability;
    uint32_t next[SHARDS]; /* sequence */
    uint32_t bodies[SHARDS][MESSAGES_MAX];
};

static struct told topics[] = {{.durability = "synced"}, {.durability = "relaxed"}};
static struct scene scene;
static uint32_t number; /* of the last message; its body */

static const char *path_of(const struct told *told, const char *rest)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "/v1/topics/%s%s", told->durability, rest);
    return path;
}

static void create(const struct told *told)
{
    char document[64];
    (void)snprintf(document, sizeof document, "{\"shards\":%d,\"durability\":\"%s\"}", SHARDS,
                   told->durability);
    scene_expect(&scene.client, 201, "PUT", path_of(told, ""), document);
    scene_expect(&scene.client, 201, "PUT", path_of(told, "/subscriptions/s"),
                 "{\"lease\":\"1h\"}");
}

/* Each message is the next one of its shard. */
static void publish(struct told *told, uint32_t count)
{
    char document[32 * BATCH_MAX + 32] = "{\"messages\":[";
    size_t size = strlen(document);
    for (uint32_t index = 0; index < count; index++) {
        size += (size_t)snprintf(document + size, sizeof document - size, "%s{\"body\":\"%u\"}",
                                 index == 0 ? "" : ",", number + index);
    }
    (void)snprintf(document + size, sizeof document - size, "]}");
    scene_expect(&scene.client, 201, "POST", path_of(told, "/batch"), document);
    char text[16];
    assert_string_equal(scene_text(&scene.client, "durability", text, sizeof text),
                        told->durability);
    for (uint32_t index = 0; index < count; index++) {
        char name[32];
        (void)snprintf(name, sizeof name, "results.%u.shard", index);
        int64_t shard = scene_number(&scene.client, name);
        assert_in_range(shard, 0, SHARDS - 1);
        (void)snprintf(name, sizeof name, "results.%u.sequence", index);
        assert_int_equal(scene_number(&scene.client, name), told->next[shard]);
        told->bodies[shard][told->next[shard]++] = number++;
    }
}

static void expect_all(const struct told *told)
{
    scene_expect(&scene.client, 200, "GET", path_of(told, "/shards"), NULL);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        char name[32];
        (void)snprintf(name, sizeof name, "items.%u.next_sequence", shard);
        assert_int_equal(scene_number(&scene.client, name), told->next[shard]);
    }
}

/* Everything is delivered as it was published, and nothing else is. */
static void drain(const struct told *told)
{
    static struct scene_message messages[1000];
    uint32_t count = 0;
    uint32_t more = 0;
    do {
        scene_expect(&scene.client, 200, "POST", path_of(told, "/subscriptions/s/pull"),
                     "{\"max\":1000}");
        more = scene_pulled(&scene.client, messages, 1000);
        for (uint32_t index = 0; index < more; index++) {
            const struct scene_message *message = &messages[index];
            char body[16];
            assert_true(message->shard < SHARDS);
            assert_true(message->sequence < told->next[message->shard]);
            (void)snprintf(body, sizeof body, "%u",
                           told->bodies[message->shard][message->sequence]);
            assert_string_equal(message->body, body);
        }
        count += more;
    } while (more > 0);
    uint32_t wanted = 0;
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        wanted += told->next[shard];
    }
    assert_int_equal(count, wanted);
}

static void test_kill_after_an_answer(void **state)
{
    (void)state;
    struct random random;
    const char *seed_text = getenv("FLARE_SEED");
    uint64_t seed = seed_text == NULL ? random_seed() : strtoull(seed_text, NULL, 10);
    random_init(&random, seed);
    scene_init(&scene, arguments);
    create(&topics[0]);
    create(&topics[1]);
    for (uint32_t kill = 0; kill < KILLS; kill++) {
        uint64_t requests = 1 + random_below(&random, REQUESTS_MAX);
        for (uint64_t request = 0; request < requests; request++) {
            uint32_t count = 1 + (uint32_t)random_below(&random, BATCH_MAX);
            publish(&topics[random_below(&random, 2)], count);
        }
        scene_restart(&scene, true, arguments);
        expect_all(&topics[0]);
        expect_all(&topics[1]);
    }
    drain(&topics[0]);
    drain(&topics[1]);
    printf("{\"test\":\"kill_relaxed\",\"seed\":%llu,\"kills\":%d,\"published\":%u}\n",
           (unsigned long long)seed, KILLS, number);
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill_after_an_answer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
