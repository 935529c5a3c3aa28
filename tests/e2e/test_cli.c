/* The command-line tool over HTTP against a broker that is played: what it sends, prints and exits
 * with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <arpa/inet.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/base/buf.h"
#include "tests/lib/cli.h"

enum { ARGUMENTS_MAX = 12, REPLIES_MAX = 3, REQUEST_MAX = 1 << 20 };

/* ---- a broker that answers from a script ---- */

struct fake_reply {
    int status;
    const char *headers; /* whole lines, or NULL */
    const char *body;
};

struct fake {
    int listener;
    char url[64];
    pthread_t thread;
    const struct fake_reply *replies; /* ended by status 0; the last one repeats */
    struct buf requests;              /* "METHOD path\nbody\n" of each; read after fake_stop */
};

/* Reads one request into `text`, terminated; NULL at the end of the connection. The body's place.
 */
static char *fake_read(int connection, struct buf *text)
{
    buf_reset(text);
    for (;;) {
        assert_true(buf_reserve(text, 4097));
        ssize_t size = recv(connection, text->data + text->size, 4096, 0);
        if (size <= 0) {
            return NULL;
        }
        text->size += (size_t)size;
        text->data[text->size] = '\0';
        char *head = (char *)text->data;
        char *end = strstr(head, "\r\n\r\n");
        const char *length = strstr(head, "Content-Length: ");
        size_t body = length == NULL ? 0 : strtoul(length + 16, NULL, 10);
        if (end != NULL && text->size >= (size_t)(end + 4 - head) + body) {
            return end + 4;
        }
    }
}

static void fake_serve(struct fake *fake, int connection, const struct fake_reply **reply)
{
    struct buf text;
    char *body = NULL;
    buf_init(&text, REQUEST_MAX);
    while ((body = fake_read(connection, &text)) != NULL) {
        char head[1024];
        const char *line_end = strstr((char *)text.data, " HTTP/1.1\r\n");
        assert_non_null(line_end);
        buf_append(&fake->requests, text.data, (size_t)(line_end - (char *)text.data));
        buf_append_byte(&fake->requests, '\n');
        buf_append_text(&fake->requests, body);
        buf_append_byte(&fake->requests, '\n');
        int size = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n",
                            (*reply)->status, (*reply)->headers == NULL ? "" : (*reply)->headers,
                            strlen((*reply)->body));
        (void)send(connection, head, (size_t)size, MSG_NOSIGNAL);
        (void)send(connection, (*reply)->body, strlen((*reply)->body), MSG_NOSIGNAL);
        *reply += (*reply)[1].status != 0;
    }
    buf_deinit(&text);
}

static void *fake_main(void *user)
{
    struct fake *fake = user;
    const struct fake_reply *reply = fake->replies;
    for (;;) {
        int connection = accept(fake->listener, NULL, NULL);
        if (connection < 0) {
            return NULL;
        }
        fake_serve(fake, connection, &reply);
        (void)close(connection);
    }
}

static void fake_start(struct fake *fake, const struct fake_reply *replies)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    fake->replies = replies;
    buf_init(&fake->requests, REQUEST_MAX);
    fake->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fake->listener >= 0);
    assert_int_equal(bind(fake->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fake->listener, 8), 0);
    assert_int_equal(getsockname(fake->listener, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(fake->url, sizeof fake->url, "http://127.0.0.1:%u",
                   (unsigned)ntohs(address.sin_port));
    assert_int_equal(pthread_create(&fake->thread, NULL, fake_main, fake), 0);
}

/* The requests it got, terminated. */
static const char *fake_stop(struct fake *fake)
{
    (void)shutdown(fake->listener, SHUT_RDWR);
    assert_int_equal(pthread_join(fake->thread, NULL), 0);
    (void)close(fake->listener);
    buf_append_byte(&fake->requests, 0);
    assert_false(fake->requests.failed);
    return (const char *)fake->requests.data;
}

/* ---- one run of the tool ---- */

struct cli_case {
    const char *words[ARGUMENTS_MAX];
    const char *input;
    struct fake_reply replies[REPLIES_MAX + 1];
    int exit_code;
    const char *requests; /* exactly; NULL: not looked at */
    const char *out;      /* exactly; NULL: not looked at */
    const char *err;      /* a part of it; NULL: not looked at */
};

static void expect_case(const struct cli_case *row)
{
    struct fake fake;
    struct cli_outcome outcome;
    char variable[128];
    fake_start(&fake, row->replies);
    (void)snprintf(variable, sizeof variable, "FLARE_URL=%s", fake.url);
    const char *const environment[] = {variable, "FLARE_TRANSPORT=http",
                                       "XDG_CONFIG_HOME=/nonexistent", NULL};
    cli_run_with(
        &(struct cli_options){.words = row->words, .input = row->input, .environment = environment},
        &outcome);
    const char *requests = fake_stop(&fake);
    if (outcome.exit_code != row->exit_code) {
        print_error("flare %s %s: %s\n", row->words[0], row->words[1], outcome.err);
    }
    assert_int_equal(outcome.exit_code, row->exit_code);
    if (row->requests != NULL) {
        assert_string_equal(requests, row->requests);
    }
    if (row->out != NULL) {
        assert_string_equal(cli_out(&outcome), row->out);
    }
    if (row->err != NULL && strstr(outcome.err, row->err) == NULL) {
        fail_msg("'%s' is not in '%s'", row->err, outcome.err);
    }
    buf_deinit(&fake.requests);
    cli_outcome_deinit(&outcome);
}

static void expect_cases(const struct cli_case *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        expect_case(&rows[i]);
    }
}

