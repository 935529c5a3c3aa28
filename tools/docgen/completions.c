#include "tools/docgen/completions.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/flare/completion.h"

enum { PATH_SIZE = 4096 };

static const struct {
    const char *name;
    void (*print)(FILE *file);
} scripts[] = {
    {"flare.bash", completion_print_bash},
    {"_flare", completion_print_zsh},
    {"flare.fish", completion_print_fish},
};

err_t completions_write(const char *directory)
{
    if (mkdir(directory, 0777) != 0 && errno != EEXIST) {
        return ERR(IO, "make %s: %s", directory, strerror(errno));
    }
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        char path[PATH_SIZE];
        int size = snprintf(path, sizeof path, "%s/%s", directory, scripts[i].name);
        FILE *file = size < PATH_SIZE ? fopen(path, "wb") : NULL;
        if (file == NULL) {
            return ERR(IO, "open %s: %s", path, strerror(errno));
        }
        scripts[i].print(file);
        bool failed = ferror(file) != 0;
        if (fclose(file) != 0 || failed) {
            return ERR(IO, "write %s: %s", path, strerror(errno));
        }
    }
    return NULL;
}
