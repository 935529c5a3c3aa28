#include "broker/core/check.h"

#include "broker/base/bytes.h"
#include "broker/core/catalog_row.h"
#include "broker/core/check_parts.h"

enum { TEXT_MAX = 4096 };

void check_keep(struct checking *checking)
{
    struct check_report *report = checking->report;
    const struct buf *text = &checking->text;
    report->problem_count++;
    if (report->kept == CHECK_PROBLEMS_MAX) {
        return;
    }
    size_t size = text->size < CHECK_PROBLEM_SIZE - 1 ? text->size : CHECK_PROBLEM_SIZE - 1;
    char *problem = report->problems[report->kept++];
    memcpy(problem, text->size == 0 ? "" : (const char *)text->data, size);
    problem[size] = '\0';
}

err_t check_absorb(struct checking *checking, err_t err)
{
    if (err_code(err) != ERR_CORRUPT) {
        return err;
    }
    CHECK_PROBLEM(checking, "%s", err_message(err));
    err_free(err);
    return NULL;
}

err_t check_table(struct checking *checking, enum store_table table, check_row row)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    bool found = false;
    TRY(store_cursor_open(checking->txn, table, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of("", 0), &found));
    while (found) {
        TRY_OUT(row(checking, cursor->key, cursor->value));
        TRY_OUT(store_cursor_next(cursor, &found));
    }
out:
    store_cursor_close(cursor);
    return err;
}

static err_t count_rows(struct checking *checking)
{
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        uint64_t *rows = &checking->report->rows[table];
        TRY(store_entries(checking->txn, (enum store_table)table, rows));
    }
    return NULL;
}

/* Leaves checking->core NULL, with a problem told, when what is stored cannot be loaded. */
static err_t load_core(struct checking *checking)
{
    struct machine *machine = NULL;
    TRY(core_create(&(struct core_options){0}, &machine));
    err_t err = machine->ops->load(machine, checking->txn);
    if (err != NULL) {
        machine->ops->destroy(machine);
        return check_absorb(checking, err);
    }
    checking->core = container_of(machine, struct core, machine);
    return NULL;
}

static err_t check_parts(struct checking *checking)
{
    TRY(count_rows(checking));
    TRY(load_core(checking));
    TRY(check_log(checking));
    if (checking->core == NULL) {
        return NULL; /* nothing can be compared with what cannot be loaded */
    }
    TRY(check_shards(checking));
    TRY(check_lanes(checking));
    TRY(check_segments(checking));
    return check_times(checking);
}

err_t check_volume(struct store *store, struct check_report *report)
{
    struct checking checking = {.report = report};
    *report = (struct check_report){0};
    TRY(store_begin(store, STORE_READ, &checking.txn));
    buf_init(&checking.text, TEXT_MAX);
    map_init(&checking.live);
    pool_init(&checking.live_pool, sizeof(struct check_live));
    err_t err = check_parts(&checking);
    if (checking.core != NULL) {
        checking.core->machine.ops->destroy(&checking.core->machine);
    }
    pool_deinit(&checking.live_pool);
    map_deinit(&checking.live);
    buf_deinit(&checking.text);
    store_abort(checking.txn);
    return err;
}

/* ---- the catalog ---------------------------------------------------------------------------- */

/* The greatest ids in use. */
struct ids {
    uint32_t topic;
    uint32_t shard;
    uint32_t sub;
};

static uint32_t greater(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static struct ids greatest_ids(const struct catalog *catalog)
{
    struct ids ids = {0};
    const struct catalog_topic *topic = catalog_topic_after(catalog, span_of("", 0));
    while (topic != NULL) {
        ids.topic = greater(ids.topic, topic->id);
        for (uint32_t index = 0; index < topic->shard_count; index++) {
            ids.shard = greater(ids.shard, topic->shards[index].place.shard_id);
        }
        const struct catalog_sub *sub = catalog_sub_after(topic, span_of("", 0));
        while (sub != NULL) {
            ids.sub = greater(ids.sub, sub->id);
            sub = catalog_sub_after(topic, span_text(sub->name));
        }
        topic = catalog_topic_after(catalog, span_text(topic->name));
    }
    return ids;
}

static err_t check_next_ids(struct checking *checking, const struct catalog *catalog)
{
    struct catalog_next next;
    struct span value;
    bool found = false;
    struct ids ids = greatest_ids(catalog);
    TRY(store_get(checking->txn, STORE_META, span_text(CATALOG_META_KEY), &value, &found));
    if (!found && ids.topic == 0) {
        return NULL;
    }
    if (!found || !catalog_row_read_next(value, &next)) {
        CHECK_PROBLEM(checking, "the catalog's own record is missing or damaged");
        return NULL;
    }
    if (next.topic_id <= ids.topic || next.shard_id <= ids.shard || next.sub_id <= ids.sub) {
        CHECK_PROBLEM(checking, "ids in use would be given again: topic %u, shard %u, sub %u",
                      next.topic_id, next.shard_id, next.sub_id);
    }
    return NULL;
}

static err_t check_catalog_rows(struct checking *checking, struct catalog *catalog)
{
    struct store_cursor *cursor = NULL;
    err_t err = NULL;
    bool found = false;
    TRY(store_cursor_open(checking->txn, STORE_CATALOG, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_of("", 0), &found));
    while (found) {
        err = catalog_row_take(catalog, cursor->key, cursor->value);
        TRY_OUT(check_absorb(checking, err));
        TRY_OUT(store_cursor_next(cursor, &found));
    }
out:
    store_cursor_close(cursor);
    return err;
}

static err_t check_catalog_parts(struct checking *checking, struct catalog *catalog)
{
    TRY(count_rows(checking));
    TRY(check_catalog_rows(checking, catalog));
    return check_next_ids(checking, catalog);
}

err_t check_catalog(struct store *store, struct check_report *report)
{
    struct checking checking = {.report = report};
    *report = (struct check_report){0};
    struct catalog *catalog = catalog_create();
    if (catalog == NULL) {
        return ERR(MEMORY, "no memory for the catalog");
    }
    buf_init(&checking.text, TEXT_MAX);
    err_t err = store_begin(store, STORE_READ, &checking.txn);
    if (err == NULL) {
        err = check_catalog_parts(&checking, catalog);
        store_abort(checking.txn);
    }
    buf_deinit(&checking.text);
    catalog_destroy(catalog);
    return err;
}
