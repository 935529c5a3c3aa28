/* What the tests of the client begin with: a client of a fake broker, and a box that callbacks put
 * what they are given into. */
#ifndef LIB_CLIENT_FIXTURE_H
#define LIB_CLIENT_FIXTURE_H

#include <flare/flare.h>
#include <pthread.h>

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

void client_box_put(struct client_box *box, enum flare_code code, const struct flare_error *error);
/* Waits until callbacks have been called so often. */
void client_box_wait(struct client_box *box, uint32_t count);
uint32_t client_box_count(struct client_box *box);
/* For flare_publish_async. */
void client_box_on_published(void *user, const struct flare_result *result,
                             const struct flare_error *error);

/* The options may be changed before connecting. */
void client_fixture_init(struct client_fixture *fixture);
void client_fixture_connect(struct client_fixture *fixture);
void client_fixture_deinit(struct client_fixture *fixture);

/* Asynchronously, into the box. */
void client_fixture_publish(struct client_fixture *fixture, const char *topic, const char *key,
                            const char *body);
/* The next frame must be a publish of so many messages to this topic. */
void client_fixture_expect_publish(struct client_fixture *fixture, struct wire_frame *frame,
                                   const char *topic, uint32_t count);
/* The body of one message of a publish. */
void client_fixture_expect_body(const struct wire_frame *frame, uint32_t index, const char *body);
/* Answers publishes and pulls until callbacks have been called so often. A client with a short
 * request_timeout_ms gives up a connection over which this thread was too slow to answer, and asks
 * again over the next one. */
void client_fixture_serve(struct client_fixture *fixture, uint32_t count);

#endif
