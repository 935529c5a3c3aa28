#include "broker/http/api_in.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

#include "broker/base/text.h"
#include "broker/core/catalog.h"
#include "broker/http/json.h"

#define REQUIRED true
#define OPTIONAL false
const struct in_field api_in_fields[IN_ROWS] = {
#define DOCUMENT(document, doc)                                                                    \
    [IN_##document] = {.name = #document,                                                          \
                       .name_size = sizeof #document - 1,                                          \
                       .kind = IN_KIND_NONE,                                                       \
                       .text = (doc)},
#define FIELD(document, field, type, needed, value, least, most, doc)                              \
    [IN_##document##_##field] = {.name = #field,                                                   \
                                 .name_size = sizeof #field - 1,                                   \
                                 .kind = IN_KIND_##type,                                           \
                                 .required = (needed),                                             \
                                 .initial = (value),                                               \
                                 .min = (least),                                                   \
                                 .max = (most),                                                    \
                                 .text = (doc)},
#include "broker/http/api_documents.def"
};
#undef REQUIRED
#undef OPTIONAL

enum reader_kind api_in_kind_of(struct span value)
{
    struct reader reader;
    struct reader_item item;
    reader_init(&reader, value);
    return reader_next(&reader, &item) ? item.kind : 0;
}

bool api_in_text(struct span value, struct span *out)
{
    struct reader reader;
    reader_init(&reader, value);
    return reader_str(&reader, out);
}

bool api_in_integer(struct span value, uint64_t *out)
{
    struct reader reader;
    reader_init(&reader, value);
    return reader_u64(&reader, out);
}

/* ---- texts ----------------------------------------------------------------------------------- */

bool api_in_digits(struct span text, uint64_t *out)
{
    uint64_t number = 0;
    for (size_t at = 0; at < text.size; at++) {
        uint8_t digit = (uint8_t)(text.data[at] - '0');
        if (digit > 9 || __builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, digit, &number)) {
            return false;
        }
    }
    *out = number;
    return text.size > 0;
}

bool api_in_duration(struct span text, uint64_t *ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    size_t digits = 0;
    while (digits < text.size && text.data[digits] >= '0' && text.data[digits] <= '9') {
        digits++;
    }
    uint64_t number = 0;
    if (!api_in_digits(span_of(text.data, digits), &number)) {
        return false;
    }
    struct span unit = span_of(text.data + digits, text.size - digits);
    for (size_t index = 0; index < sizeof units / sizeof units[0]; index++) {
        if (span_is(unit, units[index].unit)) {
            return !__builtin_mul_overflow(number, units[index].ms, ms);
        }
    }
    return false;
}

/* Takes `size` digits and, unless it is 0, the byte after them. */
static bool take_digits(struct span *text, size_t size, char after, int *out)
{
    uint64_t number = 0;
    size_t taken = size + (after != 0);
    if (text->size < taken || !api_in_digits(span_of(text->data, size), &number) ||
        (after != 0 && text->data[size] != (uint8_t)after)) {
        return false;
    }
    *out = (int)number;
    *text = span_of(text->data + taken, text->size - taken);
    return true;
}

/* ".6", ".67" or ".678". */
static bool take_fraction(struct span *text, uint32_t *ms)
{
    uint32_t scale = 100;
    size_t at = 1;
    *ms = 0;
    while (at < text->size && text->data[at] >= '0' && text->data[at] <= '9') {
        *ms += (uint32_t)(text->data[at] - '0') * scale;
        scale /= 10;
        at++;
    }
    bool sound = at >= 2 && at <= 4;
    *text = span_of(text->data + at, text->size - at);
    return sound;
}

bool api_in_time(struct span text, uint64_t *ms)
{
    struct tm calendar = {.tm_isdst = 0};
    if (!take_digits(&text, 4, '-', &calendar.tm_year) ||
        !take_digits(&text, 2, '-', &calendar.tm_mon) ||
        !take_digits(&text, 2, 'T', &calendar.tm_mday) ||
        !take_digits(&text, 2, ':', &calendar.tm_hour) ||
        !take_digits(&text, 2, ':', &calendar.tm_min) ||
        !take_digits(&text, 2, 0, &calendar.tm_sec)) {
        return false;
    }
    uint32_t fraction_ms = 0;
    if (text.size > 0 && text.data[0] == '.' && !take_fraction(&text, &fraction_ms)) {
        return false;
    }
    calendar.tm_year -= 1900;
    calendar.tm_mon -= 1;
    struct tm wanted = calendar;
    time_t seconds = timegm(&calendar);
    /* timegm turns the 31st of June into the 1st of July: what it changed was no date. */
    if (!span_is(text, "Z") || seconds < 0 || calendar.tm_mday != wanted.tm_mday ||
        calendar.tm_mon != wanted.tm_mon || calendar.tm_hour != wanted.tm_hour ||
        calendar.tm_min != wanted.tm_min || calendar.tm_sec != wanted.tm_sec) {
        return false;
    }
    *ms = (uint64_t)seconds * 1000 + fraction_ms;
    return true;
}

