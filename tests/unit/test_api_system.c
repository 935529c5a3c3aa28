/* broker/http/api_system.c and api_metrics.c: status, probes, log level, metrics. */
#include "tests/unit/api_fixture.h"

#include "broker/base/log.h"

static void expect_in_body(const char *text)
{
    buf_append_byte(&answer.body, '\0');
    if (strstr((const char *)answer.body.data, text) == NULL) {
        fail_msg("no \"%s\" in\n%s", text, (const char *)answer.body.data);
    }
    answer.body.size--;
}

/* The status names the version, counts what there is and shows every volume, the catalog last. */
static void status_shows_the_broker(void **state)
{
    (void)state;
    clock_advance(&fixture_clock, 1234);
    fake.waiting = 3;
    fake.volume_failed = true;
    call(HTTP_METHOD_GET, "/v1/status", NULL, NULL);
    assert_int_equal(answer.status, 200);
    expect_document(answer.json, IN_status);
    expect_text(answer.json, "wire", "");
    expect_text(answer.json, "version", "0.1.0+gabc1234.20260101");
    expect_text(answer.json, "commit", "abc1234");
    expect_text(answer.json, "started_at", "2026-01-02T03:04:05.678Z");
    expect_number(answer.json, "uptime_ms", 1234);
    expect_text(answer.json, "state", "running");
    expect_number(answer.json, "topics", 1);
    expect_number(answer.json, "subscriptions", 2);
    expect_number(answer.json, "waiting_pulls", 3);
    const json_t *volumes = member(answer.json, "volumes");
    assert_int_equal(json_array_size(volumes), 2);
    expect_document(json_array_get(volumes, 0), IN_volume);
    expect_text(json_array_get(volumes, 0), "state", "failed");
    expect_text(json_array_get(volumes, 0), "failure", "fsync: EIO");
    expect_text(json_array_get(volumes, 1), "name", "catalog");
    assert_true(json_is_null(member(json_array_get(volumes, 1), "failure")));
    api_set_wire(api, "127.0.0.1:8089");
    api_drain(api);
    call(HTTP_METHOD_GET, "/v1/status", NULL, NULL);
    expect_text(answer.json, "wire", "127.0.0.1:8089");
    expect_text(answer.json, "state", "stopping");
}

/* The process is healthy while it answers, whatever its volumes do. */
static void health_is_to_answer(void **state)
{
    (void)state;
    fake.volume_failed = true;
    api_drain(api);
    call(HTTP_METHOD_GET, "/healthz", NULL, NULL);
    assert_int_equal(answer.status, 200);
    expect_in_body("ok\n");
}

/* Ready is: not stopping and no volume failed. What is wrong is named; verbose names all. */
static void readiness_names_what_is_wrong(void **state)
{
    (void)state;
    call(HTTP_METHOD_GET, "/readyz", NULL, NULL);
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body.size, strlen("ready\n"));
    call(HTTP_METHOD_GET, "/readyz?verbose", NULL, NULL);
    expect_in_body("[+] running ok\n[+] volume-0 ok\n[+] catalog ok\nready\n");
    fake.volume_full = true;
    call(HTTP_METHOD_GET, "/readyz?verbose", NULL, NULL);
    assert_int_equal(answer.status, 200);
    expect_in_body("[+] volume-0 ok, but full");
    fake.volume_failed = true;
    call(HTTP_METHOD_GET, "/readyz", NULL, NULL);
    assert_int_equal(answer.status, 503);
    expect_in_body("[-] volume-0 failed: fsync: EIO\nnot ready\n");
    fake.volume_failed = false;
    api_drain(api);
    call(HTTP_METHOD_GET, "/readyz", NULL, NULL);
    assert_int_equal(answer.status, 503);
    expect_in_body("[-] running failed: the broker is stopping\n");
}

