/* An HTTP server whose requests a test answers, and clients of it that are bare sockets in the
 * test's own thread, for tests of broker/http. Time is simulated; whatever waits does so for a
 * bounded real time and then fails the test.
 *
 *   http_fixture_start(&fixture);
 *   http_socket_open(&client, &fixture);
 *   http_socket_send(&client, "GET /path HTTP/1.1\r\nHost: a\r\n\r\n");
 *   http_socket_expect(&client, 200, "GET /path=");
 *   http_socket_close(&client);
 *   http_fixture_stop(&fixture);
 *
 * The server answers 200 with "METHOD path?query=body", and with the header X-Test as X-Echo. Of
 * other paths, /hold is left to the test, /big is answered with much, /cut with a body that could
 * not be written whole, and /none with 204. */
#ifndef LIB_HTTP_FIXTURE_H
#define LIB_HTTP_FIXTURE_H

#include <time.h>

#include "broker/http/server.h"

enum {
    HTTP_FIXTURE_HEADER_SIZE_MAX = 2048,
    HTTP_FIXTURE_HEADER_COUNT_MAX = 8,
    HTTP_FIXTURE_BODY_SIZE_MAX = 100000,
    HTTP_FIXTURE_HEADER_TIMEOUT_MS = 5000,
    HTTP_FIXTURE_IDLE_TIMEOUT_MS = 60000,
    HTTP_FIXTURE_WRITE_TIMEOUT_MS = 10000,
    HTTP_FIXTURE_BODY_RATE_MIN = 1000,
    HTTP_FIXTURE_HELD_MAX = 16,
    HTTP_FIXTURE_BIG_SIZE =
        64 << 20, /* of /big: more than the kernel buffers between two sockets */
    HTTP_FIXTURE_INPUT_MAX = 1 << 20,
};

/* ---- the server under test ---- */

struct http_fixture {
    uv_loop_t loop;
    struct clock clock;
    struct http_server *server;
    bool is_closed;
    struct http_exchange *held[HTTP_FIXTURE_HELD_MAX]; /* requests for /hold, not answered yet */
    size_t held_count;
    size_t request_count;
    size_t abandon_count;
    bool answers_on_abandon;
};

/* For a server that the test makes itself. */
struct http_server_options http_fixture_options(struct http_fixture *fixture);
/* Listens on loopback. `change` may be NULL. */
void http_fixture_start_with(struct http_fixture *fixture,
                             void (*change)(struct http_limits *limits));
void http_fixture_start(struct http_fixture *fixture);
void http_fixture_stop(struct http_fixture *fixture);

/* One turn of its loop, which does not wait. */
void http_fixture_turn(struct http_fixture *fixture);
/* Moves the simulated clock, and has the server look at its deadlines. */
void http_fixture_pass_time(struct http_fixture *fixture, uint64_t ms);
/* Fails the test when what is waited for does not come; *since is 0 at first. */
void http_fixture_check_patience(time_t *since);

#define HTTP_FIXTURE_WAIT(fixture, condition)                                                      \
    for (time_t since_ = 0; !(condition);) {                                                       \
        http_fixture_turn(fixture);                                                                \
        http_fixture_check_patience(&since_);                                                      \
    }

const struct http_counters *http_fixture_counters(const struct http_fixture *fixture);
uint16_t http_fixture_port(const struct http_fixture *fixture);
/* The last request for /hold, which must be there. */
struct http_exchange *http_fixture_take_held(struct http_fixture *fixture);
void http_fixture_respond(struct http_exchange *exchange, int status, const char *text);

/* ---- a client ---- */

struct http_socket {
    struct http_fixture *fixture;
    int fd;
    bool is_closed; /* the server has ended the connection */
    char *data;     /* received and not consumed, terminated */
    size_t size;
};

struct http_socket_response {
    int status;
    char head[4096];
    char body[HTTP_FIXTURE_BODY_SIZE_MAX + 64];
    size_t body_size;
};

/* A connected socket, or -1: nobody listens. */
int http_fixture_connect(const struct http_fixture *fixture);
void http_socket_open(struct http_socket *client, struct http_fixture *fixture);
void http_socket_close(struct http_socket *client);
/* Closes with a reset instead of an orderly end. */
void http_socket_reset(struct http_socket *client);

/* Lets the server run, and takes what it has sent. */
void http_socket_pump(struct http_socket *client);
/* Returns how much was sent before the server ended the connection, or stopped reading when
 * `is_patient` is false. */
size_t http_socket_push(struct http_socket *client, const char *data, size_t size, bool is_patient);
/* Sends all of it. */
void http_socket_send(struct http_socket *client, const char *text);

/* Takes a whole response off what has come; false when it has not. */
bool http_socket_take(struct http_socket *client, struct http_socket_response *response,
                      bool has_body);
void http_socket_wait(struct http_socket *client, struct http_socket_response *response,
                      bool has_body);
/* The next response has this status and, unless NULL, this body. */
void http_socket_expect(struct http_socket *client, int status, const char *body);
/* The server ends the connection, and nothing is left to read. */
void http_socket_expect_end(struct http_socket *client);
/* The connection is open and nothing has been sent on it. */
void http_socket_expect_quiet(struct http_socket *client);
/* The connection serves a further request. */
void http_socket_expect_alive(struct http_socket *client);
/* Sends a request on a connection of its own and expects this status; on an error the connection
 * must end too. */
void http_fixture_expect_status(struct http_fixture *fixture, const char *request, size_t size,
                                int status);

#endif
