/* An example: the test of a program that uses Flare, written with cmocka and libflare-broker.
 *
 *   cc test_mailer.c $(pkg-config --cflags --libs flare-broker cmocka libcurl jansson)
 *
 * The program under test is a mailer: it takes an order from the queue, sends a mail, and
 * acknowledges the order. What it must survive is a crash in between. Each test has a broker of its
 * own, in memory, on a free port and with a clock that the test moves: nothing here sleeps, and the
 * tests can run at the same time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <flare/harness.h>
#include <jansson.h>

enum { LEASE_MS = 30000, RETRY_MS = 5000, TEXT_MAX = 4096 };

/* ---- the program under test ------------------------------------------------------------------ */

struct answer {
    char text[TEXT_MAX];
    size_t size;
};

static size_t on_answer(char *data, size_t one, size_t size, void *user)
{
    struct answer *answer = user;
    if (size >= sizeof answer->text - answer->size) {
        return 0;
    }
    memcpy(answer->text + answer->size, data, size);
    answer->size += size;
    answer->text[answer->size] = '\0';
    return one * size;
}

/* POSTs to the broker's HTTP API; the status. */
static long post(const char *address, const char *path, const char *body, struct answer *answer)
{
    char url[256];
    long status = 0;
    CURL *curl = curl_easy_init();
    snprintf(url, sizeof url, "http://%s/v1/topics/orders%s", address, path);
    *answer = (struct answer){.size = 0};
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    if (curl_easy_perform(curl) == CURLE_OK) {
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return status;
}

/* Takes one order, sends its mail, and acknowledges it, unless it `crashes` before. Whether there
 * was one. */
static bool mailer_run_once(const char *address, bool crashes, unsigned *mails)
{
    struct answer answer;
    const char *receipt = NULL;
    char ack[256];
    assert_int_equal(post(address, "/subscriptions/mail/pull", "{\"max\":1}", &answer), 200);
    json_t *pulled = json_loads(answer.text, 0, NULL);
    json_unpack(pulled, "{s:[{s:s}]}", "messages", "receipt", &receipt);
    bool found = receipt != NULL;
    snprintf(ack, sizeof ack, "{\"receipts\":[\"%s\"]}", found ? receipt : "");
    json_decref(pulled);
    if (found) {
        ++*mails;
    }
    if (found && !crashes) {
        assert_int_equal(post(address, "/subscriptions/mail/ack", ack, &answer), 200);
    }
    return found;
}

/* ---- its tests ------------------------------------------------------------------------------- */

static int setup(void **state)
{
    const struct flare_broker_options options = {.http = "127.0.0.1:0",
                                                 .simulated_ms = FLARE_HARNESS_START_MS};
    const struct flare_subscription mail = {
        .lease_ms = LEASE_MS, .retry_delay_ms = RETRY_MS, .max_attempts = 2};
    struct flare_harness *harness = NULL;
    if (flare_harness_open(&options, &harness, NULL) != FLARE_OK) {
        return -1;
    }
    *state = harness;
    struct flare_broker *broker = flare_harness_broker(harness);
    return flare_broker_topic_put(broker, "orders", NULL, NULL) != FLARE_OK ||
           flare_broker_subscription_put(broker, "orders", "mail", &mail, NULL) != FLARE_OK;
}

static int teardown(void **state)
{
    flare_harness_close(*state); /* of a test that failed, shows the log */
    return 0;
}

static const char *address_of(struct flare_harness *harness)
{
    return flare_broker_http_address(flare_harness_broker(harness));
}

static void publish(struct flare_harness *harness, const char *order)
{
    struct answer answer;
    assert_int_equal(post(address_of(harness), "/messages", order, &answer), 201);
}

static void expect(struct flare_harness *harness, struct flare_depths depths)
{
    assert_true(flare_harness_expect_depths(harness, "orders", "mail", &depths));
}

static void advance(struct flare_harness *harness, uint64_t ms)
{
    assert_int_equal(flare_broker_advance(flare_harness_broker(harness), ms, NULL), FLARE_OK);
}

/* An order gives one mail, and is done. */
static void test_mails_each_order_once(void **state)
{
    struct flare_harness *harness = *state;
    unsigned mails = 0;
    publish(harness, "{\"order\":1}");
    publish(harness, "{\"order\":2}");
    expect(harness, (struct flare_depths){.enqueued = 2});
    while (mailer_run_once(address_of(harness), false, &mails)) {
    }
    assert_int_equal(mails, 2);
    expect(harness, (struct flare_depths){0});
    flare_harness_pass(harness);
}

/* A mailer that crashes loses no order: it comes again once the lease and the delay are over. */
static void test_crash_loses_no_order(void **state)
{
    struct flare_harness *harness = *state;
    unsigned mails = 0;
    publish(harness, "{\"order\":1}");
    assert_true(mailer_run_once(address_of(harness), true, &mails));
    expect(harness, (struct flare_depths){.leased = 1});
    advance(harness, LEASE_MS - 1);
    expect(harness, (struct flare_depths){.leased = 1});
    advance(harness, 1);
    expect(harness, (struct flare_depths){.scheduled = 1});
    assert_false(mailer_run_once(address_of(harness), false, &mails));
    advance(harness, RETRY_MS);
    assert_true(mailer_run_once(address_of(harness), false, &mails));
    expect(harness, (struct flare_depths){0});
    flare_harness_pass(harness);
}

/* An order that makes it crash every time does not come for ever. */
static void test_poison_becomes_dead_letter(void **state)
{
    struct flare_harness *harness = *state;
    static const char *const dead[] = {"{\"order\":666}", NULL};
    unsigned mails = 0;
    publish(harness, dead[0]);
    for (unsigned attempt = 1; attempt <= 2; attempt++) {
        assert_true(mailer_run_once(address_of(harness), true, &mails));
        advance(harness, LEASE_MS + RETRY_MS);
    }
    assert_false(mailer_run_once(address_of(harness), true, &mails));
    assert_true(flare_harness_expect_bodies(harness, "orders", "mail", FLARE_MESSAGE_DEAD, dead));
    flare_harness_pass(harness);
}

int main(void)
{
#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_mails_each_order_once),
        CASE(test_crash_loses_no_order),
        CASE(test_poison_becomes_dead_letter),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    curl_global_cleanup();
    return failed;
}
