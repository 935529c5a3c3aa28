#include "tools/docgen/sections.h"

#include "broker/config/config.h"
#include "broker/core/lifecycle.h"
#include "broker/http/routes.h"
#include "broker/wire/message.h"
#include "tools/docgen/documents.h"

struct row {
    const char *name;
    unsigned number;
    const char *text;
};

/* ---- the tables of the broker ------------------------------------------------------------------
 */

static const struct row errors[] = {
#define ERROR(name, number, status, retryable, title) {#name, number, title},
#include "broker/base/err.def"
};

static const struct row states[] = {
#define STATE(name, number, text, doc) {#name, number, doc},
#include "broker/core/lifecycle.def"
};

static const struct {
    const char *from;
    const char *to;
    const char *text;
} moves[] = {
#define MOVE(from, event, to, doc) {#from, #to, doc},
#include "broker/core/lifecycle.def"
};

static const struct row tables[] = {
#define TABLE(name, number, doc) {#name, number, doc},
#include "storage/tables.def"
};

static const struct row commands[] = {
#define COMMAND(name, number, doc) {#name, number, doc},
#include "broker/core/commands.def"
};

#define KIND_counter "counter"
#define KIND_gauge "gauge"
#define KIND_histogram "histogram"
#define KIND_duration "histogram"

static const struct {
    const char *name;
    const char *kind;
    const char *labels;
    const char *text;
} metrics[] = {
#define METRIC(kind, name, help) {#name, KIND_##kind, "", help},
#define SERIES(kind, name, label, texts, help) {#name, KIND_##kind, #label, help},
#define FAMILY(kind, name, labels, help) {#name, KIND_##kind, labels, help},
#include "broker/metrics/metrics.def"
};

/* ---- cells -------------------------------------------------------------------------------------
 */

/* Words divided by one space as code: "`topic`, `subscription`". */
static void print_words(const char *words, struct buf *out)
{
    const char *separator = "";
    while (*words != '\0') {
        size_t size = strcspn(words, " ");
        buf_printf(out, "%s`%.*s`", separator, (int)size, words);
        separator = ", ";
        words += size;
        words += strspn(words, " ");
    }
}

/* A name of a table as documents use it. */
static void print_lower(const char *name, struct buf *out)
{
    for (; *name != '\0'; name++) {
        bool upper = *name >= 'A' && *name <= 'Z';
        buf_append_byte(out, (uint8_t)(upper ? *name - 'A' + 'a' : *name));
    }
}

static void print_end(const char *text, struct buf *out)
{
    page_cell(out, text);
    buf_append_text(out, " |\n");
}

/* ---- sections ----------------------------------------------------------------------------------
 */

static void print_settings(const struct page *page, struct buf *out)
{
    (void)page;
    config_print_reference(out);
}

