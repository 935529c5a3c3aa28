/* What both bodies share: the checks of keys and of the order of calls, then the body's own
 * function. */
#include "storage/store.h"

#include <assert.h>

static err_t store_check_key(struct span key)
{
    if (key.size == 0 || key.size > STORE_KEY_MAX) {
        return ERR(INVALID, "a key of %zu bytes, not 1 to %d", key.size, STORE_KEY_MAX);
    }
    return NULL;
}

static const struct store_ops *store_ops_of(const struct store_txn *txn, enum store_table table)
{
    assert(table < STORE_TABLE_COUNT);
    assert(!txn->failed);
    return txn->store->ops;
}

err_t store_begin(struct store *store, enum store_mode mode, struct store_txn **out)
{
    struct store_txn *txn;
    TRY(store->ops->begin(store, mode, &txn));
    txn->store = store;
    txn->mode = mode;
    txn->failed = false;
    txn->changes = 0;
    *out = txn;
    return NULL;
}

err_t store_commit(struct store_txn *txn)
{
    const struct store_ops *ops = txn->store->ops;
    assert(txn->mode == STORE_WRITE);
    assert(!txn->failed);
    TRY(ops->commit(txn));
    return NULL;
}

void store_abort(struct store_txn *txn)
{
    txn->store->ops->abort(txn);
}

err_t store_get(struct store_txn *txn, enum store_table table, struct span key, struct span *out,
                bool *found)
{
    const struct store_ops *ops = store_ops_of(txn, table);
    TRY(store_check_key(key));
    TRY(ops->get(txn, table, key, out, found));
    return NULL;
}

/* Every change passes here, so that a failed one leaves only store_abort and no cursor steps on
 * from a place that has moved. */
static err_t store_changed(struct store_txn *txn, err_t err)
{
    txn->changes++;
    if (err != NULL) {
        txn->failed = true;
        return err_passed(err, __func__);
    }
    return NULL;
}

static err_t store_write(struct store_txn *txn, enum store_table table, struct span key,
                         struct span value, bool append)
{
    const struct store_ops *ops = store_ops_of(txn, table);
    assert(txn->mode == STORE_WRITE);
    err_t err = store_check_key(key);
    if (err == NULL) {
        err = ops->put(txn, table, key, value, append);
    }
    return store_changed(txn, err);
}

err_t store_put(struct store_txn *txn, enum store_table table, struct span key, struct span value)
{
    return store_write(txn, table, key, value, false);
}

err_t store_append(struct store_txn *txn, enum store_table table, struct span key,
                   struct span value)
{
    return store_write(txn, table, key, value, true);
}

err_t store_remove(struct store_txn *txn, enum store_table table, struct span key, bool *found)
{
    const struct store_ops *ops = store_ops_of(txn, table);
    assert(txn->mode == STORE_WRITE);
    bool ignored;
    err_t err = store_check_key(key);
    if (err == NULL) {
        err = ops->remove(txn, table, key, found != NULL ? found : &ignored);
    }
    return store_changed(txn, err);
}

err_t store_cursor_open(struct store_txn *txn, enum store_table table, struct store_cursor **out)
{
    const struct store_ops *ops = store_ops_of(txn, table);
    struct store_cursor *cursor;
    TRY(ops->cursor_open(txn, table, &cursor));
    cursor->txn = txn;
    cursor->table = table;
    cursor->changes = txn->changes;
    cursor->key = cursor->value = (struct span){NULL, 0};
    *out = cursor;
    return NULL;
}

/* Ends each move of a cursor: what was not found is nowhere. */
static err_t store_cursor_moved(struct store_cursor *cursor, err_t err, bool *found)
{
    if (err != NULL || !*found) {
        cursor->key = cursor->value = (struct span){NULL, 0};
    }
    if (err != NULL) {
        return err_passed(err, __func__);
    }
    cursor->changes = cursor->txn->changes;
    return NULL;
}

err_t store_cursor_seek(struct store_cursor *cursor, struct span key, bool *found)
{
    const struct store_ops *ops = store_ops_of(cursor->txn, cursor->table);
    if (key.size > STORE_KEY_MAX) {
        return ERR(INVALID, "a key of %zu bytes, not up to %d", key.size, STORE_KEY_MAX);
    }
    return store_cursor_moved(cursor, ops->cursor_seek(cursor, key, found), found);
}

err_t store_cursor_last(struct store_cursor *cursor, bool *found)
{
    const struct store_ops *ops = store_ops_of(cursor->txn, cursor->table);
    return store_cursor_moved(cursor, ops->cursor_last(cursor, found), found);
}

static err_t store_cursor_step(struct store_cursor *cursor,
                               err_t (*step)(struct store_cursor *, bool *), bool *found)
{
    if (cursor->key.size == 0) {
        *found = false;
        return NULL;
    }
    assert(cursor->changes == cursor->txn->changes);
    return store_cursor_moved(cursor, step(cursor, found), found);
}

err_t store_cursor_next(struct store_cursor *cursor, bool *found)
{
    const struct store_ops *ops = store_ops_of(cursor->txn, cursor->table);
    return store_cursor_step(cursor, ops->cursor_next, found);
}

err_t store_cursor_prev(struct store_cursor *cursor, bool *found)
{
    const struct store_ops *ops = store_ops_of(cursor->txn, cursor->table);
    return store_cursor_step(cursor, ops->cursor_prev, found);
}

void store_cursor_close(struct store_cursor *cursor)
{
    if (cursor != NULL) {
        cursor->txn->store->ops->cursor_close(cursor);
    }
}

err_t store_entries(struct store_txn *txn, enum store_table table, uint64_t *out)
{
    const struct store_ops *ops = store_ops_of(txn, table);
    TRY(ops->entries(txn, table, out));
    return NULL;
}

err_t store_grow(struct store *store)
{
    TRY(store->ops->grow(store));
    return NULL;
}

err_t store_reserve(struct store *store, uint64_t size)
{
    TRY(store->ops->reserve(store, size));
    return NULL;
}

err_t store_backup(struct store *store, const char *path)
{
    TRY(store->ops->backup(store, path));
    return NULL;
}

void store_stats(struct store *store, struct store_stats *out)
{
    store->ops->stats(store, out);
}

err_t store_maintain(struct store *store)
{
    TRY(store->ops->maintain(store));
    return NULL;
}

void store_close(struct store *store)
{
    if (store != NULL) {
        store->ops->close(store);
    }
}
