/* What a volume writes with: a machine over a store, and a journal in front of the store's commits.
 *
 * A write transaction stays open over many batches. The commands of a batch that change something
 * are appended to the journal as one record, whose flush is what their answers wait for; now and
 * then the transaction is committed (a checkpoint), which makes the journal's records worthless.
 * When the transaction is lost, or the process, the machine is loaded from the last commit and the
 * journal's commands are applied again. A record that is large, or does not fit, is not written:
 * the batch waits for a checkpoint instead.
 *
 * Without a journal every batch is committed. */
#ifndef VOLUME_WRITER_H
#define VOLUME_WRITER_H

#include "broker/base/clock.h"
#include "broker/core/codec.h"
#include "broker/core/machine.h"
#include "storage/journal.h"

enum { WRITER_SKIPS_MAX = 64 };

struct writer_options {
    const char *name; /* for the log; must outlive it */
    uint64_t reserve; /* bytes that a commit finds on a full disk */
};

struct writer {
    struct store *store;
    struct machine *machine;
    struct journal *journal; /* NULL: none */
    struct writer_options options;
    uint64_t checkpoint_size; /* bytes of records after which they are to be committed */
    struct store_txn *txn;    /* NULL: nothing has been applied since the last commit */
    struct codec_room room;
    struct reply reply;      /* of what is applied again */
    struct effects effects;  /* likewise */
    struct buf *record;      /* the commands of the batch */
    uint64_t batch_commands; /* in it */
    bool written;            /* a start may find it, flushed or not */
    bool direct;             /* the batch goes past the journal: it is to be committed */
    bool failed;         /* the journal or a commit has failed: nothing may be written any more */
    uint64_t generation; /* of the journal, as last committed; 0: none */
    uint64_t journaled;  /* bytes of records since the last commit */
    uint64_t commands;   /* in them */
    uint64_t skips[WRITER_SKIPS_MAX]; /* numbers of those that met damage when applied again */
    uint32_t skip_count;
    uint32_t grows; /* doublings of the map since a batch was kept */
};

/* Takes nothing. */
void writer_init(struct writer *writer, struct store *store, struct machine *machine,
                 struct journal *journal, const struct writer_options *options);
/* Drops what is not committed. */
void writer_deinit(struct writer *writer);

/* At start: what the last commit and the journal after it hold, in memory and committed. When there
 * is no room for that commit the journal is kept. */
err_t writer_open(struct writer *writer) MUST_CHECK;

/* A batch: begin, apply for each command, append, and flush when somebody waits for it; then
 * writer_end. After an error of one of them all of the batch is undone with writer_undo, unless
 * `failed` says that nothing more may be done. */
err_t writer_begin(struct writer *writer) MUST_CHECK;
err_t writer_apply(struct writer *writer, const struct command *command, struct reply *reply,
                   struct effects *effects) MUST_CHECK;
/* Writes what the batch has changed to the journal, so that it outlives the process. */
err_t writer_append(struct writer *writer) MUST_CHECK;
/* Whether only a commit can keep what the batch has changed: then it must be flushed, whoever
 * waits, and nobody may be answered before. */
bool writer_is_direct(const struct writer *writer);
/* Makes all that was applied outlive a power failure. */
err_t writer_flush(struct writer *writer) MUST_CHECK;
void writer_end(struct writer *writer);
/* Whether something applied would not outlive a power failure. */
bool writer_pending(const struct writer *writer);

/* Commits what was applied, between batches. When there is no room for that (the error says so) it
 * is still applied and in the journal, unless that could not be read again; after that, and any
 * other error, `failed` is set. */
err_t writer_checkpoint(struct writer *writer) MUST_CHECK;
/* Whether something is applied and not committed; then no function of the store that needs to be
 * between transactions may be called. */
bool writer_uncommitted(const struct writer *writer);
/* Whether so much is applied and not committed that it should be. */
bool writer_wants_checkpoint(const struct writer *writer);

/* Drops the transaction, if it is not lost already. writer_recover must follow. */
void writer_drop(struct writer *writer);
/* Builds anew what was appended, without the batch under way. */
err_t writer_recover(struct writer *writer) MUST_CHECK;
/* Both, after an error of that code, with a larger map in between when it says that the map is
 * full. `grown`: the batch may have room now. After an error `failed` is set. */
err_t writer_undo(struct writer *writer, enum err_code code, bool *grown) MUST_CHECK;
/* Whether it is only room that is missing. */
bool writer_is_space(enum err_code code);

#endif
