/* A write transaction changes the tables at once and keeps a list of what it changed: a commit
 * frees what was replaced, an abort takes the list back from its end. The order matters:
 * memory_table.h promises that taking back cannot run out of memory. */
#include "storage/memory.h"

#include <assert.h>
#include <stdlib.h>

#include "storage/memory_table.h"

enum { MEMORY_UNDO_MIN = 64 };

/* One change: insert (fresh only), replace (both), remove (stale only). */
struct memory_undo {
    enum store_table table;
    struct memory_entry *fresh;
    struct memory_entry *stale;
};

struct memory_txn {
    struct store_txn base;
    uint64_t cursor_count;
};

struct memory_cursor {
    struct store_cursor base;
    struct memory_place place;
};

struct memory_store {
    struct store base;
    struct memory_table tables[STORE_TABLE_COUNT];
    struct memory_undo *undo;
    size_t undo_count;
    size_t undo_capacity;
    bool writing;
    uint64_t reader_count;
    uint64_t commit_count;
    enum err_code commit_code; /* what commits fail with; ERR_NONE: they do not */
    uint64_t fail_in;          /* calls up to the one that fails; 0: none does */
};

static struct memory_store *memory_of(struct store *store)
{
    return (struct memory_store *)store;
}

static err_t memory_call(struct store *store)
{
    struct memory_store *memory = memory_of(store);
    if (memory->fail_in > 0 && --memory->fail_in == 0) {
        return ERR(IO, "injected fault");
    }
    return NULL;
}

/* ---- transactions ---- */

static err_t memory_begin(struct store *store, enum store_mode mode, struct store_txn **out)
{
    struct memory_store *memory = memory_of(store);
    assert(!memory->writing);
    assert(mode == STORE_READ || memory->reader_count == 0);
    TRY(memory_call(store));
    struct memory_txn *txn = calloc(1, sizeof *txn);
    if (txn == NULL) {
        return ERR(MEMORY, "no memory for a transaction");
    }
    if (mode == STORE_WRITE) {
        memory->writing = true;
    } else {
        memory->reader_count++;
    }
    *out = &txn->base;
    return NULL;
}

static void memory_end(struct memory_txn *txn)
{
    struct memory_store *memory = memory_of(txn->base.store);
    assert(txn->cursor_count == 0);
    if (txn->base.mode == STORE_WRITE) {
        memory->writing = false;
    } else {
        memory->reader_count--;
    }
    free(txn);
}

static void memory_take_back(struct memory_store *memory, const struct memory_undo *undo)
{
    struct memory_table *table = &memory->tables[undo->table];
    struct memory_entry *entry = undo->fresh != NULL ? undo->fresh : undo->stale;
    struct memory_place place;
    bool found = memory_table_find(table, memory_entry_key(entry), &place);
    assert(found == (undo->fresh != NULL));
    if (undo->fresh == NULL) {
        bool inserted = memory_table_insert(table, place, undo->stale);
        assert(inserted);
        (void)inserted;
    } else if (undo->stale == NULL) {
        (void)memory_table_remove(table, place);
    } else {
        (void)memory_table_replace(table, place, undo->stale);
    }
}

/* The changes have become final (`keep`) or have all been taken back: frees the entries that are in
 * no table any more and the blocks that became empty with them. */
static void memory_settle(struct memory_store *memory, bool keep)
{
    for (size_t i = 0; i < memory->undo_count; i++) {
        struct memory_undo *undo = &memory->undo[i];
        struct memory_entry *gone = keep ? undo->stale : undo->fresh;
        if (gone != NULL) {
            memory_table_tidy(&memory->tables[undo->table], memory_entry_key(gone));
            memory_entry_destroy(gone);
        }
    }
    memory->undo_count = 0;
}

static void memory_abort(struct store_txn *base)
{
    struct memory_store *memory = memory_of(base->store);
    if (base->mode == STORE_WRITE) {
        for (size_t i = memory->undo_count; i > 0; i--) {
            memory_take_back(memory, &memory->undo[i - 1]);
        }
        memory_settle(memory, false);
    }
    memory_end((struct memory_txn *)base);
}

