/* What the tests of the client begin with: a client of a fake broker, and a box that callbacks put
 * what they are given into. */
#ifndef UNIT_CLIENT_FIXTURE_H
#define UNIT_CLIENT_FIXTURE_H

#include <flare/flare.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/lib/fake_broker.h"

enum { CLIENT_BOX_MAX = 4096 };

/* What callbacks have said, in order. */
struct client_box {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t count;
    struct flare_result results[CLIENT_BOX_MAX];
    enum flare_code codes[CLIENT_BOX_MAX];
    char message[FLARE_ERROR_MESSAGE_SIZE]; /* of the last error */
    struct flare_batch *batch;              /* of the last pull */
};

struct client_fixture {
    struct fake_broker fake;
    struct client_box box;
    struct flare_options options;
    struct flare_client *client;
};

static inline void client_box_put(struct client_box *box, enum flare_code code,
                                  const struct flare_error *error)
{
    (void)pthread_mutex_lock(&box->lock);
    if (box->count < CLIENT_BOX_MAX) {
        box->codes[box->count] = code;
    }
    if (error != NULL) {
        memcpy(box->message, error->message, sizeof box->message);
    }
    box->count++;
    (void)pthread_cond_broadcast(&box->changed);
    (void)pthread_mutex_unlock(&box->lock);
}

/* Waits until callbacks have been called so often. */
static inline void client_box_wait(struct client_box *box, uint32_t count)
{
    struct timespec until;
    int rc = 0;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += FAKE_BROKER_TIMEOUT_MS / 1000;
    (void)pthread_mutex_lock(&box->lock);
    while (box->count < count && rc == 0) {
        rc = pthread_cond_timedwait(&box->changed, &box->lock, &until);
    }
    (void)pthread_mutex_unlock(&box->lock);
    assert_int_equal(rc, 0);
}

static inline uint32_t client_box_count(struct client_box *box)
{
    (void)pthread_mutex_lock(&box->lock);
    uint32_t count = box->count;
    (void)pthread_mutex_unlock(&box->lock);
    return count;
}

/* For flare_publish_async. */
static inline void client_box_on_published(void *user, const struct flare_result *result,
                                           const struct flare_error *error)
{
    struct client_box *box = user;
    (void)pthread_mutex_lock(&box->lock);
    if (box->count < CLIENT_BOX_MAX) {
        box->results[box->count] = *result;
    }
    (void)pthread_mutex_unlock(&box->lock);
    client_box_put(box, result->code, error);
}

static inline void client_fixture_init(struct client_fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    fake_broker_init(&fixture->fake);
    assert_int_equal(pthread_mutex_init(&fixture->box.lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&fixture->box.changed, NULL), 0);
    fixture->options.dial = fake_broker_dial;
    fixture->options.dial_user = &fixture->fake;
    fixture->options.reconnect_min_ms = 1;
}

static inline void client_fixture_connect(struct client_fixture *fixture)
{
    struct flare_error error = {0};
    assert_int_equal(flare_connect(&fixture->options, &fixture->client, &error), FLARE_OK);
    fake_broker_accept(&fixture->fake);
}

static inline void client_fixture_deinit(struct client_fixture *fixture)
{
    flare_close(fixture->client);
    fake_broker_deinit(&fixture->fake);
    (void)pthread_mutex_destroy(&fixture->box.lock);
    (void)pthread_cond_destroy(&fixture->box.changed);
}

static inline void client_fixture_publish(struct client_fixture *fixture, const char *topic,
                                          const char *key, const char *body)
{
    const struct flare_message message = {.body = body, .body_size = strlen(body), .key = key};
    struct flare_error error;
    assert_int_equal(flare_publish_async(fixture->client, topic, &message, client_box_on_published,
                                         &fixture->box, &error),
                     FLARE_OK);
}

/* Answers publishes and pulls until callbacks have been called so often. A client with a short
 * request_timeout_ms gives up a connection over which this thread was too slow to answer, and asks
 * again over the next one. */
static inline void client_fixture_serve(struct client_fixture *fixture, uint32_t count)
{
    struct fake_broker *fake = &fixture->fake;
    struct wire_frame frame;
    while (client_box_count(&fixture->box) < count) {
        if (fake_broker_is_quiet(fake, 10)) {
            if (fake->accept_count < fake_broker_dials(fake)) {
                fake_broker_accept(fake);
            }
            continue;
        }
        fake_broker_expect_any(fake, &frame);
        if (frame.type == WIRE_publish) {
            fake_broker_publish(fake, &frame, FLARE_OK, 1);
        } else if (frame.type == WIRE_pull) {
            fake_broker_deliver(fake, WIRE_pulled, frame.id, 0, 1);
        }
    }
}

#endif
