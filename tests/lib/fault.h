/* Allocation faults by counting: fail the 1st, 2nd, ... Nth call until the operation succeeds.
 *
 *   for (uint64_t nth = 1;; nth++) {
 *       fault_alloc_nth(nth);
 *       err_t err = operation();
 *       if (!fault_alloc_stop()) { break; }    // it needed fewer than nth allocations
 *       assert_non_null(err); ...
 *   }
 *
 * Reaches every malloc, calloc and realloc of the process, those inside of shared libraries too, in
 * every thread, with and without a sanitizer. A test program is affected by calling it, not by
 * linking options. */
#ifndef LIB_FAULT_H
#define LIB_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* The `nth` allocation from now (1: the next) fails, and only that one. */
void fault_alloc_nth(uint64_t nth);

/* The `nth` allocation from now and every later one fail. */
void fault_alloc_from(uint64_t nth);

/* Allocations succeed again; true when one failed since the last start; read it before or after
 * fault_alloc_stop. */
bool fault_alloc_stop(void);

/* Allocations between the last start and its stop. */
uint64_t fault_alloc_count(void);

#endif