#define EXPECT_CASES(rows) expect_cases(rows, sizeof(rows) / sizeof(rows)[0])

/* ---- the rules ---- */

/* A command sends the request SPEC describes for it, names and values encoded. */
static void test_requests_follow_the_specification(void **state)
{
    static const struct cli_case rows[] = {
        {.words = {"topic", "put", "a b", "--shards", "8", "--retention=1w"},
         .replies = {{201, NULL, "{\"name\":\"a b\"}"}},
         .requests = "PUT /v1/topics/a%20b\n"
                     "{\"shards\":8,\"retention\":{\"age\":604800000}}\n"},
        {.words = {"sub", "put", "t", "s", "--lease", "2m", "--start", "1767323045678",
                   "--retry-delay", "5s"},
         .replies = {{200, NULL, "{\"name\":\"s\"}"}},
         .requests = "PUT /v1/topics/t/subscriptions/s\n"
                     "{\"lease\":120000,\"retry\":{\"delay\":5000},\"start\":1767323045678}\n"},
        {.words = {"pub", "t", "hello", "--json"},
         .replies = {{201, NULL, "{\"id\":\"x\"}"}},
         .requests = "POST /v1/topics/t/messages\nhello\n",
         .out = "{\"id\":\"x\"}\n"},
        {.words = {"sub", "seek", "t", "s", "--shard", "3", "--sequence", "12", "--dry-run"},
         .replies = {{200, NULL, "{\"moved\":4,\"dry_run\":true}"}},
         .requests = "POST /v1/topics/t/subscriptions/s/seek\n"
                     "{\"to\":{\"shard\":3,\"sequence\":12},\"dry_run\":true}\n"},
        {.words = {"sub", "purge", "t", "s", "--what", "dead", "--what", "enqueued", "--yes"},
         .replies = {{200, NULL, "{\"purged\":4}"}},
         .requests = "POST /v1/topics/t/subscriptions/s/purge\n"
                     "{\"what\":[\"dead\",\"enqueued\"]}\n"},
        {.words = {"nack", "t", "s", "r1", "r2", "--reject", "--reason", "no"},
         .replies = {{200, NULL, "{\"nacked\":2}"}},
         .requests = "POST /v1/topics/t/subscriptions/s/nack\n"
                     "{\"receipts\":[\"r1\",\"r2\"],\"reject\":true,\"reason\":\"no\"}\n"},
        {.words = {"peek", "t", "s", "--state", "leased", "-n5", "--no-body"},
         .replies = {{200, NULL, "{\"items\":[],\"next\":null}"}},
         .requests =
             "GET /v1/topics/t/subscriptions/s/messages?state=leased&body=false&limit=5\n\n"},
        {.words = {"topic", "rm", "t", "--yes"},
         .replies = {{204, NULL, ""}},
         .requests = "DELETE /v1/topics/t\n\n",
         .out = ""},
    };
    (void)state;
    EXPECT_CASES(rows);
}