static void print_metrics(const struct page *page, struct buf *out)
{
    (void)page;
    buf_append_text(out, "| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
    for (size_t index = 0; index < sizeof metrics / sizeof metrics[0]; index++) {
        buf_printf(out, "| `flare_%s` | %s | ", metrics[index].name, metrics[index].kind);
        print_words(metrics[index].labels, out);
        buf_append_text(out, " | ");
        print_end(metrics[index].text, out);
    }
}

static void print_problem(const struct row *row, struct buf *out)
{
    enum err_code code = (enum err_code)row->number;
    buf_printf(out, "| `%s` | %d | %s | ", err_slug(code), err_status(code),
               err_retryable(code) ? "yes" : "");
    print_end(row->text, out);
}

/* By status, since that is what a reader has before the code. */
static void print_problems(const struct page *page, struct buf *out)
{
    (void)page;
    buf_append_text(out, "| code | status | retryable | title |\n| --- | --- | --- | --- |\n");
    for (int status = 400; status < 600; status++) {
        for (size_t index = 0; index < sizeof errors / sizeof errors[0]; index++) {
            if (err_status((enum err_code)errors[index].number) == status) {
                print_problem(&errors[index], out);
            }
        }
    }
}

static void print_states(const struct page *page, struct buf *out)
{
    (void)page;
    buf_append_text(out, "| state | number on disk | shown as | meaning |\n"
                         "| --- | --- | --- | --- |\n");
    for (size_t index = 0; index < sizeof states / sizeof states[0]; index++) {
        buf_append_text(out, "| ");
        print_lower(states[index].name, out);
        buf_printf(out, " | %u | `%s` | ", states[index].number,
                   lifecycle_name((enum message_state)states[index].number));
        print_end(states[index].text, out);
    }
}

static void print_moves(const struct page *page, struct buf *out)
{
    (void)page;
    buf_append_text(out, "| from | to | when |\n| --- | --- | --- |\n");
    for (size_t index = 0; index < sizeof moves / sizeof moves[0]; index++) {
        buf_append_text(out, "| ");
        print_lower(moves[index].from, out);
        buf_append_text(out, " | ");
        print_lower(moves[index].to, out);
        buf_append_text(out, " | ");
        print_end(moves[index].text, out);
    }
}

/* A document by its name; what is none, in words. */
static void print_document(enum route_document document, struct buf *out)
{
    if (document == ROUTE_DOCUMENT_raw) {
        buf_append_text(out, "the message body");
    } else if (document == ROUTE_DOCUMENT_text) {
        buf_append_text(out, "text");
    } else if (document == ROUTE_DOCUMENT_any) {
        buf_append_text(out, "OpenAPI 3.1");
    } else if ((uint32_t)document < IN_ROWS && document != ROUTE_DOCUMENT_nothing) {
        buf_printf(out, "`%s`", api_in_fields[document].name);
    }
}

static void print_routes(const struct page *page, struct buf *out)
{
    (void)page;
    buf_append_text(out, "| route | does | role | query | request | answer |\n"
                         "| --- | --- | --- | --- | --- | --- |\n");
    for (uint32_t index = 0; index < route_count; index++) {
        const struct route *route = &routes[index];
        buf_printf(out, "| `%s %s` | ", route_method_text(route->method), route->pattern);
        page_cell(out, route->summary);
        buf_printf(out, " | %s | ", route_role_text(route->role));
        print_words(route->parameters, out);
        buf_append_text(out, " | ");
        print_document(route->request, out);
        buf_append_text(out, " | ");
        print_document(route->answer, out);
        buf_append_text(out, " |\n");
    }
}

static void print_rows(const struct row *rows, size_t count, const char *head, struct buf *out)
{
    buf_printf(out, "| %s | number | meaning |\n| --- | --- | --- |\n", head);
    for (size_t index = 0; index < count; index++) {
        buf_printf(out, "| %s | %u | ", rows[index].name, rows[index].number);
        print_end(rows[index].text, out);
    }
}

static void print_tables(const struct page *page, struct buf *out)
{
    (void)page;
    print_rows(tables, sizeof tables / sizeof tables[0], "table", out);
}

static void print_commands(const struct page *page, struct buf *out)
{
    (void)page;
    print_rows(commands, sizeof commands / sizeof commands[0], "command", out);
}

static void print_codes(const struct page *page, struct buf *out)
{
    (void)page;
    buf_append_text(out, "| number | code | retryable |\n| --- | --- | --- |\n");
    for (size_t index = 1; index < sizeof errors / sizeof errors[0]; index++) {
        enum err_code code = (enum err_code)errors[index].number;
        buf_printf(out, "| %u | `%s` | %s |\n", errors[index].number, err_slug(code),
                   err_retryable(code) ? "yes" : "");
    }
}

static const char *const wire_kinds[] = {
    [WIRE_KIND_U32] = "U32",   [WIRE_KIND_U64] = "U64",     [WIRE_KIND_MAYBE] = "MAYBE",
    [WIRE_KIND_BOOL] = "BOOL", [WIRE_KIND_NAME] = "NAME",   [WIRE_KIND_TEXT] = "TEXT",
    [WIRE_KIND_NOTE] = "NOTE", [WIRE_KIND_BYTES] = "BYTES", [WIRE_KIND_MAP] = "MAP",
};

/* What a value of the field is bounded by, in words; a boolean by nothing. */
static void print_wire_bounds(const struct wire_field *field, struct buf *out)
{
    static const char *const units[] = {
        [WIRE_KIND_NAME] = " bytes",  [WIRE_KIND_TEXT] = " bytes", [WIRE_KIND_NOTE] = " bytes",
        [WIRE_KIND_BYTES] = " bytes", [WIRE_KIND_MAP] = " pairs",  [WIRE_KIND_LIST] = " records",
    };
    const char *unit = units[field->kind] == NULL ? "" : units[field->kind];
    bool is_open = field->max == UINT64_MAX || (field->max == UINT32_MAX && unit[0] == '\0');
    if (field->kind == WIRE_KIND_BOOL || (is_open && field->min == 0)) {
        return;
    }
    if (is_open) {
        buf_printf(out, "%llu or more", (unsigned long long)field->min);
    } else if (field->min == field->max) {
        buf_printf(out, "%llu%s", (unsigned long long)field->min, unit);
    } else {
        buf_printf(out, "%llu to %llu%s", (unsigned long long)field->min,
                   (unsigned long long)field->max, unit);
    }
}

static void print_wire_fields(const struct wire_shape *shape, struct buf *out)
{
    if (shape->field_count == 0) {
        buf_append_text(out, "No fields.\n\n");
        return;
    }
    buf_append_text(out, "| field | kind | needed | bounds | meaning |\n"
                         "| --- | --- | --- | --- | --- |\n");
    for (uint32_t index = 0; index < shape->field_count; index++) {
        const struct wire_field *field = &shape->fields[index];
        buf_printf(out, "| `%s` | ", field->name);
        if (field->kind == WIRE_KIND_LIST) {
            buf_printf(out, "list of %s", wire_record_shape(field->record)->name);
        } else {
            buf_append_text(out, wire_kinds[field->kind]);
        }
        buf_append_text(out, field->is_required ? " | yes | " : " |  | ");
        print_wire_bounds(field, out);
        buf_append_text(out, " | ");
        print_end(field->text, out);
    }
    buf_append_text(out, "\n");
}

/* Each message, and after the first that has a list of it, the record. */
static void print_wire(const struct page *page, struct buf *out)
{
    static const char *const roles[] = {
        [WIRE_ROLE_NONE] = "",
        [WIRE_ROLE_PUBLISH] = ", role publish",
        [WIRE_ROLE_CONSUME] = ", role consume",
        [WIRE_ROLE_ADMIN] = ", role admin",
    };
    bool is_printed[WIRE_RECORDS] = {false};
    uint32_t count;
    const struct wire_shape *shapes = wire_shapes(&count);
    (void)page;
    for (uint32_t place = 0; place < count; place++) {
        const struct wire_shape *shape = &shapes[place];
        buf_printf(out, "**%u `%s`** (%s%s): %s.\n\n", (unsigned)shape->type, shape->name,
                   shape->sender == WIRE_FROM_CLIENT ? "client" : "broker", roles[shape->role],
                   shape->text);
        print_wire_fields(shape, out);
        for (uint32_t index = 0; index < shape->field_count; index++) {
            enum wire_record record = shape->fields[index].record;
            if (record != WIRE_RECORD_NONE && !is_printed[record]) {
                is_printed[record] = true;
                buf_printf(out, "Record `%s`: %s.\n\n", wire_record_shape(record)->name,
                           wire_record_shape(record)->text);
                print_wire_fields(wire_record_shape(record), out);
            }
        }
    }
}

/* ---- all of them -------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    void (*print)(const struct page *page, struct buf *out);
} sections[] = {
    {"states", print_states},
    {"moves", print_moves},
    {"routes", print_routes},
    {"problems", print_problems},
    {"documents", documents_print_rest},
    {"settings", print_settings},
    {"metrics", print_metrics},
    {"tables", print_tables},
    {"commands", print_commands},
    {"codes", print_codes},
    {"wire", print_wire},
};

bool section_print(const struct page *page, struct span name, struct buf *out)
{
    struct span document = span_text("document ");
    if (span_starts_with(name, document)) {
        return documents_print_one(span_of(name.data + document.size, name.size - document.size),
                                   out);
    }
    for (size_t index = 0; index < sizeof sections / sizeof sections[0]; index++) {
        if (span_is(name, sections[index].name)) {
            sections[index].print(page, out);
            return true;
        }
    }
    return false;
}

err_t section_check(const struct page *page)
{
    for (size_t index = 0; index < sizeof sections / sizeof sections[0]; index++) {
        if (!page_has(page, span_text(sections[index].name))) {
            return ERR(NOT_FOUND, "no section \"%s\"", sections[index].name);
        }
    }
    for (uint32_t index = 0; index < route_count; index++) {
        uint32_t request = (uint32_t)routes[index].request;
        if (request < IN_ROWS && routes[index].request != ROUTE_DOCUMENT_nothing &&
            !documents_on_page(page, request)) {
            return ERR(NOT_FOUND, "no section \"document %s\", which %s %s reads",
                       api_in_fields[request].name, route_method_text(routes[index].method),
                       routes[index].pattern);
        }
    }
    return NULL;
}
