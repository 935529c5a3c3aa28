/* Power fails at every point of a recorded run of the core on LMDB, with and without a journal, in
 * many ways: what comes up shows exactly what the last acknowledged batch showed, or one after it
 * that was written but not acknowledged (the one in flight; those that were not flushed): every
 * message in its state, with its attempts, times, place and content. Every table fits every other,
 * and the core goes on from there. FLARE_SEED replays a run, FLARE_STATES asks for more states. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "broker/core/check.h"
#include "broker/volume/writer.h"
#include "storage/lmdb.h"
#include "tests/crash/iotrap.c" /* NOLINT(bugprone-suspicious-include): it must be in the program */
#include "tests/lib/core_fixture.h"
#include "tests/lib/must.h"

enum {
    COMMITS = 120,
    STATES_MIN = 2400,
    COMMANDS_MAX = 6, /* in one commit */
    TOPICS = 2,
    SHARDS = 3, /* of each topic */
    SUBS = 4,   /* two of each topic */
    RECEIPTS_MAX = 64,
    BODY_MAX = 70000, /* over several rows of the log */
    GO_ON_EVERY = 16,
    PICTURE_SIZE_MAX = 64 << 20,
    MAP_SIZE = 64 << 20,
};

/* Small, so that index checkpoints, new segments and cleaning happen all the time. */
static const struct core_options small = {
    .replay_bytes = 8192, .slack_size = 16384, .segment_entries = 32};

#define WRITTEN (UINT64_C(1) << 32) /* of a mark: answered, if not flushed */

static const uint32_t sub_ids[SUBS] = {100, 101, 102, 103};

static uint64_t number_in(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

/* ---- what is to be seen after each commit ---- */

static uint64_t pictures[COMMITS + 1];
static bool journaled; /* this run */

/* Pictures are taken at time 0, so that the core goes by its own last stamp. */
static void draw(struct core_fixture *fixture, struct buf *out)
{
    uint64_t now_ms = fixture->now_ms;
    fixture->now_ms = 0;
    core_fixture_picture(fixture, sub_ids, SUBS, out);
    core_fixture_commit(fixture);
    fixture->now_ms = now_ms;
}

static uint64_t picture_of(struct core_fixture *fixture)
{
    struct buf picture;
    buf_init(&picture, PICTURE_SIZE_MAX);
    draw(fixture, &picture);
    uint64_t hash = XXH3_64bits(picture.data, picture.size);
    buf_deinit(&picture);
    return hash;
}

/* ---- the run that is recorded ---- */

struct script {
    struct core_fixture fixture;
    struct random random;
    struct receipt receipts[RECEIPTS_MAX]; /* some that may still hold */
    uint32_t receipt_count;
    uint32_t published;
    uint32_t passing; /* what the topic that comes and goes has seen */
};

static uint32_t any_topic(struct script *script)
{
    return 1 + (uint32_t)random_below(&script->random, TOPICS);
}

static uint32_t any_shard(struct script *script, uint32_t topic)
{
    return topic * 10 + (uint32_t)random_below(&script->random, SHARDS);
}

static uint32_t any_sub(struct script *script)
{
    return sub_ids[random_below(&script->random, SUBS)];
}

static void publish(struct script *script)
{
    static uint8_t body[BODY_MAX];
    static const uint32_t size_max[] = {40, 40, 200, 200, 3000, 9000, BODY_MAX};
    struct random *random = &script->random;
    uint32_t topic = any_topic(script);
    size_t size = random_below(random, size_max[random_below(random, 7)]);
    char idempotency_key[32];
    int key_size = snprintf(idempotency_key, sizeof idempotency_key, "%lu",
                            random_below(random, 20)); /* often one that was used */
    memset(body, (int)script->published++, size);
    const struct message_in message = {
        .shard_id = any_shard(script, topic),
        .key = span_text("key"),
        .body = span_of(body, size),
        .idempotency_key =
            span_of(idempotency_key, random_chance(random, 1, 4) ? (size_t)key_size : 0),
        .delay_ms = random_chance(random, 1, 5) ? random_below(random, 3000) : 0,
        .ttl_ms = random_chance(random, 1, 8) ? 1 + random_below(random, 5000) : 0,
    };
    enum err_code code = core_fixture_publish(&script->fixture, topic, &message);
    assert_true(code == ERR_NONE || code == ERR_IDEMPOTENCY_REUSED);
}

static void pull(struct script *script)
{
    uint32_t sub = any_sub(script);
    uint32_t count =
        core_fixture_pull(&script->fixture, sub, 1 + (uint32_t)random_below(&script->random, 12));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = script->receipt_count < RECEIPTS_MAX
                          ? script->receipt_count++
                          : (uint32_t)random_below(&script->random, RECEIPTS_MAX);
        script->receipts[at] = core_fixture_receipt(&script->fixture, sub, i);
    }
}

