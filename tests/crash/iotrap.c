/* The functions of this file's end replace libc's for every library (the first definition wins at
 * run time), and under a sanitizer its interceptors'. They enter the kernel directly: asking dlsym
 * for the next definition could itself write. */
#define _GNU_SOURCE
#include "tests/crash/iotrap.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

enum { IOTRAP_SECTOR = 512, IOTRAP_PATH_SIZE = PATH_MAX };

struct iotrap_file {
    dev_t device;
    ino_t inode;
    char *path;
    struct iotrap_bytes before; /* what it held when it was first seen */
};

static struct {
    pthread_mutex_t lock;
    atomic_bool active; /* recording or failing: look at all */
    bool recording;
    char prefix[IOTRAP_PATH_SIZE];
    struct iotrap_file *files;
    size_t file_count;
    struct iotrap_event *events;
    size_t event_count;
    size_t event_capacity;
    bool failing;
    struct iotrap_fault fault;
    char fault_prefix[IOTRAP_PATH_SIZE];
    uint64_t fault_seen;
    uint64_t fault_hits;
} trap = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* One call to the kernel. */
struct iotrap_call {
    enum iotrap_kind kind;
    int fd;
    bool synced;
    uint64_t offset;
    const struct iovec *parts;
    int part_count;
};

static void *iotrap_resize(void *data, size_t size)
{
    data = realloc(data, size);
    if (data == NULL) {
        abort();
    }
    return data;
}

/* ---- bytes ---- */

/* Grows it to `size` bytes at least, with zeros. */
static void iotrap_bytes_extend(struct iotrap_bytes *bytes, size_t size)
{
    if (size <= bytes->size) {
        return;
    }
    if (size > bytes->capacity) {
        bytes->capacity = size < 2 * bytes->capacity ? 2 * bytes->capacity : size;
        bytes->data = iotrap_resize(bytes->data, bytes->capacity);
    }
    memset(bytes->data + bytes->size, 0, size - bytes->size);
    bytes->size = size;
}

static void iotrap_bytes_write(struct iotrap_bytes *bytes, uint64_t offset, const uint8_t *data,
                               size_t size)
{
    if (size > 0) {
        iotrap_bytes_extend(bytes, offset + size);
        memcpy(bytes->data + offset, data, size);
    }
}

static void iotrap_bytes_truncate(struct iotrap_bytes *bytes, size_t size)
{
    iotrap_bytes_extend(bytes, size);
    bytes->size = size;
}

/* ---- files and events ---- */

static bool iotrap_path_of(int fd, char path[IOTRAP_PATH_SIZE])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, IOTRAP_PATH_SIZE - 1);
    path[size > 0 ? size : 0] = '\0';
    return size > 0;
}

static bool iotrap_concerns(const char *path, const char *prefix)
{
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

/* A descriptor of its own: the caller's may be open for writing only. */
static void iotrap_read_before(const char *path, struct iotrap_bytes *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        abort();
    }
    iotrap_bytes_extend(out, (size_t)status.st_size);
    for (size_t at = 0; at < out->size;) {
        ssize_t size = pread(fd, out->data + at, out->size - at, (off_t)at);
        if (size <= 0) {
            abort();
        }
        at += (size_t)size;
    }
    close(fd);
}

static uint32_t iotrap_file_of(int fd, const char *path)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        abort();
    }
    for (size_t i = 0; i < trap.file_count; i++) {
        struct iotrap_file *file = &trap.files[i];
        if (file->device == status.st_dev && file->inode == status.st_ino) {
            if (strcmp(file->path, path) != 0) {
                free(file->path);
                file->path = strdup(path);
            }
            return (uint32_t)i;
        }
    }
    trap.files = iotrap_resize(trap.files, (trap.file_count + 1) * sizeof trap.files[0]);
    struct iotrap_file *file = &trap.files[trap.file_count];
    *file =
        (struct iotrap_file){.device = status.st_dev, .inode = status.st_ino, .path = strdup(path)};
    iotrap_read_before(path, &file->before);
    return (uint32_t)trap.file_count++;
}

