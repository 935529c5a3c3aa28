#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "broker/base/list.h"
#include "tests/lib/client_fixture.h"

static const struct flare_source source = {"t", "s"};

/* Handlers stand at a gate until the test lets them pass. */
struct client_gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t begun;  /* handlers that have come to it */
    uint32_t passes; /* that may go through */
    enum flare_verdict verdict;
    uint32_t lost_seen; /* handlers that found their lease lost */
    uint32_t lost_told;
    enum flare_code ended;
};

struct stream_scene {
    struct client_fixture fixture;
    struct client_gate gate;
    struct flare_stream_options options;
    struct flare_stream *stream;
    enum flare_code opened;
    struct flare_error error;
    uint64_t id; /* of the stream */
    pthread_t thread;
};

static void gate_wait(struct client_gate *gate, const uint32_t *what, uint32_t count)
{
    struct timespec until;
    int rc = 0;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += FAKE_BROKER_TIMEOUT_MS / 1000;
    (void)pthread_mutex_lock(&gate->lock);
    while (*what < count && rc == 0) {
        rc = pthread_cond_timedwait(&gate->changed, &gate->lock, &until);
    }
    (void)pthread_mutex_unlock(&gate->lock);
    assert_int_equal(rc, 0);
}

static void gate_open(struct client_gate *gate, uint32_t passes)
{
    (void)pthread_mutex_lock(&gate->lock);
    gate->passes += passes;
    (void)pthread_cond_broadcast(&gate->changed);
    (void)pthread_mutex_unlock(&gate->lock);
}

static enum flare_verdict handle(void *user, const struct flare_delivery *delivery)
{
    struct client_gate *gate = user;
    (void)pthread_mutex_lock(&gate->lock);
    gate->begun++;
    (void)pthread_cond_broadcast(&gate->changed);
    while (gate->passes == 0) {
        (void)pthread_cond_wait(&gate->changed, &gate->lock);
    }
    gate->passes--;
    gate->lost_seen += flare_delivery_lost(delivery);
    enum flare_verdict verdict = gate->verdict;
    (void)pthread_cond_broadcast(&gate->changed);
    (void)pthread_mutex_unlock(&gate->lock);
    return verdict;
}

static void on_lost(void *user, const struct flare_delivery *delivery)
{
    struct client_gate *gate = user;
    (void)pthread_mutex_lock(&gate->lock);
    gate->lost_told += flare_delivery_lost(delivery);
    (void)pthread_cond_broadcast(&gate->changed);
    (void)pthread_mutex_unlock(&gate->lock);
}

static void on_end(void *user, const struct flare_error *error)
{
    struct client_gate *gate = user;
    (void)pthread_mutex_lock(&gate->lock);
    gate->ended = error->code;
    (void)pthread_cond_broadcast(&gate->changed);
    (void)pthread_mutex_unlock(&gate->lock);
}

static void scene_init(struct stream_scene *scene)
{
    memset(scene, 0, sizeof *scene);
    client_fixture_init(&scene->fixture);
    client_fixture_connect(&scene->fixture);
    assert_int_equal(pthread_mutex_init(&scene->gate.lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&scene->gate.changed, NULL), 0);
    scene->gate.verdict = FLARE_ACK;
    scene->options = (struct flare_stream_options){.handler = handle,
                                                   .user = &scene->gate,
                                                   .lease_ms = 12 * 60 * 60 * 1000,
                                                   .on_lost = on_lost,
                                                   .on_end = on_end};
}

static void scene_deinit(struct stream_scene *scene)
{
    client_fixture_deinit(&scene->fixture);
    (void)pthread_mutex_destroy(&scene->gate.lock);
    (void)pthread_cond_destroy(&scene->gate.changed);
}

static void *open_stream(void *context)
{
    struct stream_scene *scene = context;
    scene->opened = flare_stream_open(scene->fixture.client, &source, &scene->options,
                                      &scene->stream, &scene->error);
    return NULL;
}