static void settle(struct script *script)
{
    static const enum command_type types[] = {COMMAND_ACK, COMMAND_ACK, COMMAND_NACK,
                                              COMMAND_EXTEND};
    struct random *random = &script->random;
    uint32_t count = 0;
    uint32_t sub = any_sub(script);
    struct receipt receipts[RECEIPTS_MAX];
    for (uint32_t i = 0; i < script->receipt_count; i++) {
        if (script->receipts[i].sub_id == sub && random_chance(random, 1, 2)) {
            receipts[count++] = script->receipts[i];
        }
    }
    struct command command = {
        .type = types[random_below(random, 4)],
        .settle = {.sub_id = sub,
                   .receipts = receipts,
                   .count = count,
                   .results = script->fixture.results,
                   .has_delay = random_chance(random, 1, 3),
                   .delay_ms = random_below(random, 4000),
                   .note = span_text("because"),
                   .lease_ms = 1000 + random_below(random, 5000)},
    };
    command.settle.reject = !command.settle.has_delay && random_chance(random, 1, 3);
    must(core_fixture_try(&script->fixture, &command));
}

static void intervene(struct script *script)
{
    struct random *random = &script->random;
    uint32_t sub = any_sub(script);
    struct command commands[] = {
        {.type = COMMAND_REDRIVE, .redrive = {.sub_id = sub, .max = 3}},
        {.type = COMMAND_PURGE,
         .purge = {.sub_id = sub, .dead = random_chance(random, 1, 2), .delivery = true}},
        {.type = COMMAND_SEEK, .seek = {.sub_id = sub, .to = START_EARLIEST}},
        {.type = COMMAND_SEEK, .seek = {.sub_id = sub, .to = START_LATEST}},
    };
    must(core_fixture_try(&script->fixture,
                          &commands[random_below(random, sizeof commands / sizeof *commands)]));
}

/* Makes a topic with a subscription and messages, or drops them again; space comes back in steps.
 */
static void pass_by(struct script *script)
{
    struct core_fixture *fixture = &script->fixture;
    uint32_t number = 1000 + 10 * (script->passing / 3);
    struct command drops[] = {{.type = COMMAND_SUB_DROP, .sub_drop = number},
                              {.type = COMMAND_TOPIC_DROP, .topic_drop = number}};
    if (script->passing % 3 == 0) {
        core_fixture_topic(fixture, number, number, 2, NULL);
        core_fixture_sub(fixture, number, number, NULL);
        core_fixture_fill(fixture, number, number + 1, 40);
        (void)core_fixture_pull(fixture, number, 20);
    } else {
        must(core_fixture_try(fixture, &drops[script->passing % 3 - 1]));
    }
    script->passing++;
}

static void configure(struct script *script)
{
    static const struct sub_settings sub = {
        .lease_ms = 2000, .retry_delay_ms = 500, .max_attempts = 3, .max_in_flight = 40};
    for (uint32_t topic = 1; topic <= TOPICS; topic++) {
        const struct topic_settings settings = {.retention_ms = topic == 1 ? 0 : 4000,
                                                .dedup_window_ms = 3000};
        core_fixture_topic(&script->fixture, topic, topic * 10, SHARDS, &settings);
        for (uint32_t i = 0; i < SUBS / TOPICS; i++) {
            core_fixture_sub(&script->fixture, sub_ids[(topic - 1) * 2 + i], topic, &sub);
        }
    }
}

static void tick(struct script *script)
{
    struct command command = {.type = COMMAND_TICK, .tick = {.budget = 300}};
    script->fixture.now_ms += random_below(&script->random, 1500);
    must(core_fixture_try(&script->fixture, &command));
}

