/* The HTTP API of the real broker, end to end: what a person with curl, a program with MessagePack
 * and a monitoring system see. The rules of each request are tested in unit/test_api_*.c; here they
 * meet real volumes. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/scene.h"

/* ---- the quick start ---- */

/* A topic, a subscription, a message, a pull, an ack: as README has it. */
static void test_quick_start(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message message;
    char text[64];
    scene_init(&scene, NULL);
    struct http_client *client = &scene.client;
    scene_expect(client, 201, "PUT", SCENE_TOPIC, "{\"shards\":8}");
    scene_expect(client, 200, "PUT", SCENE_TOPIC, "{\"shards\":8}");
    scene_expect(client, 409, "PUT", SCENE_TOPIC, "{\"shards\":4}");
    scene_expect(client, 201, "PUT", SCENE_SUB, NULL);
    scene_publish(&scene, "Flare-Key: customer-7\r\nContent-Type: text/plain\r\n", "one coffee");
    assert_string_equal(scene_text(client, "durability", text, sizeof text), "synced");
    assert_int_equal(scene_pull(client, "{\"max\":10,\"wait\":\"20s\"}", &message, 1), 1);
    assert_string_equal(message.body, "one coffee");
    assert_string_equal(scene_text(client, "messages.0.key", text, sizeof text), "customer-7");
    assert_string_equal(scene_text(client, "messages.0.attributes.content-type", text, sizeof text),
                        "text/plain");
    scene_settle(client, 200, "ack", message.receipt, "");
    scene_settle(client, 409, "ack", message.receipt, "");
    assert_string_equal(scene_text(client, "results.0.code", text, sizeof text), "lease_lost");
    assert_int_equal(scene_pull(client, "{}", &message, 1), 0);
    scene_deinit(&scene);
}

/* ---- batches ---- */

/* Two keys whose shards lie on different volumes, found by asking. */
static void find_keys(struct scene *scene, char apart[2][16])
{
    int64_t volumes[8];
    int64_t first = -1;
    scene_expect(&scene->client, 200, "GET", SCENE_TOPIC "/shards", NULL);
    for (unsigned i = 0; i < 8; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "items.%u.volume", i);
        volumes[i] = scene_number(&scene->client, name);
    }
    for (unsigned i = 0; i < 100; i++) {
        char headers[64];
        char key[16];
        (void)snprintf(key, sizeof key, "key-%u", i);
        (void)snprintf(headers, sizeof headers, "Flare-Key: %s\r\n", key);
        scene_publish(scene, headers, "probe");
        int64_t volume = volumes[scene_number(&scene->client, "shard")];
        if (first < 0) {
            first = volume;
            memcpy(apart[0], key, sizeof key);
        } else if (volume != first) {
            memcpy(apart[1], key, sizeof key);
            return;
        }
    }
    fail_msg("all keys are on one volume");
}

/* An atomic batch over several volumes is refused whole; on one volume it is published whole; an
 * ordinary one may lie anywhere. */
static void test_atomic_batches(void **state)
{
    (void)state;
    struct scene scene;
    char keys[2][16];
    char text[32];
    scene_init_topic(&scene, "{\"shards\":8}", NULL);
    find_keys(&scene, keys);
    scene_expect(&scene.client, 200, "GET", SCENE_SUB, NULL);
    int64_t before = scene_number(&scene.client, "enqueue_queue.depth");
    static const struct {
        const char *query;
        unsigned second; /* key of the second message */
        int status;
        int64_t published;
    } cases[] = {{"?atomic=true", 1, 422, 0}, {"?atomic=true", 0, 201, 2}, {"", 1, 201, 2}};
    for (size_t i = 0; i < 3; i++) {
        char path[64];
        (void)snprintf(path, sizeof path, SCENE_TOPIC "/batch%s", cases[i].query);
        assert_int_equal(
            http_client_json(&scene.client, "POST", path,
                             "{\"messages\":[{\"key\":\"%s\",\"body\":\"1\"},{\"key\":\"%s\"}]}",
                             keys[0], keys[cases[i].second]),
            cases[i].status);
        if (cases[i].status == 422) {
            assert_string_equal(scene_text(&scene.client, "code", text, sizeof text), "not_atomic");
        }
        scene_expect(&scene.client, 200, "GET", SCENE_SUB, NULL);
        before += cases[i].published;
        assert_int_equal(scene_number(&scene.client, "enqueue_queue.depth"), before);
    }
    scene_deinit(&scene);
}

