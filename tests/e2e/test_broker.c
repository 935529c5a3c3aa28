/* The life of the real flared: start, stop, crash, lock, volumes, and what a stop in the middle of
 * a change leaves. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "broker/core/catalog.h"
#include "storage/lmdb.h"
#include "tests/lib/must.h"
#include "tests/lib/scene.h"

enum { PUBLISHERS = 4, HALF_DONE_ROUNDS = 12 };

#define STOPPING "unavailable"

static const char *const *arguments_of(const char *name, const char *value)
{
    static const char *arguments[3];
    arguments[0] = name;
    arguments[1] = value;
    return arguments;
}

/* ---- stopping ---- */

/* An ephemeral broker tells where it is, and leaves nothing behind when it is stopped. */
static void test_ephemeral(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct broker broker;
        struct stat status;
        broker_start(&broker, &(struct broker_options){.data = NULL});
        assert_int_equal(stat(broker.data, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0700);
        process_signal(&broker.process, signals[i]);
        assert_int_equal(process_wait(&broker.process, BROKER_TIMEOUT_MS), 0);
        assert_int_not_equal(stat(broker.data, &status), 0);
        broker_stop(&broker);
    }
}

static bool is_empty(const char *path)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        count += strncmp(entry->d_name, "flare-", 6) == 0;
    }
    closedir(dir);
    return count == 0;
}

/* So does one that is stopped as soon as its directory is there, in the middle of its start. */
static void test_ephemeral_stopped_at_start(void **state)
{
    (void)state;
    struct broker broker;
    broker_launch(&broker, &(struct broker_options){.data = NULL});
    while (is_empty(broker.tmpdir.path)) {
        assert_int_equal(process_wait(&broker.process, 0), -1);
    }
    process_signal(&broker.process, SIGTERM);
    assert_int_equal(process_wait(&broker.process, BROKER_TIMEOUT_MS), 0);
    assert_true(is_empty(broker.tmpdir.path));
    broker_stop(&broker);
}

/* In memory there is no directory at all. */
static void test_memory(void **state)
{
    (void)state;
    struct broker broker;
    struct http_client client;
    broker_start(&broker, &(struct broker_options){.data = ":memory:"});
    assert_string_equal(broker.data, ":memory:");
    http_client_init(&client, broker.port);
    scene_expect(&client, 201, "PUT", SCENE_TOPIC, NULL);
    scene_expect(&client, 201, "PUT", SCENE_SUB, NULL);
    scene_expect(&client, 201, "POST", SCENE_TOPIC "/messages", "\"work\"");
    scene_expect(&client, 200, "GET", SCENE_SUB, NULL);
    assert_int_equal(scene_number(&client, "enqueue_queue.depth"), 1);
    http_client_deinit(&client);
    assert_int_equal(broker_terminate(&broker, NULL), 0);
    broker_stop(&broker);
}

/* A face that is off does not listen, and what is printed does not name it. */
static void test_face_off(void **state)
{
    (void)state;
    static const char *const faces[] = {"http", "wire"};
    const char *program = getenv("FLARED") != NULL ? getenv("FLARED") : "./flared";
    for (size_t off = 0; off < 2; off++) {
        const char *const arguments[] = {program, "--ephemeral", off == 0 ? "--http" : "--wire",
                                         "off", NULL};
        struct process process;
        char line[PROCESS_LINE_SIZE];
        process_start(&process, &(struct process_options){.arguments = arguments});
        assert_true(process_read_line(&process, line, sizeof line, BROKER_TIMEOUT_MS));
        json_t *ready = json_loads(line, 0, NULL);
        assert_non_null(ready);
        assert_null(json_object_get(ready, faces[off]));
        assert_non_null(json_object_get(ready, faces[1 - off]));
        assert_non_null(json_object_get(ready, "data"));
        json_decref(ready);
        process_signal(&process, SIGTERM);
        assert_int_equal(process_wait(&process, BROKER_TIMEOUT_MS), 0);
        process_stop(&process);
    }
}

