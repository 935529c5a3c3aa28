/* The real broker on a disk that is full, fails, or lies.
 *
 * A full disk is a small tmpfs where mounting is permitted; a full or failing one is also played by
 * fault_preload.c inside of the process, switched while it runs. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "broker/base/random.h"
#include "tests/e2e/fault_control.h"
#include "tests/lib/deadline.h"
#include "tests/lib/scene.h"

enum {
    BODY_SIZE = 100 << 10,
    FILL_MAX = 2000, /* publishes until a disk must be full */
    FLIPS = 96,
    FLIP_MESSAGES = 200,
};

/* ---- a scene with a disk that can be made to fail ---- */

static struct fault_control *control;
static char control_path[TMPDIR_PATH_SIZE];

static void control_open(const struct tmpdir *tmpdir)
{
    static const struct fault_control none;
    tmpdir_write(tmpdir, "control", &none, sizeof none);
    tmpdir_file(tmpdir, "control", control_path);
    int fd = open(control_path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(control != MAP_FAILED);
    close(fd);
}

static void control_close(void)
{
    munmap(control, sizeof *control);
    control = NULL;
}

static void set(int32_t *error, int32_t value)
{
    __atomic_store_n(error, value, __ATOMIC_SEQ_CST);
}

/* Starts a broker on scene->data, with the faults inside of it. */
static void start_with_faults(struct scene *scene, const char *const *arguments)
{
    char preload[TMPDIR_PATH_SIZE];
    char variable[TMPDIR_PATH_SIZE + 32];
    char asan[512];
    const char *options = getenv("ASAN_OPTIONS");
    (void)snprintf(preload, sizeof preload, "LD_PRELOAD=%s",
                   FLARE_BUILD_DIR "/tests/e2e/fault_preload.so");
    (void)snprintf(variable, sizeof variable, FAULT_CONTROL_VARIABLE "=%s", control_path);
    (void)snprintf(asan, sizeof asan, "ASAN_OPTIONS=%s:verify_asan_link_order=0",
                   options == NULL ? "" : options);
    const char *const environment[] = {preload, variable, asan, NULL};
    broker_start(&scene->broker, &(struct broker_options){.data = scene->data,
                                                          .arguments = arguments,
                                                          .environment = environment});
    http_client_init(&scene->client, scene->broker.port);
}

static const char *const two_volumes[] = {"--volumes", "2", "--disk-reserve", "1m", NULL};

static void begin_with_faults(struct scene *scene, const char *file, const char *const *arguments)
{
    memset(scene, 0, sizeof *scene);
    tmpdir_init(&scene->tmpdir);
    tmpdir_file(&scene->tmpdir, "data", scene->data);
    control_open(&scene->tmpdir);
    (void)snprintf(control->file, sizeof control->file, "%s", file);
    start_with_faults(scene, arguments);
    scene_expect(&scene->client, 201, "PUT", SCENE_TOPIC, "{\"shards\":2}");
    scene_expect(&scene->client, 201, "PUT", SCENE_SUB, "{\"lease\":\"1h\"}");
}

static void end_with_faults(struct scene *scene)
{
    scene_deinit(scene);
    control_close();
}

static int try_publish(struct scene *scene, const char *headers, size_t size)
{
    static char body[BODY_SIZE];
    memset(body, 'x', sizeof body);
    return http_client_request(&scene->client,
                               &(struct http_client_request){.method = "POST",
                                                             .path = SCENE_TOPIC "/messages",
                                                             .headers = headers,
                                                             .body = span_of(body, size)});
}

static int64_t depth(struct scene *scene, const char *queue)
{
    scene_expect(&scene->client, 200, "GET", SCENE_SUB, NULL);
    return scene_number(&scene->client, queue);
}

/* ---- full ---- */

/* Publishes until the volumes are full; how many were confirmed. */
static int64_t fill(struct scene *scene)
{
    int64_t confirmed = 0;
    char text[32];
    for (unsigned i = 0; i < FILL_MAX; i++) {
        int status = try_publish(scene, NULL, BODY_SIZE);
        confirmed += status == 201;
        if (status == 507) {
            assert_string_equal(scene_text(&scene->client, "code", text, sizeof text), "no_space");
            assert_non_null(http_client_header(&scene->client, "Retry-After", text, sizeof text));
            return confirmed;
        }
        assert_int_equal(status, 201);
    }
    fail_msg("it is never full");
    return 0;
}

/* Everything but publishing works, a message at a time, for as long as one likes. */
static void check_full(struct scene *scene, int64_t backlog)
{
    struct scene_message message;
    assert_true(backlog > 30);
    for (unsigned i = 0; i < 30; i++) {
        static const char *const verbs[] = {"ack", "nack", "extend"};
        assert_int_equal(scene_pull(&scene->client, "{}", &message, 1), 1);
        scene_settle(&scene->client, 200, verbs[i % 3], message.receipt, "");
    }
    assert_int_equal(depth(scene, "delivery_queue.leased"), 10);
    assert_true(depth(scene, "enqueue_queue.depth") <= backlog - 20);
    scene_expect(&scene->client, 200, "GET", "/readyz?verbose", NULL);
    assert_non_null(strstr(scene->client.body, "full"));
    scene_expect(&scene->client, 200, "GET", "/metrics", NULL);
    assert_non_null(strstr(scene->client.body, "state=\"full\"} 1\n"));
}

/* Publishing works again, without a restart, some time after there is room; each volume looks for
 * it by itself. */
static void check_recovers(struct scene *scene)
{
    const struct deadline deadline = deadline_in(BROKER_TIMEOUT_MS);
    for (unsigned i = 0; i < 5; i++) {
        int status = try_publish(scene, NULL, BODY_SIZE);
        while (status == 507 && !deadline_passed(&deadline)) {
            status = try_publish(scene, NULL, BODY_SIZE);
        }
        assert_int_equal(status, 201);
    }
}

static void check_kept(struct scene *scene, int64_t confirmed, int64_t acked)
{
    int64_t kept = depth(scene, "enqueue_queue.depth");
    kept += scene_number(&scene->client, "delivery_queue.leased");
    kept += scene_number(&scene->client, "delivery_queue.scheduled");
    assert_int_equal(kept, confirmed - acked);
}

/* On a disk that has no room left, publishing is refused with 507 while everything else goes on; a
 * kill and a start on it work, and with room again so does publishing. */
static void test_full_disk_played(void **state)
{
    (void)state;
    struct scene scene;
    begin_with_faults(&scene, ".mdb", two_volumes);
    for (unsigned i = 0; i < 60; i++) {
        assert_int_equal(try_publish(&scene, NULL, BODY_SIZE), 201);
    }
    set(&control->growth_error, ENOSPC);
    int64_t confirmed = 60 + fill(&scene);
    check_full(&scene, confirmed);
    check_kept(&scene, confirmed, 10);
    broker_kill(&scene.broker);
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    start_with_faults(&scene, two_volumes);
    check_kept(&scene, confirmed, 10);
    struct scene_message message;
    assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 1);
    scene_settle(&scene.client, 200, "ack", message.receipt, "");
    set(&control->growth_error, 0);
    check_recovers(&scene);
    check_kept(&scene, confirmed + 5, 11);
    end_with_faults(&scene);
}

