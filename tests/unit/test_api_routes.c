/* broker/http/routes.h, api.h and openapi.c: what a path leads to, who may ask for what form, and
 * the description. */
#include "tests/unit/api_fixture.h"

/* A path of the pattern, with names in the places of names. */
static void fill_pattern(const char *pattern, char out[256])
{
    size_t size = 0;
    for (const char *at = pattern; *at != '\0'; at++) {
        if (*at == '{') {
            bool topic = strncmp(at, "{topic}", 7) == 0;
            size += (size_t)sprintf(out + size, "%s", topic ? "orders" : "billing");
            at = strchr(at, '}');
        } else {
            out[size++] = *at;
        }
    }
    out[size] = '\0';
}

/* Every row of the table is reached by its method and path, with the names where they stand. */
static void every_route_is_found(void **state)
{
    (void)state;
    assert_true(route_count > 20);
    for (uint32_t index = 0; index < route_count; index++) {
        char path[256];
        fill_pattern(routes[index].pattern, path);
        struct route_match match = route_find(routes[index].method, span_text(path));
        assert_ptr_equal(match.route, &routes[index]);
        bool topic = strstr(routes[index].pattern, "{topic}") != NULL;
        bool sub = strstr(routes[index].pattern, "{subscription}") != NULL;
        assert_true(span_is(match.topic, topic ? "orders" : ""));
        assert_true(span_is(match.subscription, sub ? "billing" : ""));
    }
}

/* No two rows have the same method and pattern: the second would never be reached. */
static void no_route_hides_another(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < route_count; a++) {
        for (uint32_t b = a + 1; b < route_count; b++) {
            assert_false(routes[a].method == routes[b].method &&
                         strcmp(routes[a].pattern, routes[b].pattern) == 0);
        }
    }
}

/* What is nearly a path is none. */
static void near_misses_are_not_found(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "/",
        "",
        "/v1",
        "/v1/topics/",
        "/v1//topics",
        "/v1/topic",
        "/V1/topics",
        "/v1/topics/orders/",
        "/v1/topics/orders/messages/1",
        "/v1/topics//messages",
        "/v1/topics/orders/subscriptions/billing/push",
        "/healthz/",
        "/v1/topics/orders/shards/0/split",
        "//v1/topics",
    };
    for (size_t index = 0; index < sizeof paths / sizeof paths[0]; index++) {
        call(HTTP_METHOD_GET, paths[index], NULL, NULL);
        expect_problem(ERR_NOT_FOUND, NULL);
        assert_int_equal(fake.started, 0);
    }
}

/* A method a path does not have is 405 with those it has; OPTIONS asks for them. */
static void wrong_methods_name_the_right_ones(void **state)
{
    (void)state;
    call(HTTP_METHOD_POST, "/v1/topics/orders", NULL, NULL);
    expect_problem(ERR_METHOD, NULL);
    expect_header("Allow: OPTIONS, GET, HEAD, PUT, DELETE\n");
    call(HTTP_METHOD_GET, "/v1/topics/orders/batch", NULL, NULL);
    expect_problem(ERR_METHOD, NULL);
    expect_header("Allow: OPTIONS, POST\n");
    call(HTTP_METHOD_OTHER, "/healthz", NULL, NULL);
    expect_problem(ERR_METHOD, NULL);
    call(HTTP_METHOD_OPTIONS, "/v1/log-level", NULL, NULL);
    assert_int_equal(answer.status, 204);
    expect_header("Allow: OPTIONS, GET, HEAD, PUT\n");
}

/* HEAD works wherever GET does. */
static void head_is_answered_like_get(void **state)
{
    (void)state;
    call(HTTP_METHOD_HEAD, "/v1/topics/orders", NULL, NULL);
    assert_int_equal(answer.status, 200);
    expect_header("ETag: \"3\"\n");
}