static struct iotrap_event *iotrap_add(struct iotrap_event event)
{
    if (trap.event_count == trap.event_capacity) {
        trap.event_capacity = trap.event_capacity == 0 ? 256 : 2 * trap.event_capacity;
        trap.events = iotrap_resize(trap.events, trap.event_capacity * sizeof trap.events[0]);
    }
    trap.events[trap.event_count] = event;
    return &trap.events[trap.event_count++];
}

static void iotrap_record(const struct iotrap_call *call, uint32_t file, size_t size)
{
    struct iotrap_event *event = iotrap_add((struct iotrap_event){
        .kind = call->kind, .synced = call->synced, .file = file, .offset = call->offset});
    if (call->kind != IOTRAP_WRITE) {
        return;
    }
    event->size = size;
    event->data = iotrap_resize(NULL, size > 0 ? size : 1);
    size_t at = 0;
    for (int i = 0; i < call->part_count && at < size; i++) {
        size_t part = call->parts[i].iov_len < size - at ? call->parts[i].iov_len : size - at;
        memcpy(event->data + at, call->parts[i].iov_base, part);
        at += part;
    }
}

void iotrap_reset(void)
{
    pthread_mutex_lock(&trap.lock);
    for (size_t i = 0; i < trap.event_count; i++) {
        free(trap.events[i].data);
    }
    for (size_t i = 0; i < trap.file_count; i++) {
        free(trap.files[i].path);
        free(trap.files[i].before.data);
    }
    free(trap.events);
    free(trap.files);
    trap.events = NULL;
    trap.files = NULL;
    trap.event_count = trap.event_capacity = trap.file_count = 0;
    pthread_mutex_unlock(&trap.lock);
}

void iotrap_start(const char *prefix)
{
    iotrap_reset();
    pthread_mutex_lock(&trap.lock);
    snprintf(trap.prefix, sizeof trap.prefix, "%s", prefix);
    trap.recording = true;
    trap.active = true;
    pthread_mutex_unlock(&trap.lock);
}

void iotrap_stop(void)
{
    pthread_mutex_lock(&trap.lock);
    trap.recording = false;
    trap.active = trap.failing;
    pthread_mutex_unlock(&trap.lock);
}

void iotrap_mark(uint64_t number)
{
    pthread_mutex_lock(&trap.lock);
    if (trap.recording) {
        iotrap_add((struct iotrap_event){.kind = IOTRAP_MARK, .offset = number});
    }
    pthread_mutex_unlock(&trap.lock);
}

size_t iotrap_count(void)
{
    return trap.event_count;
}

const struct iotrap_event *iotrap_event(size_t index)
{
    assert(index < trap.event_count);
    return &trap.events[index];
}

const char *iotrap_path(uint32_t file)
{
    assert(file < trap.file_count);
    return trap.files[file].path;
}

/* ---- faults ---- */

void iotrap_fail(const struct iotrap_fault *fault)
{
    pthread_mutex_lock(&trap.lock);
    trap.fault = *fault;
    snprintf(trap.fault_prefix, sizeof trap.fault_prefix, "%s", fault->prefix);
    trap.fault_seen = 0;
    trap.fault_hits = 0;
    trap.failing = true;
    trap.active = true;
    pthread_mutex_unlock(&trap.lock);
}

bool iotrap_fail_stop(void)
{
    pthread_mutex_lock(&trap.lock);
    trap.failing = false;
    trap.active = trap.recording;
    bool hit = trap.fault_hits > 0;
    pthread_mutex_unlock(&trap.lock);
    return hit;
}