/* ---- interventions ---- */

static int64_t depth(struct scene *scene, const char *queue)
{
    scene_expect(&scene->client, 200, "GET", SCENE_SUB, NULL);
    return scene_number(&scene->client, queue);
}

/* A paused subscription gives nothing, keeps all, and goes on when it is resumed. */
static void test_pause_and_resume(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message message;
    char text[16];
    scene_init_topic(&scene, NULL, NULL);
    scene_expect(&scene.client, 200, "POST", SCENE_SUB "/pause", NULL);
    assert_string_equal(scene_text(&scene.client, "state", text, sizeof text), "paused");
    scene_publish(&scene, NULL, "kept");
    assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 0);
    scene_restart(&scene, true, NULL);
    assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 0);
    assert_int_equal(depth(&scene, "enqueue_queue.depth"), 1);
    scene_expect(&scene.client, 200, "POST", SCENE_SUB "/resume", NULL);
    assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 1);
    scene_deinit(&scene);
}

/* Publishes `count` messages and makes `dead` of them dead letters; over all shards. */
static void arrange_dead(struct scene *scene, unsigned count, unsigned dead)
{
    for (unsigned i = 0; i < count; i++) {
        scene_publish(scene, NULL, "x");
    }
    for (unsigned i = 0; i < dead; i++) {
        struct scene_message message;
        assert_int_equal(scene_pull(&scene->client, "{}", &message, 1), 1);
        scene_settle(&scene->client, 200, "nack", message.receipt, ",\"reject\":true");
    }
}

/* Dead letters are counted, redriven one, some or all, and come again with all their attempts. */
static void test_redrive(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message messages[8];
    char id[32];
    char request[64];
    scene_init_topic(&scene, NULL, NULL);
    arrange_dead(&scene, 4, 4);
    struct http_client *client = &scene.client;
    scene_expect(client, 200, "POST", SCENE_SUB "/redrive", "{\"dry_run\":true}");
    assert_int_equal(scene_number(client, "redriven"), 4);
    assert_int_equal(depth(&scene, "delivery_queue.dead"), 4);
    scene_expect(client, 200, "GET", SCENE_SUB "/messages?state=dead", NULL);
    (void)snprintf(request, sizeof request, "{\"id\":\"%s\"}",
                   scene_text(client, "items.0.id", id, sizeof id));
    scene_expect(client, 200, "POST", SCENE_SUB "/redrive", request);
    scene_expect(client, 404, "POST", SCENE_SUB "/redrive", request);
    scene_expect(client, 200, "POST", SCENE_SUB "/redrive", "{\"reason\":\"expired\"}");
    assert_int_equal(scene_number(client, "redriven"), 0);
    scene_expect(client, 200, "POST", SCENE_SUB "/redrive", "{\"reason\":\"rejected\"}");
    assert_int_equal(scene_number(client, "redriven"), 3);
    uint32_t count = 0;
    for (uint32_t more = 1; more > 0; count += more) {
        more = scene_pull(client, "{\"max\":8}", messages + count, 8 - count);
        for (uint32_t i = count; i < count + more; i++) {
            assert_int_equal(messages[i].attempt, 1);
        }
    }
    assert_int_equal(count, 4);
    scene_deinit(&scene);
}

