#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "broker/core/check.h"
#include "broker/volume/writer.h"
#include "storage/lmdb.h"
#include "storage/memory.h"
#include "tests/lib/must.h"

enum {
    PICTURE_MAX = 64 * 1024 * 1024,
    PEEK_MAX = 500,
    PEEK_SIZE_MAX = 256 * 1024,
    TICK_BUDGET = 4096,
    TICKS_MAX = 100000,
    JOURNAL_SIZE = 512 * 1024,
    RESERVE = 1 << 20, /* so that what the journal holds is committed now and then */
};

static const struct sub_settings sub_default = {.lease_ms = 30000};

static void open_store(struct core_fixture *fixture, enum core_fixture_body body)
{
    char path[TMPDIR_PATH_SIZE];
    if (body == CORE_FIXTURE_MEMORY) {
        must(memory_store_open(&fixture->store));
        return;
    }
    tmpdir_init(&fixture->tmpdir);
    must(lmdb_store_open(
        &(struct lmdb_options){.path = tmpdir_file(&fixture->tmpdir, "volume.mdb", path),
                               .map_size = 1ULL << 30,
                               .create = true,
                               .role = "volume"},
        &fixture->store));
}

static err_t load(struct core_fixture *fixture)
{
    struct store_txn *txn = NULL;
    TRY(store_begin(fixture->store, STORE_WRITE, &txn));
    err_t err = fixture->machine->ops->load(fixture->machine, txn);
    store_abort(txn);
    return err;
}

void core_fixture_init(struct core_fixture *fixture, enum core_fixture_body body,
                       const struct core_options *options)
{
    *fixture = (struct core_fixture){.now_ms = CORE_FIXTURE_START_MS};
    if (options != NULL) {
        fixture->options = *options;
    }
    open_store(fixture, body);
    reply_init(&fixture->reply);
    effects_init(&fixture->effects);
    must(core_create(&fixture->options, &fixture->machine));
    must(load(fixture));
}

void core_fixture_journal(struct core_fixture *fixture, const char *path)
{
    const struct journal_options options = {.path = path, .size = JOURNAL_SIZE, .identity = 1};
    if (path != fixture->journal_path) {
        (void)snprintf(fixture->journal_path, sizeof fixture->journal_path, "%s", path);
    }
    err_t err = journal_open(&options, &fixture->journal);
    if (err_code(err) == ERR_NOT_FOUND) {
        err_free(err);
        must(journal_create(&options));
        err = journal_open(&options, &fixture->journal);
    }
    must(err);
    if (fixture->writer == NULL) {
        fixture->writer = calloc(1, sizeof *fixture->writer);
        assert_non_null(fixture->writer);
    }
    writer_init(fixture->writer, fixture->store, fixture->machine, fixture->journal,
                &(struct writer_options){.name = "test", .reserve = RESERVE});
    must(writer_open(fixture->writer));
}

/* What is not committed is left to the journal. */
static void close_writer(struct core_fixture *fixture)
{
    writer_deinit(fixture->writer);
    journal_close(fixture->journal);
    fixture->in_batch = false;
}

static err_t apply_journaled(struct core_fixture *fixture, const struct command *command)
{
    if (!fixture->in_batch) {
        TRY(writer_begin(fixture->writer));
        fixture->in_batch = true;
    }
    return writer_apply(fixture->writer, command, &fixture->reply, &fixture->effects);
}

static err_t end_journaled(struct core_fixture *fixture)
{
    struct writer *writer = fixture->writer;
    if (!fixture->in_batch) {
        return NULL;
    }
    TRY(writer_append(writer));
    if (writer_is_direct(writer) || (writer_pending(writer) && !fixture->relaxed)) {
        TRY(writer_flush(writer));
    }
    writer_end(writer);
    fixture->in_batch = false;
    return writer_wants_checkpoint(writer) ? writer_checkpoint(writer) : NULL;
}

static void check(struct core_fixture *fixture)
{
    struct check_report report;
    must(check_volume(fixture->store, &report));
    for (uint32_t index = 0; index < report.kept; index++) {
        print_error("%s\n", report.problems[index]);
    }
    assert_int_equal(report.problem_count, 0);
}

void core_fixture_deinit(struct core_fixture *fixture)
{
    core_fixture_commit(fixture);
    if (fixture->writer != NULL) {
        must(writer_checkpoint(fixture->writer));
        close_writer(fixture);
        free(fixture->writer);
    }
    fixture->machine->ops->destroy(fixture->machine);
    if (!fixture->unchecked) {
        check(fixture);
    }
    store_close(fixture->store);
    reply_deinit(&fixture->reply);
    effects_deinit(&fixture->effects);
    if (fixture->tmpdir.path[0] != '\0') {
        tmpdir_deinit(&fixture->tmpdir);
    }
}