/* ---- documents ------------------------------------------------------------------------------- */

enum { PATH_SIZE = 128 };

static void place_format(struct in_place place, char out[PATH_SIZE])
{
    if (place.name == NULL) {
        out[0] = '\0';
    } else if (place.index == IN_NO_INDEX) {
        (void)snprintf(out, PATH_SIZE, "%s.", place.name);
    } else {
        (void)snprintf(out, PATH_SIZE, "%s[%u].", place.name, place.index);
    }
}

static err_t refuse(struct in_place place, struct span name, const char *why)
{
    char path[PATH_SIZE];
    place_format(place, path);
    int size = name.size < 64 ? (int)name.size : 64;
    return ERR(INVALID, "%s%.*s: %s", path, size, (const char *)name.data, why);
}

static struct span field_name(const struct in_field *field)
{
    return span_of(field->name, field->name_size);
}

static err_t refuse_bounds(struct in_place place, const struct in_field *field)
{
    const char *what = field->kind == IN_KIND_DURATION ? "must be between %llu and %llu ms"
                       : field->kind == IN_KIND_U64    ? "must be between %llu and %llu"
                                                       : "must have between %llu and %llu bytes";
    char why[96];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(why, sizeof why, what, (unsigned long long)field->min,
                   (unsigned long long)field->max);
#pragma GCC diagnostic pop
    return refuse(place, field_name(field), why);
}

static err_t check_bounds(struct in_place place, const struct in_field *field, uint64_t number)
{
    return number < field->min || number > field->max ? refuse_bounds(place, field) : NULL;
}

static err_t read_number(struct in_place place, const struct in_field *field,
                         const struct reader_item *item, struct in_value *value)
{
    if (item->kind == READER_INT) {
        return refuse_bounds(place, field);
    }
    if (item->kind == READER_UINT) {
        value->number = item->unsigned_;
    } else if (field->kind == IN_KIND_U64) {
        return refuse(place, field_name(field), "must be an integer");
    } else if (item->kind != READER_STR || !api_in_duration(item->bytes, &value->number)) {
        return refuse(place, field_name(field),
                      "must be a duration: milliseconds, or text such as \"30s\"");
    }
    return check_bounds(place, field, value->number);
}

static err_t read_text(struct in_place place, const struct in_field *field,
                       const struct reader_item *item, struct in_value *value)
{
    if (item->kind != READER_STR) {
        return refuse(place, field_name(field), "must be text");
    }
    value->span = item->bytes;
    TRY(check_bounds(place, field, item->bytes.size));
    if (field->kind == IN_KIND_NAME && !catalog_name_valid(item->bytes)) {
        return refuse(place, field_name(field), "must match [A-Za-z0-9._-]{1,255}");
    }
    enum text_class found = text_classify(item->bytes);
    if (found == TEXT_BINARY || (found == TEXT_LINES && field->kind != IN_KIND_NOTE)) {
        return refuse(place, field_name(field), "must be UTF-8 without control characters");
    }
    return NULL;
}

/* Leaves a container, or a value of several possible kinds, encoded for the handler. */
static err_t read_raw(struct in_place place, const struct in_field *field, struct reader *reader,
                      struct in_value *value)
{
    struct span rest = span_of(reader->input.data + reader->at, reader->input.size - reader->at);
    if (!reader_skip(reader)) {
        return reader_finish(reader);
    }
    rest.size = reader->at - (size_t)(rest.data - reader->input.data);
    enum reader_kind kind = api_in_kind_of(rest);
    if (kind == READER_NIL) {
        return NULL;
    }
    value->given = true;
    value->span = rest;
    if (field->kind == IN_KIND_MAP && kind != READER_MAP) {
        return refuse(place, field_name(field), "must be an object");
    }
    if (field->kind == IN_KIND_ARRAY && kind != READER_ARRAY) {
        return refuse(place, field_name(field), "must be an array");
    }
    return NULL;
}

static err_t read_bytes(struct in_place place, const struct in_field *field,
                        const struct reader_item *item, struct in_value *value)
{
    if (item->kind != READER_BIN && item->kind != READER_STR) {
        return refuse(place, field_name(field), "must be text or bytes");
    }
    value->span = item->bytes;
    return check_bounds(place, field, item->bytes.size);
}

