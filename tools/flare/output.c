#include "tools/flare/output.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/text.h"
#include "broker/http/json.h"

enum { CELL_MAX = 64 * 1024 * 1024, BODY_PREVIEW = 60, PAGE_MAX = 1000 };

/* One cell of a table, filled and printed row by row. */
struct grid {
    struct buf text;
    size_t *ends; /* of each cell in `text` */
    size_t count;
    size_t capacity;
};

void output_size(struct buf *buf, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    double value = (double)bytes;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof units[0]; unit++) {
        value /= 1024;
    }
    buf_printf(buf, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

void output_duration(struct buf *buf, uint64_t ms)
{
    if (ms < 1000) {
        buf_printf(buf, "%" PRIu64 " ms", ms);
    } else if (ms < 60000) {
        buf_printf(buf, ms % 1000 == 0 ? "%.0f s" : "%.1f s", (double)ms / 1000);
    } else if (ms < 3600000) {
        buf_printf(buf, "%" PRIu64 " min %" PRIu64 " s", ms / 60000, ms / 1000 % 60);
    } else if (ms < 86400000) {
        buf_printf(buf, "%" PRIu64 " h %" PRIu64 " min", ms / 3600000, ms / 60000 % 60);
    } else {
        buf_printf(buf, "%" PRIu64 " d %" PRIu64 " h", ms / 86400000, ms / 3600000 % 24);
    }
}

void output_count(struct buf *buf, uint64_t count)
{
    char digits[24];
    int size = snprintf(digits, sizeof digits, "%" PRIu64, count);
    for (int i = 0; i < size; i++) {
        if (i > 0 && (size - i) % 3 == 0) {
            buf_append_byte(buf, ',');
        }
        buf_append_byte(buf, (uint8_t)digits[i]);
    }
}

/* Length of the well-formed UTF-8 sequence at the start of `text`; 0 when there is none. Control
 * characters, C1 included, count as none. */
static size_t visible_size(struct span text)
{
    uint8_t first = text.data[0];
    if (first < 0x80) {
        return first >= 0x20 && first != 0x7f ? 1 : 0;
    }
    size_t size = text_utf8_size(text, 0);
    if (size == 0 || (first == 0xc2 && text.data[1] < 0xa0)) {
        return 0;
    }
    bool bidirectional = first == 0xe2 &&
                         ((text.data[1] == 0x80 && text.data[2] >= 0xaa) ||
                          (text.data[1] == 0x81 && text.data[2] >= 0xa6)) &&
                         text.data[2] <= 0xae;
    return bidirectional ? 0 : size;
}

void output_visible(struct buf *buf, struct span text, size_t limit)
{
    size_t columns = 0;
    while (text.size > 0) {
        if (columns >= limit) {
            buf_append_text(buf, "...");
            return;
        }
        size_t size = visible_size(text);
        if (size > 0) {
            buf_append(buf, text.data, size);
            columns++;
        } else if (text.data[0] == '\n' || text.data[0] == '\t') {
            buf_append_text(buf, text.data[0] == '\n' ? "\\n" : "\\t");
            columns += 2;
        } else {
            buf_printf(buf, "\\x%02x", (unsigned)text.data[0]);
            columns += 4;
        }
        size = size == 0 ? 1 : size;
        text = span_of(text.data + size, text.size - size);
    }
}

static const json_t *value_at(const json_t *item, const char *path)
{
    while (item != NULL) {
        const char *dot = strchr(path, '.');
        if (dot == NULL) {
            return json_object_get(item, path);
        }
        char name[64];
        size_t size = (size_t)(dot - path);
        assert(size < sizeof name);
        memcpy(name, path, size);
        name[size] = '\0';
        item = json_object_get(item, name);
        path = dot + 1;
    }
    return NULL;
}

static err_t decode_base64(struct span text, struct buf *out)
{
    size_t before = out->size;
    size_t size = 0;
    uint8_t *to = buf_extend(out, json_base64_size(text));
    if (to == NULL) {
        return ERR(MEMORY, "no memory for a body");
    }
    if (!json_base64_decode(text, to, &size)) {
        return ERR(FORMAT, "a message's body_base64 is not base64");
    }
    out->size = before + size;
    return NULL;
}

err_t output_body(const json_t *message, struct buf *out)
{
    const json_t *body = json_object_get(message, "body");
    if (json_is_string(body)) {
        buf_append(out, json_string_value(body), json_string_length(body));
        return NULL;
    }
    body = json_object_get(message, "body_base64");
    if (!json_is_string(body)) {
        return ERR(FORMAT, "a message has neither body nor body_base64");
    }
    TRY(decode_base64(span_of(json_string_value(body), json_string_length(body)), out));
    return NULL;
}

static void append_number(struct buf *buf, enum field_kind kind, uint64_t number, bool plain)
{
    if (plain) {
        buf_printf(buf, "%" PRIu64, number);
        return;
    }
    switch (kind) {
    case FIELD_TEXT:
    case FIELD_BODY:
        buf_printf(buf, "%" PRIu64, number);
        break;
    case FIELD_NUMBER:
        output_count(buf, number);
        break;
    case FIELD_SIZE:
        output_size(buf, number);
        break;
    case FIELD_DURATION:
        output_duration(buf, number);
        break;
    }
}

static void append_body(struct buf *buf, const json_t *message, size_t limit)
{
    struct buf body;
    buf_init(&body, CELL_MAX);
    err_t err = output_body(message, &body);
    if (err == NULL) {
        output_visible(buf, buf_span(&body), limit);
    }
    err_free(err); /* a message listed without its body is shown without it */
    buf_deinit(&body);
}

/* Appends the text of one cell. */
static void append_cell(struct buf *buf, const struct field *field, const json_t *item, bool plain)
{
    if (field->kind == FIELD_BODY) {
        append_body(buf, item, plain ? SIZE_MAX : BODY_PREVIEW);
        return;
    }
    const json_t *value = value_at(item, field->path);
    if (json_is_string(value)) {
        output_visible(buf, span_of(json_string_value(value), json_string_length(value)), SIZE_MAX);
    } else if (json_is_integer(value)) {
        append_number(buf, field->kind, (uint64_t)json_integer_value(value), plain);
    } else if (json_is_boolean(value)) {
        buf_append_text(buf, json_is_true(value) ? "yes" : "no");
    } else if (!plain) {
        buf_append_byte(buf, '-');
    }
}

/* Terminal columns: one for each code point is right for what a broker shows. */
static size_t columns_of(struct span text)
{
    size_t columns = 0;
    for (size_t i = 0; i < text.size; i++) {
        columns += (text.data[i] & 0xc0) != 0x80;
    }
    return columns;
}

static void print_cell(struct span text, size_t width, bool right, bool last)
{
    size_t columns = columns_of(text);
    int pad = columns < width ? (int)(width - columns) : 0;
    if (right) {
        (void)printf("%*s", pad, "");
    }
    (void)fwrite(text.data, 1, text.size, stdout);
    if (!right && !last) {
        (void)printf("%*s", pad, "");
    }
    if (!last) {
        (void)fputs("  ", stdout);
    }
}

static bool field_right(const struct field *field)
{
    return field->kind == FIELD_NUMBER || field->kind == FIELD_SIZE;
}

static size_t field_count(const struct field *fields)
{
    size_t count = 0;
    while (fields[count].title != NULL) {
        count++;
    }
    assert(count <= OUTPUT_FIELDS_MAX);
    return count;
}

void output_init(struct output *output, const struct cli *cli, const struct field *fields)
{
    memset(output, 0, sizeof *output);
    output->cli = cli;
    output->fields = fields;
    for (size_t i = 0; i < field_count(fields); i++) {
        output->widths[i] = strlen(fields[i].title);
    }
}

static void print_header(struct output *output, size_t count)
{
    if (output->header_printed) {
        return;
    }
    output->header_printed = true;
    (void)fputs(output->cli->color ? "\033[1m" : "", stdout);
    for (size_t i = 0; i < count; i++) {
        const struct field *field = &output->fields[i];
        print_cell(span_text(field->title), output->widths[i], field_right(field), i + 1 == count);
    }
    (void)fputs(output->cli->color ? "\033[0m\n" : "\n", stdout);
}

static struct span grid_cell(const struct grid *grid, size_t index)
{
    size_t start = index == 0 ? 0 : grid->ends[index - 1];
    return span_of(grid->text.data + start, grid->ends[index] - start);
}

static void print_table(struct output *output, const json_t *items)
{
    size_t columns = field_count(output->fields);
    size_t rows = json_array_size(items);
    struct grid grid = {.capacity = rows * columns};
    grid.ends = calloc(grid.capacity + 1, sizeof *grid.ends);
    assert(grid.ends != NULL);
    buf_init(&grid.text, SIZE_MAX / 2);
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < columns; i++) {
            append_cell(&grid.text, &output->fields[i], json_array_get(items, row), false);
            assert(!grid.text.failed);
            grid.ends[grid.count] = grid.text.size;
            size_t width = columns_of(grid_cell(&grid, grid.count));
            output->widths[i] = width > output->widths[i] ? width : output->widths[i];
            grid.count++;
        }
    }
    print_header(output, columns);
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < columns; i++) {
            print_cell(grid_cell(&grid, row * columns + i), output->widths[i],
                       field_right(&output->fields[i]), i + 1 == columns);
        }
        (void)putchar('\n');
    }
    buf_deinit(&grid.text);
    free(grid.ends);
}

