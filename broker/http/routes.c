#include "broker/http/routes.h"

#include <assert.h>

#include "broker/http/api_request.h"

const struct route routes[] = {
#define ROUTE(verb, path, handler, who, query, in, out, text)                                      \
    {.method = HTTP_METHOD_##verb,                                                                 \
     .pattern = path,                                                                              \
     .name = #handler,                                                                             \
     .handle = api_##handler,                                                                      \
     .role = ROUTE_ROLE_##who,                                                                     \
     .parameters = query,                                                                          \
     .request = ROUTE_DOCUMENT_##in,                                                               \
     .answer = ROUTE_DOCUMENT_##out,                                                               \
     .summary = text},
#include "broker/http/routes.def"
};
const uint32_t route_count = sizeof routes / sizeof routes[0];

const char *route_method_text(enum http_method method)
{
    static const char *const texts[] = {
        [HTTP_METHOD_GET] = "GET",         [HTTP_METHOD_HEAD] = "HEAD",
        [HTTP_METHOD_PUT] = "PUT",         [HTTP_METHOD_POST] = "POST",
        [HTTP_METHOD_DELETE] = "DELETE",   [HTTP_METHOD_OPTIONS] = "OPTIONS",
        [HTTP_METHOD_OTHER] = "(another)",
    };
    return texts[method];
}

const char *route_role_text(enum route_role role)
{
    static const char *const texts[] = {
        [ROUTE_ROLE_probe] = "probe",         [ROUTE_ROLE_view] = "view",
        [ROUTE_ROLE_publish] = "publish",     [ROUTE_ROLE_consume] = "consume",
        [ROUTE_ROLE_configure] = "configure", [ROUTE_ROLE_operate] = "operate",
    };
    return texts[role];
}

/* Takes one path segment, without its leading slash; false at the end. */
static bool take_segment(struct span *rest, struct span *segment)
{
    if (rest->size == 0 || rest->data[0] != '/') {
        return false;
    }
    size_t size = 1;
    while (size < rest->size && rest->data[size] != '/') {
        size++;
    }
    *segment = span_of(rest->data + 1, size - 1);
    *rest = span_of(rest->data + size, rest->size - size);
    return true;
}

/* Whether `path` fits; what stands in the place of names is put into `match`. */
static bool pattern_fits(const char *pattern, struct span path, struct route_match *match)
{
    struct span left = span_text(pattern);
    struct span wanted;
    struct span given;
    while (take_segment(&left, &wanted)) {
        if (!take_segment(&path, &given)) {
            return false;
        }
        if (wanted.size > 0 && wanted.data[0] == '{') {
            if (given.size == 0) {
                return false;
            }
            *(span_is(wanted, "{topic}") ? &match->topic : &match->subscription) = given;
        } else if (!span_equal(wanted, given)) {
            return false;
        }
    }
    assert(left.size == 0);
    return path.size == 0;
}

struct route_match route_find(enum http_method method, struct span path)
{
    enum http_method sought = method == HTTP_METHOD_HEAD ? HTTP_METHOD_GET : method;
    struct route_match found = {.route = NULL};
    for (uint32_t index = 0; index < route_count; index++) {
        const struct route *route = &routes[index];
        struct route_match match = {.route = route};
        if (!pattern_fits(route->pattern, path, &match)) {
            continue;
        }
        if (route->method == sought) {
            return match;
        }
        found.methods |= UINT32_C(1) << route->method;
        if (route->method == HTTP_METHOD_GET) {
            found.methods |= UINT32_C(1) << HTTP_METHOD_HEAD;
        }
    }
    return found;
}

bool route_has_parameter(const struct route *route, struct span name)
{
    struct span left = span_text(route->parameters);
    while (left.size > 0) {
        const uint8_t *space = memchr(left.data, ' ', left.size);
        size_t size = space == NULL ? left.size : (size_t)(space - left.data);
        if (span_equal(span_of(left.data, size), name)) {
            return true;
        }
        size_t taken = space == NULL ? size : size + 1;
        left = span_of(left.data + taken, left.size - taken);
    }
    return false;
}
