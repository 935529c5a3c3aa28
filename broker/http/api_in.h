/* Request documents, decoded by the rows of api_documents.def.
 *
 * Whatever the client sent, a document is read as MessagePack: JSON is turned into it first
 * (json.h). Decoding takes no memory, believes no declared size or count that the remaining bytes
 * cannot hold, and leaves every text as a span into the document. Errors are ERR_INVALID with a
 * message that begins with the field: "messages[3].key: ...". */
#ifndef HTTP_API_IN_H
#define HTTP_API_IN_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/err.h"
#include "broker/base/span.h"
#include "broker/core/command.h"
#include "broker/wire/reader.h"

enum in_kind {
    IN_KIND_NONE, /* the row that begins a document */
    IN_KIND_U64,
    IN_KIND_BOOL,
    IN_KIND_DURATION,
    IN_KIND_TIME,
    IN_KIND_TEXT,
    IN_KIND_NOTE,
    IN_KIND_NAME,
    IN_KIND_BYTES,
    IN_KIND_MAP,
    IN_KIND_ARRAY,
    IN_KIND_RAW,
};

/* All rows in order: IN_pull, IN_pull_max, ... */
enum in_row {
#define DOCUMENT(name, text) IN_##name,
#define FIELD(document, name, ...) IN_##document##_##name,
#include "broker/http/api_documents.def"
    IN_ROWS
};

struct in_field {
    const char *name;
    size_t name_size;
    enum in_kind kind;
    bool required;
    uint64_t initial;
    uint64_t min;
    uint64_t max;
    const char *text;
};
extern const struct in_field api_in_fields[IN_ROWS];

/* What a field was given. `number` is the default when it was not; `span` is the text or the bytes
 * or, of MAP, ARRAY and RAW, the encoded value. */
struct in_value {
    bool given;
    uint64_t number;
    struct span span;
};

/* Values of one document, in order of its rows: values[IN(pull, max)]. */
enum { IN_VALUES_MAX = 16 };
#define IN(document, field) (IN_##document##_##field - IN_##document)

/* Where a document lies inside another, for error messages: "retention." or, with an index,
 * "messages[3].". */
enum { IN_NO_INDEX = UINT32_MAX };
struct in_place {
    const char *name; /* NULL: it is the outermost */
    uint32_t index;
};

/* Reads the next item of `reader`, which must be such a document. */
err_t api_in_read(struct reader *reader, enum in_row document, struct in_place place,
                  struct in_value values[IN_VALUES_MAX]) MUST_CHECK;
/* The same where the document is all there is; empty bytes are a document without fields. */
err_t api_in_read_all(struct span bytes, enum in_row document, struct in_place place,
                      struct in_value values[IN_VALUES_MAX]) MUST_CHECK;

/* What kind an encoded value is, for fields that may be several; 0: it is none. */
enum reader_kind api_in_kind_of(struct span value);
/* An encoded text or integer; false: it is another kind. */
bool api_in_text(struct span value, struct span *out);
bool api_in_integer(struct span value, uint64_t *out);

/* "30s" or "1500" as milliseconds; false: neither, or more than 64 bits hold. */
bool api_in_duration(struct span text, uint64_t *ms);
/* "2026-01-02T03:04:05.678Z" as milliseconds since 1970. */
bool api_in_time(struct span text, uint64_t *ms);
/* Decimal digits only. */
bool api_in_digits(struct span text, uint64_t *out);

#endif
