#define _GNU_SOURCE /* posix_openpt */
/* flare top against a real broker, in lines and on a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/cli.h"
#include "tests/lib/scene.h"

enum { SCREEN_MAX = 1 << 20, SCREEN_TIMEOUT_MS = 30000 };

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void url_of(const struct scene *scene, char out[64])
{
    (void)snprintf(out, 64, "http://127.0.0.1:%u", scene->broker.port);
}

static struct cli_outcome run(const struct scene *scene, const char *const *words)
{
    struct cli_outcome outcome;
    char url[64];
    url_of(scene, url);
    cli_run(url, words, NULL, &outcome);
    if (outcome.exit_code != 0) {
        fail_msg("flare %s exits with %d: %s", words[0], outcome.exit_code, outcome.err);
    }
    return outcome;
}

/* Two topics: ten messages for one subscription, of which two are leased and one is dead; nothing
 * in the other. */
static void set_up(struct scene *scene)
{
    scene_init(scene, NULL);
    scene_expect(&scene->client, 201, "PUT", "/v1/topics/orders", "{\"shards\":3}");
    scene_expect(&scene->client, 201, "PUT", "/v1/topics/orders/subscriptions/billing", NULL);
    scene_expect(&scene->client, 201, "PUT", "/v1/topics/empty", NULL);
    for (int i = 0; i < 10; i++) {
        scene_expect(&scene->client, 201, "POST", "/v1/topics/orders/messages", NULL);
    }
    struct cli_outcome pulled =
        run(scene, WORDS("pull", "orders", "billing", "-n", "3", "--plain"));
    char *receipt = (char *)pulled.out.data;
    for (int field = 0; field < 4; field++) {
        receipt = strchr(receipt, '\t') + 1;
    }
    receipt[strcspn(receipt, "\t")] = '\0';
    struct cli_outcome nacked = run(scene, WORDS("nack", "orders", "billing", receipt, "--reject"));
    cli_outcome_deinit(&pulled);
    cli_outcome_deinit(&nacked);
}

static void expect_row(const json_t *row, const char *name, json_int_t wanted)
{
    assert_true(json_is_integer(json_object_get(row, name)));
    assert_int_equal(json_integer_value(json_object_get(row, name)), wanted);
}

/* A document has the depths of each subscription, rates, and what the broker says of itself. */
static void test_a_document_has_depths_and_rates(void **state)
{
    struct scene scene;
    json_error_t where;
    (void)state;
    set_up(&scene);
    struct cli_outcome outcome =
        run(&scene, WORDS("top", "--once", "--interval", "100ms", "--json"));
    json_t *document = json_loads(cli_out(&outcome), 0, &where);
    assert_non_null(document);
    const json_t *rows = json_object_get(document, "rows");
    assert_int_equal(json_array_size(rows), 2);
    const json_t *row = json_array_get(rows, 0);
    assert_string_equal(json_string_value(json_object_get(row, "topic")), "orders");
    assert_string_equal(json_string_value(json_object_get(row, "subscription")), "billing");
    expect_row(row, "enqueued", 7);
    expect_row(row, "leased", 2);
    expect_row(row, "scheduled", 0);
    expect_row(row, "dead", 1);
    expect_row(row, "depth", 9);
    expect_row(row, "done", 1);
    expect_row(row, "published_rate", 0);
    expect_row(row, "done_rate", 0);
    assert_true(json_integer_value(json_object_get(row, "oldest_ms")) > 0);
    row = json_array_get(rows, 1);
    assert_string_equal(json_string_value(json_object_get(row, "topic")), "empty");
    assert_string_equal(json_string_value(json_object_get(row, "subscription")), "");
    const json_t *broker = json_object_get(document, "broker");
    expect_row(broker, "published_total", 10);
    expect_row(broker, "delivered_total", 3);
    expect_row(broker, "dead_lettered_total", 1);
    expect_row(broker, "topics", 2);
    assert_true(json_is_integer(json_object_get(broker, "commit_rate")));
    json_decref(document);
    cli_outcome_deinit(&outcome);
    scene_deinit(&scene);
}

/* Lines and tables come an interval each; one topic can be asked for, and few of many. */
static void test_what_is_watched_can_be_chosen(void **state)
{
    struct scene scene;
    (void)state;
    set_up(&scene);
    struct cli_outcome outcome =
        run(&scene, WORDS("top", "orders", "-n", "2", "--interval", "100ms", "--plain"));
    const char *line = strchr(cli_out(&outcome), '\t');
    assert_non_null(line);
    assert_memory_equal(line, "\torders\tbilling\t7\t2\t0\t1\t0\t0\t0\t", 28);
    line = strchr(line, '\n');
    assert_non_null(line);
    assert_non_null(strstr(line, "\torders\tbilling\t7\t2\t0\t1\t"));
    cli_outcome_deinit(&outcome);
    outcome = run(&scene, WORDS("top", "--once", "--interval", "100ms", "--limit", "1"));
    assert_non_null(strstr(cli_out(&outcome), "TOPIC   SUBSCRIPTION  ENQUEUED"));
    assert_non_null(strstr(cli_out(&outcome), "orders  billing              7       2"));
    assert_null(strstr(cli_out(&outcome), "empty"));
    assert_non_null(strstr(cli_out(&outcome), "and 0 more rows, 1 more topics\n"));
    assert_null(strchr(cli_out(&outcome), '\033'));
    cli_outcome_deinit(&outcome);
    char url[64];
    url_of(&scene, url);
    cli_run(url, WORDS("top", "nowhere", "--once"), NULL, &outcome);
    assert_int_equal(outcome.exit_code, 66);
    cli_outcome_deinit(&outcome);
    scene_deinit(&scene);
}

