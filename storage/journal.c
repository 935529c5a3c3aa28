#define _GNU_SOURCE
#include "storage/journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "broker/base/bytes.h"
#include "broker/base/file.h"

/* The header, little-endian: magic, version u32, number u32, identity u64, size u64, zeros, and in
 * the last 8 bytes of HEADER_SIZE its XXH3-64. */
enum {
    HEADER_VERSION = 1,
    HEADER_AT_VERSION = 8,
    HEADER_AT_NUMBER = 12,
    HEADER_AT_IDENTITY = 16,
    HEADER_AT_SIZE = 24,
    HEADER_AT_CHECK = 56,
    HEADER_SIZE = 64,
};

/* A record: check u64 (XXH3-64 of all that follows), magic u32, size u32 of its bytes, generation
 * u64, number u64 (from 0), check of the record before u64 (0: none), how many had been flushed
 * u64; then its bytes. It begins at a multiple of 8, and of the block when all before it is
 * flushed. */
enum {
    AT_MAGIC = 8,
    AT_SIZE = 12,
    AT_GENERATION = 16,
    AT_NUMBER = 24,
    AT_BEFORE = 32,
    AT_FLUSHED = 40,
    RECORD_ALIGN = 8,
    ZEROS_SIZE = 1 << 18,
};

enum { ROW_VERSION = 1, ROW_SIZE = 16 };

static const char row_key[] = "journal";
static const char header_magic[8] = {'f', 'l', 'a', 'r', 'e', 'j', 'n', 'l'};
static const uint32_t record_magic = 0x314a4c46;

_Static_assert(AT_FLUSHED + 8 == JOURNAL_RECORD_HEADER, "the header of a record ends there");
_Static_assert(JOURNAL_BLOCK_SIZE % RECORD_ALIGN == 0, "a block begins where a record may");

struct journal {
    char *path;
    int fd;
    uint64_t size;
    uint64_t generation;
    uint64_t end;      /* behind the last record */
    uint64_t count;    /* of records */
    uint64_t before;   /* check of the last one */
    uint64_t flushed;  /* of them */
    uint64_t known;    /* when they are read again: how many there are; UINT64_MAX: not known */
    bool reading;      /* records may follow that have not been read */
    bool next_block;   /* the next one begins a block */
    struct buf record; /* the next one: header and bytes, and zeros up to a block when written */
    struct buf read;
};

/* ---- creation ---- */

static void make_header(const struct journal_options *options, uint64_t size,
                        uint8_t out[HEADER_SIZE])
{
    memset(out, 0, HEADER_SIZE);
    memcpy(out, header_magic, sizeof header_magic);
    bytes_put_le32(out + HEADER_AT_VERSION, HEADER_VERSION);
    bytes_put_le32(out + HEADER_AT_NUMBER, options->number);
    bytes_put_le64(out + HEADER_AT_IDENTITY, options->identity);
    bytes_put_le64(out + HEADER_AT_SIZE, size);
    bytes_put_le64(out + HEADER_AT_CHECK, XXH3_64bits(out, HEADER_AT_CHECK));
}

/* Writes all of it. A write that is cut short without a reason has met a full disk. */
static err_t write_at(int fd, const char *path, const uint8_t *data, size_t size, uint64_t offset)
{
    while (size > 0) {
        ssize_t done = pwrite(fd, data, size, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            errno = done == 0 ? ENOSPC : errno;
            return file_err("write", path);
        }
        data += done;
        size -= (size_t)done;
        offset += (uint64_t)done;
    }
    return NULL;
}

/* Written zeros, not a hole: that is what later flushes are fast on, and need no room for. */
static err_t fill(int fd, const char *path, const struct journal_options *options)
{
    uint64_t size = options->size / JOURNAL_BLOCK_SIZE * JOURNAL_BLOCK_SIZE;
    uint8_t *zeros = calloc(1, ZEROS_SIZE);
    err_t err = NULL;
    if (zeros == NULL) {
        return ERR(MEMORY, "no memory to fill a journal");
    }
    make_header(options, size, zeros);
    for (uint64_t offset = 0; offset < size && err == NULL; offset += ZEROS_SIZE) {
        uint64_t left = size - offset;
        err = write_at(fd, path, zeros, left < ZEROS_SIZE ? left : ZEROS_SIZE, offset);
        memset(zeros, 0, HEADER_SIZE);
    }
    free(zeros);
    if (err == NULL && fsync(fd) != 0) {
        err = file_err("flush", path);
    }
    return err;
}

