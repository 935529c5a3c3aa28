/* Reads every message record of a volume's log and compares it with its checksum (SPEC "Storage").
 */
#ifndef FLARE_CHECK_LOG_H
#define FLARE_CHECK_LOG_H

#include "broker/base/err.h"
#include "storage/store.h"

struct check_log {
    void *context;
    void (*fault)(void *context, const char *text);
    void (*progress)(void *context, uint64_t records); /* after each row */
    uint64_t records;                                  /* out: whole and right */
    uint64_t faults;                                   /* out */
};

/* An error means that the store could not be read; damage is told to `fault` and counted. */
err_t check_log_run(struct store *store, struct check_log *check) MUST_CHECK;

#endif
