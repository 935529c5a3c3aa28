/* Filling a struct flare_error, the public form of an error. Each returns the code, so that a
 * public function ends with `return problem_...`; `out` may be NULL. */
#ifndef CLIENT_PROBLEM_H
#define CLIENT_PROBLEM_H

#include <flare/error.h>

#include "broker/base/err.h"

enum flare_code problem_set(struct flare_error *out, enum flare_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Takes `err`, which may be NULL: FLARE_OK. */
enum flare_code problem_of_err(struct flare_error *out, err_t err);
/* What the code says by itself, for what the broker gives without words. */
enum flare_code problem_of_code(struct flare_error *out, uint32_t code);
enum flare_code problem_copy(struct flare_error *out, const struct flare_error *from);

#endif
