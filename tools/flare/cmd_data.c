/* flare backup, inspect, verify: a data directory, read without a broker or beside a running one.
 */
#define _GNU_SOURCE /* pthread_timedjoin_np */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "broker/base/clock.h"
#include "storage/lmdb.h"
#include "tools/flare/datafiles.h"
#include "tools/flare/output.h"
#include "tools/flare/progress.h"

enum { DATA_DIRECTORY };
enum { TICK_MS = 200, VERIFY_STEP = 4096 };

static const struct option_row data_options[] = {
    [DATA_DIRECTORY] = {.name = "data",
                        .letter = 'd',
                        .kind = OPTION_TEXT,
                        .value = "DIR",
                        .help = "the data directory; default $FLARE_DATA or ./flare-data"},
    {.name = NULL},
};

static const char *const table_names[STORE_TABLE_COUNT] = {
#define TABLE(name, number, doc) [number] = #name,
#include "storage/tables.def"
};

static const char *data_directory(const struct arguments *arguments)
{
    const char *environment = getenv("FLARE_DATA");
    if (arguments->values[DATA_DIRECTORY].set) {
        return arguments->values[DATA_DIRECTORY].text;
    }
    return environment != NULL && environment[0] != '\0' ? environment : "./flare-data";
}

/* ---- backup ---- */

struct copy {
    struct store *store;
    const char *path;
    pthread_t thread;
    err_t err;
};

static void *copy_main(void *user)
{
    struct copy *copy = user;
    copy->err = store_backup(copy->store, copy->path);
    return NULL;
}

/* Copies one environment in a thread of its own, so that progress can be shown meanwhile. */
static err_t copy_file(const struct datafile *file, const char *path, struct progress *progress)
{
    struct copy copy = {.store = file->store, .path = path};
    struct store_stats stats;
    store_stats(file->store, &stats);
    int rc = pthread_create(&copy.thread, NULL, copy_main, &copy);
    if (rc != 0) {
        return ERR(MEMORY, "start a thread: %s", strerror(rc));
    }
    do {
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        rc = pthread_timedjoin_np(copy.thread, NULL, &until);
        if (rc != 0 && progress_due(progress)) {
            progress_print(progress, "copying %s, %" PRIu64 " MiB", file->name,
                           stats.used_size >> 20);
        }
    } while (rc != 0);
    return copy.err;
}

/* "directory/name"; false when it is too long. */
static bool join(const char *directory, const char *name, char out[DATAFILES_PATH_MAX])
{
    int size = snprintf(out, DATAFILES_PATH_MAX, "%s/%s", directory, name);
    return size > 0 && size < DATAFILES_PATH_MAX;
}

static err_t sync_directory(const char *path)
{
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = directory < 0 ? -1 : fsync(directory);
    int reason = errno;
    if (directory >= 0) {
        (void)close(directory);
    }
    return rc == 0 ? NULL : ERR(IO, "flush %s: %s", path, strerror(reason));
}

static void remove_copies(const struct datafiles *files, const char *directory)
{
    for (uint32_t i = 0; i < files->count; i++) {
        char path[DATAFILES_PATH_MAX];
        if (join(directory, files->files[i].name, path)) {
            (void)unlink(path);
        }
    }
    (void)rmdir(directory);
}

/* The catalog goes first: a volume may then know more than the catalog, which start-up puts right,
 * but never less. */
static err_t copy_all(struct cli *cli, const struct datafiles *files, const char *directory)
{
    struct progress progress;
    err_t err = NULL;
    progress_init(&progress, cli->quiet);
    for (uint32_t i = 0; i < files->count && err == NULL; i++) {
        char path[DATAFILES_PATH_MAX];
        err = join(directory, files->files[i].name, path)
                  ? copy_file(&files->files[i], path, &progress)
                  : ERR(INVALID, "the path of the backup is too long");
    }
    progress_done(&progress);
    TRY(err);
    return sync_directory(directory);
}

/* Copies under a temporary name: what has the final name is whole. */
static err_t backup_to(struct cli *cli, const struct datafiles *files, const char *target)
{
    char temporary[DATAFILES_PATH_MAX];
    char parent[DATAFILES_PATH_MAX];
    struct stat status;
    if (lstat(target, &status) == 0) {
        return ERR(EXISTS, "%s exists already", target);
    }
    size_t size = strlen(target);
    while (size > 1 && target[size - 1] == '/') {
        size--;
    }
    if (size + 16 > sizeof temporary) {
        return ERR(INVALID, "the path of the backup is too long");
    }
    (void)snprintf(temporary, sizeof temporary, "%.*s.XXXXXX", (int)size, target);
    (void)snprintf(parent, sizeof parent, "%.*s", (int)size, target);
    char *slash = strrchr(parent, '/');
    (void)snprintf(slash == NULL ? parent : slash + 1, 2, "%s", slash == NULL ? "." : "");
    if (mkdtemp(temporary) == NULL) {
        return ERR(IO, "make %s: %s", temporary, strerror(errno));
    }
    err_t err = copy_all(cli, files, temporary);
    if (err == NULL && rename(temporary, target) != 0) {
        err = ERR(IO, "rename %s to %s: %s", temporary, target, strerror(errno));
    }
    if (err != NULL) {
        remove_copies(files, temporary);
        return err;
    }
    return sync_directory(parent);
}

