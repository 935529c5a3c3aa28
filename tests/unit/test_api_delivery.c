/* broker/http/api_delivery.c: pulling, and settling what was pulled. */
#include "tests/unit/api_fixture.h"

#define SUB "/v1/topics/orders/subscriptions/billing"
#define PACK "Accept: application/msgpack"

/* A leased message in the reply of the fake router. */
static void deliver(uint64_t sequence, const char *key, const char *content_type, struct span body)
{
    struct buf attributes;
    buf_init(&attributes, 1024);
    if (content_type != NULL) {
        attributes_add(&attributes, span_text("content-type"), span_text(content_type));
    }
    const struct delivery delivery = {
        .shard_id = 2,
        .shard_number = 1,
        .sequence = sequence,
        .epoch = 4,
        .grant = 9,
        .attempt = 3,
        .state = MESSAGE_LEASED,
        .published_ms = FIXTURE_START_MS,
        .due_ms = FIXTURE_START_MS + 30000,
        .payload_offset = (uint32_t)fake.reply.payload.size,
        .key_size = (uint32_t)strlen(key),
        .attributes_size = (uint32_t)attributes.size,
        .body_size = (uint32_t)body.size,
    };
    buf_append_text(&fake.reply.payload, key);
    buf_append_span(&fake.reply.payload, buf_span(&attributes));
    buf_append_span(&fake.reply.payload, body);
    buf_append(&fake.reply.items, &delivery, sizeof delivery);
    buf_deinit(&attributes);
    fake.has_reply = true;
}

static struct router_pull *started(void)
{
    assert_int_equal(fake.kind, FAKE_PULL);
    assert_non_null(fake.operation);
    return FAKE_OPERATION(router_pull);
}

/* A pull hands its fields to the router; without any it asks for one message and does not wait. */
static void fields_of_a_pull_reach_the_router(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_POST, SUB "/pull", NULL, NULL);
    struct router_pull *pull = started();
    assert_int_equal(pull->max, 1);
    assert_int_equal(pull->size_max, 1 << 20);
    assert_int_equal(pull->wait_ms, 0);
    assert_int_equal(pull->lease_ms, 0);
    finish();
    call(HTTP_METHOD_POST, SUB "/pull", NULL,
         "{\"max\":100,\"max_bytes\":5000,\"wait\":\"10s\",\"lease\":\"1m\",\"consumer\":\"c-1\"}");
    pull = started();
    assert_true(span_is(pull->topic, "orders"));
    assert_true(span_is(pull->sub, "billing"));
    assert_int_equal(pull->max, 100);
    assert_int_equal(pull->size_max, 5000);
    assert_int_equal(pull->wait_ms, 10000);
    assert_int_equal(pull->lease_ms, 60000);
    finish();
}

/* A wait is cut to the setting's, whoever asks; Prefer says what was applied, and gives way to the
 * document. */
static void waits_are_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        const char *body;
        uint64_t wait_ms;
        const char *applied;
    } cases[] = {
        {NULL, "{\"wait\":\"300s\"}", 20000, ""},
        {"Prefer: wait=7", NULL, 7000, "Preference-Applied: wait=7\n"},
        {"Prefer: respond-async, wait=7", NULL, 7000, "Preference-Applied: wait=7\n"},
        {"Prefer: wait=3600", NULL, 20000, "Preference-Applied: wait=20\n"},
        {"Prefer: wait=18446744073709551615", NULL, 20000, "Preference-Applied: wait=20\n"},
        {"Prefer: wait=7", "{\"wait\":\"1s\"}", 1000, ""},
        {"Prefer: wait=x", NULL, 0, ""},
        {"Prefer: wait=", NULL, 0, ""},
        {"Prefer: handling=lenient", NULL, 0, ""},
    };
    fake.hold = true;
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_POST, SUB "/pull", cases[index].headers, cases[index].body);
        assert_int_equal(started()->wait_ms, cases[index].wait_ms);
        assert_string_equal(answer.headers, cases[index].applied);
        finish();
    }
    call(HTTP_METHOD_POST, SUB "/pull", NULL, NULL);
    finish();
    fake.hold = false;
    call(HTTP_METHOD_POST, SUB "/pull", NULL, "{\"wait\":\"301s\"}");
    expect_problem(ERR_INVALID, "wait");
}

/* When as many pulls wait as may, the next one is answered at once. */
static void too_many_waiters_do_not_wait(void **state)
{
    (void)state;
    fake.hold = true;
    for (uint32_t waiting = 9; waiting <= 10; waiting++) {
        fake.waiting = waiting;
        call(HTTP_METHOD_POST, SUB "/pull", NULL, "{\"wait\":\"1s\"}");
        assert_int_equal(started()->wait_ms, waiting == 10 ? 0 : 1000);
        finish();
    }
}