err_t core_fixture_try(struct core_fixture *fixture, struct command *command)
{
    struct reply *reply = &fixture->reply;
    command->now_ms = fixture->now_ms;
    command->no_space = fixture->no_space;
    reply_deinit(reply);
    reply_init(reply);
    if (fixture->writer != NULL) {
        return apply_journaled(fixture, command);
    }
    if (fixture->txn == NULL) {
        TRY(store_begin(fixture->store, STORE_WRITE, &fixture->txn));
    }
    return fixture->machine->ops->apply(fixture->machine, fixture->txn, command, reply,
                                        &fixture->effects);
}

err_t core_fixture_try_commit(struct core_fixture *fixture)
{
    const struct machine_ops *ops = fixture->machine->ops;
    if (fixture->writer != NULL) {
        return end_journaled(fixture);
    }
    if (fixture->txn == NULL) {
        return NULL;
    }
    TRY(ops->flush(fixture->machine, fixture->txn));
    struct store_txn *txn = fixture->txn;
    fixture->txn = NULL;
    if (ops->dirty(fixture->machine)) {
        TRY(store_commit(txn));
    } else {
        store_abort(txn);
    }
    ops->committed(fixture->machine);
    return NULL;
}

err_t core_fixture_try_reload(struct core_fixture *fixture)
{
    if (fixture->txn != NULL) {
        store_abort(fixture->txn);
        fixture->txn = NULL;
    }
    if (fixture->writer != NULL) {
        writer_drop(fixture->writer);
        fixture->in_batch = false;
        return writer_recover(fixture->writer);
    }
    return load(fixture);
}

void core_fixture_apply(struct core_fixture *fixture, struct command *command, enum err_code code)
{
    must(core_fixture_try(fixture, command));
    if (fixture->reply.code != code) {
        fail_msg("%s (%s), not %s", err_slug(fixture->reply.code), fixture->reply.detail,
                 err_slug(code));
    }
}

void core_fixture_commit(struct core_fixture *fixture)
{
    must(core_fixture_try_commit(fixture));
}

void core_fixture_restart(struct core_fixture *fixture)
{
    if (fixture->txn != NULL) {
        store_abort(fixture->txn);
        fixture->txn = NULL;
    }
    if (fixture->writer != NULL) {
        close_writer(fixture);
    }
    fixture->machine->ops->destroy(fixture->machine);
    must(core_create(&fixture->options, &fixture->machine));
    if (fixture->writer != NULL) {
        core_fixture_journal(fixture, fixture->journal_path);
    } else {
        must(load(fixture));
    }
}

void core_fixture_advance(struct core_fixture *fixture, uint64_t ms)
{
    const struct machine_ops *ops = fixture->machine->ops;
    fixture->now_ms += ms;
    core_fixture_commit(fixture);
    for (uint32_t ticks = 0; ops->next_due_ms(fixture->machine) <= fixture->now_ms; ticks++) {
        struct command command = {.type = COMMAND_TICK, .tick = {.budget = TICK_BUDGET}};
        core_fixture_apply(fixture, &command, ERR_NONE);
        core_fixture_commit(fixture);
        assert_true(ticks < TICKS_MAX);
    }
}

void core_fixture_topic(struct core_fixture *fixture, uint32_t id, uint32_t first_shard,
                        uint32_t count, const struct topic_settings *settings)
{
    struct shard_place *places = calloc(count, sizeof *places);
    uint64_t step = UINT64_MAX / count;
    for (uint32_t index = 0; index < count; index++) {
        places[index] = (struct shard_place){
            .shard_id = first_shard + index,
            .number = index,
            .hash_first = index * step,
            .hash_last = index == count - 1 ? UINT64_MAX : (index + 1) * step - 1,
        };
    }
    struct command command = {
        .type = COMMAND_TOPIC_PUT,
        .topic_put = {.topic_id = id, .shards = places, .shard_count = count},
    };
    if (settings != NULL) {
        command.topic_put.settings = *settings;
    }
    core_fixture_apply(fixture, &command, ERR_NONE);
    free(places);
}

void core_fixture_sub(struct core_fixture *fixture, uint32_t id, uint32_t topic_id,
                      const struct sub_settings *settings)
{
    struct command command = {
        .type = COMMAND_SUB_PUT,
        .sub_put = {.sub_id = id,
                    .topic_id = topic_id,
                    .settings = settings != NULL ? *settings : sub_default,
                    .start = START_EARLIEST},
    };
    core_fixture_apply(fixture, &command, ERR_NONE);
}

