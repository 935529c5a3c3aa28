/* What is read back from a journal: the first byte of the input picks between the commands of one
 * record and a whole file. Properties: commands that are accepted give the same bytes again; of a
 * file, records are read up to the first that is not whole, and what is appended behind them is
 * read after them. */
#define _GNU_SOURCE
#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "broker/base/bytes.h"
#include "broker/core/codec.h"
#include "storage/journal.h"

enum {
    IDENTITY = 5,
    NUMBER = 1,
    GENERATION = 9,
    BUF_MAX = 1 << 24,
    AT_SIZE = 24, /* in the file's header */
    AT_CHECK = 56,
};

static void fuzz_commands(struct span input)
{
    struct codec_room room;
    struct buf again;
    struct span rest = input;
    codec_room_init(&room);
    buf_init(&again, BUF_MAX);
    for (;;) {
        struct command command;
        const uint8_t *at = rest.data;
        err_t err = codec_get(&rest, &room, &command);
        if (err != NULL) {
            FUZZ_REQUIRE(err_code(err) == ERR_CORRUPT);
            err_free(err);
            break;
        }
        buf_reset(&again);
        codec_put(&command, &again);
        FUZZ_REQUIRE(!again.failed);
        FUZZ_REQUIRE(span_equal(buf_span(&again), span_of(at, (size_t)(rest.data - at))));
    }
    buf_deinit(&again);
    codec_room_deinit(&room);
}

/* Makes the checks of the records right that lie one after the other, as far as they go, so that
 * what is behind a check is reached too. */
static void mend(uint8_t *bytes, size_t size)
{
    size_t at = JOURNAL_BLOCK_SIZE;
    uint64_t before = 0;
    for (uint64_t number = 0; at + JOURNAL_RECORD_HEADER <= size; number++) {
        uint8_t *header = bytes + at;
        size_t whole = JOURNAL_RECORD_HEADER + bytes_get_le32(header + 12) % 2000;
        if (header[0] % 4 == 0 || at + whole > size) {
            return;
        }
        memcpy(header + 8, "FLJ1", 4);
        bytes_put_le32(header + 12, (uint32_t)(whole - JOURNAL_RECORD_HEADER));
        bytes_put_le64(header + 16, GENERATION);
        bytes_put_le64(header + 24, number);
        bytes_put_le64(header + 32, before);
        bytes_put_le64(header + 40, header[40] % 4 == 0 ? number : 0);
        before = XXH3_64bits(header + 8, whole - 8);
        bytes_put_le64(header, before);
        at = (at + whole + 7) / 8 * 8;
    }
}

/* The number of records; UINT64_MAX when damage is told. */
static uint64_t count_records(struct journal *journal)
{
    struct span record;
    bool found = true;
    journal_rewind(journal, GENERATION);
    while (found) {
        err_t err = journal_next(journal, &record, &found);
        if (err != NULL) {
            FUZZ_REQUIRE(err_code(err) == ERR_CORRUPT);
            err_free(err);
            return UINT64_MAX;
        }
    }
    return journal_count(journal);
}

static void check_appending(struct journal *journal, uint64_t count)
{
    buf_append_text(journal_record(journal), "appended");
    if (!journal_fits(journal)) {
        return;
    }
    FUZZ_REQUIRE(journal_append(journal) == NULL);
    FUZZ_REQUIRE(journal_flush(journal) == NULL);
    FUZZ_REQUIRE(count_records(journal) == count + 1);
}

static void fuzz_file(struct span input)
{
    static const char magic[8] = {'f', 'l', 'a', 'r', 'e', 'j', 'n', 'l'};
    static uint8_t bytes[JOURNAL_SIZE_MIN];
    char path[64];
    struct journal *journal = NULL;
    memset(bytes, 0, sizeof bytes);
    size_t size = input.size < sizeof bytes ? input.size : sizeof bytes;
    size_t room = sizeof bytes - JOURNAL_BLOCK_SIZE;
    memcpy(bytes + JOURNAL_BLOCK_SIZE, input.data, size < room ? size : room);
    mend(bytes, sizeof bytes);
    memcpy(bytes, magic, sizeof magic);
    bytes_put_le32(bytes + 8, 1);
    bytes_put_le32(bytes + 12, NUMBER);
    bytes_put_le64(bytes + 16, IDENTITY);
    bytes_put_le64(bytes + AT_SIZE, sizeof bytes);
    bytes_put_le64(bytes + AT_CHECK, XXH3_64bits(bytes, AT_CHECK));
    int fd = memfd_create("journal", 0);
    FUZZ_REQUIRE(fd >= 0);
    FUZZ_REQUIRE(write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const struct journal_options options = {.path = path, .identity = IDENTITY, .number = NUMBER};
    FUZZ_REQUIRE(journal_open(&options, &journal) == NULL);
    uint64_t count = count_records(journal);
    if (count != UINT64_MAX) {
        check_appending(journal, count);
    }
    journal_close(journal);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct span input = span_of(data + 1, size - 1);
    if (data[0] % 8 == 0) {
        fuzz_file(input);
    } else {
        fuzz_commands(input);
    }
    return 0;
}
