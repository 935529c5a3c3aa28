#include "broker/core/dead_reason.h"

static const char *const names[] = {
    [DEAD_NONE] = "none",         [DEAD_ATTEMPTS] = "attempts", [DEAD_EXPIRED] = "expired",
    [DEAD_REJECTED] = "rejected", [DEAD_CORRUPT] = "corrupt",
};
enum { REASONS = sizeof names / sizeof names[0] };

const char *dead_reason_text(uint8_t reason)
{
    return names[reason < REASONS ? reason : DEAD_NONE];
}

bool dead_reason_read(struct span text, enum dead_reason *out)
{
    for (uint32_t reason = DEAD_NONE + 1; reason < REASONS; reason++) {
        if (span_is(text, names[reason])) {
            *out = (enum dead_reason)reason;
            return true;
        }
    }
    return false;
}
