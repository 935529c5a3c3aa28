/* The sections of the reference pages, each printed from the table that the broker itself is made
 * of. Beside the fixed ones there is "document NAME" for every document of the HTTP API. */
#ifndef DOCGEN_SECTIONS_H
#define DOCGEN_SECTIONS_H

#include "tools/docgen/page.h"

/* A page_print_t for all of them. */
bool section_print(const struct page *page, struct span name, struct buf *out);

/* ERR_NOT_FOUND when the page lacks one: a fixed section, or the document of a route's request. */
err_t section_check(const struct page *page) MUST_CHECK;

#endif