static void run_commit(struct script *script)
{
    static void (*const acts[])(struct script *) = {publish, publish, publish, publish, pull,
                                                    pull,    settle,  settle,  settle,  tick};
    uint64_t count = 1 + random_below(&script->random, COMMANDS_MAX);
    for (uint64_t i = 0; i < count; i++) {
        acts[random_below(&script->random, sizeof acts / sizeof *acts)](script);
    }
    if (random_chance(&script->random, 1, 20)) {
        intervene(script);
    }
    if (random_chance(&script->random, 1, 15)) {
        pass_by(script);
    }
    bool between = !journaled || !writer_uncommitted(script->fixture.writer);
    if (random_chance(&script->random, 1, 10) && between) {
        must(store_reserve(script->fixture.store, 64 << 10));
    }
    script->fixture.relaxed = random_chance(&script->random, 1, 4);
    core_fixture_commit(&script->fixture);
    if (journaled && random_chance(&script->random, 1, 12)) {
        must(writer_checkpoint(script->fixture.writer));
    }
}

/* Whether all that was acknowledged would outlive a power failure. */
static bool is_flushed(const struct core_fixture *fixture)
{
    return fixture->writer == NULL || !journal_pending(fixture->writer->journal);
}

static void record(struct script *script)
{
    char path[TMPDIR_PATH_SIZE];
    core_fixture_init(&script->fixture, CORE_FIXTURE_LMDB, &small);
    tmpdir_file(&script->fixture.tmpdir, "volume.", path);
    if (journaled) {
        char journal[TMPDIR_PATH_SIZE];
        core_fixture_journal(&script->fixture,
                             tmpdir_file(&script->fixture.tmpdir, "volume.journal", journal));
    }
    configure(script);
    core_fixture_commit(&script->fixture);
    pictures[0] = picture_of(&script->fixture);
    iotrap_start(path);
    for (uint64_t number = 1; number <= COMMITS; number++) {
        run_commit(script);
        if (is_flushed(&script->fixture)) {
            iotrap_mark(number);
        }
        iotrap_mark(number | WRITTEN);
        pictures[number] = picture_of(&script->fixture);
    }
    iotrap_stop();
}

/* ---- crashes ---- */

struct figures {
    uint64_t states;
    uint64_t in_flight; /* states with more than was acknowledged */
    uint64_t lossy;     /* states in which something unflushed was lost or torn */
};

static void check_tables(struct store *store, const char *when)
{
    static struct check_report report;
    must(check_volume(store, &report));
    if (report.problem_count > 0) {
        fail_msg("%s: %s", when, report.problems[0]);
    }
}

/* Every queue drains, new messages come through, and the tables still fit. */
static void check_goes_on(struct core_fixture *fixture, uint64_t now_ms)
{
    fixture->now_ms = now_ms;
    core_fixture_fill(fixture, 1, 10, 3);
    core_fixture_advance(fixture, 60000); /* leases, delays, times to live, retention */
    core_fixture_advance(fixture, 60000); /* retries after those leases */
    for (unsigned i = 0; i < SUBS; i++) {
        (void)core_fixture_drain(fixture, sub_ids[i]);
        struct sub_stats stats = core_fixture_stats(fixture, sub_ids[i]);
        assert_int_equal(stats.enqueued + stats.leased + stats.scheduled, 0);
    }
    core_fixture_advance(fixture, 60000);
    check_tables(fixture->store, "after going on");
}

static void open_image(struct core_fixture *fixture, const char *directory)
{
    struct store_txn *txn = NULL;
    char path[TMPDIR_PATH_SIZE + 16];
    *fixture = (struct core_fixture){.options = small};
    (void)snprintf(path, sizeof path, "%s/volume.mdb", directory);
    must(lmdb_store_open(
        &(struct lmdb_options){.path = path, .map_size = MAP_SIZE, .role = "volume"},
        &fixture->store));
    reply_init(&fixture->reply);
    buf_init(&fixture->effects.woken, 1 << 20);
    must(core_create(&fixture->options, &fixture->machine));
    if (journaled) {
        (void)snprintf(path, sizeof path, "%s/volume.journal", directory);
        core_fixture_journal(fixture, path);
        return;
    }
    must(store_begin(fixture->store, STORE_WRITE, &txn));
    must(fixture->machine->ops->load(fixture->machine, txn));
    store_abort(txn);
}

/* What a crash may show: the batches up to `last`, and of those at least the ones up to `first`. */
struct bounds {
    uint64_t first;
    uint64_t last;
};