static bool iotrap_fault_due(const struct iotrap_call *call, const char *path)
{
    unsigned kinds = call->kind | (call->synced ? IOTRAP_FLUSH : 0U);
    if (!trap.failing || (kinds & trap.fault.kinds) == 0 ||
        !iotrap_concerns(path, trap.fault_prefix)) {
        return false;
    }
    trap.fault_seen++;
    bool due =
        trap.fault.for_ever ? trap.fault_seen >= trap.fault.nth : trap.fault_seen == trap.fault.nth;
    trap.fault_hits += due;
    return due;
}

/* ---- calls ---- */

static ssize_t iotrap_write_parts(int fd, const struct iovec *parts, int part_count,
                                  const uint64_t *offset)
{
    if (offset == NULL) {
        return syscall(SYS_writev, fd, parts, part_count);
    }
    return syscall(SYS_pwritev, fd, parts, part_count, *offset, 0UL);
}

static ssize_t iotrap_enter(const struct iotrap_call *call, bool positioned)
{
    if (call->kind == IOTRAP_FLUSH) {
        return syscall(SYS_fsync, call->fd);
    }
    if (call->kind == IOTRAP_TRUNCATE) {
        return syscall(SYS_ftruncate, call->fd, call->offset);
    }
    return iotrap_write_parts(call->fd, call->parts, call->part_count,
                              positioned ? &call->offset : NULL);
}

/* Half of a write's bytes, as when the disk becomes full in the middle of it. */
static ssize_t iotrap_enter_half(const struct iotrap_call *call, bool positioned)
{
    struct iotrap_call half = *call;
    size_t size = 0;
    for (int i = 0; i < call->part_count; i++) {
        size += call->parts[i].iov_len;
    }
    uint8_t *bytes = iotrap_resize(NULL, size > 0 ? size : 1);
    size_t at = 0;
    for (int i = 0; i < call->part_count; i++) {
        memcpy(bytes + at, call->parts[i].iov_base, call->parts[i].iov_len);
        at += call->parts[i].iov_len;
    }
    struct iovec part = {.iov_base = bytes, .iov_len = size / 2};
    half.parts = &part;
    half.part_count = 1;
    ssize_t result = iotrap_enter(&half, positioned);
    free(bytes);
    return result;
}

static ssize_t iotrap_enter_failing(const struct iotrap_call *call, bool positioned, bool *failed)
{
    *failed = trap.fault.error != IOTRAP_SHORT;
    if (!*failed) {
        return call->kind == IOTRAP_WRITE ? iotrap_enter_half(call, positioned)
                                          : iotrap_enter(call, positioned);
    }
    /* A disk that cannot flush has often written what it could. */
    if ((call->kind & trap.fault.kinds) == 0 || call->kind == IOTRAP_FLUSH) {
        (void)iotrap_enter(call, positioned);
    }
    errno = trap.fault.error;
    return -1;
}

static void iotrap_describe(struct iotrap_call *call, bool positioned)
{
    int flags = fcntl(call->fd, F_GETFL);
    call->synced = call->kind == IOTRAP_WRITE && flags >= 0 && (flags & (O_DSYNC | O_SYNC)) != 0;
    if (call->kind == IOTRAP_WRITE && !positioned) {
        off_t offset = lseek(call->fd, 0, (flags & O_APPEND) != 0 ? SEEK_END : SEEK_CUR);
        call->offset = offset > 0 ? (uint64_t)offset : 0;
    }
}

static ssize_t iotrap_pass(struct iotrap_call call, bool positioned)
{
    char path[IOTRAP_PATH_SIZE];
    if (!trap.active || !iotrap_path_of(call.fd, path)) {
        return iotrap_enter(&call, positioned);
    }
    int before = errno;
    pthread_mutex_lock(&trap.lock);
    bool recorded = trap.recording && iotrap_concerns(path, trap.prefix);
    if (!recorded && !(trap.failing && iotrap_concerns(path, trap.fault_prefix))) {
        /* Not under the lock: a pipe or socket may take its time. */
        pthread_mutex_unlock(&trap.lock);
        errno = before;
        return iotrap_enter(&call, positioned);
    }
    iotrap_describe(&call, positioned);
    uint32_t file = recorded ? iotrap_file_of(call.fd, path) : 0;
    errno = before; /* a call that succeeds leaves it as it was */
    bool failed = false;
    ssize_t result = iotrap_fault_due(&call, path)
                         ? iotrap_enter_failing(&call, positioned, &failed)
                         : iotrap_enter(&call, positioned);
    int after = errno;
    if (recorded && !failed && result >= 0) {
        iotrap_record(&call, file, (size_t)result);
    }
    pthread_mutex_unlock(&trap.lock);
    errno = after;
    return result;
}

