/* The command-line tool over the wire protocol: the same as over HTTP, and what only a stream can.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/cli.h"
#include "tests/lib/scene.h"

enum { TIMEOUT_MS = 30000, LINES = 2000 };

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void url_of(const struct scene *scene, char out[64])
{
    (void)snprintf(out, 64, "http://127.0.0.1:%u", scene->broker.port);
}

static struct cli_outcome run(const struct scene *scene, const char *const *words,
                              const char *input)
{
    struct cli_outcome outcome;
    char url[64];
    url_of(scene, url);
    cli_run(url, words, input, &outcome);
    if (outcome.exit_code != 0) {
        fail_msg("flare %s exits with %d: %s", words[0], outcome.exit_code, outcome.err);
    }
    return outcome;
}

static void run_silently(const struct scene *scene, const char *const *words, const char *input)
{
    struct cli_outcome outcome = run(scene, words, input);
    cli_outcome_deinit(&outcome);
}

static void expect_out(const struct scene *scene, const char *const *words, const char *out)
{
    struct cli_outcome outcome = run(scene, words, NULL);
    assert_string_equal(cli_out(&outcome), out);
    cli_outcome_deinit(&outcome);
}

/* So many messages of "s" are to be delivered, now or again, and none is leased. */
static void expect_waiting(struct scene *scene, int64_t count)
{
    scene_expect(&scene->client, 200, "GET", "/v1/topics/t/subscriptions/s", NULL);
    assert_int_equal(scene_number(&scene->client, "enqueue_queue.depth") +
                         scene_number(&scene->client, "delivery_queue.scheduled"),
                     count);
    assert_int_equal(scene_number(&scene->client, "delivery_queue.leased"), 0);
}

static json_t *document_of(const struct cli_outcome *outcome)
{
    json_error_t where;
    json_t *document = json_loads(cli_out(outcome), 0, &where);
    if (document == NULL) {
        fail_msg("not one document: %s", cli_out(outcome));
    }
    return document;
}

/* ---- the same as over HTTP ---- */

/* One message pulled, given back at once so that the next pull has it again, without what differs
 * from one delivery to the next. */
static json_t *pull_document(struct scene *scene, const char *transport)
{
    static const char *const differing[] = {"receipt", "attempt", "lease_until", "lease_until_ms"};
    struct cli_outcome outcome = run(scene, WORDS("pull", "t", "s", "--json", transport), NULL);
    json_t *document = document_of(&outcome);
    const char *receipt = json_string_value(json_object_get(document, "receipt"));
    assert_non_null(receipt);
    scene_settle(&scene->client, 200, "nack", receipt, ",\"delay\":0");
    for (size_t i = 0; i < sizeof differing / sizeof differing[0]; i++) {
        assert_non_null(json_object_get(document, differing[i]));
        assert_int_equal(json_object_del(document, differing[i]), 0);
    }
    cli_outcome_deinit(&outcome);
    return document;
}

/* Whichever way a message goes and comes, its documents are the same, and receipts are of one kind.
 */
static void test_both_ways_show_the_same(void **state)
{
    struct scene scene;
    static const char *const bodies[] = {"text", "", "\xff\x01 bytes", "two\nlines \xc3\xa4"};
    (void)state;
    scene_init_topic(&scene, "{\"shards\":1}", NULL);
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct cli_outcome published = run(
            &scene,
            WORDS("pub", "t", bodies[i], "--key", "k", "--attr", "a=b", "--attr", "c=", "--json"),
            NULL);
        json_t *result = document_of(&published);
        json_t *wire = pull_document(&scene, "-q"); /* the way that is taken unless told */
        json_t *http = pull_document(&scene, "--http");
        if (!json_equal(wire, http)) {
            fail_msg("they differ: %s / %s", json_dumps(wire, 0), json_dumps(http, 0));
        }
        assert_true(json_equal(json_object_get(result, "id"), json_object_get(wire, "id")));
        assert_true(
            json_equal(json_object_get(result, "sequence"), json_object_get(wire, "sequence")));
        assert_string_equal(json_string_value(json_object_get(result, "durability")), "synced");
        json_decref(result);
        json_decref(wire);
        json_decref(http);
        cli_outcome_deinit(&published);
        run_silently(&scene, WORDS("pull", "t", "s", "--ack"), NULL);
    }
    expect_waiting(&scene, 0);
    scene_deinit(&scene);
}