/* SIGTERM: a waiting pull is told at once, and the process ends. */
static void test_stop_answers_waiting_pulls(void **state)
{
    (void)state;
    struct scene scene;
    struct http_client waiter;
    char code[32];
    scene_init_topic(&scene, NULL, NULL);
    http_client_init(&waiter, scene.broker.port);
    scene_wait(&waiter, "{\"wait\":\"20s\"}");
    scene_until_waiting(&scene, 1);
    process_signal(&scene.broker.process, SIGTERM);
    assert_int_equal(http_client_receive(&waiter), 503);
    assert_string_equal(scene_text(&waiter, "code", code, sizeof code), STOPPING);
    assert_non_null(http_client_header(&waiter, "Retry-After", code, sizeof code));
    assert_int_equal(process_wait(&scene.broker.process, BROKER_TIMEOUT_MS), 0);
    http_client_deinit(&waiter);
    scene_deinit(&scene);
}

struct publisher {
    pthread_t thread;
    struct http_client client;
    uint32_t confirmed;
    uint32_t lost;    /* answers that never came */
    uint32_t strange; /* answers other than 201 and 503 */
};

/* Publishes until it is told to stop. */
static void *publisher_main(void *argument)
{
    struct publisher *publisher = argument;
    for (;;) {
        int status = http_client_request(
            &publisher->client, &(struct http_client_request){.method = "POST",
                                                              .path = SCENE_TOPIC "/messages",
                                                              .body = span_text("work")});
        publisher->confirmed += status == 201;
        publisher->lost += status == 0;
        publisher->strange += status != 0 && status != 201 && status != 503;
        if (status != 201) {
            return NULL;
        }
    }
}

/* SIGTERM under load: what was confirmed is there after a restart, what was begun is answered, and
 * the process ends with 0. */
static void test_stop_under_load(void **state)
{
    (void)state;
    struct scene scene;
    static struct publisher publishers[PUBLISHERS];
    int64_t confirmed = 0;
    int64_t lost = 0;
    scene_init_topic(&scene, NULL, NULL);
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        publishers[i] = (struct publisher){0};
        http_client_init(&publishers[i].client, scene.broker.port);
        pthread_create(&publishers[i].thread, NULL, publisher_main, &publishers[i]);
    }
    do {
        scene_expect(&scene.client, 200, "GET", SCENE_SUB, NULL);
    } while (scene_number(&scene.client, "enqueue_queue.depth") < 200);
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        pthread_join(publishers[i].thread, NULL);
        assert_int_equal(publishers[i].strange, 0);
        confirmed += publishers[i].confirmed;
        lost += publishers[i].lost;
        http_client_deinit(&publishers[i].client);
    }
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    scene_start(&scene, NULL);
    scene_expect(&scene.client, 200, "GET", SCENE_SUB, NULL);
    /* Only what was not answered may be there or not: it came as its connection was closed. */
    int64_t depth = scene_number(&scene.client, "enqueue_queue.depth");
    assert_in_range(depth, confirmed, confirmed + lost);
    scene_deinit(&scene);
}

/* ---- the lock ---- */

/* A second broker on a directory is refused and told who holds it; after a kill -9 of the holder
 * the directory is free. */
static void test_directory_is_locked(void **state)
{
    (void)state;
    struct scene scene;
    char log[4096];
    char pid[32];
    scene_init(&scene, NULL);
    (void)snprintf(pid, sizeof pid, "pid %d", (int)scene.broker.process.pid);
    assert_int_equal(broker_refused(&(struct broker_options){.data = scene.data}, log, sizeof log),
                     EX_TEMPFAIL);
    assert_non_null(strstr(log, pid));
    assert_non_null(strstr(log, scene.data));
    scene_expect(&scene.client, 200, "GET", "/readyz", NULL);
    scene_restart(&scene, true, NULL);
    scene_expect(&scene.client, 200, "GET", "/readyz", NULL);
    scene_deinit(&scene);
}

/* A broker that cannot listen, or does not understand what it is told, says so and leaves its
 * directory as it was. */
