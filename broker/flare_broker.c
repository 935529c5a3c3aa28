#include <flare/broker.h>

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "broker/datadir.h"
#include "broker/embedded.h"

/* What one volume in memory may hold unless told: a program's address space is not a disk. */
#define EMBEDDED_MEMORY_QUOTA (UINT64_C(1) << 30)

static void broker_on_look(uv_prepare_t *handle);
static void broker_on_stopped(void *user);

enum flare_code embedded_fail(struct flare_error *error, enum err_code code, const char *message)
{
    if (error != NULL) {
        error->code = (enum flare_code)code;
        snprintf(error->message, sizeof error->message, "%s",
                 message[0] == '\0' ? err_title(code) : message);
    }
    return (enum flare_code)code;
}

enum flare_code embedded_result(struct flare_error *error, err_t err)
{
    if (err == NULL) {
        return FLARE_OK;
    }
    enum flare_code code = embedded_fail(error, err_code(err), err_message(err));
    err_free(err);
    return code;
}

/* ---- options -------------------------------------------------------------------------------- */

static err_t set_text(struct config *config, size_t index, const char *text, const char *place)
{
    if (strchr(text, '\n') != NULL) {
        return ERR(INVALID, "%s: must be one line", place);
    }
    return config_set(config, index, span_text(text), place);
}

static err_t configure(struct config *config, const struct flare_broker_options *options)
{
    config_init(config);
    if (options->settings != NULL) {
        TRY(config_parse(config, span_text(options->settings), "settings"));
    }
    if (config->origins[CONFIG_AT_data] != CONFIG_DEFAULT ||
        config->origins[CONFIG_AT_http] != CONFIG_DEFAULT ||
        config->origins[CONFIG_AT_wire] != CONFIG_DEFAULT ||
        config->origins[CONFIG_AT_ephemeral] != CONFIG_DEFAULT) {
        return ERR(INVALID, "settings: data, http, wire and ephemeral are not set there");
    }
    TRY(set_text(config, CONFIG_AT_data, options->data == NULL ? DATADIR_MEMORY : options->data,
                 "data"));
    TRY(set_text(config, CONFIG_AT_http, options->http == NULL ? "off" : options->http, "http"));
    TRY(set_text(config, CONFIG_AT_wire, options->wire == NULL ? "off" : options->wire, "wire"));
    if (options->data == NULL && config->origins[CONFIG_AT_quota] == CONFIG_DEFAULT) {
        config->quota = EMBEDDED_MEMORY_QUOTA;
    }
    return config_check(config);
}

static void write_log(void *context, const char *line, size_t size)
{
    const struct flare_broker *broker = context;
    broker->log(broker->log_user, line, size);
}

static err_t set_log(struct flare_broker *broker, const struct flare_broker_options *options)
{
    static int stderr_fd = STDERR_FILENO;
    if (options->name != NULL) {
        broker->name = strdup(options->name);
        if (broker->name == NULL) {
            return ERR(MEMORY, "no memory for the broker's name");
        }
    }
    broker->log = options->log;
    broker->log_user = options->log_user;
    broker->sink.write = options->log == NULL ? log_write_fd : write_log;
    broker->sink.context = options->log == NULL ? (void *)&stderr_fd : broker;
    broker->sink.name = broker->name;
    broker->sink.format = broker->config.log_format;
    broker->sink.level = (int)broker->config.log_level;
    return NULL;
}

/* ---- the thread ----------------------------------------------------------------------------- */

static void *run(void *argument)
{
    struct flare_broker *broker = argument;
    log_bind(&broker->sink);
    err_t err = node_start(&broker->loop, &broker->config, &broker->clock, &broker->node);
    if (err == NULL) {
        int rc = uv_prepare_init(&broker->loop, &broker->look);
        assert(rc == 0); /* it only fills the struct */
        (void)rc;
        uv_prepare_start(&broker->look, broker_on_look);
        uv_unref((uv_handle_t *)&broker->look);
        LOG_INFO("broker opened", LOG_TEXT("data", node_data(broker->node)));
    }
    bool failed = err != NULL;
    pthread_mutex_lock(&broker->lock);
    broker->started = true;
    broker->start_err = err;
    pthread_cond_broadcast(&broker->changed);
    pthread_mutex_unlock(&broker->lock);
    if (!failed) {
        uv_run(&broker->loop, UV_RUN_DEFAULT); /* until the node is gone */
        uv_close((uv_handle_t *)&broker->look, NULL);
        LOG_INFO("broker closed");
    }
    caller_close(&broker->caller);
    uv_run(&broker->loop, UV_RUN_DEFAULT);
    return NULL;
}

/* Signals are the program's: none is delivered to a thread that does not expect it, and writing to
 * a client that has gone raises none. Those that a fault raises stay as they are. */
