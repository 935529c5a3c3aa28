/* A temporary directory of one test: made under $TMPDIR (or /tmp), removed with all it holds.
 * What cannot be made or removed ends the test program with a message. */
#ifndef LIB_TMPDIR_H
#define LIB_TMPDIR_H

#include <stddef.h>

enum { TMPDIR_PATH_SIZE = 512 };

struct tmpdir {
    char path[TMPDIR_PATH_SIZE];
};

void tmpdir_init(struct tmpdir *tmpdir);
/* Removes it; does nothing for one that was removed already or never made (all zero). */
void tmpdir_deinit(struct tmpdir *tmpdir);

/* "path/name" into `out`, which is handed back. */
char *tmpdir_file(const struct tmpdir *tmpdir, const char *name, char out[TMPDIR_PATH_SIZE]);

/* Makes or replaces the file `name` in it. */
void tmpdir_write(const struct tmpdir *tmpdir, const char *name, const void *data, size_t size);

#endif
