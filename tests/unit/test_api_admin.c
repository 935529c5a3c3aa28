/* broker/http/api_admin.c: looking at a subscription and repairing it; the shards of a topic. */
#include "tests/unit/api_fixture.h"

#define TOPIC "/v1/topics/orders"
#define SUB TOPIC "/subscriptions/billing"

/* A message of the given state in the reply of the fake router, with key "k", body "b" and note
 * "n". */
static void find(enum message_state state, enum dead_reason reason)
{
    const struct delivery delivery = {
        .shard_id = 2,
        .shard_number = 1,
        .sequence = 17,
        .attempt = 3,
        .state = (uint8_t)state,
        .reason = (uint8_t)reason,
        .published_ms = FIXTURE_START_MS,
        .due_ms = FIXTURE_START_MS + 1000,
        .expires_ms = reason == DEAD_EXPIRED ? FIXTURE_START_MS + 500 : 0,
        .payload_offset = (uint32_t)fake.reply.payload.size,
        .key_size = 1,
        .body_size = 1,
        .note_size = 1,
    };
    buf_append_text(&fake.reply.payload, "kbn");
    buf_append(&fake.reply.items, &delivery, sizeof delivery);
    fake.has_reply = true;
}

/* ---- peek ----------------------------------------------------------------------------------- */

/* Each state is asked for by its name, from the place the cursor names. */
static void states_and_cursors_reach_the_router(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        enum message_state state;
        uint32_t max;
        uint32_t shard_id;
        uint64_t sequence;
    } cases[] = {
        {"state=enqueued", MESSAGE_NONE, 30, 0, 0},
        {"state=leased&limit=5", MESSAGE_LEASED, 5, 0, 0},
        {"state=scheduled", MESSAGE_SCHEDULED, 30, 0, 0},
        {"state=blocked", MESSAGE_BLOCKED, 30, 0, 0},
        {"state=dead&cursor=000000020000000000000011", MESSAGE_DEAD, 30, 2, 17},
    };
    fake.hold = true;
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        char path[160];
        (void)snprintf(path, sizeof path, SUB "/messages?%s", cases[index].query);
        call(HTTP_METHOD_GET, path, NULL, NULL);
        assert_int_equal(fake.kind, FAKE_PEEK);
        const struct router_peek *peek = FAKE_OPERATION(router_peek);
        assert_int_equal(peek->state, cases[index].state);
        assert_int_equal(peek->max, cases[index].max);
        assert_int_equal(peek->from_shard_id, cases[index].shard_id);
        assert_int_equal(peek->from_sequence, cases[index].sequence);
        assert_true(span_is(peek->sub, "billing"));
        finish();
    }
}

/* No state, a wrong one, or a cursor of nowhere is refused. */
static void bad_peeks_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        const char *field;
    } cases[] = {{"", "state"},
                 {"?state=done", "state"},
                 {"?state=dead&cursor=x", "cursor"},
                 {"?state=dead&limit=0", "limit"},
                 {"?state=dead&body=x", "body"}};
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        char path[160];
        (void)snprintf(path, sizeof path, SUB "/messages%s", cases[index].query);
        call(HTTP_METHOD_GET, path, NULL, NULL);
        expect_problem(ERR_INVALID, cases[index].field);
        assert_int_equal(fake.started, 0);
    }
    call(HTTP_METHOD_GET, TOPIC "/subscriptions/none/messages?state=dead", NULL, NULL);
    expect_problem(ERR_NOT_FOUND, NULL);
}

