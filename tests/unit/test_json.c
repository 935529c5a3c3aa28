/* broker/http/json.h: JSON in as MessagePack, strings and base64 out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/http/json.h"

#define BYTES(text)                                                                                \
    {                                                                                              \
        .data = (const uint8_t *)(text), .size = sizeof(text) - 1                                  \
    }

static void expect_bytes(const struct buf *buf, const void *data, size_t size)
{
    assert_false(buf->failed);
    assert_int_equal(buf->size, size);
    assert_memory_equal(buf->data, data, size);
}

/* Each JSON value has one MessagePack form. */
static void values_become_msgpack(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        struct span packed;
    } cases[] = {
        {"{}", BYTES("\x80")},
        {" [ ] ", BYTES("\x90")},
        {"null", BYTES("\xc0")},
        {"[true,false]", BYTES("\x92\xc3\xc2")},
        {"0", BYTES("\x00")},
        {"127", BYTES("\x7f")},
        {"128", BYTES("\xcc\x80")},
        {"-1", BYTES("\xff")},
        {"9223372036854775807", BYTES("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff")},
        {"-9223372036854775808", BYTES("\xd3\x80\x00\x00\x00\x00\x00\x00\x00")},
        {"\"\"", BYTES("\xa0")},
        {"\"a\\u0000b\"", BYTES("\xa3"
                                "a\0b")},
        {"\"\\u00e9\\ud83d\\ude00\"", BYTES("\xa6\xc3\xa9\xf0\x9f\x98\x80")},
        {"{\"max\":10,\"wait\":\"20s\"}", BYTES("\x82\xa3max\x0a\xa4wait\xa3"
                                                "20s")},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct buf out;
        buf_init(&out, 1024);
        err_t err = json_to_msgpack(span_text(cases[index].json), &out);
        if (err != NULL) {
            fail_msg("%s: %s", cases[index].json, err_describe(err));
        }
        expect_bytes(&out, cases[index].packed.data, cases[index].packed.size);
        buf_deinit(&out);
    }
}

static void expect_refused(struct span json, enum err_code code)
{
    struct buf out;
    buf_init(&out, 8 << 20);
    err_t err = json_to_msgpack(json, &out);
    if (err_code(err) != code) {
        fail_msg("%.40s: code %d", (const char *)json.data, err_code(err));
    }
    err_free(err);
    buf_deinit(&out);
}

/* What is not JSON, or is what the API has no use for, is refused with 400. */
static void nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        " ",
        "{",
        "{\"a\":1,}",
        "[1,]",
        "{'a':1}",
        "{\"a\":1}x",
        "01",
        "1.5",
        "1e3",
        "nul",
        "NaN",
        "{\"a\":1,\"a\":2}",
        "\"\x01\"",
        "\"\xff\"",
        "\"\xc0\xaf\"",
        "\"\xed\xa0\x80\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"a",
        "9223372036854775808",
        "[1.0]",
        "{\"\\u0000\":1}",
        "// a\n1",
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        expect_refused(span_text(cases[index]), ERR_INVALID);
    }
}

/* Sixteen levels pass, the seventeenth is refused. */
static void depth_is_bounded(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1024);
    assert_null(json_to_msgpack(span_text("[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]"), &out));
    buf_deinit(&out);
    expect_refused(span_text("[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]"), ERR_INVALID);
    expect_refused(span_text("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]"), ERR_INVALID);
}

/* A body of brackets runs into the memory budget instead of taking a hundred times its size. */
static void brackets_do_not_take_all_memory(void **state)
{
    (void)state;
    size_t size = 4 << 20;
    char *text = malloc(size);
    assert_non_null(text);
    text[0] = '[';
    for (size_t at = 1; at + 2 < size; at += 3) {
        memcpy(text + at, "[],", 3);
    }
    text[size - 1] = ']';
    expect_refused(span_of(text, size), ERR_TOO_LARGE);
    free(text);
}

/* A batch of many small messages fits the same budget. */
static void small_messages_fit(void **state)
{
    (void)state;
    struct buf text;
    struct buf out;
    buf_init(&text, 1 << 20);
    buf_init(&out, 1 << 20);
    buf_append_text(&text, "[");
    for (int index = 0; index < 10000; index++) {
        buf_append_text(&text, index == 0 ? "{\"body\":\"a\"}" : ",{\"body\":\"a\"}");
    }
    buf_append_text(&text, "]");
    assert_null(json_to_msgpack(buf_span(&text), &out));
    buf_deinit(&text);
    buf_deinit(&out);
}

