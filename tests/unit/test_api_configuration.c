/* broker/http/api_topics.c and api_subscriptions.c: configuration objects. */
#include "tests/unit/api_fixture.h"

#define TOPIC "/v1/topics/orders"
#define SUB TOPIC "/subscriptions/billing"

static const struct catalog_change *changed(void)
{
    assert_int_equal(fake.kind, FAKE_CONFIGURE);
    assert_non_null(fake.operation);
    return &FAKE_OPERATION(router_configure)->change;
}

/* Adds a shard's row and one row for each subscription to what the volumes answer. */
static void add_stats(uint32_t number, uint64_t enqueued, uint64_t oldest_ms)
{
    const struct shard_stats shard = {
        .topic_id = 1, .shard_id = number + 1, .number = number, .sub_count = 2};
    buf_append(&fake.reply.items, &shard, sizeof shard);
    for (uint32_t sub = 1; sub <= 2; sub++) {
        const struct sub_stats row = {.sub_id = sub,
                                      .shard_id = number + 1,
                                      .enqueued = enqueued * sub,
                                      .leased = 1,
                                      .scheduled = 2,
                                      .dead = 3,
                                      .oldest_ms = oldest_ms};
        buf_append(&fake.reply.items, &row, sizeof row);
    }
    fake.has_reply = true;
}

/* ---- topics --------------------------------------------------------------------------------- */

/* A topic is created from its document, with defaults where it says nothing, and 201; again it is
 * 200. */
static void topics_are_created_and_replaced(void **state)
{
    (void)state;
    memset(&fake.catalog, 0, sizeof fake.catalog);
    fake.hold = true;
    call(HTTP_METHOD_PUT, TOPIC, NULL, NULL);
    const struct catalog_change *change = changed();
    assert_int_equal(change->op, CATALOG_TOPIC_PUT);
    assert_true(span_is(change->topic, "orders"));
    assert_int_equal(change->shard_count, 0); /* the catalog's to choose */
    assert_int_equal(change->topic_settings.dedup_window_ms, 300000);
    assert_int_equal(change->topic_settings.retention_ms, 0);
    assert_int_equal(change->topic_settings.retention_bytes, 0);
    assert_int_equal(change->topic_settings.durability, DURABILITY_SYNCED);
    assert_false(change->has_version);
    assert_false(change->create_only);
    finish();
    assert_int_equal(answer.status, 201);
    fake.hold = false;
    call(HTTP_METHOD_PUT, TOPIC, NULL,
         "{\"shards\":4,\"retention\":{\"age\":\"1h\"},\"idempotency_window\":0}");
    assert_int_equal(answer.status, 200);
    expect_header("ETag: \"2\"\n");
    expect_document(answer.json, IN_topic_answer);
    expect_text(answer.json, "name", "orders");
    expect_text(answer.json, "state", "active");
    expect_number(answer.json, "shards", 4);
    expect_number(member(answer.json, "retention"), "age_ms", 3600000);
    assert_true(json_is_null(member(member(answer.json, "retention"), "bytes")));
    expect_number(answer.json, "idempotency_window_ms", 0);
    expect_text(answer.json, "durability", "synced");
    expect_text(answer.json, "created_at", "2026-01-02T03:04:05.678Z");
    call(HTTP_METHOD_PUT, TOPIC, NULL, "{\"retention\":null}");
    assert_true(json_is_null(member(answer.json, "retention")));
    call(HTTP_METHOD_PUT, TOPIC, NULL, "{\"durability\":\"relaxed\"}");
    expect_text(answer.json, "durability", "relaxed");
    call(HTTP_METHOD_GET, TOPIC, NULL, NULL);
    expect_text(answer.json, "durability", "relaxed");
    call(HTTP_METHOD_PUT, TOPIC, NULL, "{\"durability\":\"synced\"}");
    expect_text(answer.json, "durability", "synced");
    call(HTTP_METHOD_PUT, TOPIC, NULL, "{\"durability\":null}");
    expect_text(answer.json, "durability", "synced");
}

