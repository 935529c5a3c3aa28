#include "client/engine.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>

#include "client/await.h"
#include "client/draft.h"
#include "client/intake.h"
#include "client/problem.h"

enum {
    ENGINE_ROUNDS_MAX = 64, /* of one turn: what callbacks have added is sent in the next */
    ENGINE_NAME_MAX = 200,
};

/* What a turn begins with. */
struct engine_taken {
    struct list asks;
    bool is_leaving;
    bool is_stopping;
};

static void engine_on_wake(uv_async_t *handle)
{
    engine_turn(handle->data);
}

static void engine_on_timer(uv_timer_t *handle)
{
    struct flare_client *client = handle->data;
    client->timer_due_us = UINT64_MAX;
    engine_turn(client);
}

/* ---- options ----------------------------------------------------------------------------------
 */

static err_t check_options(struct flare_options *options)
{
    engine_put_default(&options->connect_timeout_ms, 5000);
    engine_put_default(&options->request_timeout_ms, 30000);
    engine_put_default(&options->reconnect_min_ms, 50);
    engine_put_default(&options->reconnect_max_ms, 2000);
    engine_put_default(&options->give_up_ms, 60000);
    engine_put_default(&options->linger_us, 1000);
    engine_put_default(&options->batch_messages, 512);
    engine_put_default(&options->batch_size, 256 * 1024);
    if (options->unconfirmed_size == 0) {
        options->unconfirmed_size = 64u << 20;
    }
    if (options->reconnect_max_ms < options->reconnect_min_ms) {
        return ERR(INVALID, "reconnect_max_ms: must not be below reconnect_min_ms");
    }
    if (options->batch_size > OUTBOX_BATCH_SIZE_MAX) {
        return ERR(INVALID, "batch_size: must be %d at most", OUTBOX_BATCH_SIZE_MAX);
    }
    return NULL;
}

static err_t take_name(struct flare_client *client, const char *name)
{
    TRY(draft_check_text("name", name, ENGINE_NAME_MAX));
    client->options.name = strdup(name == NULL ? "libflare" : name);
    return client->options.name == NULL ? ERR(MEMORY, "no memory for a client") : NULL;
}

static err_t take_options(struct flare_client *client, const struct flare_options *options)
{
    const struct flare_options defaults = {0};
    const char *url = options == NULL ? NULL : options->url;
    client->options = options == NULL ? defaults : *options;
    client->options.url = NULL;
    client->options.name = NULL;
    if (client->options.dial == NULL) {
        url = url == NULL ? getenv("FLARE_WIRE") : url;
        TRY(address_parse(url == NULL ? "127.0.0.1:8089" : url, &client->address));
    }
    TRY(check_options(&client->options));
    TRY(take_name(client, options == NULL ? NULL : options->name));
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static err_t init_sync(struct flare_client *client)
{
    if (!await_cond_init(&client->changed)) {
        return ERR(MEMORY, "no memory for a condition");
    }
    (void)pthread_mutex_init(&client->lock, NULL); /* a default one cannot fail */
    return NULL;
}

err_t engine_create(const struct flare_options *options, struct flare_client **out)
{
    err_t err = NULL;
    struct flare_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return ERR(MEMORY, "no memory for a client");
    }
    TRY_OUT(take_options(client, options));
    TRY_OUT(init_sync(client));
    clock_init_real(&client->clock);
    list_init(&client->submitted);
    list_init(&client->joining);
    list_init(&client->intakes);
    client->timer_due_us = UINT64_MAX;
    atomic_init(&client->message_size_max, UINT32_MAX);
    client->now_us = clock_mono_us(&client->clock);
    peer_init(&client->peer);
    outbox_init(&client->outbox, &client->options);
    *out = client;
    return NULL;
out:
    free((char *)(uintptr_t)client->options.name);
    free(client);
    return err;
}

static void *engine_run(void *context)
{
    struct flare_client *client = context;
    peer_start(client);
    (void)uv_run(&client->loop, UV_RUN_DEFAULT);
    return NULL;
}

int engine_spawn(pthread_t *thread, void *(*run)(void *context), void *context)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(thread, NULL, run, context);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

err_t engine_open_loop(struct flare_client *client)
{
    int rc = uv_loop_init(&client->loop);
    if (rc != 0) {
        return ERR(IO, "cannot make a loop: %s", uv_strerror(rc));
    }
    rc = uv_async_init(&client->loop, &client->wake, engine_on_wake);
    if (rc != 0) {
        (void)uv_loop_close(&client->loop);
        return ERR(IO, "cannot make a wake: %s", uv_strerror(rc));
    }
    (void)uv_timer_init(&client->loop, &client->timer);
    client->wake.data = client;
    client->timer.data = client;
    return NULL;
}

void engine_close_loop(struct flare_client *client)
{
    if (!uv_is_closing((uv_handle_t *)&client->wake)) {
        uv_close((uv_handle_t *)&client->wake, NULL);
        uv_close((uv_handle_t *)&client->timer, NULL);
    }
    (void)uv_run(&client->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&client->loop);
}

err_t engine_start(struct flare_client *client)
{
    TRY(engine_open_loop(client));
    client->is_running = true; /* first, since the thread asks at once */
    int rc = engine_spawn(&client->thread, engine_run, client);
    if (rc != 0) {
        client->is_running = false;
        engine_close_loop(client);
        return ERR(IO, "cannot start a thread: %s", strerror(rc));
    }
    return NULL;
}

