#include "broker/base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BYTES(text)                                                                                \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }

/* Bytes are text when they are UTF-8 without control characters; lines may be separated. The odd
 * byte is found wherever it stands in the words that are looked at together. */
static void bytes_are_classified(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        enum text_class expected;
    } cases[] = {
        {BYTES(""), TEXT_PLAIN},
        {BYTES("a"), TEXT_PLAIN},
        {BYTES("\xc3\xa9"), TEXT_PLAIN},
        {BYTES("\xe0\xa0\x80"), TEXT_PLAIN},
        {BYTES("\xed\x9f\xbf"), TEXT_PLAIN},
        {BYTES("\xf0\x90\x80\x80"), TEXT_PLAIN},
        {BYTES("\xf4\x8f\xbf\xbf"), TEXT_PLAIN},
        {BYTES("\n"), TEXT_LINES},
        {BYTES("\t"), TEXT_LINES},
        {BYTES("\r"), TEXT_LINES},
        {BYTES("\0"), TEXT_BINARY},
        {BYTES("\x1f"), TEXT_BINARY},
        {BYTES("\x7f"), TEXT_BINARY},
        {BYTES("\x80"), TEXT_BINARY},
        {BYTES("\xc3"), TEXT_BINARY},
        {BYTES("\xc1\xbf"), TEXT_BINARY},
        {BYTES("\xe0\x9f\xbf"), TEXT_BINARY},
        {BYTES("\xed\xa0\x80"), TEXT_BINARY},
        {BYTES("\xe2\x82"), TEXT_BINARY},
        {BYTES("\xe2\x82\x28"), TEXT_BINARY},
        {BYTES("\xf0\x8f\xbf\xbf"), TEXT_BINARY},
        {BYTES("\xf4\x90\x80\x80"), TEXT_BINARY},
        {BYTES("\xf5\x80\x80\x80"), TEXT_BINARY},
        {BYTES("\xff"), TEXT_BINARY},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        for (size_t place = 0; place <= 20; place++) {
            uint8_t bytes[32];
            memset(bytes, 'x', sizeof bytes);
            memcpy(bytes + place, cases[index].bytes.data, cases[index].bytes.size);
            /* At the end, and with more behind it. */
            size_t end = place + cases[index].bytes.size;
            assert_int_equal(text_classify(span_of(bytes, end)), cases[index].expected);
            assert_int_equal(text_classify(span_of(bytes, end + 8)), cases[index].expected);
        }
    }
    assert_int_equal(text_classify(span_of(NULL, 0)), TEXT_PLAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_classified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
