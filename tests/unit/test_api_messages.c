/* broker/http/api_messages.c: publishing one message and many. */
#include "tests/unit/api_fixture.h"

#define ONE "/v1/topics/orders/messages"
#define MANY "/v1/topics/orders/batch"

static struct router_publish *started(void)
{
    assert_int_equal(fake.kind, FAKE_PUBLISH);
    assert_non_null(fake.operation);
    return FAKE_OPERATION(router_publish);
}

static void expect_attribute(const struct message_in *message, const char *name, const char *value)
{
    struct span found;
    assert_true(attributes_find(message->attributes, name, &found));
    assert_true(span_is(found, value));
}

/* The request's body is the message; headers say the rest, in any case. */
static void headers_describe_the_message(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_POST, ONE,
         "flare-key: customer-7\nFLARE-DELAY: 2s\nFlare-TTL: 1h\nIdempotency-Key: abc\n"
         "Flare-Attr-Colour: Red\nContent-Type: text/plain\ntraceparent: 00-ab-cd-01\nHost: x",
         "hello");
    struct router_publish *publish = started();
    const struct message_in *message = publish->messages;
    assert_int_equal(publish->count, 1);
    assert_false(publish->atomic);
    assert_true(span_is(publish->topic, "orders"));
    assert_true(span_is(message->key, "customer-7"));
    assert_true(span_is(message->body, "hello"));
    assert_ptr_equal(message->body.data, exchange.body.data); /* not copied */
    assert_true(span_is(message->idempotency_key, "abc"));
    assert_int_equal(message->delay_ms, 2000);
    assert_int_equal(message->ttl_ms, 3600000);
    expect_attribute(message, "colour", "Red");
    expect_attribute(message, "content-type", "text/plain");
    expect_attribute(message, "traceparent", "00-ab-cd-01");
    struct span host;
    assert_false(attributes_find(message->attributes, "host", &host));
    assert_int_equal(message->payload_hash,
                     router_payload_hash(message->key, message->attributes, message->body));
    finish();
    assert_int_equal(answer.status, 201);
    assert_int_equal(fake.released, 1);
}

/* A published message is answered with where it went, and a replayed one says so. */
static void the_answer_says_where_it_went(void **state)
{
    (void)state;
    call(HTTP_METHOD_POST, ONE, NULL, NULL);
    assert_int_equal(answer.status, 201);
    expect_document(answer.json, IN_published);
    expect_text(answer.json, "id", "000000010000000000000011");
    expect_number(answer.json, "shard", 0);
    expect_number(answer.json, "sequence", 17);
    expect_text(answer.json, "durability", "synced");
    assert_string_equal(answer.headers, "");
    fake.replayed = true;
    fake.durability = DURABILITY_RELAXED;
    call(HTTP_METHOD_POST, ONE, "Idempotency-Key: abc", "x");
    expect_text(answer.json, "durability", "relaxed");
    assert_int_equal(answer.status, 201);
    expect_header("Idempotent-Replayed: true\n");
}

/* A header that cannot be read refuses the message, naming itself; nothing is started. */
static void bad_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        const char *field;
    } cases[] = {
        {"Flare-Delay: soon", "Flare-Delay"},
        {"Flare-Delay: 31d", "Flare-Delay"},
        {"Flare-TTL: 0", "Flare-TTL"},
        {"Flare-TTL: 366d", "Flare-TTL"},
        {"Flare-Key: a\tb", "Flare-Key"},
        {"Flare-Key: \xff", "Flare-Key"},
        {"Idempotency-Key: ", "Idempotency-Key"},
        {"Flare-Key: a\nflare-key: a", "Flare-Key"},
        {"Content-Type: a\nContent-Type: a", "Content-Type"},
        {"Flare-Attr-a: 1\nFlare-Attr-A: 2", "Flare-Attr-A"},
        {"Flare-Attr-a!: 1", "Flare-Attr-a!"},
        {"Flare-Attr-a: \xff", "Flare-Attr-a"},
        {"Flare-Attr-Content-Type: text/plain", "Flare-Attr-content-type"},
        {"Flare-Attr-Traceparent: 00", "Flare-Attr-traceparent"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_POST, ONE, cases[index].headers, "x");
        if (answer.status != 400) {
            fail_msg("%s: %d", cases[index].headers, answer.status);
        }
        if (strchr(cases[index].field, '!') == NULL) {
            expect_problem(ERR_INVALID, cases[index].field);
        }
        assert_int_equal(fake.started, 0);
    }
}

