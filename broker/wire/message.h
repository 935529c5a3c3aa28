/* Messages of the wire protocol: structs, encoder and decoder, all from messages.def.
 *
 * A frame is its size (u32, big-endian, without these four bytes) and one MessagePack array: the
 * number of the message, the id of the request it is or belongs to, and its fields in order. Fields
 * at the end may be left out when they are optional; fields beyond those known are passed over.
 *
 * Decoding takes no memory and believes no size or count that the remaining bytes cannot hold:
 * texts are spans into the frame, and lists and maps stay encoded until they are walked. Errors are
 * ERR_INVALID with a message that begins with the field ("messages[3].key: ..."), and
 * ERR_NOT_IMPLEMENTED for a message that is not known. */
#ifndef WIRE_MESSAGE_H
#define WIRE_MESSAGE_H

#include "broker/base/buf.h"
#include "broker/wire/reader.h"

enum {
    WIRE_VERSION = 1,
    WIRE_SIZE_BYTES = 4, /* of a frame's size field */
    /* A frame of one message is never larger than its body and this. */
    WIRE_OVERHEAD_MAX = 96 * 1024,
    /* And `published` never than this for each of its results, and once more. */
    WIRE_RESULT_SIZE_MAX = 36,
    WIRE_FIELDS_MAX = 16,
};

/* "Not given" of a MAYBE field, which no bound lets through as a value. */
#define WIRE_NIL UINT64_MAX

enum wire_type {
#define MESSAGE(name, number, sender, role, text) WIRE_##name = number,
#include "broker/wire/messages.def"
};

enum wire_record {
    WIRE_RECORD_NONE,
#define RECORD(name, text) WIRE_RECORD_##name,
#include "broker/wire/messages.def"
    WIRE_RECORDS
};

enum wire_kind {
    WIRE_KIND_U32,
    WIRE_KIND_U64,
    WIRE_KIND_MAYBE,
    WIRE_KIND_BOOL,
    WIRE_KIND_NAME,
    WIRE_KIND_TEXT,
    WIRE_KIND_NOTE,
    WIRE_KIND_BYTES,
    WIRE_KIND_MAP,
    WIRE_KIND_LIST,
};

/* Who sends a message, and what a connection must be allowed for it. */
enum wire_sender { WIRE_FROM_CLIENT, WIRE_FROM_BROKER };
enum wire_role { WIRE_ROLE_NONE, WIRE_ROLE_PUBLISH, WIRE_ROLE_CONSUME, WIRE_ROLE_ADMIN };

/* `count` records, or pairs of a map, one encoded after the other. */
struct wire_list {
    uint32_t count;
    struct span items;
};

#define WIRE_C_U32 uint32_t
#define WIRE_C_U64 uint64_t
#define WIRE_C_MAYBE uint64_t
#define WIRE_C_BOOL bool
#define WIRE_C_NAME struct span
#define WIRE_C_TEXT struct span
#define WIRE_C_NOTE struct span
#define WIRE_C_BYTES struct span
#define WIRE_C_MAP struct wire_list

/* struct wire_publish and so on. */
#define MESSAGE(name, number, sender, role, text)                                                  \
    struct wire_##name {                                                                           \
        uint64_t id;
#define RECORD(name, text) struct wire_##name {
#define FIELD(of, name, kind, need, min, max, text) WIRE_C_##kind name;
#define LIST(of, name, record, max, text) struct wire_list name;
#define END(of)                                                                                    \
    }                                                                                              \
    ;
#include "broker/wire/messages.def"

/* Any message, decoded. */
struct wire_frame {
    enum wire_type type;
    union {
        uint64_t id; /* of every one */
#define MESSAGE(name, number, sender, role, text) struct wire_##name name;
#include "broker/wire/messages.def"
    };
};

struct wire_field {
    const char *name;
    enum wire_kind kind;
    bool is_required;
    enum wire_record record; /* of a LIST */
    uint64_t min;
    uint64_t max;
    size_t offset; /* in its struct */
    const char *text;
};

/* A message or a record. */
struct wire_shape {
    const char *name;
    enum wire_type type; /* of a message */
    enum wire_sender sender;
    enum wire_role role;
    const char *text;
    size_t size; /* of its struct */
    uint32_t field_count;
    const struct wire_field *fields;
};

/* NULL: no such message. */
const struct wire_shape *wire_shape(enum wire_type type);
const struct wire_shape *wire_record_shape(enum wire_record record);
/* All messages in the order of their rows, for whoever prints or tries them. */
const struct wire_shape *wire_shapes(uint32_t *count);

/* ---- decoding ---- */

/* `payload` is a frame without its size field. Whatever is wrong, `out->type` and `out->id` hold
 * what could be read of them, otherwise 0. */
err_t wire_decode(struct span payload, struct wire_frame *out) MUST_CHECK;

/* Walks a list: `out` is the struct of its record.
 *
 *   wire_items_begin(&items, "messages", WIRE_RECORD_message, &publish.messages);
 *   while (wire_items_next(&items, &message)) { ... }
 *   TRY(wire_items_finish(&items)); */
struct wire_items {
    struct reader reader;
    const char *name;
    const struct wire_shape *shape;
    uint32_t left;
    uint32_t index; /* of the record last read */
    err_t err;
};
void wire_items_begin(struct wire_items *items, const char *name, enum wire_record record,
                      const struct wire_list *list);
bool wire_items_next(struct wire_items *items, void *out);
err_t wire_items_finish(struct wire_items *items) MUST_CHECK;

/* Takes the next pair off a map that has been decoded; false at its end, or at what is no pair of
 * texts: then `map->count` is not 0. */
bool wire_map_next(struct wire_list *map, struct span *name, struct span *value);

/* ---- encoding ---- */

/* Appends a whole frame; a list is appended as the bytes it holds. A buf that cannot take it fails
 * itself. */
void wire_encode(struct buf *out, enum wire_type type, const void *message);

/* The same in steps, for a list whose records are encoded where they go: begin with the count of
 * the list set, then `count` records, then end with the place that begin returned. */
size_t wire_begin(struct buf *out, enum wire_type type, const void *message);
/* A name or value of a map. */
void wire_put_text(struct buf *out, struct span text);
void wire_put_record(struct buf *out, enum wire_record record, const void *value);
void wire_end(struct buf *out, size_t start, enum wire_type type, const void *message);

/* The size field of a frame. */
uint32_t wire_frame_size(const uint8_t bytes[WIRE_SIZE_BYTES]);
void wire_frame_put_size(uint8_t bytes[WIRE_SIZE_BYTES], uint32_t size);

/* One line for people: "publish #7 topic=orders messages=[2]". */
void wire_print(struct buf *out, const struct wire_frame *frame);

#endif
