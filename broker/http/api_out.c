#include "broker/http/api_out.h"

#include <assert.h>

#include "broker/base/bytes.h"
#include "broker/base/text.h"
#include "broker/core/attributes.h"
#include "broker/http/json.h"
#include "broker/wire/writer.h"

void out_init(struct out *out, struct buf *buf, bool msgpack)
{
    *out = (struct out){.buf = buf, .msgpack = msgpack};
    for (size_t index = 0; index < OUT_TIMES; index++) {
        out->seconds[index].second = UINT64_MAX;
    }
}

/* Before each value that has no name: counts it, and separates it from the one before. */
static void begin_element(struct out *out)
{
    struct out_level *level = out->depth == 0 ? NULL : &out->levels[out->depth - 1];
    if (level != NULL && level->array) {
        level->count++;
    }
    if (!out->msgpack) {
        if (out->comma) {
            buf_append_byte(out->buf, ',');
        }
        out->comma = true;
    }
}

/* A container whose number of elements is not known yet: its header is of the form with a fixed
 * size, and out_end writes the number into it. */
static size_t open_header(struct buf *buf, bool array)
{
    uint8_t header[5] = {array ? 0xdd : 0xde};
    size_t place = buf->size + 1;
    buf_append(buf, header, array ? 5 : 3);
    return place;
}

static void close_header(struct buf *buf, const struct out_level *level)
{
    if (buf->failed) {
        return;
    }
    if (level->array) {
        bytes_put_be32(buf->data + level->place, level->count);
    } else {
        assert(level->count <= UINT16_MAX);
        bytes_put_be16(buf->data + level->place, (uint16_t)level->count);
    }
}

static void begin_level(struct out *out, bool array)
{
    begin_element(out);
    assert(out->depth < OUT_DEPTH_MAX);
    struct out_level *level = &out->levels[out->depth++];
    *level = (struct out_level){.array = array};
    if (out->msgpack) {
        level->place = open_header(out->buf, array);
    } else {
        buf_append_byte(out->buf, array ? '[' : '{');
        out->comma = false;
    }
}

void out_map(struct out *out)
{
    begin_level(out, false);
}

void out_array(struct out *out)
{
    begin_level(out, true);
}

void out_end(struct out *out)
{
    assert(out->depth > 0);
    struct out_level *level = &out->levels[--out->depth];
    if (!out->msgpack) {
        buf_append_byte(out->buf, level->array ? ']' : '}');
        out->comma = true;
    } else {
        close_header(out->buf, level);
    }
}

/* A name takes the comma; the value after it gets none. */
static void begin_name(struct out *out)
{
    assert(out->depth > 0);
    assert(!out->levels[out->depth - 1].array);
    out->levels[out->depth - 1].count++;
    if (!out->msgpack && out->comma) {
        buf_append_byte(out->buf, ',');
    }
    out->comma = false;
}

void out_name(struct out *out, const char *name)
{
    begin_name(out);
    struct span text = span_text(name);
    if (out->msgpack) {
        writer_str(out->buf, text);
        return;
    }
    uint8_t *to = buf_extend(out->buf, text.size + 3);
    if (to != NULL) {
        to[0] = '"';
        memcpy(to + 1, text.data, text.size);
        to[text.size + 1] = '"';
        to[text.size + 2] = ':';
    }
}

void out_name_span(struct out *out, struct span name)
{
    begin_name(out);
    if (out->msgpack) {
        writer_str(out->buf, name);
    } else {
        json_put_string(out->buf, name);
        buf_append_byte(out->buf, ':');
    }
}

void out_span(struct out *out, struct span text)
{
    begin_element(out);
    if (out->msgpack) {
        writer_str(out->buf, text);
    } else {
        json_put_string(out->buf, text);
    }
}

void out_text(struct out *out, const char *text)
{
    out_span(out, span_text(text));
}

void out_u64(struct out *out, uint64_t value)
{
    begin_element(out);
    if (out->msgpack) {
        writer_u64(out->buf, value);
        return;
    }
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    buf_append(out->buf, digits + at, sizeof digits - at);
}

void out_bool(struct out *out, bool value)
{
    begin_element(out);
    if (out->msgpack) {
        writer_bool(out->buf, value);
    } else {
        buf_append_text(out->buf, value ? "true" : "false");
    }
}

void out_null(struct out *out)
{
    begin_element(out);
    if (out->msgpack) {
        writer_nil(out->buf);
    } else {
        buf_append_text(out->buf, "null");
    }
}

void out_field_span(struct out *out, const char *name, struct span text)
{
    out_name(out, name);
    out_span(out, text);
}

void out_field_text(struct out *out, const char *name, const char *text)
{
    out_name(out, name);
    out_text(out, text);
}

void out_field_u64(struct out *out, const char *name, uint64_t value)
{
    out_name(out, name);
    out_u64(out, value);
}

void out_field_bool(struct out *out, const char *name, bool value)
{
    out_name(out, name);
    out_bool(out, value);
}

void out_field_null(struct out *out, const char *name)
{
    out_name(out, name);
    out_null(out);
}

/* The calendar is costly; within one second only the last three digits differ. */
static struct span iso_text(struct out *out, uint64_t wall_ms)
{
    struct out_second *slot = &out->seconds[wall_ms / 1000 % OUT_TIMES];
    if (slot->second != wall_ms / 1000) {
        clock_iso(wall_ms, slot->text);
        slot->second = wall_ms / 1000;
    }
    uint64_t ms = wall_ms % 1000;
    slot->text[20] = (char)('0' + ms / 100);
    slot->text[21] = (char)('0' + ms / 10 % 10);
    slot->text[22] = (char)('0' + ms % 10);
    return span_of(slot->text, CLOCK_ISO_SIZE - 1);
}

void out_field_time(struct out *out, const char *iso_name, const char *ms_name, uint64_t wall_ms)
{
    out_field_span(out, iso_name, iso_text(out, wall_ms));
    out_field_u64(out, ms_name, wall_ms);
}

void out_field_body(struct out *out, struct span body)
{
    if (out->msgpack) {
        out_name(out, "body");
        begin_element(out);
        writer_bin(out->buf, body);
    } else if (text_classify(body) != TEXT_BINARY) {
        out_field_span(out, "body", body);
    } else {
        out_name(out, "body_base64");
        begin_element(out);
        buf_append_byte(out->buf, '"');
        json_put_base64(out->buf, body);
        buf_append_byte(out->buf, '"');
    }
}

void out_field_key(struct out *out, struct span key)
{
    if (key.size > 0) {
        out_field_span(out, "key", key);
    }
}

void out_field_attributes(struct out *out, struct span attributes)
{
    out_name(out, "attributes");
    out_map(out);
    struct span name;
    struct span value;
    while (attributes_next(&attributes, &name, &value)) {
        out_name_span(out, name);
        out_span(out, value);
    }
    out_end(out);
}
