#include "tests/unit/client_fixture.h"

#include "client/draft.h"

static void expect_publish(struct client_fixture *fixture, struct wire_frame *frame,
                           const char *topic, uint32_t count)
{
    fake_broker_expect(&fixture->fake, WIRE_publish, frame);
    assert_true(span_is(frame->publish.topic, topic));
    assert_int_equal(frame->publish.messages.count, count);
}

/* The body of one message of a publish. */
static void expect_body(const struct wire_frame *frame, uint32_t index, const char *body)
{
    struct wire_items items;
    struct wire_message message;
    wire_items_begin(&items, "messages", WIRE_RECORD_message, &frame->publish.messages);
    for (uint32_t at = 0; at <= index; at++) {
        assert_true(wire_items_next(&items, &message));
    }
    assert_null(wire_items_finish(&items));
    assert_true(span_is(message.body, body));
}

/* ---- messages ---------------------------------------------------------------------------------
 */

static void expect_same_decoded(const struct flare_message *message)
{
    struct wire_message decoded;
    struct wire_items items;
    struct buf out;
    buf_init(&out, 1 << 20);
    draft_put(&out, message);
    assert_false(out.failed);
    assert_true(out.size <= draft_size_max(message));
    struct wire_list list = {.count = 1, .items = buf_span(&out)};
    wire_items_begin(&items, "messages", WIRE_RECORD_message, &list);
    assert_true(wire_items_next(&items, &decoded));
    assert_null(wire_items_finish(&items));
    assert_true(span_equal(decoded.body, span_of(message->body, message->body_size)));
    assert_true(span_equal(decoded.key, draft_span(message->key)));
    assert_true(span_equal(decoded.idempotency_key, draft_span(message->idempotency_key)));
    assert_int_equal(decoded.attributes.count, message->attribute_count);
    assert_int_equal(decoded.delay_ms, message->delay_ms);
    assert_int_equal(decoded.ttl_ms, message->ttl_ms);
    buf_deinit(&out);
}

