/* The API described for machines (OpenAPI 3.1), printed from the tables it is made of: routes.def
 * and api_documents.def. */
#include <stdio.h>

#include "broker/http/api_out.h"
#include "broker/http/api_request.h"

/* ---- documents as schemas ------------------------------------------------------------------- */

/* What stands for a kind; "" where any value may. */
static const struct {
    const char *type;
    const char *format;
} kind_types[] = {
    [IN_KIND_NONE] = {"object", NULL},        [IN_KIND_U64] = {"integer", "int64"},
    [IN_KIND_BOOL] = {"boolean", NULL},       [IN_KIND_DURATION] = {NULL, NULL},
    [IN_KIND_TIME] = {"string", "date-time"}, [IN_KIND_TEXT] = {"string", NULL},
    [IN_KIND_NOTE] = {"string", NULL},        [IN_KIND_NAME] = {"string", NULL},
    [IN_KIND_BYTES] = {"string", NULL},       [IN_KIND_MAP] = {"object", NULL},
    [IN_KIND_ARRAY] = {"array", NULL},        [IN_KIND_RAW] = {NULL, NULL},
};

static void duration_print(struct out *out, const struct in_field *field)
{
    out_name(out, "oneOf");
    out_array(out);
    out_map(out);
    out_field_text(out, "type", "integer");
    out_field_u64(out, "minimum", field->min);
    out_field_u64(out, "maximum", field->max);
    out_end(out);
    out_map(out);
    out_field_text(out, "type", "string");
    out_field_text(out, "pattern", "^[0-9]+(ms|s|m|h|d)?$");
    out_end(out);
    out_end(out);
}

/* Bounds are those of requests; the rows of answers have none. */
static void bounds_print(struct out *out, const struct in_field *field)
{
    if (field->max == 0) {
        return;
    }
    if (field->kind == IN_KIND_U64) {
        out_field_u64(out, "minimum", field->min);
        out_field_u64(out, "maximum", field->max);
    } else if (field->kind == IN_KIND_TEXT || field->kind == IN_KIND_NOTE ||
               field->kind == IN_KIND_NAME || field->kind == IN_KIND_BYTES) {
        out_field_u64(out, "maxLength", field->max);
    }
}

static void field_print(struct out *out, const struct in_field *field)
{
    const char *type = kind_types[field->kind].type;
    const char *format = kind_types[field->kind].format;
    out_name(out, field->name);
    out_map(out);
    if (type != NULL) {
        out_field_text(out, "type", type);
    }
    if (format != NULL) {
        out_field_text(out, "format", format);
    }
    if (field->kind == IN_KIND_NAME) {
        out_field_text(out, "pattern", "^[A-Za-z0-9._-]{1,255}$");
    }
    if (field->kind == IN_KIND_DURATION) {
        duration_print(out, field);
    }
    bounds_print(out, field);
    if (field->initial != 0) {
        out_field_u64(out, "default", field->initial);
    }
    out_field_text(out, "description", field->text);
    out_end(out);
}

static bool in_document(uint32_t row)
{
    return row < IN_ROWS && api_in_fields[row].kind != IN_KIND_NONE;
}

static void schema_print(struct out *out, uint32_t document)
{
    uint32_t required = 0;
    out_name(out, api_in_fields[document].name);
    out_map(out);
    out_field_text(out, "type", "object");
    out_field_text(out, "description", api_in_fields[document].text);
    out_name(out, "properties");
    out_map(out);
    for (uint32_t row = document + 1; in_document(row); row++) {
        field_print(out, &api_in_fields[row]);
        required += api_in_fields[row].required;
    }
    out_end(out);
    if (required > 0) {
        out_name(out, "required");
        out_array(out);
        for (uint32_t row = document + 1; in_document(row); row++) {
            if (api_in_fields[row].required) {
                out_text(out, api_in_fields[row].name);
            }
        }
        out_end(out);
    }
    out_end(out);
}

/* ---- routes as operations ------------------------------------------------------------------- */

static void content_print(struct out *out, const char *type, const char *schema)
{
    char reference[96];
    out_name(out, type);
    out_map(out);
    if (schema != NULL) {
        (void)snprintf(reference, sizeof reference, "#/components/schemas/%s", schema);
        out_name(out, "schema");
        out_map(out);
        out_field_text(out, "$ref", reference);
        out_end(out);
    }
    out_end(out);
}

