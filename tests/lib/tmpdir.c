#define _GNU_SOURCE
#include "tests/lib/tmpdir.h"

#include <errno.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void tmpdir_fail(const char *what, const char *path)
{
    fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
    abort();
}

static void tmpdir_join(char out[TMPDIR_PATH_SIZE], const char *directory, const char *name)
{
    int size = snprintf(out, TMPDIR_PATH_SIZE, "%s/%s", directory, name);
    if (size < 0 || size >= TMPDIR_PATH_SIZE) {
        errno = ENAMETOOLONG;
        tmpdir_fail("path", directory);
    }
}

void tmpdir_init(struct tmpdir *tmpdir)
{
    const char *base = getenv("TMPDIR");
    tmpdir_join(tmpdir->path, base == NULL || base[0] == '\0' ? "/tmp" : base, "flare-test-XXXXXX");
    if (mkdtemp(tmpdir->path) == NULL) {
        tmpdir_fail("mkdtemp", tmpdir->path);
    }
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

void tmpdir_deinit(struct tmpdir *tmpdir)
{
    if (tmpdir->path[0] == '\0') {
        return;
    }
    if (nftw(tmpdir->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0) {
        tmpdir_fail("remove", tmpdir->path);
    }
    tmpdir->path[0] = '\0';
}

char *tmpdir_file(const struct tmpdir *tmpdir, const char *name, char out[TMPDIR_PATH_SIZE])
{
    tmpdir_join(out, tmpdir->path, name);
    return out;
}

void tmpdir_write(const struct tmpdir *tmpdir, const char *name, const void *data, size_t size)
{
    char path[TMPDIR_PATH_SIZE];
    FILE *file = fopen(tmpdir_file(tmpdir, name, path), "wb");
    if (file == NULL) {
        tmpdir_fail("open", path);
    }
    bool whole = size == 0 || fwrite(data, 1, size, file) == size;
    if (fclose(file) != 0 || !whole) {
        tmpdir_fail("write", path);
    }
}