static void test_drafts(void **state)
{
    (void)state;
    static char large[70000];
    static char long_key[2050];
    static char long_text[40000];
    const struct flare_attribute good[] = {{"a", "1"}, {"content-type", "text/plain"}};
    const struct flare_attribute twice[] = {{"a", "1"}, {"a", "2"}};
    const struct flare_attribute upper[] = {{"A", "1"}};
    const struct flare_attribute huge[] = {{"a", long_text}};
    const struct flare_attribute nothing[] = {{"a", NULL}};
    memset(long_key, 'k', sizeof long_key - 1);
    memset(long_text, 'v', sizeof long_text - 1);
    const struct {
        struct flare_message message;
        const char *field; /* to blame; NULL: none */
    } cases[] = {
        {{.body = "", .body_size = 0}, NULL},
        {{.body = NULL, .body_size = 0}, NULL},
        {{.body = "x", .body_size = 1}, NULL},
        {{.body = large, .body_size = 255}, NULL},
        {{.body = large, .body_size = 256}, NULL},
        {{.body = large, .body_size = 65535}, NULL},
        {{.body = large, .body_size = 65536}, NULL},
        {{.body = "x", .body_size = 1, .key = ""}, NULL},
        {{.body = "x", .body_size = 1, .key = "0123456789012345678901234567890"}, NULL},
        {{.body = "x", .body_size = 1, .key = "01234567890123456789012345678901"}, NULL},
        {{.body = "x", .body_size = 1, .key = long_key + 1}, NULL},
        {{.body = "x", .body_size = 1, .attributes = good, .attribute_count = 2}, NULL},
        {{.body = "x", .body_size = 1, .delay_ms = 5, .ttl_ms = 7, .idempotency_key = "i"}, NULL},
        {{.body = NULL, .body_size = 1}, "body:"},
        {{.body = "x", .body_size = 1, .key = long_key}, "key:"},
        {{.body = "x", .body_size = 1, .key = "a\nb"}, "key:"},
        {{.body = "x", .body_size = 1, .key = "\xff"}, "key:"},
        {{.body = "x", .body_size = 1, .idempotency_key = long_key + 1792}, "idempotency_key:"},
        {{.body = "x", .body_size = 1, .delay_ms = 2592000001}, "delay_ms:"},
        {{.body = "x", .body_size = 1, .ttl_ms = 31536000001}, "ttl_ms:"},
        {{.body = "x", .body_size = 1, .attributes = twice, .attribute_count = 2}, "attributes:"},
        {{.body = "x", .body_size = 1, .attributes = upper, .attribute_count = 1}, "attributes:"},
        {{.body = "x", .body_size = 1, .attributes = huge, .attribute_count = 1}, "attributes:"},
        {{.body = "x", .body_size = 1, .attributes = nothing, .attribute_count = 1}, "attributes:"},
        {{.body = "x", .body_size = 1, .attributes = good, .attribute_count = 65}, "attributes:"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        err_t err = draft_check(&cases[index].message);
        if (cases[index].field == NULL) {
            assert_null(err);
            expect_same_decoded(&cases[index].message);
            continue;
        }
        assert_int_equal(err_code(err), ERR_INVALID);
        assert_memory_equal(err_message(err), cases[index].field, strlen(cases[index].field));
        err_free(err);
    }
}

/* What is wrong is refused at once and disturbs nobody else's messages. */
static void test_refused_at_once(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    static char large[(1 << 20) + 1];
    const struct flare_message too_large = {.body = large, .body_size = sizeof large};
    const struct flare_message bad_key = {.body = "x", .body_size = 1, .key = "\t"};
    const struct flare_message good = {.body = "x", .body_size = 1};
    static const char *const names[] = {"", ".", "..", "a/b", "a b", "\xc3\xa4"};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    assert_int_equal(flare_publish_async(fixture.client, "t", &too_large, NULL, NULL, &error),
                     FLARE_ERR_TOO_LARGE);
    assert_int_equal(flare_publish_async(fixture.client, "t", &bad_key, NULL, NULL, &error),
                     FLARE_ERR_INVALID);
    for (size_t index = 0; index < sizeof names / sizeof names[0]; index++) {
        assert_int_equal(
            flare_publish_async(fixture.client, names[index], &good, NULL, NULL, &error),
            FLARE_ERR_INVALID);
    }
    assert_int_equal(flare_publish_async(fixture.client, NULL, &good, NULL, NULL, &error),
                     FLARE_ERR_INVALID);
    assert_int_equal(flare_flush(fixture.client, 1000, &error), FLARE_OK);
    client_fixture_deinit(&fixture);
}

/* ---- batches ----------------------------------------------------------------------------------
 */

static void test_results(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "x");
    expect_publish(&fixture, &frame, "t", 1);
    assert_int_equal(frame.publish.batch_key.size, 16);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 17);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.results[0].code, FLARE_OK);
    assert_string_equal(fixture.box.results[0].id, "ab0102030405060708090aff");
    assert_int_equal(fixture.box.results[0].shard, 3);
    assert_int_equal(fixture.box.results[0].sequence, 17);
    assert_false(fixture.box.results[0].replayed);
    assert_false(fixture.box.results[0].relaxed);
    client_fixture_publish(&fixture, "t", NULL, "y");
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_ERR_QUOTA, 0);
    client_box_wait(&fixture.box, 2);
    assert_int_equal(fixture.box.codes[1], FLARE_ERR_QUOTA);
    assert_string_equal(fixture.box.message, "The topic is over its quota");
    assert_string_equal(fixture.box.results[1].id, "");
    client_fixture_publish(&fixture, "t", NULL, "z");
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_NOT_FOUND);
    client_box_wait(&fixture.box, 3);
    assert_int_equal(fixture.box.codes[2], FLARE_ERR_NOT_FOUND);
    assert_string_equal(fixture.box.message, "said by the fake");
    client_fixture_deinit(&fixture);
}

