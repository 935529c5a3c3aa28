/* docgen: writes the tables of the broker into its reference page.
 *
 *   docgen [ROOT]           rewrites the sections of ROOT/SPEC.md that come from tables
 *   docgen --check [ROOT]   changes nothing; fails when one is stale, and names it
 *
 * and writes what is made of the tables of the command-line tool:
 *
 *   docgen --man DIR            manual pages: flare.1, flare-COMMAND.1, flared.8
 *   docgen --completions DIR    completions: flare.bash, _flare, flare.fish */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "tools/docgen/completions.h"
#include "tools/docgen/man.h"
#include "tools/docgen/page.h"
#include "tools/docgen/sections.h"

enum { PAGE_SIZE_MAX = 4 << 20, PATH_SIZE = 4096 };

static err_t read_file(const char *path, struct buf *out)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return ERR(IO, "open %s: %s", path, strerror(errno));
    }
    uint8_t piece[16 * 1024];
    size_t size;
    while ((size = fread(piece, 1, sizeof piece, file)) > 0) {
        buf_append(out, piece, size);
    }
    bool failed = ferror(file) != 0;
    (void)fclose(file);
    if (failed || out->failed) {
        return ERR(IO, "read %s: %s", path,
                   failed ? "the file system refused" : "it is larger than any page");
    }
    return NULL;
}

/* Under another name first: who edits or reads the page meanwhile sees all of it, old or new. */
static err_t replace_file(const char *path, const struct buf *text)
{
    char temporary[PATH_SIZE + 8];
    (void)snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "wb");
    if (file == NULL) {
        return ERR(IO, "open %s: %s", temporary, strerror(errno));
    }
    bool written = fwrite(text->data, 1, text->size, file) == text->size;
    if (fclose(file) != 0 || !written || rename(temporary, path) != 0) {
        err_t err = ERR(IO, "write %s: %s", path, strerror(errno));
        (void)unlink(temporary);
        return err;
    }
    return NULL;
}

static void print_stale(const char *path, const struct page *page, uint64_t stale)
{
    for (size_t index = 0; index < page->count; index++) {
        if ((stale >> index & 1) != 0) {
            const struct span *name = &page->sections[index].name;
            (void)printf("%s: section \"%.*s\" is stale\n", path, (int)name->size,
                         (const char *)name->data);
        }
    }
}

/* `stale` tells whether a section differed; unless only to be checked, none does afterwards. */
static err_t run(const char *path, bool check, bool *stale)
{
    struct buf text;
    struct buf rendered;
    struct page page;
    uint64_t differing;
    err_t err = NULL;
    buf_init(&text, PAGE_SIZE_MAX);
    buf_init(&rendered, PAGE_SIZE_MAX);
    TRY_OUT(read_file(path, &text));
    TRY_OUT(page_read(&page, buf_span(&text)));
    TRY_OUT(section_check(&page));
    TRY_OUT(page_render(&page, section_print, &rendered, &differing));
    *stale = differing != 0;
    if (check) {
        print_stale(path, &page, differing);
    } else if (differing != 0) {
        TRY_OUT(replace_file(path, &rendered));
    }

out:
    buf_deinit(&text);
    buf_deinit(&rendered);
    return err;
}

static int report(const char *path, err_t err)
{
    if (err == NULL) {
        return EXIT_SUCCESS;
    }
    (void)fprintf(stderr, "docgen: %s: %s\n", path, err_message(err));
    err_free(err);
    return EX_DATAERR;
}

static int usage(void)
{
    (void)fprintf(stderr, "usage: docgen [--check] [ROOT]\n"
                          "       docgen --man DIR\n"
                          "       docgen --completions DIR\n");
    return EX_USAGE;
}

static int run_page(const char *root, bool check)
{
    char path[PATH_SIZE];
    bool stale = false;
    if ((size_t)snprintf(path, sizeof path, "%s/SPEC.md", root) >= sizeof path) {
        return usage();
    }
    int status = report(path, run(path, check, &stale));
    if (status == EXIT_SUCCESS && check && stale) {
        (void)printf("write them anew with: build/docgen\n");
        return EXIT_FAILURE;
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *option = argc > 1 && argv[1][0] == '-' ? argv[1] : "";
    int at = option[0] == '\0' ? 1 : 2;
    const char *operand = at < argc ? argv[at] : NULL;
    if (argc > at + 1 || (operand != NULL && operand[0] == '-')) {
        return usage();
    }
    if (strcmp(option, "--man") == 0 && operand != NULL) {
        return report(operand, man_write(operand));
    }
    if (strcmp(option, "--completions") == 0 && operand != NULL) {
        return report(operand, completions_write(operand));
    }
    if (option[0] == '\0' || strcmp(option, "--check") == 0) {
        return run_page(operand == NULL ? "." : operand, option[0] != '\0');
    }
    return usage();
}