static err_t memory_commit(struct store_txn *base)
{
    struct memory_store *memory = memory_of(base->store);
    err_t err = memory_call(base->store);
    if (err == NULL && memory->commit_code != ERR_NONE) {
        err = err_make(memory->commit_code, __FILE__, __LINE__, __func__, "injected commit fault");
    }
    if (err != NULL) {
        memory_abort(base);
        return err_passed(err, __func__);
    }
    memory_settle(memory, true);
    memory->commit_count++;
    memory_end((struct memory_txn *)base);
    return NULL;
}

/* ---- entries ---- */

static err_t memory_get(struct store_txn *txn, enum store_table table, struct span key,
                        struct span *out, bool *found)
{
    TRY(memory_call(txn->store));
    const struct memory_table *entries = &memory_of(txn->store)->tables[table];
    struct memory_place place;
    *found = memory_table_find(entries, key, &place);
    if (*found) {
        *out = memory_entry_value(memory_table_at(entries, place));
    }
    return NULL;
}

static err_t memory_undo_reserve(struct memory_store *memory)
{
    if (memory->undo_count < memory->undo_capacity) {
        return NULL;
    }
    size_t capacity = memory->undo_capacity == 0 ? MEMORY_UNDO_MIN : memory->undo_capacity * 2;
    struct memory_undo *undo = realloc(memory->undo, capacity * sizeof *undo);
    if (undo == NULL) {
        return ERR(MEMORY, "no memory to note the %zuth change", memory->undo_count + 1);
    }
    memory->undo = undo;
    memory->undo_capacity = capacity;
    return NULL;
}

static err_t memory_put(struct store_txn *txn, enum store_table number, struct span key,
                        struct span value, bool append)
{
    TRY(memory_call(txn->store));
    struct memory_store *memory = memory_of(txn->store);
    struct memory_table *table = &memory->tables[number];
    TRY(memory_undo_reserve(memory));
    struct memory_place place;
    bool found = memory_table_find(table, key, &place);
    struct memory_place next = place;
    if (append && memory_table_forward(table, &next)) {
        return ERR(INVALID, "an appended key is not greater than every other");
    }
    struct memory_entry *fresh = memory_entry_create(key, value);
    if (fresh == NULL) {
        return ERR(MEMORY, "no memory for a value of %zu bytes", value.size);
    }
    struct memory_entry *stale = NULL;
    if (found) {
        stale = memory_table_replace(table, place, fresh);
    } else if (!memory_table_insert(table, place, fresh)) {
        memory_entry_destroy(fresh);
        return ERR(MEMORY, "no memory for a block of the table");
    }
    memory->undo[memory->undo_count++] =
        (struct memory_undo){.table = number, .fresh = fresh, .stale = stale};
    return NULL;
}

static err_t memory_remove(struct store_txn *txn, enum store_table number, struct span key,
                           bool *found)
{
    TRY(memory_call(txn->store));
    struct memory_store *memory = memory_of(txn->store);
    struct memory_table *table = &memory->tables[number];
    TRY(memory_undo_reserve(memory));
    struct memory_place place;
    *found = memory_table_find(table, key, &place);
    if (*found) {
        memory->undo[memory->undo_count++] =
            (struct memory_undo){.table = number, .stale = memory_table_remove(table, place)};
    }
    return NULL;
}

static err_t memory_entries(struct store_txn *txn, enum store_table table, uint64_t *out)
{
    TRY(memory_call(txn->store));
    *out = memory_of(txn->store)->tables[table].count;
    return NULL;
}

/* ---- cursors ---- */

static const struct memory_table *memory_table_of(const struct store_cursor *cursor)
{
    return &memory_of(cursor->txn->store)->tables[cursor->table];
}

static err_t memory_cursor_open(struct store_txn *txn, enum store_table table,
                                struct store_cursor **out)
{
    (void)table;
    TRY(memory_call(txn->store));
    struct memory_cursor *cursor = calloc(1, sizeof *cursor);
    if (cursor == NULL) {
        return ERR(MEMORY, "no memory for a cursor");
    }
    ((struct memory_txn *)txn)->cursor_count++;
    *out = &cursor->base;
    return NULL;
}

static void memory_cursor_close(struct store_cursor *base)
{
    ((struct memory_txn *)base->txn)->cursor_count--;
    free(base);
}

static void memory_cursor_show(struct memory_cursor *cursor, bool found)
{
    if (found) {
        const struct memory_entry *entry =
            memory_table_at(memory_table_of(&cursor->base), cursor->place);
        cursor->base.key = memory_entry_key(entry);
        cursor->base.value = memory_entry_value(entry);
    }
}

