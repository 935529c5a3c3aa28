#include "tools/flare/journals.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/core/codec.h"
#include "storage/journal.h"

/* From the end to the front, a block at a time, while its broker may be appending: a block that is
 * copied later is nearer to the front, so that no record is copied without those before it. */
static err_t copy_blocks(int from, int to, const char *path)
{
    uint8_t block[JOURNAL_BLOCK_SIZE];
    struct stat status;
    if (fstat(from, &status) != 0) {
        return ERR(IO, "look at the journal of %s: %s", path, strerror(errno));
    }
    for (off_t offset = status.st_size; offset > 0;) {
        offset -= JOURNAL_BLOCK_SIZE;
        if (pread(from, block, sizeof block, offset) != (ssize_t)sizeof block) {
            return ERR(IO, "read what becomes %s: %s", path, strerror(errno));
        }
        if (pwrite(to, block, sizeof block, offset) != (ssize_t)sizeof block) {
            return ERR(IO, "write %s: %s", path, strerror(errno));
        }
    }
    return fsync(to) == 0 ? NULL : ERR(IO, "flush %s: %s", path, strerror(errno));
}

err_t journals_copy(const struct datafile *file, const char *path)
{
    int from = open(file->journal_path, O_RDONLY | O_CLOEXEC);
    if (from < 0 && errno == ENOENT) {
        return NULL;
    }
    int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    err_t err = from < 0 || to < 0
                    ? ERR(IO, "copy %s to %s: %s", file->journal_path, path, strerror(errno))
                    : copy_blocks(from, to, path);
    if (from >= 0) {
        (void)close(from);
    }
    if (to >= 0 && close(to) != 0 && err == NULL) {
        err = ERR(IO, "close %s: %s", path, strerror(errno));
    }
    return err;
}

static err_t check_commands(struct span record, struct codec_room *room, uint64_t *count)
{
    while (record.size > 0) {
        struct command command;
        TRY(codec_get(&record, room, &command));
        (*count)++;
    }
    return NULL;
}

static err_t check_records(struct journal *journal, uint64_t *count)
{
    struct codec_room room;
    struct span record;
    bool found = true;
    err_t err = NULL;
    codec_room_init(&room);
    while (found) {
        TRY_OUT(journal_next(journal, &record, &found));
        if (found) {
            TRY_OUT(check_commands(record, &room, count));
        }
    }
out:
    codec_room_deinit(&room);
    return err;
}

err_t journals_check(const struct datafile *file, uint64_t *out)
{
    struct journal *journal = NULL;
    uint64_t generation = 0;
    const struct journal_options options = {.path = file->journal_path,
                                            .identity = file->marker.identity,
                                            .number = file->marker.number,
                                            .read_only = true};
    *out = 0;
    TRY(journal_read_generation(file->store, &generation));
    if (generation == 0) {
        return NULL; /* it has never had one that matters */
    }
    TRY(journal_open(&options, &journal));
    journal_rewind(journal, generation);
    err_t err = check_records(journal, out);
    journal_close(journal);
    return err;
}