/* A JSON answer has every field; a body that is no readable text comes in base64. */
static void messages_come_as_json(void **state)
{
    (void)state;
    deliver(17, "customer-7", "text/plain", span_text("say \"hi\"\n"));
    deliver(18, "", NULL, span_of("\0\xff", 2));
    call(HTTP_METHOD_POST, SUB "/pull", NULL, "{\"max\":2}");
    assert_int_equal(answer.status, 200);
    expect_document(answer.json, IN_pulled);
    const json_t *messages = member(answer.json, "messages");
    assert_int_equal(json_array_size(messages), 2);
    const json_t *first = json_array_get(messages, 0);
    expect_document(first, IN_delivery);
    struct receipt receipt;
    assert_true(receipt_parse(span_text(json_string_value(member(first, "receipt"))), &receipt));
    assert_int_equal(receipt.sub_id, 2);
    assert_int_equal(receipt.shard_id, 2);
    assert_int_equal(receipt.sequence, 17);
    assert_int_equal(receipt.epoch, 4);
    assert_int_equal(receipt.grant, 9);
    assert_int_equal(receipt.attempt, 3);
    expect_text(first, "id", "000000020000000000000011");
    expect_number(first, "shard", 1);
    expect_number(first, "sequence", 17);
    expect_number(first, "epoch", 4);
    expect_text(first, "key", "customer-7");
    expect_text(member(first, "attributes"), "content-type", "text/plain");
    expect_number(first, "attempt", 3);
    expect_text(first, "published_at", "2026-01-02T03:04:05.678Z");
    expect_number(first, "published_ms", FIXTURE_START_MS);
    expect_text(first, "lease_until", "2026-01-02T03:04:35.678Z");
    expect_text(first, "body", "say \"hi\"\n");
    assert_null(json_object_get(first, "body_base64"));
    const json_t *second = json_array_get(messages, 1);
    expect_text(second, "body_base64", "AP8=");
    assert_null(json_object_get(second, "body"));
    assert_null(json_object_get(second, "key"));
    assert_int_equal(json_object_size(member(second, "attributes")), 0);
    assert_int_equal(fake.released, 1);
}

/* A MessagePack answer has the same fields, and bodies as they are. */
static void messages_come_as_msgpack(void **state)
{
    (void)state;
    deliver(17, "k", "text/plain", span_of("\0\xff", 2));
    call(HTTP_METHOD_POST, SUB "/pull", PACK, NULL);
    assert_string_equal(answer.content_type, "application/msgpack");
    struct in_value values[IN_VALUES_MAX];
    struct reader reader;
    uint32_t count = 0;
    assert_null(api_in_read_all(buf_span(&answer.body), IN_pulled, (struct in_place){.name = NULL},
                                values));
    reader_init(&reader, values[IN(pulled, messages)].span);
    assert_true(reader_array(&reader, &count));
    assert_int_equal(count, 1);
    assert_true(reader_map(&reader, &count));
    bool body_seen = false;
    for (uint32_t pair = 0; pair < count; pair++) {
        struct span name;
        struct reader_item item;
        assert_true(reader_str(&reader, &name));
        if (span_is(name, "body")) {
            assert_true(reader_next(&reader, &item));
            assert_int_equal(item.kind, READER_BIN);
            assert_true(span_equal(item.bytes, span_of("\0\xff", 2)));
            body_seen = true;
        } else {
            assert_true(reader_skip(&reader));
        }
    }
    assert_true(body_seen);
    assert_int_equal(count, 13);
    assert_true(reader_at_end(&reader));
}

/* The end of a wait without a message is an answer like any other. */
static void an_empty_pull_is_empty(void **state)
{
    (void)state;
    call(HTTP_METHOD_POST, SUB "/pull", NULL, "{\"wait\":\"1s\"}");
    assert_int_equal(answer.status, 200);
    assert_int_equal(json_array_size(member(answer.json, "messages")), 0);
}

/* The worst a body can be, all quotes, still fits the answer. */
static void the_worst_answer_fits(void **state)
{
    (void)state;
    size_t size = 16 << 20;
    char *body = malloc(size);
    assert_non_null(body);
    memset(body, '"', size);
    reply_deinit(&fake.reply);
    reply_init(&fake.reply);
    fake.reply.payload.size_max = size + 4096;
    deliver(1, "", NULL, span_of(body, size));
    assert_false(fake.reply.payload.failed);
    send_bytes(HTTP_METHOD_POST, SUB "/pull", NULL, span_of(NULL, 0));
    assert_int_equal(answer.status, 200);
    assert_true(answer.body.size > 2 * size);
    free(body);
}

