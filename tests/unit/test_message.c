/* broker/wire/message.h: every message of the table out and in again, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "broker/wire/message.h"
#include "broker/wire/writer.h"

enum { FRAME_MAX = 4 << 20 };

static uint8_t text[2048]; /* of letters */

/* A value of a field's kind: its least, its greatest, or one between. */
enum pick { PICK_MIN, PICK_MAX, PICK_MIDDLE, PICKS };

static uint64_t pick_number(const struct wire_field *field, enum pick pick)
{
    uint64_t max =
        field->kind == WIRE_KIND_MAYBE && field->max == WIRE_NIL ? WIRE_NIL - 1 : field->max;
    return pick == PICK_MIN ? field->min : pick == PICK_MAX ? max : field->min / 2 + max / 2;
}

static void fill_field(const struct wire_field *field, enum pick pick, void *base,
                       struct buf *items)
{
    uint8_t *to = (uint8_t *)base + field->offset;
    uint64_t number = pick_number(field, pick);
    uint32_t narrow = (uint32_t)number;
    bool flag = pick != PICK_MIN;
    size_t size = (size_t)(number < 2000 ? number : 2000);
    struct span bytes = span_of(text, size);
    struct wire_list list = {0};
    switch (field->kind) {
    case WIRE_KIND_U32:
        memcpy(to, &narrow, sizeof narrow);
        return;
    case WIRE_KIND_U64:
    case WIRE_KIND_MAYBE:
        memcpy(to, &number, sizeof number);
        return;
    case WIRE_KIND_BOOL:
        memcpy(to, &flag, sizeof flag);
        return;
    case WIRE_KIND_NAME:
    case WIRE_KIND_TEXT:
    case WIRE_KIND_NOTE:
    case WIRE_KIND_BYTES:
        memcpy(to, &bytes, sizeof bytes);
        return;
    case WIRE_KIND_MAP:
        list.count = pick == PICK_MIN ? 0 : 3;
        size_t start = items->size;
        for (uint32_t index = 0; index < 2 * list.count; index++) {
            wire_put_text(items, span_of(text, index));
        }
        list.items = span_of(items->data + start, items->size - start);
        memcpy(to, &list, sizeof list);
        return;
    case WIRE_KIND_LIST:
        return; /* filled by who knows its record */
    }
}

static void fill(const struct wire_shape *shape, enum pick pick, void *base, struct buf *items)
{
    memset(base, 0, shape->size);
    for (uint32_t index = 0; index < shape->field_count; index++) {
        fill_field(&shape->fields[index], pick, base, items);
    }
}

static void expect_same(const struct wire_shape *shape, const void *a, const void *b)
{
    for (uint32_t index = 0; index < shape->field_count; index++) {
        const struct wire_field *field = &shape->fields[index];
        const struct span *x = (const void *)((const uint8_t *)a + field->offset);
        const struct span *y = (const void *)((const uint8_t *)b + field->offset);
        const struct wire_list *p = (const void *)x;
        const struct wire_list *q = (const void *)y;
        switch (field->kind) {
        case WIRE_KIND_U32:
            assert_memory_equal(x, y, sizeof(uint32_t));
            break;
        case WIRE_KIND_U64:
        case WIRE_KIND_MAYBE:
            assert_memory_equal(x, y, sizeof(uint64_t));
            break;
        case WIRE_KIND_BOOL:
            assert_memory_equal(x, y, sizeof(bool));
            break;
        case WIRE_KIND_NAME:
        case WIRE_KIND_TEXT:
        case WIRE_KIND_NOTE:
        case WIRE_KIND_BYTES:
            assert_true(span_equal(*x, *y));
            break;
        case WIRE_KIND_MAP:
        case WIRE_KIND_LIST:
            assert_int_equal(p->count, q->count);
            assert_true(span_equal(p->items, q->items));
            break;
        }
    }
}

/* The list of a message, with a record of each pick in it. */
static void fill_list(const struct wire_shape *shape, void *base, struct buf *items)
{
    for (uint32_t index = 0; index < shape->field_count; index++) {
        const struct wire_field *field = &shape->fields[index];
        if (field->kind != WIRE_KIND_LIST) {
            continue;
        }
        struct wire_list list = {.count = PICKS};
        uint8_t record[256];
        struct buf encoded;
        buf_init(&encoded, FRAME_MAX);
        for (int pick = 0; pick < PICKS; pick++) {
            fill(wire_record_shape(field->record), (enum pick)pick, record, items);
            wire_put_record(&encoded, field->record, record);
        }
        size_t start = items->size;
        buf_append_span(items, buf_span(&encoded));
        list.items = span_of(items->data + start, encoded.size);
        memcpy((uint8_t *)base + field->offset, &list, sizeof list);
        buf_deinit(&encoded);
    }
}

/* Every message, at the least and the greatest of its fields, comes back as it was; so does each
 * record of its list; and encoded again it is the same bytes. */