/* The first goes at once; what comes while it is under way goes together when it is answered. */
static void test_batches_by_confirmation(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame first;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 60000000;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "m0");
    expect_publish(&fixture, &first, "t", 1);
    for (uint32_t index = 1; index < 100; index++) {
        char body[16];
        (void)snprintf(body, sizeof body, "m%u", index);
        client_fixture_publish(&fixture, "t", NULL, body);
    }
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_publish(&fixture.fake, &first, FLARE_OK, 1);
    expect_publish(&fixture, &frame, "t", 99);
    expect_body(&frame, 0, "m1");
    expect_body(&frame, 98, "m99");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 2);
    client_box_wait(&fixture.box, 100);
    for (uint32_t index = 0; index < 100; index++) {
        assert_int_equal(fixture.box.results[index].sequence, 1 + index);
    }
    client_fixture_deinit(&fixture);
}

struct client_echo {
    struct client_fixture *fixture;
    uint32_t left;
};

static void on_published_again(void *user, const struct flare_result *result,
                               const struct flare_error *error)
{
    struct client_echo *echo = user;
    const struct flare_message message = {.body = "again", .body_size = 5};
    (void)error;
    client_box_put(&echo->fixture->box, result->code, NULL);
    if (echo->left > 0) {
        echo->left--;
        (void)flare_publish_async(echo->fixture->client, "t", &message, on_published_again, echo,
                                  NULL);
    }
}

/* What the callbacks of one answer publish leaves in one frame. */
static void test_batches_from_callbacks(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct client_echo echo = {.fixture = &fixture, .left = 120};
    struct flare_message messages[40];
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 60000000;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "m0");
    expect_publish(&fixture, &frame, "t", 1);
    for (uint32_t index = 0; index < 40; index++) {
        messages[index] = (struct flare_message){.body = "x", .body_size = 1};
        assert_int_equal(flare_publish_async(fixture.client, "t", &messages[index],
                                             on_published_again, &echo, NULL),
                         FLARE_OK);
    }
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    for (uint32_t round = 0; round < 4; round++) {
        expect_publish(&fixture, &frame, "t", 40);
        fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    }
    client_box_wait(&fixture.box, 161);
    client_fixture_deinit(&fixture);
}

/* Full by count, and full by size: both go without waiting. */
static void test_full_batches(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    char body[1001];
    memset(body, 'x', 1000);
    body[1000] = '\0';
    client_fixture_init(&fixture);
    fixture.options.linger_us = UINT32_MAX;
    fixture.options.batch_messages = 10;
    fixture.options.batch_size = 5000;
    client_fixture_connect(&fixture);
    for (uint32_t index = 0; index < 10; index++) {
        client_fixture_publish(&fixture, "count", NULL, "x");
    }
    expect_publish(&fixture, &frame, "count", 10);
    for (uint32_t index = 0; index < 5; index++) {
        client_fixture_publish(&fixture, "size", NULL, body);
    }
    expect_publish(&fixture, &frame, "size", 4);
    client_fixture_publish(&fixture, "count", NULL, "lingers");
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    client_fixture_deinit(&fixture);
    assert_int_equal(fixture.box.count, 16);
}

static void test_broker_bounds_batches(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = UINT32_MAX;
    fixture.fake.welcome.batch_messages_max = 3;
    client_fixture_connect(&fixture);
    for (uint32_t index = 0; index < 3; index++) {
        client_fixture_publish(&fixture, "t", NULL, "x");
    }
    expect_publish(&fixture, &frame, "t", 3);
    client_fixture_deinit(&fixture);
}

/* Lingering ends by itself while earlier ones are under way. */
static void test_linger(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 5000;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    expect_publish(&fixture, &frame, "t", 1);
    client_fixture_publish(&fixture, "t", NULL, "b");
    expect_publish(&fixture, &frame, "t", 1);
    expect_body(&frame, 0, "b");
    client_fixture_deinit(&fixture);
}

/* A batch with keys waits for the one before, which the broker might refuse. */
static void test_keys_keep_order(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame first;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 60000000;
    fixture.options.batch_messages = 2;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", "k", "a");
    expect_publish(&fixture, &first, "t", 1);
    for (uint32_t index = 0; index < 4; index++) {
        client_fixture_publish(&fixture, "t", "k", "b");
    }
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_fail(&fixture.fake, first.id, FLARE_ERR_BUSY);
    expect_publish(&fixture, &frame, "t", 1);
    expect_body(&frame, 0, "a");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    expect_publish(&fixture, &frame, "t", 2);
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 2);
    expect_publish(&fixture, &frame, "t", 2);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 4);
    client_box_wait(&fixture.box, 5);
    client_fixture_deinit(&fixture);
}