static err_t start_thread(struct flare_broker *broker)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t blocked;
    sigset_t before;
    sigfillset(&blocked);
    for (size_t index = 0; index < sizeof faults / sizeof faults[0]; index++) {
        sigdelset(&blocked, faults[index]);
    }
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int rc = pthread_create(&broker->thread, NULL, run, broker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        return ERR(MEMORY, "thread of the broker: %s", strerror(rc));
    }
    pthread_mutex_lock(&broker->lock);
    while (!broker->started) {
        pthread_cond_wait(&broker->changed, &broker->lock);
    }
    err_t err = broker->start_err;
    pthread_mutex_unlock(&broker->lock);
    if (err != NULL) {
        pthread_join(broker->thread, NULL);
    }
    return err;
}

/* ---- open and close ------------------------------------------------------------------------- */

static err_t init_locks(struct flare_broker *broker)
{
    /* A wall clock that is set back must not lengthen a wait. */
    pthread_condattr_t attributes;
    int rc = pthread_condattr_init(&attributes);
    if (rc == 0) {
        rc = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (rc == 0) {
            rc = pthread_cond_init(&broker->changed, &attributes);
        }
        pthread_condattr_destroy(&attributes);
    }
    if (rc != 0) {
        return ERR(MEMORY, "condition of the broker: %s", strerror(rc));
    }
    pthread_mutex_init(&broker->lock, NULL);
    return NULL;
}

static err_t start(struct flare_broker *broker)
{
    err_t err = NULL;
    TRY(init_locks(broker));
    int rc = uv_loop_init(&broker->loop);
    if (rc != 0) {
        err = ERR(IO, "event loop: %s", uv_strerror(rc));
        goto without_loop;
    }
    err = caller_init(&broker->caller, &broker->loop);
    if (err != NULL) {
        goto without_caller;
    }
    err = start_thread(broker);
    if (err == NULL) {
        return NULL;
    }
    if (!broker->started) {
        caller_close(&broker->caller);
        uv_run(&broker->loop, UV_RUN_DEFAULT);
    }
    caller_deinit(&broker->caller);
without_caller:
    uv_loop_close(&broker->loop);
without_loop:
    pthread_mutex_destroy(&broker->lock);
    pthread_cond_destroy(&broker->changed);
    return err_passed(err, __func__);
}

static void free_broker(struct flare_broker *broker)
{
    free(broker->name);
    free(broker);
}

enum flare_code flare_broker_open(const struct flare_broker_options *options,
                                  struct flare_broker **out, struct flare_error *error)
{
    static const struct flare_broker_options defaults;
    err_t err = NULL;
    struct flare_broker *broker = calloc(1, sizeof *broker);
    if (broker == NULL) {
        return embedded_fail(error, ERR_MEMORY, "no memory for the broker");
    }
    options = options == NULL ? &defaults : options;
    broker->simulated = options->simulated_ms != 0;
    if (broker->simulated) {
        clock_init_simulated(&broker->clock, options->simulated_ms);
    } else {
        clock_init_real(&broker->clock);
    }
    TRY_OUT(configure(&broker->config, options));
    TRY_OUT(set_log(broker, options));
    TRY_OUT(start(broker));
    *out = broker;
    return FLARE_OK;
out:
    free_broker(broker);
    return embedded_result(error, err);
}

struct close_work {
    struct caller_work work;
    struct flare_broker *broker;
};

static void broker_on_stopped(void *user)
{
    struct flare_broker *broker = user;
    broker->node = NULL;
    uv_prepare_stop(&broker->look);
}

static void close_run(struct caller_work *work)
{
    struct flare_broker *broker = container_of(work, struct close_work, work)->broker;
    node_stop(broker->node, broker_on_stopped, broker);
    caller_done(&broker->caller, work);
}

void flare_broker_close(struct flare_broker *broker)
{
    if (broker == NULL) {
        return;
    }
    struct close_work close = {.work.run = close_run, .broker = broker};
    caller_run(&broker->caller, &close.work);
    pthread_join(broker->thread, NULL);
    caller_deinit(&broker->caller);
    int rc = uv_loop_close(&broker->loop);
    assert(rc == 0); /* every handle has been closed */
    (void)rc;
    pthread_mutex_destroy(&broker->lock);
    pthread_cond_destroy(&broker->changed);
    free_broker(broker);
}

const char *flare_broker_http_address(const struct flare_broker *broker)
{
    const char *address = node_http_address(broker->node);
    return address[0] == '\0' ? NULL : address;
}

const char *flare_broker_wire_address(const struct flare_broker *broker)
{
    const char *address = node_wire_address(broker->node);
    return address[0] == '\0' ? NULL : address;
}

/* ---- clients in the process ------------------------------------------------------------------ */

struct adopt_work {
    struct caller_work work;
    struct flare_broker *broker;
    int fd;
    bool adopted;
};

