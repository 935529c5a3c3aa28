/* The driver of the peers benchmark counts what a broker does: with one in memory that is honest,
 * and with each way of losing, doubling and altering. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/base/err.h"
#include "tools/bench/driver.h"
#include "tools/flare/progress.h"

enum { MESSAGES = 1000, SIZE = 64, EVERY = 100, HURT = MESSAGES / EVERY };
enum { PATIENCE_MS = 10000, FAULT_PATIENCE_MS = 50 };
enum { PULLS_MAX = 2, BATCH = 10 };

/* ---- a broker in memory that hurts every hundredth message ---- */

enum fault {
    FAULT_NONE,
    FAULT_LOSE,          /* confirmed, never delivered */
    FAULT_DOUBLE,        /* delivered twice */
    FAULT_ALTER,         /* delivered with a byte changed */
    FAULT_CUT,           /* delivered a byte short */
    FAULT_CONFIRM_NOT,   /* kept, but never confirmed */
    FAULT_CONFIRM_TWICE, /* the same slot */
    FAULT_KEEP           /* delivered and acknowledged, and held all the same */
};

static struct broker {
    enum fault fault;
    uint8_t bodies[2 * MESSAGES][SIZE];
    uint32_t sizes[2 * MESSAGES];
    uint32_t stored;
    uint32_t delivered;
    uint32_t acked;
    uint32_t published;
    uint32_t kept;
    uint64_t pull_us; /* a pull is answered after so long, not before */
} broker;

struct fake_link {
    struct link_options options;
    uint32_t slots[WINDOW_MAX];
    uint32_t slot_count;
    uint64_t asked_us[PULLS_MAX]; /* when its pulls came, the oldest first */
    uint32_t pull_count;
    uint32_t received;
};

static bool is_hurt(uint32_t number, enum fault fault)
{
    return broker.fault == fault && number % EVERY == 0;
}

static void store(struct span body)
{
    assert_in_range(broker.stored, 0, 2 * MESSAGES - 1);
    memcpy(broker.bodies[broker.stored], body.data, body.size);
    broker.sizes[broker.stored++] = (uint32_t)body.size;
}

static err_t fake_prepare(const struct peer_address *address)
{
    (void)address;
    return NULL;
}

static err_t fake_held(const struct peer_address *address, uint64_t *out)
{
    (void)address;
    *out = broker.stored - broker.acked + broker.kept;
    return NULL;
}

static err_t fake_open(const struct link_options *options, void **out)
{
    struct fake_link *link = calloc(1, sizeof *link);
    assert_non_null(link);
    link->options = *options;
    *out = link;
    return NULL;
}

static err_t fake_publish(void *user, uint32_t slot, struct span body)
{
    struct fake_link *link = user;
    uint32_t number = ++broker.published;
    assert_int_equal(body.size, SIZE);
    if (!is_hurt(number, FAULT_LOSE)) {
        store(body);
        broker.bodies[broker.stored - 1][0] ^= is_hurt(number, FAULT_ALTER) ? 1 : 0;
        broker.sizes[broker.stored - 1] -= is_hurt(number, FAULT_CUT) ? 1 : 0;
    }
    if (is_hurt(number, FAULT_DOUBLE)) {
        store(body);
    }
    broker.kept += is_hurt(number, FAULT_KEEP) ? 1 : 0;
    for (int i = is_hurt(number, FAULT_CONFIRM_TWICE) ? 2 : 1; i > 0; i--) {
        if (!is_hurt(number, FAULT_CONFIRM_NOT)) {
            link->slots[link->slot_count++] = slot;
        }
    }
    return NULL;
}

static err_t fake_pull(void *user)
{
    struct fake_link *link = user;
    assert_in_range(link->pull_count, 0, PULLS_MAX - 1);
    link->asked_us[link->pull_count++] = progress_now_us();
    return NULL;
}

static err_t fake_ack(void *user)
{
    struct fake_link *link = user;
    broker.acked += link->received;
    link->options.events->acked(link->options.user, link->received);
    link->received = 0;
    return NULL;
}

