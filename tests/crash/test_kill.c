/* kill -9 of the real broker under load, over and over: what was acknowledged is kept, what was
 * finished stays finished, and nothing else happens.
 *
 * Publishers and consumers work on one topic with two subscriptions over two volumes; each knows
 * what it was told. The broker is killed after a random number of their requests, at any point of a
 * commit, and started again; some kills come before it was ready. Every answer is checked against
 * what was said before:
 *  - a message whose publish was confirmed reaches both subscriptions;
 *  - one whose ack was confirmed never comes back to that subscription;
 *  - one that is leased comes again only after the lease has ended or it was given back, and with a
 *    greater attempt; a kill may undo a lease whose pull was answered before its flush, and then it
 *    comes again with the same attempt, but only while no later answer has shown the flush;
 *  - a message has one id for ever, also when its publish is repeated under its idempotency key.
 *
 * FLARE_SEED replays the choices (not the timing), FLARE_KILL_CYCLES asks for more kills. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "broker/base/random.h"
#include "tests/lib/broker.h"
#include "tests/lib/deadline.h"

enum {
    CYCLES = 200,
    SUBS = 2,
    CONSUMERS = 4, /* the even ones on the first subscription */
    BATCH = 20,
    PULL = 30,
    MESSAGES_MAX = 2000000,
    UNFINISHED_MAX = 2000, /* publishers wait for consumers beyond this */
    REQUESTS_MAX = 500,    /* between two kills */
    LEASE_MS = 1000,
    NACK_DELAY_MAX_MS = 50,
    DRAIN_WAIT_MS = LEASE_MS + NACK_DELAY_MAX_MS + 500,
    PROGRESS_MS = 30000,
    ID_SIZE = 25,
    BODY_MAX = 100100,
};

#define TOPIC "/v1/topics/work"

static const char *const sub_names[SUBS] = {"first", "second"};

/* ---- what is known ---- */

/* Of one message in one subscription. */
struct reading {
    bool delivered;
    bool acked;          /* confirmed */
    bool ack_sent;       /* at least once */
    bool given_back;     /* a nack of the last delivery was sent */
    bool firm;           /* the last delivery is known to be flushed */
    uint32_t attempt;    /* of the last delivery */
    uint32_t generation; /* of the broker that made it */
    uint64_t lease_until_ms;
};

struct message {
    bool confirmed;
    char id[ID_SIZE]; /* once known */
    struct reading readings[SUBS];
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t seed;
    struct message *messages;
    uint32_t count; /* numbers given out */
    uint64_t finished[SUBS];
    uint64_t requests;   /* answered */
    uint32_t generation; /* of the broker; 0: it is down */
    uint32_t starts;
    uint16_t port;
    bool stopping; /* publishers end */
    bool draining; /* consumers finish all and end */
    uint64_t violations;
    uint64_t confirmed;
    uint64_t replayed;
    uint64_t redelivered;
    uint64_t undone; /* leases that a kill undid */
    uint64_t late;   /* deliveries looked at after a later one */
    uint64_t lease_lost;
    uint64_t unknown; /* requests whose answer was lost */
} run = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void violation(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "seed %lu, start %u: ", run.seed, run.starts);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    __atomic_fetch_add(&run.violations, 1, __ATOMIC_RELAXED);
}

/* The body of a message is a function of its number: mostly small, some over several rows of the
 * log. */
static size_t body_of(uint32_t number, char body[BODY_MAX])
{
    uint32_t mixed = number * 2654435761U;
    size_t filler = mixed >> 25;
    filler = number % 50 == 7 ? filler * 70 : filler;
    filler = number % 997 == 5 ? 100000 : filler;
    size_t size = (size_t)snprintf(body, BODY_MAX, "%u:", number);
    memset(body + size, 'a' + (int)(number % 26), filler);
    body[size + filler] = '\0';
    return size + filler;
}

/* Whether a confirmed or delivered id is the one the message has; the first one is it. */
static void learn_id(uint32_t number, const char *id)
{
    struct message *message = &run.messages[number];
    if (id == NULL) {
        violation("message %u: no id", number);
    } else if (message->id[0] == '\0') {
        (void)snprintf(message->id, sizeof message->id, "%s", id);
    } else if (strcmp(message->id, id) != 0) {
        violation("message %u has id %s, and now %s", number, message->id, id);
    }
}

