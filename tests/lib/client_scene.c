#include "tests/lib/client_scene.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/deadline.h"

enum { WAIT_MS = 100000, PULL_MAX = 1000 };

const struct flare_source client_scene_source = {"t", "s"};

/* On the client's thread. */
static int dial(void *user)
{
    struct client_scene *scene = user;
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)atomic_load(&scene->port)),
                                        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    if (address.sin_port == 0) {
        return -1; /* it is being started again */
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

struct flare_client *client_scene_connect(struct client_scene *scene)
{
    struct flare_client *client = NULL;
    struct flare_error error = {0};
    if (flare_connect(&scene->options, &client, &error) != FLARE_OK) {
        fail_msg("cannot connect: %s", error.message);
    }
    return client;
}

void client_scene_init(struct client_scene *scene, const char *topic, const char *sub,
                       const struct flare_options *options)
{
    *scene = (struct client_scene){0};
    if (options != NULL) {
        scene->options = *options;
    }
    scene->options.dial = dial;
    scene->options.dial_user = scene;
    scene_init_topic(&scene->scene, topic, sub);
    atomic_store(&scene->port, scene->scene.broker.wire_port);
    scene->client = client_scene_connect(scene);
}

void client_scene_deinit(struct client_scene *scene)
{
    flare_close(scene->client);
    scene_deinit(&scene->scene);
}

void client_scene_restart(struct client_scene *scene, bool kill)
{
    atomic_store(&scene->port, 0);
    scene_restart(&scene->scene, kill, NULL);
    atomic_store(&scene->port, scene->scene.broker.wire_port);
}

/* ---- counting ---------------------------------------------------------------------------------
 */

void client_census_init(struct client_census *census, uint32_t count)
{
    *census = (struct client_census){.count = count, .seen = calloc(count + 1, 1)};
    assert_non_null(census->seen);
}

void client_census_deinit(struct client_census *census)
{
    free(census->seen);
}

bool client_census_add(struct client_census *census, const struct flare_delivery *delivery)
{
    char text[16] = "";
    char *end = text;
    size_t size = delivery->body_size < sizeof text ? delivery->body_size : sizeof text - 1;
    memcpy(text, delivery->body, size);
    text[size] = '\0';
    unsigned long number = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || number >= census->count) {
        census->others++;
        return false;
    }
    if (census->seen[number] < UINT8_MAX) {
        census->seen[number]++;
    }
    return census->seen[number] == 1;
}

void client_census_take(struct client_census *census, struct client_scene *scene)
{
    const struct flare_pull options = {.max = PULL_MAX, .lease_ms = 600000};
    struct flare_error error = {0};
    size_t count = 1;
    while (count > 0) {
        struct flare_batch *batch = NULL;
        if (flare_pull(scene->client, &client_scene_source, &options, &batch, &error) != FLARE_OK) {
            fail_msg("cannot pull: %s", error.message);
        }
        count = flare_batch_count(batch);
        for (size_t index = 0; index < count; index++) {
            (void)client_census_add(census, flare_batch_get(batch, index));
        }
        assert_int_equal(flare_batch_ack(scene->client, batch, &error), FLARE_OK);
        flare_batch_free(batch);
    }
}

void client_census_expect_once(const struct client_census *census)
{
    uint32_t missing = 0;
    uint32_t doubled = 0;
    for (uint32_t number = 0; number < census->count; number++) {
        missing += census->seen[number] == 0;
        doubled += census->seen[number] > 1;
    }
    if (missing > 0 || doubled > 0 || census->others > 0) {
        fail_msg("of %u messages %u are missing and %u doubled; %u are others", census->count,
                 missing, doubled, census->others);
    }
}

void client_tally_init(struct client_tally *tally)
{
    *tally = (struct client_tally){0};
    assert_int_equal(pthread_mutex_init(&tally->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&tally->changed, NULL), 0);
}

void client_tally_deinit(struct client_tally *tally)
{
    (void)pthread_mutex_destroy(&tally->lock);
    (void)pthread_cond_destroy(&tally->changed);
}

void client_tally_on_published(void *user, const struct flare_result *result,
                               const struct flare_error *error)
{
    struct client_tally *tally = user;
    (void)pthread_mutex_lock(&tally->lock);
    tally->done++;
    tally->failed += error != NULL;
    tally->replayed += result->replayed;
    (void)pthread_cond_broadcast(&tally->changed);
    (void)pthread_mutex_unlock(&tally->lock);
}

void client_tally_add(struct client_tally *tally)
{
    (void)pthread_mutex_lock(&tally->lock);
    tally->done++;
    (void)pthread_cond_broadcast(&tally->changed);
    (void)pthread_mutex_unlock(&tally->lock);
}

void client_tally_wait(struct client_tally *tally, uint32_t done)
{
    const struct deadline deadline = deadline_in(WAIT_MS);
    bool in_time = true;
    (void)pthread_mutex_lock(&tally->lock);
    while (tally->done < done && in_time) {
        in_time = deadline_wait(&deadline, &tally->changed, &tally->lock);
    }
    uint32_t reached = tally->done;
    (void)pthread_mutex_unlock(&tally->lock);
    if (!in_time) {
        fail_msg("%u of %u within %d ms", reached, done, WAIT_MS);
    }
}

void client_scene_publish_numbers(struct client_scene *scene, struct client_tally *tally,
                                  uint32_t first, uint32_t end)
{
    for (uint32_t number = first; number < end; number++) {
        char body[16];
        struct flare_error error;
        int size = snprintf(body, sizeof body, "%u", number);
        const struct flare_message message = {.body = body, .body_size = (size_t)size};
        if (flare_publish_async(scene->client, "t", &message, client_tally_on_published, tally,
                                &error) != FLARE_OK) {
            fail_msg("cannot publish: %s", error.message);
        }
    }
}