/* False: there is none that it is time for, or nothing for it. */
static bool answer_pull(struct fake_link *link)
{
    if (link->pull_count == 0 || broker.delivered == broker.stored ||
        progress_now_us() - link->asked_us[0] < broker.pull_us) {
        return false;
    }
    link->asked_us[0] = link->asked_us[1];
    link->pull_count--;
    while (link->received < link->options.batch && broker.delivered < broker.stored) {
        uint32_t at = broker.delivered++;
        link->received++;
        link->options.events->received(link->options.user,
                                       span_of(broker.bodies[at], broker.sizes[at]));
    }
    link->options.events->batch_ended(link->options.user);
    return true;
}

static err_t fake_advance(void *user, struct link_wait *wait)
{
    struct fake_link *link = user;
    uint32_t count = link->slot_count;
    link->slot_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        link->options.events->confirmed(link->options.user, link->slots[i]);
    }
    for (uint32_t pulls = link->pull_count; pulls > 0 && answer_pull(link); pulls--) {
    }
    wait->again = link->options.consumer; /* it has no socket to wait for */
    return NULL;
}

static void fake_close(void *user)
{
    free(user);
}

static const struct adapter fake = {
    .name = "fake",
    .prepare = fake_prepare,
    .held = fake_held,
    .open = fake_open,
    .publish = fake_publish,
    .pull = fake_pull,
    .ack = fake_ack,
    .advance = fake_advance,
    .close = fake_close,
};

/* ---- a client library with a thread for each link ---- */

struct threaded_link {
    struct link_options options;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t slots[WINDOW_MAX]; /* published, and not confirmed yet */
    uint32_t slot_count;
    uint32_t confirmed;
    bool is_closed;
};

static uint32_t threaded_fails_after; /* confirmations of a link; 0: never */

static bool threaded_take(struct threaded_link *link, uint32_t *slot)
{
    (void)pthread_mutex_lock(&link->lock);
    while (link->slot_count == 0 && !link->is_closed) {
        (void)pthread_cond_wait(&link->changed, &link->lock);
    }
    bool taken = link->slot_count > 0;
    if (taken) {
        *slot = link->slots[--link->slot_count];
    }
    (void)pthread_mutex_unlock(&link->lock);
    return taken;
}

static void *threaded_main(void *user)
{
    struct threaded_link *link = user;
    uint32_t slot = 0;
    while (threaded_take(link, &slot)) {
        link->options.events->enter(link->options.user);
        if (threaded_fails_after > 0 && ++link->confirmed > threaded_fails_after) {
            link->options.events->failed(link->options.user, ERR(UNAVAILABLE, "the test's"));
        } else {
            link->options.events->confirmed(link->options.user, slot);
        }
        link->options.events->leave(link->options.user);
    }
    return NULL;
}

static err_t threaded_open(const struct link_options *options, void **out)
{
    struct threaded_link *link = calloc(1, sizeof *link);
    assert_non_null(link);
    link->options = *options;
    assert_int_equal(pthread_mutex_init(&link->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&link->changed, NULL), 0);
    assert_int_equal(pthread_create(&link->thread, NULL, threaded_main, link), 0);
    *out = link;
    return NULL;
}

static err_t threaded_publish(void *user, uint32_t slot, struct span body)
{
    struct threaded_link *link = user;
    (void)body;
    (void)pthread_mutex_lock(&link->lock);
    link->slots[link->slot_count++] = slot;
    (void)pthread_cond_signal(&link->changed);
    (void)pthread_mutex_unlock(&link->lock);
    return NULL;
}

static err_t threaded_advance(void *user, struct link_wait *wait)
{
    (void)user;
    (void)wait;
    return NULL;
}

static void threaded_close(void *user)
{
    struct threaded_link *link = user;
    (void)pthread_mutex_lock(&link->lock);
    link->is_closed = true;
    (void)pthread_cond_signal(&link->changed);
    (void)pthread_mutex_unlock(&link->lock);
    (void)pthread_join(link->thread, NULL);
    (void)pthread_cond_destroy(&link->changed);
    (void)pthread_mutex_destroy(&link->lock);
    free(link);
}

