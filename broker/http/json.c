#include "broker/http/json.h"

#include <assert.h>
#include <jansson.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include "broker/base/text.h"
#include "broker/wire/writer.h"

/* What parsing a text may take: a message of a few bytes costs a few hundred in jansson's tree, and
 * a batch of them must pass; brackets without content must not. */
enum { JSON_BUDGET_BASE = 4 << 20, JSON_BUDGET_FACTOR = 8 };

/* ---- jansson within a budget ----------------------------------------------------------------- */

struct json_budget {
    bool active;
    bool exceeded;
    size_t left;
};

static _Thread_local struct json_budget budget;

static void *budget_malloc(size_t size)
{
    if (!budget.active) {
        return malloc(size);
    }
    if (size > budget.left) {
        budget.exceeded = true;
        return NULL;
    }
    void *data = malloc(size);
    if (data != NULL) {
        size_t taken = malloc_usable_size(data);
        budget.left -= taken < budget.left ? taken : budget.left;
    }
    return data;
}

static void budget_free(void *data)
{
    if (budget.active && data != NULL) {
        budget.left += malloc_usable_size(data);
    }
    free(data);
}

static void budget_install(void)
{
    json_set_alloc_funcs(budget_malloc, budget_free);
}

static err_t parse(struct span text, json_t **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, budget_install);
    json_error_t failure = {.text = ""};
    budget = (struct json_budget){.active = true,
                                  .left = JSON_BUDGET_BASE + text.size * JSON_BUDGET_FACTOR};
    json_t *root = json_loadb((const char *)text.data, text.size,
                              JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &failure);
    bool exceeded = budget.exceeded;
    budget.active = false;
    if (root != NULL) {
        *out = root;
        return NULL;
    }
    if (exceeded) {
        return ERR(TOO_LARGE, "the JSON document takes too much memory to parse");
    }
    return ERR(INVALID, "the body is not valid JSON: %s (line %d, column %d)", failure.text,
               failure.line, failure.column);
}

/* ---- the tree as MessagePack ----------------------------------------------------------------- */

static err_t put_value(json_t *value, uint32_t depth, struct buf *out);

static err_t put_object(json_t *object, uint32_t depth, struct buf *out)
{
    writer_map(out, (uint32_t)json_object_size(object));
    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        const char *name = json_object_iter_key(at);
        writer_str(out, span_of(name, json_object_iter_key_len(at)));
        TRY(put_value(json_object_iter_value(at), depth + 1, out));
    }
    return NULL;
}

static err_t put_array(json_t *array, uint32_t depth, struct buf *out)
{
    size_t count = json_array_size(array);
    writer_array(out, (uint32_t)count);
    for (size_t index = 0; index < count; index++) {
        TRY(put_value(json_array_get(array, index), depth + 1, out));
    }
    return NULL;
}

static err_t put_value(json_t *value, uint32_t depth, struct buf *out)
{
    assert(value != NULL);
    if (depth > JSON_DEPTH_MAX) {
        return ERR(INVALID, "the JSON document is nested deeper than %d", JSON_DEPTH_MAX);
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return put_object(value, depth, out);
    case JSON_ARRAY:
        return put_array(value, depth, out);
    case JSON_STRING:
        writer_str(out, span_of(json_string_value(value), json_string_length(value)));
        return NULL;
    case JSON_INTEGER:
        writer_i64(out, json_integer_value(value));
        return NULL;
    case JSON_REAL:
        return ERR(INVALID, "the JSON document has a number that is not an integer");
    case JSON_TRUE:
    case JSON_FALSE:
        writer_bool(out, json_is_true(value));
        return NULL;
    case JSON_NULL:
        writer_nil(out);
        return NULL;
    }
    return ERR(INTERNAL, "jansson gave a value of unknown type");
}

err_t json_to_msgpack(struct span text, struct buf *out)
{
    json_t *root = NULL;
    TRY(parse(text, &root));
    err_t err = put_value(root, 1, out);
    json_decref(root);
    if (err == NULL && out->failed) {
        err = ERR(TOO_LARGE, "the JSON document is too large");
    }
    return err;
}

/* ---- text out -------------------------------------------------------------------------------- */

static void put_escaped(struct buf *out, uint8_t byte)
{
    static const char short_forms[256] = {['"'] = '"',  ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r',
                                          ['\t'] = 't', ['\b'] = 'b',  ['\f'] = 'f'};
    if (short_forms[byte] != 0) {
        buf_append_byte(out, '\\');
        buf_append_byte(out, (uint8_t)short_forms[byte]);
    } else {
        buf_printf(out, "\\u%04x", byte);
    }
}

void json_put_string(struct buf *out, struct span bytes)
{
    buf_append_byte(out, '"');
    size_t at = 0;
    while (true) {
        size_t run = text_plain_run(bytes, at, true);
        if (run > 0) {
            buf_append(out, bytes.data + at, run);
            at += run;
        }
        if (at == bytes.size) {
            break;
        }
        if (bytes.data[at] < 0x80) {
            put_escaped(out, bytes.data[at]);
            at++;
            continue;
        }
        size_t size = text_utf8_size(bytes, at);
        if (size == 0) {
            buf_append_text(out, "\xef\xbf\xbd");
            at++;
        } else {
            buf_append(out, bytes.data + at, size);
            at += size;
        }
    }
    buf_append_byte(out, '"');
}

/* ---- base64 ------------------------------------------------------------------------------- */

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void json_put_base64(struct buf *out, struct span bytes)
{
    uint8_t *to = buf_extend(out, (bytes.size + 2) / 3 * 4);
    if (to == NULL) {
        return;
    }
    const uint8_t *from = bytes.data;
    size_t left = bytes.size;
    while (left > 0) {
        uint32_t bits = (uint32_t)from[0] << 16;
        bits |= left > 1 ? (uint32_t)from[1] << 8 : 0;
        bits |= left > 2 ? from[2] : 0;
        to[0] = (uint8_t)base64_digits[bits >> 18];
        to[1] = (uint8_t)base64_digits[bits >> 12 & 63];
        to[2] = left > 1 ? (uint8_t)base64_digits[bits >> 6 & 63] : '=';
        to[3] = left > 2 ? (uint8_t)base64_digits[bits & 63] : '=';
        size_t taken = left < 3 ? left : 3;
        from += taken;
        left -= taken;
        to += 4;
    }
}

static int base64_value(uint8_t byte)
{
    if (byte >= 'A' && byte <= 'Z') {
        return byte - 'A';
    }
    if (byte >= 'a' && byte <= 'z') {
        return byte - 'a' + 26;
    }
    if (byte >= '0' && byte <= '9') {
        return byte - '0' + 52;
    }
    return byte == '+' ? 62 : byte == '/' ? 63 : -1;
}

size_t json_base64_size(struct span text)
{
    return text.size / 4 * 3 + 3;
}

bool json_base64_decode(struct span text, uint8_t *out, size_t *size)
{
    if (text.size > 0 && text.size % 4 == 0) {
        for (int padding = 0; padding < 2 && text.data[text.size - 1] == '='; padding++) {
            text.size--;
        }
    }
    if (text.size % 4 == 1) {
        return false;
    }
    uint32_t bits = 0;
    uint32_t count = 0;
    size_t written = 0;
    for (size_t at = 0; at < text.size; at++) {
        int value = base64_value(text.data[at]);
        if (value < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)value;
        count += 6;
        if (count >= 8) {
            count -= 8;
            out[written++] = (uint8_t)(bits >> count);
            bits &= (UINT32_C(1) << count) - 1;
        }
    }
    *size = written;
    return bits == 0;
}