/* Scripts can tell from the exit code who is to blame: sysexits(3). */
static void test_exit_codes_say_who_is_to_blame(void **state)
{
#define PROBLEM(code) "{\"title\":\"T\",\"detail\":\"D\",\"code\":\"" code "\"}"
    static const struct cli_case rows[] = {
        {.words = {"topic", "get", "t", "--nonsense"}, .exit_code = 64, .requests = ""},
        {.words = {"topic", "get"}, .exit_code = 64, .requests = ""},
        {.words = {"topic", "get", "a", "b"}, .exit_code = 64, .requests = ""},
        {.words = {"pull", "t", "s", "--max", "10001"}, .exit_code = 64, .requests = ""},
        {.words = {"pull", "t", "s", "--max", "-1"}, .exit_code = 64, .requests = ""},
        {.words = {"pull", "t", "s", "--wait", "3 s"}, .exit_code = 64, .requests = ""},
        {.words = {"pull", "t", "s", "--follow"}, .exit_code = 64, .requests = ""},
        {.words = {"peek", "t", "s", "--state", "lost"}, .exit_code = 64, .requests = ""},
        {.words = {"topic", "rm", "t"}, .exit_code = 64, .requests = "", .err = "--yes"},
        {.words = {"status", "--url", "ftp://x"}, .exit_code = 64, .requests = ""},
        {.words = {"topic", "get", "t"},
         .replies = {{400, NULL, PROBLEM("invalid")}},
         .exit_code = 65,
         .err = "T: D (invalid)"},
        {.words = {"ack", "t", "s", "r"},
         .replies = {{409, NULL,
                      "{\"title\":\"T\",\"code\":\"lease_lost\",\"results\":"
                      "[{\"receipt\":\"r\",\"code\":\"lease_lost\"}]}"}},
         .exit_code = 65,
         .err = "lease_lost: r"},
        {.words = {"topic", "get", "t"},
         .replies = {{404, NULL, PROBLEM("not_found")}},
         .exit_code = 66},
        {.words = {"pub", "t", "--file", "/nonexistent"}, .exit_code = 66, .requests = ""},
        {.words = {"topic", "get", "t"},
         .replies = {{500, NULL, PROBLEM("internal")}},
         .exit_code = 70},
        {.words = {"topic", "get", "t"},
         .replies = {{429, NULL, PROBLEM("busy")}},
         .exit_code = 75},
        {.words = {"topic", "get", "t"},
         .replies = {{503, NULL, PROBLEM("unavailable")}},
         .exit_code = 75},
        {.words = {"topic", "get", "t"}, .replies = {{200, NULL, "no json"}}, .exit_code = 76},
        {.words = {"topic", "get", "t"}, .replies = {{302, NULL, "<html>"}}, .exit_code = 76},
        {.words = {"topic", "get", "t"}, .replies = {{403, NULL, "<html>"}}, .exit_code = 77},
    };
#undef PROBLEM
    (void)state;
    EXPECT_CASES(rows);
}

/* A broker that is not there is "unavailable", and the message says what to do. */
static void test_an_absent_broker_is_unavailable(void **state)
{
    struct cli_outcome outcome;
    (void)state;
    cli_run("http://127.0.0.1:1", (const char *const[]){"status", NULL}, NULL, &outcome);
    assert_int_equal(outcome.exit_code, 69);
    assert_non_null(strstr(outcome.err, "is flared running?"));
    assert_string_equal(cli_out(&outcome), "");
    cli_outcome_deinit(&outcome);
}

/* Lists are aligned tables with a header, tab-separated values with --plain, a document a line with
 * --json; all pages are read. */
static void test_lists_have_three_formats(void **state)
{
#define PAGES                                                                                      \
    {                                                                                              \
        {200, NULL,                                                                                \
         "{\"items\":[{\"name\":\"orders\",\"state\":\"active\",\"shards\":4096,"                  \
         "\"subscriptions\":2,\"retention\":null,\"idempotency_window_ms\":300000,"                \
         "\"created_at\":\"now\",\"durability\":\"relaxed\"}],\"next\":\"c+1\"}"},                 \
        {                                                                                          \
            200, NULL,                                                                             \
                "{\"items\":[{\"name\":\"x\",\"shards\":1,\"retention\":{\"age_ms\":90000}}],"     \
                "\"next\":null}"                                                                   \
        }                                                                                          \
    }
    static const struct cli_case rows[] = {
        {.words = {"topic", "ls"},
         .replies = PAGES,
         .requests = "GET /v1/topics?limit=1000\n\nGET /v1/topics?limit=1000&cursor=c%2B1\n\n",
         .out = "NAME    STATE   SHARDS  SUBSCRIPTIONS  RETENTION  RETENTION-SIZE  IDEMPOTENCY  "
                "CREATED  DURABILITY\n"
                "orders  active   4,096              2  -                       -  5 min 0 s    "
                "now      relaxed\n"
                "x       -            1              -  1 min 30 s               -  -            "
                "-        -\n"},
        {.words = {"topic", "ls", "--plain"},
         .replies = PAGES,
         .out = "orders\tactive\t4096\t2\t\t\t300000\tnow\trelaxed\nx\t\t1\t\t90000\t\t\t\t\n"},
        {.words = {"topic", "ls", "--json"},
         .replies = PAGES,
         .out = "{\"name\":\"orders\",\"state\":\"active\",\"shards\":4096,\"subscriptions\":2,"
                "\"retention\":null,\"idempotency_window_ms\":300000,\"created_at\":\"now\","
                "\"durability\":\"relaxed\"}\n"
                "{\"name\":\"x\",\"shards\":1,\"retention\":{\"age_ms\":90000}}\n"},
    };
#undef PAGES
    (void)state;
    EXPECT_CASES(rows);
}

