/* flared: options -> config -> node -> exit code. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "broker/base/log.h"
#include "broker/base/version.h"
#include "broker/http/json.h"
#include "broker/node.h"

extern char **environ;

enum { READY_LINE_MAX = 16 << 10 };

/* What asks the broker to stop: a supervisor, Ctrl-C, the end of the terminal. */
static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP};
enum { STOP_SIGNALS = sizeof stop_signals / sizeof stop_signals[0] };

struct program {
    uv_loop_t *loop;
    struct node *node; /* NULL: not started yet, or gone */
    uv_signal_t signals[STOP_SIGNALS];
    bool stopping;
};

static void print_help(void)
{
    struct buf help;
    buf_init(&help, CONFIG_OUTPUT_MAX);
    config_print_help(&help);
    printf("usage: flared [--name VALUE]...\n"
           "Runs the Flare broker on one data directory until SIGTERM, SIGHUP or Ctrl-C.\n\n"
           "  flared --data ./flare-data --http 127.0.0.1:8080\n"
           "  flared --ephemeral\n\n%.*s",
           (int)help.size, (const char *)help.data);
    buf_deinit(&help);
}

/* How to exit for an error; what is not listed is the broker's own fault. */
static const struct {
    enum err_code code;
    int status;
} exit_codes[] = {
    {ERR_INVALID, EX_USAGE},   {ERR_LOCKED, EX_TEMPFAIL}, {ERR_IO, EX_IOERR},
    {ERR_NO_SPACE, EX_IOERR},  {ERR_MAP_FULL, EX_IOERR},  {ERR_NOT_FOUND, EX_NOINPUT},
    {ERR_CORRUPT, EX_DATAERR}, {ERR_FORMAT, EX_DATAERR},
};

static int exit_code(enum err_code code)
{
    for (size_t index = 0; index < sizeof exit_codes / sizeof exit_codes[0]; index++) {
        if (exit_codes[index].code == code) {
            return exit_codes[index].status;
        }
    }
    return EX_SOFTWARE;
}

static int fail(err_t err)
{
    int code = exit_code(err_code(err));
    fprintf(stderr, "flared: %s\n", err_message(err));
    err_free(err);
    return code;
}

static void on_stopped(void *user)
{
    struct program *program = user;
    program->node = NULL;
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct program *program = handle->data;
    if (!program->stopping) {
        program->stopping = true;
        LOG_INFO("stopping", LOG_U64("signal", (uint64_t)number));
        if (program->node != NULL) {
            node_stop(program->node, on_stopped, program);
        }
    }
}

/* From before the start, so that one that comes in the middle of it leaves nothing behind. They do
 * not keep the loop running. One that is ignored, as under nohup, stays so. */
static void watch_signals(struct program *program)
{
    for (size_t index = 0; index < STOP_SIGNALS; index++) {
        struct sigaction action;
        uv_signal_t *handle = &program->signals[index];
        uv_signal_init(program->loop, handle);
        handle->data = program;
        bool ignored = sigaction(stop_signals[index], NULL, &action) == 0 &&
                       action.sa_handler == SIG_IGN && stop_signals[index] == SIGHUP;
        if (!ignored) {
            uv_signal_start(handle, on_signal, stop_signals[index]);
        }
        uv_unref((uv_handle_t *)handle);
    }
}

static void unwatch_signals(struct program *program)
{
    for (size_t index = 0; index < STOP_SIGNALS; index++) {
        uv_close((uv_handle_t *)&program->signals[index], NULL);
    }
    uv_run(program->loop, UV_RUN_DEFAULT);
}

/* Nothing for a face that does not listen. */
static void put_address(struct buf *line, const char *name, const char *address)
{
    if (address[0] != '\0') {
        buf_printf(line, "\"%s\":", name);
        json_put_string(line, span_text(address));
        buf_append_byte(line, ',');
    }
}

/* Who started it on a port or a directory of its choice must be told, in a form for programs. */
static void print_ready(const struct node *node)
{
    struct buf line;
    buf_init(&line, READY_LINE_MAX);
    buf_printf(&line, "{");
    put_address(&line, "http", node_http_address(node));
    put_address(&line, "wire", node_wire_address(node));
    buf_printf(&line, "\"data\":");
    json_put_string(&line, span_text(node_data(node)));
    buf_printf(&line, ",\"pid\":%ld}\n", (long)getpid());
    (void)fwrite(line.data, 1, line.size, stdout);
    (void)fflush(stdout);
    buf_deinit(&line);
}

static bool ends_with(const char *text, const char *end)
{
    size_t text_size = strlen(text);
    size_t end_size = strlen(end);
    return text_size >= end_size && strcmp(text + text_size - end_size, end) == 0;
}

static void announce(const struct program *program, const struct config *config)
{
    LOG_INFO("flared started", LOG_TEXT("version", FLARE_VERSION),
             LOG_TEXT("http", node_http_address(program->node)),
             LOG_TEXT("wire", node_wire_address(program->node)),
             LOG_TEXT("data", node_data(program->node)), LOG_U64("pid", (uint64_t)getpid()));
    if (config->ephemeral || ends_with(config->http, ":0") || ends_with(config->wire, ":0")) {
        print_ready(program->node);
    }
}

/* Each connection takes one; the soft limit is what a shell happens to have. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int run(const struct config *config)
{
    struct clock clock;
    uv_loop_t loop;
    struct program program = {.loop = &loop};
    clock_init_real(&clock);
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    if (uv_loop_init(&loop) != 0) {
        fprintf(stderr, "flared: no event loop\n");
        return EX_OSERR;
    }
    watch_signals(&program);
    err_t err = node_start(&loop, config, &clock, &program.node);
    if (err == NULL) {
        announce(&program, config);
        if (program.stopping) {
            node_stop(program.node, on_stopped, &program);
        }
        uv_run(&loop, UV_RUN_DEFAULT); /* until the node is gone */
        LOG_INFO("stopped");
    }
    unwatch_signals(&program);
    uv_loop_close(&loop);
    return err == NULL ? EX_OK : fail(err);
}

int main(int argc, char **argv)
{
    struct config config;
    enum config_request request = CONFIG_RUN;
    umask(077);
    err_t err = config_load(&config, argc, (const char *const *)argv, (const char *const *)environ,
                            &request);
    if (err != NULL) {
        return fail(err);
    }
    if (request == CONFIG_HELP) {
        print_help();
        return EX_OK;
    }
    if (request == CONFIG_VERSION) {
        printf("flared %s\n", FLARE_VERSION);
        return EX_OK;
    }
    log_init(STDERR_FILENO, config.log_format, config.log_level);
    return run(&config);
}
