/* The examples of the C library, run against the real broker, and what they are to have done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/client_scene.h"
#include "tests/lib/relay.h"

enum { EXAMPLE_TIMEOUT_MS = 100000, ARGUMENTS_MAX = 8 };

struct example {
    struct process process;
    char address[32];
};

static void example_start(struct example *example, uint16_t wire_port, const char *const *arguments)
{
    const char *all[ARGUMENTS_MAX + 1] = {NULL};
    char program[TMPDIR_PATH_SIZE];
    (void)snprintf(program, sizeof program, "%s/examples/%s", FLARE_BUILD_DIR, arguments[0]);
    (void)snprintf(example->address, sizeof example->address, "127.0.0.1:%u", wire_port);
    all[0] = program;
    for (size_t index = 1; arguments[index] != NULL; index++) {
        assert_true(index < ARGUMENTS_MAX);
        all[index] = strcmp(arguments[index], "ADDRESS") == 0 ? example->address : arguments[index];
    }
    process_start(&example->process, &(const struct process_options){.arguments = all});
}

/* Its last line, after which it must end well. */
static void example_end(struct example *example, char *line, size_t size)
{
    if (!process_read_line(&example->process, line, size, EXAMPLE_TIMEOUT_MS)) {
        fail_msg("an example says nothing (exit status %d)",
                 process_wait(&example->process, EXAMPLE_TIMEOUT_MS));
    }
    assert_int_equal(process_wait(&example->process, EXAMPLE_TIMEOUT_MS), 0);
    process_stop(&example->process);
}

static void test_job_queue(void **state)
{
    (void)state;
    struct scene scene;
    struct example example;
    char line[256];
    scene_init(&scene, NULL);
    example_start(&example, scene.broker.wire_port,
                  (const char *const[]){"job_queue", "ADDRESS", "200", NULL});
    example_end(&example, line, sizeof line);
    assert_string_equal(line, "jobs 200: done 172, dead letters 28 (rejected 8), tries 260");
    scene_expect(&scene.client, 200, "GET", "/v1/topics/jobs/subscriptions/workers", NULL);
    assert_int_equal(scene_number(&scene.client, "delivery_queue.dead"), 28);
    assert_int_equal(scene_number(&scene.client, "delivery_queue.leased"), 0);
    assert_int_equal(scene_number(&scene.client, "enqueue_queue.depth"), 0);
    scene_deinit(&scene);
}

/* ---- the catalogues ---------------------------------------------------------------------------
 */

enum { OWNERS = 20, CHANGES = 3000, VERSIONS = CHANGES / OWNERS };

/* Each catalogue that was published, once, and each owner's last among them. */
static void check_catalogues(struct client_scene *scene, unsigned published)
{
    static bool seen[OWNERS][VERSIONS + 1];
    const struct flare_source readers = {"catalogues", "readers"};
    const struct flare_pull options = {.max = 1000};
    struct flare_batch *batch = NULL;
    struct flare_error error;
    assert_int_equal(flare_pull(scene->client, &readers, &options, &batch, &error), FLARE_OK);
    assert_int_equal(flare_batch_count(batch), published);
    for (size_t index = 0; index < flare_batch_count(batch); index++) {
        const struct flare_delivery *delivery = flare_batch_get(batch, index);
        char body[1024] = "";
        unsigned owner = 0;
        unsigned version = 0;
        assert_true(delivery->body_size < sizeof body);
        memcpy(body, delivery->body, delivery->body_size);
        assert_int_equal(sscanf(body, "owner-%u version %u:", &owner, &version), 2);
        assert_true(owner < OWNERS && version <= VERSIONS);
        assert_false(seen[owner][version]);
        seen[owner][version] = true;
    }
    for (unsigned owner = 0; owner < OWNERS; owner++) {
        assert_true(seen[owner][VERSIONS]);
    }
    flare_batch_free(batch);
}

static void test_catalogue_emitter(void **state)
{
    (void)state;
    struct client_scene scene;
    struct example example;
    char line[256];
    unsigned changes = 0;
    unsigned owners = 0;
    unsigned rebuilds = 0;
    unsigned published = 0;
    client_scene_init(&scene, NULL, NULL, NULL);
    example_start(&example, scene.scene.broker.wire_port,
                  (const char *const[]){"catalogue_emitter", "ADDRESS", "3000", "3", NULL});
    example_end(&example, line, sizeof line);
    assert_int_equal(sscanf(line, "%u changes of %u owners: %u rebuilds, %u catalogues published",
                            &changes, &owners, &rebuilds, &published),
                     4);
    assert_int_equal(changes, CHANGES);
    assert_int_equal(owners, OWNERS);
    /* Many changes, few rebuilds; and those of batches that came again have published nothing. */
    assert_true(rebuilds >= OWNERS && rebuilds < CHANGES / 5);
    assert_true(published >= OWNERS && published < rebuilds);
    check_catalogues(&scene, published);
    client_scene_deinit(&scene);
}

/* ---- the votes --------------------------------------------------------------------------------
 */

enum { VOTES = 60000, KILLS = 6 };

static void report(const char *store, char *line, size_t size)
{
    struct example example;
    example_start(&example, 0, (const char *const[]){"vote_counter", "report", store, NULL});
    example_end(&example, line, size);
}

/* Asks the store until so many votes are in it. */
static void until_counted(const char *store, unsigned votes)
{
    char line[256];
    unsigned counted = 0;
    uint64_t end_us = broker_now_us() + (uint64_t)EXAMPLE_TIMEOUT_MS * 1000;
    while (counted < votes) {
        report(store, line, sizeof line);
        assert_int_equal(sscanf(line, "votes %u:", &counted), 1);
        if (broker_now_us() > end_us) {
            fail_msg("only %u votes are counted", counted);
        }
    }
}

static void start_counter(struct example *counter, const struct relay *relay, const char *store)
{
    char line[256];
    example_start(counter, relay->port,
                  (const char *const[]){"vote_counter", "count", "ADDRESS", store, "60000", NULL});
    assert_true(process_wait_line(&counter->process, "counting from", line, sizeof line,
                                  EXAMPLE_TIMEOUT_MS));
}

/* Counter and broker are killed in turns while votes come in: none is lost, none counts twice. */
static void test_vote_counter(void **state)
{
    (void)state;
    static struct relay relay;
    struct scene scene;
    struct example voter;
    struct example counter;
    char store[TMPDIR_PATH_SIZE];
    char line[256];
    scene_init(&scene, NULL);
    relay_init(&relay, scene.broker.wire_port);
    tmpdir_file(&scene.tmpdir, "votes.store", store);
    start_counter(&counter, &relay, store);
    example_start(&voter, relay.port,
                  (const char *const[]){"vote_counter", "vote", "ADDRESS", "60000", NULL});
    for (unsigned kill = 0; kill < KILLS; kill++) {
        until_counted(store, kill * (VOTES / 2 / KILLS) + 1);
        if (kill % 2 == 0) {
            process_stop(&counter.process);
            start_counter(&counter, &relay, store);
        } else {
            relay_lead(&relay, 0);
            scene_restart(&scene, true, NULL);
            relay_lead(&relay, scene.broker.wire_port);
        }
    }
    example_end(&voter, line, sizeof line);
    assert_string_equal(line, "voted 60000");
    example_end(&counter, line, sizeof line);
    assert_string_equal(line, "counted 60000");
    report(store, line, sizeof line);
    assert_string_equal(line, "votes 60000: red 20000, green 20000, blue 20000");
    relay_deinit(&relay);
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_queue),
        cmocka_unit_test(test_catalogue_emitter),
        cmocka_unit_test(test_vote_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