static void adopt_run(struct caller_work *work)
{
    struct adopt_work *adopt = container_of(work, struct adopt_work, work);
    err_t err = node_adopt(adopt->broker->node, adopt->fd);
    adopt->adopted = err == NULL;
    if (err != NULL) {
        LOG_WARN("client not connected", LOG_ERR(err));
        err_free(err);
    }
    caller_done(&adopt->broker->caller, work);
}

/* For a client, on its thread: a connection to the broker, or -1. */
static int dial(void *user)
{
    struct flare_broker *broker = user;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        return -1;
    }
    struct adopt_work adopt = {.work.run = adopt_run, .broker = broker, .fd = ends[0]};
    caller_run(&broker->caller, &adopt.work);
    if (!adopt.adopted) {
        close(ends[0]);
        close(ends[1]);
        return -1;
    }
    return ends[1];
}

enum flare_code flare_broker_connect(struct flare_broker *broker,
                                     const struct flare_options *options, struct flare_client **out,
                                     struct flare_error *error)
{
    struct flare_options own = {.url = NULL};
    if (options != NULL) {
        own = *options;
    }
    own.dial = dial;
    own.dial_user = broker;
    return flare_connect(&own, out, error);
}

/* ---- time ----------------------------------------------------------------------------------- */

uint64_t flare_broker_now_ms(const struct flare_broker *broker)
{
    return clock_wall_ms(&broker->clock);
}

struct advance_work {
    struct caller_work work;
    struct flare_broker *broker;
    uint64_t ms;
};

/* From one due time to the next, so that what follows from each, a retry after a lost lease say,
 * is counted from its own time and not from the end. */
static void advance_run(struct caller_work *work)
{
    struct advance_work *advance = container_of(work, struct advance_work, work);
    struct flare_broker *broker = advance->broker;
    uint64_t due_in_ms = node_settle(broker->node);
    while (advance->ms > 0) {
        uint64_t step_ms = due_in_ms < advance->ms ? due_in_ms : advance->ms;
        step_ms = step_ms == 0 ? 1 : step_ms;
        clock_advance(&broker->clock, step_ms);
        advance->ms -= step_ms;
        due_in_ms = node_settle(broker->node);
    }
    caller_done(&broker->caller, work);
}

enum flare_code flare_broker_advance(struct flare_broker *broker, uint64_t ms,
                                     struct flare_error *error)
{
    if (!broker->simulated) {
        return embedded_fail(error, ERR_CONFLICT, "the broker runs by the real clock");
    }
    struct advance_work advance = {.work.run = advance_run, .broker = broker, .ms = ms};
    caller_run(&broker->caller, &advance.work);
    return FLARE_OK;
}

/* Tells who waits for waiting pulls. */
static void note_waiting(struct flare_broker *broker)
{
    uint32_t waiting = router_waiting(node_router(broker->node));
    if (waiting == broker->waiting) { /* only this thread writes it */
        return;
    }
    pthread_mutex_lock(&broker->lock);
    broker->waiting = waiting;
    pthread_cond_broadcast(&broker->changed);
    pthread_mutex_unlock(&broker->lock);
}

/* Before the loop waits. */
static void broker_on_look(uv_prepare_t *handle)
{
    note_waiting(container_of(handle, struct flare_broker, look));
}

struct look_work {
    struct caller_work work;
    struct flare_broker *broker;
};

static void look_run(struct caller_work *work)
{
    struct flare_broker *broker = container_of(work, struct look_work, work)->broker;
    note_waiting(broker);
    caller_done(&broker->caller, work);
}

enum flare_code flare_broker_await_pulls(struct flare_broker *broker, uint32_t count,
                                         uint32_t timeout_ms, struct flare_error *error)
{
    /* One that has just been answered must not be taken for one that waits. */
    struct look_work look = {.work.run = look_run, .broker = broker};
    caller_run(&broker->caller, &look.work);
    struct timespec deadline;
    int rc = clock_gettime(CLOCK_MONOTONIC, &deadline);
    assert(rc == 0);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
    if (deadline.tv_nsec >= 1000000000L) {
        deadline.tv_nsec -= 1000000000L;
        deadline.tv_sec++;
    }
    pthread_mutex_lock(&broker->lock);
    while (broker->waiting < count && rc == 0) {
        rc = pthread_cond_timedwait(&broker->changed, &broker->lock, &deadline);
    }
    uint32_t waiting = broker->waiting;
    pthread_mutex_unlock(&broker->lock);
    if (waiting < count) {
        char message[FLARE_ERROR_MESSAGE_SIZE];
        snprintf(message, sizeof message, "%u of %u pulls wait after %u ms", waiting, count,
                 timeout_ms);
        return embedded_fail(error, ERR_TIMEOUT, message);
    }
    return FLARE_OK;
}
