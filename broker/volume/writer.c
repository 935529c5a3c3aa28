#include "broker/volume/writer.h"

#include <assert.h>

#include "broker/base/log.h"
#include "broker/base/random.h"

enum {
    GROWS_MAX = 16,                        /* doublings of the map for one batch */
    CHECKPOINT_SIZE_MAX = 2 * 1024 * 1024, /* bounds the pages of a transaction, and how long ... */
    CHECKPOINT_SIZE_MIN = 256 * 1024,
    CHECKPOINT_COMMANDS = 64 * 1024, /* ... its commit keeps others waiting */
    RESERVE_SHARE = 4, /* what is not committed must find room in the reserve on a full disk:
                        * records of one part in so many */
};

void writer_init(struct writer *writer, struct store *store, struct machine *machine,
                 struct journal *journal, const struct writer_options *options)
{
    uint64_t size = options->reserve / RESERVE_SHARE;
    size = size < CHECKPOINT_SIZE_MIN ? CHECKPOINT_SIZE_MIN : size;
    assert(journal == NULL || machine->ops->end_batch != NULL);
    *writer = (struct writer){
        .store = store, .machine = machine, .journal = journal, .options = *options};
    writer->checkpoint_size = size < CHECKPOINT_SIZE_MAX ? size : CHECKPOINT_SIZE_MAX;
    codec_room_init(&writer->room);
    reply_init(&writer->reply);
    effects_init(&writer->effects);
}

void writer_deinit(struct writer *writer)
{
    writer_drop(writer);
    codec_room_deinit(&writer->room);
    reply_deinit(&writer->reply);
    effects_deinit(&writer->effects);
}

void writer_drop(struct writer *writer)
{
    if (writer->txn != NULL) {
        store_abort(writer->txn);
        writer->txn = NULL;
    }
}

/* ---- applying again ---- */

static bool is_skipped(const struct writer *writer, uint64_t number)
{
    for (uint32_t index = 0; index < writer->skip_count; index++) {
        if (writer->skips[index] == number) {
            return true;
        }
    }
    return false;
}

/* A command that meets damage now and did not when it was first applied is left out, as one is
 * refused alone; the others are applied. */
static err_t note_skip(struct writer *writer, uint64_t number, err_t err)
{
    if (err_code(err) != ERR_CORRUPT || writer->skip_count == WRITER_SKIPS_MAX) {
        return err;
    }
    LOG_ERROR("command of the journal left out", LOG_TEXT("volume", writer->options.name),
              LOG_U64("number", number), LOG_ERR(err));
    writer->skips[writer->skip_count++] = number;
    return err;
}

static err_t apply_record(struct writer *writer, struct span bytes)
{
    while (bytes.size > 0) {
        struct command command;
        uint64_t number = writer->commands++;
        TRY(codec_get(&bytes, &writer->room, &command));
        if (is_skipped(writer, number)) {
            continue;
        }
        reply_clear(&writer->reply);
        effects_clear(&writer->effects);
        err_t err = writer->machine->ops->apply(writer->machine, writer->txn, &command,
                                                &writer->reply, &writer->effects);
        if (err != NULL) {
            return note_skip(writer, number, err);
        }
    }
    return NULL;
}

static err_t apply_again(struct writer *writer)
{
    struct span record;
    bool found = true;
    while (found) {
        TRY(journal_next(writer->journal, &record, &found));
        if (found) {
            TRY(apply_record(writer, record));
            writer->journaled += record.size;
        }
    }
    writer->machine->ops->end_batch(writer->machine, !journal_pending(writer->journal));
    return NULL;
}

/* One try: the last commit, and what the journal has since. */
static err_t try_recover(struct writer *writer)
{
    uint64_t generation = 0;
    writer->journaled = 0;
    writer->commands = 0;
    TRY(store_begin(writer->store, STORE_WRITE, &writer->txn));
    TRY(writer->machine->ops->load(writer->machine, writer->txn));
    if (writer->journal == NULL) {
        return NULL;
    }
    TRY(journal_generation(writer->txn, &generation));
    writer->generation = generation;
    if (generation == 0) {
        return NULL;
    }
    journal_rewind(writer->journal, generation);
    return apply_again(writer);
}

bool writer_is_space(enum err_code code)
{
    return code == ERR_NO_SPACE || code == ERR_MAP_FULL;
}

/* Between transactions: a larger map, if that is what an error asks for. False: it is as it was. */
static bool grow(struct writer *writer, enum err_code code)
{
    if (code != ERR_MAP_FULL || writer->grows == GROWS_MAX) {
        return false;
    }
    err_t err = store_grow(writer->store);
    bool grown = err == NULL;
    writer->grows += grown;
    err_free(err);
    return grown;
}

err_t writer_recover(struct writer *writer)
{
    writer->direct = false;
    for (;;) {
        uint32_t skips = writer->skip_count;
        writer_drop(writer);
        err_t err = try_recover(writer);
        if (err == NULL && writer->commands == 0) {
            writer_drop(writer); /* nothing but what is committed */
        }
        if (err == NULL) {
            return NULL;
        }
        writer_drop(writer);
        if (skips == writer->skip_count && !grow(writer, err_code(err))) {
            return err_passed(err, __func__);
        }
        err_free(err);
    }
}

err_t writer_undo(struct writer *writer, enum err_code code, bool *grown)
{
    writer_drop(writer);
    *grown = grow(writer, code);
    err_t err = writer_recover(writer);
    writer->failed = err != NULL;
    return err;
}

/* ---- commits ---- */

static err_t open_txn(struct writer *writer)
{
    return writer->txn != NULL ? NULL : store_begin(writer->store, STORE_WRITE, &writer->txn);
}