/* What a message shows depends on its state; one that is due again is still scheduled. */
static void messages_show_their_state(void **state)
{
    (void)state;
    static const struct {
        enum message_state state;
        enum dead_reason reason;
        const char *name;
        const char *reason_name;
        const char *time; /* NULL: none */
    } cases[] = {
        {MESSAGE_NONE, DEAD_NONE, "enqueued", NULL, NULL},
        {MESSAGE_LEASED, DEAD_NONE, "leased", NULL, "lease_until_ms"},
        {MESSAGE_SCHEDULED, DEAD_NONE, "scheduled", NULL, "due_ms"},
        {MESSAGE_READY, DEAD_NONE, "scheduled", NULL, "due_ms"},
        {MESSAGE_BLOCKED, DEAD_NONE, "blocked", NULL, NULL},
        {MESSAGE_DEAD, DEAD_ATTEMPTS, "dead", "attempts", "dead_ms"},
        {MESSAGE_DEAD, DEAD_EXPIRED, "dead", "expired", "dead_ms"},
        {MESSAGE_DEAD, DEAD_REJECTED, "dead", "rejected", "dead_ms"},
        {MESSAGE_DEAD, DEAD_CORRUPT, "dead", "corrupt", "dead_ms"},
    };
    enum { CASES = sizeof cases / sizeof cases[0] };
    for (size_t index = 0; index < CASES; index++) {
        find(cases[index].state, cases[index].reason);
    }
    call(HTTP_METHOD_GET, SUB "/messages?state=dead", NULL, NULL);
    expect_document(answer.json, IN_message_list);
    const json_t *items = member(answer.json, "items");
    assert_int_equal(json_array_size(items), CASES);
    for (size_t index = 0; index < CASES; index++) {
        const json_t *item = json_array_get(items, index);
        expect_document(item, IN_peeked);
        expect_text(item, "id", "000000020000000000000011");
        expect_text(item, "state", cases[index].name);
        expect_text(item, "key", "k");
        expect_text(item, "body", "b");
        expect_number(item, "size", 1);
        expect_number(item, "attempts", 3);
        assert_null(json_object_get(item, "receipt")); /* looking gives no right to finish */
        if (cases[index].time != NULL) {
            expect_number(item, cases[index].time, FIXTURE_START_MS + 1000);
        }
        if (cases[index].reason_name != NULL) {
            expect_text(item, "reason", cases[index].reason_name);
            expect_text(item, "note", "n");
        }
        assert_int_equal(json_object_get(item, "expires_ms") != NULL,
                         cases[index].reason == DEAD_EXPIRED);
    }
    assert_true(json_is_null(member(answer.json, "next")));
}

/* Bodies can be left out, and the next page is named. */
static void pages_and_bodies(void **state)
{
    (void)state;
    find(MESSAGE_NONE, DEAD_NONE);
    fake.more = true;
    call(HTTP_METHOD_GET, SUB "/messages?state=enqueued&body=false", NULL, NULL);
    assert_null(json_object_get(json_array_get(member(answer.json, "items"), 0), "body"));
    expect_text(answer.json, "next", "000000020000000000000005");
}

/* ---- redrive, purge, seek ------------------------------------------------------------------- */

static const struct router_change *change(const char *path, const char *body)
{
    fake.hold = true;
    call(HTTP_METHOD_POST, path, NULL, body);
    if (answer.done) {
        fail_msg("%s: %.*s", body, (int)answer.body.size, (const char *)answer.body.data);
    }
    assert_int_equal(fake.kind, FAKE_CHANGE);
    return FAKE_OPERATION(router_change);
}

/* A redrive says which dead letters, how many, and whether only to count. */
static void redrives_reach_the_router(void **state)
{
    (void)state;
    const struct router_change *asked = change(SUB "/redrive", NULL);
    const struct redrive *redrive = &asked->command.redrive;
    assert_int_equal(asked->command.type, COMMAND_REDRIVE);
    assert_int_equal(asked->shard_number, UINT32_MAX);
    assert_int_equal(redrive->reason, DEAD_NONE);
    assert_int_equal(redrive->max, 1000);
    assert_false(redrive->dry_run);
    fake.count = 12;
    fake.more = true;
    finish();
    expect_document(answer.json, IN_redriven);
    expect_number(answer.json, "redriven", 12);
    assert_true(json_is_true(member(answer.json, "more")));
    asked = change(SUB "/redrive",
                   "{\"reason\":\"rejected\",\"shard\":1,\"limit\":5,\"dry_run\":true}");
    redrive = &asked->command.redrive;
    assert_int_equal(redrive->reason, DEAD_REJECTED);
    assert_int_equal(asked->shard_number, 1);
    assert_int_equal(redrive->max, 5);
    assert_true(redrive->dry_run);
    finish();
    assert_true(json_is_true(member(answer.json, "dry_run")));
}