/* A relaxed topic's publishes are answered before it is known whether there is room: those that
 * find none wait for it, so that what was confirmed is there once there is, and after a stop. */
static void test_full_disk_relaxed(void **state)
{
    (void)state;
    struct scene scene;
    begin_with_faults(&scene, ".mdb", two_volumes);
    scene_expect(&scene.client, 200, "PUT", SCENE_TOPIC, "{\"durability\":\"relaxed\"}");
    for (unsigned i = 0; i < 60; i++) {
        char text[16];
        assert_int_equal(try_publish(&scene, NULL, BODY_SIZE), 201);
        assert_string_equal(scene_text(&scene.client, "durability", text, sizeof text), "relaxed");
    }
    set(&control->growth_error, ENOSPC);
    int64_t confirmed = 60 + fill(&scene);
    check_full(&scene, confirmed);
    set(&control->growth_error, 0);
    check_recovers(&scene);
    check_kept(&scene, confirmed + 5, 10);
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    scene_start(&scene, two_volumes);
    check_kept(&scene, confirmed + 5, 10);
    end_with_faults(&scene);
}

/* Takes all the room that is left. */
static void take_room(const char *path)
{
    static char block[1 << 16];
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, block, sizeof block) > 0) {
    }
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

/* The same on a real one, which fills up by publishing. */
static void test_full_disk_real(void **state)
{
    (void)state;
    struct scene scene;
    char disk[TMPDIR_PATH_SIZE];
    char filler[TMPDIR_PATH_SIZE + 16];
    memset(&scene, 0, sizeof scene);
    tmpdir_init(&scene.tmpdir);
    tmpdir_file(&scene.tmpdir, "disk", disk);
    assert_int_equal(mkdir(disk, 0700), 0);
    /* Mounts of this process and of the brokers it starts only: none outlives them. */
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", disk, "tmpfs", 0, "size=32m") != 0) {
        print_message("mounting is not permitted: %s\n", strerror(errno));
        tmpdir_deinit(&scene.tmpdir);
        skip();
    }
    (void)snprintf(scene.data, sizeof scene.data, "%.400s/data", disk);
    (void)snprintf(filler, sizeof filler, "%.400s/filler", disk);
    scene_start(&scene, two_volumes);
    scene_expect(&scene.client, 201, "PUT", SCENE_TOPIC, "{\"shards\":2}");
    scene_expect(&scene.client, 201, "PUT", SCENE_SUB, "{\"lease\":\"1h\"}");
    for (unsigned i = 0; i < 60; i++) {
        assert_int_equal(try_publish(&scene, NULL, BODY_SIZE), 201);
    }
    take_room(filler);
    int64_t confirmed = 60 + fill(&scene);
    check_full(&scene, confirmed);
    check_kept(&scene, confirmed, 10);
    scene_expect(&scene.client, 200, "POST", SCENE_SUB "/purge", "{\"what\":[\"enqueued\"]}");
    assert_int_equal(depth(&scene, "enqueue_queue.depth"), 0);
    assert_int_equal(unlink(filler), 0);
    check_recovers(&scene);
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    assert_int_equal(umount(disk), 0);
    tmpdir_deinit(&scene.tmpdir);
}

