/* flare bench core: the core and LMDB in this process, without network or mailboxes.
 *
 * Each volume is a thread that runs rounds: a batch with publishes, pulls and acks of the same
 * number of messages, then the flush. What is counted are state changes that were flushed: a
 * message published, leased or finished is one each. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "broker/base/clock.h"
#include "broker/base/random.h"
#include "broker/core/core.h"
#include "broker/volume/writer.h"
#include "storage/lmdb.h"
#include "tools/flare/bench.h"
#include "tools/flare/progress.h"

enum {
    TOPIC_ID = 1,
    SUB_ID = 1,
    TICK_BUDGET = 4096,
    LEASE_MS = 3600000,
    RESERVE_SIZE = 16 * 1024 * 1024,
    JOURNAL_SIZE = 8 * 1024 * 1024,
    PULL_SIZE_MAX = 16 * 1024 * 1024,
    PATH_SIZE = 512
};

struct core_volume {
    const struct bench_core_settings *settings;
    uint32_t index;
    char path[PATH_SIZE];
    struct clock clock;
    struct store *store;
    struct machine *machine;
    char journal_path[PATH_SIZE];
    struct journal *journal;
    struct writer writer;
    struct reply reply;
    struct effects effects;
    struct random random;
    struct buf body;
    struct message_in *messages;
    struct publish_result *results;
    struct receipt *held; /* leased messages, those from `held_first` on */
    size_t held_first;
    size_t held_count;
    size_t held_capacity;
    struct receipt *settled;
    enum err_code *codes;
    uint32_t shard_next;
    uint64_t published;
    uint64_t pulled;
    uint64_t acked;
    struct histogram *rounds;
    _Atomic uint64_t done; /* state changes, for who watches */
    pthread_t thread;
    bool started;
    err_t err;
};

static void *volume_main(void *user);

/* ---- one command ---- */

static err_t apply(struct core_volume *volume, struct command *command)
{
    command->now_ms = clock_wall_ms(&volume->clock);
    volume->reply.code = ERR_NONE;
    volume->reply.detail[0] = '\0';
    volume->reply.more = false;
    volume->reply.count = 0;
    buf_reset(&volume->reply.items);
    buf_reset(&volume->reply.payload);
    TRY(writer_apply(&volume->writer, command, &volume->reply, &volume->effects));
    if (volume->reply.code != ERR_NONE) {
        return ERR(INTERNAL, "command %d: %s %s", (int)command->type, err_title(volume->reply.code),
                   volume->reply.detail);
    }
    return NULL;
}

static err_t publish_some(struct core_volume *volume, uint32_t count)
{
    const struct bench_core_settings *settings = volume->settings;
    struct command command = {.type = COMMAND_PUBLISH,
                              .publish = {.topic_id = TOPIC_ID,
                                          .messages = volume->messages,
                                          .count = count,
                                          .results = volume->results}};
    for (uint32_t i = 0; i < count; i++) {
        volume->messages[i].shard_id = 1 + volume->shard_next;
        volume->shard_next = (volume->shard_next + 1) % settings->shards;
    }
    TRY(apply(volume, &command));
    for (uint32_t i = 0; i < count; i++) {
        if (volume->results[i].code != ERR_NONE) {
            return ERR(INTERNAL, "publish: %s", err_title(volume->results[i].code));
        }
    }
    volume->published += count;
    return NULL;
}

static err_t hold(struct core_volume *volume, const struct delivery *delivery)
{
    if (volume->held_first + volume->held_count == volume->held_capacity) {
        memmove(volume->held, volume->held + volume->held_first,
                volume->held_count * sizeof *volume->held);
        volume->held_first = 0;
    }
    if (volume->held_count == volume->held_capacity) {
        return ERR(INTERNAL, "more was delivered than was asked for");
    }
    volume->held[volume->held_first + volume->held_count] =
        (struct receipt){.sub_id = SUB_ID,
                         .shard_id = delivery->shard_id,
                         .sequence = delivery->sequence,
                         .epoch = delivery->epoch,
                         .grant = delivery->grant,
                         .attempt = delivery->attempt};
    volume->held_count++;
    return NULL;
}