/* Puts what is still in memory into the transaction, with the generation of what follows it. */
static err_t prepare(struct writer *writer, uint64_t generation, bool *dirty)
{
    TRY(writer->machine->ops->flush(writer->machine, writer->txn));
    *dirty = writer->machine->ops->dirty(writer->machine);
    if (writer->journal != NULL) {
        TRY(journal_put_generation(writer->txn, generation));
    }
    return NULL;
}

/* Without something to commit the transaction is dropped, unless the generation must be written. */
static err_t commit(struct writer *writer, bool must)
{
    uint64_t generation = random_seed() | 1;
    bool dirty = false;
    err_t err = open_txn(writer);
    if (err == NULL) {
        err = prepare(writer, generation, &dirty);
    }
    if (err != NULL || (!dirty && !must)) {
        writer_drop(writer);
    } else {
        err = store_commit(writer->txn);
        writer->txn = NULL;
        /* What has failed in the middle may be there all the same. */
        writer->written = err != NULL && !writer_is_space(err_code(err));
    }
    if (err != NULL) {
        writer->failed = !writer_is_space(err_code(err));
        return err_passed(err, __func__);
    }
    writer->machine->ops->committed(writer->machine);
    if (writer->journal != NULL && (dirty || must)) {
        journal_restart(writer->journal, generation);
        writer->generation = generation;
    }
    writer->journaled = 0;
    writer->commands = 0;
    writer->skip_count = 0;
    return NULL;
}

/* The map grows as often as it takes. What has no room is built anew from the journal. */
static err_t save(struct writer *writer, bool must)
{
    for (;;) {
        bool grown = false;
        err_t err = commit(writer, must);
        if (err == NULL || writer->failed) {
            return err;
        }
        err_t lost = writer_undo(writer, err_code(err), &grown);
        if (lost == NULL && !grown) {
            return err;
        }
        err_free(err);
        TRY(lost);
    }
}

err_t writer_checkpoint(struct writer *writer)
{
    return writer->txn == NULL ? NULL : save(writer, writer->commands > 0);
}

err_t writer_open(struct writer *writer)
{
    TRY(writer_recover(writer));
    if (writer->journal == NULL || (writer->txn == NULL && writer->generation != 0)) {
        return NULL;
    }
    err_t err = save(writer, true);
    if (err == NULL || writer->failed) {
        return err;
    }
    LOG_WARN("no room to commit what the journal holds", LOG_TEXT("volume", writer->options.name),
             LOG_ERR(err));
    err_free(err);
    if (writer->generation == 0) {
        writer->journal = NULL; /* the environment does not know of it: it goes on without */
    }
    return NULL;
}

bool writer_uncommitted(const struct writer *writer)
{
    return writer->txn != NULL;
}

bool writer_wants_checkpoint(const struct writer *writer)
{
    return writer->journal != NULL && writer->txn != NULL &&
           (writer->journaled >= writer->checkpoint_size ||
            writer->commands >= CHECKPOINT_COMMANDS ||
            journal_used(writer->journal) >= journal_size(writer->journal) / 2);
}

/* ---- a batch ---- */

err_t writer_begin(struct writer *writer)
{
    assert(!writer->failed);
    writer->direct = writer->journal == NULL;
    writer->written = false;
    writer->batch_commands = 0;
    writer->record = writer->journal == NULL ? NULL : journal_record(writer->journal);
    return open_txn(writer);
}

err_t writer_apply(struct writer *writer, const struct command *command, struct reply *reply,
                   struct effects *effects)
{
    const struct machine_ops *ops = writer->machine->ops;
    uint64_t before = writer->journal == NULL ? 0 : ops->changes(writer->machine);
    TRY(ops->apply(writer->machine, writer->txn, command, reply, effects));
    if (writer->direct || ops->changes(writer->machine) == before || command_looks(command->type)) {
        return NULL;
    }
    writer->batch_commands++;
    if (!codec_takes(command->type)) {
        writer->direct = true;
        return NULL;
    }
    struct command stamped = *command;
    stamped.now_ms = ops->now_ms(writer->machine); /* not less than that of one that is left out */
    codec_put(&stamped, writer->record);
    writer->direct = writer->record->failed || writer->record->size > JOURNAL_RECORD_MAX ||
                     writer->record->size > writer->checkpoint_size / 2;
    return NULL;
}

err_t writer_append(struct writer *writer)
{
    if (writer->direct || writer->batch_commands == 0) {
        return NULL;
    }
    err_t err = journal_append(writer->journal);
    if (err_code(err) == ERR_NO_SPACE || err_code(err) == ERR_MEMORY) {
        err_free(err);
        writer->direct = true;
        return NULL;
    }
    writer->written = true;
    if (err != NULL) {
        writer->failed = true;
        return err_passed(err, __func__);
    }
    writer->journaled += writer->record->size;
    writer->commands += writer->batch_commands;
    return NULL;
}

bool writer_is_direct(const struct writer *writer)
{
    return writer->direct;
}

err_t writer_flush(struct writer *writer)
{
    if (writer->direct) {
        return commit(writer, writer->commands + writer->batch_commands > 0);
    }
    err_t err = journal_flush(writer->journal);
    writer->failed = err != NULL;
    return err;
}

bool writer_pending(const struct writer *writer)
{
    return writer->direct || (writer->journal != NULL && journal_pending(writer->journal));
}

void writer_end(struct writer *writer)
{
    const struct machine_ops *ops = writer->machine->ops;
    writer->direct = false;
    writer->grows = 0;
    if (writer->txn == NULL) {
        return; /* it has been committed */
    }
    if (writer->commands == 0 && !ops->dirty(writer->machine)) {
        writer_drop(writer);
        ops->committed(writer->machine);
        return;
    }
    ops->end_batch(writer->machine, !journal_pending(writer->journal));
}
