/* Attributes of a message as bytes: pairs of {name size u16, value size u16, name, value},
 * little-endian, in the order given. A publisher's content type is the attribute "content-type". */
#ifndef CORE_ATTRIBUTES_H
#define CORE_ATTRIBUTES_H

#include "broker/base/buf.h"

enum {
    ATTRIBUTES_COUNT_MAX = 64,
    ATTRIBUTES_NAME_MAX = 255,
    ATTRIBUTES_PAIR_SIZE = 4, /* what a pair takes beside name and value */
};

/* Why a publisher's attribute cannot join those of `encoded`, for people; NULL: it can. */
const char *attributes_fault(struct span encoded, struct span name, struct span value);

void attributes_add(struct buf *buf, struct span name, struct span value);
/* Takes the next pair off `rest`; false at the end or when the bytes are not well formed. */
bool attributes_next(struct span *rest, struct span *name, struct span *value);
bool attributes_valid(struct span attributes);
bool attributes_find(struct span attributes, const char *name, struct span *value);

#endif