static err_t create_as(const struct journal_options *options, const char *name)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return file_err("create", name);
    }
    err_t err = fill(fd, name, options);
    if (close(fd) != 0 && err == NULL) {
        err = file_err("close", name);
    }
    if (err == NULL && rename(name, options->path) != 0) {
        err = file_err("rename to", options->path);
    }
    return err == NULL ? file_flush_directory(options->path) : err;
}

err_t journal_create(const struct journal_options *options)
{
    assert(options->size >= JOURNAL_SIZE_MIN);
    char *name = NULL;
    if (asprintf(&name, "%s.new", options->path) < 0) {
        return ERR(MEMORY, "no memory for a path");
    }
    err_t err = create_as(options, name);
    if (err != NULL) {
        unlink(name);
    }
    free(name);
    return err == NULL ? NULL : err_passed(err, __func__);
}

/* ---- open and close ---- */

static err_t read_at(const struct journal *journal, void *data, size_t size, uint64_t offset)
{
    uint8_t *at = data;
    while (size > 0) {
        ssize_t done = pread(journal->fd, at, size, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return file_err("read", journal->path);
        }
        if (done == 0) {
            return ERR(CORRUPT, "%s is cut short", journal->path);
        }
        at += done;
        size -= (size_t)done;
        offset += (uint64_t)done;
    }
    return NULL;
}

static err_t check_header(struct journal *journal, const struct journal_options *options)
{
    uint8_t header[HEADER_SIZE];
    struct stat status;
    TRY(read_at(journal, header, sizeof header, 0));
    if (memcmp(header, header_magic, sizeof header_magic) != 0) {
        return ERR(CORRUPT, "%s is not a journal", journal->path);
    }
    uint32_t version = bytes_get_le32(header + HEADER_AT_VERSION);
    if (version > HEADER_VERSION) {
        return ERR(FORMAT, "%s has format %u, this program knows formats up to %d", journal->path,
                   version, HEADER_VERSION);
    }
    journal->size = bytes_get_le64(header + HEADER_AT_SIZE);
    if (bytes_get_le64(header + HEADER_AT_CHECK) != XXH3_64bits(header, HEADER_AT_CHECK) ||
        fstat(journal->fd, &status) != 0 || (uint64_t)status.st_size != journal->size ||
        journal->size < JOURNAL_SIZE_MIN) {
        return ERR(CORRUPT, "the header of %s is damaged", journal->path);
    }
    uint64_t identity = bytes_get_le64(header + HEADER_AT_IDENTITY);
    uint32_t number = bytes_get_le32(header + HEADER_AT_NUMBER);
    if (identity != options->identity || number != options->number) {
        return ERR(FORMAT, "%s belongs to volume %u of node %016lx, not to volume %u of %016lx",
                   journal->path, number, identity, options->number, options->identity);
    }
    return NULL;
}

