#include "broker/wire/message.h"

#include <assert.h>

#include "broker/base/bytes.h"
#include "broker/base/text.h"
#include "broker/wire/writer.h"

/* ---- the rows -------------------------------------------------------------------------------- */

#define NEED_REQUIRED true
#define NEED_OPTIONAL false

/* Each table ends with an empty row, so that one without fields is one too. */
#define MESSAGE(name, number, sender, role, text) static const struct wire_field fields_##name[] = {
#define RECORD(name, text) static const struct wire_field fields_##name[] = {
#define FIELD(of, name, kind, need, min, max, text)                                                \
    {#name,                                                                                        \
     WIRE_KIND_##kind,                                                                             \
     NEED_##need,                                                                                  \
     WIRE_RECORD_NONE,                                                                             \
     min,                                                                                          \
     max,                                                                                          \
     offsetof(struct wire_##of, name),                                                             \
     text},
#define LIST(of, name, record, max, text)                                                          \
    {#name, WIRE_KIND_LIST, true, WIRE_RECORD_##record, 0, max, offsetof(struct wire_##of, name),  \
     text},
#define END(of)                                                                                    \
    {                                                                                              \
        .name = NULL                                                                               \
    }                                                                                              \
    }                                                                                              \
    ;
#include "broker/wire/messages.def"

#define FIELD_COUNT(of) (sizeof fields_##of / sizeof fields_##of[0] - 1)

