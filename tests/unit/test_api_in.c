/* broker/http/api_in.h: request documents are decoded by the rows of api_documents.def. */
#include "tests/unit/api_fixture.h"

static const struct in_place outermost = {.name = NULL};

/* A request document has bounds; the rows of answers have none. */
static bool is_request(enum in_row document)
{
    return document < IN_topic_answer;
}

static bool is_number(const struct in_field *field)
{
    return field->kind == IN_KIND_U64 || field->kind == IN_KIND_DURATION;
}

static bool is_text(const struct in_field *field)
{
    return field->kind == IN_KIND_TEXT || field->kind == IN_KIND_NOTE ||
           field->kind == IN_KIND_NAME;
}

/* Writes a document in which every required field but `field` has some value, and `field` has
 * `number` or, being text, so many bytes. */
static void write_document(struct buf *out, enum in_row document, const struct in_field *field,
                           uint64_t number)
{
    uint32_t count = 0;
    struct buf pairs;
    buf_init(&pairs, 1 << 20);
    for (const struct in_field *row = &api_in_fields[document + 1]; row->kind != IN_KIND_NONE;
         row++) {
        if (row != field && !row->required) {
            continue;
        }
        count++;
        writer_text(&pairs, row->name);
        if (row == field && is_text(row)) {
            uint8_t *text = malloc(number + 1);
            assert_non_null(text);
            memset(text, 'a', number + 1);
            writer_str(&pairs, span_of(text, number));
            free(text);
        } else if (row->kind == IN_KIND_ARRAY) {
            writer_array(&pairs, 0);
        } else {
            writer_u64(&pairs, row == field ? number : row->min);
        }
    }
    writer_map(out, count);
    buf_append_span(out, buf_span(&pairs));
    buf_deinit(&pairs);
}

static void expect_bound(enum in_row document, const struct in_field *field, uint64_t number,
                         bool allowed)
{
    struct in_value values[IN_VALUES_MAX];
    struct buf buf;
    buf_init(&buf, 1 << 20);
    write_document(&buf, document, field, number);
    err_t err = api_in_read_all(buf_span(&buf), document, outermost, values);
    if ((err == NULL) != allowed) {
        fail_msg("%s.%s at %llu: %s", api_in_fields[document].name, field->name,
                 (unsigned long long)number, err == NULL ? "passed" : err_describe(err));
    }
    if (err == NULL) {
        const struct in_value *value = &values[field - &api_in_fields[document]];
        assert_true(value->given);
        assert_int_equal(is_number(field) ? value->number : value->span.size, number);
    } else {
        char prefix[64];
        (void)snprintf(prefix, sizeof prefix, "%s: must ", field->name);
        assert_int_equal(err_code(err), ERR_INVALID);
        assert_ptr_equal(strstr(err_message(err), prefix), err_message(err));
    }
    err_free(err);
    buf_deinit(&buf);
}

/* Every bound of every field holds at min - 1, min, max and max + 1. */
static void every_bound_holds(void **state)
{
    (void)state;
    uint32_t fields = 0;
    enum in_row document = 0;
    for (uint32_t row = 0; row < IN_topic_answer; row++) {
        const struct in_field *field = &api_in_fields[row];
        document = field->kind == IN_KIND_NONE ? (enum in_row)row : document;
        assert_true(is_request(document));
        if ((!is_number(field) && !is_text(field)) || (is_text(field) && field->max > UINT16_MAX)) {
            continue;
        }
        fields++;
        if (field->min > 0) {
            expect_bound(document, field, field->min - 1, false);
        }
        expect_bound(document, field, field->min, true);
        expect_bound(document, field, field->max, true);
        if (field->max < UINT64_MAX) {
            expect_bound(document, field, field->max + 1, false);
        }
    }
    assert_true(fields > 25);
}

/* A missing field has its default; an empty body is a document without fields. */
static void missing_fields_have_defaults(void **state)
{
    (void)state;
    struct in_value values[IN_VALUES_MAX];
    assert_null(api_in_read_all(span_of(NULL, 0), IN_subscription, outermost, values));
    assert_int_equal(values[IN(subscription, lease)].number, 30000);
    assert_int_equal(values[IN(subscription, max_attempts)].number, 16);
    assert_false(values[IN(subscription, lease)].given);
    assert_null(api_in_read_all(span_text("\x80"), IN_pull, outermost, values));
    assert_int_equal(values[IN(pull, max)].number, 1);
    assert_int_equal(values[IN(pull, max_bytes)].number, 1 << 20);
}