/* More topics than are remembered, and each gets its own frames. */
static void test_many_topics(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t index = 0; index < 600; index++) {
            char topic[16];
            (void)snprintf(topic, sizeof topic, "topic-%u", index);
            client_fixture_publish(&fixture, topic, NULL, "x");
            expect_publish(&fixture, &frame, topic, 1);
            fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
        }
        client_box_wait(&fixture.box, 600 * (round + 1));
    }
    client_fixture_deinit(&fixture);
}

/* A topic is remembered as long as anything of it waits. */
static void test_many_topics_fail(void **state)
{
    (void)state;
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    fixture.options.batch_messages = 1;
    client_fixture_connect(&fixture);
    fake_broker_refuse(&fixture.fake, UINT32_MAX);
    fake_broker_cut(&fixture.fake);
    for (uint32_t index = 0; index < 1200; index++) {
        char topic[16];
        (void)snprintf(topic, sizeof topic, "topic-%u", index % 400);
        client_fixture_publish(&fixture, topic, "k", "x");
    }
    client_fixture_deinit(&fixture);
    assert_int_equal(fixture.box.count, 1200);
    for (uint32_t index = 0; index < 1200; index++) {
        assert_int_not_equal(fixture.box.codes[index], FLARE_OK);
    }
}

/* ---- memory -----------------------------------------------------------------------------------
 */

static void on_published_and_fill(void *user, const struct flare_result *result,
                                  const struct flare_error *error)
{
    struct client_fixture *fixture = user;
    static char body[4000];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    enum flare_code code = FLARE_OK;
    (void)result;
    (void)error;
    for (uint32_t index = 0; index < 10 && code == FLARE_OK; index++) {
        code = flare_publish_async(fixture->client, "t", &message, NULL, NULL, NULL);
    }
    client_box_put(&fixture->box, code, NULL);
}

/* In a callback nothing can wait for room, so it is refused. */
static void test_room_in_a_callback(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    const struct flare_message message = {.body = "x", .body_size = 1};
    client_fixture_init(&fixture);
    fixture.options.unconfirmed_size = 10000;
    client_fixture_connect(&fixture);
    assert_int_equal(
        flare_publish_async(fixture.client, "t", &message, on_published_and_fill, &fixture, NULL),
        FLARE_OK);
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_BUSY);
    expect_publish(&fixture, &frame, "t", 2);
    client_fixture_deinit(&fixture);
}

static void *publish_ten(void *context)
{
    struct client_fixture *fixture = context;
    static char body[4000];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    for (uint32_t index = 0; index < 10; index++) {
        (void)flare_publish_async(fixture->client, "t", &message, client_box_on_published,
                                  &fixture->box, NULL);
    }
    return NULL;
}

/* A thread waits for room, also for that of what would linger. */
static void test_room_in_a_thread(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    pthread_t thread;
    client_fixture_init(&fixture);
    fixture.options.unconfirmed_size = 10000;
    fixture.options.linger_us = UINT32_MAX;
    client_fixture_connect(&fixture);
    assert_int_equal(pthread_create(&thread, NULL, publish_ten, &fixture), 0);
    for (uint32_t index = 0; index < 4; index++) {
        expect_publish(&fixture, &frame, "t", 2);
        fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    client_box_wait(&fixture.box, 8);
    client_fixture_deinit(&fixture);
}

/* What blocks does not wait for room for ever. */
static void test_no_room_in_time(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    static const char body[4000];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    client_fixture_init(&fixture);
    fixture.options.unconfirmed_size = 6000;
    fixture.options.request_timeout_ms = 50;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "x");
    assert_int_equal(flare_publish(fixture.client, "t", &message, NULL, &error), FLARE_ERR_TIMEOUT);
    assert_int_equal(flare_publish(fixture.client, "t", &message, NULL, &error), FLARE_ERR_TIMEOUT);
    assert_non_null(strstr(error.message, "unconfirmed"));
    client_fixture_deinit(&fixture);
}

