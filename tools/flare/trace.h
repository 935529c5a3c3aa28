/* --trace: bytes as a person can read them, on standard error. */
#ifndef FLARE_TRACE_H
#define FLARE_TRACE_H

#include "broker/base/span.h"

enum { TRACE_SENT = '>', TRACE_RECEIVED = '<' };

/* One line: the time since the first one, the direction and `text`, with what is not plainly
 * visible escaped and cut after a screen's worth. */
void trace_line(char direction, struct span text);

#endif
