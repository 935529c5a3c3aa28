/* flare backup, inspect, verify: a data directory, read without a broker or beside a running one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "broker/base/clock.h"
#include "broker/core/check.h"
#include "storage/lmdb.h"
#include "storage/verify.h"
#include "tools/flare/journals.h"
#include "tools/flare/output.h"
#include "tools/flare/progress.h"

enum { DATA_DIRECTORY };

static const struct option_row data_options[] = {
    [DATA_DIRECTORY] = {.name = "data",
                        .letter = 'd',
                        .kind = OPTION_TEXT,
                        .value = "DIR",
                        .help = "the data directory; default $FLARE_DATA or ./flare-data"},
    {.name = NULL},
};

static const char *data_directory(const struct arguments *arguments)
{
    const char *environment = getenv("FLARE_DATA");
    if (arguments->values[DATA_DIRECTORY].set) {
        return arguments->values[DATA_DIRECTORY].text;
    }
    return environment != NULL && environment[0] != '\0' ? environment : "./flare-data";
}

/* ---- long work, watched ---- */

/* One piece of work in a thread of its own, so that progress can be shown meanwhile. */
struct task {
    err_t (*work)(struct task *task);
    const struct datafile *file;
    const char *path;            /* of a copy */
    uint64_t before;             /* bytes of the copies before it */
    struct check_report *report; /* of a check */
    pthread_t thread;
    err_t err;
};

static void *task_main(void *user)
{
    struct task *task = user;
    task->err = task->work(task);
    return NULL;
}

/* How far it is comes from `done`, if it can be told at all. */
static err_t task_run(struct task *task, struct progress *progress,
                      uint64_t (*done)(const struct task *task))
{
    int rc = pthread_create(&task->thread, NULL, task_main, task);
    if (rc != 0) {
        return ERR(MEMORY, "start a thread: %s", strerror(rc));
    }
    bool joined = false;
    while (!joined) {
        joined = progress_join(task->thread);
        progress_step(progress, done == NULL ? 0 : done(task));
    }
    return task->err;
}

/* ---- backup ---- */

static err_t copy_work(struct task *task)
{
    return store_backup(task->file->store, task->path);
}

/* What has been written of the copy, with the files before it. */
static uint64_t copied(const struct task *task)
{
    struct stat status;
    bool known = stat(task->path, &status) == 0;
    return task->before + (known ? (uint64_t)status.st_size : 0);
}

static uint64_t used_size(const struct datafile *file)
{
    struct store_stats stats;
    store_stats(file->store, &stats);
    return stats.used_size;
}

/* "directory/name"; false when it is too long. */
static bool join(const char *directory, const char *name, char out[DATAFILES_PATH_MAX])
{
    int size = snprintf(out, DATAFILES_PATH_MAX, "%s/%s", directory, name);
    return size > 0 && size < DATAFILES_PATH_MAX;
}

/* The same for the journal of a file. */
static bool join_journal(const char *directory, const struct datafile *file,
                         char out[DATAFILES_PATH_MAX])
{
    const char *slash = strrchr(file->journal_path, '/');
    return join(directory, slash == NULL ? file->journal_path : slash + 1, out);
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
        if (join_journal(directory, &files->files[i], path)) {
            (void)unlink(path);
        }
    }
    (void)rmdir(directory);
}

/* The catalog, the first file, goes last: it then knows every topic and subscription of the
 * volumes' copies, and gives none of their ids out again. What only it knows, start-up makes in the
 * volumes. */