static const struct adapter threaded = {
    .name = "threaded",
    .open = threaded_open,
    .publish = threaded_publish,
    .advance = threaded_advance,
    .close = threaded_close,
};

/* ---- runs ---- */

static struct stage_result result;

static void run_stage(const struct stage *stage, struct ledger *ledger)
{
    const struct peer_address address = {.host = "127.0.0.1"};
    err_t err = driver_run(&fake, &address, stage, ledger, &result);
    if (err != NULL) {
        fail_msg("%s", err_describe(err));
    }
}

/* Publishes and then consumes all, or both at once; true when the ledger is even. */
static bool run(enum fault fault, bool together, struct ledger *ledger)
{
    struct stage stage = {
        .publishers = 3,
        .window = 8,
        .size = SIZE,
        .count_max = MESSAGES,
        .consumers = 2,
        .batch = BATCH,
        .patience_ms = fault == FAULT_NONE ? PATIENCE_MS : FAULT_PATIENCE_MS,
    };
    struct stage publish = stage;
    struct stage consume = stage;
    uint64_t held = 0;
    memset(&broker, 0, sizeof broker);
    broker.fault = fault;
    assert_null(ledger_init(ledger, MESSAGES));
    if (together) {
        run_stage(&stage, ledger);
    } else {
        publish.consumers = 0;
        consume.publishers = 0;
        run_stage(&publish, ledger);
        run_stage(&consume, ledger);
    }
    assert_null(fake.held(NULL, &held));
    ledger_deinit(ledger);
    return ledger_is_even(ledger, held, true);
}

/* An honest broker is found even, whether its messages are consumed afterwards or meanwhile, and
 * every message has a latency. */
static void test_an_honest_broker_is_even(void **state)
{
    (void)state;
    for (int together = 0; together <= 1; together++) {
        struct ledger ledger;
        assert_true(run(FAULT_NONE, together == 1, &ledger));
        assert_int_equal(ledger.sent, MESSAGES);
        assert_int_equal(ledger.received, MESSAGES);
        assert_int_equal(result.received, MESSAGES);
        assert_int_equal(result.end_to_end.count, MESSAGES);
        assert_false(result.stalled);
    }
}

struct fault_row {
    enum fault fault;
    uint64_t lost;
    uint64_t doubled;
    uint64_t foreign;
    uint64_t confirmed_twice;
};

/* Each way of being wrong is found, and counted as what it is. One that never confirms stops its
 * publishers at full windows, so that how far they come is not said. */
static void test_each_fault_is_counted(void **state)
{
    static const struct fault_row rows[] = {
        {.fault = FAULT_LOSE, .lost = HURT},
        {.fault = FAULT_DOUBLE, .doubled = HURT},
        {.fault = FAULT_ALTER, .lost = HURT, .foreign = HURT},
        {.fault = FAULT_CUT, .lost = HURT, .foreign = HURT},
        {.fault = FAULT_CONFIRM_NOT},
        {.fault = FAULT_CONFIRM_TWICE, .confirmed_twice = HURT},
        {.fault = FAULT_KEEP},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ledger ledger;
        print_message("fault %d\n", (int)rows[i].fault);
        assert_false(run(rows[i].fault, false, &ledger));
        assert_int_equal(ledger_lost(&ledger), rows[i].lost);
        assert_int_equal(ledger.doubled, rows[i].doubled);
        assert_int_equal(ledger.foreign, rows[i].foreign);
        assert_int_equal(ledger.confirmed_twice, rows[i].confirmed_twice);
        if (rows[i].fault == FAULT_CONFIRM_NOT) {
            assert_int_equal(ledger.sent - ledger.confirmed, HURT);
        }
    }
}

/* With two pulls under way the latency of a batch counts from its own pull: a broker that takes its
 * time for each is never found to be faster. */
