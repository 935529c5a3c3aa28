#include "broker/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum err_code file_code(int cause)
{
    return cause == ENOSPC || cause == EDQUOT || cause == EFBIG ? ERR_NO_SPACE
           : cause == ENOENT                                    ? ERR_NOT_FOUND
           : cause == EEXIST                                    ? ERR_EXISTS
           : cause == ENOMEM                                    ? ERR_MEMORY
                                                                : ERR_IO;
}

err_t file_err(const char *call, const char *path)
{
    int cause = errno;
    return err_make(file_code(cause), __FILE__, __LINE__, __func__, "%s %s: %s", call, path,
                    strerror(cause));
}

err_t file_flush_directory(const char *path)
{
    char *copy = strdup(path);
    if (copy == NULL) {
        return ERR(MEMORY, "no memory for a path");
    }
    err_t err = NULL;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        err = file_err("flush the directory of", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    free(copy);
    return err;
}