static void *close_stream(void *context)
{
    struct stream_scene *scene = context;
    flare_stream_close(scene->stream);
    return NULL;
}

static void scene_begin(struct stream_scene *scene, void *(*run)(void *))
{
    assert_int_equal(pthread_create(&scene->thread, NULL, run, scene), 0);
}

static void scene_end(struct stream_scene *scene)
{
    assert_int_equal(pthread_join(scene->thread, NULL), 0);
}

static void answer_ping(struct stream_scene *scene)
{
    struct wire_frame frame;
    fake_broker_expect(&scene->fixture.fake, WIRE_ping, &frame);
    const struct wire_pong pong = {.id = frame.id};
    fake_broker_send(&scene->fixture.fake, WIRE_pong, &pong);
}

/* Opens it; `consume` is what the client asked for. */
static void scene_open(struct stream_scene *scene, struct wire_frame *consume)
{
    scene_begin(scene, open_stream);
    fake_broker_expect(&scene->fixture.fake, WIRE_consume, consume);
    scene->id = consume->id;
    answer_ping(scene);
    scene_end(scene);
    assert_int_equal(scene->opened, FLARE_OK);
}

static void send_ended(struct stream_scene *scene, enum flare_code code)
{
    const struct wire_ended ended = {.id = scene->id,
                                     .code = (uint32_t)code,
                                     .slug = span_text(flare_code_name(code)),
                                     .detail = span_text("because")};
    fake_broker_send(&scene->fixture.fake, WIRE_ended, &ended);
}

static void expect_credit(struct stream_scene *scene, uint32_t messages)
{
    struct wire_frame frame;
    fake_broker_expect(&scene->fixture.fake, WIRE_credit, &frame);
    assert_int_equal(frame.id, scene->id);
    assert_int_equal(frame.credit.messages, messages);
}

/* Closes it when nothing is left to settle. */
static void scene_close(struct stream_scene *scene)
{
    struct wire_frame frame;
    scene_begin(scene, close_stream);
    fake_broker_expect(&scene->fixture.fake, WIRE_cancel, &frame);
    assert_int_equal(frame.id, scene->id);
    send_ended(scene, FLARE_OK);
    scene_end(scene);
}

static void deliver(struct stream_scene *scene, uint32_t first, uint32_t count)
{
    fake_broker_deliver(&scene->fixture.fake, WIRE_deliver, scene->id, first, count);
}

/* Opens it; the handler acks one message, and `ack` is what the broker is told. */
static void scene_ack_one(struct stream_scene *scene, struct wire_frame *ack)
{
    struct wire_frame consume;
    scene_init(scene);
    scene_open(scene, &consume);
    deliver(scene, 0, 1);
    gate_open(&scene->gate, 1);
    fake_broker_expect(&scene->fixture.fake, WIRE_ack, ack);
}

/* Agrees to what comes until so many messages have been acked. */
static void settle_acks(struct stream_scene *scene, uint32_t count)
{
    struct wire_frame frame;
    for (uint32_t acked = 0; acked < count;) {
        fake_broker_expect_any(&scene->fixture.fake, &frame);
        if (frame.type == WIRE_ack || frame.type == WIRE_extend) {
            acked += frame.type == WIRE_ack ? frame.ack.receipts.count : 0;
            fake_broker_settle(&scene->fixture.fake, &frame, FLARE_OK);
        }
    }
}

/* Waits until the broker's word on verdicts has been counted. */
static struct flare_stream_counts counts_when(struct stream_scene *scene, uint64_t settled)
{
    struct flare_stream_counts counts;
    do {
        flare_stream_get_counts(scene->stream, &counts);
    } while (counts.acked + counts.nacked + counts.rejected + counts.kept + counts.lost < settled);
    return counts;
}

/* ---- credit -----------------------------------------------------------------------------------
 */

