#include "client/draft.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/lib/client_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