static void print_plain(const struct field *fields, const json_t *item)
{
    struct buf line;
    buf_init(&line, SIZE_MAX / 2);
    for (size_t i = 0; fields[i].title != NULL; i++) {
        if (i > 0) {
            buf_append_byte(&line, '\t');
        }
        append_cell(&line, &fields[i], item, true);
    }
    buf_append_byte(&line, '\n');
    assert(!line.failed);
    (void)fwrite(line.data, 1, line.size, stdout);
    buf_deinit(&line);
}

static void print_json(const json_t *item)
{
    (void)json_dumpf(item, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
    (void)putchar('\n');
}

void output_item(struct output *output, const json_t *item)
{
    if (output->cli->format == CLI_JSON) {
        print_json(item);
    } else {
        print_plain(output->fields, item);
    }
}

void output_items(struct output *output, const json_t *items)
{
    if (output->cli->format == CLI_TABLE) {
        print_table(output, items);
        return;
    }
    for (size_t i = 0; i < json_array_size(items); i++) {
        output_item(output, json_array_get(items, i));
    }
}

void output_object(const struct cli *cli, const struct field *fields, const json_t *object)
{
    if (cli->format == CLI_JSON) {
        print_json(object);
        return;
    }
    if (cli->format == CLI_PLAIN) {
        print_plain(fields, object);
        return;
    }
    size_t width = 0;
    for (size_t i = 0; fields[i].title != NULL; i++) {
        size_t columns = strlen(fields[i].title);
        width = columns > width ? columns : width;
    }
    struct buf cell;
    buf_init(&cell, SIZE_MAX / 2);
    for (size_t i = 0; fields[i].title != NULL; i++) {
        buf_reset(&cell);
        append_cell(&cell, &fields[i], object, false);
        assert(!cell.failed);
        print_cell(span_text(fields[i].title), width, false, false);
        (void)fwrite(cell.data, 1, cell.size, stdout);
        (void)putchar('\n');
    }
    buf_deinit(&cell);
}

/* The same request for the page at `cursor`. */
static void page_request(struct request *request, const char *base, uint64_t limit,
                         const char *cursor)
{
    char text[24];
    request_init(request, "GET", "");
    buf_append_text(&request->path, base);
    (void)snprintf(text, sizeof text, "%" PRIu64, limit);
    request_query(request, "limit", text);
    if (cursor != NULL) {
        request_query(request, "cursor", cursor);
    }
}

err_t output_pages(struct cli *cli, struct request *request, const struct field *fields,
                   uint64_t limit)
{
    struct output output;
    json_t *page = NULL;
    err_t err = NULL;
    uint64_t printed = 0;
    buf_append_byte(&request->path, 0);
    struct buf base = request->path;
    output_init(&output, cli, fields);
    assert(!base.failed);
    const char *cursor = NULL;
    do {
        struct request next;
        json_t *previous = page; /* owns the text of `cursor` */
        uint64_t wanted = limit == 0 || limit - printed > PAGE_MAX ? PAGE_MAX : limit - printed;
        page_request(&next, (const char *)base.data, wanted, cursor);
        page = NULL;
        err = client_call(cli->client, &next, &page);
        json_decref(previous);
        TRY_OUT(err);
        const json_t *items = json_object_get(page, "items");
        output_items(&output, items);
        printed += json_array_size(items);
        cursor = json_string_value(json_object_get(page, "next"));
    } while (cursor != NULL && (limit == 0 || printed < limit));
    if (cursor != NULL) {
        cli_note(cli, "there are more; --limit shows them");
    }
out:
    json_decref(page);
    buf_deinit(&base);
    return err;
}
