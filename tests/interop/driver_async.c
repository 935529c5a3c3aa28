/* The library's asynchronous functions. It has none for a batch that the caller puts together: each
 * message is published by itself, and an atomic batch blocks. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/interop/driver.h"

/* A publish of several messages, whose callbacks may come in any order. */
struct publish {
    struct reply *reply;
    pthread_mutex_t lock;
    size_t count;
    size_t pending;
    enum flare_code code; /* of the first failure, and what it says */
    struct flare_error error;
    struct publish_part {
        struct publish *publish;
        struct flare_result result;
    } parts[];
};

static void publish_finish(struct publish *publish)
{
    struct flare_result *results = calloc(publish->count + 1, sizeof *results);
    assert(results != NULL);
    for (size_t index = 0; index < publish->count; index++) {
        results[index] = publish->parts[index].result;
    }
    json_t *result = result_published(results, publish->count);
    if (publish->code != FLARE_OK) {
        json_object_update_new(result, result_make(publish->code, &publish->error));
    }
    free(results);
    reply_complete(publish->reply, result);
    pthread_mutex_destroy(&publish->lock);
    free(publish);
}

/* One part of it has come to its end, or its begin. */
static void publish_release(struct publish *publish, const struct flare_error *error)
{
    pthread_mutex_lock(&publish->lock);
    if (error != NULL && publish->code == FLARE_OK) {
        publish->code = error->code;
        publish->error = *error;
    }
    bool finished = --publish->pending == 0;
    pthread_mutex_unlock(&publish->lock);
    if (finished) {
        publish_finish(publish);
    }
}

static void on_published(void *user, const struct flare_result *result,
                         const struct flare_error *error)
{
    struct publish_part *part = user;
    part->result = *result;
    publish_release(part->publish, error);
}

static void publish_begin(struct flare_client *client, const json_t *command, struct reply *reply)
{
    struct message_list list;
    message_list_init(&list, command);
    struct publish *publish =
        calloc(1, sizeof *publish + (list.count + 1) * sizeof publish->parts[0]);
    assert(publish != NULL);
    pthread_mutex_init(&publish->lock, NULL);
    publish->reply = reply;
    publish->count = list.count;
    publish->pending = list.count + 1;
    for (size_t index = 0; index < list.count; index++) {
        struct publish_part *part = &publish->parts[index];
        struct flare_error error = {.code = FLARE_OK};
        part->publish = publish;
        enum flare_code code = flare_publish_async(client, field_text(command, "topic", ""),
                                                   &list.items[index], on_published, part, &error);
        if (code != FLARE_OK) {
            part->result.code = code;
            publish_release(publish, &error);
        }
    }
    message_list_deinit(&list);
    publish_release(publish, NULL);
}

static void on_pulled(void *user, struct flare_batch *batch, const struct flare_error *error)
{
    reply_complete(user, error == NULL ? result_pulled(batch) : result_make(error->code, error));
    flare_batch_free(batch);
}

static void pull_begin(struct flare_client *client, const json_t *command, struct reply *reply)
{
    struct flare_error error = {.code = FLARE_OK};
    struct flare_source source = source_decode(command);
    struct flare_pull options = pull_decode(command);
    enum flare_code code = flare_pull_async(client, &source, &options, on_pulled, reply, &error);
    if (code != FLARE_OK) {
        reply_complete(reply, result_make(code, &error));
    }
}

static void on_settled(void *user, const enum flare_code *codes, size_t count,
                       const struct flare_error *error)
{
    reply_complete(user,
                   codes != NULL ? result_settled(codes, count) : result_make(error->code, error));
}

static void settle_begin(struct flare_client *client, const json_t *command, struct reply *reply)
{
    struct flare_error error = {.code = FLARE_OK};
    struct flare_source source = source_decode(command);
    struct flare_settle what = settle_decode(command);
    enum flare_code code = flare_settle_async(client, &source, &what, on_settled, reply, &error);
    if (code != FLARE_OK) {
        reply_complete(reply, result_make(code, &error));
    }
    free((void *)(uintptr_t)what.receipts);
}

struct reply *async_begin(struct flare_client *client, json_t *command)
{
    const char *what = field_text(command, "do", "");
    if (field_true(command, "atomic")) {
        return blocking_begin(client, command);
    }
    struct reply *reply = reply_create();
    if (strcmp(what, "publish") == 0) {
        publish_begin(client, command, reply);
    } else if (strcmp(what, "pull") == 0) {
        pull_begin(client, command, reply);
    } else {
        settle_begin(client, command, reply);
    }
    return reply;
}
