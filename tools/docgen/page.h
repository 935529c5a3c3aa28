/* A page of Markdown in which some sections come from tables. Such a section stands between two
 * lines of its own:
 *
 *     <!-- docgen NAME begin -->
 *     <!-- docgen NAME end -->
 *
 * Everything outside of them belongs to whoever writes the page, and is copied byte for byte. */
#ifndef DOCGEN_PAGE_H
#define DOCGEN_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "broker/base/span.h"

enum { PAGE_SECTIONS_MAX = 64 };

struct page_section {
    struct span name;
    struct span content; /* the lines between the two marker lines */
};

struct page {
    struct span text;
    struct page_section sections[PAGE_SECTIONS_MAX];
    size_t count;
};

/* Prints what a section should hold; false when there is no such section. */
typedef bool page_print_t(const struct page *page, struct span name, struct buf *out);

/* Finds the sections of `text`, which `page` then refers to. ERR_INVALID, with the line, for a
 * section that is there twice, does not end, or begins inside of another. */
err_t page_read(struct page *page, struct span text) MUST_CHECK;

bool page_has(const struct page *page, struct span name);

/* The page with every section printed anew. Bit n of `stale`: section n held something else. */
err_t page_render(const struct page *page, page_print_t *print, struct buf *out,
                  uint64_t *stale) MUST_CHECK;

/* A cell of a table: what would end it, or pass for a tag, is escaped. */
void page_cell(struct buf *out, const char *text);

#endif