/* The number of shards never changes, which the catalog says: another is 409. */
static void shards_do_not_change(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_PUT, TOPIC, NULL, "{\"shards\":3}");
    assert_int_equal(changed()->shard_count, 3);
    fake.code = ERR_EXISTS;
    fake.detail = "shards: the topic has 2, which does not change";
    finish();
    expect_problem(ERR_EXISTS, "shards");
}

/* Nonsense in a topic's document is refused and names its field. */
static void bad_topics_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *field;
    } cases[] = {
        {"{\"shards\":0}", "shards"},
        {"{\"shards\":4097}", "shards"},
        {"{\"partitions\":4}", "partitions"},
        {"{\"retention\":{}}", "retention"},
        {"{\"retention\":\"1h\"}", "retention"},
        {"{\"retention\":{\"age\":\"999ms\"}}", "retention.age"},
        {"{\"retention\":{\"bytes\":0}}", "retention.bytes"},
        {"{\"retention\":{\"size\":1}}", "retention.size"},
        {"{\"idempotency_window\":\"8d\"}", "idempotency_window"},
        {"{\"durability\":\"Relaxed\"}", "durability"},
        {"{\"durability\":\"\"}", "durability"},
        {"{\"durability\":1}", "durability"},
        {"[]", NULL},
        {"{", NULL},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_PUT, TOPIC, NULL, cases[index].body);
        expect_problem(ERR_INVALID, cases[index].field);
        assert_int_equal(fake.started, 0);
    }
}

/* If-Match and If-None-Match hold for every method that changes something. */
static void conditions_are_honoured(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        enum err_code code;
        const char *field;
        bool has_version;
        bool create_only;
    } cases[] = {
        {NULL, ERR_NONE, NULL, false, false},
        {"If-Match: \"3\"", ERR_NONE, NULL, true, false},
        {"If-Match: \"1\", \"3\"", ERR_NONE, NULL, true, false},
        {"If-Match: *", ERR_NONE, NULL, true, false},
        {"If-Match: \"2\"", ERR_PRECONDITION, "If-Match", false, false},
        {"If-Match: 3", ERR_PRECONDITION, "If-Match", false, false},
        {"If-Match: W/\"3\"", ERR_PRECONDITION, "If-Match", false, false},
        {"If-None-Match: *", ERR_PRECONDITION, "If-None-Match", false, false},
        {"If-None-Match: \"3\"", ERR_INVALID, "If-None-Match", false, false},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        for (int method = 0; method < 2; method++) {
            fake.hold = cases[index].code == ERR_NONE;
            call(method == 0 ? HTTP_METHOD_PUT : HTTP_METHOD_DELETE, TOPIC, cases[index].headers,
                 NULL);
            if (cases[index].code != ERR_NONE) {
                expect_problem(cases[index].code, cases[index].field);
                continue;
            }
            assert_int_equal(changed()->has_version, cases[index].has_version);
            assert_int_equal(changed()->create_only, cases[index].create_only);
            assert_true(!cases[index].has_version || changed()->version == 3);
            fake.code = ERR_UNAVAILABLE; /* leave the catalog as it is */
            finish();
            fake.code = ERR_NONE;
        }
    }
    memset(&fake.catalog, 0, sizeof fake.catalog);
    fake.hold = false;
    call(HTTP_METHOD_PUT, TOPIC, "If-Match: *", NULL);
    expect_problem(ERR_PRECONDITION, "If-Match");
    fake.hold = true;
    call(HTTP_METHOD_PUT, TOPIC, "If-None-Match: *", NULL);
    assert_true(changed()->create_only);
    finish();
}