/* Credit is what can be begun at once, and comes back as handlers return. */
static void test_credit(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene.options.concurrency = 2;
    scene.options.prefetch = 1;
    scene.options.consumer = "me";
    scene_open(&scene, &frame);
    assert_int_equal(frame.consume.messages, 3);
    assert_int_equal(frame.consume.bytes, 16 << 20);
    assert_int_equal(frame.consume.lease_ms, 12 * 60 * 60 * 1000);
    assert_true(span_is(frame.consume.consumer, "me"));
    deliver(&scene, 0, 3);
    gate_wait(&scene.gate, &scene.gate.begun, 2);
    struct flare_stream_counts counts;
    flare_stream_get_counts(scene.stream, &counts);
    assert_int_equal(counts.delivered, 3);
    assert_int_equal(counts.running, 2);
    assert_int_equal(counts.waiting, 1);
    assert_true(fake_broker_is_quiet(&scene.fixture.fake, 30));
    gate_open(&scene.gate, 1);
    fake_broker_expect(&scene.fixture.fake, WIRE_ack, &frame);
    assert_int_equal(frame.ack.receipts.count, 1);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
    expect_credit(&scene, 1);
    gate_wait(&scene.gate, &scene.gate.begun, 3);
    gate_open(&scene.gate, 2);
    settle_acks(&scene, 2);
    counts = counts_when(&scene, 3);
    assert_int_equal(counts.acked, 3);
    assert_int_equal(counts.running, 0);
    (void)fake_broker_is_quiet(&scene.fixture.fake, 30);
    fake_broker_drain(&scene.fixture.fake);
    scene_close(&scene);
    scene_deinit(&scene);
}

/* More than was granted is the broker's fault. */
static void test_too_much(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene_open(&scene, &frame);
    deliver(&scene, 0, 2);
    fake_broker_accept(&scene.fixture.fake);
    fake_broker_expect(&scene.fixture.fake, WIRE_consume, &frame);
    assert_int_equal(frame.consume.messages, 1);
    scene.id = frame.id;
    scene_close(&scene);
    scene_deinit(&scene);
}

/* ---- verdicts ---------------------------------------------------------------------------------
 */

static void test_verdicts(void **state)
{
    (void)state;
    static const struct {
        enum flare_verdict verdict;
        enum wire_type type; /* 0: nothing is sent */
        bool reject;
    } cases[] = {{FLARE_ACK, WIRE_ack, false},
                 {FLARE_NACK, WIRE_nack, false},
                 {FLARE_REJECT, WIRE_nack, true},
                 {(enum flare_verdict)77, WIRE_nack, false},
                 {FLARE_KEEP, (enum wire_type)0, false}};
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene_open(&scene, &frame);
    for (uint32_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        scene.gate.verdict = cases[index].verdict;
        deliver(&scene, index, 1);
        gate_open(&scene.gate, 1);
        if (cases[index].type != 0) {
            fake_broker_expect(&scene.fixture.fake, cases[index].type, &frame);
            if (frame.type == WIRE_nack) {
                assert_true(frame.nack.delay_ms == WIRE_NIL);
                assert_int_equal(frame.nack.reject, cases[index].reject);
            }
            fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
        }
        expect_credit(&scene, 1);
    }
    struct flare_stream_counts counts = counts_when(&scene, 5);
    assert_int_equal(counts.acked, 1);
    assert_int_equal(counts.nacked, 2);
    assert_int_equal(counts.rejected, 1);
    assert_int_equal(counts.kept, 1);
    scene_close(&scene);
    scene_deinit(&scene);
}

/* A verdict that may not have arrived is sent again over the next connection, and the stream is
 * opened anew. */