static const struct wire_shape messages[] = {
#define MESSAGE(name, number, sender, role, text)                                                  \
    {#name,                                                                                        \
     WIRE_##name,                                                                                  \
     WIRE_FROM_##sender,                                                                           \
     WIRE_ROLE_##role,                                                                             \
     text,                                                                                         \
     sizeof(struct wire_##name),                                                                   \
     FIELD_COUNT(name),                                                                            \
     fields_##name},
#include "broker/wire/messages.def"
};
enum { MESSAGE_COUNT = sizeof messages / sizeof messages[0], TYPES = 32 };

static const struct wire_shape records[] = {
    {.name = "none"},
#define RECORD(name, text)                                                                         \
    {#name, (enum wire_type)0,          WIRE_FROM_CLIENT,  WIRE_ROLE_NONE,                         \
     text,  sizeof(struct wire_##name), FIELD_COUNT(name), fields_##name},
#include "broker/wire/messages.def"
};

#define MESSAGE(name, number, sender, role, text)                                                  \
    _Static_assert(number < TYPES && FIELD_COUNT(name) <= WIRE_FIELDS_MAX, "fits");
#include "broker/wire/messages.def"

enum place {
#define MESSAGE(name, number, sender, role, text) PLACE_##name,
#include "broker/wire/messages.def"
};

/* Number of a message to its place among the rows and one; 0: there is none. */
static const uint8_t place_of_type[TYPES] = {
#define MESSAGE(name, number, sender, role, text) [number] = PLACE_##name + 1,
#include "broker/wire/messages.def"
};

const struct wire_shape *wire_shape(enum wire_type type)
{
    uint32_t number = (uint32_t)type;
    uint32_t place = number < TYPES ? place_of_type[number] : 0;
    return place == 0 ? NULL : &messages[place - 1];
}

const struct wire_shape *wire_record_shape(enum wire_record record)
{
    assert(record > WIRE_RECORD_NONE && record < WIRE_RECORDS);
    return &records[record];
}

const struct wire_shape *wire_shapes(uint32_t *count)
{
    *count = MESSAGE_COUNT;
    return messages;
}

/* ---- decoding -------------------------------------------------------------------------------- */

static bool is_name(struct span name)
{
    bool is_good = name.size > 0 && !span_is(name, ".") && !span_is(name, "..");
    for (size_t at = 0; at < name.size && is_good; at++) {
        uint8_t byte = name.data[at];
        is_good = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                  (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' || byte == '-';
    }
    return is_good;
}

/* The bytes of the next `count` items, each with all that is in it. */
static bool skip_items(struct reader *reader, uint32_t count, struct span *out)
{
    size_t start = reader->at;
    for (uint32_t index = 0; index < count; index++) {
        if (!reader_skip(reader)) {
            return false;
        }
    }
    *out = span_of(reader->input.data + start, reader->at - start);
    return true;
}

static const char *wanted_kind(enum wire_kind kind)
{
    switch (kind) {
    case WIRE_KIND_U32:
    case WIRE_KIND_U64:
    case WIRE_KIND_MAYBE:
        return "must be a non-negative integer";
    case WIRE_KIND_BOOL:
        return "must be true or false";
    case WIRE_KIND_NAME:
    case WIRE_KIND_TEXT:
    case WIRE_KIND_NOTE:
        return "must be a string";
    case WIRE_KIND_BYTES:
        return "must be binary";
    case WIRE_KIND_MAP:
        return "must be a map";
    case WIRE_KIND_LIST:
        return "must be an array";
    }
    return "";
}

static const enum reader_kind reader_kinds[] = {
    [WIRE_KIND_U32] = READER_UINT,   [WIRE_KIND_U64] = READER_UINT,
    [WIRE_KIND_MAYBE] = READER_UINT, [WIRE_KIND_BOOL] = READER_BOOL,
    [WIRE_KIND_NAME] = READER_STR,   [WIRE_KIND_TEXT] = READER_STR,
    [WIRE_KIND_NOTE] = READER_STR,   [WIRE_KIND_BYTES] = READER_BIN,
    [WIRE_KIND_MAP] = READER_MAP,    [WIRE_KIND_LIST] = READER_ARRAY,
};

/* Keeps what was read in the struct; returns its number, size or count, for the bounds. */
static bool store_item(struct reader *reader, const struct wire_field *field,
                       const struct reader_item *item, void *to, uint64_t *measure)
{
    struct wire_list list = {0};
    uint32_t narrow;
    switch (field->kind) {
    case WIRE_KIND_U32:
        *measure = item->unsigned_;
        narrow = (uint32_t)item->unsigned_;
        memcpy(to, &narrow, sizeof narrow);
        return true;
    case WIRE_KIND_U64:
    case WIRE_KIND_MAYBE:
        *measure = item->unsigned_;
        memcpy(to, &item->unsigned_, sizeof item->unsigned_);
        return true;
    case WIRE_KIND_BOOL:
        *measure = item->boolean;
        memcpy(to, &item->boolean, sizeof item->boolean);
        return true;
    case WIRE_KIND_NAME:
    case WIRE_KIND_TEXT:
    case WIRE_KIND_NOTE:
    case WIRE_KIND_BYTES:
        *measure = item->bytes.size;
        memcpy(to, &item->bytes, sizeof item->bytes);
        return true;
    case WIRE_KIND_MAP:
    case WIRE_KIND_LIST:
        *measure = item->count;
        list.count = item->count;
        if (item->count > field->max) {
            return true; /* it is refused by its count, before anything is walked */
        }
        if (!skip_items(reader, field->kind == WIRE_KIND_MAP ? 2 * item->count : item->count,
                        &list.items)) {
            return false;
        }
        memcpy(to, &list, sizeof list);
        return true;
    }
    return false;
}

static err_t field_error(const char *where, const struct wire_field *field, const char *fault)
{
    return ERR(INVALID, "%s%s%s: %s", where, where[0] == '\0' ? "" : ".", field->name, fault);
}

static err_t bounds_error(const char *where, const struct wire_field *field)
{
    const char *what = field->kind == WIRE_KIND_MAP || field->kind == WIRE_KIND_LIST ? " items"
                       : field->kind == WIRE_KIND_TEXT || field->kind == WIRE_KIND_BYTES ||
                               field->kind == WIRE_KIND_NAME
                           ? " bytes"
                           : "";
    return ERR(INVALID, "%s%s%s: must be between %llu and %llu%s", where,
               where[0] == '\0' ? "" : ".", field->name, (unsigned long long)field->min,
               (unsigned long long)field->max, what);
}

/* What bytes of a field of text must be beside their size. */
static err_t check_text(const struct wire_field *field, const char *where, struct span text)
{
    if (field->kind == WIRE_KIND_NAME && !is_name(text)) {
        return field_error(where, field, "names match [A-Za-z0-9._-]{1,255}");
    }
    if (field->kind == WIRE_KIND_TEXT && text_classify(text) != TEXT_PLAIN) {
        return field_error(where, field, "must be UTF-8 without control characters");
    }
    if (field->kind == WIRE_KIND_NOTE && text_classify(text) == TEXT_BINARY) {
        return field_error(where, field,
                           "must be UTF-8, with no control characters but those of lines");
    }
    return NULL;
}

/* One field; `where` names what it is part of ("" for a message). */
static err_t decode_field(struct reader *reader, const struct wire_field *field, const char *where,
                          uint8_t *base)
{
    struct reader_item item;
    uint64_t measure = 0;
    if (!reader_next(reader, &item)) {
        return field_error(where, field, reader->failure);
    }
    if (item.kind == READER_NIL && !field->is_required) {
        return NULL;
    }
    bool takes_text = field->kind == WIRE_KIND_BYTES && item.kind == READER_STR;
    if (item.kind != reader_kinds[field->kind] && !takes_text) {
        return field_error(where, field, wanted_kind(field->kind));
    }
    if (!store_item(reader, field, &item, base + field->offset, &measure)) {
        return field_error(where, field, reader->failure);
    }
    if (measure < field->min || measure > field->max) {
        return bounds_error(where, field);
    }
    return check_text(field, where, item.bytes);
}

static void clear_fields(const struct wire_shape *shape, void *out)
{
    static const uint64_t nil = WIRE_NIL;
    memset(out, 0, shape->size);
    for (uint32_t index = 0; index < shape->field_count; index++) {
        if (shape->fields[index].kind == WIRE_KIND_MAYBE) {
            memcpy((uint8_t *)out + shape->fields[index].offset, &nil, sizeof nil);
        }
    }
}

/* `count` items of an array that has been opened; `out` has been cleared. */
static err_t decode_fields(struct reader *reader, const struct wire_shape *shape, uint32_t count,
                           const char *where, void *out)
{
    struct span passed;
    for (uint32_t index = 0; index < shape->field_count; index++) {
        const struct wire_field *field = &shape->fields[index];
        if (index < count) {
            TRY(decode_field(reader, field, where, out));
        } else if (field->is_required) {
            return field_error(where, field, "is missing");
        }
    }
    if (count > shape->field_count && !skip_items(reader, count - shape->field_count, &passed)) {
        return ERR(INVALID, "%s: %s", shape->name, reader->failure);
    }
    return NULL;
}

err_t wire_decode(struct span payload, struct wire_frame *out)
{
    struct reader reader;
    uint32_t count = 0;
    uint64_t type = 0;
    uint64_t id = 0;
    *out = (struct wire_frame){0};
    reader_init(&reader, payload);
    if (!reader_array(&reader, &count) || count < 2 || !reader_u64(&reader, &type) ||
        !reader_u64(&reader, &id)) {
        return ERR(INVALID, "a frame is an array that begins with a message's number and an id%s%s",
                   reader.failure == NULL ? "" : ": ",
                   reader.failure == NULL ? "" : reader.failure);
    }
    const struct wire_shape *shape = type < TYPES ? wire_shape((enum wire_type)type) : NULL;
    out->id = id;
    if (shape == NULL) {
        return ERR(NOT_IMPLEMENTED, "there is no message with the number %llu",
                   (unsigned long long)type);
    }
    clear_fields(shape, &out->id);
    out->type = shape->type;
    out->id = id;
    TRY(decode_fields(&reader, shape, count - 2, "", &out->id));
    return reader_finish(&reader);
}

void wire_items_begin(struct wire_items *items, const char *name, enum wire_record record,
                      const struct wire_list *list)
{
    reader_init(&items->reader, list->items);
    items->name = name;
    items->shape = wire_record_shape(record);
    items->left = list->count;
    items->index = UINT32_MAX;
    items->err = NULL;
}

bool wire_items_next(struct wire_items *items, void *out)
{
    uint32_t count = 0;
    if (items->left == 0 || items->err != NULL) {
        return false;
    }
    items->left--;
    items->index++;
    if (!reader_array(&items->reader, &count)) {
        items->err = ERR(INVALID, "%s[%u]: %s", items->name, items->index, items->reader.failure);
        return false;
    }
    clear_fields(items->shape, out);
    items->err = decode_fields(&items->reader, items->shape, count, "", out);
    if (items->err != NULL) {
        err_t inner = items->err;
        items->err = ERR(INVALID, "%s[%u].%s", items->name, items->index, err_message(inner));
        err_free(inner);
    }
    return items->err == NULL;
}

err_t wire_items_finish(struct wire_items *items)
{
    err_t err = items->err;
    items->err = NULL;
    return err == NULL ? NULL : err_passed(err, __func__);
}

bool wire_map_next(struct wire_list *map, struct span *name, struct span *value)
{
    struct reader reader;
    if (map->count == 0) {
        return false;
    }
    reader_init(&reader, map->items);
    if (!reader_str(&reader, name) || !reader_str(&reader, value)) {
        return false;
    }
    map->items = span_of(map->items.data + reader.at, map->items.size - reader.at);
    map->count--;
    return true;
}

/* ---- encoding -------------------------------------------------------------------------------- */

/* Its number, size or count, by which a field that is not given is told. */
static uint64_t field_measure(const struct wire_field *field, const void *base)
{
    const uint8_t *from = (const uint8_t *)base + field->offset;
    struct wire_list list;
    struct span bytes;
    uint64_t wide;
    uint32_t narrow;
    bool flag;
    switch (field->kind) {
    case WIRE_KIND_U32:
        memcpy(&narrow, from, sizeof narrow);
        return narrow;
    case WIRE_KIND_U64:
        memcpy(&wide, from, sizeof wide);
        return wide;
    case WIRE_KIND_MAYBE:
        memcpy(&wide, from, sizeof wide);
        return wide + 1; /* WIRE_NIL is what is not given */
    case WIRE_KIND_BOOL:
        memcpy(&flag, from, sizeof flag);
        return flag;
    case WIRE_KIND_NAME:
    case WIRE_KIND_TEXT:
    case WIRE_KIND_NOTE:
    case WIRE_KIND_BYTES:
        memcpy(&bytes, from, sizeof bytes);
        return bytes.size;
    case WIRE_KIND_MAP:
    case WIRE_KIND_LIST:
        memcpy(&list, from, sizeof list);
        return list.count;
    }
    return 0;
}

static void put_field(struct buf *out, const struct wire_field *field, const void *base,
                      bool with_items)
{
    const uint8_t *from = (const uint8_t *)base + field->offset;
    uint64_t measure = field_measure(field, base);
    struct wire_list list;
    struct span bytes;
    if (measure == 0 && !field->is_required) {
        writer_nil(out);
        return;
    }
    switch (field->kind) {
    case WIRE_KIND_U32:
    case WIRE_KIND_U64:
        writer_u64(out, measure);
        return;
    case WIRE_KIND_MAYBE:
        writer_u64(out, measure - 1);
        return;
    case WIRE_KIND_BOOL:
        writer_bool(out, measure != 0);
        return;
    case WIRE_KIND_NAME:
    case WIRE_KIND_TEXT:
    case WIRE_KIND_NOTE:
    case WIRE_KIND_BYTES:
        memcpy(&bytes, from, sizeof bytes);
        if (field->kind == WIRE_KIND_BYTES) {
            writer_bin(out, bytes);
        } else {
            writer_str(out, bytes);
        }
        return;
    case WIRE_KIND_MAP:
    case WIRE_KIND_LIST:
        memcpy(&list, from, sizeof list);
        if (field->kind == WIRE_KIND_MAP) {
            writer_map(out, list.count);
        } else {
            writer_array(out, list.count);
        }
        if (with_items) {
            buf_append_span(out, list.items);
        }
        return;
    }
}

/* How many fields are to be written: what is not given is left out at the end. */
static uint32_t given_fields(const struct wire_shape *shape, const void *base)
{
    uint32_t count = shape->field_count;
    while (count > 0 && !shape->fields[count - 1].is_required &&
           field_measure(&shape->fields[count - 1], base) == 0) {
        count--;
    }
    return count;
}

static uint32_t list_place(const struct wire_shape *shape)
{
    uint32_t place = 0;
    while (place < shape->field_count && shape->fields[place].kind != WIRE_KIND_LIST) {
        place++;
    }
    return place;
}

size_t wire_begin(struct buf *out, enum wire_type type, const void *message)
{
    const struct wire_shape *shape = wire_shape(type);
    size_t start = out->size;
    uint64_t id;
    assert(shape != NULL);
    memcpy(&id, message, sizeof id);
    (void)buf_extend(out, WIRE_SIZE_BYTES);
    uint32_t count = given_fields(shape, message);
    uint32_t list = list_place(shape);
    writer_array(out, 2 + count);
    writer_u64(out, (uint64_t)type);
    writer_u64(out, id);
    for (uint32_t index = 0; index < count && index <= list; index++) {
        put_field(out, &shape->fields[index], message, false);
    }
    return start;
}

void wire_put_text(struct buf *out, struct span text)
{
    writer_str(out, text);
}

void wire_put_record(struct buf *out, enum wire_record record, const void *value)
{
    const struct wire_shape *shape = wire_record_shape(record);
    uint32_t count = given_fields(shape, value);
    writer_array(out, count);
    for (uint32_t index = 0; index < count; index++) {
        put_field(out, &shape->fields[index], value, true);
    }
}

void wire_end(struct buf *out, size_t start, enum wire_type type, const void *message)
{
    const struct wire_shape *shape = wire_shape(type);
    assert(shape != NULL);
    uint32_t count = given_fields(shape, message);
    for (uint32_t index = list_place(shape) + 1; index < count; index++) {
        put_field(out, &shape->fields[index], message, true);
    }
    size_t size = out->failed ? 0 : out->size - start - WIRE_SIZE_BYTES;
    if (size > UINT32_MAX) {
        out->failed = true;
    }
    if (!out->failed) {
        wire_frame_put_size(out->data + start, (uint32_t)size);
    }
}

void wire_encode(struct buf *out, enum wire_type type, const void *message)
{
    const struct wire_shape *shape = wire_shape(type);
    size_t start = wire_begin(out, type, message);
    assert(shape != NULL);
    uint32_t list = list_place(shape);
    if (list < shape->field_count) {
        struct wire_list items;
        memcpy(&items, (const uint8_t *)message + shape->fields[list].offset, sizeof items);
        buf_append_span(out, items.items);
    }
    wire_end(out, start, type, message);
}

uint32_t wire_frame_size(const uint8_t bytes[WIRE_SIZE_BYTES])
{
    return bytes_get_be32(bytes);
}

void wire_frame_put_size(uint8_t bytes[WIRE_SIZE_BYTES], uint32_t size)
{
    bytes_put_be32(bytes, size);
}

/* ---- for people ------------------------------------------------------------------------------ */

enum { PRINTED_TEXT_MAX = 64 };

static void print_text(struct buf *out, struct span text)
{
    size_t size = text.size < PRINTED_TEXT_MAX ? text.size : PRINTED_TEXT_MAX;
    buf_append_byte(out, '"');
    for (size_t at = 0; at < size; at++) {
        uint8_t byte = text.data[at];
        buf_append_byte(out, byte >= ' ' && byte < 0x7f && byte != '"' ? byte : '.');
    }
    buf_append_text(out, size < text.size ? "\"..." : "\"");
}

static void print_field(struct buf *out, const struct wire_field *field, const void *base)
{
    uint64_t measure = field_measure(field, base);
    struct span bytes;
    buf_printf(out, " %s=", field->name);
    switch (field->kind) {
    case WIRE_KIND_U32:
    case WIRE_KIND_U64:
        buf_printf(out, "%llu", (unsigned long long)measure);
        return;
    case WIRE_KIND_MAYBE:
        buf_printf(out, "%llu", (unsigned long long)(measure - 1));
        return;
    case WIRE_KIND_BOOL:
        buf_append_text(out, measure != 0 ? "true" : "false");
        return;
    case WIRE_KIND_NAME:
    case WIRE_KIND_TEXT:
    case WIRE_KIND_NOTE:
        memcpy(&bytes, (const uint8_t *)base + field->offset, sizeof bytes);
        print_text(out, bytes);
        return;
    case WIRE_KIND_BYTES:
        buf_printf(out, "(%llu bytes)", (unsigned long long)measure);
        return;
    case WIRE_KIND_MAP:
    case WIRE_KIND_LIST:
        buf_printf(out, "[%llu]", (unsigned long long)measure);
        return;
    }
}

void wire_print(struct buf *out, const struct wire_frame *frame)
{
    const struct wire_shape *shape = wire_shape(frame->type);
    if (shape == NULL) {
        buf_printf(out, "unknown #%llu", (unsigned long long)frame->id);
        return;
    }
    buf_printf(out, "%s #%llu", shape->name, (unsigned long long)frame->id);
    for (uint32_t index = 0; index < shape->field_count; index++) {
        const struct wire_field *field = &shape->fields[index];
        if (field->is_required || field_measure(field, &frame->id) != 0) {
            print_field(out, field, &frame->id);
        }
    }
}
