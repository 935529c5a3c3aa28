/* The catalog: what is decided on, and that the store, the deciding copy and one that installs what
 * replies carry are the same after every command, restart and fault. */
#include "broker/core/catalog_row.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/check.h"
#include "broker/core/durability.h"
#include "storage/memory.h"
#include "tests/lib/fault.h"
#include "tests/lib/must.h"

enum { TEXT_MAX = 1 << 20, START_MS = 1000, VOLUMES = 3 };

struct fixture {
    struct store *store;
    struct machine *machine;
    struct catalog *copy; /* made of what replies carry */
    struct reply reply;
    uint64_t now_ms;
};

static struct fixture fixture;

/* ---- the fixture ---------------------------------------------------------------------------- */

static err_t load(void)
{
    struct store_txn *txn = NULL;
    TRY(store_begin(fixture.store, STORE_READ, &txn));
    err_t err = fixture.machine->ops->load(fixture.machine, txn);
    store_abort(txn);
    return err;
}

static int setup(void **state)
{
    (void)state;
    fixture = (struct fixture){.now_ms = START_MS};
    must(memory_store_open(&fixture.store));
    must(catalog_machine_create(&fixture.machine));
    must(load());
    fixture.copy = catalog_create();
    assert_non_null(fixture.copy);
    reply_init(&fixture.reply);
    return 0;
}

static void print_topic(const struct catalog_topic *topic, struct buf *out)
{
    buf_printf(out, "topic %u %s v%u state %d at %llu: %llu %llu %llu %s\n", topic->id, topic->name,
               topic->version, (int)topic->state, (unsigned long long)topic->created_ms,
               (unsigned long long)topic->settings.retention_ms,
               (unsigned long long)topic->settings.retention_bytes,
               (unsigned long long)topic->settings.dedup_window_ms,
               durability_text(topic->settings.durability));
    for (uint32_t index = 0; index < topic->shard_count; index++) {
        const struct catalog_shard *shard = &topic->shards[index];
        assert_ptr_equal(shard->topic, topic);
        buf_printf(out, " shard %u %u on %u: %llx to %llx\n", shard->place.shard_id,
                   shard->place.number, shard->volume, (unsigned long long)shard->place.hash_first,
                   (unsigned long long)shard->place.hash_last);
    }
    uint32_t count = 0;
    for (const struct list_link *link = list_first(&topic->subs); link != NULL;
         link = list_next(&topic->subs, link)) {
        const struct catalog_sub *sub = container_of(link, const struct catalog_sub, link);
        assert_ptr_equal(sub->topic, topic);
        buf_printf(out, " sub %u %s v%u state %d at %llu start %d %llu: %llu %llu %u %u %u %u %d\n",
                   sub->id, sub->name, sub->version, (int)sub->state,
                   (unsigned long long)sub->created_ms, (int)sub->start,
                   (unsigned long long)sub->start_value, (unsigned long long)sub->settings.lease_ms,
                   (unsigned long long)sub->settings.retry_delay_ms, sub->settings.max_attempts,
                   sub->settings.max_in_flight, sub->settings.ordering, sub->settings.mode,
                   sub->settings.paused);
        count++;
    }
    assert_int_equal(count, topic->sub_count);
}

static void print_catalog(const struct catalog *catalog, struct buf *out)
{
    buf_init(out, TEXT_MAX);
    const struct catalog_topic *topic = catalog_topic_after(catalog, span_of("", 0));
    for (; topic != NULL; topic = catalog_topic_after(catalog, span_text(topic->name))) {
        print_topic(topic, out);
    }
    buf_append_byte(out, '\0');
    assert_false(out->failed);
}

static void expect_same(const struct catalog *a, const struct catalog *b)
{
    struct buf text_a;
    struct buf text_b;
    print_catalog(a, &text_a);
    print_catalog(b, &text_b);
    assert_string_equal(text_a.data, text_b.data);
    buf_deinit(&text_a);
    buf_deinit(&text_b);
}

/* The deciding copy, the installed one and one read from the store are equal, and the offline check
 * finds nothing. */
static void expect_copies_equal(void)
{
    static struct check_report report;
    struct store_txn *txn = NULL;
    struct catalog *stored = catalog_create();
    must(store_begin(fixture.store, STORE_READ, &txn));
    must(catalog_load(stored, txn));
    store_abort(txn);
    expect_same(catalog_of(fixture.machine), fixture.copy);
    expect_same(catalog_of(fixture.machine), stored);
    catalog_destroy(stored);
    must(check_catalog(fixture.store, &report));
    assert_int_equal(report.problem_count, 0);
}

