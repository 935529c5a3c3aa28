#include "broker/core/lifecycle.h"

#include <assert.h>

#define MOVE_NONE 0xff

static const struct {
    uint8_t from;
    uint8_t event;
    uint8_t to;
} moves[] = {
#define MOVE(from_state, event_name, to_state, doc)                                                \
    {MESSAGE_##from_state, LIFECYCLE_##event_name, MESSAGE_##to_state},
#include "broker/core/lifecycle.def"
};

static const char *const names[] = {
#define STATE(name, number, text, doc) [number] = text,
#include "broker/core/lifecycle.def"
};

static unsigned find(enum message_state state, enum lifecycle_event event)
{
    for (size_t index = 0; index < sizeof moves / sizeof moves[0]; index++) {
        if (moves[index].from == state && moves[index].event == event) {
            return moves[index].to;
        }
    }
    return MOVE_NONE;
}

enum message_state lifecycle_next(enum message_state state, enum lifecycle_event event)
{
    unsigned next = find(state, event);
    assert(next != MOVE_NONE);
    return (enum message_state)next;
}

bool lifecycle_legal(enum message_state state, enum lifecycle_event event)
{
    return find(state, event) != MOVE_NONE;
}

const char *lifecycle_name(enum message_state state)
{
    return names[state];
}
