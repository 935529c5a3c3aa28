/* The docgen program on a copy of the reference page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "broker/base/buf.h"
#include "tests/lib/process.h"
#include "tests/lib/tmpdir.h"

enum { PAGE_MAX = 4 << 20, TIMEOUT_MS = 10000 };

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

static void read_page(const char *path, struct buf *out)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    buf_init(out, PAGE_MAX);
    char piece[4096];
    size_t size;
    while ((size = fread(piece, 1, sizeof piece, file)) > 0) {
        buf_append(out, piece, size);
    }
    assert_int_equal(fclose(file), 0);
    assert_false(out->failed);
    buf_append_byte(out, '\0');
    out->size--;
}

/* Its exit code; the first line it prints, or "". */
static int run(const char *option, char *line, size_t size)
{
    char errors[TMPDIR_PATH_SIZE];
    const char *arguments[] = {FLARE_BUILD_DIR "/docgen", option, tmpdir.path, NULL};
    if (option == NULL) {
        arguments[1] = tmpdir.path;
        arguments[2] = NULL;
    }
    const struct process_options options = {
        .arguments = arguments,
        .error_path = tmpdir_file(&tmpdir, "errors", errors),
    };
    struct process process;
    process_start(&process, &options);
    line[0] = '\0';
    (void)process_read_line(&process, line, size, TIMEOUT_MS);
    int status = process_wait(&process, TIMEOUT_MS);
    process_stop(&process);
    return status;
}

/* A stale section is named and left alone by --check, written anew without it, and then it is as
 * it was. */
static void a_stale_page_is_named_and_mended(void **state)
{
    (void)state;
    char line[1024];
    char path[TMPDIR_PATH_SIZE];
    struct buf page;
    struct buf spoilt;
    struct buf after;
    read_page(FLARE_SOURCE_DIR "/SPEC.md", &page);
    tmpdir_write(&tmpdir, "SPEC.md", page.data, page.size);
    assert_int_equal(run(NULL, line, sizeof line), 0);
    buf_deinit(&page);
    (void)tmpdir_file(&tmpdir, "SPEC.md", path);
    read_page(path, &page); /* fresh, whether or not the committed one is */
    assert_int_equal(run("--check", line, sizeof line), 0);
    assert_string_equal(line, "");

    read_page(path, &spoilt);
    char *row = strstr((char *)spoilt.data, "| `flare_pulls_waiting` |");
    assert_non_null(row);
    row[3] = 'F';
    tmpdir_write(&tmpdir, "SPEC.md", spoilt.data, spoilt.size);
    assert_int_equal(run("--check", line, sizeof line), 1);
    assert_non_null(strstr(line, "SPEC.md: section \"metrics\" is stale"));
    read_page(path, &after);
    assert_true(span_equal(buf_span(&after), buf_span(&spoilt)));
    buf_deinit(&after);
    assert_int_equal(run(NULL, line, sizeof line), 0);
    read_page(path, &after);
    assert_true(span_equal(buf_span(&after), buf_span(&page)));
    buf_deinit(&page);
    buf_deinit(&spoilt);
    buf_deinit(&after);
}

/* No page, or one without its sections, is an error, and an unknown option is not a directory. */
static void what_cannot_be_checked_fails(void **state)
{
    (void)state;
    char line[1024];
    assert_int_equal(run("--check", line, sizeof line), EX_DATAERR);
    tmpdir_write(&tmpdir, "SPEC.md", "# Nothing\n", 10);
    assert_int_equal(run("--check", line, sizeof line), EX_DATAERR);
    assert_int_equal(run("--chek", line, sizeof line), EX_USAGE);
}

/* Pages and completions are files under the names that man and the shells look for. */
static void pages_and_completions_are_written(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *begin;
    } files[] = {
        {"flare.1", ".TH \"FLARE\" \"1\""},
        {"flare-topic-put.1", ".TH \"FLARE\\-TOPIC\\-PUT\" \"1\""},
        {"flared.8", ".TH \"FLARED\" \"8\""},
        {"flare.bash", "# Completion of flare for bash"},
        {"_flare", "#compdef flare\n"},
        {"flare.fish", "# Completion of flare for fish"},
    };
    char line[1024];
    assert_int_equal(run("--man", line, sizeof line), 0);
    assert_int_equal(run("--completions", line, sizeof line), 0);
    assert_string_equal(line, "");
    for (size_t index = 0; index < sizeof files / sizeof files[0]; index++) {
        char path[TMPDIR_PATH_SIZE];
        struct buf text;
        read_page(tmpdir_file(&tmpdir, files[index].name, path), &text);
        assert_int_equal(
            strncmp((const char *)text.data, files[index].begin, strlen(files[index].begin)), 0);
        buf_deinit(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_stale_page_is_named_and_mended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_checked_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pages_and_completions_are_written, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
