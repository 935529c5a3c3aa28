/* What README's quick start and SPEC's examples tell people to type, typed: the shell blocks are
 * taken from the pages and run by a shell, with the address and the programs of this build put in.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/lib/scene.h"

enum { PAGE_MAX = 1 << 20, WORDS_MAX = 16, SCRIPT_TIMEOUT_MS = 120000, IMPORTED = 100000 };

static const char *in_environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value == NULL ? otherwise : value;
}

/* A page of the repository, terminated. */
static void read_page(const char *name, struct buf *out)
{
    char path[TMPDIR_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", in_environment("FLARE_SOURCE_DIR", ".."), name);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fail_msg("cannot read %s", path);
    }
    buf_init(out, PAGE_MAX);
    int character;
    while ((character = fgetc(file)) != EOF) {
        buf_append_byte(out, (uint8_t)character);
    }
    buf_append_byte(out, '\0');
    assert_false(out->failed);
    (void)fclose(file);
}

/* Appends `text` with every `from` replaced. */
static void append_replaced(struct buf *out, const char *text, const char *from, const char *to)
{
    const char *at;
    while ((at = strstr(text, from)) != NULL) {
        buf_append(out, text, (size_t)(at - text));
        buf_append_text(out, to);
        text = at + strlen(from);
    }
    buf_append_text(out, text);
}

/* Calls `take` for each line of the shell blocks between two places of a page. */
static void each_line(const char *begin, const char *end,
                      void (*take)(void *user, const char *line), void *user)
{
    bool inside = false;
    for (const char *at = begin; at < end; at = strchr(at, '\n') + 1) {
        char line[1024];
        size_t size = strcspn(at, "\n");
        assert_true(size < sizeof line);
        (void)snprintf(line, sizeof line, "%.*s", (int)size, at);
        if (strncmp(line, "```", 3) == 0) {
            inside = !inside && strcmp(line, "```sh") == 0;
        } else if (inside) {
            take(user, line);
        }
    }
}

/* ---- scripts ---- */

struct script {
    struct buf text;
    struct scene *scene;
    char flared[1024]; /* the line that starts the broker */
};

/* What stands before the lines of a page: every answer of curl is kept, and a failure ends it. */
static const char prelude[] =
    "set -euo pipefail\n"
    "curl() { command curl -sS --fail-with-body \"$@\" | tee answer; echo; }\n"
    "receipt() { sed -n 's/.*\"receipt\":\"\\([^\"]*\\)\".*/\\1/p' answer; }\n";

/* Building and starting is not the script's; what is to be filled in by hand is. */
static void take_line(void *user, const char *line)
{
    struct script *script = user;
    struct buf step[4];
    const char *text = line;
    char address[32];
    if (strncmp(line, "./tools/", 8) == 0 || strncmp(line, "cmake ", 6) == 0) {
        return;
    }
    if (strncmp(line, "build/flared ", 13) == 0) {
        (void)snprintf(script->flared, sizeof script->flared, "%s", line);
        return;
    }
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", script->scene->broker.port);
    const char *const replacements[4][2] = {
        {"127.0.0.1:8080", address},
        {"localhost:8080", address},
        {"build/flare ", "\"$FLARE\" "},
        {"<receipt of the message>", "'\"$(receipt)\"'"},
    };
    for (size_t i = 0; i < 4; i++) {
        buf_init(&step[i], PAGE_MAX);
        append_replaced(&step[i], text, replacements[i][0], replacements[i][1]);
        buf_append_byte(&step[i], '\0');
        text = (const char *)step[i].data;
    }
    buf_append_text(&script->text, text);
    buf_append_byte(&script->text, '\n');
    for (size_t i = 0; i < 4; i++) {
        buf_deinit(&step[i]);
    }
}

static void run_script(struct script *script)
{
    char path[TMPDIR_PATH_SIZE];
    char url[64];
    char flare[TMPDIR_PATH_SIZE];
    char *program = realpath(in_environment("FLARE", "./flare"), NULL);
    struct process shell;
    char line[PROCESS_LINE_SIZE];
    assert_non_null(program);
    (void)snprintf(url, sizeof url, "FLARE_URL=http://127.0.0.1:%u", script->scene->broker.port);
    (void)snprintf(flare, sizeof flare, "FLARE=%s", program);
    tmpdir_write(&script->scene->tmpdir, "script", script->text.data, script->text.size);
    tmpdir_file(&script->scene->tmpdir, "script", path);
    const char *const environment[] = {url, flare, NULL};
    const char *const arguments[] = {"bash", path, NULL};
    process_start(&shell,
                  &(struct process_options){.arguments = arguments, .environment = environment});
    process_close_input(&shell);
    struct buf output;
    buf_init(&output, PAGE_MAX);
    while (process_read_line(&shell, line, sizeof line, SCRIPT_TIMEOUT_MS)) {
        buf_append_text(&output, line);
        buf_append_byte(&output, '\n');
    }
    int status = process_wait(&shell, SCRIPT_TIMEOUT_MS);
    process_stop(&shell);
    if (status != 0) {
        fail_msg("the page's commands end with %d:\n%.*s\n%.*s", status, (int)script->text.size,
                 (const char *)script->text.data, (int)output.size, (const char *)output.data);
    }
    buf_deinit(&output);
    free(program);
}

