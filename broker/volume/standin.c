#include "broker/volume/standin.h"

#include <stdlib.h>

/* One block of memory: this, the messages, their results and places, and the bytes. */
struct standin {
    struct call call;
    struct publish_result *answered;
    struct message_in *messages;
};

static struct standin *standin_of(const struct call *call)
{
    return container_of(call, struct standin, call);
}

static bool is_kept(const struct publish_result *result)
{
    return result->code == ERR_NONE && !result->replayed;
}

static size_t message_size(const struct message_in *message)
{
    return message->key.size + message->attributes.size + message->body.size +
           message->idempotency_key.size;
}

static struct span copy_part(struct span part, uint8_t **at)
{
    struct span copy = span_of(*at, part.size);
    if (part.size > 0) {
        memcpy(*at, part.data, part.size);
    }
    *at += part.size;
    return copy;
}

static void copy_message(struct message_in *to, const struct message_in *from, uint8_t **at)
{
    *to = *from;
    to->key = copy_part(from->key, at);
    to->attributes = copy_part(from->attributes, at);
    to->body = copy_part(from->body, at);
    to->idempotency_key = copy_part(from->idempotency_key, at);
}

bool standin_create(const struct call *publish, struct call **out)
{
    const struct publish *from = &publish->command.publish;
    struct standin *standin;
    size_t size = from->batch_key.size;
    uint32_t count = 0;
    for (uint32_t index = 0; index < from->count; index++) {
        bool kept = is_kept(&from->results[index]);
        size += kept ? message_size(&from->messages[index]) : 0;
        count += kept;
    }
    *out = NULL;
    if (count == 0) {
        return true;
    }
    if (from->batch_key.size > 0 && count < from->count) {
        return false; /* a batch is remembered by all of its messages */
    }
    standin = calloc(1, sizeof *standin + size +
                            count * (sizeof *standin->messages + 2 * sizeof *standin->answered));
    if (standin == NULL) {
        return false;
    }
    standin->messages = (void *)(standin + 1);
    standin->answered = (void *)(standin->messages + count);
    struct publish_result *results = standin->answered + count;
    uint8_t *at = (void *)(results + count);
    count = 0;
    for (uint32_t index = 0; index < from->count; index++) {
        if (is_kept(&from->results[index])) {
            standin->answered[count] = from->results[index];
            copy_message(&standin->messages[count++], &from->messages[index], &at);
        }
    }
    reply_init(&standin->call.reply);
    standin->call.size = publish->size;
    standin->call.command = (struct command){
        .type = COMMAND_PUBLISH,
        .publish = {.topic_id = from->topic_id,
                    .batch_key = copy_part(from->batch_key, &at),
                    .messages = standin->messages,
                    .count = count,
                    .results = results},
    };
    *out = &standin->call;
    return true;
}

void standin_destroy(struct call *call)
{
    reply_deinit(&call->reply);
    free(standin_of(call));
}

bool standin_is(const struct call *call)
{
    return call->reply_to == NULL;
}

bool standin_holds(const struct call *call)
{
    const struct publish *publish = &call->command.publish;
    const struct publish_result *answered = standin_of(call)->answered;
    for (uint32_t index = 0; index < publish->count; index++) {
        const struct publish_result *result = &publish->results[index];
        bool gone = result->code == ERR_NOT_FOUND;
        if (!gone && (!is_kept(result) || result->sequence != answered[index].sequence)) {
            return false;
        }
    }
    return true;
}