static int teardown(void **state)
{
    (void)state;
    expect_copies_equal();
    reply_deinit(&fixture.reply);
    catalog_destroy(fixture.copy);
    fixture.machine->ops->destroy(fixture.machine);
    store_close(fixture.store);
    return 0;
}

static err_t apply_in(struct store_txn *txn, struct catalog_change *change)
{
    struct effects effects = {0};
    struct command command = {.type = COMMAND_CATALOG, .now_ms = fixture.now_ms, .catalog = change};
    reply_deinit(&fixture.reply);
    reply_init(&fixture.reply);
    TRY(fixture.machine->ops->apply(fixture.machine, txn, &command, &fixture.reply, &effects));
    return fixture.machine->ops->flush(fixture.machine, txn);
}

/* One command in one transaction, as a volume does it. */
static err_t try_apply(struct catalog_change *change)
{
    struct store_txn *txn = NULL;
    change->volume_count = VOLUMES;
    TRY(store_begin(fixture.store, STORE_WRITE, &txn));
    err_t err = apply_in(txn, change);
    if (err != NULL || !fixture.machine->ops->dirty(fixture.machine)) {
        store_abort(txn);
    } else {
        err = store_commit(txn);
    }
    if (err == NULL) {
        fixture.machine->ops->committed(fixture.machine);
    }
    return err;
}

static struct catalog_change apply(struct catalog_change change, enum err_code code)
{
    must(try_apply(&change));
    if (fixture.reply.code != code) {
        fail_msg("%s (%s), not %s", err_slug(fixture.reply.code), fixture.reply.detail,
                 err_slug(code));
    }
    must(catalog_install(fixture.copy, buf_span(&fixture.reply.payload)));
    return change;
}

static struct catalog_change topic_put(const char *name, uint32_t shards)
{
    return (struct catalog_change){
        .op = CATALOG_TOPIC_PUT, .topic = span_text(name), .shard_count = shards};
}

static struct catalog_change topic_state(const char *name, enum catalog_state to)
{
    return (struct catalog_change){.op = CATALOG_TOPIC_STATE, .topic = span_text(name), .to = to};
}

static struct catalog_change sub_put(const char *topic, const char *name)
{
    return (struct catalog_change){
        .op = CATALOG_SUB_PUT, .topic = span_text(topic), .sub = span_text(name)};
}

static struct catalog_change sub_state(const char *topic, const char *name, enum catalog_state to)
{
    return (struct catalog_change){
        .op = CATALOG_SUB_STATE, .topic = span_text(topic), .sub = span_text(name), .to = to};
}

static struct catalog_topic *find(const char *name)
{
    return catalog_topic(catalog_of(fixture.machine), span_text(name));
}

static struct catalog_topic *make_topic(const char *name, uint32_t shards)
{
    assert_true(apply(topic_put(name, shards), ERR_NONE).created);
    assert_true(apply(topic_state(name, CATALOG_ACTIVE), ERR_NONE).changed);
    return find(name);
}

static struct catalog_sub *make_sub(const char *topic, const char *name)
{
    assert_true(apply(sub_put(topic, name), ERR_NONE).created);
    assert_true(apply(sub_state(topic, name, CATALOG_ACTIVE), ERR_NONE).changed);
    return catalog_sub(find(topic), span_text(name));
}

/* ---- creating ------------------------------------------------------------------------------- */

/* The shards of a topic cover the hash space exactly once, in order, as evenly as can be, and lie
 * on the volumes in turn. */
