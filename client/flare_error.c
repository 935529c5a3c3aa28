#include <flare/error.h>

#include "broker/base/err.h"

#define FLARE_ERR_NONE FLARE_OK

/* The rows of err.def, written out in the header since that must stand alone: the same numbers ...
 */
#define ERROR(name, number, status, retryable, text)                                               \
    _Static_assert((int)FLARE_ERR_##name == number, "flare_error.h: number of " #name);
#include "broker/base/err.def"

/* ... and, as the compiler lists a case that is missing here, none that is not in the table. */
static enum err_code to_err_code(enum flare_code code)
{
    switch (code) {
#define ERROR(name, number, status, retryable, text)                                               \
    case FLARE_ERR_##name:                                                                         \
        return ERR_##name;
#include "broker/base/err.def"
    }
    return ERR_UNKNOWN;
}

const char *flare_code_name(enum flare_code code)
{
    return err_slug(to_err_code(code));
}

int flare_code_retryable(enum flare_code code)
{
    return err_retryable(to_err_code(code));
}
