/* The server: address, listener, the one timer, drain and destroy. */
#include "broker/http/server.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "broker/base/log.h"
#include "broker/http/conn.h"

static void server_on_timer(uv_timer_t *timer);
static void server_on_timer_closed(uv_handle_t *handle);

/* ---- create --------------------------------------------------------------------------------- */

static err_t server_check_limits(const struct http_limits *limits)
{
    if (limits->header_size_max == 0 || limits->header_size_max > HTTP_PARSE_HEAD_MAX) {
        return ERR(INVALID, "header_size_max is %u, not 1 to %d", limits->header_size_max,
                   HTTP_PARSE_HEAD_MAX);
    }
    if (limits->header_count_max == 0 || limits->connections_max == 0) {
        return ERR(INVALID, "header_count_max and connections_max must not be 0");
    }
    return NULL;
}

static void server_set_timeouts(struct http_server *server)
{
    const struct http_limits *limits = &server->options.limits;
    const uint64_t timeouts_ms[HTTP_STEP_COUNT] = {
        [HTTP_STEP_IDLE] = limits->idle_timeout_ms, [HTTP_STEP_HEAD] = limits->header_timeout_ms,
        [HTTP_STEP_BODY] = HTTP_BODY_WINDOW_MS,     [HTTP_STEP_WRITING] = limits->write_timeout_ms,
        [HTTP_STEP_LINGER] = HTTP_LINGER_MS,
    };
    for (size_t i = 0; i < HTTP_STEP_COUNT; i++) {
        list_init(&server->steps[i]);
        server->timeouts_us[i] = timeouts_ms[i] == 0 ? UINT64_MAX : timeouts_ms[i] * 1000;
    }
}

err_t http_server_create(const struct http_server_options *options, struct http_server **out)
{
    assert(options->on_request != NULL);
    assert(options->on_problem != NULL);
    TRY(server_check_limits(&options->limits));
    struct http_server *server = calloc(1, sizeof *server);
    uint8_t *read_buffer = malloc(HTTP_READ_SIZE);
    if (server == NULL || read_buffer == NULL) {
        free(server);
        free(read_buffer);
        return ERR(MEMORY, "no memory for the HTTP server");
    }
    net_ignore_sigpipe();
    server->options = *options;
    server->read_buffer = read_buffer;
    server_set_timeouts(server);
    list_init(&server->handled_slots);
    list_init(&server->free_slots);
    int rc = uv_timer_init(options->loop, &server->timer);
    assert(rc == 0); /* it only fills the struct */
    server->handle_count = 1;
    *out = server;
    return NULL;
}

/* ---- listen --------------------------------------------------------------------------------- */

static void server_on_listener_closed(struct net_listener *listener)
{
    http_server_on_handle_closed(container_of(listener, struct http_server, listener));
}

static void server_on_connection(struct net_listener *listener, int status)
{
    struct http_server *server = container_of(listener, struct http_server, listener);
    if (status != 0) {
        /* Out of file descriptors: libuv has turned the waiting clients away, and accepts again
         * later. */
        server->counters.connections_refused_total++;
        LOG_WARN("connection not accepted", LOG_TEXT("error", uv_strerror(status)));
        return;
    }
    http_conn_accept(server);
    if (!server->has_timer) {
        server->has_timer = true;
        uv_timer_start(&server->timer, server_on_timer, HTTP_TICK_MS, HTTP_TICK_MS);
    }
}

err_t http_server_listen(struct http_server *server, const char *address)
{
    assert(!server->is_draining);
    server->listener.on_connection = server_on_connection;
    server->listener.on_closed = server_on_listener_closed;
    server->handle_count++;
    TRY(net_listen(&server->listener, server->options.loop, address));
    return NULL;
}

const char *http_server_address(const struct http_server *server)
{
    return server->listener.address;
}

/* ---- time ----------------------------------------------------------------------------------- */