static void shards_cover_the_hash_space(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 3, 5, 7, 16, 255, 256, 1000, 4095, CORE_SHARDS_MAX};
    for (size_t index = 0; index < sizeof counts / sizeof counts[0]; index++) {
        char name[32];
        (void)snprintf(name, sizeof name, "t%u", counts[index]);
        const struct catalog_topic *topic = make_topic(name, counts[index]);
        uint64_t next = 0;
        uint64_t least = UINT64_MAX;
        uint64_t greatest = 0;
        assert_int_equal(topic->shard_count, counts[index]);
        for (uint32_t number = 0; number < counts[index]; number++) {
            const struct catalog_shard *shard = &topic->shards[number];
            uint64_t span = shard->place.hash_last - shard->place.hash_first;
            assert_int_equal(shard->place.number, number);
            assert_true(shard->place.hash_first == next);
            assert_true(shard->place.hash_last >= shard->place.hash_first);
            assert_int_equal(shard->volume, (number + topic->id) % VOLUMES);
            least = span < least ? span : least;
            greatest = span > greatest ? span : greatest;
            next = shard->place.hash_last + 1;
            assert_ptr_equal(catalog_topic_shard(topic, shard->place.hash_first), shard);
            assert_ptr_equal(catalog_topic_shard(topic, shard->place.hash_last), shard);
        }
        assert_true(next == 0);
        assert_true(greatest - least <= 1);
    }
}

/* A topic has at most CORE_SHARDS_MAX shards, and as many as usual where it is not said. */
static void shard_count_bounds(void **state)
{
    (void)state;
    apply(topic_put("many", CORE_SHARDS_MAX + 1), ERR_INVALID);
    assert_memory_equal(fixture.reply.detail, "shards: ", 8);
    assert_null(find("many"));
    make_topic("most", CORE_SHARDS_MAX);
    assert_int_equal(make_topic("usual", 0)->shard_count, CATALOG_SHARDS_DEFAULT);
}

/* Names have 1 to 255 bytes out of [A-Za-z0-9._-], and are not a step in a path, for topics and
 * subscriptions alike. */
static void names(void **state)
{
    (void)state;
    char name[CORE_NAME_MAX + 2];
    make_topic("t", 1);
    for (unsigned c = 0; c < 256; c++) {
        const uint8_t byte = (uint8_t)c;
        bool valid = byte != 0 && strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789_-",
                                         (int)c) != NULL;
        assert_int_equal(catalog_name_valid(span_of(&byte, 1)), valid);
    }
    memset(name, 'n', sizeof name);
    static const struct {
        size_t size;
        enum err_code code;
    } cases[] = {{0, ERR_INVALID},
                 {1, ERR_NONE},
                 {CORE_NAME_MAX - 1, ERR_NONE},
                 {CORE_NAME_MAX, ERR_NONE},
                 {CORE_NAME_MAX + 1, ERR_INVALID}};
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct catalog_change topic = topic_put("", 1);
        struct catalog_change sub = sub_put("t", "");
        topic.topic = span_of(name, cases[index].size);
        sub.sub = span_of(name, cases[index].size);
        apply(topic, cases[index].code);
        apply(sub, cases[index].code);
    }
    assert_memory_equal(fixture.reply.detail, "subscription: ", 14);
    apply(topic_put(".", 1), ERR_INVALID);
    apply(topic_put("..", 1), ERR_INVALID);
    apply(sub_put("t", "."), ERR_INVALID);
    apply(sub_put("t", ".."), ERR_INVALID);
    make_topic("...", 1);
}

/* Ids are never 0, never given twice, not even after a deletion and a restart. */
static void ids_are_never_reused(void **state)
{
    (void)state;
    uint32_t topic_id = make_topic("t", 3)->id;
    uint32_t shard_id = find("t")->shards[2].place.shard_id;
    uint32_t sub_id = make_sub("t", "s")->id;
    assert_int_equal(topic_id, 1);
    assert_int_equal(find("t")->shards[0].place.shard_id, 1);
    assert_int_equal(sub_id, 1);
    apply(topic_state("t", CATALOG_DELETING), ERR_NONE);
    apply(topic_state("t", CATALOG_NONE), ERR_NONE);
    must(load());
    assert_null(find("t"));
    assert_int_equal(make_topic("t", 1)->id, topic_id + 1);
    assert_int_equal(find("t")->shards[0].place.shard_id, shard_id + 1);
    assert_int_equal(make_sub("t", "s")->id, sub_id + 1);
    assert_int_equal(fixture.reply.count, sub_id + 1);
}

