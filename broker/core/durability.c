#include "broker/core/durability.h"

static const char *const names[] = {
#define DURABILITY(name, number, text, doc) [number] = text,
#include "broker/core/durability.def"
};

const char *durability_text(enum durability durability)
{
    return names[durability];
}

bool durability_read(struct span text, enum durability *out)
{
    for (uint32_t number = 0; number < DURABILITY_COUNT; number++) {
        if (span_is(text, names[number])) {
            *out = (enum durability)number;
            return true;
        }
    }
    return false;
}
