/* A client without a thread whose turns the test takes, on a clock of its own, and the fake broker
 * (tests/lib/fake_broker.h) at the other end of its connection. */
#ifndef UNIT_CLIENT_TURNS_H
#define UNIT_CLIENT_TURNS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "client/engine.h"
#include "client/intake.h"
#include "tests/lib/client_fixture.h"

struct client_turns {
    struct flare_client *client;
    struct fake_broker fake;
};

/* With a broker that has said this window. `options` need no address. */
static inline void client_turns_init(struct client_turns *turns,
                                     const struct flare_options *options, uint32_t window)
{
    struct flare_options with_url = *options;
    int pair[2];
    with_url.url = "localhost:1";
    fake_broker_init(&turns->fake);
    turns->fake.welcome.window_requests = window;
    assert_null(engine_create(&with_url, &turns->client));
    assert_null(engine_open_loop(turns->client));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    turns->fake.socket = pair[1];
    clock_init_simulated(&turns->client->clock, 1000);
    turns->client->peer.socket = pair[0];
    turns->client->peer.step = PEER_READY;
    turns->client->has_greeted = true;
    turns->client->welcome = turns->fake.welcome;
    assert_int_equal(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
    engine_turn(turns->client);
}

static inline void client_turns_deinit(struct client_turns *turns)
{
    const struct flare_error closed = {.code = FLARE_ERR_UNAVAILABLE};
    peer_stop(turns->client);
    peer_fail_all(turns->client, &closed);
    outbox_fail_all(turns->client, &closed);
    engine_close_loop(turns->client);
    engine_destroy(turns->client);
    fake_broker_deinit(&turns->fake);
}

/* Moves the clock and takes a turn. */
static inline void client_turns_advance(struct client_turns *turns, uint64_t ms)
{
    clock_advance(&turns->client->clock, ms);
    engine_turn(turns->client);
}

/* The client reads what the broker has sent. */
static inline void client_turns_read(struct client_turns *turns)
{
    (void)uv_run(&turns->client->loop, UV_RUN_NOWAIT);
}

/* A stream that has no threads: what is delivered waits. */
static inline struct flare_stream *client_turns_stream(struct client_turns *turns,
                                                       const struct flare_stream_options *options)
{
    static const struct flare_source source = {"t", "s"};
    struct flare_stream *stream = intake_create(turns->client, &source, options);
    assert_non_null(stream);
    stream->is_detached = false;
    list_append(&turns->client->joining, &stream->link);
    return stream;
}

#endif
