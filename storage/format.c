#include "storage/format.h"

#include <assert.h>
#include <stdio.h>
#include <xxhash.h>

#include "broker/base/bytes.h"

/* The record under "format": fixed places, little-endian. */
enum {
    FORMAT_RECORD_VERSION = 1,
    FORMAT_AT_VERSION = 1,
    FORMAT_AT_ROLE = 3,
    FORMAT_AT_NUMBER = FORMAT_AT_ROLE + FORMAT_ROLE_MAX + 1,
    FORMAT_AT_IDENTITY = FORMAT_AT_NUMBER + 4,
    FORMAT_AT_CREATED = FORMAT_AT_IDENTITY + 8,
    FORMAT_AT_CHECKSUM = FORMAT_AT_CREATED + 8,
    FORMAT_RECORD_SIZE = FORMAT_AT_CHECKSUM + 8
};

enum { FORMAT_MIGRATION_KEY_SIZE = 24, FORMAT_MIGRATION_NUMBER_MAX = 9999 };

static const char format_key[] = "format";

/* Nothing in the tables changes: a program that does not know of the journal must stay away from
 * what is in it, and the raised format says so. */
static err_t format_add_journal(struct store_txn *txn)
{
    (void)txn;
    return NULL;
}

/* Format 1 is the first; format 2 has a journal beside each volume. */
static const struct format_migration format_steps[] = {{1, "journal", format_add_journal}};
static const struct format_migrations format_migrations = {format_steps, sizeof format_steps /
                                                                             sizeof *format_steps};

static struct span format_migration_key(uint32_t number, char key[FORMAT_MIGRATION_KEY_SIZE])
{
    assert(number >= 1);
    assert(number <= FORMAT_MIGRATION_NUMBER_MAX);
    int size = snprintf(key, FORMAT_MIGRATION_KEY_SIZE, "migration/%04u", number);
    return span_of(key, (size_t)size);
}

static err_t format_note_migration(struct store_txn *txn, const struct format_migration *migration)
{
    char key[FORMAT_MIGRATION_KEY_SIZE];
    char value[64];
    int size = snprintf(value, sizeof value, "%c%s", FORMAT_RECORD_VERSION, migration->name);
    assert(size > 0 && (size_t)size < sizeof value);
    TRY(store_put(txn, STORE_META, format_migration_key(migration->number, key),
                  span_of(value, (size_t)size)));
    return NULL;
}

static err_t format_put_marker(struct store_txn *txn, const struct format_marker *marker)
{
    uint8_t record[FORMAT_RECORD_SIZE] = {FORMAT_RECORD_VERSION};
    bytes_put_le16(record + FORMAT_AT_VERSION, marker->version);
    memcpy(record + FORMAT_AT_ROLE, marker->role, strnlen(marker->role, FORMAT_ROLE_MAX));
    bytes_put_le32(record + FORMAT_AT_NUMBER, marker->number);
    bytes_put_le64(record + FORMAT_AT_IDENTITY, marker->identity);
    bytes_put_le64(record + FORMAT_AT_CREATED, marker->created_ms);
    bytes_put_le64(record + FORMAT_AT_CHECKSUM, XXH3_64bits(record, FORMAT_AT_CHECKSUM));
    TRY(store_put(txn, STORE_META, span_text(format_key), span_of(record, sizeof record)));
    return NULL;
}

err_t format_write(struct store_txn *txn, const struct format_marker *marker)
{
    TRY(format_put_marker(txn, marker));
    for (size_t i = 0; i < format_migrations.count; i++) {
        TRY(format_note_migration(txn, &format_migrations.items[i]));
    }
    return NULL;
}

err_t format_read(struct store_txn *txn, struct format_marker *out)
{
    struct span record;
    bool found;
    TRY(store_get(txn, STORE_META, span_text(format_key), &record, &found));
    if (!found) {
        return ERR(FORMAT, "there is no format marker: not an environment of Flare");
    }
    if (record.size < FORMAT_AT_ROLE) {
        return ERR(FORMAT, "the format marker has only %zu bytes", record.size);
    }
    /* Before the rest is looked at: a newer format may have another rest. */
    struct format_marker marker = {.version = bytes_get_le16(record.data + FORMAT_AT_VERSION)};
    if (marker.version > FORMAT_VERSION) {
        return ERR(FORMAT, "the data has format %u, this program knows formats up to %d",
                   marker.version, FORMAT_VERSION);
    }
    if (record.size != FORMAT_RECORD_SIZE || record.data[0] != FORMAT_RECORD_VERSION ||
        bytes_get_le64(record.data + FORMAT_AT_CHECKSUM) !=
            XXH3_64bits(record.data, FORMAT_AT_CHECKSUM)) {
        return ERR(FORMAT, "the format marker is damaged");
    }
    memcpy(marker.role, record.data + FORMAT_AT_ROLE, FORMAT_ROLE_MAX);
    marker.number = bytes_get_le32(record.data + FORMAT_AT_NUMBER);
    marker.identity = bytes_get_le64(record.data + FORMAT_AT_IDENTITY);
    marker.created_ms = bytes_get_le64(record.data + FORMAT_AT_CREATED);
    *out = marker;
    return NULL;
}

static err_t format_has_run(struct store_txn *txn, const struct format_migration *migration,
                            bool *has_run)
{
    char key[FORMAT_MIGRATION_KEY_SIZE];
    struct span value;
    TRY(store_get(txn, STORE_META, format_migration_key(migration->number, key), &value, has_run));
    return NULL;
}

/* The marker rises with the first step: from then on a program that knows only the old format must
 * stay away. */
static err_t format_run_in(struct store_txn *txn, const struct format_migration *migration)
{
    bool has_run;
    TRY(format_has_run(txn, migration, &has_run));
    if (has_run) {
        return NULL;
    }
    struct format_marker marker;
    TRY(format_read(txn, &marker));
    marker.version = FORMAT_VERSION;
    TRY(format_put_marker(txn, &marker));
    TRY(migration->run(txn));
    TRY(format_note_migration(txn, migration));
    return NULL;
}

err_t format_migrate_with(struct store *store, struct format_migrations migrations)
{
    for (size_t i = 0; i < migrations.count; i++) {
        struct store_txn *txn;
        TRY(store_begin(store, STORE_WRITE, &txn));
        err_t err = format_run_in(txn, &migrations.items[i]);
        if (err != NULL) {
            store_abort(txn);
            return err_passed(err, __func__);
        }
        TRY(store_commit(txn));
    }
    return NULL;
}

err_t format_check_with(struct store_txn *txn, struct format_migrations migrations)
{
    for (size_t i = 0; i < migrations.count; i++) {
        bool has_run;
        TRY(format_has_run(txn, &migrations.items[i], &has_run));
        if (!has_run) {
            return ERR(FORMAT, "migration %u (%s) has not run: start the broker on it once",
                       migrations.items[i].number, migrations.items[i].name);
        }
    }
    return NULL;
}

err_t format_migrate(struct store *store)
{
    TRY(format_migrate_with(store, format_migrations));
    return NULL;
}

err_t format_check(struct store_txn *txn)
{
    TRY(format_check_with(txn, format_migrations));
    return NULL;
}