static void confirm(uint32_t number, const char *id)
{
    learn_id(number, id);
    run.confirmed += !run.messages[number].confirmed;
    run.messages[number].confirmed = true;
}

/* ---- a worker: one thread with one connection ---- */

struct worker {
    pthread_t thread;
    unsigned index;
    uint32_t generation;
    struct random random;
    struct http_client client;
};

/* Waits for a broker that this worker has not seen fail. */
static void worker_connect(struct worker *worker)
{
    pthread_mutex_lock(&run.lock);
    run.unknown++;
    while (run.generation == 0 || run.generation == worker->generation) {
        pthread_cond_wait(&run.changed, &run.lock);
    }
    worker->generation = run.generation;
    http_client_close(&worker->client);
    worker->client.port = run.port;
    pthread_mutex_unlock(&run.lock);
}

/* 0: the answer is lost, and there is a new broker now. */
static int worker_request(struct worker *worker, const struct http_client_request *request)
{
    int status = http_client_request(&worker->client, request);
    if (status == 0) {
        worker_connect(worker);
        return 0;
    }
    pthread_mutex_lock(&run.lock);
    run.requests++;
    pthread_cond_broadcast(&run.changed);
    pthread_mutex_unlock(&run.lock);
    return status;
}

static int worker_json(struct worker *worker, const char *path, const struct buf *body)
{
    return worker_request(
        worker, &(struct http_client_request){.method = "POST",
                                              .path = path,
                                              .headers = "Content-Type: application/json\r\n",
                                              .body = buf_span(body)});
}

/* ---- publishers ---- */

/* New numbers; 0 at the end. Waits while the consumers are far behind. */
static uint32_t take_numbers(uint32_t count, uint32_t *first)
{
    pthread_mutex_lock(&run.lock);
    for (;;) {
        uint64_t slowest = run.finished[0] < run.finished[1] ? run.finished[0] : run.finished[1];
        if (run.stopping || run.count + count > MESSAGES_MAX) {
            count = 0;
            break;
        }
        if (run.confirmed < slowest + UNFINISHED_MAX) {
            break;
        }
        pthread_cond_wait(&run.changed, &run.lock);
    }
    *first = run.count;
    run.count += count;
    pthread_mutex_unlock(&run.lock);
    return count;
}

static bool stopping(void)
{
    pthread_mutex_lock(&run.lock);
    bool is = run.stopping;
    pthread_mutex_unlock(&run.lock);
    return is;
}

static void note_single(struct worker *worker, uint32_t number, int status, bool again)
{
    char replayed[16];
    if (status != 201) {
        violation("publish of %u: %d %.300s", number, status, worker->client.body);
        return;
    }
    json_t *answer = http_client_document(&worker->client);
    bool is_replay = http_client_header(&worker->client, "Idempotent-Replayed", replayed,
                                        sizeof replayed) != NULL;
    if (is_replay != again && (is_replay || run.messages[number].confirmed)) {
        violation("publish of %u: replayed %d, expected %d", number, is_replay, again);
    }
    pthread_mutex_lock(&run.lock);
    run.replayed += is_replay;
    confirm(number, json_string_value(json_object_get(answer, "id")));
    pthread_mutex_unlock(&run.lock);
    json_decref(answer);
}

/* One message a request; `keyed` ones are sent until their answer is there, and some once more. */
static void publish_single(struct worker *worker, bool keyed)
{
    char body[BODY_MAX];
    char headers[64] = "";
    uint32_t number;
    while (take_numbers(1, &number) != 0) {
        size_t size = body_of(number, body);
        if (keyed) {
            (void)snprintf(headers, sizeof headers, "Idempotency-Key: one-%u\r\n", number);
        }
        const struct http_client_request request = {.method = "POST",
                                                    .path = TOPIC "/messages",
                                                    .headers = headers,
                                                    .body = span_of(body, size)};
        bool again = false;
        int status;
        do {
            status = worker_request(worker, &request);
            if (status != 0) {
                note_single(worker, number, status, again);
            }
            again = keyed && (status == 0 || (!again && random_chance(&worker->random, 1, 16)));
        } while (again && !(status != 0 && stopping()));
    }
}

