/* A broker in another program: how it opens and closes, beside others and asked by several threads.
 * What it is asked is in test_flare_broker_ask.c, its clients and its clock in
 * test_flare_broker_client.c. */
#include <flare/broker.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "tests/lib/fault.h"
#include "tests/lib/fds.h"
#include "tests/lib/orders.h"
#include "tests/lib/tmpdir.h"

/* Without options there is no socket, no file, and the time is now. */
static void test_defaults(void **state)
{
    (void)state;
    struct flare_broker *broker = orders_open_broker(NULL);
    assert_null(flare_broker_http_address(broker));
    assert_true(flare_broker_now_ms(broker) > UINT64_C(1700000000000));
    assert_int_equal(flare_broker_advance(broker, 1, &orders_error), FLARE_ERR_CONFLICT);
    assert_string_equal(orders_error.message, "the broker runs by the real clock");
    orders_put(broker);
    orders_check_depths(broker, (struct flare_depths){0});
    flare_broker_close(broker);
    flare_broker_close(NULL);
}

/* Lines of one broker, by as many of its threads as log. */
struct lines {
    pthread_mutex_t lock;
    char text[16384];
    size_t size;
};

static void keep_line(void *user, const char *line, size_t size)
{
    struct lines *lines = user;
    pthread_mutex_lock(&lines->lock);
    assert_true(lines->size + size < sizeof lines->text);
    memcpy(lines->text + lines->size, line, size);
    lines->size += size;
    pthread_mutex_unlock(&lines->lock);
}

/* Brokers of one process have messages, time and a log of their own. */
static void test_several(void **state)
{
    (void)state;
    enum { COUNT = 4 };
    struct flare_broker *brokers[COUNT];
    struct http_client clients[COUNT];
    static struct lines lines[COUNT];
    for (int index = 0; index < COUNT; index++) {
        char name[32];
        (void)snprintf(name, sizeof name, "number-%d", index);
        pthread_mutex_init(&lines[index].lock, NULL);
        brokers[index] =
            orders_open_broker(&(struct flare_broker_options){.http = "127.0.0.1:0",
                                                              .simulated_ms = ORDERS_START_MS,
                                                              .settings = "log-level = debug\n",
                                                              .name = name,
                                                              .log = keep_line,
                                                              .log_user = &lines[index]});
        orders_put(brokers[index]);
    }
    for (int index = 0; index < COUNT; index++) {
        orders_connect(brokers[index], &clients[index]);
        for (int count = 0; count < index; count++) {
            orders_publish(&clients[index], "x");
        }
        orders_must(flare_broker_advance(brokers[index], (uint64_t)index, &orders_error));
    }
    for (int index = 0; index < COUNT; index++) {
        orders_check_depths(brokers[index], (struct flare_depths){.enqueued = (uint64_t)index});
        assert_int_equal(flare_broker_now_ms(brokers[index]), ORDERS_START_MS + index);
        flare_broker_close(brokers[index]);
        http_client_deinit(&clients[index]);
        char name[32];
        (void)snprintf(name, sizeof name, "broker=number-%d", index);
        size_t count = 0;
        for (const char *line = lines[index].text; *line != '\0'; line = strchr(line, '\n') + 1) {
            const char *named = strstr(line, "broker=");
            assert_non_null(named);
            assert_memory_equal(named, name, strlen(name));
            count++;
        }
        assert_true(count >= 2); /* opened, closed */
        pthread_mutex_destroy(&lines[index].lock);
    }
}

/* What was confirmed is in the directory when it is opened again, and it has one owner at a time.
 */
static void test_directory(void **state)
{
    (void)state;
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    struct http_client client;
    struct flare_broker *other = NULL;
    tmpdir_init(&tmpdir);
    const struct flare_broker_options options = {.data = tmpdir_file(&tmpdir, "data", path),
                                                 .http = "127.0.0.1:0",
                                                 .settings = "volumes = 1\n"};
    struct flare_broker *broker = orders_open_broker(&options);
    orders_put(broker);
    orders_connect(broker, &client);
    orders_publish(&client, "kept");
    assert_int_equal(flare_broker_open(&options, &other, &orders_error), FLARE_ERR_LOCKED);
    assert_null(other);
    flare_broker_close(broker);
    http_client_deinit(&client);
    broker = orders_open_broker(&options);
    orders_check_depths(broker, (struct flare_depths){.enqueued = 1});
    flare_broker_close(broker);
    tmpdir_deinit(&tmpdir);
}