static void expect_refused(enum in_row document, struct span bytes, const char *message)
{
    struct in_value values[IN_VALUES_MAX];
    err_t err = api_in_read_all(bytes, document, outermost, values);
    assert_int_equal(err_code(err), ERR_INVALID);
    if (strncmp(err_message(err), message, strlen(message)) != 0) {
        fail_msg("\"%s\" instead of \"%s\"", err_message(err), message);
    }
    err_free(err);
}

/* What a document may not hold is refused, naming the field. */
static void wrong_documents_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum in_row document;
        struct span bytes;
        const char *message;
    } cases[] = {
#define PACKED(text) {.data = (const uint8_t *)(text), .size = sizeof(text) - 1}
        {IN_pull, PACKED("\x90"), "the document must be an object"},
        {IN_pull, PACKED("\xc0"), "the document must be an object"},
        {IN_pull, PACKED("\x81\xa3mux\x01"), "mux: there is no such field"},
        {IN_pull, PACKED("\x81\xa2\xff\xff\x01"), "?: there is no such field"},
        {IN_pull, PACKED("\x82\xa3max\x01\xa3max\x01"), "max: is given twice"},
        {IN_pull, PACKED("\x82\xa3max\xc0\xa3max\x01"), "max: is given twice"},
        {IN_pull, PACKED("\x81\xa3max\xff"), "max: must be between 1 and 10000"},
        {IN_pull,
         PACKED("\x81\xa3max\xa1"
                "1"),
         "max: must be an integer"},
        {IN_pull, PACKED("\x81\xa3max\xcb\x3f\xf0\0\0\0\0\0\0"), "max: must be an integer"},
        {IN_pull, PACKED("\x81\xa4wait\xa4soon"), "wait: must be a duration"},
        {IN_pull, PACKED("\x81\xa4wait\xc3"), "wait: must be a duration"},
        {IN_pull,
         PACKED("\x81\xa8"
                "consumer\xa3"
                "a b"),
         "consumer: must match"},
        {IN_pull,
         PACKED("\x81\xa8"
                "consumer\x01"),
         "consumer: must be text"},
        {IN_pull, PACKED("\x81\x01\x01"), "msgpack, byte 2: a string is wanted"},
        {IN_pull, PACKED("\x81\xa3max"), "msgpack, byte"},
        {IN_pull, PACKED("\xdf\xff\xff\xff\xff"), "msgpack, byte"},
        {IN_pull, PACKED("\x80\x80"), "msgpack, byte 1: bytes after"},
        {IN_ack, PACKED("\x80"), "receipts: is required"},
        {IN_ack, PACKED(""), "receipts: is required"},
        {IN_ack, PACKED("\x81\xa8receipts\xc0"), "receipts: is required"},
        {IN_ack, PACKED("\x81\xa8receipts\x80"), "receipts: must be an array"},
        {IN_ack, PACKED("\x81\xa8receipts\xdd\xff\xff\xff\xff"), "msgpack, byte"},
        {IN_nack, PACKED("\x82\xa8receipts\x90\xa6reject\x01"), "reject: must be true or false"},
        {IN_nack, PACKED("\x82\xa8receipts\x90\xa6reason\xa1\0"), "reason: must be UTF-8"},
        {IN_message,
         PACKED("\x81\xa3key\xa3"
                "a\nb"),
         "key: must be UTF-8 without control"},
        {IN_message, PACKED("\x81\xa3key\xa1\xff"), "key: must be UTF-8 without control"},
        {IN_message,
         PACKED("\x81\xa4"
                "body\x01"),
         "body: must be text or bytes"},
        {IN_message,
         PACKED("\x81\xaa"
                "attributes\x90"),
         "attributes: must be an object"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        expect_refused(cases[index].document, cases[index].bytes, cases[index].message);
    }
}