static err_t memory_cursor_seek(struct store_cursor *base, struct span key, bool *found)
{
    TRY(memory_call(base->txn->store));
    struct memory_cursor *cursor = (struct memory_cursor *)base;
    const struct memory_table *table = memory_table_of(base);
    cursor->place = (struct memory_place){0, 0};
    if (key.size > 0) {
        (void)memory_table_find(table, key, &cursor->place);
    }
    *found = memory_table_forward(table, &cursor->place);
    memory_cursor_show(cursor, *found);
    return NULL;
}

static err_t memory_cursor_last(struct store_cursor *base, bool *found)
{
    TRY(memory_call(base->txn->store));
    struct memory_cursor *cursor = (struct memory_cursor *)base;
    cursor->place = memory_table_end(memory_table_of(base));
    *found = memory_table_back(memory_table_of(base), &cursor->place);
    memory_cursor_show(cursor, *found);
    return NULL;
}

static err_t memory_cursor_next(struct store_cursor *base, bool *found)
{
    TRY(memory_call(base->txn->store));
    struct memory_cursor *cursor = (struct memory_cursor *)base;
    cursor->place.slot++;
    *found = memory_table_forward(memory_table_of(base), &cursor->place);
    memory_cursor_show(cursor, *found);
    return NULL;
}

static err_t memory_cursor_prev(struct store_cursor *base, bool *found)
{
    TRY(memory_call(base->txn->store));
    struct memory_cursor *cursor = (struct memory_cursor *)base;
    *found = memory_table_back(memory_table_of(base), &cursor->place);
    memory_cursor_show(cursor, *found);
    return NULL;
}

/* ---- the store ---- */

static err_t memory_nothing_to_do(struct store *store)
{
    (void)store;
    return NULL;
}

static err_t memory_reserve(struct store *store, uint64_t size)
{
    (void)store;
    (void)size;
    return NULL;
}

static err_t memory_backup(struct store *store, const char *path)
{
    (void)store;
    return ERR(NOT_IMPLEMENTED, "a store in memory has no backup to write to %s", path);
}

static void memory_stats(struct store *store, struct store_stats *out)
{
    struct memory_store *memory = memory_of(store);
    *out = (struct store_stats){.map_size = SIZE_MAX, .commit_count = memory->commit_count};
    for (size_t i = 0; i < STORE_TABLE_COUNT; i++) {
        out->used_size += memory->tables[i].size;
    }
    out->file_size = out->used_size;
}

static void memory_close(struct store *store)
{
    struct memory_store *memory = memory_of(store);
    assert(!memory->writing);
    assert(memory->reader_count == 0);
    for (size_t i = 0; i < STORE_TABLE_COUNT; i++) {
        memory_table_deinit(&memory->tables[i]);
    }
    free(memory->undo);
    free(memory);
}

static const struct store_ops memory_ops = {
    .begin = memory_begin,
    .commit = memory_commit,
    .abort = memory_abort,
    .get = memory_get,
    .put = memory_put,
    .remove = memory_remove,
    .cursor_open = memory_cursor_open,
    .cursor_seek = memory_cursor_seek,
    .cursor_last = memory_cursor_last,
    .cursor_next = memory_cursor_next,
    .cursor_prev = memory_cursor_prev,
    .cursor_close = memory_cursor_close,
    .entries = memory_entries,
    .grow = memory_nothing_to_do,
    .reserve = memory_reserve,
    .backup = memory_backup,
    .stats = memory_stats,
    .maintain = memory_nothing_to_do,
    .close = memory_close,
};

err_t memory_store_open(struct store **out)
{
    struct memory_store *memory = calloc(1, sizeof *memory);
    if (memory == NULL) {
        return ERR(MEMORY, "no memory for a store");
    }
    memory->base.ops = &memory_ops;
    for (size_t i = 0; i < STORE_TABLE_COUNT; i++) {
        memory_table_init(&memory->tables[i]);
    }
    *out = &memory->base;
    return NULL;
}

void memory_store_fail_commits(struct store *store, enum err_code code)
{
    assert(store->ops == &memory_ops);
    memory_of(store)->commit_code = code;
}

void memory_store_fail_call(struct store *store, uint64_t n)
{
    assert(store->ops == &memory_ops);
    memory_of(store)->fail_in = n;
}
