#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* ppoll */
#endif
#include "tools/bench/driver.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { NS_PER_S = 1000000000, TIMER_SLACK_NS = 1000, PULLS = 2 };

struct slot {
    uint64_t intended_ns;
    bool busy;
};

struct driver_link {
    struct driver *driver;
    void *link;
    bool consumer;
    bool unsent; /* its buffer got something since its last advance */
    struct link_wait wait;
    struct slot *slots;   /* of a publisher */
    uint32_t *free_slots; /* a stack */
    uint32_t free_count;
    uint64_t pulled_ns[PULLS]; /* of a consumer: when its pulls were asked for, a ring */
    uint64_t pull_count;       /* ever asked for */
    uint64_t batch_count;      /* of them answered */
    uint64_t unacked;
};

struct driver {
    const struct adapter *adapter;
    const struct stage *stage;
    struct ledger *ledger;
    struct stage_result *result;
    struct driver_link links[LINKS_MAX]; /* publishers, then consumers */
    struct pollfd polls[LINKS_MAX + 1];  /* of the links, then of `wake` */
    uint32_t link_count;
    uint8_t body[BODY_SIZE_MAX];
    uint64_t sent_before; /* by earlier stages */
    uint64_t started_ns;
    uint64_t now_ns; /* read once in each advance: all that arrived together arrived now */
    bool now_is_stale;
    uint64_t progress_ns;
    uint64_t outstanding;
    bool has_room;        /* a slot became free since publishing was tried last */
    bool is_blocked;      /* what is due waits for room in a window */
    bool is_ended;        /* the loop is over */
    pthread_mutex_t lock; /* of all this: held by the loop except while it waits */
    int wake;             /* an eventfd: another thread has ended the work, made room, or failed */
    err_t err;            /* of a call made from within an event */
};

static void on_enter(void *user);
static void on_leave(void *user);
static void on_failed(void *user, err_t err);
static void on_confirmed(void *user, uint32_t slot);
static void on_received(void *user, struct span body);
static void on_batch_ended(void *user);
static void on_acked(void *user, uint32_t count);

static const struct link_events events = {
    .enter = on_enter,
    .leave = on_leave,
    .failed = on_failed,
    .confirmed = on_confirmed,
    .received = on_received,
    .batch_ended = on_batch_ended,
    .acked = on_acked,
};

static uint64_t clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t driver_now(struct driver *driver)
{
    if (driver->now_is_stale) {
        driver->now_ns = clock_ns();
        driver->now_is_stale = false;
    }
    return driver->now_ns;
}

