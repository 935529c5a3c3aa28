/* Bytes as text: UTF-8 (RFC 3629) and what it holds beside printable characters. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "broker/base/span.h"

enum text_class {
    TEXT_BINARY, /* not UTF-8, or with control characters */
    TEXT_LINES,  /* UTF-8 with tabs, line feeds or carriage returns */
    TEXT_PLAIN,  /* UTF-8 without control characters */
};
enum text_class text_classify(struct span bytes);

/* How many bytes from `from` on are printable ASCII and, when `quoted`, neither quote nor
 * backslash. */
size_t text_plain_run(struct span bytes, size_t from, bool quoted);

/* Size of the UTF-8 sequence of more than one byte at `at`; 0: there is none. */
size_t text_utf8_size(struct span bytes, size_t at);

#endif