static void write_batch(struct buf *out, uint32_t first, uint32_t count, bool keyed)
{
    char body[BODY_MAX];
    buf_reset(out);
    buf_append_text(out, "{\"messages\":[");
    for (uint32_t number = first; number < first + count; number++) {
        body_of(number, body);
        buf_printf(out, "%s{\"key\":\"k%u\",\"body\":\"", number == first ? "" : ",", number % 17);
        buf_append_text(out, body);
        buf_append_byte(out, '"');
        if (keyed) {
            buf_printf(out, ",\"idempotency_key\":\"many-%u\"", number);
        }
        buf_append_byte(out, '}');
    }
    buf_append_text(out, "]}");
}

static void note_batch(struct worker *worker, uint32_t first, uint32_t count, int status)
{
    if (status != 201) {
        violation("batch from %u: %d %.300s", first, status, worker->client.body);
        return;
    }
    json_t *answer = http_client_document(&worker->client);
    const json_t *results = json_object_get(answer, "results");
    pthread_mutex_lock(&run.lock);
    for (uint32_t i = 0; i < count; i++) {
        const json_t *result = json_array_get(results, i);
        run.replayed += json_is_true(json_object_get(result, "replayed"));
        confirm(first + i, json_string_value(json_object_get(result, "id")));
    }
    pthread_mutex_unlock(&run.lock);
    json_decref(answer);
}

static void publish_batches(struct worker *worker, bool keyed)
{
    struct buf body;
    uint32_t first;
    uint32_t count;
    buf_init(&body, 32 << 20);
    while ((count = take_numbers(1 + (uint32_t)random_below(&worker->random, BATCH), &first)) !=
           0) {
        write_batch(&body, first, count, keyed);
        int status;
        do {
            status = worker_json(worker, TOPIC "/batch", &body);
        } while (status == 0 && keyed);
        if (status != 0) {
            note_batch(worker, first, count, status);
        }
    }
    buf_deinit(&body);
}

static void *publisher_main(void *argument)
{
    struct worker *worker = argument;
    worker_connect(worker);
    bool keyed = worker->index % 2 == 1;
    if (worker->index < 2) {
        publish_single(worker, keyed);
    } else {
        publish_batches(worker, keyed);
    }
    http_client_deinit(&worker->client);
    return NULL;
}

/* ---- consumers ---- */

struct lot {
    uint32_t numbers[PULL];
    char receipts[PULL][64];
    uint32_t shards[PULL]; /* each a bit */
    uint32_t attempts[PULL];
    uint32_t count;
    uint32_t shards_any;
};

struct consumer {
    struct worker worker;
    unsigned sub;
    struct lot pulled;
    struct lot ack;
    struct lot nack;
};

static void lot_clear(struct lot *lot)
{
    lot->count = 0;
    lot->shards_any = 0;
}

static void lot_add(struct lot *lot, uint32_t number, const json_t *message)
{
    const char *receipt = json_string_value(json_object_get(message, "receipt"));
    lot->shards[lot->count] = 1U << json_integer_value(json_object_get(message, "shard"));
    lot->shards_any |= lot->shards[lot->count];
    lot->attempts[lot->count] = (uint32_t)json_integer_value(json_object_get(message, "attempt"));
    lot->numbers[lot->count] = number;
    (void)snprintf(lot->receipts[lot->count], sizeof lot->receipts[0], "%s", receipt);
    lot->count++;
}

/* The number of a delivered message, or UINT32_MAX when it is none of ours. */
static uint32_t number_of(const json_t *message)
{
    char expected[BODY_MAX];
    const char *body = json_string_value(json_object_get(message, "body"));
    uint32_t number = body == NULL ? UINT32_MAX : (uint32_t)strtoul(body, NULL, 10);
    if (number >= run.count) {
        violation("delivered what nobody published: %.60s", body == NULL ? "(none)" : body);
        return UINT32_MAX;
    }
    body_of(number, expected);
    if (strcmp(body, expected) != 0) {
        violation("message %u has another body", number);
    }
    return number;
}

/* Whether the broker made `next` before `last`, which another consumer was quicker to look at. */
static bool is_late(const struct reading *last, const struct reading *next)
{
    return next->generation == last->generation
               ? next->attempt < last->attempt
               : next->generation < last->generation && next->attempt <= last->attempt;
}