static const struct field backup_fields[] = {
    {"FILE", "file", FIELD_TEXT}, {"SIZE", "bytes", FIELD_SIZE}, {.title = NULL}};

static err_t backup_run(struct cli *cli, const struct arguments *arguments)
{
    struct datafiles files;
    struct output output;
    const char *target = arguments->operands[0];
    TRY(datafiles_open(data_directory(arguments), &files));
    err_t err = backup_to(cli, &files, target);
    json_t *items = json_array();
    for (uint32_t i = 0; i < files.count && err == NULL; i++) {
        char path[DATAFILES_PATH_MAX];
        struct stat status = {0};
        if (!join(target, files.files[i].name, path) || stat(path, &status) != 0) {
            err = ERR(IO, "look at %s: %s", target, strerror(errno));
            break;
        }
        (void)json_array_append_new(
            items, json_pack("{s:s, s:I}", "file", path, "bytes", (json_int_t)status.st_size));
    }
    datafiles_close(&files);
    if (err == NULL) {
        output_init(&output, cli, backup_fields);
        output_items(&output, items);
    }
    json_decref(items);
    return err;
}

/* ---- inspect ---- */

static const struct field inspect_fields[] = {
    {"FILE", "name", FIELD_TEXT},          {"ROLE", "role", FIELD_TEXT},
    {"FORMAT", "format", FIELD_NUMBER},    {"IDENTITY", "identity", FIELD_TEXT},
    {"CREATED", "created_at", FIELD_TEXT}, {"USED", "used_bytes", FIELD_SIZE},
    {"SIZE", "file_bytes", FIELD_SIZE},    {.title = NULL},
};

static const struct field table_fields[] = {
    {"FILE", "file", FIELD_TEXT},
    {"TABLE", "table", FIELD_TEXT},
    {"ENTRIES", "entries", FIELD_NUMBER},
    {.title = NULL},
};

static err_t describe_tables(const struct datafile *file, json_t *out)
{
    struct store_txn *txn = NULL;
    err_t err = NULL;
    TRY(store_begin(file->store, STORE_READ, &txn));
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        uint64_t entries = 0;
        TRY_OUT(store_entries(txn, (enum store_table)table, &entries));
        if (entries > 0) {
            (void)json_array_append_new(out, json_pack("{s:s, s:s, s:I}", "file", file->name,
                                                       "table", table_names[table], "entries",
                                                       (json_int_t)entries));
        }
    }
out:
    store_abort(txn);
    return err;
}

static json_t *describe_file(const struct datafile *file)
{
    struct store_stats stats;
    char identity[20];
    char created[CLOCK_ISO_SIZE];
    store_stats(file->store, &stats);
    (void)snprintf(identity, sizeof identity, "%016" PRIx64, file->marker.identity);
    clock_iso(file->marker.created_ms, created);
    return json_pack("{s:s, s:s, s:i, s:s, s:s, s:I, s:I}", "name", file->name, "role",
                     file->marker.role, "format", (int)file->marker.version, "identity", identity,
                     "created_at", created, "used_bytes", (json_int_t)stats.used_size, "file_bytes",
                     (json_int_t)stats.file_size);
}

static void print_inspection(struct cli *cli, const json_t *list, const json_t *tables)
{
    struct output output;
    output_init(&output, cli, inspect_fields);
    output_items(&output, list);
    if (cli->format == CLI_TABLE) {
        (void)putchar('\n');
    }
    output_init(&output, cli, table_fields);
    output_items(&output, tables);
}

static err_t inspect_run(struct cli *cli, const struct arguments *arguments)
{
    struct datafiles files;
    err_t err = NULL;
    TRY(datafiles_open(data_directory(arguments), &files));
    json_t *list = json_array();
    json_t *tables = json_array();
    for (uint32_t i = 0; i < files.count && err == NULL; i++) {
        (void)json_array_append_new(list, describe_file(&files.files[i]));
        err = describe_tables(&files.files[i], tables);
    }
    if (err == NULL) {
        print_inspection(cli, list, tables);
    }
    json_decref(list);
    json_decref(tables);
    datafiles_close(&files);
    return err;
}

/* ---- verify ---- */