static void script_init(struct script *script, struct scene *scene)
{
    *script = (struct script){.scene = scene};
    buf_init(&script->text, PAGE_MAX);
    buf_append_text(&script->text, prelude);
    buf_append_text(&script->text, "cd '");
    buf_append_text(&script->text, scene->tmpdir.path);
    buf_append_text(&script->text, "'\n");
}

/* The quick start's own command starts a broker: with another directory and port in the places of
 * those it names. */
static void check_start(const struct scene *scene, const char *line)
{
    char data[TMPDIR_PATH_SIZE];
    char words[1024];
    const char *arguments[WORDS_MAX] = {in_environment("FLARED", "./flared")};
    size_t count = 1;
    char *rest = NULL;
    struct process process;
    char ready[PROCESS_LINE_SIZE];
    tmpdir_file(&scene->tmpdir, "flare-data", data);
    (void)snprintf(words, sizeof words, "%s", line);
    (void)strtok_r(words, " ", &rest);
    for (char *word = strtok_r(NULL, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        assert_true(count + 1 < WORDS_MAX);
        arguments[count++] = strcmp(word, "./flare-data") == 0     ? data
                             : strcmp(word, "127.0.0.1:8080") == 0 ? "127.0.0.1:0"
                                                                   : word;
    }
    assert_true(count + 2 < WORDS_MAX);
    arguments[count++] = "--wire";
    arguments[count++] = "127.0.0.1:0";
    process_start(&process,
                  &(struct process_options){.arguments = arguments, .error_path = "/dev/null"});
    assert_true(process_read_line(&process, ready, sizeof ready, BROKER_TIMEOUT_MS));
    struct stat status;
    assert_int_equal(stat(data, &status), 0);
    process_stop(&process);
}

/* ---- pages ---- */

/* README: what is imported by its last examples comes out, each line once. */
static void check_import(const struct scene *scene)
{
    static bool seen[IMPORTED + 1];
    char path[TMPDIR_PATH_SIZE];
    unsigned number = 0;
    unsigned count = 0;
    FILE *file = fopen(tmpdir_file(&scene->tmpdir, "orders.txt", path), "r");
    assert_non_null(file);
    while (fscanf(file, "%u\n", &number) == 1) {
        assert_in_range(number, 1, IMPORTED);
        assert_false(seen[number]);
        seen[number] = true;
        count++;
    }
    (void)fclose(file);
    assert_int_equal(count, IMPORTED);
}

/* README's quick start works as written. */
static void test_quick_start(void **state)
{
    (void)state;
    struct scene scene;
    struct script script;
    struct buf page;
    scene_init(&scene, NULL);
    script_init(&script, &scene);
    read_page("README.md", &page);
    const char *begin = strstr((const char *)page.data, "\n## Quick start\n");
    assert_non_null(begin);
    const char *end = strstr(begin + 4, "\n## ");
    assert_non_null(end);
    /* The release preset builds the tests, so their packages are needed too. */
    const char *deps = strstr(begin, "\n./tools/deps build test\ncmake --preset release ");
    assert_true(deps != NULL && deps < end);
    each_line(begin + 1, end, take_line, &script);
    check_start(&scene, script.flared);
    run_script(&script);
    check_import(&scene);
    scene_expect(&scene.client, 200, "GET", "/v1/topics/orders/subscriptions/billing", NULL);
    assert_int_equal(scene_number(&scene.client, "enqueue_queue.depth"), 0);
    assert_int_equal(scene_number(&scene.client, "delivery_queue.leased"), 0);
    buf_deinit(&page);
    buf_deinit(&script.text);
    scene_deinit(&scene);
}

/* SPEC's examples work as written, in the order of the page; the subscription that they read from
 * is the one thing it leaves to the reader. */
static void test_spec_examples(void **state)
{
    (void)state;
    struct scene scene;
    struct script script;
    struct buf page;
    scene_init(&scene, NULL);
    scene_expect(&scene.client, 201, "PUT", "/v1/topics/orders", "{\"shards\":8}");
    scene_expect(&scene.client, 201, "PUT", "/v1/topics/orders/subscriptions/billing", NULL);
    script_init(&script, &scene);
    size_t before = script.text.size;
    read_page("SPEC.md", &page);
    each_line((const char *)page.data, (const char *)page.data + page.size - 1, take_line, &script);
    assert_true(script.text.size > before);
    run_script(&script);
    scene_expect(&scene.client, 200, "GET", "/v1/topics/orders/subscriptions/billing", NULL);
    assert_true(scene_number(&scene.client, "delivery_queue.leased") > 0);
    buf_deinit(&page);
    buf_deinit(&script.text);
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quick_start),
        cmocka_unit_test(test_spec_examples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