static err_t copy_all(struct cli *cli, const struct datafiles *files, const char *directory)
{
    struct progress progress;
    uint64_t total = 0;
    uint64_t before = 0;
    err_t err = NULL;
    for (uint32_t i = 0; i < files->count; i++) {
        total += used_size(&files->files[i]);
    }
    progress_init(&progress, cli->quiet);
    progress_begin(&progress, "copying", total);
    progress.unit = PROGRESS_BYTES;
    for (uint32_t i = files->count; i > 0 && err == NULL; i--) {
        const struct datafile *file = &files->files[i - 1];
        char path[DATAFILES_PATH_MAX];
        char journal[DATAFILES_PATH_MAX];
        struct task task = {.work = copy_work, .file = file, .path = path, .before = before};
        if (!join(directory, file->name, path) || !join_journal(directory, file, journal)) {
            err = ERR(INVALID, "the path of the backup is too long");
            break;
        }
        err = journals_copy(file, journal);
        if (err == NULL) {
            err = task_run(&task, &progress, copied);
        }
        before += used_size(file);
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
    {"FILE", "name", FIELD_TEXT},
    {"ROLE", "role", FIELD_TEXT},
    {"FORMAT", "format", FIELD_NUMBER},
    {"IDENTITY", "identity", FIELD_TEXT},
    {"CREATED", "created_at", FIELD_TEXT},
    {"USED", "used_bytes", FIELD_SIZE},
    {"SIZE", "file_bytes", FIELD_SIZE},
    {"JOURNAL", "journal_commands", FIELD_NUMBER},
    {.title = NULL},
};

static const struct field line_fields[] = {
    {"FILE", "file", FIELD_TEXT}, {"HOLDS", "text", FIELD_TEXT}, {.title = NULL}};

struct inspect_lines {
    const char *file;
    json_t *items;
};

static void inspect_on_line(void *user, const char *text)
{
    const struct inspect_lines *lines = user;
    (void)json_array_append_new(lines->items,
                                json_pack("{s:s, s:s}", "file", lines->file, "text", text));
}

/* A journal that cannot be read, or not at this moment of a running broker, has no number. */
static json_t *describe_journal(const struct datafile *file)
{
    uint64_t commands = 0;
    err_t err = journals_check(file, &commands);
    json_t *count = err == NULL ? json_integer((json_int_t)commands) : json_null();
    err_free(err);
    return count;
}

static json_t *describe_file(const struct datafile *file)
{
    struct store_stats stats;
    char identity[20];
    char created[CLOCK_ISO_SIZE];
    store_stats(file->store, &stats);
    (void)snprintf(identity, sizeof identity, "%016" PRIx64, file->marker.identity);
    clock_iso(file->marker.created_ms, created);
    return json_pack("{s:s, s:s, s:i, s:s, s:s, s:I, s:I, s:o}", "name", file->name, "role",
                     file->marker.role, "format", (int)file->marker.version, "identity", identity,
                     "created_at", created, "used_bytes", (json_int_t)stats.used_size, "file_bytes",
                     (json_int_t)stats.file_size, "journal_commands", describe_journal(file));
}

static err_t inspect_run(struct cli *cli, const struct arguments *arguments)
{
    struct datafiles files;
    struct output output;
    err_t err = NULL;
    TRY(datafiles_open(data_directory(arguments), &files));
    json_t *list = json_array();
    json_t *holds = json_array();
    for (uint32_t i = 0; i < files.count && err == NULL; i++) {
        struct inspect_lines lines = {files.files[i].name, holds};
        (void)json_array_append_new(list, describe_file(&files.files[i]));
        err = check_inspect(files.files[i].store, inspect_on_line, &lines);
    }
    if (err == NULL) {
        output_init(&output, cli, inspect_fields);
        output_items(&output, list);
        (void)fputs(cli->format == CLI_TABLE ? "\n" : "", stdout);
        output_init(&output, cli, line_fields);
        output_items(&output, holds);
    }
    json_decref(list);
    json_decref(holds);
    datafiles_close(&files);
    return err;
}

/* ---- verify ---- */

struct verify {
    const char *directory;
    char file[32]; /* being looked at */
    struct progress progress;
    uint64_t files;
    uint64_t pages;
    uint64_t records;
    uint64_t commands; /* in journals */
    uint64_t unnamed;  /* faults beyond those whose text was kept */
    json_t *faults;
};

static const struct field fault_fields[] = {
    {"FILE", "file", FIELD_TEXT}, {"FAULT", "fault", FIELD_TEXT}, {.title = NULL}};

static void verify_begin(struct verify *verify, const char *deed, const char *file)
{
    char text[PROGRESS_DEED_SIZE];
    (void)snprintf(verify->file, sizeof verify->file, "%s", file);
    (void)snprintf(text, sizeof text, "%s %s", deed, verify->file);
    progress_begin(&verify->progress, text, 0);
}

static void verify_on_fault(void *context, const char *text)
{
    struct verify *verify = context;
    (void)json_array_append_new(verify->faults,
                                json_pack("{s:s, s:s}", "file", verify->file, "fault", text));
}

static void verify_on_pages(void *context, uint64_t done, uint64_t pages)
{
    struct verify *verify = context;
    verify->progress.total = pages;
    progress_step(&verify->progress, done);
}

/* An error of one file is no reason to skip the next. */
static void verify_took(struct verify *verify, err_t err)
{
    if (err != NULL) {
        verify_on_fault(verify, err_message(err));
        err_free(err);
    }
}

/* The pages of every file there is: without LMDB, which trusts what it maps. */
static void verify_pages(struct verify *verify)
{
    const struct verify_sink sink = {verify, verify_on_fault, verify_on_pages};
    char name[32] = "catalog.mdb";
    char path[DATAFILES_PATH_MAX];
    for (uint32_t i = 0; join(verify->directory, name, path) && access(path, F_OK) == 0; i++) {
        struct verify_figures figures = {0};
        verify_begin(verify, "reading", name);
        verify_took(verify, verify_file(path, &sink, &figures));
        verify->files++;
        verify->pages += figures.used_count;
        (void)snprintf(name, sizeof name, "volume-%u.mdb", i);
    }
}

static err_t check_work(struct task *task)
{
    bool catalog = strcmp(task->file->marker.role, "catalog") == 0;
    return catalog ? check_catalog(task->file->store, task->report)
                   : check_volume(task->file->store, task->report);
}

static void verify_file_records(struct verify *verify, const struct datafile *file,
                                struct check_report *report)
{
    struct task task = {.work = check_work, .file = file, .report = report};
    memset(report, 0, sizeof *report);
    verify_begin(verify, "checking", file->name);
    verify_took(verify, task_run(&task, &verify->progress, NULL));
    for (uint32_t i = 0; i < report->kept; i++) {
        verify_on_fault(verify, report->problems[i]);
    }
    uint64_t journal_commands = 0;
    verify_took(verify, journals_check(file, &journal_commands));
    verify->commands += journal_commands;
    verify->unnamed += report->problem_count - report->kept;
    verify->records += report->records;
}

/* What the pages hold; only called when they are whole. */
static err_t verify_records(struct verify *verify)
{
    struct datafiles files;
    TRY(datafiles_open(verify->directory, &files));
    struct check_report *report = malloc(sizeof *report);
    err_t err = report == NULL ? ERR(MEMORY, "no memory for a report") : NULL;
    for (uint32_t i = 0; i < files.count && err == NULL; i++) {
        verify_file_records(verify, &files.files[i], report);
    }
    free(report);
    datafiles_close(&files);
    return err;
}

/* Keeps brokers away while the files are read: they must not be written. A copy without a lock file
 * needs none. */
static err_t lock_directory(const char *directory, int *out)
{
    char path[DATAFILES_PATH_MAX];
    if (!join(directory, "lock", path)) {
        return ERR(INVALID, "the path of the data directory is too long");
    }
    *out = open(path, O_RDONLY | O_CLOEXEC);
    if (*out >= 0 && flock(*out, LOCK_SH | LOCK_NB) != 0) {
        (void)close(*out);
        return ERR(LOCKED, "a broker runs on %s: verify a backup of it (flare backup)", directory);
    }
    return NULL;
}

static err_t verify_report(struct cli *cli, const struct verify *verify)
{
    struct output output;
    uint64_t faults = json_array_size(verify->faults);
    if (faults > 0) {
        output_init(&output, cli, fault_fields);
        output_items(&output, verify->faults);
        return ERR(CORRUPT, "%" PRIu64 " faults in %" PRIu64 " files", faults + verify->unnamed,
                   verify->files);
    }
    cli_note(cli,
             "%" PRIu64 " files, %" PRIu64 " pages, %" PRIu64 " messages, %" PRIu64
             " commands in journals: no fault",
             verify->files, verify->pages, verify->records, verify->commands);
    return NULL;
}

static err_t verify_run(struct cli *cli, const struct arguments *arguments)
{
    struct verify verify = {.directory = data_directory(arguments)};
    int lock = -1;
    TRY(lock_directory(verify.directory, &lock));
    verify.faults = json_array();
    progress_init(&verify.progress, cli->quiet);
    verify_pages(&verify);
    err_t err = json_array_size(verify.faults) > 0 ? NULL : verify_records(&verify);
    progress_done(&verify.progress);
    if (err == NULL) {
        err = verify_report(cli, &verify);
    }
    json_decref(verify.faults);
    if (lock >= 0) {
        (void)close(lock);
    }
    return err;
}

const struct cli_command data_commands[] = {
    {.name = "backup",
     .scope = CLI_LOCAL,
     .operands = "TARGET",
     .operands_min = 1,
     .operands_max = 1,
     .summary = "Copy a data directory, also while its broker runs",
     .details =
         "TARGET must not exist; it appears when the copy is whole and flushed, and opens as a\n"
         "data directory. Each file is copied as of one moment, with the journal of what was not\n"
         "yet in it.",
     .examples = "  flare backup /backups/monday --data /var/lib/flare\n"
                 "  flared --data /backups/monday --http 127.0.0.1:8081\n",
     .options = data_options,
     .run = backup_run},
    {.name = "inspect",
     .scope = CLI_LOCAL,
     .operands = "",
     .summary = "Show what a data directory holds, without a broker",
     .examples = "  flare inspect --data /var/lib/flare\n",
     .options = data_options,
     .run = inspect_run},
    {.name = "verify",
     .scope = CLI_LOCAL,
     .operands = "",
     .summary = "Read everything in a data directory and report damage",
     .details =
         "Checks each page, each record against the others, and the checksum of every message.\n"
         "Exits 65 when it finds damage. No broker may run on the directory: verify a backup\n"
         "instead.",
     .examples = "  flare verify --data /backups/monday\n",
     .options = data_options,
     .run = verify_run},
    {.name = NULL},
};
