/* One message to be published, as bytes of the wire protocol. It is checked here as strictly as the
 * broker does, since a batch carries messages of many callers, and one that is wrong would fail
 * them all. */
#ifndef CLIENT_DRAFT_H
#define CLIENT_DRAFT_H

#include <flare/flare.h>

#include "broker/base/buf.h"
#include "broker/base/err.h"

/* ERR_INVALID begins with the field to blame. The size of the body is the caller's to check. */
err_t draft_check(const struct flare_message *message) MUST_CHECK;
/* Bytes that its record takes at most. */
size_t draft_size_max(const struct flare_message *message);
/* Appends the record of one that has been checked. It takes no memory when there is room for
 * draft_size_max, and so cannot fail. */
void draft_put(struct buf *out, const struct flare_message *message);

/* ERR_INVALID when it is no name of a topic or subscription; `what` names it. */
err_t draft_check_name(const char *what, const char *name) MUST_CHECK;
err_t draft_check_source(const struct flare_source *source) MUST_CHECK;
/* ERR_INVALID when it is no text without control characters of `size_max` bytes at most; NULL is.
 */
err_t draft_check_text(const char *what, const char *text, size_t size_max) MUST_CHECK;

/* Bytes of its texts with their ends. */
size_t draft_source_size(const struct flare_source *source);
/* Copies them to `at`, where `out` then has them; returns the end of the copies. */
char *draft_copy_source(char *at, const struct flare_source *source, struct flare_source *out);

static inline struct span draft_span(const char *text)
{
    return span_text(text == NULL ? "" : text);
}

#endif