static void test_refused_settings(void **state)
{
    (void)state;
    struct scene scene;
    char log[4096];
    char address[32];
    char data[TMPDIR_PATH_SIZE];
    scene_init(&scene, NULL);
    tmpdir_file(&scene.tmpdir, "other", data);
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", scene.broker.port);
    struct broker_options options = {.data = data, .arguments = arguments_of("--http", address)};
    assert_int_equal(broker_refused(&options, log, sizeof log), EX_IOERR);
    assert_non_null(strstr(log, address));
    options.arguments = arguments_of("--volumes", "65");
    assert_int_equal(broker_refused(&options, log, sizeof log), EX_USAGE);
    assert_non_null(strstr(log, "volumes"));
    options.arguments = NULL;
    struct broker broker;
    broker_start(&broker, &options);
    broker_stop(&broker);
    scene_deinit(&scene);
}

/* ---- restarts ---- */

/* Leaves one message in every state: enqueued, leased, scheduled, dead, finished. */
static void arrange_states(struct scene *scene, struct scene_message *leased)
{
    struct scene_message message;
    scene_publish(scene, "Flare-Key: a\r\nFlare-Attr-Colour: blue\r\n", "leased");
    assert_int_equal(scene_pull(&scene->client, "{}", leased, 1), 1);
    scene_publish(scene, NULL, "scheduled");
    assert_int_equal(scene_pull(&scene->client, "{}", &message, 1), 1);
    scene_settle(&scene->client, 200, "nack", message.receipt, ",\"delay\":\"1h\"");
    scene_publish(scene, NULL, "dead");
    assert_int_equal(scene_pull(&scene->client, "{}", &message, 1), 1);
    scene_settle(&scene->client, 200, "nack", message.receipt,
                 ",\"reject\":true,\"reason\":\"no good\"");
    scene_publish(scene, NULL, "finished");
    assert_int_equal(scene_pull(&scene->client, "{}", &message, 1), 1);
    scene_settle(&scene->client, 200, "ack", message.receipt, "");
    scene_publish(scene, "Idempotency-Key: once\r\n", "enqueued");
}

static void check_states(struct scene *scene)
{
    char text[128];
    scene_expect(&scene->client, 200, "GET", SCENE_SUB, NULL);
    assert_int_equal(scene_number(&scene->client, "enqueue_queue.depth"), 1);
    assert_int_equal(scene_number(&scene->client, "delivery_queue.leased"), 1);
    assert_int_equal(scene_number(&scene->client, "delivery_queue.scheduled"), 1);
    assert_int_equal(scene_number(&scene->client, "delivery_queue.dead"), 1);
    assert_int_equal(scene_number(&scene->client, "lease_ms"), 3600000);
    scene_expect(&scene->client, 200, "GET", SCENE_SUB "/messages?state=dead", NULL);
    assert_string_equal(scene_text(&scene->client, "items.0.note", text, sizeof text), "no good");
    assert_string_equal(scene_text(&scene->client, "items.0.reason", text, sizeof text),
                        "rejected");
    scene_expect(&scene->client, 200, "GET", SCENE_SUB "/messages?state=leased", NULL);
    assert_string_equal(scene_text(&scene->client, "items.0.attributes.colour", text, sizeof text),
                        "blue");
}

/* A stop or a kill -9 changes nothing: settings with their ETags, every message's state, receipts,
 * idempotency keys, positions. */