/* ---- replay ---- */

void iotrap_disk_init(struct iotrap_disk *disk)
{
    *disk = (struct iotrap_disk){.file_count = trap.file_count};
    disk->files = calloc(trap.file_count + 1, sizeof disk->files[0]);
    if (disk->files == NULL) {
        abort();
    }
    for (size_t i = 0; i < trap.file_count; i++) {
        const struct iotrap_bytes *before = &trap.files[i].before;
        iotrap_bytes_write(&disk->files[i].flushed, 0, before->data, before->size);
    }
}

void iotrap_disk_deinit(struct iotrap_disk *disk)
{
    for (size_t i = 0; i < disk->file_count; i++) {
        free(disk->files[i].flushed.data);
        free(disk->files[i].pending);
    }
    free(disk->files);
}

static void iotrap_apply(struct iotrap_bytes *bytes, const struct iotrap_event *event)
{
    if (event->kind == IOTRAP_TRUNCATE) {
        iotrap_bytes_truncate(bytes, event->offset);
    } else {
        iotrap_bytes_write(bytes, event->offset, event->data, event->size);
    }
}

/* A synced write reaches the disk by itself; those before it need not have. */
static void iotrap_disk_settle_synced(struct iotrap_disk *disk)
{
    if (disk->synced_file > 0) {
        struct iotrap_disk_file *file = &disk->files[disk->synced_file - 1];
        iotrap_apply(&file->flushed, iotrap_event(file->pending[--file->pending_count]));
        disk->synced_file = 0;
    }
}

void iotrap_disk_step(struct iotrap_disk *disk, size_t index)
{
    const struct iotrap_event *event = iotrap_event(index);
    iotrap_disk_settle_synced(disk);
    if (event->kind == IOTRAP_MARK) {
        return;
    }
    struct iotrap_disk_file *file = &disk->files[event->file];
    if (event->kind == IOTRAP_FLUSH) {
        for (size_t i = 0; i < file->pending_count; i++) {
            iotrap_apply(&file->flushed, iotrap_event(file->pending[i]));
        }
        file->pending_count = 0;
        return;
    }
    if (file->pending_count == file->pending_capacity) {
        file->pending_capacity = file->pending_capacity == 0 ? 64 : 2 * file->pending_capacity;
        file->pending =
            iotrap_resize(file->pending, file->pending_capacity * sizeof file->pending[0]);
    }
    file->pending[file->pending_count++] = index;
    disk->synced_file = event->synced ? event->file + 1U : 0;
}

size_t iotrap_disk_pending(const struct iotrap_disk *disk)
{
    size_t count = 0;
    for (size_t i = 0; i < disk->file_count; i++) {
        count += disk->files[i].pending_count;
    }
    return count;
}

static void iotrap_apply_torn(struct iotrap_bytes *bytes, const struct iotrap_event *event,
                              struct random *random)
{
    uint64_t end = event->offset + event->size;
    for (uint64_t at = event->offset; at < end;) {
        uint64_t next = (at / IOTRAP_SECTOR + 1) * IOTRAP_SECTOR;
        next = next < end ? next : end;
        if (random_chance(random, 1, 2)) {
            iotrap_bytes_write(bytes, at, event->data + (at - event->offset), next - at);
        }
        at = next;
    }
}