/* A single message is redriven by its id; one that is no dead letter is not found. */
static void one_message_is_redriven(void **state)
{
    (void)state;
    const struct router_change *asked =
        change(SUB "/redrive", "{\"id\":\"000000020000000000000011\"}");
    assert_int_equal(asked->shard_number, 1);
    assert_true(asked->command.redrive.has_sequence);
    assert_int_equal(asked->command.redrive.sequence, 17);
    fake.count = 1;
    finish();
    expect_number(answer.json, "redriven", 1);
    fake.count = 0;
    fake.hold = false;
    call(HTTP_METHOD_POST, SUB "/redrive", NULL, "{\"id\":\"000000020000000000000011\"}");
    expect_problem(ERR_NOT_FOUND, "id");
    call(HTTP_METHOD_POST, SUB "/redrive", NULL, "{\"id\":\"0000000f0000000000000011\"}");
    expect_problem(ERR_NOT_FOUND, "id");
    call(HTTP_METHOD_POST, SUB "/redrive", NULL,
         "{\"id\":\"000000020000000000000011\",\"shard\":0}");
    expect_problem(ERR_NOT_FOUND, "id");
    assert_int_equal(fake.released, fake.started);
}

/* A purge names what it drops; without a word it drops nothing. */
static void purges_reach_the_router(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        struct purge expected;
    } cases[] = {
        {"{\"what\":\"all\"}", {.enqueued = true, .delivery = true, .dead = true}},
        {"{\"what\":[\"enqueued\"]}", {.enqueued = true}},
        {"{\"what\":[\"dead\",\"delivery\"]}", {.delivery = true, .dead = true}},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        const struct router_change *asked = change(SUB "/purge", cases[index].body);
        assert_int_equal(asked->command.type, COMMAND_PURGE);
        assert_int_equal(asked->command.purge.enqueued, cases[index].expected.enqueued);
        assert_int_equal(asked->command.purge.delivery, cases[index].expected.delivery);
        assert_int_equal(asked->command.purge.dead, cases[index].expected.dead);
        fake.count = 3;
        finish();
        expect_document(answer.json, IN_purged);
        expect_number(answer.json, "purged", 3);
    }
}

/* A seek goes to an end, a time, or a place in one shard. */
static void seeks_reach_the_router(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum start_at to;
        uint64_t value;
        uint32_t shard;
        bool dry_run;
    } cases[] = {
        {"{\"to\":\"earliest\"}", START_EARLIEST, 0, UINT32_MAX, false},
        {"{\"to\":\"latest\",\"dry_run\":true}", START_LATEST, 0, UINT32_MAX, true},
        {"{\"to\":\"1970-01-01T00:00:01Z\"}", START_TIME, 1000, UINT32_MAX, false},
        {"{\"to\":1000}", START_TIME, 1000, UINT32_MAX, false},
        {"{\"to\":{\"shard\":1,\"sequence\":17}}", START_SEQUENCE, 17, 1, false},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        const struct router_change *asked = change(SUB "/seek", cases[index].body);
        assert_int_equal(asked->command.type, COMMAND_SEEK);
        assert_int_equal(asked->command.seek.to, cases[index].to);
        assert_int_equal(asked->command.seek.value, cases[index].value);
        assert_int_equal(asked->command.seek.dry_run, cases[index].dry_run);
        assert_int_equal(asked->shard_number, cases[index].shard);
        fake.count = 9;
        finish();
        expect_document(answer.json, IN_moved);
        expect_number(answer.json, "moved", 9);
    }
}

