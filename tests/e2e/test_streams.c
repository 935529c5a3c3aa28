/* A thousand credit streams whose clients have stopped reading and granting, over a large backlog:
 * each holds exactly its credit, the broker's memory does not grow with them or with the backlog,
 * and what they were not granted goes to others. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/wire/message.h"
#include "client/flare.h"
#include "tests/lib/scene.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { BACKLOG = 100000, IS_PLAIN = 0 }; /* their own memory is not the broker's */
#else
enum { BACKLOG = 1000000, IS_PLAIN = 1 };
#endif

enum {
    STREAMS = 1000,
    CREDIT = 50,
    BODY_SIZE = 100,
    BATCH = 1000,
    STREAM_KIB_MAX = 16, /* resident memory of the broker for each */
};

/* What the broker has taken for itself: pages of the store's files are the page cache's. */
static uint64_t resident_kib(const struct scene *scene)
{
    char path[64];
    char line[256];
    unsigned long kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)scene->broker.process.pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0) {
            kib = strtoul(line + 8, NULL, 10);
        }
    }
    (void)fclose(file);
    assert_int_not_equal(kib, 0);
    return kib;
}

static struct flare_client *connect_client(const struct scene *scene)
{
    char url[64];
    struct flare_client *client = NULL;
    struct flare_error error = {0};
    (void)snprintf(url, sizeof url, "flare://127.0.0.1:%u", scene->broker.wire_port);
    const struct flare_options options = {.url = url, .name = "streams"};
    if (flare_connect(&options, &client, &error) != FLARE_OK) {
        fail_msg("%s", error.message);
    }
    return client;
}

static void fill(struct flare_client *client)
{
    static uint8_t body[BODY_SIZE];
    struct flare_error error = {0};
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    for (int count = 0; count < BACKLOG; count++) {
        assert_int_equal(flare_publish_async(client, "t", &message, NULL, NULL, &error), FLARE_OK);
    }
    assert_int_equal(flare_flush(client, 120000, &error), FLARE_OK);
}

/* A connection that opens a stream and never looks at it again. */
static int open_stalled(const struct scene *scene)
{
    struct buf frames;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(scene->broker.wire_port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    buf_init(&frames, 4096);
    wire_encode(&frames, WIRE_hello, &(struct wire_hello){.id = 1, .version = 1});
    const struct wire_consume consume = {.id = 2,
                                         .topic = span_text("t"),
                                         .subscription = span_text("s"),
                                         .messages = CREDIT,
                                         .bytes = 1 << 20};
    wire_encode(&frames, WIRE_consume, &consume);
    assert_int_equal(write(fd, frames.data, frames.size), (ssize_t)frames.size);
    buf_deinit(&frames);
    return fd;
}

static int64_t leased(struct scene *scene)
{
    scene_expect(&scene->client, 200, "GET", SCENE_SUB, NULL);
    return scene_number(&scene->client, "delivery_queue.leased");
}

static void test_stalled_streams(void **state)
{
    (void)state;
    static int fds[STREAMS];
    struct rlimit limit;
    struct scene scene;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    scene_init_topic(&scene, NULL, "{\"lease\":\"10m\"}");
    struct flare_client *client = connect_client(&scene);
    fill(client);
    scene_expect(&scene.client, 200, "GET", SCENE_SUB, NULL);
    assert_int_equal(scene_number(&scene.client, "enqueue_queue.depth"), BACKLOG);
    uint64_t before_kib = resident_kib(&scene);
    for (int index = 0; index < STREAMS; index++) {
        fds[index] = open_stalled(&scene);
    }
    while (leased(&scene) < (int64_t)STREAMS * CREDIT) {
        /* Each look is a round trip through the volumes that lease. */
    }
    /* Others get what is left, and while they do the stalled ones get nothing more. */
    uint64_t taken = 0;
    struct flare_batch *batch = NULL;
    const struct flare_source source = {.topic = "t", .subscription = "s"};
    const struct flare_pull pull = {.max = BATCH};
    do {
        flare_batch_free(batch);
        batch = NULL;
        assert_int_equal(flare_pull(client, &source, &pull, &batch, NULL), FLARE_OK);
        taken += flare_batch_count(batch);
        if (flare_batch_count(batch) > 0) {
            assert_int_equal(flare_batch_ack(client, batch, NULL), FLARE_OK);
        }
    } while (flare_batch_count(batch) > 0);
    flare_batch_free(batch);
    assert_int_equal(taken, BACKLOG - STREAMS * CREDIT);
    assert_int_equal(leased(&scene), STREAMS * CREDIT);
    uint64_t after_kib = resident_kib(&scene);
    if (IS_PLAIN && after_kib > before_kib + STREAMS * STREAM_KIB_MAX) {
        fail_msg("%d stalled streams took the broker from %llu to %llu KiB", STREAMS,
                 (unsigned long long)before_kib, (unsigned long long)after_kib);
    }
    print_message("%d streams: %llu KiB before, %llu KiB after\n", STREAMS,
                  (unsigned long long)before_kib, (unsigned long long)after_kib);
    for (int index = 0; index < STREAMS; index++) {
        close(fds[index]);
    }
    flare_close(client);
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stalled_streams)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