/* ---- losing the connection --------------------------------------------------------------------
 */

/* What was not answered is sent again, the same bytes in the same order, before anything new. */
static void test_resend(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    struct buf sent[2];
    client_fixture_init(&fixture);
    fixture.options.linger_us = UINT32_MAX;
    fixture.options.batch_messages = 2;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a0");
    client_fixture_publish(&fixture, "t", NULL, "a1");
    for (uint32_t index = 0; index < 2; index++) {
        buf_init(&sent[index], 4096);
        expect_publish(&fixture, &frame, "t", 2);
        buf_append_span(&sent[index], fake_broker_bytes(&fixture.fake));
        if (index == 0) {
            client_fixture_publish(&fixture, "t", NULL, "b0");
            client_fixture_publish(&fixture, "t", NULL, "b1");
        }
    }
    for (uint32_t round = 0; round < 3; round++) {
        fake_broker_refuse(&fixture.fake, 2);
        fake_broker_cut(&fixture.fake);
        if (round == 0) {
            client_fixture_publish(&fixture, "t", NULL, "c0");
            client_fixture_publish(&fixture, "t", NULL, "c1");
        }
        fake_broker_accept(&fixture.fake);
        for (uint32_t index = 0; index < 2; index++) {
            expect_publish(&fixture, &frame, "t", 2);
            assert_true(span_equal(fake_broker_bytes(&fixture.fake), buf_span(&sent[index])));
            if (round == 2) {
                fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
            }
        }
        if (round == 1) {
            expect_publish(&fixture, &frame, "t", 2);
        }
    }
    expect_publish(&fixture, &frame, "t", 2);
    expect_body(&frame, 0, "c0");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 4);
    client_box_wait(&fixture.box, 6);
    buf_deinit(&sent[0]);
    buf_deinit(&sent[1]);
    client_fixture_deinit(&fixture);
}

enum { SLOW_COUNT = 2000, SLOW_SIZE = 4000 };

/* Reads publishes until so many messages have come, and that their bodies count on. */
static void read_numbered(struct client_fixture *fixture, uint32_t count)
{
    struct wire_frame frame;
    struct wire_items items;
    struct wire_message message;
    uint32_t number = 0;
    while (number < count) {
        fake_broker_expect(&fixture->fake, WIRE_publish, &frame);
        wire_items_begin(&items, "messages", WIRE_RECORD_message, &frame.publish.messages);
        while (wire_items_next(&items, &message)) {
            uint32_t found = 0;
            assert_int_equal(message.body.size, SLOW_SIZE);
            memcpy(&found, message.body.data, sizeof found);
            assert_int_equal(found, number);
            number++;
        }
        assert_null(wire_items_finish(&items));
        fake_broker_publish(&fixture->fake, &frame, FLARE_OK, number);
    }
}

static void publish_numbered(struct client_fixture *fixture, uint32_t count)
{
    static char body[SLOW_SIZE];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    for (uint32_t number = 0; number < count; number++) {
        memcpy(body, &number, sizeof number);
        assert_int_equal(flare_publish_async(fixture->client, "t", &message,
                                             client_box_on_published, &fixture->box, NULL),
                         FLARE_OK);
    }
}

/* A broker that does not read holds nothing up but its own messages, and gets each when it reads
 * again; one that breaks off in the middle of a frame gets that again from its begin. */
static void test_slow_broker(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    publish_numbered(&fixture, SLOW_COUNT);
    /* Some of it is in the socket by now, and the rest is not. */
    fake_broker_expect(&fixture.fake, WIRE_publish, &frame);
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    read_numbered(&fixture, SLOW_COUNT);
    client_box_wait(&fixture.box, SLOW_COUNT);
    for (uint32_t index = 0; index < SLOW_COUNT; index++) {
        assert_int_equal(fixture.box.codes[index], FLARE_OK);
    }
    client_fixture_deinit(&fixture);
}