/* At 90 % of the quota publishing is refused, nothing else is, and once messages are finished there
 * is room again. */
static void test_quota(void **state)
{
    (void)state;
    static const char *const arguments[] = {"--volumes",      "1",  "--quota", "8m",
                                            "--disk-reserve", "1m", NULL};
    struct scene scene;
    scene_init(&scene, arguments);
    scene_expect(&scene.client, 201, "PUT", SCENE_TOPIC, "{\"shards\":2}");
    scene_expect(&scene.client, 201, "PUT", SCENE_SUB, "{\"lease\":\"1h\"}");
    int64_t confirmed = fill(&scene);
    assert_in_range(confirmed, 40, 90);
    check_full(&scene, confirmed);
    check_kept(&scene, confirmed, 10);
    scene_expect(&scene.client, 200, "POST", SCENE_SUB "/purge", "{\"what\":\"all\"}");
    check_recovers(&scene);
    scene_deinit(&scene);
}

/* ---- failing ---- */

/* A key whose shard lies on volume `wanted`. */
static void find_key(struct scene *scene, int64_t wanted, char header[64])
{
    int64_t volumes[2];
    scene_expect(&scene->client, 200, "GET", SCENE_TOPIC "/shards", NULL);
    volumes[0] = scene_number(&scene->client, "items.0.volume");
    volumes[1] = scene_number(&scene->client, "items.1.volume");
    for (unsigned i = 0;; i++) {
        (void)snprintf(header, 64, "Flare-Key: key-%u\r\n", i);
        assert_int_equal(try_publish(scene, header, 1), 201);
        if (volumes[scene_number(&scene->client, "shard")] == wanted) {
            return;
        }
    }
}

