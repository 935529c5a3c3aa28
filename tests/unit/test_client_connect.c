#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/err.h"
#include "client/address.h"
#include "tests/lib/client_fixture.h"

/* ---- addresses --------------------------------------------------------------------------------
 */

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *host; /* NULL: it is none */
        const char *port;
    } cases[] = {
        {"127.0.0.1:8089", "127.0.0.1", "8089"},
        {"flare://broker.example:1", "broker.example", "1"},
        {"flare://[::1]:65535", "::1", "65535"},
        {"[fe80::1%eth0]:80", "fe80::1%eth0", "80"},
        {"a_b-c:10", "a_b-c", "10"},
        {"", NULL, NULL},
        {"localhost", NULL, NULL},
        {":80", NULL, NULL},
        {"localhost:", NULL, NULL},
        {"localhost:0", NULL, NULL},
        {"localhost:65536", NULL, NULL},
        {"localhost:123456", NULL, NULL},
        {"localhost:8x", NULL, NULL},
        {"localhost:+8", NULL, NULL},
        {"localhost: 8", NULL, NULL},
        {"::1:80", NULL, NULL},
        {"[::1]80", NULL, NULL},
        {"[]:80", NULL, NULL},
        {"[localhost]:80", NULL, NULL},
        {"[::1%]:80", NULL, NULL},
        {"http://localhost:80", NULL, NULL},
        {"flare://localhost:80/", NULL, NULL},
        {"flare://user@localhost:80", NULL, NULL},
        {"flare://localhost:80?a=b", NULL, NULL},
        {"host name:80", NULL, NULL},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct address address;
        err_t err = address_parse(cases[index].text, &address);
        if (cases[index].host == NULL) {
            assert_int_equal(err_code(err), ERR_INVALID);
            err_free(err);
        } else {
            assert_null(err);
            assert_string_equal(address.host, cases[index].host);
            assert_string_equal(address.port, cases[index].port);
        }
    }
}

static void test_long_hosts(void **state)
{
    (void)state;
    char text[ADDRESS_HOST_MAX + 8];
    struct address address;
    memset(text, 'a', sizeof text);
    strcpy(text + ADDRESS_HOST_MAX, ":80");
    assert_null(address_parse(text, &address));
    assert_int_equal(strlen(address.host), ADDRESS_HOST_MAX);
    text[ADDRESS_HOST_MAX] = 'a';
    strcpy(text + ADDRESS_HOST_MAX + 1, ":80");
    err_t err = address_parse(text, &address);
    assert_int_equal(err_code(err), ERR_INVALID);
    err_free(err);
}

/* ---- options ----------------------------------------------------------------------------------
 */