/* Deleting what is there is 204 and what is not 404. */
static void topics_are_deleted(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_DELETE, TOPIC, NULL, NULL);
    assert_int_equal(changed()->op, CATALOG_TOPIC_STATE);
    assert_int_equal(changed()->to, CATALOG_DELETING);
    finish();
    assert_int_equal(answer.status, 204);
    assert_int_equal(answer.body.size, 0);
    fake.hold = false;
    call(HTTP_METHOD_DELETE, "/v1/topics/none", NULL, NULL);
    expect_problem(ERR_NOT_FOUND, NULL);
    call(HTTP_METHOD_GET, "/v1/topics/none", NULL, NULL);
    expect_problem(ERR_NOT_FOUND, NULL);
}

/* The list has what there is and, on its last page, no cursor. */
static void topics_are_listed(void **state)
{
    (void)state;
    call(HTTP_METHOD_GET, "/v1/topics", NULL, NULL);
    expect_document(answer.json, IN_topic_list);
    assert_int_equal(json_array_size(member(answer.json, "items")), 1);
    expect_document(json_array_get(member(answer.json, "items"), 0), IN_topic_answer);
    assert_true(json_is_null(member(answer.json, "next")));
    call(HTTP_METHOD_GET, "/v1/topics?cursor=orders", NULL, NULL);
    assert_int_equal(json_array_size(member(answer.json, "items")), 0);
}

/* ---- subscriptions -------------------------------------------------------------------------- */

/* A new subscription has the defaults where its document says nothing. */
static void subs_are_created(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_PUT, TOPIC "/subscriptions/new", NULL, "{\"retry\":null}");
    const struct catalog_change *change = changed();
    assert_int_equal(change->op, CATALOG_SUB_PUT);
    assert_true(span_is(change->topic, "orders"));
    assert_true(span_is(change->sub, "new"));
    assert_true(change->keep_paused); /* when another makes and pauses it first */
    assert_int_equal(change->start, START_LATEST);
    const struct sub_settings *settings = &change->sub_settings;
    assert_int_equal(settings->lease_ms, 30000);
    assert_int_equal(settings->max_attempts, 16);
    assert_int_equal(settings->retry_delay_ms, 0);
    assert_int_equal(settings->max_in_flight, 0);
    assert_false(settings->paused);
    fake.hold = false;
    finish();
    while (fake.operation != NULL) {
        finish();
    }
    assert_int_equal(answer.status, 201);
    expect_header("ETag: \"1\"\n");
    call(HTTP_METHOD_PUT, "/v1/topics/none/subscriptions/new", NULL, NULL);
    expect_problem(ERR_NOT_FOUND, NULL);
}

/* Every setting of the document reaches the catalog. */
static void settings_reach_the_catalog(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_PUT, SUB, NULL,
         "{\"mode\":\"passive\",\"ordering\":\"none\",\"lease\":\"1m\",\"max_attempts\":0,"
         "\"retry\":{\"delay\":\"2s\"},\"max_in_flight\":9,\"start\":\"2026-01-02T03:04:05Z\"}");
    const struct catalog_change *change = changed();
    assert_int_equal(change->sub_settings.lease_ms, 60000);
    assert_int_equal(change->sub_settings.max_attempts, 0);
    assert_int_equal(change->sub_settings.retry_delay_ms, 2000);
    assert_int_equal(change->sub_settings.max_in_flight, 9);
    assert_int_equal(change->start, START_TIME);
    assert_int_equal(change->start_value, UINT64_C(1767323045000));
    finish();
    finish();
    static const struct {
        const char *body;
        enum start_at start;
        uint64_t value;
    } starts[] = {{"{\"start\":\"latest\"}", START_LATEST, 0},
                  {"{\"start\":\"earliest\"}", START_EARLIEST, 0},
                  {"{\"start\":1767323045000}", START_TIME, UINT64_C(1767323045000)}};
    for (size_t index = 0; index < 3; index++) {
        call(HTTP_METHOD_PUT, SUB, NULL, starts[index].body);
        assert_int_equal(changed()->start, starts[index].start);
        assert_int_equal(changed()->start_value, starts[index].value);
        finish();
        finish();
    }
}