/* ---- on a terminal ---- */

struct screen {
    pid_t pid;
    int terminal;
    struct buf shown;
};

/* `option` may be NULL. */
static void screen_start(struct screen *screen, const struct scene *scene, const char *option)
{
    char url[64];
    struct winsize size = {.ws_row = 8, .ws_col = 100};
    const char *program = getenv("FLARE");
    url_of(scene, url);
    buf_init(&screen->shown, SCREEN_MAX);
    screen->terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(screen->terminal >= 0);
    assert_int_equal(grantpt(screen->terminal), 0);
    assert_int_equal(unlockpt(screen->terminal), 0);
    assert_int_equal(ioctl(screen->terminal, TIOCSWINSZ, &size), 0);
    const char *name = ptsname(screen->terminal);
    assert_non_null(name);
    screen->pid = fork();
    assert_true(screen->pid >= 0);
    if (screen->pid == 0) {
        (void)setsid();
        int other = open(name, O_RDWR);
        (void)dup2(other, STDIN_FILENO);
        (void)dup2(other, STDOUT_FILENO);
        (void)dup2(other, STDERR_FILENO);
        (void)execl(program != NULL ? program : "./flare", "flare", "--url", url, "top",
                    "--interval", "100ms", option, (char *)NULL);
        _exit(127);
    }
}

/* Reads until `text` has been shown so many times. */
static void screen_expect(struct screen *screen, const char *text, unsigned times)
{
    for (;;) {
        unsigned found = 0;
        struct pollfd ready = {.fd = screen->terminal, .events = POLLIN};
        buf_append_byte(&screen->shown, '\0');
        screen->shown.size--;
        const char *at = (const char *)screen->shown.data;
        while ((at = strstr(at, text)) != NULL) {
            found++;
            at++;
        }
        if (found >= times) {
            return;
        }
        if (poll(&ready, 1, SCREEN_TIMEOUT_MS) <= 0) {
            fail_msg("'%s' is not shown: %s", text, (const char *)screen->shown.data);
        }
        char bytes[4096];
        ssize_t size = read(screen->terminal, bytes, sizeof bytes);
        assert_true(size > 0);
        buf_append(&screen->shown, bytes, (size_t)size);
    }
}

static int screen_wait(struct screen *screen)
{
    int status = 0;
    assert_int_equal(waitpid(screen->pid, &status, 0), screen->pid);
    (void)close(screen->terminal);
    buf_deinit(&screen->shown);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define SCREEN_BEGIN "\033[?1049h\033[?25l\033[?7l"
#define SCREEN_END "\033[?7h\033[?25h\033[?1049l"

/* The screen is drawn again and again, no longer than it is; q gives the terminal back. */
static void test_a_screen_is_drawn_until_q(void **state)
{
    struct scene scene;
    struct screen screen;
    (void)state;
    set_up(&scene);
    for (int i = 0; i < 5; i++) {
        char path[64];
        (void)snprintf(path, sizeof path, "/v1/topics/orders/subscriptions/more-%d", i);
        scene_expect(&scene.client, 201, "PUT", path, NULL);
    }
    screen_start(&screen, &scene, NULL);
    screen_expect(&screen, SCREEN_BEGIN "\033[H\033[Jhttp://127.0.0.1:", 1);
    screen_expect(&screen, "published -/s", 1); /* depths at once, rates with the next look */
    screen_expect(&screen, "published 0/s", 2);
    screen_expect(&screen, "orders  billing", 3);
    screen_expect(&screen, "and 4 more rows, 0 more topics\033[H\033[J", 2);
    assert_int_equal(write(screen.terminal, "xq", 2), 2);
    screen_expect(&screen, SCREEN_END, 1);
    assert_int_equal(screen_wait(&screen), 0);
    scene_deinit(&scene);
}

/* Ctrl-C gives the terminal back too, and a broker that went away is waited for. */
static void test_a_screen_outlives_its_broker(void **state)
{
    struct scene scene;
    struct screen screen;
    (void)state;
    set_up(&scene);
    screen_start(&screen, &scene, NULL);
    screen_expect(&screen, "published 0/s", 1);
    broker_kill(&scene.broker);
    screen_expect(&screen, "trying again; q ends it", 2);
    assert_int_equal(kill(screen.pid, SIGINT), 0);
    screen_expect(&screen, SCREEN_END, 1);
    assert_int_equal(screen_wait(&screen), 0);
    scene_deinit(&scene);
}

/* What is printed once stays on the terminal. */
static void test_one_look_stays_on_the_terminal(void **state)
{
    struct scene scene;
    struct screen screen;
    (void)state;
    set_up(&scene);
    screen_start(&screen, &scene, "--once");
    screen_expect(&screen, "\r\nempty ", 1);
    assert_null(strstr((const char *)screen.shown.data, SCREEN_BEGIN));
    assert_null(strstr((const char *)screen.shown.data, "\033[H"));
    assert_int_equal(screen_wait(&screen), 0);
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_document_has_depths_and_rates),
        cmocka_unit_test(test_what_is_watched_can_be_chosen),
        cmocka_unit_test(test_a_screen_is_drawn_until_q),
        cmocka_unit_test(test_a_screen_outlives_its_broker),
        cmocka_unit_test(test_one_look_stays_on_the_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
