/* flare top: depths, rates and ages of a broker, again and again. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "broker/base/clock.h"
#include "tools/flare/output.h"
#include "tools/flare/progress.h"
#include "tools/flare/top_sample.h"

enum { TOP_INTERVAL, TOP_ONCE, TOP_COUNT, TOP_SORT, TOP_LIMIT };
enum { INTERVAL_DEFAULT_MS = 2000, TOPICS_DEFAULT = 50, ROWS_FALLBACK = 24, HEADER_LINES = 5 };

static const struct option_row top_options[] = {
    [TOP_INTERVAL] = {.name = "interval",
                      .letter = 'i',
                      .kind = OPTION_DURATION,
                      .min = 100,
                      .max = 3600000,
                      .value = "TIME",
                      .help = "from one look to the next, and what rates are taken over; default "
                              "2s"},
    [TOP_ONCE] = {.name = "once",
                  .letter = '1',
                  .kind = OPTION_FLAG,
                  .help = "show one interval and end"},
    [TOP_COUNT] = {.name = "count",
                   .letter = 'n',
                   .kind = OPTION_NUMBER,
                   .min = 1,
                   .max = 1000000000,
                   .value = "N",
                   .help = "end after so many intervals"},
    [TOP_SORT] = {.name = "sort",
                  .letter = 's',
                  .kind = OPTION_CHOICE,
                  .value = "depth|oldest|rate|dead|name",
                  .help = "what comes first; default depth"},
    [TOP_LIMIT] = {.name = "limit",
                   .kind = OPTION_NUMBER,
                   .min = 1,
                   .max = 10000,
                   .value = "N",
                   .help = "topics to look at, those with the greatest backlog; default 50"},
    {.name = NULL},
};

static const struct field row_fields[] = {
    {"TOPIC", "topic", FIELD_TEXT},
    {"SUBSCRIPTION", "subscription", FIELD_TEXT},
    {"ENQUEUED", "enqueued", FIELD_NUMBER},
    {"LEASED", "leased", FIELD_NUMBER},
    {"SCHEDULED", "scheduled", FIELD_NUMBER},
    {"DEAD", "dead", FIELD_NUMBER},
    {"PUBLISHED/S", "published_rate", FIELD_NUMBER},
    {"DELIVERED/S", "delivered_rate", FIELD_NUMBER},
    {"DONE/S", "done_rate", FIELD_NUMBER},
    {"OLDEST", "oldest_ms", FIELD_DURATION},
    {.title = NULL},
};

/* With --plain each line says when it was. */
static const struct field plain_fields[] = {
    {"AT", "at", FIELD_TEXT},
    {"TOPIC", "topic", FIELD_TEXT},
    {"SUBSCRIPTION", "subscription", FIELD_TEXT},
    {"ENQUEUED", "enqueued", FIELD_NUMBER},
    {"LEASED", "leased", FIELD_NUMBER},
    {"SCHEDULED", "scheduled", FIELD_NUMBER},
    {"DEAD", "dead", FIELD_NUMBER},
    {"PUBLISHED/S", "published_rate", FIELD_NUMBER},
    {"DELIVERED/S", "delivered_rate", FIELD_NUMBER},
    {"DONE/S", "done_rate", FIELD_NUMBER},
    {"OLDEST", "oldest_ms", FIELD_DURATION},
    {.title = NULL},
};

struct top {
    struct cli *cli;
    const char *sort;
    uint64_t interval_ms;
    struct top_scope scope;
    struct top_sample before; /* zeroed: none */
    struct top_sample now;
    bool screen; /* standard output is a terminal, drawn over */
    bool keys;   /* standard input is one, whose keys are read as they come */
    struct termios terminal;
};

static volatile sig_atomic_t interrupted = 0;

static void top_on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* ---- the terminal ---- */

/* The other screen, without cursor and line wrap; and back. */
#define SCREEN_BEGIN "\033[?1049h\033[?25l\033[?7l"
#define SCREEN_HOME "\033[H\033[J"
#define SCREEN_END "\033[?7h\033[?25h\033[?1049l"

