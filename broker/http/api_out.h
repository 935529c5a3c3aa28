/* Answers: one set of calls that writes JSON or MessagePack straight into a buf.
 *
 *   out_map(&out); out_field_text(&out, "name", name); out_name(&out, "items"); out_array(&out);
 * ... out_end(&out); out_end(&out);
 *
 * In JSON a message body is `body` when it is readable text, else `body_base64`. Check buf.failed
 * once at the end. */
#ifndef HTTP_API_OUT_H
#define HTTP_API_OUT_H

#include "broker/base/buf.h"
#include "broker/base/clock.h"
#include "broker/base/span.h"

enum { OUT_DEPTH_MAX = 12, OUT_TIMES = 7 };

struct out {
    struct buf *buf;
    bool msgpack;
    bool comma; /* JSON: the next element needs one before it */
    uint32_t depth;
    struct out_level {
        bool array;
        size_t place;
        uint32_t count;
    } levels[OUT_DEPTH_MAX];
    /* Seconds already printed: the messages of an answer share a few. */
    struct out_second {
        uint64_t second;
        char text[CLOCK_ISO_SIZE];
    } seconds[OUT_TIMES];
};

void out_init(struct out *out, struct buf *buf, bool msgpack);

void out_map(struct out *out);
void out_array(struct out *out);
void out_end(struct out *out);

/* The name of the next value of a map; names of ours need no escaping. */
void out_name(struct out *out, const char *name);
void out_name_span(struct out *out, struct span name);

void out_span(struct out *out, struct span text);
void out_text(struct out *out, const char *text);
void out_u64(struct out *out, uint64_t value);
void out_bool(struct out *out, bool value);
void out_null(struct out *out);

void out_field_span(struct out *out, const char *name, struct span text);
void out_field_text(struct out *out, const char *name, const char *text);
void out_field_u64(struct out *out, const char *name, uint64_t value);
void out_field_bool(struct out *out, const char *name, bool value);
void out_field_null(struct out *out, const char *name);
/* Both forms of a time, under two names. */
void out_field_time(struct out *out, const char *iso_name, const char *ms_name, uint64_t wall_ms);
void out_field_body(struct out *out, struct span body);
/* "key": only when there is one. */
void out_field_key(struct out *out, struct span key);
/* "attributes", from their encoded form. */
void out_field_attributes(struct out *out, struct span attributes);

#endif