/* What later versions offer is 501 and named; nonsense is 400. */
static void bad_subs_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum err_code code;
        const char *field;
    } cases[] = {
        {"{\"mode\":\"push\"}", ERR_NOT_IMPLEMENTED, "mode"},
        {"{\"ordering\":\"key\"}", ERR_NOT_IMPLEMENTED, "ordering"},
        {"{\"ordering\":\"shard\"}", ERR_NOT_IMPLEMENTED, "ordering"},
        {"{\"mode\":\"pull\"}", ERR_INVALID, "mode"},
        {"{\"ordering\":\"ke\"}", ERR_INVALID, "ordering"},
        {"{\"lease\":\"99ms\"}", ERR_INVALID, "lease"},
        {"{\"retry\":{\"delay\":\"31d\"}}", ERR_INVALID, "retry.delay"},
        {"{\"retry\":{\"max\":1}}", ERR_INVALID, "retry.max"},
        {"{\"start\":\"now\"}", ERR_INVALID, "start"},
        {"{\"start\":{}}", ERR_INVALID, "start"},
        {"{\"endpoint\":\"http://x\"}", ERR_INVALID, "endpoint"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_PUT, SUB, NULL, cases[index].body);
        expect_problem(cases[index].code, cases[index].field);
        assert_int_equal(fake.started, 0);
    }
}

/* A subscription is shown with its depths, summed over the shards. */
static void depths_are_summed(void **state)
{
    (void)state;
    add_stats(0, 10, FIXTURE_START_MS - 500);
    add_stats(1, 5, FIXTURE_START_MS - 700);
    call(HTTP_METHOD_GET, SUB, NULL, NULL);
    assert_int_equal(answer.status, 200);
    expect_header("ETag: \"5\"\n");
    expect_document(answer.json, IN_sub_answer);
    expect_text(answer.json, "name", "billing");
    expect_text(answer.json, "topic", "orders");
    expect_text(answer.json, "state", "active");
    expect_number(answer.json, "lease_ms", 30000);
    expect_number(member(answer.json, "retry"), "delay_ms", 0);
    expect_number(member(answer.json, "enqueue_queue"), "depth", 30);
    const json_t *queue = member(answer.json, "delivery_queue");
    expect_number(queue, "leased", 2);
    expect_number(queue, "scheduled", 4);
    expect_number(queue, "blocked", 0);
    expect_number(queue, "dead", 6);
    expect_number(answer.json, "oldest_unacknowledged_age_ms", 700);
}

/* Without an unfinished message there is no age. */
static void no_message_has_no_age(void **state)
{
    (void)state;
    add_stats(0, 0, 0);
    call(HTTP_METHOD_GET, SUB, NULL, NULL);
    assert_true(json_is_null(member(answer.json, "oldest_unacknowledged_age_ms")));
}

/* The list pages through all subscriptions, each with its own depths. */
static void subs_are_listed(void **state)
{
    (void)state;
    add_stats(0, 10, FIXTURE_START_MS);
    call(HTTP_METHOD_GET, TOPIC "/subscriptions?limit=1", NULL, NULL);
    expect_document(answer.json, IN_sub_list);
    const json_t *items = member(answer.json, "items");
    assert_int_equal(json_array_size(items), 1);
    expect_text(json_array_get(items, 0), "name", "audit");
    expect_number(member(json_array_get(items, 0), "enqueue_queue"), "depth", 10);
    expect_text(answer.json, "next", "audit");
    call(HTTP_METHOD_GET, TOPIC "/subscriptions?limit=1&cursor=audit", NULL, NULL);
    items = member(answer.json, "items");
    expect_text(json_array_get(items, 0), "name", "billing");
    expect_number(member(json_array_get(items, 0), "enqueue_queue"), "depth", 20);
    assert_true(json_is_null(member(answer.json, "next")));
}