/* What a topic and a subscription are made with is what they have, after a restart too. */
static void settings_survive(void **state)
{
    (void)state;
    struct catalog_change topic = topic_put("t", 2);
    topic.topic_settings = (struct topic_settings){1, 2, 3, DURABILITY_RELAXED};
    apply(topic, ERR_NONE);
    apply(topic_state("t", CATALOG_ACTIVE), ERR_NONE);
    struct catalog_change sub = sub_put("t", "s");
    sub.sub_settings = (struct sub_settings){.lease_ms = 10,
                                             .retry_delay_ms = 11,
                                             .max_attempts = 12,
                                             .max_in_flight = 13,
                                             .ordering = 0,
                                             .mode = 0,
                                             .paused = true};
    sub.start = START_TIME;
    sub.start_value = 99;
    apply(sub, ERR_NONE);
    must(load());
    const struct catalog_sub *read = catalog_sub(find("t"), span_text("s"));
    assert_int_equal(find("t")->settings.retention_ms, 1);
    assert_int_equal(find("t")->settings.retention_bytes, 2);
    assert_int_equal(find("t")->settings.dedup_window_ms, 3);
    assert_int_equal(find("t")->settings.durability, DURABILITY_RELAXED);
    assert_int_equal(find("t")->created_ms, START_MS);
    assert_int_equal(read->settings.lease_ms, 10);
    assert_int_equal(read->settings.max_in_flight, 13);
    assert_true(read->settings.paused);
    assert_int_equal(read->start, START_TIME);
    assert_int_equal(read->start_value, 99);
}

/* Durabilities are told and read by name; a topic put without one is synced, and another one is a
 * change. */
static void durability_has_names(void **state)
{
    (void)state;
    enum durability durability = DURABILITY_COUNT;
    assert_false(durability_read(span_text(""), &durability));
    assert_false(durability_read(span_text("Synced"), &durability));
    assert_int_equal(durability, DURABILITY_COUNT);
    assert_int_equal(make_topic("t", 1)->settings.durability, DURABILITY_SYNCED);
    for (int number = DURABILITY_COUNT - 1; number >= 0; number--) {
        const char *text = durability_text((enum durability)number);
        struct catalog_change change = topic_put("t", 1);
        assert_true(durability_read(span_text(text), &durability));
        assert_int_equal(durability, number);
        change.topic_settings.durability = durability;
        assert_true(apply(change, ERR_NONE).changed);
        must(load());
        assert_int_equal(find("t")->settings.durability, number);
        assert_false(apply(change, ERR_NONE).changed);
    }
}

/* ---- changing ------------------------------------------------------------------------------- */

/* Putting a topic again changes its settings and version; the same settings change nothing; its
 * number of shards cannot be changed. */
static void topic_put_again(void **state)
{
    (void)state;
    make_topic("t", 2);
    struct catalog_change same = apply(topic_put("t", 2), ERR_NONE);
    assert_false(same.created || same.changed);
    assert_int_equal(fixture.reply.payload.size, 0);
    assert_int_equal(find("t")->version, 1);
    struct catalog_change other = topic_put("t", 2);
    other.topic_settings.retention_ms = 5;
    other = apply(other, ERR_NONE);
    assert_false(other.created);
    assert_true(other.changed);
    assert_int_equal(find("t")->version, 2);
    apply(topic_put("t", 3), ERR_EXISTS);
    assert_string_equal(fixture.reply.detail, "shards: the topic has 2, which does not change");
    assert_true(apply(topic_put("t", 0), ERR_NONE).changed);
    assert_int_equal(find("t")->shard_count, 2);
}

/* Each setting of a subscription counts as a change of its own. */
static void sub_put_again(void **state)
{
    (void)state;
    static const struct sub_settings settings[] = {
        {.lease_ms = 1}, {.retry_delay_ms = 1}, {.max_attempts = 1}, {.max_in_flight = 1},
        {.ordering = 1}, {.mode = 1},           {.paused = true},    {.paused = false},
    };
    make_topic("t", 1);
    uint32_t version = make_sub("t", "s")->version;
    for (size_t index = 0; index < sizeof settings / sizeof settings[0]; index++) {
        struct catalog_change change = sub_put("t", "s");
        change.sub_settings = settings[index];
        assert_true(apply(change, ERR_NONE).changed);
        assert_false(apply(change, ERR_NONE).changed);
        assert_int_equal(catalog_sub(find("t"), span_text("s"))->version, ++version);
    }
}

/* A change that names a version is made only on that version; one that must create, only when there
 * is nothing yet. */
