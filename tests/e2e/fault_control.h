/* What a test and the preloaded fault_preload.c inside of flared share: a mapped file that says
 * which calls on which files fail from now on. All zero: none. */
#ifndef E2E_FAULT_CONTROL_H
#define E2E_FAULT_CONTROL_H

#include <stdint.h>

/* Environment variable with the path of the mapped file. */
#define FAULT_CONTROL_VARIABLE "FLARE_FAULT_CONTROL"

struct fault_control {
    char file[64];          /* only files whose path contains it */
    int32_t write_error;    /* errno of every write; 0: they succeed */
    int32_t growth_error;   /* likewise, of writes that would make the file larger: a full disk */
    int32_t flush_error;    /* likewise, of fsync and fdatasync */
    uint32_t failed_writes; /* how many have */
    uint32_t failed_flushes;
};

#endif
