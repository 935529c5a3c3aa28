#include <flare/harness.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOG_SIZE = FLARE_HARNESS_LOG_SIZE, SHOWN_MAX = 20, BODY_SHOWN = 60 };

struct flare_harness {
    struct flare_broker *broker;
    struct flare_client *client; /* NULL: nobody has asked for it */
    bool passed;
    bool failed;
    bool live;            /* the log goes to standard error at once */
    pthread_mutex_t lock; /* of the log */
    char *log;            /* a ring of LOG_SIZE bytes */
    size_t log_written;   /* bytes that ever went into it */
};

static void harness_on_log(void *user, const char *line, size_t size)
{
    struct flare_harness *harness = user;
    pthread_mutex_lock(&harness->lock);
    for (size_t done = 0; done < size;) {
        size_t at = harness->log_written % LOG_SIZE;
        size_t part = size - done < LOG_SIZE - at ? size - done : LOG_SIZE - at;
        memcpy(harness->log + at, line + done, part);
        harness->log_written += part;
        done += part;
    }
    pthread_mutex_unlock(&harness->lock);
    if (harness->live) {
        (void)fwrite(line, 1, size, stderr);
    }
}

static void free_harness(struct flare_harness *harness)
{
    pthread_mutex_destroy(&harness->lock);
    free(harness->log);
    free(harness);
}

static struct flare_harness *create_harness(void)
{
    const char *live = getenv("FLARE_HARNESS_LOG");
    struct flare_harness *harness = calloc(1, sizeof *harness);
    if (harness == NULL) {
        return NULL;
    }
    pthread_mutex_init(&harness->lock, NULL);
    harness->live = live != NULL && strcmp(live, "1") == 0;
    harness->log = malloc(LOG_SIZE);
    if (harness->log == NULL) {
        free_harness(harness);
        return NULL;
    }
    return harness;
}