/* Results come in the order of the lines, keys and idempotency keys go along. */
static void test_lines_keep_their_order(void **state)
{
    struct scene scene;
    char lines[LINES * 8];
    int size = 0;
    (void)state;
    scene_init_topic(&scene, "{\"shards\":1}", NULL);
    for (int i = 0; i < LINES; i++) {
        size += snprintf(lines + size, sizeof lines - (size_t)size, "k:%d\n", i);
    }
    for (int i = 0; i < 2; i++) {
        struct cli_outcome outcome =
            run(&scene,
                WORDS("pub", "t", "-K", ":", "--idempotency-key", "x", "--plain", "--batch", "50"),
                lines);
        char *rest = (char *)outcome.out.data;
        for (int line = 0; line < LINES; line++) {
            unsigned shard = 1;
            int sequence = -1;
            assert_int_equal(sscanf(rest, "%*s %u %d", &shard, &sequence), 2);
            assert_int_equal(shard, 0);
            assert_int_equal(sequence, line);
            rest = strchr(rest, '\n') + 1;
        }
        assert_string_equal(rest, "");
        cli_outcome_deinit(&outcome);
    }
    expect_waiting(&scene, LINES);
    struct cli_outcome pulled =
        run(&scene, WORDS("pull", "t", "s", "--ack", "--drain", "--body"), NULL);
    char *rest = (char *)pulled.out.data;
    for (int line = 0; line < LINES; line++) {
        assert_int_equal(strtol(rest, &rest, 10), line);
    }
    cli_outcome_deinit(&pulled);
    scene_deinit(&scene);
}

/* A line is published, and its result printed, when it is there, not when the next ones are. */
static void test_a_trickle_is_not_held_back(void **state)
{
    static const char *const options[] = {"--plain", "--http"};
    const char *program = getenv("FLARE");
    (void)state;
    for (size_t way = 0; way < 2; way++) {
        struct scene scene;
        struct process process;
        struct scene_message message;
        char url[64];
        char line[64];
        scene_init_topic(&scene, "{\"shards\":1}", NULL);
        url_of(&scene, url);
        process_start(&process,
                      &(struct process_options){
                          .arguments = WORDS(program != NULL ? program : "./flare", "pub", "t",
                                             "--url", url, "-q", "--plain", options[way])});
        for (int number = 0; number < 3; number++) {
            char end[16];
            (void)snprintf(end, sizeof end, "\t0\t%d", number);
            assert_true(process_write(&process, "line\n", 5));
            assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
            assert_non_null(strstr(line, end));
            assert_int_equal(scene_pull(&scene.client, "{\"max\":10}", &message, 1), 1);
            assert_string_equal(message.body, "line");
        }
        process_close_input(&process);
        assert_int_equal(process_wait(&process, TIMEOUT_MS), 0);
        process_stop(&process);
        scene_deinit(&scene);
    }
}