static void preconditions(void **state)
{
    (void)state;
    struct catalog_change topic = topic_put("t", 1);
    topic.has_version = true;
    topic.version = 1;
    apply(topic, ERR_PRECONDITION);
    assert_null(find("t"));
    topic = topic_put("t", 1);
    topic.create_only = true;
    assert_true(apply(topic, ERR_NONE).created);
    apply(topic, ERR_PRECONDITION);
    apply(topic_state("t", CATALOG_ACTIVE), ERR_NONE);
    topic = topic_put("t", 1);
    topic.has_version = true;
    topic.topic_settings.retention_ms = 7;
    static const struct {
        uint32_t version;
        enum err_code code;
    } cases[] = {
        {0, ERR_PRECONDITION}, {2, ERR_PRECONDITION}, {1, ERR_NONE}, {1, ERR_PRECONDITION}};
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        topic.version = cases[index].version;
        apply(topic, cases[index].code);
    }
    struct catalog_change gone = topic_state("t", CATALOG_DELETING);
    gone.has_version = true;
    gone.version = 1;
    apply(gone, ERR_PRECONDITION);
    struct catalog_change sub = sub_put("t", "s");
    sub.has_version = true;
    apply(sub, ERR_NONE); /* version 0: there is none */
    apply(sub, ERR_PRECONDITION);
    gone.version = 2;
    apply(gone, ERR_NONE);
}

/* ---- states --------------------------------------------------------------------------------- */

#define N CATALOG_NONE
#define C CATALOG_CREATING
#define A CATALOG_ACTIVE
#define D CATALOG_DELETING

/* Only the moves of a life are made: creating, active, deleting, gone; a creation may be deleted.
 * Each other move is refused and changes nothing. */
static void state_moves(void **state)
{
    (void)state;
    static const struct {
        enum catalog_state from;
        enum catalog_state to;
        enum err_code code;
        bool changed;
    } cases[] = {
        {N, N, ERR_NONE, false},      {N, C, ERR_NOT_FOUND, false}, {N, A, ERR_NOT_FOUND, false},
        {N, D, ERR_NOT_FOUND, false}, {C, N, ERR_CONFLICT, false},  {C, C, ERR_NONE, false},
        {C, A, ERR_NONE, true},       {C, D, ERR_NONE, true},       {A, N, ERR_CONFLICT, false},
        {A, C, ERR_CONFLICT, false},  {A, A, ERR_NONE, false},      {A, D, ERR_NONE, true},
        {D, N, ERR_NONE, true},       {D, C, ERR_CONFLICT, false},  {D, A, ERR_CONFLICT, false},
        {D, D, ERR_NONE, true},
    };
    make_topic("of-subs", 1);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        char name[32];
        (void)snprintf(name, sizeof name, "x%zu", index);
        enum catalog_state from = cases[index].from;
        if (from != N) {
            apply(topic_put(name, 1), ERR_NONE);
            apply(sub_put("of-subs", name), ERR_NONE);
        }
        if (from == A || from == D) {
            apply(topic_state(name, from), ERR_NONE);
            apply(sub_state("of-subs", name, from), ERR_NONE);
        }
        struct catalog_change topic = apply(topic_state(name, cases[index].to), cases[index].code);
        assert_int_equal(topic.changed, cases[index].changed);
        struct catalog_change sub =
            apply(sub_state("of-subs", name, cases[index].to), cases[index].code);
        assert_int_equal(sub.changed, cases[index].changed);
        enum catalog_state expected = cases[index].code == ERR_NONE ? cases[index].to : from;
        assert_int_equal(find(name) == NULL ? N : find(name)->state, expected);
        const struct catalog_sub *now = catalog_sub(find("of-subs"), span_text(name));
        assert_int_equal(now == NULL ? N : now->state, expected);
    }
}

/* A move that names an id is made for that one only: what has got its name since stays as it is. */
static void state_moves_of_another(void **state)
{
    (void)state;
    static const struct {
        enum catalog_state from;
        enum catalog_state to;
        enum err_code code;
    } cases[] = {{C, A, ERR_NOT_FOUND}, {A, D, ERR_NOT_FOUND}, {D, N, ERR_NONE}};
    struct catalog_change topic = topic_state("t", D);
    struct catalog_change sub = sub_state("of-subs", "s", D);
    make_topic("of-subs", 1);
    topic.id = make_topic("t", 1)->id;
    sub.id = make_sub("of-subs", "s")->id;
    assert_true(apply(topic, ERR_NONE).changed);
    assert_true(apply(sub, ERR_NONE).changed);
    apply(topic_state("t", N), ERR_NONE);
    apply(sub_state("of-subs", "s", N), ERR_NONE);
    apply(topic_put("t", 1), ERR_NONE);
    apply(sub_put("of-subs", "s"), ERR_NONE);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        topic.to = cases[index].to;
        sub.to = cases[index].to;
        assert_false(apply(topic, cases[index].code).changed);
        assert_false(apply(sub, cases[index].code).changed);
        assert_int_equal(find("t")->state, cases[index].from);
        assert_int_equal(catalog_sub(find("of-subs"), span_text("s"))->state, cases[index].from);
        assert_true(apply(topic_state("t", topic.to), ERR_NONE).changed);
        assert_true(apply(sub_state("of-subs", "s", sub.to), ERR_NONE).changed);
    }
}

