/* Loaded into flared by LD_PRELOAD: fails writes and flushes of its data files as the shared
 * control says (fault_control.h), while it runs. What fails is not done. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/e2e/fault_control.h"

/* The only names that the program gets from here instead of libc. */
#pragma GCC visibility push(default)
ssize_t write(int fd, const void *data, size_t size);
ssize_t writev(int fd, const struct iovec *parts, int count);
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset);
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset);
int fsync(int fd);
int fdatasync(int fd);
#pragma GCC visibility pop

enum { AT_POSITION = -1 }; /* of the descriptor */

static struct fault_control *control;

__attribute__((constructor)) static void map_control(void)
{
    const char *path = getenv(FAULT_CONTROL_VARIABLE);
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED
                       : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        fprintf(stderr, "fault_preload: no control\n");
        _exit(127);
    }
    close(fd);
    control = map;
}

static int32_t load(const int32_t *error)
{
    return __atomic_load_n(error, __ATOMIC_SEQ_CST);
}

static bool concerns(int fd)
{
    char link[64];
    char path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = '\0';
    return size > 0 && strstr(path, control->file) != NULL;
}

static bool grows(int fd, size_t size, off_t offset)
{
    struct stat status;
    if (offset == AT_POSITION) {
        offset = lseek(fd, 0, SEEK_CUR);
    }
    return fstat(fd, &status) == 0 && offset + (off_t)size > status.st_size;
}

/* The errno with which a write is to fail; 0: it is not. */
static int write_fault(int fd, size_t size, off_t offset)
{
    if (control == NULL) { /* another library's constructor came first */
        return 0;
    }
    int any = load(&control->write_error);
    int growth = load(&control->growth_error);
    if ((any == 0 && growth == 0) || !concerns(fd)) {
        return 0;
    }
    int error = any != 0 ? any : grows(fd, size, offset) ? growth : 0;
    if (error != 0) {
        __atomic_fetch_add(&control->failed_writes, 1, __ATOMIC_SEQ_CST);
    }
    return error;
}

static int flush_fault(int fd)
{
    int error = control == NULL ? 0 : load(&control->flush_error);
    if (error == 0 || !concerns(fd)) {
        return 0;
    }
    __atomic_fetch_add(&control->failed_flushes, 1, __ATOMIC_SEQ_CST);
    return error;
}

/* The function behind ours. */
static void *behind(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL) {
        _exit(127);
    }
    return function;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    static ssize_t (*next)(int, const void *, size_t, off_t);
    int error = write_fault(fd, size, offset);
    if (error != 0) {
        errno = error;
        return -1;
    }
    if (next == NULL) {
        next = (ssize_t(*)(int, const void *, size_t, off_t))behind("pwrite64");
    }
    return next(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*next)(int, const void *, size_t);
    int error = write_fault(fd, size, AT_POSITION);
    if (error != 0) {
        errno = error;
        return -1;
    }
    if (next == NULL) {
        next = (ssize_t(*)(int, const void *, size_t))behind("write");
    }
    return next(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    static ssize_t (*next)(int, const struct iovec *, int);
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        size += parts[i].iov_len;
    }
    int error = write_fault(fd, size, AT_POSITION);
    if (error != 0) {
        errno = error;
        return -1;
    }
    if (next == NULL) {
        next = (ssize_t(*)(int, const struct iovec *, int))behind("writev");
    }
    return next(fd, parts, count);
}

static int flush(int fd, int (**next)(int), const char *name)
{
    int error = flush_fault(fd);
    if (error != 0) {
        errno = error;
        return -1;
    }
    if (*next == NULL) {
        *next = (int (*)(int))behind(name);
    }
    return (*next)(fd);
}

int fsync(int fd)
{
    static int (*next)(int);
    return flush(fd, &next, "fsync");
}

int fdatasync(int fd)
{
    static int (*next)(int);
    return flush(fd, &next, "fdatasync");
}