/* The log level changes while the broker runs. */
static void the_log_level_changes(void **state)
{
    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    call(HTTP_METHOD_GET, "/v1/log-level", NULL, NULL);
    expect_text(answer.json, "level", "error");
    call(HTTP_METHOD_PUT, "/v1/log-level", NULL, "{\"level\":\"warn\"}");
    assert_int_equal(answer.status, 200);
    expect_document(answer.json, IN_log_level);
    expect_text(answer.json, "level", "warn");
    assert_int_equal(log_level(), LOG_LEVEL_WARN);
    call(HTTP_METHOD_PUT, "/v1/log-level", NULL, "{\"level\":\"loud\"}");
    expect_problem(ERR_INVALID, "level");
    assert_int_equal(log_level(), LOG_LEVEL_WARN);
    call(HTTP_METHOD_PUT, "/v1/log-level", NULL, NULL);
    expect_problem(ERR_INVALID, "level");
}

/* The metrics page has the volumes, the subscriptions with their sums, and the answers given so
 * far. */
static void metrics_show_what_there_is(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < 2; number++) {
        const struct shard_stats shard = {
            .topic_id = 1, .shard_id = number + 1, .number = number, .sub_count = 1};
        const struct sub_stats row = {.sub_id = 2,
                                      .shard_id = number + 1,
                                      .enqueued = 10,
                                      .leased = 2,
                                      .scheduled = 1,
                                      .dead = 4,
                                      .oldest_ms = FIXTURE_START_MS - 1500 * (number + 1)};
        buf_append(&fake.reply.items, &shard, sizeof shard);
        buf_append(&fake.reply.items, &row, sizeof row);
    }
    fake.has_reply = true;
    fake.waiting = 3;
    call(HTTP_METHOD_GET, "/v1/topics/none", NULL, NULL); /* a 404 to count */
    call(HTTP_METHOD_GET, "/metrics", NULL, NULL);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.content_type, METRICS_CONTENT_TYPE);
    static const char *const lines[] = {
        "flare_build_info{version=\"0.1.0+gabc1234.20260101\",commit=\"abc1234\"} 1\n",
        "flare_start_time_seconds 1767323045.678\n",
        "flare_pulls_waiting 3\n",
        "flare_volume_state{volume=\"volume-0\",state=\"ready\"} 1\n",
        "flare_volume_state{volume=\"volume-0\",state=\"failed\"} 0\n",
        "flare_volume_used_bytes{volume=\"catalog\"} 4096\n",
        "flare_volume_oldest_reader_age_seconds{volume=\"volume-0\"} 1.5",
        "flare_subscription_backlog_messages{topic=\"orders\",subscription=\"billing\"} 26\n",
        "flare_subscription_leased_messages{topic=\"orders\",subscription=\"billing\"} 4\n",
        "flare_subscription_dead_messages{topic=\"orders\",subscription=\"billing\"} 8\n",
        "flare_subscription_backlog_messages{topic=\"orders\",subscription=\"audit\"} 0\n",
        "unacknowledged_age_seconds{topic=\"orders\",subscription=\"billing\"} 3",
        "flare_http_requests_total{status=\"4xx\"} 1\n",
    };
    for (size_t index = 0; index < sizeof lines / sizeof lines[0]; index++) {
        expect_in_body(lines[index]);
    }
}

/* "a=\"1\",b=\"2\"} 3" to "a b": the names of a sample's labels, without their values. */
static void label_names(const char *labels, char *out, size_t size)
{
    size_t used = 0;
    bool in_value = false;
    for (; *labels != '}' || in_value; labels++) {
        assert_true(used + 1 < size);
        if (*labels == '"') {
            in_value = !in_value;
        } else if (!in_value && *labels != '=') {
            out[used++] = *labels == ',' ? ' ' : *labels;
        }
    }
    out[used] = '\0';
}

/* Each family of the page has the labels that its row of metrics.def names, from which comes the
 * reference page. */