#undef N
#undef C
#undef A
#undef D

/* Nothing is put while it is being deleted, and no subscription into a topic that is not there for
 * it. A creation put again is carried through again. */
static void puts_in_each_state(void **state)
{
    (void)state;
    apply(sub_put("t", "s"), ERR_NOT_FOUND);
    apply(topic_put("t", 1), ERR_NONE);
    apply(sub_put("t", "s"), ERR_CONFLICT);
    struct catalog_change again = apply(topic_put("t", 1), ERR_NONE);
    assert_true(again.changed);
    assert_false(again.created);
    apply(topic_state("t", CATALOG_ACTIVE), ERR_NONE);
    apply(sub_put("t", "s"), ERR_NONE);
    again = apply(sub_put("t", "s"), ERR_NONE);
    assert_true(again.changed);
    assert_false(again.created);
    apply(sub_state("t", "s", CATALOG_DELETING), ERR_NONE);
    apply(sub_put("t", "s"), ERR_CONFLICT);
    apply(topic_state("t", CATALOG_DELETING), ERR_NONE);
    apply(topic_put("t", 1), ERR_CONFLICT);
    apply(sub_put("t", "other"), ERR_CONFLICT);
}

/* A topic that goes takes its subscriptions with it, in every copy. */
static void topic_goes_with_its_subscriptions(void **state)
{
    (void)state;
    make_topic("t", 2);
    make_topic("u", 2);
    make_sub("t", "b");
    make_sub("t", "a");
    make_sub("u", "a");
    apply(topic_state("t", CATALOG_DELETING), ERR_NONE);
    uint32_t sub_id = catalog_sub(find("t"), span_text("a"))->id;
    uint32_t shard_id = find("t")->shards[0].place.shard_id;
    apply(topic_state("t", CATALOG_NONE), ERR_NONE);
    struct catalog_topic *topic = NULL;
    assert_null(catalog_topic(fixture.copy, span_text("t")));
    assert_null(catalog_sub_by_id(fixture.copy, sub_id));
    assert_null(catalog_shard_by_id(fixture.copy, shard_id, &topic));
    assert_non_null(catalog_sub(find("u"), span_text("a")));
}

/* Listing walks all names once, in order, from any place, whether or not that name exists. */
static void listing(void **state)
{
    (void)state;
    static const char *const made[] = {"m", "b", "z", "a", "bb", "y"};
    static const char *const sorted[] = {"a", "b", "bb", "m", "y", "z"};
    for (size_t index = 0; index < 6; index++) {
        make_topic(made[index], 1);
    }
    for (size_t index = 0; index < 6; index++) {
        make_sub("m", made[index]);
    }
    struct span name = span_of("", 0);
    const struct catalog_topic *m = find("m");
    for (size_t index = 0; index < 6; index++) {
        const struct catalog_topic *topic = catalog_topic_after(catalog_of(fixture.machine), name);
        assert_string_equal(topic->name, sorted[index]);
        assert_string_equal(catalog_sub_after(m, name)->name, sorted[index]);
        name = span_text(topic->name);
    }
    assert_null(catalog_topic_after(catalog_of(fixture.machine), name));
    assert_null(catalog_sub_after(m, name));
    assert_string_equal(catalog_sub_after(m, span_text("ba"))->name, "bb");
    assert_ptr_equal(catalog_topic_by_id(catalog_of(fixture.machine), m->id), m);
}

