/* A broker for one test of another program's test suite. Self-contained C11 and C++17; part of
 * libflare-broker.
 *
 *   static int setup(void **state)                          // cmocka; any framework will do
 *   {
 *       return flare_harness_open(NULL, (struct flare_harness **)state, NULL);
 *   }
 *   static int teardown(void **state)
 *   {
 *       flare_harness_close(*state);                        // prints the log if the test failed
 *       return 0;
 *   }
 *   static void test_redelivery(void **state)
 *   {
 *       struct flare_broker *broker = flare_harness_broker(*state);
 *       flare_publish(flare_harness_client(*state), "orders", &message, NULL, NULL);
 *       ... code that pulls the message and then crashes ...
 *       flare_broker_advance(broker, 30000, NULL);          // the lease expires now
 *       assert_true(flare_harness_expect_depths(*state, &mail_source,
 *                                               &(struct flare_depths){.scheduled = 1}));
 *       flare_harness_pass(*state);
 *   }
 *
 * A harness is a broker (flare_harness_broker gives it, for everything in <flare/broker.h>) whose
 * log is kept and shown only when its test has failed. By default it is in memory, opens in a few
 * milliseconds, has no socket, and a simulated clock. Tests may have as many at a time as they
 * like.
 *
 * Threads: as for struct flare_broker; flare_harness_close must be the last call. Reports go to
 * standard error. */
#ifndef FLARE_HARNESS_H
#define FLARE_HARNESS_H

#include <flare/broker.h>

#ifdef __cplusplus
extern "C" {
#endif

struct flare_harness;

/* Where the clock of a default harness stands at first: 2026-01-01T00:00:00Z. */
#define FLARE_HARNESS_START_MS UINT64_C(1767225600000)

enum {
    FLARE_HARNESS_LOG_SIZE = 256 * 1024 /* bytes of the log that are kept: the last ones */
};

/* Opens a broker as flare_broker_open does. `options` NULL: in memory, no sockets, a simulated
 * clock that begins at FLARE_HARNESS_START_MS. Otherwise as they say, but for `log` and `log_user`,
 * which are the harness's. Gives 0 (FLARE_OK), or prints why not and gives the code of
 * flare_broker_open. With FLARE_HARNESS_LOG=1 in the environment the log goes to standard error at
 * once. */
FLARE_API enum flare_code flare_harness_open(const struct flare_broker_options *options,
                                             struct flare_harness **out, struct flare_error *error);

/* The broker; it is closed by flare_harness_close and by nothing else. */
FLARE_API struct flare_broker *flare_harness_broker(struct flare_harness *harness);

/* A client of the broker, connected at the first call and closed by flare_harness_close and by
 * nothing else; NULL when it cannot be connected, which is printed. Not from two threads at a time.
 */
FLARE_API struct flare_client *flare_harness_client(struct flare_harness *harness);

/* The test has passed: flare_harness_close will be silent. Its last line; a framework that leaves a
 * failed test early never comes here. */
FLARE_API void flare_harness_pass(struct flare_harness *harness);

/* Closes client and broker. Unless flare_harness_pass has been called and no expectation has
 * failed, prints what flare_harness_print does first. NULL does nothing. */
FLARE_API void flare_harness_close(struct flare_harness *harness);

/* Prints the depths of every subscription and the log so far. */
FLARE_API void flare_harness_print(struct flare_harness *harness);

/* The log so far, terminated, the caller's to free(); NULL: no memory. What is older than
 * FLARE_HARNESS_LOG_SIZE bytes is missing, and a first line says so. */
FLARE_API char *flare_harness_log(struct flare_harness *harness);

/* ---- expectations --------------------------------------------------------------------------- */

/* Each gives 1 when it holds. Otherwise it prints what was expected and what is, the test counts as
 * failed whatever else is called, and it gives 0: for assert_true() and its like. */

/* The subscription has exactly so many messages in each state. */
FLARE_API int flare_harness_expect_depths(struct flare_harness *harness,
                                          const struct flare_source *source,
                                          const struct flare_depths *expected);

/* Exactly these bodies (terminated texts, NULL ends them, in any order) are in one state. */
FLARE_API int flare_harness_expect_bodies(struct flare_harness *harness,
                                          const struct flare_source *source,
                                          enum flare_message_state state,
                                          const char *const *bodies);

/* The log holds `text`: one line says so. */
FLARE_API int flare_harness_expect_log(struct flare_harness *harness, const char *text);

#ifdef __cplusplus
}
#endif

#endif
