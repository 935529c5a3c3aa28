#define _GNU_SOURCE /* memmem */
#include "tools/flare/records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static err_t map_file(const char *path, struct span *out)
{
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return ERR(NOT_FOUND, "open %s: %s", path, strerror(errno));
    }
    err_t err = NULL;
    void *data = MAP_FAILED;
    if (fstat(file, &status) != 0) {
        err = ERR(IO, "stat %s: %s", path, strerror(errno));
    } else if (!S_ISREG(status.st_mode) || status.st_size == 0) {
        err = ERR(INVALID, "%s is empty or no regular file", path);
    } else {
        data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        err = data == MAP_FAILED ? ERR(IO, "map %s: %s", path, strerror(errno)) : NULL;
    }
    (void)close(file);
    TRY(err);
    *out = span_of(data, (size_t)status.st_size);
    return NULL;
}

static err_t add(struct records *records, struct span body, struct span key)
{
    if (records->count == records->capacity) {
        size_t capacity = records->capacity == 0 ? 1024 : records->capacity * 2;
        struct record *items = reallocarray(records->items, capacity, sizeof *items);
        if (items == NULL) {
            return ERR(MEMORY, "no memory for %zu records", capacity);
        }
        records->items = items;
        records->capacity = capacity;
    }
    records->items[records->count] = (struct record){.body = body, .key = key};
    records->count++;
    return NULL;
}

/* Takes what stands before the next `separator` (or everything) from the front of `rest`. */
static struct span take(struct span *rest, const char *separator)
{
    size_t size = strlen(separator);
    const uint8_t *at = memmem(rest->data, rest->size, separator, size);
    if (at == NULL) {
        struct span all = *rest;
        *rest = span_of(rest->data + rest->size, 0);
        return all;
    }
    struct span taken = span_of(rest->data, (size_t)(at - rest->data));
    *rest = span_of(at + size, rest->size - taken.size - size);
    return taken;
}

/* The first word of the field's value; empty when the paragraph has no such field. */
static struct span field_word(struct span paragraph, const char *name)
{
    while (paragraph.size > 0) {
        struct span line = take(&paragraph, "\n");
        if (!span_starts_with(line, span_text(name))) {
            continue;
        }
        line = span_of(line.data + strlen(name), line.size - strlen(name));
        if (line.size < 3 || line.data[0] != ':' || line.data[1] != ' ') {
            continue;
        }
        line = span_of(line.data + 2, line.size - 2);
        return take(&line, " ");
    }
    return span_of(NULL, 0);
}

static err_t add_paragraph(struct records *records, struct span paragraph)
{
    while (paragraph.size > 0 && paragraph.data[0] == '\n') {
        paragraph = span_of(paragraph.data + 1, paragraph.size - 1);
    }
    while (paragraph.size > 0 && paragraph.data[paragraph.size - 1] == '\n') {
        paragraph.size--;
    }
    if (paragraph.size == 0) {
        return NULL;
    }
    struct span key = field_word(paragraph, "Source");
    return add(records, paragraph, key.size > 0 ? key : field_word(paragraph, "Package"));
}

static err_t split(struct records *records, bool paragraphs)
{
    struct span rest = records->file;
    while (rest.size > 0) {
        if (paragraphs) {
            TRY(add_paragraph(records, take(&rest, "\n\n")));
        } else {
            TRY(add(records, take(&rest, "\n"), span_of(NULL, 0)));
        }
    }
    return NULL;
}

err_t records_open(const char *path, bool paragraphs, struct records *out)
{
    struct records records = {0};
    TRY(map_file(path, &records.file));
    err_t err = split(&records, paragraphs);
    if (err == NULL && records.count == 0) {
        err = ERR(INVALID, "%s holds no record", path);
    }
    if (err != NULL) {
        records_close(&records);
        return err_passed(err, __func__);
    }
    *out = records;
    return NULL;
}

void records_close(struct records *records)
{
    free(records->items);
    if (records->file.size > 0) {
        (void)munmap((void *)(uintptr_t)records->file.data, records->file.size);
    }
    *records = (struct records){0};
}