static void test_restart_keeps_everything(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message leased;
    struct scene_message message;
    char before[32];
    char after[32];
    char id[32];
    scene_init_topic(&scene, "{\"shards\":4,\"idempotency_window\":\"1d\"}", "{\"lease\":\"1h\"}");
    scene_expect(&scene.client, 200, "PUT", SCENE_SUB, "{\"lease\":\"1h\",\"max_attempts\":3}");
    http_client_header(&scene.client, "ETag", before, sizeof before);
    arrange_states(&scene, &leased);
    scene_text(&scene.client, "id", id, sizeof id);
    for (unsigned kill = 0; kill < 2; kill++) {
        scene_restart(&scene, kill == 1, NULL);
        check_states(&scene);
        scene_expect(&scene.client, 200, "GET", SCENE_SUB, NULL);
        http_client_header(&scene.client, "ETag", after, sizeof after);
        assert_string_equal(before, after);
        scene_publish(&scene, "Idempotency-Key: once\r\n", "enqueued");
        assert_string_equal(scene_text(&scene.client, "id", after, sizeof after), id);
        assert_non_null(
            http_client_header(&scene.client, "Idempotent-Replayed", after, sizeof after));
    }
    scene_settle(&scene.client, 200, "ack", leased.receipt, "");
    assert_int_equal(scene_pull(&scene.client, "{\"max\":10}", &message, 1), 1);
    assert_string_equal(message.id, id);
    scene_deinit(&scene);
}

/* ---- volumes ---- */

static int64_t volume_count(struct scene *scene)
{
    scene_expect(&scene->client, 200, "GET", "/v1/status", NULL);
    json_t *status = http_client_document(&scene->client);
    size_t count = json_array_size(json_object_get(status, "volumes"));
    json_decref(status);
    return (int64_t)count - 1; /* the last is the catalog */
}

/* How many of the first `volumes` volumes hold a shard of the topic. */
static unsigned volumes_used(struct scene *scene, const char *topic)
{
    char path[64];
    unsigned seen = 0;
    (void)snprintf(path, sizeof path, "/v1/topics/%s/shards?limit=1000", topic);
    scene_expect(&scene->client, 200, "GET", path, NULL);
    json_t *answer = http_client_document(&scene->client);
    size_t index;
    const json_t *shard;
    json_array_foreach(json_object_get(answer, "items"), index, shard)
    {
        seen |= 1U << json_integer_value(json_object_get(shard, "volume"));
    }
    json_decref(answer);
    return (unsigned)__builtin_popcount(seen);
}

/* Publishes to every shard of "t" and gets it all back. */
static void check_traffic(struct scene *scene)
{
    enum { COUNT = 16 };
    struct scene_message messages[COUNT];
    unsigned got = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        scene_publish(scene, NULL, "through");
    }
    while (got < COUNT) {
        uint32_t count =
            scene_pull(&scene->client, "{\"max\":16,\"wait\":\"5s\"}", messages, COUNT);
        assert_true(count > 0);
        for (uint32_t i = 0; i < count; i++) {
            scene_settle(&scene->client, 200, "ack", messages[i].receipt, "");
        }
        got += count;
    }
    assert_int_equal(got, COUNT);
}

/* A broker runs on one, two or four volumes; shards spread over all of them. */
static void test_volume_counts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned count;
    } cases[] = {{"1", 1}, {"2", 2}, {"4", 4}};
    for (size_t i = 0; i < 3; i++) {
        struct scene scene;
        scene_init(&scene, arguments_of("--volumes", cases[i].text));
        scene_expect(&scene.client, 201, "PUT", SCENE_TOPIC, "{\"shards\":8}");
        scene_expect(&scene.client, 201, "PUT", SCENE_SUB, NULL);
        assert_int_equal(volume_count(&scene), cases[i].count);
        assert_int_equal(volumes_used(&scene, "t"), cases[i].count);
        check_traffic(&scene);
        scene_deinit(&scene);
    }
}

/* Volumes can be added later, and a smaller number given later takes none away: topics stay where
 * they are, new ones use all. */
static void test_volumes_grow_and_stay(void **state)
{
    (void)state;
    struct scene scene;
    scene_init(&scene, arguments_of("--volumes", "1"));
    scene_expect(&scene.client, 201, "PUT", SCENE_TOPIC, "{\"shards\":8}");
    scene_expect(&scene.client, 201, "PUT", SCENE_SUB, NULL);
    scene_restart(&scene, false, arguments_of("--volumes", "4"));
    assert_int_equal(volume_count(&scene), 4);
    assert_int_equal(volumes_used(&scene, "t"), 1);
    check_traffic(&scene);
    scene_expect(&scene.client, 201, "PUT", "/v1/topics/wide", "{\"shards\":8}");
    assert_int_equal(volumes_used(&scene, "wide"), 4);
    scene_restart(&scene, true, arguments_of("--volumes", "2"));
    assert_int_equal(volume_count(&scene), 4);
    assert_int_equal(volumes_used(&scene, "wide"), 4);
    check_traffic(&scene);
    scene_deinit(&scene);
}

