#include "tools/docgen/completions.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/flare/completion.h"

enum { PATH_SIZE = 4096 };

err_t completions_write(const char *directory)
{
    if (mkdir(directory, 0777) != 0 && errno != EEXIST) {
        return ERR(IO, "make %s: %s", directory, strerror(errno));
    }
    for (const struct completion_shell *shell = completion_shells; shell->name != NULL; shell++) {
        char path[PATH_SIZE];
        int size = snprintf(path, sizeof path, "%s/%s", directory, shell->file);
        FILE *file = size < PATH_SIZE ? fopen(path, "wb") : NULL;
        if (file == NULL) {
            return ERR(IO, "open %s: %s", path, strerror(errno));
        }
        shell->print(file);
        bool failed = ferror(file) != 0;
        if (fclose(file) != 0 || failed) {
            return ERR(IO, "write %s: %s", path, strerror(errno));
        }
    }
    return NULL;
}
