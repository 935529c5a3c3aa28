#include "tests/sim/engine.h"

#include "broker/core/check.h"

/* An error that no accident explains ends the run. */
static void must(const struct engine *engine, err_t err)
{
    if (err != NULL) {
        trace_fail(engine->trace, "unexpected error: %s", err_describe(err));
    }
}

static void start(struct engine *engine)
{
    must(engine, core_create(&engine->options, &engine->machine));
}

static void drop(struct engine *engine)
{
    if (engine->txn != NULL) {
        store_abort(engine->txn);
        engine->txn = NULL;
    }
}

/* ---- the journal ---- */

static uint64_t add_hash(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15;
    return hash ^ hash >> 29;
}

/* Of all that a client is told; never 0. What a tick gets done in the background may differ. */
static uint64_t hash_reply(const struct command *command, const struct reply *reply)
{
    uint64_t hash = add_hash(command->type, reply->code);
    if (command->type == COMMAND_PUBLISH) {
        for (uint32_t index = 0; index < command->publish.count; index++) {
            const struct publish_result *result = &command->publish.results[index];
            hash = add_hash(hash, result->code);
            hash = add_hash(hash, result->shard_id);
            hash = add_hash(hash, result->sequence);
        }
    }
    if (command->type == COMMAND_ACK || command->type == COMMAND_NACK ||
        command->type == COMMAND_EXTEND) {
        for (uint32_t index = 0; index < command->settle.count; index++) {
            hash = add_hash(hash, command->settle.results[index]);
        }
    }
    for (uint32_t index = 0; index < reply_delivery_count(reply); index++) {
        const struct delivery *delivery = reply_delivery(reply, index);
        hash = add_hash(hash, delivery->shard_id);
        hash = add_hash(hash, delivery->sequence);
        hash = add_hash(hash, delivery->grant);
        hash = add_hash(hash, delivery->attempt);
        hash = add_hash(hash, delivery->due_ms);
        hash = add_hash(hash, delivery->body_size);
    }
    return command->type == COMMAND_TICK ? 0 : hash | 1;
}

static void note(struct engine *engine, struct buf *journal, const struct command *command,
                 const struct reply *reply)
{
    uint64_t hash = hash_reply(command, reply);
    struct command stamped = *command;
    stamped.now_ms = engine->machine->ops->now_ms(engine->machine);
    buf_append(journal, &hash, sizeof hash);
    codec_put(&stamped, journal);
    if (journal->failed) {
        trace_fail(engine->trace, "no memory for the journal");
    }
}

static err_t apply_again(struct engine *engine)
{
    struct span rest = buf_span(&engine->journal);
    while (rest.size > 0) {
        struct command command;
        uint64_t hash;
        memcpy(&hash, rest.data, sizeof hash);
        rest = span_of(rest.data + sizeof hash, rest.size - sizeof hash);
        must(engine, codec_get(&rest, &engine->room, &command));
        reply_clear(&engine->reply);
        effects_clear(&engine->again);
        TRY(engine->machine->ops->apply(engine->machine, engine->txn, &command, &engine->reply,
                                        &engine->again));
        if (hash_reply(&command, &engine->reply) != hash) {
            trace_fail(engine->trace, "%s is answered otherwise when it is applied again",
                       trace_command_name(command.type));
        }
        engine->replayed++;
    }
    engine->machine->ops->end_batch(engine->machine, true);
    return NULL;
}

static err_t try_load(struct engine *engine)
{
    TRY(store_begin(engine->store, STORE_WRITE, &engine->txn));
    TRY(engine->machine->ops->load(engine->machine, engine->txn));
    if (engine->machine->ops->dirty(engine->machine)) {
        trace_fail(engine->trace, "there is something to commit after a start");
    }
    if (engine->journal.size == 0) {
        drop(engine);
        return NULL;
    }
    return apply_again(engine);
}

/* A fault may hit the first try; then it is over, and the second must succeed. */
static void load(struct engine *engine)
{
    drop(engine);
    engine->floor_ms = 0;
    err_t err = try_load(engine);
    if (err_code(err) == ERR_IO) {
        trace_note(engine->trace, "the start fails and is tried again");
        err_free(err);
        memory_store_fail_call(engine->store, 0);
        drop(engine);
        err = try_load(engine);
    }
    must(engine, err);
    if (engine->machine->ops->now_ms(engine->machine) != engine->stored_ms) {
        trace_fail(engine->trace, "after a start the time is %llu instead of %llu",
                   (unsigned long long)engine->machine->ops->now_ms(engine->machine),
                   (unsigned long long)engine->stored_ms);
    }
}