void engine_leave(struct flare_client *client)
{
    (void)pthread_mutex_lock(&client->lock);
    client->is_leaving = true;
    bool must_signal = engine_need_turn(client);
    (void)pthread_mutex_unlock(&client->lock);
    if (must_signal) {
        engine_signal(client);
    }
}

void engine_stop(struct flare_client *client)
{
    if (!client->is_running) {
        return;
    }
    assert(!engine_is_own_thread(client)); /* a callback cannot wait for its own end */
    (void)pthread_mutex_lock(&client->lock);
    client->is_stopping = true;
    client->is_woken = true;
    (void)pthread_cond_broadcast(&client->changed);
    (void)pthread_mutex_unlock(&client->lock);
    engine_signal(client);
    (void)pthread_join(client->thread, NULL);
    client->is_running = false;
    engine_close_loop(client);
}

void engine_destroy(struct flare_client *client)
{
    outbox_deinit(&client->outbox);
    peer_deinit(&client->peer);
    (void)pthread_cond_destroy(&client->changed);
    (void)pthread_mutex_destroy(&client->lock);
    free((char *)(uintptr_t)client->options.name);
    free(client);
}

/* ---- turns ------------------------------------------------------------------------------------
 */

void engine_signal(struct flare_client *client)
{
    /* On its own thread the turn follows anyway: whatever runs there ends with one. */
    if (client->is_running && !pthread_equal(client->thread, pthread_self())) {
        (void)uv_async_send(&client->wake);
    }
}

enum flare_code engine_submit(struct flare_client *client, struct ask *ask,
                              struct flare_error *error)
{
    (void)pthread_mutex_lock(&client->lock);
    if (client->is_stopping) {
        (void)pthread_mutex_unlock(&client->lock);
        return problem_set(error, FLARE_ERR_UNAVAILABLE, "the client is being closed");
    }
    list_append(&client->submitted, &ask->link);
    bool must_signal = engine_need_turn(client);
    (void)pthread_mutex_unlock(&client->lock);
    if (must_signal) {
        engine_signal(client);
    }
    return FLARE_OK;
}

enum flare_code engine_may_block(const struct flare_client *client, struct flare_error *error)
{
    if (engine_is_own_thread(client)) {
        return problem_set(error, FLARE_ERR_CONFLICT, "nothing may block in a callback");
    }
    return FLARE_OK;
}

void engine_tell(struct flare_client *client, enum flare_state state, const char *detail)
{
    if (client->options.on_state != NULL) {
        client->options.on_state(client->options.user, state, detail);
    }
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* One timer serves every deadline. One that is set too early costs a turn and no more, so it is
 * left alone when what is due next moves back, as it does all the time. */
static void set_timer(struct flare_client *client)
{
    uint64_t due_us = peer_due_us(client);
    due_us = earlier(due_us, client->outbox.due_us);
    due_us = earlier(due_us, intake_due_us(client));
    if (due_us >= client->timer_due_us) {
        return;
    }
    uint64_t now_us = clock_mono_us(&client->clock);
    uint64_t wait_us = due_us > now_us ? due_us - now_us : 0;
    uv_update_time(&client->loop);
    (void)uv_timer_start(&client->timer, engine_on_timer, (wait_us + 999) / 1000, 0);
    client->timer_due_us = due_us;
}

static void take_submitted(struct flare_client *client, struct engine_taken *out)
{
    list_init(&out->asks);
    (void)pthread_mutex_lock(&client->lock);
    client->is_woken = false;
    list_splice(&out->asks, &client->submitted);
    out->is_leaving = client->is_leaving;
    out->is_stopping = client->is_stopping;
    (void)pthread_mutex_unlock(&client->lock);
}

static void submit_all(struct flare_client *client, struct list *asks)
{
    struct list_link *link;
    while ((link = list_pop(asks)) != NULL) {
        peer_submit(client, container_of(link, struct ask, link));
    }
}

/* Nothing waits for a connection any more. */
static void fail_waiting(struct flare_client *client)
{
    struct flare_error closed;
    (void)problem_set(&closed, FLARE_ERR_UNAVAILABLE, "the client has been closed");
    peer_fail_all(client, &closed);
    outbox_fail_all(client, &closed);
}

static void finish(struct flare_client *client)
{
    if (uv_is_closing((uv_handle_t *)&client->wake)) {
        return;
    }
    peer_stop(client);
    fail_waiting(client);
    engine_tell(client, FLARE_STATE_CLOSED, "closed");
    uv_close((uv_handle_t *)&client->wake, NULL);
    uv_close((uv_handle_t *)&client->timer, NULL);
}

static bool is_woken(struct flare_client *client)
{
    (void)pthread_mutex_lock(&client->lock);
    bool is_woken = client->is_woken;
    (void)pthread_mutex_unlock(&client->lock);
    return is_woken;
}

void engine_turn(struct flare_client *client)
{
    struct engine_taken taken;
    uint32_t rounds = 0;
    do {
        client->now_us = clock_mono_us(&client->clock);
        take_submitted(client, &taken);
        submit_all(client, &taken.asks);
        intake_turn(client);
        peer_tick(client, client->now_us);
        if (taken.is_leaving && !peer_is_connected(&client->peer)) {
            fail_waiting(client);
        }
        outbox_send(client);
        peer_send(client);
        rounds++;
    } while (!taken.is_stopping && rounds < ENGINE_ROUNDS_MAX && is_woken(client));
    if (taken.is_stopping) {
        finish(client);
        return;
    }
    if (rounds == ENGINE_ROUNDS_MAX) {
        (void)uv_async_send(&client->wake);
    }
    set_timer(client);
}