/* Sends a header of `size` bytes of value. */
static void call_with_long(const char *name, size_t size)
{
    static char line[3000];
    assert_true(strlen(name) + 2 + size < sizeof line);
    int at = sprintf(line, "%s: ", name);
    memset(line + at, 'k', size);
    line[(size_t)at + size] = '\0';
    call(HTTP_METHOD_POST, ONE, line, "x");
}

/* Keys and idempotency keys hold their limits, and no more. */
static void sizes_of_headers_are_bounded(void **state)
{
    (void)state;
    call_with_long("Flare-Key", CORE_KEY_MAX);
    assert_int_equal(answer.status, 201);
    call_with_long("Flare-Key", CORE_KEY_MAX + 1);
    expect_problem(ERR_INVALID, "Flare-Key");
    call_with_long("Idempotency-Key", 255);
    assert_int_equal(answer.status, 201);
    call_with_long("Idempotency-Key", 256);
    expect_problem(ERR_INVALID, "Idempotency-Key");
}

/* A body of the limit passes, one byte more is 413, in a batch as well. */
static void sizes_of_bodies_are_bounded(void **state)
{
    (void)state;
    size_t size = (1 << 20) + 1;
    char *body = calloc(1, size);
    assert_non_null(body);
    send_bytes(HTTP_METHOD_POST, ONE, NULL, span_of(body, size - 1));
    assert_int_equal(answer.status, 201);
    send_bytes(HTTP_METHOD_POST, ONE, NULL, span_of(body, size));
    assert_int_equal(answer.status, 413);
    for (size_t more = 0; more < 2; more++) {
        struct buf document;
        buf_init(&document, 2 << 20);
        writer_map(&document, 1);
        writer_text(&document, "messages");
        writer_array(&document, 1);
        writer_map(&document, 1);
        writer_text(&document, "body");
        writer_bin(&document, span_of(body, size - 1 + more));
        send_bytes(HTTP_METHOD_POST, MANY, "Content-Type: application/msgpack",
                   buf_span(&document));
        assert_int_equal(answer.status, more == 0 ? 201 : 413);
        buf_deinit(&document);
    }
    free(body);
}

/* What the router refuses is answered with its code, and tells when to come back. */
static void refusals_are_told(void **state)
{
    (void)state;
    static const struct {
        enum err_code code;
        const char *retry; /* NULL: no such header */
    } cases[] = {
        {ERR_NOT_FOUND, NULL},
        {ERR_IDEMPOTENCY_REUSED, NULL},
        {ERR_BUSY, "Retry-After: 1\n"},
        {ERR_UNAVAILABLE, "Retry-After: 1\n"},
        {ERR_NO_SPACE, "Retry-After: 10\n"},
        {ERR_IO, NULL},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        for (int whole = 0; whole < 2; whole++) {
            fake.code = whole ? cases[index].code : ERR_NONE;
            fake.item_codes[0] = whole ? ERR_NONE : cases[index].code;
            call(HTTP_METHOD_POST, ONE, NULL, "x");
            expect_problem(cases[index].code, NULL);
            assert_string_equal(answer.headers,
                                cases[index].retry == NULL ? "" : cases[index].retry);
        }
    }
    assert_int_equal(fake.released, fake.started);
}

/* Every field of a message in a JSON batch arrives, its body from text or base64. */
static void json_batches_are_decoded(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_POST, MANY "?atomic=true", NULL,
         "{\"messages\":[{\"key\":\"k\",\"body\":\"caf\\u00e9\\u0000\",\"attributes\":{\"a\":\"1\","
         "\"content-type\":\"t\"},\"delay\":\"2s\",\"ttl\":5000,\"idempotency_key\":\"i\"},"
         "{\"body_base64\":\"AAH/\"},{\"key\":null}]}");
    struct router_publish *publish = started();
    assert_int_equal(publish->count, 3);
    assert_true(publish->atomic);
    const struct message_in *message = publish->messages;
    assert_true(span_is(message[0].key, "k"));
    assert_true(span_equal(message[0].body, span_of("caf\xc3\xa9\0", 6)));
    expect_attribute(&message[0], "a", "1");
    expect_attribute(&message[0], "content-type", "t");
    assert_int_equal(message[0].delay_ms, 2000);
    assert_int_equal(message[0].ttl_ms, 5000);
    assert_true(span_is(message[0].idempotency_key, "i"));
    assert_true(span_equal(message[1].body, span_of("\0\x01\xff", 3)));
    assert_int_equal(message[2].key.size, 0);
    assert_int_equal(message[2].body.size, 0);
    finish();
    assert_int_equal(answer.status, 201);
}

