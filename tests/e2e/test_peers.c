/* tools/bench/peers: its help, its plots, a real run of it against Flare, and that it fails when
 * its driver says that messages were lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/base/buf.h"
#include "tests/lib/process.h"
#include "tests/lib/tmpdir.h"

#define STREAMS FLARE_SOURCE_DIR "/tools/bench/streams"
#define PEERS FLARE_SOURCE_DIR "/tools/bench/peers"

enum { TIMEOUT_MS = 60000, TEXT_MAX = 1 << 20, LINE_SIZE = 4096 };

static struct tmpdir tmpdir;

static int set_up(void **state)
{
    (void)state;
    tmpdir_init(&tmpdir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tmpdir_deinit(&tmpdir);
    return 0;
}

/* Its exit code; all it printed in `out`, terminated. Its words go to a file of the directory. */
static int run(const char *const *arguments, const char *const *environment, struct buf *out)
{
    char path[TMPDIR_PATH_SIZE];
    char line[LINE_SIZE];
    const struct process_options options = {
        .arguments = arguments,
        .environment = environment,
        .error_path = tmpdir_file(&tmpdir, "errors", path),
    };
    struct process process;
    process_start(&process, &options);
    buf_init(out, TEXT_MAX);
    while (process_read_line(&process, line, sizeof line, TIMEOUT_MS)) {
        buf_append_text(out, line);
        buf_append_byte(out, '\n');
    }
    int code = process_wait(&process, TIMEOUT_MS);
    process_stop(&process);
    buf_append_byte(out, '\0');
    return code;
}

static void read_file(const char *name, struct buf *out)
{
    char path[TMPDIR_PATH_SIZE];
    char piece[LINE_SIZE];
    size_t size;
    FILE *file = fopen(tmpdir_file(&tmpdir, name, path), "rb");
    assert_non_null(file);
    buf_init(out, TEXT_MAX);
    while ((size = fread(piece, 1, sizeof piece, file)) > 0) {
        buf_append(out, piece, size);
    }
    assert_int_equal(fclose(file), 0);
    buf_append_byte(out, '\0');
}

static void assert_has(const struct buf *text, const char *words)
{
    if (strstr((const char *)text->data, words) == NULL) {
        fail_msg("\"%s\" is not in:\n%s", words, (const char *)text->data);
    }
}

/* The help says what there is, and the list names every server with what its confirmation means. */
static void help_and_list_say_what_there_is(void **state)
{
    static const char *const help[] = {PEERS, "--help", NULL};
    static const char *const list[] = {PEERS, "--list", NULL};
    static const char *const unknown[] = {PEERS, "--servers", "kafka", NULL};
    struct buf out;
    (void)state;
    assert_int_equal(run(help, NULL, &out), 0);
    assert_has(&out, "Flare beside its peers");
    buf_deinit(&out);
    assert_int_equal(run(list, NULL, &out), 0);
    assert_has(&out, "fsync: appendfsync always");
    assert_has(&out, "publish-4x256-128");
    buf_deinit(&out);
    assert_int_equal(run(unknown, NULL, &out), 1);
    buf_deinit(&out);
}

/* A plot is well-formed, has a bar for each value and none for a value that is missing, and on its
 * logarithmic axis bars of ratios 1, 10 and 100 grow by equal steps. */
static void plots_have_a_bar_for_each_value(void **state)
{
    static const char script[] =
        "import sys; sys.dont_write_bytecode = True\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import chart, xml.etree.ElementTree as tree\n"
        "groups = [('a & b', {'x': 1, 'y': 10}), ('c', {'x': 100})]\n"
        "root = tree.fromstring(chart.bar_chart('t', 'n', ['x', 'y'], groups))\n"
        "bar = str(chart.BAR)\n"
        "rects = [r for r in root if r.tag.endswith('rect') and r.get('height') == bar]\n"
        "widths = [float(r.get('width')) for r in rects]\n"
        "texts = [t.text for t in root if t.tag.endswith('text')]\n"
        "assert len(widths) == 3, widths\n"
        "assert abs((widths[2] - widths[1]) - (widths[1] - widths[0])) < 0.2, widths\n"
        "assert 'a & b' in texts and texts.count('-') == 1 and '100' in texts, texts\n"
        "print('drawn')\n";
    static const char *const arguments[] = {"python3", "-c", script,
                                            FLARE_SOURCE_DIR "/tools/bench", NULL};
    struct buf out;
    (void)state;
    assert_int_equal(run(arguments, NULL, &out), 0);
    assert_has(&out, "drawn");
    buf_deinit(&out);
}