static void screen_begin(struct top *top)
{
    const struct sigaction action = {.sa_handler = top_on_signal};
    struct termios raw;
    if (!top->screen) {
        return;
    }
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    top->keys = tcgetattr(STDIN_FILENO, &top->terminal) == 0;
    if (top->keys) {
        raw = top->terminal;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    (void)fputs(SCREEN_BEGIN, stdout);
}

static void screen_end(const struct top *top)
{
    if (!top->screen) {
        return;
    }
    if (top->keys) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &top->terminal);
    }
    (void)fputs(SCREEN_END, stdout);
    (void)fflush(stdout);
}

static size_t screen_rows(void)
{
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
    return known ? size.ws_row : ROWS_FALLBACK;
}

/* Waits for the next look; false when it is not wanted: q, or a signal. */
static bool wait_interval(const struct top *top, uint64_t until_us)
{
    while (interrupted == 0) {
        uint64_t now_us = progress_now_us();
        char key = '\0';
        struct pollfd input = {.fd = top->keys ? STDIN_FILENO : -1, .events = POLLIN};
        if (now_us >= until_us) {
            return true;
        }
        int ready = poll(&input, 1, (int)((until_us - now_us + 999) / 1000));
        if (ready > 0 && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q')) {
            return false;
        }
    }
    return false;
}

/* ---- showing ---- */

static void append_rate(struct buf *line, const json_t *broker, const char *name, const char *title)
{
    const json_t *rate = json_object_get(broker, name);
    buf_printf(line, "  %s ", title);
    if (rate == NULL) {
        buf_append_byte(line, '-');
    } else {
        output_count(line, (uint64_t)json_integer_value(rate));
    }
    buf_append_text(line, "/s");
}

static void print_broker(const struct top *top, const json_t *broker)
{
    struct buf line;
    const char *version = json_string_value(json_object_get(broker, "version"));
    const char *state = json_string_value(json_object_get(broker, "state"));
    buf_init(&line, 4096);
    buf_printf(&line, "%s  version ", top->cli->url);
    output_visible(&line, span_text(version == NULL ? "" : version), 60);
    buf_append_text(&line, "  ");
    output_visible(&line, span_text(state == NULL ? "" : state), 20);
    buf_append_text(&line, " for ");
    output_duration(&line, (uint64_t)json_integer_value(json_object_get(broker, "uptime_ms")));
    buf_append_text(&line, "  connections ");
    output_count(&line, (uint64_t)json_integer_value(json_object_get(broker, "connections")));
    buf_append_text(&line, "\nbroker");
    append_rate(&line, broker, "published_rate", "published");
    append_rate(&line, broker, "delivered_rate", "delivered");
    append_rate(&line, broker, "acknowledged_rate", "acknowledged");
    append_rate(&line, broker, "dead_lettered_rate", "dead");
    append_rate(&line, broker, "commit_rate", "commits");
    (void)printf("%.*s\n\n", (int)line.size, (const char *)line.data);
    buf_deinit(&line);
}

/* As many rows as fit below the header; how many do not. */
static size_t cut_rows(const struct top *top, json_t *rows)
{
    size_t fit = top->screen ? screen_rows() : SIZE_MAX;
    fit = fit > HEADER_LINES ? fit - HEADER_LINES : 1;
    size_t left = 0;
    while (json_array_size(rows) > fit) {
        (void)json_array_remove(rows, json_array_size(rows) - 1);
        left++;
    }
    return left;
}

static void print_table(const struct top *top, const json_t *broker, json_t *rows)
{
    struct output output;
    (void)fputs(top->screen ? SCREEN_HOME : "", stdout);
    print_broker(top, broker);
    size_t left = cut_rows(top, rows);
    output_init(&output, top->cli, row_fields);
    output_items(&output, rows);
    if (left > 0 || top->now.topics_left > 0) {
        (void)printf("and %zu more rows, %llu more topics%s", left,
                     (unsigned long long)top->now.topics_left, top->screen ? "" : "\n");
    }
    (void)fputs(top->screen ? "" : "\n", stdout);
}

static void print_lines(const struct top *top, json_t *broker, json_t *rows)
{
    struct output output;
    char at[CLOCK_ISO_SIZE];
    struct clock clock;
    clock_init_real(&clock);
    clock_iso(clock_wall_ms(&clock), at);
    if (top->cli->format == CLI_JSON) {
        json_t *document = json_pack("{s:s, s:O, s:O, s:I}", "at", at, "broker", broker, "rows",
                                     rows, "topics_left", (json_int_t)top->now.topics_left);
        output_init(&output, top->cli, row_fields);
        output_item(&output, document);
        json_decref(document);
        return;
    }
    output_init(&output, top->cli, plain_fields);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        (void)json_object_set_new(json_array_get(rows, i), "at", json_string(at));
    }
    output_items(&output, rows);
}