/* A purge drops what it names and nothing else. */
static void test_purge(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        int64_t purged, enqueued, scheduled, dead;
    } cases[] = {
        {"{\"what\":[\"dead\"]}", 2, 3, 1, 0},
        {"{\"what\":[\"enqueued\"]}", 3, 0, 1, 2},
        {"{\"what\":[\"delivery\"]}", 1, 3, 0, 2},
        {"{\"what\":\"all\"}", 6, 0, 0, 0},
    };
    for (size_t i = 0; i < 4; i++) {
        struct scene scene;
        struct scene_message message;
        scene_init_topic(&scene, NULL, NULL);
        arrange_dead(&scene, 6, 2);
        assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 1);
        scene_settle(&scene.client, 200, "nack", message.receipt, ",\"delay\":\"1h\"");
        scene_expect(&scene.client, 200, "POST", SCENE_SUB "/purge", cases[i].what);
        assert_int_equal(scene_number(&scene.client, "purged"), cases[i].purged);
        assert_int_equal(depth(&scene, "enqueue_queue.depth"), cases[i].enqueued);
        assert_int_equal(depth(&scene, "delivery_queue.scheduled"), cases[i].scheduled);
        assert_int_equal(depth(&scene, "delivery_queue.dead"), cases[i].dead);
        scene_deinit(&scene);
    }
}

/* A seek back over what retention keeps gives it all again, also after a restart; one to the end
 * skips the rest. */
static void test_seek(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message messages[10];
    scene_init_topic(&scene, "{\"retention\":{\"age\":\"1h\"}}", NULL);
    arrange_dead(&scene, 10, 0);
    uint32_t count = scene_pull(&scene.client, "{\"max\":10}", messages, 10);
    assert_int_equal(count, 10);
    for (uint32_t i = 0; i < count; i++) {
        scene_settle(&scene.client, 200, "ack", messages[i].receipt, "");
    }
    scene_restart(&scene, false, NULL);
    scene_expect(&scene.client, 200, "POST", SCENE_SUB "/seek",
                 "{\"to\":\"earliest\",\"dry_run\":true}");
    assert_int_equal(scene_number(&scene.client, "moved"), 10);
    assert_int_equal(depth(&scene, "enqueue_queue.depth"), 0);
    scene_expect(&scene.client, 200, "POST", SCENE_SUB "/seek", "{\"to\":\"earliest\"}");
    assert_int_equal(depth(&scene, "enqueue_queue.depth"), 10);
    assert_int_equal(scene_pull(&scene.client, "{\"max\":3}", messages, 10), 3);
    scene_expect(&scene.client, 200, "POST", SCENE_SUB "/seek", "{\"to\":\"latest\"}");
    assert_int_equal(scene_number(&scene.client, "moved"), 7);
    assert_int_equal(depth(&scene, "enqueue_queue.depth"), 0);
    assert_int_equal(depth(&scene, "delivery_queue.leased"), 3);
    scene_deinit(&scene);
}

/* A message that is not finished within its attempts, or not delivered within its time to live, is
 * a dead letter with that reason. */
static void test_dead_letters(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message message;
    char text[32];
    scene_init_topic(&scene, "{\"shards\":1}", "{\"max_attempts\":2}");
    scene_publish(&scene, NULL, "twice");
    for (uint32_t attempt = 1; attempt <= 2; attempt++) {
        assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 1);
        assert_int_equal(message.attempt, attempt);
        scene_settle(&scene.client, 200, "nack", message.receipt, "");
    }
    scene_publish(&scene, "Flare-TTL: 1ms\r\n", "short");
    uint64_t end_us = broker_now_us() + 5000;
    while (broker_now_us() < end_us) {
        assert_int_equal(depth(&scene, "delivery_queue.leased"), 0);
    }
    assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 0);
    scene_expect(&scene.client, 200, "GET", SCENE_SUB "/messages?state=dead", NULL);
    assert_string_equal(scene_text(&scene.client, "items.0.reason", text, sizeof text), "attempts");
    assert_string_equal(scene_text(&scene.client, "items.1.reason", text, sizeof text), "expired");
    scene_deinit(&scene);
}