struct verify {
    struct progress progress;
    uint64_t entries;
    json_t *faults;
};

static const struct field fault_fields[] = {{"FILE", "file", FIELD_TEXT},
                                            {"TABLE", "table", FIELD_TEXT},
                                            {"FAULT", "fault", FIELD_TEXT},
                                            {.title = NULL}};

static void add_fault(struct verify *verify, const struct datafile *file, int table,
                      const char *fault)
{
    (void)json_array_append_new(verify->faults,
                                json_pack("{s:s, s:s, s:s}", "file", file->name, "table",
                                          table < 0 ? "" : table_names[table], "fault", fault));
}

/* Reads every entry: each page of the table is reached, the keys ascend, and there are as many as
 * its head says. */
static err_t walk_table(struct verify *verify, const struct datafile *file, struct store_txn *txn,
                        int table)
{
    struct store_cursor *cursor = NULL;
    uint8_t key[STORE_KEY_MAX];
    size_t key_size = 0;
    uint64_t entries = 0;
    uint64_t count = 0;
    bool found = false;
    err_t err = NULL;
    TRY(store_entries(txn, (enum store_table)table, &entries));
    TRY(store_cursor_open(txn, (enum store_table)table, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of(NULL, 0), &found));
    while (found) {
        if (cursor->key.size == 0 || cursor->key.size > STORE_KEY_MAX ||
            (count > 0 && span_compare(cursor->key, span_of(key, key_size)) <= 0)) {
            add_fault(verify, file, table, "a key is out of order or of a wrong size");
            break;
        }
        memcpy(key, cursor->key.data, cursor->key.size);
        key_size = cursor->key.size;
        count++;
        verify->entries++;
        if (count % VERIFY_STEP == 0 && progress_due(&verify->progress)) {
            progress_print(&verify->progress, "%s %s: %" PRIu64 " of %" PRIu64 " entries",
                           file->name, table_names[table], count, entries);
        }
        TRY_OUT(store_cursor_next(cursor, &found));
    }
    if (!found && count != entries) {
        add_fault(verify, file, table, "the number of entries is not what the table says");
    }
out:
    store_cursor_close(cursor);
    return err;
}

static err_t walk_file(struct verify *verify, const struct datafile *file)
{
    struct store_txn *txn = NULL;
    err_t err = NULL;
    TRY(store_begin(file->store, STORE_READ, &txn));
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        TRY_OUT(walk_table(verify, file, txn, table));
    }
out:
    store_abort(txn);
    return err;
}

static err_t verify_run(struct cli *cli, const struct arguments *arguments)
{
    struct verify verify = {0};
    struct datafiles files;
    struct output output;
    TRY(datafiles_open(data_directory(arguments), &files));
    verify.faults = json_array();
    progress_init(&verify.progress, cli->quiet);
    for (uint32_t i = 0; i < files.count; i++) {
        err_t err = walk_file(&verify, &files.files[i]);
        if (err != NULL) { /* what cannot be read in one file is no reason to skip the next */
            add_fault(&verify, &files.files[i], -1, err_message(err));
            err_free(err);
        }
    }
    progress_done(&verify.progress);
    uint32_t file_count = files.count;
    datafiles_close(&files);
    size_t faults = json_array_size(verify.faults);
    if (faults > 0) {
        output_init(&output, cli, fault_fields);
        output_items(&output, verify.faults);
    }
    json_decref(verify.faults);
    if (faults > 0) {
        return ERR(CORRUPT, "%zu faults in %" PRIu32 " files", faults, file_count);
    }
    cli_note(cli, "%" PRIu32 " files, %" PRIu64 " entries: no fault", file_count, verify.entries);
    return NULL;
}

const struct cli_command data_commands[] = {
    {.name = "backup",
     .operands = "TARGET",
     .operands_min = 1,
     .operands_max = 1,
     .summary = "Copy a data directory, also while its broker runs",
     .details =
         "TARGET must not exist; it appears when the copy is whole and flushed, and opens as a\n"
         "data directory. Each file is copied as of one moment.",
     .examples = "  flare backup /backups/monday --data /var/lib/flare\n"
                 "  flared --data /backups/monday --http 127.0.0.1:8081\n",
     .options = data_options,
     .run = backup_run},
    {.name = "inspect",
     .operands = "",
     .summary = "Show what a data directory holds, without a broker",
     .examples = "  flare inspect --data /var/lib/flare\n",
     .options = data_options,
     .run = inspect_run},
    {.name = "verify",
     .operands = "",
     .summary = "Read everything in a data directory and report damage",
     .details = "Exits 65 when it finds any.",
     .examples = "  flare verify --data /backups/monday\n",
     .options = data_options,
     .run = verify_run},
    {.name = NULL},
};