static void iotrap_apply_crashed(struct iotrap_bytes *bytes, const struct iotrap_event *event,
                                 enum iotrap_crash crash, struct random *random)
{
    switch (crash) {
    case IOTRAP_KEEP_ALL:
        iotrap_apply(bytes, event);
        break;
    case IOTRAP_DROP_ALL:
        break;
    case IOTRAP_DROP_SOME:
        if (random_chance(random, 1, 2)) {
            iotrap_apply(bytes, event);
        }
        break;
    case IOTRAP_TEAR:
        if (event->kind == IOTRAP_TRUNCATE) {
            iotrap_apply_crashed(bytes, event, IOTRAP_DROP_SOME, random);
        } else {
            iotrap_apply_torn(bytes, event, random);
        }
        break;
    }
}

static void iotrap_write_image(const char *path, const struct iotrap_bytes *bytes)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    for (size_t at = 0; at < bytes->size;) {
        ssize_t size = write(fd, bytes->data + at, bytes->size - at);
        if (size <= 0) {
            abort();
        }
        at += (size_t)size;
    }
    if (fd < 0 || close(fd) != 0) {
        abort();
    }
}

void iotrap_disk_crash(const struct iotrap_disk *disk, enum iotrap_crash crash,
                       struct random *random, const char *directory)
{
    struct iotrap_bytes image = {0};
    for (size_t i = 0; i < disk->file_count; i++) {
        const struct iotrap_disk_file *file = &disk->files[i];
        image.size = 0;
        iotrap_bytes_write(&image, 0, file->flushed.data, file->flushed.size);
        for (size_t k = 0; k < file->pending_count; k++) {
            iotrap_apply_crashed(&image, iotrap_event(file->pending[k]), crash, random);
        }
        char path[IOTRAP_PATH_SIZE];
        const char *name = strrchr(trap.files[i].path, '/');
        int size = snprintf(path, sizeof path, "%s/%s", directory,
                            name != NULL ? name + 1 : trap.files[i].path);
        assert(size > 0 && (size_t)size < sizeof path);
        iotrap_write_image(path, &image);
    }
    free(image.data);
}

/* ---- in place of libc's ---- */

EXPORTED ssize_t write(int fd, const void *data, size_t size)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    return iotrap_pass(
        (struct iotrap_call){.kind = IOTRAP_WRITE, .fd = fd, .parts = &part, .part_count = 1},
        false);
}

EXPORTED ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return iotrap_pass(
        (struct iotrap_call){.kind = IOTRAP_WRITE, .fd = fd, .parts = parts, .part_count = count},
        false);
}

EXPORTED ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    return iotrap_pass((struct iotrap_call){.kind = IOTRAP_WRITE,
                                            .fd = fd,
                                            .offset = (uint64_t)offset,
                                            .parts = &part,
                                            .part_count = 1},
                       true);
}

EXPORTED ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return iotrap_pass((struct iotrap_call){.kind = IOTRAP_WRITE,
                                            .fd = fd,
                                            .offset = (uint64_t)offset,
                                            .parts = parts,
                                            .part_count = count},
                       true);
}

EXPORTED int ftruncate(int fd, off_t size)
{
    return (int)iotrap_pass(
        (struct iotrap_call){.kind = IOTRAP_TRUNCATE, .fd = fd, .offset = (uint64_t)size}, true);
}

EXPORTED int fsync(int fd)
{
    return (int)iotrap_pass((struct iotrap_call){.kind = IOTRAP_FLUSH, .fd = fd}, true);
}

EXPORTED int fdatasync(int fd)
{
    return (int)iotrap_pass((struct iotrap_call){.kind = IOTRAP_FLUSH, .fd = fd}, true);
}

/* What programs with large files on other machines call instead. */
EXPORTED ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return pwrite(fd, data, size, offset);
}

EXPORTED ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return pwritev(fd, parts, count, offset);
}

EXPORTED int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}
