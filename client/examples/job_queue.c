/* A queue of jobs with retries and dead letters.
 *
 *   job_queue [ADDRESS [JOBS]]        ADDRESS, or FLARE_WIRE, is where the broker is; 100 jobs
 *
 * Publishes jobs, works on them with four threads, and ends when each is done or given up. A job is
 * a text like "square 12". To have something to show, every fifth fails when it is tried first,
 * every tenth each time, and every twenty-fifth makes no sense at all:
 *
 *   jobs 100: done 86, dead letters 14 (rejected 4), tries 130
 *
 * The handler says what becomes of a job: FLARE_ACK, it is done; FLARE_NACK, it is tried again
 * after the subscription's retry delay, until it has had all its attempts and becomes a dead
 * letter; FLARE_REJECT, trying again would be no use. While a handler runs, the library keeps the
 * lease of its job alive. A handler may run twice for one job, as any queue's: here the result is
 * the same whenever it is written. */
#include <flare/flare.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JOBS_MAX = 100000, ATTEMPTS_MAX = 3 };

static const struct flare_source workers = {"jobs", "workers"};

/* What the handlers share. */
struct work {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    long jobs;
    long tries;
    long rejected;
    long dead; /* the rejected ones included */
    long done;
    long long *squares; /* 0: not done */
};

static void fail(const char *what, const struct flare_error *error)
{
    fprintf(stderr, "job_queue: %s: %s (%s)\n", what, error->message, flare_code_name(error->code));
    exit(1);
}

/* One try; `attempt` counts from 1. */
static enum flare_verdict try_job(struct work *work, const char *text, unsigned attempt)
{
    char *end = NULL;
    long number = strncmp(text, "square ", 7) == 0 ? strtol(text + 7, &end, 10) : -1;
    if (number < 0 || number >= work->jobs || *end != '\0') {
        return FLARE_REJECT;
    }
    if (number % 10 == 3 || (number % 5 == 3 && attempt == 1)) {
        return FLARE_NACK;
    }
    if (work->squares[number] == 0) {
        work->squares[number] = (long long)number * number + 1;
        work->done++;
    }
    return FLARE_ACK;
}

/* On one of the stream's threads. */
static enum flare_verdict on_job(void *user, const struct flare_delivery *delivery)
{
    struct work *work = user;
    char text[64];
    size_t size = delivery->body_size < sizeof text ? delivery->body_size : sizeof text - 1;
    memcpy(text, delivery->body, size);
    text[size] = '\0';
    pthread_mutex_lock(&work->lock);
    enum flare_verdict verdict = try_job(work, text, delivery->attempt);
    work->tries++;
    work->rejected += verdict == FLARE_REJECT;
    work->dead +=
        verdict == FLARE_REJECT || (verdict == FLARE_NACK && delivery->attempt == ATTEMPTS_MAX);
    pthread_cond_signal(&work->changed);
    pthread_mutex_unlock(&work->lock);
    return verdict;
}

static void set_up(struct flare_client *client)
{
    const struct flare_subscription settings = {
        .max_attempts = ATTEMPTS_MAX, .retry_delay_ms = 20, .lease_ms = 10000};
    struct flare_error error;
    if (flare_topic_put(client, workers.topic, NULL, NULL, &error) != FLARE_OK) {
        fail("cannot make the topic", &error);
    }
    if (flare_subscription_put(client, &workers, &settings, NULL, &error) != FLARE_OK) {
        fail("cannot make the subscription", &error);
    }
}

/* Asynchronous publishes leave in batches; what becomes of them is asked once, at the end. */
static void on_published(void *user, const struct flare_result *result,
                         const struct flare_error *error)
{
    (void)user;
    if (result->code != FLARE_OK) {
        fail("cannot publish", error);
    }
}

static void publish_jobs(struct flare_client *client, long jobs)
{
    struct flare_error error;
    for (long number = 0; number < jobs; number++) {
        char text[64];
        int size =
            snprintf(text, sizeof text, "%s %ld", number % 25 == 7 ? "dance" : "square", number);
        const struct flare_message job = {.body = text, .body_size = (size_t)size};
        if (flare_publish_async(client, workers.topic, &job, on_published, NULL, &error) !=
            FLARE_OK) {
            fail("cannot publish", &error);
        }
    }
    if (flare_flush(client, 0, &error) != FLARE_OK) {
        fail("cannot publish", &error);
    }
}

static void work_off(struct flare_client *client, struct work *work)
{
    const struct flare_stream_options options = {
        .handler = on_job, .user = work, .concurrency = 4, .consumer = "job_queue"};
    struct flare_stream *stream = NULL;
    struct flare_error error;
    if (flare_stream_open(client, &workers, &options, &stream, &error) != FLARE_OK) {
        fail("cannot open a stream", &error);
    }
    pthread_mutex_lock(&work->lock);
    while (work->done + work->dead < work->jobs) {
        pthread_cond_wait(&work->changed, &work->lock);
    }
    pthread_mutex_unlock(&work->lock);
    flare_stream_close(stream); /* sends the last verdicts */
}

int main(int argc, char **argv)
{
    struct work work = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    const struct flare_options options = {.url = argc > 1 ? argv[1] : NULL, .name = "job_queue"};
    struct flare_client *client = NULL;
    struct flare_error error;
    work.jobs = argc > 2 ? strtol(argv[2], NULL, 10) : 100;
    if (work.jobs < 1 || work.jobs > JOBS_MAX) {
        fprintf(stderr, "job_queue: between 1 and %d jobs\n", JOBS_MAX);
        return 64;
    }
    work.squares = calloc((size_t)work.jobs, sizeof work.squares[0]);
    if (work.squares == NULL) {
        return 1;
    }
    if (flare_connect(&options, &client, &error) != FLARE_OK) {
        fail("cannot connect", &error);
    }
    set_up(client);
    publish_jobs(client, work.jobs);
    work_off(client, &work);
    flare_close(client);
    printf("jobs %ld: done %ld, dead letters %ld (rejected %ld), tries %ld\n", work.jobs, work.done,
           work.dead, work.rejected, work.tries);
    free(work.squares);
    return 0;
}