void engine_open(struct engine *engine, struct trace *trace, const struct core_options *options)
{
    *engine = (struct engine){.trace = trace, .options = *options};
    effects_init(&engine->effects);
    effects_init(&engine->again);
    buf_init(&engine->journal, SIZE_MAX / 2);
    codec_room_init(&engine->room);
    reply_init(&engine->reply);
    must(engine, memory_store_open(&engine->store));
    start(engine);
    load(engine);
}

void engine_close(struct engine *engine)
{
    drop(engine);
    engine->machine->ops->destroy(engine->machine);
    store_close(engine->store);
    effects_deinit(&engine->effects);
    effects_deinit(&engine->again);
    buf_deinit(&engine->journal);
    codec_room_deinit(&engine->room);
    reply_deinit(&engine->reply);
}

void engine_restart(struct engine *engine)
{
    drop(engine);
    engine->machine->ops->destroy(engine->machine);
    start(engine);
    load(engine);
    engine->restarts++;
}

/* ---- batches ---- */

static err_t begin(struct engine *engine)
{
    effects_clear(&engine->effects);
    return engine->txn != NULL ? NULL : store_begin(engine->store, STORE_WRITE, &engine->txn);
}

/* Applies so many commands; those that change something go to `journal`. */
static err_t apply(struct engine *engine, struct engine_batch *batch, uint32_t count,
                   struct buf *journal)
{
    const struct machine_ops *ops = engine->machine->ops;
    for (uint32_t index = 0; index < count; index++) {
        struct command *command = &batch->commands[index];
        uint64_t before = ops->changes(engine->machine);
        command->now_ms = command->now_ms > engine->floor_ms ? command->now_ms : engine->floor_ms;
        reply_clear(&batch->replies[index]);
        TRY(ops->apply(engine->machine, engine->txn, command, &batch->replies[index],
                       &engine->effects));
        if (ops->changes(engine->machine) != before && codec_takes(command->type)) {
            note(engine, journal, command, &batch->replies[index]);
        }
    }
    return NULL;
}

static err_t commit(struct engine *engine)
{
    const struct machine_ops *ops = engine->machine->ops;
    struct store_txn *txn = engine->txn;
    if (txn == NULL) {
        return NULL;
    }
    TRY(ops->flush(engine->machine, txn));
    engine->txn = NULL;
    if (ops->dirty(engine->machine)) {
        TRY(store_commit(txn));
        engine->committed_ms = ops->now_ms(engine->machine);
    } else {
        store_abort(txn); /* also what had nothing left to do when it was applied again: a TICK */
    }
    engine->stored_ms = engine->committed_ms;
    ops->committed(engine->machine);
    buf_reset(&engine->journal);
    return NULL;
}

/* What a volume commits at once (writer.c). */
static bool is_rare(const struct engine_batch *batch)
{
    bool rare = false;
    for (uint32_t index = 0; index < batch->count; index++) {
        enum command_type type = batch->commands[index].type;
        rare = rare || !(codec_takes(type) || command_looks(type));
    }
    return rare;
}

/* The stamp of the last command in the journal of a batch. */
static void take_journal(struct engine *engine, const struct buf *journal)
{
    struct span rest = buf_span(journal);
    buf_append_span(&engine->journal, rest);
    while (rest.size > 0) {
        struct command command;
        rest = span_of(rest.data + sizeof(uint64_t), rest.size - sizeof(uint64_t));
        must(engine, codec_get(&rest, &engine->room, &command));
        if (command.now_ms > engine->stored_ms) {
            engine->stored_ms = command.now_ms;
        }
    }
}

static err_t try_batch(struct engine *engine, struct engine_batch *batch, struct buf *journal)
{
    TRY(begin(engine));
    TRY(apply(engine, batch, batch->count, journal));
    batch->answered = true;
    if (batch->direct || is_rare(batch)) {
        return commit(engine);
    }
    batch->appended = true;
    take_journal(engine, journal);
    engine->machine->ops->end_batch(engine->machine, true);
    return NULL;
}