/* "content" of a request or an answer; nothing where there is none. */
static void document_print(struct out *out, enum route_document document)
{
    if (document == ROUTE_DOCUMENT_none || document == ROUTE_DOCUMENT_empty) {
        return;
    }
    out_name(out, "content");
    out_map(out);
    if (document == ROUTE_DOCUMENT_raw) {
        content_print(out, "*/*", NULL);
    } else if (document == ROUTE_DOCUMENT_text) {
        content_print(out, "text/plain", NULL);
    } else if (document == ROUTE_DOCUMENT_any) {
        content_print(out, "application/json", NULL);
    } else {
        content_print(out, "application/json", api_in_fields[document].name);
        content_print(out, "application/msgpack", api_in_fields[document].name);
    }
    out_end(out);
}

static void parameter_print(struct out *out, struct span name, bool in_path)
{
    out_map(out);
    out_field_span(out, "name", name);
    out_field_text(out, "in", in_path ? "path" : "query");
    out_field_bool(out, "required", in_path);
    out_name(out, "schema");
    out_map(out);
    out_field_text(out, "type", "string");
    out_end(out);
    out_end(out);
}

static void parameters_print(struct out *out, const struct route *route)
{
    out_name(out, "parameters");
    out_array(out);
    static const char *const names[] = {"topic", "subscription"};
    for (size_t index = 0; index < 2; index++) {
        char place[32];
        (void)snprintf(place, sizeof place, "{%s}", names[index]);
        if (strstr(route->pattern, place) != NULL) {
            parameter_print(out, span_text(names[index]), true);
        }
    }
    const char *at = route->parameters;
    while (*at != '\0') {
        size_t size = strcspn(at, " ");
        parameter_print(out, span_of(at, size), false);
        at += size + (at[size] == ' ');
    }
    out_end(out);
}

static void responses_print(struct out *out, const struct route *route)
{
    out_name(out, "responses");
    out_map(out);
    out_name(out, "2XX");
    out_map(out);
    out_field_text(out, "description",
                   route->answer < ROUTE_DOCUMENT_none ? api_in_fields[route->answer].text
                                                       : "done");
    document_print(out, route->answer);
    out_end(out);
    out_name(out, "default");
    out_map(out);
    out_field_text(out, "description", api_in_fields[IN_problem].text);
    out_name(out, "content");
    out_map(out);
    content_print(out, "application/problem+json", "problem");
    out_end(out);
    out_end(out);
    out_end(out);
}

static void operation_print(struct out *out, const struct route *route)
{
    char method[16] = "";
    const char *text = route_method_text(route->method);
    for (size_t at = 0; text[at] != '\0' && at + 1 < sizeof method; at++) {
        method[at] = (char)(text[at] | 0x20);
    }
    out_name(out, method);
    out_map(out);
    out_field_text(out, "operationId", route->name);
    out_field_text(out, "summary", route->summary);
    out_field_text(out, "x-role", route_role_text(route->role));
    parameters_print(out, route);
    if (route->request != ROUTE_DOCUMENT_none) {
        out_name(out, "requestBody");
        out_map(out);
        document_print(out, route->request);
        out_end(out);
    }
    responses_print(out, route);
    out_end(out);
}

/* A path is printed at its first route, with all its methods. */
static bool path_seen_before(uint32_t index)
{
    for (uint32_t before = 0; before < index; before++) {
        if (strcmp(routes[before].pattern, routes[index].pattern) == 0) {
            return true;
        }
    }
    return false;
}

static void paths_print(struct out *out)
{
    out_name(out, "paths");
    out_map(out);
    for (uint32_t index = 0; index < route_count; index++) {
        if (path_seen_before(index)) {
            continue;
        }
        out_name(out, routes[index].pattern);
        out_map(out);
        for (uint32_t same = index; same < route_count; same++) {
            if (strcmp(routes[same].pattern, routes[index].pattern) == 0) {
                operation_print(out, &routes[same]);
            }
        }
        out_end(out);
    }
    out_end(out);
}

void openapi_print(const char *version, struct buf *buf)
{
    struct out out;
    out_init(&out, buf, false);
    out_map(&out);
    out_field_text(&out, "openapi", "3.1.0");
    out_name(&out, "info");
    out_map(&out);
    out_field_text(&out, "title", "Flare");
    out_field_text(&out, "description", "A sharded queue broker; SPEC.md is the normative text.");
    out_field_text(&out, "version", version);
    out_end(&out);
    paths_print(&out);
    out_name(&out, "components");
    out_map(&out);
    out_name(&out, "schemas");
    out_map(&out);
    for (uint32_t row = 0; row < IN_ROWS; row++) {
        if (api_in_fields[row].kind == IN_KIND_NONE) {
            schema_print(&out, row);
        }
    }
    out_end(&out);
    out_end(&out);
    out_end(&out);
}