/* Names in paths are decoded first and checked then. */
static void names_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *field; /* NULL: it is found */
    } cases[] = {
        {"/v1/topics/orders", NULL},      {"/v1/topics/%6Frders", NULL},
        {"/v1/topics/a%2Fb", "topic"},    {"/v1/topics/a%zz", "topic"},
        {"/v1/topics/a%00", "topic"},     {"/v1/topics/a%20b", "topic"},
        {"/v1/topics/..", "topic"},       {"/v1/topics/%2E", "topic"},
        {"/v1/topics/\xc3\xa9", "topic"}, {"/v1/topics/orders/subscriptions/a+b", "subscription"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_GET, cases[index].path, NULL, NULL);
        if (cases[index].field == NULL) {
            assert_int_equal(answer.status, 200);
        } else {
            expect_problem(ERR_INVALID, cases[index].field);
        }
    }
    char path[300] = "/v1/topics/";
    memset(path + 11, 'a', 256);
    path[11 + 255] = '\0';
    call(HTTP_METHOD_GET, path, NULL, NULL);
    expect_problem(ERR_NOT_FOUND, NULL);
    path[11 + 255] = 'a';
    call(HTTP_METHOD_GET, path, NULL, NULL);
    expect_problem(ERR_INVALID, "topic");
}

/* Query parameters a route does not have, or twice, or with nonsense, are refused. */
static void parameters_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        bool allowed;
    } cases[] = {
        {"/v1/topics?limit=1", true},
        {"/v1/topics?limit=1000&cursor=a", true},
        {"/v1/topics?limit=0", false},
        {"/v1/topics?limit=1001", false},
        {"/v1/topics?limit=-1", false},
        {"/v1/topics?limit=1e2", false},
        {"/v1/topics?limit=18446744073709551617", false},
        {"/v1/topics?limit=1&limit=1", false},
        {"/v1/topics?offset=1", false},
        {"/v1/topics?cursor=%zz", false},
        {"/v1/topics?limitcursor=1", false},
        {"/v1/topics/orders?limit=1", false},
        {"/readyz?verbose=maybe", false},
        {"/readyz?verbose", true},
        {"/readyz?verbose=false", true},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_GET, cases[index].path, NULL, NULL);
        if (answer.status != (cases[index].allowed ? 200 : 400)) {
            fail_msg("%s: %d", cases[index].path, answer.status);
        }
    }
}

/* Accept chooses the form of the answer, JSON on a tie; neither is 406. Text answers are not asked.
 */
static void accept_chooses_the_form(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        const char *type; /* NULL: 406 */
    } cases[] = {
        {NULL, "application/json"},
        {"Accept: */*", "application/json"},
        {"Accept: application/*", "application/json"},
        {"Accept: application/json", "application/json"},
        {"Accept: application/msgpack", "application/msgpack"},
        {"Accept: application/vnd.msgpack", "application/msgpack"},
        {"Accept: APPLICATION/X-MSGPACK", "application/msgpack"},
        {"Accept: application/json, application/msgpack", "application/json"},
        {"Accept: application/json;q=0.5, application/msgpack;q=0.9", "application/msgpack"},
        {"Accept: application/msgpack;q=0.1, */*;q=0.5", "application/json"},
        {"Accept: text/html, application/xhtml+xml, */*;q=0.8", "application/json"},
        {"Accept: text/html", NULL},
        {"Accept: application/json;q=0", NULL},
        {"Accept: ,;", NULL},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_GET, "/v1/topics/orders", cases[index].accept, NULL);
        if (cases[index].type == NULL) {
            expect_problem(ERR_NOT_ACCEPTABLE, "Accept");
        } else {
            assert_string_equal(answer.content_type, cases[index].type);
        }
    }
    call(HTTP_METHOD_GET, "/healthz", "Accept: text/html", NULL);
    assert_int_equal(answer.status, 200);
}

/* A body that is neither JSON nor MessagePack is 415; none at all needs no type. */
static void content_type_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        const char *body;
        int status;
    } cases[] = {
        {NULL, "{}", 200},
        {"Content-Type: application/json", "{}", 200},
        {"Content-Type: Application/JSON; charset=utf-8", "{}", 200},
        {"Content-Type: application/msgpack", "\x80", 200},
        {"Content-Type: application/x-www-form-urlencoded", "{}", 415},
        {"Content-Type: text/plain", "{}", 415},
        {"Content-Type: application/jsonx", "{}", 415},
        {"Content-Type: ", "{}", 415},
        {"Content-Type: text/plain", NULL, 200},
        {"Content-Type: application/msgpack", "{}", 400},
        {"Content-Type: application/json", "\x80", 400},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        call(HTTP_METHOD_POST, "/v1/topics/orders/subscriptions/billing/pause", cases[index].type,
             cases[index].body);
        if (answer.status != cases[index].status) {
            fail_msg("%s %s: %d", cases[index].type, cases[index].body, answer.status);
        }
    }
}

