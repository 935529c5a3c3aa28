#define _GNU_SOURCE /* memmem */
/* The command-line tool against a real broker: what a user does in a day. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/cli.h"
#include "tests/lib/process.h"
#include "tests/lib/tmpdir.h"

enum { TIMEOUT_MS = 30000 };

struct broker {
    struct process process;
    struct tmpdir tmpdir;
    char url[128];
    char data[512];
};

/* Until it is ready: where it listens and what it keeps. */
static void await_ready(struct broker *broker)
{
    char line[PROCESS_LINE_SIZE];
    json_error_t where;
    assert_true(process_read_line(&broker->process, line, sizeof line, TIMEOUT_MS));
    json_t *ready = json_loads(line, 0, &where);
    assert_non_null(ready);
    (void)snprintf(broker->url, sizeof broker->url, "http://%s",
                   json_string_value(json_object_get(ready, "http")));
    (void)snprintf(broker->data, sizeof broker->data, "%s",
                   json_string_value(json_object_get(ready, "data")));
    json_decref(ready);
}

/* A broker of its own for each test, on a free port and a temporary directory. */
static int broker_start(void **state)
{
    struct broker *broker = calloc(1, sizeof *broker);
    const char *program = getenv("FLARED");
    assert_non_null(broker);
    tmpdir_init(&broker->tmpdir);
    const char *const arguments[] = {program != NULL ? program : "./flared",
                                     "--ephemeral",
                                     "--checkpoint-interval",
                                     "1m",
                                     "--log-level",
                                     "warn",
                                     NULL};
    process_start(&broker->process, &(struct process_options){.arguments = arguments});
    await_ready(broker);
    *state = broker;
    return 0;
}

static int broker_stop(void **state)
{
    struct broker *broker = *state;
    process_signal(&broker->process, SIGTERM);
    int exit_code = process_wait(&broker->process, TIMEOUT_MS);
    process_stop(&broker->process);
    tmpdir_deinit(&broker->tmpdir);
    free(broker);
    return exit_code;
}