static uint64_t elapsed_us(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

/* ---- what a link reports ---- */

static void on_confirmed(void *user, uint32_t slot)
{
    struct driver_link *link = user;
    struct driver *driver = link->driver;
    if (slot >= driver->stage->window || !link->slots[slot].busy) {
        driver->ledger->confirmed_twice++;
        return;
    }
    driver->progress_ns = driver_now(driver);
    histogram_add(&driver->result->confirms,
                  elapsed_us(link->slots[slot].intended_ns, driver->progress_ns));
    link->slots[slot].busy = false;
    link->free_slots[link->free_count++] = slot;
    driver->ledger->confirmed++;
    driver->outstanding--;
    driver->has_room = true;
}

static void on_received(void *user, struct span body)
{
    struct driver_link *link = user;
    struct driver *driver = link->driver;
    uint64_t intended_ns = 0;
    driver->progress_ns = driver_now(driver);
    link->unacked++;
    if (ledger_receive(driver->ledger, body, &intended_ns)) {
        driver->result->received++;
        histogram_add(&driver->result->end_to_end, elapsed_us(intended_ns, driver->progress_ns));
    }
}

static err_t pull(struct driver_link *link)
{
    link->pulled_ns[link->pull_count++ % PULLS] = driver_now(link->driver);
    link->unsent = true;
    return link->driver->adapter->pull(link->link);
}

static void on_batch_ended(void *user)
{
    struct driver_link *link = user;
    struct driver *driver = link->driver;
    if (driver->err != NULL) {
        return;
    }
    uint64_t pulled_ns = link->pulled_ns[link->batch_count++ % PULLS];
    if (link->unacked > 0) {
        if (!driver->adapter->is_pushed) {
            histogram_add(&driver->result->batches, elapsed_us(pulled_ns, driver_now(driver)));
        }
        driver->err = driver->adapter->ack(link->link);
        link->unacked = 0;
    }
    driver->err = driver->err != NULL ? driver->err : pull(link);
}

static void on_acked(void *user, uint32_t count)
{
    struct driver_link *link = user;
    link->driver->progress_ns = driver_now(link->driver);
    link->driver->ledger->acked += count;
}

/* ---- links ---- */

static err_t link_init(struct driver *driver, const struct peer_address *address, bool consumer)
{
    const struct stage *stage = driver->stage;
    struct driver_link *link = &driver->links[driver->link_count];
    const struct link_options options = {
        .address = address,
        .consumer = consumer,
        .index = driver->link_count,
        .window = stage->window,
        .size = stage->size,
        .batch = stage->batch,
        .events = &events,
        .user = link,
    };
    link->driver = driver;
    link->consumer = consumer;
    link->wait.fd = -1;
    if (!consumer) {
        link->slots = calloc(stage->window, sizeof *link->slots);
        link->free_slots = calloc(stage->window, sizeof *link->free_slots);
        if (link->slots == NULL || link->free_slots == NULL) {
            free(link->slots);
            free(link->free_slots);
            return ERR(MEMORY, "no memory for a publisher");
        }
        while (link->free_count < stage->window) {
            link->free_slots[link->free_count] = stage->window - 1 - link->free_count;
            link->free_count++;
        }
    }
    driver->link_count++;
    return driver->adapter->open(&options, &link->link);
}

static void link_deinit(struct driver *driver, struct driver_link *link)
{
    if (link->link != NULL) {
        driver->adapter->close(link->link);
    }
    free(link->slots);
    free(link->free_slots);
}

static err_t take_err(struct driver *driver)
{
    err_t err = driver->err;
    driver->err = NULL;
    return err;
}

static err_t link_advance(struct driver *driver, struct driver_link *link)
{
    link->unsent = false;
    link->wait = (struct link_wait){.fd = -1};
    driver->now_is_stale = true;
    TRY(driver->adapter->advance(link->link, &link->wait));
    return take_err(driver);
}

/* ---- publishing ---- */

static bool may_publish(const struct driver *driver)
{
    const struct stage *stage = driver->stage;
    uint64_t sent = driver->ledger->sent - driver->sent_before;
    return stage->publishers > 0 && sent < stage->count_max &&
           (stage->seconds == 0 || driver->now_ns - driver->started_ns < stage->seconds * NS_PER_S);
}

static uint64_t due_ns(const struct driver *driver)
{
    uint64_t number = driver->ledger->sent - driver->sent_before;
    return driver->started_ns + number * NS_PER_S / driver->stage->rate;
}

static err_t publish_one(struct driver *driver, struct driver_link *link, uint64_t intended_ns)
{
    uint32_t slot = link->free_slots[--link->free_count];
    uint32_t size = driver->stage->size;
    (void)ledger_send(driver->ledger, driver->body, size, intended_ns);
    link->slots[slot] = (struct slot){.intended_ns = intended_ns, .busy = true};
    link->unsent = true;
    driver->outstanding++;
    return driver->adapter->publish(link->link, slot, span_of(driver->body, size));
}

/* What is due goes to its publisher, whose turn comes round; a full window holds the schedule up,
 * and what it delays still counts from the moment it was due. */
static err_t publish_due(struct driver *driver)
{
    while (may_publish(driver) && due_ns(driver) <= driver->now_ns) {
        uint64_t number = driver->ledger->sent - driver->sent_before;
        struct driver_link *link = &driver->links[number % driver->stage->publishers];
        if (link->free_count == 0) {
            driver->is_blocked = true;
            return NULL;
        }
        TRY(publish_one(driver, link, due_ns(driver)));
    }
    return NULL;
}

static err_t publish_all(struct driver *driver)
{
    driver->now_ns = clock_ns();
    driver->has_room = false;
    driver->is_blocked = false;
    if (driver->stage->rate > 0) {
        return publish_due(driver);
    }
    for (uint32_t i = 0; i < driver->stage->publishers; i++) {
        while (driver->links[i].free_count > 0 && may_publish(driver)) {
            TRY(publish_one(driver, &driver->links[i], driver->now_ns));
        }
    }
    return NULL;
}

/* ---- events from other threads ---- */

static bool is_done(const struct driver *driver);

static void on_enter(void *user)
{
    struct driver_link *link = user;
    (void)pthread_mutex_lock(&link->driver->lock);
    link->driver->now_is_stale = true;
}

static void on_failed(void *user, err_t err)
{
    struct driver_link *link = user;
    struct driver *driver = link->driver;
    if (driver->is_ended || driver->err != NULL) { /* what still waited when a link was closed */
        err_free(err);
    } else {
        driver->err = err;
    }
}

static void on_leave(void *user)
{
    struct driver_link *link = user;
    struct driver *driver = link->driver;
    if (!driver->is_ended) {
        bool fills = !link->consumer && driver->stage->rate == 0;
        while (fills && driver->err == NULL && link->free_count > 0 && may_publish(driver)) {
            driver->err = publish_one(driver, link, driver_now(driver));
        }
        if (driver->err != NULL || driver->is_blocked || is_done(driver)) {
            (void)eventfd_write(driver->wake, 1);
        }
    }
    (void)pthread_mutex_unlock(&driver->lock);
}

/* ---- the loop ---- */

static bool is_done(const struct driver *driver)
{
    const struct ledger *ledger = driver->ledger;
    if (may_publish(driver) || driver->outstanding > 0) {
        return false;
    }
    return driver->stage->consumers == 0 ||
           (ledger->received == ledger->sent &&
            ledger->acked >= ledger->received + ledger->doubled + ledger->foreign);
}

static struct timespec wait_time(const struct driver *driver)
{
    uint64_t wait_ns = driver->has_room ? 0 : driver->stage->patience_ms * 1000000;
    if (!driver->has_room && driver->stage->rate > 0 && may_publish(driver)) {
        uint64_t number = driver->ledger->sent - driver->sent_before;
        uint64_t due = due_ns(driver);
        /* A full window waits for a confirmation, which wakes us. */
        if (driver->links[number % driver->stage->publishers].free_count > 0) {
            wait_ns = due > driver->now_ns ? due - driver->now_ns : 0;
        }
    }
    return (struct timespec){.tv_sec = (time_t)(wait_ns / NS_PER_S),
                             .tv_nsec = (long)(wait_ns % NS_PER_S)};
}

static err_t wait_for_links(struct driver *driver)
{
    struct timespec timeout = wait_time(driver);
    for (uint32_t i = 0; i < driver->link_count; i++) {
        const struct driver_link *link = &driver->links[i];
        driver->polls[i] = (struct pollfd){.fd = link->wait.fd, .events = link->wait.events};
        if (link->wait.again || link->unsent) {
            timeout = (struct timespec){0};
        }
    }
    driver->polls[driver->link_count] = (struct pollfd){.fd = driver->wake, .events = POLLIN};
    (void)pthread_mutex_unlock(&driver->lock);
    int count = ppoll(driver->polls, driver->link_count + 1, &timeout, NULL);
    int problem = errno;
    (void)pthread_mutex_lock(&driver->lock);
    if (count < 0 && problem != EINTR) {
        return ERR(IO, "poll: %s", strerror(problem));
    }
    if (driver->polls[driver->link_count].revents != 0) {
        eventfd_t ignored;
        (void)eventfd_read(driver->wake, &ignored);
    }
    return take_err(driver);
}

static err_t advance_ready(struct driver *driver)
{
    for (uint32_t i = 0; i < driver->link_count; i++) {
        struct driver_link *link = &driver->links[i];
        if (driver->polls[i].revents != 0 || link->wait.again) {
            TRY(link_advance(driver, link));
        }
    }
    return NULL;
}

static err_t advance_unsent(struct driver *driver)
{
    for (uint32_t i = 0; i < driver->link_count; i++) {
        if (driver->links[i].unsent) {
            TRY(link_advance(driver, &driver->links[i]));
        }
    }
    return NULL;
}

static err_t run_loop(struct driver *driver)
{
    driver->started_ns = driver->now_ns = driver->progress_ns = clock_ns();
    for (uint32_t i = driver->stage->publishers; i < driver->link_count; i++) {
        for (uint32_t pulls = driver->stage->batch == 1 ? 1 : PULLS; pulls > 0; pulls--) {
            TRY(pull(&driver->links[i]));
        }
    }
    for (;;) {
        TRY(publish_all(driver));
        TRY(advance_unsent(driver));
        if (is_done(driver)) {
            return NULL;
        }
        if (driver->now_ns > driver->progress_ns &&
            driver->now_ns - driver->progress_ns > driver->stage->patience_ms * 1000000) {
            driver->result->stalled = true;
            return NULL;
        }
        TRY(wait_for_links(driver));
        TRY(advance_ready(driver));
    }
}

static void pause_ms(uint32_t ms)
{
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    (void)nanosleep(&pause, NULL);
}

err_t driver_run(const struct adapter *adapter, const struct peer_address *address,
                 const struct stage *stage, struct ledger *ledger, struct stage_result *out)
{
    err_t err = NULL;
    assert(stage->publishers + stage->consumers <= LINKS_MAX && stage->size <= BODY_SIZE_MAX);
    assert(stage->window <= WINDOW_MAX && stage->batch <= BATCH_MAX);
    memset(out, 0, sizeof *out);
    struct driver *driver = calloc(1, sizeof *driver);
    if (driver == NULL) {
        return ERR(MEMORY, "no memory for the driver");
    }
    driver->adapter = adapter;
    driver->stage = stage;
    driver->ledger = ledger;
    driver->result = out;
    driver->sent_before = ledger->sent;
    (void)pthread_mutex_init(&driver->lock, NULL);
    driver->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ledger_fill(driver->body, stage->size);
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* a schedule is kept to the microsecond */
    for (uint32_t i = 0; i < stage->publishers + stage->consumers; i++) {
        TRY_OUT(link_init(driver, address, i >= stage->publishers));
    }
    uint64_t cpu_before_us = load_cpu_us();
    (void)pthread_mutex_lock(&driver->lock);
    err = run_loop(driver);
    driver->is_ended = true;
    (void)pthread_mutex_unlock(&driver->lock);
    TRY_OUT(err);
    out->duration_us = elapsed_us(driver->started_ns, clock_ns());
    out->cpu_us = load_cpu_us() - cpu_before_us;
    out->published = ledger->sent - driver->sent_before;
    if (stage->consumers > 0) {
        pause_ms(adapter->settle_ms);
    }
out:
    for (uint32_t i = 0; i < driver->link_count; i++) {
        link_deinit(driver, &driver->links[i]);
    }
    err_free(driver->err);
    (void)close(driver->wake);
    (void)pthread_mutex_destroy(&driver->lock);
    free(driver);
    return err;
}