/* Inside another document the path says which element is to blame. */
static void errors_name_the_path(void **state)
{
    (void)state;
    static const struct {
        struct in_place place;
        const char *bytes;
        const char *message;
    } cases[] = {
        {{"messages", 3}, "\x81\xa3ttl\xa1x", "messages[3].ttl: must be a duration"},
        {{"messages", 0}, "\x90", "messages[0]: must be an object"},
        {{"retry", IN_NO_INDEX}, "\x81\xa1x\x01", "retry.x: there is no such field"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct in_value values[IN_VALUES_MAX];
        err_t err =
            api_in_read_all(span_text(cases[index].bytes), IN_message, cases[index].place, values);
        assert_ptr_equal(strstr(err_message(err), cases[index].message), err_message(err));
        err_free(err);
    }
}

/* Lines are allowed where people write, and null is the same as absent. */
static void notes_have_lines_and_null_is_absent(void **state)
{
    (void)state;
    struct in_value values[IN_VALUES_MAX];
    struct span note = PACKED("\x83\xa8receipts\x90\xa6reason\xa3"
                              "a\nb"
                              "\xa5"
                              "delay\xc0");
    assert_null(api_in_read_all(note, IN_nack, outermost, values));
    assert_true(span_is(values[IN(nack, reason)].span, "a\nb"));
    assert_false(values[IN(nack, delay)].given);
    assert_false(values[IN(nack, reject)].given);
}

/* Durations have one unit and no sign, and never wrap. */
static void durations_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool sound;
        uint64_t ms;
    } cases[] = {
        {"0", true, 0},
        {"1500", true, 1500},
        {"10ms", true, 10},
        {"30s", true, 30000},
        {"5m", true, 300000},
        {"2h", true, 7200000},
        {"7d", true, 604800000},
        {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0},
        {"213503982335d", false, 0},
        {"", false, 0},
        {"s", false, 0},
        {"-1s", false, 0},
        {"+1s", false, 0},
        {"1.5s", false, 0},
        {"1 s", false, 0},
        {"1w", false, 0},
        {"1S", false, 0},
        {"1s2", false, 0},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        uint64_t ms = 0;
        if (api_in_duration(span_text(cases[index].text), &ms) != cases[index].sound) {
            fail_msg("\"%s\"", cases[index].text);
        }
        assert_true(!cases[index].sound || ms == cases[index].ms);
    }
}

/* Times are ISO 8601 in UTC, of dates there are. */
static void times_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool sound;
        uint64_t ms;
    } cases[] = {
        {"1970-01-01T00:00:00Z", true, 0},
        {"2026-01-02T03:04:05Z", true, UINT64_C(1767323045000)},
        {"2026-01-02T03:04:05.6Z", true, UINT64_C(1767323045600)},
        {"2026-01-02T03:04:05.67Z", true, UINT64_C(1767323045670)},
        {"2026-01-02T03:04:05.678Z", true, UINT64_C(1767323045678)},
        {"2024-02-29T23:59:59Z", true, UINT64_C(1709251199000)},
        {"9999-12-31T23:59:59.999Z", true, UINT64_C(253402300799999)},
        {"2026-01-02T03:04:05", false, 0},
        {"2026-01-02T03:04:05+00:00", false, 0},
        {"2026-01-02T03:04:05.Z", false, 0},
        {"2026-01-02T03:04:05.6789Z", false, 0},
        {"2026-01-02 03:04:05Z", false, 0},
        {"2026-02-29T00:00:00Z", false, 0},
        {"2026-13-01T00:00:00Z", false, 0},
        {"2026-00-01T00:00:00Z", false, 0},
        {"2026-01-01T24:00:00Z", false, 0},
        {"2026-01-01T00:60:00Z", false, 0},
        {"2026-01-01T00:00:60Z", false, 0},
        {"1969-12-31T23:59:59Z", false, 0},
        {"2026-1-2T03:04:05Z", false, 0},
        {"2026-01-02T03:04:05Zx", false, 0},
        {"", false, 0},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        uint64_t ms = 0;
        if (api_in_time(span_text(cases[index].text), &ms) != cases[index].sound) {
            fail_msg("\"%s\"", cases[index].text);
        }
        assert_true(!cases[index].sound || ms == cases[index].ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bound_holds),
        cmocka_unit_test(missing_fields_have_defaults),
        cmocka_unit_test(wrong_documents_are_refused),
        cmocka_unit_test(errors_name_the_path),
        cmocka_unit_test(notes_have_lines_and_null_is_absent),
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(times_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
