/* A core on a store, driven by hand: commands go into a batch, commit ends it, restart forgets
 * what is in memory. The clock is `now_ms`, which only the test moves.
 *
 * Functions without an err_t fail the test when the core does. Each test ends with
 * core_fixture_deinit, which also checks every row of the store against every other (check.h), so
 * that a test of one rule finds a breach of another. */
#ifndef LIB_CORE_FIXTURE_H
#define LIB_CORE_FIXTURE_H

#include "broker/core/core.h"
#include "tests/lib/tmpdir.h"

enum core_fixture_body { CORE_FIXTURE_MEMORY, CORE_FIXTURE_LMDB };

enum { CORE_FIXTURE_START_MS = 1000000, CORE_FIXTURE_RESULTS_MAX = 8192 };

struct core_fixture {
    struct store *store;
    struct machine *machine;
    struct store_txn *txn;   /* of the open batch; NULL: none */
    struct writer *writer;   /* NULL: every batch is committed to the store */
    struct journal *journal; /* the writer's */
    char journal_path[TMPDIR_PATH_SIZE];
    bool in_batch; /* of the writer */
    bool relaxed;  /* its batches are not flushed, unless they are committed */
    struct core_options options;
    uint64_t now_ms;
    bool no_space;
    bool unchecked;                  /* the test damages rows itself: deinit checks nothing */
    struct reply reply;              /* to the last command */
    struct effects effects;          /* since the fixture began; a test may reset its figures */
    struct publish_result published; /* by the last publish of one */
    enum err_code results[CORE_FIXTURE_RESULTS_MAX]; /* of the last settle */
    struct tmpdir tmpdir;
};

void core_fixture_init(struct core_fixture *fixture, enum core_fixture_body body,
                       const struct core_options *options);
/* From now on batches go to a journal, `path`, which is made when it is missing; what it holds is
 * applied first. */
void core_fixture_journal(struct core_fixture *fixture, const char *path);
void core_fixture_deinit(struct core_fixture *fixture);

/* Applies a command, stamped with now_ms, in the open batch or a new one. */
err_t core_fixture_try(struct core_fixture *fixture, struct command *command) MUST_CHECK;
err_t core_fixture_try_commit(struct core_fixture *fixture) MUST_CHECK;
/* Ends the open batch without its changes and loads the core again, which a failure asks for. */
err_t core_fixture_try_reload(struct core_fixture *fixture) MUST_CHECK;

/* Fails the test when the reply has another code. */
void core_fixture_apply(struct core_fixture *fixture, struct command *command, enum err_code code);
void core_fixture_commit(struct core_fixture *fixture);
/* A crash: what is not committed is lost, and a new core comes up from the store and the journal.
 */
void core_fixture_restart(struct core_fixture *fixture);
/* Moves the clock, then ticks until no work is left now; commits. */
void core_fixture_advance(struct core_fixture *fixture, uint64_t ms);

/* Topic `id` with `count` shards, numbered from 0, whose ids begin with `first_shard`. */
void core_fixture_topic(struct core_fixture *fixture, uint32_t id, uint32_t first_shard,
                        uint32_t count, const struct topic_settings *settings);
/* NULL: leases of 30 s, retries at once, no bounds; from the earliest message there is. */
void core_fixture_sub(struct core_fixture *fixture, uint32_t id, uint32_t topic_id,
                      const struct sub_settings *settings);

/* Publishes one message and gives its code; `published` has the rest. */
enum err_code core_fixture_publish(struct core_fixture *fixture, uint32_t topic_id,
                                   const struct message_in *message);
/* `count` messages with small bodies that name themselves, none of which may be refused. */
void core_fixture_fill(struct core_fixture *fixture, uint32_t topic_id, uint32_t shard_id,
                       uint32_t count);
/* The same with a body of this size, filled from its sequence. */
void core_fixture_publish_sized(struct core_fixture *fixture, uint32_t topic_id, uint32_t shard_id,
                                uint32_t size);

/* How many messages came; they are in `reply`. */
uint32_t core_fixture_pull(struct core_fixture *fixture, uint32_t sub_id, uint32_t max);
struct receipt core_fixture_receipt(const struct core_fixture *fixture, uint32_t sub_id,
                                    uint32_t index);
/* Settles these receipts; how many took effect. For more than a type and receipts, use apply. */
uint32_t core_fixture_settle(struct core_fixture *fixture, enum command_type type,
                             const struct receipt *receipts, uint32_t count);
/* Acknowledges all messages of the last pull. */
uint32_t core_fixture_ack_all(struct core_fixture *fixture, uint32_t sub_id);
/* Pulls and acknowledges until nothing comes; how many. */
uint32_t core_fixture_drain(struct core_fixture *fixture, uint32_t sub_id);

/* Figures of one subscription, summed over its shards. */
struct sub_stats core_fixture_stats(struct core_fixture *fixture, uint32_t sub_id);
uint64_t core_fixture_entries(struct core_fixture *fixture, enum store_table table);

/* Everything that can be seen from outside, as text: statistics, and every message of every
 * subscription in `subs` with its state, times and content. Two pictures are equal when the states
 * are. The caller deinits `out`. */
void core_fixture_picture(struct core_fixture *fixture, const uint32_t *subs, uint32_t count,
                          struct buf *out);

uint64_t core_fixture_hash(const struct message_in *message);

#endif