static void every_message_comes_back(void **state)
{
    (void)state;
    uint32_t count;
    const struct wire_shape *shapes = wire_shapes(&count);
    assert_true(count > 20);
    for (uint32_t place = 0; place < count * PICKS; place++) {
        const struct wire_shape *shape = &shapes[place / PICKS];
        struct wire_frame sent = {.type = shape->type};
        struct wire_frame got;
        struct buf items;
        struct buf frame;
        struct buf again;
        buf_init(&items, FRAME_MAX);
        buf_reserve(&items, FRAME_MAX / 2); /* spans into it must not move */
        buf_init(&frame, FRAME_MAX);
        buf_init(&again, FRAME_MAX);
        fill(shape, (enum pick)(place % PICKS), &sent.id, &items);
        fill_list(shape, &sent.id, &items);
        sent.id = 7 + place;
        wire_encode(&frame, shape->type, &sent.id);
        assert_false(frame.failed);
        assert_int_equal(wire_frame_size(frame.data), frame.size - WIRE_SIZE_BYTES);
        assert_null(
            wire_decode(span_of(frame.data + WIRE_SIZE_BYTES, frame.size - WIRE_SIZE_BYTES), &got));
        assert_int_equal(got.type, shape->type);
        assert_int_equal(got.id, 7 + place);
        expect_same(shape, &sent.id, &got.id);
        wire_encode(&again, got.type, &got.id);
        assert_true(span_equal(buf_span(&frame), buf_span(&again)));
        buf_deinit(&items);
        buf_deinit(&frame);
        buf_deinit(&again);
    }
}

/* Records are walked in order, at the bounds of their fields, and the walk ends with the list. */
static void records_are_walked(void **state)
{
    (void)state;
    struct buf items;
    struct buf encoded;
    struct wire_message message;
    struct wire_items walk;
    buf_init(&items, FRAME_MAX);
    buf_reserve(&items, FRAME_MAX / 2);
    buf_init(&encoded, FRAME_MAX);
    for (int pick = 0; pick < PICKS; pick++) {
        fill(wire_record_shape(WIRE_RECORD_message), (enum pick)pick, &message, &items);
        wire_put_record(&encoded, WIRE_RECORD_message, &message);
    }
    const struct wire_list list = {.count = PICKS, .items = buf_span(&encoded)};
    wire_items_begin(&walk, "messages", WIRE_RECORD_message, &list);
    for (int pick = 0; pick < PICKS; pick++) {
        struct wire_message expected;
        fill(wire_record_shape(WIRE_RECORD_message), (enum pick)pick, &expected, &items);
        assert_true(wire_items_next(&walk, &message));
        assert_int_equal(walk.index, pick);
        expect_same(wire_record_shape(WIRE_RECORD_message), &expected, &message);
    }
    assert_false(wire_items_next(&walk, &message));
    assert_null(wire_items_finish(&walk));
    buf_deinit(&items);
    buf_deinit(&encoded);
}

static void expect_refused(struct span payload, enum err_code code, const char *words)
{
    struct wire_frame frame;
    err_t err = wire_decode(payload, &frame);
    assert_non_null(err);
    assert_int_equal(err_code(err), code);
    if (strstr(err_message(err), words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err_message(err), words);
    }
    err_free(err);
}

/* What is wrong is named; the number and id that could be read are told. */
static void wrong_frames_are_named(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        enum err_code code;
        const char *words;
    } cases[] = {
        {{(const uint8_t *)"", 0}, ERR_INVALID, "a frame is an array"},
        {{(const uint8_t *)"\x80", 1}, ERR_INVALID, "a frame is an array"},
        {{(const uint8_t *)"\x91\x04", 2}, ERR_INVALID, "a frame is an array"},
        {{(const uint8_t *)"\x92\xa1x\x01", 4}, ERR_INVALID, "a frame is an array"},
        {{(const uint8_t *)"\xdd\xff\xff\xff\xff", 5}, ERR_INVALID, "more items than bytes"},
        {{(const uint8_t *)"\x92\x1f\x01", 3}, ERR_NOT_IMPLEMENTED, "number 31"},
        {{(const uint8_t *)"\x92\x63\x01", 3}, ERR_NOT_IMPLEMENTED, "number 99"},
        {{(const uint8_t *)"\x92\x01\x01", 3}, ERR_INVALID, "version: is missing"},
        {{(const uint8_t *)"\x93\x01\x01\xa1x", 5}, ERR_INVALID, "version: must be a non-negative"},
        {{(const uint8_t *)"\x93\x01\x01\x00", 4}, ERR_INVALID, "version: must be between 1"},
        {{(const uint8_t *)"\x93\x01\x01\xc0", 4}, ERR_INVALID, "version: must be"},
        {{(const uint8_t *)"\x94\x01\x01\x01\xa1\n", 6}, ERR_INVALID, "client: must be UTF-8"},
        {{(const uint8_t *)"\x94\x01\x01\x01\xa2x", 6}, ERR_INVALID, "client: the input ends"},
        {{(const uint8_t *)"\x93\x01\x01\x01\x01", 5}, ERR_INVALID, "bytes after the last item"},
        {{(const uint8_t *)"\x96\x08\x01\xa1/\xc2\xc4\x00\x90", 9},
         ERR_INVALID,
         "topic: names match"},
        {{(const uint8_t *)"\x96\x08\x01\xa2..\xc2\xc4\x00\x90", 10},
         ERR_INVALID,
         "topic: names match"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        expect_refused(cases[index].bytes, cases[index].code, cases[index].words);
    }
    struct wire_frame frame;
    err_t err = wire_decode(span_of("\x92\x01\x05", 3), &frame);
    assert_int_equal(frame.type, WIRE_hello);
    assert_int_equal(frame.id, 5);
    err_free(err);
}

