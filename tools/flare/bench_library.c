/* The same work through libflare, as a program does it: what the library costs shows beside the
 * prepared frames of bench_wire.c.
 *
 * Publishing is a closed loop: each slot publishes its next message from the callback of the last
 * one. Consuming is a stream on each connection whose handler acknowledges at once. */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/flare/bench.h"
#include "tools/flare/bench_seen.h"
#include "tools/flare/link.h"

enum { TICK_MS = 1, PREFETCH_MAX = 100000 };

struct library_bench {
    const struct bench_settings *settings;
    struct cli *cli;
    struct flare_message message;
    _Atomic int64_t unsent;
    _Atomic uint64_t answered;
    _Atomic bool failed;
    pthread_mutex_t lock;     /* of what follows */
    struct flare_error error; /* the first one; code 0: none */
    struct bench_seen seen;
    err_t seen_err;
};

struct library_slot {
    struct library_conn *conn;
    uint64_t sent_us;
};

struct library_conn {
    struct library_bench *bench;
    struct flare_client *client;
    struct flare_stream *stream;
    struct library_slot *slots;
    struct histogram *latencies; /* of its own thread */
};

static void note_error(struct library_bench *bench, const struct flare_error *error)
{
    (void)pthread_mutex_lock(&bench->lock);
    if (bench->error.code == FLARE_OK) {
        bench->error = *error;
    }
    (void)pthread_mutex_unlock(&bench->lock);
    atomic_store(&bench->failed, true);
}

/* ---- connections ---- */

static void close_conns(struct library_conn *conns, uint32_t count)
{
    for (uint32_t i = 0; conns != NULL && i < count; i++) {
        flare_stream_close(conns[i].stream);
        flare_close(conns[i].client);
        free(conns[i].slots);
        free(conns[i].latencies);
    }
    free(conns);
}

static err_t open_conns(struct library_bench *bench, struct library_conn **out)
{
    const struct bench_settings *settings = bench->settings;
    const struct link_options options = {.batch = settings->library_batch};
    char address[sizeof settings->host + sizeof settings->port + 4];
    err_t err = NULL;
    struct library_conn *conns = calloc(settings->connections, sizeof *conns);
    const char *format = strchr(settings->host, ':') != NULL ? "[%s]:%s" : "%s:%s";
    (void)snprintf(address, sizeof address, format, settings->host, settings->port);
    for (uint32_t i = 0; conns != NULL && i < settings->connections && err == NULL; i++) {
        conns[i].bench = bench;
        conns[i].slots = calloc(settings->outstanding, sizeof *conns[i].slots);
        conns[i].latencies = calloc(1, sizeof *conns[i].latencies);
        err = conns[i].slots == NULL || conns[i].latencies == NULL
                  ? ERR(MEMORY, "no memory for %u connections", settings->connections)
                  : link_open(bench->cli, address, &options, &conns[i].client);
    }
    if (conns == NULL) {
        return ERR(MEMORY, "no memory for %u connections", settings->connections);
    }
    if (err != NULL) {
        close_conns(conns, settings->connections);
        return err;
    }
    *out = conns;
    return NULL;
}

/* Until `count` says that all is done; an error when something failed or nothing happens. */
static err_t wait_until(struct library_bench *bench, uint64_t wanted,
                        uint64_t (*count)(struct library_bench *bench, struct library_conn *conns),
                        struct library_conn *conns)
{
    uint64_t last = 0;
    uint64_t moved_us = progress_now_us();
    for (;;) {
        const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
        uint64_t done = count(bench, conns);
        if (atomic_load(&bench->failed)) {
            (void)pthread_mutex_lock(&bench->lock);
            struct flare_error error = bench->error;
            (void)pthread_mutex_unlock(&bench->lock);
            return link_error(bench->cli, error.code, &error);
        }
        if (done >= wanted) {
            return NULL;
        }
        progress_step(bench->settings->progress, done);
        if (done != last) {
            last = done;
            moved_us = progress_now_us();
        } else if (progress_now_us() - moved_us > bench->settings->timeout_ms * 1000) {
            return ERR(TIMEOUT, "no answer for %llu ms",
                       (unsigned long long)bench->settings->timeout_ms);
        }
        (void)nanosleep(&tick, NULL);
    }
}

/* ---- publish ---- */

static void library_on_published(void *user, const struct flare_result *result,
                                 const struct flare_error *error);

static void send_next(struct library_slot *slot)
{
    struct library_bench *bench = slot->conn->bench;
    struct flare_error error;
    if (atomic_fetch_sub(&bench->unsent, 1) <= 0) {
        return;
    }
    slot->sent_us = progress_now_us();
    if (flare_publish_async(slot->conn->client, bench->settings->topic, &bench->message,
                            library_on_published, slot, &error) != FLARE_OK) {
        note_error(bench, &error);
    }
}

static void library_on_published(void *user, const struct flare_result *result,
                                 const struct flare_error *error)
{
    struct library_slot *slot = user;
    (void)result;
    if (error != NULL) {
        note_error(slot->conn->bench, error);
        return;
    }
    histogram_add(slot->conn->latencies, progress_now_us() - slot->sent_us);
    atomic_fetch_add(&slot->conn->bench->answered, 1);
    send_next(slot);
}

