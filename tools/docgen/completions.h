/* Completions of the command-line tool as files, under the names the shells look for. */
#ifndef DOCGEN_COMPLETIONS_H
#define DOCGEN_COMPLETIONS_H

#include "broker/base/err.h"

/* Writes flare.bash, _flare and flare.fish to `directory`, which is made when it is missing. */
err_t completions_write(const char *directory) MUST_CHECK;

#endif
