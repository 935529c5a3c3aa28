#include "tests/lib/client_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <time.h>

void client_box_put(struct client_box *box, enum flare_code code, const struct flare_error *error)
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

void client_box_wait(struct client_box *box, uint32_t count)
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

uint32_t client_box_count(struct client_box *box)
{
    (void)pthread_mutex_lock(&box->lock);
    uint32_t count = box->count;
    (void)pthread_mutex_unlock(&box->lock);
    return count;
}

void client_box_on_published(void *user, const struct flare_result *result,
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

void client_fixture_init(struct client_fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    fake_broker_init(&fixture->fake);
    assert_int_equal(pthread_mutex_init(&fixture->box.lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&fixture->box.changed, NULL), 0);
    fixture->options.dial = fake_broker_dial;
    fixture->options.dial_user = &fixture->fake;
    fixture->options.reconnect_min_ms = 1;
}

void client_fixture_connect(struct client_fixture *fixture)
{
    struct flare_error error = {0};
    assert_int_equal(flare_connect(&fixture->options, &fixture->client, &error), FLARE_OK);
    fake_broker_accept(&fixture->fake);
}

void client_fixture_deinit(struct client_fixture *fixture)
{
    flare_close(fixture->client);
    fake_broker_deinit(&fixture->fake);
    (void)pthread_mutex_destroy(&fixture->box.lock);
    (void)pthread_cond_destroy(&fixture->box.changed);
}

void client_fixture_publish(struct client_fixture *fixture, const char *topic, const char *key,
                            const char *body)
{
    const struct flare_message message = {.body = body, .body_size = strlen(body), .key = key};
    struct flare_error error;
    assert_int_equal(flare_publish_async(fixture->client, topic, &message, client_box_on_published,
                                         &fixture->box, &error),
                     FLARE_OK);
}

void client_fixture_expect_publish(struct client_fixture *fixture, struct wire_frame *frame,
                                   const char *topic, uint32_t count)
{
    fake_broker_expect(&fixture->fake, WIRE_publish, frame);
    assert_true(span_is(frame->publish.topic, topic));
    assert_int_equal(frame->publish.messages.count, count);
}

void client_fixture_expect_body(const struct wire_frame *frame, uint32_t index, const char *body)
{
    struct wire_items items;
    struct wire_message message;
    wire_items_begin(&items, "messages", WIRE_RECORD_message, &frame->publish.messages);
    for (uint32_t at = 0; at <= index; at++) {
        assert_true(wire_items_next(&items, &message));
    }
    assert_null(wire_items_finish(&items));
    assert_true(span_is(message.body, body));
}

void client_fixture_serve(struct client_fixture *fixture, uint32_t count)
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
