/* A file as a list of records: its lines, or the paragraphs of a Debian control file. */
#ifndef FLARE_RECORDS_H
#define FLARE_RECORDS_H

#include <stdbool.h>

#include "broker/base/err.h"
#include "broker/base/span.h"

struct record {
    struct span body; /* without the line's or paragraph's end */
    struct span key;  /* empty: none */
};

/* The file stays mapped: every span points into it. */
struct records {
    struct record *items;
    size_t count;
    size_t capacity;
    struct span file;
};

/* Lines without key, or paragraphs keyed by "Source", for want of it by "Package". NOT_FOUND, IO,
 * MEMORY; INVALID for a file without a record. */
err_t records_open(const char *path, bool paragraphs, struct records *out) MUST_CHECK;
void records_close(struct records *records);

#endif
