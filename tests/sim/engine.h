/* One volume of the simulation: a machine over a store in memory, driven as a volume's thread
 * drives it, with the accidents a volume can have. */
#ifndef SIM_ENGINE_H
#define SIM_ENGINE_H

#include "broker/core/core.h"
#include "storage/memory.h"
#include "tests/sim/trace.h"

enum { ENGINE_BATCH_MAX = 32 };

enum accident {
    ACCIDENT_NONE,
    ACCIDENT_POWER,  /* all that is not committed is gone, the process too */
    ACCIDENT_COMMIT, /* the commit fails */
    ACCIDENT_CALL,   /* one call of the store fails */
};

struct engine {
    struct trace *trace;
    struct core_options options;
    struct store *store;
    struct machine *machine;
    struct effects effects; /* of the last committed batch */
    uint64_t losses;        /* batches */
    uint64_t restarts;
};

struct engine_batch {
    struct command commands[ENGINE_BATCH_MAX];
    struct reply replies[ENGINE_BATCH_MAX];
    uint32_t count;
    enum accident accident;
    uint32_t accident_at;        /* POWER: commands applied before it; CALL: calls */
    enum err_code accident_code; /* COMMIT */
    bool answered;               /* out: it came so far that early replies were sent */
};

void engine_open(struct engine *engine, struct trace *trace, const struct core_options *options);
void engine_close(struct engine *engine);

/* Applies and commits the batch; false: it was lost, and the machine has been built anew from the
 * store. `stored` says whether there was anything to commit. */
bool engine_run(struct engine *engine, struct engine_batch *batch, bool *stored);
/* Applies one command that changes nothing, without accidents. */
void engine_look(struct engine *engine, const struct command *command, struct reply *reply);
/* Ends the process and starts it again. */
void engine_restart(struct engine *engine);

/* Reads all of the store and checks that its tables agree. */
void engine_check(struct engine *engine);

uint64_t engine_next_due_ms(const struct engine *engine);
uint64_t engine_rows(struct engine *engine, enum store_table table);

#endif