void http_server_tick(struct http_server *server)
{
    uint64_t now_us = clock_mono_us(server->options.clock);
    for (size_t step = 0; step < HTTP_STEP_COUNT; step++) {
        struct list_link *link = list_first(&server->steps[step]);
        while (link != NULL) {
            struct http_conn *conn = container_of(link, struct http_conn, link);
            if (conn->deadline_us > now_us) {
                break;
            }
            http_conn_on_deadline(conn, now_us); /* takes it from the head of this list */
            link = list_first(&server->steps[step]);
        }
    }
}

static void server_on_timer(uv_timer_t *timer)
{
    struct http_server *server = container_of(timer, struct http_server, timer);
    http_server_tick(server);
    if (server->open_count == 0 && server->refused_count == 0) {
        /* An idle server does not wake its process. */
        server->has_timer = false;
        uv_timer_stop(timer);
    }
}

const char *http_server_date(struct http_server *server)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    uint64_t now_s = clock_wall_ms(server->options.clock) / 1000;
    if (now_s == server->date_s) {
        return server->date;
    }
    server->date_s = now_s;
    time_t seconds = (time_t)now_s;
    struct tm date;
    struct tm *done = gmtime_r(&seconds, &date);
    assert(done != NULL);
    /* Not strftime: its names follow the locale. */
    snprintf(server->date, sizeof server->date, "%s, %02u %s %04u %02u:%02u:%02u GMT",
             days[date.tm_wday], (unsigned)date.tm_mday % 100, months[date.tm_mon],
             (unsigned)(date.tm_year + 1900) % 10000, (unsigned)date.tm_hour % 100,
             (unsigned)date.tm_min % 100, (unsigned)date.tm_sec % 100);
    return server->date;
}

/* ---- end ------------------------------------------------------------------------------------ */

static void server_close_all(struct http_server *server, enum http_step step)
{
    struct list_link *link = list_first(&server->steps[step]);
    while (link != NULL) {
        http_conn_close(container_of(link, struct http_conn, link));
        link = list_first(&server->steps[step]);
    }
}

void http_server_drain(struct http_server *server)
{
    server->is_draining = true;
    net_listener_close(&server->listener);
    server_close_all(server, HTTP_STEP_IDLE);
}

uint32_t http_server_pending(const struct http_server *server)
{
    return server->pending_count;
}

const struct http_counters *http_server_counters(const struct http_server *server)
{
    return &server->counters;
}

void http_server_destroy(struct http_server *server, void (*on_closed)(void *user), void *user)
{
    assert(!server->is_destroyed);
    server->is_destroyed = true;
    server->is_draining = true;
    server->on_closed = on_closed;
    server->closed_user = user;
    net_listener_close(&server->listener);
    for (size_t step = 0; step < HTTP_STEP_CLOSING; step++) {
        server_close_all(server, (enum http_step)step);
    }
    /* What handlers have not answered yet outlives the server, so that they still may. */
    for (struct list_link *link = list_pop(&server->handled_slots); link != NULL;
         link = list_pop(&server->handled_slots)) {
        container_of(link, struct http_slot, link)->server = NULL;
    }
    uv_close((uv_handle_t *)&server->timer, server_on_timer_closed);
}

static void server_on_timer_closed(uv_handle_t *handle)
{
    http_server_on_handle_closed(container_of(handle, struct http_server, timer));
}

void http_server_on_handle_closed(struct http_server *server)
{
    assert(server->handle_count > 0);
    server->handle_count--;
    if (server->handle_count > 0 || !server->is_destroyed) {
        return;
    }
    for (struct list_link *link = list_pop(&server->free_slots); link != NULL;
         link = list_pop(&server->free_slots)) {
        http_slot_destroy(container_of(link, struct http_slot, link));
    }
    void (*on_closed)(void *) = server->on_closed;
    void *user = server->closed_user;
    free(server->read_buffer);
    free(server);
    if (on_closed != NULL) {
        on_closed(user);
    }
}
