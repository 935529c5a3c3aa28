/* JSON text: in, as MessagePack, so that one decoder (api_in.h) reads both; out, as strings and
 * base64.
 *
 * Parsing is jansson's, within a memory budget: a body of brackets must not take many times its own
 * size. Refused beside what is no JSON: duplicate names, numbers that are not integers, nesting
 * deeper than JSON_DEPTH_MAX, anything after the value. */
#ifndef HTTP_JSON_H
#define HTTP_JSON_H

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "broker/base/span.h"

enum { JSON_DEPTH_MAX = 16 };

/* Appends the one value of `text`. ERR_INVALID says what is wrong and where, ERR_TOO_LARGE that the
 * budget is used up. */
err_t json_to_msgpack(struct span text, struct buf *out) MUST_CHECK;

/* The bytes as a string in quotes; what is not UTF-8 becomes U+FFFD. */
void json_put_string(struct buf *out, struct span bytes);

/* RFC 4648 with padding, without quotes. */
void json_put_base64(struct buf *out, struct span bytes);
/* Bytes that `text` can decode to at most: what `out` must hold. */
size_t json_base64_size(struct span text);
/* Standard alphabet, padding optional, no spaces, no stray bits; false otherwise. */
bool json_base64_decode(struct span text, uint8_t *out, size_t *size);

#endif