static err_t pull_some(struct core_volume *volume, uint32_t count)
{
    struct command command = {
        .type = COMMAND_PULL,
        .pull = {.sub_id = SUB_ID,
                 .max = count,
                 .size_max = PULL_SIZE_MAX,
                 .rotation = (uint32_t)random_below(&volume->random, volume->settings->shards)}};
    TRY(apply(volume, &command));
    uint32_t delivered = reply_delivery_count(&volume->reply);
    for (uint32_t i = 0; i < delivered; i++) {
        TRY(hold(volume, reply_delivery(&volume->reply, i)));
    }
    volume->pulled += delivered;
    return NULL;
}

/* Takes the oldest held receipts, or any of them. */
static err_t ack_some(struct core_volume *volume, uint32_t count)
{
    struct command command = {.type = COMMAND_ACK,
                              .settle = {.sub_id = SUB_ID,
                                         .receipts = volume->settled,
                                         .count = count,
                                         .results = volume->codes}};
    for (uint32_t i = 0; i < count; i++) {
        struct receipt *first = &volume->held[volume->held_first];
        if (volume->settings->random_acks) {
            struct receipt *other = first + random_below(&volume->random, volume->held_count);
            struct receipt swap = *first;
            *first = *other;
            *other = swap;
        }
        volume->settled[i] = *first;
        volume->held_first++;
        volume->held_count--;
    }
    TRY(apply(volume, &command));
    for (uint32_t i = 0; i < count; i++) {
        if (volume->codes[i] != ERR_NONE) {
            return ERR(INTERNAL, "ack: %s", err_title(volume->codes[i]));
        }
    }
    volume->acked += count;
    return NULL;
}

/* ---- one round ---- */

/* Runs `step` for `count` messages in commands of at most `command_max`. */
static err_t in_commands(struct core_volume *volume, uint64_t count,
                         err_t (*step)(struct core_volume *volume, uint32_t count))
{
    while (count > 0) {
        uint32_t some = volume->settings->command_max;
        some = count < some ? (uint32_t)count : some;
        TRY(step(volume, some));
        count -= some;
    }
    return NULL;
}

static err_t apply_round(struct core_volume *volume, uint64_t publishes, uint64_t pulls,
                         uint64_t acks)
{
    struct machine *machine = volume->machine;
    uint64_t now_ms = clock_wall_ms(&volume->clock);
    if (machine->ops->next_due_ms(machine) <= now_ms) {
        struct command tick = {.type = COMMAND_TICK, .tick = {.budget = TICK_BUDGET}};
        TRY(apply(volume, &tick));
    }
    TRY(in_commands(volume, publishes, publish_some));
    TRY(in_commands(volume, pulls, pull_some));
    return in_commands(volume, acks < volume->held_count ? acks : volume->held_count, ack_some);
}

/* As a volume writes a batch (broker/volume/volume.c). */
static err_t keep_round(struct core_volume *volume)
{
    TRY(writer_append(&volume->writer));
    TRY(writer_flush(&volume->writer));
    writer_end(&volume->writer);
    if (writer_wants_checkpoint(&volume->writer)) {
        TRY(writer_checkpoint(&volume->writer));
    }
    return writer_uncommitted(&volume->writer) ? NULL : store_reserve(volume->store, RESERVE_SIZE);
}

static err_t run_round(struct core_volume *volume, uint64_t publishes, uint64_t pulls,
                       uint64_t acks)
{
    uint64_t started_us = progress_now_us();
    buf_reset(&volume->effects.woken);
    TRY(writer_begin(&volume->writer));
    TRY(apply_round(volume, publishes, pulls, acks));
    TRY(keep_round(volume));
    histogram_add(volume->rounds, progress_now_us() - started_us);
    return NULL;
}

/* ---- a volume ---- */