/* A client that goes away while it waits cancels its pull, once; the pull still ends. */
static void a_vanished_waiter_cancels_its_pull(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_POST, SUB "/pull", NULL, "{\"wait\":\"1s\"}");
    assert_non_null(exchange.on_abandon);
    exchange.abandoned = true;
    exchange.on_abandon(&exchange);
    assert_int_equal(fake.cancelled, 1);
    assert_null(exchange.on_abandon);
    fake.code = ERR_UNAVAILABLE;
    finish();
    assert_int_equal(answer.status, 503);
    assert_int_equal(fake.released, 1);
}

/* After the answer the client may go: nothing is left to cancel. */
static void an_answered_pull_is_not_cancelled(void **state)
{
    (void)state;
    call(HTTP_METHOD_POST, SUB "/pull", NULL, NULL);
    assert_null(exchange.on_abandon);
    assert_int_equal(fake.cancelled, 0);
}

/* A stopping broker tells waiting pulls to come back. */
static void a_stopping_broker_answers_waiters(void **state)
{
    (void)state;
    fake.code = ERR_UNAVAILABLE;
    call(HTTP_METHOD_POST, SUB "/pull", NULL, "{\"wait\":\"1s\"}");
    expect_problem(ERR_UNAVAILABLE, NULL);
    expect_header("Retry-After: 1\n");
}

/* What is not there cannot be pulled from or settled. */
static void unknown_things_are_not_found(void **state)
{
    (void)state;
    static const char *const actions[] = {"pull", "ack", "nack", "extend"};
    for (size_t index = 0; index < sizeof actions / sizeof actions[0]; index++) {
        char path[128];
        const char *body = index == 0 ? NULL : "{\"receipts\":[\"x\"]}";
        (void)snprintf(path, sizeof path, "/v1/topics/none/subscriptions/billing/%s",
                       actions[index]);
        call(HTTP_METHOD_POST, path, NULL, body);
        expect_problem(ERR_NOT_FOUND, NULL);
        (void)snprintf(path, sizeof path, "/v1/topics/orders/subscriptions/none/%s",
                       actions[index]);
        call(HTTP_METHOD_POST, path, NULL, body);
        expect_problem(ERR_NOT_FOUND, NULL);
        assert_int_equal(fake.started, 0);
    }
}

/* ---- settling ------------------------------------------------------------------------------- */

static char receipts[2][RECEIPT_TEXT_SIZE];

/* {"receipts":[...]} with both, and more members after them. */
static const char *settle_body(const char *more)
{
    static char body[512];
    for (uint32_t index = 0; index < 2; index++) {
        const struct receipt receipt = {2, 1, 17 + index, 4, 9, 3};
        receipt_format(&receipt, receipts[index]);
    }
    (void)snprintf(body, sizeof body, "{\"receipts\":[\"%s\",\"%s\"]%s}", receipts[0], receipts[1],
                   more);
    return body;
}

/* Each action reaches the router with its receipts and what goes with it, and says how many it did.
 */
static void receipts_are_settled(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *more;
        struct router_settle expected;
        const char *counted;
    } cases[] = {
        {SUB "/ack", "", {.kind = ROUTER_ACK}, "acked"},
        {SUB "/nack", "", {.kind = ROUTER_NACK}, "nacked"},
        {SUB "/nack",
         ",\"delay\":\"5s\",\"reason\":\"why\"",
         {.kind = ROUTER_NACK, .has_delay = true, .delay_ms = 5000},
         "nacked"},
        {SUB "/nack", ",\"delay\":0", {.kind = ROUTER_NACK, .has_delay = true}, "nacked"},
        {SUB "/nack", ",\"reject\":true", {.kind = ROUTER_NACK, .reject = true}, "nacked"},
        {SUB "/extend", "", {.kind = ROUTER_EXTEND}, "extended"},
        {SUB "/extend",
         ",\"lease\":\"1m\"",
         {.kind = ROUTER_EXTEND, .lease_ms = 60000},
         "extended"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        const struct router_settle *expected = &cases[index].expected;
        fake.hold = true;
        call(HTTP_METHOD_POST, cases[index].path, NULL, settle_body(cases[index].more));
        assert_int_equal(fake.kind, FAKE_SETTLE);
        const struct router_settle *settle = FAKE_OPERATION(router_settle);
        assert_int_equal(settle->kind, expected->kind);
        assert_int_equal(settle->count, 2);
        assert_int_equal(settle->receipts[1].sequence, 18);
        assert_int_equal(settle->has_delay, expected->has_delay);
        assert_int_equal(settle->delay_ms, expected->delay_ms);
        assert_int_equal(settle->reject, expected->reject);
        assert_int_equal(settle->lease_ms, expected->lease_ms);
        assert_true(span_is(settle->note, index == 2 ? "why" : ""));
        finish();
        fake.hold = false;
        call(HTTP_METHOD_POST, cases[index].path, NULL, settle_body(cases[index].more));
        assert_int_equal(answer.status, 200);
        expect_document(answer.json, IN_settled);
        expect_number(answer.json, cases[index].counted, 2);
        if (expected->kind == ROUTER_EXTEND) {
            expect_number(answer.json, "lease_ms",
                          expected->lease_ms == 0 ? 30000 : expected->lease_ms);
        }
    }
}