/* Pausing changes that and nothing else; it holds until resumed, whatever is put in between. */
static void pausing_keeps_the_settings(void **state)
{
    (void)state;
    fake.catalog.subs[1].settings.max_in_flight = 7;
    call(HTTP_METHOD_POST, SUB "/pause", NULL, NULL);
    assert_int_equal(answer.status, 200);
    expect_text(answer.json, "state", "paused");
    expect_number(answer.json, "max_in_flight", 7);
    call(HTTP_METHOD_POST, SUB "/pause", NULL, "{}");
    expect_text(answer.json, "state", "paused");
    call(HTTP_METHOD_PUT, SUB, NULL, "{\"lease\":\"1m\"}");
    expect_text(answer.json, "state", "paused");
    expect_number(answer.json, "lease_ms", 60000);
    expect_number(answer.json, "max_in_flight", 0);
    call(HTTP_METHOD_POST, SUB "/resume", NULL, NULL);
    expect_text(answer.json, "state", "active");
    expect_number(answer.json, "lease_ms", 60000);
    call(HTTP_METHOD_POST, SUB "/pause", NULL, "{\"for\":1}");
    expect_problem(ERR_INVALID, "for");
    call(HTTP_METHOD_POST, TOPIC "/subscriptions/none/pause", NULL, NULL);
    expect_problem(ERR_NOT_FOUND, NULL);
}

/* A change that lost a race is computed again from what is there then; the client's own condition
 * is not retried. */
static void lost_races_are_run_again(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_POST, SUB "/pause", NULL, NULL);
    assert_int_equal(changed()->version, 5);
    fake.catalog.subs[1].version = 6; /* somebody else was faster */
    fake.catalog.subs[1].settings.lease_ms = 99000;
    fake.refuse_versions = 1;
    finish();
    assert_false(answer.done);
    assert_int_equal(changed()->version, 6);
    assert_int_equal(changed()->sub_settings.lease_ms, 99000);
    assert_true(changed()->sub_settings.paused);
    finish();
    finish();
    assert_int_equal(answer.status, 200);
    fake.hold = false;
    fake.refuse_versions = 1;
    call(HTTP_METHOD_POST, SUB "/pause", "If-Match: *", NULL);
    expect_problem(ERR_PRECONDITION, NULL);
    fake.refuse_versions = 1000; /* and not for ever */
    call(HTTP_METHOD_POST, SUB "/pause", NULL, NULL);
    expect_problem(ERR_PRECONDITION, NULL);
    assert_int_equal(fake.released, fake.started);
}

/* Deleting a subscription is asked of the catalog by name. */
static void subs_are_deleted(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_DELETE, SUB, "If-Match: \"5\"", NULL);
    assert_int_equal(changed()->op, CATALOG_SUB_STATE);
    assert_int_equal(changed()->to, CATALOG_DELETING);
    assert_true(span_is(changed()->sub, "billing"));
    assert_int_equal(changed()->version, 5);
    finish();
    assert_int_equal(answer.status, 204);
    fake.hold = false;
    call(HTTP_METHOD_DELETE, TOPIC "/subscriptions/none", NULL, NULL);
    expect_problem(ERR_NOT_FOUND, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(topics_are_created_and_replaced),
        TEST(shards_do_not_change),
        TEST(bad_topics_are_refused),
        TEST(conditions_are_honoured),
        TEST(topics_are_deleted),
        TEST(topics_are_listed),
        TEST(subs_are_created),
        TEST(settings_reach_the_catalog),
        TEST(bad_subs_are_refused),
        TEST(depths_are_summed),
        TEST(no_message_has_no_age),
        TEST(subs_are_listed),
        TEST(pausing_keeps_the_settings),
        TEST(lost_races_are_run_again),
        TEST(subs_are_deleted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
