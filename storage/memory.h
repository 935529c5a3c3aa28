/* The store in memory: for tests, the simulation and brokers without a directory. One thread at a
 * time. */
#ifndef STORAGE_MEMORY_H
#define STORAGE_MEMORY_H

#include "storage/store.h"

err_t memory_store_open(struct store **out) MUST_CHECK;

/* Crash tests: the next commit, and every one after it, fails with `code`; ERR_NONE ends that. */
void memory_store_fail_commits(struct store *store, enum err_code code);

/* Fault tests: the `n`th call from now that can fail (get, put, append, remove, seek, commit ...)
 * fails once with ERR_IO; 0 ends that. */
void memory_store_fail_call(struct store *store, uint64_t n);

#endif