static int64_t total(struct scene *scene)
{
    return depth(scene, "enqueue_queue.depth") +
           scene_number(&scene->client, "delivery_queue.leased");
}

/* The volume whose disk fails stops at once and says why, also when the disk works again; the other
 * goes on; after a restart there is what was confirmed. */
static void check_failing(bool flush, const char *file)
{
    struct scene scene;
    char bad[64];
    char good[64];
    begin_with_faults(&scene, file, two_volumes);
    int32_t *error = flush ? &control->flush_error : &control->write_error;
    find_key(&scene, 0, bad);
    find_key(&scene, 1, good);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(try_publish(&scene, i % 2 == 0 ? bad : good, 100), 201);
    }
    int64_t confirmed = total(&scene);
    set(error, EIO);
    int status = try_publish(&scene, bad, 100);
    assert_true(status == 503 || status == 500);
    set(error, 0); /* too late: what the kernel dropped will not come back */
    assert_int_equal(try_publish(&scene, bad, 100), 503);
    assert_int_equal(try_publish(&scene, good, 100), 201);
    confirmed++;
    scene_expect(&scene.client, 503, "GET", "/readyz?verbose", NULL);
    assert_non_null(strstr(scene.client.body, "[-] volume-0 failed: "));
    assert_non_null(strstr(scene.client.body, strerror(EIO)));
    assert_non_null(strstr(scene.client.body, "[+] volume-1 ok"));
    scene_expect(&scene.client, 200, "GET", "/healthz", NULL);
    scene_expect(&scene.client, 200, "GET", "/metrics", NULL);
    assert_non_null(
        strstr(scene.client.body, "flare_volume_state{volume=\"volume-0\",state=\"failed\"} 1\n"));
    struct scene_message message;
    assert_int_equal(scene_pull(&scene.client, "{}", &message, 1), 1);
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    scene_start(&scene, two_volumes);
    /* One whose flush has failed may be there or not, and was answered so. */
    int64_t doubtful = status == 500 ? 1 : 0;
    assert_in_range(total(&scene), confirmed, confirmed + doubtful);
    assert_int_equal(try_publish(&scene, bad, 100), 201);
    end_with_faults(&scene);
}

static void test_failing_flush(void **state)
{
    (void)state;
    check_failing(true, "volume-0.journal");
    check_failing(true, "volume-0.");
}

static void test_failing_write(void **state)
{
    (void)state;
    check_failing(false, "volume-0.journal");
    check_failing(false, "volume-0.");
}

/* The flush that follows relaxed publishes fails: the volume stops as for any other. Of what was
 * answered before, a start finds the first part, and all of what came before it. */
static void test_failing_flush_relaxed(void **state)
{
    (void)state;
    static const char *const one_volume[] = {"--volumes", "1", "--disk-reserve", "1m", NULL};
    struct scene scene;
    char text[16];
    int status;
    int64_t answered = 0;
    begin_with_faults(&scene, "volume-0.journal", one_volume);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(try_publish(&scene, NULL, 100), 201);
    }
    scene_expect(&scene.client, 200, "PUT", SCENE_TOPIC, "{\"durability\":\"relaxed\"}");
    set(&control->flush_error, EIO);
    while ((status = try_publish(&scene, NULL, 100)) == 201) {
        assert_string_equal(scene_text(&scene.client, "durability", text, sizeof text), "relaxed");
        answered++;
    }
    assert_int_equal(status, 503);
    set(&control->flush_error, 0);
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    scene_start(&scene, one_volume);
    assert_in_range(total(&scene), 10, 10 + answered);
    assert_int_equal(try_publish(&scene, NULL, 100), 201);
    end_with_faults(&scene);
}

/* ---- lying ---- */