/* What cannot be opened is refused with its reason, and leaves nothing behind. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct flare_broker_options options;
        enum flare_code code;
        const char *message; /* its beginning */
    } cases[] = {
        {{.settings = "volumes = 65\n"}, FLARE_ERR_INVALID, "settings:1: volumes: "},
        {{.settings = "nonsense = 1\n"}, FLARE_ERR_INVALID, "settings:1: "},
        {{.settings = "data = /tmp\n"}, FLARE_ERR_INVALID, "settings: data, "},
        {{.settings = "http = 127.0.0.1:0\n"}, FLARE_ERR_INVALID, "settings: data, "},
        {{.http = "nowhere"}, FLARE_ERR_INVALID, "nowhere is not HOST:PORT"},
        {{.http = ""}, FLARE_ERR_INVALID, "http: "},
        {{.data = ""}, FLARE_ERR_INVALID, "data: "},
        {{.data = "/proc/none"}, FLARE_ERR_IO, "make the data directory /proc/none: "},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct flare_broker *broker = NULL;
        orders_error = (struct flare_error){.code = FLARE_OK};
        enum flare_code code = flare_broker_open(&cases[index].options, &broker, &orders_error);
        print_message("%s\n", orders_error.message);
        assert_int_equal(code, cases[index].code);
        assert_int_equal(orders_error.code, code);
        assert_memory_equal(orders_error.message, cases[index].message,
                            strlen(cases[index].message));
        assert_null(broker);
        assert_int_equal(flare_broker_open(&cases[index].options, &broker, NULL), code);
    }
}

/* The process is as it was: its files, its signals and the mask of its thread. */
static void test_leaves_process_alone(void **state)
{
    (void)state;
    struct sigaction before;
    struct sigaction after;
    sigset_t mask;
    size_t fds = fds_count();
    assert_int_equal(sigaction(SIGPIPE, NULL, &before), 0);
    struct flare_broker *broker = orders_open();
    assert_int_equal(sigaction(SIGPIPE, NULL, &after), 0);
    assert_true(after.sa_handler == before.sa_handler);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    assert_int_equal(sigismember(&mask, SIGINT), 0);
    flare_broker_close(broker);
    assert_int_equal(fds_count(), fds);
}

/* libuv ends the process when it finds no memory for a loop: its own is left out. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *data, size_t size);
void __libc_free(void *data);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* a sanitizer ends the process when it finds no memory for a thread */
#else
enum { SANITIZED = 0 };
#endif

/* Whichever allocation fails, opening fails as a whole or succeeds, and leaves nothing behind. */
static void test_open_without_memory(void **state)
{
    (void)state;
    if (SANITIZED) {
        skip();
    }
    const struct flare_broker_options options = {
        .http = "127.0.0.1:0", .settings = "log-level = error\n", .name = "small"};
    size_t fds = fds_count();
    size_t used = 0;
    assert_int_equal(
        uv_replace_allocator(__libc_malloc, __libc_realloc, __libc_calloc, __libc_free), 0);
    for (uint64_t nth = 1;; nth++) {
        struct flare_broker *broker = NULL;
        fault_alloc_nth(nth);
        enum flare_code code = flare_broker_open(&options, &broker, &orders_error);
        bool failed = fault_alloc_stop();
        if (code == FLARE_OK) {
            flare_broker_close(broker);
        } else {
            assert_true(failed);
            assert_null(broker);
            assert_int_equal(orders_error.code, code);
        }
        assert_int_equal(fds_count(), fds);
        used = nth == 1 ? mallinfo2().uordblks : used;
        assert_int_equal(mallinfo2().uordblks, used);
        if (!failed) {
            assert_int_equal(code, FLARE_OK);
            print_message("%u allocations\n", (unsigned)nth - 1);
            return;
        }
    }
}

/* A pull that waits is answered when its broker closes. */
static void test_close_answers(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_broker *broker = orders_open();
    orders_connect(broker, &client);
    const struct http_client_request request = {
        .method = "POST", .path = ORDERS_SUB "/pull", .body = span_text("{\"wait\":\"10s\"}")};
    assert_true(http_client_send(&client, &request));
    orders_must(flare_broker_await_pulls(broker, 1, ORDERS_PULLS_MAX_MS, &orders_error));
    flare_broker_close(broker);
    assert_int_equal(http_client_receive(&client), 503);
    http_client_deinit(&client);
}

static void *ask_often(void *user)
{
    struct flare_broker *broker = user;
    for (int index = 0; index < 50; index++) {
        struct flare_depths depths;
        assert_int_equal(flare_broker_depths(broker, &orders_source, &depths, NULL), FLARE_OK);
        assert_int_equal(flare_broker_advance(broker, 10, NULL), FLARE_OK);
    }
    return NULL;
}

/* Any thread may ask at any time. */
static void test_threads(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct flare_broker *broker = orders_open();
    for (int index = 0; index < THREADS; index++) {
        assert_int_equal(pthread_create(&threads[index], NULL, ask_often, broker), 0);
    }
    for (int index = 0; index < THREADS; index++) {
        pthread_join(threads[index], NULL);
    }
    assert_int_equal(flare_broker_now_ms(broker), ORDERS_START_MS + THREADS * 500);
    flare_broker_close(broker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_directory),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_leaves_process_alone),
        cmocka_unit_test(test_open_without_memory),
        cmocka_unit_test(test_close_answers),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