/* What the router hangs on a subscription stays there when its settings change. */
static void installing_changes_in_place(void **state)
{
    (void)state;
    int waiting = 0;
    make_topic("t", 2);
    make_sub("t", "s");
    struct catalog_topic *topic = catalog_topic(fixture.copy, span_text("t"));
    struct catalog_sub *sub = catalog_sub(topic, span_text("s"));
    sub->waiters = &waiting;
    topic->round_robin = 7;
    struct catalog_change change = topic_put("t", 2);
    change.topic_settings.retention_ms = 5;
    apply(change, ERR_NONE);
    change = sub_put("t", "s");
    change.sub_settings.paused = true;
    apply(change, ERR_NONE);
    assert_ptr_equal(catalog_topic(fixture.copy, span_text("t")), topic);
    assert_int_equal(topic->round_robin, 7);
    assert_ptr_equal(sub->waiters, &waiting);
    assert_true(sub->settings.paused);
}

/* Commands that are not the catalog's are refused. */
static void other_commands(void **state)
{
    (void)state;
    struct store_txn *txn = NULL;
    struct effects effects = {0};
    struct command command = {.type = COMMAND_TICK};
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    must(fixture.machine->ops->apply(fixture.machine, txn, &command, &fixture.reply, &effects));
    store_abort(txn);
    assert_int_equal(fixture.reply.code, ERR_INVALID);
    assert_true(fixture.machine->ops->next_due_ms(fixture.machine) == UINT64_MAX);
}

/* ---- damage and faults ---------------------------------------------------------------------- */

/* Changes one byte of the row at this place of the table; true when there was one. */
static bool damage(enum store_table table, uint64_t place, size_t at, bool undo)
{
    static uint8_t key[STORE_KEY_MAX];
    static uint8_t value[65536];
    static size_t key_size;
    static size_t value_size;
    struct store_txn *txn = NULL;
    struct store_cursor *cursor = NULL;
    bool found = true;
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    if (!undo) {
        must(store_cursor_open(txn, table, &cursor));
        must(store_cursor_seek(cursor, span_of("", 0), &found));
        for (; found && place > 0; place--) {
            must(store_cursor_next(cursor, &found));
        }
        found = found && at < cursor->value.size;
        if (found) {
            key_size = cursor->key.size;
            value_size = cursor->value.size;
            memcpy(key, cursor->key.data, key_size);
            memcpy(value, cursor->value.data, value_size);
        }
        store_cursor_close(cursor);
    }
    if (found) {
        value[at] ^= 0xff;
        must(store_put(txn, table, span_of(key, key_size), span_of(value, value_size)));
    }
    must(store_commit(txn));
    return found;
}

/* Whichever byte of the catalog is damaged: it is refused, or what is read is a catalog that holds
 * together; names and shard ranges that cannot be are never taken over. */
static void every_byte_damaged(void **state)
{
    (void)state;
    static struct check_report report;
    uint32_t refused = 0;
    make_topic("topic-one", 4);
    make_topic("topic-two", 1);
    make_sub("topic-one", "sub-one");
    for (int table = 0; table < 2; table++) {
        for (uint64_t place = 0; place < 3; place++) {
            enum store_table of = table == 0 ? STORE_CATALOG : STORE_META;
            for (size_t at = 0; damage(of, place, at, false); at++) {
                must(check_catalog(fixture.store, &report));
                err_t err = load();
                refused += err != NULL;
                assert_true(err == NULL || err_code(err) == ERR_CORRUPT);
                assert_true(err == NULL || report.problem_count > 0);
                err_free(err);
                (void)damage(of, place, at, true);
            }
        }
    }
    assert_true(refused > 100);
    must(load());
}

/* A name that is no longer given is read where it is stored, and can be deleted. */
static void stored_names(void **state)
{
    (void)state;
    struct store_txn *txn = NULL;
    uint8_t key[CATALOG_KEY_SIZE];
    struct buf row;
    buf_init(&row, CATALOG_VALUE_MAX);
    struct catalog_topic topic = *make_topic("x", 1);
    catalog_row_key(CATALOG_KIND_TOPIC, topic.id, key);
    topic.name[0] = '.';
    catalog_row_of_topic(&topic, &row);
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    must(store_put(txn, STORE_CATALOG, span_of(key, sizeof key), buf_span(&row)));
    must(store_commit(txn));
    must(load());
    assert_non_null(find("."));
    apply(topic_put(".", 1), ERR_INVALID);
    apply(topic_state(".", CATALOG_DELETING), ERR_NONE);
    apply(topic_state(".", CATALOG_NONE), ERR_NONE);
    assert_null(find("."));
    buf_deinit(&row);
}

