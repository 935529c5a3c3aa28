/* Children: for limits and mounts that the other tests of a program must not see.
 *
 * What runs in one ends it with CHILD_MUST and CHILD_TRUE instead of cmocka's asserts, which would
 * go on in the child with the tests of its parent. */
#ifndef LIB_CHILD_H
#define LIB_CHILD_H

#include "broker/base/err.h"

/* For a child that may not do what it is to try. */
enum { CHILD_SKIPPED = 77 };

/* Runs `body` in a process of its own; its result is the exit status, and 128 and the signal's
 * number when it was killed by one. */
int child_run(int (*body)(const char *path), const char *path);

/* Says on standard error what was wrong: `err`, or the line itself when it is NULL. Takes `err` and
 * gives 1. */
int child_failed(int line, err_t err);

#define CHILD_MUST(expression)                                                                     \
    do {                                                                                           \
        err_t child_err_ = (expression);                                                           \
        if (child_err_ != NULL) {                                                                  \
            return child_failed(__LINE__, child_err_);                                             \
        }                                                                                          \
    } while (0)
#define CHILD_TRUE(expression)                                                                     \
    do {                                                                                           \
        if (!(expression)) {                                                                       \
            return child_failed(__LINE__, NULL);                                                   \
        }                                                                                          \
    } while (0)

#endif