static void test_verdicts_survive(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_ack_one(&scene, &frame);
    expect_credit(&scene, 1);
    fake_broker_cut(&scene.fixture.fake);
    fake_broker_accept(&scene.fixture.fake);
    bool is_acked = false;
    bool is_open = false;
    while (!is_acked || !is_open) {
        fake_broker_expect_any(&scene.fixture.fake, &frame);
        is_acked = is_acked || frame.type == WIRE_ack;
        if (frame.type == WIRE_ack) {
            fake_broker_settle(&scene.fixture.fake, &frame, FLARE_ERR_LEASE_LOST);
        } else {
            assert_int_equal(frame.type, WIRE_consume);
            assert_int_equal(frame.consume.messages, 1);
            scene.id = frame.id;
            is_open = true;
        }
    }
    struct flare_stream_counts counts = counts_when(&scene, 1);
    assert_int_equal(counts.lost, 1);
    scene_close(&scene);
    scene_deinit(&scene);
}

/* A busy broker is told again, and not at once. */
static void test_busy_verdicts(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_ack_one(&scene, &frame);
    uint64_t id = frame.id;
    expect_credit(&scene, 1);
    fake_broker_fail(&scene.fixture.fake, id, FLARE_ERR_BUSY);
    fake_broker_expect(&scene.fixture.fake, WIRE_ack, &frame);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
    assert_int_equal(counts_when(&scene, 1).acked, 1);
    scene_close(&scene);
    scene_deinit(&scene);
}

/* So it is with the one verdict of several that a part of the broker was too busy for. */
static void test_busy_for_one_verdict(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    bool was_busy = false;
    scene_init(&scene);
    scene.options.concurrency = 3;
    scene_open(&scene, &frame);
    deliver(&scene, 0, 3);
    gate_open(&scene.gate, 3);
    for (uint32_t acked = 0; acked < 3;) {
        fake_broker_expect_any(&scene.fixture.fake, &frame);
        bool is_refused = false;
        for (uint32_t index = 0; frame.type == WIRE_ack && index < frame.ack.receipts.count;
             index++) {
            is_refused = is_refused || (!was_busy && fake_broker_has_receipt(&frame, index, "m1"));
            acked++;
        }
        if (is_refused) {
            was_busy = true;
            acked--;
            fake_broker_settle_but(&scene.fixture.fake, &frame, "m1", FLARE_ERR_BUSY);
        } else if (frame.type == WIRE_ack) {
            fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
        }
    }
    struct flare_stream_counts counts = counts_when(&scene, 3);
    assert_true(was_busy);
    assert_int_equal(counts.acked, 3);
    assert_int_equal(counts.lost, 0);
    (void)fake_broker_is_quiet(&scene.fixture.fake, 30);
    fake_broker_drain(&scene.fixture.fake);
    scene_close(&scene);
    scene_deinit(&scene);
}

/* ---- leases -----------------------------------------------------------------------------------
 */

/* Leases are extended at half of their time for as long as the handler runs. */
static void test_extension(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene.options.lease_ms = 100;
    scene_open(&scene, &frame);
    deliver(&scene, 0, 1);
    for (uint32_t round = 0; round < 3; round++) {
        fake_broker_expect(&scene.fixture.fake, WIRE_extend, &frame);
        assert_int_equal(frame.extend.lease_ms, 100);
        assert_int_equal(frame.extend.receipts.count, 1);
        fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
    }
    gate_open(&scene.gate, 1);
    fake_broker_expect(&scene.fixture.fake, WIRE_ack, &frame);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
    expect_credit(&scene, 1);
    scene_close(&scene);
    assert_int_equal(scene.gate.lost_told, 0);
    scene_deinit(&scene);
}

/* How long a subscription's leases are is learned by extending one. */
static void test_learning(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene.options.lease_ms = 0;
    scene.options.prefetch = 2;
    scene_open(&scene, &frame);
    deliver(&scene, 0, 3);
    fake_broker_expect(&scene.fixture.fake, WIRE_extend, &frame);
    assert_int_equal(frame.extend.receipts.count, 1);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK); /* 400 ms */
    fake_broker_expect(&scene.fixture.fake, WIRE_extend, &frame);
    assert_in_range(frame.extend.receipts.count, 2, 3);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
    gate_open(&scene.gate, 3);
    settle_acks(&scene, 3);
    (void)counts_when(&scene, 3);
    fake_broker_drain(&scene.fixture.fake);
    scene_close(&scene);
    scene_deinit(&scene);
}

