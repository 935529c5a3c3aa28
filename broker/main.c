/* flared: options -> config -> node -> exit code. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "broker/base/log.h"
#include "broker/base/version.h"
#include "broker/node.h"

extern char **environ;

struct program {
    uv_loop_t *loop;
    struct node *node;
    uv_signal_t terminate;
    uv_signal_t interrupt;
    bool stopping;
};

static void print_help(void)
{
    struct buf help;
    buf_init(&help, CONFIG_OUTPUT_MAX);
    config_print_help(&help);
    printf("usage: flared [--name VALUE]...\n"
           "Runs the Flare broker on one data directory until SIGTERM or Ctrl-C.\n\n"
           "  flared --data ./flare-data --http 127.0.0.1:8080\n"
           "  flared --ephemeral\n\n%.*s",
           (int)help.size, (const char *)help.data);
    buf_deinit(&help);
}

static int exit_code(enum err_code code)
{
    switch (code) { /* NOLINT(clang-diagnostic-switch-enum): what is not listed is the broker's own
                       fault */
    case ERR_INVALID:
        return EX_USAGE;
    case ERR_LOCKED:
        return EX_TEMPFAIL;
    case ERR_IO:
        return EX_IOERR;
    case ERR_CORRUPT:
    case ERR_FORMAT:
        return EX_DATAERR;
    default:
        return EX_SOFTWARE;
    }
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
    uv_close((uv_handle_t *)&program->terminate, NULL);
    uv_close((uv_handle_t *)&program->interrupt, NULL);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct program *program = handle->data;
    if (!program->stopping) {
        program->stopping = true;
        LOG_INFO("stopping", LOG_U64("signal", (uint64_t)number));
        node_stop(program->node, on_stopped, program);
    }
}

static void announce(const struct program *program, const struct config *config)
{
    LOG_INFO("flared started", LOG_TEXT("version", FLARE_VERSION),
             LOG_TEXT("http", node_http_address(program->node)),
             LOG_TEXT("data", node_data(program->node)), LOG_U64("pid", (uint64_t)getpid()));
    if (config->ephemeral) {
        printf("{\"http\":\"%s\",\"data\":\"%s\",\"pid\":%ld}\n", node_http_address(program->node),
               node_data(program->node), (long)getpid());
        fflush(stdout);
    }
}

static int run(const struct config *config)
{
    struct clock clock;
    uv_loop_t loop;
    struct program program = {.loop = &loop};
    clock_init_real(&clock);
    signal(SIGPIPE, SIG_IGN);
    if (uv_loop_init(&loop) != 0) {
        fprintf(stderr, "flared: no event loop\n");
        return EX_OSERR;
    }
    err_t err = node_start(&loop, config, &clock, &program.node);
    if (err == NULL) {
        uv_signal_init(&loop, &program.terminate);
        uv_signal_init(&loop, &program.interrupt);
        program.terminate.data = program.interrupt.data = &program;
        uv_signal_start(&program.terminate, on_signal, SIGTERM);
        uv_signal_start(&program.interrupt, on_signal, SIGINT);
        announce(&program, config);
        uv_run(&loop, UV_RUN_DEFAULT);
        LOG_INFO("stopped");
    }
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
