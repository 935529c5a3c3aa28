/* Sections about the documents of the HTTP API (api_documents.def). */
#ifndef DOCGEN_DOCUMENTS_H
#define DOCGEN_DOCUMENTS_H

#include "tools/docgen/page.h"

/* Fields of the document `name`, as a client may send them; false when there is none. */
bool documents_print_one(struct span name, struct buf *out);

/* Fields of all documents that the page has no section for: those the broker sends. */
void documents_print_rest(const struct page *page, struct buf *out);

/* Whether the page has a section for this document (its row, which may be none). */
bool documents_on_page(const struct page *page, uint32_t row);

#endif