static err_t show(const struct top *top)
{
    const struct top_sample *before = top->before.rows == NULL ? NULL : &top->before;
    json_t *broker = top_sample_broker(&top->now, before);
    json_t *rows = top_sample_rows(&top->now, before, top->sort);
    if (top->cli->format == CLI_TABLE) {
        print_table(top, broker, rows);
    } else {
        print_lines(top, broker, rows);
    }
    json_decref(broker);
    json_decref(rows);
    if (fflush(stdout) != 0) {
        return ERR(IO, "write to standard output: %s", strerror(errno));
    }
    return NULL;
}

/* The next look. On a screen a broker that does not answer is waited for, as a person would. */
static err_t look(struct top *top)
{
    top_sample_deinit(&top->before);
    top->before = top->now;
    top->now = (struct top_sample){0};
    err_t err = top_sample_take(top->cli->client, &top->scope, &top->now);
    if (err == NULL || !top->screen || client_printed(top->cli->client) ||
        (err_code(err) != ERR_UNAVAILABLE && err_code(err) != ERR_TIMEOUT)) {
        return err;
    }
    (void)printf(SCREEN_HOME "%s\n\ntrying again; q ends it\n", err_message(err));
    (void)fflush(stdout);
    err_free(err);
    return NULL;
}

/* A screen shows the depths at once; lines come when there are rates. */
static err_t top_loop(struct top *top, uint64_t count)
{
    uint64_t next_us = progress_now_us();
    TRY(look(top));
    if (top->screen && top->now.rows != NULL) {
        TRY(show(top));
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t now_us = progress_now_us();
        next_us += top->interval_ms * 1000;
        next_us = next_us < now_us ? now_us : next_us;
        if (!wait_interval(top, next_us)) {
            return NULL;
        }
        TRY(look(top));
        if (top->now.rows != NULL) {
            TRY(show(top));
        }
    }
    return NULL;
}

static err_t top_run(struct cli *cli, const struct arguments *arguments)
{
    const struct option_value *values = arguments->values;
    struct top top = {
        .cli = cli,
        .sort = values[TOP_SORT].set ? values[TOP_SORT].text : "depth",
        .interval_ms = arguments_number(arguments, TOP_INTERVAL, INTERVAL_DEFAULT_MS),
        .scope = {.topic = arguments->operand_count == 0 ? NULL : arguments->operands[0],
                  .topics_max = arguments_number(arguments, TOP_LIMIT, TOPICS_DEFAULT)}};
    uint64_t count = arguments_number(arguments, TOP_COUNT, UINT64_MAX);
    /* What is asked for a number of times is to stay, and the other screen does not. */
    top.screen = cli->format == CLI_TABLE && isatty(STDOUT_FILENO) != 0 && !values[TOP_ONCE].set &&
                 !values[TOP_COUNT].set;
    screen_begin(&top);
    err_t err = top_loop(&top, values[TOP_ONCE].set ? 1 : count);
    screen_end(&top);
    top_sample_deinit(&top.before);
    top_sample_deinit(&top.now);
    return err;
}

const struct cli_command top_commands[] = {
    {.name = "top",
     .operands = "[TOPIC]",
     .operands_max = 1,
     .summary = "Watch depths, rates and ages of topics and subscriptions",
     .details =
         "On a terminal the screen is drawn anew each interval until q or Ctrl-C. Otherwise, and\n"
         "with --once or --count, each interval is printed once it has passed: a table, with\n"
         "--plain a line for each subscription, with --json a document. DELIVERED/S counts\n"
         "messages leaving the enqueue queue, DONE/S those leaving the subscription:\n"
         "acknowledged, dead or dropped.",
     .examples = "  flare top\n"
                 "  flare top orders --sort oldest --interval 500ms\n"
                 "  flare top --once --json | jq .rows\n",
     .options = top_options,
     .run = top_run},
    {.name = NULL},
};