static void families_have_the_labels_of_their_row(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *labels;
    } families[] = {
#define FAMILY(kind, name, labels, help) {"\nflare_" #name, labels},
#include "broker/metrics/metrics.def"
    };
    fake.has_reply = true;
    call(HTTP_METHOD_GET, "/metrics", NULL, NULL);
    assert_int_equal(answer.status, 200);
    buf_append_byte(&answer.body, '\0');
    assert_false(answer.body.failed);
    for (size_t index = 0; index < sizeof families / sizeof families[0]; index++) {
        const char *sample = strstr((const char *)answer.body.data, families[index].name);
        assert_non_null(sample);
        sample += strlen(families[index].name);
        char names[64] = "";
        if (*sample == '{') {
            label_names(sample + 1, names, sizeof names);
        }
        assert_string_equal(names, families[index].labels);
    }
}

/* What clients publish, get and settle is counted, failures and repetitions apart. */
static void messages_are_counted(void **state)
{
    (void)state;
    const struct metrics *metrics = &fixture_metrics;
    fake.item_codes[1] = ERR_NO_SPACE;
    call(HTTP_METHOD_POST, "/v1/topics/orders/batch", NULL,
         "{\"messages\":[{\"body\":\"abc\"},{\"body\":\"de\"}]}");
    assert_int_equal(metrics_get(&metrics->messages_published_total), 1);
    assert_int_equal(metrics_get(&metrics->messages_published_bytes_total), 3);
    fake.replayed = true;
    call(HTTP_METHOD_POST, "/v1/topics/orders/messages", NULL, "abc");
    assert_int_equal(metrics_get(&metrics->messages_published_total), 1);
    assert_int_equal(metrics_get(&metrics->messages_deduplicated_total), 1);
    const struct delivery delivery = {.shard_id = 1, .state = MESSAGE_LEASED};
    buf_append(&fake.reply.items, &delivery, sizeof delivery);
    fake.has_reply = true;
    call(HTTP_METHOD_POST, "/v1/topics/orders/subscriptions/billing/pull", NULL, NULL);
    assert_int_equal(metrics_get(&metrics->messages_delivered_total), 1);
    char text[RECEIPT_TEXT_SIZE];
    char body[256];
    const struct receipt receipt = {.sub_id = 2, .shard_id = 1};
    receipt_format(&receipt, text);
    (void)snprintf(body, sizeof body, "{\"receipts\":[\"%s\",\"%s\"]}", text, text);
    fake.item_codes[1] = ERR_LEASE_LOST;
    call(HTTP_METHOD_POST, "/v1/topics/orders/subscriptions/billing/ack", NULL, body);
    call(HTTP_METHOD_POST, "/v1/topics/orders/subscriptions/billing/nack", NULL, body);
    call(HTTP_METHOD_POST, "/v1/topics/orders/subscriptions/billing/extend", NULL, body);
    assert_int_equal(metrics_get(&metrics->messages_acknowledged_total), 1);
    assert_int_equal(metrics_get(&metrics->messages_nacked_total), 1);
    assert_int_equal(metrics_get(&metrics->leases_extended_total), 1);
    assert_int_equal(metrics_get(&metrics->receipts_refused_total), 3);
    fake.count = 4;
    call(HTTP_METHOD_POST, "/v1/topics/orders/subscriptions/billing/redrive", NULL, NULL);
    call(HTTP_METHOD_POST, "/v1/topics/orders/subscriptions/billing/redrive", NULL,
         "{\"dry_run\":true}");
    assert_int_equal(metrics_get(&metrics->messages_redriven_total), 4);
}

/* Volumes that cannot answer do not hide the page that says they have failed. */
static void metrics_survive_a_failed_volume(void **state)
{
    (void)state;
    fake.code = ERR_UNAVAILABLE;
    fake.volume_failed = true;
    call(HTTP_METHOD_GET, "/metrics", NULL, NULL);
    assert_int_equal(answer.status, 200);
    expect_in_body("flare_volume_state{volume=\"volume-0\",state=\"failed\"} 1\n");
    assert_int_equal(fake.released, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(status_shows_the_broker),         TEST(health_is_to_answer),
        TEST(readiness_names_what_is_wrong),   TEST(the_log_level_changes),
        TEST(metrics_show_what_there_is),      TEST(messages_are_counted),
        TEST(metrics_survive_a_failed_volume), TEST(families_have_the_labels_of_their_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