static void test_no_extension(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene.options.lease_ms = 100;
    scene.options.no_extend = true;
    scene_open(&scene, &frame);
    deliver(&scene, 0, 1);
    assert_true(fake_broker_is_quiet(&scene.fixture.fake, 150));
    gate_open(&scene.gate, 1);
    fake_broker_expect(&scene.fixture.fake, WIRE_ack, &frame);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_ERR_LEASE_LOST);
    expect_credit(&scene, 1);
    assert_int_equal(counts_when(&scene, 1).lost, 1);
    scene_close(&scene);
    scene_deinit(&scene);
}

/* A handler learns that its lease is lost, and a message that waits is not begun without one. */
static void test_lost_leases(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene.options.lease_ms = 100;
    scene.options.prefetch = 1;
    scene_open(&scene, &frame);
    deliver(&scene, 0, 2);
    gate_wait(&scene.gate, &scene.gate.begun, 1);
    fake_broker_expect(&scene.fixture.fake, WIRE_extend, &frame);
    assert_int_equal(frame.extend.receipts.count, 2);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_ERR_LEASE_LOST);
    gate_wait(&scene.gate, &scene.gate.lost_told, 1);
    expect_credit(&scene, 1);
    gate_open(&scene.gate, 1);
    expect_credit(&scene, 1);
    struct flare_stream_counts counts = counts_when(&scene, 2);
    assert_int_equal(counts.lost, 2);
    assert_int_equal(counts.waiting, 0);
    assert_int_equal(scene.gate.begun, 1);
    assert_int_equal(scene.gate.lost_seen, 1);
    scene_close(&scene);
    scene_deinit(&scene);
}

/* ---- the end ----------------------------------------------------------------------------------
 */

static void test_refused(void **state)
{
    (void)state;
    static const bool forms[] = {true, false};
    for (size_t index = 0; index < 2; index++) {
        struct stream_scene scene;
        struct wire_frame frame;
        scene_init(&scene);
        scene_begin(&scene, open_stream);
        fake_broker_expect(&scene.fixture.fake, WIRE_consume, &frame);
        scene.id = frame.id;
        if (forms[index]) {
            fake_broker_fail(&scene.fixture.fake, frame.id, FLARE_ERR_NOT_FOUND);
        } else {
            send_ended(&scene, FLARE_ERR_BUSY);
        }
        answer_ping(&scene);
        scene_end(&scene);
        assert_int_equal(scene.opened, forms[index] ? FLARE_ERR_NOT_FOUND : FLARE_ERR_BUSY);
        assert_int_equal(scene.error.code, scene.opened);
        assert_null(scene.stream);
        scene_deinit(&scene);
    }
}

/* What may pass is tried again, what does not is told. */
static void test_ended(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene_open(&scene, &frame);
    send_ended(&scene, FLARE_ERR_UNAVAILABLE);
    fake_broker_expect(&scene.fixture.fake, WIRE_consume, &frame);
    scene.id = frame.id;
    assert_int_equal(scene.gate.ended, FLARE_OK);
    send_ended(&scene, FLARE_ERR_NOT_FOUND);
    (void)pthread_mutex_lock(&scene.gate.lock);
    while (scene.gate.ended == FLARE_OK) {
        (void)pthread_cond_wait(&scene.gate.changed, &scene.gate.lock);
    }
    (void)pthread_mutex_unlock(&scene.gate.lock);
    assert_int_equal(scene.gate.ended, FLARE_ERR_NOT_FOUND);
    flare_stream_close(scene.stream);
    scene_deinit(&scene);
}