/* ---- forms ---- */

static void pack_text(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str_with_body(packer, text, strlen(text));
}

static int post_msgpack(struct http_client *client, const char *path, const msgpack_sbuffer *body)
{
    return http_client_request(
        client, &(struct http_client_request){.method = "POST",
                                              .path = path,
                                              .headers = "Content-Type: application/msgpack\r\n"
                                                         "Accept: application/msgpack\r\n",
                                              .body = span_of(body->data, body->size)});
}

static const msgpack_object *find(const msgpack_object *map, const char *name)
{
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *key = &map->via.map.ptr[i].key;
        if (key->via.str.size == strlen(name) &&
            memcmp(key->via.str.ptr, name, strlen(name)) == 0) {
            return &map->via.map.ptr[i].val;
        }
    }
    fail_msg("no %s", name);
    return NULL;
}

/* A body of any bytes goes in and comes out as MessagePack, and as base64 in JSON. */
static void test_msgpack(void **state)
{
    (void)state;
    static const char bytes[] = {0, 1, (char)0xff, (char)0xfe, '\n'};
    struct scene scene;
    msgpack_sbuffer out;
    msgpack_packer packer;
    msgpack_unpacked answer;
    char type[64];
    char text[32];
    scene_init_topic(&scene, NULL, "{\"lease\":\"100ms\"}");
    msgpack_sbuffer_init(&out);
    msgpack_packer_init(&packer, &out, msgpack_sbuffer_write);
    msgpack_pack_map(&packer, 1);
    pack_text(&packer, "messages");
    msgpack_pack_array(&packer, 1);
    msgpack_pack_map(&packer, 1);
    pack_text(&packer, "body");
    msgpack_pack_bin_with_body(&packer, bytes, sizeof bytes);
    assert_int_equal(post_msgpack(&scene.client, SCENE_TOPIC "/batch", &out), 201);
    msgpack_sbuffer_clear(&out);
    msgpack_pack_map(&packer, 1);
    pack_text(&packer, "max");
    msgpack_pack_int(&packer, 5);
    assert_int_equal(post_msgpack(&scene.client, SCENE_SUB "/pull", &out), 200);
    assert_string_equal(http_client_header(&scene.client, "Content-Type", type, sizeof type),
                        "application/msgpack");
    msgpack_unpacked_init(&answer);
    assert_int_equal(msgpack_unpack_next(&answer, scene.client.body, scene.client.body_size, NULL),
                     MSGPACK_UNPACK_SUCCESS);
    const msgpack_object *messages = find(&answer.data, "messages");
    assert_int_equal(messages->via.array.size, 1);
    const msgpack_object *body = find(&messages->via.array.ptr[0], "body");
    assert_int_equal(body->type, MSGPACK_OBJECT_BIN);
    assert_int_equal(body->via.bin.size, sizeof bytes);
    assert_memory_equal(body->via.bin.ptr, bytes, sizeof bytes);
    msgpack_unpacked_destroy(&answer);
    msgpack_sbuffer_destroy(&out);
    scene_expect(&scene.client, 200, "POST", SCENE_SUB "/pull", "{\"wait\":\"5s\"}");
    assert_string_equal(scene_text(&scene.client, "messages.0.body_base64", text, sizeof text),
                        "AAH//go=");
    scene_deinit(&scene);
}

/* A chunked body is one body, however it is cut. */
static void test_chunked_body(void **state)
{
    (void)state;
    static const char request[] = "POST " SCENE_TOPIC "/messages HTTP/1.1\r\nHost: x\r\n"
                                  "Transfer-Encoding: chunked\r\n\r\n"
                                  "4\r\none \r\n1\r\nc\r\n5\r\noffee\r\n0\r\n\r\n";
    struct scene scene;
    struct scene_message message;
    scene_init_topic(&scene, NULL, NULL);
    for (size_t i = 0; i + 1 < sizeof request; i++) {
        assert_true(http_client_send_raw(&scene.client, span_of(request + i, 1)));
    }
    assert_int_equal(http_client_receive(&scene.client), 201);
    assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 1);
    assert_string_equal(message.body, "one coffee");
    scene_deinit(&scene);
}