/* A directory of which a file is missing, or has been replaced by another one's, is not started
 * on; the message names the file. */
static void test_missing_and_foreign_files(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int missing;         /* the exit status then */
        const char *foreign; /* what is named then: the catalog says whose the directory is */
    } files[] = {{"volume-0.mdb", EX_NOINPUT, "volume-0.mdb"},
                 {"volume-1.mdb", EX_NOINPUT, "volume-1.mdb"},
                 {"catalog.mdb", EX_DATAERR, "volume-0.mdb"}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct scene scene;
        struct scene other;
        char path[TMPDIR_PATH_SIZE + 16];
        char foreign[TMPDIR_PATH_SIZE + 16];
        char log[4096];
        scene_init(&scene, NULL);
        scene_init(&other, NULL);
        assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
        assert_int_equal(broker_terminate(&other.broker, NULL), 0);
        (void)snprintf(path, sizeof path, "%s/%s", scene.data, files[i].name);
        (void)snprintf(foreign, sizeof foreign, "%s/%s", other.data, files[i].name);
        assert_int_equal(unlink(path), 0);
        const struct broker_options options = {.data = scene.data};
        assert_int_equal(broker_refused(&options, log, sizeof log), files[i].missing);
        assert_non_null(strstr(log, files[i].name));
        assert_int_equal(rename(foreign, path), 0);
        assert_int_equal(broker_refused(&options, log, sizeof log), EX_DATAERR);
        assert_non_null(strstr(log, files[i].foreign));
        scene_deinit(&scene);
        scene_deinit(&other);
    }
}

/* ---- half done ---- */

/* Records a change in the catalog of a stopped broker as its first step would. */
static void record_change(const struct scene *scene, struct catalog_change *change)
{
    char path[TMPDIR_PATH_SIZE + 16];
    struct store *store = NULL;
    struct store_txn *txn = NULL;
    struct machine *machine = NULL;
    struct reply reply;
    struct effects effects = {0};
    (void)snprintf(path, sizeof path, "%s/catalog.mdb", scene->data);
    reply_init(&reply);
    buf_init(&effects.woken, 1024);
    must(lmdb_store_open(&(struct lmdb_options){.path = path, .role = "catalog"}, &store));
    must(catalog_machine_create(&machine));
    must(store_begin(store, STORE_WRITE, &txn));
    must(machine->ops->load(machine, txn));
    const struct command command = {
        .type = COMMAND_CATALOG, .now_ms = UINT64_C(2000000000000), .catalog = change};
    must(machine->ops->apply(machine, txn, &command, &reply, &effects));
    assert_int_equal(reply.code, ERR_NONE);
    must(machine->ops->flush(machine, txn));
    must(store_commit(txn));
    machine->ops->committed(machine);
    machine->ops->destroy(machine);
    store_close(store);
    buf_deinit(&effects.woken);
    reply_deinit(&reply);
}

static struct catalog_change new_topic(const char *name)
{
    return (struct catalog_change){
        .op = CATALOG_TOPIC_PUT, .topic = span_text(name), .shard_count = 4, .volume_count = 2};
}

static struct catalog_change new_sub(const char *name)
{
    return (struct catalog_change){.op = CATALOG_SUB_PUT,
                                   .topic = span_text("t"),
                                   .sub = span_text(name),
                                   .volume_count = 2,
                                   .sub_settings = {.lease_ms = 30000, .max_attempts = 16}};
}

/* What was recorded as being created or deleted when the broker went down is there, or gone, when
 * it is up again. */