static err_t read_value(struct in_place place, const struct in_field *field, struct reader *reader,
                        struct in_value *value)
{
    if (field->kind == IN_KIND_MAP || field->kind == IN_KIND_ARRAY || field->kind == IN_KIND_RAW) {
        return read_raw(place, field, reader, value);
    }
    struct reader_item item;
    if (!reader_next(reader, &item)) {
        return reader_finish(reader);
    }
    value->given = item.kind != READER_NIL;
    if (!value->given) {
        return NULL;
    }
    switch (field->kind) {
    case IN_KIND_U64:
    case IN_KIND_DURATION:
        return read_number(place, field, &item, value);
    case IN_KIND_BOOL:
        if (item.kind != READER_BOOL) {
            return refuse(place, field_name(field), "must be true or false");
        }
        value->number = item.boolean;
        return NULL;
    case IN_KIND_TEXT:
    case IN_KIND_NOTE:
    case IN_KIND_NAME:
        return read_text(place, field, &item, value);
    case IN_KIND_BYTES:
        return read_bytes(place, field, &item, value);
    case IN_KIND_MAP:
    case IN_KIND_ARRAY:
    case IN_KIND_RAW:
    case IN_KIND_TIME: /* only in answers */
    case IN_KIND_NONE:
        break;
    }
    return ERR(INTERNAL, "row %s of api_documents.def cannot be read", field->name);
}

static const struct in_field *find_field(const struct in_field *first, struct span name)
{
    for (const struct in_field *field = first;
         field < api_in_fields + IN_ROWS && field->kind != IN_KIND_NONE; field++) {
        if (field->name_size == name.size && memcmp(field->name, name.data, name.size) == 0) {
            return field;
        }
    }
    return NULL;
}

static void begin_values(enum in_row document, struct in_value *values)
{
    const struct in_field *field = &api_in_fields[document + 1];
    for (uint32_t index = 1; field < api_in_fields + IN_ROWS && field->kind != IN_KIND_NONE;
         index++, field++) {
        assert(index < IN_VALUES_MAX);
        values[index] = (struct in_value){.number = field->initial};
    }
}

static err_t check_required(enum in_row document, struct in_place place,
                            const struct in_value *values)
{
    const struct in_field *field = &api_in_fields[document + 1];
    for (uint32_t index = 1; field < api_in_fields + IN_ROWS && field->kind != IN_KIND_NONE;
         index++, field++) {
        if (field->required && !values[index].given) {
            return refuse(place, field_name(field), "is required");
        }
    }
    return NULL;
}

static err_t refuse_document(struct in_place place)
{
    char path[PATH_SIZE];
    place_format(place, path);
    size_t size = strlen(path);
    if (size == 0) {
        return ERR(INVALID, "the document must be an object");
    }
    path[size - 1] = '\0'; /* the dot */
    return ERR(INVALID, "%s: must be an object", path);
}

static err_t read_field(struct reader *reader, enum in_row document, struct in_place place,
                        struct in_value *values, uint32_t *seen)
{
    struct span name;
    if (!reader_str(reader, &name)) {
        return reader_finish(reader);
    }
    const struct in_field *field = find_field(&api_in_fields[document + 1], name);
    if (field == NULL) {
        return refuse(place, text_classify(name) == TEXT_PLAIN ? name : span_text("?"),
                      "there is no such field");
    }
    uint32_t index = (uint32_t)(field - &api_in_fields[document]);
    if ((*seen & UINT32_C(1) << index) != 0) {
        return refuse(place, name, "is given twice");
    }
    *seen |= UINT32_C(1) << index;
    return read_value(place, field, reader, &values[index]);
}

err_t api_in_read(struct reader *reader, enum in_row document, struct in_place place,
                  struct in_value values[IN_VALUES_MAX])
{
    begin_values(document, values);
    struct reader_item item;
    if (!reader_next(reader, &item)) {
        return reader_finish(reader);
    }
    if (item.kind != READER_MAP) {
        return refuse_document(place);
    }
    uint32_t seen = 0; /* a bit for each field that was there, null included */
    for (uint32_t pair = 0; pair < item.count; pair++) {
        TRY(read_field(reader, document, place, values, &seen));
    }
    return check_required(document, place, values);
}

err_t api_in_read_all(struct span bytes, enum in_row document, struct in_place place,
                      struct in_value values[IN_VALUES_MAX])
{
    if (bytes.size == 0) {
        begin_values(document, values);
        return check_required(document, place, values);
    }
    struct reader reader;
    reader_init(&reader, bytes);
    TRY(api_in_read(&reader, document, place, values));
    return reader_finish(&reader);
}
