#include "tests/sim/trace.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "broker/core/lifecycle.h"

enum { LISTED_MAX = 12 }; /* messages or receipts printed of one command */

/* For the handler of SIGABRT, which an assertion raises: it has no other way to know. */
static const struct trace *current;

static void on_abort(int signal_number)
{
    char line[160];
    int size = snprintf(line, sizeof line,
                        "flare-sim: aborted after command %llu; repeat: flare-sim --seed %llu "
                        "--commands %llu\n",
                        (unsigned long long)current->commands, (unsigned long long)current->seed,
                        (unsigned long long)current->commands_max);
    if (write(STDERR_FILENO, line, (size_t)size) < 0) {
        _exit(1);
    }
    (void)signal(signal_number, SIG_DFL);
}

void trace_begin(struct trace *trace)
{
    current = trace;
    (void)signal(SIGABRT, on_abort);
}

void trace_fail(const struct trace *trace, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr,
            "flare-sim: seed %llu, command %llu, volume %u: ", (unsigned long long)trace->seed,
            (unsigned long long)trace->commands, trace->volume);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\nrepeat: flare-sim --seed %llu --commands %llu --trace\n",
            (unsigned long long)trace->seed, (unsigned long long)trace->commands_max);
    va_end(arguments);
    exit(1);
}

void trace_note(struct trace *trace, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    size_t kept = (size_t)size < sizeof line ? (size_t)size : sizeof line - 1;
    trace->hash = XXH3_64bits_withSeed(line, kept, trace->hash);
    if (trace->verbose) {
        printf("volume %u: %s\n", trace->volume, line);
    }
}

const char *trace_command_name(enum command_type type)
{
    static const char *const names[] = {
#define COMMAND(name, number, doc) [number] = #name,
#include "broker/core/commands.def"
    };
    return names[type];
}

static void print_publish(const struct publish *publish)
{
    printf(" topic %u%s:", publish->topic_id, publish->atomic ? " atomic" : "");
    for (uint32_t index = 0; index < publish->count && index < LISTED_MAX; index++) {
        const struct publish_result *result = &publish->results[index];
        const struct message_in *message = &publish->messages[index];
        if (result->code == ERR_NONE) {
            printf(" %s%u:%llu", result->replayed ? "again " : "", result->shard_id,
                   (unsigned long long)result->sequence);
        } else {
            printf(" %s", err_slug(result->code));
        }
        printf(" (%zu bytes", message->body.size);
        if (message->delay_ms != 0) {
            printf(", delay %llu", (unsigned long long)message->delay_ms);
        }
        if (message->ttl_ms != 0) {
            printf(", ttl %llu", (unsigned long long)message->ttl_ms);
        }
        printf(")");
    }
    printf("%s", publish->count > LISTED_MAX ? " ..." : "");
}

static void print_settle(const struct settle *settle)
{
    printf(" sub %u%s%s:", settle->sub_id, settle->reject ? " reject" : "",
           settle->release ? " release" : "");
    for (uint32_t index = 0; index < settle->count && index < LISTED_MAX; index++) {
        const struct receipt *receipt = &settle->receipts[index];
        printf(" %u:%llu/%u#%u %s", receipt->shard_id, (unsigned long long)receipt->sequence,
               receipt->attempt, receipt->grant, err_slug(settle->results[index]));
    }
    printf("%s", settle->count > LISTED_MAX ? " ..." : "");
}

static void print_seek(const struct seek *seek)
{
    static const char *const names[] = {
        [START_LATEST] = "latest",
        [START_EARLIEST] = "earliest",
        [START_TIME] = "time",
        [START_SEQUENCE] = "sequence",
    };
    printf(" sub %u shard %u to %s %llu%s", seek->sub_id, seek->shard_id, names[seek->to],
           (unsigned long long)seek->value, seek->dry_run ? " (dry)" : "");
}

static void print_redrive(const struct redrive *redrive)
{
    printf(" sub %u shard %u reason %d max %u%s", redrive->sub_id, redrive->shard_id,
           (int)redrive->reason, redrive->max, redrive->dry_run ? " (dry)" : "");
}

static void print_purge(const struct purge *purge)
{
    printf(" sub %u%s%s%s", purge->sub_id, purge->enqueued ? " enqueued" : "",
           purge->delivery ? " delivery" : "", purge->dead ? " dead" : "");
}

static void print_subject(const struct command *command)
{
    switch (command->type) {
    case COMMAND_TOPIC_PUT:
        printf(" topic %u shards %u", command->topic_put.topic_id, command->topic_put.shard_count);
        break;
    case COMMAND_TOPIC_DROP:
        printf(" topic %u", command->topic_drop);
        break;
    case COMMAND_SUB_PUT:
        printf(" sub %u topic %u%s", command->sub_put.sub_id, command->sub_put.topic_id,
               command->sub_put.settings.paused ? " paused" : "");
        break;
    case COMMAND_SUB_DROP:
        printf(" sub %u", command->sub_drop);
        break;
    case COMMAND_PUBLISH:
        print_publish(&command->publish);
        break;
    case COMMAND_PULL:
        printf(" sub %u max %u size %u", command->pull.sub_id, command->pull.max,
               command->pull.size_max);
        break;
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_EXTEND:
        print_settle(&command->settle);
        break;
    case COMMAND_PEEK:
        printf(" sub %u %s from %u:%llu", command->peek.sub_id, lifecycle_name(command->peek.state),
               command->peek.from_shard_id, (unsigned long long)command->peek.from_sequence);
        break;
    case COMMAND_REDRIVE:
        print_redrive(&command->redrive);
        break;
    case COMMAND_PURGE:
        print_purge(&command->purge);
        break;
    case COMMAND_SEEK:
        print_seek(&command->seek);
        break;
    case COMMAND_TICK:
        printf(" budget %u", command->tick.budget);
        break;
    case COMMAND_STATS:
    case COMMAND_CATALOG:
        break;
    }
}

static void print_reply(const struct command *command, const struct reply *reply)
{
    if (reply->code != ERR_NONE) {
        printf(" -> %s", err_slug(reply->code));
    }
    if (command->type == COMMAND_PULL || command->type == COMMAND_PEEK) {
        uint32_t count = reply_delivery_count(reply);
        printf(" -> %u", count);
        for (uint32_t index = 0; index < count && index < LISTED_MAX; index++) {
            const struct delivery *delivery = reply_delivery(reply, index);
            printf(" %u:%llu/%u#%u", delivery->shard_id, (unsigned long long)delivery->sequence,
                   delivery->attempt, delivery->grant);
        }
        printf("%s", count > LISTED_MAX ? " ..." : "");
    } else if (reply->count > 0) {
        printf(" -> %llu", (unsigned long long)reply->count);
    }
    printf("%s\n", reply->more ? " and more" : "");
}

static void hash_bytes(struct trace *trace, const void *data, size_t size)
{
    trace->hash = XXH3_64bits_withSeed(data, size, trace->hash);
}

void trace_command(struct trace *trace, const struct command *command, const struct reply *reply)
{
    trace->commands++;
    const uint64_t words[] = {(uint64_t)command->type, command->now_ms, (uint64_t)reply->code,
                              reply->count, reply->more};
    hash_bytes(trace, words, sizeof words);
    if (reply->items.size > 0) {
        hash_bytes(trace, reply->items.data, reply->items.size);
    }
    if (trace->verbose) {
        printf("%6llu volume %u @%llu %s", (unsigned long long)trace->commands, trace->volume,
               (unsigned long long)command->now_ms, trace_command_name(command->type));
        print_subject(command);
        print_reply(command, reply);
    }
}