static uint64_t count_answered(struct library_bench *bench, struct library_conn *conns)
{
    (void)conns;
    return atomic_load(&bench->answered);
}

static err_t publish_all(struct library_bench *bench, struct library_conn *conns)
{
    const struct bench_settings *settings = bench->settings;
    for (uint32_t slot = 0; slot < settings->outstanding; slot++) {
        for (uint32_t i = 0; i < settings->connections; i++) {
            conns[i].slots[slot].conn = &conns[i];
            send_next(&conns[i].slots[slot]);
        }
    }
    return wait_until(bench, settings->count, count_answered, conns);
}

/* ---- consume ---- */

static enum flare_verdict library_on_delivery(void *user, const struct flare_delivery *delivery)
{
    struct library_conn *conn = user;
    struct library_bench *bench = conn->bench;
    (void)pthread_mutex_lock(&bench->lock);
    if (bench->seen_err == NULL) {
        bench->seen_err = bench_seen_mark(&bench->seen, delivery->shard, delivery->sequence);
    }
    (void)pthread_mutex_unlock(&bench->lock);
    return FLARE_ACK;
}

static void library_on_end(void *user, const struct flare_error *error)
{
    struct library_conn *conn = user;
    note_error(conn->bench, error);
}

static uint64_t count_acked(struct library_bench *bench, struct library_conn *conns)
{
    uint64_t acked = 0;
    for (uint32_t i = 0; i < bench->settings->connections; i++) {
        struct flare_stream_counts counts;
        flare_stream_get_counts(conns[i].stream, &counts);
        acked += counts.acked;
    }
    return acked;
}

static err_t consume_all(struct library_bench *bench, struct library_conn *conns)
{
    const struct bench_settings *settings = bench->settings;
    const struct flare_source source = {settings->topic, "bench"};
    for (uint32_t i = 0; i < settings->connections; i++) {
        struct flare_error error;
        const struct flare_stream_options options = {.handler = library_on_delivery,
                                                     .user = &conns[i],
                                                     .prefetch = settings->outstanding - 1,
                                                     .on_end = library_on_end};
        TRY(link_error(
            bench->cli,
            flare_stream_open(conns[i].client, &source, &options, &conns[i].stream, &error),
            &error));
    }
    TRY(wait_until(bench, settings->count, count_acked, conns));
    (void)pthread_mutex_lock(&bench->lock);
    err_t err = bench->seen_err;
    bench->seen_err = NULL;
    (void)pthread_mutex_unlock(&bench->lock);
    return err != NULL ? err : bench_seen_check(&bench->seen);
}

/* ---- both ---- */

static err_t run_library(struct library_bench *bench,
                         err_t (*work)(struct library_bench *bench, struct library_conn *conns),
                         struct load_result *out)
{
    struct library_conn *conns = NULL;
    TRY(open_conns(bench, &conns));
    memset(out, 0, sizeof *out);
    uint64_t cpu_before_us = load_cpu_us();
    uint64_t started_us = progress_now_us();
    err_t err = work(bench, conns);
    out->duration_us = progress_now_us() - started_us;
    out->cpu_us = load_cpu_us() - cpu_before_us;
    for (uint32_t i = 0; i < bench->settings->connections; i++) {
        flare_stream_close(conns[i].stream);
        conns[i].stream = NULL;
        flare_close(conns[i].client); /* then its thread writes no more figures */
        conns[i].client = NULL;
        histogram_merge(&out->latencies[0], conns[i].latencies);
    }
    close_conns(conns, bench->settings->connections);
    return err;
}

err_t bench_library_publish_run(struct cli *cli, const struct bench_settings *settings,
                                struct load_result *out)
{
    struct library_bench bench = {.settings = settings, .cli = cli};
    struct buf body;
    buf_init(&body, (size_t)settings->size + 1);
    bench_fill(&body, settings->size);
    bench.message = (struct flare_message){.body = body.data, .body_size = body.size};
    atomic_store(&bench.unsent, (int64_t)settings->count);
    (void)pthread_mutex_init(&bench.lock, NULL);
    err_t err = run_library(&bench, publish_all, out);
    (void)pthread_mutex_destroy(&bench.lock);
    buf_deinit(&body);
    return err;
}

err_t bench_library_consume_run(struct cli *cli, const struct bench_settings *settings,
                                struct load_result *out)
{
    struct library_bench bench = {.settings = settings, .cli = cli};
    assert(settings->outstanding <= PREFETCH_MAX);
    (void)pthread_mutex_init(&bench.lock, NULL);
    err_t err = bench_seen_init(&bench.seen, settings->shards);
    if (err == NULL) {
        err = run_library(&bench, consume_all, out);
    }
    err_free(bench.seen_err);
    bench_seen_deinit(&bench.seen);
    (void)pthread_mutex_destroy(&bench.lock);
    return err;
}
