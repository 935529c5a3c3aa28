/* Writes msgpack into a buf, with msgpack-c's packer, in the shortest form of each value.
 *
 * Nothing is reported here: a buf that is full fails itself, and its owner looks once at the end.
 */
#ifndef WIRE_WRITER_H
#define WIRE_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/buf.h"
#include "broker/base/span.h"

void writer_nil(struct buf *to);
void writer_bool(struct buf *to, bool value);
void writer_u64(struct buf *to, uint64_t value);
void writer_i64(struct buf *to, int64_t value);

/* At most UINT32_MAX bytes; more fails the buf. */
void writer_str(struct buf *to, struct span value);
void writer_text(struct buf *to, const char *value);
void writer_bin(struct buf *to, struct span value);

/* `count` items, or pairs of items, follow. */
void writer_array(struct buf *to, uint32_t count);
void writer_map(struct buf *to, uint32_t count);

#endif
