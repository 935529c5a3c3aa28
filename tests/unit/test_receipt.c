/* Receipts and message ids as text: one text for each, and every other text refused. */
#include "broker/core/receipt.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

#include "broker/base/random.h"
#include "broker/core/message_id.h"

enum { ROUNDS = 2000 };

static struct receipt draw(struct random *random)
{
    return (struct receipt){
        .sub_id = (uint32_t)random_next(random),
        .shard_id = (uint32_t)random_next(random),
        .sequence = random_next(random),
        .epoch = (uint32_t)random_next(random),
        .grant = (uint32_t)random_next(random),
        .attempt = (uint16_t)random_next(random),
    };
}

static void expect_round_trip(const struct receipt *receipt)
{
    char text[RECEIPT_TEXT_SIZE];
    struct receipt read;
    receipt_format(receipt, text);
    assert_int_equal(strlen(text), RECEIPT_TEXT_SIZE - 1);
    assert_int_equal(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789-_"),
                     RECEIPT_TEXT_SIZE - 1);
    assert_true(receipt_parse(span_text(text), &read));
    assert_int_equal(read.sub_id, receipt->sub_id);
    assert_int_equal(read.shard_id, receipt->shard_id);
    assert_int_equal(read.sequence, receipt->sequence);
    assert_int_equal(read.epoch, receipt->epoch);
    assert_int_equal(read.grant, receipt->grant);
    assert_int_equal(read.attempt, receipt->attempt);
}

/* Every receipt comes back from its text, which is safe in a URL. */
static void round_trip(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, 1);
    const struct receipt least = {0};
    const struct receipt greatest = {UINT32_MAX, UINT32_MAX, UINT64_MAX,
                                     UINT32_MAX, UINT32_MAX, UINT16_MAX};
    expect_round_trip(&least);
    expect_round_trip(&greatest);
    for (int round = 0; round < ROUNDS; round++) {
        const struct receipt receipt = draw(&random);
        expect_round_trip(&receipt);
    }
}

/* A text with one character changed to any other is refused: no typing error makes another
 * receipt. */
static void every_character(void **state)
{
    (void)state;
    struct random random;
    char text[RECEIPT_TEXT_SIZE];
    struct receipt read;
    random_init(&random, 2);
    const struct receipt receipt = draw(&random);
    receipt_format(&receipt, text);
    for (size_t at = 0; at < RECEIPT_TEXT_SIZE - 1; at++) {
        char good = text[at];
        for (int c = 0; c < 256; c++) {
            text[at] = (char)c;
            assert_int_equal(receipt_parse(span_of(text, RECEIPT_TEXT_SIZE - 1), &read),
                             text[at] == good);
        }
        text[at] = good;
    }
}

/* A text that is longer or shorter is refused, whatever it is. */
static void other_sizes(void **state)
{
    (void)state;
    const struct receipt receipt = {1, 2, 3, 4, 5, 6};
    char text[RECEIPT_TEXT_SIZE + 4];
    struct receipt read;
    memset(text, 'A', sizeof text);
    receipt_format(&receipt, text);
    text[RECEIPT_TEXT_SIZE - 1] = '=';
    for (size_t size = 0; size <= sizeof text; size++) {
        assert_int_equal(receipt_parse(span_of(text, size), &read), size == RECEIPT_TEXT_SIZE - 1);
    }
}

/* An id is 24 digits, sorts as its shard and sequence do, and has exactly one text. */
static void message_ids(void **state)
{
    (void)state;
    static const uint64_t sequences[] = {0, 1, 255, 256, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX};
    char before[MESSAGE_ID_SIZE] = "";
    for (uint32_t shard = 1; shard != 0; shard = shard == 1 ? UINT32_MAX : 0) {
        for (size_t index = 0; index < sizeof sequences / sizeof sequences[0]; index++) {
            char text[MESSAGE_ID_SIZE];
            uint32_t shard_id = 0;
            uint64_t sequence = 0;
            message_id_format(shard, sequences[index], text);
            assert_int_equal(strlen(text), 24);
            assert_true(strcmp(before, text) < 0);
            assert_true(message_id_parse(span_text(text), &shard_id, &sequence));
            assert_int_equal(shard_id, shard);
            assert_true(sequence == sequences[index]);
            memcpy(before, text, sizeof text);
        }
    }
}

/* What is not 24 lower-case hexadecimal digits is no id. */
static void no_message_ids(void **state)
{
    (void)state;
    char text[] = "0000000a000000000000000b0";
    uint32_t shard_id = 0;
    uint64_t sequence = 0;
    for (size_t size = 0; size < sizeof text; size++) {
        assert_int_equal(message_id_parse(span_of(text, size), &shard_id, &sequence), size == 24);
    }
    for (int c = 0; c < 256; c++) {
        text[7] = (char)c;
        bool digit = c != 0 && strchr("0123456789abcdef", c) != NULL;
        assert_int_equal(message_id_parse(span_of(text, 24), &shard_id, &sequence), digit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),     cmocka_unit_test(every_character),
        cmocka_unit_test(other_sizes),    cmocka_unit_test(message_ids),
        cmocka_unit_test(no_message_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