/* What a message holds cannot steer the terminal that shows it; --body hands it out as it is. */
static void test_bodies_are_escaped_in_tables_and_raw_with_body(void **state)
{
#define PULLED                                                                                     \
    {                                                                                              \
        {200, NULL,                                                                                \
         "{\"messages\":[{\"id\":\"i\",\"receipt\":\"r\",\"body_base64\":"                         \
         "\"G1szMW1hCsOkwpsA\"}]}"},                                                               \
        {                                                                                          \
            200, NULL, "{\"acked\":1}"                                                             \
        }                                                                                          \
    }
    static const struct cli_case rows[] = {
        {.words = {"pull", "t", "s", "--plain", "--ack"},
         .replies = PULLED,
         .requests = "POST /v1/topics/t/subscriptions/s/pull\n{\"max\":1}\n"
                     "POST /v1/topics/t/subscriptions/s/ack\n{\"receipts\":[\"r\"]}\n",
         .out = "i\t\t\t\t\\x1b[31ma\\n\xc3\xa4\\xc2\\x9b\\x00\n"},
        {.words = {"pull", "t", "s", "--body"},
         .replies = {{200, NULL,
                      "{\"messages\":[{\"body\":\"one\"},{\"body_base64\":\"dHdv\"},"
                      "{\"body_base64\":\"dGhyZWU\"}]}"}},
         .out = "one\ntwo\nthree\n"},
        {.words = {"pull", "t", "s", "--body", "--max-bytes", "16m"},
         .replies = {{200, NULL, "{\"messages\":[]}"}},
         .requests = "POST /v1/topics/t/subscriptions/s/pull\n{\"max\":1,\"max_bytes\":16777216}\n",
         .out = ""},
        {.words = {"pull", "t", "s", "--body"},
         .replies = {{200, NULL, "{\"messages\":[{\"body_base64\":\"d*dv\"}]}"}},
         .exit_code = 76},
    };
#undef PULLED
    (void)state;
    EXPECT_CASES(rows);
}

/* --drain pulls until nothing comes, acknowledging each batch after it was printed. */
static void test_drain_goes_on_until_empty(void **state)
{
    static const struct cli_case rows[] = {
        {.words = {"pull", "t", "s", "--ack", "--drain", "--body"},
         .replies = {{200, NULL, "{\"messages\":[{\"receipt\":\"r\",\"body\":\"one\"}]}"},
                     {200, NULL, "{\"acked\":1}"},
                     {200, NULL, "{\"messages\":[]}"}},
         .requests = "POST /v1/topics/t/subscriptions/s/pull\n{\"max\":100}\n"
                     "POST /v1/topics/t/subscriptions/s/ack\n{\"receipts\":[\"r\"]}\n"
                     "POST /v1/topics/t/subscriptions/s/pull\n{\"max\":100}\n",
         .out = "one\n"},
    };
    (void)state;
    EXPECT_CASES(rows);
}

/* Lines become one batch; what was refused for now is sent again, what failed for good is reported.
 */
