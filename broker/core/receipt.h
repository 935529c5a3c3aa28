/* Receipts as bytes and as text: opaque to clients, checked on the way in. */
#ifndef CORE_RECEIPT_H
#define CORE_RECEIPT_H

#include "broker/core/command.h"

enum {
    RECEIPT_SIZE = 33,
    RECEIPT_TEXT_SIZE = 45, /* with the terminator */
};

/* Version, content and a checksum, as the wire protocol carries them. */
void receipt_encode(const struct receipt *receipt, uint8_t out[RECEIPT_SIZE]);
bool receipt_decode(struct span bytes, struct receipt *out);

/* The same in base64url. */
void receipt_format(const struct receipt *receipt, char out[RECEIPT_TEXT_SIZE]);
bool receipt_parse(struct span text, struct receipt *out);

#endif
