/* Reads msgpack from a span: bounded, allocating nothing, one item at a time.
 *
 * Our own, because msgpack-c's unpacker allocates from declared counts: five bytes make it ask for
 * gigabytes. Here no length or count is believed that the bytes left cannot hold, and what all open
 * containers still owe together cannot either, so the sum of all counts a caller ever sees is at
 * most the size of the input. Containers are walked in place, without recursion, and close by
 * themselves with their last item.
 *
 * The first failure stays, and every later read fails too: a caller decodes a whole message and
 * asks once, with reader_finish. */
#ifndef WIRE_READER_H
#define WIRE_READER_H

#include <stdbool.h>

#include "broker/base/err.h"
#include "broker/base/span.h"

enum { READER_DEPTH_MAX = 16 };

enum reader_kind {
    READER_NIL = 1,
    READER_BOOL,
    READER_UINT, /* 0 and more, whatever the width and sign it was sent with */
    READER_INT,  /* below 0 */
    READER_FLOAT,
    READER_STR,
    READER_BIN,
    READER_EXT,
    READER_ARRAY, /* `count` items follow */
    READER_MAP,   /* `count` pairs follow, each a key and a value */
};

struct reader_item {
    enum reader_kind kind;
    int8_t ext_type; /* of EXT */
    union {
        bool boolean;
        uint64_t unsigned_;
        int64_t signed_;
        double number;
        struct span bytes; /* STR, BIN, EXT: into the input */
        uint32_t count;    /* ARRAY, MAP */
    };
};

struct reader {
    struct span input;
    size_t at;
    uint64_t owed; /* items that open containers have declared and that have not been read */
    uint32_t depth;
    uint64_t left[READER_DEPTH_MAX]; /* of those, per open container */
    const char *failure;             /* NULL, or what was wrong at `at` */
};

void reader_init(struct reader *reader, struct span input);

/* The next item, or the head of the next container. False: failed. */
bool reader_next(struct reader *reader, struct reader_item *out);

/* Passes over the next item with all that is in it. */
bool reader_skip(struct reader *reader);

/* No bytes are left and no container is open. */
bool reader_at_end(const struct reader *reader);

/* The next item, which must be of this kind; each writes `out` only on true. */
bool reader_u64(struct reader *reader, uint64_t *out);
bool reader_str(struct reader *reader, struct span *out);
bool reader_array(struct reader *reader, uint32_t *out);
bool reader_map(struct reader *reader, uint32_t *out);

/* NULL when everything was read well and nothing is left; otherwise ERR_INVALID with the place. */
err_t reader_finish(const struct reader *reader) MUST_CHECK;

#endif