/* A catalog whose record of ids is lost is refused: ids would be given again. */
static void lost_ids(void **state)
{
    (void)state;
    struct store_txn *txn = NULL;
    static struct check_report report;
    uint8_t ids[256];
    struct span value;
    bool found = false;
    make_topic("t", 1);
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    must(store_get(txn, STORE_META, span_text("catalog"), &value, &found));
    assert_true(found && value.size <= sizeof ids);
    size_t size = value.size;
    memcpy(ids, value.data, size);
    must(store_remove(txn, STORE_META, span_text("catalog"), NULL));
    must(store_commit(txn));
    err_t err = load();
    assert_int_equal(err_code(err), ERR_CORRUPT);
    err_free(err);
    must(check_catalog(fixture.store, &report));
    assert_int_equal(report.problem_count, 1);
    must(store_begin(fixture.store, STORE_WRITE, &txn));
    must(store_put(txn, STORE_META, span_text("catalog"), span_of(ids, size)));
    must(store_commit(txn));
    must(load());
}

/* Whatever call of the store, or allocation, fails: the change is made wholly or not at all, and
 * after loading again it can be made. */
static void every_fault(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        for (uint64_t nth = 1;; nth++) {
            struct catalog_change change = topic_put("t", 8);
            if (kind == 0) {
                memory_store_fail_call(fixture.store, nth);
            } else {
                fault_alloc_nth(nth);
            }
            err_t err = try_apply(&change);
            memory_store_fail_call(fixture.store, 0);
            bool fired = kind == 1 ? fault_alloc_stop() : err != NULL;
            assert_int_equal(fired, err != NULL);
            err_free(err);
            must(load());
            assert_int_equal(find("t") != NULL, !fired);
            if (!fired) {
                must(catalog_install(fixture.copy, buf_span(&fixture.reply.payload)));
                break;
            }
        }
        expect_copies_equal();
        apply(topic_state("t", CATALOG_DELETING), ERR_NONE);
        apply(topic_state("t", CATALOG_NONE), ERR_NONE);
    }
}

/* Bytes that are no records are refused, wherever they are cut. */
static void cut_records(void **state)
{
    (void)state;
    make_topic("t", 3);
    apply(sub_put("t", "s"), ERR_NONE);
    struct span record = buf_span(&fixture.reply.payload);
    for (size_t size = 1; size < record.size; size++) {
        struct catalog *other = catalog_create();
        err_t err = catalog_install(other, span_of(record.data, size));
        assert_int_equal(err_code(err), ERR_CORRUPT);
        err_free(err);
        catalog_destroy(other);
    }
}

static void collect(void *user, const char *text)
{
    buf_printf(user, "%s\n", text);
}

/* What is told of a catalog names its topics, where their shards lie, and its subscriptions. */
static void inspect_tells(void **state)
{
    (void)state;
    struct buf text;
    make_topic("orders", 2);
    make_sub("orders", "billing");
    buf_init(&text, TEXT_MAX);
    must(check_inspect(fixture.store, collect, &text));
    buf_append_byte(&text, '\0');
    assert_string_equal(
        text.data, "topic 1 orders: active, 2 shards, 1 subscriptions\n"
                   "  shard 1 (number 0): volume 1, hashes 0000000000000000 to 7fffffffffffffff\n"
                   "  shard 2 (number 1): volume 2, hashes 8000000000000000 to ffffffffffffffff\n"
                   "  subscription 1 billing: active, lease 0 ms, 0 attempts\n"
                   "table META: 1 rows\n"
                   "table CATALOG: 2 rows\n");
    buf_deinit(&text);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(shards_cover_the_hash_space),
        TEST(shard_count_bounds),
        TEST(names),
        TEST(ids_are_never_reused),
        TEST(settings_survive),
        TEST(durability_has_names),
        TEST(topic_put_again),
        TEST(sub_put_again),
        TEST(preconditions),
        TEST(state_moves),
        TEST(state_moves_of_another),
        TEST(puts_in_each_state),
        TEST(topic_goes_with_its_subscriptions),
        TEST(listing),
        TEST(installing_changes_in_place),
        TEST(other_commands),
        TEST(every_byte_damaged),
        TEST(stored_names),
        TEST(lost_ids),
        TEST(every_fault),
        TEST(cut_records),
        TEST(inspect_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