/* A run of Flare alone, over its protocol and through its library, measures, finds every message,
 * and leaves results, a table and plots. */
static void a_run_counts_and_writes_its_results(void **state)
{
    char directory[TMPDIR_PATH_SIZE];
    const char *arguments[] = {PEERS,
                               "--servers",
                               "flare,libflare",
                               "--works",
                               "publish-4x256-128,consume-4x100-128,rate-5000",
                               "--rounds",
                               "1",
                               "--seconds",
                               "1",
                               "--count",
                               "2000",
                               "--output",
                               tmpdir_file(&tmpdir, "out", directory),
                               NULL};
    static const char *const environment[] = {"FLARE_BUILD_DIR=" FLARE_BUILD_DIR, NULL};
    struct buf out;
    struct buf text;
    (void)state;
    assert_int_equal(run(arguments, environment, &out), 0);
    assert_has(&out, "publish 128 B, 4 x 256");
    assert_has(&out, "goal not measured");
    buf_deinit(&out);
    read_file("out/results.json", &text);
    assert_has(&text, "\"consume-4x100-128\"");
    assert_has(&text, "\"server\": \"libflare\"");
    assert_has(&text, "\"miscounted\": []");
    assert_has(&text, "\"failures\": []");
    buf_deinit(&text);
    read_file("out/table.md", &text);
    assert_has(&text, "| at 5,000 msg/s 128 B, 4 + 4, end to end | flare | fsync |");
    buf_deinit(&text);
    read_file("out/fsync-rate.svg", &text);
    assert_has(&text, "</svg>");
    buf_deinit(&text);
}

/* A driver that says it lost a message fails the run, by name. */
static void a_lost_message_fails_the_run(void **state)
{
    static const char driver[] =
        "#!/bin/sh\n"
        "[ \"$2\" != list ] || { echo flare; exit 0; }\n"
        "echo '{\"next\": \"publish\"}'; read -r ignored\n"
        "echo '{\"stage\": \"publish\", \"messages\": 2, \"rate\": 9, \"driver_cpu_us\": 1}'\n"
        "echo '{\"stage\": \"count\", \"sent\": 2, \"lost\": 1, \"even\": false}'\n"
        "exit 1\n";
    char path[TMPDIR_PATH_SIZE];
    char output[TMPDIR_PATH_SIZE];
    char build[TMPDIR_PATH_SIZE + sizeof "FLARE_BUILD_DIR="];
    (void)state;
    tmpdir_write(&tmpdir, "flare-peers", driver, sizeof driver - 1);
    (void)tmpdir_file(&tmpdir, "flare-peers", path);
    assert_int_equal(chmod(path, 0700), 0);
    (void)snprintf(build, sizeof build, "FLARE_BUILD_DIR=%s", tmpdir.path);
    const char *environment[] = {build, NULL};
    const char *arguments[] = {PEERS,     "--servers",         "flare",
                               "--works", "publish-4x256-128", "--rounds",
                               "1",       "--output",          tmpdir_file(&tmpdir, "out", output),
                               NULL};
    struct buf text;
    assert_int_equal(run(arguments, environment, &text), 1);
    buf_deinit(&text);
    read_file("errors", &text);
    assert_has(&text, "flare, 4x256-128: MISCOUNTED");
    buf_deinit(&text);
    read_file("out/results.json", &text);
    assert_has(&text, "\"lost\": 1");
    buf_deinit(&text);
}

/* tools/bench/streams refuses a backlog that cannot fill its streams, for which it would wait. */
static void streams_need_a_backlog(void **state)
{
    static const char *const arguments[] = {STREAMS, "--streams", "10", "--backlog", "499", NULL};
    struct buf out;
    (void)state;
    assert_int_equal(run(arguments, NULL, &out), 2);
    buf_deinit(&out);
    read_file("errors", &out);
    assert_has(&out, "--backlog is at least 500");
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(help_and_list_say_what_there_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(plots_have_a_bar_for_each_value, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_run_counts_and_writes_its_results, set_up, tear_down),
        cmocka_unit_test_setup_teardown(streams_need_a_backlog, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lost_message_fails_the_run, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
