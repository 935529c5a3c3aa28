/* The names of the rows of durability.def. */
#ifndef CORE_DURABILITY_H
#define CORE_DURABILITY_H

#include "broker/core/command.h"

/* "synced": the name users see. */
const char *durability_text(enum durability durability);
/* False: no durability has this name, and `out` is as it was. */
bool durability_read(struct span text, enum durability *out);

#endif