static void test_lines_are_published_in_batches(void **state)
{
    static const char busy[] = "{\"code\":\"busy\",\"retryable\":true}";
    static const char two[] = "{\"results\":[{\"id\":\"a\",\"shard\":0,\"sequence\":1},"
                              "{\"id\":\"b\",\"shard\":1,\"sequence\":2}],\"published\":2}";
    static const char half[] = "{\"results\":[{\"id\":\"a\",\"shard\":0,\"sequence\":1},"
                               "{\"code\":\"idempotency_reused\"}],\"published\":1,\"failed\":1}";
    static const char full[] = "{\"results\":[{\"id\":\"a\",\"shard\":0,\"sequence\":1},"
                               "{\"code\":\"no_space\"}],\"published\":1,\"failed\":1}";
    /* msgpack: {messages: [{key: k, body: one}, {key: l, body: two}]} */
    static const char batch[] = "POST /v1/topics/t/batch\n"
                                "\x81\xa8messages\x92"
                                "\x82\xa3key\xa1k\xa4"
                                "body\xc4\x03one"
                                "\x82\xa3key\xa1l\xa4"
                                "body\xc4\x03two\n";
    const struct cli_case rows[] = {
        {.words = {"pub", "t", "-K", ":", "--plain"},
         .input = "k:one\nl:two",
         .replies = {{429, "Retry-After: 0\r\n", busy}, {201, NULL, two}},
         .out = "a\t0\t1\nb\t1\t2\n",
         .err = "2 published"},
        {.words = {"pub", "t", "-K", ":"},
         .input = "k:one\nl:two\n",
         .replies = {{201, NULL, two}},
         .requests = batch,
         .out = ""},
        {.words = {"pub", "t"},
         .input = "one\ntwo\n",
         .replies = {{207, NULL, half}},
         .exit_code = 65,
         .err = "idempotency_reused"},
        {.words = {"pub", "t"},
         .input = "one\ntwo\n",
         .replies = {{207, NULL, full}},
         .exit_code = 75,
         .err = "no_space"},
        {.words = {"pub", "t", "-K", ":"},
         .input = "one\n",
         .replies = {{201, NULL, two}},
         .exit_code = 65,
         .requests = "",
         .err = "line 1"},
    };
    (void)state;
    EXPECT_CASES(rows);
}

/* --curl prints a command that does the same, and sends nothing. */
static void test_curl_prints_the_request_instead_of_sending_it(void **state)
{
    struct cli_outcome outcome;
    (void)state;
    cli_run(
        "http://h:1",
        (const char *const[]){"pub", "t", "it's", "--key", "k", "--attr", "a=b", "--curl", NULL},
        NULL, &outcome);
    assert_int_equal(outcome.exit_code, 0);
    assert_string_equal(cli_out(&outcome),
                        "curl -sS -X POST 'http://h:1/v1/topics/t/messages' -H 'Flare-Key: k' "
                        "-H 'Flare-Attr-a: b' -H 'Content-Type: text/plain' "
                        "--data-binary 'it'\\''s'\n");
    cli_outcome_deinit(&outcome);
}

/* Every command of the overview has a help page with its usage and an example. */
static void test_every_command_has_help_with_an_example(void **state)
{
    struct cli_outcome overview;
    size_t count = 0;
    (void)state;
    cli_run("", (const char *const[]){"--help", NULL}, NULL, &overview);
    assert_int_equal(overview.exit_code, 0);
    char *line = strstr((char *)overview.out.data, "Commands:\n");
    assert_non_null(line);
    for (line += strlen("Commands:\n"); strncmp(line, "  ", 2) == 0;
         line = strchr(line, '\n') + 1) {
        struct cli_outcome help;
        char words[2][32] = {"", ""};
        char usage[80];
        int second = 0;
        assert_int_equal(sscanf(line, "  %31s%n %31s", words[0], &second, words[1]), 2);
        bool single = line[second + 1] == ' '; /* padding, then the summary */
        (void)snprintf(usage, sizeof usage, "Usage: flare %s%s%s", words[0], single ? "" : " ",
                       single ? "" : words[1]);
        cli_run("",
                (const char *const[]){words[0], single ? "--help" : words[1],
                                      single ? NULL : "--help", NULL},
                NULL, &help);
        assert_int_equal(help.exit_code, 0);
        assert_non_null(strstr(cli_out(&help), usage));
        assert_non_null(strstr(cli_out(&help), "\nExamples:\n  flare "));
        cli_outcome_deinit(&help);
        count++;
    }
    assert_true(count > 20);
    cli_outcome_deinit(&overview);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_follow_the_specification),
        cmocka_unit_test(test_exit_codes_say_who_is_to_blame),
        cmocka_unit_test(test_an_absent_broker_is_unavailable),
        cmocka_unit_test(test_lists_have_three_formats),
        cmocka_unit_test(test_bodies_are_escaped_in_tables_and_raw_with_body),
        cmocka_unit_test(test_drain_goes_on_until_empty),
        cmocka_unit_test(test_lines_are_published_in_batches),
        cmocka_unit_test(test_curl_prints_the_request_instead_of_sending_it),
        cmocka_unit_test(test_every_command_has_help_with_an_example),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
