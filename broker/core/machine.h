/* A state machine over a store: what a volume's thread drives. The core (messages) is one, the
 * catalog another.
 *
 * Within one write transaction a volume calls apply for each command and end_batch after each batch
 * of them; before the commit it calls flush, and after it committed, which ends a batch too. When
 * the transaction is lost instead, the machine's memory is worth nothing: load builds it anew from
 * the store, and the commands of the journal are applied again. What they bring about, as far as
 * replies show it, does not depend on where between them flush and load were called. */
#ifndef CORE_MACHINE_H
#define CORE_MACHINE_H

#include "broker/core/command.h"
#include "storage/store.h"

enum { EFFECTS_WOKEN_MAX = 64 * 1024 * 1024 };

/* What a batch of commands brings about beside its replies. */
struct effects {
    struct buf woken; /* uint32_t subscription ids that may now have something to pull; each once a
                         batch; 0 in the place of one of which all has been pulled since */
    uint64_t leases_expired;
    uint64_t dead_lettered; /* of them, these two kinds: */
    uint64_t expired;
    uint64_t corrupt;
};

void effects_init(struct effects *effects);
void effects_deinit(struct effects *effects);
void effects_clear(struct effects *effects); /* as after effects_init, with the memory it has */

struct machine;

struct machine_ops {
    err_t (*load)(struct machine *machine, struct store_txn *txn);
    err_t (*apply)(struct machine *machine, struct store_txn *txn, const struct command *command,
                   struct reply *reply, struct effects *effects);
    err_t (*flush)(struct machine *machine, struct store_txn *txn);
    /* Counts what apply changes of what is to be stored: a command that leaves it as it was need
     * not be applied again. NULL, as end_batch: the machine is never driven with a journal. */
    uint64_t (*changes)(const struct machine *machine);
    /* `durable`: all that was applied so far is on disk, in the journal. */
    void (*end_batch)(struct machine *machine, bool durable);
    /* After flush: whether there is anything to commit. When not, the transaction may be dropped,
     * and committed is called all the same. */
    bool (*dirty)(const struct machine *machine);
    void (*committed)(struct machine *machine);
    /* The greatest stamp so far; after load, of what is stored. */
    uint64_t (*now_ms)(const struct machine *machine);
    /* When the next TICK has something to do: UINT64_MAX for never, 0 for now. */
    uint64_t (*next_due_ms)(const struct machine *machine);
    void (*destroy)(struct machine *machine);
};

struct machine {
    const struct machine_ops *ops;
};

#endif
