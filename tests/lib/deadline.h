/* Until when a test waits for what must come: one that waits in vain fails, and does not hang. On
 * the monotonic clock, so that setting the time ends no wait. */
#ifndef LIB_DEADLINE_H
#define LIB_DEADLINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct deadline {
    struct timespec end;
};

struct deadline deadline_in(uint32_t ms);
bool deadline_passed(const struct deadline *deadline);
/* Waits for `changed` with `lock` held; false once the deadline has passed. */
bool deadline_wait(const struct deadline *deadline, pthread_cond_t *changed, pthread_mutex_t *lock);

#endif