/* Closing gives back what no handler has begun, and waits for those that run. */
static void test_close(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_init(&scene);
    scene.options.prefetch = 3;
    scene_open(&scene, &frame);
    deliver(&scene, 0, 3);
    gate_wait(&scene.gate, &scene.gate.begun, 1);
    scene_begin(&scene, close_stream);
    fake_broker_expect(&scene.fixture.fake, WIRE_nack, &frame);
    assert_int_equal(frame.nack.receipts.count, 2);
    assert_int_equal(frame.nack.delay_ms, 0);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
    fake_broker_expect(&scene.fixture.fake, WIRE_cancel, &frame);
    /* On its way when the stream was cancelled. */
    deliver(&scene, 3, 1);
    fake_broker_expect(&scene.fixture.fake, WIRE_nack, &frame);
    assert_int_equal(frame.nack.receipts.count, 1);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
    send_ended(&scene, FLARE_OK);
    gate_open(&scene.gate, 1);
    fake_broker_expect(&scene.fixture.fake, WIRE_ack, &frame);
    fake_broker_settle(&scene.fixture.fake, &frame, FLARE_OK);
    scene_end(&scene);
    assert_int_equal(scene.gate.begun, 1);
    scene_deinit(&scene);
}

/* Closing the client ends its streams. */
static void test_close_client(void **state)
{
    (void)state;
    struct stream_scene scene;
    struct wire_frame frame;
    scene_ack_one(&scene, &frame);
    fake_broker_refuse(&scene.fixture.fake, UINT32_MAX);
    fake_broker_cut(&scene.fixture.fake);
    scene_deinit(&scene);
    assert_int_equal(scene.gate.begun, 1);
}

static void on_end_close(void *user, const struct flare_error *error)
{
    (void)error;
    flare_stream_close(container_of(user, struct stream_scene, gate)->stream);
}

/* Ends by a signal. */
static void close_in_a_callback(void)
{
    static const struct rlimit no_core = {0, 0};
    struct stream_scene scene;
    struct wire_frame frame;
    (void)setrlimit(RLIMIT_CORE, &no_core);
    scene_init(&scene);
    scene.options.on_end = on_end_close;
    scene_open(&scene, &frame);
    (void)alarm(FAKE_BROKER_TIMEOUT_MS / 1000);
    send_ended(&scene, FLARE_ERR_NOT_FOUND);
    for (;;) {
        (void)pause();
    }
}

/* A callback that closes its stream would wait for itself: it is told so at once. */
static void test_close_in_a_callback(void **state)
{
    (void)state;
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        close_in_a_callback();
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_wrong_options(void **state)
{
    (void)state;
    struct stream_scene scene;
    static const struct flare_source bad = {"", "s"};
    scene_init(&scene);
    const struct flare_stream_options cases[] = {
        {.handler = NULL},
        {.handler = handle, .concurrency = 1025},
        {.handler = handle, .prefetch = (1 << 20) + 1},
        {.handler = handle, .bytes = (1 << 30) + 1},
        {.handler = handle, .lease_ms = 99},
        {.handler = handle, .lease_ms = 12 * 60 * 60 * 1000 + 1},
        {.handler = handle, .consumer = "\n"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        assert_int_equal(flare_stream_open(scene.fixture.client, &source, &cases[index],
                                           &scene.stream, &scene.error),
                         FLARE_ERR_INVALID);
    }
    assert_int_equal(
        flare_stream_open(scene.fixture.client, &bad, &scene.options, &scene.stream, &scene.error),
        FLARE_ERR_INVALID);
    flare_stream_close(NULL);
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_credit),        cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_verdicts),      cmocka_unit_test(test_verdicts_survive),
        cmocka_unit_test(test_busy_verdicts), cmocka_unit_test(test_busy_for_one_verdict),
        cmocka_unit_test(test_extension),     cmocka_unit_test(test_learning),
        cmocka_unit_test(test_no_extension),  cmocka_unit_test(test_lost_leases),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_ended),
        cmocka_unit_test(test_close),         cmocka_unit_test(test_close_client),
        cmocka_unit_test(test_wrong_options), cmocka_unit_test(test_close_in_a_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
