/* Requests to the HTTP server that two readers could read differently, and those that only look so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/http_fixture.h"

#define HEAD "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED HEAD "Transfer-Encoding: chunked\r\n\r\n"
#define RAW(text) text, sizeof(text) - 1

static const struct {
    const char *data;
    size_t size;
} smuggling[] = {
    {RAW(HEAD "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")},
    {RAW(HEAD "Content-Length: 1\r\nContent-Length: 1\r\n\r\na")},
    {RAW(HEAD "Content-Length: 1, 1\r\n\r\na")},
    {RAW(HEAD "Content-Length: +1\r\n\r\na")},
    {RAW(HEAD "Content-Length: -1\r\n\r\na")},
    {RAW(HEAD "Content-Length: 0x1\r\n\r\na")},
    {RAW(HEAD "Content-Length: 1 1\r\n\r\na")},
    {RAW(HEAD "Content-Length: 1a\r\n\r\na")},
    {RAW(HEAD "Content-Length:\r\n\r\n")},
    {RAW(HEAD "Content-Length: 18446744073709551617\r\n\r\na")},
    {RAW(HEAD "Transfer-Encoding: identity\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: \x0b"
              "chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding:\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {RAW(HEAD "X: a\r\n\tb\r\n\r\n")},
    {RAW(HEAD "X: a\nContent-Length: 1\r\n\r\na")},
    {RAW(HEAD "X: a\rContent-Length: 1\r\n\r\na")},
    {RAW(HEAD "X: a\r\r\n\r\n")},
    {RAW(HEAD "X: a\0b\r\n\r\n")},
    {RAW(HEAD "X: a\x01"
              "b\r\n\r\n")},
    {RAW(HEAD "X: a\x7f\r\n\r\n")},
    {RAW(HEAD "X\0: a\r\n\r\n")},
    {RAW(HEAD "X(: a\r\n\r\n")},
    {RAW(HEAD "X\x80: a\r\n\r\n")},
    {RAW(HEAD ": a\r\n\r\n")},
    {RAW(HEAD "no colon\r\n\r\n")},
    {RAW(HEAD "\n")},
    {RAW("GET / HTTP/1.1\nHost: a\n\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a\n\r\n")},
    {RAW("GET / HTTP/1.1\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n")},
    {RAW("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost:\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a b\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n")},
    {RAW("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n")},
    {RAW("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET a HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET * HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")},
    {RAW("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET /a\x80 HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET  / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET /  HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET / x HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.1 \r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/2.0\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.2\r\nHost: a\r\n\r\n")},
    {RAW("GET / http/1.1\r\nHost: a\r\n\r\n")},
    {RAW("GET / HTTP/1.11\r\nHost: a\r\n\r\n")},
    {RAW("GET /\r\nHost: a\r\n\r\n")},
    {RAW("GET HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW(" GET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {RAW(CHUNKED "1\r\nxyz\r\n0\r\n\r\n")},
    {RAW(CHUNKED "1\r\nxy\n0\r\n\r\n")},
    {RAW(CHUNKED "1\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "1\r\nx\n0\r\n\r\n")},
    {RAW(CHUNKED "1\r\nx\r0\r\n\r\n")},
    {RAW(CHUNKED "1;a\nb\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "1;a\rb\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "1 ;a\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED " 1\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "0x1\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "+1\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "-1\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED ";a\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "g\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "00000000000000001\r\nx\r\n0\r\n\r\n")},
    {RAW(CHUNKED "0\r\nX : a\r\n\r\n")},
    {RAW(CHUNKED "0\r\n folded\r\n\r\n")},
    {RAW(CHUNKED "0\r\nX: a\n\r\n")},
    {RAW(CHUNKED "0\r\nno colon\r\n\r\n")},
    {RAW(CHUNKED "0\r\n\rx")},
    {RAW("\x16\x03\x01\x02\n")},
};

/* What two readers could frame or route differently is refused with 400, reaches no handler, and
 * ends the connection. */
static void test_smuggling(void **state)
{
    (void)state;
    struct http_fixture fixture;
    http_fixture_start(&fixture);
    for (size_t i = 0; i < sizeof smuggling / sizeof smuggling[0]; i++) {
        print_message("case %zu\n", i);
        http_fixture_expect_status(&fixture, smuggling[i].data, smuggling[i].size, 400);
        assert_int_equal(fixture.request_count, 0);
    }
    http_fixture_stop(&fixture);
}

/* Unusual but unambiguous requests are served. */
static void test_unusual_requests(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
        const char *body;
    } cases[] = {
        {"GET http://a/x?y HTTP/1.1\r\nHost: A\r\n\r\n", 200, "GET /x?y="},
        {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 200, "GET /="},
        {"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", 200, "GET /?q="},
        {"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, "GET /="},
        {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200, "OPTIONS *="},
        {"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, "GET /="},
        {"GET / HTTP/1.1\r\nHost:a\r\nX:\r\n\r\n", 200, "GET /="},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\r\n\r\n", 200, "GET /="},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 200, "GET /="},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 02\r\n\r\nhi", 200, "GET /=hi"},
        {"GET / HTTP/1.1\r\nHost: a\r\nTRANSFER-encoding: Chunked\r\n\r\n0002\r\nhi\r\n00\r\n\r\n",
         200, "GET /=hi"},
        {"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501, NULL},
        {"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501, NULL},
    };
    struct http_fixture fixture;
    http_fixture_start(&fixture);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_socket client;
        http_socket_open(&client, &fixture);
        http_socket_send(&client, cases[i].request);
        http_socket_expect(&client, cases[i].status, cases[i].body);
        http_socket_close(&client);
    }
    http_fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_unusual_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
