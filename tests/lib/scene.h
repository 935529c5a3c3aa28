/* What most tests of the real broker begin with: a broker on a directory that outlives it, a client
 * of it, a topic "t" with a subscription "s". The functions end the test when an answer is not the
 * expected one; each names the status it wants. */
#ifndef LIB_SCENE_H
#define LIB_SCENE_H

#include "tests/lib/broker.h"

#define SCENE_TOPIC "/v1/topics/t"
#define SCENE_SUB SCENE_TOPIC "/subscriptions/s"

struct scene {
    struct tmpdir tmpdir;
    char data[TMPDIR_PATH_SIZE];
    struct broker broker;
    struct http_client client;
};

enum { SCENE_RECEIPT_SIZE = 64 };

struct scene_message {
    uint32_t shard;
    uint32_t attempt;
    uint64_t sequence;
    uint64_t lease_until_ms;
    char id[32];
    char receipt[SCENE_RECEIPT_SIZE];
    char body[256]; /* cut to fit */
};

/* Starts the broker; `arguments` (ended by NULL, may be NULL) are further ones. */
void scene_init(struct scene *scene, const char *const *arguments);
/* The same with "t" and "s" made; their settings as JSON, NULL: defaults. */
void scene_init_topic(struct scene *scene, const char *topic, const char *sub);
void scene_deinit(struct scene *scene);
/* SIGTERM or, when `kill`, SIGKILL; then a start on the same directory. */
void scene_restart(struct scene *scene, bool kill, const char *const *arguments);
/* Starts a broker that was ended. */
void scene_start(struct scene *scene, const char *const *arguments);

/* A request with a JSON body (NULL: none) that must be answered with `status`. The answer is the
 * client's until the next request. */
void scene_expect(struct http_client *client, int status, const char *method, const char *path,
                  const char *body);
/* A number of the last answer, by names separated by dots; ends the test when it is not there. */
int64_t scene_number(const struct http_client *client, const char *names);
/* A text of the last answer, into `out`. */
char *scene_text(const struct http_client *client, const char *names, char *out, size_t size);

/* Publishes one message to "t"; `headers` as in http_client_request. */
void scene_publish(struct scene *scene, const char *headers, const char *body);
/* Pulls from "s" by `client`, which may be another one; how many of up to `max` came. */
uint32_t scene_pull(struct http_client *client, const char *request, struct scene_message *out,
                    uint32_t max);
/* The messages of an answer to a pull that has been received. */
uint32_t scene_pulled(const struct http_client *client, struct scene_message *out, uint32_t max);
/* "ack", "nack" or "extend" with one receipt and further members (as ",\"delay\":0", or ""). */
void scene_settle(struct http_client *client, int status, const char *verb, const char *receipt,
                  const char *members);

/* Sends a pull that waits, and does not wait for its answer. */
void scene_wait(struct http_client *client, const char *request);
/* Asks until so many pulls wait in the broker; ends the test when they never do. */
void scene_until_waiting(struct scene *scene, int64_t count);

#endif
