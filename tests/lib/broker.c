#define _GNU_SOURCE
#include "tests/lib/broker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t broker_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

char *broker_log(const struct broker *broker)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = fopen(broker->log_path, "r");
    if (file == NULL || getdelim(&text, &size, '\0', file) < 0) {
        free(text);
        text = strdup("");
        assert_non_null(text);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return text;
}

static const char *program(void)
{
    const char *path = getenv("FLARED");
    return path != NULL ? path : "./flared"; /* tests run in the build directory */
}

void broker_launch(struct broker *broker, const struct broker_options *options)
{
    const char *arguments[BROKER_ARGUMENTS_MAX + 8];
    size_t count = 0;
    memset(broker, 0, sizeof *broker);
    broker->start_us = broker_now_us();
    tmpdir_init(&broker->tmpdir);
    tmpdir_file(&broker->tmpdir, "flared.log", broker->log_path);
    arguments[count++] = program();
    if (options->data == NULL) {
        arguments[count++] = "--ephemeral";
    } else {
        arguments[count++] = "--data";
        arguments[count++] = options->data;
    }
    arguments[count++] = "--http";
    arguments[count++] = "127.0.0.1:0";
    arguments[count++] = "--wire";
    arguments[count++] = "127.0.0.1:0";
    for (size_t i = 0; options->arguments != NULL && options->arguments[i] != NULL; i++) {
        assert_true(i < BROKER_ARGUMENTS_MAX);
        arguments[count++] = options->arguments[i];
    }
    arguments[count] = NULL;
    /* What an ephemeral broker could not remove, since it was killed, goes with our directory. */
    char tmpdir[TMPDIR_PATH_SIZE + 8];
    const char *environment[BROKER_ARGUMENTS_MAX + 2] = {tmpdir};
    (void)snprintf(tmpdir, sizeof tmpdir, "TMPDIR=%s", broker->tmpdir.path);
    for (size_t i = 0; options->environment != NULL && options->environment[i] != NULL; i++) {
        assert_true(i < BROKER_ARGUMENTS_MAX);
        environment[i + 1] = options->environment[i];
    }
    process_start(&broker->process, &(struct process_options){.arguments = arguments,
                                                              .environment = environment,
                                                              .error_path = broker->log_path});
}

/* Its end is part of the failure: it says why. */
static _Noreturn void fail_start(struct broker *broker)
{
    int status = process_wait(&broker->process, 1000);
    char *log = broker_log(broker);
    broker_stop(broker);
    print_error("flared did not come up (exit status %d):\n%s\n", status, log);
    free(log);
    fail();
    abort(); /* never reached: the compiler does not know cmocka */
}

void broker_await(struct broker *broker)
{
    char line[PROCESS_LINE_SIZE];
    if (!process_read_line(&broker->process, line, sizeof line, BROKER_TIMEOUT_MS)) {
        fail_start(broker);
    }
    broker->ready_us = broker_now_us() - broker->start_us;
    json_t *ready = json_loads(line, 0, NULL);
    const char *http = json_string_value(json_object_get(ready, "http"));
    const char *wire = json_string_value(json_object_get(ready, "wire"));
    const char *data = json_string_value(json_object_get(ready, "data"));
    const char *port = http == NULL ? NULL : strrchr(http, ':');
    const char *wire_port = wire == NULL ? NULL : strrchr(wire, ':');
    if (port == NULL || data == NULL || (wire != NULL && wire_port == NULL)) {
        fail_start(broker);
    }
    broker->port = (uint16_t)strtoul(port + 1, NULL, 10);
    broker->wire_port = wire == NULL ? 0 : (uint16_t)strtoul(wire_port + 1, NULL, 10);
    (void)snprintf(broker->data, sizeof broker->data, "%s", data);
    json_decref(ready);
}

void broker_start(struct broker *broker, const struct broker_options *options)
{
    broker_launch(broker, options);
    broker_await(broker);
}

int broker_refused(const struct broker_options *options, char *log, size_t size)
{
    struct broker broker;
    broker_launch(&broker, options);
    int status = process_wait(&broker.process, BROKER_TIMEOUT_MS);
    char *text = broker_log(&broker);
    (void)snprintf(log, size, "%s", text);
    free(text);
    broker_stop(&broker);
    return status;
}

int broker_terminate(struct broker *broker, uint64_t *took_us)
{
    uint64_t start_us = broker_now_us();
    process_signal(&broker->process, SIGTERM);
    int status = process_wait(&broker->process, BROKER_TIMEOUT_MS);
    if (took_us != NULL) {
        *took_us = broker_now_us() - start_us;
    }
    return status;
}

void broker_kill(struct broker *broker)
{
    process_signal(&broker->process, SIGKILL);
    assert_int_equal(process_wait(&broker->process, BROKER_TIMEOUT_MS), 128 + SIGKILL);
}

void broker_stop(struct broker *broker)
{
    process_stop(&broker->process);
    tmpdir_deinit(&broker->tmpdir);
}
