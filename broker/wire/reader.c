#include "broker/wire/reader.h"

#include "broker/base/bytes.h"

/* How the bytes after an item's first byte are read. */
enum reader_form {
    FORM_NONE, /* 0xc1 means nothing */
    FORM_NIL,
    FORM_FALSE,
    FORM_TRUE,
    FORM_UNSIGNED, /* `size` bytes, big-endian */
    FORM_SIGNED,
    FORM_FLOAT,
    FORM_STR, /* `size` bytes of length, then the bytes */
    FORM_BIN,
    FORM_EXT,       /* and between them the type */
    FORM_EXT_FIXED, /* the type, then `size` bytes */
    FORM_ARRAY,     /* `size` bytes of count */
    FORM_MAP,
};

/* 0xc0 to 0xdf; the other first bytes hold a value of their own. */
static const struct {
    uint8_t form;
    uint8_t size;
} reader_forms[32] = {
    {FORM_NIL, 0},        {FORM_NONE, 0},      {FORM_FALSE, 0},     {FORM_TRUE, 0},
    {FORM_BIN, 1},        {FORM_BIN, 2},       {FORM_BIN, 4},       {FORM_EXT, 1},
    {FORM_EXT, 2},        {FORM_EXT, 4},       {FORM_FLOAT, 4},     {FORM_FLOAT, 8},
    {FORM_UNSIGNED, 1},   {FORM_UNSIGNED, 2},  {FORM_UNSIGNED, 4},  {FORM_UNSIGNED, 8},
    {FORM_SIGNED, 1},     {FORM_SIGNED, 2},    {FORM_SIGNED, 4},    {FORM_SIGNED, 8},
    {FORM_EXT_FIXED, 1},  {FORM_EXT_FIXED, 2}, {FORM_EXT_FIXED, 4}, {FORM_EXT_FIXED, 8},
    {FORM_EXT_FIXED, 16}, {FORM_STR, 1},       {FORM_STR, 2},       {FORM_STR, 4},
    {FORM_ARRAY, 2},      {FORM_ARRAY, 4},     {FORM_MAP, 2},       {FORM_MAP, 4},
};

void reader_init(struct reader *reader, struct span input)
{
    reader->input = input;
    reader->at = 0;
    reader->owed = 0;
    reader->depth = 0;
    reader->failure = NULL;
}

static size_t reader_left(const struct reader *reader)
{
    return reader->input.size - reader->at;
}

bool reader_at_end(const struct reader *reader)
{
    return reader->failure == NULL && reader_left(reader) == 0 && reader->owed == 0;
}

static bool reader_refuse(struct reader *reader, const char *failure)
{
    if (reader->failure == NULL) {
        reader->failure = failure;
    }
    return false;
}

static bool reader_bytes(struct reader *reader, size_t size, struct span *out)
{
    if (size > reader_left(reader)) {
        return reader_refuse(reader, "the input ends inside an item");
    }
    *out = span_of(reader->input.data + reader->at, size);
    reader->at += size;
    return true;
}

/* A big-endian number of 0, 1, 2, 4 or 8 bytes. */
static bool reader_number(struct reader *reader, size_t size, uint64_t *out)
{
    struct span bytes;
    if (!reader_bytes(reader, size, &bytes)) {
        return false;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value = value << 8 | bytes.data[i];
    }
    *out = value;
    return true;
}

static bool reader_signed(struct reader *reader, size_t size, struct reader_item *out)
{
    uint64_t value = 0;
    if (!reader_number(reader, size, &value)) {
        return false;
    }
    unsigned unused = 64 - 8 * (unsigned)size;
    int64_t number = (int64_t)(value << unused) >> unused; /* carries the sign down */
    out->kind = number < 0 ? READER_INT : READER_UINT;
    if (number < 0) {
        out->signed_ = number;
    } else {
        out->unsigned_ = (uint64_t)number;
    }
    return true;
}

static bool reader_float(struct reader *reader, size_t size, struct reader_item *out)
{
    uint64_t value = 0;
    if (!reader_number(reader, size, &value)) {
        return false;
    }
    out->kind = READER_FLOAT;
    if (size == 8) {
        memcpy(&out->number, &value, sizeof out->number);
        return true;
    }
    uint32_t bits = (uint32_t)value;
    float narrow;
    memcpy(&narrow, &bits, sizeof narrow);
    out->number = (double)narrow;
    return true;
}

static bool reader_blob(struct reader *reader, enum reader_kind kind, uint64_t size,
                        struct reader_item *out)
{
    out->kind = kind;
    if (kind == READER_EXT) {
        struct span type;
        if (!reader_bytes(reader, 1, &type)) {
            return false;
        }
        out->ext_type = (int8_t)type.data[0];
    }
    return reader_bytes(reader, size, &out->bytes);
}

/* Opens a container of `count` items or pairs; an empty one is closed at once. */
static bool reader_open(struct reader *reader, enum reader_kind kind, uint64_t count,
                        struct reader_item *out)
{
    uint64_t items = kind == READER_MAP ? count * 2 : count;
    if (items > reader_left(reader) || reader->owed > reader_left(reader) - items) {
        return reader_refuse(reader, "a container declares more items than bytes are left");
    }
    if (items > 0) {
        if (reader->depth == READER_DEPTH_MAX) {
            return reader_refuse(reader, "containers are nested too deep");
        }
        reader->left[reader->depth++] = items;
        reader->owed += items;
    }
    out->kind = kind;
    out->count = (uint32_t)count;
    return true;
}