/* A MessagePack batch says the same, and its bodies are not copied. */
static void msgpack_batches_are_decoded_in_place(void **state)
{
    (void)state;
    fake.hold = true;
    struct buf document;
    buf_init(&document, 4096);
    writer_map(&document, 1);
    writer_text(&document, "messages");
    writer_array(&document, 2);
    for (int index = 0; index < 2; index++) {
        writer_map(&document, 3);
        writer_text(&document, "body");
        writer_bin(&document, span_of("\xff\0x", 3));
        writer_text(&document, "key");
        writer_text(&document, index == 0 ? "a" : "b");
        writer_text(&document, "attributes");
        writer_map(&document, 1);
        writer_text(&document, "n");
        writer_text(&document, "v");
    }
    send_bytes(HTTP_METHOD_POST, MANY,
               "Content-Type: application/msgpack\nAccept: application/msgpack",
               buf_span(&document));
    struct router_publish *publish = started();
    assert_int_equal(publish->count, 2);
    assert_true(span_is(publish->messages[1].key, "b"));
    expect_attribute(&publish->messages[1], "n", "v");
    for (int index = 0; index < 2; index++) {
        struct span body = publish->messages[index].body;
        assert_true(span_equal(body, span_of("\xff\0x", 3)));
        assert_true(body.data > document.data && body.data < document.data + document.size);
    }
    fake.replayed = true;
    finish();
    assert_int_equal(answer.status, 201);
    assert_string_equal(answer.content_type, "application/msgpack");
    struct reader reader;
    reader_init(&reader, buf_span(&answer.body));
    uint32_t count = 0;
    struct span name;
    assert_true(reader_map(&reader, &count));
    assert_int_equal(count, 4);
    assert_true(reader_str(&reader, &name) && span_is(name, "results"));
    assert_true(reader_array(&reader, &count));
    assert_int_equal(count, 2);
    assert_true(reader_map(&reader, &count));
    assert_int_equal(count, 4); /* id, shard, sequence, replayed */
    buf_deinit(&document);
}

/* A batch says how safe what it published is. */
static void batches_say_their_durability(void **state)
{
    (void)state;
    for (int number = 0; number < DURABILITY_COUNT; number++) {
        fake.durability = (enum durability)number;
        call(HTTP_METHOD_POST, MANY, NULL, "{\"messages\":[{\"body\":\"a\"}]}");
        assert_int_equal(answer.status, 201);
        expect_document(answer.json, IN_batch_result);
        expect_text(answer.json, "durability", number == 0 ? "synced" : "relaxed");
    }
}

/* Nothing is started when one message is not valid, and the path leads to it. */
static void one_bad_message_refuses_the_batch(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *field;
    } cases[] = {
        {"{}", "messages"},
        {"{\"messages\":[]}", "messages"},
        {"{\"messages\":{}}", "messages"},
        {"{\"messages\":[1]}", "messages[0]"},
        {"{\"messages\":[{},{\"delay\":-1}]}", "messages[1].delay"},
        {"{\"messages\":[{},{\"tll\":1}]}", "messages[1].tll"},
        {"{\"messages\":[{\"body\":{\"a\":1}}]}", "messages[0].body"},
        {"{\"messages\":[{\"body\":\"a\",\"body_base64\":\"YQ==\"}]}", "messages[0].body_base64"},
        {"{\"messages\":[{\"body_base64\":\"?\"}]}", "messages[0].body_base64"},
        {"{\"messages\":[{\"attributes\":{\"A\":\"1\"}}]}", "messages[0].attributes"},
        {"{\"messages\":[{\"attributes\":{\"a\":1}}]}", "messages[0].attributes"},
        {"{\"messages\":[{\"attributes\":{\"\":\"1\"}}]}", "messages[0].attributes"},
        {"{\"messages\":[{\"attributes\":{\"a\":\"\\u0001\"}}]}", "messages[0].attributes"},
        {"{\"messages\":[{\"idempotency_key\":\"\"}]}", "messages[0].idempotency_key"},
        {"{\"messages\":[{}],\"atomic\":true}", "atomic"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_POST, MANY, NULL, cases[index].body);
        expect_problem(ERR_INVALID, cases[index].field);
        assert_int_equal(fake.started, 0);
    }
}

