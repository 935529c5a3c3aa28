/* A scene (scene.h) with a client of the C library beside it, which finds the broker again after a
 * restart although its port is another one. */
#ifndef LIB_CLIENT_SCENE_H
#define LIB_CLIENT_SCENE_H

#include <flare/flare.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tests/lib/scene.h"

struct client_scene {
    struct scene scene;
    _Atomic uint32_t port;
    struct flare_options options;
    struct flare_client *client;
};

extern const struct flare_source client_scene_source; /* "t", "s" */

/* Starts the broker with topic "t" and subscription "s" (settings as JSON, NULL: defaults), and
 * connects. `options` may be NULL. */
void client_scene_init(struct client_scene *scene, const char *topic, const char *sub,
                       const struct flare_options *options);
void client_scene_deinit(struct client_scene *scene);
/* Another client of the same broker. */
struct flare_client *client_scene_connect(struct client_scene *scene);
/* As scene_restart. */
void client_scene_restart(struct client_scene *scene, bool kill);

/* Which of `count` numbered messages ("0", "1", ...) are in the log, and how often. */
struct client_census {
    uint32_t count;
    uint8_t *seen; /* times each was there, to 255 */
    uint32_t others;
};
void client_census_init(struct client_census *census, uint32_t count);
void client_census_deinit(struct client_census *census);
/* True: it is a numbered one, seen for the first time. */
bool client_census_add(struct client_census *census, const struct flare_delivery *delivery);
/* Pulls and acks everything that is in "s". */
void client_census_take(struct client_census *census, struct client_scene *scene);
/* Each is there once and nothing else is; ends the test otherwise. */
void client_census_expect_once(const struct client_census *census);

/* Counts what callbacks say, for those who wait. */
struct client_tally {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t done;
    uint32_t failed;
    uint32_t replayed;
};
void client_tally_init(struct client_tally *tally);
void client_tally_deinit(struct client_tally *tally);
/* For flare_publish_async. */
void client_tally_on_published(void *user, const struct flare_result *result,
                               const struct flare_error *error);
void client_tally_add(struct client_tally *tally);
/* Ends the test when it takes too long. */
void client_tally_wait(struct client_tally *tally, uint32_t done);

/* Publishes the numbers from `first` to before `end`, asynchronously. */
void client_scene_publish_numbers(struct client_scene *scene, struct client_tally *tally,
                                  uint32_t first, uint32_t end);

#endif