/* Errors of the broker end with the same exit codes as over HTTP. */
static void test_errors_are_the_same(void **state)
{
    struct scene scene;
    static const struct {
        const char *words[8];
        const char *input;
        int exit_code;
        const char *err;
    } rows[] = {
        {{"pub", "nowhere", "x"}, NULL, 66, "(not_found)"},
        {{"pub", "nowhere"}, "x\ny\n", 66, "(not_found)"},
        {{"pull", "t", "nobody"}, NULL, 66, "(not_found)"},
        {{"tail", "t", "nobody"}, NULL, 66, "(not_found)"},
        {{"tail", "t", "nobody", "--http"}, NULL, 66, "(not_found)"},
        {{"pub", "t", "x", "--wire", "127.0.0.1:1"}, NULL, 69, "--http"},
        {{"pull", "t", "s", "--wire", "127.0.0.1:1"}, NULL, 69, "is flared running?"},
        {{"pull", "t", "s", "--http", "--wire", "127.0.0.1:1"}, NULL, 0, "no message"},
    };
    char url[64];
    (void)state;
    scene_init_topic(&scene, NULL, NULL);
    url_of(&scene, url);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cli_outcome outcome;
        cli_run(url, rows[i].words, rows[i].input, &outcome);
        if (outcome.exit_code != rows[i].exit_code || strstr(outcome.err, rows[i].err) == NULL) {
            fail_msg("flare %s %s: %d, %s", rows[i].words[0], rows[i].words[1], outcome.exit_code,
                     outcome.err);
        }
        cli_outcome_deinit(&outcome);
    }
    scene_deinit(&scene);
}

/* ---- which way ---- */

/* --trace shows the frames on standard error, those of the way that is taken. */
static void test_trace_shows_frames(void **state)
{
    struct scene scene;
    (void)state;
    scene_init_topic(&scene, NULL, NULL);
    struct cli_outcome wire = run(&scene, WORDS("pub", "t", "hello", "--trace"), NULL);
    assert_non_null(strstr(wire.err, " > GET /v1/status HTTP/1.1\n")); /* where is it? */
    assert_non_null(strstr(wire.err, " > hello #1 version=1"));
    assert_non_null(strstr(wire.err, " < welcome #1 version=1"));
    assert_non_null(strstr(wire.err, " > publish #2 topic=\"t\""));
    assert_non_null(strstr(wire.err, " < published #2 durability=0 results=[1]"));
    assert_null(strstr(cli_out(&wire), "publish"));
    struct cli_outcome http = run(&scene, WORDS("pub", "t", "hello", "--trace", "--http"), NULL);
    assert_non_null(strstr(http.err, " > POST /v1/topics/t/messages HTTP/1.1\n"));
    assert_non_null(strstr(http.err, " > hello\n"));
    assert_non_null(strstr(http.err, " < HTTP/1.1 201 Created\n"));
    assert_null(strstr(http.err, "version=1"));
    cli_outcome_deinit(&wire);
    cli_outcome_deinit(&http);
    scene_deinit(&scene);
}

/* A broker that does not speak the wire protocol is used over HTTP; an address that is given is
 * used without asking. */
static void test_the_way_is_found(void **state)
{
    struct scene scene;
    char wire[64];
    (void)state;
    scene_init_topic(&scene, "{\"shards\":1}", NULL);
    (void)snprintf(wire, sizeof wire, "127.0.0.1:%u", scene.broker.wire_port);
    struct cli_outcome outcome =
        run(&scene, WORDS("pub", "t", "one", "--trace", "--wire", wire), NULL);
    assert_null(strstr(outcome.err, "/v1/status"));
    assert_non_null(strstr(outcome.err, " > publish #2 "));
    cli_outcome_deinit(&outcome);
    outcome = run(&scene, WORDS("pub", "t", "zero", "--trace", "--wire", "off"), NULL);
    assert_non_null(strstr(outcome.err, " > POST /v1/topics/t/messages HTTP/1.1\n"));
    cli_outcome_deinit(&outcome);
    scene_restart(&scene, false, WORDS("--wire", "off"));
    outcome = run(&scene, WORDS("pub", "t", "two", "--trace"), NULL);
    assert_non_null(strstr(outcome.err, " > POST /v1/topics/t/messages HTTP/1.1\n"));
    cli_outcome_deinit(&outcome);
    expect_out(&scene, WORDS("pull", "t", "s", "--ack", "--body", "-n", "5", "--max-bytes", "1K"),
               "one\nzero\ntwo\n");
    scene_deinit(&scene);
}

/* ---- tail ---- */

static const char *const ways[] = {"--wire", "--http"};

