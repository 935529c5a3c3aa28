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

static err_t try_load(struct engine *engine)
{
    struct store_txn *txn = NULL;
    TRY(store_begin(engine->store, STORE_WRITE, &txn));
    err_t err = engine->machine->ops->load(engine->machine, txn);
    store_abort(txn);
    return err;
}

/* A fault may hit the first try; then it is over, and the second must succeed. */
static void load(struct engine *engine)
{
    err_t err = try_load(engine);
    if (err_code(err) == ERR_IO) {
        trace_note(engine->trace, "the start fails and is tried again");
        err_free(err);
        memory_store_fail_call(engine->store, 0);
        err = try_load(engine);
    }
    must(engine, err);
    if (engine->machine->ops->dirty(engine->machine)) {
        trace_fail(engine->trace, "there is something to commit after a start");
    }
}

void engine_open(struct engine *engine, struct trace *trace, const struct core_options *options)
{
    *engine = (struct engine){.trace = trace, .options = *options};
    buf_init(&engine->effects.woken, SIZE_MAX / 2);
    must(engine, memory_store_open(&engine->store));
    start(engine);
    load(engine);
}

void engine_close(struct engine *engine)
{
    engine->machine->ops->destroy(engine->machine);
    store_close(engine->store);
    buf_deinit(&engine->effects.woken);
}

void engine_restart(struct engine *engine)
{
    engine->machine->ops->destroy(engine->machine);
    start(engine);
    load(engine);
    engine->restarts++;
}

static void clear_reply(struct reply *reply)
{
    buf_reset(&reply->items);
    buf_reset(&reply->payload);
    struct buf items = reply->items;
    struct buf payload = reply->payload;
    *reply = (struct reply){.items = items, .payload = payload};
}

static void clear_effects(struct effects *effects)
{
    buf_reset(&effects->woken);
    struct buf woken = effects->woken;
    *effects = (struct effects){.woken = woken};
}

static err_t apply(struct engine *engine, struct store_txn *txn, struct engine_batch *batch,
                   uint32_t count)
{
    for (uint32_t index = 0; index < count; index++) {
        clear_reply(&batch->replies[index]);
        TRY(engine->machine->ops->apply(engine->machine, txn, &batch->commands[index],
                                        &batch->replies[index], &engine->effects));
    }
    return NULL;
}

static err_t try_batch(struct engine *engine, struct engine_batch *batch, bool *stored)
{
    struct store_txn *txn = NULL;
    *stored = false;
    clear_effects(&engine->effects);
    TRY(store_begin(engine->store, STORE_WRITE, &txn));
    err_t err = apply(engine, txn, batch, batch->count);
    batch->answered = err == NULL;
    if (err == NULL) {
        err = engine->machine->ops->flush(engine->machine, txn);
    }
    if (err != NULL) {
        store_abort(txn);
        return err_passed(err, __func__);
    }
    *stored = engine->machine->ops->dirty(engine->machine);
    if (*stored) {
        TRY(store_commit(txn));
    } else {
        store_abort(txn);
    }
    engine->machine->ops->committed(engine->machine);
    return NULL;
}

/* The power fails after some commands, or after the flush when there are not so many. */
static void lose_power(struct engine *engine, struct engine_batch *batch)
{
    struct store_txn *txn = NULL;
    must(engine, store_begin(engine->store, STORE_WRITE, &txn));
    clear_effects(&engine->effects);
    uint32_t count = batch->accident_at < batch->count ? batch->accident_at : batch->count;
    must(engine, apply(engine, txn, batch, count));
    batch->answered = count == batch->count;
    if (batch->accident_at > batch->count) {
        must(engine, engine->machine->ops->flush(engine->machine, txn));
    }
    store_abort(txn);
    trace_note(engine->trace, "power fails after %u of %u commands", count, batch->count);
    engine_restart(engine);
}

bool engine_run(struct engine *engine, struct engine_batch *batch, bool *stored)
{
    *stored = false;
    batch->answered = false;
    if (batch->accident == ACCIDENT_POWER) {
        lose_power(engine, batch);
        engine->losses++;
        return false;
    }
    if (batch->accident == ACCIDENT_COMMIT) {
        memory_store_fail_commits(engine->store, batch->accident_code);
    } else if (batch->accident == ACCIDENT_CALL) {
        memory_store_fail_call(engine->store, batch->accident_at);
    }
    err_t err = try_batch(engine, batch, stored);
    memory_store_fail_commits(engine->store, ERR_NONE);
    if (err == NULL) {
        memory_store_fail_call(engine->store, 0);
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

void engine_look(struct engine *engine, const struct command *command, struct reply *reply)
{
    struct store_txn *txn = NULL;
    must(engine, store_begin(engine->store, STORE_WRITE, &txn));
    clear_reply(reply);
    must(engine,
         engine->machine->ops->apply(engine->machine, txn, command, reply, &engine->effects));
    must(engine, engine->machine->ops->flush(engine->machine, txn));
    if (engine->machine->ops->dirty(engine->machine)) {
        trace_fail(engine->trace, "%s has changed something", trace_command_name(command->type));
    }
    store_abort(txn);
    engine->machine->ops->committed(engine->machine);
}

void engine_check(struct engine *engine)
{
    static struct check_report report; /* too large for the stack */
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
    must(engine, store_begin(engine->store, STORE_READ, &txn));
    must(engine, store_entries(txn, table, &rows));
    store_abort(txn);
    return rows;
}