/* Once an answer was lost, a refusal of the next try does not say that nothing was published. */
static void test_refused_when_sent_again(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    for (uint32_t round = 0; round < 4; round++) {
        bool is_doubtful = round < 2;
        client_fixture_publish(&fixture, "t", NULL, "a");
        expect_publish(&fixture, &frame, "t", 1);
        if (is_doubtful) {
            fake_broker_cut(&fixture.fake);
            fake_broker_accept(&fixture.fake);
            expect_publish(&fixture, &frame, "t", 1);
        }
        if (round % 2 == 0) {
            fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_NO_SPACE);
        } else {
            fake_broker_publish(&fixture.fake, &frame, FLARE_ERR_NO_SPACE, 0);
        }
        client_box_wait(&fixture.box, round + 1);
        assert_int_equal(fixture.box.codes[round],
                         is_doubtful ? FLARE_ERR_UNKNOWN : FLARE_ERR_NO_SPACE);
    }
    client_fixture_publish(&fixture, "t", NULL, "a");
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_ERR_INVALID, 0);
    client_box_wait(&fixture.box, 5);
    assert_int_equal(fixture.box.codes[4], FLARE_ERR_INVALID);
    client_fixture_deinit(&fixture);
}

/* Without batch keys what may have been published is not known, and the rest is sent later. */
static void test_no_resend(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.no_resend = true;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    expect_publish(&fixture, &frame, "t", 1);
    assert_int_equal(frame.publish.batch_key.size, 0);
    fake_broker_cut(&fixture.fake);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_UNKNOWN);
    client_fixture_publish(&fixture, "t", NULL, "b");
    fake_broker_accept(&fixture.fake);
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_BUSY);
    client_box_wait(&fixture.box, 2);
    assert_int_equal(fixture.box.codes[1], FLARE_ERR_BUSY);
    client_fixture_deinit(&fixture);
}

/* An answer with the wrong number of results is none: the batch is sent again. */
static void test_wrong_answer(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    expect_publish(&fixture, &frame, "t", 1);
    frame.publish.messages.count = 2;
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    fake_broker_accept(&fixture.fake);
    expect_publish(&fixture, &frame, "t", 1);
    const struct wire_pong pong = {.id = frame.id};
    fake_broker_send(&fixture.fake, WIRE_pong, &pong);
    fake_broker_accept(&fixture.fake);
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    client_fixture_deinit(&fixture);
}

/* True: another frame has come before the first callback was called. */
static bool comes_again(struct client_fixture *fixture)
{
    bool has_come = false;
    while (!has_come && client_box_count(&fixture->box) == 0) {
        has_come = !fake_broker_is_quiet(&fixture->fake, 10);
    }
    return has_come;
}

/* A busy broker is asked again, whatever form its answer has, and for a while only. */
static void test_busy(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_UNAVAILABLE);
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_ERR_BUSY, 0);
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 9);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    client_fixture_deinit(&fixture);
    client_fixture_init(&fixture);
    fixture.options.give_up_ms = 300;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "b");
    uint32_t tries = 0;
    do {
        expect_publish(&fixture, &frame, "t", 1);
        fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_BUSY);
        tries++;
    } while (comes_again(&fixture));
    /* The first refusal never is the last; each pause is twice the one before. */
    assert_true(tries >= 2 && tries < 20);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_BUSY);
    client_fixture_deinit(&fixture);
}

/* A part of the broker that has failed holds up only the order of keys. */
static void test_unavailable(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 1000;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    /* Its pauses grow until the other comes through between two tries. */
    bool has_come = false;
    for (uint32_t tries = 0; !has_come; tries++) {
        expect_publish(&fixture, &frame, "t", 1);
        has_come = frame.publish.messages.items.data[frame.publish.messages.items.size - 1] == 'b';
        enum flare_code code = has_come ? FLARE_OK : FLARE_ERR_UNAVAILABLE;
        fake_broker_publish(&fixture.fake, &frame, code, 1);
        if (tries == 2) {
            client_fixture_publish(&fixture, "t", NULL, "b");
        }
    }
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    client_fixture_publish(&fixture, "t", "key", "c");
    expect_publish(&fixture, &frame, "t", 1);
    expect_body(&frame, 0, "a");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    expect_publish(&fixture, &frame, "t", 1);
    expect_body(&frame, 0, "c");
    client_fixture_deinit(&fixture);
}

