/* What tests of broker/session have in common: a server over two volumes on memory stores
 * (sessions.h) and a client that has said hello, made anew for each test. All is of topic "t" and
 * subscription "s", and whatever comes must be what is expected.
 *
 *   const struct CMUnitTest tests[] = {SESSION_SCENE_TEST(a_pull_waits)};
 */
#ifndef LIB_SESSION_SCENE_H
#define LIB_SESSION_SCENE_H

#include "tests/lib/sessions.h"

enum { SESSION_SCENE_SHARDS = 4, SESSION_SCENE_DELIVERIES = 1000 };

struct session_scene {
    struct sessions sessions;
    struct session_client client;
    struct wire_delivery deliveries[SESSION_SCENE_DELIVERIES]; /* the last that came */
};

extern struct session_scene session_scene;

#define SESSION_SCENE_TEST(test)                                                                   \
    cmocka_unit_test_setup_teardown(test, session_scene_setup, session_scene_teardown)

int session_scene_setup(void **state);
int session_scene_teardown(void **state);

/* Both volumes stop before the next command; and go on. */
void session_scene_hold(void);
void session_scene_unhold(void);
/* Moves the simulated clock, and has the server look at its deadlines. */
void session_scene_pass_time(uint64_t ms);

/* `count` messages of `size` bytes, all taken. */
void session_scene_publish(uint64_t id, uint32_t count, size_t size);
void session_scene_send_pull(uint64_t id, uint32_t max, uint64_t wait_ms);
/* A stream with this credit, and more of it. */
void session_scene_open_stream(uint64_t id, uint32_t messages, uint32_t bytes);
void session_scene_grant(uint64_t id, uint32_t messages, uint32_t bytes);
/* The next frame answers this pull, or is of this stream; how many messages came. */
uint32_t session_scene_pulled(uint64_t id);
uint32_t session_scene_delivered(uint64_t id);
/* Acknowledges the first `count` of `deliveries`. */
void session_scene_send_ack(uint64_t id, uint32_t count);

#endif