/* Unless a kill has undone it, its lease had ended before the other one began. */
static void check_late(const struct consumer *consumer, uint32_t number, const struct reading *next)
{
    const struct reading *last = &run.messages[number].readings[consumer->sub];
    run.late++;
    if (next->generation == last->generation &&
        last->lease_until_ms - LEASE_MS < next->lease_until_ms) {
        violation("%s: message %u has attempt %u during %u", sub_names[consumer->sub], number,
                  last->attempt, next->attempt);
    }
}

/* A delivery after another one of the same message. */
static void check_redelivery(const struct consumer *consumer, uint32_t number,
                             const struct reading *next)
{
    const struct reading *last = &run.messages[number].readings[consumer->sub];
    const char *sub = sub_names[consumer->sub];
    bool may_be_undone = !last->firm && last->generation < next->generation;
    if (next->attempt == last->attempt && may_be_undone) {
        run.undone++;
        return;
    }
    run.redelivered++;
    if (next->attempt <= last->attempt) {
        violation("%s: message %u has attempt %u after %u", sub, number, next->attempt,
                  last->attempt);
    }
    if (!last->given_back && next->lease_until_ms - LEASE_MS < last->lease_until_ms) {
        violation("%s: message %u delivered %lu ms before its lease ended", sub, number,
                  last->lease_until_ms + LEASE_MS - next->lease_until_ms);
    }
}

/* False: it is over, and nothing more is to be done about it. */
static bool check_delivery(const struct consumer *consumer, uint32_t number, const json_t *message)
{
    struct reading *reading = &run.messages[number].readings[consumer->sub];
    struct reading next = {
        .delivered = true,
        .acked = reading->acked,
        .ack_sent = reading->ack_sent,
        .attempt = (uint32_t)json_integer_value(json_object_get(message, "attempt")),
        .generation = consumer->worker.generation,
        .lease_until_ms = (uint64_t)json_integer_value(json_object_get(message, "lease_until_ms")),
    };
    learn_id(number, json_string_value(json_object_get(message, "id")));
    if (reading->delivered && is_late(reading, &next)) {
        check_late(consumer, number, &next);
        return false;
    }
    if (reading->acked) {
        violation("%s: message %u is back after its ack", sub_names[consumer->sub], number);
    }
    if (reading->delivered) {
        check_redelivery(consumer, number, &next);
    }
    *reading = next;
    return true;
}

/* Some are given back, some forgotten, most finished; in the end all. */
static void decide(struct consumer *consumer, uint32_t number, const json_t *message)
{
    struct reading *reading = &run.messages[number].readings[consumer->sub];
    uint64_t die = random_below(&consumer->worker.random, 100);
    lot_add(&consumer->pulled, number, message);
    if (run.draining || die < 85) {
        lot_add(&consumer->ack, number, message);
        reading->ack_sent = true;
    } else if (die < 95) {
        lot_add(&consumer->nack, number, message);
        reading->given_back = true;
    }
}

static uint32_t take_deliveries(struct consumer *consumer)
{
    json_t *answer = http_client_document(&consumer->worker.client);
    const json_t *messages = json_object_get(answer, "messages");
    size_t count = json_array_size(messages);
    lot_clear(&consumer->pulled);
    lot_clear(&consumer->ack);
    lot_clear(&consumer->nack);
    pthread_mutex_lock(&run.lock);
    for (size_t i = 0; i < count; i++) {
        const json_t *message = json_array_get(messages, i);
        uint32_t number = number_of(message);
        if (number != UINT32_MAX && check_delivery(consumer, number, message)) {
            decide(consumer, number, message);
        }
    }
    pthread_mutex_unlock(&run.lock);
    json_decref(answer);
    return (uint32_t)count;
}

static void note_acks(struct consumer *consumer, int status)
{
    json_t *answer = http_client_document(&consumer->worker.client);
    const json_t *results = json_object_get(answer, "results");
    pthread_mutex_lock(&run.lock);
    for (uint32_t i = 0; i < consumer->ack.count; i++) {
        struct reading *reading = &run.messages[consumer->ack.numbers[i]].readings[consumer->sub];
        const char *code = json_string_value(json_object_get(json_array_get(results, i), "code"));
        bool done = status == 200 || (code != NULL && strcmp(code, "ok") == 0);
        run.finished[consumer->sub] += done && !reading->acked;
        run.lease_lost += !done;
        reading->acked = reading->acked || done;
    }
    pthread_cond_broadcast(&run.changed);
    pthread_mutex_unlock(&run.lock);
    json_decref(answer);
}