/* Repairs that say nothing, or nonsense, change nothing. */
static void bad_repairs_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *body;
        const char *field;
    } cases[] = {
        {SUB "/redrive", "{\"reason\":\"none\"}", "reason"},
        {SUB "/redrive", "{\"limit\":0}", "limit"},
        {SUB "/redrive", "{\"id\":\"x\"}", "id"},
        {SUB "/redrive", "{\"shard\":2}", "shard"},
        {SUB "/purge", NULL, "what"},
        {SUB "/purge", "{\"what\":[]}", "what"},
        {SUB "/purge", "{\"what\":\"dead\"}", "what"},
        {SUB "/purge", "{\"what\":[\"all\"]}", "what"},
        {SUB "/purge", "{\"what\":[\"dead\",1]}", "what"},
        {SUB "/purge", "{\"what\":1}", "what"},
        {SUB "/seek", NULL, "to"},
        {SUB "/seek", "{\"to\":\"yesterday\"}", "to"},
        {SUB "/seek", "{\"to\":-1}", "to"},
        {SUB "/seek", "{\"to\":{\"shard\":1}}", "to.sequence"},
        {SUB "/seek", "{\"to\":{\"shard\":2,\"sequence\":1}}", "to.shard"},
        {SUB "/seek", "{\"to\":[1]}", "to"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_POST, cases[index].path, NULL, cases[index].body);
        expect_problem(ERR_INVALID, cases[index].field);
        assert_int_equal(fake.started, 0);
    }
}

/* ---- shards --------------------------------------------------------------------------------- */

static void add_shard(uint32_t number)
{
    const struct shard_stats shard = {
        .topic_id = 1,
        .shard_id = number + 1,
        .number = number,
        .sub_count = 1,
        .hash_first = number == 0 ? 0 : UINT64_C(1) << 63,
        .hash_last = number == 0 ? (UINT64_C(1) << 63) - 1 : UINT64_MAX,
        .next_sequence = 18,
        .retained_from = 5,
    };
    const struct sub_stats row = {
        .sub_id = 2, .shard_id = number + 1, .cursor = 12, .enqueued = 6, .oldest_ms = 0};
    buf_append(&fake.reply.items, &shard, sizeof shard);
    buf_append(&fake.reply.items, &row, sizeof row);
    fake.has_reply = true;
}

/* Shards come in order of number, whichever volume answered first, and page by number. */
static void shards_are_listed(void **state)
{
    (void)state;
    add_shard(1);
    add_shard(0);
    call(HTTP_METHOD_GET, TOPIC "/shards", NULL, NULL);
    expect_document(answer.json, IN_shard_list);
    const json_t *items = member(answer.json, "items");
    assert_int_equal(json_array_size(items), 2);
    for (uint32_t number = 0; number < 2; number++) {
        const json_t *shard = json_array_get(items, number);
        expect_document(shard, IN_shard);
        expect_number(shard, "shard", number);
        expect_number(shard, "volume", number);
        expect_number(shard, "next_sequence", 18);
        expect_number(shard, "retained_from", 5);
        const json_t *sub = json_array_get(member(shard, "subscriptions"), 0);
        expect_text(sub, "name", "billing");
        expect_number(sub, "cursor", 12);
        expect_number(sub, "enqueued", 6);
        assert_true(json_is_null(member(sub, "oldest_unacknowledged_age_ms")));
    }
    expect_text(json_array_get(items, 0), "hash_last", "7fffffffffffffff");
    expect_text(json_array_get(items, 1), "hash_first", "8000000000000000");
    call(HTTP_METHOD_GET, TOPIC "/shards?limit=1", NULL, NULL);
    expect_number(json_array_get(member(answer.json, "items"), 0), "shard", 0);
    expect_text(answer.json, "next", "1");
    call(HTTP_METHOD_GET, TOPIC "/shards?limit=1&cursor=1", NULL, NULL);
    expect_number(json_array_get(member(answer.json, "items"), 0), "shard", 1);
    assert_true(json_is_null(member(answer.json, "next")));
    call(HTTP_METHOD_GET, TOPIC "/shards?cursor=x", NULL, NULL);
    expect_problem(ERR_INVALID, "cursor");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(states_and_cursors_reach_the_router),
        TEST(bad_peeks_are_refused),
        TEST(messages_show_their_state),
        TEST(pages_and_bodies),
        TEST(redrives_reach_the_router),
        TEST(one_message_is_redriven),
        TEST(purges_reach_the_router),
        TEST(seeks_reach_the_router),
        TEST(bad_repairs_are_refused),
        TEST(shards_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