uint64_t core_fixture_hash(const struct message_in *message)
{
    struct buf payload;
    buf_init(&payload, PICTURE_MAX);
    buf_append_span(&payload, message->key);
    buf_append_span(&payload, message->attributes);
    buf_append_span(&payload, message->body);
    assert_false(payload.failed);
    uint64_t hash = XXH3_64bits(payload.data, payload.size);
    buf_deinit(&payload);
    return hash;
}

enum err_code core_fixture_publish(struct core_fixture *fixture, uint32_t topic_id,
                                   const struct message_in *message)
{
    struct message_in copy = *message;
    copy.payload_hash = core_fixture_hash(message);
    struct command command = {
        .type = COMMAND_PUBLISH,
        .publish = {.topic_id = topic_id,
                    .messages = &copy,
                    .count = 1,
                    .results = &fixture->published},
    };
    must(core_fixture_try(fixture, &command));
    return fixture->published.code;
}

void core_fixture_fill(struct core_fixture *fixture, uint32_t topic_id, uint32_t shard_id,
                       uint32_t count)
{
    for (uint32_t index = 0; index < count; index++) {
        char text[64];
        int size = snprintf(text, sizeof text, "shard %u message %u", shard_id, index);
        const struct message_in message = {.shard_id = shard_id,
                                           .body = span_of(text, (size_t)size)};
        assert_int_equal(core_fixture_publish(fixture, topic_id, &message), ERR_NONE);
    }
}

void core_fixture_publish_sized(struct core_fixture *fixture, uint32_t topic_id, uint32_t shard_id,
                                uint32_t size)
{
    uint8_t *body = malloc(size + 1);
    for (uint32_t index = 0; index < size; index++) {
        body[index] = (uint8_t)(index * 31 + index / 251 + size);
    }
    const struct message_in message = {.shard_id = shard_id, .body = span_of(body, size)};
    assert_int_equal(core_fixture_publish(fixture, topic_id, &message), ERR_NONE);
    free(body);
}

uint32_t core_fixture_pull(struct core_fixture *fixture, uint32_t sub_id, uint32_t max)
{
    struct command command = {
        .type = COMMAND_PULL,
        .pull = {.sub_id = sub_id, .max = max, .size_max = PICTURE_MAX},
    };
    core_fixture_apply(fixture, &command, ERR_NONE);
    return reply_delivery_count(&fixture->reply);
}

struct receipt core_fixture_receipt(const struct core_fixture *fixture, uint32_t sub_id,
                                    uint32_t index)
{
    const struct delivery *delivery = reply_delivery(&fixture->reply, index);
    return (struct receipt){
        .sub_id = sub_id,
        .shard_id = delivery->shard_id,
        .sequence = delivery->sequence,
        .epoch = delivery->epoch,
        .grant = delivery->grant,
        .attempt = delivery->attempt,
    };
}

uint32_t core_fixture_settle(struct core_fixture *fixture, enum command_type type,
                             const struct receipt *receipts, uint32_t count)
{
    assert_true(count <= CORE_FIXTURE_RESULTS_MAX);
    struct command command = {
        .type = type,
        .settle = {.sub_id = count == 0 ? 0 : receipts[0].sub_id,
                   .receipts = receipts,
                   .count = count,
                   .results = fixture->results},
    };
    must(core_fixture_try(fixture, &command));
    return (uint32_t)fixture->reply.count;
}

uint32_t core_fixture_ack_all(struct core_fixture *fixture, uint32_t sub_id)
{
    uint32_t count = reply_delivery_count(&fixture->reply);
    struct receipt *receipts = calloc(count + 1, sizeof *receipts);
    for (uint32_t index = 0; index < count; index++) {
        receipts[index] = core_fixture_receipt(fixture, sub_id, index);
    }
    uint32_t settled = count == 0 ? 0 : core_fixture_settle(fixture, COMMAND_ACK, receipts, count);
    free(receipts);
    return settled;
}

uint32_t core_fixture_drain(struct core_fixture *fixture, uint32_t sub_id)
{
    uint32_t total = 0;
    while (core_fixture_pull(fixture, sub_id, 1000) > 0) {
        uint32_t count = reply_delivery_count(&fixture->reply);
        assert_int_equal(core_fixture_ack_all(fixture, sub_id), count);
        total += count;
    }
    return total;
}

static void read_stats(struct core_fixture *fixture)
{
    struct command command = {.type = COMMAND_STATS};
    core_fixture_apply(fixture, &command, ERR_NONE);
}

/* Takes the next row of the statistics: a shard's, then those of its subscriptions. */
static const void *next_row(const struct reply *reply, size_t *at, size_t size)
{
    const void *row = reply->items.data + *at;
    assert_true(*at + size <= reply->items.size);
    *at += size;
    return row;
}