static void test_half_done_is_finished(void **state)
{
    (void)state;
    struct scene scene;
    struct catalog_change changes[] = {
        new_topic("new"),
        new_sub("extra"),
        {.op = CATALOG_SUB_STATE,
         .topic = span_text("t"),
         .sub = span_text("s"),
         .to = CATALOG_DELETING},
        {.op = CATALOG_TOPIC_STATE, .topic = span_text("old"), .to = CATALOG_DELETING},
    };
    char text[32];
    scene_init_topic(&scene, NULL, NULL);
    scene_expect(&scene.client, 201, "PUT", "/v1/topics/old", NULL);
    scene_expect(&scene.client, 201, "PUT", "/v1/topics/old/subscriptions/s", NULL);
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        record_change(&scene, &changes[i]);
    }
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    scene_start(&scene, NULL);
    scene_expect(&scene.client, 200, "GET", "/v1/topics/new", NULL);
    assert_string_equal(scene_text(&scene.client, "state", text, sizeof text), "active");
    scene_expect(&scene.client, 201, "PUT", "/v1/topics/new/subscriptions/s", NULL);
    scene_expect(&scene.client, 201, "POST", "/v1/topics/new/messages", "1");
    scene_expect(&scene.client, 200, "GET", SCENE_TOPIC "/subscriptions/extra", NULL);
    assert_string_equal(scene_text(&scene.client, "state", text, sizeof text), "active");
    scene_expect(&scene.client, 404, "GET", SCENE_SUB, NULL);
    scene_expect(&scene.client, 404, "GET", "/v1/topics/old", NULL);
    scene_expect(&scene.client, 201, "PUT", "/v1/topics/old", NULL);
    scene_publish(&scene, NULL, "for extra");
    scene_expect(&scene.client, 200, "GET", SCENE_TOPIC "/subscriptions/extra", NULL);
    assert_int_equal(scene_number(&scene.client, "enqueue_queue.depth"), 1);
    scene_deinit(&scene);
}

/* Killed while topics are made and deleted, it comes up with each of them whole or not there, and
 * can make them all. */
static void test_kill_while_creating(void **state)
{
    (void)state;
    struct scene scene;
    scene_init(&scene, NULL);
    for (unsigned round = 0; round < HALF_DONE_ROUNDS; round++) {
        for (unsigned i = 0; i <= round % 4; i++) {
            char path[64];
            (void)snprintf(path, sizeof path, "/v1/topics/%u-%u", round, i);
            scene_expect(&scene.client, 201, "PUT", path, "{\"shards\":64}");
        }
        /* The last one is under way when the broker dies. */
        char path[64];
        (void)snprintf(path, sizeof path, "/v1/topics/%u-0", round);
        assert_true(http_client_send(
            &scene.client,
            &(struct http_client_request){.method = round % 2 == 0 ? "DELETE" : "PUT",
                                          .path = round % 2 == 0 ? path : SCENE_TOPIC}));
        scene_restart(&scene, true, NULL);
        int found = http_client_do(&scene.client, "GET", path);
        assert_true(found == 200 || found == 404);
        int made = http_client_do(&scene.client, "PUT", path);
        assert_int_equal(made, found == 200 ? 200 : 201);
        (void)snprintf(path, sizeof path, "/v1/topics/%u-0/messages", round);
        scene_expect(&scene.client, 201, "POST", path, "1");
    }
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ephemeral),
        cmocka_unit_test(test_ephemeral_stopped_at_start),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_face_off),
        cmocka_unit_test(test_stop_answers_waiting_pulls),
        cmocka_unit_test(test_stop_under_load),
        cmocka_unit_test(test_directory_is_locked),
        cmocka_unit_test(test_refused_settings),
        cmocka_unit_test(test_restart_keeps_everything),
        cmocka_unit_test(test_volume_counts),
        cmocka_unit_test(test_volumes_grow_and_stay),
        cmocka_unit_test(test_missing_and_foreign_files),
        cmocka_unit_test(test_half_done_is_finished),
        cmocka_unit_test(test_kill_while_creating),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
