#include "tests/lib/session_scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/session/session_internal.h"

struct session_scene session_scene;

int session_scene_setup(void **state)
{
    (void)state;
    sessions_open(&session_scene.sessions, SESSION_SCENE_SHARDS, NULL);
    session_client_open(&session_scene.client, &session_scene.sessions, false);
    return 0;
}

int session_scene_teardown(void **state)
{
    (void)state;
    session_client_close(&session_scene.client);
    sessions_close(&session_scene.sessions);
    return 0;
}

void session_scene_hold(void)
{
    volumes_hold(&session_scene.sessions.volumes, 0);
    volumes_hold(&session_scene.sessions.volumes, 1);
}

void session_scene_unhold(void)
{
    volumes_unhold(&session_scene.sessions.volumes, 0);
    volumes_unhold(&session_scene.sessions.volumes, 1);
}

void session_scene_pass_time(uint64_t ms)
{
    volumes_advance(&session_scene.sessions.volumes, ms);
    session_server_tick(session_scene.sessions.server);
}

void session_scene_send_pull(uint64_t id, uint32_t max, uint64_t wait_ms)
{
    const struct wire_pull pull = {.id = id,
                                   .topic = span_text("t"),
                                   .subscription = span_text("s"),
                                   .max = max,
                                   .wait_ms = wait_ms};
    session_client_send(&session_scene.client, WIRE_pull, &pull);
}

uint32_t session_scene_pulled(uint64_t id)
{
    (void)session_client_expect(&session_scene.client, WIRE_pulled, id);
    return session_client_deliveries(&session_scene.client, session_scene.deliveries,
                                     SESSION_SCENE_DELIVERIES);
}

uint32_t session_scene_delivered(uint64_t id)
{
    (void)session_client_expect(&session_scene.client, WIRE_deliver, id);
    return session_client_deliveries(&session_scene.client, session_scene.deliveries,
                                     SESSION_SCENE_DELIVERIES);
}

/* The deliveries' receipts as a list. */
static void put_receipts(struct buf *items, uint32_t count)
{
    for (uint32_t index = 0; index < count; index++) {
        const struct wire_receipt receipt = {.receipt = session_scene.deliveries[index].receipt};
        wire_put_record(items, WIRE_RECORD_receipt, &receipt);
    }
}

void session_scene_send_ack(uint64_t id, uint32_t count)
{
    struct wire_ack ack = {.id = id, .topic = span_text("t"), .subscription = span_text("s")};
    struct buf items;
    buf_init(&items, 1 << 20);
    put_receipts(&items, count);
    ack.receipts = (struct wire_list){.count = count, .items = buf_span(&items)};
    session_client_send(&session_scene.client, WIRE_ack, &ack);
    buf_deinit(&items);
}

void session_scene_publish(uint64_t id, uint32_t count, size_t size)
{
    session_client_publish(&session_scene.client, id, count, size);
    assert_int_equal(
        session_client_expect(&session_scene.client, WIRE_published, id)->published.results.count,
        count);
}

void session_scene_open_stream(uint64_t id, uint32_t messages, uint32_t bytes)
{
    const struct wire_consume consume = {.id = id,
                                         .topic = span_text("t"),
                                         .subscription = span_text("s"),
                                         .messages = messages,
                                         .bytes = bytes};
    session_client_send(&session_scene.client, WIRE_consume, &consume);
}

void session_scene_grant(uint64_t id, uint32_t messages, uint32_t bytes)
{
    const struct wire_credit credit = {.id = id, .messages = messages, .bytes = bytes};
    session_client_send(&session_scene.client, WIRE_credit, &credit);
}
