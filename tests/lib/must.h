/* What must go well, or must not, in a test: it ends with the error's description otherwise. Both
 * take the error. */
#ifndef LIB_MUST_H
#define LIB_MUST_H

#include "broker/base/err.h"

void must(err_t err);
void must_fail(err_t err, enum err_code code);

#endif