/* Runs a command that must succeed; its output must be freed. */
static struct cli_outcome run(const struct broker *broker, const char *const *words,
                              const char *input)
{
    struct cli_outcome outcome;
    cli_run(broker->url, words, input, &outcome);
    if (outcome.exit_code != 0) {
        fail_msg("flare %s exits with %d: %s", words[0], outcome.exit_code, outcome.err);
    }
    return outcome;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void run_silently(const struct broker *broker, const char *const *words, const char *input)
{
    struct cli_outcome outcome = run(broker, words, input);
    cli_outcome_deinit(&outcome);
}

/* Runs a command with --json and looks at one number of its document. */
static void expect_number(const struct broker *broker, const char *const *words, const char *object,
                          const char *field, json_int_t wanted)
{
    struct cli_outcome outcome = run(broker, words, NULL);
    json_error_t where;
    json_t *document = json_loads(cli_out(&outcome), 0, &where);
    assert_non_null(document);
    const json_t *in = object == NULL ? document : json_object_get(document, object);
    assert_true(json_is_integer(json_object_get(in, field)));
    assert_int_equal(json_integer_value(json_object_get(in, field)), wanted);
    json_decref(document);
    cli_outcome_deinit(&outcome);
}

static void expect_text(const struct broker *broker, const char *const *words, const char *field,
                        const char *wanted)
{
    struct cli_outcome outcome = run(broker, words, NULL);
    json_error_t where;
    json_t *document = json_loads(cli_out(&outcome), 0, &where);
    assert_non_null(document);
    assert_string_equal(json_string_value(json_object_get(document, field)), wanted);
    json_decref(document);
    cli_outcome_deinit(&outcome);
}

static void set_up(const struct broker *broker)
{
    run_silently(broker, WORDS("topic", "put", "orders", "--shards", "8"), NULL);
    run_silently(broker, WORDS("sub", "put", "orders", "billing"), NULL);
}

/* Lines published come out again, each once, whatever bytes they hold; then nothing is left. */
static void test_lines_go_in_and_come_out(void **state)
{
    const struct broker *broker = *state;
    char lines[4096];
    bool seen[200] = {false};
    int size = 0;
    size_t count = 0;
    set_up(broker);
    for (int i = 0; i < 200; i++) {
        size += snprintf(lines + size, sizeof lines - (size_t)size, "%d \xff\n", i);
    }
    run_silently(broker, WORDS("pub", "orders", "--batch", "7"), lines);
    expect_number(broker, WORDS("sub", "get", "orders", "billing", "--json"), "enqueue_queue",
                  "depth", 200);
    struct cli_outcome outcome = run(
        broker, WORDS("pull", "orders", "billing", "--ack", "--drain", "--body", "-n", "33"), NULL);
    char *rest = (char *)outcome.out.data;
    for (char *line = strtok_r(rest, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *end = NULL;
        long number = strtol(line, &end, 10);
        assert_string_equal(end, " \xff");
        assert_in_range(number, 0, 199);
        assert_false(seen[number]);
        seen[number] = true;
        count++;
    }
    assert_int_equal(count, 200);
    cli_outcome_deinit(&outcome);
    expect_number(broker, WORDS("sub", "get", "orders", "billing", "--json"), "enqueue_queue",
                  "depth", 0);
    expect_number(broker, WORDS("sub", "get", "orders", "billing", "--json"), "delivery_queue",
                  "leased", 0);
}

/* A file published a second time under the same idempotency key adds nothing. */
static void test_publishing_a_file_again_adds_nothing(void **state)
{
    const struct broker *broker = *state;
    set_up(broker);
    for (int i = 0; i < 2; i++) {
        run_silently(broker, WORDS("pub", "orders", "--idempotency-key", "import"), "a\nb\nc\n");
    }
    expect_number(broker, WORDS("sub", "get", "orders", "billing", "--json"), "enqueue_queue",
                  "depth", 3);
}

/* What stands before a line that fails is published, and said to be. */
static void test_lines_before_a_bad_one_are_published(void **state)
{
    const struct broker *broker = *state;
    static const char *const ways[] = {"--plain", "--http"};
    set_up(broker);
    for (size_t i = 0; i < 2; i++) {
        struct cli_outcome outcome;
        cli_run(broker->url, WORDS("pub", "orders", "-K", ":", "--plain", ways[i]),
                "k:one\nl:two\nbad\nm:three\n", &outcome);
        assert_int_equal(outcome.exit_code, 65);
        assert_non_null(strstr(outcome.err, "line 3 has no ':'"));
        assert_non_null(strstr(outcome.err, "2 published"));
        const char *second = strchr(cli_out(&outcome), '\n');
        assert_non_null(second);
        assert_string_equal(strchr(second + 1, '\n'), "\n");
        cli_outcome_deinit(&outcome);
        outcome =
            run(broker, WORDS("pull", "orders", "billing", "--ack", "--drain", "--body"), NULL);
        assert_int_equal(strlen(cli_out(&outcome)), strlen("one\ntwo\n"));
        cli_outcome_deinit(&outcome);
    }
}

/* A rejected message is listed as dead with its note, and comes again after a redrive. */
static void test_dead_letters_are_listed_and_redriven(void **state)
{
    const struct broker *broker = *state;
    json_error_t where;
    set_up(broker);
    run_silently(broker, WORDS("pub", "orders", "one", "--key", "k", "--attr", "a=b"), NULL);
    struct cli_outcome pulled = run(broker, WORDS("pull", "orders", "billing", "--json"), NULL);
    json_t *message = json_loads(cli_out(&pulled), 0, &where);
    const char *receipt = json_string_value(json_object_get(message, "receipt"));
    assert_non_null(receipt);
    run_silently(
        broker,
        WORDS("nack", "orders", "billing", receipt, "--reject", "--reason", "no such customer"),
        NULL);
    struct cli_outcome dead = run(broker, WORDS("dead", "orders", "billing"), NULL);
    assert_non_null(strstr(cli_out(&dead), "rejected  no such customer"));
    expect_number(broker, WORDS("redrive", "orders", "billing", "--dry-run", "--json"), NULL,
                  "redriven", 1);
    expect_number(broker, WORDS("redrive", "orders", "billing", "--json"), NULL, "redriven", 1);
    expect_number(broker, WORDS("pull", "orders", "billing", "--json", "--ack"), NULL, "attempt",
                  1);
    struct cli_outcome lost;
    cli_run(broker->url, WORDS("ack", "orders", "billing", receipt), NULL, &lost);
    assert_int_equal(lost.exit_code, 65);
    json_decref(message);
    cli_outcome_deinit(&pulled);
    cli_outcome_deinit(&dead);
    cli_outcome_deinit(&lost);
}

/* Pausing stops deliveries, seeking and purging move what is enqueued. */
static void test_a_subscription_can_be_steered(void **state)
{
    const struct broker *broker = *state;
    set_up(broker);
    run_silently(broker, WORDS("pub", "orders"), "a\nb\nc\n");
    run_silently(broker, WORDS("sub", "pause", "orders", "billing"), NULL);
    struct cli_outcome paused = run(broker, WORDS("pull", "orders", "billing", "--plain"), NULL);
    assert_string_equal(cli_out(&paused), "");
    assert_non_null(strstr(paused.err, "no message"));
    run_silently(broker, WORDS("sub", "resume", "orders", "billing"), NULL);
    expect_number(
        broker, WORDS("sub", "seek", "orders", "billing", "--to", "latest", "--dry-run", "--json"),
        NULL, "moved", 3);
    expect_number(broker, WORDS("sub", "purge", "orders", "billing", "--yes", "--json"), NULL,
                  "purged", 3);
    cli_outcome_deinit(&paused);
}

/* The job ends with nothing missing or doubled, and says so; a topic that exists is refused. */
static void test_the_job_checks_every_record(void **state)
{
    const struct broker *broker = *state;
    static const char records[] = "Package: a\nSource: x\n\nPackage: b\nSource: x (1.0)\n\n\n"
                                  "Package: c\nDescription: \xc3\xa4\n long\n";
    char path[TMPDIR_PATH_SIZE];
    tmpdir_write(&broker->tmpdir, "status", records, sizeof records - 1);
    const char *file = tmpdir_file(&broker->tmpdir, "status", path);
    expect_number(broker, WORDS("job", "packages", "--file", file, "--paragraphs", "--json"), NULL,
                  "records", 3);
    struct cli_outcome again;
    cli_run(broker->url, WORDS("job", "packages", "--file", file), NULL, &again);
    assert_int_equal(again.exit_code, 65);
    cli_outcome_deinit(&again);
    expect_text(broker, WORDS("job", "wire", "--file", file, "--json"), "transport", "wire");
    expect_text(broker, WORDS("job", "http", "--file", file, "--http", "--json"), "transport",
                "http");
    struct cli_outcome keys = run(broker, WORDS("shard", "ls", "packages", "--plain"), NULL);
    assert_non_null(strstr(cli_out(&keys), "audit"));
    cli_outcome_deinit(&keys);
}

/* The catalog is copied after the volumes: it must know every id they use, or it would give one out
 * again. */
static void test_a_backup_takes_the_catalog_last(void **state)
{
    const struct broker *broker = *state;
    char copy[TMPDIR_PATH_SIZE];
    char path[TMPDIR_PATH_SIZE];
    struct stat catalog;
    struct stat volume;
    set_up(broker);
    const char *target = tmpdir_file(&broker->tmpdir, "copy", copy);
    run_silently(broker, WORDS("backup", target, "--data", broker->data), NULL);
    assert_int_equal(stat(tmpdir_file(&broker->tmpdir, "copy/catalog.mdb", path), &catalog), 0);
    for (int number = 0; number < 2; number++) {
        char name[32];
        (void)snprintf(name, sizeof name, "copy/volume-%d.mdb", number);
        assert_int_equal(stat(tmpdir_file(&broker->tmpdir, name, path), &volume), 0);
        assert_true(volume.st_mtim.tv_sec < catalog.st_mtim.tv_sec ||
                    (volume.st_mtim.tv_sec == catalog.st_mtim.tv_sec &&
                     volume.st_mtim.tv_nsec <= catalog.st_mtim.tv_nsec));
    }
}

/* A copy made while the broker runs verifies, and a broker started on it has every message. */
static void test_a_backup_opens_as_a_data_directory(void **state)
{
    const struct broker *broker = *state;
    struct broker second = {0};
    char path[TMPDIR_PATH_SIZE];
    const char *program = getenv("FLARED");
    set_up(broker);
    run_silently(broker, WORDS("pub", "orders"), "a\nb\nc\n");
    const char *target = tmpdir_file(&broker->tmpdir, "copy", path);
    run_silently(broker, WORDS("backup", target, "--data", broker->data), NULL);
    run_silently(broker, WORDS("verify", "--data", target), NULL);
    struct cli_outcome inspected = run(broker, WORDS("inspect", "--data", target, "--plain"), NULL);
    assert_non_null(strstr(cli_out(&inspected), "orders"));
    cli_outcome_deinit(&inspected);
    process_start(&second.process, &(struct process_options){
                                       .arguments = WORDS(program != NULL ? program : "./flared",
                                                          "--data", target, "--http", "127.0.0.1:0",
                                                          "--wire", "off", "--log-level", "warn")});
    await_ready(&second);
    run_silently(&second, WORDS("status", "--wait", "20s"), NULL);
    expect_number(&second, WORDS("sub", "get", "orders", "billing", "--json"), "enqueue_queue",
                  "depth", 3);
    struct cli_outcome exists;
    cli_run(broker->url, WORDS("backup", target, "--data", broker->data), NULL, &exists);
    assert_int_equal(exists.exit_code, 65);
    cli_outcome_deinit(&exists);
    process_stop(&second.process);
}

/* Changes one byte after the first place where `text` stands in the file; false when it does not.
 */
static bool damage(const char *path, const char *text)
{
    FILE *file = fopen(path, "r+be");
    assert_non_null(file);
    char *bytes = malloc(1 << 24);
    assert_non_null(bytes);
    size_t size = fread(bytes, 1, 1 << 24, file);
    char *at = memmem(bytes, size, text, strlen(text));
    if (at != NULL) {
        assert_int_equal(fseek(file, at - bytes, SEEK_SET), 0);
        assert_int_equal(fputc(*at ^ 1, file), *at ^ 1);
    }
    assert_int_equal(fclose(file), 0);
    free(bytes);
    return at != NULL;
}

/* A changed bit in a stored body is found and named; a directory in use is not looked at. */
static void test_verify_finds_a_changed_bit(void **state)
{
    const struct broker *broker = *state;
    struct cli_outcome outcome;
    char copy[TMPDIR_PATH_SIZE];
    char path[TMPDIR_PATH_SIZE];
    set_up(broker);
    run_silently(broker, WORDS("pub", "orders", "a body to be found again"), NULL);
    /* What configures is committed, and what was in the journals with it. */
    run_silently(broker, WORDS("sub", "put", "orders", "shipping"), NULL);
    cli_run(broker->url, WORDS("verify", "--data", broker->data), NULL, &outcome);
    assert_int_equal(outcome.exit_code, 75);
    cli_outcome_deinit(&outcome);
    const char *target = tmpdir_file(&broker->tmpdir, "copy", copy);
    run_silently(broker, WORDS("backup", target, "--data", broker->data), NULL);
    run_silently(broker, WORDS("verify", "--data", target), NULL);
    bool damaged = damage(tmpdir_file(&broker->tmpdir, "copy/volume-0.mdb", path), "a body to") ||
                   damage(tmpdir_file(&broker->tmpdir, "copy/volume-1.mdb", path), "a body to");
    assert_true(damaged);
    cli_run(broker->url, WORDS("verify", "--data", target), NULL, &outcome);
    assert_int_equal(outcome.exit_code, 65);
    assert_non_null(strstr(cli_out(&outcome), "fails its checksum"));
    cli_outcome_deinit(&outcome);
}

/* A topic is put with a durability, shows it, says it of what is published, and goes back to the
 * default when it is put without. */
static void test_topics_have_a_durability(void **state)
{
    const struct broker *broker = *state;
    struct cli_outcome outcome;
    expect_text(broker, WORDS("topic", "put", "clicks", "--durability", "relaxed", "--json"),
                "durability", "relaxed");
    expect_text(broker, WORDS("topic", "get", "clicks", "--json"), "durability", "relaxed");
    expect_text(broker, WORDS("pub", "clicks", "one", "--json"), "durability", "relaxed");
    outcome = run(broker, WORDS("topic", "ls"), NULL);
    assert_non_null(strstr(cli_out(&outcome), "DURABILITY"));
    assert_non_null(strstr(cli_out(&outcome), "relaxed"));
    cli_outcome_deinit(&outcome);
    cli_run(broker->url, WORDS("topic", "put", "clicks", "--durability", "lax"), NULL, &outcome);
    assert_int_equal(outcome.exit_code, 64);
    cli_outcome_deinit(&outcome);
    expect_text(broker, WORDS("topic", "put", "clicks", "--json"), "durability", "synced");
    expect_text(broker, WORDS("pub", "clicks", "two", "--json"), "durability", "synced");
}

/* A benchmark deletes its topic. */
static void expect_nothing_left(const struct broker *broker)
{
    struct cli_outcome topics = run(broker, WORDS("topic", "ls", "--plain"), NULL);
    assert_string_equal(cli_out(&topics), "");
    cli_outcome_deinit(&topics);
}

/* A changed bit in a journal, before something that was confirmed later, is found too: by verify,
 * and by a broker, which does not start without what is missing. */
static void test_verify_finds_a_damaged_journal(void **state)
{
    const struct broker *broker = *state;
    struct cli_outcome outcome;
    char copy[TMPDIR_PATH_SIZE];
    char path[TMPDIR_PATH_SIZE];
    set_up(broker);
    for (int i = 0; i < 3; i++) {
        run_silently(broker, WORDS("pub", "orders", "--key", "one", "the first and others"), NULL);
    }
    const char *target = tmpdir_file(&broker->tmpdir, "copy", copy);
    run_silently(broker, WORDS("backup", target, "--data", broker->data), NULL);
    run_silently(broker, WORDS("verify", "--data", target), NULL);
    outcome = run(broker, WORDS("inspect", "--data", target, "--json"), NULL);
    assert_non_null(strstr(cli_out(&outcome), "\"journal_commands\":3"));
    cli_outcome_deinit(&outcome);
    bool damaged =
        damage(tmpdir_file(&broker->tmpdir, "copy/volume-0.journal", path), "the first and") ||
        damage(tmpdir_file(&broker->tmpdir, "copy/volume-1.journal", path), "the first and");
    assert_true(damaged);
    cli_run(broker->url, WORDS("verify", "--data", target), NULL, &outcome);
    assert_int_equal(outcome.exit_code, 65);
    assert_non_null(strstr(cli_out(&outcome), "what was confirmed is missing"));
    cli_outcome_deinit(&outcome);
}

/* Each benchmark counts what arrives, and says what it measured. */
static void test_benchmarks_measure_and_check(void **state)
{
    const struct broker *broker = *state;
    expect_number(broker,
                  WORDS("bench", "publish", "--connections", "8", "--count", "200", "--size", "64"),
                  NULL, "count", 200);
    expect_number(broker,
                  WORDS("bench", "publish", "--connections", "2", "--count", "1000", "--batch",
                        "100", "--backlog", "500"),
                  NULL, "count", 1000);
    expect_number(
        broker, WORDS("bench", "consume", "--connections", "3", "--count", "1000", "--batch", "37"),
        NULL, "count", 1000);
    expect_number(broker,
                  WORDS("bench", "core", "--count", "300000", "--batch", "300", "--shards", "3",
                        "--volumes", "2", "--random-acks", "--in-flight", "500"),
                  NULL, "volumes", 2);
    expect_text(broker, WORDS("bench", "publish", "--count", "200", "--durability", "relaxed"),
                "durability", "relaxed");
    expect_text(broker, WORDS("bench", "consume", "--count", "200"), "durability", "synced");
    expect_nothing_left(broker);
}

/* Over the wire with a window of requests and with a credit stream, or by pulls; over HTTP when it
 * is asked for, where there is no window. The result says which. */
static void test_benchmarks_say_how_they_measured(void **state)
{
    const struct broker *broker = *state;
    static const struct {
        const char *words[12];
        const char *transport;
    } rows[] = {
        {{"bench", "publish", "-n", "3000", "-c", "2", "--outstanding", "100", "-s", "10"}, "wire"},
        {{"bench", "publish", "-n", "3000", "-c", "2", "-o", "3", "--batch", "100"}, "wire"},
        {{"bench", "consume", "-n", "3001", "-c", "3", "-o", "7", "--batch", "5"}, "wire"},
        {{"bench", "consume", "-n", "3001", "-c", "2", "--backlog", "1000"}, "wire"},
        {{"bench", "consume", "-n", "1001", "-c", "2", "--pull", "--batch", "100"}, "wire"},
        {{"bench", "publish", "-n", "3000", "-c", "2", "-o", "10", "--library"}, "libflare"},
        {{"bench", "publish", "-n", "3000", "--library", "--batch", "7"}, "libflare"},
        {{"bench", "consume", "-n", "3001", "-c", "3", "-o", "50", "--library"}, "libflare"},
        {{"bench", "publish", "-n", "300", "-c", "3", "--http"}, "http"},
        {{"bench", "consume", "-n", "300", "-c", "3", "--http"}, "http"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        expect_text(broker, rows[i].words, "transport", rows[i].transport);
    }
    expect_number(broker, WORDS("bench", "consume", "-n", "100", "--pull"), NULL, "outstanding", 1);
    static const char *const refused[][8] = {
        {"bench", "publish", "--http", "-o", "2"},
        {"bench", "consume", "--http", "--library"},
        {"bench", "consume", "--library", "--pull"},
        {"bench", "consume", "--pull", "-o", "2"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct cli_outcome outcome;
        cli_run(broker->url, refused[i], NULL, &outcome);
        assert_int_equal(outcome.exit_code, 64);
        cli_outcome_deinit(&outcome);
    }
    expect_nothing_left(broker);
}

/* A stream whose deliveries fill what the broker will hold for a client goes on as they are read.
 */
static void test_a_stream_of_much_goes_on(void **state)
{
    const struct broker *broker = *state;
    expect_text(broker,
                WORDS("bench", "consume", "-n", "6000", "-c", "2", "-o", "2000", "-s", "1024"),
                "transport", "wire");
    expect_text(broker, WORDS("bench", "consume", "-n", "100", "-c", "2", "-s", "300000"),
                "transport", "wire");
}

#define BROKER_TEST(name) cmocka_unit_test_setup_teardown(name, broker_start, broker_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BROKER_TEST(test_lines_go_in_and_come_out),
        BROKER_TEST(test_publishing_a_file_again_adds_nothing),
        BROKER_TEST(test_lines_before_a_bad_one_are_published),
        BROKER_TEST(test_dead_letters_are_listed_and_redriven),
        BROKER_TEST(test_a_subscription_can_be_steered),
        BROKER_TEST(test_the_job_checks_every_record),
        BROKER_TEST(test_a_backup_takes_the_catalog_last),
        BROKER_TEST(test_a_backup_opens_as_a_data_directory),
        BROKER_TEST(test_verify_finds_a_changed_bit),
        BROKER_TEST(test_topics_have_a_durability),
        BROKER_TEST(test_verify_finds_a_damaged_journal),
        BROKER_TEST(test_benchmarks_measure_and_check),
        BROKER_TEST(test_benchmarks_say_how_they_measured),
        BROKER_TEST(test_a_stream_of_much_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