static void batch_of(uint32_t count)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_append_text(&text, "{\"messages\":[");
    for (uint32_t index = 0; index < count; index++) {
        buf_append_text(&text, index == 0 ? "{}" : ",{}");
    }
    buf_append_text(&text, "]}");
    buf_append_byte(&text, '\0');
    call(HTTP_METHOD_POST, MANY, NULL, (const char *)text.data);
    buf_deinit(&text);
}

/* A batch has as many messages as the setting says, and not one more. */
static void batches_are_bounded(void **state)
{
    (void)state;
    batch_of(1);
    assert_int_equal(answer.status, 201);
    batch_of(100);
    assert_int_equal(answer.status, 201);
    expect_number(answer.json, "published", 100);
    batch_of(101);
    expect_problem(ERR_INVALID, "messages");
}

/* Some published and some not is 207, with a result for each in order. */
static void partial_success_is_told(void **state)
{
    (void)state;
    fake.item_codes[1] = ERR_IDEMPOTENCY_REUSED;
    fake.item_codes[2] = ERR_NO_SPACE;
    batch_of(3);
    assert_int_equal(answer.status, 207);
    expect_document(answer.json, IN_batch_result);
    expect_number(answer.json, "published", 1);
    expect_number(answer.json, "failed", 2);
    const json_t *results = member(answer.json, "results");
    assert_int_equal(json_array_size(results), 3);
    expect_number(json_array_get(results, 0), "sequence", 17);
    expect_text(json_array_get(results, 1), "code", "idempotency_reused");
    assert_true(json_is_false(member(json_array_get(results, 1), "retryable")));
    expect_text(json_array_get(results, 2), "code", "no_space");
    assert_true(json_is_true(member(json_array_get(results, 2), "retryable")));
}

/* When nothing was published the status is the failure's, not a success with a list of them. */
static void no_success_is_a_problem(void **state)
{
    (void)state;
    fake.code = ERR_ABORTED;
    fake.item_codes[0] = ERR_ABORTED;
    fake.item_codes[1] = ERR_IDEMPOTENCY_REUSED;
    fake.item_codes[2] = ERR_ABORTED;
    batch_of(3);
    expect_problem(ERR_IDEMPOTENCY_REUSED, NULL);
    expect_number(answer.json, "published", 0);
    expect_number(answer.json, "failed", 3);
    const json_t *results = member(answer.json, "results");
    expect_text(json_array_get(results, 0), "code", "aborted");
    expect_text(json_array_get(results, 1), "code", "idempotency_reused");
    fake.code = ERR_NOT_ATOMIC;
    batch_of(2);
    expect_problem(ERR_NOT_ATOMIC, NULL);
}

/* A client that went away changes nothing for its messages: the operation still ends, once. */
static void a_vanished_publisher_is_answered(void **state)
{
    (void)state;
    fake.hold = true;
    call(HTTP_METHOD_POST, ONE, NULL, "x");
    exchange.abandoned = true;
    assert_null(exchange.on_abandon);
    finish();
    assert_true(answer.done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(headers_describe_the_message), TEST(the_answer_says_where_it_went),
        TEST(bad_headers_are_refused),      TEST(sizes_of_headers_are_bounded),
        TEST(sizes_of_bodies_are_bounded),  TEST(refusals_are_told),
        TEST(json_batches_are_decoded),     TEST(msgpack_batches_are_decoded_in_place),
        TEST(batches_say_their_durability), TEST(one_bad_message_refuses_the_batch),
        TEST(batches_are_bounded),          TEST(partial_success_is_told),
        TEST(no_success_is_a_problem),      TEST(a_vanished_publisher_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
