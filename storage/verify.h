/* Checks the pages of an environment's file without LMDB, which trusts what it maps: damage there
 * ends a process.
 *
 * Every page that the last commit reaches is read once: it must be what its parent says, its keys
 * in order, its nodes inside it, no page used twice or both used and free, every table known, every
 * count right. The file must not be written meanwhile; nothing is changed. What the records mean is
 * checked elsewhere, by opening the file once this has found it whole. Contents of values are not
 * looked at: they carry their own checksums. */
#ifndef STORAGE_VERIFY_H
#define STORAGE_VERIFY_H

#include "storage/store.h"

struct verify_sink {
    void *context;
    void (*problem)(void *context, const char *text);
    /* Now and then; may be NULL. */
    void (*progress)(void *context, uint64_t pages_done, uint64_t pages);
};

struct verify_figures {
    uint64_t problem_count;
    uint64_t commit; /* number of the last commit */
    uint64_t page_size;
    uint64_t page_count;   /* up to the last one ever used */
    uint64_t used_count;   /* reached from the last commit */
    uint64_t free_count;   /* on its free list */
    uint64_t lost_count;   /* neither: room that LMDB will not use again, harmless otherwise */
    uint64_t unread_count; /* below damaged pages, so not looked at; at least */
    uint64_t entries[STORE_TABLE_COUNT];
};

/* An error means that the file could not be read; damage is told to `sink` and counted in `out`. */
err_t verify_file(const char *path, const struct verify_sink *sink,
                  struct verify_figures *out) MUST_CHECK;

#endif
