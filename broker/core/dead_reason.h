/* The names of enum dead_reason. */
#ifndef CORE_DEAD_REASON_H
#define CORE_DEAD_REASON_H

#include "broker/core/command.h"

/* Of a reason as it is stored: "attempts"; "none" for one that is not known. */
const char *dead_reason_text(uint8_t reason);
/* False: no reason has this name, and `out` is as it was. */
bool dead_reason_read(struct span text, enum dead_reason *out);

#endif
