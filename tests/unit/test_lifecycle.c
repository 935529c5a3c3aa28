/* The table of a message's states: each legal move leads where the promises say, every other one is
 * refused, and no state is a dead end but the last. */
#include "broker/core/lifecycle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { STATES = MESSAGE_DONE + 1, EVENTS = LIFECYCLE_DROP + 1 };

/* Written by hand, not from the table: a row changed there by mistake shows here. X: refused. */
#define X (-1)
static const int expected[STATES][EVENTS] = {
    /* take, postpone, come due, finish, bury, revive, drop */
    [MESSAGE_NONE] = {MESSAGE_LEASED, MESSAGE_SCHEDULED, X, X, MESSAGE_DEAD, X, X},
    [MESSAGE_LEASED] = {X, MESSAGE_SCHEDULED, MESSAGE_READY, MESSAGE_DONE, MESSAGE_DEAD, X,
                        MESSAGE_DONE},
    [MESSAGE_SCHEDULED] = {X, X, MESSAGE_READY, X, X, X, MESSAGE_DONE},
    [MESSAGE_READY] = {MESSAGE_LEASED, X, X, X, MESSAGE_DEAD, X, MESSAGE_DONE},
    [MESSAGE_BLOCKED] = {X, X, X, X, X, X, X},
    [MESSAGE_DEAD] = {X, X, X, X, X, MESSAGE_READY, MESSAGE_DONE},
    [MESSAGE_DONE] = {X, X, X, X, X, X, X},
};

/* Each state takes the events of its life and no others. */
static void every_move(void **state)
{
    (void)state;
    for (int from = 0; from < STATES; from++) {
        for (int event = 0; event < EVENTS; event++) {
            enum message_state in = (enum message_state)from;
            enum lifecycle_event by = (enum lifecycle_event)event;
            assert_int_equal(lifecycle_legal(in, by), expected[from][event] != X);
            if (expected[from][event] != X) {
                assert_int_equal(lifecycle_next(in, by), expected[from][event]);
            }
        }
    }
}

/* From every state in use a message can reach its end: none is stuck. */
static void no_dead_ends(void **state)
{
    (void)state;
    bool ends[STATES] = {[MESSAGE_DONE] = true};
    for (int round = 0; round < STATES; round++) {
        for (int from = 0; from < STATES; from++) {
            for (int event = 0; event < EVENTS; event++) {
                ends[from] =
                    ends[from] || (expected[from][event] != X && ends[expected[from][event]]);
            }
        }
    }
    for (int from = 0; from < STATES; from++) {
        assert_int_equal(ends[from], from != MESSAGE_BLOCKED); /* not entered by any move */
    }
}

/* States have the numbers that lie on disk and the names users see. */
static void numbers_and_names(void **state)
{
    (void)state;
    static const char *const names[] = {"enqueued", "leased", "scheduled", "scheduled",
                                        "blocked",  "dead",   "done"};
    assert_int_equal(MESSAGE_NONE, 0);
    assert_int_equal(MESSAGE_LEASED, 1);
    assert_int_equal(MESSAGE_SCHEDULED, 2);
    assert_int_equal(MESSAGE_READY, 3);
    assert_int_equal(MESSAGE_BLOCKED, 4);
    assert_int_equal(MESSAGE_DEAD, 5);
    assert_int_equal(MESSAGE_DONE, 6);
    for (int from = 0; from < STATES; from++) {
        assert_string_equal(lifecycle_name((enum message_state)from), names[from]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_move),
        cmocka_unit_test(no_dead_ends),
        cmocka_unit_test(numbers_and_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