/* One receipt that no longer holds makes the whole answer 409, with each result in its place. */
static void lost_leases_are_told(void **state)
{
    (void)state;
    static const enum err_code codes[] = {ERR_LEASE_LOST, ERR_NONE};
    for (size_t index = 0; index < 2; index++) {
        fake.item_codes[1] = ERR_LEASE_LOST;
        fake.code = codes[index];
        call(HTTP_METHOD_POST, SUB "/ack", NULL, settle_body(""));
        expect_problem(ERR_LEASE_LOST, NULL);
        expect_number(answer.json, "acked", 1);
        const json_t *results = member(answer.json, "results");
        assert_int_equal(json_array_size(results), 2);
        expect_text(json_array_get(results, 0), "receipt", receipts[0]);
        expect_text(json_array_get(results, 0), "code", "ok");
        expect_text(json_array_get(results, 1), "receipt", receipts[1]);
        expect_text(json_array_get(results, 1), "code", "lease_lost");
    }
    fake.code = ERR_UNAVAILABLE;
    call(HTTP_METHOD_POST, SUB "/ack", NULL, settle_body(""));
    expect_problem(ERR_UNAVAILABLE, NULL);
    assert_int_equal(fake.released, fake.started);
}

/* A receipt the router says nothing of is not taken for settled. */
static void silence_is_not_success(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_POST, SUB "/ack", NULL, settle_body(""));
    const struct router_settle *settle = FAKE_OPERATION(router_settle);
    assert_int_equal(settle->results[0], ERR_UNKNOWN);
    assert_int_equal(settle->results[1], ERR_UNKNOWN);
    finish();
}

/* What is no receipt, no list of them, or not of the action, refuses the request. */
static void bad_settles_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *body;
        const char *field;
    } cases[] = {
        {SUB "/ack", NULL, "receipts"},
        {SUB "/ack", "{\"receipts\":[]}", "receipts"},
        {SUB "/ack", "{\"receipts\":\"x\"}", "receipts"},
        {SUB "/ack", "{\"receipts\":[\"x\"]}", "receipts[0]"},
        {SUB "/ack", "{\"receipts\":[1]}", "receipts[0]"},
        {SUB "/ack", "{\"receipts\":[[]]}", "receipts[0]"},
        {SUB "/ack", "{\"receipts\":[\"x\"],\"delay\":1}", "delay"},
        {SUB "/extend", "{\"receipts\":[\"x\"],\"lease\":\"13h\"}", "lease"},
        {SUB "/nack", "{\"receipts\":[\"x\"],\"delay\":\"31d\"}", "delay"},
        {SUB "/nack", "{\"receipts\":[\"x\"],\"delay\":1,\"reject\":true}", "delay"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_POST, cases[index].path, NULL, cases[index].body);
        expect_problem(ERR_INVALID, cases[index].field);
        assert_int_equal(fake.started, 0);
    }
}

/* A request has as many receipts as the limit says, and not one more. */
static void receipts_are_bounded(void **state)
{
    (void)state;
    (void)settle_body("");
    for (uint32_t count = CORE_RECEIPTS_MAX; count <= CORE_RECEIPTS_MAX + 1; count++) {
        struct buf body;
        buf_init(&body, 1 << 20);
        writer_map(&body, 1);
        writer_text(&body, "receipts");
        writer_array(&body, count);
        for (uint32_t index = 0; index < count; index++) {
            writer_text(&body, receipts[0]);
        }
        send_bytes(HTTP_METHOD_POST, SUB "/ack", "Content-Type: application/msgpack",
                   buf_span(&body));
        assert_int_equal(answer.status, count == CORE_RECEIPTS_MAX ? 200 : 400);
        buf_deinit(&body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fields_of_a_pull_reach_the_router),
        TEST(waits_are_bounded),
        TEST(too_many_waiters_do_not_wait),
        TEST(messages_come_as_json),
        TEST(messages_come_as_msgpack),
        TEST(an_empty_pull_is_empty),
        TEST(the_worst_answer_fits),
        TEST(a_vanished_waiter_cancels_its_pull),
        TEST(an_answered_pull_is_not_cancelled),
        TEST(a_stopping_broker_answers_waiters),
        TEST(unknown_things_are_not_found),
        TEST(receipts_are_settled),
        TEST(lost_leases_are_told),
        TEST(silence_is_not_success),
        TEST(bad_settles_are_refused),
        TEST(receipts_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