static void on_state(void *user, enum flare_state to, const char *detail)
{
    struct client_box *box = user;
    (void)detail;
    if (to == FLARE_STATE_CONNECTED) {
        client_box_put(box, FLARE_OK, NULL);
    }
}

/* Without a connection for long, what waits is told so, and what had been sent is not known. */
static void test_give_up(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    static struct client_box states = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                       .changed = PTHREAD_COND_INITIALIZER};
    client_fixture_init(&fixture);
    fixture.options.give_up_ms = 100;
    fixture.options.reconnect_max_ms = 20;
    fixture.options.on_state = on_state;
    fixture.options.user = &states;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "sent");
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_refuse(&fixture.fake, UINT32_MAX);
    fake_broker_cut(&fixture.fake);
    client_fixture_publish(&fixture, "t", NULL, "waits");
    client_box_wait(&fixture.box, 2);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_UNKNOWN);
    assert_int_equal(fixture.box.codes[1], FLARE_ERR_UNAVAILABLE);
    client_fixture_publish(&fixture, "t", NULL, "later");
    client_box_wait(&fixture.box, 3);
    assert_int_equal(fixture.box.codes[2], FLARE_ERR_UNAVAILABLE);
    fake_broker_refuse(&fixture.fake, 0);
    fake_broker_accept(&fixture.fake);
    client_box_wait(&states, 2);
    client_fixture_publish(&fixture, "t", NULL, "again");
    expect_publish(&fixture, &frame, "t", 1);
    expect_body(&frame, 0, "again");
    client_fixture_deinit(&fixture);
    assert_int_equal(fixture.box.count, 4);
    assert_int_equal(fixture.box.codes[3], FLARE_ERR_UNKNOWN);
}

/* After goodbye nothing is sent, answers are still taken, and the rest goes to the next broker. */
static void test_goodbye(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    struct wire_goodbye goodbye = {0};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_send(&fixture.fake, WIRE_goodbye, &goodbye);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_box_wait(&fixture.box, 1);
    client_fixture_publish(&fixture, "t", NULL, "b");
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_accept(&fixture.fake);
    expect_publish(&fixture, &frame, "t", 1);
    expect_body(&frame, 0, "b");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 2);
    client_box_wait(&fixture.box, 2);
    client_fixture_deinit(&fixture);
}

/* A broker that takes less than before is not sent what it would hang up for; the one before may
 * have taken it. */
static void test_too_large_for_the_next_broker(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    static char body[100001];
    memset(body, 'x', 100000);
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, body);
    expect_publish(&fixture, &frame, "t", 1);
    (void)pthread_mutex_lock(&fixture.fake.lock);
    fixture.fake.welcome.frame_size_max = 65536;
    (void)pthread_mutex_unlock(&fixture.fake.lock);
    fake_broker_cut(&fixture.fake);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_UNKNOWN);
    assert_non_null(strstr(fixture.box.message, "65536 bytes"));
    client_fixture_deinit(&fixture);
}

/* The broker reads no more than its window: the rest waits here. */
static void test_window(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame first;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.fake.welcome.window_requests = 2;
    fixture.options.batch_messages = 1;
    client_fixture_connect(&fixture);
    for (uint32_t index = 0; index < 4; index++) {
        client_fixture_publish(&fixture, "t", NULL, "x");
    }
    expect_publish(&fixture, &first, "t", 1);
    uint64_t first_id = first.id;
    expect_publish(&fixture, &frame, "t", 1);
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    expect_publish(&fixture, &frame, "t", 1);
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    frame.id = first_id;
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    expect_publish(&fixture, &frame, "t", 1);
    client_fixture_deinit(&fixture);
}

/* ---- blocking ---------------------------------------------------------------------------------
 */