struct sub_stats core_fixture_stats(struct core_fixture *fixture, uint32_t sub_id)
{
    struct sub_stats sum = {.sub_id = sub_id};
    size_t at = 0;
    read_stats(fixture);
    while (at < fixture->reply.items.size) {
        const struct shard_stats *shard =
            next_row(&fixture->reply, &at, sizeof(struct shard_stats));
        for (uint32_t index = 0; index < shard->sub_count; index++) {
            const struct sub_stats *row = next_row(&fixture->reply, &at, sizeof(struct sub_stats));
            if (row->sub_id == sub_id) {
                sum.cursor += row->cursor;
                sum.enqueued += row->enqueued;
                sum.leased += row->leased;
                sum.scheduled += row->scheduled;
                sum.dead += row->dead;
                sum.oldest_ms = row->oldest_ms;
            }
        }
    }
    return sum;
}

uint64_t core_fixture_entries(struct core_fixture *fixture, enum store_table table)
{
    struct store_txn *txn = NULL;
    uint64_t count = 0;
    core_fixture_commit(fixture);
    must(store_begin(fixture->store, STORE_READ, &txn));
    must(store_entries(txn, table, &count));
    store_abort(txn);
    return count;
}

static void draw_stats(struct core_fixture *fixture, struct buf *out)
{
    size_t at = 0;
    read_stats(fixture);
    while (at < fixture->reply.items.size) {
        const struct shard_stats *shard =
            next_row(&fixture->reply, &at, sizeof(struct shard_stats));
        buf_printf(out, "topic %u shard %u next %" PRIu64 " retained %" PRIu64 "\n",
                   shard->topic_id, shard->shard_id, shard->next_sequence, shard->retained_from);
        for (uint32_t index = 0; index < shard->sub_count; index++) {
            const struct sub_stats *row = next_row(&fixture->reply, &at, sizeof(struct sub_stats));
            buf_printf(out,
                       "  sub %u cursor %" PRIu64 " enqueued %" PRIu64 " leased %" PRIu64
                       " scheduled %" PRIu64 " dead %" PRIu64 " oldest %" PRIu64 "\n",
                       row->sub_id, row->cursor, row->enqueued, row->leased, row->scheduled,
                       row->dead, row->oldest_ms);
        }
    }
}

static void draw_message(const struct reply *reply, const struct delivery *delivery,
                         struct buf *out)
{
    struct span body = delivery_body(reply, delivery);
    struct span note = delivery_note(reply, delivery);
    buf_printf(out,
               "  shard %u sequence %" PRIu64 " state %u attempt %u reason %u published %" PRIu64
               " due %" PRIu64 " expires %" PRIu64 " body %zu %016" PRIx64 " note %.*s\n",
               delivery->shard_id, delivery->sequence, delivery->state, delivery->attempt,
               delivery->reason, delivery->published_ms, delivery->due_ms, delivery->expires_ms,
               body.size, (uint64_t)XXH3_64bits(body.data, body.size), (int)note.size,
               (const char *)note.data);
}

static void draw_state(struct core_fixture *fixture, uint32_t sub_id, enum message_state state,
                       struct buf *out)
{
    struct command command = {
        .type = COMMAND_PEEK,
        .peek = {.sub_id = sub_id, .state = state, .max = PEEK_MAX, .size_max = PEEK_SIZE_MAX},
    };
    do {
        core_fixture_apply(fixture, &command, ERR_NONE);
        for (uint32_t index = 0; index < reply_delivery_count(&fixture->reply); index++) {
            draw_message(&fixture->reply, reply_delivery(&fixture->reply, index), out);
        }
        command.peek.from_shard_id = fixture->reply.next_shard_id;
        command.peek.from_sequence = fixture->reply.next_sequence;
    } while (fixture->reply.more);
}

void core_fixture_picture(struct core_fixture *fixture, const uint32_t *subs, uint32_t count,
                          struct buf *out)
{
    static const enum message_state states[] = {MESSAGE_NONE, MESSAGE_LEASED, MESSAGE_SCHEDULED,
                                                MESSAGE_DEAD};
    buf_init(out, PICTURE_MAX);
    draw_stats(fixture, out);
    for (uint32_t index = 0; index < count; index++) {
        for (size_t state = 0; state < sizeof states / sizeof states[0]; state++) {
            buf_printf(out, "sub %u state %d\n", subs[index], (int)states[state]);
            draw_state(fixture, subs[index], states[state], out);
        }
    }
    assert_false(out->failed);
    buf_append_byte(out, '\0');
}
