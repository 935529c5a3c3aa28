/* The table of routes (routes.def) and the matcher that walks it. */
#ifndef HTTP_ROUTES_H
#define HTTP_ROUTES_H

#include "broker/base/err.h"
#include "broker/http/api_in.h"
#include "broker/http/server.h"

struct api_request;

enum route_role {
    ROUTE_ROLE_probe,
    ROUTE_ROLE_view,
    ROUTE_ROLE_publish,
    ROUTE_ROLE_consume,
    ROUTE_ROLE_configure,
    ROUTE_ROLE_operate,
};

/* What a request or an answer holds: a document, by its row, or one of those that are none. */
enum route_document {
#define DOCUMENT(name, text) ROUTE_DOCUMENT_##name = IN_##name,
#define FIELD(...)
#include "broker/http/api_documents.def"
    ROUTE_DOCUMENT_none = IN_ROWS,
    ROUTE_DOCUMENT_raw,
    ROUTE_DOCUMENT_empty,
    ROUTE_DOCUMENT_text,
    ROUTE_DOCUMENT_any,
};

struct route {
    enum http_method method;
    const char *pattern;
    const char *name;
    /* Answers now or later; an error is answered by the caller. */
    err_t (*handle)(struct api_request *request);
    enum route_role role;
    const char *parameters; /* names of query parameters, separated by one space */
    enum route_document request;
    enum route_document answer;
    const char *summary;
};

extern const struct route routes[];
extern const uint32_t route_count;

const char *route_method_text(enum http_method method);
const char *route_role_text(enum route_role role);

/* What a path leads to. */
struct route_match {
    const struct route *route; /* NULL: the path has no such method, or (methods == 0) is unknown */
    uint32_t methods;          /* bit for each method the path has */
    struct span topic;         /* as in the path: not decoded */
    struct span subscription;
};

struct route_match route_find(enum http_method method, struct span path);

/* Whether `route` has the query parameter `name`. */
bool route_has_parameter(const struct route *route, struct span name);

#endif