/* The option that takes a way; the wire is taken anyway. */
static const char *option_of(const char *way)
{
    return strcmp(way, "--http") == 0 ? way : "--table";
}

/* With --ack what was printed is finished; silence or a number ends it. */
static void test_tail_acknowledges_what_it_has_printed(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct scene scene;
        const char *way = option_of(ways[i]);
        scene_init_topic(&scene, "{\"shards\":1}", NULL);
        run_silently(&scene, WORDS("pub", "t"), "1\n2\n3\n4\n5\n");
        expect_out(&scene, WORDS("tail", "t", "s", "--ack", "--body", "-n", "2", way), "1\n2\n");
        expect_waiting(&scene, 3);
        expect_out(&scene, WORDS("tail", "t", "s", "--ack", "--body", "--idle", "100ms", way),
                   "3\n4\n5\n");
        expect_waiting(&scene, 0);
        scene_deinit(&scene);
    }
}

/* Without it they go back, to be delivered again at once. */
static void test_tail_gives_back_what_it_was_only_shown(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct scene scene;
        struct scene_message messages[4];
        const char *way = option_of(ways[i]);
        scene_init_topic(&scene, "{\"shards\":1}", NULL);
        run_silently(&scene, WORDS("pub", "t"), "1\n2\n3\n4\n");
        struct cli_outcome outcome =
            run(&scene, WORDS("tail", "t", "s", "-n", "3", "--json", way), NULL);
        unsigned count = 0;
        for (const char *at = cli_out(&outcome); (at = strstr(at, "\"receipt\"")) != NULL; at++) {
            count++;
        }
        assert_int_equal(count, 3);
        assert_int_equal(scene_pull(&scene.client, "{\"max\":10}", messages, 4), 4);
        cli_outcome_deinit(&outcome);
        scene_deinit(&scene);
    }
}

static void tail_start(struct process *process, const struct scene *scene, const char *way)
{
    char url[64];
    const char *program = getenv("FLARE");
    url_of(scene, url);
    process_start(process, &(struct process_options){
                               .arguments = WORDS(program != NULL ? program : "./flare", "tail",
                                                  "t", "s", "--ack", "--body", "--url", url, way)});
}

/* What is published while it runs is printed then; an interrupt ends it in order. */
static void test_tail_follows_until_it_is_interrupted(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct scene scene;
        struct process process;
        char line[64];
        scene_init_topic(&scene, NULL, NULL);
        tail_start(&process, &scene, option_of(ways[i]));
        for (int number = 0; number < 3; number++) {
            char body[16];
            (void)snprintf(body, sizeof body, "%d", number);
            scene_publish(&scene, "", body);
            assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
            assert_string_equal(line, body);
        }
        process_signal(&process, SIGINT);
        assert_int_equal(process_wait(&process, TIMEOUT_MS), 0);
        process_stop(&process);
        expect_waiting(&scene, 0);
        scene_deinit(&scene);
    }
}

/* A reader that has seen enough ends it; what it did not read is nobody's loss. */
static void test_tail_ends_with_its_reader(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct scene scene;
        struct process process;
        char line[64];
        char lines[LINES * 8] = "";
        int size = 0;
        scene_init_topic(&scene, "{\"shards\":1}", NULL);
        tail_start(&process, &scene, option_of(ways[i]));
        scene_publish(&scene, "", "first");
        assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
        (void)close(process.output);
        process.output = -1;
        for (int number = 0; number < LINES; number++) {
            size += snprintf(lines + size, sizeof lines - (size_t)size, "%d\n", number);
        }
        run_silently(&scene, WORDS("pub", "t"), lines);
        assert_int_equal(process_wait(&process, TIMEOUT_MS), 0);
        process_stop(&process);
        struct cli_outcome rest = run(
            &scene, WORDS("pull", "t", "s", "--ack", "--drain", "--body", "--wait", "1s"), NULL);
        unsigned count = 0;
        for (const char *at = cli_out(&rest); (at = strchr(at, '\n')) != NULL; at++) {
            count++;
        }
        assert_int_equal(count, LINES);
        cli_outcome_deinit(&rest);
        scene_deinit(&scene);
    }
}