/* Fields of a later version are passed over, whatever they are. */
static void later_fields_are_passed_over(void **state)
{
    (void)state;
    struct wire_frame frame;
    assert_null(wire_decode(span_of("\x96\x01\x05\x01\xc0\x92\x01\x81\xa1x\xc0\xc3", 12), &frame));
    assert_int_equal(frame.hello.version, 1);
    assert_int_equal(frame.hello.client.size, 0);
}

/* A wrong record is named by its place. */
static void wrong_records_are_named(void **state)
{
    (void)state;
    struct wire_message message;
    struct wire_items walk;
    const struct wire_list list = {.count = 2, .items = span_of("\x91\xc4\x00\x92\xc4\x00\x05", 7)};
    wire_items_begin(&walk, "messages", WIRE_RECORD_message, &list);
    assert_true(wire_items_next(&walk, &message));
    assert_false(wire_items_next(&walk, &message));
    err_t err = wire_items_finish(&walk);
    assert_non_null(err);
    assert_string_equal(err_message(err), "messages[1].key: must be a string");
    err_free(err);
}

/* One more than a list may have is refused before it is walked. */
static void long_lists_are_refused(void **state)
{
    (void)state;
    for (uint32_t more = 0; more <= 1; more++) {
        struct wire_ack ack = {.id = 1, .topic = span_text("t"), .subscription = span_text("s")};
        struct wire_receipt receipt = {.receipt = span_of("x", 1)};
        struct wire_frame frame;
        struct buf out;
        buf_init(&out, FRAME_MAX);
        ack.receipts.count = 10000 + more;
        size_t start = wire_begin(&out, WIRE_ack, &ack);
        for (uint32_t index = 0; index < ack.receipts.count; index++) {
            wire_put_record(&out, WIRE_RECORD_receipt, &receipt);
        }
        wire_end(&out, start, WIRE_ack, &ack);
        struct span payload = span_of(out.data + WIRE_SIZE_BYTES, out.size - WIRE_SIZE_BYTES);
        if (more == 0) {
            assert_null(wire_decode(payload, &frame));
            assert_int_equal(frame.ack.receipts.count, 10000);
        } else {
            expect_refused(payload, ERR_INVALID, "receipts: must be between 0 and 10000 items");
        }
        buf_deinit(&out);
    }
}

/* A line for people has the fields that are given, and no byte that could confuse a terminal. */
static void frames_print(void **state)
{
    (void)state;
    struct wire_frame frame = {.type = WIRE_consume,
                               .consume = {.id = 3,
                                           .topic = span_text("orders"),
                                           .subscription = span_text("b"),
                                           .messages = 5,
                                           .consumer = span_of("\x1b[2J", 4)}};
    struct buf out;
    buf_init(&out, FRAME_MAX);
    wire_print(&out, &frame);
    buf_append_byte(&out, '\0');
    assert_string_equal((const char *)out.data, "consume #3 topic=\"orders\" subscription=\"b\" "
                                                "messages=5 consumer=\".[2J\"");
    buf_deinit(&out);
}

/* What is promised of the size of `published`, whatever its results are. */
static void results_keep_to_their_size(void **state)
{
    (void)state;
    struct wire_published published = {
        .id = UINT64_MAX, .durability = UINT32_MAX, .results.count = UINT16_MAX + 1};
    struct wire_result result;
    struct buf out;
    buf_init(&out, FRAME_MAX);
    fill(wire_record_shape(WIRE_RECORD_result), PICK_MAX, &result, NULL);
    wire_put_record(&out, WIRE_RECORD_result, &result);
    assert_in_range(out.size, 1, WIRE_RESULT_SIZE_MAX);
    buf_reset(&out);
    (void)wire_begin(&out, WIRE_published, &published);
    assert_in_range(out.size, 1, WIRE_RESULT_SIZE_MAX);
    buf_deinit(&out);
}

int main(void)
{
    memset(text, 'a', sizeof text);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back),
        cmocka_unit_test(records_are_walked),
        cmocka_unit_test(wrong_frames_are_named),
        cmocka_unit_test(later_fields_are_passed_over),
        cmocka_unit_test(wrong_records_are_named),
        cmocka_unit_test(long_lists_are_refused),
        cmocka_unit_test(frames_print),
        cmocka_unit_test(results_keep_to_their_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