struct image {
    uint8_t *data;
    size_t size;
};

static void read_image(const char *path, struct image *image)
{
    FILE *file = fopen(path, "rb");
    struct stat status;
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &status), 0);
    image->size = (size_t)status.st_size;
    image->data = malloc(image->size);
    assert_non_null(image->data);
    assert_int_equal(fread(image->data, 1, image->size, file), image->size);
    (void)fclose(file);
}

static void write_image(const char *path, const struct image *image)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(image->data, 1, image->size, file), image->size);
    assert_int_equal(fclose(file), 0);
}

static size_t flip_body(unsigned number, char body[256])
{
    size_t size = (size_t)snprintf(body, 256, "message %u ", number);
    while (size < 200) {
        body[size] = (char)('a' + (number + size) % 26);
        size++;
    }
    body[size] = '\0';
    return size;
}

/* Pulls all there is: every message delivered must be one that was published, whole. How many came;
 * the others must be dead letters for being damaged, or the broker says that it cannot read. */
static uint32_t check_delivered(struct scene *scene, bool *refused)
{
    static struct scene_message messages[FLIP_MESSAGES];
    uint32_t count = 0;
    for (;;) {
        int status = http_client_json(&scene->client, "POST", SCENE_SUB "/pull", "{\"max\":%d}",
                                      FLIP_MESSAGES);
        if (status != 200) {
            char *log = broker_log(&scene->broker);
            assert_true(status >= 500);
            assert_non_null(strstr(log, " error "));
            free(log);
            *refused = true;
            return count;
        }
        uint32_t more = scene_pulled(&scene->client, messages, FLIP_MESSAGES);
        for (uint32_t i = 0; i < more; i++) {
            char body[256];
            unsigned number = 0;
            assert_int_equal(sscanf(messages[i].body, "message %u ", &number), 1);
            flip_body(number, body);
            assert_string_equal(messages[i].body, body);
        }
        count += more;
        if (more == 0) {
            return count;
        }
    }
}

struct outcomes {
    unsigned whole, corrupt, refused, failed;
};

/* What was not delivered is a dead letter for being damaged. One whose damage hides even which
 * message it was is at least counted. */
static void check_missing(struct scene *scene, uint32_t delivered)
{
    int64_t dead = depth(scene, "delivery_queue.dead");
    if (dead > 0) {
        scene_expect(&scene->client, 200, "GET", SCENE_SUB "/messages?state=dead", NULL);
        assert_non_null(strstr(scene->client.body, "\"corrupt\""));
    }
    scene_expect(&scene->client, 200, "GET", "/metrics", NULL);
    bool counted = strstr(scene->client.body, "\nflare_corrupt_records_total 0\n") == NULL;
    if (!counted || (dead + delivered < FLIP_MESSAGES - 1)) {
        fail_msg("of %d messages %u are delivered and %ld are dead letters", FLIP_MESSAGES,
                 delivered, dead);
    }
}

static void check_flip(struct scene *scene, struct outcomes *outcomes)
{
    char log[4096];
    static const char *const arguments[] = {"--volumes", "1", NULL};
    const struct broker_options options = {.data = scene->data, .arguments = arguments};
    broker_launch(&scene->broker, &options);
    char line[PROCESS_LINE_SIZE];
    if (!process_read_line(&scene->broker.process, line, sizeof line, BROKER_TIMEOUT_MS)) {
        int status = process_wait(&scene->broker.process, BROKER_TIMEOUT_MS);
        char *text = broker_log(&scene->broker);
        (void)snprintf(log, sizeof log, "%s", text);
        free(text);
        broker_stop(&scene->broker);
        if (status != EX_DATAERR && status != EX_IOERR) {
            fail_msg("start ends with %d: %s", status, log);
        }
        assert_non_null(strstr(log, "volume-0"));
        outcomes->refused++;
        return;
    }
    json_t *ready = json_loads(line, 0, NULL);
    const char *http = json_string_value(json_object_get(ready, "http"));
    http_client_init(&scene->client, (uint16_t)strtoul(strrchr(http, ':') + 1, NULL, 10));
    json_decref(ready);
    bool refused = false;
    uint32_t count = check_delivered(scene, &refused);
    if (!refused && count < FLIP_MESSAGES) {
        check_missing(scene, count);
        outcomes->corrupt++;
    }
    outcomes->failed += refused;
    outcomes->whole += count == FLIP_MESSAGES;
    http_client_deinit(&scene->client);
    broker_stop(&scene->broker);
}