/* It ends with an error when its subscription is deleted. */
static void test_tail_ends_with_its_subscription(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct scene scene;
        struct process process;
        char line[64];
        scene_init_topic(&scene, NULL, NULL);
        tail_start(&process, &scene, option_of(ways[i]));
        scene_publish(&scene, "", "first");
        assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
        scene_expect(&scene.client, 204, "DELETE", "/v1/topics/t/subscriptions/s", NULL);
        assert_int_equal(process_wait(&process, TIMEOUT_MS), 66);
        process_stop(&process);
        scene_deinit(&scene);
    }
}

/* The sum of a metric's values, its name with a space or brace behind it. */
static uint64_t metric(struct scene *scene, const char *name)
{
    uint64_t sum = 0;
    scene_expect(&scene->client, 200, "GET", "/metrics", NULL);
    for (const char *at = strstr(scene->client.body, name); at != NULL; at = strstr(at, name)) {
        at += strlen(name);
        if (*at == ' ' || *at == '{') {
            sum += strtoull(strchr(at, ' '), NULL, 10);
        }
    }
    return sum;
}

static void tail_start_with(struct process *process, const struct scene *scene,
                            const char *const *words)
{
    char url[64];
    const char *program = getenv("FLARE");
    const char *arguments[16] = {
        program != NULL ? program : "./flare", "tail", "t", "s", "--body", "--url", url};
    url_of(scene, url);
    for (size_t i = 0; words[i] != NULL; i++) {
        arguments[7 + i] = words[i];
    }
    process_start(process, &(struct process_options){.arguments = arguments});
}

/* What it only looks at stays leased for as long as it runs: it is neither printed again nor ends
 * as a dead letter. */
static void test_tail_holds_what_it_looks_at(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct scene scene;
        struct process process;
        char line[64];
        scene_init_topic(&scene, "{\"shards\":1}", "{\"max_attempts\":1}");
        tail_start_with(&process, &scene, WORDS("--lease", "2s", option_of(ways[i])));
        for (int number = 0; number < 3; number++) {
            scene_publish(&scene, "", "looked at");
            assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
        }
        for (int tries = 0; metric(&scene, "\nflare_leases_extended_total") < 15; tries++) {
            assert_true(tries < TIMEOUT_MS / 10);
            assert_int_equal(process_wait(&process, 10), -1);
        }
        scene_publish(&scene, "", "last");
        assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
        assert_string_equal(line, "last");
        process_signal(&process, SIGINT);
        assert_int_equal(process_wait(&process, TIMEOUT_MS), 0);
        process_stop(&process);
        scene_deinit(&scene);
    }
}

/* A slow reader is no silence: --idle ends it when all has been printed. */
static void test_tail_is_not_idle_while_it_prints(void **state)
{
    enum { COUNT = 20, SIZE = 100000 };
    struct scene scene;
    struct process process;
    static char body[SIZE + 1];
    size_t size = 0;
    (void)state;
    scene_init_topic(&scene, "{\"shards\":1}", NULL);
    memset(body, 'x', SIZE);
    for (int i = 0; i < COUNT; i++) {
        scene_publish(&scene, "", body);
    }
    tail_start_with(&process, &scene, WORDS("--ack", "--idle", "100ms"));
    do {
        assert_int_equal(process_wait(&process, 10), -1);
        scene_expect(&scene.client, 200, "GET", "/v1/topics/t/subscriptions/s", NULL);
    } while (scene_number(&scene.client, "delivery_queue.leased") < COUNT);
    assert_int_equal(process_wait(&process, 500), -1);
    for (ssize_t count = 1; count > 0; size += (size_t)count) {
        count = read(process.output, body, SIZE);
        assert_true(count >= 0);
    }
    assert_int_equal(size, COUNT * (SIZE + 1));
    assert_int_equal(process_wait(&process, TIMEOUT_MS), 0);
    process_stop(&process);
    expect_waiting(&scene, 0);
    scene_deinit(&scene);
}

