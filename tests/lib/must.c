#include "tests/lib/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

void must(err_t err)
{
    if (err != NULL) {
        fail_msg("%s", err_describe(err));
    }
}

void must_fail(err_t err, enum err_code code)
{
    if (err_code(err) != code) {
        fail_msg("%s, not %s", err == NULL ? "success" : err_describe(err), err_slug(code));
    }
    err_free(err);
}