static void test_options_are_checked(void **state)
{
    (void)state;
    char name[300];
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = '\0';
    const struct {
        struct flare_options options;
        const char *field;
    } cases[] = {
        {{.url = "nowhere"}, "url:"},
        {{.url = "localhost:1", .batch_size = (4 << 20) + 1}, "batch_size:"},
        {{.url = "localhost:1", .reconnect_min_ms = 2, .reconnect_max_ms = 1}, "reconnect_max_ms:"},
        {{.url = "localhost:1", .name = name}, "name:"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct flare_client *client = NULL;
        struct flare_error error;
        assert_int_equal(flare_connect(&cases[index].options, &client, &error), FLARE_ERR_INVALID);
        assert_int_equal(error.code, FLARE_ERR_INVALID);
        assert_memory_equal(error.message, cases[index].field, strlen(cases[index].field));
        assert_null(client);
        assert_int_equal(flare_connect(&cases[index].options, &client, NULL), FLARE_ERR_INVALID);
    }
}

/* FLARE_WIRE stands for an address that is not given. */
static void test_environment(void **state)
{
    (void)state;
    struct flare_client *client = NULL;
    struct flare_error error;
    assert_int_equal(setenv("FLARE_WIRE", "no address", 1), 0);
    assert_int_equal(flare_connect(NULL, &client, &error), FLARE_ERR_INVALID);
    assert_int_equal(unsetenv("FLARE_WIRE"), 0);
}

/* ---- connecting -------------------------------------------------------------------------------
 */

static void test_connect_and_close(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_limits limits;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    flare_get_limits(fixture.client, &limits);
    assert_int_equal(limits.message_size_max, 1 << 20);
    assert_int_equal(limits.batch_messages_max, 10000);
    assert_int_equal(limits.wait_max_ms, 20000);
    assert_non_null(strstr(flare_version(), "."));
    client_fixture_deinit(&fixture);
    flare_close(NULL);
}

static void expect_refusal(struct client_fixture *fixture, enum flare_code code)
{
    struct flare_error error = {0};
    assert_int_equal(flare_connect(&fixture->options, &fixture->client, &error), code);
    assert_int_equal(error.code, code);
    assert_true(strlen(error.message) > 0);
    assert_null(fixture->client);
    client_fixture_deinit(fixture);
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    fake_broker_refuse(&fixture.fake, 1000);
    expect_refusal(&fixture, FLARE_ERR_UNAVAILABLE);
}

static void test_silent_broker(void **state)
{
    (void)state;
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    fixture.fake.is_silent = true;
    fixture.options.connect_timeout_ms = 200;
    expect_refusal(&fixture, FLARE_ERR_TIMEOUT);
}

/* What comes instead of a welcome. */
static void test_wrong_begin(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        enum flare_code code;
    } cases[] = {
        {"HTTP/1.1 400 Bad Request\r\n\r\n", 28, FLARE_ERR_INVALID},
        {"SSH-2.0-OpenSSH\r\n", 17, FLARE_ERR_TOO_LARGE},
        {"\0\0\0\3\xc1\xc1\xc1", 7, FLARE_ERR_INVALID},     /* no MessagePack */
        {"\0\0\0\0", 4, FLARE_ERR_INVALID},                 /* nothing */
        {"\0\0\0\3\x92\x05\x01", 7, FLARE_ERR_INVALID},     /* a pong */
        {"\0\0\0\3\x92\x04\x01", 7, FLARE_ERR_INVALID},     /* a ping */
        {"\0\0\0\4\x93\x02\x01\x01", 8, FLARE_ERR_INVALID}, /* a welcome without limits */
        {"\0\0\0\x09\x94\x03\0\x0b\xa4"
         "busy",
         13, FLARE_ERR_BUSY},
        {"\0\0\0\x09\x94\x03\x01\x0b\xa4" /* of the hello itself */
         "busy",
         13, FLARE_ERR_BUSY},
        {"\0\0\0\x0c\x94\x03\0\xcd\x03\xe7\xa5"
         "never",
         16, FLARE_ERR_INTERNAL}, /* a code of the future */
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct client_fixture fixture;
        client_fixture_init(&fixture);
        fixture.fake.instead = span_of(cases[index].bytes, cases[index].size);
        expect_refusal(&fixture, cases[index].code);
    }
}

static void test_later_version(void **state)
{
    (void)state;
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    fixture.fake.welcome.version = WIRE_VERSION + 1;
    expect_refusal(&fixture, FLARE_ERR_INVALID);
}

static void on_state(void *user, enum flare_state to, const char *detail)
{
    (void)detail;
    client_box_put(user, (enum flare_code)to, NULL);
}

/* The application is told of every change, and the pause between tries grows. */
static void test_states(void **state)
{
    (void)state;
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    fixture.options.on_state = on_state;
    fixture.options.user = &fixture.box;
    client_fixture_connect(&fixture);
    client_box_wait(&fixture.box, 1);
    fake_broker_refuse(&fixture.fake, 5);
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    client_box_wait(&fixture.box, 3);
    flare_close(fixture.client);
    fixture.client = NULL;
    static const enum flare_state expected[] = {FLARE_STATE_CONNECTED, FLARE_STATE_LOST,
                                                FLARE_STATE_CONNECTED, FLARE_STATE_CLOSED};
    assert_int_equal(fixture.box.count, 4);
    for (size_t index = 0; index < 4; index++) {
        assert_int_equal(fixture.box.codes[index], expected[index]);
    }
    assert_int_equal(fake_broker_dials(&fixture.fake), 2);
    client_fixture_deinit(&fixture);
}

/* Whatever a broker sends that it must not, the connection is given up and made anew. */
static void test_wrong_frames(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"\xff\xff\xff\xff", 4},           /* a frame beyond the limit */
        {"\0\0\0\1\xc1", 5},               /* no MessagePack */
        {"\0\0\0\2\x92\x05", 6},           /* cut short inside */
        {"\0\0\0\4\x92\x05\x01\x01", 8},   /* more than the frame's array */
        {"\0\0\0\3\x92\x05\x7f", 7},       /* an answer to nothing */
        {"\0\0\0\4\x93\x12\x7f\x90", 8},   /* deliveries of no stream */
        {"\0\0\0\3\x92\x04\x01", 7},       /* a client's message */
        {"\0\0\0\5\x94\x03\0\x01\xa1", 9}, /* a failure cut short */
    };
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        fake_broker_send_raw(&fixture.fake, span_of(cases[index].bytes, cases[index].size));
        fake_broker_expect_end(&fixture.fake);
        fake_broker_accept(&fixture.fake);
    }
    client_fixture_deinit(&fixture);
}