/* An answer that would not fit is an error, not a part of one. */
static void a_full_buffer_is_an_error(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 4);
    err_t err = json_to_msgpack(span_text("\"longer than four\""), &out);
    assert_int_equal(err_code(err), ERR_TOO_LARGE);
    err_free(err);
    buf_deinit(&out);
}

/* A string is escaped where JSON asks for it, and always valid: other bytes become U+FFFD. */
static void strings_are_escaped(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        const char *json;
    } cases[] = {
        {BYTES(""), "\"\""},
        {BYTES("plain text, longer than eight"), "\"plain text, longer than eight\""},
        {BYTES("say \"hi\" \\ bye"), "\"say \\\"hi\\\" \\\\ bye\""},
        {BYTES("a\nb\tc\rd\be\ff"), "\"a\\nb\\tc\\rd\\be\\ff\""},
        {BYTES("\0\x1f\x7f"), "\"\\u0000\\u001f\\u007f\""},
        {BYTES("\xc3\xa9t\xc3\xa9"), "\"\xc3\xa9t\xc3\xa9\""},
        {BYTES("a\xff\xfe"
               "b"),
         "\"a\xef\xbf\xbd\xef\xbf\xbd"
         "b\""},
        {BYTES("\xe2\x82"), "\"\xef\xbf\xbd\xef\xbf\xbd\""},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct buf out;
        buf_init(&out, 1024);
        json_put_string(&out, cases[index].bytes);
        expect_bytes(&out, cases[index].json, strlen(cases[index].json));
        buf_deinit(&out);
    }
}

/* The vectors of RFC 4648, both ways, and back without padding. */
static void base64_goes_both_ways(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        const char *text;
    } cases[] = {
        {BYTES(""), ""},
        {BYTES("f"), "Zg=="},
        {BYTES("fo"), "Zm8="},
        {BYTES("foo"), "Zm9v"},
        {BYTES("foob"), "Zm9vYg=="},
        {BYTES("fooba"), "Zm9vYmE="},
        {BYTES("foobar"), "Zm9vYmFy"},
        {BYTES("\xfb\xff\xbf"), "+/+/"},
        {BYTES("\0\0\0\0"), "AAAAAA=="},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct span text = span_text(cases[index].text);
        struct buf out;
        uint8_t bytes[16];
        size_t size = 99;
        buf_init(&out, 1024);
        json_put_base64(&out, cases[index].bytes);
        expect_bytes(&out, text.data, text.size);
        buf_deinit(&out);
        while (true) {
            assert_true(json_base64_size(text) <= sizeof bytes);
            assert_true(json_base64_decode(text, bytes, &size));
            assert_int_equal(size, cases[index].bytes.size);
            assert_memory_equal(bytes, cases[index].bytes.data, size);
            if (text.size == 0 || text.data[text.size - 1] != '=') {
                break;
            }
            while (text.data[text.size - 1] == '=') {
                text.size--;
            }
        }
    }
}

/* Text that no encoder writes is refused: two texts never mean the same bytes but for padding. */
static void bad_base64_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "A",    "A===", "Zg=",   "Z",    "Zm9v\n",   "Zm 9v", "Zm9-",          "Zm9_",
        "Zh==", "Zm9=", "=Zm9v", "====", "Zg==Zg==", "Zg===", "Zm9vYm\xc3\xa9"};
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        uint8_t bytes[32];
        size_t size = 0;
        if (json_base64_decode(span_text(cases[index]), bytes, &size)) {
            fail_msg("\"%s\" was decoded", cases[index]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_become_msgpack), cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(depth_is_bounded),      cmocka_unit_test(brackets_do_not_take_all_memory),
        cmocka_unit_test(small_messages_fit),    cmocka_unit_test(a_full_buffer_is_an_error),
        cmocka_unit_test(strings_are_escaped),   cmocka_unit_test(base64_goes_both_ways),
        cmocka_unit_test(bad_base64_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
