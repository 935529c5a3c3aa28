#define _GNU_SOURCE
#include "tests/lib/deadline.h"

struct deadline deadline_in(uint32_t ms)
{
    struct deadline deadline;
    (void)clock_gettime(CLOCK_MONOTONIC, &deadline.end);
    deadline.end.tv_sec += ms / 1000;
    deadline.end.tv_nsec += ms % 1000 * 1000000L;
    if (deadline.end.tv_nsec >= 1000000000L) {
        deadline.end.tv_sec++;
        deadline.end.tv_nsec -= 1000000000L;
    }
    return deadline;
}

bool deadline_passed(const struct deadline *deadline)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec != deadline->end.tv_sec ? now.tv_sec > deadline->end.tv_sec
                                              : now.tv_nsec >= deadline->end.tv_nsec;
}

bool deadline_wait(const struct deadline *deadline, pthread_cond_t *changed, pthread_mutex_t *lock)
{
    return pthread_cond_clockwait(changed, lock, CLOCK_MONOTONIC, &deadline->end) == 0;
}