/* Where one of the messages' bodies lies in the file; SIZE_MAX: nowhere. */
static size_t place_of(const struct image *image, unsigned number)
{
    char body[256];
    size_t size = flip_body(number, body);
    const uint8_t *at = memmem(image->data, image->size, body, size);
    return at == NULL ? SIZE_MAX : (size_t)(at - image->data);
}

/* A bit that has changed on disk is never delivered: the message is a dead letter `corrupt`, or the
 * broker says that it cannot read its data, at start or when it meets it. */
static void test_flipped_bits(void **state)
{
    (void)state;
    struct scene scene;
    struct image image;
    struct image journal;
    struct random random;
    struct outcomes outcomes = {0};
    char path[TMPDIR_PATH_SIZE + 16];
    char journal_path[TMPDIR_PATH_SIZE + 20];
    static const char *const arguments[] = {"--volumes", "1", "--disk-reserve", "0", NULL};
    uint64_t seed = getenv("FLARE_SEED") == NULL ? 1 : strtoull(getenv("FLARE_SEED"), NULL, 10);
    random_init(&random, seed);
    scene_init(&scene, arguments);
    scene_expect(&scene.client, 201, "PUT", SCENE_TOPIC, NULL);
    scene_expect(&scene.client, 201, "PUT", SCENE_SUB, NULL);
    for (unsigned i = 0; i < FLIP_MESSAGES; i++) {
        char body[256];
        flip_body(i, body);
        scene_publish(&scene, NULL, body);
    }
    assert_int_equal(broker_terminate(&scene.broker, NULL), 0);
    http_client_deinit(&scene.client);
    broker_stop(&scene.broker);
    (void)snprintf(path, sizeof path, "%s/volume-0.mdb", scene.data);
    read_image(path, &image);
    (void)snprintf(journal_path, sizeof journal_path, "%s/volume-0.journal", scene.data);
    read_image(journal_path, &journal);
    for (unsigned flip = 0; flip < FLIPS; flip++) {
        /* Half of them in a body, the others anywhere. */
        size_t at = random_below(&random, image.size);
        if (flip % 2 == 0) {
            at = place_of(&image, (unsigned)random_below(&random, FLIP_MESSAGES)) +
                 random_below(&random, 200);
        }
        uint8_t bit = (uint8_t)(1U << random_below(&random, 8));
        assert_true(at < image.size);
        image.data[at] ^= bit;
        write_image(path, &image);
        image.data[at] ^= bit;
        write_image(journal_path,
                    &journal); /* that of the flip before goes on from the same commit */
        check_flip(&scene, &outcomes);
    }
    printf("{\"test\":\"flipped_bits\",\"seed\":%lu,\"flips\":%d,\"whole\":%u,\"corrupt\":%u,"
           "\"refused\":%u,\"failed\":%u}\n",
           seed, FLIPS, outcomes.whole, outcomes.corrupt, outcomes.refused, outcomes.failed);
    assert_true(outcomes.corrupt >= FLIPS / 4);
    free(image.data);
    free(journal.data);
    tmpdir_deinit(&scene.tmpdir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_disk_played), cmocka_unit_test(test_full_disk_relaxed),
        cmocka_unit_test(test_full_disk_real),   cmocka_unit_test(test_quota),
        cmocka_unit_test(test_failing_flush),    cmocka_unit_test(test_failing_flush_relaxed),
        cmocka_unit_test(test_failing_write),    cmocka_unit_test(test_flipped_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