/* A message one byte over its limit is refused, at its limit it is taken; a request that announces
 * or sends too much is refused without being read to its end. */
static void test_too_large(void **state)
{
    (void)state;
    enum { MESSAGE_MAX = 1 << 20, CHUNK = 1 << 16 };
    struct scene scene;
    char *body = calloc(1, MESSAGE_MAX + 1);
    char chunk[CHUNK + 16];
    char text[32];
    assert_non_null(body);
    scene_init_topic(&scene, NULL, NULL);
    for (size_t extra = 0; extra < 2; extra++) {
        const struct http_client_request request = {.method = "POST",
                                                    .path = SCENE_TOPIC "/messages",
                                                    .body = span_of(body, MESSAGE_MAX + extra)};
        assert_int_equal(http_client_request(&scene.client, &request), extra == 0 ? 201 : 413);
    }
    assert_string_equal(scene_text(&scene.client, "code", text, sizeof text), "too_large");
    http_client_close(&scene.client);
    assert_true(http_client_send_raw(&scene.client, span_text("POST " SCENE_TOPIC
                                                              "/messages HTTP/1.1\r\nHost: x\r\n"
                                                              "Content-Length: 99999999\r\n\r\n")));
    assert_int_equal(http_client_receive(&scene.client), 413);
    http_client_close(&scene.client);
    (void)http_client_send_raw(&scene.client,
                               span_text("POST " SCENE_TOPIC "/messages HTTP/1.1\r\nHost: x\r\n"
                                         "Transfer-Encoding: chunked\r\n\r\n"));
    int size = snprintf(chunk, sizeof chunk, "%x\r\n", CHUNK);
    memset(chunk + size, 'x', CHUNK);
    chunk[size + CHUNK] = '\r';
    chunk[size + CHUNK + 1] = '\n';
    size_t sent = 0;
    while (sent < (size_t)256 << 20 && !http_client_readable(&scene.client, 0) &&
           http_client_send_raw(&scene.client, span_of(chunk, (size_t)size + CHUNK + 2))) {
        sent += CHUNK;
    }
    assert_int_equal(http_client_receive(&scene.client), 413);
    assert_true(sent < (size_t)32 << 20); /* the limit, and what the kernel buffers */
    free(body);
    scene_deinit(&scene);
}

/* ---- looking at the broker ---- */

/* The value of a sample, by its whole name with labels; -1 when it is not there. */
static double sample(struct scene *scene, const char *name)
{
    scene_expect(&scene->client, 200, "GET", "/metrics", NULL);
    const char *at = scene->client.body;
    size_t size = strlen(name);
    while (at != NULL) {
        at += *at == '\n';
        if (strncmp(at, name, size) == 0 && at[size] == ' ') {
            return strtod(at + size, NULL);
        }
        at = strchr(at, '\n');
    }
    return -1;
}

/* /metrics tells what has happened: counts, backlog and age of each subscription, commits and
 * flushes that take some time and not hours. */
