#define _GNU_SOURCE
#include "tests/lib/scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_HEADER "Content-Type: application/json\r\n"

void scene_start(struct scene *scene, const char *const *arguments)
{
    broker_start(&scene->broker,
                 &(struct broker_options){.data = scene->data, .arguments = arguments});
    http_client_init(&scene->client, scene->broker.port);
}

void scene_init(struct scene *scene, const char *const *arguments)
{
    memset(scene, 0, sizeof *scene);
    tmpdir_init(&scene->tmpdir);
    tmpdir_file(&scene->tmpdir, "data", scene->data);
    scene_start(scene, arguments);
}

void scene_init_topic(struct scene *scene, const char *topic, const char *sub)
{
    scene_init(scene, NULL);
    scene_expect(&scene->client, 201, "PUT", SCENE_TOPIC, topic);
    scene_expect(&scene->client, 201, "PUT", SCENE_SUB, sub);
}

static void end(struct scene *scene)
{
    http_client_deinit(&scene->client);
    broker_stop(&scene->broker);
}

void scene_deinit(struct scene *scene)
{
    end(scene);
    tmpdir_deinit(&scene->tmpdir);
}

void scene_restart(struct scene *scene, bool kill, const char *const *arguments)
{
    if (kill) {
        broker_kill(&scene->broker);
    } else {
        assert_int_equal(broker_terminate(&scene->broker, NULL), 0);
    }
    end(scene);
    scene_start(scene, arguments);
}

void scene_expect(struct http_client *client, int status, const char *method, const char *path,
                  const char *body)
{
    int got = body == NULL ? http_client_do(client, method, path)
                           : http_client_json(client, method, path, "%s", body);
    if (got != status) {
        fail_msg("%s %s: %d instead of %d: %.500s", method, path, got, status, client->body);
    }
}

/* A new reference to a member. */
static json_t *member(const struct http_client *client, const char *names)
{
    json_t *document = http_client_document(client);
    json_t *at = document;
    while (at != NULL && *names != '\0') {
        char name[64];
        size_t size = strcspn(names, ".");
        (void)snprintf(name, sizeof name, "%.*s", (int)size, names);
        at = json_is_array(at) ? json_array_get(at, strtoul(name, NULL, 10))
                               : json_object_get(at, name);
        names += size + (names[size] == '.');
    }
    json_incref(at);
    json_decref(document);
    return at;
}

int64_t scene_number(const struct http_client *client, const char *names)
{
    json_t *value = member(client, names);
    if (!json_is_integer(value)) {
        fail_msg("no number %s in %.500s", names, client->body);
    }
    int64_t number = json_integer_value(value);
    json_decref(value);
    return number;
}

char *scene_text(const struct http_client *client, const char *names, char *out, size_t size)
{
    json_t *value = member(client, names);
    if (!json_is_string(value)) {
        fail_msg("no text %s in %.500s", names, client->body);
    }
    (void)snprintf(out, size, "%s", json_string_value(value));
    json_decref(value);
    return out;
}

void scene_publish(struct scene *scene, const char *headers, const char *body)
{
    int status = http_client_request(&scene->client,
                                     &(struct http_client_request){.method = "POST",
                                                                   .path = SCENE_TOPIC "/messages",
                                                                   .headers = headers,
                                                                   .body = span_text(body)});
    if (status != 201) {
        fail_msg("publish: %d %.500s", status, scene->client.body);
    }
}

uint32_t scene_pulled(const struct http_client *client, struct scene_message *out, uint32_t max)
{
    json_t *answer = http_client_document(client);
    const json_t *messages = json_object_get(answer, "messages");
    uint32_t count = (uint32_t)json_array_size(messages);
    assert_true(count <= max);
    for (uint32_t i = 0; i < count; i++) {
        const json_t *message = json_array_get(messages, i);
        struct scene_message *to = &out[i];
        const char *body = json_string_value(json_object_get(message, "body"));
        to->shard = (uint32_t)json_integer_value(json_object_get(message, "shard"));
        to->attempt = (uint32_t)json_integer_value(json_object_get(message, "attempt"));
        to->sequence = (uint64_t)json_integer_value(json_object_get(message, "sequence"));
        to->lease_until_ms =
            (uint64_t)json_integer_value(json_object_get(message, "lease_until_ms"));
        (void)snprintf(to->id, sizeof to->id, "%s",
                       json_string_value(json_object_get(message, "id")));
        (void)snprintf(to->receipt, sizeof to->receipt, "%s",
                       json_string_value(json_object_get(message, "receipt")));
        (void)snprintf(to->body, sizeof to->body, "%s", body == NULL ? "" : body);
    }
    json_decref(answer);
    return count;
}

uint32_t scene_pull(struct http_client *client, const char *request, struct scene_message *out,
                    uint32_t max)
{
    scene_expect(client, 200, "POST", SCENE_SUB "/pull", request);
    return scene_pulled(client, out, max);
}

void scene_settle(struct http_client *client, int status, const char *verb, const char *receipt,
                  const char *members)
{
    char path[128];
    char body[1024];
    (void)snprintf(path, sizeof path, SCENE_SUB "/%s", verb);
    (void)snprintf(body, sizeof body, "{\"receipts\":[\"%s\"]%s}", receipt, members);
    scene_expect(client, status, "POST", path, body);
}

void scene_wait(struct http_client *client, const char *request)
{
    assert_true(
        http_client_send(client, &(struct http_client_request){.method = "POST",
                                                               .path = SCENE_SUB "/pull",
                                                               .headers = JSON_HEADER,
                                                               .body = span_text(request)}));
}

void scene_until_waiting(struct scene *scene, int64_t count)
{
    uint64_t end_us = broker_now_us() + BROKER_TIMEOUT_MS * UINT64_C(1000);
    int64_t waiting = -1;
    while (waiting != count && broker_now_us() < end_us) {
        scene_expect(&scene->client, 200, "GET", "/v1/status", NULL);
        waiting = scene_number(&scene->client, "waiting_pulls");
    }
    assert_int_equal(waiting, count);
}