__attribute__((format(printf, 2, 3))) static int fail(struct flare_harness *harness,
                                                      const char *format, ...)
{
    va_list arguments;
    harness->failed = true;
    fputs("flare harness: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return 0;
}

enum flare_code flare_harness_open(const struct flare_broker_options *options,
                                   struct flare_harness **out, struct flare_error *error)
{
    struct flare_broker_options own = {.simulated_ms = FLARE_HARNESS_START_MS};
    struct flare_error failure = {.code = FLARE_ERR_MEMORY, .message = "no memory for a harness"};
    struct flare_harness *harness = create_harness();
    if (options != NULL) {
        own = *options;
    }
    own.log = harness_on_log;
    own.log_user = harness;
    if (harness != NULL && flare_broker_open(&own, &harness->broker, &failure) == FLARE_OK) {
        *out = harness;
        return FLARE_OK;
    }
    fprintf(stderr, "flare harness: no broker: %s\n", failure.message);
    if (harness != NULL) {
        free_harness(harness);
    }
    if (error != NULL) {
        *error = failure;
    }
    return failure.code;
}

struct flare_broker *flare_harness_broker(struct flare_harness *harness)
{
    return harness->broker;
}

struct flare_client *flare_harness_client(struct flare_harness *harness)
{
    struct flare_error error;
    if (harness->client == NULL &&
        flare_broker_connect(harness->broker, NULL, &harness->client, &error) != FLARE_OK) {
        (void)fail(harness, "no client: %s", error.message);
    }
    return harness->client;
}

void flare_harness_pass(struct flare_harness *harness)
{
    harness->passed = true;
}

void flare_harness_close(struct flare_harness *harness)
{
    if (harness == NULL) {
        return;
    }
    if (!harness->passed || harness->failed) {
        flare_harness_print(harness);
    }
    flare_close(harness->client);
    flare_broker_close(harness->broker);
    free_harness(harness);
}

/* ---- what it shows -------------------------------------------------------------------------- */

/* The oldest line is likely to have lost its beginning: it is left out. */
static size_t skip_cut_line(const char *text, size_t size)
{
    const char *end = memchr(text, '\n', size);
    return end == NULL ? 0 : (size_t)(end - text) + 1;
}

char *flare_harness_log(struct flare_harness *harness)
{
    char note[80] = "";
    char *kept = malloc(LOG_SIZE);
    char *text = malloc(sizeof note + LOG_SIZE + 1);
    if (kept == NULL || text == NULL) {
        free(kept);
        free(text);
        return NULL;
    }
    pthread_mutex_lock(&harness->lock);
    size_t written = harness->log_written;
    size_t size = written < LOG_SIZE ? written : LOG_SIZE;
    size_t oldest = written < LOG_SIZE ? 0 : written % LOG_SIZE;
    memcpy(kept, harness->log + oldest, size - oldest);
    memcpy(kept + size - oldest, harness->log, oldest);
    pthread_mutex_unlock(&harness->lock);
    size_t cut = written > size ? skip_cut_line(kept, size) : 0;
    if (written > size) {
        snprintf(note, sizeof note, "(%zu bytes of older lines are not kept)\n",
                 written - size + cut);
    }
    size_t note_size = strlen(note);
    memcpy(text, note, note_size);
    memcpy(text + note_size, kept + cut, size - cut);
    text[note_size + size - cut] = '\0';
    free(kept);
    return text;
}

static void print_depths(void *user, const struct flare_source *source,
                         const struct flare_depths *depths)
{
    (void)user;
    fprintf(stderr, "  %s/%s: enqueued=%llu leased=%llu scheduled=%llu dead=%llu\n", source->topic,
            source->subscription, (unsigned long long)depths->enqueued,
            (unsigned long long)depths->leased, (unsigned long long)depths->scheduled,
            (unsigned long long)depths->dead);
}

void flare_harness_print(struct flare_harness *harness)
{
    struct flare_error error;
    fprintf(stderr, "flare harness: subscriptions of the broker:\n");
    if (flare_broker_each_subscription(harness->broker, print_depths, NULL, &error) != FLARE_OK) {
        fprintf(stderr, "  not known: %s\n", error.message);
    }
    char *log = flare_harness_log(harness);
    fprintf(stderr, "flare harness: log of the broker:\n%s", log == NULL ? "(no memory)\n" : log);
    free(log);
}

/* ---- expectations --------------------------------------------------------------------------- */

int flare_harness_expect_depths(struct flare_harness *harness, const struct flare_source *source,
                                const struct flare_depths *expected)
{
    struct flare_error error;
    struct flare_depths is;
    if (flare_broker_depths(harness->broker, source, &is, &error) != FLARE_OK) {
        return fail(harness, "%s/%s: no depths: %s", source->topic, source->subscription,
                    error.message);
    }
    if (is.enqueued == expected->enqueued && is.leased == expected->leased &&
        is.scheduled == expected->scheduled && is.dead == expected->dead) {
        return 1;
    }
    return fail(harness,
                "%s/%s: expected enqueued=%llu leased=%llu scheduled=%llu dead=%llu, "
                "but is enqueued=%llu leased=%llu scheduled=%llu dead=%llu",
                source->topic, source->subscription, (unsigned long long)expected->enqueued,
                (unsigned long long)expected->leased, (unsigned long long)expected->scheduled,
                (unsigned long long)expected->dead, (unsigned long long)is.enqueued,
                (unsigned long long)is.leased, (unsigned long long)is.scheduled,
                (unsigned long long)is.dead);
}

/* Crosses off what is listed; what is not expected is printed. */
struct crossing {
    const char *const *bodies;
    size_t count;
    bool *found; /* of each body */
    size_t surplus_count;
};

static void cross_off(void *user, const struct flare_listed *message)
{
    struct crossing *crossing = user;
    for (size_t index = 0; index < crossing->count; index++) {
        const char *body = crossing->bodies[index];
        if (!crossing->found[index] && strlen(body) == message->body_size &&
            memcmp(body, message->body, message->body_size) == 0) {
            crossing->found[index] = true;
            return;
        }
    }
    crossing->surplus_count++;
    if (crossing->surplus_count <= SHOWN_MAX) {
        int shown = message->body_size < BODY_SHOWN ? (int)message->body_size : BODY_SHOWN;
        fprintf(stderr, "flare harness: not expected: %s attempts=%u %.*s\n", message->id,
                message->attempts, shown, (const char *)message->body);
    }
}

int flare_harness_expect_bodies(struct flare_harness *harness, const struct flare_source *source,
                                enum flare_message_state state, const char *const *bodies)
{
    struct flare_error error = {.code = FLARE_OK};
    struct crossing crossing = {.bodies = bodies};
    while (bodies[crossing.count] != NULL) {
        crossing.count++;
    }
    crossing.found = calloc(crossing.count + 1, sizeof *crossing.found);
    if (crossing.found == NULL) {
        return fail(harness, "%s/%s: no memory", source->topic, source->subscription);
    }
    const struct flare_list_options list = {.source = *source,
                                            .state = state,
                                            .max = UINT32_MAX,
                                            .visit = cross_off,
                                            .user = &crossing};
    bool listed = flare_broker_list(harness->broker, &list, &error) == FLARE_OK;
    size_t missing_count = 0;
    for (size_t index = 0; listed && index < crossing.count; index++) {
        if (!crossing.found[index]) {
            missing_count++;
            fprintf(stderr, "flare harness: missing: %s\n", bodies[index]);
        }
    }
    free(crossing.found);
    if (!listed) {
        return fail(harness, "%s/%s: no list: %s", source->topic, source->subscription,
                    error.message);
    }
    return missing_count == 0 && crossing.surplus_count == 0
               ? 1
               : fail(harness, "%s/%s: of the %s messages %zu are missing and %zu not expected",
                      source->topic, source->subscription, flare_message_state_name(state),
                      missing_count, crossing.surplus_count);
}

int flare_harness_expect_log(struct flare_harness *harness, const char *text)
{
    char *log = flare_harness_log(harness);
    bool found = log != NULL && strstr(log, text) != NULL;
    free(log);
    return found ? 1 : fail(harness, "the log does not say: %s", text);
}