/* A later broker may say more than this client knows. */
static void test_unknown_frames(void **state)
{
    (void)state;
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    fake_broker_send_raw(&fixture.fake, span_of("\0\0\0\4\x93\x1f\x01\xc0", 8));
    fake_broker_send_raw(&fixture.fake, span_of("\0\0\0\6\x93\xcd\x10\0\x01\xc0", 10));
    struct wire_frame publish;
    client_fixture_publish(&fixture, "t", NULL, "after");
    fake_broker_expect(&fixture.fake, WIRE_publish, &publish);
    fake_broker_publish(&fixture.fake, &publish, FLARE_OK, 1);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fake_broker_dials(&fixture.fake), 1);
    client_fixture_deinit(&fixture);
}

/* A frame may come byte by byte. */
static void test_cut_frames(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame publish;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "x");
    fake_broker_expect(&fixture.fake, WIRE_publish, &publish);
    int socket = fixture.fake.socket;
    struct buf whole;
    fixture.fake.socket = -1; /* nothing goes out */
    fake_broker_publish(&fixture.fake, &publish, FLARE_OK, 1);
    fixture.fake.socket = socket;
    whole = fixture.fake.out;
    for (size_t at = 0; at < whole.size; at++) {
        fake_broker_send_raw(&fixture.fake, span_of(whole.data + at, 1));
    }
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    client_fixture_deinit(&fixture);
}

/* A broker that owes an answer is asked whether it lives, and given up when it says nothing. A
 * client that was held up itself may do so without having asked, and is waited for. */
static void test_frozen_broker(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.request_timeout_ms = 100;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "x");
    bool is_asked = false;
    while (!is_asked) {
        fake_broker_expect(&fixture.fake, WIRE_publish, &frame);
        fake_broker_expect_end(&fixture.fake);
        is_asked = fixture.fake.in.size > fixture.fake.read_size;
        if (is_asked) {
            fake_broker_expect(&fixture.fake, WIRE_ping, &frame);
        }
        fake_broker_accept(&fixture.fake);
    }
    client_fixture_serve(&fixture, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    client_fixture_deinit(&fixture);
}

static void on_trace(void *user, bool is_sent, const char *line)
{
    struct flare_error error = {0};
    (void)strncpy(error.message, line, sizeof error.message - 1);
    client_box_put(user, is_sent ? FLARE_OK : FLARE_ERR_INVALID, &error);
}

static void test_trace(void **state)
{
    (void)state;
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    fixture.options.trace = on_trace;
    fixture.options.user = &fixture.box;
    client_fixture_connect(&fixture);
    client_box_wait(&fixture.box, 2);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    assert_int_equal(fixture.box.codes[1], FLARE_ERR_INVALID);
    assert_non_null(strstr(fixture.box.message, "welcome #1"));
    client_fixture_deinit(&fixture);
}

/* ---- threads ----------------------------------------------------------------------------------
 */

static void on_published_and_block(void *user, const struct flare_result *result,
                                   const struct flare_error *error)
{
    struct client_fixture *fixture = user;
    struct flare_source source = {"t", "s"};
    struct flare_batch *batch = NULL;
    const struct flare_message message = {.body = "x", .body_size = 1};
    struct flare_client *client = fixture->client;
    (void)result;
    (void)error;
    client_box_put(&fixture->box, flare_ping(client, NULL), NULL);
    client_box_put(&fixture->box, flare_flush(client, 1, NULL), NULL);
    client_box_put(&fixture->box, flare_publish(client, "t", &message, NULL, NULL), NULL);
    client_box_put(&fixture->box, flare_pull(client, &source, NULL, &batch, NULL), NULL);
    client_box_put(&fixture->box, flare_topic_put(client, "t", NULL, NULL, NULL), NULL);
}

/* What blocks would wait for itself on the client's thread. */
static void test_blocking_in_a_callback(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame publish;
    const struct flare_message message = {.body = "x", .body_size = 1};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    assert_int_equal(
        flare_publish_async(fixture.client, "t", &message, on_published_and_block, &fixture, NULL),
        FLARE_OK);
    fake_broker_expect(&fixture.fake, WIRE_publish, &publish);
    fake_broker_publish(&fixture.fake, &publish, FLARE_OK, 1);
    client_box_wait(&fixture.box, 5);
    for (uint32_t index = 0; index < 5; index++) {
        assert_int_equal(fixture.box.codes[index], FLARE_ERR_CONFLICT);
    }
    client_fixture_deinit(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_long_hosts),
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_connect_and_close),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_silent_broker),
        cmocka_unit_test(test_wrong_begin),
        cmocka_unit_test(test_later_version),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_wrong_frames),
        cmocka_unit_test(test_unknown_frames),
        cmocka_unit_test(test_cut_frames),
        cmocka_unit_test(test_frozen_broker),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_blocking_in_a_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