static err_t create_subject(struct core_volume *volume)
{
    uint32_t count = volume->settings->shards;
    struct shard_place *places = calloc(count, sizeof *places);
    if (places == NULL) {
        return ERR(MEMORY, "no memory for %u shards", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint64_t width = UINT64_MAX / count;
        places[i] =
            (struct shard_place){.shard_id = 1 + i,
                                 .number = i,
                                 .hash_first = width * i,
                                 .hash_last = i + 1 == count ? UINT64_MAX : width * (i + 1) - 1};
    }
    struct command topic = {
        .type = COMMAND_TOPIC_PUT,
        .topic_put = {.topic_id = TOPIC_ID, .shards = places, .shard_count = count}};
    struct command sub = {
        .type = COMMAND_SUB_PUT,
        .sub_put = {.sub_id = SUB_ID, .topic_id = TOPIC_ID, .settings = {.lease_ms = LEASE_MS}}};
    err_t err = NULL;
    TRY_OUT(writer_begin(&volume->writer));
    TRY_OUT(apply(volume, &topic));
    TRY_OUT(apply(volume, &sub));
    TRY_OUT(keep_round(volume));
out:
    free(places);
    return err;
}

static err_t allocate(struct core_volume *volume)
{
    const struct bench_core_settings *settings = volume->settings;
    uint32_t max = settings->command_max;
    volume->held_capacity = 2 * (settings->in_flight + settings->batch) + max;
    volume->messages = calloc(max, sizeof *volume->messages);
    volume->results = calloc(max, sizeof *volume->results);
    volume->settled = calloc(max, sizeof *volume->settled);
    volume->codes = calloc(max, sizeof *volume->codes);
    volume->held = calloc(volume->held_capacity, sizeof *volume->held);
    volume->rounds = calloc(1, sizeof *volume->rounds);
    bench_fill(&volume->body, settings->size);
    if (volume->messages == NULL || volume->results == NULL || volume->settled == NULL ||
        volume->codes == NULL || volume->held == NULL || volume->rounds == NULL ||
        volume->body.failed) {
        return ERR(MEMORY, "no memory for a volume");
    }
    for (uint32_t i = 0; i < max; i++) {
        volume->messages[i].body = buf_span(&volume->body);
        volume->messages[i].payload_hash = XXH3_64bits(volume->body.data, volume->body.size);
    }
    return NULL;
}

static err_t open_writer(struct core_volume *volume)
{
    const struct journal_options options = {.path = volume->journal_path, .size = JOURNAL_SIZE};
    if (!volume->settings->no_journal) {
        TRY(journal_create(&options));
        TRY(journal_open(&options, &volume->journal));
    }
    writer_init(&volume->writer, volume->store, volume->machine, volume->journal,
                &(struct writer_options){.name = "bench", .reserve = RESERVE_SIZE});
    return writer_open(&volume->writer);
}

/* Before another thread goes on: a write transaction of LMDB belongs to the one that began it. */
static err_t hand_over(struct core_volume *volume)
{
    return writer_uncommitted(&volume->writer) ? writer_checkpoint(&volume->writer) : NULL;
}

static err_t open_volume(struct core_volume *volume, const struct bench_core_settings *settings,
                         uint32_t index, const char *directory)
{
    volume->settings = settings;
    volume->index = index;
    clock_init_real(&volume->clock);
    random_init(&volume->random, 1 + index);
    buf_init(&volume->body, 1 << 24);
    buf_init(&volume->effects.woken, 1 << 24);
    reply_init(&volume->reply);
    (void)snprintf(volume->path, sizeof volume->path, "%s/volume-%u.mdb", directory, index);
    (void)snprintf(volume->journal_path, sizeof volume->journal_path, "%s/volume-%u.journal",
                   directory, index);
    const struct lmdb_options options = {.path = volume->path,
                                         .create = true,
                                         .role = "volume",
                                         .number = index,
                                         .node_identity = random_seed()};
    TRY(allocate(volume));
    TRY(lmdb_store_open(&options, &volume->store));
    TRY(core_create(&(struct core_options){0}, &volume->machine));
    TRY(open_writer(volume));
    TRY(create_subject(volume));
    /* What is in flight all the time; not measured. */
    while (volume->held_count < settings->in_flight) {
        TRY(run_round(volume, settings->batch, settings->batch, 0));
    }
    TRY(hand_over(volume));
    memset(volume->rounds, 0, sizeof *volume->rounds);
    volume->published = volume->pulled = volume->acked = 0;
    return NULL;
}

static void close_volume(struct core_volume *volume)
{
    char lock_path[PATH_SIZE + 8];
    if (volume->writer.machine != NULL) {
        writer_deinit(&volume->writer);
    }
    if (volume->machine != NULL) {
        volume->machine->ops->destroy(volume->machine);
    }
    store_close(volume->store);
    journal_close(volume->journal);
    (void)unlink(volume->journal_path);
    (void)snprintf(lock_path, sizeof lock_path, "%s-lock", volume->path);
    (void)unlink(volume->path);
    (void)unlink(lock_path);
    reply_deinit(&volume->reply);
    buf_deinit(&volume->effects.woken);
    buf_deinit(&volume->body);
    free(volume->messages);
    free(volume->results);
    free(volume->settled);
    free(volume->codes);
    free(volume->held);
    free(volume->rounds);
}

static err_t run_volume(struct core_volume *volume)
{
    const struct bench_core_settings *settings = volume->settings;
    uint64_t each = settings->batch / 3;
    uint64_t wanted = settings->count / settings->volumes;
    while (volume->published + volume->pulled + volume->acked < wanted) {
        TRY(run_round(volume, each, each, each));
        atomic_store_explicit(&volume->done, volume->published + volume->pulled + volume->acked,
                              memory_order_relaxed);
    }
    return NULL;
}

static void *volume_main(void *user)
{
    struct core_volume *volume = user;
    volume->err = run_volume(volume);
    if (volume->err == NULL) {
        volume->err = hand_over(volume);
    }
    if (volume->err != NULL) {
        writer_drop(&volume->writer);
    }
    return NULL;
}

/* Afterwards everything that is left is pulled and finished: as many as were published, no more. */
static err_t check_volume_drains(struct core_volume *volume, uint64_t held_before)
{
    uint64_t before = 0;
    do {
        before = volume->acked;
        TRY(run_round(volume, 0, volume->settings->batch, volume->settings->batch));
    } while (volume->acked > before);
    if (volume->acked != volume->published + held_before) {
        return ERR(INTERNAL, "%llu messages were published and %llu finished",
                   (unsigned long long)(volume->published + held_before),
                   (unsigned long long)volume->acked);
    }
    return NULL;
}

/* ---- the whole ---- */

/* Waits for a volume's end, showing meanwhile how far all of them are. */
static void join_volume(struct core_volume *volumes, uint32_t count, uint32_t index,
                        struct progress *progress)
{
    while (!progress_join(volumes[index].thread)) {
        uint64_t done = 0;
        for (uint32_t i = 0; i < count; i++) {
            done += atomic_load_explicit(&volumes[i].done, memory_order_relaxed);
        }
        progress_step(progress, done);
    }
}

static err_t run_threads(struct core_volume *volumes, uint32_t count, struct progress *progress)
{
    err_t err = NULL;
    for (uint32_t i = 0; i < count && err == NULL; i++) {
        int rc = pthread_create(&volumes[i].thread, NULL, volume_main, &volumes[i]);
        volumes[i].started = rc == 0;
        err = rc == 0 ? NULL : ERR(MEMORY, "start a thread: %s", strerror(rc));
    }
    for (uint32_t i = 0; i < count; i++) {
        if (volumes[i].started) {
            join_volume(volumes, count, i, progress);
        }
        if (err == NULL) {
            err = volumes[i].err;
        } else {
            err_free(volumes[i].err);
        }
    }
    return err;
}

static void collect(struct core_volume *volumes, uint32_t count, struct bench_core_result *out)
{
    for (uint32_t i = 0; i < count; i++) {
        struct store_stats stats;
        store_stats(volumes[i].store, &stats);
        out->changes += volumes[i].published + volumes[i].pulled + volumes[i].acked;
        out->used_size += stats.used_size;
        out->file_size += stats.file_size;
        histogram_merge(&out->commits, volumes[i].rounds);
    }
}

err_t bench_core_run(const struct bench_core_settings *settings, struct bench_core_result *out)
{
    char directory[PATH_SIZE / 2];
    uint64_t held[BENCH_VOLUMES_MAX] = {0};
    struct core_volume volumes[BENCH_VOLUMES_MAX] = {0};
    uint32_t opened = 0;
    err_t err = NULL;
    memset(out, 0, sizeof *out);
    (void)snprintf(directory, sizeof directory, "%s/flare-bench-core.XXXXXX", settings->directory);
    if (mkdtemp(directory) == NULL) {
        return ERR(IO, "make a directory in %s: %s", settings->directory, strerror(errno));
    }
    while (opened < settings->volumes) {
        opened++;
        TRY_OUT(open_volume(&volumes[opened - 1], settings, opened - 1, directory));
        held[opened - 1] = volumes[opened - 1].held_count;
    }
    uint64_t started_us = progress_now_us();
    TRY_OUT(run_threads(volumes, opened, settings->progress));
    out->duration_us = progress_now_us() - started_us;
    collect(volumes, opened, out);
    for (uint32_t i = 0; i < opened; i++) {
        TRY_OUT(check_volume_drains(&volumes[i], held[i]));
    }
out:
    for (uint32_t i = 0; i < opened; i++) {
        close_volume(&volumes[i]);
    }
    (void)rmdir(directory);
    return err;
}