err_t journal_open(const struct journal_options *options, struct journal **out)
{
    err_t err = NULL;
    struct journal *journal = calloc(1, sizeof *journal);
    if (journal == NULL) {
        return ERR(MEMORY, "no memory for a journal");
    }
    buf_init(&journal->record, JOURNAL_RECORD_MAX + JOURNAL_BLOCK_SIZE);
    buf_init(&journal->read, SIZE_MAX / 2);
    journal->path = strdup(options->path);
    journal->fd = open(options->path, (options->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (journal->path == NULL) {
        err = ERR(MEMORY, "no memory for a path");
    } else if (journal->fd < 0) {
        err = file_err("open", options->path);
    } else {
        err = check_header(journal, options);
    }
    if (err != NULL) {
        journal_close(journal);
        return err_passed(err, __func__);
    }
    journal_restart(journal, 0);
    *out = journal;
    return NULL;
}

void journal_close(struct journal *journal)
{
    if (journal == NULL) {
        return;
    }
    if (journal->fd >= 0) {
        close(journal->fd);
    }
    buf_deinit(&journal->record);
    buf_deinit(&journal->read);
    free(journal->path);
    free(journal);
}

/* ---- the generation ---- */

err_t journal_generation(struct store_txn *txn, uint64_t *out)
{
    struct span value;
    bool found = false;
    TRY(store_get(txn, STORE_META, span_text(row_key), &value, &found));
    if (found && (value.size != ROW_SIZE || value.data[0] != ROW_VERSION)) {
        return ERR(CORRUPT, "the environment's record of its journal is damaged");
    }
    *out = found ? bytes_get_le64(value.data + 8) : 0;
    return NULL;
}

err_t journal_read_generation(struct store *store, uint64_t *out)
{
    struct store_txn *txn = NULL;
    TRY(store_begin(store, STORE_READ, &txn));
    err_t err = journal_generation(txn, out);
    store_abort(txn);
    return err;
}

err_t journal_put_generation(struct store_txn *txn, uint64_t generation)
{
    uint8_t value[ROW_SIZE] = {ROW_VERSION};
    bytes_put_le64(value + 8, generation);
    return store_put(txn, STORE_META, span_text(row_key), span_of(value, sizeof value));
}

/* ---- reading ---- */

void journal_rewind(struct journal *journal, uint64_t generation)
{
    if (generation != journal->generation) {
        journal->flushed = 0;
        journal->known = UINT64_MAX;
    } else if (!journal->reading) {
        journal->known = journal->count;
    }
    journal->generation = generation;
    journal->end = JOURNAL_BLOCK_SIZE;
    journal->count = 0;
    journal->before = 0;
    journal->reading = true;
    journal->next_block = true;
}

static uint64_t round_up(uint64_t offset, uint64_t unit)
{
    return (offset + unit - 1) / unit * unit;
}

/* Whether bytes could be the header of a record of this generation that lies at `offset`. */
static bool is_header(const struct journal *journal, const uint8_t *header, uint64_t offset)
{
    return bytes_get_le32(header + AT_MAGIC) == record_magic &&
           bytes_get_le64(header + AT_GENERATION) == journal->generation &&
           bytes_get_le32(header + AT_SIZE) <= journal->size - offset - JOURNAL_RECORD_HEADER;
}

/* Reads the record at `offset` into `read`; `found` false when there is none of this generation. */
static err_t read_record(struct journal *journal, uint64_t offset, bool *found)
{
    uint8_t header[JOURNAL_RECORD_HEADER];
    *found = false;
    if (offset + sizeof header > journal->size) {
        return NULL;
    }
    TRY(read_at(journal, header, sizeof header, offset));
    if (!is_header(journal, header, offset)) {
        return NULL;
    }
    size_t size = JOURNAL_RECORD_HEADER + (size_t)bytes_get_le32(header + AT_SIZE);
    buf_reset(&journal->read);
    uint8_t *bytes = buf_extend(&journal->read, size);
    if (bytes == NULL) {
        return ERR(MEMORY, "no memory to read a journal");
    }
    TRY(read_at(journal, bytes, size, offset));
    *found = bytes_get_le64(bytes) == XXH3_64bits(bytes + AT_MAGIC, size - AT_MAGIC);
    return NULL;
}

/* What follows the end: a record of this generation that was written when more than are there had
 * been flushed says that some are damaged. */
static err_t check_behind(struct journal *journal)
{
    uint8_t *block = malloc(ZEROS_SIZE + JOURNAL_RECORD_HEADER);
    err_t err = block == NULL ? ERR(MEMORY, "no memory to read a journal") : NULL;
    uint64_t offset = round_up(journal->end, RECORD_ALIGN);
    while (err == NULL && offset + JOURNAL_RECORD_HEADER <= journal->size) {
        uint64_t left = journal->size - offset;
        size_t size = left < ZEROS_SIZE + JOURNAL_RECORD_HEADER
                          ? (size_t)left
                          : ZEROS_SIZE + JOURNAL_RECORD_HEADER;
        err = read_at(journal, block, size, offset);
        size_t last = size - JOURNAL_RECORD_HEADER;
        for (size_t at = 0; err == NULL && at <= last; at += RECORD_ALIGN) {
            bool found = is_header(journal, block + at, offset + at) &&
                         bytes_get_le64(block + at + AT_FLUSHED) > journal->count;
            if (found) {
                err = read_record(journal, offset + at, &found);
            }
            if (err == NULL && found) {
                err = ERR(CORRUPT, "%s is damaged at byte %lu: what was confirmed is missing",
                          journal->path, (unsigned long)journal->end);
            }
        }
        offset += last + RECORD_ALIGN;
    }
    free(block);
    return err;
}

/* Whether there are as many as there must be. Those that were written here need not have been
 * flushed to be there. */
static err_t check_end(struct journal *journal)
{
    if (journal->known == UINT64_MAX) {
        return check_behind(journal);
    }
    if (journal->count < journal->known) {
        return ERR(CORRUPT, "%s is damaged at byte %lu: what was written is missing", journal->path,
                   (unsigned long)journal->end);
    }
    return NULL;
}

err_t journal_next(struct journal *journal, struct span *out, bool *found)
{
    assert(journal->reading);
    uint64_t offset = journal->end;
    *found = false;
    /* A record is right behind the one before or, after a flush, at the next block. */
    for (int place = 0; place < 2 && !*found; place++) {
        offset = round_up(journal->end, place == 0 ? RECORD_ALIGN : JOURNAL_BLOCK_SIZE);
        TRY(read_record(journal, offset, found));
        *found = *found && bytes_get_le64(journal->read.data + AT_NUMBER) == journal->count &&
                 bytes_get_le64(journal->read.data + AT_BEFORE) == journal->before;
    }
    if (!*found) {
        TRY(check_end(journal));
        journal->reading = false;
        return NULL;
    }
    journal->end = offset + journal->read.size;
    journal->before = bytes_get_le64(journal->read.data);
    journal->count++;
    *out = span_of(journal->read.data + JOURNAL_RECORD_HEADER,
                   journal->read.size - JOURNAL_RECORD_HEADER);
    return NULL;
}

/* ---- writing ---- */

void journal_restart(struct journal *journal, uint64_t generation)
{
    journal_rewind(journal, generation);
    journal->flushed = 0;
    journal->reading = false;
}

struct buf *journal_record(struct journal *journal)
{
    buf_reset(&journal->record);
    uint8_t *header = buf_extend(&journal->record, JOURNAL_RECORD_HEADER);
    if (header != NULL) {
        memset(header, 0, JOURNAL_RECORD_HEADER);
    }
    return &journal->record;
}

static uint64_t next_offset(const struct journal *journal)
{
    return round_up(journal->end, journal->next_block ? JOURNAL_BLOCK_SIZE : RECORD_ALIGN);
}

bool journal_fits(const struct journal *journal)
{
    return journal->record.size <= journal->size - journal->end &&
           next_offset(journal) + journal->record.size <= journal->size;
}

static void make_record(struct journal *journal, size_t size)
{
    uint8_t *header = journal->record.data;
    bytes_put_le32(header + AT_MAGIC, record_magic);
    bytes_put_le32(header + AT_SIZE, (uint32_t)(size - JOURNAL_RECORD_HEADER));
    bytes_put_le64(header + AT_GENERATION, journal->generation);
    bytes_put_le64(header + AT_NUMBER, journal->count);
    bytes_put_le64(header + AT_BEFORE, journal->before);
    bytes_put_le64(header + AT_FLUSHED, journal->flushed);
    bytes_put_le64(header, XXH3_64bits(header + AT_MAGIC, size - AT_MAGIC));
}

err_t journal_append(struct journal *journal)
{
    assert(!journal->reading);
    assert(journal->record.size > JOURNAL_RECORD_HEADER);
    if (!journal_fits(journal)) {
        return ERR(NO_SPACE, "%s is full", journal->path);
    }
    uint64_t offset = next_offset(journal);
    size_t size = journal->record.size;
    /* Whole blocks: the rest of one need not be read from the disk to be written again. */
    size_t padding = (size_t)(round_up(offset + size, JOURNAL_BLOCK_SIZE) - offset - size);
    uint8_t *zeros = buf_extend(&journal->record, padding);
    if (zeros == NULL) {
        return ERR(MEMORY, "no memory for a journal's record");
    }
    memset(zeros, 0, padding);
    make_record(journal, size);
    err_t err = write_at(journal->fd, journal->path, journal->record.data, size + padding, offset);
    journal->record.size = size;
    if (err != NULL) {
        return err_passed(err, __func__);
    }
    journal->end = offset + size;
    journal->before = bytes_get_le64(journal->record.data);
    journal->count++;
    journal->next_block = false;
    return NULL;
}

err_t journal_flush(struct journal *journal)
{
    if (!journal_pending(journal)) {
        return NULL;
    }
    if (fdatasync(journal->fd) != 0) {
        int cause = errno;
        return ERR(IO, "flush %s: %s", journal->path, strerror(cause));
    }
    journal->flushed = journal->count;
    journal->next_block = true;
    return NULL;
}

bool journal_pending(const struct journal *journal)
{
    return journal->flushed < journal->count;
}

uint64_t journal_count(const struct journal *journal)
{
    return journal->count;
}

uint64_t journal_used(const struct journal *journal)
{
    return journal->end - JOURNAL_BLOCK_SIZE;
}

uint64_t journal_size(const struct journal *journal)
{
    return journal->size;
}
