/* The library's blocking functions, each call on a thread of its own, so that others can be made
 * meanwhile. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/interop/driver.h"

struct call {
    struct flare_client *client;
    json_t *command;
    struct reply *reply;
};

static json_t *publish(struct flare_client *client, const json_t *command)
{
    struct message_list list;
    struct flare_error error = {.code = FLARE_OK};
    const char *topic = field_text(command, "topic", "");
    message_list_init(&list, command);
    struct flare_messages messages = {
        .items = list.items, .count = list.count, .atomic = field_true(command, "atomic")};
    struct flare_result *results = calloc(list.count + 1, sizeof *results);
    assert(results != NULL);
    enum flare_code code = list.count == 1 && !messages.atomic
                               ? flare_publish(client, topic, &list.items[0], results, &error)
                               : flare_publish_batch(client, topic, &messages, results, &error);
    json_t *result = result_published(results, list.count);
    if (code != FLARE_OK) {
        json_object_update_new(result, result_make(code, &error));
    }
    free(results);
    message_list_deinit(&list);
    return result;
}

static json_t *pull(struct flare_client *client, const json_t *command)
{
    struct flare_error error = {.code = FLARE_OK};
    struct flare_batch *batch = NULL;
    struct flare_source source = source_decode(command);
    struct flare_pull options = pull_decode(command);
    enum flare_code code = flare_pull(client, &source, &options, &batch, &error);
    json_t *result = code == FLARE_OK ? result_pulled(batch) : result_make(code, &error);
    flare_batch_free(batch);
    return result;
}

static json_t *settle(struct flare_client *client, const json_t *command)
{
    struct flare_error error = {.code = FLARE_OK};
    struct flare_source source = source_decode(command);
    struct flare_settle what = settle_decode(command);
    enum flare_code *codes = calloc(what.count + 1, sizeof *codes);
    assert(codes != NULL);
    enum flare_code code = flare_settle(client, &source, &what, codes, &error);
    json_t *result = code == FLARE_OK || code == FLARE_ERR_LEASE_LOST
                         ? result_settled(codes, what.count)
                         : result_make(code, &error);
    free(codes);
    free((void *)(uintptr_t)what.receipts);
    return result;
}

static void *call_run(void *argument)
{
    struct call *call = argument;
    const char *what = field_text(call->command, "do", "");
    json_t *result = NULL;
    if (strcmp(what, "publish") == 0) {
        result = publish(call->client, call->command);
    } else if (strcmp(what, "pull") == 0) {
        result = pull(call->client, call->command);
    } else {
        result = settle(call->client, call->command);
    }
    reply_complete(call->reply, result);
    free(call);
    return NULL;
}

struct reply *blocking_begin(struct flare_client *client, json_t *command)
{
    pthread_t thread;
    struct call *call = malloc(sizeof *call);
    assert(call != NULL);
    struct reply *reply = reply_create();
    *call = (struct call){.client = client, .command = command, .reply = reply};
    int status = pthread_create(&thread, NULL, call_run, call);
    assert(status == 0);
    pthread_detach(thread);
    return reply;
}
