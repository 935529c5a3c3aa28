/* The journals beside the environments of a data directory, for backup, inspect and verify. */
#ifndef FLARE_JOURNALS_H
#define FLARE_JOURNALS_H

#include "tools/flare/datafiles.h"

/* Copies the journal of `file` to `path`, flushed, if it has one. To be called before the
 * environment is copied: what is committed in between is then in the environment's copy, and the
 * records copied are those before it. */
err_t journals_copy(const struct datafile *file, const char *path) MUST_CHECK;

/* Reads every record that follows the environment's last commit, and each command in it; how many
 * commands there are. */
err_t journals_check(const struct datafile *file, uint64_t *out) MUST_CHECK;

#endif
