#include "tools/flare/datafiles.h"

#include <stdio.h>
#include <string.h>

#include "broker/base/bytes.h"
#include "storage/lmdb.h"

static err_t read_marker(struct datafile *file)
{
    struct store_txn *txn = NULL;
    TRY(store_begin(file->store, STORE_READ, &txn));
    err_t err = format_read(txn, &file->marker);
    store_abort(txn);
    return err;
}

static err_t open_file(struct datafile *file, const char *directory, const char *name,
                       struct lmdb_options *options)
{
    int size = snprintf(file->path, sizeof file->path, "%s/%s", directory, name);
    if (size < 0 || size >= (int)sizeof file->path) {
        return ERR(INVALID, "the path of the data directory is too long");
    }
    (void)snprintf(file->name, sizeof file->name, "%s", name);
    /* "volume-0.mdb" has "volume-0.journal"; the catalog has none. */
    size_t stem = (size_t)size - strlen(".mdb");
    size = snprintf(file->journal_path, sizeof file->journal_path, "%.*s.journal", (int)stem,
                    file->path);
    if (size < 0 || size >= (int)sizeof file->journal_path) {
        return ERR(INVALID, "the path of the data directory is too long");
    }
    options->path = file->path;
    options->read_only = true;
    TRY(lmdb_store_open(options, &file->store));
    return read_marker(file);
}

/* How many volumes the catalog says there are. */
static err_t read_volume_count(struct store *catalog, uint32_t *out)
{
    struct store_txn *txn = NULL;
    struct span value;
    bool found = false;
    TRY(store_begin(catalog, STORE_READ, &txn));
    err_t err = store_get(txn, STORE_META, span_text("volumes"), &value, &found);
    bool good = err == NULL && found && value.size == 4;
    uint32_t count = good ? bytes_get_le32(value.data) : 0;
    store_abort(txn);
    TRY(err);
    if (!good || count > DATAFILES_VOLUMES_MAX) {
        return ERR(CORRUPT, "the catalog's count of volumes is missing or damaged");
    }
    *out = count;
    return NULL;
}

static err_t open_all(const char *directory, struct datafiles *files)
{
    struct lmdb_options options = {.role = "catalog"};
    uint32_t volumes = 0;
    files->count = 1;
    TRY(open_file(&files->files[0], directory, "catalog.mdb", &options));
    TRY(read_volume_count(files->files[0].store, &volumes));
    for (uint32_t i = 0; i < volumes; i++) {
        char name[32];
        struct lmdb_options volume = {
            .role = "volume", .number = i, .node_identity = files->files[0].marker.identity};
        (void)snprintf(name, sizeof name, "volume-%u.mdb", i);
        files->count = i + 2;
        err_t err = open_file(&files->files[i + 1], directory, name, &volume);
        if (err_code(err) == ERR_NOT_FOUND) {
            err_free(err);
            return ERR(CORRUPT, "%s is missing from %s", name, directory);
        }
        TRY(err);
    }
    return NULL;
}

err_t datafiles_open(const char *directory, struct datafiles *out)
{
    memset(out, 0, sizeof *out);
    err_t err = open_all(directory, out);
    if (err != NULL) {
        datafiles_close(out);
        return err_passed(err, __func__);
    }
    return NULL;
}

void datafiles_close(struct datafiles *files)
{
    for (uint32_t i = 0; i < files->count; i++) {
        store_close(files->files[i].store);
    }
    files->count = 0;
}
