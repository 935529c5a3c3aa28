/* Attributes of a message as bytes: pairs of {name size u16, value size u16, name, value},
 * little-endian, in the order given. A publisher's content type is the attribute "content-type". */
#ifndef CORE_ATTRIBUTES_H
#define CORE_ATTRIBUTES_H

#include "broker/base/buf.h"

void attributes_add(struct buf *buf, struct span name, struct span value);
/* Takes the next pair off `rest`; false at the end or when the bytes are not well formed. */
bool attributes_next(struct span *rest, struct span *name, struct span *value);
bool attributes_valid(struct span attributes);
bool attributes_find(struct span attributes, const char *name, struct span *value);

#endif
