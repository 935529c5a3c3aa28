/* Results on standard output: tables for people, tab-separated values for pipes, JSON for programs.
 *
 * What a list shows is a table of fields, each a title and the path of a value in the item's JSON
 * document; the three formats are printed from the same rows. Text from messages is escaped, so
 * that no message can move the cursor of a terminal. */
#ifndef FLARE_OUTPUT_H
#define FLARE_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "broker/base/span.h"
#include "tools/flare/cli.h"

enum field_kind {
    FIELD_TEXT = 1,
    FIELD_NUMBER,
    FIELD_SIZE,     /* bytes */
    FIELD_DURATION, /* milliseconds */
    FIELD_BODY      /* `path` is a message: its body, cut for people */
};

struct field {
    const char *title;
    const char *path; /* "delivery_queue.dead" */
    enum field_kind kind;
};

enum { OUTPUT_FIELDS_MAX = 16 };

/* One list that may come in several pages: the header is printed once, columns never get narrower.
 */
struct output {
    const struct cli *cli;
    const struct field *fields; /* ended by one without a title */
    size_t widths[OUTPUT_FIELDS_MAX];
    bool header_printed;
};

void output_init(struct output *output, const struct cli *cli, const struct field *fields);
/* Prints an array of items. */
void output_items(struct output *output, const json_t *items);
/* Prints one of a stream without columns: for --plain and --json. */
void output_item(struct output *output, const json_t *item);
/* Prints one object, a line for each field. */
void output_object(const struct cli *cli, const struct field *fields, const json_t *object);

/* Gets a list page by page and prints it: at most `limit` items (0: all). Takes the request. */
err_t output_pages(struct cli *cli, struct request *request, const struct field *fields,
                   uint64_t limit) MUST_CHECK;

/* Appends a value as people read it: 1.5 MiB, 2 h 5 min, 12,345. */
void output_size(struct buf *buf, uint64_t bytes);
void output_duration(struct buf *buf, uint64_t ms);
void output_count(struct buf *buf, uint64_t count);

/* Appends text with everything escaped that is not plainly visible; at most `limit` columns. */
void output_visible(struct buf *buf, struct span text, size_t limit);

/* The body of a message document, decoded. ERR_FORMAT when it has none that can be read. */
err_t output_body(const json_t *message, struct buf *out) MUST_CHECK;

#endif