static void *answer_publishes(void *context)
{
    struct fake_broker *fake = context;
    struct wire_frame frame;
    for (uint32_t index = 0; index < 4; index++) {
        fake_broker_expect(fake, WIRE_publish, &frame);
        enum flare_code code = index == 1 ? FLARE_ERR_QUOTA : FLARE_OK;
        fake_broker_publish(fake, &frame, code, 10 * index);
    }
    return NULL;
}

static void test_blocking(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_result results[3];
    struct flare_error error;
    pthread_t thread;
    const struct flare_message items[] = {{.body = "a", .body_size = 1},
                                          {.body = "b", .body_size = 1},
                                          {.body = "c", .body_size = 1}};
    const struct flare_messages messages = {.items = items, .count = 3, .atomic = true};
    const struct flare_messages none = {0};
    const struct flare_messages many = {.items = items, .count = 10001};
    client_fixture_init(&fixture);
    fixture.options.linger_us = UINT32_MAX;
    client_fixture_connect(&fixture);
    assert_int_equal(pthread_create(&thread, NULL, answer_publishes, &fixture.fake), 0);
    assert_int_equal(flare_publish(fixture.client, "t", &items[0], &results[0], &error), FLARE_OK);
    assert_int_equal(results[0].sequence, 0);
    assert_int_equal(flare_publish(fixture.client, "t", &items[0], NULL, &error), FLARE_ERR_QUOTA);
    assert_int_equal(error.code, FLARE_ERR_QUOTA);
    assert_int_equal(flare_publish_batch(fixture.client, "t", &messages, results, &error),
                     FLARE_OK);
    assert_int_equal(results[2].sequence, 22);
    assert_int_equal(flare_publish_batch(fixture.client, "t", &none, NULL, &error), FLARE_OK);
    assert_int_equal(flare_publish_batch(fixture.client, "t", &many, NULL, &error),
                     FLARE_ERR_INVALID);
    client_fixture_publish(&fixture, "t", NULL, "lingers");
    assert_int_equal(flare_flush(fixture.client, 0, &error), FLARE_OK);
    assert_int_equal(client_box_count(&fixture.box), 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    client_fixture_deinit(&fixture);
}

/* Nobody answers: whoever waits gets his thread back, and a late answer does no harm. */
static void test_time_outs(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    struct wire_frame frame;
    const struct flare_message message = {.body = "a", .body_size = 1};
    client_fixture_init(&fixture);
    fixture.options.request_timeout_ms = 100;
    client_fixture_connect(&fixture);
    assert_int_equal(flare_publish(fixture.client, "t", &message, NULL, &error), FLARE_ERR_TIMEOUT);
    assert_int_equal(flare_flush(fixture.client, 1, &error), FLARE_ERR_TIMEOUT);
    fake_broker_accept(&fixture.fake);
    expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_fixture_publish(&fixture, "t", NULL, "after");
    client_fixture_serve(&fixture, 1);
    assert_int_equal(flare_flush(fixture.client, 20000, &error), FLARE_OK);
    client_fixture_deinit(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_refused_at_once),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_batches_by_confirmation),
        cmocka_unit_test(test_batches_from_callbacks),
        cmocka_unit_test(test_full_batches),
        cmocka_unit_test(test_broker_bounds_batches),
        cmocka_unit_test(test_linger),
        cmocka_unit_test(test_keys_keep_order),
        cmocka_unit_test(test_many_topics),
        cmocka_unit_test(test_many_topics_fail),
        cmocka_unit_test(test_room_in_a_callback),
        cmocka_unit_test(test_room_in_a_thread),
        cmocka_unit_test(test_no_room_in_time),
        cmocka_unit_test(test_resend),
        cmocka_unit_test(test_slow_broker),
        cmocka_unit_test(test_refused_when_sent_again),
        cmocka_unit_test(test_no_resend),
        cmocka_unit_test(test_wrong_answer),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_unavailable),
        cmocka_unit_test(test_give_up),
        cmocka_unit_test(test_goodbye),
        cmocka_unit_test(test_too_large_for_the_next_broker),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_blocking),
        cmocka_unit_test(test_time_outs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
