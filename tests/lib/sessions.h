/* A session server over volumes on memory stores, and clients of it that are sockets in the test's
 * own thread. Time is simulated (sessions->volumes.clock); whatever waits does so for a bounded
 * real time and then fails the test. */
#ifndef LIB_SESSIONS_H
#define LIB_SESSIONS_H

#include "broker/session/session.h"
#include "broker/wire/message.h"
#include "tests/lib/volumes.h"

struct sessions {
    struct volumes volumes;
    uv_loop_t loop;
    struct metrics metrics;
    struct session_server *server;
    bool is_closed;
};

/* Limits small enough to be reached. */
extern const struct session_limits sessions_limits;

/* Opens topic "t" of `shards` shards with subscription "s". `limits` may be NULL. */
void sessions_open(struct sessions *sessions, uint32_t shards, const struct session_limits *limits);
/* Once the router has nothing under way, which sessions_close sees to by itself. */
void sessions_destroy_server(struct sessions *sessions);
void sessions_close(struct sessions *sessions);

/* One turn of everything: the loop, and what has come back from the volumes. */
void sessions_turn(struct sessions *sessions);

struct session_client {
    struct sessions *sessions;
    int fd;
    struct buf out; /* not yet taken by the socket */
    struct buf in;
    size_t used;             /* of `in`: frames already given out */
    struct wire_frame frame; /* the last one; its spans are valid until the next */
    bool is_ended;
};

/* Connects; says hello, unless `silent`, and takes the welcome. */
void session_client_open(struct session_client *client, struct sessions *sessions, bool silent);
void session_client_close(struct session_client *client);

void session_client_send(struct session_client *client, enum wire_type type, const void *message);
void session_client_send_raw(struct session_client *client, struct span bytes);
/* `count` messages of `size` bytes to topic "t". */
void session_client_publish(struct session_client *client, uint64_t id, uint32_t count,
                            size_t size);

/* The next frame; it is in client->frame. */
const struct wire_frame *session_client_take(struct session_client *client);
/* The same, which must be of this type and id. */
const struct wire_frame *session_client_expect(struct session_client *client, enum wire_type type,
                                               uint64_t id);
/* A failure of this code whose detail has these words. */
void session_client_expect_failure(struct session_client *client, uint64_t id, enum err_code code,
                                   const char *words);
/* The end of the connection; frames before it are dropped. */
void session_client_expect_end(struct session_client *client);
/* Turns so often that what can come has come; true: a frame is there, not taken. */
bool session_client_has_frame(struct session_client *client);

/* Records of the last frame's list. */
uint32_t session_client_deliveries(const struct session_client *client, struct wire_delivery *out,
                                   uint32_t max);

#endif
