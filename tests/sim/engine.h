/* One volume of the simulation: a machine over a store in memory, driven as a volume's thread
 * drives it (broker/volume/writer.h), with the accidents a volume can have. Its journal is in
 * memory too: the commands of batches that are not committed, as bytes, with what their replies
 * said. When they are applied again they must say the same. */
#ifndef SIM_ENGINE_H
#define SIM_ENGINE_H

#include "broker/core/codec.h"
#include "broker/core/core.h"
#include "storage/memory.h"
#include "tests/sim/trace.h"

enum { ENGINE_BATCH_MAX = 32 };

enum accident {
    ACCIDENT_NONE,
    ACCIDENT_POWER,  /* all that is neither committed nor in the journal is gone, the process too */
    ACCIDENT_COMMIT, /* a commit fails */
    ACCIDENT_CALL,   /* one call of the store fails */
};

struct engine {
    struct trace *trace;
    struct core_options options;
    struct store *store;
    struct machine *machine;
    struct store_txn *txn; /* NULL: nothing is applied and not committed */
    struct buf
        journal; /* for each command: a hash of its reply, 0 for none to compare; its bytes */
    uint64_t stored_ms;    /* the greatest stamp that survives the end of the process ... */
    uint64_t committed_ms; /* ... and that of the last commit that had something in it */
    uint64_t floor_ms;     /* stamps are not less, as a volume's are not while it runs */
    struct codec_room room;
    struct reply reply;     /* of a command that is applied again */
    struct effects again;   /* likewise */
    struct effects effects; /* of the last batch that was kept */
    uint64_t losses;        /* batches */
    uint64_t restarts;
    uint64_t replayed; /* commands applied again */
};

struct engine_batch {
    struct command commands[ENGINE_BATCH_MAX];
    struct reply replies[ENGINE_BATCH_MAX];
    uint32_t count;
    bool direct;     /* it is committed instead of being journaled */
    bool checkpoint; /* what is applied is committed after it */
    enum accident accident;
    uint32_t accident_at;        /* POWER: commands applied before it; CALL: calls */
    enum err_code accident_code; /* COMMIT */
    bool answered;               /* out: it came so far that early replies to pulls were sent */
    bool appended;               /* out: and those to publishes, as it was written to the journal */
};

void engine_open(struct engine *engine, struct trace *trace, const struct core_options *options);
void engine_close(struct engine *engine);

/* Applies the batch and keeps it; false: it was lost, and the machine has been built anew from the
 * store and the journal. */
bool engine_run(struct engine *engine, struct engine_batch *batch);
/* Applies one command that changes nothing, without accidents. */
void engine_look(struct engine *engine, const struct command *command, struct reply *reply);
/* Ends the process, as by a kill, and starts it again. */
void engine_restart(struct engine *engine);

/* Commits, reads all of the store and checks that its tables agree. */
void engine_check(struct engine *engine);

uint64_t engine_next_due_ms(const struct engine *engine);
uint64_t engine_rows(struct engine *engine, enum store_table table);

#endif
