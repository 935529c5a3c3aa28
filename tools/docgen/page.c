#include "tools/docgen/page.h"

#include <string.h>

_Static_assert(PAGE_SECTIONS_MAX <= 64, "a bit of `stale` for each section");

#define MARKER_HEAD "<!-- docgen "

struct marker {
    struct span name;
    bool begins;
};

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Cuts the first line off `rest`, its newline included. */
static struct span take_line(struct span *rest)
{
    const uint8_t *newline = memchr(rest->data, '\n', rest->size);
    size_t size = newline == NULL ? rest->size : (size_t)(newline - rest->data) + 1;
    struct span line = span_of(rest->data, size);
    *rest = span_of(rest->data + size, rest->size - size);
    return line;
}

static bool cut_tail(struct span *text, const char *tail)
{
    size_t size = strlen(tail);
    if (text->size < size || memcmp(text->data + text->size - size, tail, size) != 0) {
        return false;
    }
    text->size -= size;
    return true;
}

/* Whether the line is meant as a marker; one that is misspelt is an error, not prose. */
static err_t read_marker(struct span line, size_t number, bool *found, struct marker *out)
{
    struct span head = span_text(MARKER_HEAD);
    *found = span_starts_with(line, head);
    if (!*found) {
        return NULL;
    }
    struct span name = span_of(line.data + head.size, line.size - head.size);
    (void)cut_tail(&name, "\n");
    out->begins = cut_tail(&name, " begin -->");
    if ((!out->begins && !cut_tail(&name, " end -->")) || name.size == 0) {
        return ERR(INVALID,
                   "line %zu: a marker is \"" MARKER_HEAD "NAME begin -->\" or \"... end -->\"",
                   number);
    }
    out->name = name;
    return NULL;
}

static err_t begin_section(struct page *page, struct span name, size_t number)
{
    if (page_has(page, name)) {
        return ERR(INVALID, "line %zu: section \"%.*s\" is there twice", number, (int)name.size,
                   (const char *)name.data);
    }
    if (page->count == PAGE_SECTIONS_MAX) {
        return ERR(INVALID, "line %zu: more than %d sections", number, PAGE_SECTIONS_MAX);
    }
    page->sections[page->count++].name = name;
    return NULL;
}

err_t page_read(struct page *page, struct span text)
{
    page->text = text;
    page->count = 0;
    const uint8_t *content = NULL; /* of the section that is open */
    struct span rest = text;
    for (size_t number = 1; rest.size > 0; number++) {
        struct span line = take_line(&rest);
        struct marker marker = {.begins = false};
        bool found;
        TRY(read_marker(line, number, &found, &marker));
        if (!found) {
            continue;
        }
        if (marker.begins != (content == NULL)) {
            return ERR(INVALID, "line %zu: \"%.*s\" %s", number, (int)marker.name.size,
                       (const char *)marker.name.data,
                       marker.begins ? "begins inside of another section"
                                     : "ends and has not begun");
        }
        if (marker.begins) {
            TRY(begin_section(page, marker.name, number));
            content = rest.data;
            continue;
        }
        struct page_section *section = &page->sections[page->count - 1];
        if (!span_equal(section->name, marker.name)) {
            return ERR(INVALID, "line %zu: \"%.*s\" ends inside of another section", number,
                       (int)marker.name.size, (const char *)marker.name.data);
        }
        section->content = span_of(content, (size_t)(line.data - content));
        content = NULL;
    }
    if (content != NULL) {
        const struct span *name = &page->sections[page->count - 1].name;
        return ERR(INVALID, "section \"%.*s\" does not end", (int)name->size,
                   (const char *)name->data);
    }
    return NULL;
}

bool page_has(const struct page *page, struct span name)
{
    for (size_t index = 0; index < page->count; index++) {
        if (span_equal(page->sections[index].name, name)) {
            return true;
        }
    }
    return false;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

err_t page_render(const struct page *page, page_print_t *print, struct buf *out, uint64_t *stale)
{
    const uint8_t *copied = page->text.data;
    *stale = 0;
    for (size_t index = 0; index < page->count; index++) {
        const struct page_section *section = &page->sections[index];
        buf_append(out, copied, (size_t)(section->content.data - copied));
        size_t start = out->size;
        /* A blank line after the marker, or Markdown would take the table for a part of it. */
        buf_append_byte(out, '\n');
        if (!print(page, section->name, out)) {
            return ERR(NOT_FOUND, "there is no section \"%.*s\"", (int)section->name.size,
                       (const char *)section->name.data);
        }
        buf_append_byte(out, '\n');
        if (out->failed) {
            return ERR(TOO_LARGE, "section \"%.*s\" does not fit into %zu bytes",
                       (int)section->name.size, (const char *)section->name.data, out->size_max);
        }
        if (!span_equal(span_of(out->data + start, out->size - start), section->content)) {
            *stale |= UINT64_C(1) << index;
        }
        copied = section->content.data + section->content.size;
    }
    buf_append(out, copied, page->text.size - (size_t)(copied - page->text.data));
    return out->failed ? ERR(TOO_LARGE, "the page does not fit into %zu bytes", out->size_max)
                       : NULL;
}

void page_cell(struct buf *out, const char *text)
{
    bool code = false; /* a tag inside of backquotes is none, and its escape would be shown */
    for (; *text != '\0'; text++) {
        code ^= *text == '`';
        if (*text == '|') {
            buf_append_text(out, "\\|");
        } else if (*text == '<' && !code) {
            buf_append_text(out, "&lt;");
        } else {
            buf_append_byte(out, (uint8_t)*text);
        }
    }
}