/* A web page of another site may not use the broker; one served from the same host may. */
static void other_sites_are_refused(void **state)
{
    (void)state;
    call(HTTP_METHOD_GET, "/v1/topics", "Host: localhost:8080\nOrigin: http://evil.example", NULL);
    expect_problem(ERR_INVALID, "Origin");
    call(HTTP_METHOD_GET, "/v1/topics", "Host: localhost:8080\nOrigin: null", NULL);
    expect_problem(ERR_INVALID, "Origin");
    call(HTTP_METHOD_GET, "/v1/topics", "Host: localhost:8080\nOrigin: http://localhost:8080.evil",
         NULL);
    expect_problem(ERR_INVALID, "Origin");
    call(HTTP_METHOD_GET, "/v1/topics", "Host: localhost:8080\nOrigin: http://localhost:8080",
         NULL);
    assert_int_equal(answer.status, 200);
}

/* The description has every route of the table and no other, and every schema it points to. */
static void openapi_describes_every_route(void **state)
{
    (void)state;
    call(HTTP_METHOD_GET, "/openapi.json", NULL, NULL);
    assert_int_equal(answer.status, 200);
    json_t *paths = member(answer.json, "paths");
    json_t *schemas = member(member(answer.json, "components"), "schemas");
    size_t operations = 0;
    const char *path;
    json_t *methods;
    json_object_foreach(paths, path, methods)
    {
        operations += json_object_size(methods);
    }
    assert_int_equal(operations, route_count);
    for (uint32_t index = 0; index < route_count; index++) {
        char method[16] = "";
        const char *text = route_method_text(routes[index].method);
        for (size_t at = 0; text[at] != '\0'; at++) {
            method[at] = (char)(text[at] | 0x20);
        }
        json_t *operation = member(member(paths, routes[index].pattern), method);
        expect_text(operation, "operationId", routes[index].name);
        expect_text(operation, "x-role", route_role_text(routes[index].role));
        if (routes[index].request < ROUTE_DOCUMENT_none) {
            (void)member(schemas, api_in_fields[routes[index].request].name);
        }
    }
    char *dump = json_dumps(answer.json, JSON_COMPACT);
    assert_non_null(dump);
    for (char *at = strstr(dump, "#/components/schemas/"); at != NULL;
         at = strstr(at, "#/components/schemas/")) {
        char name[64];
        at += strlen("#/components/schemas/");
        (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(at, "\""), at);
        (void)member(schemas, name);
    }
    free(dump);
}

/* What the server itself refuses has the same form. */
static void server_problems_have_the_same_form(void **state)
{
    (void)state;
    struct buf body;
    const char *type = NULL;
    buf_init(&body, 4096);
    api_on_problem(api, ERR_TOO_LARGE, "the body has more than 16 bytes", &body, &type);
    assert_string_equal(type, "application/problem+json");
    json_t *problem = json_loadb((const char *)body.data, body.size, 0, NULL);
    expect_text(problem, "type", "urn:flare:problem:too_large");
    expect_text(problem, "detail", "the body has more than 16 bytes");
    json_decref(problem);
    buf_reset(&body);
    api_on_problem(api, ERR_TIMEOUT, NULL, &body, &type);
    problem = json_loadb((const char *)body.data, body.size, 0, NULL);
    expect_text(problem, "code", "timeout");
    json_decref(problem);
    buf_deinit(&body);
}

/* When the arena can give nothing, the request is still answered. */
static void no_memory_is_answered(void **state)
{
    (void)state;
    size_t size_max = exchange.arena.size_max;
    for (size_t left = 0; left < 4096; left += 64) {
        exchange.arena.size_max = left;
        call(HTTP_METHOD_PUT, "/v1/topics/orders/subscriptions/billing", NULL,
             "{\"retry\":{\"delay\":\"1s\"}}");
        assert_true(answer.done);
        assert_true(answer.status == 200 || answer.status == 413 || answer.status == 503);
    }
    assert_int_equal(answer.status, 200);
    exchange.arena.size_max = size_max;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_route_is_found),          TEST(no_route_hides_another),
        TEST(near_misses_are_not_found),     TEST(wrong_methods_name_the_right_ones),
        TEST(head_is_answered_like_get),     TEST(names_are_checked),
        TEST(parameters_are_checked),        TEST(accept_chooses_the_form),
        TEST(content_type_is_checked),       TEST(other_sites_are_refused),
        TEST(openapi_describes_every_route), TEST(server_problems_have_the_same_form),
        TEST(no_memory_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