static void test_a_batch_counts_from_its_pull(void **state)
{
    enum { PULL_US = 5000 };
    struct ledger ledger;
    const struct stage publish = {
        .publishers = 1,
        .window = 8,
        .size = SIZE,
        .count_max = 10 * BATCH,
        .patience_ms = PATIENCE_MS,
    };
    struct stage consume = {
        .consumers = 1, .size = SIZE, .batch = BATCH, .patience_ms = PATIENCE_MS};
    (void)state;
    memset(&broker, 0, sizeof broker);
    broker.pull_us = PULL_US;
    assert_null(ledger_init(&ledger, publish.count_max));
    run_stage(&publish, &ledger);
    run_stage(&consume, &ledger);
    ledger_deinit(&ledger);
    assert_int_equal(result.batches.count, 10);
    assert_true(histogram_quantile(&result.batches, 0) >= PULL_US * 9 / 10); /* its buckets */
}

/* What is published and not consumed must all be there. */
static void test_what_is_not_consumed_must_be_held(void **state)
{
    struct ledger ledger = {.sent = 10, .confirmed = 10};
    (void)state;
    assert_true(ledger_is_even(&ledger, 10, false));
    assert_false(ledger_is_even(&ledger, 9, false));
    assert_false(ledger_is_even(&ledger, 11, false));
    assert_false(ledger_is_even(&ledger, 10, true));
}

/* At a fixed rate a message is sent when it is due, not before, and its latency counts from then:
 * the whole takes as long as the schedule. */
static void test_a_rate_is_kept(void **state)
{
    struct ledger ledger;
    const struct stage stage = {
        .publishers = 2,
        .window = 8,
        .size = SIZE,
        .count_max = 100,
        .rate = 1000,
        .consumers = 1,
        .batch = 10,
        .patience_ms = PATIENCE_MS,
    };
    (void)state;
    memset(&broker, 0, sizeof broker);
    assert_null(ledger_init(&ledger, stage.count_max));
    run_stage(&stage, &ledger);
    ledger_deinit(&ledger);
    assert_int_equal(ledger.received, stage.count_max);
    assert_in_range(result.duration_us, 99000, UINT64_MAX);
}

static err_t run_threaded(uint32_t fails_after, uint64_t rate, struct ledger *ledger)
{
    const struct peer_address address = {.host = "127.0.0.1"};
    const struct stage stage = {
        .publishers = 3,
        .window = 4,
        .size = SIZE,
        .count_max = MESSAGES,
        .rate = rate,
        .patience_ms = PATIENCE_MS,
    };
    threaded_fails_after = fails_after;
    assert_null(ledger_init(ledger, MESSAGES));
    err_t err = driver_run(&threaded, &address, &stage, ledger, &result);
    ledger_deinit(ledger);
    return err;
}

/* Threads of a library keep their windows full by themselves, and their last confirmation ends the
 * work; at a rate that is higher than they can keep a full window holds the schedule up and goes on
 * when they have made room. */
static void test_threads_may_report(void **state)
{
    static const uint64_t rates[] = {0, 10000000};
    (void)state;
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct ledger ledger;
        assert_null(run_threaded(0, rates[i], &ledger));
        assert_int_equal(ledger.confirmed, MESSAGES);
        assert_int_equal(ledger.confirmed_twice, 0);
        assert_false(result.stalled);
    }
}

/* An error that one of them meets ends the run. */
static void test_an_error_of_a_thread_ends_the_run(void **state)
{
    struct ledger ledger;
    (void)state;
    err_t err = run_threaded(MESSAGES / 10, 0, &ledger);
    assert_int_equal(err_code(err), ERR_UNAVAILABLE);
    err_free(err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_honest_broker_is_even),
        cmocka_unit_test(test_each_fault_is_counted),
        cmocka_unit_test(test_a_batch_counts_from_its_pull),
        cmocka_unit_test(test_what_is_not_consumed_must_be_held),
        cmocka_unit_test(test_a_rate_is_kept),
        cmocka_unit_test(test_threads_may_report),
        cmocka_unit_test(test_an_error_of_a_thread_ends_the_run),
    };
    return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
