/* What a program asks of the disk, seen from inside: recorded, replayed as crashes, or made to
 * fail.
 *
 * An executable that includes iotrap.c (no library holds it, or it would be linked wherever write
 * is called, and hide the calls from the sanitizers there) has its own write, pwrite, writev,
 * pwritev, fsync, fdatasync and ftruncate, which stand before libc's for all its libraries too
 * (liblmdb first of all) and go on to the kernel. They look only at files whose path begins with
 * the prefix given to iotrap_start, and cost next to nothing before. Writes through mappings are
 * not seen; the store makes none.
 *
 *   iotrap_start(directory);                  // record
 *   ... commit; iotrap_mark(1); commit; iotrap_mark(2); ...
 *   iotrap_stop();
 *   iotrap_disk_init(&disk);
 *   for (size_t i = 0; i < iotrap_count(); i++) {
 *       iotrap_disk_step(&disk, i);           // this much had been asked for when the power went
 *       iotrap_disk_crash(&disk, IOTRAP_TEAR, &random, other_directory);
 *       ... open what is there and compare ...
 *   }
 *   iotrap_disk_deinit(&disk);
 *   iotrap_reset();
 *
 * The disk of the replay keeps what was flushed; of everything after a file's last flush it keeps
 * what the chosen crash says. A write through a descriptor with O_DSYNC or O_SYNC is on disk when
 * the next event happens, and may be cut by a crash before. Thread-safe while recording. Running
 * out of memory ends the test program. */
#ifndef CRASH_IOTRAP_H
#define CRASH_IOTRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/base/random.h"

/* Also bits of the mask of iotrap_fail. */
enum iotrap_kind {
    IOTRAP_WRITE = 1,
    IOTRAP_FLUSH = 2,
    IOTRAP_TRUNCATE = 4,
    IOTRAP_MARK = 8,
};

struct iotrap_event {
    enum iotrap_kind kind;
    bool synced;     /* a write that is flushed when it returns */
    uint32_t file;   /* 0, 1, 2 ... in order of appearance */
    uint64_t offset; /* of a write; the new size of a truncation; the number of a mark */
    size_t size;     /* bytes of a write */
    uint8_t *data;
};

/* ---- recording ---- */

/* Records from now on what happens to files whose path begins with `prefix`. */
void iotrap_start(const char *prefix);
/* The recording stays until iotrap_reset or the next start. */
void iotrap_stop(void);
void iotrap_reset(void);

/* Notes that the program has come to a point, as "commit 7 was acknowledged". */
void iotrap_mark(uint64_t number);

size_t iotrap_count(void);
const struct iotrap_event *iotrap_event(size_t index);
/* The last path it had; valid until iotrap_reset. */
const char *iotrap_path(uint32_t file);

/* ---- faults ---- */

enum { IOTRAP_SHORT = -1 };

struct iotrap_fault {
    const char *prefix; /* of the files concerned */
    unsigned kinds;     /* bits of iotrap_kind */
    uint64_t nth;       /* 1: the next one of these kinds */
    int error;     /* errno, or IOTRAP_SHORT: half of the bytes are written and no error is given */
    bool for_ever; /* every later one fails too */
};

/* A write that fails writes nothing; a flush that fails, also the one in a synced write that counts
 * as a flush only, has done its work. May be used while recording: what fails is not recorded, what
 * is written in part is. */
void iotrap_fail(const struct iotrap_fault *fault);
/* No more faults; true when there was one. */
bool iotrap_fail_stop(void);

/* ---- replay ---- */

enum iotrap_crash {
    IOTRAP_KEEP_ALL,  /* as after kill -9: what was written is there */
    IOTRAP_DROP_ALL,  /* nothing that was not flushed is there */
    IOTRAP_DROP_SOME, /* any of those writes are */
    IOTRAP_TEAR,      /* any of their sectors of 512 bytes are */
};
enum { IOTRAP_CRASH_COUNT = IOTRAP_TEAR + 1 };

struct iotrap_bytes {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

struct iotrap_disk_file {
    struct iotrap_bytes flushed;
    size_t *pending; /* indexes of the events since the last flush */
    size_t pending_count;
    size_t pending_capacity;
};

struct iotrap_disk {
    struct iotrap_disk_file *files;
    size_t file_count;
    size_t synced_file; /* one more than the file whose last event is a synced write, still under
                           way; 0: none */
};

void iotrap_disk_init(struct iotrap_disk *disk);
void iotrap_disk_deinit(struct iotrap_disk *disk);
/* Events are taken in order, each once. */
void iotrap_disk_step(struct iotrap_disk *disk, size_t index);
/* Number of writes that a crash now could lose or tear. */
size_t iotrap_disk_pending(const struct iotrap_disk *disk);
/* Writes each recorded file under its base name into `directory`. */
void iotrap_disk_crash(const struct iotrap_disk *disk, enum iotrap_crash crash,
                       struct random *random, const char *directory);

#endif
