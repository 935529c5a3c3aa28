/* Runs every file of a corpus directory through one fuzz target, as a plain test. An empty corpus
 * fails: it would prove nothing. Each input is a block of exactly its size, so that ASan sees the
 * first byte read past it. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_SIZE = 4096, INPUT_SIZE_MAX = 16 * 1024 * 1024 };

static int read_input(const char *path, size_t size, uint8_t **out)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return -1;
    }
    /* malloc(0) may be NULL, and a target may be given no bytes but not no pointer. */
    uint8_t *data = malloc(size == 0 ? 1 : size);
    if (data == NULL || fread(data, 1, size, file) != size) {
        free(data);
        fclose(file);
        return -1;
    }
    fclose(file);
    *out = data;
    return 0;
}

/* 1: ran, 0: not a regular file, -1: cannot be read. */
static int replay_file(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        return -1;
    }
    if (!S_ISREG(status.st_mode)) {
        return 0;
    }
    if (status.st_size > INPUT_SIZE_MAX) {
        errno = EFBIG;
        return -1;
    }
    size_t size = (size_t)status.st_size;
    uint8_t *data = NULL;
    if (read_input(path, size, &data) != 0) {
        return -1;
    }
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

static int replay_directory(const char *directory)
{
    DIR *listing = opendir(directory);
    if (listing == NULL) {
        fprintf(stderr, "%s: %s\n", directory, strerror(errno));
        return -1;
    }
    int count = 0;
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        char path[PATH_SIZE];
        int length = snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        int ran = length > 0 && length < PATH_SIZE ? replay_file(path) : -1;
        if (ran < 0) {
            fprintf(stderr, "%s/%s: %s\n", directory, entry->d_name, strerror(errno));
            count = -1;
            break;
        }
        count += ran;
    }
    closedir(listing);
    return count;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS_DIRECTORY\n", argv[0]);
        return 2;
    }
    int count = replay_directory(argv[1]);
    if (count < 0) {
        return 1;
    }
    printf("%d inputs replayed\n", count);
    return count == 0;
}