/* Nor is a broker that is away: what it has to say is heard when it is back. */
static void test_tail_is_not_idle_without_a_broker(void **state)
{
    struct scene scene;
    struct process process;
    char line[64];
    char wire[64];
    (void)state;
    scene_init_topic(&scene, "{\"shards\":1}", NULL);
    (void)snprintf(wire, sizeof wire, "127.0.0.1:%u", scene.broker.wire_port);
    tail_start_with(&process, &scene, WORDS("--ack", "--idle", "1s", "--wire", wire));
    scene_publish(&scene, "", "before");
    assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    assert_int_equal(process_wait(&process, 2000), -1);
    scene_start(&scene, WORDS("--wire", wire));
    scene_publish(&scene, "", "after");
    assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
    assert_string_equal(line, "after");
    assert_int_equal(process_wait(&process, TIMEOUT_MS), 0);
    process_stop(&process);
    scene_deinit(&scene);
}

/* One that does not come back is an error, not an end. */
static void test_tail_gives_a_lost_broker_up(void **state)
{
    struct scene scene;
    struct process process;
    char line[64];
    (void)state;
    scene_init_topic(&scene, NULL, NULL);
    tail_start_with(&process, &scene, WORDS("--ack", "--idle", "1s", "--timeout", "2s"));
    scene_publish(&scene, "", "before");
    assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    assert_int_equal(process_wait(&process, TIMEOUT_MS), 75);
    process_stop(&process);
    scene_deinit(&scene);
}

/* What has come and is not printed goes back at once, not after the subscription's retry delay. */
static void test_tail_gives_back_without_delay(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct scene scene;
        struct process process;
        struct scene_message messages[LINES / 10];
        char line[64];
        char lines[LINES * 8] = "";
        int size = 0;
        scene_init_topic(&scene, "{\"shards\":1}", "{\"retry\":{\"delay\":\"1h\"}}");
        for (int number = 0; number < LINES / 10; number++) {
            size += snprintf(lines + size, sizeof lines - (size_t)size, "%d\n", number);
        }
        tail_start(&process, &scene, option_of(ways[i]));
        scene_publish(&scene, "", "first");
        assert_true(process_read_line(&process, line, sizeof line, TIMEOUT_MS));
        (void)close(process.output);
        process.output = -1;
        run_silently(&scene, WORDS("pub", "t"), lines);
        assert_int_equal(process_wait(&process, TIMEOUT_MS), 0);
        process_stop(&process);
        assert_int_equal(scene_pull(&scene.client, "{\"max\":1000}", messages, LINES / 10),
                         LINES / 10);
        scene_deinit(&scene);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways_show_the_same),
        cmocka_unit_test(test_lines_keep_their_order),
        cmocka_unit_test(test_a_trickle_is_not_held_back),
        cmocka_unit_test(test_errors_are_the_same),
        cmocka_unit_test(test_trace_shows_frames),
        cmocka_unit_test(test_the_way_is_found),
        cmocka_unit_test(test_tail_acknowledges_what_it_has_printed),
        cmocka_unit_test(test_tail_gives_back_what_it_was_only_shown),
        cmocka_unit_test(test_tail_follows_until_it_is_interrupted),
        cmocka_unit_test(test_tail_ends_with_its_reader),
        cmocka_unit_test(test_tail_ends_with_its_subscription),
        cmocka_unit_test(test_tail_holds_what_it_looks_at),
        cmocka_unit_test(test_tail_is_not_idle_while_it_prints),
        cmocka_unit_test(test_tail_is_not_idle_without_a_broker),
        cmocka_unit_test(test_tail_gives_a_lost_broker_up),
        cmocka_unit_test(test_tail_gives_back_without_delay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