/* An item after its first byte, by the table. */
static bool reader_by_form(struct reader *reader, uint8_t first, struct reader_item *out)
{
    size_t size = reader_forms[first - 0xc0].size;
    uint64_t number = 0;
    switch ((enum reader_form)reader_forms[first - 0xc0].form) {
    case FORM_NONE:
        return reader_refuse(reader, "0xc1 is not an item");
    case FORM_NIL:
        out->kind = READER_NIL;
        return true;
    case FORM_FALSE:
    case FORM_TRUE:
        out->kind = READER_BOOL;
        out->boolean = first == 0xc3;
        return true;
    case FORM_UNSIGNED:
        out->kind = READER_UINT;
        return reader_number(reader, size, &out->unsigned_);
    case FORM_SIGNED:
        return reader_signed(reader, size, out);
    case FORM_FLOAT:
        return reader_float(reader, size, out);
    case FORM_STR:
        return reader_number(reader, size, &number) && reader_blob(reader, READER_STR, number, out);
    case FORM_BIN:
        return reader_number(reader, size, &number) && reader_blob(reader, READER_BIN, number, out);
    case FORM_EXT:
        return reader_number(reader, size, &number) && reader_blob(reader, READER_EXT, number, out);
    case FORM_EXT_FIXED:
        return reader_blob(reader, READER_EXT, size, out);
    case FORM_ARRAY:
        return reader_number(reader, size, &number) &&
               reader_open(reader, READER_ARRAY, number, out);
    case FORM_MAP:
        return reader_number(reader, size, &number) && reader_open(reader, READER_MAP, number, out);
    }
    return false;
}

/* An item whose first byte holds a value, a length or a count. */
static bool reader_by_first(struct reader *reader, uint8_t first, struct reader_item *out)
{
    if (first < 0x80) {
        out->kind = READER_UINT;
        out->unsigned_ = first;
        return true;
    }
    if (first >= 0xe0) {
        out->kind = READER_INT;
        out->signed_ = (int64_t)first - 0x100;
        return true;
    }
    if (first >= 0xa0) {
        return reader_blob(reader, READER_STR, first & 0x1f, out);
    }
    return reader_open(reader, first < 0x90 ? READER_MAP : READER_ARRAY, first & 0x0f, out);
}

/* One item of the innermost open container is being read. */
static void reader_pay(struct reader *reader)
{
    if (reader->depth > 0) {
        reader->owed--;
        reader->left[reader->depth - 1]--;
    }
}

/* Closes the containers that end here. Only now: one whose last item is a container stays open
 * around it, or nesting in last place would not count as depth. */
static void reader_close(struct reader *reader)
{
    while (reader->depth > 0 && reader->left[reader->depth - 1] == 0) {
        reader->depth--;
    }
}

bool reader_next(struct reader *reader, struct reader_item *out)
{
    if (reader->failure != NULL) {
        return false;
    }
    if (reader_left(reader) == 0) {
        return reader_refuse(reader, "the input ends before an item");
    }
    size_t start = reader->at;
    uint8_t first = reader->input.data[reader->at++];
    struct reader_item item = {0};
    reader_pay(reader);
    bool is_plain = first < 0xc0 || first >= 0xe0;
    if (!(is_plain ? reader_by_first(reader, first, &item)
                   : reader_by_form(reader, first, &item))) {
        reader->at = start; /* the place to report */
        return false;
    }
    reader_close(reader);
    *out = item;
    return true;
}

bool reader_skip(struct reader *reader)
{
    uint64_t left = 1;
    while (left > 0) {
        struct reader_item item;
        if (!reader_next(reader, &item)) {
            return false;
        }
        left--;
        if (item.kind == READER_ARRAY) {
            left += item.count;
        } else if (item.kind == READER_MAP) {
            left += 2 * (uint64_t)item.count;
        }
    }
    return true;
}

/* ---- items of a known kind ---------------------------------------------------------------------
 */

static bool reader_expect(struct reader *reader, enum reader_kind kind, struct reader_item *out,
                          const char *failure)
{
    if (!reader_next(reader, out)) {
        return false;
    }
    return out->kind == kind || reader_refuse(reader, failure);
}

bool reader_u64(struct reader *reader, uint64_t *out)
{
    struct reader_item item;
    bool is_read = reader_expect(reader, READER_UINT, &item, "a non-negative integer is wanted");
    if (is_read) {
        *out = item.unsigned_;
    }
    return is_read;
}

bool reader_str(struct reader *reader, struct span *out)
{
    struct reader_item item;
    bool is_read = reader_expect(reader, READER_STR, &item, "a string is wanted");
    if (is_read) {
        *out = item.bytes;
    }
    return is_read;
}

bool reader_array(struct reader *reader, uint32_t *out)
{
    struct reader_item item;
    bool is_read = reader_expect(reader, READER_ARRAY, &item, "an array is wanted");
    if (is_read) {
        *out = item.count;
    }
    return is_read;
}

bool reader_map(struct reader *reader, uint32_t *out)
{
    struct reader_item item;
    bool is_read = reader_expect(reader, READER_MAP, &item, "a map is wanted");
    if (is_read) {
        *out = item.count;
    }
    return is_read;
}

err_t reader_finish(const struct reader *reader)
{
    if (reader->failure != NULL) {
        return ERR(INVALID, "msgpack, byte %zu: %s", reader->at, reader->failure);
    }
    if (reader->owed > 0) {
        return ERR(INVALID, "msgpack, byte %zu: a container is not complete", reader->at);
    }
    if (reader_left(reader) > 0) {
        return ERR(INVALID, "msgpack, byte %zu: bytes after the last item", reader->at);
    }
    return NULL;
}
