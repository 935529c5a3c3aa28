/* The one table of a message's states and moves (lifecycle.def). */
#ifndef CORE_LIFECYCLE_H
#define CORE_LIFECYCLE_H

#include "broker/core/command.h"

enum lifecycle_event {
#define EVENT(name) LIFECYCLE_##name,
#include "broker/core/lifecycle.def"
};

/* The state after `event`; asserts that the move is legal. */
enum message_state lifecycle_next(enum message_state state, enum lifecycle_event event);
/* Whether it is, for tests and tools. */
bool lifecycle_legal(enum message_state state, enum lifecycle_event event);
/* "leased": the name users see. */
const char *lifecycle_name(enum message_state state);

#endif