static void check_state(const char *directory, struct bounds bounds, uint64_t now_ms,
                        struct figures *figures)
{
    static struct core_fixture fixture;
    open_image(&fixture, directory);
    uint64_t picture = picture_of(&fixture);
    uint64_t number = bounds.first;
    while (number < bounds.last && picture != pictures[number]) {
        number++;
    }
    if (picture != pictures[number]) {
        struct buf text;
        buf_init(&text, PICTURE_SIZE_MAX);
        draw(&fixture, &text);
        fail_msg("state %lu shows none of the batches %lu to %lu:\n%.*s", figures->states,
                 bounds.first, bounds.last, (int)text.size, (const char *)text.data);
    }
    if (fixture.writer != NULL) {
        must(writer_checkpoint(fixture.writer));
    }
    check_tables(fixture.store, "after a crash");
    figures->in_flight += number > bounds.first;
    if (figures->states++ % GO_ON_EVERY == 0) {
        check_goes_on(&fixture, now_ms);
    }
    core_fixture_deinit(&fixture);
}

static void replay(struct random *random, uint64_t states_min, uint64_t now_ms,
                   struct figures *figures)
{
    struct tmpdir tmpdir;
    struct iotrap_disk disk;
    uint64_t acked = 0;   /* flushed */
    uint64_t written = 0; /* and answered, all of it without a flush perhaps */
    tmpdir_init(&tmpdir);
    iotrap_disk_init(&disk);
    uint64_t rounds = 1 + states_min / (uint64_t)iotrap_count();
    for (size_t i = 0; i < iotrap_count(); i++) {
        iotrap_disk_step(&disk, i);
        bool is_mark = iotrap_event(i)->kind == IOTRAP_MARK;
        uint64_t mark = is_mark ? iotrap_event(i)->offset : 0;
        written = (mark & WRITTEN) != 0 ? mark & ~WRITTEN : written;
        acked = mark != 0 && (mark & WRITTEN) == 0 ? mark : acked;
        uint64_t last = written > acked ? written : acked;
        last += !is_mark && last < COMMITS ? 1 : 0;
        for (unsigned crash = 0; crash < IOTRAP_CRASH_COUNT; crash++) {
            uint64_t count = crash >= IOTRAP_DROP_SOME ? rounds : 1;
            /* Without anything unflushed all crashes are the same. */
            count = iotrap_disk_pending(&disk) > 0 || crash == IOTRAP_DROP_ALL ? count : 0;
            /* The end of the process alone loses nothing that was written. */
            bool kept = crash == IOTRAP_KEEP_ALL && written > acked;
            for (uint64_t round = 0; round < count; round++) {
                iotrap_disk_crash(&disk, crash, random, tmpdir.path);
                figures->lossy += crash != IOTRAP_KEEP_ALL && iotrap_disk_pending(&disk) > 0;
                check_state(tmpdir.path, (struct bounds){kept ? written : acked, last}, now_ms,
                            figures);
            }
        }
    }
    iotrap_disk_deinit(&disk);
    tmpdir_deinit(&tmpdir);
}

/* After a power failure at any event of a run, whatever was unflushed lost or torn, everything that
 * was acknowledged is as it was. */
static void check_power_failures(void)
{
    static struct script script;
    script = (struct script){.published = 0};
    struct figures figures = {0};
    uint64_t seed = number_in("FLARE_SEED", 1);
    uint64_t states_min = number_in("FLARE_STATES", STATES_MIN);
    random_init(&script.random, seed);
    record(&script);
    replay(&script.random, states_min, script.fixture.now_ms, &figures);
    printf("{\"test\":\"replay_core\",\"journal\":%s,\"seed\":%lu,\"commits\":%d,\"published\":%u,"
           "\"events\":%zu,"
           "\"states\":%lu,\"lossy\":%lu,\"in_flight\":%lu}\n",
           journaled ? "true" : "false", seed, COMMITS, script.published, iotrap_count(),
           figures.states, figures.lossy, figures.in_flight);
    assert_true(figures.states >= states_min);
    assert_true(figures.lossy > figures.states / 2);
    assert_true(figures.in_flight > 0);
    iotrap_reset();
    core_fixture_deinit(&script.fixture);
}

static void test_power_failures(void **state)
{
    (void)state;
    journaled = false;
    check_power_failures();
}

static void test_power_failures_with_journal(void **state)
{
    (void)state;
    journaled = true;
    check_power_failures();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_failures),
                                       cmocka_unit_test(test_power_failures_with_journal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
