/* Receipts as text: opaque to clients, checked on the way in. */
#ifndef CORE_RECEIPT_H
#define CORE_RECEIPT_H

#include "broker/core/command.h"

enum { RECEIPT_TEXT_SIZE = 45 }; /* with the terminator */

/* Base64url of version, content and a checksum. */
void receipt_format(const struct receipt *receipt, char out[RECEIPT_TEXT_SIZE]);
bool receipt_parse(struct span text, struct receipt *out);

#endif
