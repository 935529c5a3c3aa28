#include "tools/docgen/documents.h"

#include <inttypes.h>
#include <stdio.h>

#include "broker/config/units.h"
#include "broker/http/api_in.h"

enum { NAME_SIZE = 64 };

static const char *const kind_texts[] = {
    [IN_KIND_NONE] = "",        [IN_KIND_U64] = "integer",
    [IN_KIND_BOOL] = "boolean", [IN_KIND_DURATION] = "duration",
    [IN_KIND_TIME] = "time",    [IN_KIND_TEXT] = "text",
    [IN_KIND_NOTE] = "text",    [IN_KIND_NAME] = "name",
    [IN_KIND_BYTES] = "bytes",  [IN_KIND_MAP] = "object",
    [IN_KIND_ARRAY] = "array",  [IN_KIND_RAW] = "see meaning",
};

static bool is_field(uint32_t row)
{
    return row < IN_ROWS && api_in_fields[row].kind != IN_KIND_NONE;
}

static void print_number(enum in_kind kind, uint64_t value, char out[UNITS_TEXT_SIZE])
{
    units_print(kind == IN_KIND_DURATION ? units_duration : units_none, value, out);
}

/* What holds when the field is not there; nothing where the meaning has to tell. A number without a
 * default has 0 in the table. */
static void print_default(const struct in_field *field, struct buf *out)
{
    if (field->required) {
        buf_append_text(out, "required");
    } else if (field->kind == IN_KIND_BOOL) {
        buf_append_text(out, field->initial != 0 ? "true" : "false");
    } else if (field->initial != 0) {
        char text[UNITS_TEXT_SIZE];
        print_number(field->kind, field->initial, text);
        buf_append_text(out, text);
    }
}

/* UINT32_MAX stands for no bound but that of the request as a whole. */
static void print_bounds(const struct in_field *field, struct buf *out)
{
    char min[UNITS_TEXT_SIZE];
    char max[UNITS_TEXT_SIZE];
    print_number(field->kind, field->min, min);
    print_number(field->kind, field->max, max);
    switch (field->kind) {
    case IN_KIND_U64:
    case IN_KIND_DURATION:
        buf_printf(out, "%s to %s", min, max);
        break;
    case IN_KIND_TEXT:
    case IN_KIND_NOTE:
    case IN_KIND_BYTES:
        if (field->max != UINT32_MAX) {
            buf_printf(out, "%s to %s bytes", min, max);
        }
        break;
    case IN_KIND_NONE:
    case IN_KIND_BOOL:
    case IN_KIND_TIME:
    case IN_KIND_NAME:
    case IN_KIND_MAP:
    case IN_KIND_ARRAY:
    case IN_KIND_RAW:
        break;
    }
}

bool documents_print_one(struct span name, struct buf *out)
{
    uint32_t row = 0;
    while (row < IN_ROWS && (is_field(row) || !span_is(name, api_in_fields[row].name))) {
        row++;
    }
    if (row == IN_ROWS) {
        return false;
    }
    buf_append_text(out, "| field | type | default | bounds | meaning |\n"
                         "| --- | --- | --- | --- | --- |\n");
    while (is_field(++row)) {
        const struct in_field *field = &api_in_fields[row];
        buf_printf(out, "| `%s` | %s | ", field->name, kind_texts[field->kind]);
        print_default(field, out);
        buf_append_text(out, " | ");
        print_bounds(field, out);
        buf_append_text(out, " | ");
        page_cell(out, field->text);
        buf_append_text(out, " |\n");
    }
    return true;
}

bool documents_on_page(const struct page *page, uint32_t row)
{
    char name[NAME_SIZE];
    (void)snprintf(name, sizeof name, "document %s", api_in_fields[row].name);
    return page_has(page, span_text(name));
}

void documents_print_rest(const struct page *page, struct buf *out)
{
    buf_append_text(out, "| document | field | type | always | meaning |\n"
                         "| --- | --- | --- | --- | --- |\n");
    bool here = false;
    for (uint32_t row = 0; row < IN_ROWS; row++) {
        const struct in_field *field = &api_in_fields[row];
        if (!is_field(row)) {
            here = is_field(row + 1) && !documents_on_page(page, row);
            if (here) {
                buf_printf(out, "| `%s` | | | | ", field->name);
            }
        } else if (here) {
            buf_printf(out, "| | `%s` | %s | %s | ", field->name, kind_texts[field->kind],
                       field->required ? "yes" : "");
        }
        if (here) {
            page_cell(out, field->text);
            buf_append_text(out, " |\n");
        }
    }
}