/* An answer about some messages of a pull, from the broker that served it, comes after a flush of
 * their volumes: what was pulled from there is flushed too. */
static void note_firm(struct consumer *consumer, const struct lot *lot)
{
    const struct lot *pulled = &consumer->pulled;
    pthread_mutex_lock(&run.lock);
    for (uint32_t i = 0; i < pulled->count; i++) {
        struct reading *reading = &run.messages[pulled->numbers[i]].readings[consumer->sub];
        bool covered = (pulled->shards[i] & lot->shards_any) != 0;
        /* Another consumer may have it by now, from a later pull. */
        bool ours = reading->generation == consumer->worker.generation &&
                    reading->attempt == pulled->attempts[i];
        reading->firm = reading->firm || (covered && ours);
    }
    pthread_mutex_unlock(&run.lock);
}

/* Sends the receipts until there is an answer; those from before a crash too. */
static void settle(struct consumer *consumer, const struct lot *lot, const char *verb,
                   struct buf *body)
{
    char path[128];
    int status = 0;
    if (lot->count == 0) {
        return;
    }
    buf_reset(body);
    buf_append_text(body, "{\"receipts\":[");
    for (uint32_t i = 0; i < lot->count; i++) {
        buf_printf(body, "%s\"%s\"", i == 0 ? "" : ",", lot->receipts[i]);
    }
    buf_append_text(body, "]");
    if (lot == &consumer->nack) {
        buf_printf(body, ",\"delay\":%lu",
                   random_below(&consumer->worker.random, NACK_DELAY_MAX_MS));
    }
    buf_append_text(body, "}");
    (void)snprintf(path, sizeof path, TOPIC "/subscriptions/%s/%s", sub_names[consumer->sub], verb);
    while (status == 0) {
        status = worker_json(&consumer->worker, path, body);
    }
    if (status != 200 && status != 409) {
        violation("%s: %d %.300s", verb, status, consumer->worker.client.body);
        return;
    }
    note_firm(consumer, lot);
    if (lot == &consumer->ack) {
        note_acks(consumer, status);
    }
}

static bool is_draining(void)
{
    pthread_mutex_lock(&run.lock);
    bool is = run.draining;
    pthread_mutex_unlock(&run.lock);
    return is;
}

static void *consumer_main(void *argument)
{
    struct consumer *consumer = argument;
    char path[128];
    struct buf body;
    buf_init(&body, 1 << 20);
    worker_connect(&consumer->worker);
    (void)snprintf(path, sizeof path, TOPIC "/subscriptions/%s/pull", sub_names[consumer->sub]);
    for (;;) {
        bool last = is_draining();
        buf_reset(&body);
        buf_printf(&body, "{\"max\":%lu,\"wait\":%d}",
                   1 + random_below(&consumer->worker.random, PULL), last ? DRAIN_WAIT_MS : 100);
        int status = worker_json(&consumer->worker, path, &body);
        if (status == 0) {
            continue;
        }
        if (status != 200) {
            violation("pull: %d %.300s", status, consumer->worker.client.body);
            continue;
        }
        uint32_t count = take_deliveries(consumer);
        if (count == 0 && last) {
            break; /* any lease or delay has ended by now */
        }
        settle(consumer, &consumer->ack, "ack", &body);
        settle(consumer, &consumer->nack, "nack", &body);
    }
    buf_deinit(&body);
    http_client_deinit(&consumer->worker.client);
    return NULL;
}

/* ---- the broker ---- */

static struct broker broker;
static uint64_t *ready_us;

static void start(const struct broker_options *options, struct random *random)
{
    if (random_chance(random, 1, 8)) { /* one that does not live to be ready */
        struct timespec pause = {.tv_nsec = (long)random_below(random, 20000000)};
        broker_launch(&broker, options);
        nanosleep(&pause, NULL);
        broker_stop(&broker);
    }
    broker_start(&broker, options);
    ready_us[run.starts] = broker.ready_us;
    pthread_mutex_lock(&run.lock);
    run.starts++;
    run.generation = run.starts;
    run.port = broker.port;
    pthread_cond_broadcast(&run.changed);
    pthread_mutex_unlock(&run.lock);
}