/* The power fails after some commands, or when all are applied but not flushed. */
static void lose_power(struct engine *engine, struct engine_batch *batch, struct buf *journal)
{
    uint32_t count = batch->accident_at < batch->count ? batch->accident_at : batch->count;
    must(engine, begin(engine));
    must(engine, apply(engine, batch, count, journal));
    if (batch->accident_at > batch->count) {
        if (batch->direct) {
            must(engine, engine->machine->ops->flush(engine->machine, engine->txn));
        }
        batch->answered = true;
        batch->appended = !batch->direct && !is_rare(batch);
    }
    trace_note(engine->trace, "power fails after %u of %u commands", count, batch->count);
    engine_restart(engine);
}

/* A commit between batches that fails loses nothing that was journaled. */
static void checkpoint(struct engine *engine, const struct engine_batch *batch)
{
    bool fails = batch->accident == ACCIDENT_COMMIT;
    memory_store_fail_commits(engine->store, fails ? batch->accident_code : ERR_NONE);
    err_t err = commit(engine);
    memory_store_fail_commits(engine->store, ERR_NONE);
    if (err != NULL && fails && err_code(err) == batch->accident_code) {
        trace_note(engine->trace, "a commit between batches fails: %s", err_message(err));
        err_free(err);
        uint64_t now_ms = engine->machine->ops->now_ms(engine->machine);
        load(engine);
        engine->floor_ms = now_ms;
        return;
    }
    must(engine, err);
}

static bool run(struct engine *engine, struct engine_batch *batch, struct buf *journal)
{
    if (batch->accident == ACCIDENT_POWER) {
        lose_power(engine, batch, journal);
        engine->losses++;
        return false;
    }
    bool between = batch->accident == ACCIDENT_COMMIT && batch->checkpoint;
    if (batch->accident == ACCIDENT_COMMIT && !between) {
        memory_store_fail_commits(engine->store, batch->accident_code);
    } else if (batch->accident == ACCIDENT_CALL) {
        memory_store_fail_call(engine->store, batch->accident_at);
    }
    err_t err = try_batch(engine, batch, journal);
    memory_store_fail_commits(engine->store, ERR_NONE);
    if (err == NULL) {
        memory_store_fail_call(engine->store, 0);
        if (batch->checkpoint) {
            checkpoint(engine, batch);
        }
        return true;
    }
    enum err_code expected = batch->accident == ACCIDENT_COMMIT ? batch->accident_code : ERR_IO;
    if (batch->accident == ACCIDENT_NONE || err_code(err) != expected) {
        must(engine, err);
    }
    trace_note(engine->trace, "a batch of %u is lost: %s", batch->count, err_message(err));
    err_free(err);
    load(engine);
    memory_store_fail_call(engine->store, 0);
    engine->losses++;
    return false;
}

bool engine_run(struct engine *engine, struct engine_batch *batch)
{
    struct buf journal;
    buf_init(&journal, SIZE_MAX / 2);
    batch->answered = false;
    batch->appended = false;
    bool kept = run(engine, batch, &journal);
    buf_deinit(&journal);
    return kept;
}

void engine_look(struct engine *engine, const struct command *command, struct reply *reply)
{
    const struct machine_ops *ops = engine->machine->ops;
    bool clean = engine->txn == NULL;
    if (clean) {
        must(engine, store_begin(engine->store, STORE_WRITE, &engine->txn));
    }
    reply_clear(reply);
    must(engine, ops->apply(engine->machine, engine->txn, command, reply, &engine->effects));
    if (!clean) {
        return;
    }
    must(engine, ops->flush(engine->machine, engine->txn));
    if (ops->dirty(engine->machine)) {
        trace_fail(engine->trace, "%s has changed something", trace_command_name(command->type));
    }
    drop(engine);
    ops->committed(engine->machine);
}

void engine_check(struct engine *engine)
{
    static struct check_report report; /* too large for the stack */
    must(engine, commit(engine));
    must(engine, check_volume(engine->store, &report));
    if (report.problem_count > 0) {
        trace_fail(engine->trace, "the stored tables disagree: %s", report.problems[0]);
    }
}

uint64_t engine_next_due_ms(const struct engine *engine)
{
    return engine->machine->ops->next_due_ms(engine->machine);
}

uint64_t engine_rows(struct engine *engine, enum store_table table)
{
    struct store_txn *txn = NULL;
    uint64_t rows = 0;
    must(engine, commit(engine));
    must(engine, store_begin(engine->store, STORE_READ, &txn));
    must(engine, store_entries(txn, table, &rows));
    store_abort(txn);
    return rows;
}
