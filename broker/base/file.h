/* Errors of files, and what their names need to outlive a power failure. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "broker/base/err.h"

/* What an errno comes to. */
enum err_code file_code(int cause);

/* The error of a call that has just set errno. */
err_t file_err(const char *call, const char *path) MUST_CHECK;

/* Flushes the directory that `path` lies in: what was made there or renamed to it stays. */
err_t file_flush_directory(const char *path) MUST_CHECK;

#endif