/* Waits until the workers have had some answers, then kills. */
static void kill_later(struct random *random)
{
    const struct timespec pause = {.tv_nsec = (long)random_below(random, 3000000)};
    const struct deadline deadline = deadline_in(PROGRESS_MS);
    bool in_time = true;
    pthread_mutex_lock(&run.lock);
    uint64_t target =
        run.requests + (random_chance(random, 1, 8) ? 0 : random_below(random, REQUESTS_MAX));
    while (run.requests < target && in_time) {
        in_time = deadline_wait(&deadline, &run.changed, &run.lock);
    }
    run.generation = 0;
    pthread_mutex_unlock(&run.lock);
    if (!in_time) {
        violation("no answers for %d ms", PROGRESS_MS);
    }
    nanosleep(&pause, NULL); /* somewhere in a commit */
    broker_kill(&broker);
    char *log = broker_log(&broker);
    if (strstr(log, " error ") != NULL) {
        violation("the broker complains: %s", strstr(log, " error "));
    }
    free(log);
    broker_stop(&broker);
}

static void create_work(void)
{
    struct http_client client;
    http_client_init(&client, broker.port);
    assert_int_equal(
        http_client_json(&client, "PUT", TOPIC, "{\"shards\":4,\"idempotency_window\":\"7d\"}"),
        201);
    for (unsigned sub = 0; sub < SUBS; sub++) {
        char path[128];
        (void)snprintf(path, sizeof path, TOPIC "/subscriptions/%s", sub_names[sub]);
        assert_int_equal(
            http_client_json(&client, "PUT", path, "{\"lease\":%d,\"max_attempts\":0}", LEASE_MS),
            201);
    }
    http_client_deinit(&client);
}

/* ---- the end ---- */

static void check_depths(void)
{
    struct http_client client;
    http_client_init(&client, broker.port);
    for (unsigned sub = 0; sub < SUBS; sub++) {
        char path[128];
        int depths[4] = {-1, -1, -1, -1};
        (void)snprintf(path, sizeof path, TOPIC "/subscriptions/%s", sub_names[sub]);
        assert_int_equal(http_client_do(&client, "GET", path), 200);
        json_t *answer = http_client_document(&client);
        assert_int_equal(json_unpack(answer, "{s:{s:i},s:{s:i,s:i,s:i}}", "enqueue_queue", "depth",
                                     &depths[0], "delivery_queue", "leased", &depths[1],
                                     "scheduled", &depths[2], "dead", &depths[3]),
                         0);
        json_decref(answer);
        for (size_t i = 0; i < 4; i++) {
            if (depths[i] != 0) {
                violation("%s: %d messages are left in queue %zu", sub_names[sub], depths[i], i);
            }
        }
    }
    http_client_deinit(&client);
}

/* A message that one subscription saw, or that was confirmed, must be finished in both. */
static void check_totals(void)
{
    for (uint32_t number = 0; number < run.count; number++) {
        const struct message *message = &run.messages[number];
        const struct reading *readings = message->readings;
        if (!message->confirmed && !readings[0].delivered && !readings[1].delivered) {
            continue;
        }
        for (unsigned sub = 0; sub < SUBS; sub++) {
            if (!readings[sub].delivered) {
                violation("%s: message %u (%s) is lost", sub_names[sub], number,
                          message->confirmed ? "confirmed" : "delivered elsewhere");
            } else if (!readings[sub].acked && !readings[sub].ack_sent) {
                violation("%s: message %u is gone without an ack", sub_names[sub], number);
            }
        }
    }
}

static void verify_files(const char *data)
{
    const char *flare = getenv("FLARE");
    const char *const arguments[] = {flare == NULL ? "./flare" : flare, "verify", "--data", data,
                                     NULL};
    struct process process;
    process_start(&process, &(struct process_options){.arguments = arguments});
    assert_int_equal(process_wait(&process, BROKER_TIMEOUT_MS), 0);
    process_stop(&process);
}