static void test_metrics(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message messages[3];
    scene_init_topic(&scene, NULL, NULL);
    arrange_dead(&scene, 6, 1);
    assert_int_equal(scene_pull(&scene.client, "{\"max\":3}", messages, 3), 3);
    scene_settle(&scene.client, 200, "ack", messages[0].receipt, "");
    static const struct {
        const char *name;
        double least, most;
    } samples[] = {
        {"flare_messages_published_total", 6, 6},
        {"flare_messages_published_bytes_total", 6, 6},
        {"flare_messages_delivered_total", 4, 4},
        {"flare_messages_acknowledged_total", 1, 1},
        {"flare_messages_nacked_total", 1, 1},
        {"flare_messages_dead_lettered_total", 1, 1},
        {"flare_subscription_backlog_messages{topic=\"t\",subscription=\"s\"}", 4, 4},
        {"flare_subscription_leased_messages{topic=\"t\",subscription=\"s\"}", 2, 2},
        {"flare_subscription_dead_messages{topic=\"t\",subscription=\"s\"}", 1, 1},
        {"flare_subscription_oldest_unacknowledged_age_seconds{topic=\"t\",subscription=\"s\"}", 0,
         60},
        {"flare_commit_duration_seconds_count", 9, 100},
        {"flare_commit_duration_seconds_sum", 0.000001, 60},
        {"flare_flush_duration_seconds_count", 9, 100},
        {"flare_flush_duration_seconds_sum", 0.000001, 60},
        {"flare_commit_commands_count", 9, 100},
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        double value = sample(&scene, samples[i].name);
        if (value < samples[i].least || value > samples[i].most) {
            fail_msg("%s is %f", samples[i].name, value);
        }
    }
    scene_deinit(&scene);
}

/* The probes, the status and the description of the API answer. */
static void test_looking(void **state)
{
    (void)state;
    struct scene scene;
    char text[64];
    char wire[32];
    scene_init_topic(&scene, NULL, NULL);
    scene_expect(&scene.client, 200, "GET", "/healthz", NULL);
    scene_expect(&scene.client, 200, "GET", "/readyz?verbose", NULL);
    assert_non_null(strstr(scene.client.body, "[+] volume-0 ok\n"));
    assert_non_null(strstr(scene.client.body, "[+] volume-1 ok\n"));
    assert_non_null(strstr(scene.client.body, "[+] catalog ok\n"));
    scene_expect(&scene.client, 200, "GET", "/v1/status", NULL);
    assert_string_equal(scene_text(&scene.client, "state", text, sizeof text), "running");
    assert_int_equal(scene_number(&scene.client, "topics"), 1);
    assert_int_equal(scene_number(&scene.client, "subscriptions"), 1);
    (void)snprintf(wire, sizeof wire, "127.0.0.1:%u", scene.broker.wire_port);
    assert_string_equal(scene_text(&scene.client, "wire", text, sizeof text), wire);
    scene_expect(&scene.client, 200, "GET", "/openapi.json", NULL);
    json_t *description = http_client_document(&scene.client);
    assert_non_null(json_object_get(json_object_get(description, "paths"),
                                    "/v1/topics/{topic}/subscriptions/{subscription}/pull"));
    json_decref(description);
    scene_deinit(&scene);
}

/* The log level changes while it runs. */
static void test_log_level(void **state)
{
    (void)state;
    struct scene scene;
    struct scene_message message;
    scene_init_topic(&scene, NULL, NULL);
    scene_pull(&scene.client, "{\"consumer\":\"quiet-one\"}", &message, 1);
    scene_expect(&scene.client, 200, "PUT", "/v1/log-level", "{\"level\":\"debug\"}");
    scene_pull(&scene.client, "{\"consumer\":\"loud-one\"}", &message, 1);
    scene_expect(&scene.client, 200, "PUT", "/v1/log-level", "{\"level\":\"info\"}");
    scene_pull(&scene.client, "{\"consumer\":\"late-one\"}", &message, 1);
    scene_expect(&scene.client, 400, "PUT", "/v1/log-level", "{\"level\":\"much\"}");
    char *log = broker_log(&scene.broker);
    assert_null(strstr(log, "quiet-one"));
    assert_non_null(strstr(log, "loud-one"));
    assert_null(strstr(log, "late-one"));
    free(log);
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quick_start),
        cmocka_unit_test(test_atomic_batches),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_redrive),
        cmocka_unit_test(test_purge),
        cmocka_unit_test(test_seek),
        cmocka_unit_test(test_dead_letters),
        cmocka_unit_test(test_msgpack),
        cmocka_unit_test(test_chunked_body),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_looking),
        cmocka_unit_test(test_log_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