static int compare_times(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static double in_ms(uint64_t time_us)
{
    return (double)time_us / 1000;
}

static void print_figures(uint64_t start_us, uint64_t stop_us)
{
    qsort(ready_us, run.starts, sizeof *ready_us, compare_times);
    printf("{\"test\":\"kill\",\"seed\":%lu,\"cycles\":%u,\"published\":%lu,\"sent\":%u,"
           "\"replayed\":%lu,\"redelivered\":%lu,\"undone\":%lu,\"late\":%lu,\"lease_lost\":%lu,"
           "\"answers_lost\":%lu,"
           "\"violations\":%lu,\"ready_ms_median\":%.1f,\"ready_ms_max\":%.1f,\"stop_ms\":%.1f,"
           "\"seconds\":%.1f}\n",
           run.seed, run.starts - 1, run.confirmed, run.count, run.replayed, run.redelivered,
           run.undone, run.late, run.lease_lost, run.unknown, run.violations,
           in_ms(ready_us[run.starts / 2]), in_ms(ready_us[run.starts - 1]), in_ms(stop_us),
           in_ms(broker_now_us() - start_us) / 1000);
    (void)fflush(stdout);
}

static uint64_t number_in(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static void init_worker(struct worker *worker, unsigned index, uint64_t seed)
{
    worker->index = index;
    worker->generation = 0;
    random_init(&worker->random, seed);
    http_client_init(&worker->client, 0);
}

/* Ends the publishers, then the consumers once they have finished everything. */
static void drain(struct worker *publishers, struct consumer *consumers)
{
    pthread_mutex_lock(&run.lock);
    run.stopping = true;
    pthread_cond_broadcast(&run.changed);
    pthread_mutex_unlock(&run.lock);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(publishers[i].thread, NULL);
    }
    pthread_mutex_lock(&run.lock);
    run.draining = true;
    pthread_mutex_unlock(&run.lock);
    for (unsigned i = 0; i < CONSUMERS; i++) {
        pthread_join(consumers[i].worker.thread, NULL);
    }
}

/* Whenever the broker is killed, nothing acknowledged is lost, nothing finished comes back, and
 * every message is delivered by the rules of leases and attempts. */
static void test_kill_under_load(void **state)
{
    (void)state;
    static struct worker publishers[4];
    static struct consumer consumers[CONSUMERS];
    struct tmpdir tmpdir;
    struct random random;
    char data[TMPDIR_PATH_SIZE];
    uint64_t cycles = number_in("FLARE_KILL_CYCLES", CYCLES);
    uint64_t start_us = broker_now_us();
    uint64_t stop_us = 0;
    tmpdir_init(&tmpdir);
    const struct broker_options options = {.data = tmpdir_file(&tmpdir, "data", data)};
    run.seed = number_in("FLARE_SEED", random_seed());
    random_init(&random, run.seed);
    run.messages = calloc(MESSAGES_MAX, sizeof *run.messages);
    ready_us = calloc(cycles + 1, sizeof *ready_us);
    assert_non_null(run.messages);
    assert_non_null(ready_us);
    start(&options, &random);
    create_work();
    for (unsigned i = 0; i < 4; i++) {
        init_worker(&publishers[i], i, random_next(&random));
        pthread_create(&publishers[i].thread, NULL, publisher_main, &publishers[i]);
    }
    for (unsigned i = 0; i < CONSUMERS; i++) {
        init_worker(&consumers[i].worker, i, random_next(&random));
        consumers[i].sub = i % SUBS;
        pthread_create(&consumers[i].worker.thread, NULL, consumer_main, &consumers[i]);
    }
    for (uint64_t cycle = 0; cycle < cycles && run.violations == 0; cycle++) {
        kill_later(&random);
        start(&options, &random);
    }
    drain(publishers, consumers);
    check_depths();
    check_totals();
    assert_int_equal(broker_terminate(&broker, &stop_us), 0);
    broker_stop(&broker);
    verify_files(data);
    print_figures(start_us, stop_us);
    assert_int_equal(run.violations, 0);
    assert_true(run.replayed > 0);
    assert_true(run.redelivered > 0);
    free(run.messages);
    free(ready_us);
    tmpdir_deinit(&tmpdir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill_under_load)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
